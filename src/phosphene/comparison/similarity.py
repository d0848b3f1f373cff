"""Centered kernel alignment: how alike layers tell photographs apart.

Linear CKA (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", section 3) of two layers is
HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K and L being the products of all pairs of photographs' features.  With few
photographs and many features the usual HSIC says that anything is alike; here it is the unbiased one (Song et al. 2012,
"Feature Selection via Dependence Maximization"), over blocks of photographs, as Nguyen et al. 2021 ("Do Wide and Deep
Networks Learn the Same Things?", equations 2 and 3) take it, so that memory does not grow with their number.  It may
come out a little below 0 where nothing is shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.comparison.cka import cka_matrix
from phosphene.photographs.unfinished import DamagedFileError, SavedTensors

Array = NDArray[np.float64]

BLOCK = 256  # photographs at most whose products are taken with each other
LEAST = 8  # photographs of a block: halves of fewer have no unbiased HSIC
WIDTH = 4096  # features of a sketch
_SPREAD = 4  # places of a sketch that a feature is added to
_SHUFFLES = 20
_PARTS = {"all": slice(None), "half 0": slice(0, None, 2), "half 1": slice(1, None, 2)}
"""Of a block's photographs."""


def centered_gram(features: Tensor) -> Tensor:
    """Products of rows, without the diagonal, and centered so that `unbiased_hsic` is a plain product.

    The U-centering of Székely and Rizzo 2014 ("Partial distance correlation with methods for dissimilarities",
    definition 2): all rows and columns of the result have a sum of 0.

    (photographs, features), at least 3 photographs, to (photographs, photographs) in 64 bits.
    """
    rows = features.double()
    rows = rows - rows[:1]  # centering undoes this; features that are all the same become just 0
    n, gram = len(rows), rows @ rows.T
    hollow = gram - torch.diag(gram.diagonal())
    sums = hollow.sum(1)
    centered = hollow - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centered - torch.diag(centered.diagonal())


def unbiased_hsic(first: Tensor, second: Tensor) -> float:
    """The unbiased Hilbert-Schmidt independence criterion, of what `centered_gram` returns of each, (n, n), n >= 4."""
    n = len(first)
    return float((first * second).sum() / (n * (n - 3)))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Debiased linear CKA of features of the same photographs, all of them in one block.

    Args:
        first, second: (photographs, features), at least 4 photographs; numbers of features may differ.

    Returns:
        1 for features that are a rotation of each other, scaled; about 0 for unrelated ones; not a number where one of
        them is the same on all photographs.
    """
    return float(cka_matrix([first, second])[0, 1])


@dataclass(frozen=True, eq=False)
class Similarity:
    """The CKA of layers of one network with those of another, or its own; each array is (layers, layers).

    Attributes:
        cka: on all photographs.
        halves: on either half of the photographs, (2, layers, layers).
        chance: the mean over orders in which the second network's photographs are shuffled.
        chance_highest: the highest of these.
    """

    cka: Array
    halves: Array
    chance: Array
    chance_highest: Array


class Sketch:
    """Features brought to fewer, so that products of photographs stay about what they are.

    A sparse random projection (Kane and Nelson 2014, "Sparser Johnson-Lindenstrauss Transforms"): each feature is
    added, with a random sign, to a few places.  There are two, drawn independently: HSIC of the one with the other is
    right on average, where HSIC of one with itself is too high.

    Features that are few are left as they are.
    """

    def __init__(self, features: int, seed: Sequence[int]):
        self.features = features
        self.exact = features <= WIDTH
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]))
        shape = (2, _SPREAD, 0 if self.exact else features)
        self._places = torch.randint(WIDTH, shape, generator=generator)
        self._signs = torch.randint(2, shape, generator=generator).mul(2).sub(1).float() / math.sqrt(_SPREAD)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, features) to two of (rows, `WIDTH`), or to itself twice."""
        if self.exact:
            return features, features
        both = []
        for places, signs in zip(self._places, self._signs, strict=True):
            sketch = torch.zeros(len(features), WIDTH)
            for place, sign in zip(places, signs, strict=True):
                sketch.index_add_(1, place, features * sign)
            both.append(sketch)
        return both[0], both[1]


class SimilaritySums:
    """The CKA of layers of several networks, from photographs that come a batch at a time, in a random order.

    Args:
        pairs: of which networks, by their places.
        block: photographs in a block.
        seed: of sketches and shuffles.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], block: int, seed: int):
        self.pairs, self.block, self.seed = list(pairs), max(LEAST, block), seed
        self._sketches: dict[tuple[int, str], Sketch] = {}
        self._rows: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = {}
        self._waiting = 0
        self._norms: dict[tuple[int, str], Array] = {}  # by network, and which photographs; (layers,)
        self._sums: dict[tuple[int, int, str], Array] = {}  # by pair, and which photographs; (…, layers, layers)
        self._random = np.random.default_rng([seed, 1])
        self._blocks: list[int] = []  # photographs of each that went into the sums

    @property
    def count(self) -> int:
        """Photographs that went into the sums."""
        return sum(self._blocks)

    @property
    def sketched(self) -> list[tuple[int, str]]:
        """The layers, as (network, name), that were too wide."""
        return [key for key, sketch in self._sketches.items() if not sketch.exact]

    def add(self, features: Sequence[Mapping[str, Tensor]]) -> None:
        """Add photographs: of each network, by layer (rows, channels, positions)."""
        for number, layers in enumerate(features):
            for place, (name, maps) in enumerate(layers.items()):
                flat, key = maps.flatten(1), (number, name)
                if key not in self._sketches:
                    self._sketches[key] = Sketch(flat.shape[1], (self.seed, number, place))
                self._rows.setdefault(key, []).append(self._sketches[key](flat))
        self._waiting += len(next(iter(features[0].values())))
        if self._waiting >= self.block:
            self._add_block()

    def finish(self) -> list[Similarity]:
        """Of each pair, in their order; what is left of a block goes in if halves of it can be taken."""
        if self._waiting >= LEAST:
            self._add_block()
        return [self._similarity(first, second) for first, second in self.pairs]

    def _add_block(self) -> None:
        n = self._waiting
        shuffles = [torch.from_numpy(order) for order in self._orders(n)]
        for part, rows in _PARTS.items():
            grams = self._grams(rows)
            weight = n / (len(range(n)[rows]) * (len(range(n)[rows]) - 3))  # a block counts by its photographs
            for number, (cross, norms) in grams.items():
                _accumulate(self._norms, (number, part), weight * norms)
                for first, second in self.pairs:
                    if first == number:
                        other = grams[second][0]
                        _accumulate(self._sums, (first, second, part), weight * _products(cross, other))
                        if part == "all":
                            shuffled = [_products(cross, other[:, order][:, :, order]) for order in shuffles]
                            _accumulate(self._sums, (first, second, "chance"), weight * np.stack(shuffled))
        self._blocks.append(n)
        self._rows, self._waiting = {}, 0

    def _orders(self, n: int) -> list[NDArray[np.int64]]:
        return [self._random.permutation(n) for _ in range(_SHUFFLES)]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is gathered so far, to be written."""
        found = {f"{prefix}/blocks": torch.tensor(self._blocks, dtype=torch.int64)}
        for place, (key, parts) in enumerate(self._rows.items()):
            for side in (0,) if self._sketches[key].exact else (0, 1):
                found[f"{prefix}/rows/{place}/{side}"] = torch.cat([part[side] for part in parts])
        for (number, part), norms in self._norms.items():
            found[f"{prefix}/norms/{number}/{part}"] = torch.from_numpy(norms)
        for (first, second, part), sums in self._sums.items():
            found[f"{prefix}/sums/{first}/{second}/{part}"] = torch.from_numpy(sums)
        return found

    def restore(self, saved: SavedTensors, prefix: str, layers: Sequence[Mapping[str, int]], photographs: int) -> None:
        """Take what was gathered from a file.

        Args:
            layers: of each network, by name, in their order, how many numbers a photograph has.
            photographs: how many have been added.

        Raises:
            DamagedFileError: the file does not fit.
        """
        blocks = saved.take(f"{prefix}/blocks", torch.int64, (0, photographs // LEAST)).tolist()
        for number, widths in enumerate(layers):
            for place, (name, width) in enumerate(widths.items()):
                self._sketches[number, name] = sketch = Sketch(width, (self.seed, number, place))
                self._restore_rows(saved, f"{prefix}/rows/{len(self._sketches) - 1}", (number, name), sketch)
        if any(n < LEAST for n in blocks) or sum(blocks) + self._waiting != photographs:
            raise DamagedFileError("blocks")
        for n in blocks:  # the generator has drawn so much
            self._orders(n)
        self._blocks = blocks
        if blocks:
            self._restore_sums(saved, prefix, [len(widths) for widths in layers])

    def _restore_rows(self, saved: SavedTensors, prefix: str, key: tuple[int, str], sketch: Sketch) -> None:
        if not saved.has(f"{prefix}/0"):
            if self._waiting:
                raise DamagedFileError("rows")
            return
        width = sketch.features if sketch.exact else WIDTH
        n = (self._waiting, self._waiting) if self._waiting else (1, self.block)
        first = saved.take(f"{prefix}/0", torch.float32, n, width)
        second = first if sketch.exact else saved.take(f"{prefix}/1", torch.float32, len(first), width)
        self._rows[key], self._waiting = [(first, second)], len(first)

    def _restore_sums(self, saved: SavedTensors, prefix: str, counts: Sequence[int]) -> None:
        for part in _PARTS:
            for number, count in enumerate(counts):
                norms = saved.take(f"{prefix}/norms/{number}/{part}", torch.float64, count)
                self._norms[number, part] = norms.numpy()
        for first, second in self.pairs:
            shape = counts[first], counts[second]
            for part in _PARTS:
                sums = saved.take(f"{prefix}/sums/{first}/{second}/{part}", torch.float64, *shape)
                self._sums[first, second, part] = sums.numpy()
            chance = saved.take(f"{prefix}/sums/{first}/{second}/chance", torch.float64, _SHUFFLES, *shape)
            self._sums[first, second, "chance"] = chance.numpy()

    def _grams(self, rows: slice) -> dict[int, tuple[Tensor, Array]]:
        """Of each network the centered products, (layers, n, n), and each layer's with itself, (layers,)."""
        by_network: dict[int, list[tuple[Tensor, float]]] = {}
        for (number, name), parts in self._rows.items():
            first, second = (torch.cat([part[side] for part in parts])[rows] for side in (0, 1))
            left = centered_gram(first)
            if self._sketches[number, name].exact:
                by_network.setdefault(number, []).append((left, float((left * left).sum())))
            else:
                right = centered_gram(second)
                by_network.setdefault(number, []).append(((left + right) / 2, float((left * right).sum())))
        return {
            number: (torch.stack([gram for gram, _ in each]), np.array([norm for _, norm in each]))
            for number, each in by_network.items()
        }

    def _similarity(self, first: int, second: int) -> Similarity:
        def cka(sums: str, norms: str) -> Array:
            scale = self._norms[first, norms][:, None] * self._norms[second, norms]
            found = self._sums[first, second, sums] / np.sqrt(np.where(scale > 0, scale, np.nan))
            if first == second and sums == norms:
                places = np.arange(len(found))
                found[places, places] = np.where(self._norms[first, norms] > 0, 1.0, np.nan)
            return np.asarray(found)

        chance = cka("chance", "all")
        halves = np.stack([cka(part, part) for part in ("half 0", "half 1")])
        return Similarity(cka("all", "all"), halves, chance.mean(0), chance.max(0))


def _products(first: Tensor, second: Tensor) -> Array:
    """Sums over all places, (layers, n, n) and (others, n, n) to (layers, others)."""
    return (first.flatten(1) @ second.flatten(1).T).numpy()


def _accumulate(sums: dict, key: object, value: Array) -> None:  # type: ignore[type-arg]
    sums[key] = value + sums.get(key, 0.0)
