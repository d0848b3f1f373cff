"""A figure, made row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import DEFAULT_SEED
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.picture import Picture
from phosphene.reproduce.plan import FigurePlan, FigureRow
from phosphene.result import Result


def make(
    plan: FigurePlan,
    *,
    seed: int = DEFAULT_SEED,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    batch: int | None = None,
    precision: str = "fp32",
    on_progress: Callable[[FigureRow, Progress], None] | None = None,
    on_picture: Callable[[FigureRow, Picture], None] | None = None,
) -> Iterator[tuple[FigureRow, Result]]:
    """Make a figure row by row, as `ascend` makes images; ends after a row that was interrupted.

    The network's passes are in 32 bits by default, as the post's.
    """
    several = len(plan.rows) > 1 and bool(plan.figure.classes)
    for row in plan.rows:

        def named(picture: Picture, row: FigureRow = row) -> Picture:
            return replace(picture, name=f"{picture.name}_{row.slug}") if several else picture

        def report(progress: Progress, row: FigureRow = row) -> None:
            if on_progress is not None:
                on_progress(row, progress)

        def keep(picture: Picture, row: FigureRow = row) -> None:
            if on_picture is not None:
                on_picture(row, named(picture))

        result = ascend(
            row.network,
            row.units,
            row.recipe,
            seed=seed,
            options=RunOptions(device=device, batch=batch, precision=precision),
            callbacks=Callbacks(progress=report, picture=keep),
        )
        result.pictures = [named(picture) for picture in result]
        yield row, result
        if result.interrupted:
            return
