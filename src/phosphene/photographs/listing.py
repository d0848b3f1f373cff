"""Which photographs there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from phosphene.errors import InputError
from phosphene.images import SUFFIXES, readable
from phosphene.networks.preprocessing import Preprocessing


def list_photographs(directory: str | Path, limit: int | None = None) -> list[Path]:
    """The image files of a folder and of those in it, by their names' endings, sorted; of more, `limit` evenly spread.

    Raises:
        InputError: there is no such folder, or no image file in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"photographs {str(directory)!r}: there is no such folder")
    found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"photographs {str(directory)!r}: there is no image file in this folder")
    return evenly(found, limit)


# Files


def evenly(files: list[Path], limit: int | None) -> list[Path]:
    count = len(files) if limit is None else min(limit, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def decoded(files: list[Path], preprocessing: Preprocessing) -> Iterator[Tensor | None]:
    """Each file's pixels (channels, height, width) in 0..255, or None where it is no image or a damaged one."""
    for image in readable(files):
        yield None if image is None else preprocessing.photograph(image)


def none_readable(files: list[Path]) -> InputError:
    if not files:
        return InputError("no photographs: expected at least one image file")
    return InputError(
        f"none of {len(files)} photographs, such as {str(files[0])!r}, can be read: they are no image files, or "
        "damaged ones"
    )
