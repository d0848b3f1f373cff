"""One tab's process: it opens a network, makes images one after the other, has them judged, and keeps them.

The server sends it commands through a pipe, and it answers with messages.  It ends with the pipe.
"""

from __future__ import annotations

import io
import math
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress, Step
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.grid import tile
from phosphene.errors import InputError, error_text
from phosphene.images import read_image
from phosphene.judges import panel as judge_panel
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.planes import to_pil
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.studio import files as studio_files
from phosphene.studio.bounds import confine
from phosphene.studio.messages import (
    MAX_MADE,
    AscendCommand,
    ChangeCommand,
    CommandFailed,
    CommandsDone,
    ImageFinished,
    ImageSaved,
    JudgeCommand,
    NetworkOpened,
    OpenCommand,
    SaveCommand,
    ScoreCard,
    StepEvent,
    StopCommand,
    StudioConfig,
)
from phosphene.studio.opening import open_allowed_network
from phosphene.studio.saving import save_image
from phosphene.units.objects import Class, PhotographPart
from phosphene.units.spelling import parse_unit

PAUSE = 0.15  # seconds between two pictures of an image on its way
_THUMBNAIL = 176  # pixels of the longer side
_PREVIEW = 512  # pixels of the longer side of such a picture at most


class _PipeClosedError(Exception):
    """Nobody is at the other end of the pipe."""


def work(config: StudioConfig, pipe: Any) -> None:
    """Do what is commanded until the pipe is closed."""
    confine(config.memory if config.device == "cpu" else None)
    worker = StudioWorker(config, pipe)
    try:
        while True:
            command = worker.receive()
            name = type(command).__name__
            try:
                worker.do(command)
            except InputError as error:
                worker.tell(CommandFailed(name, str(error)))
            except _PipeClosedError:
                return
            except Exception as error:
                worker.tell(CommandFailed(name, _failure(error)))
            worker.tell(CommandsDone(worker.commands))
    except _PipeClosedError:
        return


def _failure(error: Exception) -> str:
    """What went wrong, where it is none of the input."""
    wanting = isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)
    return f"memory does not suffice ({error_text(error)})" if wanting else error_text(error)


class StudioWorker:
    """What the process has: a network, its judges, and the last images.

    Attributes:
        pictures: that were made, by number, the last `MAX_MADE`.
        results: those of them that were made with the network that is open, which judges need.
    """

    def __init__(self, config: StudioConfig, pipe: Any):
        self.config, self.pipe = config, pipe
        self.network: Network | None = None
        self.panel: list[Network] | None = None
        self.pictures: dict[int, Picture] = {}
        self.results: dict[int, Result] = {}
        self.commands = 0  # that were received

    def receive(self) -> Any:
        """The next command, as soon as there is one."""
        try:
            command = self.pipe.recv()
        except (EOFError, OSError):
            raise _PipeClosedError from None
        self.commands += 1
        return command

    def tell(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            raise _PipeClosedError from None

    def do(self, command: Any) -> None:
        if isinstance(command, OpenCommand):
            self.open(command)
        elif isinstance(command, AscendCommand):
            self.make(command)
        elif isinstance(command, JudgeCommand):
            self.judge(command.number, command.photographs)
        elif isinstance(command, SaveCommand):
            self.tell(ImageSaved(command.number, save_image(self.picture(command.number), self.config)))
        # Change and Stop come too late here: the image is finished.

    def picture(self, number: int) -> Picture:
        """An image that was made."""
        if number not in self.pictures:
            raise InputError("there is no image yet: expected a run first")
        return self.pictures[number]

    def open(self, command: OpenCommand) -> None:
        self.network = self.panel = None
        self.results.clear()
        network = open_allowed_network(command, self.config.folders)
        classes = [str(index) for index in range(network.classes)]
        if network.labels is not None and len(network.labels) == network.classes:
            classes = [label.name for label in network.labels]
        height, width = network.preprocessing.size  # type: ignore[misc]
        self.network = network
        self.tell(
            NetworkOpened(
                name=network.name,
                weights=network.digest,
                expects=f"{height}x{width} pixels, {network.preprocessing.describe()}",
                notes=(*network.notes.values(), *filter(None, [network.limit])),
                classes=tuple(classes),
                layers=tuple((layer.name, layer.channels, layer.worth_showing) for layer in network.layers),
                has_tokens=network.has_tokens,
            )
        )

    def make(self, command: AscendCommand) -> None:
        if self.network is None:
            raise InputError("no network is open: expected one to be picked first")
        torch.set_num_threads(command.threads)
        network, begin = self.network, time.monotonic()
        unit = parse_unit(command.unit, network, held={})  # a page picks files from its list, and names none
        photograph = self.read_image(command.photograph)
        if photograph is not None and any(isinstance(part, PhotographPart) for _, part in unit.terms()):
            unit = unit.with_photograph(photograph)
        statistics = command.recipe.for_unit(unit).priors.statistics
        if statistics is not None and statistics.photographs:
            studio_files.check(statistics.photographs, self.config.folders, "photographs")
        result = ascend(
            network, unit, command.recipe, seed=command.seed, start=self.read_image(command.start),
            facets=command.facets, options=RunOptions(device=self.config.device),
            callbacks=self.callbacks(command),
        )  # fmt: skip
        seconds = time.monotonic() - begin
        for place, picture in enumerate(result.pictures):
            alone = Result([picture], result.recipe, result.networks)
            self.finish(command.number + place, alone, seconds)

    def callbacks(self, command: AscendCommand) -> Callbacks:
        """What is done after each step: tell of it, and go on by what was commanded meanwhile."""
        objectives: list[float] = []
        forming: dict[int, Image.Image] = {}  # of facets, the last state of each
        told = -PAUSE  # when the last picture was shown

        def is_time() -> bool:
            nonlocal told
            now = time.monotonic()
            due, told = now - told >= PAUSE, now if now - told >= PAUSE else told
            return due

        def tell(step: int, jpeg: bytes, probability: float | None) -> None:
            self.tell(StepEvent(step, jpeg, tuple(objectives), probability))
            objectives.clear()

        def on_step(step: Step) -> Recipe | None:
            objectives.append(step.objective)
            if is_time():
                tell(step.step, preview(step), step.probability)
            return self.next_recipe(step.recipe)

        def on_progress(progress: Progress) -> None:
            objectives.append(progress.objective)
            if is_time():
                if progress.pixels is not None:
                    forming.update({place: to_pil(pixels) for place, pixels in progress.pixels().items()})
                tell(round(progress.work * command.recipe.steps), facets_preview(forming), progress.probability)
            if self.next_recipe(command.recipe) is None:
                signal.raise_signal(signal.SIGINT)  # facets end together, after their step

        return Callbacks(step=on_step) if command.facets == 1 else Callbacks(progress=on_progress)

    def read_image(self, source: str | bytes | None) -> Image.Image | None:
        """An image of the folders, or a file's bytes, decoded.

        Raises:
            InputError: it is not of the folders, or no image within the bounds of `images`.
        """
        if source is None:
            return None
        if isinstance(source, bytes):
            return read_image(source, "dropped")
        return read_image(studio_files.check(source, self.config.folders, "images"))

    def finish(self, number: int, result: Result, seconds: float) -> None:
        """Tell of an image that was made, measure it, and remember it."""
        picture = result.pictures[0]
        self.pictures[number], self.results[number] = picture, result
        for held in (self.pictures, self.results):
            while len(held) > MAX_MADE:
                held.pop(next(iter(held)))
        image = picture.image()
        self.tell(
            ImageFinished(
                number=number,
                label=picture.label,
                recipe=picture.recipe.name,
                seed=picture.seed,
                png=_encoded(image, "PNG"),
                thumbnail=thumbnail(image),
                objectives=tuple(picture.objectives),
                steps=picture.steps,
                stopped=picture.stopped,
                seconds=seconds,
                changes=tuple((step, name, value) for step, name, value in picture.changes),
                is_class=isinstance(picture.unit, Class),
            )
        )
        self.card(number, [])

    def next_recipe(self, recipe: Recipe) -> Recipe | None:
        """The recipe to go on by, after all that was commanded meanwhile; None to end."""
        going: Recipe | None = recipe
        while self.pipe.poll():
            command = self.receive()
            if isinstance(command, StopCommand):
                going = None
            elif isinstance(command, ChangeCommand) and going is not None:
                if command.recipe.resume_key() == recipe.resume_key():
                    going = command.recipe
            elif not isinstance(command, ChangeCommand):
                self.tell(CommandFailed(type(command).__name__, "an image is on its way: expected it to end first"))
        return going

    def judge(self, number: int, photographs: str | None) -> None:
        """Have other networks judge an image, and compare it with photographs, if a folder is given."""
        unit = self.picture(number).unit
        if not isinstance(unit, Class) and photographs is None:
            raise InputError(f"{unit} is no class: judges know classes only, unless a folder of photographs is picked")
        if number not in self.results:
            raise InputError("the network of this image is not open any more: expected an image of the one that is")
        if photographs is not None:
            studio_files.check(photographs, self.config.folders, "photographs")
        if self.panel is None:
            self.panel = judge_panel.panel(self.results[number].network)
        self.card(number, self.panel, photographs)

    def card(self, number: int, panel: Sequence[Network], photographs: str | None = None) -> None:
        """Measure an image, and put what was measured into what it says of itself."""
        result = self.results[number]
        result.judge(panel, photographs, device=self.config.device)
        self.pictures[number] = result.pictures[0]
        self.tell(ScoreCard(number, self.pictures[number].scores))


def thumbnail(image: Image.Image) -> bytes:
    """A small file of an image."""
    small = image.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _encoded(small, "JPEG")


def preview(step: Step) -> bytes:
    """An image on its way, as a small file."""
    return _preview(to_pil(step.pixels()))


def facets_preview(images: Mapping[int, Image.Image]) -> bytes:
    """Images that form together, in one sheet and in their order, as a small file; nothing of none."""
    ordered = [images[place].convert("RGB") for place in sorted(images)]
    columns = math.ceil(math.sqrt(len(ordered)))
    return _preview(tile(ordered, [""] * len(ordered), columns)) if ordered else b""


def _preview(image: Image.Image) -> bytes:
    image = image.convert("RGB")
    if max(image.size) > _PREVIEW:
        image.thumbnail((_PREVIEW, _PREVIEW))
    return _encoded(image, "JPEG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return file.getvalue()
