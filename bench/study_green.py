"""Where does the green of the post's VGG16 come from?

The post finds the classes of VGG16 "green and strange".  For networks with a BGR mean and without, each colour's share
of the gradient's power is measured, at the post's start and on photographs, and which way the gradient pulls the colour
as a whole; then images are made by the post's best settings (clipping, a median of 5 every 4 steps) from the post's
noise, and with one thing changed at a time: the start about mid-grey in place of the mean, each colour's gradient
divided by its own size, and lower rates.  VGG16 and AlexNet have no classes here: channels of their last convolution.

    python bench/study_green.py --classes 12 --steps 200
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from quality import SHARED
from study import opened, parser

import phosphene
from phosphene import Network, Recipe
from phosphene.ascent.canvas import start_image
from phosphene.ascent.evaluator import Evaluator
from phosphene.draw.grid import grid
from phosphene.reproduce import rates
from phosphene.reproduce.layers import living_units
from phosphene.units.objects import Class, Unit

CPU = torch.device("cpu")
CONVOLUTIONS = {"vgg16": "vgg16_features", "alexnet": "alexnet_features"}
# By the RMS of the first step, in pixel values: the post's rates as they stand mean other steps on every network.
FIRST_STEPS = (1.0, 8.0, 64.0)
COLORS = ("red", "green", "blue")


def network_of(name: str) -> Network:
    if name in CONVOLUTIONS:
        weights = SHARED / "weights" / f"{CONVOLUTIONS[name]}.safetensors"
        return phosphene.open(f"torchvision:{name}", weights=weights, partial=True).with_input_size((112, 112))
    return opened(name)


def units_of(network: Network, count: int, seed: int) -> list[Unit]:
    """Classes, or living channels of the last convolution's activation."""
    if network.name in CONVOLUTIONS or not network.classes:
        layer = [layer for layer in network.layers if layer.worth_showing and len(layer.positions) == 2][-1]
        return list(living_units(network, layer.name, None, script("tence"), count, seed, CPU))
    drawn = np.random.default_rng(seed).choice(network.classes, count, replace=False)
    return [Class(int(index)) for index in sorted(drawn)]


def script(name: str, **changes: Any) -> Recipe:
    return rates.as_the_script(Recipe.load(name).model_copy(update={"networks": {}}).override(changes))


def gradients(network: Network, units: Sequence[Unit], images: torch.Tensor) -> torch.Tensor:
    """Of each unit at its image: (units, 3, height, width), by a pixel of 0..255."""
    with network.borrowed(CPU):
        objective = Evaluator([network], Recipe.load("naive"), CPU)
        return torch.cat([objective([unit] * 2, image.expand(2, -1, -1, -1)).gradient[:1] for unit, image in zip(
            units, images.split(1), strict=True)])  # fmt: skip


def shares(found: torch.Tensor) -> list[float]:
    """Each colour's share of the gradient's power, a mean over images."""
    power = found.square().sum(dim=(2, 3))
    return (power / power.sum(dim=1, keepdim=True).clamp_min(1e-30)).mean(dim=0).tolist()


def pulls(found: torch.Tensor) -> list[float]:
    """Which way each colour is pulled as a whole: the gradient's mean over its RMS, a mean over images."""
    return (
        (found.mean(dim=(2, 3)) / found.square().mean(dim=(1, 2, 3)).sqrt().clamp_min(1e-30)[:, None]).mean(0).tolist()
    )


def color(pictures: Sequence[phosphene.Picture]) -> dict[str, Any]:
    """The mean colour of images, how much greener than red and blue they are, and each colour's deviation."""
    pixels = np.stack([picture.pixels for picture in pictures]).astype(float)
    mean = pixels.mean(axis=(0, 1, 2))
    green = pixels[..., 1].mean(axis=(1, 2)) - pixels[..., [0, 2]].mean(axis=(1, 2, 3))
    return {
        "mean": mean.tolist(),
        "green": float(green.mean()),
        "error": float(green.std(ddof=1) / np.sqrt(len(green))),
        "deviation": pixels.std(axis=(1, 2)).mean(axis=0).tolist(),
        "probability": float(np.mean([picture.scores.get("probability", np.nan) for picture in pictures])),
    }


def main() -> None:
    found = parser(__doc__, ["squeezenet_v1.1", "vgg16", "alexnet", "mobilenet_v1", "efficientnet_lite0"])
    found.add_argument("--steps", type=int, default=200)
    args = found.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = sorted((SHARED / "images").glob("*.jpg"))[:: max(1, 200 // args.classes)][: args.classes]
    results, sheet = {}, []
    for name in args.networks:
        network = network_of(name)
        units = units_of(network, args.classes, args.seed)
        start = start_image(script("tence").start, network.preprocessing, args.seed, None).float()
        shown = torch.stack([network.preprocessing.photograph(Image.open(file)) for file in files])
        at_start = gradients(network, units, start.expand(len(units), -1, -1, -1))
        at_photographs = gradients(network, units, shown)
        entry: dict[str, Any] = {
            "mean": network.preprocessing.mean_pixels,
            "start": {"shares": shares(at_start), "pull": pulls(at_start)},
            "photographs": {"shares": shares(at_photographs), "pull": pulls(at_photographs)},
            "photographs' colours": shown.mean(dim=(0, 2, 3)).tolist(),
        }
        size = float(at_start.square().mean().sqrt())
        variants = {f"first step {step:g}": {"optimizer.rate": step / size} for step in FIRST_STEPS}
        step = FIRST_STEPS[1]
        variants["about mid-grey"] = {"optimizer.rate": step / size, "start.kind": "uniform", "start.low": 117.5,
                                      "start.high": 137.5}  # fmt: skip
        variants["each colour by its own size"] = {"optimizer.rate": step, "optimizer.gradient": "planes"}
        variants["all colours by one size"] = {"optimizer.rate": step, "optimizer.gradient": "rms"}
        for label, changes in variants.items():
            recipe = script("tence", steps=args.steps)
            recipe = recipe.override(changes)
            pictures = list(
                phosphene.ascend(network, units, recipe, seed=args.seed, options=phosphene.RunOptions(precision="fp32"))
            )
            entry[label] = color(pictures)
            sheet += pictures[:6]
            print(name, label, json.dumps(entry[label]), flush=True)
        results[name] = entry
        (args.out / "green.json").write_text(json.dumps(results, indent=1) + "\n")
    grid(sheet, 36).convert("RGB").save(args.out / "green.jpg", quality=85)
    print(table(results))


def table(results: dict[str, Any]) -> str:
    def three(values: Sequence[float], form: str) -> str:
        return " ".join(format(value, form) for value in values)

    steps = ", ".join(f"{step:g}" for step in FIRST_STEPS)
    lines = [
        "| | mean, RGB | power at the start, RGB | on photographs | pull at the start | "
        f"greener by, at first steps of {steps} | about mid-grey | each colour by its own size |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in results.items():
        greens = " / ".join(f"{entry[f'first step {step:g}']['green']:+.1f}" for step in FIRST_STEPS)
        others = [f"{entry[label]['green']:+.1f} ± {entry[label]['error']:.1f}" for label in (
            "about mid-grey", "each colour by its own size")]  # fmt: skip
        lines.append(
            f"| {name} | {three(entry['mean'], '.0f')} | {three(entry['start']['shares'], '.2f')} | "
            f"{three(entry['photographs']['shares'], '.2f')} | {three(entry['start']['pull'], '+.2f')} | {greens} | "
            f"{' | '.join(others)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
