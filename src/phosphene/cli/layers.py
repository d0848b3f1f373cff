"""`layers`: a network's layers in the order of calls."""

from __future__ import annotations

import argparse
import fnmatch
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli.options import add_opening, add_printing, open_argument
from phosphene.cli.printing import plain_table, print_json
from phosphene.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from phosphene.networks.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", help="only layers whose names fit, such as 'blocks.3.*'")
    parser.add_argument("--marked", action="store_true", help="only those usually worth showing")
    add_opening(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    layers = [
        layer
        for layer in network.layers
        if fnmatch.fnmatchcase(layer.name, args.pattern or "*") and (layer.worth_showing or not args.marked)
    ]
    if not layers:
        names = [layer.name for layer in network.layers]
        raise InputError(f"{network.name} has no layer that fits {args.pattern!r}{did_you_mean(args.pattern, names)}")
    if args.json:
        print_json(console, [vars(layer) | {"tokens": layer.tokens and vars(layer.tokens)} for layer in layers])
        return 0
    columns = ("", "layer", "type", "channels", "map", "parameters")
    table = plain_table(*columns, right=("channels", "parameters"), no_wrap=True)
    for layer in layers:
        table.add_row(
            "*" if layer.worth_showing else "", layer.name, layer.type, str(layer.channels),
            "x".join(map(str, layer.positions)), f"{layer.parameters:,}" if layer.parameters else "",
        )  # fmt: skip
    console.print(table)
    by_function = any(layer.worth_showing and layer.type == "Linear" for layer in layers)
    mark = "before the activation, which is a function and no layer" if by_function else "after the activation"
    console.print(f"* {mark}: usually worth showing", soft_wrap=True)
    _print_tokens(network, console)
    if network.limit:
        console.print(f"all further layers cannot be shown: {network.limit}", soft_wrap=True)
    return 0


def _print_tokens(network: Network, console: Console) -> None:
    """What is peculiar to a transformer: its tokens, its residual stream, and the heads of its attention."""
    names = {layer.name for layer in network.layers}
    if tokens := Counter(layer.tokens for layer in network.layers if layer.tokens is not None).most_common(1):
        console.print(f"tokens: {tokens[0][0].describe()}", soft_wrap=True, highlight=False)
    attentions = [name for name, each in network.attentions.items() if each.source in names]
    blocks = [block for name in attentions if (block := name.rpartition(".")[0]) in names]
    if blocks:
        console.print(
            f"residual stream: after each block, {blocks[0]} to {blocks[-1]}", soft_wrap=True, highlight=False
        )
    if attentions:
        first, last = attentions[0], attentions[-1]
        console.print(
            f"attention heads: layers of their own, {first}:head0 to {last}:head{network.attentions[last].count - 1}",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
