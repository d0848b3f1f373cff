"""`filters`: images of a layer's channels."""

from __future__ import annotations

import argparse
import re

from rich.console import Console

from phosphene.cli.options import add_making, add_photographs, choose_explaining, open_argument, positive
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_classes, check_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "layers", nargs="+", metavar="LAYER[:CHANNELS]",
        help="all channels of a layer, some (:12, :0-7, :1,5,9), a neuron (:12@ROW,COLUMN), or any unit or sum",
    )  # fmt: skip
    parser.add_argument("--count", type=positive, metavar="K", help="only K of the channels, evenly spread")
    parser.add_argument("--average", action="store_true", help="the average over a channel's map, not the sum")
    add_photographs(parser)
    parser.add_argument("--whole", action="store_true", help="the whole layer as one unit, not its channels")
    add_making(parser, "draft", finds=True)


def run(args: argparse.Namespace, console: Console) -> int:
    choose_explaining(args)
    check_recipe(args, args.default_recipe)
    check_classes(args, (match[1] for text in args.layers if (match := re.fullmatch(r"class:(\w[^+*-]*)", text))))
    with importing():
        from phosphene.cli.making import make_pictures
        from phosphene.cli.unit_arguments import at_size, list_units

    network = open_argument(args)
    shown = at_size(network, args.size)
    units = [
        unit
        for text in args.layers
        for unit in list_units(text, shown, count=args.count, average=args.average, whole=args.whole)
    ]
    return make_pictures(args, console, network, list(dict.fromkeys(units)))
