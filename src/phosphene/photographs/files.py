"""The files that statistics are kept in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from phosphene.errors import InputError
from phosphene.files import is_file

OF_PHOTOGRAPHS, OF_ACTIVATIONS = "photographs", "activations"
_MADE_BY = {OF_PHOTOGRAPHS: "phosphene statistics DIR", OF_ACTIVATIONS: "phosphene statistics DIR -n NETWORK"}


def photographs_digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_statistics(path: Path, tensors: dict[str, Tensor], of: str, metadata: dict[str, str]) -> Path:
    """Write beside the place, then move there: the file is never half there."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"phosphene": of, **metadata})
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()
    return path


def read_statistics(path: Path, of: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that `_write` made of such statistics."""
    if not is_file(path):
        raise InputError(f"statistics {str(path)!r}: there is no such file; `{_MADE_BY[of]}` makes one")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
    except Exception as error:  # of a library that reads what it does not know
        raise damaged(path, of) from error
    if metadata.get("phosphene") != of:
        raise InputError(
            f"statistics {str(path)!r} are not of {of}: expected a file that `{_MADE_BY[of]}` wrote"
        )  # fmt: skip
    return tensors, metadata


def damaged(path: Path, of: str) -> InputError:
    return InputError(
        f"statistics {str(path)!r} cannot be read: they are damaged, or no statistics; `{_MADE_BY[of]}` makes them anew"
    )
