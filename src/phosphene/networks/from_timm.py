"""Any network of timm, with the preprocessing that its `pretrained_cfg` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from timm.data import infer_imagenet_subset
from torch import nn

from phosphene.errors import InputError
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import put_weights, read_weights


def open_timm(name: str, weights: str | Path | None = None, pretrained: bool = True) -> Network:
    """A timm network with its pretrained weights, with those of a file, or (`pretrained=False`) untrained.

    Raises:
        InputError: the weights cannot be had, or those of the file are of another network.
    """
    if weights is not None or not pretrained:
        module = timm.create_model(name)
        if weights is not None:
            put_weights(module, read_weights(weights), name, str(weights))
    else:
        try:
            module = timm.create_model(name, pretrained=True)
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise InputError(
                f"the pretrained weights of {name} cannot be had ({reason[0][:160] if reason else type(error).__name__}); "
                "give a file of them (--weights FILE)"
            ) from error
    return Network(module, timm_preprocessing(module.pretrained_cfg), timm_labels(module), name, source=name)


def timm_preprocessing(config: dict[str, Any]) -> Preprocessing:
    channels, height, width = config["input_size"]
    return Preprocessing(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        channels=channels,
        interpolation=config.get("interpolation") if config.get("interpolation") in ("bilinear", "nearest") else "bicubic",
        crop=config.get("crop_pct") or 1.0,
        fixed_size=bool(config.get("fixed_input_size")),
    )


def timm_labels(module: nn.Module) -> Labels | None:
    """The names of the outputs, from the network's own configuration or from timm's tables of ImageNet's classes."""
    names = module.pretrained_cfg.get("label_names")
    if names:
        return Labels(names)
    subset = infer_imagenet_subset(module)
    return imagenet_labels(subset) if subset else None
