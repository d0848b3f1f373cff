"""What a network eats: how the pixels of an image become its input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """From pixels (0 to 255, RGB for three channels) to the input that the network was trained on.

    A pixel is brought from 0..255 to `value_range`, the channels into `channel_order`, and then `mean` is subtracted
    and the difference divided by `std`; these two are in units of `value_range` and in the network's channel order,
    as Caffe, Keras and timm publish them.

    Attributes:
        size: height and width, or one number for a square, in pixels.
        mean, std: one number a channel, or one for all.
        value_range: what 0 and 255 become before mean and std, (0, 1) for most PyTorch networks.
        channel_order: "RGB" or "BGR"; only for three channels.
        channels: how many.
        layout: "NCHW" (PyTorch) or "NHWC" (Keras).
        interpolation: how photographs are resized: "bicubic", "bilinear" or "nearest".
        crop: share of the resized photograph's shorter side that the network sees (timm's `crop_pct`).
        fixed_size: whether the network takes this size only.
    """

    size: tuple[int, int] | int = 224
    mean: tuple[float, ...] | float = 0.0
    std: tuple[float, ...] | float = 1.0
    value_range: tuple[float, float] = (0.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    channels: int = 3
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    interpolation: str = "bicubic"
    crop: float = 1.0
    fixed_size: bool = False

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"size {self.size!r}: expected a height and a width of at least one pixel")
        object.__setattr__(self, "size", size)
        for name in ("mean", "std"):
            value = getattr(self, name)
            values = (float(value),) * self.channels if isinstance(value, int | float) else tuple(map(float, value))
            if len(values) != self.channels:
                raise InputError(f"{name} {value!r}: expected one number or {self.channels}, one for each channel")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:  # type: ignore[arg-type]
            raise InputError(f"std {self.std!r}: expected numbers above 0")
        object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise InputError(f"value range {self.value_range!r}: expected two rising numbers, such as (0, 1)")
        for name, choices in (
            ("channel_order", ("RGB", "BGR")),
            ("layout", ("NCHW", "NHWC")),
            ("interpolation", tuple(_RESAMPLING)),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r}: expected {' or '.join(choices)}")
        if self.channel_order == "BGR" and self.channels != 3:
            raise InputError(f"channel_order BGR with {self.channels} channels: it is a matter of three")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop {self.crop}: expected a share above 0 and up to 1")

    @property
    def height(self) -> int:
        return self.size[0]  # type: ignore[index]

    @property
    def width(self) -> int:
        return self.size[1]  # type: ignore[index]

    def resized(self, size: tuple[int, int]) -> Preprocessing:
        """The same for images of another height and width."""
        return replace(self, size=size)

    def __call__(self, pixels: Tensor) -> Tensor:
        """The network's input.  Pixels (rows, channels, height, width) in 0..255, RGB; the result in `layout`."""
        scale, offset = self._linear(pixels)
        inputs = pixels.flip(1) if self.channel_order == "BGR" else pixels
        inputs = torch.addcmul(offset, inputs, scale)
        return inputs.permute(0, 2, 3, 1).contiguous() if self.layout == "NHWC" else inputs

    def _linear(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.value_range
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale, offset = (high - low) / 255 / std, (low - mean) / std
        return scale.to(like).view(-1, 1, 1), offset.to(like).view(-1, 1, 1)

    @property
    def mean_pixels(self) -> tuple[float, ...]:
        """The mean image's colour in 0..255, RGB: the input 0; mid-grey for a network that subtracts no mean."""
        low, high = self.value_range
        assert isinstance(self.mean, tuple)
        if all(mean <= low for mean in self.mean):
            return (127.5,) * self.channels
        pixels = tuple((mean - low) / (high - low) * 255 for mean in self.mean)
        return pixels[::-1] if self.channel_order == "BGR" else pixels

    def photograph(self, image: Image.Image) -> Tensor:
        """A photograph as the network was shown them: resized by its shorter side, and the middle cut out.

        Returns pixels of shape (channels, height, width) in 0..255.
        """
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(self.channels)
        if mode is None:
            raise InputError(f"an image file cannot be fed to a network of {self.channels} channels")
        scale = max(self.height / image.height, self.width / image.width) / self.crop
        width, height = max(self.width, round(image.width * scale)), max(self.height, round(image.height * scale))
        image = image.convert(mode).resize((width, height), _RESAMPLING[self.interpolation])
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        image = image.crop((left, top, left + self.width, top + self.height))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
        return pixels.view(self.height, self.width, self.channels).permute(2, 0, 1).contiguous()


_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
