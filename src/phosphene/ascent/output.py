"""Images as 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.recipes.schema import OutputSettings


def to_bytes(image: Tensor, rounding: str = "nearest") -> Tensor:
    """(channels, height, width) in 0..255 to 8 bits (height, width, channels), on the CPU."""
    image = image.detach().nan_to_num(nan=127.5).clamp(0, 255)
    image = image.floor() if rounding == "down" else image.round()
    return image.to(torch.uint8).movedim(0, -1).contiguous().cpu()


def final_bytes(image: Tensor, keep: OutputSettings) -> Tensor:
    """As `to_bytes`, with the contrast and the rounding that a recipe asks for."""
    return to_bytes(_adjust_contrast(image, keep.contrast), keep.rounding)


def _adjust_contrast(image: Tensor, contrast: float) -> Tensor:
    """The image about mid-grey, with a standard deviation of `contrast` of the range (Chollet 2016)."""
    if not contrast:
        return image
    return 127.5 + (image - image.mean()) / (image.std() + 1e-5) * contrast * 255
