"""The one optimisation loop: gradient ascent on images, many at once, each on its own."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from phosphene.canvas import as_pixels, start_image
from phosphene.errors import InputError
from phosphene.networks.network import LOGITS, Network
from phosphene.picture import Picture, Result, picture_names
from phosphene.recipe import Recipe, Schedule, Stop
from phosphene.regularizers import make_regularizers
from phosphene.units import Class, Part, Unit, parse_unit

LARGEST_BATCH = 32
# A single image goes through the network with a copy beside it: libraries take other ways for a batch of one, which
# differ in the last bits, and an ascent makes a visible difference of those within 50 steps.
SMALLEST_BATCH = 2
DEFAULT_SEED = 1337

# Why a row stopped.
ALL_STEPS = "all steps done"
PLATEAU = "objective stopped rising"
CONFIDENT = "confidence held"
DEAD = "dead unit: gradient zero everywhere"
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


@dataclass(eq=False)
class _Row:
    """One image on its way: its own unit, seed, optimiser, step count and stop."""

    index: int
    unit: Unit
    seed: int
    pixels: torch.nn.Parameter  # (channels, height, width); a view of its place in the batch
    optimizer: torch.optim.Optimizer
    step: int = 0
    objectives: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)  # [size, steps]: in what company each step was made
    smoothed: float = math.nan
    highest: float = -math.inf  # of the smoothed objective
    rose: int = 0  # the last step at which it rose
    held: int = 0  # steps for which the confidence has held
    best: float = -math.inf
    best_image: Tensor | None = None
    seconds: float = 0.0
    stopped: str | None = None


def ascend(
    network: Network,
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe = "tence",
    *,
    seed: int | Sequence[int] = DEFAULT_SEED,
    start: Any = None,
    device: str | torch.device | None = None,
    batch: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    batches: Sequence[Sequence[int]] = (),
) -> Result:
    """Make the images that excite units most.

    Each image has its own unit, seed, optimiser and stop: what comes out does not depend on what else is made (up to
    floating point), and the same call gives the same bytes on the same machine.

    Args:
        network: as `phosphene.open` gives it.  It is handed back as it came.
        units: one or several, as objects or spelled ("class:flamingo", "features.29:12").
        recipe: the name of one that ships, the path of a TOML file, or a `Recipe`.  Fields found for this network
            (`recipe.networks`) are put in.
        seed: for all units, or one for each.
        start: the image to start from where the recipe's `start.kind` is "image": a path, a PIL image or an array.
        device: "cpu", "cuda", …; by default a GPU where there is one.
        batch: the most images at once; by default what fits into `memory`, and 32 at most.
        memory: bytes to fill; by default 40 % of what is free on a CPU and 80 % on a GPU.
        on_progress, on_picture: called after every step, and with every finished picture as soon as it is.
        batches: [size, steps] pairs, to replay another run: each step's batch is filled up to that size with copies,
            since arithmetic depends on the size of the batch in its last bits, and the ascent ends with the last pair.

    Returns:
        A `Result` with a picture for each unit, in the order given.  After Ctrl-C it has what was made so far, the
        pictures in work as they stood, and `interrupted` is true.

    Raises:
        InputError: a unit, recipe, size, seed, start or device that cannot be.

    Example:
        >>> result = ascend(phosphene.open(), ["class:flamingo", "class:teddy"], "tence", seed=7)
        >>> result.save("phosphene-out")
    """
    given = [units] if isinstance(units, str | Unit) else list(units)
    if not given:
        raise InputError("no units are given: expected at least one, such as 'class:flamingo'")
    recipe = Recipe.load(recipe).for_network(network.name)
    if recipe.size is not None:
        network = network.resized(recipe.size)
    parsed = [parse_unit(unit, network) for unit in given]
    seeds = [int(seed)] * len(parsed) if isinstance(seed, int | np.integer) else [int(each) for each in seed]
    if len(seeds) != len(parsed):
        raise InputError(f"{len(seeds)} seeds for {len(parsed)} units: expected one, or one for each")
    if not all(0 <= each < 2**63 for each in seeds):
        raise InputError(f"seed {min(seeds)}: expected a whole number of 0 to 2^63 - 1")
    if recipe.stop.confidence and not all(isinstance(unit, Class) for unit in parsed):
        raise InputError("stop.confidence is the probability of a class: expected class units only, or 0")
    started_from = None if start is None else as_pixels(start, network.preprocessing)
    where = find_device(device)
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}: expected at least 1")
    size = min(len(parsed), batch or min(LARGEST_BATCH, _fitting(network, where, memory)))

    loop = _Loop(network, recipe, where, size, started_from, batches, len(parsed), on_progress)
    names = picture_names(parsed, seeds, network)

    def finished(row: _Row, pixels: Tensor) -> None:
        picture = Picture(
            name=names[row.index],
            unit=row.unit,
            seed=row.seed,
            network=network,
            recipe=recipe,
            pixels=pixels.numpy(),
            objectives=row.objectives,
            probabilities=row.probabilities,
            frames=[frame.numpy() for frame in row.frames],
            steps=row.step,
            stopped=row.stopped or ALL_STEPS,
            seconds=row.seconds,
            device=where.type,
            threads=torch.get_num_threads(),
            start=None if started_from is None else to_bytes(started_from).numpy(),
            batches=row.batches,
            scores=measure(network, row.unit, pixels, where),
        )
        pictures[row.index] = picture
        if on_picture is not None:
            on_picture(picture)

    pictures: dict[int, Picture] = {}
    with network.borrowed(where), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        loop.run([(index, parsed[index], seeds[index]) for index in range(len(parsed))], finished)
    unmade = [str(unit) for index, unit in enumerate(parsed) if index not in pictures]
    return Result([pictures[index] for index in sorted(pictures)], recipe, network, loop.interrupted, unmade)


class _Loop:
    """The state of an ascent: which rows are in work, and how many at once."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        device: torch.device,
        size: int,
        start: Tensor | None,
        batches: Sequence[Sequence[int]],
        total: int,
        on_progress: Callable[[Progress], None] | None,
    ):
        self.network, self.recipe, self.device, self.size, self.start = network, recipe, device, size, start
        self.replayed = [size for size, steps in batches for _ in range(steps)]
        self.least = SMALLEST_BATCH
        self.mean = torch.tensor(network.preprocessing.mean_pixels, device=device).view(-1, 1, 1)
        self.regularizers = make_regularizers(recipe)
        self.on_progress = on_progress
        self.total, self.done = total, 0
        self.interrupted = False

    def run(self, jobs: Sequence[tuple[int, Unit, int]], finished: Callable[[_Row, Tensor], None]) -> None:
        """Make every job's image; a finished row makes room for the next at once."""
        waiting: deque[_Row | tuple[int, Unit, int]] = deque(jobs)
        rows: list[_Row] = []
        with _interrupt() as interrupted:
            while rows or waiting:
                while waiting and len(rows) < self.size and not interrupted.is_set():
                    job = waiting.popleft()
                    rows.append(job if isinstance(job, _Row) else self.begin(*job))
                if not rows:
                    break
                clock = time.perf_counter()
                found = self.try_evaluate(rows)
                if found is None:  # out of memory: the later half waits as it is, and the rest go on
                    if len(rows) == 1:
                        self.replayed, self.least = [], 1  # not even a copy fits beside it
                        continue
                    self.size = len(rows) // 2
                    waiting.extendleft(reversed(rows[self.size :]))
                    rows = rows[: self.size]
                    continue
                kept = self.step(rows, *found, last=interrupted.is_set())
                seconds = (time.perf_counter() - clock) / len(rows)
                for row in rows:
                    row.seconds += seconds
                for row, image in kept:
                    self.done += 1
                    finished(row, image)
                if self.on_progress is not None:
                    self.on_progress(self.progress(rows, waiting))
                rows = [row for row in rows if row.stopped is None]
            self.interrupted = interrupted.is_set()

    def begin(self, index: int, unit: Unit, seed: int) -> _Row:
        image = start_image(self.recipe.start, self.network.preprocessing, seed, self.start).to(self.device)
        pixels = torch.nn.Parameter(image, requires_grad=False)
        return _Row(index, unit, seed, pixels, self.recipe.optimizer.build(pixels))

    def try_evaluate(self, rows: list[_Row]) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """The rows' images, objectives, probabilities and gradients, or None where memory does not suffice."""
        images = torch.stack([row.pixels.data for row in rows])  # (rows, channels, height, width)
        try:
            return images, *evaluate(self.network, [row.unit for row in rows], images, self.padding_at(rows[0].step))
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1 and self.padding_at(rows[0].step) == 1:
                height, width = images.shape[-2:]
                raise InputError(f"out of memory with one image of {height}x{width} pixels: expected less") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def padding_at(self, step: int) -> int:
        """What size a batch is filled up to, at a step of its first row."""
        return self.replayed[step] if step < len(self.replayed) else self.least

    def step(
        self, rows: list[_Row], images: Tensor, values: Tensor, probabilities: Tensor, gradient: Tensor, last: bool
    ) -> list[tuple[_Row, Tensor]]:
        """One step of all rows; gives those that stopped, each with the image to keep, in 8 bits."""
        steepest = gradient.abs().amax(dim=(1, 2, 3))
        status = torch.stack([values, probabilities, steepest]).tolist()  # waits for the device
        size = max(len(rows), self.padding_at(rows[0].step))
        for i, row in enumerate(rows):
            row.pixels.data = images[i]
            row.step += 1
            value, probability, slope = (column[i] for column in status)
            self.record(row, images[i], size, value, probability, slope, last)

        direction = _normalised(gradient, self.recipe.optimizer.gradient)
        gains = (gradient * direction).sum(dim=(1, 2, 3)).tolist() if self.recipe.schedule.kind == "progress" else ()
        for i, row in enumerate(rows):
            if row.stopped in (DEAD, NOT_FINITE):
                continue
            rate = self.recipe.optimizer.rate * _factor(self.recipe.schedule, row.step, self.recipe.steps)
            if gains:
                rate = min(rate, self.recipe.schedule.gain / gains[i])
            row.optimizer.param_groups[0]["lr"] = rate
            row.pixels.grad = direction[i]
            row.optimizer.step()  # climbs, in place, in its row of images
            row.pixels.grad = None

        clipped = images.clamp(0, 255)
        for i, row in enumerate(rows):
            keep = self.recipe.keep
            if keep.every and row.step % keep.every == 0 and row.step <= (keep.until or row.step):
                row.frames.append(to_bytes(clipped[i]))
        for _, every, regularize in self.regularizers:
            due = [i for i, row in enumerate(rows) if row.step % every == 0]
            if len(due) == len(rows):
                images.copy_(regularize(images, self.mean, gradient))
            elif due:
                images[due] = regularize(images[due], self.mean, gradient[due])
        return [(row, self.kept(row, images[i], clipped[i])) for i, row in enumerate(rows) if row.stopped is not None]

    def record(
        self, row: _Row, image: Tensor, size: int, value: float, probability: float, steepest: float, last: bool
    ) -> None:
        """Note what a step began with, and whether it is the row's last one."""
        row.objectives.append(value)
        if not math.isnan(probability):
            row.probabilities.append(probability)
        if row.batches and row.batches[-1][0] == size:
            row.batches[-1][1] += 1
        else:
            row.batches.append([size, 1])
        if self.recipe.keep.rule == "best" and value > row.best:
            row.best, row.best_image = value, image.clone()
        if not (math.isfinite(value) and math.isfinite(steepest)):
            row.stopped = NOT_FINITE
        elif steepest == 0:
            row.stopped = DEAD
        elif row.step == self.recipe.steps:
            row.stopped = ALL_STEPS
        else:
            row.stopped = _early(row, value, probability, self.recipe.stop)
        if row.stopped is None and (last or row.step == len(self.replayed)):
            row.stopped = INTERRUPTED

    def kept(self, row: _Row, image: Tensor, clipped: Tensor) -> Tensor:
        """The image of a stopped row that the recipe keeps, as 8 bits (height, width, channels)."""
        rule = self.recipe.keep.rule
        chosen = clipped if rule == "clipped" else image
        if rule == "best":
            with torch.no_grad():
                value = _scores(self.network, [row.unit], clipped[None])[0].item()
            chosen = row.best_image if row.best_image is not None and not value > row.best else clipped
        return to_bytes(_contrasted(chosen, self.recipe.keep.contrast))

    def progress(self, rows: list[_Row], waiting: deque[_Row | tuple[int, Unit, int]]) -> Progress:
        begun = [*rows, *(job for job in waiting if isinstance(job, _Row))]
        work = self.done + sum(row.step / self.recipe.steps for row in begun if row.stopped is None)
        objectives = [row.objectives[-1] for row in rows]
        probabilities = [row.probabilities[-1] for row in rows if row.probabilities]
        return Progress(
            done=self.done,
            total=self.total,
            work=work / self.total,
            objective=sum(objectives) / len(objectives),
            probability=sum(probabilities) / len(probabilities) if probabilities else None,
        )


def evaluate(
    network: Network, units: Sequence[Unit], images: Tensor, padding: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's objective, its probability (not a number where the unit is no class), and the gradient.

    Args:
        network: borrowed.
        units: one for each image.
        images: (rows, channels, height, width) in 0..255.
        padding: fill the batch with copies up to this size.

    Returns:
        Two tensors of shape (rows,), and the gradient of each objective at its own image, of the images' shape.
    """
    images = images.detach().requires_grad_()
    rows = len(images)
    fed = images if padding <= rows else torch.cat([images, images[-1:].expand(padding - rows, -1, -1, -1)])
    values, probabilities = _scores(network, units, fed)
    if not values.requires_grad:  # the objective does not depend on the image at all
        return values.detach(), probabilities, torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(values.sum(), images)
    return values.detach(), probabilities, gradient


def _scores(network: Network, units: Sequence[Unit], images: Tensor) -> tuple[Tensor, Tensor]:
    by_layer: dict[str, list[tuple[int, float, Part]]] = {}
    for row, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((row, weight, part))
    scores: list[list[Tensor]] = [[] for _ in units]

    def reader(layer: str) -> Callable[[Tensor], None]:
        def read(activation: Tensor) -> None:
            activation = activation.clone()  # what comes after may work in place
            for row, weight, part in by_layer[layer]:
                scores[row].append(weight * part.score(activation[row]))

        return read

    readers = {layer: reader(layer) for layer in by_layer if layer != LOGITS}
    if LOGITS in by_layer:
        logits = network.forward(images, readers)
        reader(LOGITS)(logits)
    else:
        network.read(images, readers)
    values = torch.stack([torch.stack(terms).sum() for terms in scores])
    probabilities = torch.full((len(units),), math.nan, device=images.device)
    classes = [(row, unit.index) for row, unit in enumerate(units) if isinstance(unit, Class)]
    if classes:
        rows, indices = map(list, zip(*classes, strict=True))
        probabilities[rows] = logits.detach().float().softmax(dim=1)[rows, indices]
    return values.float(), probabilities


def measure(network: Network, unit: Unit, pixels: Tensor, device: torch.device) -> dict[str, float]:
    """The objective and, of a class, the network's own probability, of a finished image as it is saved.

    The image goes through the (borrowed) network alone, so that the numbers do not depend on its batch.
    """
    with torch.no_grad():
        image = pixels.to(device).float().movedim(-1, 0)[None]
        value, probability = _scores(network, [unit], image)
    scores = {"objective": value.item(), "probability": probability.item()}
    return {name: score for name, score in scores.items() if not (name == "probability" and math.isnan(score))}


def to_bytes(image: Tensor) -> Tensor:
    """(channels, height, width) in 0..255 to 8 bits (height, width, channels), on the CPU."""
    image = image.detach().nan_to_num(nan=127.5).clamp(0, 255).round()
    return image.to(torch.uint8).movedim(0, -1).contiguous().cpu()


def _contrasted(image: Tensor, contrast: float) -> Tensor:
    """The image about mid-grey, with a standard deviation of `contrast` of the range (Chollet 2016)."""
    if not contrast:
        return image
    return 127.5 + (image - image.mean()) / (image.std() + 1e-5) * contrast * 255


def _normalised(gradient: Tensor, kind: str) -> Tensor:
    if kind == "raw":
        return gradient
    square = gradient.square()
    axes = (1, 2, 3)
    size = square.sum(dim=axes, keepdim=True) if kind == "l2" else square.mean(dim=axes, keepdim=True)
    return gradient / size.sqrt().clamp_min(1e-30)


def _factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the rate is multiplied by at a step, counted from 1."""
    if schedule.kind == "step":
        return schedule.factor ** ((step - 1) // schedule.every)
    if schedule.kind in ("linear", "cosine"):
        begin = schedule.begin * steps
        share = min(1.0, max(0.0, (step - 1 - begin) / max(1.0, steps - 1 - begin)))
        fall = share if schedule.kind == "linear" else (1 - math.cos(math.pi * share)) / 2
        return 1 - (1 - schedule.end) * fall
    return 1.0


def _early(row: _Row, value: float, probability: float, stop: Stop) -> str | None:
    """Why a row stops before its last step, if it does."""
    row.smoothed = value if math.isnan(row.smoothed) else stop.smoothing * row.smoothed + (1 - stop.smoothing) * value
    if row.smoothed > row.highest + stop.tolerance * abs(row.highest if math.isfinite(row.highest) else 0):
        row.highest, row.rose = row.smoothed, row.step
    if stop.patience and row.step - row.rose >= stop.patience:
        return PLATEAU
    row.held = row.held + 1 if stop.confidence and probability >= stop.confidence else 0
    return CONFIDENT if row.held >= stop.hold else None


def find_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        InputError: it is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            there.append("mps")
        raise InputError(f"device {str(device)!r} is not there: expected {' or '.join(there)}") from error
    return found


def _fitting(network: Network, device: torch.device, memory: int | None) -> int:
    """How many images fit: twice the outputs of all layers (forward and backward), 4 bytes each."""
    if memory is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        memory = int(free * (0.8 if device.type == "cuda" else 0.4))
    row = 8 * sum(math.prod(layer.shape) for layer in network.layers)
    return max(1, memory // max(1, row))


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step is finished and kept; pressed again it interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
