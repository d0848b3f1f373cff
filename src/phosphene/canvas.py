"""The canvas: what an ascent starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import InputError
from phosphene.networks.preprocessing import Preprocessing
from phosphene.recipe import Start


def start_image(start: Start, preprocessing: Preprocessing, seed: int, given: Tensor | None) -> Tensor:
    """The first image of a row: (channels, height, width) in 0..255, RGB; drawn on the CPU, so alike on all devices.

    Args:
        start: the recipe's.
        preprocessing: gives the size, the number of channels and the mean image.
        seed: of the row's own generator.
        given: the image for a start of kind "image", as `as_pixels` makes it.

    Raises:
        InputError: the start is "image" and none is given, or one is given and not used.
    """
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    if (given is not None) != (start.kind == "image"):
        raise InputError(
            f"start.kind is {start.kind!r}: expected "
            + ("a start image" if given is None else "'image', since a start image is given")
        )
    generator = torch.Generator().manual_seed(seed)
    if start.kind == "gaussian":
        mean = torch.tensor(preprocessing.mean_pixels).view(-1, 1, 1)
        return mean + start.sigma * torch.randn(shape, generator=generator)
    if start.kind == "uniform":
        return start.low + (start.high - start.low) * torch.rand(shape, generator=generator)
    if start.kind == "grey":
        return torch.full(shape, 127.5)
    assert given is not None
    if given.shape != shape:
        raise InputError(f"a start image of shape {tuple(given.shape)}: expected {shape}, channels first")
    return given.clone()


def as_pixels(image: Any, preprocessing: Preprocessing) -> Tensor:
    """An image of the caller's as pixels of shape (channels, height, width) in 0..255.

    Args:
        image: a path or a PIL image, which is resized and cut to the network's size; or an array or a tensor of
            0..255 (rounded), channels first or last (or none for one channel), which must have that size.
        preprocessing: gives the size and the number of channels.

    Raises:
        InputError: the file is no image, or the array has another shape.
    """
    if isinstance(image, Image.Image):
        return preprocessing.photograph(image)
    if not isinstance(image, np.ndarray | Tensor):
        try:
            with Image.open(image) as opened:
                return preprocessing.photograph(opened)
        except FileNotFoundError:
            raise InputError(f"image {str(image)!r}: there is no such file") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"image {str(image)!r} cannot be read: it is no image file, or a damaged one") from error
    pixels = torch.as_tensor(image).detach().float().cpu()
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.shape != shape and pixels.ndim == 3:
        pixels = pixels.permute(2, 0, 1)
    if pixels.shape != shape:
        raise InputError(f"an image of shape {tuple(image.shape)}: expected {shape}, or channels last")
    return pixels.round().clamp(0, 255).contiguous()  # 8 bits, as a file holds them
