"""Files in a directory, or in an object store (any URL that fsspec takes): written wholly or not at all."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import fsspec

from phosphene.errors import InputError

IO_THREADS = 32  # requests to an object store

# An atlas may come from anyone: what is larger than any file of one is not read.
_MOST_BYTES = 2**28

_BINARY = getattr(os, "O_BINARY", 0)

_T = TypeVar("_T")
_U = TypeVar("_U")


class Storage:
    """A place for files; a file's name is its path from there on.

    Args:
        place: a directory, or a URL.

    Raises:
        InputError: there is no file system of that kind.
    """

    def __init__(self, place: str | Path):
        self.place = str(place)
        try:
            self.fs, root = fsspec.core.url_to_fs(self.place)
        except (ValueError, ImportError) as error:
            raise InputError(f"atlas {self.place!r} cannot be reached: {error}") from error
        self.root = root.rstrip("/")
        self.local = "file" in self.fs.protocol if isinstance(self.fs.protocol, tuple) else self.fs.protocol == "file"

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes, *, lasting: bool = True) -> None:
        """Write a file so that it is there wholly or not at all.

        Args:
            lasting: also after the machine fails.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path(name)
        aside = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"
        try:
            if not self.local:  # object stores put whole objects
                self.fs.pipe_file(path, data)
                return
            self.check_inside(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            if self.local and os.path.lexists(aside):
                os.unlink(aside)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file where there is none; whether there was none.

        Where a store cannot tell (see fsspec's `pipe_file`), two that come at once may both be told so.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path(name)
        try:
            if not self.local:
                return self._put_new(path, data)
            self.check_inside(name)
            try:
                descriptor = _open_new(path)
            except FileNotFoundError:  # the folder is made with its first file, and goes with its last
                os.makedirs(os.path.dirname(path), exist_ok=True)
                descriptor = _open_new(path)
            with open(descriptor, "wb") as file:
                file.write(data)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise self._unwritable(error) from error

    def _put_new(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(path, data, mode="create")
        except (TypeError, NotImplementedError):  # of before fsspec had it
            if self.fs.exists(path):
                return False
            self.fs.pipe_file(path, data)
        except OSError:
            if not self.fs.exists(path):
                raise
            return False
        return True

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.place!r} cannot be written: {error.strerror or error}; what was made is kept, and the same command "
            "goes on"
        )

    def modified(self, name: str) -> float | None:
        """When a file was written, by the store's own clock; None where it does not tell, or there is none."""
        try:
            self.fs.invalidate_cache()
            return float(self.fs.modified(self.path(name)).timestamp())
        except (OSError, NotImplementedError, AttributeError, KeyError, ValueError):
            return None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, in order; nothing where there is none."""
        self.fs.invalidate_cache()
        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.path(folder), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_file(self, name: str) -> None:
        """Raises an `OSError` where it is not there or may not be taken away."""
        if self.local:
            self.check_inside(name)
        self.fs.rm_file(self.path(name))

    def check_inside(self, name: str) -> None:
        """Raise an `OSError` if a symbolic link leads from the way to a file to somewhere else."""
        root, folder = os.path.realpath(self.root), os.path.dirname(name)
        if folder and os.path.realpath(os.path.join(root, folder)) != os.path.join(root, *folder.split("/")):
            raise OSError(errno.ELOOP, f"{folder!r} is a symbolic link, and an atlas has none")

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            InputError: it is too large for an atlas's, or no file but a link, a pipe or a device.
            OSError: it is not there, or cannot be read.
        """
        if self.local:
            self.check_inside(name)
            return _read_file(self.path(name), name)
        data = bytes(self.fs.cat_file(self.path(name), start=0, end=_MOST_BYTES + 1))
        if len(data) > _MOST_BYTES:
            raise InputError(f"{name} has over {_MOST_BYTES} bytes: expected a file of an atlas")
        return data

    def remove(self, folder: str) -> None:
        """Take away a folder with all that is in it."""
        self.fs.invalidate_cache()
        self.fs.rm(self.path(folder), recursive=True)

    def remove_others(self, folder: str, keep: str) -> None:
        """Take away all that is in a folder but one name, given as `folder` from the atlas's root on."""
        self.fs.invalidate_cache()
        for path in self.fs.ls(self.path(folder), detail=False):
            if not path.rstrip("/").endswith(f"/{keep}"):
                self.fs.rm(path, recursive=True)


def map_threaded(
    run: Callable[[_T], _U], items: Iterable[_T], on_each: Callable[[int], object] = lambda done: None
) -> list[_U]:
    """What comes of each, in their order; many wait at once for an object store, which takes its time for each.

    Args:
        on_each: called with how many are done.
    """
    results = []
    with ThreadPoolExecutor(IO_THREADS) as threads:
        for result in threads.map(run, items):
            results.append(result)
            on_each(len(results))
    return results


def _read_file(path: str, name: str) -> bytes:
    """The bytes of a file itself: a pipe would be waited for, and a link may lead anywhere."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is no file: expected one, and no folder, pipe or device")
        if status.st_size > _MOST_BYTES:
            raise InputError(f"{name} has {status.st_size} bytes: expected {_MOST_BYTES} at most")
        return file.read()


def _open_new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
