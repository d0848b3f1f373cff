"""Makes what an atlas lacks: in this process, in several of this machine, or on a Ray cluster.

Units go out in pieces of one batch, and are kept one by one as they are finished.  A run claims the units of a piece
before it hands them out, so that several runs on one atlas share the work.  Whoever makes a piece looks first what of
it is there already, so a piece may go out again whenever its worker was lost, and finished units are never made twice.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from phosphene import defaults
from phosphene.ascent.forecast import Forecast, OnForecast
from phosphene.ascent.progress import Progress
from phosphene.atlas.claims import Claims
from phosphene.atlas.missing import WorkItem, missing_work
from phosphene.atlas.plan import AtlasPlan
from phosphene.atlas.pools import Pool, ProcessPool
from phosphene.atlas.ray_pool import RayPool
from phosphene.atlas.rows import IndexRow
from phosphene.atlas.run_progress import OnDone, PieceProgress, RunProgress
from phosphene.atlas.store import Store
from phosphene.atlas.work_queue import LOOK_EVERY, WorkQueue
from phosphene.atlas.worker import TaskResult, Worker
from phosphene.errors import InputError
from phosphene.interruption import interruptible

# A piece whose worker was lost so often is made unit by unit, and such a unit is given up.
_DEATHS = 3


@dataclass
class RunReport:
    """What a run did.

    Attributes:
        image_count: images made.
        failed: units, spelled, and why they could not be made.
        interrupted: whether by Ctrl-C.
    """

    image_count: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run(
    place: str,
    *,
    workers: int = 1,
    devices: Sequence[str] = (),
    ray: str | None = None,
    on_done: OnDone | None = None,
    on_forecast: OnForecast | None = None,
    lease: float = defaults.LEASE,
) -> RunReport:
    """Make all that an atlas lacks.

    Args:
        place: a directory or URL with a plan.
        workers: processes of this machine.
        devices: of the workers, in turn; by default the best there is.
        ray: make it on a Ray cluster: its address, or "auto" for the one that runs here, or else a new one.
        on_done: called whenever images have been made, and as their steps are made: after every step where they are
            made in this process, about twice a second by others.
        on_forecast: called with what there is to make, and once it is measured with how long that takes this run.
        lease: seconds without a sign of life after which other runs on the atlas take over what this one has claimed.

    Returns:
        What was made; the same call makes what is missing.  It ends when all is there, also what other runs make.

    Raises:
        InputError: there is no plan, the network is another now, the place cannot be written, or no cluster is there.
    """
    store = Store(place)
    plan = store.plan()
    rows = store.rows()
    pieces = missing_work(plan, rows)
    if not pieces:
        return RunReport()
    # Wherever it is stopped, there is something of every layer; and runs that begin together seldom meet.
    random.shuffle(pieces)
    with interruptible() as stop, Claims(store, lease) as claims:
        queue = WorkQueue(store, plan, pieces, claims)
        progress = _progress(plan, rows, pieces, on_done, on_forecast)
        progress.on_work = claims.note_work
        run = Run(queue, stop, progress)
        if workers == 1 and ray is None and len(devices) < 2:
            run.work_alone(store, devices[0] if devices else None)
        else:
            pool: Pool = RayPool(place, ray, workers) if ray is not None else ProcessPool(place, workers, devices)
            try:
                run.work_with(pool)
            finally:
                pool.close()
        run.report.interrupted = stop.is_set()
        store.merge()
    return run.report


def _progress(
    plan: AtlasPlan,
    rows: Sequence[IndexRow],
    pieces: Sequence[WorkItem],
    on_done: OnDone | None,
    on_forecast: OnForecast | None,
) -> RunProgress:
    """How far a run is at its beginning."""
    steps = {group.name: int(group.recipe["steps"]) for group in plan.groups}
    images = {piece: len(piece.indices) * plan.facets for piece in pieces}
    whole = Forecast(sum(images.values()), sum(count * steps[piece.group] for piece, count in images.items()))
    return RunProgress(steps, _count(plan, rows), plan.count, whole, on_done, on_forecast)


def _count(plan: AtlasPlan, rows: Sequence[IndexRow]) -> int:
    """How many of the plan's images there are."""
    wanted = {group.name: (group.digest, set(group.indices)) for group in plan.groups}
    return sum(
        row["group"] in wanted
        and row["recipe"] == wanted[row["group"]][0]
        and row["index"] in wanted[row["group"]][1]
        and row["facet"] < plan.facets
        for row in rows
    )


class Run:
    """A run on its way.

    Args:
        queue: of the pieces.
        stop: is set by Ctrl-C.
        progress: is told how far it is.
    """

    def __init__(self, queue: WorkQueue, stop: threading.Event, progress: RunProgress):
        self.queue, self.stop, self.progress = queue, stop, progress
        self.report = RunReport()
        self.deaths: dict[WorkItem, int] = {}
        progress.begin()

    def work_alone(self, store: Store, device: str | None) -> None:
        """Make the pieces in this process."""
        worker = Worker(store.place, device)
        while not self.queue.is_finished and not self.stop.is_set():
            piece = self.queue.claim_next()
            if piece is None:
                self.stop.wait(LOOK_EVERY)
                continue

            def tell(progress: Progress, piece: WorkItem = piece) -> None:
                self.progress.tell({piece: PieceProgress.of(progress)}, 1)

            try:
                result = worker.make(piece, tell)
            except InputError as error:
                result = TaskResult(error=str(error))
            self.take(piece, result)
            self.progress.tell({}, 0)

    def work_with(self, pool: Pool) -> None:
        """Hand out the pieces until all are made."""
        out = 0
        while (not self.queue.is_finished and not self.stop.is_set()) or out:
            while pool.idle() and not self.stop.is_set() and (piece := self.queue.claim_next()) is not None:
                pool.submit(piece)
                out += 1
            if not out:
                self.stop.wait(LOOK_EVERY)
                continue
            if self.stop.is_set():
                pool.interrupt()
            for piece, result in pool.collect():
                out -= 1
                if result is None:
                    self.lose(piece)
                else:
                    self.take(piece, result)
            self.progress.tell(pool.progress(), out)

    def take(self, piece: WorkItem, result: TaskResult) -> None:
        """Take up what came of a piece.

        Raises:
            InputError: the place cannot be written.
        """
        self.report.image_count += result.image_count
        self.progress.add(piece.group, result.image_count)
        if "cannot be written" in result.error:
            raise InputError(result.error)
        if result.error:
            self.queue.mark_failed(piece, result.error, self.report.failed)
        elif result.interrupted and not self.stop.is_set():  # its worker alone was
            self.queue.again(piece)
        else:
            self.queue.mark_done(piece)

    def lose(self, piece: WorkItem) -> None:
        """A piece's worker was lost: it goes out again, but for one that loses all its workers."""
        self.deaths[piece] = self.deaths.get(piece, 0) + 1
        if self.stop.is_set():
            return
        if self.deaths[piece] < _DEATHS:
            self.queue.again(piece)
        else:
            self.queue.mark_failed(piece, f"whoever made it was lost {_DEATHS} times", self.report.failed)
