"""Find a recipe's rate (or another field) for a network: a grid of values, scored, and a picture to look at.

    python bench/rates.py tence --values 10000 20000 40000 80000 --steps 240
    python bench/rates.py yosinski-a --field schedule.gain --values 20 60 200

Prints for every value the network's own probability, the judges' mean probability and top-1, and the share of
saturated values; writes RECIPE-rates.png, a row a value.  The judges are EfficientNet-lite1 and -lite2 if no others are
given; they are relatives of lite0 and flatter it, so the figures rank values and don't grade pictures.
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
from phosphene.picture import Picture


def judged(judge: Network, pictures: list[Picture]) -> tuple[float, float]:
    """Mean probability and top-1 that a judge gives the pictures' classes, on the 8-bit images."""
    images = torch.stack([judge.preprocessing.photograph(picture.image()) for picture in pictures])
    with judge.borrowed(), torch.no_grad():
        probabilities = judge.forward(images).softmax(dim=1)
    classes = torch.tensor([picture.unit.index for picture in pictures])
    right = (probabilities.argmax(dim=1) == classes).float().mean().item()
    return probabilities[torch.arange(len(classes)), classes].mean().item(), right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--judges", nargs="*", default=["efficientnet_lite1", "efficientnet_lite2"])
    parser.add_argument("--field", default="optimizer.rate")
    parser.add_argument("--values", nargs="+", type=float, required=True)
    parser.add_argument("--classes", type=int, default=6, help="how many are drawn")
    parser.add_argument("--draw", type=int, default=1, help="seed of the draw of classes, and of the images")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--out", type=Path, default=Path("phosphene-out"))
    args = parser.parse_args()

    network = phosphene.open(args.network)
    judges = [phosphene.open(name) for name in args.judges]
    classes = np.random.default_rng(args.draw).choice(network.classes, args.classes, replace=False)
    units = [f"class:{index}" for index in sorted(classes)]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.recipes:
        print(f"{name} on {network.name}, classes {', '.join(units)}")
        names = " ".join(f"{judge.name[-8:]:>16}" for judge in judges)
        print(args.field)
        print(f"   value       own {names}  saturated  seconds")
        images: list[Image.Image] = []
        captions: list[str] = []
        for value in args.values:
            fields = {args.field: value, **dict(pair.split("=", 1) for pair in args.set)}
            if args.steps:
                fields["steps"] = args.steps
            clock = time.perf_counter()
            result = phosphene.ascend(network, units, phosphene.Recipe.load(name).override(fields), seed=args.draw)
            seconds = time.perf_counter() - clock
            own = np.mean([score["probability"] for score in result.scores])
            scores = [judged(judge, result.pictures) for judge in judges]
            saturated = np.mean([np.isin(picture.pixels, (0, 255)).mean() for picture in result])
            columns = " ".join(f"{mean:8.3f} {right:7.2f}" for mean, right in scores)
            print(f"{value:8g}  {own:8.3f} {columns}  {saturated:9.3f}  {seconds:7.0f}", flush=True)
            images += [picture.image() for picture in result]
            captions += [f"{picture.label}, {value:g}" for picture in result]
        tile(images, captions, columns=len(units)).save(args.out / f"{name}-rates.png")


if __name__ == "__main__":
    main()
