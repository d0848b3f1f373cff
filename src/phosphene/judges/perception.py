"""How alike images look to a perceptual judge: in a network's features at several depths, or to LPIPS or DreamSim."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from phosphene.errors import InputError
from phosphene.judges.photo_set import BATCH, PhotoSet
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing

DEPTHS = 4
"""How many layers of a network a judge compares at, each as far behind the one before; the last is the penultimate."""

Likeness = Literal["standardized", "cosine", "distance"]


@dataclass(frozen=True, eq=False)
class PerceptualJudge:
    """What says how alike two images look.

    Attributes:
        name: of it.
        network: what it runs; it is to have no part in the images that it judges.
        preprocessing: how that is shown an image.
        depths: names of what it compares, from the eye on.
        embed: from pixels (rows, channels, height, width) in 0..255 one tensor (rows, features) for each depth; a
            network that classifies adds its logits.
        likeness: of two embeddings: "cosine"; "standardized", the same after each feature was centered and scaled over
            the photographs; or "distance", the negative of their squared distance.
    """

    name: str
    network: Network
    preprocessing: Preprocessing
    depths: tuple[str, ...]
    embed: Callable[[Tensor], list[Tensor]]
    likeness: Likeness = "standardized"

    def embeddings(self, images: Iterable[Image.Image], device: torch.device) -> list[Tensor]:
        """What `embed` returns of images, on the CPU."""
        pixels = (torch.stack(list(map(self.preprocessing.photograph, rows))) for rows in _batches(images))
        return self._embed_all(pixels, device)

    def photo_embeddings(self, photographs: PhotoSet, device: torch.device) -> list[Tensor]:
        """The same of the photographs that can be read.

        Raises:
            InputError: none can.
        """
        return self._embed_all((pixels for _, pixels in photographs.batches(self.preprocessing)), device)

    def _embed_all(self, batches: Iterable[Tensor], device: torch.device) -> list[Tensor]:
        parts: list[list[Tensor]] = []
        with self.network.borrowed(device), torch.no_grad():
            for pixels in batches:
                parts.append([each.float().cpu() for each in self.embed(pixels.to(device))])
        found = [torch.cat(depth) for depth in zip(*parts, strict=True)]
        if not all(bool(each.isfinite().all()) for each in found):
            raise InputError(f"judge {self.name} returns numbers that are not finite: see `phosphene doctor`")
        return found


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A judge, and what it makes of the photographs.

    Attributes:
        photographs: for each depth, (photographs, features), standardized where the judge's are.
        centers, scales: by which they were.
        top_classes: of each photograph the judge's first guess, (photographs,); None where it does not classify.
    """

    judge: PerceptualJudge
    photographs: list[Tensor]
    centers: list[Tensor]
    scales: list[Tensor]
    top_classes: Tensor | None = None

    @classmethod
    def of(cls, judge: PerceptualJudge, photographs: PhotoSet, device: torch.device) -> FeatureSpace:
        """Raises: InputError: no photograph can be read."""
        raw = judge.photo_embeddings(photographs, device)
        if judge.likeness != "standardized":
            return cls(judge, raw, [torch.zeros(1)] * len(raw), [torch.ones(1)] * len(raw))
        classes = raw.pop().argmax(1) if judge.network.classes else None
        centers = [each.mean(0) for each in raw]
        scales = [each.std(0, correction=0).clamp_min(1e-6) for each in raw]
        placed = [(each - center) / scale for each, center, scale in zip(raw, centers, scales, strict=True)]
        return cls(judge, placed, centers, scales, classes)

    def place(self, images: Iterable[Image.Image], device: torch.device) -> list[Tensor]:
        """For each depth, (images, features)."""
        raw = self.judge.embeddings(images, device)
        return [(each - c) / s for each, c, s in zip(raw, self.centers, self.scales, strict=False)]  # no logits

    def likeness(self, depth: int, placed: Tensor) -> Tensor:
        """How like each image each photograph is: (images, photographs)."""
        theirs = self.photographs[depth]
        if self.judge.likeness == "distance":
            return -torch.cdist(placed.double(), theirs.double()).square()
        return F.normalize(placed.double(), dim=1) @ F.normalize(theirs.double(), dim=1).T


def of_network(network: Network) -> PerceptualJudge:
    """A network as a perceptual judge: its channels, averaged over their maps, at `DEPTHS` depths.

    Raises:
        InputError: it has no layer that can be read.
    """
    layers = judged_layers(network)
    if not layers:
        raise InputError(f"{network.name} cannot judge: {network.limit or 'it has no layer that can be read'}")

    read = (*layers, LOGITS) if network.classes else layers

    def embed(pixels: Tensor) -> list[Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[Tensor], None]:
            return lambda output: found.update({name: output.float().reshape(*output.shape[:2], -1).mean(2)})

        network.read(pixels, {name: keep(name) for name in read})
        return [found[name] for name in read]

    return PerceptualJudge(network.name, network, network.preprocessing, layers, embed)


def judged_layers(network: Network) -> tuple[str, ...]:
    """The layers at which a network judges: of its activations, or else of all layers before the logits."""
    hidden = list(network.layers)
    while hidden and hidden[-1].channels == network.classes:
        hidden.pop()
    candidates = [layer.name for layer in hidden if layer.worth_showing and layer.channels > 1]
    if len(candidates) < DEPTHS:
        candidates = [layer.name for layer in hidden if layer.channels > 1]
    count = min(DEPTHS, len(candidates))
    return tuple(candidates[(place + 1) * len(candidates) // count - 1] for place in range(count))


def _batches(images: Iterable[Image.Image]) -> Iterator[Sequence[Image.Image]]:
    rest = iter(images)
    while rows := list(islice(rest, BATCH)):
        yield rows
