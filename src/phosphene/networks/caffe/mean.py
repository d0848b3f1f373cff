"""What was subtracted from a Caffe network's images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phosphene.errors import InputError
from phosphene.networks.caffe.wire import read_binaryproto


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


def _npy(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"mean file {str(path)!r}: there is no such file")
    try:
        # Mapped, so that the shape in its header cannot ask for more memory than there are bytes in the file.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy evaluates the header as a literal, and so fails in many ways
        raise InputError(f"mean file {str(path)!r} cannot be read: it is damaged, or no array of numbers") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"mean file {str(path)!r} is no array of numbers")
    return array


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
    return [float(row.mean(dtype=np.float64)) for row in image]
