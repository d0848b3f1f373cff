"""The trials of a study: what became of them, and whose they are.

Several processes may share a study, and any may be killed.  So each trial in work says which process makes it, and what
a process leaves unfinished is put back for whoever is next.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from phosphene.extras import require

# A process on another machine that has not been heard of for so many seconds is taken for dead.
_SILENT = 900.0


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
        for trial in counted_trials(study)
        if trial.state.name in states
    ]


def counted_trials(study: Any) -> list[Any]:
    """Optuna's trials, but for those that wait to be begun, and those in whose place others were put."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get("in_place_of") for trial in trials}
    return [trial for trial in trials if trial.state.name != "WAITING" and trial.number not in replaced]


def trial_image(folder: Path, number: int, steps: int) -> Path:
    """Where the images of a trial after so many steps are, in the folder of a search."""
    return folder / "trials" / f"{number:04d}_{steps}.png"


def begin_trial(study: Any) -> Any:
    """A trial of this process, which has drawn nothing yet."""
    # From its first moment on it says whose it is, so that it is taken back at once if this process is killed.
    if not any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial({}, user_attrs={"process": process_name()})
    trial = study.ask()
    trial.set_user_attr("process", process_name())
    note_alive(trial)
    return trial


def note_alive(trial: Any) -> None:
    """Have others know that a trial is still in work."""
    trial.set_user_attr("seen", time.time())


def give_back(study: Any, trial: Any) -> None:
    """End a trial that is not finished here; whoever is next takes its values up again."""
    optuna = require("optuna", "search")
    with suppress(optuna.exceptions.UpdateFinishedTrialError, RuntimeError, ValueError):  # another has done so
        study._storage.set_trial_user_attr(trial._trial_id, "given_back_by", process_name())
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        _put_in_place_of(study, trial)


def take_back(study: Any) -> None:
    """Give back the trials of processes that are gone."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get("in_place_of") for trial in trials}
    for trial in trials:
        giver = trial.user_attrs.get("given_back_by")
        if giver is not None and trial.state.name == "FAIL" and trial.number not in replaced:
            if not _is_alive(giver, trial.datetime_complete.timestamp()):  # it was killed before it had put another
                _put_in_place_of(study, trial)
        elif trial.state.name == "RUNNING":
            process, began = trial.user_attrs.get("process", ""), trial.datetime_start.timestamp()
            # One that has just been drawn does not say yet whose it is.
            if not _is_alive(process, trial.user_attrs.get("seen", began)):
                give_back(study, trial)


def _put_in_place_of(study: Any, trial: Any) -> None:
    study.enqueue_trial(dict(trial.params), user_attrs={"in_place_of": trial.number, "process": process_name()})


def process_name() -> str:
    """This process, as another can tell whether it lives."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.2f}"


def _is_alive(process: str, seen: float) -> bool:
    node, _, rest = process.partition(" ")
    if node != platform.node():
        return time.time() - seen < _SILENT
    number, _, created = rest.partition(" ")
    try:
        return f"{psutil.Process(int(number)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        return False
