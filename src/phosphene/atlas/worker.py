"""Makes pieces of an atlas: each unit is judged and kept as soon as it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import torch

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress
from phosphene.ascent.request import with_recipe_size
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.stopping import INTERRUPTED
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.plan import AtlasPlan, Group, panel
from phosphene.atlas.rows import IndexRow
from phosphene.atlas.storage import IO_THREADS, map_threaded
from phosphene.atlas.store import Store
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.film import film
from phosphene.errors import InputError, error_text
from phosphene.hardware import first_device
from phosphene.judges import judge as judge_module
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.units.objects import Class, Unit

# Seconds after which images that are kept are indexed, though their piece is not finished.
INDEX_EVERY = 60.0


def with_frames(recipe: Recipe, frames: int) -> Recipe:
    """The recipe that keeps so many frames, the finished image counted; it makes the same image."""
    return recipe.override({"keep.every": -(-recipe.steps // frames) if frames else 0, "keep.until": 0})


OnProgress = Callable[[Progress], None]


class TaskResult(NamedTuple):
    """What came of a piece: how many images were made, whether Ctrl-C ended it, and what went wrong."""

    image_count: int = 0
    interrupted: bool = False
    error: str = ""


def try_piece(make: Callable[[WorkItem], TaskResult], piece: WorkItem) -> TaskResult:
    """What comes of a piece, where anything may go wrong."""
    try:
        return make(piece)
    except InputError as error:
        return TaskResult(error=str(error))
    except Exception as error:
        return TaskResult(error=error_text(error))


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

    def make(self, piece: WorkItem, on_progress: OnProgress | None = None) -> TaskResult:
        """Make and index a piece's images that are not there; each unit is kept as soon as it is finished.

        Args:
            on_progress: called after every step.

        Raises:
            InputError: none of it can be made, or something cannot be written.
        """
        group = self.plan.group(piece.group)
        adopted, indices = self.existing_rows(piece)
        self.store.add(adopted)
        if not indices:
            return TaskResult()
        units = [group.unit(index, self.network) for index in indices]  # as the pictures have them
        recipe = Recipe.from_dict(group.recipe)
        with ExitStack() as stack:
            twin = self.resized_twins.setdefault(group.digest, with_recipe_size(self.twin, recipe))
            for network in (twin, *self.panel):  # their weights are neither read again nor moved for every image
                stack.enter_context(network.under_its_digest())
                stack.enter_context(network.borrowed(first_device(self.device)))
            writer = ResultWriter(self, group, dict(zip(units, indices, strict=True)), recipe, twin)
            try:
                result = self.ascend(units, recipe, Callbacks(picture=writer.add, progress=on_progress))
            except InputError as error:
                count = writer.close(whole=False)
                if not count:
                    raise
                return TaskResult(count, error=str(error))
            except BaseException:
                writer.close(whole=False)
                raise
            return TaskResult(writer.close(), result.interrupted)

    def ascend(self, units: list[Unit], recipe: Recipe, callbacks: Callbacks) -> Result:
        """Make all facets of some units; the callback gets each picture, at the latest at the end."""
        plan = self.plan
        result = ascend(
            self.network,
            units,
            with_frames(recipe, plan.frames),
            seed=plan.seed,
            facets=plan.facets,
            options=RunOptions(device=self.device),
            callbacks=callbacks,
        )
        for picture in result:
            if callbacks.picture is not None:
                callbacks.picture(picture)
        return result

    def judge(self, pictures: list[Picture], network: Network) -> None:
        """Put the score cards onto the pictures, which a network measures that is none in work."""
        if pictures:
            panel = self.panel if isinstance(pictures[0].unit, Class) else []
            device = first_device(self.device)
            cards = judge_module.judge(pictures, panel, network=network, device=device, on_progress=False)
            for picture, card in zip(pictures, cards, strict=True):
                picture.scores.update(card)

    def existing_rows(self, piece: WorkItem) -> tuple[list[IndexRow], list[int]]:
        """The rows of a piece's units that are wholly there, and the indices of the others."""
        group = self.plan.group(piece.group)
        wanted = (group.digest, self.plan.weights)
        places = [(group.name, index, facet) for index in piece.indices for facet in range(self.plan.facets)]
        rows: dict[int, list[IndexRow]] = {index: [] for index in piece.indices}
        for row in map_threaded(lambda place: self.store.find_row(*place), places):
            if row is not None and (row["recipe"], row["weights"]) == wanted:
                rows[row["index"]].append(row)
        whole = [index for index in piece.indices if len(rows[index]) == self.plan.facets]
        return [row for index in whole for row in rows[index]], [i for i in piece.indices if i not in whole]


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


class ResultWriter:
    """Judges and keeps the units of a piece as they are finished: files are written while the next are in work.

    Args:
        indices: of the units.
        recipe: as the images say it, without the frames that are kept of them.
        network: which measures the images.
    """

    def __init__(self, worker: Worker, group: Group, indices: dict[Unit, int], recipe: Recipe, network: Network):
        self.worker, self.group, self.indices, self.recipe, self.network = worker, group, indices, recipe, network
        self.added: set[tuple[Unit, int]] = set()
        self.waiting: dict[Unit, list[Picture]] = {}  # whose other facets are not finished
        self.later: list[Picture] = []  # for which memory did not suffice beside those in work
        self.written: list[Future[IndexRow]] = []
        self.count, self.last = 0, time.monotonic()
        self.threads = ThreadPoolExecutor(IO_THREADS, "writing")

    def add(self, picture: Picture) -> None:
        """Keep a picture when all facets of its unit are there.

        Raises:
            InputError: an earlier one could not be written.
        """
        unit, facet = picture.unit, picture.facet[0]
        if picture.stopped == INTERRUPTED or (unit, facet) in self.added:
            return
        self.added.add((unit, facet))
        self.waiting.setdefault(unit, []).append(picture)
        if len(self.waiting[unit]) == self.worker.plan.facets:
            pictures = self.waiting.pop(unit)
            try:
                self.keep(pictures)
            except (RuntimeError, MemoryError):
                self.later += pictures
        if time.monotonic() - self.last > INDEX_EVERY:
            self.index()

    def keep(self, pictures: list[Picture]) -> None:
        self.worker.judge(pictures, self.network)
        self.written += [self.threads.submit(self.put, picture) for picture in pictures]

    def put(self, picture: Picture) -> IndexRow:
        kept = replace(picture, recipe=self.recipe)
        index, facet = self.indices[picture.unit], picture.facet[0]
        return self.worker.store.put(self.group.name, index, facet, self.group.digest, kept, film(picture))

    def index(self) -> None:
        """Index what has been written since the last time.

        Raises:
            InputError: one could not be written.
        """
        done = [future for future in self.written if future.done()]
        self.written = [future for future in self.written if future not in done]
        rows = [future.result() for future in done if future.exception() is None]
        self.worker.store.add(rows)
        self.count, self.last = self.count + len(rows), time.monotonic()
        for future in done:
            future.result()

    def close(self, *, whole: bool = True) -> int:
        """Wait until all is written, and index it; returns how many images were kept.

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
        return self.count
