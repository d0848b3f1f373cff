"""Several devices at once: a process for each, all taking units from one queue."""

from __future__ import annotations

import math
import pickle
import queue
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from phosphene import interruption
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import Request, with_recipe_size
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.one import ascend_on_one
from phosphene.errors import InputError, first_line
from phosphene.hardware import find_device
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.picture import Picture
from phosphene.result import Result

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
    return _collect_pictures(request, packed, callbacks)


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


def _collect_pictures(request: Request, packed: bytes, callbacks: Callbacks) -> Result:
    """Begin the processes, and take what they make until all have ended."""
    context = multiprocessing.get_context("spawn")
    workers = [str(device) for device in request.devices]
    turns = SharedCounter(context.Value("q", 0), len(request.units), len(workers))
    inbox: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // sum(worker == "cpu" for worker in workers)) if "cpu" in workers else 1
    pictures: dict[int, Picture] = {}
    reports: dict[int, Progress] = {}
    interrupted = False
    failure: Exception | None = None
    shared = packed, turns, inbox, threads
    with interruption.interruptible() as stop, _started_workers(context, workers, shared) as processes:
        running = set(range(len(processes)))
        while running:
            if stop.is_set() and not interrupted:
                interrupted = True
                interruption.pass_on(processes)
            if interrupted or failure is not None:  # no further units are begun
                with turns.counter.get_lock():
                    turns.counter.value = turns.total
            try:
                index, kind, content = inbox.get(timeout=1)
            except queue.Empty:
                for lost in [each for each in running if not processes[each].is_alive()]:
                    running.discard(lost)
                    if not interrupted:
                        failure = failure or RuntimeError(f"the process of {workers[lost]} ended by itself")
                continue
            if kind == "picture":
                place, values = content
                picture = Picture(**values, network=request.network, ensemble=tuple(request.networks[1:]))
                pictures[place] = picture
                if callbacks.picture is not None:
                    callbacks.picture(picture)
            elif kind == "progress":
                reports[index] = content
                if callbacks.progress is not None:
                    total = len(request.units) * request.facets
                    callbacks.progress(_combined_progress(list(reports.values()), len(pictures), total))
            else:
                running.discard(index)
                interrupted = interrupted or content is True
                failure = failure or (content if isinstance(content, Exception) else None)
        for process in processes:
            process.join()
    if failure is not None:
        raise failure
    in_order = [pictures[place] for place in sorted(pictures)]
    return Result(in_order, request.recipes[0], request.network, interrupted, request.not_started(pictures))


@contextmanager
def _started_workers(context: Any, workers: Sequence[str], shared: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The processes, which work within; none is left after an exception."""
    processes: list[Any] = []
    try:
        for index, worker in enumerate(workers):
            processes.append(interruption.begin(context, _work, index, worker, *shared))
        yield processes
    except BaseException:
        interruption.end(processes)
        raise


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


def _work(index: int, device: str, packed: bytes, turns: SharedCounter, inbox: Any, threads: int) -> None:
    """One process: makes what its turns give it, and sends each picture as soon as it is finished."""
    torch.set_num_threads(threads)
    said = 0.0

    def report(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            inbox.put((index, "progress", progress))

    def send(place: int, picture: Picture) -> None:
        values = {field.name: getattr(picture, field.name) for field in fields(picture)}
        for name in ("network", "ensemble"):
            del values[name]
        inbox.put((index, "picture", (place, values)))

    try:
        request, networks = pickle.loads(packed)
        request = replace(
            request,
            networks=[_unpack_network(each) for each in networks],
            devices=[find_device(device)],
        )
        request.networks[0] = with_recipe_size(request.network, *request.recipes)
        result = ascend_on_one(request, Callbacks(progress=report), send, turns)
        inbox.put((index, "end", result.interrupted))
    except InputError as error:
        inbox.put((index, "end", error))
    except KeyboardInterrupt:  # nobody reads the inbox any more
        inbox.cancel_join_thread()
        raise
    except Exception:
        inbox.put((index, "end", RuntimeError(f"on {device}:\n{traceback.format_exc()}")))
