"""The photographs that excite a unit most, and what of them it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.atlas.plan import CLASSES
from phosphene.atlas.sheets import Box
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.forward import Reader
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.planes import to_pil
from phosphene.units.tokens import PATCHES

_COUNT = 5  # photographs of each unit


def decode(network: Network, photographs: PhotoSet) -> Tensor:
    """Photographs as they are fed to a network, in 8 bits: (photographs, channels, height, width)."""
    return torch.cat([batch.clamp(0, 255).byte() for _, batch in photographs.batches(network.preprocessing)])


@dataclass(frozen=True)
class TopPhotographs:
    """How active every channel of some layers is on photographs.

    Attributes:
        photographs: as `decode` returns them.
        values: by layer each channel's highest on each photograph, or of tokens their mean over the patches,
            (photographs, channels).
        places: where in the map the highest is, counted row by row; of the same shape.
        maps: by layer the shape of its map.
    """

    network: Network
    photographs: Tensor
    values: dict[str, Tensor]
    places: dict[str, Tensor]
    maps: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, network: Network, layers: Sequence[str], photographs: Tensor, device: Any) -> TopPhotographs:
        """All layers are read in one pass; among them may be the classes."""
        values: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        places: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        maps: dict[str, tuple[int, ...]] = {}

        def reader(layer: str) -> Reader:
            layout = None if layer == CLASSES else network.layer(layer).tokens

            def read(activation: Tensor) -> None:
                maps[layer] = tuple(activation.shape[2:])
                seen = activation if layout is None else PATCHES.of(activation, layout)
                best = seen.float().flatten(2).max(2) if maps[layer] else None
                excited = seen.float() if best is None else best.values if layout is None else seen.float().mean(2)
                values[layer].append(excited.cpu())
                where = torch.zeros_like(values[layer][-1], dtype=torch.long)
                places[layer].append(where if best is None else best.indices.cpu())

            return read

        readers = {layer: reader(layer) for layer in layers if layer != CLASSES}
        with network.borrowed(device), torch.no_grad():
            for batch in torch.split(photographs, 32):
                if CLASSES in values:
                    reader(CLASSES)(network.forward(batch.to(device).float(), readers))
                else:
                    network.read(batch.to(device).float(), readers)
        joined = [{layer: torch.cat(parts) for layer, parts in each.items()} for each in (values, places)]
        return cls(network, photographs, joined[0], joined[1], maps)

    def most(self, layer: str, indices: Sequence[int]) -> Iterator[tuple[int, list[tuple[Image.Image, Box]]]]:
        """Of units of a layer the photographs that excite each most, and what the most excited neuron sees of each."""
        values, places, shape = self.values[layer], self.places[layer], self.maps[layer]
        size = self.photographs.shape[-2], self.photographs.shape[-1]
        field = receptive_field(self.network, layer) if len(shape) == 2 else size
        best = values.topk(min(_COUNT, len(values)), dim=0).indices  # (so many, units)
        for index in indices:
            photographs = best[:, index].tolist()
            boxes = [crop_box(size, int(places[each, index]), shape, field) for each in photographs]
            yield index, [(self.image(each), box) for each, box in zip(photographs, boxes, strict=True)]

    def image(self, index: int) -> Image.Image:
        """A photograph as the network is shown it."""
        return to_pil(self.photographs[index].movedim(0, -1).contiguous().numpy()).convert("RGB")


def crop_box(size: tuple[int, int], place: int, shape: tuple[int, ...], field: tuple[int, int]) -> Box:
    """What the neuron at a place of a map of that shape sees of a photograph of that height and width."""
    height, width = size
    if len(shape) != 2:
        return 0, 0, width, height
    down, across = divmod(place, shape[1])
    tall, wide = min(height, max(8, field[0])), min(width, max(8, field[1]))
    top = min(max(0, round((down + 0.5) * height / shape[0] - tall / 2)), height - tall)
    left = min(max(0, round((across + 0.5) * width / shape[1] - wide / 2)), width - wide)
    return left, top, left + wide, top + tall
