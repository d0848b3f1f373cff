"""`explain`: where in a photograph a unit is, what it is, and which hidden units carried it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from phosphene.attribution.settings import BASELINES, DEFAULT_METHODS, METHODS, AttributionSettings, parse_methods
from phosphene.cli import statuses
from phosphene.cli.options import (
    add_device,
    add_opening,
    add_out,
    add_printing,
    add_seed,
    add_size,
    add_trust,
    begin_run,
    count,
    has_network_argument,
    open_argument,
    positive,
    show_page,
)
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_classes
from phosphene.errors import InputError

if TYPE_CHECKING:
    from phosphene.attribution.maps import AttributionMaps
    from phosphene.attribution.pictures import Illustrations, PictureSettings
    from phosphene.networks.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
    parser.add_argument("unit", nargs="?", metavar="UNIT", help="by default the network's own first guess")
    maps = parser.add_argument_group("the maps")
    maps.add_argument(
        "--methods", metavar="A,B|all", help=f"{', '.join(METHODS)}; by default {', '.join(DEFAULT_METHODS)}"
    )
    maps.add_argument("--layer", metavar="LAYER", help="Grad-CAM's; by default the last one with a map before the unit")
    maps.add_argument(
        "--baseline", default="mean", metavar="KIND", help=f"what nothing is: {', '.join(BASELINES)} (mean)"
    )
    maps.add_argument(
        "--integration-steps", type=positive, default=50, metavar="N", help="of integrated gradients (50)"
    )
    maps.add_argument("--window", type=positive, metavar="N", help="pixels that occlusion covers at once, a side")
    maps.add_argument(
        "--samples", type=positive, default=0, metavar="N",
        help="SmoothGrad: saliency and guided backpropagation over so many noisy copies",
    )  # fmt: skip
    maps.add_argument(
        "--smooth", type=float, default=AttributionSettings.smoothing, metavar="SHARE",
        help="of the maps as they are shown: a Gaussian, as a share of the shorter side (0.015)",
    )  # fmt: skip
    maps.add_argument("--check", action="store_true", help="compare the maps with those of shuffled weights")
    beside = parser.add_argument_group("beside them")
    beside.add_argument(
        "--carriers", type=count, default=3, metavar="N", help="hidden units of each layer (3); 0: none"
    )
    beside.add_argument(
        "--steps", type=positive, metavar="N", help="of the unit's picture, by the recipe draft, and at most of others"
    )
    beside.add_argument("--no-picture", action="store_true", help="make no pictures of units")
    beside.add_argument(
        "--accentuate", action=argparse.BooleanOptionalAction, default=True,
        help="the photograph, changed as little as possible towards the unit",
    )  # fmt: skip
    beside.add_argument("--photographs", type=Path, metavar="DIR", help="show those that excite the unit most")
    beside.add_argument(
        "--atlas", metavar="DIR|URL",
        help="take pictures of units from it, and link to its page; the network is the atlas's by default",
    )  # fmt: skip
    beside.add_argument(
        "--into-atlas", action="store_true", help="put the page into the atlas too, whose units then link to it"
    )
    add_trust(parser, "atlas")
    add_out(parser)
    add_seed(parser)
    add_size(parser)
    add_device(parser, "of the network; by default the CPU")
    add_opening(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    settings = _settings(args)
    methods = None if args.methods is None else args.methods if args.methods == "all" else parse_methods(args.methods)
    named_by_atlas = args.atlas is not None and not has_network_argument(args)
    if not named_by_atlas:
        check_classes(args, [match[1]] if (match := re.fullmatch(r"class:(\w[^+*-]*)", args.unit or "")) else [])
    with importing():
        from phosphene.attribution.explain import explain
        from phosphene.attribution.pictures import illustrate
        from phosphene.attribution.saving import explanation_data, save_explanation
        from phosphene.interruption import interruptible

    network = _open(args)
    if args.size is not None:
        network = network.with_input_size((args.size[0], args.size[1]))
    out = begin_run(args, console)
    with interruptible() as stop:
        maps = explain(
            network, args.photograph, args.unit, methods, carriers=args.carriers, check=args.check, settings=settings
        )
        _print_maps(console, maps)
        shown = illustrate(network, maps, args.unit, _picture_settings(args))
        save_explanation(maps, shown, out)
        if args.into_atlas and not shown.interrupted:
            _put_into_atlas(args, console, maps, shown)
    for note in shown.notes:
        console.print(f"note     {escape(note)}", soft_wrap=True)
    show_page(args, out / "explain.html")
    if args.json:
        print_json(console, explanation_data(maps, shown))
    console.print(f"{out / 'explain.html'}, explain.png, explain.json and explain.npz", soft_wrap=True, markup=False)
    if stop.is_set() or shown.interrupted:
        print(f"phosphene: interrupted: the maps and {len(shown.made)} pictures are in {out}", file=sys.stderr)
        return statuses.INTERRUPTED
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.into_atlas and args.atlas is None:
        raise InputError("--into-atlas puts the explanation into an atlas: expected --atlas DIR too")


def _open(args: argparse.Namespace) -> Network:
    """The network that is named, or else the atlas's."""
    from phosphene.atlas.store import Store
    from phosphene.attribution.into_atlas import check_writable

    if args.into_atlas:
        check_writable(args.atlas)
    if args.atlas is not None and not has_network_argument(args):
        return Store(args.atlas).plan().open(args.trust, "give the network yourself (-n)")
    return open_argument(args)


def _put_into_atlas(args: argparse.Namespace, console: Console, maps: AttributionMaps, shown: Illustrations) -> None:
    from phosphene.attribution.into_atlas import put_into_atlas

    page, notes = put_into_atlas(maps, shown, args.photograph.name, args.atlas)
    for note in notes:
        console.print(f"note     {escape(note)}", soft_wrap=True)
    console.print(f"in the atlas: {page}", soft_wrap=True, markup=False)


def _settings(args: argparse.Namespace) -> AttributionSettings:
    return AttributionSettings(
        baseline=args.baseline, steps=args.integration_steps, window=args.window, layer=args.layer,
        samples=args.samples, smoothing=args.smooth, seed=args.seed, device=args.device,
    )  # fmt: skip


def _picture_settings(args: argparse.Namespace) -> PictureSettings:
    from phosphene.attribution.pictures import PictureSettings

    most = args.steps or max(PictureSettings.carrier_steps, PictureSettings.accentuation_steps)
    few = {name: min(most, getattr(PictureSettings, name)) for name in ("carrier_steps", "accentuation_steps")}
    return PictureSettings(
        picture=not args.no_picture, steps=args.steps, accentuate=args.accentuate, photographs=args.photographs,
        atlas=args.atlas, seed=args.seed, device=args.device, **few,
    )  # fmt: skip


def _print_maps(console: Console, maps: AttributionMaps) -> None:
    from phosphene.attribution.page import filled_table

    guess = ", the network's first guess" if maps.is_top_class else ""
    sure = "" if maps.probability is None else f", probability {maps.probability:.1%}"
    console.print(f"network  {escape(maps.network)}, weights {maps.weights}")
    named = "" if maps.label == maps.unit else f" ({escape(maps.label)})"
    console.print(f"unit     {escape(maps.unit)}{named}{guess}: {maps.value:.4g}{sure}", soft_wrap=True)
    for note in maps.notes:
        console.print(f"note     {escape(note)}", soft_wrap=True)
    columns, rows = filled_table(maps)
    table = plain_table("method", *columns, right=columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for layer in maps.carriers.layers if maps.carriers is not None else ():
        best = ", ".join(f"{each.channel} ({each.share:+.1%})" for each in layer.carriers[:5])
        console.print(f"carried by {escape(layer.layer)}: {best}", soft_wrap=True)
