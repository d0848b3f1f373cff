"""Writes `.caffemodel` files with random weights for a definition, in protobuf's wire format, old and new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from phosphene.networks.sources.caffe.blobs import blob_shapes
from phosphene.networks.sources.caffe.graph import build
from phosphene.networks.sources.caffe.modules import Scale
from phosphene.networks.sources.caffe.text import read_prototxt

V1_TYPES = {"Convolution": 4, "Deconvolution": 39, "InnerProduct": 14}
V2_ONLY = 0


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """A field of a whole number, or of bytes (text, a message, packed numbers)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(array: np.ndarray, *, old: bool = False, packed: bool = True, double: bool = False) -> bytes:
    """A BlobProto: its shape (as num, channels, height, width in the old form) and its numbers."""
    if old:
        axes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(number, length) for number, length in enumerate(axes, 1))
    else:
        shape = field(7, field(1, b"".join(map(varint, array.shape))))
    number, kind, width = (8, "<f8", 1) if double else (5, "<f4", 5)
    data = array.astype(kind).tobytes()
    if packed:
        return shape + field(number, data)
    size = np.dtype(kind).itemsize
    key = varint(number << 3 | width)
    return shape + b"".join(key + data[at : at + size] for at in range(0, len(data), size))


def caffemodel(layers: Mapping[str, tuple[str, Sequence[np.ndarray]]], *, old: bool = False, **form: bool) -> bytes:
    """A NetParameter of layers by name, each a type and its arrays."""
    out = [field(1, "random")]
    for name, (type_, arrays) in layers.items():
        if old:
            head = field(4, name) + field(5, V1_TYPES.get(type_, V2_ONLY))
            out.append(field(2, head + b"".join(field(6, blob(array, old=True, **form)) for array in arrays)))
        else:
            head = field(1, name) + field(2, type_)
            out.append(field(100, head + b"".join(field(7, blob(array, **form)) for array in arrays)))
    return b"".join(out)


def random_layers(
    definition: Path, seed: int = 0, gains: Mapping[str, float] | None = None
) -> dict[str, tuple[str, list[np.ndarray]]]:
    """Weights under which numbers keep their size from layer to layer (He et al. 2015), times a layer's gain."""
    random = np.random.default_rng(seed)
    layers = {}
    for layer, module in build(read_prototxt(definition)).layers:
        shapes = blob_shapes(module)
        if not shapes:
            continue
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            count = np.float32(2.5)
            arrays = [
                random.normal(0, 1, shapes[0]) * count,
                random.uniform(0.5, 2, shapes[1]) * count,
                count.reshape(1),
            ]
        elif isinstance(module, Scale | nn.PReLU):
            arrays = [random.normal(1, 0.3, shape) for shape in shapes]
        else:
            fan_in = int(np.prod(shapes[0][1:]))
            gain = (gains or {}).get(layer.name, 1.0)
            weights = random.standard_normal(shapes[0], np.float32)
            weights *= gain * (2 / fan_in) ** 0.5
            arrays = [weights, *(random.normal(0, 0.3 * gain, shape) for shape in shapes[1:])]
        layers[layer.name] = layer.type.name, [np.asarray(array, np.float32) for array in arrays]
    return layers


def write_random(
    definition: Path, target: Path, seed: int = 0, gains: Mapping[str, float] | None = None, **form: bool
) -> Path:
    target.write_bytes(caffemodel(random_layers(definition, seed, gains), **form))
    return target
