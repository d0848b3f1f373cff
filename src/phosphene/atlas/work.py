"""Makes what an atlas lacks: in this process, in several of this machine, or on a Ray cluster.

Units go out in pieces of one batch, and are kept one by one as they are finished.  A run claims the units of a piece
before it gives them out, so that several runs on one atlas share the work.  Whoever makes a piece looks first what of
it is there already, so a piece may go out again whenever its maker was lost, and finished units are never made twice.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any, NamedTuple, Protocol

import torch

from phosphene import interruption
from phosphene.api.ascend import ascend
from phosphene.ascent.preparation import LARGEST_BATCH
from phosphene.ascent.request import with_recipe_size
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.stopping import INTERRUPTED
from phosphene.atlas.claims import LEASE, Claims
from phosphene.atlas.plan import CLASSES, AtlasPlan, Group, panel
from phosphene.atlas.rows import IndexRow, key
from phosphene.atlas.store import IO_THREADS, Store, map_threaded
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.film import film
from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.hardware import first_device
from phosphene.interruption import interruptible
from phosphene.judges import judge as judge_module
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.schema import Recipe
from phosphene.units.objects import Class, Unit
from phosphene.units.spelling import parse_unit

# A piece whose maker was lost so often is made unit by unit, and such a unit is given up.
_DEATHS = 3
# Seconds after which images that are kept are indexed, though their piece is not finished.
_INDEX_EVERY = 60.0
# Seconds between two looks at the units that other runs make, where nothing else is left.
_LOOK_EVERY = 1.0

OnDone = Callable[[int, int], None]
"""Is told how many images there are, and of how many."""


@dataclass(frozen=True)
class WorkItem:
    """Units of one group that go out together."""

    group: str
    indices: tuple[int, ...]


@dataclass
class RunReport:
    """What a run did.

    Attributes:
        made: images.
        failed: units, spelled, and why they could not be made.
        interrupted: whether by Ctrl-C.
    """

    image_count: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def missing_work(
    plan: AtlasPlan, rows: Sequence[IndexRow], among: Collection[tuple[str, int]] | None = None
) -> list[WorkItem]:
    """What there are no images of, or only by another recipe or of other weights; in pieces of one batch.

    Args:
        among: only of these, each a group's name and an index.
    """
    there = {key(row): (row["recipe"], row["weights"]) for row in rows}
    pieces = []
    size = max(1, LARGEST_BATCH // plan.facets)
    for group in plan.groups:
        wanted = (group.digest, plan.weights)
        lacks = [
            index
            for index in group.indices
            if (among is None or (group.name, index) in among)
            and any(there.get((group.name, index, facet)) != wanted for facet in range(plan.facets))
        ]
        pieces += [WorkItem(group.name, tuple(lacks[first : first + size])) for first in range(0, len(lacks), size)]
    return pieces


def with_frames(recipe: Recipe, frames: int) -> Recipe:
    """The recipe that keeps so many frames, the finished image counted; it makes the same image."""
    return recipe.override({"keep.every": -(-recipe.steps // frames) if frames else 0, "keep.until": 0})


class TaskResult(NamedTuple):
    """What came of a piece: how many images were made, whether Ctrl-C ended it, and what went wrong."""

    image_count: int = 0
    interrupted: bool = False
    error: str = ""


class Worker:
    """Makes pieces of an atlas, its network opened once.

    Args:
        place: of the atlas.
        device: as `ascend` takes it.
        threads: for a CPU; None: as they are.
    """

    def __init__(self, place: str, device: str | None = None, threads: int | None = None):
        if threads is not None:
            torch.set_num_threads(threads)
        self.store, self.device = Store(place), device
        self.plan = self.store.plan()
        self.network = self.plan.open()
        self.panel = panel(self.plan, self.network)
        self.twin = _twin(self.network, self.plan)
        self.resized_twins: dict[str, Network] = {}  # the twin at the size of each recipe

    def make(self, piece: WorkItem) -> TaskResult:
        """Make and index a piece's images that are not there; each unit is kept as soon as it is finished.

        Raises:
            InputError: none of it can be made, or something cannot be written.
        """
        group = self.plan.group(piece.group)
        adopted, indices = self.existing_rows(piece)
        self.store.add(adopted)
        if not indices:
            return TaskResult()
        units = [parse_unit(group.unit(index), self.network) for index in indices]  # as the pictures have them
        facets, recipe = self.plan.facets, Recipe.from_dict(group.recipe)
        with ExitStack() as stack:
            shown = self.resized_twins.setdefault(group.digest, with_recipe_size(self.twin, recipe))
            for network in (shown, *self.panel):  # their weights are neither read again nor moved for every image
                stack.enter_context(network.under_its_digest())
                stack.enter_context(network.borrowed(first_device(self.device)))
            keeping = _ResultWriter(self, group, dict(zip(units, indices, strict=True)), recipe, shown)
            try:
                result = ascend(
                    self.network,
                    units,
                    with_frames(recipe, self.plan.frames),
                    seed=self.plan.seed,
                    facets=facets,
                    options=RunOptions(device=self.device),
                    callbacks=Callbacks(picture=keeping.hand),
                )
                for picture in result:
                    keeping.hand(picture)
                interrupted = result.interrupted
            except InputError as error:
                made = keeping.end(whole=False)
                if not made:
                    raise
                return TaskResult(made, error=str(error))
            except BaseException:
                keeping.end(whole=False)
                raise
            return TaskResult(keeping.end(), interrupted)

    def judge(self, pictures: list[Picture]) -> None:
        """Put the score cards onto the pictures."""
        if pictures:
            shown = self.panel if isinstance(pictures[0].unit, Class) else []
            for picture, card in zip(
                pictures, judge_module.judge(pictures, shown, device=first_device(self.device)), strict=True
            ):
                picture.scores.update(card)

    def existing_rows(self, piece: WorkItem) -> tuple[list[IndexRow], list[int]]:
        """The rows of a piece's units that are wholly there, and the indices of the others."""
        group = self.plan.group(piece.group)
        wanted = (group.digest, self.plan.weights)
        places = [(group.name, index, facet) for index in piece.indices for facet in range(self.plan.facets)]
        found = map_threaded(lambda place: self.store.find_row(*place), places)
        rows: list[IndexRow] = []
        left = []
        for index in piece.indices:
            there = [
                row
                for (_, each, _), row in zip(places, found, strict=True)
                if each == index and row is not None and (row["recipe"], row["weights"]) == wanted
            ]
            if len(there) == self.plan.facets:
                rows += there
            else:
                left.append(index)
        return rows, left


def _twin(network: Network, plan: AtlasPlan) -> Network:
    """The network once more, with the same weights in memory, to judge what is finished while others are in work.

    An ascent changes its network for its time, as far as channels and arithmetic go.
    """
    twin = plan.open()
    for tensors in ("parameters", "buffers"):
        pairs = zip(getattr(network.module, tensors)(), getattr(twin.module, tensors)(), strict=True)
        for ours, same in pairs:
            same.data = ours.data
    return twin


class _ResultWriter:
    """Judges and keeps the units of a piece as they are finished: files are written while the next are in work.

    Args:
        indices: of the units.
        recipe: as the images say it, without the frames that are kept of them.
        shown: the network that the images are judged by and say that they are of.
    """

    def __init__(self, maker: Worker, group: Group, indices: dict[Unit, int], recipe: Recipe, shown: Network):
        self.maker, self.group, self.indices, self.recipe, self.shown = maker, group, indices, recipe, shown
        self.handed: set[tuple[Unit, int]] = set()
        self.waiting: dict[Unit, list[Picture]] = {}  # whose other facets are not finished
        self.later: list[Picture] = []  # for which memory did not suffice beside those in work
        self.written: list[Future[IndexRow]] = []
        self.made, self.last = 0, time.monotonic()
        self.threads = ThreadPoolExecutor(IO_THREADS, "writing")

    def hand(self, picture: Picture) -> None:
        """Keep a picture when all facets of its unit are there.

        Raises:
            InputError: an earlier one could not be written.
        """
        unit, facet = picture.unit, picture.facet[0]
        if picture.stopped == INTERRUPTED or (unit, facet) in self.handed:
            return
        self.handed.add((unit, facet))
        self.waiting.setdefault(unit, []).append(replace(picture, network=self.shown))
        if len(self.waiting[unit]) == self.maker.plan.facets:
            pictures = self.waiting.pop(unit)
            try:
                self.keep(pictures)
            except (RuntimeError, MemoryError):
                self.later += pictures
        if time.monotonic() - self.last > _INDEX_EVERY:
            self.index()

    def keep(self, pictures: list[Picture]) -> None:
        self.maker.judge(pictures)
        self.written += [self.threads.submit(self.put, picture) for picture in pictures]

    def put(self, picture: Picture) -> IndexRow:
        kept = replace(picture, recipe=self.recipe)
        index, facet = self.indices[picture.unit], picture.facet[0]
        return self.maker.store.put(self.group.name, index, facet, self.group.digest, kept, film(picture))

    def index(self) -> None:
        """Index what has been written since the last time.

        Raises:
            InputError: one could not be written.
        """
        done = [future for future in self.written if future.done()]
        self.written = [future for future in self.written if future not in done]
        rows = [future.result() for future in done if future.exception() is None]
        self.maker.store.add(rows)
        self.made, self.last = self.made + len(rows), time.monotonic()
        for future in done:
            future.result()

    def end(self, *, whole: bool = True) -> int:
        """Wait until all is written, and index it; gives how many images were kept.

        Args:
            whole: also those for which memory did not suffice until now.

        Raises:
            InputError: one could not be written.
        """
        try:
            if whole and self.later:
                self.keep(self.later)
        finally:
            self.threads.shutdown()
            self.index()
        return self.made


# Which pieces are made.


class WorkQueue:
    """The pieces that a run has yet to make, and what others are making meanwhile.

    Args:
        store: of the atlas.
        plan: its plan.
        pieces: all that it lacks.
        claims: of this run.
    """

    def __init__(self, store: Store, plan: AtlasPlan, pieces: Sequence[WorkItem], claims: Claims):
        self.store, self.plan, self.claims = store, plan, claims
        self.left = deque(pieces)
        self.busy: dict[str, set[int]] = {}  # by group: the units that other runs have claimed
        self.looked = time.monotonic()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left, neither to this run nor to others."""
        return not self.left and not self.busy

    def claim_next(self) -> WorkItem | None:
        """A piece whose units are this run's now; None where all that is left is being made by others."""
        if not self.left and self.busy and time.monotonic() - self.looked >= _LOOK_EVERY:
            self.look()
        while self.left:
            piece = self.left.popleft()
            taken = self.claims.take(piece.group, piece.indices)
            others = set(piece.indices).difference(taken)
            if others:
                self.busy.setdefault(piece.group, set()).update(others)
            if taken:
                return WorkItem(piece.group, tuple(taken))
        return None

    def look(self) -> None:
        """Take up what others have claimed no longer, but for what they have made."""
        self.looked = time.monotonic()
        free = self.claims.unclaimed([(group, index) for group, indices in self.busy.items() for index in indices])
        if not free:
            return
        for group, index in free:
            self.busy[group].discard(index)
        self.busy = {group: indices for group, indices in self.busy.items() if indices}
        self.left.extend(missing_work(self.plan, self.store.rows(), set(free)))

    def again(self, piece: WorkItem) -> None:
        """A piece whose maker was lost is next."""
        self.left.appendleft(piece)

    def mark_failed(self, piece: WorkItem, why: str, report: RunReport) -> None:
        """Of several units each is tried alone; a single one is given up."""
        if len(piece.indices) > 1:
            self.left.extend(WorkItem(piece.group, (index,)) for index in piece.indices)
        else:
            prefix = "class" if piece.group == CLASSES else piece.group
            report.failed[f"{prefix}:{piece.indices[0]}"] = why
            self.mark_done(piece)

    def mark_done(self, piece: WorkItem) -> None:
        self.claims.release([(piece.group, index) for index in piece.indices])


# Who makes the pieces.


class Pool(Protocol):
    """Makers that work at once."""

    def idle(self) -> int:
        """How many could take a piece."""

    def submit(self, piece: WorkItem) -> None: ...

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        """Waits a little; the pieces that ended, and what came of them; None if the maker is lost."""

    def interrupt(self) -> None:
        """Have the makers finish their step and give up their pieces; often is as good as once."""

    def close(self) -> None: ...


def run(
    place: str,
    *,
    workers: int = 1,
    devices: Sequence[str] = (),
    ray: str | None = None,
    on_done: OnDone | None = None,
    lease: float = LEASE,
) -> RunReport:
    """Make all that an atlas lacks.

    Args:
        place: a directory or URL with a plan.
        workers: processes of this machine.
        devices: of the workers, in turn; by default the best there is.
        ray: make it on a Ray cluster: its address, or "auto" for the one that runs here, or else a new one.
        on_done: called whenever images have been made.
        lease: seconds without a sign of life after which other runs on the atlas take over what this one has claimed.

    Returns:
        What was made; the same call makes what is missing.  It ends when all is there, also what other runs make.

    Raises:
        InputError: there is no plan, the network is another now, the place cannot be written, or no cluster is there.
    """
    store = Store(place)
    plan = store.plan()
    report = RunReport()
    rows = store.rows()
    pieces = missing_work(plan, rows)
    if not pieces:
        return report
    # Wherever it is stopped, there is something of every layer; and runs that begin together seldom meet.
    random.shuffle(pieces)
    wanted = {group.name: (group.digest, set(group.indices)) for group in plan.groups}
    have = sum(
        row["group"] in wanted
        and row["recipe"] == wanted[row["group"]][0]
        and row["index"] in wanted[row["group"]][1]
        and row["facet"] < plan.facets
        for row in rows
    )

    def done(made: int) -> None:
        report.image_count += made
        if on_done is not None:
            on_done(have + report.image_count, plan.count)

    done(0)
    with interruptible() as interrupted, Claims(store, lease) as claims:
        work = WorkQueue(store, plan, pieces, claims)
        if workers == 1 and ray is None and len(devices) < 2:
            _run_alone(store, work, devices[0] if devices else None, report, done, interrupted)
        else:
            pool: Pool = _RayPool(place, ray, workers) if ray is not None else _ProcessPool(place, workers, devices)
            try:
                _run_pool(pool, work, report, done, interrupted)
            finally:
                pool.close()
        report.interrupted = interrupted.is_set()
        store.merge()
    return report


def _run_alone(
    store: Store,
    work: WorkQueue,
    device: str | None,
    report: RunReport,
    done: Callable[[int], None],
    interrupted: threading.Event,
) -> None:
    maker = Worker(store.place, device)
    while not work.is_finished and not interrupted.is_set():
        piece = work.claim_next()
        if piece is None:
            interrupted.wait(_LOOK_EVERY)
            continue
        try:
            outcome = maker.make(piece)
        except InputError as error:
            outcome = TaskResult(error=str(error))
        done(outcome.image_count)
        if "cannot be written" in outcome.error:
            raise InputError(outcome.error)
        if outcome.error:
            work.mark_failed(piece, outcome.error, report)
            continue
        work.mark_done(piece)


def _run_pool(
    pool: Pool, work: WorkQueue, report: RunReport, done: Callable[[int], None], interrupted: threading.Event
) -> None:
    out = 0
    deaths: dict[WorkItem, int] = {}
    while (not work.is_finished and not interrupted.is_set()) or out:
        while pool.idle() and not interrupted.is_set() and (piece := work.claim_next()) is not None:
            pool.submit(piece)
            out += 1
        if not out:
            interrupted.wait(_LOOK_EVERY)
            continue
        if interrupted.is_set():
            pool.interrupt()
        for piece, outcome in pool.collect():
            out -= 1
            if outcome is None:
                deaths[piece] = deaths.get(piece, 0) + 1
                if interrupted.is_set():
                    continue
                if deaths[piece] < _DEATHS:
                    work.again(piece)
                else:
                    work.mark_failed(piece, f"whoever made it was lost {_DEATHS} times", report)
                continue
            done(outcome.image_count)
            if "cannot be written" in outcome.error:
                raise InputError(outcome.error)
            if outcome.error:
                work.mark_failed(piece, outcome.error, report)
            elif outcome.interrupted and not interrupted.is_set():  # its maker alone was
                work.again(piece)
            else:
                work.mark_done(piece)


class _ProcessPool:
    """Makers in processes of this machine; one that is lost is replaced."""

    def __init__(self, place: str, workers: int, devices: Sequence[str]):
        self.place = place
        self.devices = [devices[i % len(devices)] if devices else None for i in range(max(workers, len(devices)))]
        on_cpu = sum(device in (None, "cpu") for device in self.devices)
        self.threads = max(1, torch.get_num_threads() // max(1, on_cpu))
        self.context = multiprocessing.get_context("spawn")
        self.interrupted = False
        self.workers = [self.begun(device) for device in self.devices]

    def begun(self, device: str | None) -> dict[str, Any]:
        here, there = self.context.Pipe()
        process = interruption.begin(self.context, _work, self.place, device, self.threads, there)
        there.close()
        return {"device": device, "process": process, "pipe": here, "piece": None}

    def idle(self) -> int:
        return sum(maker["piece"] is None for maker in self.workers)

    def submit(self, piece: WorkItem) -> None:
        maker = next(maker for maker in self.workers if maker["piece"] is None)
        maker["piece"] = piece
        with suppress(OSError):  # it is lost, which `collect` finds
            maker["pipe"].send(piece)

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        busy = {maker["pipe"]: place for place, maker in enumerate(self.workers) if maker["piece"] is not None}
        for pipe in wait(list(busy), timeout=1.0):
            maker = self.workers[busy[pipe]]
            piece, maker["piece"] = maker["piece"], None
            try:
                outcome = maker["pipe"].recv()
            except (EOFError, OSError):
                outcome = None
                maker["process"].join()
                if not self.interrupted:
                    self.workers[busy[pipe]] = self.begun(maker["device"])
            yield piece, outcome

    def interrupt(self) -> None:
        self.interrupted = True
        interruption.pass_on([maker["process"] for maker in self.workers])

    def close(self) -> None:
        for maker in self.workers:
            maker["pipe"].close()  # at which it ends, if it has nothing in work
        if any(maker["piece"] is not None for maker in self.workers):
            interruption.end([maker["process"] for maker in self.workers])
        for maker in self.workers:
            maker["process"].join(5)
        interruption.end([maker["process"] for maker in self.workers if maker["process"].is_alive()])


def _work(place: str, device: str | None, threads: int, pipe: Any) -> None:
    """A process: makes the pieces that come, until nobody is there to send any."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    maker: Worker | None = None
    interrupted = False
    while not interrupted:
        try:
            piece = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            maker = maker or Worker(place, device, threads)
            outcome = maker.make(piece)
            interrupted = outcome.interrupted
        except InputError as error:
            outcome = TaskResult(error=str(error))
        except Exception:
            outcome = TaskResult(error=traceback.format_exc().strip().splitlines()[-1])
        try:
            pipe.send(outcome)
        except OSError:
            return


def _end_with_parent() -> None:
    """End this process with the run that it belongs to: what that one has claimed is then others'."""
    if (parent := multiprocessing.parent_process()) is not None:
        wait([parent.sentinel])
        os._exit(1)


class _RayPool:
    """Makers on a Ray cluster, each with one GPU where the cluster has any; one that is lost is replaced.

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
        remote = self.ray.remote(num_gpus=1 if gpus else 0, num_cpus=threads or 1, max_restarts=0)(_RayWorker)
        self.begun: Callable[[], Any] = lambda: remote.remote(place, "cuda" if gpus else "cpu", threads)
        self.free = [self.begun() for _ in range(count)]
        self.busy: dict[Any, tuple[Any, WorkItem]] = {}

    def join(self, address: str) -> None:
        try:
            self.ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            if address != "auto":
                raise InputError(f"no Ray cluster can be reached at {address!r}: {_first(error)}") from error
            self.ray.init(log_to_driver=False, logging_level="ERROR")

    def idle(self) -> int:
        return len(self.free)

    def submit(self, piece: WorkItem) -> None:
        maker = self.free.pop()
        self.busy[maker.make.remote(piece.group, piece.indices)] = maker, piece

    def collect(self) -> Iterator[tuple[WorkItem, TaskResult | None]]:
        ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=1.0)
        for reference in ready:
            maker, piece = self.busy.pop(reference)
            try:
                outcome: TaskResult | None = TaskResult(*self.ray.get(reference))
                self.free.append(maker)
            except self.ray.exceptions.RayActorError:
                outcome = None
                self.free.append(self.begun())
            except self.ray.exceptions.RayError as error:
                outcome = TaskResult(error=_first(error))
                self.free.append(maker)
            yield piece, outcome

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
        raise InputError(f"no Ray cluster can be reached at {address!r}: {_first(error)}") from error


class _RayWorker:
    """A `Worker` as Ray's actor; what it is given and gives are plain data."""

    def __init__(self, place: str, device: str, threads: int | None):
        self.arguments, self.maker = (place, device, threads), None

    def make(self, group: str, indices: tuple[int, ...]) -> tuple[int, bool, str]:
        try:
            self.maker = self.maker or Worker(*self.arguments)  # type: ignore[assignment]
            return tuple(self.maker.make(WorkItem(group, indices)))  # type: ignore[attr-defined]
        except InputError as error:
            return 0, False, str(error)
        except Exception:
            return 0, False, traceback.format_exc().strip().splitlines()[-1]


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# How far it is.


@dataclass(frozen=True)
class Status:
    """How far an atlas is.

    Attributes:
        groups: of each its name, and how many of its images there are, of how many.
        size: bytes of all images and films.
        rate: images an hour, over the last half hour in which some were made; 0 where none were.
        left: seconds until all are there at that rate; None where nothing is known, 0 where all are.
        last: seconds since the last image.
        claimed: units that runs are making now.
    """

    groups: list[tuple[str, int, int]]
    size: int
    rate: float
    left: float | None
    last: float | None
    claimed: int = 0

    @property
    def image_count(self) -> int:
        return sum(have for _, have, _ in self.groups)

    @property
    def count(self) -> int:
        return sum(want for _, _, want in self.groups)


def status(place: str, window: float = 1800.0) -> Status:
    """How far an atlas is; from any process, while it is made.

    Raises:
        InputError: there is no atlas.
    """
    store = Store(place)
    plan = store.plan()
    rows = store.rows()
    there: dict[tuple[str, str, str], int] = {}
    wanted = {group.name: set(group.indices) for group in plan.groups}
    mine = [row for row in rows if row["index"] in wanted.get(row["group"], ()) and row["facet"] < plan.facets]
    for row in mine:
        kind = (row["group"], row["recipe"], row["weights"])
        there[kind] = there.get(kind, 0) + 1
    groups = [
        (group.name, there.get((group.name, group.digest, plan.weights), 0), len(group.indices) * plan.facets)
        for group in plan.groups
    ]
    written = sorted(row["written"] for row in mine)
    rate = 0.0
    if len(written) > 1:
        recent = [moment for moment in written if moment > written[-1] - window]
        # The first of them was begun before it was written.
        span = recent[-1] - recent[0]
        rate = 3600 * (len(recent) - 1) / span if span > 0 else 0.0
    left = sum(want - have for _, have, want in groups)
    return Status(
        groups,
        sum(row["bytes"] + (row["film_bytes"] or 0) for row in rows),
        rate,
        0.0 if not left else 3600 * left / rate if rate else None,
        time.time() - written[-1] if written else None,
        Claims(store).count(),
    )
