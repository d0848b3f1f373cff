"""VGG16 and VGG19 from the weight files of Keras 1 and 2, in both orders of dimensions.

What those files leave unsaid:

* Kernels of the shape (out, in, height, width) are for theano, which convolves where the others correlate: each is
  turned by 180 degrees.  So are those of files that name theano as their backend.
* In such files the first fully connected layer reads the last map channel by channel, in the others pixel by pixel.
* There is no model in them.  Theirs is known by its shape: 13 or 16 convolutions, then three fully connected layers
  or none.  How many channels and pixels there are is read from the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phosphene.errors import InputError
from phosphene.networks.sources.keras.backend import import_keras
from phosphene.networks.sources.keras.files import attribute_text, one_sentence

_BLOCKS = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}
_DENSE = ("fc1", "fc2", "predictions")


class OldWeights(NamedTuple):
    """The layers of an old file in order: kernels (height, width, in, out) or (in, out), and biases (out,)."""

    convolutions: list[tuple[NDArray[Any], NDArray[Any]]]
    dense: list[tuple[NDArray[Any], NDArray[Any]]]


def is_old_vgg(path: Path) -> bool:
    """Whether an HDF5 file (that `check_h5` has passed) holds the weights of a VGG, and no model."""
    import h5py

    with one_sentence(path), h5py.File(path, "r") as file:
        if "model_config" in file.attrs:
            return False
        try:
            kernels = [kernel.ndim for kernel, _ in _pairs(file)]
        except InputError:
            return False
    return any(kernels in ([4] * count, [4] * count + [2] * len(_DENSE)) for count in _BLOCKS)


def read_old_weights(path: Path) -> OldWeights:
    """The weights of an old file, as Keras 3 lays them out for channels-last images.

    Raises:
        InputError: it is no HDF5 file, or kernels and biases are not of one layer.
    """
    import h5py

    with one_sentence(path), h5py.File(path, "r") as file:
        pairs = list(_pairs(file))
        convolutions = [pair for pair in pairs if pair[0].ndim == 4]
        theano = _is_theano_order(convolutions, "nb_layers" in file.attrs, path)
        backend = attribute_text(_layers_of(file).attrs.get("backend", "theano" if theano else "tensorflow"))
        kernels = [(np.asarray(kernel, "f4"), np.asarray(bias, "f4")) for kernel, bias in convolutions]
        if theano:
            kernels = [(kernel.transpose(2, 3, 1, 0), bias) for kernel, bias in kernels]
        if backend == "theano":
            kernels = [(kernel[::-1, ::-1], bias) for kernel, bias in kernels]
        dense = [(np.asarray(kernel, "f4"), np.asarray(bias, "f4")) for kernel, bias in pairs if kernel.ndim == 2]
        if theano and dense:
            kernel, bias = dense[0]
            channels = kernels[-1][1].size
            side = _side(kernel.shape[0], channels, path)
            kernel = kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
            dense[0] = kernel, bias
    return OldWeights(kernels, dense)


def read_old_vgg(path: Path, name: str = "", trained: bool = True) -> Any:
    """Keras 3's model of an old file's weights; `name` is "VGG16" or "VGG19" where only that one will do.

    Raises:
        InputError: the weights do not follow on each other as VGG's do.
    """
    keras = import_keras()
    weights = read_old_weights(path)
    count = len(weights.convolutions)
    own = f"VGG{count + 3}"
    if name and name != own:
        raise InputError(f"the weights in {str(path)!r} are those of {own}, and not of {name}")
    _check_chain(weights, path)
    with one_sentence(path), keras.device("cpu"):
        model = _vgg(keras, weights, path)
        if trained:
            layers = [layer for layer in model.layers if layer.weights]
            for layer, pair in zip(layers, [*weights.convolutions, *weights.dense], strict=True):
                layer.set_weights(pair)
    return model


def _vgg(keras: Any, weights: OldWeights, path: Path) -> Any:
    layers = keras.layers
    channels = weights.convolutions[0][0].shape[2]
    side = None
    if weights.dense:
        last = weights.convolutions[-1][1].size
        side = 2 ** len(_BLOCKS[13]) * _side(weights.dense[0][0].shape[0], last, path)
    maps = inputs = keras.Input((side, side, channels))
    widths = iter(weights.convolutions)
    last_order = {"data_format": "channels_last"}
    for block, depth in enumerate(_BLOCKS[len(weights.convolutions)], start=1):
        for index in range(1, depth + 1):
            kernel, bias = next(widths)
            maps = layers.Conv2D(
                bias.size,
                kernel.shape[:2],
                padding="same",
                activation="relu",
                name=f"block{block}_conv{index}",
                **last_order,
            )(maps)
        maps = layers.MaxPooling2D(2, name=f"block{block}_pool", **last_order)(maps)
    if weights.dense:
        maps = layers.Flatten(name="flatten", **last_order)(maps)
        for name, (_, bias) in zip(_DENSE, weights.dense, strict=True):
            activation = "softmax" if name == _DENSE[-1] else "relu"
            maps = layers.Dense(bias.size, activation=activation, name=name)(maps)
    return keras.Model(inputs, maps, name=f"vgg{len(weights.convolutions) + 3}")


def _layers_of(file: Any) -> Any:
    return file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file


def _pairs(file: Any) -> Iterator[tuple[Any, Any]]:
    """Kernel and bias of each layer that has any, in order; of a layer with other weights, nothing that fits."""
    import h5py

    file = _layers_of(file)
    if "nb_layers" in file.attrs:  # before Keras 0.3.3: layer_0, layer_1, … with param_0, param_1
        groups = [f"layer_{index}" for index in range(min(int(file.attrs["nb_layers"]), len(file)))]
    else:
        groups = [attribute_text(name) for name in file.attrs.get("layer_names", ())]
    for group in groups:
        layer = file[group]
        names = [attribute_text(name) for name in layer.attrs.get("weight_names", ())]
        names = names or sorted(name for name in layer if name.startswith("param_"))
        tensors = [layer[name] for name in names]
        if len(tensors) == 2 and all(isinstance(tensor, h5py.Dataset) for tensor in tensors):
            kernel, bias = tensors
            if kernel.ndim in (2, 4) and bias.ndim == 1 and bias.size in (kernel.shape[0], kernel.shape[-1]):
                yield kernel, bias
                continue
        if tensors:
            raise InputError(f"layer {group!r} has {len(tensors)} tensors: expected a kernel and a bias")


def _is_theano_order(pairs: Sequence[tuple[Any, Any]], oldest: bool, path: Path) -> bool:
    """Whether the kernels are (out, in, height, width), by the biases, which are (out,)."""
    first = all(kernel.shape[0] == bias.size for kernel, bias in pairs)
    last = all(kernel.shape[-1] == bias.size for kernel, bias in pairs)
    if not first and not last:
        raise InputError(f"{str(path)!r}: its kernels are of one order of dimensions, and others of another")
    return first and (oldest or not last)


def _side(rows: int, channels: int, path: Path) -> int:
    side = math.isqrt(rows // channels)
    if side * side * channels != rows or not side:
        raise InputError(f"{str(path)!r}: its first fully connected layer reads {rows} numbers, and no square map")
    return side


def _check_chain(weights: OldWeights, path: Path) -> None:
    for (_, bias), (kernel, _) in [*pairwise(weights.convolutions), *pairwise(weights.dense)]:
        if kernel.shape[-2] != bias.size:
            raise InputError(
                f"{str(path)!r}: a layer gives {bias.size} channels, and the next one takes {kernel.shape[-2]}"
            )
