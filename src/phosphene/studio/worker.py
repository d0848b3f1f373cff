"""One tab's process: it opens a network, makes images one after the other, has them judged, and keeps them.

The server sends it commands through a pipe, and it answers with messages.  It ends with the pipe.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Step
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.errors import InputError, error_text
from phosphene.judges import panel as judge_panel
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.planes import to_pil
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.studio.bounds import confine
from phosphene.studio.messages import (
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
from phosphene.units.objects import Class
from phosphene.units.spelling import parse_unit

_PAUSE = 0.15  # seconds between two pictures of an image on its way
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
    """What the process has: a network, its judges, and the last image."""

    def __init__(self, config: StudioConfig, pipe: Any):
        self.config, self.pipe = config, pipe
        self.network: Network | None = None
        self.panel: list[Network] | None = None
        self.result: Result | None = None
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
            self.judge()
        elif isinstance(command, SaveCommand):
            self.tell(ImageSaved(save_image(self.last(), self.config)))
        # Change and Stop come too late here: the image is finished.

    def made(self) -> Result:
        """What came of the last run."""
        if self.result is None:
            raise InputError("there is no image yet: expected a run first")
        return self.result

    def last(self) -> Picture:
        return self.made().pictures[0]

    def open(self, command: OpenCommand) -> None:
        self.network = self.panel = self.result = None
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
        self.result = None
        torch.set_num_threads(command.threads)
        network, start = self.network, time.monotonic()
        objectives: list[float] = []
        told = -_PAUSE  # when the last picture was shown

        def on_step(step: Step) -> Recipe | None:
            nonlocal told
            objectives.append(step.objective)
            if time.monotonic() - told >= _PAUSE:
                self.tell(StepEvent(step.step, preview(step), tuple(objectives), step.probability))
                objectives.clear()
                told = time.monotonic()
            return self.next_recipe(step.recipe)

        options, callbacks = RunOptions(device=self.config.device), Callbacks(step=on_step)
        unit = parse_unit(command.unit, network, held={})  # a page picks files from its list, and names none
        result = ascend(network, unit, command.recipe, seed=command.seed, options=options, callbacks=callbacks)
        self.result, picture = result, result.pictures[0]
        self.tell(
            ImageFinished(
                label=picture.label,
                png=_encoded(picture.image(), "PNG"),
                objectives=tuple(picture.objectives),
                steps=picture.steps,
                stopped=picture.stopped,
                seconds=time.monotonic() - start,
                changes=tuple((step, name, value) for step, name, value in picture.changes),
                is_class=isinstance(picture.unit, Class),
            )
        )
        self.card([])

    def next_recipe(self, recipe: Recipe) -> Recipe | None:
        """The recipe to go on by, after all that was commanded meanwhile."""
        going: Recipe | None = recipe
        while self.pipe.poll():
            command = self.receive()
            if isinstance(command, StopCommand):
                going = None
            elif isinstance(command, ChangeCommand) and going is not None:
                if command.recipe.resume_key() == recipe.resume_key():
                    going = command.recipe
            else:
                self.tell(CommandFailed(type(command).__name__, "an image is on its way: expected it to end first"))
        return going

    def judge(self) -> None:
        unit = self.last().unit
        if not isinstance(unit, Class):
            raise InputError(f"{unit} is no class: judges know classes only")
        if self.panel is None:
            self.panel = judge_panel.panel(self.made().network)
        self.card(self.panel)

    def card(self, panel: Sequence[Network]) -> None:
        """Measure the last image, and put what was measured into what it says of itself."""
        self.made().judge(panel, device=self.config.device)
        self.tell(ScoreCard(self.last().scores))


def preview(step: Step) -> bytes:
    """An image on its way, as a small file."""
    image = to_pil(step.pixels()).convert("RGB")
    if max(image.size) > _PREVIEW:
        image.thumbnail((_PREVIEW, _PREVIEW))
    return _encoded(image, "JPEG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return file.getvalue()
