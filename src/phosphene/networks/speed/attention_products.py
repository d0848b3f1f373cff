"""Attention in 16 bits on a CPU, as two matrix products with the softmax between them.

PyTorch's own kernel goes through the keys block by block, so that the weights of all pairs of tokens are never there at
once.  In bfloat16 on a CPU its backward pass takes two to three times as long as the plain products of Vaswani et al.
(2017), eq. 1, where these fit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MAX_WEIGHTS = 2**22
"""Weights of the pairs of tokens of one image, of all heads: they are kept for the backward pass."""


class AttentionProducts(TorchFunctionMode):
    """Within it, attention in bfloat16 on a CPU is computed by plain products, where it has no mask and no dropout."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function is F.scaled_dot_product_attention:
            found = plain_attention(*args, **(kwargs or {}))
            if found is not None:
                return found
        return function(*args, **(kwargs or {}))


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor | None:  # fmt: skip
    """As `scaled_dot_product_attention`; None where that is to do it itself."""
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        return None
    if not all(each.dtype == torch.bfloat16 and each.device.type == "cpu" for each in (query, key, value)):
        return None
    rows = query.shape[0] if query.ndim > 2 else 1  # or windows of rows, or heads of them: each counts alone
    if query.shape[:-2] != key.shape[:-2] or query.shape[:-1].numel() * key.shape[-2] > rows * MAX_WEIGHTS:
        return None
    found: Tensor = AttentionFunction.apply(query, key, value, query.shape[-1] ** -0.5 if scale is None else scale)
    return found


class AttentionFunction(torch.autograd.Function):
    """softmax(scale * query key^T) value; the scores have 32 bits, which the softmax needs of large ones."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        scores = (query.float() * scale) @ key.float().transpose(-1, -2)
        weights = scores.softmax(-1).to(value.dtype)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return weights @ value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights = ctx.saved_tensors
        of_weights = gradient @ value.transpose(-1, -2)
        of_scores = ctx.scale * torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        return of_scores @ key, of_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ gradient, None
