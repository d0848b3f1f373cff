"""Views: random transforms of the image before it enters the network, so that it holds up under all of them.

Every row draws from its own generator, so a row's views do not depend on its batchmates.  All that moves the image
(crop, scale, rotation, flip, jitter, border) is one affine map, and so one resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from phosphene.recipes.section import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Transforms(Section):
    """Random transforms of the image before it enters the network, drawn anew for each row, view and step."""

    count: int = Field(1, ge=1, le=1024, description="views of an image a step; the objective is their mean")
    crop: tuple[float, float] = Field((1.0, 1.0), description="share of the area that is seen: from, to")
    scale: tuple[float, float] = Field((1.0, 1.0), description="enlargement about the middle of what is seen: from, to")
    rotate: float = Field(0.0, ge=0, le=180, description="degrees at most, either way")
    jitter: float = Field(0.0, ge=0, le=4096, description="shift in pixels at most, either way, down and across")
    flip: bool = Field(False, description="mirrored every other time")
    pad: float = Field(0.0, ge=0, le=4096, description="gray border in pixels around the image")
    noise: tuple[float, float] = Field(
        (0.0, 0.0), description="standard deviation of noise added, in 0..255: from, to; one number is both"
    )
    colour: float = Field(
        0.0,
        ge=0,
        le=1,
        description="each channel brighter or darker, and of more or less contrast, by this share at most",
    )
    roll: int = Field(
        0,
        ge=0,
        le=4096,
        description="shift in whole pixels at most, either way; what leaves at one side enters opposite",
    )
    color_shift: float = Field(0.0, ge=0, le=255, description="of each channel, in 0..255 at most, either way")
    color_gain: float = Field(
        0.0, ge=0, le=10, description="each channel times a factor whose natural logarithm is this at most, either way"
    )
    color_fade: float = Field(
        0.0,
        ge=0,
        le=255,
        description="standard deviation of a further shift of each channel at the first step, which falls in a line to "
        "0 at the last",
    )

    @field_validator("crop", "scale", "noise", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> Transforms:
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop {list(self.crop)}: expected two shares of the area that rise, up to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 100:
            raise ValueError(f"scale {list(self.scale)}: expected two factors above 0 that rise")
        if not 0 <= self.noise[0] <= self.noise[1] <= 255:
            raise ValueError(f"noise {list(self.noise)}: expected two deviations that rise, from 0 up to 255")
        return self

    @property
    def noisy(self) -> bool:
        """Whether noise is added."""
        return self.noise[1] > 0

    @property
    def changes_colors(self) -> bool:
        """Whether each channel is shifted or multiplied."""
        return bool(self.color_shift or self.color_gain or self.color_fade)

    @property
    def affine(self) -> bool:
        """Whether the image is resampled."""
        still = self.crop == self.scale == (1.0, 1.0) and not (self.rotate or self.jitter or self.flip or self.pad)
        return not still

    def __call__(
        self, images: Tensor, generators: Sequence[torch.Generator] = (), size: tuple[int, int] | None = None
    ) -> Tensor:
        """As `apply_transforms`, of the same transforms for all rows."""
        return apply_transforms(images, [self] * len(images), generators, size)


def apply_transforms(
    images: Tensor,
    settings: Sequence[Transforms],
    generators: Sequence[torch.Generator],
    size: tuple[int, int] | None = None,
    progress: Sequence[float] = (),
) -> Tensor:
    """Views of images, as a network is shown them.

    Args:
        images: (rows, channels, height, width) in 0..255.
        settings: of each row, what is drawn, and from where to where; of as many views each, and all or none of them
            resampled and with a border.
        generators: of each row, on the CPU.
        size: height and width of the views; by default the images'.
        progress: of each row, the share of its steps that are made; 0 by default.

    Returns:
        (views * rows, channels, *size): all rows' first views, then all rows' second ones; differentiable.
    """
    import torch

    from phosphene.hardware import to_device
    from phosphene.pixels.resampling import MID_GRAY, resample, resize

    first = settings[0]
    within = (images.shape[-2], images.shape[-1])
    channels = images.shape[1]
    size = size or within
    copies = _rolled(images, settings, generators)
    if first.affine:
        theta = to_device(affine_maps(settings, generators, within).to(images.dtype), images.device)
        seen = torch.cat([resample(copies[i], theta[:, i], size, bool(first.pad)) for i in range(first.count)])
    else:
        seen = torch.cat([resize(copy, size) for copy in copies])
    if any(own.colour for own in settings):
        drawn = _color_changes(settings, generators, (first.count, 2, channels, 1, 1))
        change = _view_by_view(to_device(drawn.to(images.dtype), images.device))
        seen = (seen - MID_GRAY) * (1 + change[:, 0]) + MID_GRAY * (1 + change[:, 1])
    if any(own.changes_colors for own in settings):
        shift, gain = _color_draws(settings, generators, (first.count, channels, 1, 1), progress)
        shift, gain = (_view_by_view(to_device(each.to(images.dtype), images.device)) for each in (shift, gain))
        seen = (seen + shift) * gain
    if any(own.noisy for own in settings):
        seen = seen + _view_by_view(_noise(settings, generators, (first.count, channels, *size), images.device))
    return seen


def affine_maps(settings: Sequence[Transforms], generators: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
    """Each row's affine maps, (rows, views, 2, 3), as `affine_grid` takes them: from the view to the image.

    Args:
        settings: of each row, as many views of each.
        generators: of each row, on the CPU.
        size: height and width of the images.
    """
    import torch

    height, width = size
    uniform = [torch.rand((8, own.count), generator=row) for own, row in zip(settings, generators, strict=False)]
    side, angle, mirror, zoom, *place = torch.stack(uniform, dim=1).unbind()  # each (rows, views)

    def each(value: Callable[[Transforms], float]) -> Tensor:
        return torch.tensor([value(own) for own in settings])[:, None]

    low, span = each(lambda own: own.crop[0]), each(lambda own: own.crop[1] - own.crop[0])
    crop = (low + span * side).sqrt()  # the share of a side that is seen
    low, span = each(lambda own: own.scale[0]), each(lambda own: own.scale[1] - own.scale[0])
    share = crop / (low + span * zoom)
    jitter = each(lambda own: own.jitter)
    across = (2 * place[0] - 1) * (1 - crop) + (2 * place[2] - 1) * jitter * 2 / width
    down = (2 * place[1] - 1) * (1 - crop) + (2 * place[3] - 1) * jitter * 2 / height
    flip = torch.where((mirror < 0.5) & (each(lambda own: own.flip) > 0), -1.0, 1.0)
    border_x, border_y = each(lambda own: 1 + 2 * own.pad / width), each(lambda own: 1 + 2 * own.pad / height)
    radians = each(lambda own: math.radians(own.rotate)) * (2 * angle - 1)
    # Row by row: the last bits of a sine depend on how many are asked for at once.
    cos, sin = (torch.stack([turn(row) for row in radians]) for turn in (torch.cos, torch.sin))
    # Rotation is by pixels: in coordinates of -1..1 it stretches where the image is no square.
    first = torch.stack([share * border_x * cos * flip, -share * border_y * sin * height / width, across], dim=2)
    second = torch.stack([share * border_x * sin * flip * width / height, share * border_y * cos, down], dim=2)
    return torch.stack([first, second], dim=2)


def _rolled(images: Tensor, settings: Sequence[Transforms], generators: Sequence[torch.Generator]) -> list[Tensor]:
    """The images for each view, each row shifted around its edges by whole pixels."""
    import torch

    count = settings[0].count
    if not any(own.roll for own in settings):
        return [images] * count
    drawn = [
        torch.randint(-own.roll, own.roll + 1, (count, 2), generator=row).tolist() if own.roll else [(0, 0)] * count
        for own, row in zip(settings, generators, strict=False)
    ]
    return [
        torch.stack([image.roll(tuple(places[view]), (-2, -1)) for image, places in zip(images, drawn, strict=True)])
        for view in range(count)
    ]


def _color_draws(
    settings: Sequence[Transforms],
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int, int],
    progress: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """What is added to each row's channels, and then what they are multiplied by: each (rows, views, channels, 1, 1).

    As Ghiasi et al. 2022 change the colors of views ("What do Vision Transformers Learn?", its code's `ColorJitter`
    and `GaussianNoise`).
    """
    import torch

    shifts, gains = [], []
    for place, (own, row) in enumerate(zip(settings, generators, strict=False)):
        left = 1 - (progress[place] if progress else 0.0)
        shift, gain = torch.zeros(shape), torch.zeros(shape)
        if own.color_shift or own.color_gain:
            shift = own.color_shift * (2 * torch.rand(shape, generator=row) - 1)
            gain = own.color_gain * (2 * torch.rand(shape, generator=row) - 1)
        if own.color_fade:
            shift = shift + own.color_fade * left * torch.randn(shape, generator=row) * gain.exp().reciprocal()
        shifts.append(shift)
        gains.append(gain.exp())
    return torch.stack(shifts), torch.stack(gains)


def _color_changes(
    settings: Sequence[Transforms], generators: Sequence[torch.Generator], shape: tuple[int, int, int, int, int]
) -> Tensor:
    """By what share each row's channels differ in contrast and brightness, (rows, views, 2, channels, 1, 1)."""
    import torch

    rows = zip(settings, generators, strict=False)
    uniform = [torch.rand(shape, generator=row) if own.colour else torch.zeros(shape) for own, row in rows]
    strengths = torch.tensor([own.colour for own in settings]).view(-1, 1, 1, 1, 1, 1)
    return strengths * (2 * torch.stack(uniform) - 1)


def _noise(
    settings: Sequence[Transforms],
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int, int],
    device: torch.device,
) -> Tensor:
    """Each row's noise, (rows, views, channels, height, width); every view's has a deviation of its own."""
    import torch

    from phosphene.hardware import to_device

    noise = torch.zeros((len(settings), *shape), device=device)
    deviations = torch.zeros((len(settings), shape[0]))
    for i, (own, generator) in enumerate(zip(settings, generators, strict=False)):
        if not own.noisy:
            continue
        low, high = own.noise
        deviations[i] = low + (high - low) * torch.rand(shape[0], generator=generator) if low < high else low
        torch.randn(shape, generator=noise_generator(device, generator), out=noise[i])
    return noise.mul_(to_device(deviations, device).view(len(settings), shape[0], 1, 1, 1))


def noise_generator(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator of a row, or one that it seeds on another device: a GPU would wait for noise that a CPU draws."""
    return generator if device.type == "cpu" else seeded_generator(device, generator)


def seeded_generator(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on a device, whose seed is drawn from another."""
    import torch

    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _view_by_view(drawn: Tensor) -> Tensor:
    """(rows, views, …) as views are stacked: all rows' first ones, then all rows' second ones."""
    return drawn.transpose(0, 1).flatten(0, 1)
