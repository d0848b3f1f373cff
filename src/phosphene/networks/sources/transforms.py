"""Transforms of torchvision, read as data: a preset of its weights, or a pipeline such as `Compose` and timm's.

They are told by their names, so that torchvision is not imported for a network that has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from phosphene.errors import InputError
from phosphene.networks.preprocessing import Preprocessing

_READ = "Resize, CenterCrop, Grayscale, ToTensor, PILToTensor, ToImage, ConvertImageDtype, ToDtype and Normalize"
_WITHOUT_EFFECT = ("ToImage", "ToImageTensor", "ToPureTensor", "PILToTensor", "MaybePILToTensor", "Identity")
_INTERPOLATIONS = ("bilinear", "nearest", "bicubic")


def is_weights(value: Any) -> bool:
    """Whether it is a member of one of torchvision's enums of weights."""
    return any(kind.__name__ == "WeightsEnum" for kind in type(value).__mro__)


def is_transforms(value: Any) -> bool:
    """Whether it is a transform of torchvision's or timm's, several in a list, or what makes a preset."""
    if isinstance(value, partial):
        return str(getattr(value.func, "__module__", "")).startswith("torchvision.transforms")
    if isinstance(value, list | nn.Sequential):
        return len(value) > 0 and any(is_transforms(each) for each in value)
    return any(kind.__module__.startswith(("torchvision.transforms", "timm.data")) for kind in type(value).__mro__)


def read_transforms(transforms: Any, **fields: Any) -> Preprocessing:
    """What a network expects whose photographs went through these transforms.

    Args:
        transforms: a preset (`weights.transforms()`), a transform, or several (`Compose`, a list).
        fields: further fields of the `Preprocessing`.

    Raises:
        InputError: there is a transform that is not read (named), or no size.
    """
    transforms = transforms() if isinstance(transforms, partial) else transforms
    pipeline = _Pipeline()
    for transform in _flat(transforms):
        pipeline.add(transform)
    return pipeline.preprocessing(fields)


def _flat(transforms: Any) -> Iterator[Any]:
    """The transforms of a pipeline, one by one."""
    several = transforms.transforms if type(transforms).__name__ == "Compose" else transforms
    if isinstance(several, list | tuple | nn.Sequential):
        for each in several:
            yield from _flat(each)
    else:
        yield several


@dataclass
class _Pipeline:
    """What has been read so far."""

    resize: tuple[int, ...] = ()  # one number is of the shorter side
    crop: tuple[int, int] | None = None
    value_range: tuple[float, float] = (0.0, 255.0)
    fields: dict[str, Any] = field(default_factory=dict)

    def add(self, transform: Any) -> None:
        name = type(transform).__name__
        match name:
            case "ImageClassification" | "SemanticSegmentation":
                self._resize(transform.resize_size, transform.interpolation)
                if name == "ImageClassification":
                    self.crop = _pair(transform.crop_size)
                self.value_range = (0.0, 1.0)
                self._normalize(transform)
            case "Resize":
                self._resize(transform.size, transform.interpolation)
            case "CenterCrop":
                self.crop = _pair(transform.size)
            case "Normalize":
                self._normalize(transform)
            case "Grayscale" if transform.num_output_channels == 1:
                self.fields["channels"] = 1
            case "ToTensor" | "MaybeToTensor":
                self.value_range = (0.0, 1.0)
            case "ConvertImageDtype" | "ToDtype":
                if getattr(transform, "scale", True) and getattr(transform.dtype, "is_floating_point", True):
                    self.value_range = (0.0, 1.0)
            case _ if name in _WITHOUT_EFFECT:
                pass
            case _:
                raise InputError(
                    f"the preprocessing has a {name}, which is not read: expected {_READ}; or say it with a "
                    "phosphene.Preprocessing"
                )

    def preprocessing(self, fields: dict[str, Any]) -> Preprocessing:
        resize, crop = self.resize, self.crop
        size = crop or (_pair(resize) if resize else None)
        if size is None and "size" not in fields:
            raise InputError(
                "the preprocessing has no Resize and no CenterCrop, so that nothing says the size of the images: "
                "expected one of them, or a phosphene.Preprocessing"
            )
        found = self.fields | {"value_range": self.value_range}
        if size is not None:
            found["size"] = size
        if resize:
            found["resize"] = "shorter" if len(resize) == 1 else "squash"
        if crop is not None and resize:
            found["crop"] = min(1.0, crop[0] / resize[0])
        return Preprocessing(**found | fields)

    def _resize(self, size: Any, interpolation: Any) -> None:
        if self.crop is not None:
            raise InputError("the preprocessing resizes what it has cropped: expected the Resize before the CenterCrop")
        if size is not None:
            self.resize = tuple(size) if isinstance(size, Sequence) else (int(size),)
        spelled = str(getattr(interpolation, "value", interpolation))
        self.fields["interpolation"] = spelled if spelled in _INTERPOLATIONS else "bicubic"

    def _normalize(self, transform: Any) -> None:
        for name in ("mean", "std"):
            # Seven digits: timm's are tensors of 32 bits.
            values = [float(f"{float(value):.7g}") for value in getattr(transform, name)]
            self.fields[name] = values[0] if len(values) == 1 else tuple(values)


def _pair(size: Any) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else (*size, *size)[:2]
    return int(sides[0]), int(sides[1])
