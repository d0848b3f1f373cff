"""How long a search will take, by how fast its first images are made and judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from phosphene.ascent.forecast import Forecast, Meter, OnForecast
from phosphene.ascent.progress import Progress
from phosphene.recipes.recipe import Recipe
from phosphene.tuning.samplers import REDUCTION
from phosphene.tuning.task import SearchTask

_VIEWS = "views.count"


def trial_forecast(task: SearchTask) -> tuple[Forecast, int]:
    """What a whole trial of a search takes at most: images and steps, and passes.

    A trial that is pruned takes less, as does one that draws fewer steps or views than it may.
    """
    domains = task.space.domains
    steps = max(domains["steps"].ends) if "steps" in domains else task.steps
    views = max(domains[_VIEWS].ends) if _VIEWS in domains else task.space.base.views.count
    each = sum(max(1, math.ceil(steps / REDUCTION**rung)) for rung in range(task.rungs))
    images = len(task.metric.units)
    is_bound = task.rungs > 1 or bool({"steps", _VIEWS} & domains.keys())
    return Forecast(images * task.rungs, images * each, is_bound=is_bound), images * each * views


@dataclass
class SearchWatch:
    """Tells how long a search takes, once that is measured on its first ascents, with the judging between them.

    Attributes:
        budget: seconds after which no further trial is begun.
        whole: what this process has to make, and `passes` in it; None before it is known.
        behind: passes of the ascents that have ended.
    """

    task: SearchTask
    on_forecast: OnForecast | None
    budget: float | None
    whole: Forecast | None = None
    passes: int = 0
    behind: int = 0
    meter: Meter = field(default_factory=Meter)
    is_measured: bool = False

    def begin(self, trials: int, base: Recipe | None) -> None:
        """Tell how much there is to make.

        Args:
            trials: that are left.
            base: whose images are to be made first, where they are not there.
        """
        if self.whole is not None:
            return
        each, passes = trial_forecast(self.task)
        images, steps, self.passes = trials * each.images, trials * each.steps, trials * passes
        if base is not None:
            units = len(self.task.metric.units)
            images, steps, self.passes = images + units, steps + units * base.steps, self.passes + _passes(units, base)
        self.whole = Forecast(images, steps, is_bound=each.is_bound)
        if self.on_forecast is not None:
            self.on_forecast(self.whole)

    def watched(
        self, recipes: list[Recipe], on_progress: Callable[[Progress], None] | None
    ) -> Callable[[Progress], None]:
        """What is told of the progress of an ascent of an image by each of these recipes."""
        passes, before = sum(_passes(1, recipe) for recipe in recipes), self.behind
        self.behind += passes

        def report(progress: Progress) -> None:
            self._measure(before + passes * progress.work)
            if on_progress is not None:
                on_progress(progress)

        return report

    def _measure(self, passes: float) -> None:
        if self.is_measured or self.whole is None or (rate := self.meter.rate(passes)) is None:
            return
        self.is_measured = True
        found = replace(self.whole, seconds=self.passes / rate)
        if self.budget is not None and found.seconds is not None and found.seconds > self.budget:
            found = replace(found, seconds=self.budget, is_bound=True)
        if self.on_forecast is not None:
            self.on_forecast(found)


def _passes(images: int, recipe: Recipe) -> int:
    return images * recipe.steps * recipe.views.count
