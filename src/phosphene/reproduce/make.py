"""A figure, made row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from phosphene import defaults
from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.picture import Picture
from phosphene.reproduce.plan import FigurePlan, FigureRow
from phosphene.result import Result


def make(
    plan: FigurePlan,
    *,
    seed: int = defaults.SEED,
    options: RunOptions | None = None,
    on_progress: Callable[[FigureRow, Progress], None] | None = None,
    on_picture: Callable[[FigureRow, Picture], None] | None = None,
) -> Iterator[tuple[FigureRow, Result]]:
    """Make a figure row by row, as `ascend` makes images; ends after a row that was interrupted.

    The network's passes are in 32 bits where no options are given, as the post's.
    """
    several = len(plan.rows) > 1 and bool(plan.figure.classes)
    for row in plan.rows:

        def with_row(picture: Picture, row: FigureRow = row) -> Picture:
            return replace(picture, name=f"{picture.name}_{row.slug}") if several else picture

        def report(progress: Progress, row: FigureRow = row) -> None:
            if on_progress is not None:
                on_progress(row, progress)

        def keep(picture: Picture, row: FigureRow = row) -> None:
            if on_picture is not None:
                on_picture(row, with_row(picture))

        result = ascend(
            row.network,
            row.units,
            row.recipe,
            seed=seed,
            options=options or RunOptions(precision="fp32"),
            callbacks=Callbacks(progress=report, picture=keep),
        )
        result.pictures = [with_row(picture) for picture in result]
        yield row, result
        if result.interrupted:
            return
