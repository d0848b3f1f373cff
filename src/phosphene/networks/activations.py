"""What layers return for images, kept as tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import InputError
from phosphene.images import read_image
from phosphene.networks.forward import Forward, Reader
from phosphene.networks.preprocessing import Preprocessing

Images = Tensor | Iterable[Image.Image | str | os.PathLike[str]]
"""Pixels (n, channels, height, width) in 0..255, RGB, or photographs: PIL's images, or files of them."""


def pixel_batches(images: Images, preprocessing: Preprocessing, batch: int) -> Iterator[Tensor]:
    """Pixels (rows, channels, height, width) in 0..255, so many rows at a time; photographs as the network sees them.

    Raises:
        InputError: a tensor has another shape, a photograph cannot be read, or there is none.
    """
    if batch < 1:
        raise InputError(f"batch {batch}: expected 1 image at a time or more")
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != preprocessing.channels or not len(images):
            raise InputError(
                f"images of shape {tuple(images.shape)}: expected (n, {preprocessing.channels}, height, width)"
            )
        yield from torch.split(images if images.is_floating_point() else images.float(), batch)
        return
    if isinstance(images, str | os.PathLike | Image.Image):
        raise InputError("one image: expected a list of images, of files of them, or a tensor")
    photographs = iter(images)
    while rows := [_photograph(image, preprocessing) for image in islice(photographs, batch)]:
        yield torch.stack(rows)


def _photograph(image: Image.Image | str | os.PathLike[str], preprocessing: Preprocessing) -> Tensor:
    if isinstance(image, str | os.PathLike):
        image = read_image(image)
    elif not isinstance(image, Image.Image):
        raise InputError(f"an image of type {type(image).__name__}: expected PIL's, a file, or all images as a tensor")
    return preprocessing.photograph(image)


def read_batch(forward: Forward, pixels: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """What each layer, or `layers.LOGITS`, returns for one batch: (rows, channels, *positions), by its name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Reader:
        return lambda output: found.update({name: output.clone()})  # what comes after may work in place

    forward.read(pixels, {name: keep(name) for name in layers}, {})
    return found
