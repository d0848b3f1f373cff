"""What a network expects: how the pixels of an image become its input."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene.display import opaque, to_display
from phosphene.errors import InputError, did_you_mean, error_text, printable
from phosphene.hardware import to_device


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
        resize: how a photograph that is no square is brought to a square's size: by its "shorter" side, what is too
            long being cut off, or squashed ("squash": both sides, as Caffe's tools and Keras's `load_img` do).
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
    resize: Literal["shorter", "squash"] = "shorter"
    fixed_size: bool = False

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        if len(size) != 2 or not all(_is_whole(side) and 1 <= side <= MAX_SIDE for side in size):
            raise InputError(
                f"size {printable(repr(self.size))}: expected a height and a width of 1 to {MAX_SIDE} pixels"
            )
        if not _is_whole(self.channels) or not 1 <= self.channels <= MAX_CHANNELS:
            raise InputError(
                f"channels {printable(repr(self.channels))}: expected a whole number of 1 to {MAX_CHANNELS}"
            )
        object.__setattr__(self, "size", size)
        for name in ("mean", "std"):
            value = getattr(self, name)
            _check_numbers(name, value)
            values = (float(value),) * self.channels if isinstance(value, int | float) else tuple(map(float, value))
            if len(values) != self.channels:
                raise InputError(
                    f"{name} {printable(repr(value))}: expected one number or {self.channels}, one for each channel"
                )
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:  # type: ignore[arg-type]
            raise InputError(f"std {self.std!r}: expected numbers above 0")
        for name in ("value_range", "crop"):
            _check_numbers(name, getattr(self, name))
        object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise InputError(f"value range {self.value_range!r}: expected two rising numbers, such as (0, 1)")
        for name, choices in (
            ("channel_order", ("RGB", "BGR")),
            ("layout", ("NCHW", "NHWC")),
            ("interpolation", tuple(_RESAMPLING)),
            ("resize", ("shorter", "squash")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {printable(repr(getattr(self, name)))}: expected {' or '.join(choices)}")
        if not isinstance(self.fixed_size, bool):
            raise InputError(f"fixed_size {printable(repr(self.fixed_size))}: expected true or false")
        if self.channel_order == "BGR" and self.channels != 3:
            raise InputError(f"channel_order BGR with {self.channels} channels: it is a matter of three")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop {self.crop}: expected a share above 0 and up to 1")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Preprocessing:
        """One of the usual preprocessings: "torch", "tf", "caffe" (as Keras names them), "unit" or "byte".

        torch: 0..1, less ImageNet's mean, over its standard deviation.  tf: -1..1.  caffe: BGR, 0..255 less
        ImageNet's mean.  unit: 0..1.  byte: 0..255.  `changes` are further fields, such as `size`.

        Raises:
            InputError: no preset is called so (with the nearest), or a field is wrong.
        """
        if name not in PRESETS:
            raise InputError(
                f"no preprocessing is called {name!r}{did_you_mean(name, PRESETS) or f': expected {_or(PRESETS)}'}"
            )
        return cls.from_dict(PRESETS[name] | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "preprocessing") -> Preprocessing:
        """From its fields as TOML or JSON hold them (lists for tuples).

        Raises:
            InputError: a field is unknown (with the nearest), or its value is wrong.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(
                    f"{origin} has no field {name!r}{did_you_mean(name, known) or f': one of {_or(known)}'}"
                )
        try:
            given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
            return cls(**given)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{origin}: a field is of the wrong kind ({error_text(error)})") from None

    def describe(self) -> str:
        """In words, as short as it goes: "RGB 0..1, less (0.485, …), over (0.229, …)"."""
        low, high = self.value_range
        order = self.channel_order if self.channels == 3 else f"{self.channels} channel{'s' * (self.channels > 1)}"
        text = f"{order} {low:g}..{high:g}"
        if any(self.mean):  # type: ignore[arg-type]
            text += f" less {_numbers(self.mean)}"
        if any(value != 1 for value in self.std):  # type: ignore[union-attr]
            text += f" over {_numbers(self.std)}"
        return text

    @property
    def height(self) -> int:
        return self.size[0]  # type: ignore[index]

    @property
    def width(self) -> int:
        return self.size[1]  # type: ignore[index]

    def resized(self, size: tuple[int, int]) -> Preprocessing:
        """The same for images of another height and width."""
        return replace(self, size=size)

    def noise(self, rows: int) -> Tensor:
        """So many images of noise, always the same: (rows, channels, height, width) in 0..255."""
        shape = (rows, self.channels, self.height, self.width)
        return 255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))

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
        both = to_device(torch.stack([scale, offset]).to(like.dtype), like.device).view(2, -1, 1, 1)
        return both[0], both[1]

    @property
    def mean_pixels(self) -> tuple[float, ...]:
        """The mean image's color in 0..255, RGB: the input 0; mid-gray for a network that subtracts no mean."""
        low, high = self.value_range
        assert isinstance(self.mean, tuple)
        if all(mean <= low for mean in self.mean):
            return (127.5,) * self.channels
        pixels = tuple((mean - low) / (high - low) * 255 for mean in self.mean)
        return pixels[::-1] if self.channel_order == "BGR" else pixels

    def photograph(self, image: Image.Image) -> Tensor:
        """A photograph as the network was shown them: resized (see `resize`), and the middle cut out.

        It is taken as a viewer shows it (see `images.as_shown`), what is transparent on white.

        Returns pixels of shape (channels, height, width) in 0..255.

        Raises:
            InputError: it cannot be decoded, or a network of so many channels takes no image files.
        """
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(self.channels)
        if mode is None:
            raise InputError(f"an image file is no input of a network of {self.channels} channels")
        image = to_display(image)
        image = opaque(image, mode) if mode != "RGBA" else image.convert(mode)
        across, down = self.width / image.width / self.crop, self.height / image.height / self.crop
        if self.resize == "shorter":
            across = down = max(across, down)
        width, height = max(self.width, round(image.width * across)), max(self.height, round(image.height * down))
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        resampling = _RESAMPLING[self.interpolation]
        if width * height <= max(8 * self.width * self.height, LARGE):
            image = image.resize((width, height), resampling)
            image = image.crop((left, top, left + self.width, top + self.height))
        else:  # of something long and thin, without ever making the whole: but for PIL's rounding the same
            across, down = image.width / width, image.height / height
            kept = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
            image = image.resize(self.size[::-1], resampling, kept)  # type: ignore[index]
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
        return pixels.view(self.height, self.width, self.channels).permute(2, 0, 1).contiguous()


LARGE = 2**22  # pixels, that may be resized in any case
MAX_SIDE, MAX_CHANNELS = 1 << 14, 1 << 12
"""Of the images that a network takes; those of a recipe have no more either."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_numbers(name: str, value: Any) -> None:
    """Raise an `InputError` if a field has anything but finite numbers in it."""
    values = value if isinstance(value, Sequence | np.ndarray | Tensor) and not isinstance(value, str) else [value]
    for one in values:
        try:
            good = not isinstance(one, str | bytes | bool) and math.isfinite(float(one))
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            raise InputError(f"{name} {printable(repr(value))}: expected finite numbers")


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PRESETS: dict[str, dict[str, Any]] = {
    "torch": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "tf": {"value_range": (-1.0, 1.0)},
    "caffe": {"mean": (103.939, 116.779, 123.68), "value_range": (0.0, 255.0), "channel_order": "BGR"},
    "unit": {},
    "byte": {"value_range": (0.0, 255.0)},
}


def _or(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _numbers(values: Any) -> str:
    return f"{values[0]:.4g}" if len(set(values)) == 1 else f"({', '.join(f'{value:.4g}' for value in values)})"


_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
