"""`compare PICTURE PHOTOGRAPH… -n NET`: what a picture does to a network beside what photographs do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli import options
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from phosphene.comparison.pictures_match import ImageMatch
    from phosphene.comparison.pictures_report import ImageComparison

_DIFFERENCES = 3  # of a layer, in the table


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of pictures beside photographs; what is compared, layers, pictures and the network are the verb's."""
    group = parser.add_argument_group("a picture beside photographs")
    group.add_argument(
        "--others", type=Path, metavar="DIR", help="photographs of other things: where the path similarity is 0"
    )
    group.add_argument(
        "--match", nargs="+", metavar="LAYER",
        help="climb a picture of the class that is, at these layers, like the first photograph",
    )  # fmt: skip
    group.add_argument("--unit", metavar="CLASS", help="that is to stay; by default the photograph's own first")
    group.add_argument("--weight", type=float, default=500.0, metavar="W", help="of each layer's match (500)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare the first of `args.given` with the others of them, at `args.layers`."""
    if len(args.given) < 2:
        raise InputError("one image is given: expected a picture and photographs, each a file or a folder")
    with importing():
        from phosphene.comparison.pictures import compare_images
        from phosphene.comparison.pictures_match import MatchSettings
        from phosphene.recipes.recipe import Recipe

    network = options.open_argument(args)
    out = options.begin_run(args, console)
    recipe = Recipe.load(args.recipe)
    if args.steps is not None:
        recipe = recipe.override({"steps": args.steps})
    match = None
    if args.match:
        steps = {} if args.steps is None else {"steps": args.steps}
        climbing = Recipe.load("invert").override(steps)
        match = MatchSettings(tuple(args.match), _class_spelling(args.unit), args.weight, climbing)
    found = compare_images(
        args.given[0], args.given[1:], network,
        layers=args.layers, others=args.others, channels=args.pictures or 0, recipe=recipe, match=match,
    )  # fmt: skip
    files = found.save(out)
    options.show_page(args, out / "compare.png")
    if args.json:
        print_json(console, found.to_dict())
    _print(console, found)
    names = ", ".join(path.relative_to(out).as_posix() for path in files)
    console.print(f"{names} are in {out}", soft_wrap=True, markup=False)
    return 0


def _class_spelling(unit: str | None) -> str | None:
    return unit if unit is None or unit.startswith("class:") else f"class:{unit}"


def _print(console: Console, found: ImageComparison) -> None:
    console.print(f"network  {found.network}, weights {found.weights}", markup=False)
    pictures = "1 picture" if len(found.pictures) == 1 else f"{len(found.pictures)} pictures"
    console.print(f"         {pictures}, {len(found.photographs)} photographs")
    for note in found.notes:
        console.print(f"         note: {note}", soft_wrap=True, markup=False)
    console.print(_table(found))
    console.print(
        "path: path similarity   rank: correlation with photographs (of these among themselves)   "
        "size: root mean square, over photographs'   off: share of 0 or less (photographs)",
        soft_wrap=True,
    )
    console.print(f"\n{found.summary}", soft_wrap=True, markup=False)
    if found.match is not None:
        _print_match(console, found.match)


def _table(found: ImageComparison) -> Table:
    columns = ("layer", "path", "rank", "size", "off", "channels that differ most")
    table = plain_table(*columns, right=columns[1:5], no_wrap=True)
    for row in found.rows:
        among = "" if row.among is None else f" ({row.among:.2f})"
        z = "" if row.rms_z is None else f" z {row.rms_z:+.1f}"
        table.add_row(
            row.layer,
            "" if row.path is None else f"{row.path:.2f}",
            "" if row.correlation is None else f"{row.correlation:.2f}{among}",
            "" if row.rms is None else f"{row.rms:.2f}{z}",
            f"{row.off:.0%} ({row.off_photographs:.0%})",
            "  ".join(f"{each.channel} {each.difference:+.1f}" for each in row.differences[:_DIFFERENCES]),
        )
    return table


def _print_match(console: Console, match: ImageMatch) -> None:
    table = plain_table("layer", "distance", "of shuffled", right=("distance", "of shuffled"), no_wrap=True)
    for row in match.rows:
        share = "" if row.share is None else f"{row.share:.2f}"
        table.add_row(f"{row.layer}{' *' if row.matched else ''}", f"{row.distance:.3f}", share)
    console.print(f"\nclimbed  {match.unit}", soft_wrap=True, markup=False)
    console.print(table)
    console.print(match.summary, soft_wrap=True, markup=False)
