"""Caffe's binary files, `.caffemodel` and `.binaryproto`: protobuf's wire format, as far as weights need it.

A message is a row of fields, each a number, a type and a value; a value may be a message again.  Only the fields that
lead to weights are gone into (network, layer, blob, shape), so nothing is nested deeper than that; all others are
stepped over.  Every length is checked against what is left before anything is taken, and the weights are views on the
file until a tensor is filled from them.

Sources: protobuf's encoding guide, and the field numbers in Caffe's `caffe.proto`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phosphene.errors import InputError
from phosphene.files import check_file

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# What real files stay far below.  ResNet-152 has some 1,000 layers with blobs and 20,000 fields.
MAX_FIELDS = 1_000_000
MAX_PIECES = 1_000
MAX_AXES = 32  # Caffe's own limit

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Blob:
    """An array of a file: its shape, and views on its numbers in the file, usually one."""

    shape: tuple[int, ...]
    pieces: tuple[FloatArray, ...]

    def array(self) -> npt.NDArray[np.float32]:
        """A copy of the numbers, as float32 in the blob's shape."""
        array = np.empty(math.prod(self.shape), np.float32)
        at = 0
        with np.errstate(over="ignore"):
            for piece in self.pieces:
                array[at : at + len(piece)] = piece
                at += len(piece)
        return array.reshape(self.shape)


def read_caffemodel(path: Path) -> dict[str, list[Blob]]:
    """The blobs of every layer that has some, by the layer's name.

    Raises:
        InputError: there is no such file, it is damaged or truncated, or it is no caffemodel.
    """
    reader = _Reader(f"weights file {str(path)!r}")
    layers: dict[str, list[Blob]] = {}
    for number, value in reader.fields(_mapped(path, reader.where)):
        if number not in (_NETWORK_LAYERS, _NETWORK_LAYER):
            continue
        name, blobs = reader.layer(reader.message(value), *_FIELDS_OF_LAYER[number])
        if blobs:
            layers[name] = blobs
    if not layers:
        raise InputError(f"{reader.where} holds no weights of Caffe layers: expected a .caffemodel")
    return layers


def read_binaryproto(path: Path) -> Blob:
    """The one blob of a mean file.

    Raises:
        InputError: there is no such file, it is damaged or truncated, or it holds no blob.
    """
    reader = _Reader(f"mean file {str(path)!r}")
    return reader.blob(_mapped(path, reader.where))


# Field numbers of caffe.proto: of the network, of a layer in the old and the new form (name, blobs), of a blob.
_NETWORK_LAYERS, _NETWORK_LAYER = 2, 100
_FIELDS_OF_LAYER = {_NETWORK_LAYERS: (4, 6), _NETWORK_LAYER: (1, 7)}
_OLDEST_LAYER = 1
_OLD_AXES = (1, 2, 3, 4)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1


class _Reader:
    """Takes the messages of one file apart."""

    def __init__(self, where: str):
        self.where = where
        self.left = MAX_FIELDS

    def fail(self, what: str) -> InputError:
        return InputError(f"{self.where} cannot be read: {what}; it is damaged, truncated or no Caffe file")

    def varint(self, data: memoryview, at: int) -> tuple[int, int]:
        """The whole number at a place, and the place behind it."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise self.fail("it ends within a number")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at
        raise self.fail("a number has more than 64 bits")

    def fields(self, data: memoryview) -> Iterator[tuple[int, Any]]:
        """Every field's number and value: an int, a view on bytes, or an array of the floats that follow each other."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise self.fail(f"it has more than {MAX_FIELDS:,} fields")
            start = at
            key, at = self.varint(data, at)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise self.fail("a field has the number 0")
            if kind == _VARINT:
                value, at = self.varint(data, at)
                yield number, value
            elif kind == _LENGTH:
                length, at = self.varint(data, at)
                if length > len(data) - at:
                    raise self.fail(f"a length of {length:,} bytes where {len(data) - at:,} are left")
                yield number, data[at : at + length]
                at += length
            elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
                width = 4 if kind == _FOUR_BYTES else 8
                if width > len(data) - at:
                    raise self.fail(f"{width} bytes are needed where {len(data) - at} are left")
                if at - start == 1:
                    values = _run(data[start:], width)
                    yield number, values
                    at = start + len(values) * (1 + width)
                else:
                    at += width
            else:
                raise self.fail(f"a field has the unknown type {kind}")

    def message(self, value: Any) -> memoryview:
        if not isinstance(value, memoryview):
            raise self.fail("a number stands where a message is expected")
        return value

    def layer(self, data: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[Blob]]:
        name, blobs = "", []
        for number, value in self.fields(data):
            if number == name_field:
                try:
                    name = str(self.message(value), "utf-8")
                except UnicodeDecodeError:
                    raise self.fail("a layer's name is no text") from None
            elif number == blobs_field:
                blobs.append(self.blob(self.message(value)))
            elif number == _OLDEST_LAYER and name_field != _OLDEST_LAYER:
                raise InputError(
                    f"{self.where} is in Caffe's oldest format (2013): expected it as Caffe's upgrade_net_proto_binary "
                    "writes it"
                )
        return name, blobs

    def blob(self, data: memoryview) -> Blob:
        shape: tuple[int, ...] | None = None
        old_shape: dict[int, int] = {}
        singles: list[FloatArray] = []
        doubles: list[FloatArray] = []
        for number, value in self.fields(data):
            if number == _SHAPE:
                shape = (shape or ()) + self.shape(self.message(value))
            elif number in _OLD_AXES and isinstance(value, int):
                old_shape[number] = value
            elif number == _DATA:
                singles.append(self.floats(value, "<f4"))
            elif number == _DOUBLE_DATA:
                doubles.append(self.floats(value, "<f8"))
            if len(singles) + len(doubles) > MAX_PIECES:
                raise self.fail(f"the numbers of a blob are in more than {MAX_PIECES:,} pieces")
        pieces = tuple(doubles or singles)
        count = sum(map(len, pieces))
        if shape is None:
            shape = tuple(old_shape.get(axis, 0) for axis in _OLD_AXES) if old_shape else (count,)
        if len(shape) > MAX_AXES or math.prod(shape) != count:
            shown = "x".join(map(str, shape[:MAX_AXES]))
            raise self.fail(f"a blob of shape {shown} has {count:,} numbers")
        return Blob(shape, pieces)

    def shape(self, data: memoryview) -> tuple[int, ...]:
        axes: list[int] = []
        for number, value in self.fields(data):
            if number == _DIM and isinstance(value, int):
                axes.append(value)
            elif number == _DIM:
                packed, at = self.message(value), 0
                while at < len(packed) and len(axes) <= MAX_AXES:
                    axis, at = self.varint(packed, at)
                    axes.append(axis)
        if len(axes) > MAX_AXES:
            raise self.fail(f"a blob has more than {MAX_AXES} axes")
        return tuple(axes)

    def floats(self, value: Any, dtype: str) -> FloatArray:
        """The numbers of a field, packed or one by one, as a view on the file."""
        width = np.dtype(dtype).itemsize
        if isinstance(value, memoryview) and len(value) % width == 0:
            return np.frombuffer(value, dtype)
        if isinstance(value, np.ndarray) and value.dtype.itemsize == width:
            return value
        raise self.fail("the numbers of a blob are not whole")


def _run(data: memoryview, width: int) -> FloatArray:
    """The floats of the fields at the beginning that have the same one-byte key, as a view with gaps."""
    pair = np.dtype({"names": ["key", "value"], "formats": ["u1", f"<f{width}"]})
    pairs = np.frombuffer(data, pair, count=len(data) // pair.itemsize)
    end, step = 1, 16
    while end < len(pairs):
        others = np.flatnonzero(pairs["key"][end : end + step] != pairs["key"][0])
        if len(others):
            end += int(others[0])
            break
        end = min(end + step, len(pairs))
        step *= 2
    values: FloatArray = pairs["value"][:end]
    return values


def _mapped(path: Path, where: str) -> memoryview:
    check_file(path, where)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"\x89HDF":
                raise InputError(f"{where} is in HDF5: expected Caffe's binary format")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # a ValueError where it is empty
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} cannot be read: {_reason(path)}") from error


def _reason(path: Path) -> str:
    return "it is empty" if path.stat().st_size == 0 else "it cannot be opened"
