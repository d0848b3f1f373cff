"""The one optimisation loop: rows that climb together, each on its own."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.ascent.canvas import Canvas, make_canvas
from phosphene.ascent.objective import Evaluation, Objective, batch_key
from phosphene.ascent.statistics import RunningMoments
from phosphene.errors import InputError
from phosphene.hardware import to_device
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.networks.waking import REDIRECT_DEPTHS
from phosphene.pixels import filters
from phosphene.pixels.resampling import resize
from phosphene.recipes.penalties import Penalties
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.regularizers import Regularizer
from phosphene.recipes.settings import OutputSettings, Schedule, StoppingSettings
from phosphene.units.objects import Class, Unit

# A single image goes through the network with a copy beside it: libraries take other ways for a batch of one, which
# differ in the last bits, and an ascent makes a visible difference of those within 50 steps.
SMALLEST_BATCH = 2

# So large is the logit of a class that an image shows well.
_LOGIT = 30.0
# So many steps are watched for a gradient of nought where watching waits for the device.
_REDIRECT_STEPS = 64
# Steps without any gradient, of an image whose views change, after which its unit counts as dead.
_MAX_STEPS_WITHOUT_GRADIENT = 20
# After how many steps a row's numbers are read, by kind of device.  Reading waits for the device: a CPU has them at
# once, others would idle.
_READ_EVERY = {"cpu": 1}
_READ_ELSEWHERE = 16
# A colour plane whose gradient is a smaller share than this of the largest one's counts as not seen.
_UNSEEN = 1e-3

# Why a row stopped.
ALL_STEPS = "all steps done"
PLATEAU = "objective stopped rising"
CONFIDENT = "confidence held"
DEAD = "dead unit: gradient zero everywhere"
DEAD_THROUGHOUT = f"{DEAD}, also through the flat activations before it"
NEVER_ACTIVE = "dead unit: excited in no step, though a gradient was led through the flat activations before it"
NOT_FINITE = "objective or gradient is not finite"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Progress:
    """How far an ascent is, after a step.

    Attributes:
        done, total: pictures.
        work: share of all steps of all pictures that is behind, 0 to 1.
        objective: mean over the rows in work.
        probability: the network's own, mean over those rows in work that show a class; None without any.
    """

    done: int
    total: int
    work: float
    objective: float
    probability: float | None


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


@dataclass(frozen=True, eq=False)
class CompiledRecipe:
    """A recipe, and what is made of it once for all its rows."""

    recipe: Recipe
    objective: Objective  # of all recipes of its company
    canvases: Sequence[Canvas]  # from coarse to fine
    regularizers: list[tuple[str, Regularizer]]


def compile_recipe(objective: Objective, recipe: Recipe, size: tuple[int, int]) -> CompiledRecipe:
    shares = recipe.growth.sizes if recipe.growth else (1.0,)
    sizes = [(max(1, round(size[0] * share)), max(1, round(size[1] * share))) for share in shares]
    preprocessing = objective.networks[0].preprocessing
    canvases = [make_canvas(recipe, preprocessing, each, objective.device) for each in sizes]
    return CompiledRecipe(recipe, objective, canvases, recipe.regularizers)


@dataclass(eq=False)
class ImageState:
    """One image on its way: its own unit, seed, recipe, optimiser, step count and stop."""

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
    confident_steps: int = 0  # steps for which the confidence has held
    best: float = -math.inf
    best_image: Tensor | None = None
    seconds: float = 0.0
    changes: list[list[Any]] = field(default_factory=list)  # [step, field, value]: of the recipe, on the way
    end_requested: bool = False  # the next step is to be its last
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


class Loop:
    """The state of an ascent: which rows are in work, and how many at once."""

    def __init__(
        self,
        networks: Sequence[Network],
        device: torch.device,
        size: tuple[int, int],
        rows: int,
        start: Tensor | None,
        batches: Sequence[Sequence[int]],
        total: int,
        on_progress: Callable[[Progress], None] | None,
        on_step: OnStep | None,
    ):
        self.device, self.size, self.rows, self.start = device, size, rows, start
        self.replayed_batch_sizes = [size for size, steps in batches for _ in range(steps)]
        self.least = SMALLEST_BATCH
        self.read_every = _READ_EVERY.get(device.type, _READ_ELSEWHERE)
        self.mean = torch.tensor(networks[0].preprocessing.mean_pixels, device=device).view(-1, 1, 1)
        self.on_progress, self.on_step = on_progress, on_step
        self.total, self.done = total, 0
        self.interrupted = False

    def run(
        self, tasks: Iterable[Sequence[Task]], finished: Callable[[ImageState, Tensor, Tensor | None], None]
    ) -> None:
        """Make every job's image; finished rows make room for the next at once, and a group begins together.

        Jobs are taken from the iterable only when there is room.  Those that are read from other layers wait until
        the rows in work are finished: so that nothing is run behind the layer, and of it only what is asked for.
        """
        fresh = iter(tasks)
        waiting: deque[Sequence[ImageState | Task]] = deque()
        rows: list[ImageState] = []
        with interruptible() as interrupted:
            while True:
                while len(rows) < self.rows and not interrupted.is_set():
                    group = waiting.popleft() if waiting else next(fresh, None)
                    if group is None:
                        break
                    if rows and (len(rows) + len(group) > self.rows or _batch_key(group[0]) != _batch_key(rows[0])):
                        waiting.appendleft(group)
                        break
                    rows += [job if isinstance(job, ImageState) else self.begin(job) for job in group]
                if not rows:
                    break
                clock = time.perf_counter()
                # Rows on canvases of different sizes take turns, and so do those that need the network at different
                # sizes: those that are behind go first.
                behind = min(rows, key=lambda row: row.step)
                size, network = behind.canvas.size, self.network_of(behind)
                part = [row for row in rows if row.canvas.size == size and self.network_of(row) is network]
                parameters = torch.stack([row.parameters.data for row in part])
                found = self.try_evaluate(part, parameters)
                if found is None:  # out of memory: the later half waits as it is, and the rest go on
                    if len(rows) == 1:
                        self.replayed_batch_sizes, self.least = [], 1  # not even a copy fits beside it
                        continue
                    rows, later = _split_in_half(rows)
                    waiting.extendleft(reversed(later))
                    self.rows = len(rows)
                    continue
                kept = self.step(part, parameters, *found, last=interrupted.is_set())
                seconds = (time.perf_counter() - clock) / len(part)
                for row in part:
                    row.seconds += seconds
                for row, image in kept:
                    self.done += 1
                    finished(row, image, self.alpha(row))
                for row in part:
                    if row.stopped is None and self.on_step is not None:
                        self.steer(row, self.on_step)
                if self.on_progress is not None:
                    self.on_progress(self.progress(part, [*rows, *(job for group in waiting for job in group)]))
                rows = [row for row in rows if row.stopped is None]
            self.interrupted = interrupted.is_set()

    def begin(self, task: Task) -> ImageState:
        canvas = task.compiled.canvases[0]
        given = None if self.start is None else resize(self.start[None], canvas.size)[0]
        # A canvas of pixels starts from the seed alone, as figures of the literature do; else images of different units
        # would all be composed alike.
        first = task.seed if canvas.is_pixels else _seed(task, "start")
        image = canvas.initial_parameters(torch.Generator().manual_seed(first), given).to(self.device)
        parameters = torch.nn.Parameter(image, requires_grad=False)
        views = torch.Generator().manual_seed(_seed(task, "views"))
        optimizer = task.compiled.recipe.optimizer.build(parameters)
        return ImageState(
            task.index, task.unit, task.seed, task.group, task.compiled, canvas, parameters, optimizer, views
        )

    def network_of(self, row: ImageState) -> Network:
        """The first network, as it is fed with a row's image."""
        return row.compiled.objective.network_at(0, row.canvas.size, [row.unit])

    def try_evaluate(self, rows: list[ImageState], parameters: Tensor) -> tuple[Tensor, Evaluation, Tensor] | None:
        """The rows' images, what the objective says of them, and the gradient at the parameters.

        None where memory does not suffice.
        """
        padding = self.padding_at(rows[0].step)
        before = [
            (row.generator.get_state(), {index: {**each} for index, each in row.running_moments.items()})
            for row in rows
        ]
        try:
            images, evaluation, gradient = self.evaluate(rows, parameters, padding)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            height, width = rows[0].canvas.size
            if len(rows) == 1 and padding == 1:
                raise InputError(f"out of memory with one image of {height}x{width} pixels: expected less") from error
            if len(rows) > 1 and len({row.group for row in rows}) == 1:
                raise InputError(
                    f"out of memory with {len(rows)} facets of {height}x{width} pixels: expected fewer"
                ) from error
        else:
            return images, evaluation, gradient
        for row, (views, memory) in zip(rows, before, strict=True):
            row.generator.set_state(views)
            row.running_moments = memory
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def evaluate(self, rows: list[ImageState], parameters: Tensor, padding: int) -> tuple[Tensor, Evaluation, Tensor]:
        identity = rows[0].canvas.is_pixels  # as all the others'
        with torch.set_grad_enabled(not identity):
            leaves = parameters.detach().requires_grad_(not identity)
            images = _images(rows, leaves)
        evaluation = self.evaluate_objective(rows, images.detach(), padding)
        if identity:
            return parameters, evaluation, evaluation.gradient
        (gradient,) = torch.autograd.grad(images, leaves, evaluation.gradient)
        return images.detach(), evaluation, gradient

    def evaluate_objective(self, rows: list[ImageState], images: Tensor, padding: int) -> Evaluation:
        """What the objective says; rows without any gradient get one through activations that are flat."""
        before = [
            (row.generator.get_state(), {index: {**each} for index, each in row.running_moments.items()})
            for row in rows
        ]

        def evaluate(waking: int) -> Evaluation:
            for row, (views, memory) in zip(rows, before, strict=True):  # the same views each time
                row.generator.set_state(views)
                row.running_moments = {index: {**each} for index, each in memory.items()}
            return rows[0].compiled.objective(
                [row.unit for row in rows],
                images,
                [row.generator for row in rows],
                recipes=[row.recipe for row in rows],
                scales=to_device(torch.tensor([_scale(row) for row in rows]), self.device),
                groups=[row.group for row in rows],
                steps=[row.step for row in rows],
                memories=[row.running_moments for row in rows],
                padding=padding,
                redirected_layers=waking,
            )

        found = evaluate(0)
        # Elsewhere than on a CPU looking waits for the device: so only in the first steps.
        asked = [row.recipe.redirect and (self.read_every == 1 or row.step < _REDIRECT_STEPS) for row in rows]
        if not any(asked):
            return found
        may = to_device(torch.tensor(asked), self.device)
        first = still = (found.gradient == 0).flatten(1).all(dim=1) & may
        for last in REDIRECT_DEPTHS:
            if not bool(still.any()):
                break
            woken = evaluate(last).gradient
            found = replace(found, gradient=torch.where(still.view(-1, 1, 1, 1), woken, found.gradient))
            still = (found.gradient == 0).flatten(1).all(dim=1) & may
        if bool(first.any()):
            for row, needed in zip(rows, first.tolist(), strict=True):
                row.redirected_steps += needed
        return found

    def padding_at(self, step: int) -> int:
        """What size a batch is filled up to, at a step of its first row."""
        return self.replayed_batch_sizes[step] if step < len(self.replayed_batch_sizes) else self.least

    def step(
        self,
        rows: list[ImageState],
        parameters: Tensor,
        images: Tensor,
        evaluation: Evaluation,
        gradient: Tensor,
        last: bool,
    ) -> list[tuple[ImageState, Tensor]]:
        """One step of rows; gives those that stopped, each with the image to keep, in 8 bits."""
        steepest = evaluation.gradient.abs().amax(dim=(1, 2, 3))
        status = torch.stack([evaluation.values, evaluation.probabilities, steepest], dim=1)
        size = max(len(rows), self.padding_at(rows[0].step))
        for i, row in enumerate(rows):
            row.parameters.data = parameters[i]
            row.step += 1
            row.unread.append(status[i])
            _record_batch_size(row, size)
            if row.recipe.keep.transparency:
                cared = evaluation.gradient[i].abs().sum(dim=0)
                row.importance = cared if row.importance is None else row.importance + cared
        self.read({i: row for i, row in enumerate(rows) if self.is_due(row, last)}, images, last)

        direction = _map_rows(rows, gradient, lambda row: row.recipe.optimizer.gradient, _normalize)
        if self.read_every > 1:  # rows that turn out later to have gone wrong stay where they are
            finite = torch.isfinite(evaluation.values + steepest).view(-1, *[1] * (direction.ndim - 1))
            direction = torch.where(finite, direction, 0.0)
        gains = _gains(rows, gradient, direction)
        for i, row in enumerate(rows):
            if row.stopped in (DEAD, DEAD_THROUGHOUT, NOT_FINITE):
                continue
            rate = row.recipe.optimizer.rate * _schedule_factor(row.recipe.schedule, row.step, row.recipe.steps)
            if row.recipe.schedule.kind == "progress":
                rate = min(rate, row.recipe.schedule.gain / gains[i])
            climb(row.parameters, row.optimizer, direction[i], rate)

        framed, stopped = self.rows_with_frame(rows), [i for i, row in enumerate(rows) if row.stopped is not None]
        identity = rows[0].canvas.is_pixels
        wanted = list(range(len(rows))) if identity else sorted({*framed, *stopped})
        found = _images([rows[i] for i in wanted], parameters[wanted]).clamp(0, 255) if wanted else ()
        clipped = dict(zip(wanted, found, strict=True))
        for i in framed:
            rows[i].frames.append(to_bytes(self.full(clipped[i]), rows[i].recipe.keep.rounding))
        self.regularize(rows, parameters, gradient)
        kept = [
            (rows[i], self.final_image(rows[i], parameters[i] if identity else clipped[i], clipped[i])) for i in stopped
        ]
        for row in rows:
            if row.stopped is None:
                self.grow(row)
        return kept

    def regularize(self, rows: list[ImageState], parameters: Tensor, gradient: Tensor) -> None:
        """Change the rows' pixels, in place, as their recipes say; other canvases have no regularizers."""
        mean = self.mean.to(parameters.dtype)
        for compiled, places in _group_by(rows, lambda row: row.compiled):
            for _, regularizer in compiled.regularizers:
                due = [i for i in places if regularizer.acts_after(rows[i].step)]
                if len(due) == len(rows):
                    parameters.copy_(regularizer(parameters, mean, gradient))
                elif due:
                    parameters[due] = regularizer(parameters[due], mean, gradient[due])

    def rows_with_frame(self, rows: list[ImageState]) -> list[int]:
        """Which rows keep a frame of this step."""

        def is_framed(row: ImageState) -> bool:
            keep = row.recipe.keep
            return bool(keep.every) and row.step % keep.every == 0 and row.step <= (keep.until or row.step)

        return [i for i, row in enumerate(rows) if is_framed(row)]

    def grow(self, row: ImageState) -> None:
        """Carry a row to a larger canvas where that begins with its next step; its optimiser begins anew."""
        growth = row.recipe.growth
        if growth is None:
            return
        canvas = row.compiled.canvases[sum(row.step >= begin * row.recipe.steps for begin in growth.at) - 1]
        if canvas is row.canvas:
            return
        old, row.canvas = row.canvas, canvas
        parameters = canvas.resample_parameters(row.parameters.data.cpu(), old.size)
        if self.start is not None and row.recipe.canvas.kind != "maco":  # the detail of it that the old size had lost
            given = [
                each.initial_parameters(row.generator, resize(self.start[None], each.size)[0]) for each in (old, canvas)
            ]
            parameters += given[1] - canvas.resample_parameters(given[0], old.size)
        row.parameters = torch.nn.Parameter(parameters.to(self.device), requires_grad=False)
        row.optimizer = row.recipe.optimizer.build(row.parameters)
        if row.importance is not None:
            row.importance = resize(row.importance[None, None], canvas.size)[0, 0]

    def steer(self, row: ImageState, on_step: OnStep) -> None:
        """Show a row that goes on, and change its recipe, or end it, as asked."""
        probability = row.probabilities[-1] if row.probabilities else None
        now = row.recipe
        recipe = on_step(Step(row.index, row.step, now, row.objectives[-1], probability, lambda: self.pixels(row)))
        if recipe is None:
            row.end_requested = True
            return
        recipe = recipe.for_network(row.compiled.objective.networks[0].name).for_unit(row.unit)
        if recipe != now:
            if recipe.resume_key() != now.resume_key():
                raise InputError(
                    f"step {row.step} of {row.unit}: what is settled with the first step cannot change on the way "
                    f"({', '.join(now.changes_to(recipe)) or 'priors'}); see Recipe.course"
                )
            row.changes += [[row.step, name, value] for name, value in now.changes_to(recipe).items()]
            place = row.compiled.canvases.index(row.canvas)
            row.compiled = compile_recipe(row.compiled.objective, recipe, self.size)
            row.canvas = row.compiled.canvases[place]

    def pixels(self, row: ImageState) -> NDArray[np.uint8]:
        """A row's image as it stands, 8 bits, (height, width, channels)."""
        with torch.no_grad():
            image = self.full(_images([row], row.parameters.data[None])[0].clamp(0, 255))
        pixels: NDArray[np.uint8] = _final_bytes(image, row.recipe.keep).numpy()
        return pixels

    def full(self, image: Tensor) -> Tensor:
        """An image (channels, height, width) at the final size."""
        return resize(image[None], self.size)[0]

    def alpha(self, row: ImageState) -> Tensor | None:
        """How opaque each pixel of a finished image is: (height, width) in 8 bits, on the CPU.

        A pixel that the objective cared for less than for the median one is as transparent as it cared less; Fel et
        al. 2023 sum the size of the gradient over the steps alike.
        """
        if row.importance is None:
            return None
        cared = filters.gaussian_blur(self.full(row.importance[None])[None], max(self.size) / 100)[0, 0]
        middle = cared.median().clamp_min(1e-30)
        low = cared.flatten().kthvalue(max(1, cared.numel() // 50)).values
        share = ((cared - low) / (middle - low).clamp_min(1e-30)).clamp(0, 1)
        return (share * 255).round().to(torch.uint8).cpu()

    def is_due(self, row: ImageState, last: bool) -> bool:
        """Whether a row's numbers are to be read after this step: with its last one, where the next step depends on
        them, and every so often, from the first step on."""
        wanted = self.on_step is not None or _depends_on_numbers(row)
        return wanted or self.ends(row, last) or (row.step - 1) % self.read_every == 0

    def ends(self, row: ImageState, last: bool) -> bool:
        """Whether this step is a row's last one, whatever its numbers say."""
        return last or row.end_requested or row.step >= row.recipe.steps or row.step == len(self.replayed_batch_sizes)

    def read(self, due: Mapping[int, ImageState], images: Tensor, last: bool) -> None:
        """Note what the rows' steps began with, and whether this is their last one; waits for the device."""
        if not due:
            return
        numbers = iter(torch.stack([each for row in due.values() for each in row.unread]).tolist())
        for i, row in due.items():
            for value, probability, steepest in islice(numbers, len(row.unread)):
                _note_numbers(row, images[i], value, probability, steepest)
            row.unread.clear()
            if row.stopped is None and self.ends(row, last):
                row.stopped = _final_stop_reason(row)

    def final_image(self, row: ImageState, image: Tensor, clipped: Tensor) -> Tensor:
        """The image of a stopped row that the recipe keeps, as 8 bits (height, width, channels)."""
        rule = row.recipe.keep.rule
        chosen = clipped if rule == "clipped" else image
        if rule == "best":
            value = row.compiled.objective(
                [row.unit], clipped[None], [row.generator], recipes=[row.recipe]
            ).values.item()
            chosen = row.best_image if row.best_image is not None and not value > row.best else clipped
        return _final_bytes(self.full(chosen), row.recipe.keep)

    def progress(self, rows: list[ImageState], tasks: Sequence[ImageState | Task]) -> Progress:
        """How far it is: `rows` have just made a step, and `tasks` are all that are not finished."""
        begun = [job for job in tasks if isinstance(job, ImageState)]
        work = self.done + sum(row.step / row.recipe.steps for row in begun if row.stopped is None)
        objectives = [row.objectives[-1] for row in rows]
        probabilities = [row.probabilities[-1] for row in rows if row.probabilities]
        return Progress(
            done=self.done,
            total=self.total,
            work=work / self.total,
            objective=sum(objectives) / len(objectives),
            probability=sum(probabilities) / len(probabilities) if probabilities else None,
        )


_Key = TypeVar("_Key", bound=Hashable)


def _group_by(rows: Sequence[ImageState], key: Callable[[ImageState], _Key]) -> list[tuple[_Key, list[int]]]:
    """The places of the rows, by what a key says of them."""
    found: dict[_Key, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(key(row), []).append(place)
    return list(found.items())


def _map_rows(
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
    parts = _group_by(rows, key)
    if len(parts) == 1:
        return make(values, parts[0][0])
    made = [make(values[places], of_places) for of_places, places in parts]
    order = torch.tensor([place for _, places in parts for place in places]).argsort()
    return torch.cat(made)[to_device(order, values.device)]


def _record_batch_size(row: ImageState, size: int) -> None:
    if row.batches and row.batches[-1][0] == size:
        row.batches[-1][1] += 1
    else:
        row.batches.append([size, 1])


def _depends_on_numbers(row: ImageState) -> bool:
    """Whether each step of a row depends on the numbers of the one before."""
    recipe = row.recipe
    stops = recipe.stop.patience or recipe.stop.confidence
    return bool(stops) or recipe.keep.rule == "best" or (recipe.priors != Penalties() and not _is_of_logits(row.unit))


def _note_numbers(row: ImageState, image: Tensor, value: float, probability: float, steepest: float) -> None:
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


def climb(parameters: Tensor, optimizer: torch.optim.Optimizer | None, direction: Tensor, rate: float) -> None:
    """A step of a row's parameters, in place; without an optimiser a plain one along the direction."""
    if optimizer is None:
        parameters.data.add_(direction, alpha=rate)
        return
    optimizer.param_groups[0]["lr"] = rate
    parameters.grad = direction
    optimizer.step()
    parameters.grad = None


def _images(rows: Sequence[ImageState], parameters: Tensor) -> Tensor:
    """What is on the rows' canvases, (rows, channels, height, width); differentiable."""
    return _map_rows(rows, parameters, lambda row: row.canvas, lambda values, canvas: canvas.to_images(values))


def _gains(rows: Sequence[ImageState], gradient: Tensor, direction: Tensor) -> list[float]:
    """To first order, what a step of rate 1 brings each row; none where no schedule asks."""
    if not any(row.recipe.schedule.kind == "progress" for row in rows):
        return []
    found: list[float] = (gradient * direction).flatten(1).sum(dim=1).tolist()
    return found


def _batch_key(row: ImageState | Task) -> Any:
    """Rows of which this is equal go through the network together."""
    return batch_key(row.unit), row.compiled.recipe.batch_key()


def _split_in_half(rows: list[ImageState]) -> tuple[list[ImageState], list[list[ImageState]]]:
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


def _seed(task: Task, what: str) -> int:
    """A seed of its own for each unit, seed and use."""
    return int.from_bytes(hashlib.sha256(f"{what} {task.unit} {task.seed}".encode()).digest()[:7], "big")


def _scale(row: ImageState) -> float:
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


def _final_stop_reason(row: ImageState) -> str:
    """Why a row stops with whose numbers nothing was wrong."""
    if row.step < row.recipe.steps:
        return INTERRUPTED
    if row.steps_without_gradient >= _patience(row.recipe):
        return DEAD_THROUGHOUT if row.recipe.redirect else DEAD
    return NEVER_ACTIVE if row.redirected_steps >= row.step else ALL_STEPS


def is_dead(stopped: str) -> bool:
    """Whether that is why a unit's image stopped: nothing excites it."""
    return stopped.startswith("dead unit")


def to_bytes(image: Tensor, rounding: str = "nearest") -> Tensor:
    """(channels, height, width) in 0..255 to 8 bits (height, width, channels), on the CPU."""
    image = image.detach().nan_to_num(nan=127.5).clamp(0, 255)
    image = image.floor() if rounding == "down" else image.round()
    return image.to(torch.uint8).movedim(0, -1).contiguous().cpu()


def _final_bytes(image: Tensor, keep: OutputSettings) -> Tensor:
    """As `to_bytes`, with the contrast and the rounding that a recipe asks for."""
    return to_bytes(_adjust_contrast(image, keep.contrast), keep.rounding)


def _adjust_contrast(image: Tensor, contrast: float) -> Tensor:
    """The image about mid-grey, with a standard deviation of `contrast` of the range (Chollet 2016)."""
    if not contrast:
        return image
    return 127.5 + (image - image.mean()) / (image.std() + 1e-5) * contrast * 255


def _normalize(gradient: Tensor, kind: str) -> Tensor:
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


def _schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the rate is multiplied by at a step, counted from 1."""
    if schedule.kind == "step":
        return schedule.factor ** ((step - 1) // schedule.every)
    if schedule.kind in ("linear", "cosine"):
        begin = schedule.begin * steps
        share = min(1.0, max(0.0, (step - 1 - begin) / max(1.0, steps - 1 - begin)))
        fall = share if schedule.kind == "linear" else (1 - math.cos(math.pi * share)) / 2
        return 1 - (1 - schedule.end) * fall
    return 1.0


def _early_stop_reason(row: ImageState, value: float, probability: float, stop: StoppingSettings) -> str | None:
    """Why a row stops before its last step, if it does."""
    row.smoothed = value if math.isnan(row.smoothed) else stop.smoothing * row.smoothed + (1 - stop.smoothing) * value
    if row.smoothed > row.highest + stop.tolerance * abs(row.highest if math.isfinite(row.highest) else 0):
        row.highest, row.last_rise = row.smoothed, row.step
    if stop.patience and row.step - row.last_rise >= stop.patience:
        return PLATEAU
    row.confident_steps = row.confident_steps + 1 if stop.confidence and probability >= stop.confidence else 0
    return CONFIDENT if row.confident_steps >= stop.hold else None


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )
