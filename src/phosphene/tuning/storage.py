"""Where the trials of a search are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, error_text, input_errors_for
from phosphene.files import make_directory

# So many seconds a journal is locked without being written before its lock is taken for a dead process's.
_LOCKED = 10


# Optuna.


def open_storage(optuna: Any, storage: str | Path) -> Any:
    if "://" in str(storage):
        try:
            return optuna.storages.RDBStorage(str(storage))
        except Exception as error:  # of whatever database driver it is
            raise InputError(f"storage {str(storage)!r} cannot be used: {error_text(error)}") from error
    # Not relative: the lock links to it, and could not be seen to be a dead process's.
    path = (make_directory(Path(storage).parent) / Path(storage).name).resolve()
    with input_errors_for(f"storage {str(path)!r}", _JOURNAL):
        journal = optuna.storages.journal
        lock = journal.JournalFileSymlinkLock(str(path), grace_period=_LOCKED)
        _check_journal(path, lock)
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock))


_JOURNAL = "a file that a search wrote, a new one, or the URL of a database such as sqlite:///FILE"


def _check_journal(path: Path, lock: Any) -> None:
    """Raise an `InputError` where a file is another program's: it would be appended to.

    What a full disk or a crash of the machine has left of a last line is cut off: it would spoil the next.
    """
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        if file.read(len(_BEGINNING)) != _BEGINNING:
            raise InputError(f"storage {str(path)!r} is no journal of a search: expected {_JOURNAL}")
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    lock.acquire()
    try:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


_BEGINNING = b'{"op_code":'


@contextmanager
def storing(optuna: Any, storage: str) -> Iterator[None]:
    """What cannot be read from the storage, or written to it, is said in a sentence."""
    try:
        yield
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(f"storage {storage!r} cannot be used: {error_text(error)}; what is in it is kept") from error
