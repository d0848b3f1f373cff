"""`compare`: what two networks share; or, with -n, what a picture does to a network beside what photographs do."""

from __future__ import annotations

import argparse

from rich.console import Console

from phosphene.cli import compare_networks, compare_pictures, options
from phosphene.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "given", nargs="+", metavar="A B | PICTURE PHOTOGRAPH",
        help=f"two networks, each {compare_networks.NETWORK}; or, with -n, a picture and photographs, files or folders",
    )  # fmt: skip
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYER",
        help="names; of two networks A_LAYER or A_LAYER=B_LAYER, by default the most like one. With -n also patterns",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", type=_whole, metavar="N",
        help="make pictures of the N pairs of units that are most alike, and of N that are least (4); or with -n, of "
        "the N channels that differ most (0)",
    )  # fmt: skip
    parser.add_argument("-r", "--recipe", default="draft", help="of the pictures: a name or a TOML file (draft)")
    parser.add_argument("--steps", type=options.positive, metavar="N", help="of a picture; by default the recipe's")
    options.add_out(parser)
    compare_networks.add_options(parser)
    compare_pictures.add_options(parser)
    options.add_opening(parser)
    options.add_printing(parser)


def _whole(text: str) -> int:
    return 0 if text == "0" else options.positive(text)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.network is not None:
        if args.photographs is not None:
            raise InputError("--photographs is of two networks: with -n give photographs behind the picture")
        return compare_pictures.run(args, console)
    return compare_networks.run(args, console)
