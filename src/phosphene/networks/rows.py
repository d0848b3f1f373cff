"""How the output of a module carries the rows of a batch: on which axis, and whether with something else."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CONSTANT = "it is the same for every image, or one output for all images together"
"""Why a module's output is no layer that can be shown."""

# So many numbers of each layer are compared.
_SAMPLE = 4096
# How far one image's may be off in company, as a share of their size: sums in another order make no more of it.
_OFF = {torch.float64: 1e-6, torch.float32: 2e-3}
_OFF_ELSE = 0.1  # in 16 bits


class RowLayout(NamedTuple):
    """How an output carries the rows.

    Attributes:
        axis: the one that they lie on.
        folded: whether something else (windows, tokens) lies on that axis as well.
        innermost: where it is folded, whether the rows change fastest along it.
    """

    axis: int = 0
    folded: bool = False
    innermost: bool = False


def to_rows_first(output: Tensor, rows: int, layout: RowLayout, channels_last: bool) -> Tensor:
    """A module's own output for so many images as (rows, channels, *positions).

    Raises:
        ValueError: it does not carry that many rows.
    """
    if layout.axis:
        output = output.movedim(layout.axis, 0)
    if not layout.folded:
        if len(output) != rows:
            raise ValueError(f"it gives {len(output)} rows for {rows} images")
        return output.movedim(-1, 1) if channels_last else output
    if len(output) % rows:
        raise ValueError(f"it gives {len(output)} rows for {rows} images")
    parts = len(output) // rows
    rest = output.shape[1:]
    output = (
        output.reshape(parts, rows, *rest).transpose(0, 1) if layout.innermost else output.reshape(rows, parts, *rest)
    )
    output = output.movedim(-1 if channels_last else 2, 1)
    return output.flatten(2) if output.ndim <= 4 else output  # windows of tokens are tokens


def shape_of_one(shape: tuple[int, ...], layout: RowLayout, channels_last: bool) -> tuple[int, ...]:
    """(channels, *positions) of an output that has this shape for one image."""
    return tuple(to_rows_first(torch.empty(shape, device="meta"), 1, layout, channels_last).shape[1:])


def find_row_layout(one: tuple[int, ...], sample: Tensor, together: Tensor) -> tuple[RowLayout | None, str]:
    """How an output for two images carries the rows, from the shape and a sample of that for the first of them alone.

    Beside it stands "mixed" where the first image gives other numbers in company, or why it carries none.
    """
    two = tuple(together.shape)
    if one == two:
        return None, CONSTANT
    axes = [axis for axis in range(len(one)) if two == (*one[:axis], 2 * one[axis], *one[axis + 1 :])]
    if not axes:
        return None, f"its output is {_shape(one)} for one image and {_shape(two)} for two, which is not twice as large"
    for axis in axes:
        length = one[axis]
        if not differ(sample, sample_of(together.narrow(axis, 0, length)), together.dtype):
            return RowLayout(axis, length > 1), ""
        alternate = together.movedim(axis, 0)[0::2].movedim(0, axis)
        if length > 1 and not differ(sample, sample_of(alternate), together.dtype):
            return RowLayout(axis, True, True), ""
    return RowLayout(axes[0], one[axes[0]] > 1), "mixed"


def guess_row_layout(shape: tuple[int, ...]) -> RowLayout:
    """How one image's output of this shape carries its row, where that could not be tried."""
    if shape[0] == 1:
        return RowLayout()
    return RowLayout(1) if len(shape) == 3 and shape[1] == 1 else RowLayout(0, True)


def sample_of(tensor: Tensor) -> Tensor:
    """Some numbers from all over a tensor, which depend on its shape and numbers alone."""
    sides = max(1, tensor.ndim)
    most = max(2, math.ceil(_SAMPLE ** (1 / sides)))
    for axis in range(tensor.ndim):  # views: maps with their channels last in memory are not copied
        tensor = tensor[(slice(None),) * axis + (slice(None, None, max(1, tensor.shape[axis] // most)),)]
    return tensor.detach().reshape(-1).double().cpu()


def differ(first: Tensor, second: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether two samples differ by more than sums in another order make."""
    if first.shape != second.shape:
        return True
    if not (first.isfinite().all() and second.isfinite().all()):
        return bool((first.isnan() != second.isnan()).any())
    return bool((first - second).norm() > _OFF.get(dtype, _OFF_ELSE) * first.norm().clamp_min(1e-12))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
