"""Whether units that are alive come out grey: channels that photographs excite, and what is made of each.

    python bench/alive.py --network efficientnet_lite0 --layers blocks.5.3.bn2.act --count 0
    python bench/alive.py --network vgg16 --weights FILE --partial --layers features.29 --steps 32

A channel is alive where at least one of the photographs makes its layer give a number above 0.  Of these, --count are
drawn with --seed (0: all of the layer's) and made by the recipe in so many steps.  One is grey where it ends without
having excited the unit at all: the score of the saved image is 0.  The table has a line for each layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import phosphene
from phosphene import Network, Recipe
from phosphene.hardware import find_device
from phosphene.images import open_image

ROWS = 16


def alive(network: Network, layers: Sequence[str], photographs: Sequence[Path]) -> dict[str, list[int]]:
    """The channels of each layer that a photograph excites."""
    device = find_device(None)
    most: dict[str, torch.Tensor] = {}

    def reader(layer: str):  # type: ignore[no-untyped-def]
        def read(output: torch.Tensor) -> None:
            now = output.flatten(2).amax(2).amax(0).cpu() if output.ndim > 2 else output.amax(0).cpu()
            most[layer] = now if layer not in most else torch.maximum(most[layer], now)

        return read

    with network.borrowed(device), torch.no_grad():
        for first in range(0, len(photographs), ROWS):
            images = [open_image(path).image for path in photographs[first : first + ROWS]]
            pixels = torch.stack([network.preprocessing.photograph(image) for image in images]).to(device)
            network.read(pixels, {layer: reader(layer) for layer in layers})
    return {layer: torch.nonzero(values > 0).flatten().tolist() for layer, values in most.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--layers", nargs="*", default=[], help="by default all activations")
    parser.add_argument("--count", type=int, default=12, help="channels of each layer; 0: all that are alive")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--size", type=int, help="of the images; by default the network's")
    parser.add_argument("--recipe", default="draft")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--photographs", type=Path, default=Path("../shared/images"))
    args = parser.parse_args()
    network = phosphene.open(args.network, weights=args.weights, partial=args.partial)
    layers = args.layers or [layer.name for layer in network.layers if layer.worth_showing]
    found = alive(network, layers, sorted(args.photographs.glob("*.jpg")))
    recipe = Recipe.load(args.recipe).override({"steps": args.steps} | ({"size": args.size} if args.size else {}))
    draw = np.random.default_rng(args.seed)
    print("| layer | channels | alive | made | grey |\n|---|--:|--:|--:|--:|", flush=True)
    made = grey = 0
    for layer in layers:
        channels = found[layer]
        if args.count:
            channels = sorted(draw.permutation(channels)[: args.count].tolist())
        names: list[str] = []
        if channels:
            result = phosphene.ascend(network, [f"{layer}:{channel}" for channel in channels], recipe)
            names = [picture.name for picture in result if picture.scores["objective"] <= 0]
            made, grey = made + len(result), grey + len(names)
        row = f"| {layer} | {network.layer(layer).channels} | {len(found[layer])} | {len(channels)} | {len(names)}"
        print(f"{row} {' '.join(names)}|", flush=True)
    print(f"| all | | | {made} | {grey} |")


if __name__ == "__main__":
    main()
