"""Workers on a Ray cluster."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from phosphene import interruption
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.progress_board import Key, ProgressBoard
from phosphene.atlas.run_progress import REPORT_EVERY, PieceProgress, reporter
from phosphene.atlas.worker import TaskResult, Worker, try_piece
from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.hardware import keep_freed_memory

_LOOK_EVERY = 1.0  # seconds between two looks at how far the workers are
_REPORTS = 500  # of all workers a second, at most: one process takes them


class RayPool:
    """Workers on a Ray cluster, each with one GPU where the cluster has any; one that is lost is replaced.

    Args:
        place: of the atlas.
        address: of the cluster; see `work.run`.
        workers: how many, where the cluster has no GPU; 1: one for each of its cores.

    Raises:
        InputError: there is no cluster at the address.
    """

    def __init__(self, place: str, address: str, workers: int):
        self.ray = require("ray", "distributed", "making an atlas on a cluster")
        _check_reachable(address)
        if not self.ray.is_initialized():
            with interruption.preserved_handlers():  # it would answer SIGTERM itself
                self.join(address)
        resources = self.ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = gpus or (workers if workers > 1 else max(1, int(resources.get("CPU", 1))))
        threads = None if gpus else max(1, int(resources.get("CPU", 1)) // count)
        self.board = self.ray.remote(num_cpus=0)(ProgressBoard).remote()
        self.asked: Any = None  # of the board
        self.told: Mapping[Key, tuple[float, int]] = {}
        self.looked = 0.0
        every = max(REPORT_EVERY, count / _REPORTS)
        self.arguments = place, "cuda" if gpus else "cpu", threads, self.board, every
        self.actor = self.ray.remote(num_gpus=1 if gpus else 0, num_cpus=threads or 1, max_restarts=0)(RayWorker)
        self.free = [self.start() for _ in range(count)]
        self.busy: dict[Any, tuple[Any, WorkItem]] = {}

    def join(self, address: str) -> None:
        try:
            self.ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            if address != "auto":
                raise _unreachable(address, error) from error
            self.ray.init(log_to_driver=False, logging_level="ERROR")

    def start(self) -> Any:
        return self.actor.remote(*self.arguments)

    def idle(self) -> int:
        return len(self.free)

    def submit(self, piece: WorkItem) -> None:
        worker = self.free.pop()
        self.busy[worker.make.remote(piece.group, piece.indices)] = worker, piece

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=1.0)
        for reference in ready:
            worker, piece = self.busy.pop(reference)
            result: TaskResult | None = None
            try:
                result = TaskResult(*self.ray.get(reference))
            except self.ray.exceptions.RayActorError:
                worker = self.start()
            except self.ray.exceptions.RayError as error:
                result = TaskResult(error=first_line(error))
            self.free.append(worker)
            yield piece, result
        self.look()

    def look(self) -> None:
        """Take up what the board says, if it has answered, and ask it again: nobody waits for it."""
        if time.monotonic() - self.looked < _LOOK_EVERY:
            return
        self.looked = time.monotonic()
        if self.asked is not None:
            ready, _ = self.ray.wait([self.asked], timeout=0)
            if not ready:
                return
            with suppress(self.ray.exceptions.RayError):  # it is lost, and what it said last stays
                self.told = self.ray.get(ready[0])
        self.asked = self.board.read.remote([_key(piece) for _, piece in self.busy.values()])

    def progress(self) -> Mapping[WorkItem, PieceProgress]:
        in_work = [piece for _, piece in self.busy.values()]
        return {piece: PieceProgress(*self.told[_key(piece)]) for piece in in_work if _key(piece) in self.told}

    def interrupt(self) -> None:
        """They finish their pieces: no signal reaches them."""

    def close(self) -> None:
        self.free.clear()
        self.busy.clear()


def _key(piece: WorkItem) -> Key:
    return piece.group, piece.indices[0]


def _check_reachable(address: str) -> None:
    """Raise an `InputError` where nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        if address not in ("auto", "local"):
            raise InputError(f"Ray address {address!r}: expected HOST:PORT, auto or local")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> InputError:
    return InputError(f"no Ray cluster can be reached at {address!r}: {first_line(error)}")


class RayWorker:
    """A `Worker` as Ray's actor; its arguments and results are plain data.

    Args:
        board: the `ProgressBoard` that it tells how far it is, `every` so many seconds.
    """

    def __init__(self, place: str, device: str, threads: int | None, board: Any, every: float):
        keep_freed_memory()
        self.board, self.every = board, every
        self.arguments = place, device, threads
        self.worker: Worker | None = None

    def make(self, group: str, indices: tuple[int, ...]) -> tuple[int, bool, str]:
        def make(piece: WorkItem) -> TaskResult:
            self.worker = self.worker or Worker(*self.arguments)
            return self.worker.make(piece, reporter(lambda progress: self.tell(_key(piece), progress), self.every))

        image_count, interrupted, error = try_piece(make, WorkItem(group, indices))
        return image_count, interrupted, error

    def tell(self, piece: Key, progress: PieceProgress) -> None:
        with suppress(Exception):  # a board that is lost ends no piece
            self.board.put.remote(piece, *progress)
