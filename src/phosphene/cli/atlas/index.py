"""`atlas index`: the index made again, from the images alone."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from phosphene.cli.options import add_atlas, add_printing
from phosphene.cli.printing import file_bar, image_count
from phosphene.cli.signals import importing
from phosphene.errors import printable

_MOST_NAMES = 20  # of files that are left out, on a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.atlas.store import Store

    store = Store(args.atlas)
    store.plan()
    with file_bar("images") as on_progress:
        rebuilt = store.rebuild(on_progress)
    if args.json:
        print(json.dumps({"images": rebuilt.images, "left_out": rebuilt.left_out}), file=console.file)
    for name, why in list(rebuilt.left_out.items())[:_MOST_NAMES]:
        print(f"phosphene: left out: {printable(f'{name}: {why}', 500)}", file=sys.stderr)
    if len(rebuilt.left_out) > _MOST_NAMES:
        print(f"phosphene: left out: {len(rebuilt.left_out) - _MOST_NAMES} more; --json names all", file=sys.stderr)
    console.print(f"{image_count(rebuilt.images)} are in the index")
    return 0
