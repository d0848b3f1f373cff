"""`dictionary`: what a file of a sparse autoencoder is; and what it does not say said, and written anew."""

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
    from phosphene.dictionaries.dictionary import Dictionary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE",
        help="of saev, Prisma, PatchSAE, overcomplete or safetensors, or a folder of SAELens",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="what the file does not say, such as k=32"
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write it as plain safetensors, with what was said"
    )
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.dictionaries.reading import open_dictionary

    fields = {}
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: expected FIELD=VALUE, such as k=32")
        fields[name.strip()] = value.strip()
    dictionary = open_dictionary(args.file, **fields)
    if args.out is not None:
        dictionary.save(args.out)
    found = _describe(dictionary)
    if args.json:
        print_json(console, found)
        return 0
    table = plain_table("", "", no_wrap=False)
    for name, value in found.items():
        table.add_row(name, str(value))
    console.print(table)
    for note in dictionary.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if args.out is not None:
        console.print(
            f"written to {args.out}: show latents with `phosphene filters sae:{args.out}:0-7`", soft_wrap=True
        )
    return 0


def _describe(dictionary: Dictionary) -> dict[str, str | int]:
    kind = {"topk": f"topk, k {dictionary.k}"}.get(dictionary.kind, dictionary.kind)
    return {
        "format": dictionary.format, "latents": dictionary.latents, "channels": dictionary.width, "activation": kind,
        "normalization": dictionary.normalization, "layer": dictionary.layer or "not named",
        "tokens": dictionary.tokens or "not named", "digest": dictionary.digest,
    }  # fmt: skip
