"""Images as 8 bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.ascent.evaluator import RowSettings
from phosphene.ascent.image_state import ImageState, canvas_images
from phosphene.pixels import filters
from phosphene.pixels.resampling import resize
from phosphene.recipes.settings import OutputSettings


def to_bytes(image: Tensor, rounding: str = "nearest") -> Tensor:
    """(channels, height, width) in 0..255 to 8 bits (height, width, channels), on the CPU."""
    image = image.detach().nan_to_num(nan=127.5).clamp(0, 255)
    image = image.floor() if rounding == "down" else image.round()
    return image.to(torch.uint8).movedim(0, -1).contiguous().cpu()


def final_bytes(image: Tensor, keep: OutputSettings) -> Tensor:
    """As `to_bytes`, with the contrast and the rounding that a recipe asks for."""
    return to_bytes(_adjust_contrast(image, keep.contrast), keep.rounding)


def _adjust_contrast(image: Tensor, contrast: float) -> Tensor:
    """The image about mid-gray, with a standard deviation of `contrast` of the range (Chollet 2016)."""
    if not contrast:
        return image
    return 127.5 + (image - image.mean()) / (image.std() + 1e-5) * contrast * 255


def at_full_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (channels, height, width) at the final size."""
    return resize(image[None], size)[0]


def current_pixels(row: ImageState, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A row's image as it stands, 8 bits, (height, width, channels)."""
    with torch.no_grad():
        image = at_full_size(canvas_images([row], row.parameters.data[None])[0].clamp(0, 255), size)
    pixels: NDArray[np.uint8] = final_bytes(image, row.recipe.keep).numpy()
    return pixels


def opacity(row: ImageState, size: tuple[int, int]) -> Tensor | None:
    """How opaque each pixel of a finished image is: (height, width) in 8 bits, on the CPU.

    A pixel that the objective cared for less than for the median one is as transparent as it cared less; Fel et al.
    2023 sum the size of the gradient over the steps alike.
    """
    if row.importance is None:
        return None
    cared = filters.gaussian_blur(at_full_size(row.importance[None], size)[None], max(size) / 100)[0, 0]
    middle = cared.median().clamp_min(1e-30)
    low = cared.flatten().kthvalue(max(1, cared.numel() // 50)).values
    share = ((cared - low) / (middle - low).clamp_min(1e-30)).clamp(0, 1)
    return (share * 255).round().to(torch.uint8).cpu()


def final_image(row: ImageState, image: Tensor, clipped: Tensor, size: tuple[int, int]) -> Tensor:
    """The image of a stopped row that the recipe keeps, as 8 bits (height, width, channels)."""
    rule = row.recipe.keep.rule
    kept = clipped if rule == "clipped" else image
    if rule == "best":
        settings = RowSettings(recipes=[row.recipe], facets=[row.facet])
        value = row.compiled.evaluator([row.unit], clipped[None], [row.generator], settings).values.item()
        kept = row.best_image if row.best_image is not None and not value > row.best else clipped
    return final_bytes(at_full_size(kept, size), row.recipe.keep)
