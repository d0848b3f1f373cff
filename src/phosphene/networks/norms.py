"""The running statistics of batch normalizations: what went into them in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Norm(NamedTuple):
    """What goes into a batch normalization in training: its channels' means and deviations, (channels,).

    `sign` is -1 where the module's weight turns a channel round, so that less of it is more behind.
    """

    module: str
    mean: Tensor
    std: Tensor
    sign: Tensor


def find_norms(modules: Mapping[str, nn.Module], names: Iterable[str]) -> list[Norm]:
    """Those of the modules so called that have running statistics."""
    found = []
    for name in names:
        module = modules[name]
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor) and mean.ndim == 1:
            weight = getattr(module, "weight", None)
            sign = torch.ones_like(mean) if weight is None else weight.detach().sign()
            # Copies: of the same moment as the digest.
            found.append(Norm(name, mean.detach().clone(), variance.detach().clamp_min(1e-10).sqrt(), sign))
    return found
