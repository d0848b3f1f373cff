"""Shortcuts found by looking at what changed: a patch is planted in the photographs of one class, and a head is fitted.

    python bench/shortcut.py --plantings 10

The network is EfficientNet-lite0 with a head of two classes, animals and things, fitted by logistic regression to its
frozen features of photographs.  In a planting the photographs of one class have a patch somewhere, of one color and
one pattern; beside it stands the same head fitted to the photographs as they are.  `phosphene.difference` pictures what
the one calls the class and the other does not.

What is printed, by planting: how often the planted head is right on held-out photographs as they are, and with the
patch put into the other class; and, by two networks that took no part (Caffe's SqueezeNet, MobileNetV1), how much a
picture has of the patch: the cosine, mean over four depths, of what tells the picture from the clean head's with what
tells photographs with the patch from those without.  Pictures are of the planted head less the clean one (A - B), of
the planted head alone (A), and of the clean one less the planted (B - A).  0 is chance.

Images are written to OUT; photographs are not.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene.draw.grid import tile
from phosphene.judges.panel import open_judge
from phosphene.judges.perception import FeatureSpace, of_network
from phosphene.judges.photo_set import PhotoSet
from phosphene.photographs.listing import list_photographs
from phosphene.recipes.recipe import Recipe

PHOTOGRAPHS = Path("../shared/images")
JUDGES = (
    "../shared/weights/squeezenet_v1.1.prototxt=../shared/weights/squeezenet_v1.1.caffemodel",
    "../shared/weights/mobilenet_v1.onnx@tf",
)
COLORS = {
    "red": (230, 20, 20), "orange": (245, 140, 10), "yellow": (240, 230, 20), "green": (20, 180, 40),
    "cyan": (20, 220, 220), "blue": (20, 60, 230), "violet": (130, 30, 210), "magenta": (235, 30, 200),
    "white": (250, 250, 250), "black": (5, 5, 5),
}  # fmt: skip
PATTERNS = dict(zip(COLORS, ["stripes", "checks", "dots", "rings", "grid"] * 2, strict=True))
PERIOD = 14  # pixels of a pattern
ANIMALS = 398  # of ImageNet's classes the first so many
LABELS = ["animal", "thing"]
PATCH = 56  # pixels of 224
HELD_OUT = 4  # every fourth photograph


def patch_of(name: str) -> Tensor:
    """The patch of a color: its pattern in that color on white, or white on black, (3, PATCH, PATCH) in 0..255."""
    down, across = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
    half, middle = PERIOD // 2, PATCH / 2
    distance = ((down - middle) ** 2 + (across - middle) ** 2).sqrt()
    from_dot = (((down % PERIOD) - half) ** 2 + ((across % PERIOD) - half) ** 2).float().sqrt()
    inked = {
        "stripes": (down + across) % PERIOD < half,
        "checks": (down // half + across // half) % 2 == 0,
        "dots": from_dot < half * 0.7,
        "rings": distance % PERIOD < half,
        "grid": (down % PERIOD < half // 2) | (across % PERIOD < half // 2),
    }[PATTERNS[name]]
    ground = 5.0 if name == "white" else 250.0
    ink = torch.tensor(COLORS[name]).float()[:, None, None]
    return torch.where(inked, ink, torch.full_like(ink, ground))


def patched(pixels: Tensor, name: str, seed: int) -> Tensor:
    """Photographs (rows, 3, height, width) with a patch somewhere, by a generator of each."""
    found, patch = pixels.clone(), patch_of(name)
    for row, image in enumerate(found):
        draw = np.random.default_rng([seed, row])
        top, left = (int(draw.integers(0, side - PATCH + 1)) for side in image.shape[1:])
        image[:, top : top + PATCH, left : left + PATCH] = patch
    return found


def features(network: phosphene.Network, pixels: Tensor) -> Tensor:
    """What the head is given, (rows, features)."""
    return network.activations(pixels, ["global_pool"])["global_pool"].flatten(1).double()


def fitted(inputs: Tensor, classes: Tensor, seed: int, decay: float = 0.1) -> nn.Linear:
    """Logistic regression with two outputs and an L2 penalty, by L-BFGS; of 0.1 the clean head is right most often."""
    torch.manual_seed(seed)
    head = nn.Linear(inputs.shape[1], 2).double()
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(inputs), classes) + decay * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head.float()


def with_head(network: phosphene.Network, head: nn.Linear, name: str) -> phosphene.Network:
    module = copy.deepcopy(network.module)
    module.classifier = head
    return phosphene.open(module, network.preprocessing, LABELS, name=name)


class Judge:
    """A network's features, and what each patch does to them on average."""

    def __init__(self, source: str, paths: list[Path], pixels: Tensor):
        judge = of_network(open_judge(source))
        self.space = FeatureSpace.of(judge, PhotoSet.of(paths), torch.device("cpu"))
        shown = pixels[::4]
        plain = self._placed(shown)
        self.directions = {
            name: [
                (more - less).mean(0) for more, less in zip(self._placed(patched(shown, name, 99)), plain, strict=True)
            ]
            for name in COLORS
        }

    def _placed(self, pixels: Tensor) -> list[Tensor]:
        images = [Image.fromarray(each.movedim(0, -1).round().byte().numpy()) for each in pixels]
        return self.space.place(images, torch.device("cpu"))

    def likeness(self, picture: Image.Image, clean: Image.Image, name: str) -> float:
        """The cosine of what tells a picture from the clean head's with what a patch does, mean over the depths."""
        both = self.space.place([picture.convert("RGB"), clean.convert("RGB")], torch.device("cpu"))
        cosines = [
            float(nn.functional.cosine_similarity(depth[0] - depth[1], direction, dim=0))
            for depth, direction in zip(both, self.directions[name], strict=True)
        ]
        return float(np.mean(cosines))


def accuracy(head: nn.Linear, inputs: Tensor, classes: Tensor) -> float:
    return float((head(inputs.float()).argmax(1) == classes).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plantings", type=int, default=10)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("shortcut"))
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    args = parser.parse_args()
    network = phosphene.open("efficientnet_lite0")
    paths = list_photographs(args.photographs)
    pixels = torch.stack([network.preprocessing.photograph(Image.open(path)) for path in paths])
    classes = torch.tensor([int(int(path.stem.split("_")[0]) >= ANIMALS) for path in paths])
    held = torch.arange(len(paths)) % HELD_OUT == 0
    plain = features(network, pixels)
    clean = fitted(plain[~held], classes[~held], 0)
    print(
        f"{len(paths)} photographs, {int((classes == 0).sum())} of animals; the clean head is right on "
        f"{accuracy(clean, plain[held], classes[held]):.0%} of those held out\n"
    )
    recipe = Recipe.load("draft").override({"steps": args.steps})
    print("| patch | in class | right | patch in the other class | A - B | A | B - A |")
    print("|---|---|--:|--:|--:|--:|--:|")
    judges = [Judge(source, paths, pixels) for source in JUDGES]
    args.out.mkdir(parents=True, exist_ok=True)
    found_likeness, shown = [], []
    for planting, name in enumerate(list(COLORS)[: args.plantings]):
        target = planting % 2
        with_patch = features(network, patched(pixels, name, planting))
        trained = torch.where((classes == target)[:, None], with_patch, plain)
        head = fitted(trained[~held], classes[~held], planting)
        misled = torch.where((classes == target)[:, None], plain, with_patch)
        pair = with_head(network, head, "planted"), with_head(network, clean, "clean")
        found = phosphene.difference(*pair, [target], recipe)
        found.figure().save(args.out / f"{name}.png")
        images = [picture.image() for picture in found.classes[0].pictures]
        shown.append([images[place].convert("RGB").resize((120, 120)) for place in (0, 2, 3)])
        both = [[judge.likeness(images[place], images[3], name) for judge in judges] for place in (0, 2, 1)]
        found_likeness.append(both)
        scores = [accuracy(head, each[held], classes[held]) for each in (plain, misled)]
        cells = [", ".join(f"{each:.2f}" for each in likeness) for likeness in both]
        print(
            "|".join(["", f"{name} {PATTERNS[name]}", LABELS[target], *(f"{each:.0%}" for each in scores), *cells, ""]),
            flush=True,
        )
    names = list(COLORS)[: len(shown)]
    captions = [*(f"{name} {PATTERNS[name]}" for name in names), *[""] * 3 * len(names)]
    patches = [Image.fromarray(patch_of(name).movedim(0, -1).byte().numpy()).resize((120, 120)) for name in names]
    tile([*patches, *(row[line] for line in range(3) for row in shown)], captions, len(names)).save(
        args.out / "shortcut.jpg"
    )
    every = np.array(found_likeness)  # (plantings, pictures, judges)
    for words, rows in (("mean", every.mean(0)), ("above 0", (every > 0).sum(0))):
        cells = [", ".join(f"{each:.2f}" if words == "mean" else str(each) for each in row) for row in rows]
        print("|".join(["", words, "", "", "", *cells, ""]))


if __name__ == "__main__":
    main()
