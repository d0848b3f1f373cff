"""Search: the recipe for a network, or for a layer of it, found by measuring.

Trials are drawn by Optuna and made many at once, as rows of one batch.  What is maximized is of the score card: for
classes the mean probability that other networks, the judges, give them; for a layer's channels how much of their
activation, which is to be no less than under the recipe that the search starts from, views of the image retain, and how
selective it is.  An interrupted or killed search goes on where it was, and several processes may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phosphene.ascent.forecast import OnForecast
from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.default_progress import TRIALS, Tally, counted
from phosphene.files import atomic_write, make_directory
from phosphene.hardware import first_device
from phosphene.networks.network import Network
from phosphene.recipes import tuned_recipes
from phosphene.recipes.recipe import Recipe
from phosphene.tuning.forecast import SearchWatch
from phosphene.tuning.run import SearchRun
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.study import open_study, quiet_optuna, storage_errors
from phosphene.tuning.task import make_task
from phosphene.tuning.trials import Rung, TrialResult, trial_results

# By so much a score must be better than that of the recipe that the search starts from: less is chance.
_NOTABLE = 0.01


@dataclass(frozen=True, eq=False)
class Search:
    """A search, as far as it is.

    Attributes:
        recipe: of the best complete trial, with where it comes from; None before one is better than the recipe that the
            search starts from.
        trials: all that have ended, in their order.
        study: Optuna's.
        folder: where its files are.
        interrupted: whether by Ctrl-C.
    """

    recipe: Recipe | None
    trials: list[TrialResult]
    study: Any
    folder: Path
    interrupted: bool

    @property
    def base(self) -> float | None:
        """The score of the recipe that the search starts from."""
        known = self.study.user_attrs.get("base")
        return None if known is None else float(known["score"])

    @property
    def best(self) -> TrialResult | None:
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: trial.score or 0.0, default=None)

    def front(self) -> list[tuple[TrialResult, Rung]]:
        """What no other image beats at equal or fewer passes, by rising passes."""
        points = [(trial, rung) for trial in self.trials for rung in trial.rungs]
        points.sort(key=lambda point: (point[1].passes, -point[1].score))
        front: list[tuple[TrialResult, Rung]] = []
        for trial, rung in points:
            if not front or rung.score > front[-1][1].score:
                front.append((trial, rung))
        return front


@contextmanager
def _trials(
    settings: SearchSettings, options: RunOptions, on_progress: Callable[[Progress], None] | None
) -> Iterator[Tally]:
    """What counts the trials."""
    silent = on_progress is not None or options.progress is False
    with counted(TRIALS, False if silent else None, settings.trials, forced=options.progress is True) as tally:
        yield tally


def search(
    network: Network,
    layer: str | None = None,
    settings: SearchSettings | None = None,
    *,
    options: RunOptions | None = None,
    on_trial: Callable[[TrialResult], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_forecast: OnForecast | None = None,
) -> Search:
    """Find the recipe under which a network's classes, or a layer's channels, show best.

    The same call goes on where an earlier one ended, however it ended, and shares the trials with others that run.

    Args:
        network: as `phosphene.open` returns it.
        layer: whose channels; None: classes.
        settings: what is tried, and for how long; by default 50 trials.
        options: where and how the trials run.
        on_trial, on_progress: called with each trial that has ended, and after every step; without the second a bar
            counts trials, unless `options.progress` is False.
        on_forecast: called with what there is to make, and once it is measured with how long that takes this process.

    Raises:
        InputError: a layer, space, judge, storage or folder that cannot be.

    Example:
        >>> found = search(phosphene.open("resnet50"), "layer3", SearchSettings(trials=20))
        >>> found.recipe, found.base, found.best.score
    """
    settings = settings or SearchSettings()
    with quiet_optuna():
        options = options or RunOptions()
        task = make_task(network, layer, settings, first_device(options.device))
        folder = make_directory(Path(settings.out) / task.name())
        make_directory(folder / "trials")
        storage = settings.storage or Path(settings.out) / "searches.journal"
        with storage_errors(str(storage)), _trials(settings, options, on_progress) as tally:
            study = open_study(task, settings, storage)
            watch = SearchWatch(task, on_forecast, None if settings.budget is None else 60 * settings.budget)
            run = SearchRun(
                study, task, folder, settings.trials, settings.budget, options, on_trial, on_progress, watch, tally
            )
            interrupted = run.run()
        made = Search(None, trial_results(study), study, folder, interrupted)
    if made.best is None or (made.best.score or 0.0) <= (made.base or 0.0) + _NOTABLE:
        return made
    recipe = task.tuned_recipe(made.best, len(made.trials))
    atomic_write(folder / "recipe.toml", lambda path: path.write_text(recipe.to_toml(), encoding="utf-8"))
    if settings.keep:
        tuned_recipes.keep(recipe, network)
    return replace(made, recipe=recipe)
