"""What a latent is computed from: one row of an encoder, and how pre-activations become latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import InputError

Kind = Literal["relu", "jumprelu", "topk"]
Normalization = Literal["none", "layer_norm", "constant_norm_rescale"]
KINDS: tuple[str, ...] = get_args(Kind)
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)


def normalize(inputs: Tensor, kind: str) -> Tensor:
    """Activations (…, width) as an encoder is fed them.

    "layer_norm" takes the mean off each vector and divides by its standard deviation (n - 1) plus 1e-5;
    "constant_norm_rescale" makes each vector's length the square root of the width: both as SAELens and Prisma do it.
    """
    if kind == "layer_norm":
        centered = inputs - inputs.mean(-1, keepdim=True)
        return centered / (centered.std(-1, keepdim=True) + 1e-5)
    if kind == "constant_norm_rescale":
        lengths: Tensor = inputs.norm(dim=-1, keepdim=True)
        inputs = inputs * inputs.shape[-1] ** 0.5 / lengths.clamp_min(1e-12)
    return inputs


@dataclass(frozen=True)
class EncoderRow:
    """One latent's part of an encoder: its pre-activation is `weights · normalize(input) + bias`.

    Attributes:
        weights: (width,).
        bias: with what a decoder's bias, subtracted first, makes of it.
        normalization: what is done to the input first; see `normalize`.
        kind: what makes the latent of pre-activations.
        threshold: above which the latent of a "jumprelu" is on.
        k: of a "topk", how many latents are on at a time: which, all of them decide.
    """

    weights: tuple[float, ...] = field(repr=False)
    bias: float
    normalization: str = "none"
    kind: str = "relu"
    threshold: float = 0.0
    k: int = 0

    def pre_activation(self, inputs: Tensor) -> Tensor:
        """Of vectors (…, width): (…)."""
        weights = torch.tensor(self.weights, device=inputs.device, dtype=inputs.dtype)
        return normalize(inputs, self.normalization) @ weights + self.bias

    def plain(self) -> dict[str, Any]:
        """All but the weights, as plain data; what is at its default is left out."""
        default = EncoderRow((), 0.0)
        names = ("bias", "normalization", "kind", "threshold", "k")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}

    @classmethod
    def of(cls, weights: Any, plain: Mapping[str, Any], origin: str) -> EncoderRow:
        """What `plain` wrote, with the weights.

        Raises:
            InputError: a value cannot be.
        """
        found = cls(tuple(np.asarray(weights, np.float32).tolist()), **{"bias": 0.0, **plain})
        finite = all(abs(number) < 1e30 for number in (found.bias, found.threshold))
        if found.normalization not in NORMALIZATIONS or found.kind not in KINDS or not finite or found.k < 0:
            raise InputError(f"{origin} is damaged: expected what phosphene writes of a latent")
        return found
