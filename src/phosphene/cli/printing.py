"""What several verbs print: bars, tables and words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from phosphene.ascent.forecast import Forecast, Meter
from phosphene.default_progress import BYTES, IMAGES, TRIALS, Display, Tally, counted

if TYPE_CHECKING:
    from phosphene.ascent.progress import Progress

LONG = 300.0
"""Seconds from which on a sample is proposed."""

WORTH_TELLING = 30.0
"""Seconds from which on it is told how long it takes to go through photographs, or whatever else is counted."""

SAMPLE = 100
"""Photographs that are proposed where many take long."""


def print_json(console: Console, data: Any, **options: Any) -> None:
    """Data as JSON, in ASCII so that a terminal obeys nothing of it, also where the console is quiet."""
    print(json.dumps(data, indent=1, **options), file=console.file)


def plain_table(*columns: str, right: Container[str] = (), **options: Any) -> Table:
    """A table without lines, under its columns' names; those of `right` are flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", **options)
    return table


class _Words(ProgressColumn):
    """What is counted, in one line, as far as there is room for it."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")


class Bars:
    """Bars on standard error, one below the other: what is counted within what is counted has one below it.

    The last of them stays when it is full; those below it vanish.  Above them it is told how long the work takes.

    Args:
        limited: photographs at most, which the user may change.
    """

    def __init__(self, console: Console, limited: int = 0):
        self.limited = limited
        firm = Column(no_wrap=True)  # on a narrow terminal the words give way, and nothing else
        columns = (
            BarColumn(24, table_column=firm),
            TaskProgressColumn(table_column=firm),
            _Words(table_column=Column(no_wrap=False)),
            TimeRemainingColumn(table_column=firm),
        )
        self.live = Bar(*columns, console=console)

    @contextmanager
    def show(self, tally: Tally) -> Iterator[Callable[[], None]]:
        """A bar of a tally; how it is shown by the command line (`default_progress.Display`)."""
        tally.is_shown = True
        task: TaskID | None = None
        tell = _tally_forecaster(tally, self.live.console, self.limited) if not self.live.tasks else lambda: None

        def show() -> None:
            nonlocal task
            tell()
            if task is None:
                task = self.live.add_task("", total=tally.total or None, text=tally.text())
                self.live.start()  # nothing, where another's is there
            self.live.update(task, completed=tally.done, total=tally.total or None, text=tally.text())

        if tally.total:
            show()
        try:
            yield show
        finally:
            if task is not None:
                if len(self.live.tasks) == 1:
                    self.live.stop()
                self.live.remove_task(task)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within it no bar is there, so that lines can be printed to standard output."""
        shown = bool(self.live.tasks)
        if shown:
            self.live.live.transient = True
            self.live.stop()
        try:
            yield
        finally:
            if shown:
                self.live.live.transient = False
                self.live.start()


def stderr_console(args: argparse.Namespace) -> Console:
    """Standard error, above the bars where there are some; silent if that is asked for."""
    if args.bars is not None:
        return args.bars.live.console  # type: ignore[no-any-return]
    return Console(stderr=True, highlight=False, quiet=args.quiet or args.json)


def bars_away(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Within it no bar is there: what is printed meanwhile on standard output stands above it."""
    return nullcontext() if args.bars is None else args.bars.away()


def make_bars(args: argparse.Namespace) -> Bars | None:
    """The bars of a command: none elsewhere than on a terminal, or if that is asked for."""
    console = Console(stderr=True, highlight=False)
    return None if args.quiet or args.json or not console.is_terminal else Bars(console, _limit(args))


def display(args: argparse.Namespace) -> Display | None:
    """How a command shows how far it is: bars, or where output goes into a file a line for what is worth one."""
    if args.bars is not None:
        return args.bars.show  # type: ignore[no-any-return]
    return None if args.quiet or args.json else _Lines(stderr_console(args), _limit(args)).show


def _limit(args: argparse.Namespace) -> int:
    return getattr(args, "limit", None) or 0


class _Lines:
    """In place of bars, a line for each download, and one for how long the work takes."""

    def __init__(self, console: Console, limited: int):
        self.console, self.limited = console, limited
        self.counting = 0

    @contextmanager
    def show(self, tally: Tally) -> Iterator[Callable[[], None]]:
        tell = _tally_forecaster(tally, self.console, self.limited) if not self.counting else lambda: None
        said = False

        def show() -> None:
            nonlocal said
            tell()
            if tally.what == BYTES and not said:
                said = True
                size = f", {tally.total / 1e6:.1f} MB" if tally.total else ""
                print(f"downloading {tally.doing}{size}", file=sys.stderr, flush=True)

        self.counting += 1
        try:
            yield show
        finally:
            self.counting -= 1


def _tally_forecaster(tally: Tally, console: Console, limited: int) -> Callable[[], None]:
    """Says once, when it is measured, how long what is counted takes, if that is long.

    Args:
        limited: photographs at most, which the user may change.
    """
    meter, is_told = Meter(), tally.what in (BYTES, IMAGES, TRIALS)  # of which others tell

    def tell() -> None:
        nonlocal is_told
        if is_told or not tally.total or (rate := meter.rate(tally.done)) is None:
            return
        is_told, seconds = True, tally.total / rate
        if seconds < WORTH_TELLING:
            return
        doing = f", {tally.doing}" if tally.doing else ""
        sample = f"; --limit {SAMPLE} for a sample" if seconds >= LONG and min(limited, tally.total) > SAMPLE else ""
        said = f"{tally.total:,} {tally.what}{doing}: about {duration(seconds)}{sample}"
        console.print(said, markup=False, soft_wrap=True)

    return tell


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
    if args.quiet or args.json:
        yield None
        return
    say = _forecaster(forecast, sample, stderr_console(args))
    if args.bars is None:
        shown = -1

        def line(progress: Progress) -> None:
            nonlocal shown
            say(progress)
            if int(progress.work * 10) > shown:
                shown = int(progress.work * 10)
                print(f"{progress.work:4.0%}  {_status(progress)}", file=sys.stderr, flush=True)

        yield line
        return
    with counted(IMAGES, total=total) as tally:

        def show(progress: Progress) -> None:
            say(progress)
            tally.ready = progress.done
            tally.at(progress.work * progress.total, progress.total, _measured(progress))

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
    return f"{progress.done}/{progress.total} images  {_measured(progress)}"


def _measured(progress: Progress) -> str:
    text = f"objective {progress.objective:.4g}"
    return text if progress.probability is None else f"{text}  own probability {progress.probability:.0%}"


@contextmanager
def file_bar(what: str) -> Iterator[Callable[[float, int], None]]:
    """Counts by a function of how many are done, and of how many: a bar on a terminal, nothing elsewhere."""
    with counted(what) as tally:
        yield tally.at


class WorkBar:
    """How far long work is: a bar on a terminal, a line for every tenth elsewhere, nothing if that is asked for.

    While its `with` block lasts, what is said goes to standard error above the bar.
    """

    def __init__(self, args: argparse.Namespace):
        self.console = stderr_console(args)
        self.counting = counted(IMAGES)
        self.tenths: int | None = None  # that were told

    def __enter__(self) -> WorkBar:
        self.tally = self.counting.__enter__()
        return self

    def __exit__(self, *given: Any) -> None:
        self.counting.__exit__(*given)

    def show(self, done: float, total: int) -> None:
        """Show how far it is: images that are there, and of how many."""
        self.tally.at(done, total)
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
