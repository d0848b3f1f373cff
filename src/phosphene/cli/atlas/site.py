"""`atlas site`: a page to browse an atlas."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_atlas, add_device, add_printing, add_trust, judge_list
from phosphene.cli.printing import file_bar, image_count
from phosphene.cli.signals import importing
from phosphene.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    parser.add_argument(
        "--photographs",
        type=Path,
        metavar="DIR",
        help="show which of these excite a unit most; 100 or more score images of hidden units",
    )
    parser.add_argument("--judges", metavar="A,B", help="who score them, as `phosphene judge` takes them; or none")
    parser.add_argument("--beside", metavar="DIR|URL", help="another atlas to compare with; its images are copied")
    parser.add_argument(
        "--match", metavar="FILE", help="pair the units of both by the compare.json of `phosphene compare`"
    )
    parser.add_argument("--plain", action="store_true", help="do not ask the network which units are alike")
    add_device(parser, "where it is asked")
    add_trust(parser, "plan")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.plain and args.photographs:
        raise InputError("--plain does not ask the network, which --photographs needs: expected one of them")
    if args.judges is not None and not args.photographs:
        raise InputError("--judges are asked what photographs look like: expected --photographs too")
    if args.match is not None and args.beside is None:
        raise InputError("--match pairs units with those of another atlas: expected --beside too")
    with importing():
        from phosphene.atlas.site import Beside, write_site
        from phosphene.atlas.store import Store
        from phosphene.comparison.match_file import read_matches
        from phosphene.hardware import find_device

    store = Store(args.atlas)
    match = None if args.match is None else read_matches(args.match)
    other = None if args.beside is None else Store(args.beside)
    network = None if args.plain else store.plan().open(args.trust)
    beside = None
    if other is not None:
        beside = Beside(other, None if args.plain else other.plan().open(args.trust), match)
    judges = None if args.judges is None else [] if args.judges == "none" else judge_list(args.judges)
    with file_bar(args) as on_progress:
        page = write_site(
            store, network=network, photographs=args.photographs, judges=judges, beside=beside,
            device=find_device(args.device), on_progress=on_progress,
        )  # fmt: skip
    if args.json:
        told = {"page": page.address, "scored": page.scored, "judges": page.judges, "unscored": page.unscored}
        print(json.dumps(told), file=console.file)
    if page.judges:
        console.print(f"{image_count(page.scored)} of hidden units are scored by {', '.join(page.judges)}")
    elif page.unscored:
        console.print(f"no explanation scores: {escape(page.unscored)}", soft_wrap=True)
    console.print(f"open {page.address}")
    return 0
