"""The pixels of photographs, one file or one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.images import read_image
from phosphene.networks.preprocessing import Preprocessing


class Batch(NamedTuple):
    """Photographs that could be read.

    Attributes:
        done: how many files are read so far, those that could not be included.
        indices: of the files.
        pixels: (rows, channels, height, width) in 0..255, a row for each of them.
    """

    done: int
    indices: list[int]
    pixels: Tensor


def decode(paths: Sequence[Path], *preprocessings: Preprocessing, skip: int = 0) -> Iterator[list[Tensor] | None]:
    """Each file's pixels, or None where it is no image or a damaged one; every file is read once.

    Args:
        skip: so many files have been read before, some of which could be, and are left out.

    Returns:
        For each preprocessing, (channels, height, width) in 0..255.

    Raises:
        InputError: none of them can be read, or images cannot have a preprocessing's number of channels.
    """
    if not paths:
        raise InputError("no photographs: expected at least one image file")
    count = skip
    for path in paths[skip:]:
        try:
            image = read_image(path)
        except InputError:
            yield None
        else:
            count += 1
            yield [preprocessing.photograph(image) for preprocessing in preprocessings]
    if not count:
        raise InputError(
            f"none of {len(paths)} photographs, such as {str(paths[0])!r}, can be read: they are no image files, or "
            "damaged ones"
        )


def decode_batches(paths: Sequence[Path], preprocessing: Preprocessing, size: int, skip: int = 0) -> Iterator[Batch]:
    """The photographs that can be read, `size` at once; the last batch may have fewer.

    Args:
        skip: as `decode` has it: so many files are left out, and counted as done.

    Raises:
        InputError: as `decode` does.
    """
    indices: list[int] = []
    rows: list[Tensor] = []
    for index, pixels in enumerate(decode(paths, preprocessing, skip=skip), skip):
        if pixels is not None:
            indices.append(index)
            rows += pixels
        if len(rows) == size:
            yield Batch(index + 1, indices, torch.stack(rows))
            indices, rows = [], []
    if rows:
        yield Batch(len(paths), indices, torch.stack(rows))
