"""Several devices at once: a process for each, all taking units from one queue."""

from __future__ import annotations

import math
import pickle
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from phosphene import processes
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import Request, with_recipe_size
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.one import ascend_on_one
from phosphene.errors import InputError, first_line
from phosphene.hardware import find_device
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.picture import Picture
from phosphene.processes import SPAWN, WorkerProcess
from phosphene.provenance.records import NetworkRecord
from phosphene.result import Result
from phosphene.units.objects import describe

_EVERY = 0.2  # seconds between a process's reports


@dataclass(frozen=True)
class SharedCounter:
    """The units' indices, each handed out once, to whichever process has room for it.

    Attributes:
        counter: the next index, shared by the processes.
        total: how many units.
        workers: how many processes.
    """

    counter: Any
    total: int
    workers: int

    def __iter__(self) -> Iterator[int]:
        while True:
            with self.counter.get_lock():
                index = self.counter.value
                self.counter.value += 1
            if index >= self.total:
                return
            yield index

    def close(self) -> None:
        """Hand out no more."""
        with self.counter.get_lock():
            self.counter.value = self.total


def ascend_on_several(request: Request, callbacks: Callbacks) -> Result:
    """Make what is asked for on several devices, each with a process and a copy of the networks of its own.

    What comes out of a process depends neither on how many there are nor on how fast.  A device that comes twice gets
    two processes.

    Raises:
        InputError: a network, a unit or a regularizer of one's own cannot be handed to another process.
    """
    networks = [_pack_network(each) for each in request.networks]
    try:
        packed = pickle.dumps((replace(request, networks=[]), networks))
    except Exception as error:
        raise InputError(
            f"the units and recipes cannot be handed to other processes ({first_line(error)}): expected functions that "
            "stand in a module, or one device"
        ) from error
    collection = _Collection(request, callbacks, [NetworkRecord.of(network) for network in request.networks])
    _run_processes(request, packed, collection)
    return collection.result()


def _pack_network(network: Network) -> bytes | dict[str, Any]:
    """A network as another process can have it: itself, or the arguments by which it opens it."""
    try:
        return pickle.dumps(network)
    except Exception as error:
        if network.source is not None:
            return dict(network.source)
        raise InputError(
            f"{network.name} cannot be handed to other processes ({first_line(error)}): expected a "
            "network whose class stands in a module, or one device"
        ) from error


def _unpack_network(packed: bytes | dict[str, Any]) -> Network:
    return open_network(**packed) if isinstance(packed, dict) else pickle.loads(packed)


@dataclass
class _Collection:
    """What comes of the processes' work.

    Attributes:
        records: of the request's networks.
        pictures: by place.
        reports: the last of each process, by its device's place.
        interrupted: whether by Ctrl-C, here or in a process.
        failure: the first of what went wrong.
    """

    request: Request
    callbacks: Callbacks
    records: list[NetworkRecord]
    pictures: dict[int, Picture] = field(default_factory=dict)
    reports: dict[int, Progress] = field(default_factory=dict)
    interrupted: bool = False
    failure: Exception | None = None

    def add(self, worker: int, message: Any) -> bool:
        """Take up what a process said, or None of one that is lost; whether more will come of it."""
        content: Any
        kind, content = message or ("lost", None)
        if kind == "picture":
            self.add_picture(*content)
        elif kind == "progress":
            self.add_report(worker, content)
        elif kind == "end":
            self.interrupted = self.interrupted or content
        elif kind == "failure":
            self.failure = self.failure or content
        elif not self.interrupted:
            lost = f"the process of {self.request.devices[worker]} ended by itself"
            self.failure = self.failure or RuntimeError(lost)
        return kind in ("picture", "progress")

    def add_picture(self, place: int, picture: Picture) -> None:
        """Take up a picture; it tells of the networks as they are here, where a process may have opened its own."""
        network, *ensemble = self.records
        label = describe(picture.unit, self.request.network)
        self.pictures[place] = replace(picture, label=label, network=network, ensemble=tuple(ensemble))
        if self.callbacks.picture is not None:
            self.callbacks.picture(self.pictures[place])

    def add_report(self, worker: int, report: Progress) -> None:
        self.reports[worker] = report
        if self.callbacks.progress is not None:
            total = len(self.request.units) * self.request.facets
            reports = list(self.reports.values())
            self.callbacks.progress(_combined_progress(reports, len(self.pictures), total))

    def result(self) -> Result:
        """The pictures in order; raises what went wrong."""
        if self.failure is not None:
            raise self.failure
        in_order = [self.pictures[place] for place in sorted(self.pictures)]
        left = self.request.not_started(self.pictures)
        return Result(in_order, self.request.recipes[0], self.request.networks, self.interrupted, left)


def _run_processes(request: Request, packed: bytes, collection: _Collection) -> None:
    """Start a process for each device, and collect what they send until all have ended."""
    devices = [str(device) for device in request.devices]
    counter = SharedCounter(SPAWN.Value("q", 0), len(request.units), len(devices))
    threads = processes.share_threads(devices.count("cpu")) if "cpu" in devices else 1
    workers: list[WorkerProcess] = []
    with interruptible() as stop:
        try:
            for device in devices:
                workers.append(WorkerProcess(_work, device, packed, counter, threads))
            running = dict.fromkeys(workers)
            while running:
                if stop.is_set() and not collection.interrupted:
                    collection.interrupted = True
                    for worker in workers:
                        worker.interrupt()
                if collection.interrupted or collection.failure is not None:
                    counter.close()
                for worker, message in processes.receive(list(running)):
                    if not collection.add(workers.index(worker), message):
                        del running[worker]
        except BaseException:
            processes.end(workers)
            raise
        for worker in workers:
            worker.process.join()


def _combined_progress(reports: list[Progress], done: int, total: int) -> Progress:
    """The processes' reports as one; each tells its share of the whole work."""
    known = [report.probability for report in reports if report.probability is not None]
    return Progress(
        done=done,
        total=total,
        work=min(1.0, math.fsum(report.work for report in reports)),
        objective=math.fsum(report.objective for report in reports) / len(reports),
        probability=math.fsum(known) / len(known) if known else None,
    )


def _work(device: str, packed: bytes, counter: SharedCounter, threads: int, pipe: Any) -> None:
    """One process: makes the units that it is handed, and sends each picture as soon as it is finished."""
    torch.set_num_threads(threads)
    last_report = 0.0

    def report(progress: Progress) -> None:
        nonlocal last_report
        if time.monotonic() - last_report > _EVERY:
            last_report = time.monotonic()
            pipe.send(("progress", replace(progress, pixels=None)))

    def send(place: int, picture: Picture) -> None:
        pipe.send(("picture", (place, picture)))

    try:
        request, networks = pickle.loads(packed)
        request = replace(
            request,
            networks=[_unpack_network(each) for each in networks],
            devices=[find_device(device)],
        )
        request.networks[0] = with_recipe_size(request.network, *request.recipes)
        result = ascend_on_one(request, Callbacks(progress=report), send, counter)
        pipe.send(("end", result.interrupted))
    except InputError as error:
        pipe.send(("failure", error))
    except Exception:
        pipe.send(("failure", RuntimeError(f"on {device}:\n{traceback.format_exc()}")))
