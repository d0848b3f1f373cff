"""Which unit of a layer is which unit of another: one to one, best friends, and one from a few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.comparison.moments import CrossMoments, PairSums, is_dead
from phosphene.extras import require

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

FEW = 5  # units that one is predicted from
PREDICTED = 100  # units of a layer that are predicted, at most
_CANDIDATES = 200
_SURE = 0.99
_WHAT = "comparing units"


@dataclass(frozen=True, eq=False)
class FewToOne:
    """Units of A predicted from units of B, linearly; what is said is of photographs that took no part.

    Attributes:
        units: of A, (n,).
        sources: of B, (n, `FEW`), the most telling first; -1 where fewer were taken.
        by_one: R² of the one unit of B that tells most, (n,).
        by_few: R² of the sources, (n,).
    """

    units: Indices
    sources: Indices
    by_one: Array
    by_few: Array


@dataclass(frozen=True, eq=False)
class UnitMatch:
    """Units of a layer of A and of a layer of B that belong together.

    Attributes:
        channels: how many units each layer has.
        dead: of each layer those that are the same on all photographs; they are left out of all else.
        pairs: of A and B, one to one, so that the sum of correlations is highest, (n, 2); the highest first.
        correlations: Pearson's, of each pair, over photographs and positions.
        held_out: their mean where the pairs are made on one half of the photographs and measured on the other.
        chance: the correlations of pairs that are made of A's photographs and B's shuffled ones; the highest first.
        friends: pairs of A and B of which each is the other's best, (n, 2), with more correlation than
            `friends_threshold`.
        friends_threshold: the 99th percentile of the best correlations where photographs are shuffled.
        mutual: how many pairs are each other's best, whatever their correlation, and how many where photographs are
            shuffled.
        best: of each living unit of A the highest correlation with a unit of B; and where photographs are shuffled.
        few: one from a few.
    """

    channels: tuple[int, int]
    dead: tuple[Indices, Indices]
    pairs: Indices
    correlations: Array
    held_out: float
    chance: Array
    friends: Indices
    friends_threshold: float
    mutual: tuple[int, int]
    best: tuple[Array, Array]
    few: FewToOne

    @property
    def alive(self) -> tuple[int, int]:
        """How many units of each layer are not dead."""
        return self.channels[0] - len(self.dead[0]), self.channels[1] - len(self.dead[1])

    @property
    def friends_share(self) -> float:
        """Mutual best friends beyond chance, of the living units of the layer that has fewer; 0 where none lives."""
        return len(self.friends) / max(1, min(self.alive))


def match_units(sums: PairSums, few: int = FEW) -> UnitMatch:
    """Match the units of two layers.

    One to one is the bipartite matching of Li et al. 2015 ("Convergent Learning: Do different neural networks learn the
    same representations?"), of correlations over photographs and positions, as scipy solves it; mutual best friends are
    those of Dravid et al. 2023 ("Rosetta Neurons: Mining the Common Units in a Model Zoo"), with one neighbor each; one
    from a few is Li et al.'s sparse prediction: see `predict`.
    """
    whole = sums.halves[0] + sums.halves[1]
    assert sums.chance is not None
    dead = is_dead(whole.std_x), is_dead(whole.std_y)
    living = (~dead[0]).nonzero()[:, 0], (~dead[1]).nonzero()[:, 0]
    found, shuffled, *of_half = (
        each.correlation()[living[0]][:, living[1]].numpy() for each in (whole, sums.chance, *sums.halves)
    )
    pairs, values = assign(found)
    chance = assign(shuffled)[1]
    friends, shuffled_friends = mutual_best(found), mutual_best(shuffled)
    best = _best(found), _best(shuffled)
    threshold = float(np.quantile(best[1], _SURE)) if best[1].size else 1.0
    beyond = friends[found[friends[:, 0], friends[:, 1]] > threshold]

    def to_units(places: Indices) -> Indices:
        return np.stack([living[side].numpy()[places[:, side]] for side in (0, 1)], 1)

    return UnitMatch(
        channels=(len(dead[0]), len(dead[1])),
        dead=(dead[0].nonzero()[:, 0].numpy(), dead[1].nonzero()[:, 0].numpy()),
        pairs=to_units(pairs),
        correlations=values,
        held_out=_held_out(of_half[0], of_half[1]),
        chance=chance,
        friends=to_units(beyond),
        friends_threshold=threshold,
        mutual=(len(friends), len(shuffled_friends)),
        best=best,
        few=predict(sums, living, few),
    )


def assign(correlations: Array) -> tuple[Indices, Array]:
    """Pairs of rows and columns, each in one pair at most, whose sum is highest: (n, 2) and their values, falling."""
    optimize = require("scipy.optimize", "analysis", _WHAT)
    rows, columns = optimize.linear_sum_assignment(correlations, maximize=True)
    values = correlations[rows, columns]
    order = np.argsort(-values, kind="stable")
    return np.stack([rows, columns], 1)[order], values[order]


def mutual_best(correlations: Array) -> Indices:
    """Rows and columns of which each is the other's highest, (n, 2)."""
    if not correlations.size:
        return np.zeros((0, 2), np.int64)
    columns, rows = correlations.argmax(1), correlations.argmax(0)
    mine = np.flatnonzero(rows[columns] == np.arange(len(columns)))
    return np.stack([mine, columns[mine]], 1)


def _best(correlations: Array) -> Array:
    return correlations.max(1) if correlations.size else np.zeros(0)


def _held_out(first: Array, second: Array) -> float:
    """The mean correlation of pairs on the half of the photographs that they are not made on."""
    found = [other[tuple(assign(each)[0].T)] for each, other in ((first, second), (second, first))]
    values = np.concatenate(found)
    return float(values.mean()) if values.size else float("nan")


def predict(sums: PairSums, living: tuple[Tensor, Tensor], few: int = FEW) -> FewToOne:
    """Predict units of A from a few of B.

    The few are those that the LASSO's path takes first (Tibshirani 1996; by scikit-learn's LARS on second moments),
    among the 200 units of B that correlate most (Fan and Lv 2008, "Sure independence screening"); the weights are then
    those of least squares (Meinshausen 2007, "Relaxed Lasso").  Units and weights are chosen on one half of the
    photographs, and R² is measured on the other half; what is returned is the mean of both ways, with the sources of
    the first half.  Of more than `PREDICTED` units so many are predicted, evenly spread.

    Args:
        living: the units of A and of B that are not dead.
    """
    count = len(living[0]) if len(living[1]) else 0
    chosen = living[0][torch.linspace(0, count - 1, min(count, PREDICTED)).round().long()] if count else living[0][:0]
    sources = np.full((len(chosen), few), -1, np.int64)
    r2 = np.zeros((2, 2, len(chosen)))  # by half, one or few
    for half in (0, 1):
        known = _Half(sums.halves[half], sums.within[half], living[1])
        asked = _Half(sums.halves[1 - half], sums.within[1 - half], living[1])
        for place, unit in enumerate(chosen.tolist()):
            taken = known.choose(unit, few)
            r2[half, 0, place] = asked.r2(unit, known, taken[:1])
            r2[half, 1, place] = asked.r2(unit, known, taken)
            if half == 0:
                sources[place, : len(taken)] = living[1].numpy()[taken]
    return FewToOne(chosen.numpy(), sources, *r2.mean(0))


class _Half:
    """The second moments of half of the photographs, of all units of A and the living ones of B."""

    def __init__(self, cross: CrossMoments, within: CrossMoments, living: Tensor):
        self.mean_a, self.mean_b = cross.mean_x.numpy(), cross.mean_y[living].numpy()
        self.std_a, self.std_b = cross.std_x.numpy(), cross.std_y[living].numpy()
        self.cross = cross.covariance[:, living].numpy()
        self.within = within.covariance[living][:, living].numpy()
        self.count = cross.count

    def choose(self, unit: int, few: int) -> Indices:
        """The columns of B that tell most of a unit of A; the most telling first."""
        lars: Any = require("sklearn.linear_model", "analysis", _WHAT).lars_path_gram
        usable = np.flatnonzero(self.std_b > 0)
        if self.std_a[unit] == 0 or not len(usable):
            return np.zeros(0, np.int64)
        told = self.cross[unit, usable] / (self.std_a[unit] * self.std_b[usable])
        kept = usable[np.argsort(-np.abs(told), kind="stable")[:_CANDIDATES]]
        gram = self.within[np.ix_(kept, kept)] / np.outer(self.std_b[kept], self.std_b[kept])
        target = self.cross[unit, kept] / (self.std_a[unit] * self.std_b[kept])
        if len(kept) == 1 or few == 1:
            return kept[:1]
        _, _, path = lars(
            target, gram, n_samples=self.count, max_iter=min(few, len(kept)), method="lasso", alpha_min=1e-6
        )
        taken = np.flatnonzero(path[:, -1])
        taken = taken if len(taken) else np.zeros(1, np.int64)
        order = np.argsort(-np.abs(target[taken]), kind="stable")
        return np.asarray(kept[taken[order]])

    def r2(self, unit: int, known: _Half, taken: Indices) -> float:
        """R² on this half of a unit of A, predicted by least squares of the other half; at least -1.

        What a wrong mean adds is counted: the prediction has the other half's means.
        """
        variance = self.std_a[unit] ** 2
        if variance == 0 or not len(taken):
            return 0.0
        square = known.within[np.ix_(taken, taken)]
        weights = np.linalg.lstsq(square, known.cross[unit, taken], rcond=1e-8)[0]
        off = (self.mean_a[unit] - known.mean_a[unit]) - weights @ (self.mean_b - known.mean_b)[taken]
        inside = self.within[np.ix_(taken, taken)]
        error = variance - 2 * weights @ self.cross[unit, taken] + weights @ inside @ weights + off**2
        return float(max(-1.0, 1 - error / variance))
