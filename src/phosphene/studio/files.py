"""The files that a studio may read: those in the folders that it was started with, and no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phosphene.errors import InputError, printable
from phosphene.files import MAX_TOML, parse_toml, read_text
from phosphene.images import SUFFIXES
from phosphene.photographs.listing import list_photographs

# What a file is for, by its suffix.  Python files are left out: to open one is to run it.
_SUFFIXES = {
    "networks": (".keras", ".h5", ".hdf5", ".onnx", ".prototxt"),
    "weights": (".safetensors", ".pth", ".pt", ".bin", ".caffemodel", ".h5"),
    "preprocessings": (".toml",),
    "labels": (".txt", ".json"),
    "images": tuple(SUFFIXES),
}

_DEEPEST = 6  # folders below the one given
MAX_FILES = 5000  # files and folders that are looked at


@dataclass(frozen=True)
class FileListing:
    """What there is to pick, as absolute paths.

    Attributes:
        networks: files, and folders that transformers saved.
        weights: of networks that are opened by name.
        preprocessings: descriptions of what a network expects.
        labels: names of outputs.
        images: to start from, or for units that refer to one.
        photographs: folders that have images, in themselves or in folders in them.
    """

    networks: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    preprocessings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    photographs: tuple[str, ...] = ()


def list_files(folders: Sequence[str]) -> FileListing:
    """The files of some folders and the folders in them; links that lead out of all of them are left out."""
    kinds: dict[str, list[str]] = {kind: [] for kind in (*_SUFFIXES, "photographs")}
    for path in _walk(folders):
        if path.name == "config.json":
            kinds["networks"].append(str(path.parent))
        for kind, suffixes in _SUFFIXES.items():
            if path.suffix.lower() in suffixes:
                kinds[kind].append(str(path))
        if path.suffix.lower() in SUFFIXES:
            kinds["photographs"] += [str(folder) for folder in path.parents if is_inside(folder, folders)]
    return FileListing(**{kind: tuple(sorted(set(paths))) for kind, paths in kinds.items()})


def _walk(folders: Sequence[str]) -> Iterator[Path]:
    """Regular files that can be shown and are in the folders, links followed; none is opened."""
    seen = 0
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if _is_shown(name))
            if len(Path(place).relative_to(folder).parts) >= _DEEPEST:
                inner.clear()
            seen += 1
            for name in sorted(filter(_is_shown, names)):
                seen += 1
                path = Path(place) / name
                if seen <= MAX_FILES and is_regular(path) and is_inside(path, folders):
                    yield path
            if seen > MAX_FILES:
                return


def _is_shown(name: str) -> bool:
    """Whether a file is neither hidden nor called what a browser cannot be told: bytes that are no UTF-8, controls."""
    return not name.startswith(".") and printable(name, len(name)) == name and "\n" not in name and "\t" not in name


def is_regular(path: Path) -> bool:
    """Whether this leads to a file: not to a folder, a FIFO, a socket or a device, which may never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_inside(path: str | Path, folders: Sequence[str]) -> bool:
    """Whether a path is in one of the folders, with all links followed."""
    try:
        real = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, bytes that no path has
        return False
    return any(real.is_relative_to(Path(folder).resolve()) for folder in folders)


def find_dropped(paths: Sequence[str], name: str, size: int) -> list[str]:
    """Those of some files and folders that are called as what was dropped onto the page, and of its size."""
    named = [path for path in paths if Path(path).name == name]
    return [path for path in named if Path(path).is_dir() or Path(path).stat().st_size == size]


def shown_path(path: str, folders: Sequence[str]) -> str:
    """A path as it is shown: from the folder on that it is in."""
    folder = next((folder for folder in folders if Path(path).is_relative_to(folder)), None)
    return path if folder is None else str(Path(path).relative_to(Path(folder).parent))


def check(path: str, folders: Sequence[str], kind: str) -> str:
    """A file of the list that may be read, and so may all that is read with it.

    Args:
        kind: of file: "networks", "weights", "preprocessings", "labels" or "images"; or "photographs", a folder.

    Raises:
        InputError: it is not in the folders, or leads to something that is not; or it is not listed as such a file.
    """
    if not is_inside(path, folders):
        where = ", ".join(folders) or "none: start with --files DIR"
        raise InputError(f"file {path!r} is not in the folders that this studio may read ({where})")
    if path not in getattr(list_files(folders), kind):
        raise InputError(f"file {path!r} is not listed with the {kind} that this studio may read")
    for other in list_photographs(path) if kind == "photographs" else _read_with(Path(path)):
        if not is_inside(other, folders):
            raise InputError(f"{Path(path).name} leads to {str(other)!r}, which is not in the folders that may be read")
        if os.path.lexists(other) and not is_regular(other):
            raise InputError(f"{Path(path).name} leads to {str(other)!r}, which is no file")
    return path


def _read_with(path: Path) -> Iterator[Path]:
    """What is read along with a file: all of a folder, the description beside it, and the labels that this names."""
    if path.is_dir():
        yield from (file for file in path.iterdir() if not (file.is_dir() and not file.is_symlink()))
    beside = path / "phosphene.toml" if path.is_dir() else path.with_suffix(".toml")
    if not os.path.lexists(beside):
        return
    yield beside
    if beside.stat().st_size > MAX_TOML:
        raise InputError(f"{beside.name} is too large: expected {MAX_TOML:,} bytes of description at most")
    try:
        labels = parse_toml(read_text(beside, beside.name, MAX_TOML), beside.name).get("labels")
    except InputError:  # which is said when it is opened
        return
    if isinstance(labels, str) and labels != "imagenet":
        yield beside.parent / labels
