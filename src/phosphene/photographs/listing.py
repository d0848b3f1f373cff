"""Which photographs there are in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from phosphene.errors import InputError
from phosphene.images import SUFFIXES

Item = TypeVar("Item")


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
    return evenly_spread(found, limit)


def photographs_digest(paths: Sequence[Path]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the names and sizes of files, in their order."""
    told = [(path.name, path.stat().st_size) for path in paths]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def evenly_spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """So many of the items, evenly spread; all of them where there are no more, or there is no limit."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]
