"""Several devices at once: a process for each, all taking units from one queue."""

from __future__ import annotations

import math
import pickle
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from phosphene import processes
from phosphene.ascent.loop import Progress
from phosphene.ascent.request import recipes_for, with_recipe_size
from phosphene.devices.one import ascend_here
from phosphene.errors import InputError, first_line
from phosphene.hardware import find_device
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.picture import Picture
from phosphene.processes import SPAWN, WorkerProcess
from phosphene.recipes.schema import Recipe
from phosphene.result import Result
from phosphene.units.objects import Unit
from phosphene.units.spelling import parse_unit

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


def ascend_on(
    devices: Sequence[str | torch.device],
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe] = "natural",
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    **options: Any,
) -> Result:
    """As `ascend`, on several devices, each with a process and a copy of the network of its own.

    What comes out of a process depends neither on how many there are nor on how fast.  In a script of your own, what
    calls this has to stand under `if __name__ == "__main__":`, since each process reads the script anew.

    Args:
        devices: such as ["cuda:0", "cuda:1"]; one that comes twice gets two processes.
        network, units, recipe, options, on_progress, on_picture: as for `ascend`.

    Raises:
        InputError: as `ascend` does; or a network of your own cannot be handed to another process.
    """
    networks = [network] if isinstance(network, Network) else list(network)
    given = [units] if isinstance(units, str | Unit) else list(units)
    recipes = recipes_for(recipe, networks[0], len(given))
    parsed = [parse_unit(unit, networks[0]) for unit in given]  # bad ones are refused before any process is started
    if not devices:
        raise InputError("no device is given: expected at least one, such as 'cuda:0'")
    places = [str(find_device(device)) for device in devices][: len(parsed)]
    if len(places) == 1:

        def on_finished(_: int, picture: Picture) -> None:
            if on_picture is not None:
                on_picture(picture)

        options |= {"device": places[0], "on_progress": on_progress, "on_finished": on_finished}
        return ascend_here(networks, parsed, recipes, **options)
    packed = pickle.dumps(
        ([_pack_network(each) for each in networks], parsed, [each.to_dict() for each in recipes], options)
    )
    total = len(parsed) * options.get("facets", 1)
    collection = _Collection(networks, with_recipe_size(networks[0], *recipes), total, on_progress, on_picture)
    _ascend_in_processes(places, packed, len(parsed), collection)
    return collection.result(parsed, recipes[0])


def _pack_network(network: Network) -> bytes | dict[str, Any]:
    """A network as another process can have it: itself, or the arguments by which that one opens it."""
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
        networks: as the caller gave them.
        network: the first, at the size of the recipes.
        total: how many pictures there will be.
        pictures: by place.
        reports: the last of each process, by its device's place.
        interrupted: whether by Ctrl-C, here or in a process.
        failure: the first of what went wrong.
    """

    networks: list[Network]
    network: Network
    total: int
    on_progress: Callable[[Progress], None] | None
    on_picture: Callable[[Picture], None] | None
    pictures: dict[int, Picture] = field(default_factory=dict)
    reports: dict[int, Progress] = field(default_factory=dict)
    interrupted: bool = False
    failure: Exception | None = None

    def add_picture(self, place: int, values: dict[str, Any]) -> None:
        self.pictures[place] = Picture(**values, network=self.network, ensemble=tuple(self.networks[1:]))
        if self.on_picture is not None:
            self.on_picture(self.pictures[place])

    def add_report(self, worker: int, report: Progress) -> None:
        self.reports[worker] = report
        if self.on_progress is not None:
            self.on_progress(_combined_progress(list(self.reports.values()), len(self.pictures), self.total))

    def result(self, units: Sequence[Unit], recipe: Recipe) -> Result:
        """The pictures in order; raises what went wrong."""
        if self.failure is not None:
            raise self.failure
        facets = self.total // len(units)
        not_started = [str(units[i // facets]) for i in range(self.total) if i not in self.pictures]
        pictures = [self.pictures[place] for place in sorted(self.pictures)]
        return Result(pictures, recipe, self.network, self.interrupted, not_started)


def _ascend_in_processes(devices: Sequence[str], packed: bytes, units: int, collection: _Collection) -> None:
    """Start a process for each device, and collect what they send until all have ended."""
    counter = SharedCounter(SPAWN.Value("q", 0), units, len(devices))
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
                    if not _handle(message, workers.index(worker), devices, collection):
                        del running[worker]
        except BaseException:
            processes.end(workers)
            raise
        for worker in workers:
            worker.process.join()


def _handle(message: Any, worker: int, devices: Sequence[str], collection: _Collection) -> bool:
    """Take up what a process said; whether more will come of it."""
    content: Any
    kind, content = message or ("lost", None)
    if kind == "picture":
        collection.add_picture(*content)
    elif kind == "progress":
        collection.add_report(worker, content)
    elif kind == "end":
        collection.interrupted = collection.interrupted or content
    elif kind == "failure":
        collection.failure = collection.failure or content
    elif not collection.interrupted:
        collection.failure = collection.failure or RuntimeError(f"the process of {devices[worker]} ended by itself")
    return kind in ("picture", "progress")


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
            pipe.send(("progress", progress))

    def send(place: int, picture: Picture) -> None:
        values = {each.name: getattr(picture, each.name) for each in fields(picture)}
        for name in ("network", "ensemble"):
            del values[name]
        pipe.send(("picture", (place, values)))

    try:
        packed_networks, units, recipes, options = pickle.loads(packed)
        networks = [_unpack_network(each) for each in packed_networks]
        result = ascend_here(
            networks, units, [Recipe.from_dict(each) for each in recipes], device=device, work=counter,
            on_progress=report, on_finished=send, **options,
        )  # fmt: skip
        pipe.send(("end", result.interrupted))
    except InputError as error:
        pipe.send(("failure", error))
    except Exception:
        pipe.send(("failure", RuntimeError(f"on {device}:\n{traceback.format_exc()}")))
