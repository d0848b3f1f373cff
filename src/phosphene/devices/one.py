"""An ascent on one device, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from phosphene.ascent.canvas import remember_referenced_files
from phosphene.ascent.image_state import ImageState, Task
from phosphene.ascent.loop import Loop
from phosphene.ascent.objective import batch_key, depth
from phosphene.ascent.output import to_bytes
from phosphene.ascent.preparation import (
    LARGEST_BATCH,
    batch_in_memory,
    check_gradients,
    compile_recipes,
    optimize_networks,
)
from phosphene.ascent.progress import OnStep, Progress
from phosphene.ascent.request import DEFAULT_SEED, Request, distinct, make_request, needs_photograph, unit_layers
from phosphene.ascent.scores import measure
from phosphene.ascent.stopping import ALL_STEPS
from phosphene.errors import InputError
from phosphene.hardware import keep_freed_memory
from phosphene.networks.named import remember
from phosphene.networks.network import Network
from phosphene.networks.speed.precision import best_batch_size
from phosphene.networks.speed.precision import choose as choose_precision
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.torch_state import default_torch_state
from phosphene.units.objects import Unit


class WorkSource(Protocol):
    """Hands out the units' indices to several processes."""

    @property
    def workers(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def ascend_here(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe],
    *,
    seed: int | Sequence[int] = DEFAULT_SEED,
    start: Any = None,
    photograph: Any = None,
    facets: int = 1,
    device: str | torch.device | None = None,
    batch: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_finished: Callable[[int, Picture], None],
    on_step: OnStep | None = None,
    precision: str | Sequence[str] = "auto",
    batches: Sequence[Sequence[int]] = (),
    work: WorkSource | None = None,
) -> Result:
    """As `ascend`, on one device, in this process.

    Args:
        on_finished: called with the place and the picture.
        turns: those of the units that are made here, as there is room; by default all.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}: expected at least 1")
    with default_torch_state():
        request = make_request(network, units, recipe, seed, start, photograph, facets, device, on_step)
    if request.device.type == "cpu":
        keep_freed_memory()
    for each in request.networks:
        remember(each)
    for own in distinct(request.recipes):
        remember_referenced_files(own)
    total = len(request.names)
    share = math.ceil(total / (1 if work is None else work.workers))
    most = min(share, max(1, batch_in_memory(request, memory)))
    pictures: dict[int, Picture] = {}
    with ExitStack() as stack:
        stack.enter_context(default_torch_state())
        for each in request.networks:
            stack.enter_context(each.borrowed(request.device))
            stack.enter_context(each.under_its_digest())
        stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True))
        check_gradients(request)
        norms = optimize_networks(request, stack)
        wanted = [precision] * len(request.networks) if isinstance(precision, str) else precision
        pairs = zip(request.networks, wanted, strict=True)
        precisions = [choose_precision(each, request.device, name, unit_layers(request)) for each, name in pairs]
        rows = (
            min(share, batch)
            if batch
            else best_batch_size(request.network, request.device, precisions[0], LARGEST_BATCH, most)
        )
        compiled = compile_recipes(request, norms, precisions)

        def group(unit: int) -> list[Task]:
            first = unit * facets
            return [
                Task(first + facet, request.units[unit], request.seeds[unit] + facet, unit, compiled[unit])
                for facet in range(facets)
            ]

        def order(unit: int) -> Any:
            shown, own = request.units[unit], request.recipes[unit]
            return depth(request.network, shown), batch_key(shown), own.batch_key(), compiled.index(compiled[unit])

        def finished(row: ImageState, pixels: Tensor, alpha: Tensor | None) -> None:
            pictures[row.index] = _picture(request, row, pixels, alpha, precisions)
            on_finished(row.index, pictures[row.index])

        in_order = sorted(range(len(request.units)), key=order)
        mine = (in_order[turn] for turn in (range(len(request.units)) if work is None else work))
        loop = Loop(
            request.networks, request.device, request.size, rows, request.start, batches, total, on_progress, on_step
        )
        loop.run((group(unit) for unit in mine), finished)
    unmade = [str(request.units[place // facets]) for place in range(total) if place not in pictures]
    made = [pictures[place] for place in sorted(pictures)]
    return Result(made, request.recipes[0], request.network, loop.interrupted, unmade)


def _picture(
    request: Request, row: ImageState, pixels: Tensor, alpha: Tensor | None, precisions: Sequence[str]
) -> Picture:
    """What a finished row gives, with its scores."""
    fed = row.compiled.objective.network_at(0, request.size, [row.unit])
    referred = request.photograph if needs_photograph(row.unit) else None
    return Picture(
        name=request.names[row.index],
        unit=row.unit,
        seed=row.seed,
        network=request.network,
        recipe=request.recipes[row.group],
        pixels=pixels.numpy(),
        objectives=row.objectives,
        probabilities=row.probabilities,
        frames=[frame.numpy() for frame in row.frames],
        steps=row.step,
        stopped=row.stopped or ALL_STEPS,
        seconds=row.seconds,
        device=request.device.type,
        threads=torch.get_num_threads(),
        start=None if request.start is None else to_bytes(request.start).numpy(),
        batches=row.batches,
        scores=measure(fed, row.unit, pixels, request.device, referred),
        photograph=None if referred is None else to_bytes(referred).numpy(),
        alpha=None if alpha is None else alpha.numpy(),
        ensemble=tuple(request.networks[1:]),
        facet=(row.index % request.facets, request.facets),
        statistics=row.compiled.objective.origins,
        precision=tuple(precisions),
        changes=row.changes,
    )
