"""When an image stops, and why."""

from __future__ import annotations

import math

from torch import Tensor

from phosphene.ascent.image_state import ImageState
from phosphene.recipes.penalties import Penalties
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.settings import StoppingSettings
from phosphene.units.objects import Class, Unit

# So large is the logit of a class that an image shows well.
_LOGIT = 30.0


# Steps without any gradient, of an image whose views change, after which its unit counts as dead.
_MAX_STEPS_WITHOUT_GRADIENT = 20


# Why a row stopped.
ALL_STEPS = "all steps done"
PLATEAU = "objective stopped rising"
PROBABILITY_HELD = "probability held"
DEAD_UNIT = "dead unit"  # with which the reasons of dead units begin
DEAD = f"{DEAD_UNIT}: gradient zero everywhere"
DEAD_THROUGHOUT = f"{DEAD}, also through the flat activations before it"
NEVER_ACTIVE = f"{DEAD_UNIT}: excited in no step, though a gradient was led through the flat activations before it"
NOT_FINITE = "objective or gradient is not finite"
INTERRUPTED = "interrupted"


def depends_on_numbers(row: ImageState) -> bool:
    """Whether each step of a row depends on the numbers of the one before."""
    recipe = row.recipe
    stops = recipe.stop.patience or recipe.stop.confidence
    return bool(stops) or recipe.keep.rule == "best" or (recipe.priors != Penalties() and not _is_of_logits(row.unit))


def record_numbers(row: ImageState, image: Tensor, value: float, probability: float, steepest: float) -> None:
    """Note what a step began with, and whether the row stops for it."""
    row.objectives.append(value)
    if not math.isnan(probability):
        row.probabilities.append(probability)
    row.steps_without_gradient = row.steps_without_gradient + 1 if steepest == 0 else 0
    if row.recipe.keep.rule == "best" and value > row.best:
        row.best, row.best_image = value, image.clone()
    if row.stopped is not None:
        return
    if not (math.isfinite(value) and math.isfinite(steepest)):
        row.stopped = NOT_FINITE
    elif row.steps_without_gradient and row.steps_without_gradient >= (row.recipe.stop.still or _patience(row.recipe)):
        row.stopped = DEAD_THROUGHOUT if row.recipe.redirect else DEAD
    elif row.step < row.recipe.steps:
        row.stopped = _early_stop_reason(row, value, probability, row.recipe.stop)


def penalty_scale(row: ImageState) -> float:
    """What the priors' weights are multiplied by: they are given for logits, and other units have other sizes."""
    if _is_of_logits(row.unit):
        return 1.0
    return 0.0 if math.isnan(row.smoothed) else abs(row.smoothed) / _LOGIT


def _is_of_logits(unit: Unit) -> bool:
    """Whether its scores are as large as logits: those of classes, and what is referenced to a photograph."""
    return all(isinstance(part, Class) or part.needs_reference for _, part in unit.terms())


def _patience(recipe: Recipe) -> int:
    """How many steps in a row without any gradient make a unit dead.

    Where a network sees an image anew at each step, a unit without gradient may yet get one.
    """
    return _MAX_STEPS_WITHOUT_GRADIENT if recipe.views.affine or recipe.views.noisy else 1


def final_stop_reason(row: ImageState) -> str:
    """Why a row stops with whose numbers nothing was wrong."""
    if row.step < row.recipe.steps:
        return INTERRUPTED
    if row.steps_without_gradient >= _patience(row.recipe):
        return DEAD_THROUGHOUT if row.recipe.redirect else DEAD
    return NEVER_ACTIVE if row.redirected_steps >= row.step else ALL_STEPS


def is_dead(stopped: str) -> bool:
    """Whether that is why a unit's image stopped: nothing excites it."""
    return stopped.startswith("dead unit")


def _early_stop_reason(row: ImageState, value: float, probability: float, stop: StoppingSettings) -> str | None:
    """Why a row stops before its last step, if it does."""
    row.smoothed = value if math.isnan(row.smoothed) else stop.smoothing * row.smoothed + (1 - stop.smoothing) * value
    if row.smoothed > row.highest + stop.tolerance * abs(row.highest if math.isfinite(row.highest) else 0):
        row.highest, row.last_rise = row.smoothed, row.step
    if stop.patience and row.step - row.last_rise >= stop.patience:
        return PLATEAU
    row.probable_steps = row.probable_steps + 1 if stop.confidence and probability >= stop.confidence else 0
    return PROBABILITY_HELD if row.probable_steps >= stop.hold else None
