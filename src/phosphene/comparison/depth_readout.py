"""What can be read off features: a ridge regression, asked about photographs that it was not fitted to.

Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", who train a classifier on
each layer.  A ridge has a closed form and one penalty, which is chosen among the photographs that it is fitted to, by
leaving each of these out (Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", eq. 7.64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(-4, 5))
"""Of the mean squared length of the scaled features."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """Targets as a linear function of features, in 64 bits.

    Attributes:
        weight: (channels, targets), of the features as they are.
        bias: (targets,).
        penalty: that was chosen, of `PENALTIES`.
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        """(photographs, channels) to (photographs, targets)."""
        return features.double() @ self.weight + self.bias


def fit_ridge(features: Tensor, targets: Tensor) -> Ridge:
    """A ridge on scaled features, with the penalty that predicts each photograph best that is left out.

    A channel is divided by its standard deviation, or by the layer's mean one where its own is less: what has hardly
    moved on these photographs would otherwise be everything on a photograph on which it does.

    Of fewer photographs than channels it is solved in its dual form (Saunders et al. 1998, "Ridge Regression Learning
    Algorithm in Dual Variables"), so that the width of a layer costs little.

    Args:
        features: (photographs, channels); a channel that is the same for all gets no weight.
        targets: (photographs, targets).
    """
    x, y = features.double(), targets.double()
    mean, goal = x.mean(0), y.mean(0)
    spread = x.std(0, correction=0)
    scale = spread.clamp_min(max(float(spread.mean()), 1e-30))
    rows, left = (x - mean) / scale, y - goal
    squares, u, v = _decompose(rows)
    projected = u.T @ left
    length = float(rows.square().sum(1).mean()) or 1.0
    errors = []
    for penalty in PENALTIES:
        shrunk = squares / (squares + penalty * length)
        leverage = 1 / len(rows) + (u.square() * shrunk).sum(1)
        residuals = (left - (u * shrunk) @ projected) / (1 - leverage).clamp_min(1e-9)[:, None]
        errors.append(float(residuals.square().sum()))
    penalty = PENALTIES[min(range(len(errors)), key=errors.__getitem__)]
    weight = v @ ((squares.sqrt() / (squares + penalty * length))[:, None] * projected) / scale[:, None]
    return Ridge(weight, goal - mean @ weight, penalty)


def _decompose(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared singular values, and left and right vectors, of the smaller of the two products; those of 0 left out."""
    dual = len(rows) <= rows.shape[1]
    squares, vectors = torch.linalg.eigh(rows @ rows.T if dual else rows.T @ rows)
    kept = squares > 1e-10 * squares[-1].clamp_min(1e-30)
    squares, vectors = squares[kept], vectors[:, kept]
    others = (rows.T if dual else rows) @ vectors / squares.sqrt()
    return (squares, vectors, others) if dual else (squares, others, vectors)


def deal_folds(count: int, kinds: Sequence[int] | None = None, folds: int = FOLDS) -> Tensor:
    """Which fold each photograph is held out in, (photographs,): dealt at random, with a seed; kinds are spread evenly.

    Args:
        kinds: of each photograph.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    if kinds is not None:
        order.sort(key=lambda index: kinds[index])  # stable: at random within each kind
    dealt = torch.empty(count, dtype=torch.long)
    dealt[order] = torch.arange(count) % folds
    return dealt


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is predicted of photographs while they are held out.

    Attributes:
        predicted, true: (photographs, targets).
        errors, spread: the squared distance of what is true from what is predicted, and from the mean of the
            photographs that were not held out, (photographs,).
    """

    predicted: Tensor
    true: Tensor
    errors: Tensor
    spread: Tensor

    @property
    def r2(self) -> float:
        """The share of the variance that is predicted, of all targets together; below 0, a mean would be better."""
        total = float(self.spread.sum())
        return 1 - float(self.errors.sum()) / total if total > 0 else math.nan

    @property
    def r2_error(self) -> float:
        """Its standard error over photographs (of a ratio: Cochran 1977, eq. 2.39)."""
        total, count = float(self.spread.sum()), len(self.errors)
        if not total > 0:
            return math.nan
        residuals = self.errors - (1 - self.r2) * self.spread
        return math.sqrt(float(residuals.square().sum()) * count / (count - 1)) / total

    @property
    def hits(self) -> Tensor:
        """Of which photographs the largest target is predicted to be the largest, (photographs,)."""
        return self.predicted.argmax(1) == self.true.argmax(1)

    @property
    def top1(self) -> float:
        """Of how many."""
        return float(self.hits.double().mean())

    @property
    def top1_error(self) -> float:
        """Its standard error over photographs, which is not 0 where none or all are (Agresti and Coull 1998)."""
        count = len(self.true)
        share = (float(self.hits.sum()) + 2) / (count + 4)
        return math.sqrt(share * (1 - share) / (count + 4))

    @property
    def top1_by_chance(self) -> float:
        """Of how many, were the predictions shuffled among the photographs, on average."""
        predicted, true = (
            torch.bincount(each.argmax(1), minlength=each.shape[1]).double() / len(each)
            for each in (self.predicted, self.true)
        )
        return float(predicted @ true)


def read_held_out(features: Tensor, targets: Tensor, folds: Tensor) -> HeldOut:
    """Each photograph's targets, predicted by a ridge that is fitted to the photographs of the other folds.

    Args:
        features: (photographs, channels).
        targets: (photographs, targets).
        folds: of each photograph, (photographs,); see `deal_folds`.
    """
    true = targets.double()
    predicted, spread = torch.empty_like(true), torch.empty(len(true)).double()
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        predicted[held] = fit_ridge(features[~held], true[~held])(features[held])
        spread[held] = (true[held] - true[~held].mean(0)).square().sum(1)
    return HeldOut(predicted, true, (true - predicted).square().sum(1), spread)
