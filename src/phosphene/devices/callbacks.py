"""Who is told while an ascent runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from phosphene.ascent.progress import OnStep, Progress
from phosphene.picture import Picture


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called on the way.

    Attributes:
        progress: called after every step.
        picture: called with every finished picture as soon as it is.
        step: called with every image on its way, after each of its steps; returns the recipe by which it goes on, or
            None to end it with the next step.  What it changes is in the picture's `changes`.  On one device, and
            without facets.
    """

    progress: Callable[[Progress], None] | None = None
    picture: Callable[[Picture], None] | None = None
    step: OnStep | None = None
