"""An ascent on one device, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor

from phosphene.ascent.canvas import remember_referenced_files
from phosphene.ascent.evaluator import batch_key, depth
from phosphene.ascent.image_state import CompiledRecipe, ImageState, Task
from phosphene.ascent.loop import Loop
from phosphene.ascent.output import to_bytes
from phosphene.ascent.preparation import (
    LARGEST_BATCH,
    batch_in_memory,
    check_gradients,
    compile_recipes,
    optimize_networks,
)
from phosphene.ascent.request import Request, distinct, unit_layers
from phosphene.ascent.scores import measure
from phosphene.ascent.stopping import ALL_STEPS
from phosphene.devices.callbacks import Callbacks
from phosphene.networks.named import remember
from phosphene.networks.network import Network
from phosphene.networks.speed.precision import best_batch_size
from phosphene.networks.speed.precision import choose as choose_precision
from phosphene.picture import Picture
from phosphene.provenance.records import NetworkRecord
from phosphene.result import Result
from phosphene.torch_state import default_torch_state
from phosphene.units.objects import Unit, describe


class WorkSource(Protocol):
    """Hands out the units' indices to several processes."""

    @property
    def workers(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def ascend_on_one(
    request: Request,
    callbacks: Callbacks | None = None,
    on_finished: Callable[[int, Picture], None] | None = None,
    work: WorkSource | None = None,
) -> Result:
    """Make what is asked for on one device, in this process.

    Args:
        on_finished: called with each picture's place, and the picture.
        work: hands out the units that are made here, as there is room; by default all of them in turn.
    """
    callbacks = callbacks or Callbacks()
    for network in request.networks:
        remember(network)
    for recipe in distinct(request.recipes):
        remember_referenced_files(recipe)
    pictures: dict[int, Picture] = {}
    with ExitStack() as stack:
        stack.enter_context(default_torch_state())
        for network in request.networks:
            stack.enter_context(network.borrowed(request.device))
            stack.enter_context(network.under_its_digest())
        records = tuple(map(NetworkRecord.of, request.networks))
        stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True))
        check_gradients(request)
        norms = optimize_networks(request, stack)
        precisions = _precisions(request)
        rows = _batch_size(request, precisions[0], 1 if work is None else work.workers)
        compiled = compile_recipes(request, norms, precisions)

        def finished(row: ImageState, pixels: Tensor, alpha: Tensor | None) -> None:
            picture = pictures[row.index] = _picture(request, records, precisions, row, pixels, alpha)
            if callbacks.picture is not None:
                callbacks.picture(picture)
            if on_finished is not None:
                on_finished(row.index, picture)

        loop = Loop(request, rows, callbacks.progress, callbacks.step)
        loop.run(_tasks(request, compiled, work), finished)
    in_order = [pictures[place] for place in sorted(pictures)]
    return Result(in_order, request.recipes[0], request.networks, loop.interrupted, request.not_started(pictures))


def _precisions(request: Request) -> list[str]:
    """That of each network's passes."""
    wanted = request.options.precision
    each = [wanted] * len(request.networks) if isinstance(wanted, str) else wanted
    pairs = zip(request.networks, each, strict=True)
    return [choose_precision(network, request.device, name, unit_layers(request)) for network, name in pairs]


def _batch_size(request: Request, precision: str, workers: int) -> int:
    """How many images go through the network at once."""
    share = math.ceil(request.count / workers)
    if request.options.batch:
        return min(share, request.options.batch)
    most = min(share, max(1, batch_in_memory(request, request.options.memory)))
    return best_batch_size(request.network, request.device, precision, LARGEST_BATCH, most)


def _tasks(request: Request, compiled: Sequence[CompiledRecipe], work: WorkSource | None) -> Iterator[list[Task]]:
    """The images of one unit after another; those that can go through the network together follow each other."""

    def order(unit: int) -> Any:
        shown, recipe = request.units[unit], request.recipes[unit]
        return depth(request.network, shown), batch_key(shown), recipe.batch_key(), compiled.index(compiled[unit])

    in_order = sorted(range(len(request.units)), key=order)
    for turn in range(len(request.units)) if work is None else work:
        unit = in_order[turn]
        yield [
            Task(
                unit * request.facets + facet,
                request.units[unit],
                request.seeds[unit] + facet,
                unit,
                compiled[unit],
                (facet, request.facets),
            )
            for facet in range(request.facets)
        ]


def _measured(
    request: Request, network: Network, unit: Unit, pixels: Tensor, photograph: Tensor | None
) -> dict[str, float]:
    """What is measured of a finished image: of weighted networks the objective is their sum."""
    found = measure(network, unit, pixels, request.device, photograph)
    if request.weights:
        others = [measure(each, unit, pixels, request.device, photograph) for each in request.networks[1:]]
        values = [scores["objective"] for scores in (found, *others)]
        found["objective"] = sum(weight * value for weight, value in zip(request.weights, values, strict=True))
    return found


def _picture(
    request: Request,
    records: tuple[NetworkRecord, ...],
    precisions: Sequence[str],
    row: ImageState,
    pixels: Tensor,
    alpha: Tensor | None,
) -> Picture:
    """What a finished row gives, with its scores."""
    fed = row.compiled.evaluator.network_at(0, request.size, [row.unit])
    referred = request.photographs[row.group]
    return Picture(
        name=request.names[row.index],
        label=describe(row.unit, request.network),
        unit=row.unit,
        seed=row.seed,
        network=records[0],
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
        scores=_measured(request, fed, row.unit, pixels, referred),
        photograph=None if referred is None else to_bytes(referred).numpy(),
        alpha=None if alpha is None else alpha.numpy(),
        ensemble=records[1:],
        weights=request.weights,
        facet=row.facet,
        statistics=row.compiled.evaluator.origins,
        precision=tuple(precisions),
        changes=row.changes,
    )
