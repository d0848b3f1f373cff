"""What photographs have given so far: sums for layers and for units, which a file can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from phosphene.comparison.features import Maps, ReadNetwork, grid_positions, own_positions
from phosphene.comparison.matching import match_units
from phosphene.comparison.moments import PairSums, Peaks
from phosphene.comparison.similarity import SimilaritySums
from phosphene.networks.layers import Layer
from phosphene.photographs.unfinished import SavedTensors

_TOP = 4  # photographs of a unit that are remembered

LayerPair = tuple[str, str]


@dataclass
class Gathered:
    """What photographs have given so far.

    Attributes:
        sums, matcher: for layers, and for units; where layers are matched by likeness, the latter comes behind the
            first pass.
        passes: how many there are.
        number, done: the pass that is in work, or is to come, and how many files are done in it.
        read: the places of the files that could be read, in the order in which they were.
    """

    sums: SimilaritySums
    matcher: Matcher | None
    passes: int
    number: int = 0
    done: int = 0
    read: list[int] = field(default_factory=list)

    def add(self, done: int, indices: list[int], maps: Maps) -> None:
        """Add photographs, with which so many files are done."""
        if self.number == 0:
            self.sums.add([{name: each.maps for name, each in layers.items()} for layers in maps])
            self.read += indices
        if self.matcher is not None:
            self.matcher.add(indices, maps)
        self.done = done

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, to be written."""
        found = {"pass": torch.tensor([self.number, self.done]), "read": torch.tensor(self.read)}
        found |= self.sums.tensors("similarity")
        return found | ({} if self.matcher is None else self.matcher.tensors("match"))


class Matcher:
    """Sums over photographs for layers of pairs of networks.

    Attributes:
        networks: with the layers that it needs.
    """

    def __init__(self, networks: Sequence[ReadNetwork], wanted: dict[tuple[int, int], list[LayerPair]]):
        self.sums = {(pair, layers): PairSums() for pair, chosen in wanted.items() for layers in chosen}
        needed: list[list[str]] = [[] for _ in networks]
        for pair, layers in self.sums:
            for place, name in zip(pair, layers, strict=True):
                needed[place].append(name)
        self.networks = [ReadNetwork(each.network, tuple(dict.fromkeys(need))) for each, need in
                         zip(networks, needed, strict=True)]  # fmt: skip
        self.peaks = {(place, name): Peaks(_TOP) for place, names in enumerate(needed) for name in names}

    def add(self, indices: list[int], maps: Maps) -> None:
        for (pair, layers), sums in self.sums.items():
            sums.add(maps[pair[0]][layers[0]], maps[pair[1]][layers[1]])
        for (place, name), peaks in self.peaks.items():
            peaks.add(indices, maps[place][name])

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """What is gathered so far, to be written."""
        found: dict[str, torch.Tensor] = {}
        for place, sums in enumerate(self.sums.values()):
            found |= sums.tensors(f"{prefix}/pairs/{place}")
        for place, peaks in enumerate(self.peaks.values()):
            found |= peaks.tensors(f"{prefix}/peaks/{place}")
        return found

    def restore(self, saved: SavedTensors, prefix: str, grid: int, photographs: int) -> None:
        """Take what was gathered from a file.

        Raises:
            DamagedFileError: the file does not fit.
        """

        def layer(place: int, name: str) -> Layer:
            return self.networks[place].network.layer(name)

        for place, ((pair, names), sums) in enumerate(self.sums.items()):
            both = [layer(*each) for each in zip(pair, names, strict=True)]
            units, positions = (both[0].channels, both[1].channels), [grid_positions(each, grid) for each in both]
            sums.restore(saved, f"{prefix}/pairs/{place}", units, (positions[0], positions[1]))
        for place, (of, peaks) in enumerate(self.peaks.items()):
            there = layer(*of)
            peaks.restore(saved, f"{prefix}/peaks/{place}", there.channels, photographs, own_positions(there))

    def finish(self, pair: tuple[int, int], few: int) -> Iterator[tuple[LayerPair, Any, tuple[Peaks, Peaks]]]:
        for (of_pair, layers), sums in self.sums.items():
            if of_pair == pair:
                sums.finish()
                peaks = self.peaks[pair[0], layers[0]], self.peaks[pair[1], layers[1]]
                yield layers, match_units(sums, few), peaks
