"""`difference`: what one network calls a class and another does not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from phosphene.cli import options
from phosphene.cli.printing import plain_table, print_json, progress_bar, share_error_text, share_text
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_recipe

if TYPE_CHECKING:
    from phosphene.comparison.difference import NetworkDifference

_RECIPE = "natural"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    network = "a network as -n takes it; with a weights file NAME=FILE, with a preprocessing NAME@MODE"
    parser.add_argument("first", metavar="A", help=network)
    parser.add_argument("second", metavar="B", help="another of the same classes, or another checkpoint of it")
    parser.add_argument("classes", nargs="*", metavar="CLASS", help="an index or several (0-9), a WordNet id or a name")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR",
        help="how often they differ on these; without CLASS, the classes that differ most on them",
    )  # fmt: skip
    parser.add_argument("--count", type=options.positive, default=4, metavar="N", help="classes, without CLASS (4)")
    parser.add_argument(
        "--judges", type=options.judge_list, default=[], metavar="A,B",
        help="networks that took no part: do the pictures tell where the two differ? (at least 100 photographs)",
    )  # fmt: skip
    parser.add_argument("-r", "--recipe", default=_RECIPE, help=f"a name or a TOML file (see `recipes`); {_RECIPE}")
    options.add_set(parser)
    parser.add_argument("--steps", type=options.positive, metavar="N", help="steps at most")
    options.add_seed(parser)
    options.add_size(parser)
    options.add_devices(parser)
    options.add_precision(parser)
    options.add_out(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, _RECIPE)
    with importing():
        from phosphene.ascent.run_options import RunOptions
        from phosphene.comparison.difference import DifferenceOptions, difference
        from phosphene.devices.names import parse_devices
        from phosphene.judges.panel import open_judge
        from phosphene.recipes.recipe import Recipe
    photographs = args.photographs
    args.photographs = None  # of networks, not of a recipe
    pair = open_judge(args.first), open_judge(args.second)
    out = options.begin_run(args, console)
    run_options = RunOptions(parse_devices(args.device), precision=args.precision)
    recipe = options.apply_options(args, Recipe.load(args.recipe).for_network(pair[0]))
    with progress_bar(args, 4) as on_progress:
        found = difference(
            *pair,
            args.classes,
            recipe,
            photographs=photographs,
            judges=args.judges,
            options=DifferenceOptions(args.count, args.seed, run_options, on_progress),
        )
    files = found.save(out)
    options.show_page(args, out / "difference.png")
    if args.json:
        print_json(console, found.to_dict())
        return 0
    _print(console, found)
    console.print(f"{len(files) - 2} images, difference.png and difference.json are in {out}", markup=False)
    return 0


def _print(console: Console, found: NetworkDifference) -> None:
    from phosphene.comparison.difference import SIDES

    first, second = map(escape, found.networks)
    console.print(f"first    {first}\nsecond   {second}", soft_wrap=True)
    if found.disagreements is not None:
        console.print(f"they name another class first on {found.disagreements:.1%} of the photographs")
    table = plain_table("class", "picture", "first", "second", "explains", right=("first", "second", "explains"))
    for shown in found.classes:
        if shown.on_photographs is not None:
            table.add_row(shown.name, "photographs, on average", *map(share_text, shown.on_photographs), "")
        for side, both in zip(SIDES, shown.probabilities, strict=True):
            score = shown.explanation.get(side, {})
            explains = share_error_text(score.get("score"), score.get("error"))
            table.add_row(shown.name, side, *map(share_text, both), explains)
    console.print(table)
    console.print("first, second: each network's probability of the class in the picture", soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
