"""Workers that make pieces at once; here in processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from phosphene import processes
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.run_progress import PieceProgress, reporter
from phosphene.atlas.worker import TaskResult, Worker, try_piece
from phosphene.processes import WorkerProcess


class Pool(Protocol):
    """Workers that work at once."""

    def idle(self) -> int:
        """How many could take a piece."""

    def submit(self, piece: WorkItem) -> None: ...

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        """Waits a little; the pieces that ended, and what came of them; None if the worker is lost."""

    def progress(self) -> Mapping[WorkItem, PieceProgress]:
        """How far the pieces in work are, as far as their workers have told."""

    def interrupt(self) -> None:
        """Have the workers finish their step and give up their pieces; often is as good as once."""

    def close(self) -> None: ...


class ProcessPool:
    """Workers in processes of this machine, one that is lost is replaced.

    Args:
        place: of the atlas.
        workers: how many; one for each device at least.
        devices: of the workers, in turn.
    """

    def __init__(self, place: str, workers: int, devices: Sequence[str]):
        self.place, self.interrupted = place, False
        places = [devices[i % len(devices)] if devices else None for i in range(max(workers, len(devices)))]
        self.threads = processes.share_threads(sum(device in (None, "cpu") for device in places))
        self.devices = {self.start(device): device for device in places}
        self.busy: dict[WorkerProcess, WorkItem] = {}
        self.told: dict[WorkItem, PieceProgress] = {}

    def start(self, device: str | None) -> WorkerProcess:
        return WorkerProcess(_work, self.place, device, self.threads)

    def idle(self) -> int:
        return len(self.devices) - len(self.busy)

    def submit(self, piece: WorkItem) -> None:
        worker = next(worker for worker in self.devices if worker not in self.busy)
        self.busy[worker] = piece
        with suppress(OSError):  # it is lost, which `collect` finds
            worker.pipe.send(piece)

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        for worker, result in processes.receive(list(self.busy)):
            if isinstance(result, PieceProgress):
                self.told[self.busy[worker]] = result
                continue
            piece = self.busy.pop(worker)
            self.told.pop(piece, None)
            if result is None and not self.interrupted:
                worker.process.join()
                device = self.devices.pop(worker)
                self.devices[self.start(device)] = device
            yield piece, result

    def progress(self) -> Mapping[WorkItem, PieceProgress]:
        return self.told

    def interrupt(self) -> None:
        self.interrupted = True
        for worker in self.devices:
            worker.interrupt()

    def close(self) -> None:
        for worker in self.devices:
            worker.pipe.close()  # at which it ends, if it has nothing in work
        if self.busy:
            processes.end(list(self.devices))
        for worker in self.devices:
            worker.process.join(5)
        processes.end([worker for worker in self.devices if worker.process.is_alive()])


def _work(place: str, device: str | None, threads: int, pipe: Any) -> None:
    """A process: makes the pieces that come, until nobody is there to send any."""
    worker: Worker | None = None

    def make(piece: WorkItem) -> TaskResult:
        nonlocal worker
        worker = worker or Worker(place, device, threads)
        return worker.make(piece, reporter(tell))

    def tell(progress: PieceProgress) -> None:
        with suppress(OSError):  # nobody is there to hear it, which ends this process
            pipe.send(progress)

    interrupted = False
    with suppress(EOFError, OSError):
        while not interrupted:
            result = try_piece(make, pipe.recv())
            pipe.send(result)
            interrupted = result.interrupted
