"""How far a run on an atlas is: the images that are there, the steps of those in work, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from phosphene.ascent.forecast import Forecast, Meter, OnForecast
from phosphene.ascent.progress import Progress
from phosphene.atlas.missing import WorkItem

REPORT_EVERY = 0.5
"""Seconds between two reports of a worker in another process, at least."""

OnDone = Callable[[float, int], None]
"""Is told how many images there are, and of how many; those in work count as far as their steps are made."""


class PieceProgress(NamedTuple):
    """How far a piece is: how many images its steps amount to, of how many images."""

    images: float
    total: int

    @classmethod
    def of(cls, progress: Progress) -> PieceProgress:
        return cls(progress.work * progress.total, progress.total)


def reporter(send: Callable[[PieceProgress], None], every: float = REPORT_EVERY) -> Callable[[Progress], None]:
    """Sends every so many seconds how far an ascent is."""
    last: float | None = None

    def report(progress: Progress) -> None:
        nonlocal last
        if last is None or time.monotonic() - last >= every:
            last = time.monotonic()
            send(PieceProgress.of(progress))

    return report


@dataclass
class RunProgress:
    """How far a run is, and who is told.

    Attributes:
        steps: of an image of each group.
        there: how many images there were before, and `total` how many there will be.
        whole: what the run has to make.
        on_work: is told how far the pieces in work are, all together.
        made: images that were made, and `made_steps` in them.
    """

    steps: Mapping[str, int]
    there: int
    total: int
    whole: Forecast
    on_done: OnDone | None = None
    on_forecast: OnForecast | None = None
    on_work: Callable[[PieceProgress], None] | None = None
    made: int = 0
    made_steps: int = 0
    meter: Meter = field(default_factory=Meter)
    is_measured: bool = False

    def begin(self) -> None:
        """Tell how much there is to make."""
        if self.on_forecast is not None:
            self.on_forecast(self.whole)
        self.tell({}, 0)

    def add(self, group: str, images: int) -> None:
        """Take up that images of a group are there now."""
        self.made += images
        self.made_steps += images * self.steps.get(group, 0)

    def tell(self, pieces: Mapping[WorkItem, PieceProgress], out: int) -> None:
        """Tell how far it is.

        Args:
            pieces: those in work of which that is known, of `out` that are in work.
        """
        images = sum(each.images for each in pieces.values())
        if self.on_work is not None:
            self.on_work(PieceProgress(images, sum(each.total for each in pieces.values())))
        if self.on_done is not None:
            self.on_done(self.there + self.made + images, self.total)
        # The time of a step is that of all workers together, so it is measured from when all of them make steps.
        if not self.is_measured and (self.meter.first is not None or len(pieces) == out > 0):
            self._measure(sum(each.images * self.steps.get(piece.group, 0) for piece, each in pieces.items()))

    def _measure(self, steps_in_work: float) -> None:
        rate = self.meter.rate(self.made_steps + steps_in_work)
        if rate is None:
            return
        self.is_measured = True
        if self.on_forecast is not None:
            self.on_forecast(replace(self.whole, seconds=self.whole.steps / rate))
