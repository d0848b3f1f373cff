"""Caffe networks: a `.prototxt` and a `.caffemodel`, by readers of our own, as plain torch modules.

`text` reads definitions and `wire` weights; `layers` has the modules, and `graph` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from phosphene.errors import InputError, did_you_mean
from phosphene.files import is_file
from phosphene.networks.labels import assumed_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.caffe.blobs import Shape, blob_shapes, fill, initialize, same_shape
from phosphene.networks.sources.caffe.graph import BuiltGraph, build
from phosphene.networks.sources.caffe.mean import read_mean
from phosphene.networks.sources.caffe.text import near, read_prototxt, shown
from phosphene.networks.sources.caffe.wire import Blob, FloatArray, read_caffemodel

MOST_UNTRAINED = 1 << 26
"""Parameters of a network without its weights, 256 MiB: nothing but the definition's word is behind them.  CaffeNet has
61 million; what ships may have more."""


@dataclass(frozen=True)
class BundledDefinition:
    """A definition that comes with this package.

    Attributes:
        weights: what the file of its trained weights is usually called.
        mean: BGR, 0..255, as it was trained.
        resize: how photographs were brought to 256 pixels.
    """

    weights: str
    mean: tuple[float, float, float]
    resize: Literal["shorter", "squash"]


IMAGENET_MEAN = (104.0, 117.0, 123.0)  # BGR, the mean image of ILSVRC 2012, by channel

SHIPPED = {
    "caffenet": BundledDefinition("bvlc_reference_caffenet.caffemodel", IMAGENET_MEAN, "squash"),
    "googlenet": BundledDefinition("bvlc_googlenet.caffemodel", IMAGENET_MEAN, "squash"),
    "vgg16": BundledDefinition("VGG_ILSVRC_16_layers.caffemodel", (103.939, 116.779, 123.68), "shorter"),
}
"""The definitions that come with this package, by name."""


def open_caffe(
    definition: str | Path,
    weights: str | Path | None = None,
    mean: str | Path | Sequence[float] | None = None,
    pretrained: bool = True,
) -> Network:
    """A Caffe network.  Its layers are called as in the definition ("relu5_1", "inception_4c/output").

    Args:
        definition: a `.prototxt` (best a deploy.prototxt; of others the test phase is taken), or a name in `SHIPPED`.
        weights: the `.caffemodel`.  Layers in it that the definition has not are passed over.
        mean: what was subtracted from the images, in 0..255: one number a channel in the network's order (BGR), as
            numbers or as "104,117,123"; or a `.binaryproto` or `.npy` file.  A file's mean image, of shape (channels,
            height, width), is averaged to one number a channel.
        pretrained: False leaves the network untrained where no weights are given.

    Raises:
        InputError: a file is missing, damaged, too large or of another kind; no layer before one of an unknown type
            is left (what is left opens, with a note), or one has an unknown setting; or the weights are of another
            network.
    """
    shipped = SHIPPED.get(str(definition))
    path = _path(definition)
    if weights is None and pretrained:
        usual = f" ({shipped.weights})" if shipped else ""
        raise InputError(f"Caffe network {str(definition)!r} needs its weights: give its .caffemodel{usual}")
    # Weights are compared layer by layer with what the file holds, and no memory is taken for others.
    built = build(read_prototxt(path), MOST_UNTRAINED if weights is None and shipped is None else None)
    if weights is not None:
        _put_weights(built, Path(weights))
    else:
        for module in built.graph.children():
            initialize(module)
    preprocessing, notes = _preprocessing(built, mean, shipped, path.name)
    channels, *positions = built.output[1:]
    labels = assumed_labels(channels) if math.prod(positions) == 1 else None
    if labels is not None and shipped is None:
        notes["labels"] = f"what the outputs of {path.name} mean is not in the file: ImageNet's classes are assumed"
    if built.stops:
        notes["layers"] = f"{path.name}: {built.stops}"
    return Network(built.graph, preprocessing, labels, path.stem, notes=notes)


def _path(definition: str | Path) -> Path:
    if str(definition) in SHIPPED:
        return Path(__file__).parent / "definitions" / f"{definition}.prototxt"
    path = Path(definition)
    if path.suffix == ".caffemodel":
        raise InputError(f"{str(path)!r} holds weights: expected a .prototxt, with this file as its weights")
    if not is_file(path):
        ships = f"expected a .prototxt file, or {' or '.join(SHIPPED)}"
        raise InputError(
            f"there is no Caffe network {str(definition)!r}{did_you_mean(str(definition), SHIPPED) or f': {ships}'}"
        )
    return path


# Weights.


def _put_weights(built: BuiltGraph, path: Path) -> None:
    """Fill every layer from the file, each blob copied once."""
    blobs = read_caffemodel(path)
    where = f"weights file {str(path)!r}"
    for layer, module in built.layers:
        expected = blob_shapes(module)
        if not expected:
            continue
        if layer.name not in blobs:
            known = near(layer.name, blobs)
            raise InputError(f"{where} has nothing for the layer {shown(layer.name)} ({layer.type.name}){known}")
        fill(module, _arrays(f"{where}, layer {shown(layer.name)} ({layer.type.name})", blobs[layer.name], expected))


def _arrays(where: str, blobs: list[Blob], expected: list[Shape]) -> list[FloatArray]:
    if len(blobs) != len(expected):
        raise InputError(f"{where} has {len(blobs)} blobs: expected {len(expected)}, as the definition says")
    arrays: list[FloatArray] = []
    for blob, shape in zip(blobs, expected, strict=True):
        if not same_shape(blob.shape, shape):
            has, wanted = ("x".join(map(str, axes)) or "1" for axes in (blob.shape, shape))
            raise InputError(f"{where} has a blob of {has}: expected {wanted}, as the definition says")
        array = blob.array()
        if not np.isfinite(array).all():
            raise InputError(f"{where} has infinite weights, or some that are no numbers: the file is damaged")
        arrays.append(array)
    return arrays


# What the network expects.


def _preprocessing(
    built: BuiltGraph, mean: str | Path | Sequence[float] | None, shipped: BundledDefinition | None, name: str
) -> tuple[Preprocessing, dict[str, str]]:
    """What the network expects, and a note where that is a guess."""
    _, channels, height, width = built.input.shape
    side = min(height, width)
    preprocessing = Preprocessing(
        size=(height, width),
        value_range=(0, 255),
        std=1 / built.input.scale,
        channel_order="BGR" if channels == 3 else "RGB",
        channels=channels,
        interpolation="bilinear",
        # Photographs are made 256 pixels large and cut, but not for networks of small images.
        crop=side / 256 if 128 <= side <= 256 else 1.0,
        resize=shipped.resize if shipped else "squash",
        fixed_size=built.fixed_size,
    )
    if mean is not None:
        return replace(preprocessing, mean=read_mean(mean, channels)), {}
    if shipped is not None:
        return replace(preprocessing, mean=shipped.mean), {}
    if built.input.mean is not None:
        return replace(preprocessing, mean=built.input.mean), {}
    if channels == 3:
        preprocessing = replace(preprocessing, mean=IMAGENET_MEAN)
    elif channels == 1 and not built.input.mean_file:
        preprocessing = replace(preprocessing, value_range=(0, 1))  # as Caffe's own network for digits is trained
    lacks = f"its mean file {shown(built.input.mean_file)}" if built.input.mean_file else f"what {name} expects"
    note = f"{lacks} is not in the definition: {preprocessing.describe()} is assumed; say otherwise with a mean"
    return preprocessing, {"preprocessing": note}
