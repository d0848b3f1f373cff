"""Passes of photographs that go on where they were killed: what they have gathered, now and then, in a file.

The file is data: a safetensors file, whose tensors are taken one by one under the names, and of the shapes and types,
that the pass itself has.  A checksum tells what a crash has left of it, and a key what it is of.  What does not fit is
said, and nothing of it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from phosphene.errors import InputError
from phosphene.files import atomic_write, is_file, make_directory
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.run_folders import UNFINISHED
from phosphene.versions import versions

EVERY = 20.0
"""Seconds between two writings."""
_SHARE = 10  # a file is written again when at least so many times the seconds have passed that writing it took
_KIND = "unfinished pass"
_MOST_METADATA = 10_000  # letters

Place = str | Path | Callable[[Callable[[Path], bool]], Path]
"""A folder; or what chooses one, given what tells whether a folder holds the unfinished file of this run."""


class DamagedFileError(Exception):
    """An unfinished file is not what this pass has written."""


class SavedTensors:
    """The tensors of an unfinished file, which are taken one by one."""

    def __init__(self, opened: Any):
        self._opened, self._names = opened, set(opened.keys())
        self.taken: dict[str, Tensor] = {}

    def take(self, name: str, dtype: torch.dtype, *shape: int | tuple[int, int]) -> Tensor:
        """A tensor of just this type and shape; (least, most) is an axis of which only the bounds are known.

        Raises:
            DamagedFileError: there is none.
        """
        if name not in self._names:
            raise DamagedFileError(name)
        found = self._opened.get_slice(name).get_shape()
        bounds = [each if isinstance(each, tuple) else (each, each) for each in shape]
        if len(found) != len(bounds) or any(not low <= n <= high for n, (low, high) in zip(found, bounds, strict=True)):
            raise DamagedFileError(name)
        tensor: Tensor = self._opened.get_tensor(name).clone()  # which outlasts the file
        if tensor.dtype != dtype:
            raise DamagedFileError(name)
        self.taken[name] = tensor
        return tensor

    def take_numbers(self, name: str, least: Sequence[int], most: Sequence[int]) -> list[int]:
        """Whole numbers, each within its bounds."""
        found = self.take(name, torch.int64, len(least)).tolist()
        if any(not low <= value <= high for low, value, high in zip(least, found, most, strict=True)):
            raise DamagedFileError(name)
        return [int(value) for value in found]

    def take_indices(self, name: str, most: int, *shape: int | tuple[int, int]) -> Tensor:
        """Whole numbers from 0 to just below `most`."""
        found = self.take(name, torch.int64, *shape)
        if found.numel() and not (int(found.min()) >= 0 and int(found.max()) < most):
            raise DamagedFileError(name)
        return found

    def has(self, name: str) -> bool:
        return name in self._names

    def check_all_taken(self, expected: str | None) -> None:
        """Raise a `DamagedFileError` if there are more tensors, or others than were written."""
        if set(self.taken) != self._names or checksum(_arrays(self.taken)) != expected:
            raise DamagedFileError("the checksum")


@dataclass
class PassFile:
    """The file that a pass of photographs goes on from, while `resumable` lasts; without that, nothing is written.

    Attributes:
        key: of the pass: see `pass_key`.
        path: of the file; None: there is none.
    """

    key: str
    path: Path | None = None
    every: float = EVERY
    say: Callable[[str], None] = print
    _due: float = field(default_factory=time.monotonic)

    def resume(self, restore: Callable[[SavedTensors], str]) -> bool:
        """Have what was gathered restored, if there is a file of this pass; it is said where the pass goes on.

        Args:
            restore: takes all tensors, and returns where the pass goes on, as `where` says it.  Whatever it has changed
                is of no use where this returns False.

        Raises:
            InputError: a file of that name is another's.
        """
        self._due = time.monotonic() + self.every
        if self.path is None or not is_file(self.path):
            return False
        try:
            with safe_open(self.path, framework="pt") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("phosphene") != _KIND:
                    raise InputError(f"{self.path} is no unfinished run: expected another folder, or move it away")
                if metadata.get("key") != self.key:
                    self.say(f"{self.path} is of another run: starting again")
                    return False
                saved = SavedTensors(opened)
                text = restore(saved)
                saved.check_all_taken(metadata.get("checksum"))
        except InputError:
            raise
        except Exception:  # of a library that reads what it does not know, too
            self.say(f"{self.path} is damaged: starting again")
            return False
        self.say(f"going on {text}")
        return True

    def write_if_due(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Write what is gathered, if it is some time since that was done."""
        if self.path is not None and time.monotonic() >= self._due:
            self.write(tensors)

    def write(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Write what is gathered; where it cannot be, that is said once."""
        if self.path is None:
            return
        begin, path = time.monotonic(), self.path
        try:
            atomic_write(path, lambda aside: self._write(aside, _arrays(tensors())))
        except InputError as error:
            self.say(f"{error}: should this run be killed, it starts again")
            self.path = None
        now = time.monotonic()
        self._due = now + (max(self.every, _SHARE * (now - begin)) if self.every else 0)

    def _write(self, aside: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        metadata = {"phosphene": _KIND, "key": self.key, "checksum": checksum(arrays), "process": _this_process()}
        try:
            save_file(arrays, aside, metadata)
        except Exception as error:  # safetensors has one of its own for a full disk
            raise OSError(str(error)) from error
        with aside.open("rb+") as file:
            os.fsync(file.fileno())


class UnfinishedRun:
    """A run that goes on where it was killed.

    Attributes:
        folder: in which its results and its unfinished file are; the current one before its pass has begun.
    """

    def __init__(self, place: Place, every: float, say: Callable[[str], None]):
        self.folder = Path()
        self._has_begun = False
        self._place, self._every, self._say = place, every, say
        self._kept = False

    def begin(self, key: str) -> PassFile:
        """The file of a pass.

        Raises:
            InputError: the folder cannot be written.
        """
        if not self._has_begun:
            place = self._place
            self.folder = place(lambda folder: self._is_of(folder, key)) if callable(place) else Path(place)
            make_directory(self.folder)
            self._has_begun = True
            for aside in self.folder.glob(f".{Path(UNFINISHED).stem}.*{Path(UNFINISHED).suffix}"):
                aside.unlink(missing_ok=True)  # of a process that was killed while it wrote
        return PassFile(key, self.folder / UNFINISHED, self._every, self._say)

    def _is_of(self, folder: Path, key: str) -> bool:
        path = folder / UNFINISHED
        if not is_file(path):
            return False
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
        except Exception:  # of a library that reads what it does not know
            self._say(f"{path} is damaged: no run goes on from it")
            return False
        return bool(metadata.get("key") == key) and not _is_alive(metadata.get("process", ""))

    def is_kept(self) -> bool:
        """Whether there is a file to go on from."""
        return self._has_begun and (self.folder / UNFINISHED).exists()

    def keep(self) -> None:
        """Leave the file, although the block ends: what comes behind the pass was interrupted."""
        self._kept = True

    def finish(self) -> None:
        """Remove the file."""
        if self._has_begun and not self._kept:
            with suppress(OSError):
                (self.folder / UNFINISHED).unlink(missing_ok=True)


_RUN: ContextVar[UnfinishedRun | None] = ContextVar("unfinished run", default=None)


@contextmanager
def resumable(
    folder: Place, *, every: float = EVERY, say: Callable[[str], None] | None = None
) -> Iterator[UnfinishedRun]:
    """Within it, `compare` and `depth` go on where a killed or interrupted one with the same arguments was.

    What they have gathered is written to `unfinished.safetensors` in a folder, every 20 seconds and at the end of the
    photographs.  It counts for the same networks, photographs (paths, sizes and times), layers, settings, device and
    versions; the result is that of a run that nothing interrupted, byte for byte.  The file is removed when the block
    ends without an exception.  Ctrl-C first finishes the photographs in hand, and writes the file.  A folder has the
    file of one call: of several, each takes a block and a folder of its own.

    Args:
        folder: it is made if there is none.
        every: seconds between two writings, more where writing takes long; 0: it is written behind each batch.
        say: is told where the run goes on, and of a file that is not used; by default standard error is.

    Raises:
        InputError: the folder cannot be written, or has a file of that name that is something else.

    Example:
        >>> with phosphene.resumable("phosphene-out"):
        ...     found = phosphene.compare("efficientnet_lite0", "efficientnet_lite1", "photographs")
        ...     found.save("phosphene-out")
    """
    run = UnfinishedRun(folder, every, say or (lambda text: print(f"phosphene: {text}", file=sys.stderr)))
    token = _RUN.set(run)
    try:
        yield run
        run.finish()
    finally:
        _RUN.reset(token)


def begin_pass(key: Callable[[], str]) -> PassFile:
    """The file of a pass, if it is within `resumable`."""
    run = _RUN.get()
    return PassFile("") if run is None else run.begin(key())


def where(total: int, done: int, again: str = "") -> str:
    """Where a pass of photographs goes on: "at photograph 121 of 200"."""
    return f"at photograph {done + 1} of {total}{again}" if done < total else f"behind the last of {total} photographs"


@contextmanager
def interruptible_pass(file: PassFile) -> Iterator[Callable[[Callable[[], Mapping[str, Tensor]]], None]]:
    """Yields what is called behind each batch with what gives the tensors: it writes them when they are due.

    Raises:
        KeyboardInterrupt: behind a batch, with the file written.
    """
    if file.path is None:
        yield lambda tensors: None
        return
    with interruptible() as stop:

        def batch_done(tensors: Callable[[], Mapping[str, Tensor]]) -> None:
            if stop.is_set():
                file.write(tensors)
                raise KeyboardInterrupt
            file.write_if_due(tensors)

        yield batch_done


def pass_key(networks: Sequence[Network], files: Sequence[Path], device: object, what: Mapping[str, Any]) -> str:
    """What tells a pass from others: a digest of networks, photographs, versions and what is computed.

    Args:
        what: as JSON holds it.
    """
    told = {
        "versions": versions(),
        "networks": [[each.name, each.digest, repr(each.preprocessing)] for each in networks],
        "photographs": [[str(path.absolute()), (of := path.stat()).st_size, of.st_mtime_ns] for path in files],
        "device": str(device),
        **what,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ascontiguousarray(tensor.detach().cpu().numpy()).reshape(tensor.shape) for name, tensor in
            tensors.items()}  # fmt: skip


def checksum(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _this_process() -> str:
    return json.dumps([platform.node(), os.getpid(), psutil.Process().create_time()])


def _is_alive(process: str) -> bool:
    """Whether the process that wrote a file, as the file says, is another one of this machine and still runs."""
    with suppress(Exception):  # anyone may have written it
        machine, number, began = json.loads(process[:_MOST_METADATA])
        if machine == platform.node() and int(number) != os.getpid():
            return bool(abs(psutil.Process(int(number)).create_time() - float(began)) < 1)
    return False
