"""`attention`: what a transformer's heads look at in a photograph, and the rollout."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_opening, add_out, add_printing, add_size, begin_run, open_argument, show_page
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.errors import InputError
from phosphene.files import atomic_write

if TYPE_CHECKING:
    from phosphene.networks.attention import AttentionMaps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
    parser.add_argument(
        "--layer", metavar="LAYER", help="the attention layer, such as blocks.6.attn or encoder.layer.6 (the last)"
    )
    parser.add_argument("--heads", metavar="0-5", help="those on the sheet; by default all")
    add_out(parser)
    add_size(parser)
    add_opening(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.network is None:
        raise InputError("attention is a transformer's: expected -n NETWORK, such as -n timm:vit_small_patch16_224")
    with importing():
        import numpy as np

        from phosphene.draw.attention import attention_sheet
        from phosphene.networks.attention import attention
        from phosphene.networks.heads import split_head
        from phosphene.units.spelling import parse_indices

    network = open_argument(args)
    if args.size is not None:
        network = network.with_input_size((args.size[0], args.size[1]))
    head = split_head(args.layer or "")  # LAYER:head3, as units are spelled
    if head is not None and args.heads is not None:
        raise InputError(f"--layer {args.layer} names its head: expected no --heads beside it")
    found = attention(network, args.photograph, args.layer if head is None else head[0])
    count = len(found.maps)
    named = args.heads if head is None else str(head[1])
    heads = None if named is None else parse_indices(named, count, f"head {{}} of {found.layer}")
    if named is not None and heads is None:
        raise InputError(f"heads {args.heads!r} of {found.layer}: expected a list such as 0-5 or 1,3")
    out = begin_run(args, console)
    layer = re.sub(r"[^\w.#+-]", "_", found.layer)
    name = f"attention_{args.photograph.stem}_{layer}"
    picture = attention_sheet(found, heads)
    sheet = atomic_write(out / f"{name}.png", lambda path: picture.save(path, "PNG"))
    arrays: dict[str, Any] = {
        "maps": found.maps,
        "prefix": found.prefix,
        "weights": found.weights,
        "photograph": found.photograph,
    }
    if found.rollout is not None:
        arrays["rollout"] = found.rollout

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    file = atomic_write(out / f"{name}.npz", save)
    show_page(args, sheet)
    if args.json:
        told = {"layer": found.layer, "query": found.query, "tokens": found.tokens.describe(), "heads": count}
        print_json(console, {**told, "sheet": str(sheet), "arrays": str(file), "layers": found.layers})
    _print(console, network.name, found)
    console.print(f"{sheet} and {file.name}", soft_wrap=True, markup=False)
    return 0


def _print(console: Console, name: str, found: AttentionMaps) -> None:
    console.print(f"network  {escape(name)}, {found.tokens.describe()}")
    console.print(
        f"layer    {escape(found.layer)}, {len(found.maps)} heads: the attention of {found.query} to the patches"
    )
    table = plain_table("head", "patches", "others", "most at", right=("head", "patches", "others"))
    for head, map_ in enumerate(found.maps):
        row, column = divmod(int(map_.argmax()), map_.shape[1])
        table.add_row(str(head), f"{map_.sum():.0%}", f"{found.prefix[head]:.0%}", f"row {row}, column {column}")
    console.print(table)
    if found.rollout is None:
        console.print("no rollout: the attention layers before are of other tokens")
