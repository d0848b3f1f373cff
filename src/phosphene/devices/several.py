"""Several devices at once: a process for each, all taking units from one queue."""

from __future__ import annotations

import math
import pickle
import queue
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from phosphene import interruption
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import recipes_for, with_recipe_size
from phosphene.devices.one import ascend_here
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
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
    used = recipes_for(recipe, networks[0], len(given))
    parsed = [parse_unit(unit, networks[0]) for unit in given]  # bad ones are refused before any process is begun
    if not devices:
        raise InputError("no device is given: expected at least one, such as 'cuda:0'")
    workers = [str(find_device(device)) for device in devices][: len(parsed)]
    if len(workers) == 1:

        def made(_: int, picture: Picture) -> None:
            if on_picture is not None:
                on_picture(picture)

        options |= {"device": workers[0], "on_progress": on_progress, "on_finished": made}
        return ascend_here(networks, parsed, used, **options)
    packed = pickle.dumps(
        ([_pack_network(each) for each in networks], parsed, [own.to_dict() for own in used], options)
    )
    return _collect_pictures(workers, packed, networks, parsed, used, on_progress, on_picture, options.get("facets", 1))


def _pack_network(network: Network) -> bytes | dict[str, Any]:
    """A network as another process can have it: itself, or the arguments by which it opens it."""
    try:
        return pickle.dumps(network)
    except Exception as error:
        if network.source is not None:
            return dict(network.source)
        raise InputError(
            f"{network.name} cannot be handed to other processes ({(str(error).splitlines() or ['?'])[0]}): expected a "
            "network whose class stands in a module, or one device"
        ) from error


def _unpack_network(packed: bytes | dict[str, Any]) -> Network:
    return open_network(**packed) if isinstance(packed, dict) else pickle.loads(packed)


def _collect_pictures(
    workers: list[str],
    packed: bytes,
    networks: list[Network],
    units: list[Unit],
    recipes: list[Recipe],
    on_progress: Callable[[Progress], None] | None,
    on_picture: Callable[[Picture], None] | None,
    facets: int,
) -> Result:
    """Begin the processes, and take what they make until all have ended."""
    context = multiprocessing.get_context("spawn")
    turns = SharedCounter(context.Value("q", 0), len(units), len(workers))
    inbox: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // sum(worker == "cpu" for worker in workers)) if "cpu" in workers else 1
    pictures: dict[int, Picture] = {}
    reports: dict[int, Progress] = {}
    interrupted = False
    failure: Exception | None = None
    network = with_recipe_size(networks[0], *recipes)
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
                picture = Picture(**values, network=network, ensemble=tuple(networks[1:]))
                pictures[place] = picture
                if on_picture is not None:
                    on_picture(picture)
            elif kind == "progress":
                reports[index] = content
                if on_progress is not None:
                    on_progress(_combined_progress(list(reports.values()), len(pictures), len(units) * facets))
            else:
                running.discard(index)
                interrupted = interrupted or content is True
                failure = failure or (content if isinstance(content, Exception) else None)
        for process in processes:
            process.join()
    if failure is not None:
        raise failure
    made = [pictures[place] for place in sorted(pictures)]
    unmade = [
        str(unit) for i, unit in enumerate(units) for facet in range(facets) if i * facets + facet not in pictures
    ]
    return Result(made, recipes[0], network, interrupted, unmade)


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
        packed_networks, units, recipes, options = pickle.loads(packed)
        networks = [_unpack_network(each) for each in packed_networks]
        result = ascend_here(
            networks, units, [Recipe.from_dict(each) for each in recipes], device=device, work=turns,
            on_progress=report, on_finished=send, **options,
        )  # fmt: skip
        inbox.put((index, "end", result.interrupted))
    except InputError as error:
        inbox.put((index, "end", error))
    except KeyboardInterrupt:  # nobody reads the inbox any more
        inbox.cancel_join_thread()
        raise
    except Exception:
        inbox.put((index, "end", RuntimeError(f"on {device}:\n{traceback.format_exc()}")))
