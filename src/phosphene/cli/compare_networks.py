"""`compare A B --photographs DIR`: what two networks, or two checkpoints of one, share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from phosphene import defaults
from phosphene.cli import options, statuses
from phosphene.cli.printing import plain_table, print_json, progress_bar
from phosphene.cli.signals import importing
from phosphene.errors import InputError
from phosphene.recipes.recipe import Recipe

if TYPE_CHECKING:
    from phosphene.comparison.page import Pictures, UnitPair
    from phosphene.comparison.result import NetworkComparison
    from phosphene.networks.network import Network

NETWORK = "NAME, FILE, FILE=WEIGHTS or FILE@PREPROCESSING"
_PICTURES = 4  # pairs of units of each kind that are pictured


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of two networks; what is compared, the layers and the pictures are the verb's."""
    group = parser.add_argument_group("two networks")
    group.add_argument("--photographs", type=Path, metavar="DIR", help="what both are shown; at least 16")
    group.add_argument(
        "--count", type=options.positive, default=12, metavar="N",
        help="so many layers of each, evenly spread, where none are named (12)",
    )  # fmt: skip
    group.add_argument(
        "--limit", type=options.positive, default=defaults.PHOTOGRAPHS, metavar="N",
        help=f"of more photographs so many, evenly spread ({defaults.PHOTOGRAPHS})",
    )  # fmt: skip
    group.add_argument(
        "--grid", type=options.positive, default=7, metavar="N", help="rows and columns that maps are brought to (7)"
    )
    options.add_seed(parser)
    options.add_device(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    recipe = Recipe.load(args.recipe)
    if args.steps is not None:
        recipe = recipe.override({"steps": args.steps})
    with importing():
        from phosphene.comparison.networks import ComparisonSettings, compare
        from phosphene.comparison.page import choose_pairs, write_page
        from phosphene.hardware import find_device
        from phosphene.judges.panel import open_judge
        from phosphene.photographs.listing import list_photographs

    settings = ComparisonSettings(count=args.count, grid=args.grid, limit=args.limit, seed=args.seed)
    paths = list_photographs(args.photographs, args.limit)
    a, b = (open_judge(name) for name in args.given)
    with options.resumable_run(args, console) as kept:
        found = compare(a, b, paths, args.layers, settings=settings, device=find_device(args.device))
        out = kept.folder
        files = found.save(out)
        pairs = choose_pairs(found, _PICTURES if args.pictures is None else args.pictures)
        made, interrupted = _pictures(args, out, (a, b), pairs, recipe)
        if interrupted:
            kept.keep()
        files.append(write_page(found, (a, b), out, pairs, made))
    options.show_page(args, files[-1])
    if args.json:
        print_json(console, found.to_dict())
    _print(console, found)
    console.print(f"written     {', '.join(map(str, files))}", soft_wrap=True, markup=False)
    if interrupted:
        print("phosphene: interrupted: the page lacks some pictures; the same command makes them", file=sys.stderr)
        return statuses.INTERRUPTED
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise an `InputError` for what can be told without a network."""
    if len(args.given) != 2:
        raise InputError(f"{len(args.given)} networks: expected two to compare, each {NETWORK}")
    if args.photographs is None:
        raise InputError("two networks are compared by photographs: expected --photographs DIR")


def _pictures(
    args: argparse.Namespace, out: Path, networks: tuple[Network, Network], pairs: Sequence[UnitPair], recipe: Recipe
) -> tuple[tuple[Pictures, Pictures], bool]:
    """The pictures of the units of pairs, which are written too; and whether Ctrl-C ended that."""
    with importing():
        from phosphene.ascent.run_options import RunOptions
        from phosphene.comparison.page import make_pictures
        from phosphene.devices.callbacks import Callbacks
        from phosphene.picture import save_picture

    made: list[Any] = [{}, {}]
    for side, network in enumerate(networks if pairs else ()):
        units = [pair.units[side] for pair in pairs]
        with progress_bar(args, len(units)) as progress:
            made[side], interrupted = make_pictures(
                network, units, recipe, args.seed, RunOptions(device=args.device), Callbacks(progress=progress)
            )
        for picture in made[side].values():
            save_picture(picture, out / "pictures" / "ab"[side])
        if interrupted:
            return (made[0], made[1]), True
    return (made[0], made[1]), False


def _print(console: Console, found: NetworkComparison) -> None:
    from phosphene.comparison.page import TABLE, table_cells

    for letter, network in (("A", found.a), ("B", found.b)):
        console.print(f"{letter}           {escape(network.name)}, weights {network.weights}", soft_wrap=True)
    count = len(found.photographs) - found.unreadable
    more = f"; {found.unreadable} more cannot be read" if found.unreadable else ""
    console.print(f"photographs {count}{more}; in brackets is what comes out where B's are shuffled")
    table = plain_table("layer of A", "layer of B", *TABLE, right=TABLE)
    for match in found.matches:
        table.add_row(escape(match.a), escape(match.b), *table_cells(match.summary()))
    console.print(table)
    for note in found.notes:
        console.print(f"note        {escape(note)}", soft_wrap=True)
