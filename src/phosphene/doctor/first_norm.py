"""Whether a network's input is in the right range, as its first batch norm tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from phosphene.doctor.diagnostics import Diagnostic
from phosphene.doctor.preprocessings import DECLARED, candidates
from phosphene.networks.network import Network

# How far the statistics of the first batch norm may be from those in training, as a divergence in nats.  Those of
# EfficientNet-lite 0 to 2 are 0.02 to 0.05 with the right preprocessing, and 0.37 or more in another range.
_NORM_FITS, _NORM_FITS_NOT = 0.2, 0.3


def check_first_norm(network: Network, pixels: Tensor) -> Iterator[Diagnostic]:
    """Whether the first batch norm sees the mean and variance that it saw in training, which tells the range.

    It does not tell the order of the channels: swapped, photographs have nearly the same statistics.
    """
    norms = [layer.name for layer in network.layers if isinstance(_module(network, layer.name), _BatchNorm)]
    if not norms or not has_learned_statistics(_module(network, norms[0])):
        return
    order = network.preprocessing.channel_order
    tried = {name: each for name, each in candidates(network.preprocessing).items() if each.channel_order == order}
    divergences = {
        name: _divergence(network.replace(preprocessing=each), norms[0], pixels) for name, each in tried.items()
    }
    best = min(divergences, key=lambda name: divergences[name])
    if divergences[DECLARED] <= _NORM_FITS_NOT:
        text = "the first batch norm sees what it saw in training: the range is right (the channels' order is not told)"
        yield Diagnostic("range", "ok", text)
    elif divergences[best] <= _NORM_FITS:
        text = (
            "the first batch norm sees other values than in training: the range is wrong, and that of "
            f"{tried[best].describe()} fits (the channels' order is not told: labeled photographs tell it)"
        )
        yield Diagnostic("range", "warning", text)
    else:
        text = "the first batch norm sees other values than in training, and would under every usual preprocessing"
        yield Diagnostic("range", "note", text)


def has_learned_statistics(norm: Any) -> bool:
    """Whether a batch norm's running statistics are other than as it is made."""
    if norm.running_mean is None:
        return False
    return bool(norm.running_mean.any()) or not bool((norm.running_var == 1).all())


def _divergence(network: Network, layer: str, pixels: Tensor) -> float:
    """Of what a batch norm receives from what it received in training, as Gaussians: the channels' median."""
    norm: Any = _module(network, layer)
    received: list[Tensor] = []
    network.ending  # noqa: B018 - this sends an image through, once, and is not to be listened to
    hook = norm.register_forward_pre_hook(lambda module, inputs: received.append(inputs[0]))
    try:
        with torch.no_grad():
            network.read(pixels, {layer: lambda output: None})
    finally:
        hook.remove()
    values = received[0].transpose(0, 1).flatten(1).double()  # (channels, rows * positions)
    mean, variance = values.mean(1), values.var(1).clamp_min(1e-12)
    trained_mean, trained_variance = norm.running_mean.double(), norm.running_var.double().clamp_min(1e-12)
    ratio = variance / trained_variance
    divergence = (ratio - 1 - ratio.log() + (mean - trained_mean) ** 2 / trained_variance) / 2
    lively = trained_variance > 1e-3 * trained_variance.median()
    return float(divergence[lively].median())


def _module(network: Network, layer: str) -> nn.Module:
    return network.module.get_submodule(network.call(layer)[0])
