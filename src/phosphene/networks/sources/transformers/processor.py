"""What a network of transformers expects, from the image processor beside it, or as such networks usually do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phosphene.errors import InputError, first_line
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.resizing import can_resize
from phosphene.networks.sources.transformers.architectures import assumed_preset, own_size
from phosphene.networks.sources.transformers.files import PROCESSORS, check_values, read_settings

_LARGEST_SIDE = 4096  # pixels


def processor_values(transformers: Any, folder: Path, title: str) -> dict[str, Any] | None:
    """The settings of the image processor beside a network, with its class's defaults; None if there is none."""
    file = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    if file is None:
        return None
    written = read_settings(file, title)
    check_values(written, file.name, title)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return written | dict(processor.to_dict())
    except Exception:  # a class of its own, or of another version: what is written is all there is
        return {"do_resize": True, "do_rescale": True, "do_normalize": "image_mean" in written} | written


def read_preprocessing(
    values: dict[str, Any] | None, config: Any, plan: nn.Module, title: str
) -> tuple[Preprocessing, dict[str, str]]:
    """What a network expects, and what a user should know of it.

    Args:
        values: what `processor_values` returns.
        plan: the network without memory, which says what sizes it takes.
    """
    vision = getattr(config, "vision_config", config)  # of a classifier among networks of images and texts
    channels = getattr(vision, "num_channels", None) or 3
    own = _pair(own_size(vision))
    try:
        geometry: dict[str, Any] = _geometry(values) if values is not None else {}
        sizes = [size for size in (geometry.get("size"), own, (224, 224)) if size is not None]
        if max(max(size) for size in sizes) > _LARGEST_SIDE or min(min(size) for size in sizes) < 1:
            raise InputError(f"{title} takes images of {sizes[0]}: expected 1 to {_LARGEST_SIDE} pixels a side")
        # A processor may say another size than the network has position embeddings for.
        size = next((size for size in sizes if _takes(plan, size, channels)), sizes[0])
        geometry |= {"size": size, "channels": channels}
        # A plan that takes no size at all computes with values, which it has not, and tells nothing.
        larger = (size[0] + 32, size[1] + 32)
        own_only = _takes(plan, size, channels) and not _takes(plan, larger, channels)
        geometry["fixed_size"] = own_only and not can_resize(plan)
        if values is not None:
            return Preprocessing(**geometry, **_scaling(values)), {}
        preset, changes = assumed_preset(vision) if channels == 3 else ("unit", {})
        preprocessing = Preprocessing.preset(preset, **changes | geometry)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise InputError(f"the image processor of {title} is not read: {first_line(error)}") from error
    note = (
        f"{title} comes without an image processor, which says what it expects: {preprocessing.describe()} is assumed"
    )
    return preprocessing, {"preprocessing": f"{note}; `phosphene doctor --images DIR` finds out"}


def _pair(size: Any) -> tuple[int, int] | None:
    """A height and a width, from what transformers writes: a number, two, or a dictionary."""
    if isinstance(size, Mapping):
        if size.get("height") and size.get("width"):
            return int(size["height"]), int(size["width"])
        size = size.get("shortest_edge")
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if isinstance(size, int | float) and size else None


def _geometry(values: Mapping[str, Any]) -> dict[str, Any]:
    """How a photograph becomes an image of the right size, as transformers' image processors do it."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    size = values.get("size") if values.get("do_resize") else None
    cropped = _pair(values.get("crop_size")) if values.get("do_center_crop") else None
    by_shorter = isinstance(size, int) or (isinstance(size, Mapping) and bool(size.get("shortest_edge")))
    resized = _pair(size)
    share = float(values.get("crop_pct") or 1.0)
    if kind.startswith("Levit") and by_shorter and resized:  # which resizes to a little more than it says
        resized = (int(256 / 224 * resized[0]),) * 2
    if kind.startswith("ConvNext") and resized:
        by_shorter = resized[0] < 384  # larger images are squashed
        cropped, share = resized, share if by_shorter else 1.0
    elif share < 1 and resized:
        by_shorter, cropped = True, cropped or resized
    fields: dict[str, Any] = {"resize": "shorter" if by_shorter or resized is None else "squash"}
    final = cropped or resized
    if final is not None:
        fields["size"] = final
    if cropped and resized:
        fields["crop"] = min(1.0, share * cropped[0] / resized[0])
    resample = values.get("resample")
    fields["interpolation"] = "bicubic" if resample is None else _RESAMPLING.get(int(resample), "bicubic")
    return fields


_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def _scaling(values: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers the pixels become."""
    fields: dict[str, Any] = {"value_range": (0.0, 255.0)}
    if values.get("do_rescale"):
        low = -1.0 if values.get("rescale_offset") or values.get("offset") else 0.0
        fields["value_range"] = (low, low + 255 * float(values.get("rescale_factor") or 1 / 255))
    if values.get("do_normalize") and values.get("image_mean") is not None:
        mean, std = values["image_mean"], values.get("image_std", 1.0)
        fields["mean"] = tuple(mean) if isinstance(mean, Sequence) else float(mean)
        fields["std"] = tuple(std) if isinstance(std, Sequence) else float(std)
        kind = str(values.get("image_processor_type") or "")
        if kind.startswith("EfficientNet") and values.get("include_top"):  # which divides by it twice
            fields["std"] = tuple(value**2 for value in fields["std"])
    if values.get("do_flip_channel_order"):
        fields["channel_order"] = "BGR"
    return fields


def _takes(plan: nn.Module, size: tuple[int, int], channels: int) -> bool:
    try:
        with torch.no_grad():
            plan(torch.empty(1, channels, *size, device="meta"))
    except Exception:
        return False
    return True
