"""What several verbs print: bars, tables and words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from phosphene.ascent import progress
from phosphene.result import Result
from phosphene.units.objects import Class


@contextmanager
def progress_bar(args: argparse.Namespace, total: int) -> Iterator[Callable[[progress.Progress], None] | None]:
    """A bar on a terminal, a line now and then elsewhere, nothing if that is asked for."""
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json:
        yield None
        return
    if not console.is_terminal:
        shown = -1

        def line(progress: progress.Progress) -> None:
            nonlocal shown
            if int(progress.work * 10) > shown:
                shown = int(progress.work * 10)
                print(f"{progress.work:4.0%}  {_status(progress)}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[status]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=1.0, status="first step")
        yield lambda progress: bar.update(task, completed=progress.work, status=_status(progress))


def _status(progress: progress.Progress) -> str:
    text = f"{progress.done}/{progress.total} images  objective {progress.objective:.4g}"
    return text if progress.probability is None else f"{text}  confidence {progress.probability:.0%}"


@contextmanager
def file_bar(args: argparse.Namespace) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere or if that is asked for."""
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json or not console.is_terminal:
        yield None
        return
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def image_count(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def result_table(result: Result) -> Table:
    is_class = any("probability" in picture.scores for picture in result)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class" if is_class else "unit")
    for column in ["objective", *(["probability"] if is_class else []), "steps", "seconds"]:
        table.add_column(column, justify="right")
    table.add_column("stopped")
    for picture in result:
        probability = picture.scores.get("probability")
        table.add_row(
            f"{picture.unit.index:03d} {picture.label}" if isinstance(picture.unit, Class) else picture.label,
            f"{picture.scores['objective']:.4g}",
            *([f"{probability:.1%}" if probability is not None else ""] if is_class else []),
            str(picture.steps),
            f"{picture.seconds:.1f}",
            picture.stopped,
        )
    return table


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
