"""`again`: an image made again from its own file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from phosphene.cli import options
from phosphene.cli.printing import print_json, progress_bar
from phosphene.cli.signals import importing
from phosphene.files import make_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE.png")
    options.add_opening(parser, "the one that the image names")
    options.add_trust(parser, "image")
    parser.add_argument("--device", help="by default the kind that the image was made on")
    parser.add_argument("-o", "--out", type=Path, default=Path("phosphene-again"), metavar="DIR")
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.api.again import again
        from phosphene.picture import save_picture
        from phosphene.provenance.reading import read

    out = make_directory(args.out)
    network = None
    if options.has_network_argument(args):
        network = options.open_argument_or_recorded(args, read(args.images[0]).network.source)
    repeated = []
    for path in args.images:
        with progress_bar(args, 1) as on_progress:
            image = again(path, network, trust=args.trust, device=args.device, on_progress=on_progress)
        written = save_picture(image.picture, out)
        repeated.append({"image": str(path), "written": str(written), "same": image.same})
        console.print(f"{written}: {'the same, byte for byte' if image.same else 'not the same'}")
        if not image.same:
            print(
                f"phosphene: {path} came out otherwise: made on another machine or by other versions", file=sys.stderr
            )
    if args.json:
        print_json(console, repeated)
    return 0 if all(entry["same"] for entry in repeated) else 1
