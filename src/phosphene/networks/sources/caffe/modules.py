"""What Caffe's layers compute that torch has no module for."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InnerProduct(nn.Linear):
    """A fully connected layer.  Flattens its input from `axis` on; weights (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int, bias: bool, axis: int, transposed: bool):
        super().__init__(inputs, outputs, bias)
        self.axis, self.transposed = axis, transposed  # transposed: whether the file has (inputs, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(self.axis))


class WithinChannelLRN(nn.Module):
    """Divides by (1 + alpha * mean of squares in a size x size window of the same channel) ** beta."""

    def __init__(self, size: int, alpha: float, beta: float):
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, maps: Tensor) -> Tensor:
        squares = F.avg_pool2d(maps * maps, self.size, stride=1, padding=self.size // 2)
        return maps / (1 + self.alpha * squares) ** self.beta


class Slice(nn.Module):
    """Cuts along an axis; gives a tuple."""

    def __init__(self, axis: int, lengths: Sequence[int]):
        super().__init__()
        self.axis, self.lengths = axis, list(lengths)

    def forward(self, blob: Tensor) -> tuple[Tensor, ...]:
        return torch.split(blob, self.lengths, self.axis)


class Eltwise(nn.Module):
    """The product, the sum with coefficients, or the maximum of several blobs, number by number."""

    def __init__(self, operation: str, coefficients: Sequence[float]):
        super().__init__()
        self.operation, self.coefficients = operation, tuple(coefficients)

    def forward(self, *blobs: Tensor) -> Tensor:
        if self.operation == "PROD":
            return functools.reduce(operator.mul, blobs)
        if self.operation == "MAX":
            return functools.reduce(torch.maximum, blobs)
        terms = [blob if c == 1 else blob * c for blob, c in zip(blobs, self.coefficients, strict=True)]
        return functools.reduce(operator.add, terms)


class Scale(nn.Module):
    """Multiplies each channel by a number and adds one; or multiplies by a second blob, over all axes it lacks."""

    def __init__(self, channels: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if channels else None
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, blob: Tensor, factor: Tensor | None = None) -> Tensor:
        if factor is not None:
            return blob * factor.reshape(factor.shape + (1,) * (blob.ndim - factor.ndim))
        assert self.weight is not None
        shape = (1, -1) + (1,) * (blob.ndim - 2)
        scaled = blob * self.weight.view(shape)
        return scaled if self.bias is None else scaled + self.bias.view(shape)


class Power(nn.Module):
    """(shift + scale * x) ** power."""

    def __init__(self, power: float, scale: float, shift: float):
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, blob: Tensor) -> Tensor:
        blob = self.shift + self.scale * blob
        return blob if self.power == 1 else blob**self.power


class Reshape(nn.Module):
    """Other axes for the same numbers: 0 keeps an axis, -1 is what is left; the rows stay."""

    def __init__(self, axes: Sequence[int], start: int, count: int):
        super().__init__()
        self.axes, self.start, self.count = tuple(axes), start, count

    def forward(self, blob: Tensor) -> Tensor:
        start = self.start if self.start >= 0 else blob.ndim + self.start + 1
        end = blob.ndim if self.count < 0 else start + self.count
        axes = [blob.shape[start + index] if axis == 0 else axis for index, axis in enumerate(self.axes)]
        if start == 0 and axes and axes[0] > 0:
            axes[0] = blob.shape[0]
        return blob.reshape(*blob.shape[:start], *axes, *blob.shape[end:])


class Permute(nn.Module):
    """The axes in another order, the rows first."""

    def __init__(self, order: Sequence[int]):
        super().__init__()
        self.order = tuple(order)

    def forward(self, blob: Tensor) -> Tensor:
        return blob.permute(self.order)
