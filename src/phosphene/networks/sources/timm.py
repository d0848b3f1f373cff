"""Any network of timm, with the preprocessing that its `pretrained_cfg` names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from phosphene.errors import InputError, did_you_mean, first_line
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.resizing import can_resize
from phosphene.networks.weights import put_weights, read_weights


def is_timm(name: str) -> bool:
    """Whether timm has a network of that name."""
    import timm

    return timm.is_model(name)


def timm_names() -> list[str]:
    """The networks of timm."""
    import timm

    return timm.list_models()


def is_timm_module(module: nn.Module) -> bool:
    """Whether a module says what it expects as timm's networks do."""
    return "input_size" in _config(module)


def open_timm(name: str, weights: str | Path | None = None, pretrained: bool = True, partial: bool = False) -> Network:
    """A timm network with its pretrained weights, with those of a file, or (`pretrained=False`) untrained.

    Raises:
        InputError: the name is unknown, or the weights cannot be had, or those of the file are of another network.
    """
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no network {name!r}{did_you_mean(name, timm.list_models())}")
    unloaded: frozenset[str] = frozenset()
    if weights is not None or not pretrained:
        module = timm.create_model(name)
        if weights is not None:
            unloaded = put_weights(module, read_weights(weights), name, str(weights), partial)
    else:
        hub = logging.getLogger("huggingface_hub")
        level = hub.level
        hub.setLevel(logging.ERROR)  # its retries are summed up in the error below
        try:
            with shown_downloads(name):
                module = timm.create_model(name, pretrained=True)
        except Exception as error:
            reason = first_line(error).split(". ")[0].rstrip(".")
            raise InputError(
                f"the pretrained weights of {name} cannot be had: {reason}; give them as a file (--weights FILE)"
            ) from error
        finally:
            hub.setLevel(level)
    return of_timm_module(module, name, unloaded)


def of_timm_module(module: nn.Module, name: str = "", unloaded: frozenset[str] = frozenset()) -> Network:
    """A network that timm built, as its `pretrained_cfg` says; called so, or as there."""
    config = _config(module)
    name = name or str(config.get("architecture") or "")
    notes = (
        {} if has_classes(module) else {"classes": f"{name} has no classes: its layers and their units can be shown"}
    )
    preprocessing, labels = timm_preprocessing(module, config), timm_labels(module, config)
    return Network(module, preprocessing, labels, name, notes=notes, unloaded=unloaded)


def _config(module: nn.Module) -> dict[str, Any]:
    config = getattr(module, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def has_classes(module: nn.Module) -> bool:
    """Whether a network of timm's ends in classes; what one without a head gives is an embedding."""
    return getattr(module, "num_classes", None) != 0


def timm_preprocessing(module: nn.Module, config: dict[str, Any]) -> Preprocessing:
    """What a network expects, as its configuration says; one built with `in_chans` or `img_size` says so itself."""
    channels, *size = config["input_size"]
    first = dict(module.named_modules()).get(str(config.get("first_conv")))
    own = getattr(first, "in_channels", channels)
    mean, std = (_per_channel(config[key], channels, own) for key in ("mean", "std"))
    interpolation = config.get("interpolation")
    return Preprocessing(
        size=tuple(getattr(getattr(module, "patch_embed", None), "img_size", None) or size),
        mean=mean,
        std=std,
        channels=own,
        interpolation=interpolation if interpolation in ("bilinear", "nearest") else "bicubic",
        crop=config.get("crop_pct") or 1.0,
        fixed_size=bool(config.get("fixed_input_size")) and not can_resize(module),
    )


def _per_channel(values: Sequence[float], channels: int, own: int) -> tuple[float, ...] | float:
    """The values of each channel, or their mean for a network of other channels than its weights are of."""
    return tuple(values) if own == channels else sum(values) / len(values)


def timm_labels(module: nn.Module, config: dict[str, Any]) -> Labels | None:
    """The names of the outputs, from the network's own configuration or from timm's tables of ImageNet's classes."""
    if not has_classes(module):
        return None
    names = config.get("label_names")
    if names:
        return Labels(names)
    from timm.data.imagenet_info import infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    return imagenet_labels(subset) if subset else None
