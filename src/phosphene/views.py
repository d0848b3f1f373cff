"""Views: random transforms of the image before it enters the network, so that it holds up under all of them.

Every row draws from its own generator, so a row's views do not depend on its batchmates.  All that moves the image
(crop, scale, rotation, flip, jitter, border) is one affine map, and so one resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.recipe import Views

_GREY = 127.5


def view(
    images: Tensor,
    settings: Views | Sequence[Views],
    generators: Sequence[torch.Generator],
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Views of images, as a network is shown them.

    Args:
        images: (rows, channels, height, width) in 0..255.
        settings: what is drawn, and from where to where; for all, or one for each row, of as many views, and all or
            none of them resampled and with a border.
        generators: of each row, on the CPU.
        size: height and width of the views; by default the images'.

    Returns:
        (views * rows, channels, *size): all rows' first views, then all rows' second ones; differentiable.
    """
    of_rows = [settings] * len(generators) if isinstance(settings, Views) else settings
    first = settings if isinstance(settings, Views) else settings[0]
    within = (images.shape[-2], images.shape[-1])
    drawn = [draw(own, generator, within) for own, generator in zip(of_rows, generators, strict=False)]
    channels = images.shape[1]
    size = size or within
    if first.affine:
        theta = torch.stack(drawn).to(images)  # (rows, views, 2, 3)
        seen = torch.cat([_resampled(images, theta[:, i], size, bool(first.pad)) for i in range(first.count)])
    else:
        seen = resized(images, size).repeat(first.count, 1, 1, 1)
    if any(own.colour for own in of_rows):
        shape = (first.count, 2, channels, 1, 1)
        change = _together(_change, of_rows, generators, shape).to(images)
        seen = (seen - _GREY) * (1 + change[:, 0]) + _GREY * (1 + change[:, 1])
    if any(own.noisy for own in of_rows):
        seen = seen + _together(_noise, of_rows, generators, (first.count, channels, *size)).to(images)
    return seen


def draw(settings: Views, generator: torch.Generator, size: tuple[int, int]) -> Tensor:
    """One row's affine maps, (views, 2, 3): from the view's coordinates to the image's, as `affine_grid` takes them.

    Nothing is drawn where the image is not moved.
    """
    if not settings.affine:
        return torch.zeros(settings.count, 2, 3)
    height, width = size
    side, angle, mirror, zoom, *place = torch.rand((8, settings.count), generator=generator).unbind()
    low, high = settings.crop
    crop = (low + (high - low) * side).sqrt()  # the share of a side that is seen
    radians = math.radians(settings.rotate) * (2 * angle - 1)
    low, high = settings.scale
    share = crop / (low + (high - low) * zoom)
    across, down = (2 * place[0] - 1) * (1 - crop), (2 * place[1] - 1) * (1 - crop)
    across = across + (2 * place[2] - 1) * settings.jitter * 2 / width
    down = down + (2 * place[3] - 1) * settings.jitter * 2 / height
    flip = torch.where(mirror < 0.5, -1.0, 1.0) if settings.flip else torch.ones(settings.count)
    border_x, border_y = 1 + 2 * settings.pad / width, 1 + 2 * settings.pad / height
    cos, sin = radians.cos(), radians.sin()
    # Rotation is by pixels: in coordinates of -1..1 it stretches where the image is no square.
    first = torch.stack([share * border_x * cos * flip, -share * border_y * sin * height / width, across], dim=1)
    second = torch.stack([share * border_x * sin * flip * width / height, share * border_y * cos, down], dim=1)
    return torch.stack([first, second], dim=1)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The images at another height and width; as they are where that is theirs."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def _resampled(images: Tensor, theta: Tensor, size: tuple[int, int], border: bool) -> Tensor:
    grid = F.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    if not border:
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return F.grid_sample(images - _GREY, grid, padding_mode="zeros", align_corners=False) + _GREY


def _change(settings: Views, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """By what share one row's channels differ in contrast and brightness, (views, 2, channels, 1, 1)."""
    if not settings.colour:
        return torch.zeros(shape)
    return settings.colour * (2 * torch.rand(shape, generator=generator) - 1)


def _noise(settings: Views, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """One row's noise, (views, channels, height, width); every view's has a deviation of its own."""
    if not settings.noisy:
        return torch.zeros(shape)
    low, high = settings.noise
    deviations: float | Tensor = low
    if low < high:
        deviations = low + (high - low) * torch.rand((shape[0], 1, 1, 1), generator=generator)
    return deviations * torch.randn(shape, generator=generator)


def _together(
    draw: Callable[[Views, tuple[int, ...], torch.Generator], Tensor],
    settings: Sequence[Views],
    generators: Sequence[torch.Generator],
    shape: tuple[int, ...],
) -> Tensor:
    """What is drawn for each row, which has so many views: (views * rows, …)."""
    drawn = [draw(own, shape, generator) for own, generator in zip(settings, generators, strict=False)]
    return torch.stack(drawn, dim=1).flatten(0, 1)
