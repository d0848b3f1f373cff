"""Maps over the photograph that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from phosphene.draw.grid import tile
from phosphene.pixels.filters import gaussian_blur
from phosphene.planes import to_pil

SHOWN = 224  # pixels: smaller photographs are enlarged to about this
_STRONGEST = 0.99  # what is beyond this share of the values is as strong
_FAINT = 0.35  # how much of the photograph's light is left where the map is 0


def photograph_image(photograph: NDArray[np.uint8]) -> Image.Image:
    """A photograph (height, width, channels) as it is shown, enlarged where it is small."""
    image = plain_image(photograph)
    factor = max(1, round(SHOWN / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def plain_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels (height, width, channels) in color; of other than three channels their mean in gray."""
    gray = pixels.mean(axis=-1, keepdims=True).round().astype(np.uint8)
    return to_pil(pixels if pixels.shape[-1] == 3 else gray).convert("RGB")


def map_sheet(photograph: NDArray[np.uint8], maps: Mapping[str, NDArray[np.float32]], smoothing: float) -> Image.Image:
    """The photograph, and each map over it, with its name."""
    shown = photograph_image(photograph)
    images = [shown, *(overlay(shown, values, smoothing) for values in maps.values())]
    return tile(images, ["photograph", *maps], columns=min(len(images), 6))


def overlay(image: Image.Image, values: NDArray[np.float32], smoothing: float) -> Image.Image:
    """A map over a photograph in gray: orange where the unit gains by what is there, blue where it loses.

    The hundredth of the pixels that has the largest values is as strong as can be.

    Args:
        values: (height, width), of the photograph before it was enlarged, or coarser.
        smoothing: a Gaussian's standard deviation, as a share of the shorter side.
    """
    smooth: NDArray[Any] = values.astype(np.float32)
    if smoothing and min(smooth.shape) > 1:
        sigma = max(0.3, smoothing * min(smooth.shape))
        smooth = gaussian_blur(torch.from_numpy(smooth.copy())[None, None], sigma)[0, 0].numpy()
    enlarged = Image.fromarray(smooth).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.asarray(enlarged)
    strongest = float(np.quantile(np.abs(strength), _STRONGEST)) or float(np.abs(strength).max())
    share = (strength / strongest if strongest else strength * 0).clip(-1, 1)[..., None]
    gray = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2)
    faint = 255 - (255 - gray) * _FAINT
    color = np.where(share > 0, np.array(_GAIN, np.float32), np.array(_LOSS, np.float32))
    weight = np.abs(share) * 0.75
    blended = faint * (1 - np.abs(share)) + (gray * (1 - weight) + color * weight) * np.abs(share)
    return Image.fromarray(blended.clip(0, 255).round().astype(np.uint8))


_GAIN, _LOSS = (255, 106, 0), (0, 92, 230)
