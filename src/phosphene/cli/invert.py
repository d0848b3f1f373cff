"""`invert`: a photograph as a layer keeps it."""

from __future__ import annotations

import argparse

from rich.console import Console

from phosphene.cli.options import add_making, add_photograph, open_argument
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_photograph(parser, "five")
    add_making(parser, "invert")


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, args.default_recipe)
    with importing():
        from phosphene.cli.making import make_pictures
        from phosphene.cli.unit_arguments import spread_layers
        from phosphene.units.objects import Match

    network = open_argument(args)
    layers = args.layers or spread_layers(network)
    units = [Match(network.layer(name).name, args.photograph) for name in layers]
    return make_pictures(args, console, network, units)
