"""`label`: words that name an atlas's hidden units."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_atlas, add_opening, add_printing, add_trust, open_argument, positive
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.errors import InputError, printable

_SHOWN = 40  # units, in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    parser.add_argument("--words", type=Path, required=True, metavar="FILE", help="words to choose from, one a line")
    parser.add_argument(
        "--photographs", type=Path, required=True, metavar="DIR", help="those by which the atlas was scored, or others"
    )
    parser.add_argument(
        "--template", action="append", default=[], dest="templates", metavar="PROMPT",
        help="what a word is put into, such as 'a photo of {}'; may be repeated, and the mean is taken",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=positive, metavar="N", help="photographs of a unit that count; by default a tenth, at most 100"
    )
    add_trust(parser, "plan")
    add_opening(parser, "none: expected clip:MODEL")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.network is None:
        raise InputError("words are compared by a network of images and texts: expected -n clip:MODEL")
    with importing():
        from phosphene.atlas.labels import label_units
        from phosphene.atlas.rows import word_columns
        from phosphene.atlas.store import Store
        from phosphene.judges.word_names import read_words
        from phosphene.networks.text import TEMPLATES

    words = read_words(args.words)
    store = Store(args.atlas)
    plan = store.plan()
    encoder = open_argument(args)
    found = label_units(
        store, plan.open(args.trust), encoder, words, args.photographs,
        templates=tuple(args.templates) or TEMPLATES, top=args.top,
    )  # fmt: skip
    if args.json:
        units = {unit: word_columns(name, found.by) for unit, name in found.names.items()}
        print_json(console, {"by": found.by, "photographs": found.photographs, "null": found.null, "units": units})
    table = plain_table("unit", "word", "score", "margin", right=("score", "margin"))
    for unit, name in list(found.names.items())[:_SHOWN]:
        word = escape(printable(name.word)) if name.named else "none"
        table.add_row(escape(unit), word, f"{name.score:.2f}", f"{name.margin:.2f}" if name.named else "")
    console.print(table)
    if len(found.names) > _SHOWN:
        console.print(f"and {len(found.names) - _SHOWN} more: --json prints all")
    console.print(
        f"{found.named} of {len(found.names)} units are named by {escape(found.by)}, from {found.top} of "
        f"{found.photographs} photographs each; by chance the best of {len(words)} words scores up to {found.null:.2f}",
        soft_wrap=True,
    )
    console.print("the names are in the index; `phosphene atlas site` writes them onto the page")
    return 0
