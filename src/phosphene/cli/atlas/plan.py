"""`atlas plan`: what is to be made, and what it takes."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from phosphene import defaults
from phosphene.ascent.forecast import Forecast
from phosphene.cli import options
from phosphene.cli.printing import file_bar, forecast_text, plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_classes, check_recipe
from phosphene.errors import InputError
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.tuned_recipes import CLASSES

if TYPE_CHECKING:
    from phosphene.atlas.estimate import Estimate
    from phosphene.atlas.plan import AtlasPlan, Group
    from phosphene.networks.network import Network


SAMPLE = 12  # channels of each layer that are proposed for one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_atlas(parser)
    parser.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="names or patterns, or all: those usually shown"
    )
    parser.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="names or indices, 0-99, or all")
    parser.add_argument(
        "--count", type=options.positive, metavar="K", help="of each layer only K channels, evenly spread"
    )
    parser.add_argument("--dictionary", metavar="FILE", help="latents of a sparse autoencoder (see `dictionary`)")
    parser.add_argument("--layer", default="", metavar="LAYER", help="the dictionary's, where its file names none")
    parser.add_argument(
        "--live", metavar="DIR", help="of the dictionary only latents that are on somewhere in these photographs"
    )
    parser.add_argument("-r", "--recipe", help="for all; by default what a `search` found, or else draft")
    options.add_photographs(parser)
    options.add_set(parser)
    parser.add_argument("--steps", type=options.positive, metavar="N", help="steps at most")
    options.add_size(parser)
    parser.add_argument(
        "--facets", type=options.positive, default=1, metavar="N", help="images of each unit that differ"
    )
    options.add_seed(parser)
    parser.add_argument("--judges", metavar="A,B", help="who judge classes; by default the EfficientNet-lites; or none")
    parser.add_argument(
        "--frames", type=int, metavar="N", help=f"of each ascent, kept beside its image; 0: none ({defaults.FRAMES})"
    )
    options.add_device(parser, "where the time is measured")
    options.add_opening(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    options.choose_explaining(args)
    check_recipe(args, "draft")
    check_classes(args, (name for name in args.classes if name != "all"))
    with importing():
        from phosphene.atlas.estimate import estimate
        from phosphene.atlas.plan import make_groups, make_plan, merge_plans, panel
        from phosphene.atlas.store import Store
        from phosphene.hardware import find_device

    network = options.open_argument(args)
    store = Store(args.atlas)
    recipe = None
    if args.recipe or args.set or args.steps or args.size:
        recipe = options.apply_options(args, Recipe.load(args.recipe or "draft"))
    old = store.plan() if store.has_plan() else None
    frames = args.frames if args.frames is not None else defaults.FRAMES if old is None else old.frames
    judges = None if args.judges is None else [] if args.judges == "none" else options.judge_list(args.judges)
    groups = make_groups(
        network, layers=_list_layers(args.layers, network), classes=_list_classes(args.classes, network),
        count=args.count, recipe=recipe,
    )  # fmt: skip
    if args.dictionary is not None:
        groups.append(_latents(args, console, network, recipe))
    plan = make_plan(network, groups, facets=args.facets, seed=args.seed, judges=judges, frames=frames)
    panel(plan, network)
    if old is not None:
        plan = merge_plans(old, plan)
    store.write_plan(plan)
    have = {(row["group"], row["index"], row["facet"], row["recipe"]) for row in store.rows()}
    with file_bar("groups of units measured") as on_progress:
        device = None if args.device is None else find_device(args.device)
        expected = estimate(plan, network, device=device, on_progress=on_progress)
    if args.json:
        listed = [{"name": group.name, "units": len(group.indices), "recipe": group.digest} for group in plan.groups]
        print_json(console, {"groups": listed, **asdict(expected), "there": len(have)})
    _print_plan(console, plan, expected)
    console.print(
        f"here, and {expected.size / 2**20:.0f} MiB; {len(have)} are there. Make them: phosphene atlas run {args.atlas}"
    )
    return 0


def _latents(args: argparse.Namespace, console: Console, network: Network, recipe: Recipe | None) -> Group:
    """The group of a dictionary's latents, and how many of them never fire."""
    from phosphene.atlas.dictionaries import live_latents
    from phosphene.atlas.plan import latent_group
    from phosphene.dictionaries.reading import open_dictionary

    dictionary = open_dictionary(args.dictionary)
    group = latent_group(network, dictionary, args.layer, count=args.count, recipe=recipe)
    if args.live is None:
        return group
    counts, total = live_latents(network, group.layer, dictionary, group.tokens, args.live)
    live = [index for index, count in enumerate(counts.tolist()) if count]
    console.print(
        f"{len(counts) - len(live)} of {len(counts)} latents of {escape(dictionary.name)} are on in none of {total} "
        "photographs, and are left out",
        soft_wrap=True,
    )
    return latent_group(network, dictionary, args.layer, count=args.count, indices=live, recipe=recipe)


def _print_plan(console: Console, plan: AtlasPlan, expected: Estimate) -> None:
    table = plain_table("units of", "images", "recipe", "steps", right=("images", "steps"))
    for group in plan.groups:
        images = len(group.indices) * plan.facets
        table.add_row(escape(group.name), str(images), escape(group.recipe["name"]), str(group.recipe["steps"]))
    console.print(table)
    forecast = Forecast(expected.images, expected.steps, expected.seconds)
    console.print(forecast_text(forecast, sample(plan), " by one process"), soft_wrap=True)


def sample(plan: AtlasPlan) -> str:
    """How a plan that takes long is tried first, if that is shorter."""
    largest = max((len(group.indices) for group in plan.groups if group.name != CLASSES and not group.map), default=0)
    return "" if largest <= SAMPLE else f"; `--count {SAMPLE}` in another directory for a sample"


def _list_layers(patterns: Sequence[str], network: Network) -> list[str]:
    """The layers that patterns name: names, patterns such as `blocks.*`, or all that are usually shown."""
    names: list[str] = []
    for pattern in patterns:
        if pattern == "all":
            names += [layer.name for layer in network.layers if layer.worth_showing]
        elif any(mark in pattern for mark in "*?["):
            fitting = [layer.name for layer in network.layers if fnmatch.fnmatch(layer.name, pattern)]
            if not fitting:
                raise InputError(f"no layer of {network.name} fits {pattern!r}: see `phosphene layers`")
            names += fitting
        else:
            names.append(network.layer(pattern).name)
    return names


def _list_classes(names: Sequence[str], network: Network) -> list[int]:
    from phosphene.units.spelling import find_classes

    indices: list[int] = []
    for name in names:
        indices += range(network.classes or 0) if name == "all" else find_classes(name, network)
    if names and not indices:
        raise InputError(f"no class of {network.name} is {' '.join(names)!r}: expected names, indices, 0-99 or all")
    return indices
