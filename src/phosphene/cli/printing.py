"""What several verbs print: bars, tables and words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.status import Status
from rich.table import Table

from phosphene.ascent.forecast import Forecast, Meter

if TYPE_CHECKING:
    from phosphene.ascent.progress import Progress

LONG = 300.0
"""Seconds from which on a sample is proposed."""


def print_json(console: Console, data: Any, **options: Any) -> None:
    """Data as JSON, in ASCII so that a terminal obeys nothing of it, also where the console is quiet."""
    print(json.dumps(data, indent=1, **options), file=console.file)


def plain_table(*columns: str, right: Container[str] = (), **options: Any) -> Table:
    """A table without lines, under its columns' names; those of `right` are flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", **options)
    return table


def status_line(args: argparse.Namespace, text: str) -> Status:
    """A line on standard error while a block is run."""
    return Console(stderr=True, quiet=args.quiet or args.json).status(text)


@contextmanager
def progress_bar(
    args: argparse.Namespace, total: int, forecast: Forecast | None = None, sample: str = ""
) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal, a line now and then elsewhere, nothing if that is asked for.

    Args:
        total: pictures.
        forecast: what is to be made; then it is said how long that takes, once it is measured.
        sample: how it is tried first, which is said where it takes long.
    """
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json:
        yield None
        return
    say = _forecaster(forecast, sample, console)
    if not console.is_terminal:
        shown = -1

        def line(progress: Progress) -> None:
            nonlocal shown
            say(progress)
            if int(progress.work * 10) > shown:
                shown = int(progress.work * 10)
                print(f"{progress.work:4.0%}  {_status(progress)}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[status]}"))
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=1.0, status="first step")

        def show(progress: Progress) -> None:
            say(progress)
            bar.update(task, completed=progress.work, status=_status(progress))

        yield show


def _forecaster(forecast: Forecast | None, sample: str, console: Console) -> Callable[[Progress], None]:
    """Says once, when it is measured, how long an ascent takes."""
    meter, left = Meter(), forecast

    def say(progress: Progress) -> None:
        nonlocal left
        if left is not None and (rate := meter.rate(progress.work)) is not None:
            console.print(forecast_text(replace(left, seconds=1 / rate), sample), markup=False, soft_wrap=True)
            left = None

    return say


def _status(progress: Progress) -> str:
    text = f"{progress.done}/{progress.total} images  objective {progress.objective:.4g}"
    return text if progress.probability is None else f"{text}  confidence {progress.probability:.0%}"


@contextmanager
def file_bar(args: argparse.Namespace) -> Iterator[Callable[[float, int], None] | None]:
    """A bar on a terminal, nothing elsewhere or if that is asked for."""
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json or not console.is_terminal:
        yield None
        return
    with Bar(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class WorkBar:
    """How far long work is: a bar on a terminal, a line for every tenth elsewhere, nothing if that is asked for.

    While its `with` block lasts, what is said goes to standard error above the bar.
    """

    def __init__(self, args: argparse.Namespace):
        self.console = Console(stderr=True, highlight=False, quiet=args.quiet or args.json)
        columns = (BarColumn(), TextColumn("{task.percentage:5.1f}%"), MofNCompleteColumn(), TextColumn("images"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=None)
        self.tenths: int | None = None  # that were told

    def __enter__(self) -> WorkBar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, done: float, total: int) -> None:
        """Show how far it is: images that are there, and of how many."""
        self.bar.update(self.task, completed=done, total=total)
        tenths = int(10 * done / max(1, total))
        if self.tenths is not None and tenths > self.tenths and not self.console.is_terminal:
            self.say(f"{done / total:4.0%}  {int(done)}/{total} images")
        self.tenths = max(tenths, self.tenths or 0)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def forecast_text(forecast: Forecast, sample: str = "", by: str = "") -> str:
    """How much there is to make, and how long it takes.

    Args:
        sample: how it is tried first, which is said where it takes long.
        by: what makes it, where that is no matter of course.
    """
    what = f"{'at most ' * forecast.is_bound}{image_count(forecast.images)}, {forecast.steps:,} steps"
    if forecast.seconds is None:
        return f"{what}: how long they take is not known yet"
    return f"{what}: about {duration(forecast.seconds)}{by}{sample if forecast.seconds >= LONG else ''}"


def image_count(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def share_text(value: float | None) -> str:
    return "nan" if value is None else f"{value:.1%}"


def judgement_text(judgement: dict[str, Any]) -> str:
    """A judge's probability of a class, marked `*` if it is its top-1 and `+` if it is in its top-5."""
    return f"{share_text(judgement['probability'])} {'*' if judgement['top1'] else '+' if judgement['top5'] else ' '}"


def share_error_text(score: float | None, error: float | None) -> str:
    """A score and its standard error: 0.74±0.03."""
    return "" if score is None else f"{score:.2f}" + ("" if error is None else f"±{error:.2f}")


def rank_text(selectivity: dict[str, int]) -> str:
    by_z = f", {selectivity['rank_by_z']} by z" if "rank_by_z" in selectivity else ""
    return f"{selectivity['rank']} of {selectivity['of']}{by_z}"
