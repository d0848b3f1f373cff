"""Image filters, done on the device where the images are.

All take images of shape (rows, channels, height, width) and any range of values, and mirror the image at its edges
with the edge pixel repeated (``d c b a | a b c d | d c b a``, the default ``mode="reflect"`` of SciPy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

MEDIAN_SIZES = (3, 5, 7)


def reflect_pad(images: Tensor, margin: int) -> Tensor:
    """The images with `margin` more pixels on every side, mirrored.  (r, c, h, w) -> (r, c, h + 2m, w + 2m)."""
    for axis in (-2, -1):
        length = images.shape[axis]
        index = torch.arange(-margin, length + margin, device=images.device) % (2 * length)
        images = images.index_select(axis, torch.minimum(index, 2 * length - 1 - index))
    return images


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with standard deviation `sigma` pixels, cut off at four of them.

    Equal to ``scipy.ndimage.gaussian_filter`` over the two image axes.  Shape in, shape out.
    """
    radius = max(1, int(4 * sigma + 0.5))
    bell = torch.exp(-0.5 * (torch.arange(radius + 1, dtype=torch.float64) / sigma) ** 2)
    weights = (bell / (2 * bell.sum() - bell[0])).tolist()  # from the middle outwards
    return _each(lambda image: _blur_axis(_blur_axis(reflect_pad(image, radius), weights, -1), weights, -2), images)


def _blur_axis(image: Tensor, weights: list[float], axis: int) -> Tensor:
    radius = len(weights) - 1
    length = image.shape[axis] - 2 * radius
    result = image.narrow(axis, radius, length) * weights[0]
    for i, weight in enumerate(weights[1:], start=1):
        result.add_(image.narrow(axis, radius - i, length), alpha=weight)
        result.add_(image.narrow(axis, radius + i, length), alpha=weight)
    return result


def median(images: Tensor, size: int) -> Tensor:
    """Median over squares of `size` by `size` pixels, channel by channel.  Shape in, shape out.

    Equal to ``scipy.ndimage.median_filter``, by a network of comparators, each an operation on many pixels.  OpenCV's
    takes a quarter of the time on a CPU, and makes a step 1 to 3 % shorter (docs/performance.md).

    Raises:
        ValueError: `size` is not 3, 5 or 7.
    """
    if size not in MEDIAN_SIZES:
        raise ValueError(f"median size {size}: expected one of {', '.join(map(str, MEDIAN_SIZES))}")
    padded, height = reflect_pad(images, size // 2), images.shape[-2]
    if images.device.type != "cpu":
        return _median_planes(padded, size)
    rows = max(1, _STRIP // (images.shape[1] * padded.shape[-1]))
    strips = [[image[:, i : i + rows + size - 1] for i in range(0, height, rows)] for image in padded]
    return torch.stack([torch.cat([_median_planes(strip, size) for strip in each], dim=-2) for each in strips])


_STRIP = 30_000  # pixels at once on a CPU: they stay in the cache, and torch does not share out so few among threads


def _each(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The function over all images at once, or on the CPU over one at a time, so that it stays in the cache."""
    if images.device.type != "cpu":
        return function(images)
    return torch.stack([function(image) for image in images])


def _median_planes(padded: Tensor, size: int) -> Tensor:
    """(…, h + size - 1, w + size - 1) -> (…, h, w)."""
    # Each column of a square is sorted once for all the squares it is part of, each two neighboring columns are
    # merged once for all places they are used at, and the median is selected from the merged columns.
    height, width = (side - size + 1 for side in padded.shape[-2:])
    sort, merge, select = _median_networks(size)
    columns = _run(sort, [padded[..., i : i + height, :] for i in range(size)])
    pairs = _run(merge, [p[..., :-1] for p in columns] + [p[..., 1:] for p in columns])
    square = [p[..., i : i + width] for i in range(0, size - 1, 2) for p in pairs]
    square += [p[..., size - 1 : size - 1 + width] for p in columns]
    return _run(select, square)[0]


@dataclass(frozen=True)
class _SortingNetwork:
    """Comparators (low, high, keep_low, keep_high), each putting two values in order, and the places of the result."""

    comparators: tuple[tuple[int, int, bool, bool], ...]
    output: tuple[int, ...]


def _run(network: _SortingNetwork, values: list[Tensor]) -> list[Tensor]:
    values = list(values)
    for low, high, keep_low, keep_high in network.comparators:
        a, b = values[low], values[high]
        if keep_low:
            values[low] = torch.minimum(a, b)
        if keep_high:
            values[high] = torch.maximum(a, b)
    return [values[place] for place in network.output]


@lru_cache
def _median_networks(size: int) -> tuple[_SortingNetwork, _SortingNetwork, _SortingNetwork]:
    """Networks that sort a column, merge two sorted columns, and select the median of merged pairs and one column."""
    lengths = [2 * size] * (size // 2) + [size]
    ends = list(accumulate(lengths))
    lists = [list(range(end - length, end)) for length, end in zip(lengths, ends, strict=True)]
    comparators: list[tuple[int, int]] = []
    order = lists[0]
    for places in lists[1:]:
        more, order = _merge_network(order, places)
        comparators += more
    middle = order[len(order) // 2]
    return (
        _network(*_sort_network(list(range(size)))),
        _network(*_merge_network(list(range(size)), list(range(size, 2 * size)))),
        _network(comparators, [middle]),
    )


def _sort_network(places: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Batcher's merge sort: the comparators, and the places in sorted order."""
    if len(places) < 2:
        return [], places
    half = len(places) // 2
    (first, a), (second, b) = _sort_network(places[:half]), _sort_network(places[half:])
    merge, order = _merge_network(a, b)
    return first + second + merge, order


def _merge_network(a: list[int], b: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Batcher's odd-even merge (Knuth, TAOCP 5.3.4) of two sorted lists of places: comparators and sorted order."""
    if not a or not b:
        return [], a + b
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], a + b
    (even, evens), (odd, odds) = _merge_network(a[0::2], b[0::2]), _merge_network(a[1::2], b[1::2])
    last = list(zip(odds, evens[1:], strict=False))
    order = [evens[0], *(place for pair in last for place in pair), *odds[len(last) :], *evens[len(last) + 1 :]]
    return even + odd + last, order


def _network(comparators: list[tuple[int, int]], output: list[int]) -> _SortingNetwork:
    """Only the comparators, and only their ends, that the output depends on."""
    needed = set(output)
    kept = []
    for low, high in reversed(comparators):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return _SortingNetwork(tuple(reversed(kept)), tuple(output))
