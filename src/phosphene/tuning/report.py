"""A page on a search: which fields matter, what was tried, and what the trials look like from worst to best."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.display import opaque
from phosphene.draw.grid import tile
from phosphene.extras import require
from phosphene.files import atomic_write, make_directory
from phosphene.images import read_image
from phosphene.tuning.search import Search
from phosphene.tuning.study import quiet_optuna
from phosphene.tuning.trials import TrialResult, trial_image

_STRIP = 10  # trials in a strip, evenly spread from worst to best


@dataclass(frozen=True)
class _Figure:
    """A figure of the page; where it cannot be drawn, `draw` raises."""

    title: str
    name: str
    draw: Callable[[Path], object]
    problem: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}.png"


def write_report(search: Search) -> Path:
    """Write `report/index.html`, with its figures beside it, into the search's folder; returns the page.

    Trials are compared after as many steps as all of them made: those of their first rung.

    Raises:
        InputError: it cannot be written.
    """
    folder = make_directory(search.folder / "report")
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some layouts are tight
        figures = [_drawn(figure, folder) for figure in _figures(search)]
    page = _render_page(search, figures)
    return atomic_write(folder / "index.html", lambda path: path.write_text(page, encoding="utf-8"))


def _drawn(figure: _Figure, folder: Path) -> _Figure:
    """The figure, drawn, or with the reason why there is nothing to draw."""
    try:
        atomic_write(folder / figure.file, figure.draw)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:  # too few trials, or all alike
        return _Figure(figure.title, figure.name, figure.draw, str(error))
    return figure


def _render_page(search: Search, figures: Sequence[_Figure]) -> str:
    jinja2 = require("jinja2", "search", "a report")
    environment = jinja2.Environment(loader=jinja2.PackageLoader("phosphene.tuning", ""), autoescape=True)
    fields = list(dict.fromkeys(name for trial in search.trials for name in trial.values))
    trials = sorted(search.trials, key=lambda trial: (-len(trial.rungs), -(trial.score or 0.0)))
    return str(
        environment.get_template("report.html").render(
            name=search.study.study_name,
            recipe=search.recipe,
            best=search.best,
            base=search.base,
            figures=figures,
            fields=fields,
            rows=[_table_row(trial, fields) for trial in trials],
        )
    )


def _table_row(trial: TrialResult, fields: Sequence[str]) -> list[str]:
    state = f"{trial.state}: {trial.reason}" if trial.reason else trial.state
    steps = [str(trial.rungs[-1].steps), f"{trial.rungs[-1].score:.3f}"] if trial.rungs else ["", ""]
    return [str(trial.number), state, *steps, *(_short(trial.values.get(name, "")) for name in fields)]


def _short(value: Any) -> str:
    return re.sub(r"\.0$", "", f"{value:.4g}") if isinstance(value, float) else str(value)


# The figures.


def _figures(search: Search) -> list[_Figure]:
    compared = [trial for trial in search.trials if trial.rungs]
    complete = [trial for trial in compared if trial.state == "complete"]
    steps = min((trial.rungs[0].steps for trial in compared), default=0)
    study = _study_of_first_rungs(search.study, compared)
    return [
        _Figure(f"From worst to best after {steps} steps", "strip_first", _strip(search, compared, rung=0)),
        _Figure("Whole trials from worst to best", "strip_whole", _strip(search, complete, rung=-1)),
        _Figure(
            f"How much each field matters after {steps} steps (PED-ANOVA)",
            "importance",
            lambda path: _draw_importance(study, path),
        ),
        _Figure(f"Score after {steps} steps against each field", "slices", lambda path: _draw_slices(study, path)),
        _Figure(f"Parallel coordinates, after {steps} steps", "parallel", lambda path: _draw_parallel(study, path)),
        _Figure(
            "Score against forward and backward passes, and the Pareto front",
            "pareto",
            lambda path: _draw_pareto(search, path),
        ),
    ]


def _study_of_first_rungs(study: Any, compared: Sequence[TrialResult]) -> Any:
    """A study whose values are those that all trials have: of their first rung."""
    optuna = require("optuna", "search", "a report")
    known = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    first_rungs = optuna.create_study(direction="maximize")
    first_rungs.add_trials(
        [
            optuna.trial.create_trial(
                params=known[trial.number].params,
                distributions=known[trial.number].distributions,
                value=trial.rungs[0].score,
            )
            for trial in compared
        ]
    )
    return first_rungs


def _draw_importance(study: Any, path: Path) -> None:
    optuna = require("optuna", "search", "a report")
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    axes = optuna.visualization.matplotlib.plot_param_importances(study, evaluator=evaluator)
    _save_axes(axes, path, (9, 0.5 * len(study.best_params) + 1.5))


def _draw_slices(study: Any, path: Path) -> None:
    optuna = require("optuna", "search", "a report")
    _save_axes(optuna.visualization.matplotlib.plot_slice(study), path, (3.2 * len(study.best_params), 4))


def _draw_parallel(study: Any, path: Path) -> None:
    optuna = require("optuna", "search", "a report")
    _save_axes(optuna.visualization.matplotlib.plot_parallel_coordinate(study), path, (16, 6))


def _save_axes(axes: Any, path: Path, size: tuple[float, float]) -> None:
    import matplotlib.pyplot as plt

    every = list(axes.flat) if hasattr(axes, "flat") else [axes]
    figure = every[0].figure
    figure.set_size_inches(*size)
    for each in every if len(every) > 1 else ():
        each.tick_params(axis="x", labelrotation=60)  # choices are long words
    figure.savefig(path, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)


def _draw_pareto(search: Search, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [rung for trial in search.trials for rung in trial.rungs]
    axes.scatter([rung.passes for rung in points], [rung.score for rung in points], s=14, alpha=0.5)
    front = search.front()
    axes.step([rung.passes for _, rung in front], [rung.score for _, rung in front], where="post", color="tab:red")
    for trial, rung in front:
        axes.annotate(f"#{trial.number}", (rung.passes, rung.score), xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="forward and backward passes an image", ylabel="score", xscale="log")
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight", format="png")


def _strip(search: Search, trials: Sequence[TrialResult], *, rung: int) -> Callable[[Path], object]:
    """The images of some trials, by their score at a rung."""

    def draw(path: Path) -> None:
        if not trials:
            raise ValueError("no trial has come so far")
        chosen = sorted(trials, key=lambda trial: trial.rungs[rung].score)
        if len(chosen) > _STRIP:
            chosen = [chosen[round(i * (len(chosen) - 1) / (_STRIP - 1))] for i in range(_STRIP)]
        images, captions = [], []
        for trial in chosen:
            file = trial_image(search.folder, trial.number, trial.rungs[rung].steps)
            if file.is_file():
                images.append(opaque(read_image(file)))
                captions.append(f"{trial.rungs[rung].score:.3f}   trial {trial.number}")
        if not images:
            raise ValueError("the trials' images are not here")
        tile(images, captions, 1 if images[0].width > 500 else 2).save(path, "PNG")

    return draw
