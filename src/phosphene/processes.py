"""Processes that work for this one: how they are started, heard, interrupted and ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

import psutil

from phosphene import interruption
from phosphene.default_progress import without_progress
from phosphene.hardware import keep_freed_memory

SPAWN = multiprocessing.get_context("spawn")
"""How processes are started: a fork would have the locks of threads that it has not."""


class WorkerProcess:
    """A process that works for this one, the pipe to it, and its end with this one, whatever this one ends by.

    Args:
        work: what it does; it is called with the arguments and the other end of the pipe.

    Neither signal reaches it while its imports run; from then on see `interruption.answer_as_worker`.

    Attributes:
        process: the process, of `multiprocessing`.
        pipe: this process's end of the pipe.
    """

    def __init__(self, work: Callable[..., Any], *arguments: Any):
        self.pipe, theirs = SPAWN.Pipe()
        self._listens = SPAWN.RawValue("b", 0)
        self.process = SPAWN.Process(target=_run, args=(self._listens, work, (*arguments, theirs)), daemon=True)
        if os.name == "posix":
            resource_tracker.ensure_running()  # which lets both signals through, where it is not running yet
        with interruption.held_back():
            self.process.start()
        theirs.close()

    def interrupt(self) -> None:
        """Have it finish its step and end; if it has not begun its work it ends now.  Often is as good as once."""
        if not self._listens.value:
            self.process.kill()
        elif os.name == "posix" and self.process.is_alive():  # elsewhere Ctrl-C reaches it by itself
            os.kill(self.process.pid, signal.SIGINT)  # type: ignore[arg-type]


def receive(workers: Sequence[WorkerProcess], timeout: float = 1.0) -> Iterator[tuple[WorkerProcess, Any]]:
    """What processes say within so many seconds, one message each; None of those that are lost.

    A process may be replaced, or its pipe closed, between two messages.
    """
    senders: dict[Any, WorkerProcess] = {worker.pipe: worker for worker in workers}
    for pipe in wait(list(senders), timeout):
        try:
            message = senders[pipe].pipe.recv()
        except (EOFError, OSError):
            message = None
        yield senders[pipe], message


def end(workers: Sequence[WorkerProcess], patience: float = 2.0) -> None:
    """End processes now: they have so many seconds to take half-written files away."""
    for worker in workers:
        worker.interrupt()
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(patience)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def kill(process: psutil.Process) -> None:
    """End a process, the group that it leads, and all that it started, at once."""
    family = [process]
    with suppress(psutil.Error):
        family += process.children(recursive=True)
    if os.name == "posix":
        with suppress(OSError):  # there is no such group: it had not begun, or is gone
            os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        with suppress(psutil.Error):
            each.kill()


def share_threads(workers: int) -> int:
    """How many of this process's threads each of so many workers on the CPU gets."""
    import torch  # what starts no workers does not wait for it

    return max(1, torch.get_num_threads() // max(1, workers))


def _run(listens: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """What the process itself does, from its start on."""
    interruption.answer_as_worker()
    listens.value = 1
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        interruption.let_through()
        with without_progress():  # a bar is the first process's
            work(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(interruption.STATUS) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        kill(psutil.Process())
