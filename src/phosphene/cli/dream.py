"""`dream`: DeepDream."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli.options import add_making, add_photograph, open_argument
from phosphene.cli.signals import importing
from phosphene.cli.typos import check_recipe
from phosphene.errors import InputError

if TYPE_CHECKING:
    from phosphene.networks.network import Network

_LONGEST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_photograph(parser, "a late one")
    add_making(parser, "dream")


def run(args: argparse.Namespace, console: Console) -> int:
    check_recipe(args, args.default_recipe)
    with importing():
        from phosphene.cli.making import make_pictures
        from phosphene.cli.unit_arguments import list_units, spread_layers

    network = open_argument(args)
    args.start = args.photograph
    layers = args.layers or [spread_layers(network)[-2:][0]]  # parts of things; the last shows whole ones everywhere
    units = [unit for layer in layers for unit in list_units(layer, network, whole=True)]
    return make_pictures(args, console, _fitted(args, network, args.photograph), units)


def _fitted(args: argparse.Namespace, network: Network, photograph: Path) -> Network:
    """The network at the photograph's own proportions, where it takes such images and no --size is given.

    Of what is over `_LONGEST` times as long as wide only the middle is shown, by the network's own proportions.
    """
    if args.size is not None:
        return network
    from phosphene.images import read_image

    width, height = read_image(photograph).size
    if max(width, height) > _LONGEST * min(width, height):
        return network
    try:
        scale = 2 * min(network.preprocessing.size) / min(width, height)  # type: ignore[arg-type]
        size = network.whole_patches((round(height * min(1, scale)), round(width * min(1, scale))))
        resized = network.with_input_size(size)
    except InputError:
        return network
    args.size = list(size)
    return resized
