"""How a search draws its trials, and which it ends early."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SAMPLERS = ("tpe", "random")
PRUNERS = ("halving", "hyperband", "none")

# A trial is first made in a ninth of the steps, then in a third, then in all; but never in fewer than so many: the best
# rate depends on how many steps there are, and after a few it tells nothing of the best after many.
REDUCTION, _MOST_RUNGS, _LEAST_STEPS = 3, 3, 40


@dataclass(frozen=True)
class Rung:
    """A trial's images after so many steps, and what they are worth.

    Attributes:
        steps, passes: of each image; passes are forward and backward ones.
        score: the mean of `scores`, one for each unit.
        seconds: of each image.
    """

    steps: int
    passes: int
    score: float
    scores: list[float]
    seconds: float


def make_sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def make_rungs(steps: int) -> int:
    return max(1, min(_MOST_RUNGS, 1 + math.floor(math.log(steps / _LEAST_STEPS, REDUCTION))))


def make_pruner(optuna: Any, name: str, rungs: int) -> Any:
    """Of rungs counted as 1, 3, 9."""
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if name == "hyperband":
        most = REDUCTION ** (rungs - 1)
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()
