"""Optuna's study of a search: opened, kept quiet, and its errors in a sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, error_text, input_errors_for
from phosphene.extras import require
from phosphene.files import make_directory
from phosphene.tuning.samplers import make_pruner, make_sampler
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.task import SearchTask

LOCK_SECONDS = 10
"""So long a journal is locked without being written before its lock is taken for a dead process's."""

_JOURNAL = "a file that a search wrote, a new one, or the URL of a database such as sqlite:///FILE"
_BEGINNING = b'{"op_code":'


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Within, Optuna tells of errors only; afterwards it is as talkative as before.

    Raises:
        InputError: Optuna is not installed.
    """
    optuna = require("optuna", "search", "a search")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """What cannot be read from the storage, or written to it, is said in a sentence."""
    optuna = require("optuna", "search", "a search")
    try:
        yield
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(f"storage {storage!r} cannot be used: {error_text(error)}; what is in it is kept") from error


def open_study(task: SearchTask, settings: SearchSettings, storage: str | Path) -> Any:
    """The study of a task in a storage, which is a file or the URL of a database; begun if it is not there.

    Raises:
        InputError: the storage is another program's, damaged, or cannot be opened.
    """
    optuna = require("optuna", "search", "a search")
    return optuna.create_study(
        storage=_open_storage(optuna, storage),
        study_name=task.name(),
        load_if_exists=True,
        sampler=make_sampler(optuna, settings.sampler, task.seed),
        pruner=make_pruner(optuna, settings.pruner, task.rungs),
        directions=["maximize", "minimize"] if task.compute else ["maximize"],
    )


def _open_storage(optuna: Any, storage: str | Path) -> Any:
    if "://" in str(storage):
        try:
            return optuna.storages.RDBStorage(str(storage))
        except Exception as error:  # of whatever database driver it is
            raise InputError(f"storage {str(storage)!r} cannot be used: {error_text(error)}") from error
    # Not relative: the lock links to it, and could not be seen to be a dead process's.
    path = (make_directory(Path(storage).parent) / Path(storage).name).resolve()
    with input_errors_for(f"storage {str(path)!r}", _JOURNAL):
        journal = optuna.storages.journal
        lock = journal.JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
        _check_journal(path, lock)
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock))


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
