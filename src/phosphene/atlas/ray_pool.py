"""Workers on a Ray cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from phosphene import interruption
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.worker import TaskResult, Worker, try_piece
from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.hardware import keep_freed_memory


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
        self.arguments = place, "cuda" if gpus else "cpu", threads
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

    def interrupt(self) -> None:
        """They finish their pieces: no signal reaches them."""

    def close(self) -> None:
        self.free.clear()
        self.busy.clear()


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
    """A `Worker` as Ray's actor; its arguments and results are plain data."""

    def __init__(self, place: str, device: str, threads: int | None):
        keep_freed_memory()
        self.arguments = place, device, threads
        self.worker: Worker | None = None

    def make(self, group: str, indices: tuple[int, ...]) -> tuple[int, bool, str]:
        def make(piece: WorkItem) -> TaskResult:
            self.worker = self.worker or Worker(*self.arguments)
            return self.worker.make(piece)

        image_count, interrupted, error = try_piece(make, WorkItem(group, indices))
        return image_count, interrupted, error
