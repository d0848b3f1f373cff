"""What the judges say of images, and which photographs are nearest to these in their features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.default_progress import Tally
from phosphene.errors import InputError
from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.photo_set import BATCH, PhotoSet
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the judges say of one image."""

    judges: dict[str, dict[str, bool | float]]
    nearest: dict[str, str | float] | None


def predict(
    images: Sequence[JudgedImage],
    judges: Sequence[Network],
    targets: Sequence[Sequence[int]],
    photo_set: PhotoSet | None,
    device: torch.device,
    tally: Tally,
) -> list[Predictions]:
    """What each judge says of each image's class, and the nearest photograph in the first judge's features.

    Args:
        targets: for each image the class in each judge; nothing for an image that shows no class.

    Raises:
        InputError: a judge returns numbers that are not finite, or no photograph can be read.
    """
    judged = [i for i, indices in enumerate(targets) if indices]
    answers: list[dict[str, dict[str, bool | float]]] = [{} for _ in images]
    nearest: dict[int, dict[str, str | float]] = {}
    for number, judge in enumerate(judges if judged else ()):
        tally.say(f"asking {judge.name}")
        features: list[Tensor] = []
        with judge.borrowed(device):
            for first in range(0, len(judged), BATCH):
                rows = judged[first : first + BATCH]
                pixels = torch.stack([judge.preprocessing.photograph(images[i].image) for i in rows]).to(device)
                logits, penultimate = _features(judge, pixels)
                features.append(penultimate)
                for i, row in zip(rows, logits.float().cpu(), strict=True):
                    answers[i][judge.name] = _prediction(row, targets[i][number], judge, images[i])
                tally.add(len(rows))
            if photo_set is not None and number == 0:
                near = _nearest(judge, torch.cat(features), photo_set, device)
                nearest = dict(zip(judged, near, strict=True))
    return [Predictions(answers[i], nearest.get(i)) for i in range(len(images))]


def _prediction(logits: Tensor, index: int, judge: Network, image: JudgedImage) -> dict[str, bool | float]:
    probability = judge.probabilities(logits[None])[0, index].item()
    if not math.isfinite(probability):
        raise InputError(f"judge {judge.name} returns no finite numbers for {image.name!r}: see `phosphene doctor`")
    above = int((logits >= logits[index]).sum()) - 1  # a tie is not won
    return {"top1": above < 1, "top5": above < 5, "probability": probability}


def _features(network: Network, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (rows, classes) and penultimate features (rows, channels)."""
    layer = penultimate(network) or LOGITS
    found = network.activations(pixels, [LOGITS, layer], batch=len(pixels))
    return found[LOGITS], found[layer].reshape(len(pixels), found[layer].shape[1], -1).mean(2).float().cpu()


def penultimate(network: Network) -> str | None:
    """The last layer before the logits, whose map, if it has one, is averaged; None if there is no other layer.

    From the last layer back, all that have as many channels as there are classes belong to the logits: the classifier,
    a softmax, the modules around them.  What a 1x1 convolution classifies is averaged as its answers would be.
    """
    hidden = [layer.name for layer in network.layers]
    channels = [layer.channels for layer in network.layers]
    while channels and channels[-1] == network.classes:
        channels.pop()
    return hidden[len(channels) - 1] if channels else None


def _nearest(
    judge: Network, features: Tensor, photo_set: PhotoSet, device: torch.device
) -> Iterator[dict[str, str | float]]:
    names: list[str] = []
    theirs: list[Tensor] = []
    for batch, pixels in photo_set.batches(judge.preprocessing):
        names += batch
        theirs.append(_features(judge, pixels.to(device))[1])
    similarity = F.normalize(features.double(), dim=1) @ F.normalize(torch.cat(theirs).double(), dim=1).T
    for row in similarity:
        best = int(row.argmax())
        yield {"photograph": names[best], "judge": judge.name, "distance": max(0.0, 1 - row[best].item())}
