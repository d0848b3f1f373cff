"""The explanation score: whether a picture tells which of two photographs excites a unit more.

A trial is a two-alternative forced choice (Borowski et al. 2021; Zimmermann et al. 2021): one of two photographs
excites the unit much more than the other, and the one that a judge finds more like the picture is the guess.  Here a
judge is a perceptual metric in place of people, as in Zimmermann, Klindt and Brendel (2024), and all pairs are tried,
not a sample.

The photographs are put in the order of the unit's activation.  The first nine are what pictures are compared with: the
best of them, and all nine, are explanations too.  Of each pair, one photograph is of the next 21, and one of the lower
half.  How alike a photograph and a picture are is counted less what it is on average like the pictures of the layer's
other units: what all pictures have in common explains none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

NINE = 9
"""Photographs that excite a unit most: the explanation that pictures are compared with."""
LAST_RANK = 30  # the more exciting photograph of a pair is of ranks 10 to 30
MIN_PHOTOGRAPHS = 100
CHANCE = 0.5


@dataclass(frozen=True, eq=False)
class Trials:
    """The photographs that a unit's trials are made of, by index, the most exciting first.

    Attributes:
        nine: those that excite the unit most.
        exciting, other: of each pair one is of these; halved, they are the photographs of the two folds.
    """

    nine: Tensor
    exciting: Tensor
    other: Tensor

    @property
    def folds(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Two sets of trials without a photograph in common."""
        return (self.exciting[0::2], self.other[0::2]), (self.exciting[1::2], self.other[1::2])


def make_trials(values: Tensor) -> Trials | None:
    """The trials of a unit.

    Args:
        values: its activation on each photograph, (photographs,), at least `MIN_PHOTOGRAPHS`.

    Returns:
        None where fewer than four photographs of ranks 10 to 30 excite it more than all of the lower half do: a unit
        that is silent on nearly all photographs cannot be asked about.
    """
    order = values.double().argsort(descending=True, stable=True)
    other = order[len(order) // 2 :]
    exciting = order[NINE:LAST_RANK]
    exciting = exciting[values[exciting] > values[other].max()]
    return None if len(exciting) < 4 else Trials(order[:NINE], exciting, other)


@dataclass(frozen=True)
class Score:
    """How often the guess is right.

    Attributes:
        value: a share of all pairs; a tie counts one half.
        error: its standard error over photographs.
        depths: of the judge, at which the trials of each fold were decided.
    """

    value: float
    error: float
    depths: tuple[str, str] = ("", "")

    def plain(self) -> dict[str, Any]:
        return {"score": self.value, "error": self.error}


def share_right(exciting: Tensor, other: Tensor) -> Score:
    """How often the likeness of one photograph exceeds that of another, over all pairs.

    The standard error is that of DeLong et al. (1988): a photograph is in many pairs, so pairs are not independent.

    Args:
        exciting, other: likenesses, (photographs,) each.
    """
    first, second = exciting.double()[:, None], other.double()[None, :]
    right = (first > second).double() + 0.5 * (first == second).double()
    variance = right.mean(1).var(correction=1) / len(exciting) + right.mean(0).var(correction=1) / len(other)
    return Score(right.mean().item(), math.sqrt(max(0.0, variance.item())))


def explanation_scores(
    likeness: Sequence[Tensor], trials: Sequence[Trials | None], depths: Sequence[str]
) -> list[Score | None]:
    """The explanation score of each unit of a layer by one judge.

    Trials come in two folds without a photograph in common.  At which depth of the judge those of a fold are decided is
    chosen on the other fold, for all units of the layer together.

    Args:
        likeness: for each depth, how like each unit's explanation each photograph is, (units, photographs).
        trials: of each unit; None is not scored.
        depths: their names.
    """
    judged = [i for i, each in enumerate(trials) if each is not None]
    if not judged:
        return [None] * len(trials)
    by_depth = [[_folds(scores[i], trials[i]) for i in judged] for scores in map(less_common, likeness)]
    best = [
        max(range(len(depths)), key=lambda depth, fold=fold: sum(unit[fold].value for unit in by_depth[depth]))  # type: ignore[misc]
        for fold in (0, 1)
    ]
    chosen = best[1], best[0]  # each fold is decided where the other went best
    found: list[Score | None] = [None] * len(trials)
    for place, i in enumerate(judged):
        parts = [by_depth[chosen[fold]][place][fold] for fold in (0, 1)]
        found[i] = Score(
            sum(part.value for part in parts) / 2,
            math.hypot(*(part.error for part in parts)) / 2,
            (depths[chosen[0]], depths[chosen[1]]),
        )
    return found


def _folds(likeness: Tensor, trials: Trials | None) -> list[Score]:
    assert trials is not None
    return [share_right(likeness[exciting], likeness[other]) for exciting, other in trials.folds]


def less_common(likeness: Tensor) -> Tensor:
    """Likenesses less what a photograph is like the other units' explanations on average: (units, photographs)."""
    if len(likeness) < 2:
        return likeness
    return likeness - (likeness.sum(0, keepdim=True) - likeness) / (len(likeness) - 1)


def mean_score(scores: Sequence[Score]) -> Score:
    """Over several judges; their errors are of the same photographs, so they are not made smaller by being several."""
    count = len(scores)
    return Score(sum(score.value for score in scores) / count, sum(score.error for score in scores) / count)
