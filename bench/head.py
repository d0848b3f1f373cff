"""A linear head on the frozen vision transformer, so that classes of a transformer can be shown and judged.

    python bench/head.py --crops 8 --classes 12

No trained transformer with classes comes with the project.  So a head is fitted here: features of the transformer (its
class token beside the mean of its patches, after the last normalization) to the logits of EfficientNet-lite0 and
MobileNetV1, each centered and scaled, on random crops of photographs, by ridge regression.  200 photographs of 200
classes are few: how often the head is right is printed, on the photographs that it is fitted to and on others (five
folds, each class in one of them, so that what is right there comes from what the teachers say of other classes).

Then classes are shown, by each recipe, and judged by networks that took no part: SqueezeNet and EfficientNet-lite2.
Classes are drawn among those of the photographs.  OUT has the head's weights, which are fitted once, the images and a
sheet of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from units import LITE2, MOBILENET, SHARED, SQUEEZENET, parse_method

import phosphene
from phosphene.draw.grid import tile
from phosphene.judges.panel import open_judge
from phosphene.networks.network import Network

TEACHERS = ("efficientnet_lite0", MOBILENET)
HELD_OUT = (SQUEEZENET, LITE2)
FOLDS = 5
PENALTIES = tuple(float(10**power) for power in range(0, 7))


class Headed(nn.Module):
    """A transformer of transformers with a linear head on its class token and the mean of its patches."""

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(features(self.backbone, images))  # type: ignore[no-any-return]


def features(backbone: nn.Module, images: Tensor) -> Tensor:
    """(rows, 2 * width)."""
    tokens: Tensor = backbone(images).last_hidden_state
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def random_crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A square of 30 to 100 % of the shorter side's square, mirrored every other time, 256 pixels a side."""
    side = round(min(image.size) * float(generator.uniform(0.3, 1.0)) ** 0.5)
    left = int(generator.integers(image.width - side + 1))
    top = int(generator.integers(image.height - side + 1))
    crop = image.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BICUBIC)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else crop


def read(network: Network, images: Sequence[Image.Image], backbone: bool) -> Tensor:
    """The transformer's features, or the logits of a network of classes, (images, …)."""
    found = []
    with network.borrowed("cpu"), torch.no_grad():
        for start in range(0, len(images), 16):
            pixels = torch.stack([network.preprocessing.photograph(image) for image in images[start : start + 16]])
            if backbone:
                found.append(features(network.module, network.preprocessing(pixels)))
            else:
                found.append(network.forward(pixels))
    return torch.cat(found).double()


def teach(images: Sequence[Image.Image]) -> Tensor:
    """What the teachers say, (images, classes): the mean of their logits, each image's centered and scaled."""
    said = [read(open_judge(name), images, backbone=False) for name in TEACHERS]
    return torch.stack([(each - each.mean(1, True)) / each.std(1, keepdim=True) for each in said]).mean(0)


def fit(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Ridge regression: the weight (classes, width), and the bias."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centered = x - mean_x
    gram = centered.T @ centered + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centered.T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x


def right(logits: Tensor, labels: Tensor, within: int) -> float:
    return float((logits.topk(within, 1).indices == labels[:, None]).any(1).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=8, help="of each photograph")
    parser.add_argument("--classes", type=int, default=12, help="that are shown")
    parser.add_argument("--recipes", nargs="+", default=["draft", "ghiasi"], help="as the methods of units.py")
    parser.add_argument("--steps", type=int, help="of each recipe, in place of its own")
    parser.add_argument("--seed", type=int, default=29)
    parser.add_argument("--out", type=Path, default=Path("head"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = sorted((SHARED / "images").glob("*.jpg"))
    labels = torch.tensor([int(path.name[:3]) for path in paths])
    backbone = phosphene.open(f"{SHARED}/weights/dinov2_small_saliency")
    if not (args.out / "head.safetensors").exists():
        save_file(fitted(backbone, paths, labels, args), args.out / "head.safetensors")
    module = Headed(backbone.module, **load_file(args.out / "head.safetensors")).eval()
    known = phosphene.open("efficientnet_lite0").labels
    network = Network(module, backbone.preprocessing, labels=known, name="dinov2_small with a head")
    generator = np.random.default_rng(args.seed)
    shown = sorted(int(index) for index in generator.choice(labels.numpy(), args.classes, replace=False))
    for name in args.recipes:
        recipe = parse_method(name)[0].override({"steps": args.steps} if args.steps else {})
        result = phosphene.ascend(network, [f"class:{index}" for index in shown], recipe)
        images = [picture.image().convert("RGB") for picture in result]
        for index, image in zip(shown, images, strict=True):
            image.save(args.out / f"{name}_{index:03d}.png")
        names = [network.labels[index].name for index in shown] if network.labels else list(map(str, shown))
        tile([image.resize((160, 160)) for image in images], names, 6).save(args.out / f"{name}.png")
        own = np.mean([picture.scores["probability"] for picture in result])
        seen = []
        for judge in HELD_OUT:
            opened = open_judge(judge)
            logits = read(opened, images, backbone=False)
            first, five = (right(logits, torch.tensor(shown), within) for within in (1, 5))
            seen.append(f"{opened.name} {first:.2f} / {five:.2f}")
        print(f"{name}: own probability {own:.2f}; top-1 / top-5 {', '.join(seen)}", flush=True)


def fitted(backbone: Network, paths: Sequence[Path], labels: Tensor, args: argparse.Namespace) -> dict[str, Tensor]:
    """A head of the transformer; what it can is printed."""
    photographs = [Image.open(path).convert("RGB") for path in paths]
    generator = np.random.default_rng(args.seed)
    crops = [random_crop(image, generator) for image in photographs for _ in range(args.crops)]
    x, y = read(backbone, crops, backbone=True), teach(crops)
    whole_x, whole_y = read(backbone, photographs, backbone=True), teach(photographs)
    photograph = torch.arange(len(paths)).repeat_interleave(args.crops)
    fold = torch.as_tensor(generator.permutation(len(paths)) % FOLDS)
    best, found = (-1.0, 0.0), {}
    for penalty in PENALTIES:
        logits = torch.zeros_like(whole_y)
        for part in range(FOLDS):
            weight, bias = fit(x[fold[photograph] != part], y[fold[photograph] != part], penalty)
            logits[fold == part] = whole_x[fold == part] @ weight.T + bias
        likeness = float(nn.functional.cosine_similarity(logits, whole_y).mean())
        found[penalty] = logits
        best = max(best, (likeness, penalty))
    weight, bias = fit(x, y, best[1])
    for what, said in (
        ("the teachers", whole_y),
        ("the head, of photographs that it is fitted to", whole_x @ weight.T + bias),
        ("the head, of photographs of classes that it is not fitted to", found[best[1]]),
    ):
        first, five = (right(said, labels, within) for within in (1, 5))
        print(f"{what}: the class is first {first:.2f}, in five {five:.2f}", flush=True)
    agree = right(found[best[1]], whole_y.argmax(1), 5)
    print(f"the teachers' first among the head's five there: {agree:.2f}; penalty {best[1]:g}", flush=True)
    scale = 12 / float((whole_x @ weight.T + bias).std(1).mean())  # so that a softmax of them is not flat
    return {"weight": (scale * weight).float(), "bias": (scale * bias).float()}


if __name__ == "__main__":
    main()
