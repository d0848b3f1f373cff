"""`statistics`: what photographs are like, or what a network makes of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from phosphene import hardware
from phosphene.cli.options import has_network_argument, open_argument
from phosphene.cli.printing import file_bar
from phosphene.files import make_directory
from phosphene.networks.network import Network
from phosphene.photographs import activation_files, activation_statistics, image_statistics, listing


def measure(args: argparse.Namespace, console: Console) -> int:
    if has_network_argument(args):
        return _gather(args, console, open_argument(args))
    paths = listing.list_photographs(args.directory, args.limit)
    out = args.out or Path("statistics.safetensors")
    make_directory(out.parent)
    with file_bar(args) as show:
        found = image_statistics.measure_image_statistics(paths, on_progress=show)
    file = found.save(out)
    if args.json:
        averages = {"mean": found.mean.tolist(), "colours": found.colors.tolist(), "slope": found.slope}
        print(json.dumps({"file": str(file), **_of_files(found), **averages}, indent=1), file=console.file)
    console.print(f"photographs {_counted(found)}")
    console.print(f"mean        {', '.join(f'{255 * value:.0f}' for value in found.mean.tolist())} of 255, RGB")
    deviations = ", ".join(f"{255 * value:.0f}" for value in found.colors.norm(dim=0).tolist())
    console.print(f"contrast    {deviations} of 255, along the axes of their colours")
    console.print(f"spectrum    falls as 1/f^{found.slope:.2f}")
    use = f"for images with these colours: --set canvas.colours={file}"
    console.print(f"written     {file}; {use}", soft_wrap=True, markup=False)
    return 0


def _gather(args: argparse.Namespace, console: Console, network: Network) -> int:
    device = hardware.find_device(args.device)
    paths = listing.list_photographs(args.directory, args.limit)
    make_directory((args.out or activation_files.cache_path("any")).parent)
    with file_bar(args) as show:
        found = activation_statistics.collect(network, paths, device=device, limit=None, on_progress=show)
    file = found.save(args.out or activation_files.cache_path(found.weights))
    layers = {name: len(layer.mean) for name, layer in found.layers.items()}
    if args.json:
        of_network = {"network": found.network, "weights": found.weights, "layers": layers}
        print(json.dumps({"file": str(file), **_of_files(found), **of_network}, indent=1), file=console.file)
    names = list(layers)
    console.print(f"network     {found.network}, weights {found.weights}")
    console.print(f"photographs {_counted(found)}")
    console.print(f"statistics  {sum(layers.values())} channels of {len(layers)} layers, {names[0]} to {names[-1]}")
    console.print(f"written     {file}", soft_wrap=True, markup=False)
    return 0


def _of_files(found: image_statistics.ImageStatistics | activation_statistics.ActivationStatistics) -> dict[str, Any]:
    return {"count": found.count, "unreadable": found.unreadable, "digest": found.digest()}


def _counted(found: image_statistics.ImageStatistics | activation_statistics.ActivationStatistics) -> str:
    return f"{found.count}" + (f"; {found.unreadable} more cannot be read" if found.unreadable else "")
