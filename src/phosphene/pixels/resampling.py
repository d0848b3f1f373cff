"""Images at other sizes and in other places."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

MID_GRAY = 127.5


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The images at another height and width; as they are where that is theirs."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def resample(images: Tensor, theta: Tensor, size: tuple[int, int], border: bool) -> Tensor:
    grid = F.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    if not border:
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return F.grid_sample(images - MID_GRAY, grid, padding_mode="zeros", align_corners=False) + MID_GRAY
