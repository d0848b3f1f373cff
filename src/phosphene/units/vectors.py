"""Vectors that units are read along: from files of arrays, and as an image's own file holds them.

A file is named as `FILE.npy#12` (row 12 of a matrix; of a vector nothing is chosen), `FILE.npz#name`,
`FILE.npz#name,12` or `FILE.safetensors#name,12`; the name is not needed where the file has one array.  Only the row
that is asked for is read, and nothing is unpickled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phosphene.errors import InputError, did_you_mean, input_errors_for, join_names, printable
from phosphene.files import check_file, is_file, open_zip, plain_name

SUFFIXES = (".npy", ".npz", ".safetensors")
MAX_WIDTH = 1 << 20
"""Numbers of a vector; the widest layers of image networks have some ten thousand channels."""
_MAX_MEMBER = 1 << 31  # bytes of an array in an npz, which is read as a whole
_DIGEST = re.compile(r"=([0-9a-f]{16})$")

NOT_HELD = (
    "is not in the image's own file, and no other is opened: expected it there, or the unit on the command line or in "
    "Python"
)
"""What is said of a name whose numbers are not at hand, where a spelling is not a user's own."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredVector:
    """A vector from a file.

    Attributes:
        values: (width,), finite.
        name: how it is spelled: the file's name and what of it is taken, without the folder.
        metadata: of a safetensors file.
    """

    values: Floats
    name: str
    metadata: dict[str, str]

    @property
    def key(self) -> str:
        """The name with a digest of the values, by which an image's file knows the vector."""
        return f"{self.name}={vector_digest(self.values)}"


def vector_digest(values: Floats) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the numbers in 32 bits."""
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:16]


def names_vector_file(text: str) -> bool:
    """Whether a text names a file of vectors, or would but for what is behind its `#`."""
    path = _DIGEST.sub("", text).strip()
    return any(path.endswith(suffix) or f"{suffix}#" in path for suffix in SUFFIXES)


def read_vector(text: str) -> StoredVector:
    """The vector that `FILE#ROW`, with or without `=DIGEST`, names.

    Raises:
        InputError: there is no such file, array or row; it holds objects, more numbers than a vector has, or such that
            are not finite; or its digest is another one.
    """
    spelled = text.strip()
    wanted = _DIGEST.search(spelled)
    place = _DIGEST.sub("", spelled)
    path, selector = _split(place)
    origin = f"direction {printable(place)!r}"
    if not is_file(path):
        raise InputError(f"{origin}: there is no file {str(path)!r}: expected FILE.npy, FILE.npz or FILE.safetensors")
    reader = {".npy": _from_npy, ".npz": _from_npz, ".safetensors": _from_safetensors}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{origin}: expected a file that ends in .npy, .npz or .safetensors")
    values, metadata = reader(path, selector, origin)
    found = StoredVector(
        check_vector(values, origin), plain_name(path.name + (f"#{selector}" * bool(selector))), metadata
    )
    if wanted and found.key.rpartition("=")[2] != wanted[1]:
        raise InputError(
            f"{origin} has other numbers than when it was named (digest {found.key.rpartition('=')[2]}, and not "
            f"{wanted[1]}): expected the same file, or the name without ={wanted[1]}"
        )
    return found


def check_vector(values: Any, origin: str) -> Floats:
    """A vector in 32 bits.

    Raises:
        InputError: it is no vector of numbers, or they are not finite in 32 bits.
    """
    array = np.asarray(values)
    if array.ndim != 1 or not 1 <= array.size <= MAX_WIDTH or array.dtype.kind not in "fiub":
        raise InputError(
            f"{origin}: an array of shape {tuple(array.shape)} and type {array.dtype}: expected one row of numbers"
        )
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"{origin} has numbers that are not finite: expected finite ones")
    return numbers


def _split(place: str) -> tuple[Path, str]:
    """The file and what of it is taken; a `#` may be in the file's own name."""
    if is_file(Path(place)):
        return Path(place), ""
    path, sharp, selector = place.rpartition("#")
    return (Path(path), selector.strip()) if sharp else (Path(place), "")


def _from_npy(path: Path, selector: str, origin: str) -> tuple[Any, dict[str, str]]:
    with input_errors_for(origin, "a .npy file of numbers, which numpy.save wrote"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if selector and not selector.isdecimal():
        raise InputError(f"{origin}: a .npy file has one array, without a name: expected a row, such as {path.name}#0")
    return _row(array.shape, selector, origin, lambda row: array[row] if row is not None else array), {}


def _from_npz(path: Path, selector: str, origin: str) -> tuple[Any, dict[str, str]]:
    with open_zip(path, origin) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        name, row = _choose(names, selector, origin)
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > _MAX_MEMBER:
            raise InputError(f"{origin}: {info.file_size:,} bytes in the archive: expected {_MAX_MEMBER:,} at most")
        with input_errors_for(origin, "an .npz file of numbers, which numpy.savez wrote"), archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            count = math.prod(shape)
            if dtype.hasobject or count * dtype.itemsize != info.file_size - file.tell():
                raise ValueError("it declares other bytes than it holds, or objects")
            array = np.frombuffer(file.read(), dtype=dtype, count=count).reshape(shape, order="F" if fortran else "C")
    return _row(shape, row, origin, lambda at: array[at] if at is not None else array), {}


def _from_safetensors(path: Path, selector: str, origin: str) -> tuple[Any, dict[str, str]]:
    from safetensors import safe_open

    check_file(path, origin)
    with input_errors_for(origin, "a .safetensors file, whole"), safe_open(path, framework="pt") as opened:
        name, row = _choose(list(opened.keys()), selector, origin)
        part = opened.get_slice(name)
        shape = tuple(part.get_shape())
        values = _row(shape, row, origin, lambda at: (part[at] if at is not None else part[:]).float().numpy())
        return values, dict(opened.metadata() or {})


def _choose(names: Sequence[str], selector: str, origin: str) -> tuple[str, str]:
    """Which array of a file, and which row of it, `name`, `name,12` or `12` means."""
    if selector in names:
        return selector, ""
    name, comma, row = selector.rpartition(",")
    if comma and name in names:
        return name, row.strip()
    if len(names) == 1 and (not selector or selector.isdecimal()):
        return names[0], selector
    listed = join_names([printable(each, 60) for each in names])
    if not names:
        raise InputError(f"{origin}: the file has no array: expected one")
    if not selector or selector.isdecimal():
        raise InputError(f"{origin}: the file has {len(names)} arrays ({listed}): expected one's name behind a #")
    raise InputError(
        f"{origin}: the file has no array of that name, but {listed}{did_you_mean(name or selector, names)}"
    )


def _row(shape: tuple[int, ...], row: str, origin: str, take: Callable[[int | None], Any]) -> Any:
    """One row of a matrix, or a vector as it is."""
    if len(shape) == 1 and not row:
        if shape[0] > MAX_WIDTH:
            raise InputError(f"{origin}: {shape[0]:,} numbers: expected {MAX_WIDTH:,} at most")
        return take(None)
    if len(shape) != 2:
        what = f"an array of shape {tuple(shape)}" + (f", of which row {printable(row, 40)} is asked" * bool(row))
        raise InputError(f"{origin}: {what}: expected a vector, or a row of a matrix")
    count, width = shape
    if not row:
        raise InputError(f"{origin}: a matrix of {count} rows: expected one of them, such as #0")
    if not re.fullmatch("[0-9]{1,12}", row) or int(row) >= count:
        raise InputError(f"{origin}: row {printable(row, 40)} of {count} rows: expected 0 to {count - 1}")
    if width > MAX_WIDTH:
        raise InputError(f"{origin}: {width:,} numbers in a row: expected {MAX_WIDTH:,} at most")
    return take(int(row))


# As an image's own file holds them


def encode_vector(values: Sequence[float] | Floats) -> str:
    """Numbers as text: base64 of 32-bit floats, the lowest byte first."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


def decode_vector(text: str, origin: str) -> Floats:
    """What `encode_vector` wrote.

    Raises:
        InputError: it is damaged, or too long.
    """
    if len(text) > 6 * MAX_WIDTH:
        raise InputError(f"{origin} has {len(text):,} letters: expected a vector of {MAX_WIDTH:,} numbers at most")
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        raise InputError(f"{origin} is damaged: expected a vector as phosphene writes it") from None
    return check_vector(values, origin)
