"""`atlas status`: how far an atlas is."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_atlas, add_printing
from phosphene.cli.printing import duration, image_count, plain_table, print_json
from phosphene.cli.signals import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.atlas.status import status as atlas_status

    status = atlas_status(args.atlas)
    if args.json:
        print_json(console, {**asdict(status), "made": status.image_count, "count": status.count})
    table = plain_table("units of", "made", "of", right=("made", "of"))
    for name, have, want in status.groups:
        table.add_row(escape(name), str(have), str(want))
    console.print(table)
    share = status.image_count / max(1, status.count)
    console.print(f"{status.image_count} of {image_count(status.count)} ({share:.0%}), {status.size / 2**20:.0f} MiB")
    if status.claimed:
        steps = "" if status.work is None else f"; {status.work:.0%} of their steps are made"
        console.print(f"{status.claimed} units are being made{steps}")
    if status.left == 0:
        console.print("all are there")
    elif status.rate and status.left is not None:
        last = "" if status.last is None else f"; the last was written {duration(status.last)} ago"
        console.print(f"{status.rate:.0f} an hour, so {duration(status.left)} more{last}")
    else:
        console.print("how long it takes is not known yet")
    return 0
