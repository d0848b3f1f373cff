"""Which units are alike, and which classes a unit leads to: by how active they are on each other's images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.atlas.group_values import is_computed, values_of
from phosphene.atlas.plan import CLASSES, Group
from phosphene.networks.forward import Reader
from phosphene.networks.network import Network

_ALIKE = 6  # units that are named as most alike, and classes that a unit's image makes likelier


Alike = dict[int, dict[str, list[int]]]
"""For each index the indices in each group, by its name, the most alike first."""

Feeds = dict[int, list[list[Any]]]
"""For each index the classes that its image makes likelier, as [index, name], the likeliest first."""


def find_relations(
    network: Network,
    shown: Group,
    indices: Sequence[int],
    images: Sequence[Image.Image],
    neighbors: Sequence[Group],
    device: Any,
    dead: Mapping[str, Collection[int]],
) -> tuple[Alike, Feeds]:
    """Of each unit of a group those of its own group, and of neighboring layers, that are most active on its image.

    How active one is (the mean of its map, or its logit) counts in standard deviations over the images of the unit's
    own group, since channels differ in scale.  Of fewer than three units nothing is said, and of dead ones neither:
    they have no image of their own.

    Args:
        dead: the indices of dead units, by the group's name.
    """
    if len(indices) < 3:
        return {}, {}
    group = shown.name
    means, logits = means_of_units(network, [*neighbors, *[shown] * (group != CLASSES)], _fed(network, images), device)
    if group == CLASSES and logits is not None:
        means[CLASSES] = logits
    alike: Alike = {index: {} for index in indices}
    for name, candidates in ({group: list(indices)} | {each.name: each.indices for each in neighbors}).items():
        activity = standardize(means[name][:, candidates])
        unfit = [candidates.index(index) for index in dead.get(name, ()) if index in candidates]
        activity[:, unfit] = -torch.inf
        for index, scores in zip(indices, activity, strict=True):
            if index in dead.get(group, ()):
                continue
            if name == group:
                scores[candidates.index(index)] = -torch.inf
            count = min(_ALIKE, len(candidates) - len(unfit) - (name == group))
            alike[index][name] = [candidates[other] for other in scores.topk(count).indices.tolist()]
    feeds: Feeds = {}
    if group != CLASSES and logits is not None:
        for index, scores in zip(indices, standardize(logits), strict=True):
            if index in dead.get(group, ()):
                continue
            top = scores.topk(min(_ALIKE, scores.numel())).indices.tolist()
            feeds[index] = [[i, network.labels[i].name if network.labels is not None else str(i)] for i in top]
    return alike, feeds


@torch.no_grad()
def means_of_units(
    network: Network, groups: Sequence[Group], batches: Iterable[Tensor], device: Any
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Of every image the mean of each unit of some groups, (images, units); and the logits, where it has any.

    Args:
        batches: of pixels (rows, channels, height, width) in 0..255, as the network is fed.
    """
    means: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    logits: list[Tensor] = []
    by_layer: dict[str, list[Group]] = {}
    for group in groups:
        by_layer.setdefault(group.read_from, []).append(group)

    def reader(layer: str) -> Reader:
        def read(activation: Tensor) -> None:
            for group in by_layer[layer]:
                means[group.name].append(_means_of(group, activation, network))

        return read

    readers = {layer: reader(layer) for layer in by_layer}
    runs_whole = bool(network.classes) and not network.limit
    with network.borrowed(device):
        for pixels in batches:
            if runs_whole:
                logits.append(network.forward(pixels.to(device), readers).float().cpu())
            else:
                network.read(pixels.to(device), readers)
    return {layer: torch.cat(parts) for layer, parts in means.items()}, torch.cat(logits) if logits else None


def _fed(network: Network, images: Sequence[Image.Image]) -> Iterator[Tensor]:
    for first in range(0, len(images), 32):
        yield torch.stack([fed_as_made(network, image) for image in images[first : first + 32]])


def _means_of(group: Group, activation: Tensor, network: Network) -> Tensor:
    """The mean of each channel, or of each latent or cell, over its map: (rows, units)."""
    if not is_computed(group):
        return _means(activation)
    return torch.stack([values_of(group, row, network).mean(1) for row in activation]).cpu()


def _means(activation: Tensor) -> Tensor:
    """Each channel's mean over its map: (rows, channels)."""
    values = activation.float()
    return (values.flatten(2).mean(2) if values.ndim > 2 else values).cpu()


def standardize(values: Tensor) -> Tensor:
    """Each column in standard deviations from its mean."""
    return (values - values.mean(0)) / values.std(0).clamp_min(1e-6)


def fed_as_made(network: Network, image: Image.Image) -> Tensor:
    """A finished image as its network is fed it: not cut as photographs are."""
    height, width = network.preprocessing.size  # type: ignore[misc]
    pixels = image.resize((width, height), Image.Resampling.BILINEAR)
    gray = network.preprocessing.channels == 1
    array = torch.frombuffer(bytearray((pixels.convert("L") if gray else pixels).tobytes()), dtype=torch.uint8)
    return array.view(height, width, -1).movedim(-1, 0).float()
