"""The files that statistics are kept in: safetensors, with what they are of in the metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from phosphene.errors import InputError
from phosphene.files import atomic_write, is_file

OF_PHOTOGRAPHS, OF_ACTIVATIONS = "photographs", "activations"
_MADE_BY = {OF_PHOTOGRAPHS: "phosphene statistics DIR", OF_ACTIVATIONS: "phosphene statistics DIR -n NETWORK"}


def statistics_digest(tensors: dict[str, Tensor]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the names and values of statistics."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_statistics(path: Path, tensors: dict[str, Tensor], of: str, metadata: dict[str, str]) -> Path:
    """Write statistics to a file; folders that are missing are made.

    Raises:
        InputError: it cannot be written.
    """
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"phosphene": of, **metadata})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be written: {error.strerror or error}") from error
    return atomic_write(path, lambda aside: aside.write_bytes(data))


def read_statistics(path: Path, of: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that `write_statistics` wrote of the same kind.

    Raises:
        InputError: there is no such file, it is damaged, or of another kind.
    """
    if not is_file(path):
        raise InputError(f"statistics {str(path)!r}: there is no such file; `{_MADE_BY[of]}` makes one")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
    except Exception as error:  # of a library that reads what it does not know
        raise damaged(path, of) from error
    if metadata.get("phosphene") != of:
        raise InputError(f"statistics {str(path)!r} are not of {of}: expected a file that `{_MADE_BY[of]}` wrote")
    return tensors, metadata


def damaged(path: Path, of: str) -> InputError:
    """The error of a file of statistics that cannot be used."""
    return InputError(
        f"statistics {str(path)!r} cannot be read: they are damaged, or no statistics; `{_MADE_BY[of]}` makes them anew"
    )
