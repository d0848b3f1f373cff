"""What a plan will take here, measured on a few steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from phosphene.api.ascend import ascend
from phosphene.ascent.run_options import RunOptions
from phosphene.atlas.plan import AtlasPlan
from phosphene.draw.film import film_size
from phosphene.interruption import require_complete
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Unit

# Of a picture's bytes as they are in memory, what its PNG takes: of 200 pictures by `natural` and `draft` 0.6 to 0.8.
_PACKED = 0.75
# Bytes of a film for each of its pixels: of 97 films by `draft` 0.19 on average.
_FILMED = 0.19


@dataclass(frozen=True)
class Estimate:
    """What a plan will take here.

    Attributes:
        images: how many, and `steps` in all of them.
        seconds: by one process on one device.
        size: bytes.
    """

    images: int
    steps: int
    seconds: float
    size: int


def estimate(
    plan: AtlasPlan,
    network: Network | None = None,
    *,
    batch: int = 8,
    steps: int = 3,
    device: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Estimate:
    """Measure how long a plan will take here: a few steps of a batch of each group.

    Args:
        network: of the plan, where the caller has it.
        batch, steps: how many images, and how many steps, of each group.
        device: as for `ascend`.
        on_progress: called with how many groups are measured, and of how many.
    """
    network = network or plan.open()
    seconds, all_steps, size = 0.0, 0, 0.0
    for done, group in enumerate(plan.groups):
        recipe, images = Recipe.from_dict(group.recipe), len(group.indices) * plan.facets
        units = [group.unit(index, network) for index in group.indices[:batch]]
        a_step, picture = _measure(network, units, recipe, steps, device)
        seconds += images * recipe.steps * a_step
        all_steps += images * recipe.steps
        size += images * _PACKED * picture.pixels.nbytes
        size += images * _FILMED * plan.frames * math.prod(film_size(picture))
        if on_progress is not None:
            on_progress(done + 1, len(plan.groups))
    return Estimate(plan.count, all_steps, seconds, round(size))


def _measure(network: Network, units: Sequence[Unit], recipe: Recipe, steps: int, device: Any) -> tuple[float, Picture]:
    """The seconds that a step of one image takes, without what is done once; and one of the images."""

    options = RunOptions(device=device)

    def timed(count: int) -> tuple[float, Picture]:
        clock = time.perf_counter()
        result = require_complete(ascend(network, units, recipe.override({"steps": count}), options=options))
        return time.perf_counter() - clock, result[0]

    timed(1)
    (whole, picture), (once, _) = timed(1 + steps), timed(1)
    return max(0.0, whole - once) / steps / len(units), picture
