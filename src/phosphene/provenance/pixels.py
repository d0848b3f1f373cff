"""Images within texts: the start image and the photograph that a provenance holds."""

from __future__ import annotations

import base64
import io
import math
import struct
import zipfile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from phosphene.errors import input_errors_for

LONGEST_TEXT = 2**26  # characters: no PNG that is read has longer ones
_MOST_VALUES = 2**28


def encode_pixels(pixels: NDArray[np.uint8]) -> str:
    """An image as text: its array in NumPy's format, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, pixels=pixels)
    return base64.b64encode(file.getvalue()).decode()


def decode_pixels(text: str) -> NDArray[np.uint8]:
    """The image (height, width, channels) that `encode_pixels` made a text of.

    Raises:
        InputError: it is no such text; nothing is allocated for what only says that it is one.
    """
    with input_errors_for("an image within another's provenance", "one array of bytes in NumPy's format, compressed"):
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"it has over {LONGEST_TEXT} characters")
        data = base64.b64decode(text, validate=True)
        # Where an archive ends it says how many files it holds, and a reader keeps a record of each.
        *_, count, directory, _, _ = struct.unpack("<4s4H2LH", data[-22:])
        if data[-22:-18] != b"PK\5\6" or data[-42:-38] == b"PK\6\7" or count != 1 or directory > 2**10:
            raise ValueError("it holds not one array")
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open("pixels.npy") as file:
            return _array(file)


def _array(file: IO[bytes]) -> NDArray[np.uint8]:
    """An array of bytes of three axes, from a file in NumPy's format."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("the array is of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    size = math.prod(shape)
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1 or size > _MOST_VALUES:
        raise ValueError(f"the array is of shape {shape} and type {dtype}")
    values = np.frombuffer(bytearray(file.read(size + 1)), np.uint8)
    return values.reshape(shape, order="F" if by_columns else "C")
