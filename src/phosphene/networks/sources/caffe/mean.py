"""What was subtracted from a Caffe network's images."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phosphene.errors import InputError, input_errors_for
from phosphene.files import check_file
from phosphene.networks.sources.caffe.wire import read_binaryproto


def read_mean(mean: str | Path | Sequence[float], channels: int) -> tuple[float, ...]:
    """One number a channel, in 0..255 and in the network's order (BGR).

    Args:
        mean: the numbers, or as text ("104,117,123"), one a channel or one for all; or a `.binaryproto` or `.npy` file
            of them, or of a mean image of shape (channels, height, width), which is averaged to one number a channel.
        channels: how many the network has.

    Raises:
        InputError: the file is missing or damaged, or the numbers are not as many as the channels.
    """
    numbers = _numbers(mean)
    if numbers is None:
        path = Path(str(mean))
        if path.suffix == ".caffemodel":
            raise InputError(f"mean file {str(path)!r} holds weights: expected a .binaryproto or .npy file")
        array = _npy(path) if path.suffix == ".npy" else read_binaryproto(path).array()
        numbers = _by_channel(array, channels, f"mean file {str(path)!r}")
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels:
        raise InputError(f"a mean of {len(numbers)} numbers: expected {channels}, one for each channel, or one for all")
    if not all(map(math.isfinite, numbers)):
        raise InputError("a mean that is infinite or no number: expected numbers of 0 to 255")
    return tuple(numbers)


def _numbers(mean: str | Path | Sequence[float]) -> list[float] | None:
    """The numbers that a mean is given as, if it is not a file."""
    if isinstance(mean, Path):
        return None
    parts = mean.split(",") if isinstance(mean, str) else mean
    try:
        return [float(part) for part in parts]
    except (TypeError, ValueError):
        if isinstance(mean, str) and Path(mean).suffix:
            return None
        raise InputError(
            f'mean {str(mean)[:60]!r}: expected numbers, one a channel ("104,117,123"), or a .binaryproto or .npy file'
        ) from None


_MAX_HEADER = 4096  # bytes; that of an array of three axes has a hundred
# As NumPy writes it, in Python 2 too.  Its own reader takes any literal, structured types, and sizes of nothing.
_HEADER = re.compile(
    r"\{'descr': '([<>=|]?[fiu][0-9]{1,2})', 'fortran_order': (True|False), "
    r"'shape': \(([0-9L, ]{0,400})\),? ?\}\s*"
)


def _npy(path: Path) -> np.ndarray:
    """The array of a .npy file, as a view on the file; what its header says is compared with the file first."""
    where = f"mean file {str(path)!r}"
    size = check_file(path, where)
    with input_errors_for(where, "an array of numbers that NumPy saved"), path.open("rb") as file:
        begin = file.read(12)
        wide = begin[6:7] in (b"\x02", b"\x03")  # of which version the format is
        start = 12 if wide else 10
        length = int.from_bytes(begin[8:start], "little")
        if begin[:6] != b"\x93NUMPY" or length > _MAX_HEADER:
            raise InputError(f"{where} cannot be read: it is damaged, or no array of numbers")
        file.seek(start)
        header = _HEADER.fullmatch(file.read(length).decode("latin-1"))
        if header is None:
            raise InputError(f"{where} is no array of numbers: expected one that NumPy saved, of whole or real numbers")
        kind, shape = np.dtype(header[1]), tuple(int(axis.rstrip("L")) for axis in header[3].split(",") if axis.strip())
        count = math.prod(shape)
        if not 0 < count * kind.itemsize <= size - start - length:
            shown = "x".join(map(str, shape))
            raise InputError(f"{where} has the shape {shown} and {size:,} bytes: it is truncated or damaged")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, kind, count, start + length)
        return array.reshape(shape, order="F" if header[2] == "True" else "C")


def _by_channel(array: np.ndarray, channels: int, where: str) -> list[float]:
    shape = array.shape
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if math.prod(shape) == channels:
        shape = (channels,)
    elif len(shape) == 2 and channels == 1:
        shape = (1, *shape)
    if len(shape) not in (1, 3) or shape[0] != channels:
        shown = "x".join(map(str, array.shape[:8]))
        raise InputError(f"{where} has the shape {shown}: expected {channels} numbers, or {channels} x height x width")
    image = array.reshape(channels, -1)
    with np.errstate(all="ignore"):  # what is no number is refused by whoever asked
        return [float(row.mean(dtype=np.float64)) for row in image]
