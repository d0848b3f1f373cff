"""Files from anywhere: read if they are plain files of no more bytes than such a file has, parsed if not nested deep.

Parsers recurse for each level of nesting, and take the square of a dotted key's length, so both are bounded before a
parser sees the text.  What reads another format bounds it in its own module.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, error_text, input_errors_for

MAX_TEXT = 4 << 20
"""Bytes of a text; the names of ImageNet's 21,841 classes are a quarter of it."""

MAX_TOML = 1 << 20
"""Bytes of a TOML text, which takes its parser seconds; a recipe has some hundred, or with long lists of names more."""

MAX_DIRECTORY = 4 << 20
"""Bytes of a zip archive's directory; that of a network of 10,000 tensors has a fifth of it."""

MAX_DEPTH = 32
"""How deep a text's values are nested, and parts of a dotted key; a recipe has four."""

MAX_INTEGER = 1 << 63
"""The largest whole number that TOML promises; Python takes the square of a number's length to print it."""


def plain_name(text: str) -> str:
    """A file's name as it can stand in the spelling of a unit: without what means something else there."""
    return re.sub(r"[^\w.,#+-]+", "_", text)[:200] or "file"


def is_file(path: Path) -> bool:
    """Whether there is a plain file of that name; a name that cannot be one is of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # it is too long, or has a zero in it
        return False


def check_file(path: Path, origin: str, limit: int | None = None) -> int:
    """The bytes of a plain file.

    Args:
        origin: what it is, for the message: "labels file 'a.txt'".
        limit: bytes that it may have.

    Raises:
        InputError: there is no such file, it is a folder, a pipe or a device, which would be waited for, or too large.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"{origin}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{origin} cannot be read ({error_text(error)}): expected a file") from error
    _check_kind(found, origin, limit)
    return found.st_size


def _check_kind(found: os.stat_result, origin: str, limit: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{origin} is a folder and cannot be read: expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{origin} is a pipe, a socket or a device and cannot be read: expected a file")
    if limit is not None and found.st_size > limit:
        raise InputError(f"{origin} has {found.st_size:,} bytes and is not read: expected {limit:,} at most")


def read_bytes(path: Path, origin: str, limit: int) -> bytes:
    """All of a plain file.

    Raises:
        InputError: as `check_file`, or it cannot be opened.
    """
    check_file(path, origin, limit)
    with input_errors_for(origin, "a file that can be opened"):
        # Should it have become a pipe by now, opening it does not wait for who writes into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _check_kind(os.fstat(descriptor), origin, limit)
            data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{origin} has over {limit:,} bytes and is not read: expected {limit:,} at most")
    return data


def open_zip(path: Path, origin: str) -> zipfile.ZipFile:
    """A zip archive, whose directory takes Python ten times its bytes.

    Raises:
        InputError: it is none, or its directory is larger than `MAX_DIRECTORY`.
    """
    check_file(path, origin)
    with input_errors_for(origin, "a zip archive, whole"):
        with path.open("rb") as file:
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end is not None and end[_SIZE] > MAX_DIRECTORY:
            raise InputError(f"{origin} has a directory of {end[_SIZE]:,} bytes: expected {MAX_DIRECTORY:,} at most")
        return zipfile.ZipFile(path)


_SIZE = 5  # where the directory's size stands in the end record


def read_text(path: Path, origin: str, limit: int = MAX_TEXT) -> str:
    """All of a plain file of UTF-8 text, without the mark that some begin with.

    Raises:
        InputError: as `read_bytes`, or it is no UTF-8.
    """
    data = read_bytes(path, origin, limit)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{origin} cannot be read: expected a text in UTF-8") from None


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        InputError: it is no TOML, too long, nested too deep, or has a number of more than 64 bits.
    """
    if len(text) > MAX_TOML:
        raise InputError(f"{origin} has {len(text):,} letters and is not read: expected {MAX_TOML:,} at most")
    if any(depth > MAX_DEPTH for depth in _toml_depths(text)):
        raise InputError(f"{origin} is nested over {MAX_DEPTH} deep and is not read: expected tables and lists of less")
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{origin} is no TOML: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:  # a number with thousands of digits, a date
        raise InputError(f"{origin} is no TOML: {error_text(error)}") from None
    _check_integers(values, origin)
    return values


# What a text is made of, as far as nesting goes.  A string that is not closed goes on to the end of the text.
_TOML = re.compile(
    r'''"""(?:[^\\]|\\.?)*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)|"(?:[^"\\\n]|\\.)*(?:"|\n|\Z)?|'[^'\n]*'?'''
    r"""|\#[^\n]*|[\[{\]}.=,\n]|[^"'#\[{\]}.=,\n]+|.""",
    re.DOTALL,
)


def _toml_depths(text: str) -> Iterator[int]:
    """How deep each part of a TOML text is nested, or how many dots are in a key before it."""
    depth = dots = 0
    for match in _TOML.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            depth += 1
            dots = 0
        elif token in ("]", "}"):
            depth = max(0, depth - 1)
            dots = 0
        elif token == ".":
            dots += 1
        elif token in ("=", ",", "\n"):
            dots = 0
        yield max(depth, dots)


def parse_json(text: str, origin: str, limit: int = MAX_TEXT) -> Any:
    """The value of a JSON text of no more letters than `limit`.

    Raises:
        InputError: it is no JSON, too long, nested too deep, or has a whole number of more than 64 bits.
    """
    if len(text) > limit:
        raise InputError(f"{origin} has {len(text):,} letters and is not read: expected {limit:,} at most")
    if any(depth > _MAX_JSON_DEPTH for depth in _json_depths(text)):
        raise InputError(f"{origin} is nested over {_MAX_JSON_DEPTH} deep and is not read: expected JSON of less")
    try:
        return json.loads(text, parse_int=_json_integer)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin} is no JSON: {error_text(error)}") from None


_MAX_JSON_DEPTH = 128  # a Keras model of models of models is nested some 30 deep
_JSON = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _json_depths(text: str) -> Iterator[int]:
    depth = 0
    for match in _JSON.finditer(text):
        depth += (match[0] in ("[", "{")) - (match[0] in ("]", "}"))
        yield depth


def _json_integer(digits: str) -> int:
    value = int(digits) if len(digits) < 24 else MAX_INTEGER
    if not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ValueError("a whole number of more than 64 bits")
    return value


def _check_integers(values: Any, origin: str) -> None:
    todo = [values]
    while todo:
        value = todo.pop()
        if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
            raise InputError(f"{origin} has a whole number of more than 64 bits: expected a smaller one")
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value


def make_directory(directory: Path) -> Path:
    """Make a directory, and check that it can be written.

    Raises:
        InputError: it cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(f"directory {str(directory)!r} cannot be written: {error.strerror}") from error
    return directory


def atomic_write(path: Path, write: Callable[[Path], object]) -> Path:
    """Have a file written beside its place, then move it there: it is never half there."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(aside)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path
