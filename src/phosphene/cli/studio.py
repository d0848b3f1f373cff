"""`studio`: a local page, on which images form."""

from __future__ import annotations

import argparse
import json
import webbrowser
from pathlib import Path

from rich.console import Console

from phosphene import defaults
from phosphene.cli.options import add_devices, add_printing, port_number
from phosphene.cli.signals import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--files", nargs="+", type=Path, default=[], metavar="DIR", help="whose networks and weights may be read"
    )
    parser.add_argument("--atlas", metavar="DIR|URL", help="keep classes and channels there; made if missing")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("phosphene-out"), metavar="DIR", help="keep others there"
    )
    port = defaults.STUDIO_PORT
    parser.add_argument("--port", type=port_number, default=port, metavar="N", help=f"{port}; 0: any that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the page's address, and open no browser")
    add_devices(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.studio.server import serve

    def on_ready(address: str) -> None:
        if args.json:
            print(json.dumps({"page": address}), flush=True, file=console.file)
        console.print(f"open {address} (Ctrl-C ends it)")
        if not args.no_browser:
            webbrowser.open(address)

    serve(args.files, atlas=args.atlas, out=args.out, device=args.device, port=args.port, on_ready=on_ready)
    return 0
