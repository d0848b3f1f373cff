"""What a search measures, resolved."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe
from phosphene.tuning.metric import Metric, make_metric
from phosphene.tuning.samplers import REDUCTION, count_rungs
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.space import Space, load_space
from phosphene.tuning.trials import TrialResult


@dataclass(frozen=True, eq=False)
class SearchTask:
    """What the trials of a search have in common; searches of the same task share their trials.

    Attributes:
        space: whose base is as it is for the network and its units.
        steps: of a whole trial.
        rungs: in how many ascents a whole trial is made, each of thrice the steps of the one before.
        compute: whether the passes are minimized too.
        seed: of the images.
    """

    network: Network
    metric: Metric
    space: Space
    steps: int
    rungs: int
    compute: bool
    seed: int

    def name(self) -> str:
        """The name of its study and its folder, with a checksum of all that its trials depend on."""
        identity = {
            "network": self.network.digest,
            "units": [str(unit) for unit in self.metric.units],
            "judges": [judge.digest for judge in self.metric.judges],
            "space": self.space.text(),
            "steps": self.steps,
            "seed": self.seed,
            "compute": self.compute,
            "rungs": self.rungs,
            **({} if self.metric.explainer is None else {"photographs": self.metric.explainer.photographs}),
        }
        checksum = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        return re.sub(r"[^\w.+-]", "_", f"{self.network.name}-{self.metric.what}-{self.space.name}-{checksum}")

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a whole trial.

        Raises:
            InputError: the values do not go together.
        """
        recipe = self.space.recipe(values, self.network)
        return recipe if "steps" in values else recipe.override({"steps": self.steps})

    def rung_recipe(self, recipe: Recipe, rung: int) -> Recipe:
        """The recipe of a trial's rung, counted from 0."""
        return recipe.override({"steps": max(1, math.ceil(recipe.steps / REDUCTION ** (self.rungs - 1 - rung)))})

    def tuned_recipe(self, best: TrialResult, trials: int) -> Recipe:
        """The recipe of the best of so many trials, with where it comes from."""
        found = {
            "network": self.network.name,
            "weights": self.network.digest,
            "units": self.metric.what,
            "score": round(best.score or 0.0, 6),
            "judges": [judge.name for judge in self.metric.judges],
            "trials": trials,
            "space": self.space.name,
            "seed": self.seed,
        }
        description = f"Found for {self.network.name} by {trials} trials: {self.metric.criterion}"
        return self.recipe(best.values).override(
            {"name": f"{self.space.base.name}-found", "description": description, "found": found}
        )


def make_task(
    network: Network, layer: str | None, settings: SearchSettings, device: torch.device | None = None
) -> SearchTask:
    """What a search with these settings measures.

    Raises:
        InputError: a layer, space or judge that cannot be.
    """
    space = settings.space
    if not isinstance(space, Space):
        space = load_space(space or ("layers" if layer else "classes"))
    metric = make_metric(network, layer, settings, device or torch.device("cpu"))
    space = replace(space, base=space.base.for_network(network).for_unit(metric.units[0]))
    steps = settings.steps or space.base.steps
    whole = settings.compute or settings.pruner == "none" or "steps" in space.domains
    rungs = 1 if whole else count_rungs(steps)
    return SearchTask(network, metric, space, steps, rungs, settings.compute, settings.seed)
