"""Where activations are on a map, and the cells of a grid on it (Carter et al. 2019, "Activation Atlas")."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.extras import require

NEIGHBORS = 20  # of each vector, whose likeness the layout keeps
_LEAST_DISTANCE = 0.01  # between two points of the layout
FEWEST = 12
"""Vectors that a layout needs."""

PERCENTILES = (1.0, 99.0)
"""What is beyond these, of either axis, is moved to them: few outliers would else take most of the map."""


def lay_out(vectors: Tensor, seed: int = 0) -> Tensor:
    """Vectors in the plane, so that those that are alike by their cosine are near: UMAP (McInnes et al. 2018).

    Args:
        vectors: (vectors, channels).
        seed: the same seed gives the same layout, on the same machine.

    Returns:
        (vectors, 2), in 32 bits.

    Raises:
        InputError: there are fewer than 12, or umap-learn is not installed.
    """
    count = len(vectors)
    if count < FEWEST:
        raise InputError(f"{count} vectors to be laid out: expected at least {FEWEST}")
    with warnings.catch_warnings(), _threads_kept():
        warnings.simplefilter("ignore")  # of libraries that UMAP looks for, and of its own
        umap = require("umap", "analysis", "a map of an atlas")
        made = umap.UMAP(
            n_neighbors=min(NEIGHBORS, count - 1), min_dist=_LEAST_DISTANCE, metric="cosine",
            random_state=seed % 2**32, n_jobs=1,
        ).fit_transform(vectors.float().numpy())  # fmt: skip
    found = torch.from_numpy(np.ascontiguousarray(made, dtype=np.float32))
    if not bool(found.isfinite().all()):
        raise InputError(f"the layout of {count} vectors is not finite: expected vectors that differ, or another seed")
    return found


@contextmanager
def _threads_kept() -> Iterator[None]:
    """What is compiled with OpenMP for UMAP sets the number of torch's threads as well: here it stays as it was."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_unit_square(coordinates: Tensor) -> Tensor:
    """A layout moved to 0 to 1 of both axes, what is beyond the percentiles at the border: (points, 2)."""
    shares = torch.tensor([each / 100 for each in PERCENTILES], dtype=torch.float64)
    low, high = torch.quantile(coordinates.double(), shares, dim=0) if len(coordinates) < 2**20 else _numpy(coordinates)
    return ((coordinates.double() - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


def _numpy(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """The percentiles of more points than `torch.quantile` takes."""
    low, high = np.percentile(coordinates.double().numpy(), PERCENTILES, axis=0)
    return torch.from_numpy(low), torch.from_numpy(high)


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a grid that have enough activations.

    Attributes:
        grid: how many rows, and as many columns.
        index: which cells, counted row by row from the top left, (cells,), rising.
        activations, photographs: how many each has, and of how many photographs, (cells,).
        of: for each activation the place of its cell in `index`, or -1 where its cell has too few, (activations,).
    """

    grid: int
    index: Tensor
    activations: Tensor
    photographs: Tensor
    of: Tensor


def cells_of(coordinates: Tensor, photograph: Tensor, grid: int, *, least: int, least_photographs: int) -> Cells:
    """The cells of a grid over a layout with at least so many activations, of at least so many photographs.

    Args:
        coordinates: as `lay_out` returns them; the first axis goes right, the second up.
        photograph: which one each activation is of.

    Raises:
        InputError: no cell has as many.
    """
    square = on_unit_square(coordinates)
    column = (square[:, 0] * grid).long().clamp_max(grid - 1)
    row = ((1 - square[:, 1]) * grid).long().clamp_max(grid - 1)
    cell = row * grid + column
    counts = torch.bincount(cell, minlength=grid * grid)
    pairs = torch.unique(torch.stack([cell, photograph.long()], 1), dim=0)
    sources = torch.bincount(pairs[:, 0], minlength=grid * grid)
    kept = (counts >= least) & (sources >= least_photographs)
    if not bool(kept.any()):
        raise InputError(
            f"no cell of a grid of {grid} has {least} activations of {least_photographs} photographs: the most are "
            f"{int(counts.max())} of {int(sources.max())}; expected more photographs, more positions of each, a "
            "coarser grid, or fewer of either"
        )
    index = kept.nonzero()[:, 0]
    place = torch.full((grid * grid,), -1)
    place[index] = torch.arange(len(index))
    return Cells(grid, index, counts[index], sources[index], place[cell])


def mean_by_cell(values: Tensor, of: Tensor, count: int) -> Tensor:
    """The mean of the values of each cell, in 64 bits: (activations, width) to (cells, width)."""
    kept = of >= 0
    sums = torch.zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, of[kept], values[kept].double())
    return sums / torch.bincount(of[kept], minlength=count).clamp_min(1)[:, None]
