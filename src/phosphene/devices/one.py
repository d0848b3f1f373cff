"""An ascent on one device, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from phosphene.ascent.canvas import remember_named
from phosphene.ascent.loop import ALL_STEPS, Job, Loop, OnStep, Progress, Row, to_bytes
from phosphene.ascent.objective import company, depth
from phosphene.ascent.preparation import (
    LARGEST_BATCH,
    batch_in_memory,
    check_gradients,
    compile_recipes,
    optimize_networks,
)
from phosphene.ascent.request import DEFAULT_SEED, Request, distinct, layers_shown, make_request, refers
from phosphene.ascent.scores import measure
from phosphene.errors import InputError
from phosphene.hardware import keep_freed_memory
from phosphene.networks.named import remember
from phosphene.networks.network import Network
from phosphene.networks.speed.precision import choose as choose_precision
from phosphene.networks.speed.precision import widest
from phosphene.picture import Picture
from phosphene.recipes.schema import Recipe
from phosphene.result import Result
from phosphene.torch_state import own_state
from phosphene.units.objects import Unit


class Turns(Protocol):
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
    on_made: Callable[[int, Picture], None],
    on_step: OnStep | None = None,
    precision: str | Sequence[str] = "auto",
    batches: Sequence[Sequence[int]] = (),
    turns: Turns | None = None,
) -> Result:
    """As `ascend`, on one device, in this process.

    Args:
        on_made: called with the place and the picture.
        turns: those of the units that are made here, as there is room; by default all.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}: expected at least 1")
    with own_state():
        asked = make_request(network, units, recipe, seed, start, photograph, facets, device, on_step)
    if asked.device.type == "cpu":
        keep_freed_memory()
    for each in asked.networks:
        remember(each)
    for own in distinct(asked.recipes):
        remember_named(own)
    total = len(asked.names)
    share = math.ceil(total / (1 if turns is None else turns.workers))
    most = min(share, max(1, batch_in_memory(asked, memory)))
    pictures: dict[int, Picture] = {}
    with ExitStack() as stack:
        stack.enter_context(own_state())
        for each in asked.networks:
            stack.enter_context(each.borrowed(asked.device))
            stack.enter_context(each.under_its_digest())
        stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True))
        check_gradients(asked)
        norms = optimize_networks(asked, stack)
        wanted = [precision] * len(asked.networks) if isinstance(precision, str) else precision
        pairs = zip(asked.networks, wanted, strict=True)
        precisions = [choose_precision(each, asked.device, name, layers_shown(asked)) for each, name in pairs]
        rows = min(share, batch) if batch else widest(asked.network, asked.device, precisions[0], LARGEST_BATCH, most)
        ways = compile_recipes(asked, norms, precisions)

        def group(unit: int) -> list[Job]:
            first = unit * facets
            return [
                Job(first + facet, asked.units[unit], asked.seeds[unit] + facet, unit, ways[unit])
                for facet in range(facets)
            ]

        def order(unit: int) -> Any:
            shown, own = asked.units[unit], asked.recipes[unit]
            return depth(asked.network, shown), company(shown), own.company(), ways.index(ways[unit])

        def finished(row: Row, pixels: Tensor, alpha: Tensor | None) -> None:
            pictures[row.index] = _picture(asked, row, pixels, alpha, precisions)
            on_made(row.index, pictures[row.index])

        in_order = sorted(range(len(asked.units)), key=order)
        mine = (in_order[turn] for turn in (range(len(asked.units)) if turns is None else turns))
        loop = Loop(asked.networks, asked.device, asked.size, rows, asked.start, batches, total, on_progress, on_step)
        loop.run((group(unit) for unit in mine), finished)
    unmade = [str(asked.units[place // facets]) for place in range(total) if place not in pictures]
    made = [pictures[place] for place in sorted(pictures)]
    return Result(made, asked.recipes[0], asked.network, loop.interrupted, unmade)


def _picture(asked: Request, row: Row, pixels: Tensor, alpha: Tensor | None, precisions: Sequence[str]) -> Picture:
    """What a finished row gives, with its scores."""
    fed = row.way.objective.sized(0, asked.size, [row.unit])
    referred = asked.photograph if refers(row.unit) else None
    return Picture(
        name=asked.names[row.index],
        unit=row.unit,
        seed=row.seed,
        network=asked.network,
        recipe=asked.recipes[row.group],
        pixels=pixels.numpy(),
        objectives=row.objectives,
        probabilities=row.probabilities,
        frames=[frame.numpy() for frame in row.frames],
        steps=row.step,
        stopped=row.stopped or ALL_STEPS,
        seconds=row.seconds,
        device=asked.device.type,
        threads=torch.get_num_threads(),
        start=None if asked.start is None else to_bytes(asked.start).numpy(),
        batches=row.batches,
        scores=measure(fed, row.unit, pixels, asked.device, referred),
        photograph=None if referred is None else to_bytes(referred).numpy(),
        alpha=None if alpha is None else alpha.numpy(),
        ensemble=tuple(asked.networks[1:]),
        facet=(row.index % asked.facets, asked.facets),
        statistics=row.way.objective.origins,
        precision=tuple(precisions),
        changes=row.changes,
    )
