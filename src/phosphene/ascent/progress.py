"""How far an ascent is, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from phosphene.recipes.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """How far an ascent is, after a step.

    Attributes:
        done, total: pictures.
        work: share of all steps of all pictures that is behind, 0 to 1.
        objective: mean over the rows in work.
        probability: the network's own, mean over those rows in work that show a class; None without any.
        pixels: gives the images that have just made a step, as they stand, by their places among those that are made:
            8 bits, (height, width, channels), RGB; None where they are in other processes.
    """

    done: int
    total: int
    work: float
    objective: float
    probability: float | None
    pixels: Callable[[], dict[int, NDArray[np.uint8]]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Step:
    """An image on its way, after a step that was not its last.

    Attributes:
        place: of the picture among those that are made.
        step: how many steps it has made.
        recipe: by which.
        objective: before this step.
        probability: the network's own of the class, before this step; None for other units.
        pixels: gives the image as it stands, 8 bits, (height, width, channels), RGB.
    """

    place: int
    step: int
    recipe: Recipe
    objective: float
    probability: float | None
    pixels: Callable[[], NDArray[np.uint8]]


OnStep = Callable[[Step], Recipe | None]
"""Gives the recipe to go on by, which may differ from `Step.recipe` where `Recipe.resume_key` allows it, or
None to stop."""
