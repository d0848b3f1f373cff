"""`profile`: where the time of a step goes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli import options
from phosphene.cli.printing import image_count, plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_recipe
from phosphene.recipes.recipe import Recipe

if TYPE_CHECKING:
    from phosphene.doctor.profiling import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("units", nargs="*", metavar="UNIT", help="by default a class, or a channel of the last layer")
    parser.add_argument("-r", "--recipe", default="natural", help="a name (natural) or a TOML file; see `recipes`")
    options.add_set(parser)
    options.add_size(parser)
    parser.add_argument("--batch", type=options.positive, default=8, metavar="N", help="images at once (8)")
    options.add_precision(parser)
    options.add_device(parser)
    options.add_opening(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, args.recipe)
    with importing():
        from phosphene.ascent.request import with_recipe_size
        from phosphene.doctor.profiling import profile

    network = options.open_argument(args)
    recipe = options.apply_options(args, Recipe.load(args.recipe))
    network = with_recipe_size(network, recipe)
    units = args.units or ["class:0" if network.classes else f"{network.layers[-1].name}:0"]
    found = profile(network, units, recipe, batch=args.batch, device=args.device, precision=args.precision)
    if args.json:
        print_json(console, {**asdict(found), "share_of_peak": found.share_of_peak})
    console.print(f"network  {network.name}, weights {network.digest}")
    console.print(f"recipe   {recipe.name}, {', '.join(map(str, units))}", soft_wrap=True, markup=False)
    _print_profile(console, found)
    return 0


def _print_profile(console: Console, found: Profile) -> None:
    right = ("ms", "share", "of a plain pass")
    table = plain_table(f"a step of {image_count(found.batch)}", *right, right=right)
    for name, seconds in [*found.parts.items(), ("the whole step", found.step), ("a plain pass", found.plain)]:
        share = "" if name == "a plain pass" else f"{seconds / found.step:.0%}"
        table.add_row(name, f"{1000 * seconds:.1f}", share, f"{seconds / found.plain:.2f}")
    console.print(f"machine  {found.machine}; {found.precision}", soft_wrap=True)
    console.print(table)
    each = found.operations / found.batch / 1e9
    console.print(
        f"the network's pass does {each:.1f} GFLOP an image, at {found.share_of_peak:.0%} of the "
        f"{found.peak / 1e9:.0f} GFLOP/s that a product of matrices reaches in {found.precision}",
        soft_wrap=True,
    )
    console.print("a plain pass: forward and backward in fp32, as the network is and in PyTorch's own memory order")
