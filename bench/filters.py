"""Hidden units side by side: the post's method above, `draft` below, a column a layer.  For docs/quality.md.

    python bench/filters.py vgg16 alexnet lite0 --out docs/quality

VGG16's and AlexNet's convolutions are those of ../shared/weights; each column is the channel that bench's draw gives.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import phosphene
from phosphene.draw.grid import tile
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"


def opened(name: str) -> Network:
    if name == "lite0":
        return phosphene.open()
    return phosphene.open(f"torchvision:{name}", weights=WEIGHTS / f"{name}_features.safetensors", partial=True)


def units(network: Network, draw: int, most: int) -> list[str]:
    """A channel of each layer that is usually shown and has a map, of at most so many layers, evenly spread."""
    layers = [layer for layer in network.layers if layer.worth_showing and layer.positions]
    layers = [layers[i * len(layers) // min(most, len(layers))] for i in range(min(most, len(layers)))]
    generator = np.random.default_rng(draw)
    return [f"{layer.name}:{generator.integers(layer.channels)}" for layer in layers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--recipes", nargs="+", default=["filters", "draft"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--most", type=int, default=13)
    parser.add_argument("--draw", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("phosphene-out"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.networks:
        network = opened(name)
        shown = units(network, args.draw, args.most)
        images: list[Image.Image] = []
        captions: list[str] = []
        for recipe in args.recipes:
            clock = time.perf_counter()
            changed = Recipe.load(recipe).for_network(network).override({"steps": args.steps, "size": args.size})
            result = phosphene.ascend(network, shown, changed, seed=args.draw)
            seconds = (time.perf_counter() - clock) / len(result)
            stopped = sum(picture.stopped != "all steps done" for picture in result)
            print(f"{name} {recipe}: {seconds:.1f} s an image, {stopped} stopped early", flush=True)
            images += [picture.image() for picture in result]
            captions += [picture.label for picture in result]
        tile(images, captions, len(shown)).convert("RGB").save(args.out / f"filters-{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
