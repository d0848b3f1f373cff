"""One step of an image's parameters along its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene.ascent.image_state import ImageState
from phosphene.recipes.settings import Schedule

# A color plane whose gradient is a smaller share than this of the largest one's counts as not seen.
_UNSEEN = 1e-3


def climb(parameters: Tensor, optimizer: torch.optim.Optimizer | None, direction: Tensor, rate: float) -> None:
    """A step of a row's parameters, in place; without an optimizer a plain one along the direction."""
    if optimizer is None:
        parameters.data.add_(direction, alpha=rate)
        return
    optimizer.param_groups[0]["lr"] = rate
    parameters.grad = direction
    optimizer.step()
    parameters.grad = None


def first_order_gains(rows: Sequence[ImageState], gradient: Tensor, direction: Tensor) -> list[float]:
    """To first order, what a step of rate 1 brings each row; none where no schedule asks."""
    if not any(row.recipe.schedule.kind == "progress" for row in rows):
        return []
    found: list[float] = (gradient * direction).flatten(1).sum(dim=1).tolist()
    return found


def normalize_gradient(gradient: Tensor, kind: str) -> Tensor:
    if kind == "raw":
        return gradient
    square = gradient.square()
    axes = tuple(range(1, gradient.ndim))
    if kind == "planes":
        size = square.mean(dim=axes[1:], keepdim=True)
        # A plane that the network does not see has only rounding errors, which stay small.
        size = size.maximum(_UNSEEN**2 * size.amax(dim=1, keepdim=True))
    else:
        size = square.sum(dim=axes, keepdim=True) if kind == "l2" else square.mean(dim=axes, keepdim=True)
    return gradient / size.sqrt().clamp_min(1e-30)


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the rate is multiplied by at a step, counted from 1."""
    if step <= schedule.warmup:
        return step / schedule.warmup
    if schedule.kind == "step":
        return schedule.factor ** ((step - 1) // schedule.every)
    if schedule.kind in ("linear", "cosine"):
        begin = max(schedule.begin * steps, schedule.warmup)
        share = min(1.0, max(0.0, (step - 1 - begin) / max(1.0, steps - 1 - begin)))
        fall = share if schedule.kind == "linear" else (1 - math.cos(math.pi * share)) / 2
        return 1 - (1 - schedule.end) * fall
    return 1.0
