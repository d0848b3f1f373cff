"""Dictionaries, opened from the files of whoever trained them."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.dictionaries.contents import Contents, assemble, check_fields
from phosphene.dictionaries.dictionary import Dictionary
from phosphene.dictionaries.formats import checkpoint, overcomplete, plain, saelens, saev
from phosphene.errors import InputError
from phosphene.files import check_file, is_file, plain_name

_KEPT = 4  # dictionaries in memory


def open_dictionary(path: str | Path, **fields: Any) -> Dictionary:
    """A dictionary from a file of saev, Prisma, PatchSAE, overcomplete or safetensors, or a folder of SAELens.

    Nothing in it is run.  What the file does not say has to be given, and is asked for.

    Args:
        path: of the file or folder.
        fields: what counts before what the file says, such as `layer="blocks.9"`; see `contents.FIELDS`.

    Raises:
        InputError: there is no such file, it is damaged, of another kind (transcoders are refused by name), or it does
            not say what has to be known.

    Example:
        >>> dictionary = open_dictionary("sae.pt", activation="topk", k=32)
        >>> dictionary.latents, dictionary.width
        (6144, 768)
    """
    place = Path(path)
    origin = f"dictionary {str(place)!r}"
    checked = check_fields(fields, origin)
    files = _weights_in(place) if os.path.isdir(place) else [place]
    try:
        states = [file.stat() for file in files]
    except (OSError, ValueError):
        raise InputError(f"{origin}: there is no such file or folder") from None
    stamp = tuple((state.st_mtime_ns, state.st_size) for state in states)
    return _opened(place.absolute(), stamp, tuple(sorted(checked.items())))


def read_dictionary(data: bytes, origin: str) -> Dictionary:
    """The dictionary of what `Dictionary.save` wrote, which keeps its title.

    Raises:
        InputError: it is damaged, or something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dictionary.safetensors"
        path.write_bytes(data)
        tensors, metadata = plain.load(path, origin)
        found = assemble(plain.read(tensors, metadata, origin), path, {})
    return replace(found, path=None, title=plain_name(metadata.get("title", "")))


def _weights_in(folder: Path) -> list[Path]:
    """The files of SAELens's folder."""
    files = [folder / saelens.WEIGHTS, folder / saelens.SETTINGS]
    if missing := [file.name for file in files if not is_file(file)]:
        raise InputError(
            f"dictionary {str(folder)!r} has no {' and no '.join(missing)}: expected a folder of SAELens's"
        )
    return files


_in_memory: weakref.WeakSet[Dictionary] = weakref.WeakSet()


@lru_cache(_KEPT)
def _opened(path: Path, stamp: object, fields: tuple[tuple[str, Any], ...]) -> Dictionary:
    found = assemble(_contents(path, f"dictionary {str(path)!r}"), path, dict(fields))
    _in_memory.add(found)
    return found


def opened_dictionary(digest: str) -> Dictionary | None:
    """The dictionary of a digest, where it has been opened in this process."""
    return next((each for each in _in_memory if each.digest == digest), None)


def _contents(path: Path, origin: str) -> Contents:
    """What is in a file, read as its format is."""
    if os.path.isdir(path):
        return saelens.read(path, origin)
    check_file(path, origin)  # before it is opened, which a pipe would wait for
    if path.suffix == ".safetensors":
        if path.name == saelens.WEIGHTS and is_file(path.with_name(saelens.SETTINGS)):
            return saelens.read(path.parent, origin)
        tensors, metadata = plain.load(path, origin)
        if overcomplete.DICTIONARY in tensors:
            return overcomplete.read(tensors, origin)
        return plain.read(tensors, metadata, origin)
    with path.open("rb") as file:
        first = file.read(1)
    if first == b"{":
        return saev.read(path, origin)
    loaded = checkpoint.load(path, origin)
    if not isinstance(loaded, Mapping):
        raise InputError(f"{origin} holds no dictionary: expected names and tensors, or cfg and state_dict")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if overcomplete.DICTIONARY in tensors:
        return overcomplete.read(tensors, origin)
    if {"cfg", "config"} & loaded.keys() or is_file(path.with_name("config.json")):
        return checkpoint.read(loaded, path, origin)
    return plain.read(tensors, {}, origin)
