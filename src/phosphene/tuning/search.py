"""Search: the recipe for a network, or for a layer of it, found by measuring.

Trials are drawn by Optuna and made many at once, as rows of one batch.  What is maximised is of the score card: for
classes the mean probability that other networks, the judges, give them; for a layer's channels how much of their
activation, which is to be no less than under the recipe that the search starts from, views of the image retain, and how
selective it is.  An interrupted or killed search goes on where it was, and several processes may share one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from phosphene.api.ascend import ascend
from phosphene.ascent.preparation import LARGEST_BATCH
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import DEFAULT_SEED, Recipes
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.grid import sheet
from phosphene.errors import InputError, did_you_mean
from phosphene.extras import require
from phosphene.files import atomic_write, make_directory
from phosphene.hardware import first_device
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes import tuned_recipes
from phosphene.recipes.schema import Recipe
from phosphene.result import Result
from phosphene.tuning.metric import Metric, is_alive, make_metric
from phosphene.tuning.samplers import PRUNERS, REDUCTION, SAMPLERS, Rung, make_pruner, make_rungs, make_sampler
from phosphene.tuning.space import Space, load_space
from phosphene.tuning.storage import open_storage, storing
from phosphene.units.objects import Unit

# By so much a score must be better than that of the recipe that the search starts from: less is chance.
_NOTABLE = 0.01


_SAID_EVERY = 60.0


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial.

    Attributes:
        number: in the study.
        state: "complete", "pruned" or "failed".
        values: of the fields searched.
        rungs: as far as it came.
        reason: why it failed.
    """

    number: int
    state: str
    values: dict[str, Any]
    rungs: list[Rung]
    reason: str = ""

    @property
    def score(self) -> float | None:
        return self.rungs[-1].score if self.rungs else None


@dataclass(frozen=True, eq=False)
class Search:
    """A search, as far as it is.

    Attributes:
        recipe: of the best complete trial, with where it comes from; None before one is better than the recipe that the
            search starts from.
        outcomes: of all trials that have ended, in their order.
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
        complete = [outcome for outcome in self.trials if outcome.state == "complete"]
        return max(complete, key=lambda outcome: outcome.score or 0.0, default=None)

    def front(self) -> list[tuple[TrialResult, Rung]]:
        """What no other image beats at equal or fewer passes, by rising passes."""
        points = [(outcome, rung) for outcome in self.trials for rung in outcome.rungs]
        points.sort(key=lambda point: (point[1].passes, -point[1].score))
        front: list[tuple[TrialResult, Rung]] = []
        for outcome, rung in points:
            if not front or rung.score > front[-1][1].score:
                front.append((outcome, rung))
        return front


def search(
    network: Network,
    layer: str | None = None,
    *,
    space: str | Path | Space | None = None,
    count: int | None = None,
    judges: Sequence[str | Network] | None = None,
    trials: int = 50,
    budget: float | None = None,
    steps: int | None = None,
    sampler: str = "tpe",
    pruner: str = "halving",
    compute: bool = False,
    storage: str | Path | None = None,
    out: str | Path = "phosphene-search",
    seed: int = DEFAULT_SEED,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    precision: str = "auto",
    keep: bool = True,
    on_trial: Callable[[TrialResult], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Search:
    """Find the recipe under which a network's classes, or a layer's channels, show best.

    The same call goes on where an earlier one ended, however it ended, and shares the trials with others that run.

    Args:
        network: as `phosphene.open` gives it.
        layer: whose channels; None: classes.
        space: one that ships ("classes", "layers", "post"), a TOML file or a `Space`; by default "classes" or "layers".
        count: how many classes (8) or channels (6), drawn by the seed.
        judges: of classes, as `phosphene.judge` takes them; by default the bundled networks that are no kin.
        trials: how many there should be in the end, those of other processes and earlier calls included.
        budget: minutes after which no further trial is begun.
        steps: of a whole trial; by default the recipe's.
        sampler: "tpe" (Bergstra et al. 2011) or "random" (Bergstra & Bengio 2012).
        pruner: "halving" (Jamieson & Talwalkar 2016, asynchronous), "hyperband" (Li et al. 2018), or "none": of the
            trials after a ninth and a third of the steps, where these are 40 or more, only the best third goes on.
            Each such rung is an ascent of its own, since a rate falls over as many steps as there are.
        compute: minimise the passes too, where `steps` or `views.count` are searched; without pruning.
        storage: a file, by default OUT/searches.journal, or the URL of a database as Optuna takes it.
        out: the folder for the recipe and the trials' images.
        seed: of the classes or channels, the images and the sampler.
        device, precision: as for `ascend`.
        keep: whether the recipe is kept for the network, so that `phosphene classes` and `filters` use it.
        on_trial, on_progress: called with each trial that has ended, and after every step.

    Raises:
        InputError: a layer, space, judge, sampler, pruner, storage or folder that cannot be.
    """
    optuna = require("optuna", "search", "a search")
    for value, known, what in ((sampler, SAMPLERS, "sampler"), (pruner, PRUNERS, "pruner")):
        if value not in known:
            raise InputError(f"{what} {value!r}: expected {', '.join(known)}{did_you_mean(value, known)}")
    if trials < 1 or (count is not None and count < 1) or (budget is not None and not budget > 0):
        raise InputError(f"trials {trials}, count {count}, budget {budget}: expected all above 0")
    loaded = space if isinstance(space, Space) else load_space(space or ("layers" if layer else "classes"))
    metric = make_metric(network, layer, count, judges, seed)
    loaded = replace(loaded, base=loaded.base.for_network(network.name).for_unit(metric.units[0]))
    whole = steps or loaded.base.steps
    rungs = 1 if compute or pruner == "none" or "steps" in loaded.domains else make_rungs(whole)
    setup = {
        "network": network.digest,
        "units": [str(unit) for unit in metric.units],
        "judges": [judge.digest for judge in metric.judges],
        "space": loaded.text(),
        "steps": whole,
        "seed": seed,
        "compute": compute,
        "rungs": rungs,
    }
    identity = hashlib.sha256(json.dumps(setup, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.+-]", "_", f"{network.name}-{metric.what}-{loaded.name}-{identity}")
    folder = make_directory(Path(out) / name)
    make_directory(folder / "trials")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = storage or Path(out) / "searches.journal"
    with warnings.catch_warnings(), storing(optuna, str(storage)):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=open_storage(optuna, storage),
            study_name=name,
            load_if_exists=True,
            sampler=make_sampler(optuna, sampler, seed),
            pruner=make_pruner(optuna, "none" if rungs == 1 else pruner, rungs),
            directions=["maximize", "minimize"] if compute else ["maximize"],
        )
        run = _TuningRun(
            study, network, metric, loaded, whole, rungs, trials, budget, compute, seed, folder,
            {"device": device, "precision": precision, "on_progress": on_progress}, on_trial,
        )  # fmt: skip
        run.run()
    outcomes = trial_results(study)
    made = Search(None, outcomes, study, folder, run.interrupted)
    if made.best is not None and (made.best.score or 0.0) > (made.base or 0.0) + _NOTABLE:
        recipe = _tuned_recipe(made.best, len(outcomes), network, metric, loaded, whole, seed)
        made = Search(recipe, outcomes, study, folder, run.interrupted)
        atomic_write(folder / "recipe.toml", lambda path: path.write_text(recipe.to_toml(), encoding="utf-8"))
        if keep:
            tuned_recipes.keep(recipe, network)
    return made


def trial_results(study: Any) -> list[TrialResult]:
    """Of all trials that have ended, but for those that were given back."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return [
        TrialResult(
            trial.number,
            states[trial.state.name],
            trial.user_attrs.get("values", {}),
            [Rung(**rung) for rung in trial.user_attrs.get("rungs", [])],
            trial.user_attrs.get("reason", ""),
        )
        for trial in _counted_trials(study)
        if trial.state.name in states
    ]


def _counted_trials(study: Any) -> list[Any]:
    """Optuna's trials, but for those that wait to be begun, and those in whose place others were put."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get("in_place_of") for trial in trials}
    return [trial for trial in trials if trial.state.name != "WAITING" and trial.number not in replaced]


@dataclass(eq=False)
class _RunningTrial:
    """One in work."""

    trial: Any  # Optuna's
    values: dict[str, Any]
    recipe: Recipe
    rungs: list[Rung] = field(default_factory=list)


@dataclass(eq=False)
class _TuningRun:
    """This process's part in a search."""

    study: Any
    network: Network
    metric: Metric
    space: Space
    steps: int
    rungs: int
    trials: int
    budget: float | None
    compute: bool
    seed: int
    folder: Path
    options: dict[str, Any]
    on_trial: Callable[[TrialResult], None] | None
    interrupted: bool = False
    base: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        with interruptible() as stop:
            self.make_trials(stop)
            self.interrupted = self.interrupted or stop.is_set()

    def make_trials(self, stop: threading.Event) -> None:
        begun, looked = time.monotonic(), -math.inf
        goes_on = bool(self.study.get_trials(deepcopy=False))
        if "first" not in self.study.user_attrs:
            self.study.set_user_attr("first", _process())
        work: list[_RunningTrial] = []
        together = max(1, LARGEST_BATCH // len(self.metric.units))
        try:
            while True:
                if time.monotonic() - looked > _SAID_EVERY:
                    looked = time.monotonic()
                    self.take_back()  # before any are counted: those of the dead are yet to be made
                late = self.budget is not None and time.monotonic() - begun > 60 * self.budget
                while not late and not stop.is_set() and len(work) < together and self.left() > 0:
                    if not self.base and not self.begin_with_base(goes_on):
                        self.interrupted = True
                        return
                    work += self.begin()
                if not work:
                    return
                made = self.made(work)
                if made is None:
                    self.interrupted = True
                    return
                work = [each for each, pictures in zip(work, made, strict=True) if self.goes_on(each, pictures)]
        finally:  # nothing is in work but after an interruption or an exception
            for each in work:
                self.give_back(each.trial)

    def begin_with_base(self, goes_on: bool) -> bool:
        """Make ready for the first trial here; whether the images of the base are there."""
        if not self.make_base():
            return False
        # One that goes on, or is not the first here, should not draw what has been drawn by the same seed.  Of several
        # that begin at once, the last to say so is the first.
        if goes_on or self.study.user_attrs["first"] != _process():
            self.study.sampler.reseed_rng()
        return True

    def ascend(self, units: list[Unit], recipes: Recipes, on_progress: Callable[[Progress], None] | None) -> Result:
        options = RunOptions(self.options["device"], precision=self.options["precision"])
        return ascend(self.network, units, recipes, seed=self.seed, options=options, callbacks=Callbacks(on_progress))

    def make_base(self) -> bool:
        """Make the images of the recipe that the search starts from, once; whether they are there."""
        known = self.study.user_attrs.get("base")
        if known is None:
            recipe = self.space.base.override({"steps": self.steps})
            result = self.ascend(self.metric.units, recipe, self.options["on_progress"])
            if result.interrupted:
                return False
            where = first_device(self.options["device"])
            activations = self.metric.activations(list(result), where)
            scores = self.metric.scores(list(result), where, activations)
            known = {"activations": activations, "score": sum(scores) / len(scores)}
            image = sheet([picture.image() for picture in result])
            atomic_write(self.folder / "trials" / "base.png", lambda path: image.save(path, "PNG"))
            # Its trial waits before it is noted as made: else a process killed in between would leave it out for good.
            own = self.space.params_of(self.space.base)
            self.study.enqueue_trial(own, skip_if_exists=True)
            self.study.set_user_attr("base", known)
        self.base = known
        return True

    def left(self) -> int:
        """How many trials are yet to be begun, by this process or another."""
        return self.trials - len(_counted_trials(self.study))

    def begin(self) -> list[_RunningTrial]:
        """A new trial; none where its values do not go together."""
        # From its first moment on it says whose it is, so that it is taken back at once if this process is killed.
        if not any(trial.state.name == "WAITING" for trial in self.study.get_trials(deepcopy=False)):
            self.study.enqueue_trial({}, user_attrs={"process": _process()})
        trial = self.study.ask()
        trial.set_user_attr("process", _process())
        trial.set_user_attr("seen", time.time())
        values = self.space.sample(trial)
        trial.set_user_attr("values", values)
        try:
            recipe = self.space.recipe(values, self.network.name)
            if "steps" not in values:
                recipe = recipe.override({"steps": self.steps})
        except InputError as error:
            self.fail(trial, str(error))
            return []
        return [_RunningTrial(trial, values, recipe)]

    def made(self, work: list[_RunningTrial]) -> list[list[Picture] | Exception] | None:
        """The pictures of each trial's next rung, all of them in one ascent, or why there are none.

        None if interrupted.
        """
        units = self.metric.units
        recipes = [self.rung_of(each) for each in work]
        said = time.monotonic()
        tell = self.options["on_progress"]

        def report(progress: Progress) -> None:
            nonlocal said
            if time.monotonic() - said > _SAID_EVERY:
                said = time.monotonic()
                for each in work:
                    each.trial.set_user_attr("seen", time.time())
            if tell is not None:
                tell(progress)

        try:
            result = self.ascend(units * len(work), [recipe for recipe in recipes for _ in units], report)
        except Exception as error:
            if len(work) == 1:
                return [error]
            each_alone = [self.made([each]) for each in work]  # one that cannot be made does not end the others
            return None if None in each_alone else [outcome for made in each_alone for outcome in made or ()]
        if result.interrupted:
            return None
        return [list(result.pictures[first : first + len(units)]) for first in range(0, len(result), len(units))]

    def rung_of(self, each: _RunningTrial) -> Recipe:
        left = self.rungs - 1 - len(each.rungs)
        return each.recipe.override({"steps": max(1, math.ceil(each.recipe.steps / REDUCTION**left))})

    def goes_on(self, each: _RunningTrial, pictures: list[Picture] | Exception) -> bool:
        """Whether a trial goes on; not where another process, taking this one for gone, has ended it."""
        optuna = require("optuna", "search")
        try:
            return self.note(each, pictures)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def note(self, each: _RunningTrial, pictures: list[Picture] | Exception) -> bool:
        """Note what a trial's rung was worth, and tell the study where the trial has ended; whether it has not."""
        if isinstance(pictures, Exception):
            self.fail(each.trial, f"{type(pictures).__name__}: {(str(pictures).strip().splitlines() or ['?'])[0]}")
            return False
        try:
            scores = self.metric.scores(pictures, first_device(self.options["device"]), self.base["activations"])
        except InputError as error:
            self.fail(each.trial, str(error))
            return False
        steps = max(picture.steps for picture in pictures)
        rung = Rung(
            steps,
            steps * each.recipe.views.count,
            sum(scores) / len(scores),
            [round(score, 6) for score in scores],
            sum(picture.seconds for picture in pictures) / len(pictures),
        )
        each.rungs.append(rung)
        each.trial.set_user_attr("rungs", [vars(rung) for rung in each.rungs])
        image = sheet([picture.image() for picture in pictures])
        path = self.folder / "trials" / f"{each.trial.number:04d}_{steps}.png"
        atomic_write(path, lambda path: image.save(path, "PNG"))
        if not self.compute and self.rungs > 1:
            each.trial.report(rung.score, REDUCTION ** (len(each.rungs) - 1))
        if len(each.rungs) == self.rungs:
            values: float | list[float] = [rung.score, float(rung.passes)] if self.compute else rung.score
            self.tell(each.trial, values=values)
        elif each.trial.should_prune():
            self.tell(each.trial, state="PRUNED")
        else:
            return True
        self.report(each.trial.number)
        return False

    def fail(self, trial: Any, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self.tell(trial, state="FAIL")
        self.report(trial.number)

    def tell(self, trial: Any, values: float | list[float] | None = None, state: str = "COMPLETE") -> None:
        optuna = require("optuna", "search")
        self.study.tell(trial, values, state=optuna.trial.TrialState[state])

    def report(self, number: int) -> None:
        if self.on_trial is not None:
            self.on_trial(next(outcome for outcome in trial_results(self.study) if outcome.number == number))

    def give_back(self, trial: Any) -> None:
        """End a trial that is not finished here; whoever is next takes its values up again."""
        optuna = require("optuna", "search")
        with suppress(optuna.exceptions.UpdateFinishedTrialError, RuntimeError, ValueError):  # another has done so
            self.study._storage.set_trial_user_attr(trial._trial_id, "given_back_by", _process())
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self.put_in_place_of(trial)

    def put_in_place_of(self, trial: Any) -> None:
        self.study.enqueue_trial(dict(trial.params), user_attrs={"in_place_of": trial.number, "process": _process()})

    def take_back(self) -> None:
        """Give back the trials of processes that are gone."""
        trials = self.study.get_trials(deepcopy=False)
        replaced = {trial.user_attrs.get("in_place_of") for trial in trials}
        for trial in trials:
            giver = trial.user_attrs.get("given_back_by")
            if giver is not None and trial.state.name == "FAIL" and trial.number not in replaced:
                if not is_alive(giver, trial.datetime_complete.timestamp()):  # it was killed before it had put another
                    self.put_in_place_of(trial)
            elif trial.state.name == "RUNNING":
                process, began = trial.user_attrs.get("process", ""), trial.datetime_start.timestamp()
                # One that has just been drawn does not say yet whose it is.
                if not is_alive(process, trial.user_attrs.get("seen", began)):
                    self.give_back(trial)


def _process() -> str:
    """This process, as another can tell whether it lives."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.2f}"


def _tuned_recipe(
    best: TrialResult, trials: int, network: Network, metric: Metric, space: Space, steps: int, seed: int
) -> Recipe:
    recipe = space.recipe(best.values, network.name)
    said = (
        "what other networks give its classes"
        if metric.judges
        else f"activation that views retain, and selectivity, in {metric.what}"
    )
    changes: dict[str, Any] = {
        "name": f"{space.base.name}-found",
        "description": f"Found for {network.name} by {trials} trials: {said}",
        "found": {
            "network": network.name,
            "weights": network.digest,
            "units": metric.what,
            "score": round(best.score or 0.0, 6),
            "judges": [judge.name for judge in metric.judges],
            "trials": trials,
            "space": space.name,
            "seed": seed,
        },
    }
    return recipe.override(changes if "steps" in best.values else changes | {"steps": steps})
