"""The receptive field of a layer: which pixels can reach a neuron of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from phosphene.networks.network import Network


def receptive_field(network: Network, layer: str) -> tuple[int, int]:
    """Height and width, in pixels, of what the middle neuron of a layer can see; at most the image.

    Measured, not computed from kernels and strides, so that it holds for any wiring: all weights are made positive,
    activations let everything through and maxima become means, so that no way from a pixel to the neuron is shut or
    cancelled; then the neuron's gradient is non-zero at just the pixels that it sees.

    Raises:
        InputError: there is no such layer, or it cannot be shown.
    """
    found = network.layer(layer)
    size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
    if len(found.positions) != 2:  # tokens and vectors see everything
        return size
    row, column = (length // 2 for length in found.positions)
    middle: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    device = network.device
    with network.borrowed(device), _LinearizedPass():
        for name, tensor in [*network.module.named_parameters(), *network.module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.data = _positive(name, tensor, generator)
        pixels = torch.full((1, network.preprocessing.channels, *size), 255.0, device=device, requires_grad=True)
        network.read(pixels, {layer: lambda output: middle.append(output[0, :, row, column].sum())})
        (gradient,) = torch.autograd.grad(middle[0], pixels)
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    height, width = _extent(rows, size[0]), _extent(columns, size[1])
    return height, width


def _extent(places: Tensor, length: int) -> int:
    """From the first to the last place; all of the image where they reach its edge, behind which there may be more."""
    if not len(places) or places[0] == 0 or places[-1] == length - 1:
        return length
    return int(places[-1] - places[0]) + 1


def _positive(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Weights that average what they are given, so that nothing grows or dies out with depth."""
    if tensor.ndim < 2:
        return torch.zeros_like(tensor) if "mean" in name or "bias" in name else torch.ones_like(tensor)
    weights = 0.5 + torch.rand(tensor.shape, generator=generator)
    return (weights / weights[0].numel()).to(tensor)


_CLOSING = {
    *(F.relu, F.relu6, F.hardtanh, F.hardswish, F.leaky_relu, F.prelu, F.elu, F.selu, F.celu, F.silu, F.gelu, F.mish),
    *(torch.relu, torch.relu_, torch.clamp, torch.clamp_, torch.prelu, torch.selu, torch.tanh),
    *(Tensor.relu, Tensor.relu_, Tensor.clamp, Tensor.clamp_, Tensor.tanh),
}
_POOLING = {F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices}


class _LinearizedPass(TorchFunctionMode):
    """Lets everything through activations, and means take the place of maxima."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if function in _CLOSING:
            return args[0]
        if function in _POOLING:
            return _mean_pool(*args, **kwargs)
        return function(*args, **kwargs)


def _mean_pool(
    images: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    return F.avg_pool2d(images, kernel_size, stride or kernel_size, padding, ceil_mode)
