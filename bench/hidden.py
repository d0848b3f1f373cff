"""What makes the images of hidden units more active: `draft` with single fields of its `[hidden]` changed.

Living channels of some convolutions of AlexNet, VGG16 and EfficientNet-lite0.  There is no judge of a hidden unit; the
columns are what 32 views of the image retain of its activation, the share of channels that rank first in their layer on
their own image, and how active the channel is over those views, as a multiple of the first row's: the median over the
channels, the least and the most.  The picture has a row of images for each row of the table.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import phosphene
from phosphene import Recipe
from phosphene.draw.grid import grid
from phosphene.judges.judge import judge
from phosphene.networks.network import Network

NETWORKS = {
    "torchvision:alexnet": ("alexnet_features", 160, ("features.1", "features.4", "features.7", "features.11")),
    "torchvision:vgg16": ("vgg16_features", 112, ("features.1", "features.6", "features.13", "features.20")),
    "efficientnet_lite0": (None, None, ("blocks.0.0.bn1.act", "blocks.1.0.bn1.act", "blocks.3.0.bn1.act")),
}
PLAIN = {
    "canvas.contrast": 3.2,
    "canvas.exponent": 1.0,
    "optimizer.gradient": "rms",
}
TRIED: dict[str, dict[str, object]] = {
    "as classes": {},
    "planes": {"optimizer.gradient": "planes"},
    "contrast 5": {"canvas.contrast": 5.0},
    "exponent 0.7": {"canvas.exponent": 0.7},
    "contrast 5, exponent 0.7": {"canvas.contrast": 5.0, "canvas.exponent": 0.7},
    "planes, contrast 5": {"optimizer.gradient": "planes", "canvas.contrast": 5.0},
    "planes, exponent 0.7": {"optimizer.gradient": "planes", "canvas.exponent": 0.7},
    "as it is": {"optimizer.gradient": "planes", "canvas.contrast": 5.0, "canvas.exponent": 0.7},
}


def opened(name: str) -> tuple[Network, tuple[str, ...], Recipe]:
    file, size, layers = NETWORKS[name]
    weights = {"weights": f"../shared/weights/{file}.safetensors", "partial": True} if file else {}
    network = phosphene.open(name, **weights)
    return network, layers, Recipe.load("draft").override({"size": size} if size else {})


def living(network: Network, layer: str, count: int) -> list[str]:
    """Channels, evenly spread."""
    channels = network.layer(layer).channels
    return [f"{layer}:{channels * place // count}" for place in range(count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help="of those known here")
    parser.add_argument("--channels", type=int, default=3, help="of each layer")
    parser.add_argument("--only", nargs="+", default=list(TRIED), choices=list(TRIED), help="rows")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("hidden"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print("| network | row | retained | first | active: median, least, most |\n|---|---|---|---|---|")
    for name in args.networks:
        network, layers, draft = opened(name)
        units = [unit for layer in layers for unit in living(network, layer, args.channels)]
        base, shown = None, []
        for label in args.only:
            made = list(phosphene.ascend(network, units, draft.override(PLAIN | TRIED[label]), seed=args.seed))
            cards = judge(made, [], network=network)
            retained = np.array([card["retained"] for card in cards])
            first = np.mean([card["selectivity"]["rank"] == 1 for card in cards])
            active = retained * np.maximum(0, [card["objective"] for card in cards])
            base = active if base is None else base
            times = (active / base)[base > 0]
            spread = f"{np.median(times):.2f}, {times.min():.2f}, {times.max():.2f}"
            print(f"| {network.name} | {label} | {retained.mean():.2f} | {first:.2f} | {spread} |", flush=True)
            shown += made
        grid(shown, len(units)).convert("RGB").save(args.out / f"{network.name}.png")
