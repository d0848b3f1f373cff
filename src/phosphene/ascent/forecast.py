"""How long work will take, by how fast a first piece of it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MEASURED = 5.0
"""Seconds of work by which it is told how long the rest takes."""


@dataclass(frozen=True)
class Forecast:
    """How much is to be made, and how long that takes.

    Attributes:
        images: how many, and `steps` in all of them.
        seconds: that it takes; None where that is not known yet.
        is_bound: whether these are the most that it can be: some of the work may turn out to be needless.
    """

    images: int
    steps: int
    seconds: float | None = None
    is_bound: bool = False


OnForecast = Callable[[Forecast], None]
"""Is told how much there is to make at first, and once more when it is known how long it takes."""


class Meter:
    """How fast work goes, in steps or any other unit.

    It counts from the first that is heard of the work: opening a network is no part of it.
    """

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None  # when it was first heard of, and how much was done then

    def rate(self, done: float) -> float | None:
        """How much is done a second, with so much done by now; None before that is measured."""
        now = time.monotonic()
        if self.first is None:
            self.first = now, done
        since, before = now - self.first[0], done - self.first[1]
        return before / since if since >= MEASURED and before > 0 else None
