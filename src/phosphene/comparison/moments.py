"""Second moments of units of two layers over photographs and positions, as sums that photographs are added to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from phosphene.comparison.features import LayerMaps
from phosphene.photographs.unfinished import SavedTensors

_MOST_ROWS = 1 << 40  # of a sum: photographs, times positions
_DEAD = 1e-5  # of the layer's most varying unit's standard deviation


class CrossMoments:
    """The means, variances and covariances of two sets of units.

    What is added is taken less the first row that ever was, so that sums in 32 bits lose nothing and a unit that is the
    same everywhere has a variance of just 0.

    Args:
        shift_x, shift_y: that row, (units,) each.
    """

    def __init__(self, shift_x: Tensor, shift_y: Tensor):
        self.shift_x, self.shift_y = shift_x, shift_y
        self.count = 0
        self.x, self.xx = torch.zeros_like(shift_x).double(), torch.zeros_like(shift_x).double()
        self.y, self.yy = torch.zeros_like(shift_y).double(), torch.zeros_like(shift_y).double()
        self.xy = torch.zeros(len(shift_x), len(shift_y))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add (rows, units) of each."""
        x, y = x - self.shift_x, y - self.shift_y
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.square().sum(0)
        self.yy += y.square().sum(0)
        self.xy += x.T @ y

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The sums, to be written; the count and the shifts are whose they are."""
        return {f"{prefix}/{name}": getattr(self, name) for name in ("x", "xx", "y", "yy", "xy")}

    def restore(self, saved: SavedTensors, prefix: str, count: int) -> None:
        """Take the sums of so many rows from a file."""
        units_x, units_y = self.xy.shape
        for name, units in {"x": units_x, "xx": units_x, "y": units_y, "yy": units_y}.items():
            setattr(self, name, saved.take(f"{prefix}/{name}", torch.float64, units))
        self.xy = saved.take(f"{prefix}/xy", torch.float32, units_x, units_y)
        self.count = count

    def __add__(self, other: CrossMoments) -> CrossMoments:
        """Those of all rows of both, which have the same shift."""
        total = CrossMoments(self.shift_x, self.shift_y)
        for name in ("count", "x", "y", "xx", "yy", "xy"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    @property
    def mean_x(self) -> Tensor:
        """(units,), less the shift."""
        return self.x / self.count

    @property
    def mean_y(self) -> Tensor:
        return self.y / self.count

    @property
    def std_x(self) -> Tensor:
        """(units,)"""
        return (self.xx / self.count - self.mean_x.square()).clamp_min(0).sqrt()

    @property
    def std_y(self) -> Tensor:
        return (self.yy / self.count - self.mean_y.square()).clamp_min(0).sqrt()

    @property
    def covariance(self) -> Tensor:
        """(units, units), 64 bits."""
        return self.xy.double() / self.count - self.mean_x[:, None] * self.mean_y

    def correlation(self) -> Tensor:
        """Pearson's, (units, units), 64 bits; 0 where a unit is the same everywhere."""
        scale = self.std_x[:, None] * self.std_y
        return torch.where(scale > 0, self.covariance / scale.clamp_min(1e-300), 0.0).clamp(-1, 1)


def is_dead(std: Tensor) -> Tensor:
    """Of each unit whether it is the same everywhere, or varies 100,000 times less than the layer's most varying."""
    return std <= _DEAD * std.max()


class _Rows(NamedTuple):
    """Activations of the same places in two layers: (photographs, positions, units) of each."""

    a: Tensor
    b: Tensor


class PairSums:
    """What two layers do at the same places of the same photographs, and what they do of photographs that are shuffled.

    Attributes:
        halves: of either half of the photographs, units of A with units of B.
        within: of either half, units of B with each other.
        chance: of A's photographs with B's of another photograph: the one that came before it.
    """

    def __init__(self) -> None:
        self.halves: list[CrossMoments] = []
        self.within: list[CrossMoments] = []
        self.chance: CrossMoments | None = None
        self._seen = 0
        self._first: Tensor | None = None  # A's of the first photograph, which waits for the last of B's
        self._last: Tensor | None = None

    def add(self, a: LayerMaps, b: LayerMaps) -> None:
        """Add photographs."""
        rows = _together(a.maps, b.maps)
        if self.chance is None:
            self.chance = self._begin(rows.a[0, 0], rows.b[0, 0])
            self._first = rows.a[:1]
        for half in (0, 1):
            mine = slice((half + self._seen) % 2, None, 2)
            x, y = rows.a[mine].flatten(0, 1), rows.b[mine].flatten(0, 1)
            if len(x):
                self.halves[half].add(x, y)
                self.within[half].add(y, y)
        before = rows.b[:-1] if self._last is None else torch.cat([self._last, rows.b[:-1]])
        self.chance.add(rows.a[len(rows.a) - len(before) :].flatten(0, 1), before.flatten(0, 1))
        self._last = rows.b[-1:]
        self._seen += len(rows.a)

    def _begin(self, shift_a: Tensor, shift_b: Tensor) -> CrossMoments:
        self.halves = [CrossMoments(shift_a, shift_b) for _ in range(2)]
        self.within = [CrossMoments(shift_b, shift_b) for _ in range(2)]
        return CrossMoments(shift_a, shift_b)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is gathered so far, to be written; nothing where no photograph has been added."""
        if self.chance is None or self._first is None or self._last is None:
            return {}
        named = dict(zip(_SUMS, (*self.halves, *self.within, self.chance), strict=True))
        counts = [self._seen, *(each.count for each in named.values())]
        found = {
            f"{prefix}/counts": torch.tensor(counts),
            f"{prefix}/shift_a": self.chance.shift_x,
            f"{prefix}/shift_b": self.chance.shift_y,
            f"{prefix}/first": self._first,
            f"{prefix}/last": self._last,
        }
        for name, each in named.items():
            found |= each.tensors(f"{prefix}/{name}")
        return found

    def restore(self, saved: SavedTensors, prefix: str, units: tuple[int, int], positions: tuple[int, int]) -> None:
        """Take what was gathered from a file.

        Args:
            units: how many each layer has.
            positions: how many the grid has for each.

        Raises:
            DamagedFileError: the file does not fit.
        """
        together = positions[0] if positions[0] == positions[1] else 1
        seen, *counts = saved.take_numbers(f"{prefix}/counts", [0] * 6, [_MOST_ROWS] * 6)
        shifts = [saved.take(f"{prefix}/shift_{side}", torch.float32, n) for side, n in zip("ab", units, strict=True)]
        self.chance = self._begin(shifts[0], shifts[1])
        for name, each, count in zip(_SUMS, (*self.halves, *self.within, self.chance), counts, strict=True):
            each.restore(saved, f"{prefix}/{name}", count)
        self._first = saved.take(f"{prefix}/first", torch.float32, 1, together, units[0])
        self._last = saved.take(f"{prefix}/last", torch.float32, 1, together, units[1])
        self._seen = seen

    def finish(self) -> None:
        """Have the first photograph's shuffled too."""
        if self.chance is not None and self._first is not None and self._last is not None:
            self.chance.add(self._first.flatten(0, 1), self._last.flatten(0, 1))
            self._first = None


_SUMS = ("half0", "half1", "within0", "within1", "chance")  # as they are called in files


def _together(a: Tensor, b: Tensor) -> _Rows:
    """(rows, channels, positions) of each, of which one may have a single position: the other's mean is then taken."""
    if a.shape[2] != b.shape[2]:
        a, b = a.mean(2, keepdim=True), b.mean(2, keepdim=True)
    return _Rows(a.movedim(1, 2), b.movedim(1, 2))


class Peaks:
    """Of each unit of a layer the photographs that excite it most, as photographs come.

    Attributes:
        values, photographs, places: (units, so many), the highest first: see `LayerMaps`.
    """

    def __init__(self, count: int):
        self.count = count
        self.values = self.photographs = self.places = torch.zeros(0)

    def add(self, indices: list[int], maps: LayerMaps) -> None:
        """Add photographs, by their indices."""
        numbers = torch.tensor(indices)[:, None].expand_as(maps.places)
        new: Mapping[str, Tensor] = {"values": maps.peaks, "photographs": numbers, "places": maps.places}
        joined = {
            name: torch.cat([getattr(self, name), each.T], 1) if self.values.numel() else each.T
            for name, each in new.items()
        }
        best = joined["values"].topk(min(self.count, joined["values"].shape[1]), dim=1).indices
        for name, each in joined.items():
            setattr(self, name, each.gather(1, best))

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is found so far, to be written; nothing where no photograph has been added."""
        if not self.values.numel():
            return {}
        return {f"{prefix}/{name}": getattr(self, name) for name in ("values", "photographs", "places")}

    def restore(self, saved: SavedTensors, prefix: str, units: int, photographs: int, places: int) -> None:
        """Take what was found from a file; the last three are how many there are.

        Raises:
            DamagedFileError: the file does not fit.
        """
        values = saved.take(f"{prefix}/values", torch.float32, units, (1, self.count))
        numbers = saved.take_indices(f"{prefix}/photographs", photographs, *values.shape)
        self.values, self.photographs = values, numbers
        self.places = saved.take_indices(f"{prefix}/places", places, *values.shape)
