"""`direction`: what tells two kinds of photographs apart, as a direction in a layer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli import options
from phosphene.cli.printing import print_json
from phosphene.cli.signals import importing
from phosphene.errors import InputError
from phosphene.files import make_directory

if TYPE_CHECKING:
    from phosphene.networks.network import Network
    from phosphene.photographs.directions import FoundDirection

_OWN = ""  # --whiten without a folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "given",
        nargs="+",
        metavar="A/ B/ | FILE#ROW",
        help="two folders of photographs; or a direction, to be whitened",
    )
    parser.add_argument(
        "--layer", required=True, metavar="LAYER", help="in which; of a layer of tokens LAYER@cls, or else its patches"
    )
    parser.add_argument(
        "--whiten", nargs="?", const=_OWN, metavar="DIR",
        help="take the inverse second moment to it, of the photographs of DIR, or else of A and B",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, default=Path("direction.safetensors"), metavar="FILE",
                        help="direction.safetensors")  # fmt: skip
    options.add_opening(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.photographs import directions

    if len(args.given) > 2 or (len(args.given) == 1 and not args.whiten):
        raise InputError(
            f"{len(args.given)} given: expected two folders of photographs, or one direction FILE#ROW with --whiten DIR"
        )
    layer, _, tokens = args.layer.partition("@") if args.layer.endswith(("@cls", "@patches")) else (args.layer, "", "")
    network = options.open_argument(args)
    if len(args.given) == 2:
        found = directions.difference_of_means(network, layer, *args.given, tokens=tokens, whiten=args.whiten == _OWN)
    else:
        found = _read(args.given[0], layer, network)
    if args.whiten:
        found = _whiten(found, args.whiten, tokens, network)
    make_directory(args.out.parent)
    found.save(args.out)
    if args.json:
        print_json(
            console, {**{name: value for name, value in vars(found).items() if name != "vector"}, "file": str(args.out)}
        )
        return 0
    _print_found(console, found, args.out)
    return 0


def _read(text: str, layer: str, network: Network) -> FoundDirection:
    import torch

    from phosphene.photographs.directions import FoundDirection
    from phosphene.units.vectors import read_vector

    return FoundDirection(torch.tensor(read_vector(text).values), layer, network.name, network.digest)


def _whiten(found: FoundDirection, photographs: str, tokens: str, network: Network) -> FoundDirection:
    from dataclasses import replace

    from phosphene.photographs.directions import whiten_direction

    whitened = whiten_direction(network, found.layer, found.vector, photographs, tokens=tokens)
    return replace(found, vector=whitened.vector, tokens=whitened.tokens, whitened=True, auc=None, accuracy=None)


def _print_found(console: Console, found: FoundDirection, path: Path) -> None:
    console.print(f"direction in {found.layer} of {found.network}" + ", whitened" * found.whitened, soft_wrap=True)
    if found.auc is not None and found.accuracy is not None:
        console.print(
            f"held-out photographs of {found.counts[0]} and {found.counts[1]}: of a pair, the right one has more of it "
            f"{found.auc[0]:.2f} ± {found.auc[1]:.2f} of the time (chance 0.50); {found.accuracy:.0%} are on "
            "their side",
            soft_wrap=True,
        )
    if found.is_useless:
        console.print("note: it tells held-out photographs apart no better than chance: another layer, or more of them")
    console.print(f"{path}: show it with `phosphene filters direction:{path}`", soft_wrap=True)
