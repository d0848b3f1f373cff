"""How a search draws its trials, and which it ends early."""

from __future__ import annotations

import math
from typing import Any

SAMPLERS = ("tpe", "random")
PRUNERS = ("halving", "hyperband", "none")

# A trial is first made in a ninth of the steps, then in a third, then in all; but never in fewer than so many: the best
# rate depends on how many steps there are, and after a few it tells nothing of the best after many.
REDUCTION, MOST_RUNGS, LEAST_STEPS = 3, 3, 40


def make_sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def count_rungs(steps: int) -> int:
    """In how many rungs a trial of so many steps is made."""
    return max(1, min(MOST_RUNGS, 1 + math.floor(math.log(steps / LEAST_STEPS, REDUCTION))))


def make_pruner(optuna: Any, name: str, rungs: int) -> Any:
    """Of rungs counted as 1, 3, 9."""
    if rungs > 1 and name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if rungs > 1 and name == "hyperband":
        most = REDUCTION ** (rungs - 1)
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()
