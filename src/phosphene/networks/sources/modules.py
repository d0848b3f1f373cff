"""Operations that networks of several formats are made of, as torch modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Concatenation; what is the same for all rows, such as a class token, is repeated for each."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        if self.axis not in (0, -tensors[0].ndim):
            rows = max(len(tensor) for tensor in tensors)
            tensors = tuple(tensor.expand(rows, *tensor.shape[1:]) for tensor in tensors)
        return torch.cat(tensors, self.axis)
