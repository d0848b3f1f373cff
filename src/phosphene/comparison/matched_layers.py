"""A network that was compared, and layers of two whose units were matched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phosphene.comparison.matching import UnitMatch
from phosphene.comparison.moments import Peaks

EDGES = np.linspace(-1, 1, 41)
"""Of the bins of histograms of correlations."""


@dataclass(frozen=True)
class ComparedNetwork:
    """A network that was compared: its name, the digest of its weights, and its layers in the order of calls."""

    name: str
    weights: str
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MatchedLayers:
    """A layer of A and one of B whose units were matched.

    Attributes:
        a, b: their names.
        cka, chance: of these two.
        units: the match.
        peaks: of each layer, the photographs that excite its units most.
    """

    a: str
    b: str
    cka: float
    chance: float
    units: UnitMatch
    peaks: tuple[Peaks, Peaks] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The numbers of a row of a table."""
        units = self.units
        smaller = max(1, min(units.alive))
        return {
            "layer_a": self.a,
            "layer_b": self.b,
            "cka": self.cka,
            "cka_chance": self.chance,
            "channels": list(units.channels),
            "dead": [len(each) for each in units.dead],
            "correlation": mean_of(units.correlations),
            "correlation_held_out": units.held_out,
            "correlation_chance": mean_of(units.chance),
            "friends": units.friends_share,
            "mutual": units.mutual[0] / smaller,
            "mutual_chance": units.mutual[1] / smaller,
            "r2_by_one": mean_of(units.few.by_one),
            "r2_by_few": mean_of(units.few.by_few),
        }


def mean_of(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Not a number where there are none."""
    return float(np.mean(values)) if len(values) else math.nan
