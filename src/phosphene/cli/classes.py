"""`classes`: images of classes."""

from __future__ import annotations

import argparse

from rich.console import Console

from phosphene.cli.options import add_making, judge_list, open_argument, positive
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_classes, check_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("classes", nargs="+", metavar="CLASS", help="an index or several (0-9), a WordNet id or a name")
    parser.add_argument("--best-of", type=positive, metavar="K", help="of K seeds the image that --selectors like best")
    parser.add_argument(
        "--selectors", "--choosers", type=judge_list, metavar="A,B", help="networks that choose (see `judge`)"
    )
    parser.add_argument(
        "--with", action="append", default=[], dest="others", metavar="NETWORK",
        help="an ensemble: show what this network too takes for the class; may be repeated (see `judge`)",
    )  # fmt: skip
    add_making(parser, "natural", finds=True)


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, args.default_recipe)
    check_classes(args, args.classes)
    with importing():
        from phosphene.cli.making import make_pictures
        from phosphene.units.objects import Class
        from phosphene.units.spelling import find_classes

    network = open_argument(args)
    indices = dict.fromkeys(index for text in args.classes for index in find_classes(text, network))
    return make_pictures(args, console, network, [Class(index) for index in indices])
