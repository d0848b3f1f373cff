"""One image on its way, and the recipe that it follows, made ready."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from phosphene.ascent.canvas import Canvas, make_canvas
from phosphene.ascent.evaluator import Evaluator, batch_key
from phosphene.ascent.statistics import RunningMoments
from phosphene.hardware import to_device
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.regularizers import Regularizer
from phosphene.units.objects import Unit, drawn_by


@dataclass(frozen=True, eq=False)
class CompiledRecipe:
    """A recipe, and what is made of it once for all its rows."""

    recipe: Recipe
    evaluator: Evaluator  # of all recipes of its batch key
    canvases: Sequence[Canvas]  # from coarse to fine
    regularizers: list[tuple[str, Regularizer]]


def compile_recipe(evaluator: Evaluator, recipe: Recipe, size: tuple[int, int]) -> CompiledRecipe:
    shares = recipe.growth.sizes if recipe.growth else (1.0,)
    sizes = [(max(1, round(size[0] * share)), max(1, round(size[1] * share))) for share in shares]
    preprocessing = evaluator.networks[0].preprocessing
    canvases = [make_canvas(recipe, preprocessing, each, evaluator.device) for each in sizes]
    return CompiledRecipe(recipe, evaluator, canvases, recipe.regularizers)


@dataclass(eq=False)
class ImageState:
    """One image on its way: its own unit, seed, recipe, optimizer, step count and stop."""

    index: int
    unit: Unit
    seed: int
    group: int  # rows of one group are made together
    compiled: CompiledRecipe
    canvas: Canvas
    parameters: torch.nn.Parameter  # the canvas's; a view of their place in the batch
    optimizer: torch.optim.Optimizer | None  # None: plain steps
    generator: torch.Generator  # of its views
    step: int = 0
    unread: list[Tensor] = field(default_factory=list)  # of each step: objective, probability, steepest slope
    running_moments: dict[int, RunningMoments] = field(default_factory=dict)  # by network: what its priors remember
    steps_without_gradient: int = 0  # steps in a row without any gradient
    redirected_steps: int = 0  # steps whose gradient went through flat activations
    importance: Tensor | None = None  # (height, width): how much the objective has cared for each pixel
    objectives: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)  # [size, steps]: in what company each step was made
    smoothed: float = math.nan
    highest: float = -math.inf  # of the smoothed objective
    last_rise: int = 0  # the last step at which it rose
    probable_steps: int = 0  # in a row, at which the class was as probable as `stop.confidence` asks
    best: float = -math.inf
    best_image: Tensor | None = None
    seconds: float = 0.0
    changes: list[list[Any]] = field(default_factory=list)  # [step, field, value]: of the recipe, on the way
    end_requested: bool = False  # the next step is to be its last
    facet: tuple[int, int] = (0, 1)  # which of how many images of its unit
    stopped: str | None = None

    @property
    def recipe(self) -> Recipe:
        return self.compiled.recipe


@dataclass(frozen=True)
class Task:
    """An image to be made."""

    index: int
    unit: Unit
    seed: int
    group: int
    compiled: CompiledRecipe
    facet: tuple[int, int] = (0, 1)  # which of how many


_Key = TypeVar("_Key", bound=Hashable)


def group_by(rows: Sequence[ImageState], key: Callable[[ImageState], _Key]) -> list[tuple[_Key, list[int]]]:
    """The places of the rows, by what a key says of them."""
    found: dict[_Key, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(key(row), []).append(place)
    return list(found.items())


def map_rows(
    rows: Sequence[ImageState],
    values: Tensor,
    key: Callable[[ImageState], _Key],
    make: Callable[[Tensor, _Key], Tensor],
) -> Tensor:
    """What is made of each row's values.

    On a CPU row by row: there the last bits of sums and products depend on how many are made at once, and a row that
    is in the cache is quicker done.  Elsewhere all rows of one key at once.
    """
    if values.device.type == "cpu":
        return torch.cat([make(own[None], key(row)) for row, own in zip(rows, values, strict=True)])
    parts = group_by(rows, key)
    if len(parts) == 1:
        return make(values, parts[0][0])
    made = [make(values[places], of_places) for of_places, places in parts]
    order = torch.tensor([place for _, places in parts for place in places]).argsort()
    return torch.cat(made)[to_device(order, values.device)]


def record_batch_size(row: ImageState, size: int) -> None:
    if row.batches and row.batches[-1][0] == size:
        row.batches[-1][1] += 1
    else:
        row.batches.append([size, 1])


def canvas_images(rows: Sequence[ImageState], parameters: Tensor) -> Tensor:
    """What is on the rows' canvases, (rows, channels, height, width); differentiable."""
    return map_rows(rows, parameters, lambda row: row.canvas, lambda values, canvas: canvas.to_images(values))


def row_batch_key(row: ImageState | Task) -> Any:
    """Rows of which this is equal go through the network together."""
    return batch_key(row.unit), row.compiled.recipe.batch_key(), id(row.compiled.evaluator.photograph)


def split_in_half(rows: list[ImageState]) -> tuple[list[ImageState], list[list[ImageState]]]:
    """The first half of the rows, and the groups of the rest; no group is torn, and the first always stays."""
    groups: dict[int, list[ImageState]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    kept: list[ImageState] = []
    later: list[list[ImageState]] = []
    for group in groups.values():
        if not kept or len(kept) + len(group) <= len(rows) // 2:
            kept += group
        else:
            later.append(group)
    return kept, later


def task_seed(task: Task, what: str) -> int:
    """A seed of its own for each unit, seed and use."""
    return int.from_bytes(hashlib.sha256(f"{what} {drawn_by(task.unit)} {task.seed}".encode()).digest()[:7], "big")
