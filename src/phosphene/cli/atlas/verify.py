"""`atlas verify`: whether every image is as it was written."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from phosphene.cli.options import add_atlas, add_printing
from phosphene.cli.printing import file_bar, image_count, print_json
from phosphene.cli.signals import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    parser.add_argument("--repair", action="store_true", help="take those out of the index, so that `run` makes them")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.atlas.store import Store

    store = Store(args.atlas)
    store.plan()
    rows = store.rows()
    with file_bar("images") as on_progress:
        problems = store.verify(rows, on_progress)
    if args.repair and problems:
        store.drop(problem.row for problem in problems)
    if args.json:
        print_json(console, [{"file": problem.file, "what": problem.what} for problem in problems])
    for problem in problems:
        print(f"phosphene: {problem.file}: {problem.what}", file=sys.stderr)
    console.print(f"{image_count(len(rows) - len(problems))} of {len(rows)} are as they were written")
    if problems and args.repair:
        console.print(f"the others are out of the index: `phosphene atlas run {args.atlas}` makes them again")
    return 1 if problems and not args.repair else 0
