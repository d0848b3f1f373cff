"""`classes`: images of classes, and of texts."""

from __future__ import annotations

import argparse

from rich.console import Console

from phosphene.cli.options import add_making, judge_list, open_argument, positive
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_classes, check_recipe
from phosphene.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("classes", nargs="*", metavar="CLASS", help="an index or several (0-9), a WordNet id or a name")
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        dest="texts",
        metavar="WORDS",
        help="what a network of images and texts takes for these words (-n clip:MODEL), by the recipe text; may be "
        "repeated",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        dest="templates",
        metavar="PROMPT",
        help="what the words are put into, such as 'a drawing of {}'; may be repeated, and the mean is taken",
    )
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
    if not args.classes and not args.texts:
        raise InputError("nothing to show is named: expected CLASS, such as flamingo, or --text 'a red fox'")
    if args.templates and not args.texts:
        raise InputError("--template is for a text: expected --text WORDS")
    if args.texts and not args.classes:
        args.default_recipe = "text"
    check_recipe(args, args.default_recipe)
    check_classes(args, args.classes)
    with importing():
        from phosphene.cli.making import make_pictures
        from phosphene.networks.text import TEMPLATES
        from phosphene.units.objects import Class, Text, Unit
        from phosphene.units.spelling import find_classes

    network = open_argument(args)
    indices = dict.fromkeys(index for text in args.classes for index in find_classes(text, network))
    templates = tuple(args.templates) or TEMPLATES
    units: list[Unit] = [*map(Class, indices), *(Text(text, templates) for text in dict.fromkeys(args.texts))]
    return make_pictures(args, console, network, units)
