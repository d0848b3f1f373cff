"""Whether a map is to be believed: deletion and insertion curves, and weights that are random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from phosphene.attribution.methods import Explained, FloatMap, blurred
from phosphene.networks.network import Network

CURVE_STEPS = 28
"""How many times pixels are taken away, or put in; at 224 pixels an eighth of a line of blocks each."""
_BLOBS = 3  # random maps of them
RANDOM_MAPS = _BLOBS + 1
"""How many `random_maps` there are."""
_CELLS = 7  # a side, of a random map: as coarse as what maps tell


@dataclass(frozen=True, eq=False)
class Curves:
    """What a unit says while a photograph's pixels are taken away, or put in, the most important first.

    Attributes:
        deletion, insertion: by share of the pixels, from 0 to 1, (steps + 1,).
    """

    deletion: NDArray[np.float32]
    insertion: NDArray[np.float32]

    @property
    def areas(self) -> tuple[float, float]:
        """Under the curve of deletion, the lower the better, and of insertion, the higher the better."""
        return area(self.deletion), area(self.insertion)


def area(curve: NDArray[np.float32]) -> float:
    """Under a curve over 0 to 1, by the trapezoidal rule."""
    values = curve.astype(np.float64)
    return float(((values[1:] + values[:-1]) / 2).mean())


def perturbation_curves(map_: FloatMap, explained: Explained, steps: int = CURVE_STEPS) -> Curves:
    """Deletion and insertion curves (Petsiuk et al. 2018, "RISE"), for a borrowed network.

    Deletion goes from the photograph to the baseline, insertion from the blurred photograph to the photograph.  What is
    measured is the probability of a class; of other units the response, less that to the baseline, over the response
    to the photograph, less the same.

    Args:
        map_: (height, width); pixels that are alike come in a random order.
    """
    draws = np.random.default_rng(explained.settings.seed).random(map_.size)
    order = torch.from_numpy(np.lexsort((draws, -map_.reshape(-1)))).to(explained.pixels.device)
    photograph = explained.pixels
    with torch.no_grad():
        deleted = _along(explained, photograph, explained.baseline, order, steps)
        inserted = _along(explained, blurred(photograph), photograph, order, steps)
        scale = _scale(explained)
    return Curves(scale.of(deleted), scale.of(inserted))


def _along(explained: Explained, start: Tensor, end: Tensor, order: Tensor, steps: int) -> Tensor:
    """What the unit says of images that go from `start` to `end`, pixel by pixel: (steps + 1,)."""
    count = len(order)
    found = []
    places = [round(count * step / steps) for step in range(steps + 1)]
    for begin in range(0, len(places), explained.settings.batch):
        images = []
        for place in places[begin : begin + explained.settings.batch]:
            changed = torch.zeros(count, dtype=torch.bool, device=order.device)
            changed[order[:place]] = True
            images.append(torch.where(changed.view(1, 1, *explained.size), end, start))
        found.append(_said(explained, torch.cat(images)))
    return torch.cat(found)


def _said(explained: Explained, pixels: Tensor) -> Tensor:
    """The probability of a class, or else the response: (rows,)."""
    probability = explained.response.probability(pixels)
    return (explained.response(pixels) if probability is None else probability).float().cpu()


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def of(self, values: Tensor) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = ((values - self.low) / (self.high - self.low)).numpy()
        return scaled


def _scale(explained: Explained) -> _Scale:
    if explained.response.probability(explained.pixels) is not None:
        return _Scale(0.0, 1.0)
    low, high = (float(explained.response(each)[0]) for each in (explained.baseline, explained.pixels))
    return _Scale(low, high) if abs(high - low) > 1e-12 else _Scale(low, low + 1.0)


def random_maps(size: tuple[int, int], seed: int) -> dict[str, list[FloatMap]]:
    """Maps of nothing, (height, width) each: chance, for what is compared with them.

    They are of blobs, for maps that are coarse, and of single pixels, for those that are fine: whatever takes pixels
    away here and there leaves fine patterns that dazzle a network, wherever they are.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = [min(_CELLS, side) for side in size]
    drawn = torch.rand((_BLOBS, 1, *cells), generator=generator)
    blobs = F.interpolate(drawn, size=size, mode="bicubic", align_corners=False)[:, 0]
    return {"blobs": [each.numpy() for each in blobs], "pixels": [torch.rand(size, generator=generator).numpy()]}


def rank_correlation(first: FloatMap, second: FloatMap) -> float | None:
    """Spearman's, of the sizes of two maps' values; None where one of them is the same everywhere."""
    one, other = (_ranks(np.abs(each).reshape(-1)) for each in (first, second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The place of each value in their order; of those that are alike the mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = counts.cumsum() - (counts - 1) / 2
    return means[places]


@contextmanager
def randomized_weights(network: Network, seed: int) -> Iterator[None]:
    """The borrowed network with each of its weights' tensors shuffled, until the end of the block.

    What tells a trained network from it is what it has learned, and not the size of its numbers (Adebayo et al. 2018,
    "Sanity Checks for Saliency Maps", where they are drawn anew).  Running statistics of normalization stay.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [each for each in network.module.parameters() if each.is_floating_point()]
    values = [each.data for each in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            flat = value.reshape(-1)
            order = torch.randperm(len(flat), generator=generator).to(value.device)
            parameter.data = flat[order].reshape(value.shape)
        yield
    finally:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value


def mean_areas(curves: Sequence[Curves]) -> tuple[float, float]:
    """Of several, under deletion and under insertion."""
    areas = [each.areas for each in curves]
    return sum(each[0] for each in areas) / len(areas), sum(each[1] for each in areas) / len(areas)
