"""`statistics`: what photographs are like, or what a network makes of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from phosphene import defaults
from phosphene.cli import options
from phosphene.cli.printing import print_json
from phosphene.cli.signals import importing
from phosphene.files import make_directory

if TYPE_CHECKING:
    from phosphene.networks.network import Network
    from phosphene.photographs.activation_statistics import ActivationStatistics
    from phosphene.photographs.image_statistics import ImageStatistics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="photographs, also in folders of the folder")
    parser.add_argument(
        "--limit", type=options.positive, default=defaults.PHOTOGRAPHS, metavar="N",
        help=f"of more photographs so many, evenly spread ({defaults.PHOTOGRAPHS})",
    )  # fmt: skip
    options.add_device(parser)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help="statistics.safetensors, or a network's where the priors look for them",
    )  # fmt: skip
    options.add_opening(parser, "none, and the photographs themselves are measured")
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if options.has_network_argument(args):
        return _measure_activations(args, console, options.open_argument(args))
    return _measure_photographs(args, console)


def _measure_photographs(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.photographs.image_statistics import measure_image_statistics
        from phosphene.photographs.listing import list_photographs

    paths = list_photographs(args.directory, args.limit)
    out = args.out or Path("statistics.safetensors")
    make_directory(out.parent)
    found = measure_image_statistics(paths)
    file = found.save(out)
    if args.json:
        averages = {"mean": found.mean.tolist(), "colours": found.colors.tolist(), "slope": found.slope}
        print_json(console, {"file": str(file), **_data(found), **averages})
    console.print(f"photographs {_count(found)}")
    console.print(f"mean        {', '.join(f'{255 * value:.0f}' for value in found.mean.tolist())} of 255, RGB")
    deviations = ", ".join(f"{255 * value:.0f}" for value in found.colors.norm(dim=0).tolist())
    console.print(f"contrast    {deviations} of 255, along the axes of their colors")
    console.print(f"spectrum    falls as 1/f^{found.slope:.2f}")
    use = f"for images with these colors: --set canvas.colours={file}"
    console.print(f"written     {file}; {use}", soft_wrap=True, markup=False)
    return 0


def _measure_activations(args: argparse.Namespace, console: Console, network: Network) -> int:
    with importing():
        from phosphene.hardware import find_device
        from phosphene.photographs.activation_files import cache_path
        from phosphene.photographs.activation_statistics import collect
        from phosphene.photographs.listing import list_photographs

    device = find_device(args.device)
    paths = list_photographs(args.directory, args.limit)
    out = args.out or cache_path(network)
    make_directory(out.parent)
    found = collect(network, paths, device=device, limit=None)
    file = found.save(out)
    layers = {name: len(layer.mean) for name, layer in found.layers.items()}
    if args.json:
        of_network = {"network": found.network, "weights": found.weights, "layers": layers}
        print_json(console, {"file": str(file), **_data(found), **of_network})
    names = list(layers)
    console.print(f"network     {found.network}, weights {found.weights}")
    console.print(f"photographs {_count(found)}")
    console.print(f"statistics  {sum(layers.values())} channels of {len(layers)} layers, {names[0]} to {names[-1]}")
    console.print(f"written     {file}", soft_wrap=True, markup=False)
    return 0


def _data(found: ImageStatistics | ActivationStatistics) -> dict[str, Any]:
    return {"count": found.count, "unreadable": found.unreadable, "digest": found.digest()}


def _count(found: ImageStatistics | ActivationStatistics) -> str:
    return f"{found.count}" + (f"; {found.unreadable} more cannot be read" if found.unreadable else "")
