"""Opening networks: one function, one small module per source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
from torch import nn

from phosphene.errors import InputError, did_you_mean
from phosphene.networks import bundled
from phosphene.networks.from_timm import open_timm
from phosphene.networks.labels import Label, Labels, imagenet_labels
from phosphene.networks.network import Layer, Network
from phosphene.networks.preprocessing import Preprocessing

__all__ = ["DEFAULT", "Label", "Labels", "Layer", "Network", "Preprocessing", "imagenet_labels", "open_network"]

DEFAULT = "efficientnet_lite0"


def open_network(
    network: str | nn.Module | Network = DEFAULT,
    preprocessing: Preprocessing | None = None,
    labels: Labels | Sequence[str] | None = None,
    *,
    name: str = "",
    weights: str | Path | None = None,
    pretrained: bool = True,
) -> Network:
    """Open a network.

    Args:
        network: "efficientnet_lite0" (bundled; also "lite0"), any name that timm knows, or a module of your own.
        preprocessing: what the network eats.  Needed for a module of your own; for a name it replaces the known one.
        labels: the names of the outputs; for a name they replace the known ones.
        name: what to call a module of your own.
        weights: a file of weights (`.safetensors`, or a state dictionary saved by torch) for a timm name.
        pretrained: False leaves a timm network untrained, as is useful in tests and as a baseline.

    Raises:
        InputError: the name is unknown (with the nearest), weights cannot be had, or a preprocessing is missing.

    Example:
        >>> network = open_network("efficientnet_lite0")
        >>> network.labels[network.labels.find("teddy")].name
        'teddy'
    """
    if isinstance(network, Network):
        return network
    if isinstance(network, nn.Module):
        if preprocessing is None:
            raise InputError(
                f"a module of your own ({type(network).__name__}) needs a Preprocessing: say what it eats, for example "
                "phosphene.Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))"
            )
        return Network(network, preprocessing, labels, name)
    opened = _open_by_name(str(network), weights, pretrained)
    if preprocessing is not None or labels is not None:
        # What the name stands for is no longer all that there is to it, so it cannot be opened again by name alone.
        labels = labels if labels is not None else opened.labels
        return Network(opened.module, preprocessing or opened.preprocessing, labels, opened.name)
    return opened


def _open_by_name(name: str, weights: str | Path | None, pretrained: bool) -> Network:
    full = f"efficientnet_{name}" if f"efficientnet_{name}" in bundled.SIZES else name
    if full in bundled.SIZES:
        if weights is not None or not pretrained:
            raise InputError(f"{full} comes with its own weights; for others open timm's tf_{full}")
        return bundled.open_bundled(full)
    if timm.is_model(name):
        return open_timm(name, weights, pretrained)
    near = did_you_mean(name, [*bundled.SIZES, *timm.list_models()])
    raise InputError(f"no network is called {name!r}{near or '; see `phosphene networks`'}")
