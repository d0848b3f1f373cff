"""From the blobs that Caffe keeps for a layer to the parameters of its module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from phosphene.networks.sources.caffe.modules import InnerProduct, Scale
from phosphene.networks.sources.caffe.wire import FloatArray

Shape = tuple[int, ...]


def blob_shapes(module: nn.Module) -> list[Shape]:
    """The shapes of the blobs that Caffe keeps for a layer, in its order."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return [(module.num_features,), (module.num_features,), (1,)]
    shapes = [tuple(parameter.shape) for parameter in module.parameters(recurse=False)]
    if isinstance(module, InnerProduct) and module.transposed:
        shapes[0] = shapes[0][::-1]
    return shapes


def same_shape(blob: Shape, expected: Shape) -> bool:
    """Whether a blob has the shape, up to the axes of one by which old files make every blob 4-dimensional."""
    if len(expected) == 1:
        return math.prod(blob) == expected[0]
    return _bare(blob) == _bare(expected)


def _bare(shape: Shape) -> Shape:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def fill(module: nn.Module, arrays: Sequence[FloatArray]) -> None:
    """Put a layer's blobs, float32 and ours alone, into its module."""
    tensors = [torch.from_numpy(array.reshape(shape)) for array, shape in zip(arrays, blob_shapes(module), strict=True)]
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        mean, variance, count = tensors
        # Both are sums in which newer batches weigh more, and the third is the sum of these weights.
        factor = 0.0 if float(count) == 0 else 1 / float(count)
        module.running_mean, module.running_var = mean * factor, variance * factor
        module.num_batches_tracked = torch.tensor(0)
        return
    if isinstance(module, InnerProduct) and module.transposed:
        tensors[0] = tensors[0].T.contiguous()
    for (name, _), tensor in zip(list(module.named_parameters(recurse=False)), tensors, strict=True):
        setattr(module, name, nn.Parameter(tensor))


def initialize(module: nn.Module) -> None:
    """Fill a module as at the beginning of a training (He et al. 2015)."""
    module.to_empty(device="cpu", recurse=False)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.reset_parameters()
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Scale) and module.weight is not None:
        nn.init.ones_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.PReLU):
        nn.init.constant_(module.weight, 0.25)
