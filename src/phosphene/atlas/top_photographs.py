"""The photographs that excite a unit most, and what of them it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.ascent.scores import chain_readers
from phosphene.atlas.group_values import values_of, width
from phosphene.atlas.plan import CLASSES, Group
from phosphene.atlas.sheets import Box
from phosphene.default_progress import counted
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.forward import Reader
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.planes import to_pil
from phosphene.units.tokens import PATCHES

_COUNT = 5  # photographs of each unit


def decode(network: Network, photographs: PhotoSet) -> tuple[list[str], Tensor]:
    """Names of photographs, and what a network is fed of them, in 8 bits: (photographs, channels, height, width)."""
    with counted("photographs", total=len(photographs.paths), doing="reading") as tally:
        read = photographs.counted_on(tally).batches(network.preprocessing)
        batches = [(names, batch.clamp(0, 255).byte()) for names, batch in read]
    return [name for names, _ in batches for name in names], torch.cat([pixels for _, pixels in batches])


@dataclass(frozen=True)
class TopPhotographs:
    """How active every channel of some layers is on photographs.

    Attributes:
        names, photographs: as `decode` returns them.
        values: by layer each channel's highest on each photograph, or of tokens their mean over the patches,
            (photographs, channels).
        places: where in the map the highest is, counted row by row; of the same shape.
        maps: by layer the shape of its map.
        fired: by group of latents, in how many photographs, and at how many positions, each is on, (2, latents), and of
            how many.
    """

    network: Network
    names: Sequence[str]
    photographs: Tensor
    values: dict[str, Tensor]
    places: dict[str, Tensor]
    maps: dict[str, tuple[int, ...]]
    fired: dict[str, tuple[Tensor, tuple[int, int]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: Network,
        layers: Sequence[str],
        decoded: tuple[Sequence[str], Tensor],
        device: Any,
        latents: Sequence[Group] = (),
    ) -> TopPhotographs:
        """All layers are read in one pass; among them may be the classes; of groups of latents the latents.

        Args:
            decoded: photographs, as `decode` returns them.
        """
        names, photographs = decoded
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

        counters = {group.name: _UnitCounter(network, group) for group in latents}
        readers = {layer: reader(layer) for layer in layers if layer != CLASSES}
        for group in latents:
            readers[group.layer] = chain_readers(readers.get(group.layer), counters[group.name].read)
        with network.borrowed(device), torch.no_grad():
            for batch in torch.split(photographs, 32):
                if CLASSES in values:
                    reader(CLASSES)(network.forward(batch.to(device).float(), readers))
                else:
                    network.read(batch.to(device).float(), readers)
        joined = [{layer: torch.cat(parts) for layer, parts in each.items()} for each in (values, places)]
        for name, counter in counters.items():
            joined[0][name], joined[1][name] = torch.cat(counter.values), torch.cat(counter.places)
            maps[name] = counter.shape
        fired = {name: (counter.fired, counter.total) for name, counter in counters.items() if counter.group.dictionary}
        return cls(network, names, photographs, joined[0], joined[1], maps, fired)

    def frequency(self, name: str, index: int) -> tuple[float, float] | None:
        """In which share of the photographs, and at which share of all positions, a latent is on."""
        if name not in self.fired:
            return None
        counts, (photographs, positions) = self.fired[name]
        return counts[0, index].item() / photographs, counts[1, index].item() / positions

    def most(
        self, layer: str, indices: Sequence[int]
    ) -> Iterator[tuple[int, list[str], list[tuple[Image.Image, Box]]]]:
        """Of units of a layer the photographs that excite each most, and what the most excited neuron sees of each.

        Yields:
            A unit's index, the photographs' names, and their images, each with what is seen of it.
        """
        values, places, shape = self.values[layer], self.places[layer], self.maps[layer]
        size = self.photographs.shape[-2], self.photographs.shape[-1]
        seen = receptive_field(self.network, layer) if len(shape) == 2 else size
        best = values.topk(min(_COUNT, len(values)), dim=0).indices  # (so many, units)
        for index in indices:
            photographs = best[:, index].tolist()
            boxes = [crop_box(size, int(places[each, index]), shape, seen) for each in photographs]
            names = [self.names[each] for each in photographs]
            yield index, names, [(self.image(each), box) for each, box in zip(photographs, boxes, strict=True)]

    def image(self, index: int) -> Image.Image:
        """A photograph as the network is shown it."""
        return to_pil(self.photographs[index].movedim(0, -1).contiguous().numpy()).convert("RGB")


class _UnitCounter:
    """What latents, or a map's cells, are on photographs: the highest of each, where, and how often it is on."""

    def __init__(self, network: Network, group: Group):
        self.network, self.group = network, group
        self.values: list[Tensor] = []
        self.places: list[Tensor] = []
        self.fired = torch.zeros(2, width(group), dtype=torch.long)
        self.photographs = self.positions = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the map in which places are: none, since what a token sees is all of the photograph."""
        return ()

    @property
    def total(self) -> tuple[int, int]:
        return self.photographs, self.positions

    def read(self, activation: Tensor) -> None:
        for row in activation:
            latents = values_of(self.group, row, self.network).cpu()
            best = latents.max(1)
            self.values.append(best.values[None])
            self.places.append(best.indices[None])
            self.fired[0] += (latents > 0).any(1)
            self.fired[1] += (latents > 0).sum(1)
            self.photographs, self.positions = self.photographs + 1, self.positions + latents.shape[1]


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
