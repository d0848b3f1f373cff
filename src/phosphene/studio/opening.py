"""The networks that a studio may open: by name, and of the files that may be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm

from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.networks.preprocessing import PRESETS
from phosphene.networks.sources import bundled
from phosphene.networks.sources.torchvision import torchvision_names
from phosphene.studio import files as studio_files
from phosphene.studio.messages import OpenCommand


def open_allowed_network(command: OpenCommand, folders: Sequence[str]) -> Network:
    """The network of a command, of the files that may be read.

    Raises:
        InputError: it is a file outside the folders, or cannot be opened.
    """
    network, preprocessing = command.network, command.preprocessing
    if Path(network).is_absolute():
        studio_files.check(network, folders, "networks")
    elif network not in network_names():
        raise InputError(f"network {network!r}: expected a name of timm's or torchvision's, or a file of the list")
    if preprocessing is not None and preprocessing not in PRESETS:
        studio_files.check(preprocessing, folders, "preprocessings")
    if command.labels is not None:
        studio_files.check(command.labels, folders, "labels")
    if command.weights is not None:
        studio_files.check(command.weights, folders, "weights")
    return open_network(network, preprocessing, command.labels, weights=command.weights, partial=command.partial)


def network_names() -> tuple[str, ...]:
    """The networks that are opened by name: those that ship first."""
    shipped = [name for name in bundled.SIZES if bundled.is_installed(name)]
    caffe = [f"caffe:{name}" for name in ("caffenet", "vgg16", "googlenet")]
    torchvisions = [f"torchvision:{name}" for name in torchvision_names()]
    return (*shipped, *caffe, *torchvisions, *(f"timm:{name}" for name in timm.list_models()))
