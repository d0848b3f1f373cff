"""One process's part in a search: trials, made many at once as rows of one batch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phosphene.api.ascend import ascend
from phosphene.ascent.preparation import LARGEST_BATCH
from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.default_progress import Tally
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.grid import sheet
from phosphene.errors import InputError, error_text
from phosphene.extras import require
from phosphene.files import atomic_write
from phosphene.hardware import first_device
from phosphene.interruption import interruptible
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.tuning.forecast import SearchWatch
from phosphene.tuning.samplers import REDUCTION
from phosphene.tuning.task import SearchTask
from phosphene.tuning.trials import (
    Rung,
    TrialResult,
    begin_trial,
    counted_trials,
    give_back,
    note_alive,
    process_name,
    take_back,
    trial_image,
    trial_results,
)
from phosphene.units.objects import Unit

# Seconds between two looks at the other processes, and between two signs of life for them.
_INTERVAL = 60.0


@dataclass(eq=False)
class _OpenTrial:
    """A trial in work."""

    trial: Any  # Optuna's
    recipe: Recipe
    rungs: list[Rung] = field(default_factory=list)


@dataclass(eq=False)
class SearchRun:
    """This process's part in a search.

    Attributes:
        study: Optuna's.
        trials: how many there are to be in the end.
        budget: minutes after which no further trial is begun.
        options: where and how the trials run.
        watch: tells how long it takes.
        tally: that trials count on.
        base: what the recipe that the search starts from reaches; empty before it is known here.
    """

    study: Any
    task: SearchTask
    folder: Path
    trials: int
    budget: float | None
    options: RunOptions
    on_trial: Callable[[TrialResult], None] | None
    on_progress: Callable[[Progress], None] | None
    watch: SearchWatch
    tally: Tally
    base: dict[str, Any] = field(default_factory=dict)

    def run(self) -> bool:
        """Make trials until there are enough of them, or the budget is spent; returns whether it was interrupted."""
        self._count_trials()
        with interruptible() as stop:
            ended = self._make_trials(stop)
            return stop.is_set() or not ended

    def _make_trials(self, stop: threading.Event) -> bool:
        """Returns whether it came to its end."""
        began, looked = time.monotonic(), -math.inf
        goes_on = bool(self.study.get_trials(deepcopy=False))
        if "first" not in self.study.user_attrs:
            self.study.set_user_attr("first", process_name())
        work: list[_OpenTrial] = []
        together = max(1, LARGEST_BATCH // len(self.task.metric.units))
        try:
            while True:
                if time.monotonic() - looked > _INTERVAL:
                    looked = time.monotonic()
                    take_back(self.study)  # before any are counted: those of the dead are yet to be made
                late = self.budget is not None and time.monotonic() - began > 60 * self.budget
                while not late and not stop.is_set() and len(work) < together and self._left() > 0:
                    if not self.base and not self._begin_with_base(goes_on):
                        return False
                    work += self._begin()
                if not work:
                    return True
                rungs = self._ascend(work)
                if rungs is None:
                    return False
                work = [each for each, pictures in zip(work, rungs, strict=True) if self._goes_on(each, pictures)]
        finally:  # nothing is in work but after an interruption or an exception
            for each in work:
                give_back(self.study, each.trial)

    def _left(self) -> int:
        """How many trials are yet to be begun, by this process or another."""
        return self.trials - len(counted_trials(self.study))

    def _count_trials(self) -> None:
        """Have those that have ended counted, here and elsewhere."""
        self.tally.at(len(trial_results(self.study)), self.trials, "")

    # The recipe that the search starts from.

    def _begin_with_base(self, goes_on: bool) -> bool:
        """Make ready for the first trial here; whether the images of the base are there."""
        known = self.study.user_attrs.get("base")
        self.watch.begin(self._left(), self._base_recipe() if known is None else None)
        known = known or self._make_base()
        if known is None:
            return False
        self.base = known
        # One that goes on, or is not the first here, should not draw what has been drawn by the same seed.  Of several
        # that begin at once, the last to say so is the first.
        if goes_on or self.study.user_attrs["first"] != process_name():
            self.study.sampler.reseed_rng()
        return True

    def _make_base(self) -> dict[str, Any] | None:
        """Make the images of the base, once for all processes; None if interrupted."""
        base, metric = self.task.space.base, self.task.metric
        result = self._images(metric.units, [self._base_recipe()] * len(metric.units), self.on_progress)
        if result.interrupted:
            return None
        device = first_device(self.options.device)
        activations = metric.activations(list(result), device)
        scores = metric.scores(list(result), device, activations)
        _write_sheet(self.folder / "trials" / "base.png", list(result))
        # Its trial waits before it is noted as made: else a process killed in between would leave it out for good.
        self.study.enqueue_trial(self.task.space.params_of(base), skip_if_exists=True)
        known = {"activations": activations, "score": sum(scores) / len(scores)}
        self.study.set_user_attr("base", known)
        return known

    def _base_recipe(self) -> Recipe:
        return self.task.space.base.override({"steps": self.task.steps})

    # A trial, from rung to rung.

    def _begin(self) -> list[_OpenTrial]:
        """A new trial; none where its values do not go together."""
        trial = begin_trial(self.study)
        values = self.task.space.sample(trial)
        trial.set_user_attr("values", values)
        try:
            return [_OpenTrial(trial, self.task.recipe(values))]
        except InputError as error:
            self._fail(trial, str(error))
            return []

    def _ascend(self, work: list[_OpenTrial]) -> list[list[Picture] | Exception] | None:
        """The pictures of each trial's next rung, all of them in one ascent, or why there are none.

        None if interrupted.
        """
        units = self.task.metric.units
        recipes = [self.task.rung_recipe(each.recipe, len(each.rungs)) for each in work]
        try:
            each_recipe = [recipe for recipe in recipes for _ in units]
            result = self._images(units * len(work), each_recipe, self._progress_reporter(work))
        except Exception as error:
            if len(work) == 1:
                return [error]
            each_alone = [self._ascend([each]) for each in work]  # one that cannot be made does not end the others
            return None if None in each_alone else [rung for rungs in each_alone for rung in rungs or ()]
        if result.interrupted:
            return None
        return [list(result.pictures[first : first + len(units)]) for first in range(0, len(result), len(units))]

    def _images(
        self, units: list[Unit], recipes: list[Recipe], on_progress: Callable[[Progress], None] | None
    ) -> Result:
        task, callbacks = self.task, Callbacks(progress=self.watch.watched(recipes, on_progress))
        return ascend(task.network, units, recipes, seed=task.seed, options=self.options, callbacks=callbacks)

    def _progress_reporter(self, work: list[_OpenTrial]) -> Callable[[Progress], None]:
        said = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal said
            if time.monotonic() - said > _INTERVAL:
                said = time.monotonic()
                for each in work:
                    note_alive(each.trial)
            if self.on_progress is not None:
                self.on_progress(progress)
            self.tally.say(f"{len(work)} in work, {progress.work:.0%} of their next images")

        return report

    def _goes_on(self, each: _OpenTrial, pictures: list[Picture] | Exception) -> bool:
        """Whether a trial goes on; not where another process, taking this one for gone, has ended it."""
        optuna = require("optuna", "search")
        try:
            if isinstance(pictures, Exception):
                return self._fail(each.trial, error_text(pictures))
            try:
                device = first_device(self.options.device)
                scores = self.task.metric.scores(pictures, device, self.base["activations"])
            except InputError as error:
                return self._fail(each.trial, str(error))
            return self._note_rung(each, pictures, scores)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _note_rung(self, each: _OpenTrial, pictures: list[Picture], scores: list[float]) -> bool:
        """Note what a trial's rung was worth, and tell the study where the trial has ended; whether it has not."""
        steps = max(picture.steps for picture in pictures)
        rung = Rung(
            steps,
            steps * each.recipe.views.count,
            sum(scores) / len(scores),
            [round(score, 6) for score in scores],
            sum(picture.seconds for picture in pictures) / len(pictures),
        )
        each.rungs.append(rung)
        each.trial.set_user_attr("rungs", [asdict(rung) for rung in each.rungs])
        _write_sheet(trial_image(self.folder, each.trial.number, steps), pictures)
        if self.task.rungs > 1:
            each.trial.report(rung.score, REDUCTION ** (len(each.rungs) - 1))
        if len(each.rungs) == self.task.rungs:
            return self._end(each.trial, [rung.score, float(rung.passes)] if self.task.compute else rung.score)
        return self._end(each.trial, state="PRUNED") if each.trial.should_prune() else True

    def _fail(self, trial: Any, reason: str) -> bool:
        trial.set_user_attr("reason", reason)
        return self._end(trial, state="FAIL")

    def _end(self, trial: Any, values: float | list[float] | None = None, state: str = "COMPLETE") -> bool:
        """Tell the study, and who listens, that a trial has ended.  False: it does not go on."""
        optuna = require("optuna", "search")
        self.study.tell(trial, values, state=optuna.trial.TrialState[state])
        self._count_trials()
        if self.on_trial is not None:
            self.on_trial(next(result for result in trial_results(self.study) if result.number == trial.number))
        return False


def _write_sheet(path: Path, pictures: list[Picture]) -> None:
    image = sheet([picture.image() for picture in pictures])
    atomic_write(path, lambda aside: image.save(aside, "PNG"))
