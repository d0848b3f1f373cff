"""`atlas map`: an activation atlas of a layer, planned and made; or an atlas's units, laid out by likeness."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from phosphene.cli import options
from phosphene.cli.atlas.run import add_running, find_devices, make
from phosphene.cli.printing import image_count, print_json
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_recipe
from phosphene.errors import InputError

if TYPE_CHECKING:
    from phosphene.atlas.activation_map import ActivationMap, MapSettings
    from phosphene.atlas.plan import AtlasPlan, Group
    from phosphene.atlas.store import Store
    from phosphene.networks.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_atlas(parser)
    parser.add_argument("--layer", metavar="LAYER", help="whose activations are laid out: one of maps, or of patches")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="whose activations these are")
    map_ = parser.add_argument_group("the map")
    map_.add_argument("--grid", type=options.positive, metavar="N", help="N rows of cells, and N columns (20)")
    map_.add_argument("--positions", type=options.positive, metavar="N", help="random positions of each photograph (1)")
    map_.add_argument("--least", type=options.positive, metavar="N", help="activations that a cell needs (5)")
    map_.add_argument("--of", type=options.positive, metavar="M", help="photographs that these are of, at least (3)")
    map_.add_argument("--damping", type=float, metavar="E", help="of the inverse second moment (0.1)")
    map_.add_argument("--layout", metavar="DIR|URL", help="cells are of the same positions as in this atlas's map")
    map_.add_argument("--units", action="store_true", help="lay out the units of an atlas, by likeness; make nothing")
    map_.add_argument("--plan", action="store_true", help="plan only; `atlas run` makes it")
    parser.add_argument("-r", "--recipe", help="by default draft")
    options.add_set(parser)
    parser.add_argument("--steps", type=options.positive, metavar="N", help="steps at most")
    options.add_size(parser)
    options.add_seed(parser)
    parser.add_argument("--frames", type=int, metavar="N", help="kept of each ascent, as its film; 0: none (0)")
    add_running(parser)
    options.add_opening(parser)
    options.add_trust(parser, "plan")
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, "draft")
    with importing():
        from phosphene.atlas.store import Store

    store = Store(args.atlas)
    devices = find_devices(args)
    if args.units:
        return _lay_out_units(args, console, store)
    old = store.plan() if store.has_plan() else None
    if args.layer is None:
        _check_planned(args, old)
    else:
        _plan(args, console, store, old)
    if args.plan:
        return 0
    return make(args, console, devices)


def _check_planned(args: argparse.Namespace, old: AtlasPlan | None) -> None:
    """Without a layer, the map is planned already.

    Raises:
        InputError: it is not, or something else is asked of it.
    """
    if old is None or not any(group.map for group in old.groups):
        raise InputError(f"{args.atlas!r} has no map yet: expected --layer and --photographs")
    asked = [
        name for name in ("photographs", "grid", "positions", "least", "of", "damping", "layout", "recipe", "steps",
                          "size", "frames") if getattr(args, name) is not None
    ]  # fmt: skip
    if asked or args.set:
        raise InputError(f"--{(asked or ['set'])[0]} without --layer: expected the layer whose map is meant")


def _plan(args: argparse.Namespace, console: Console, store: Store, old: AtlasPlan | None) -> None:
    """Make the map, unless the atlas has it already, and plan its pictures."""
    with importing():
        from phosphene.atlas.plan import make_plan, map_group, merge_plans
        from phosphene.recipes.recipe import Recipe

    if old is not None and not options.has_network_argument(args):
        network = old.open(args.trust)
    else:
        network = options.open_argument(args)
    found = _find_or_make(args, network, old)
    recipe = None
    if args.recipe or args.set or args.steps or args.size:
        unpulled = argparse.Namespace(**{**vars(args), "photographs": None})  # they are of the map, not of the recipe
        recipe = options.apply_options(unpulled, Recipe.load(args.recipe or "draft"))
    group = map_group(network, found, recipe=recipe)
    frames = args.frames if args.frames is not None else 0 if old is None else old.frames
    plan = make_plan(network, [group], facets=1 if old is None else old.facets, seed=args.seed, frames=frames)
    if old is not None:
        plan = merge_plans(old, replace(plan, judges=old.judges))
    store.write_plan(plan)
    _print(args, console, found, group)


def _find_or_make(args: argparse.Namespace, network: Network, old: AtlasPlan | None) -> ActivationMap:
    """The map that is asked for, which an earlier call may have made.

    Raises:
        InputError: there are no photographs, or the map cannot be made of them.
    """
    from phosphene.atlas import map_files
    from phosphene.atlas.activation_map import activation_map
    from phosphene.atlas.plan import map_name
    from phosphene.hardware import first_device
    from phosphene.photographs.listing import list_photographs

    layer = network.layer(args.layer).name
    if args.photographs is None:
        raise InputError("no photographs: expected --photographs DIR, whose activations are laid out")
    files = list_photographs(args.photographs)
    laid_out = None if args.layout is None else _layout_of(args.layout)
    settings = _settings(args)
    there = None if old is None else next((each for each in old.groups if each.name == map_name(layer)), None)
    if there is not None and there.map:
        made = map_files.find(there.map)
        if made.answers(network, files, settings, laid_out):
            return made
    with network.borrowed(first_device(args.device and args.device.split(",")[0])):
        return activation_map(network, layer, files, settings=settings, layout=laid_out)


def _settings(args: argparse.Namespace) -> MapSettings:
    from phosphene.atlas.activation_map import MapSettings

    asked = {
        "grid": args.grid, "positions": args.positions, "least": args.least, "least_photographs": args.of,
        "damping": args.damping,
    }  # fmt: skip
    return MapSettings(**{name: value for name, value in asked.items() if value is not None}, seed=args.seed)


def _layout_of(place: str) -> ActivationMap:
    """The map of another atlas.

    Raises:
        InputError: it has none, or several.
    """
    from phosphene.atlas import map_files
    from phosphene.atlas.store import Store

    maps = [group.map for group in Store(place).plan().groups if group.map]
    if len(maps) != 1:
        raise InputError(f"layout {place!r} has {len(maps) or 'no'} maps: expected an atlas with one map")
    return map_files.find(maps[0])


def _print(args: argparse.Namespace, console: Console, found: ActivationMap, group: Group) -> None:
    if args.json:
        told = {"group": group.name, "cells": len(group.indices), "map": group.map, "grid": found.settings.grid}
        print_json(console, told)
    console.print(f"{escape(found.describe())}", soft_wrap=True)
    console.print(
        f"directions are their means, whitened by the second moment of {found.moment} activations, damped by "
        f"{found.settings.damping:g} of its mean diagonal",
        soft_wrap=True,
    )
    if found.attributions is None:
        console.print(f"no classes of cells: {escape(found.unattributed)}", soft_wrap=True)
    if args.plan:
        console.print(f"{image_count(len(group.indices))} to be made: phosphene atlas run {args.atlas}", soft_wrap=True)


def _lay_out_units(args: argparse.Namespace, console: Console, store: Store) -> int:
    """Lay out the atlas's units by likeness, and keep the layout in it.

    Raises:
        InputError: it has too few units with images, or something is asked that a layer's map alone has.
    """
    with importing():
        from phosphene.atlas.unit_map import lay_out_units
        from phosphene.hardware import first_device

    if args.layer is not None or args.layout is not None:
        raise InputError("--units lays out the units that the atlas has: expected it without --layer and --layout")
    network = store.plan().open(args.trust)
    with network.borrowed(first_device(args.device and args.device.split(",")[0])):
        made = lay_out_units(store, network, photographs=args.photographs, seed=args.seed)
    if args.json:
        print_json(console, {"units": len(made.units), "grid": made.grid, "probes": made.probes})
    console.print(
        f"{len(made.units)} units are laid out by their responses to {made.probes}: phosphene atlas site {args.atlas}",
        soft_wrap=True,
    )
    return 0
