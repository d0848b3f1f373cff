"""A page on a search: which fields matter, what was tried, and what the trials look like from worst to best."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phosphene.draw.grid import tile
from phosphene.extras import require
from phosphene.files import atomic_write, make_directory
from phosphene.images import opaque, read_image
from phosphene.tuning.search import Search, TrialResult

_STRIP = 10  # trials in a strip, evenly spread from worst to best


def write_report(search: Search) -> Path:
    """Write `report/index.html`, with its pictures beside it, into the search's folder; gives the page.

    Trials are compared after as many steps as all of them made: those of their first rung.

    Raises:
        InputError: it cannot be written.
    """
    folder = make_directory(search.folder / "report")
    compared = [outcome for outcome in search.trials if outcome.rungs]
    parts: list[tuple[str, str]] = []
    for title, name, draw in _plots(search, compared):
        path = folder / f"{name}.png"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some plots are experimental, some layouts tight
                atomic_write(path, draw)
            parts.append((title, f'<img src="{name}.png" alt="{html.escape(title)}">'))
        except (ValueError, RuntimeError, ZeroDivisionError) as error:  # too few trials, or all alike
            parts.append((title, f"<p>Nothing to show yet: {html.escape(str(error))}</p>"))
    page = _page(search, parts)
    return atomic_write(folder / "index.html", lambda path: path.write_text(page, encoding="utf-8"))


def _plots(search: Search, compared: Sequence[TrialResult]) -> list[tuple[str, str, Callable[[Path], object]]]:
    optuna = require("optuna", "search", "a report")
    study = _first_rungs(optuna, search.study, compared)
    steps = min((outcome.rungs[0].steps for outcome in compared), default=0)

    def importance(path: Path) -> None:
        shown = optuna.visualization.matplotlib.plot_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
        _save(shown, path, (9, 0.5 * len(study.best_params) + 1.5))

    def slices(path: Path) -> None:
        _save(optuna.visualization.matplotlib.plot_slice(study), path, (3.2 * len(study.best_params), 4))

    def parallel(path: Path) -> None:
        _save(optuna.visualization.matplotlib.plot_parallel_coordinate(study), path, (16, 6))

    strips = [
        (f"From worst to best after {steps} steps", "strip_first", _strip(search, compared, first=True)),
        (
            "Whole trials from worst to best",
            "strip_whole",
            _strip(search, [outcome for outcome in compared if outcome.state == "complete"], first=False),
        ),
    ]
    return [
        *strips,
        (f"How much each field matters after {steps} steps (PED-ANOVA)", "importance", importance),
        (f"Score after {steps} steps against each field", "slices", slices),
        (f"Parallel coordinates, after {steps} steps", "parallel", parallel),
        ("Score against forward and backward passes, and the Pareto front", "pareto", _pareto(search)),
    ]


def _first_rungs(optuna: Any, study: Any, compared: Sequence[TrialResult]) -> Any:
    """A study whose values are those that all trials have: of their first rung."""
    known = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    made = optuna.create_study(direction="maximize")
    made.add_trials(
        [
            optuna.trial.create_trial(
                params=known[outcome.number].params,
                distributions=known[outcome.number].distributions,
                value=outcome.rungs[0].score,
            )
            for outcome in compared
        ]
    )
    return made


def _save(axes: Any, path: Path, size: tuple[float, float]) -> None:
    import matplotlib.pyplot as plt

    every = list(axes.flat) if hasattr(axes, "flat") else [axes]
    figure = every[0].figure
    figure.set_size_inches(*size)
    for each in every if len(every) > 1 else ():
        each.tick_params(axis="x", labelrotation=60)  # choices are long words
    figure.savefig(path, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)


def _pareto(search: Search) -> Callable[[Path], object]:
    def draw(path: Path) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        points = [rung for outcome in search.trials for rung in outcome.rungs]
        axes.scatter([rung.passes for rung in points], [rung.score for rung in points], s=14, alpha=0.5)
        front = search.front()
        axes.step([rung.passes for _, rung in front], [rung.score for _, rung in front], where="post", color="tab:red")
        for outcome, rung in front:
            axes.annotate(f"#{outcome.number}", (rung.passes, rung.score), xytext=(3, 3), textcoords="offset points")
        axes.set(xlabel="forward and backward passes an image", ylabel="score", xscale="log")
        axes.grid(alpha=0.3)
        figure.savefig(path, bbox_inches="tight", format="png")

    return draw


def _strip(search: Search, outcomes: Sequence[TrialResult], *, first: bool) -> Callable[[Path], object]:
    def draw(path: Path) -> None:
        if not outcomes:
            raise ValueError("no trial has come so far")
        shown = sorted(outcomes, key=lambda outcome: outcome.rungs[0 if first else -1].score)
        if len(shown) > _STRIP:
            shown = [shown[round(i * (len(shown) - 1) / (_STRIP - 1))] for i in range(_STRIP)]
        images, captions = [], []
        for outcome in shown:
            rung = outcome.rungs[0 if first else -1]
            file = search.folder / "trials" / f"{outcome.number:04d}_{rung.steps}.png"
            if file.is_file():
                images.append(opaque(read_image(file)))
                captions.append(f"{rung.score:.3f}   trial {outcome.number}")
        if not images:
            raise ValueError("the trials' images are not here")
        tile(images, captions, 1 if images[0].width > 500 else 2).save(path, "PNG")

    return draw


def _page(search: Search, parts: Sequence[tuple[str, str]]) -> str:
    sections = "\n".join(f"<section><h2>{html.escape(title)}</h2>{content}</section>" for title, content in parts)
    best = search.recipe
    said = "<p>No trial is better yet than the recipe that the search started from.</p>"
    if best is not None and best.found is not None:
        judges = f"; judges, which may not score it again: {', '.join(best.found.judges)}" if best.found.judges else ""
        before = "" if search.base is None else f"The recipe that the search started from has {search.base:.3f}."
        said = (
            f"<p>{html.escape(best.description)}. Score {best.found.score:.3f}, trial {search.best.number}"  # type: ignore[union-attr]
            f"{html.escape(judges)}. {before}</p><details open><summary>recipe.toml</summary>"
            f"<pre>{html.escape(best.to_toml())}</pre></details>"
        )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(search.study.study_name)}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; background: white; }}
table {{ border-collapse: collapse; font-size: 0.85rem; }} td, th {{ padding: 0.15rem 0.6rem; text-align: left; }}
.wide {{ overflow-x: auto; }}
</style></head><body>
<h1>{html.escape(search.study.study_name)}</h1>
{said}
{sections}
<section><h2>All trials</h2><div class="wide">{_table(search.trials)}</div></section>
</body></html>
"""


def _table(outcomes: Sequence[TrialResult]) -> str:
    fields = list(dict.fromkeys(name for outcome in outcomes for name in outcome.values))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", "state", "steps", "score", *fields))
    rows = []
    for outcome in sorted(outcomes, key=lambda outcome: (-len(outcome.rungs), -(outcome.score or 0.0))):
        last = outcome.rungs[-1] if outcome.rungs else None
        cells = [
            outcome.number,
            outcome.state + (f": {outcome.reason}" if outcome.reason else ""),
            last.steps if last else "",
            f"{last.score:.3f}" if last else "",
            *(_shown(outcome.values.get(name, "")) for name in fields),
        ]
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _shown(value: Any) -> str:
    return re.sub(r"\.0$", "", f"{value:.4g}") if isinstance(value, float) else str(value)
