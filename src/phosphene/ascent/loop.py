"""The one optimization loop: rows that climb together, each on its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from phosphene.ascent.evaluation import network_of, try_evaluate
from phosphene.ascent.evaluator import Evaluation
from phosphene.ascent.image_state import (
    ImageState,
    Task,
    canvas_images,
    compile_recipe,
    group_by,
    map_rows,
    record_batch_size,
    row_batch_key,
    split_in_half,
    task_seed,
)
from phosphene.ascent.output import at_full_size, current_pixels, final_image, opacity, to_bytes
from phosphene.ascent.progress import OnStep, Progress, Step
from phosphene.ascent.request import Request
from phosphene.ascent.step import climb, first_order_gains, normalize_gradient, schedule_factor
from phosphene.ascent.stopping import (
    DEAD,
    DEAD_THROUGHOUT,
    NOT_FINITE,
    depends_on_numbers,
    final_stop_reason,
    record_numbers,
)
from phosphene.errors import InputError
from phosphene.interruption import interruptible
from phosphene.pixels.resampling import resize

# A single image goes through the network with a copy beside it: libraries take other ways for a batch of one, which
# differ in the last bits, and an ascent makes a visible difference of those within 50 steps.
SMALLEST_BATCH = 2


# After how many steps a row's numbers are read, by kind of device.  Reading waits for the device: a CPU has them at
# once, others would idle.
_READ_EVERY = {"cpu": 1}
_READ_ELSEWHERE = 16


class Loop:
    """The state of an ascent: which rows are in work, and how many at once."""

    def __init__(
        self,
        request: Request,
        rows: int,
        on_progress: Callable[[Progress], None] | None = None,
        on_step: OnStep | None = None,
    ):
        self.device, self.size, self.rows, self.start = request.device, request.size, rows, request.start
        self.replayed_batch_sizes = [size for size, steps in request.options.batches for _ in range(steps)]
        self.min_batch_size = SMALLEST_BATCH
        self.read_every = _READ_EVERY.get(self.device.type, _READ_ELSEWHERE)
        self.mean = torch.tensor(request.network.preprocessing.mean_pixels, device=self.device).view(-1, 1, 1)
        self.on_progress, self.on_step = on_progress, on_step
        self.total, self.done = request.count, 0
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
                    if rows and (
                        len(rows) + len(group) > self.rows or row_batch_key(group[0]) != row_batch_key(rows[0])
                    ):
                        waiting.appendleft(group)
                        break
                    rows += [job if isinstance(job, ImageState) else self.begin(job) for job in group]
                if not rows:
                    break
                clock = time.perf_counter()
                # Rows on canvases of different sizes take turns, and so do those that need the network at different
                # sizes: those that are behind go first.
                behind = min(rows, key=lambda row: row.step)
                size, network = behind.canvas.size, network_of(behind)
                part = [row for row in rows if row.canvas.size == size and network_of(row) is network]
                parameters = torch.stack([row.parameters.data for row in part])
                padding = self.padding_at(part[0].step)
                found = try_evaluate(part, parameters, padding, self.read_every == 1)
                if found is None:  # out of memory: the later half waits as it is, and the rest go on
                    if len(rows) == 1:
                        self.replayed_batch_sizes, self.min_batch_size = [], 1  # not even a copy fits beside it
                        continue
                    rows, later = split_in_half(rows)
                    waiting.extendleft(reversed(later))
                    self.rows = len(rows)
                    continue
                kept = self.step(part, parameters, *found, last=interrupted.is_set())
                seconds = (time.perf_counter() - clock) / len(part)
                for row in part:
                    row.seconds += seconds
                for row, image in kept:
                    self.done += 1
                    finished(row, image, opacity(row, self.size))
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
        first = task.seed if canvas.is_pixels else task_seed(task, "start")
        image = canvas.initial_parameters(torch.Generator().manual_seed(first), given).to(self.device)
        parameters = torch.nn.Parameter(image, requires_grad=False)
        views = torch.Generator().manual_seed(task_seed(task, "views"))
        optimizer = task.compiled.recipe.optimizer.build(parameters)
        return ImageState(
            task.index, task.unit, task.seed, task.group, task.compiled, canvas, parameters, optimizer, views,
            facet=task.facet,
        )  # fmt: skip

    def padding_at(self, step: int) -> int:
        """What size a batch is filled up to, at a step of its first row."""
        return self.replayed_batch_sizes[step] if step < len(self.replayed_batch_sizes) else self.min_batch_size

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
            record_batch_size(row, size)
            if row.recipe.keep.transparency:
                cared = evaluation.gradient[i].abs().sum(dim=0)
                row.importance = cared if row.importance is None else row.importance + cared
        self.read({i: row for i, row in enumerate(rows) if self.is_due(row, last)}, images, last)

        direction = map_rows(rows, gradient, lambda row: row.recipe.optimizer.gradient, normalize_gradient)
        if self.read_every > 1:  # rows that turn out later to have gone wrong stay where they are
            finite = torch.isfinite(evaluation.values + steepest).view(-1, *[1] * (direction.ndim - 1))
            direction = torch.where(finite, direction, 0.0)
        gains = first_order_gains(rows, gradient, direction)
        for i, row in enumerate(rows):
            if row.stopped in (DEAD, DEAD_THROUGHOUT, NOT_FINITE):
                continue
            rate = row.recipe.optimizer.rate * schedule_factor(row.recipe.schedule, row.step, row.recipe.steps)
            if row.recipe.schedule.kind == "progress":
                rate = min(rate, row.recipe.schedule.gain / gains[i])
            climb(row.parameters, row.optimizer, direction[i], rate)

        framed, stopped = self.rows_with_frame(rows), [i for i, row in enumerate(rows) if row.stopped is not None]
        identity = rows[0].canvas.is_pixels
        wanted = list(range(len(rows))) if identity else sorted({*framed, *stopped})
        found = canvas_images([rows[i] for i in wanted], parameters[wanted]).clamp(0, 255) if wanted else ()
        clipped = dict(zip(wanted, found, strict=True))
        for i in framed:
            rows[i].frames.append(to_bytes(at_full_size(clipped[i], self.size), rows[i].recipe.keep.rounding))
        self.regularize(rows, parameters, gradient)
        kept = [
            (rows[i], final_image(rows[i], parameters[i] if identity else clipped[i], clipped[i], self.size))
            for i in stopped
        ]
        for row in rows:
            if row.stopped is None:
                self.grow(row)
        return kept

    def regularize(self, rows: list[ImageState], parameters: Tensor, gradient: Tensor) -> None:
        """Change the rows' pixels, in place, as their recipes say; other canvases have no regularizers."""
        mean = self.mean.to(parameters.dtype)
        for compiled, places in group_by(rows, lambda row: row.compiled):
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
        """Carry a row to a larger canvas where that begins with its next step; its optimizer begins anew."""
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
        recipe = on_step(
            Step(row.index, row.step, now, row.objectives[-1], probability, lambda: current_pixels(row, self.size))
        )
        if recipe is None:
            row.end_requested = True
            return
        recipe = recipe.for_network(row.compiled.evaluator.networks[0]).for_unit(row.unit)
        if recipe != now:
            if recipe.resume_key() != now.resume_key():
                raise InputError(
                    f"step {row.step} of {row.unit}: what is settled with the first step cannot change on the way "
                    f"({', '.join(now.changes_to(recipe)) or 'priors'}); see Recipe.course"
                )
            row.changes += [[row.step, name, value] for name, value in now.changes_to(recipe).items()]
            place = row.compiled.canvases.index(row.canvas)
            row.compiled = compile_recipe(row.compiled.evaluator, recipe, self.size)
            row.canvas = row.compiled.canvases[place]

    def is_due(self, row: ImageState, last: bool) -> bool:
        """Whether a row's numbers are to be read after this step: with its last one, where the next step depends on
        them, and every so often, from the first step on."""
        wanted = self.on_step is not None or depends_on_numbers(row)
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
                record_numbers(row, images[i], value, probability, steepest)
            row.unread.clear()
            if row.stopped is None and self.ends(row, last):
                row.stopped = final_stop_reason(row)

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
            pixels=lambda: {row.index: current_pixels(row, self.size) for row in rows},
        )
