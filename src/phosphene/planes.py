"""Images of any number of channels as image files hold them: two or more than four as gray planes side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """(height, width, channels) to a PIL image."""

    channels = pixels.shape[-1]
    if channels in (3, 4):
        return Image.fromarray(pixels)
    return Image.fromarray(np.concatenate([pixels[..., i] for i in range(channels)], axis=1))


def from_pil(image: Image.Image, channels: int) -> NDArray[np.uint8] | None:
    """What `to_pil` made an image of, (height, width, channels), without any transparency; None if it cannot be."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and channels in (1, 3):
        pixels = pixels[..., :channels]
    elif pixels.ndim == 2 and pixels.shape[1] % channels == 0:
        pixels = np.stack(np.split(pixels, channels, axis=1), axis=-1)
    fits = pixels.ndim == 3 and pixels.shape[-1] == channels and pixels.dtype == np.uint8
    return pixels if fits else None


def plane_width(image: Image.Image, channels: int) -> int:
    """The width of what `to_pil` made an image of."""
    return image.width // channels if channels == 2 or channels > 4 else image.width
