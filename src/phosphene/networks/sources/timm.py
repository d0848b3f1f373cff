"""Any network of timm, with the preprocessing that its `pretrained_cfg` names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import timm
from timm.data.imagenet_info import infer_imagenet_subset
from torch import nn

from phosphene.errors import InputError
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import put_weights, read_weights


def open_timm(name: str, weights: str | Path | None = None, pretrained: bool = True, partial: bool = False) -> Network:
    """A timm network with its pretrained weights, with those of a file, or (`pretrained=False`) untrained.

    Raises:
        InputError: the weights cannot be had, or those of the file are of another network.
    """
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
            module = timm.create_model(name, pretrained=True)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
            raise InputError(
                f"the pretrained weights of {name} cannot be had: {reason}; give them as a file (--weights FILE)"
            ) from error
        finally:
            hub.setLevel(level)
    config: Any = module.pretrained_cfg
    notes = (
        {} if has_classes(module) else {"classes": f"{name} has no classes: its layers and their units can be shown"}
    )
    labels = timm_labels(module, config)
    return Network(module, timm_preprocessing(config), labels, name, notes=notes, unloaded=unloaded)


def has_classes(module: nn.Module) -> bool:
    """Whether a network of timm's ends in classes; what one without a head gives is an embedding."""
    return getattr(module, "num_classes", None) != 0


def timm_preprocessing(config: dict[str, Any]) -> Preprocessing:
    channels, height, width = config["input_size"]
    interpolation = config.get("interpolation")
    return Preprocessing(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        channels=channels,
        interpolation=interpolation if interpolation in ("bilinear", "nearest") else "bicubic",
        crop=config.get("crop_pct") or 1.0,
        fixed_size=bool(config.get("fixed_input_size")),
    )


def timm_labels(module: nn.Module, config: dict[str, Any]) -> Labels | None:
    """The names of the outputs, from the network's own configuration or from timm's tables of ImageNet's classes."""
    if not has_classes(module):
        return None
    names = config.get("label_names")
    if names:
        return Labels(names)
    subset = infer_imagenet_subset(module)
    return imagenet_labels(subset) if subset else None
