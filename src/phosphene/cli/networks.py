"""`networks`: the networks that can be opened."""

from __future__ import annotations

import argparse
import fnmatch
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_printing
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing
from phosphene.errors import InputError, did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", help="timm's and torchvision's whose names fit, such as 'resnet*'")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        import timm

        from phosphene.networks.catalog import sources
        from phosphene.networks.sources.torchvision import torchvision_names

    by_source = {
        "timm": timm.list_models(args.pattern or ""),
        "torchvision": fnmatch.filter(torchvision_names(), args.pattern or "*"),
    }
    if args.pattern and not any(by_source.values()):
        near = did_you_mean(args.pattern, [*timm.list_models(), *torchvision_names()])
        raise InputError(f"neither timm nor torchvision has a network that fits {args.pattern!r}{near}")
    if args.json:
        print_json(console, {"sources": [asdict(source) for source in sources()], **by_source})
    elif args.pattern:
        trained = {name.partition(".")[0] for name in timm.list_pretrained(args.pattern)}
        for name in by_source["timm"]:
            console.print(name if name in trained else f"{name}  (no pretrained weights)")
        for name in by_source["torchvision"]:
            console.print(f"torchvision:{name}")
    else:
        table = plain_table("source", "--network", "opens now", "needs", overflow="fold")
        for source in sources():
            table.add_row(source.name, source.spelled, "yes" if source.here else "no", escape(source.needs))
        console.print(table)
        console.print("names: `phosphene networks 'resnet*'`; is the preprocessing right? `phosphene doctor`")
    return 0
