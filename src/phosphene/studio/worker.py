"""One tab's process: it opens a network, makes images one after the other, has them judged, and keeps them.

The server sends it commands through a pipe, and it answers with messages; both are plain data.  It ends with the pipe.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Step
from phosphene.ascent.run_options import RunOptions
from phosphene.atlas.plan import CLASSES, AtlasPlan, Group
from phosphene.atlas.store import Store
from phosphene.devices.callbacks import Callbacks
from phosphene.errors import InputError, error_text
from phosphene.files import make_directory
from phosphene.judges import judge as judge_module
from phosphene.judges import panel as judge_panel
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.networks.preprocessing import PRESETS
from phosphene.networks.sources import bundled
from phosphene.networks.sources.torchvision import torchvision_names
from phosphene.picture import Picture, save_picture
from phosphene.planes import to_pil
from phosphene.recipes.schema import Recipe
from phosphene.studio import files as studio_files
from phosphene.studio.processes import confine
from phosphene.units.objects import Channel, Class

_PAUSE = 0.15  # seconds between two pictures of an image on its way
_PREVIEW = 512  # pixels of the longer side of such a picture at most


@dataclass(frozen=True)
class StudioConfig:
    """What a studio was started with: all that it reads and writes.

    Attributes:
        folders: whose files may be read.
        atlas: where units are kept, if anywhere; a directory or URL.
        out: where all other images are kept.
        device: on which images are made.
        memory: bytes that the process may ask for besides what it has at first; None: any number.
    """

    folders: tuple[str, ...] = ()
    atlas: str | None = None
    out: str = "phosphene-out"
    device: str = "cpu"
    memory: int | None = None


# Commands


@dataclass(frozen=True)
class OpenCommand:
    """Open a network: by name, or a file in the folders; `feed` is a preset or a description, as `labels` a file."""

    network: str
    weights: str | None = None
    feed: str | None = None
    labels: str | None = None
    partial: bool = False


@dataclass(frozen=True)
class AscendCommand:
    """Make an image of a unit, as it is spelled, with so many threads."""

    unit: str
    recipe: Recipe
    seed: int
    threads: int


@dataclass(frozen=True)
class ChangeCommand:
    """Go on by this recipe."""

    recipe: Recipe


@dataclass(frozen=True)
class StopCommand:
    """End the image that is on its way."""


@dataclass(frozen=True)
class JudgeCommand:
    """Ask other networks what they see in the last image."""


@dataclass(frozen=True)
class SaveCommand:
    """Write the last image where images are kept."""


# Messages


@dataclass(frozen=True)
class NetworkOpened:
    """A network is open.

    Attributes:
        name, weights: of the network; the digest of the latter.
        eats: in words.
        notes: what a user should know, in sentences.
        classes: their names, or their indices.
        layers: their names, how many channels each has, and whether it is usually shown.
    """

    name: str
    weights: str
    expects: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    layers: tuple[tuple[str, int, bool], ...]


@dataclass(frozen=True)
class StepEvent:
    """An image on its way.

    Attributes:
        step: how many are made.
        jpeg: the image as it stands.
        objectives: before each step since the last message.
        probability: of the class, by the network itself.
    """

    step: int
    jpeg: bytes
    objectives: tuple[float, ...]
    probability: float | None


@dataclass(frozen=True)
class ImageFinished:
    """An image is finished, or was stopped.

    Attributes:
        label: the unit in words.
        png: the image.
        objectives: before each step.
        steps, stopped, seconds: how many, why, and how long.
        changes: of the recipe on the way: [step, field, value].
        is_class: whether it shows a class, which other networks can judge.
    """

    label: str
    png: bytes
    objectives: tuple[float, ...]
    steps: int
    stopped: str
    seconds: float
    changes: tuple[tuple[int, str, Any], ...]
    is_class: bool


@dataclass(frozen=True)
class ScoreCard:
    """What was measured of the last image: see `phosphene.judge`; with the judges, if they were asked."""

    scores: dict[str, Any]


@dataclass(frozen=True)
class ImageSaved:
    """The last image is kept, there."""

    place: str


@dataclass(frozen=True)
class CommandFailed:
    """A command could not be done; why, in a sentence."""

    command: str
    sentence: str


@dataclass(frozen=True)
class CommandsDone:
    """All that was commanded so far is done: so many commands."""

    commands: int


class _PipeClosedError(Exception):
    """Nobody is at the other end of the pipe."""


def work(config: StudioConfig, pipe: Any) -> None:
    """Do what is commanded until the pipe is closed."""
    confine(config.memory if config.device == "cpu" else None)
    worker = _Worker(config, pipe)
    try:
        while True:
            command = worker.heard()
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
    """What went wrong, where it is nothing that was given."""
    wanting = isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)
    return f"memory does not suffice ({error_text(error)})" if wanting else error_text(error)


class _Worker:
    def __init__(self, given: StudioConfig, pipe: Any):
        self.given, self.pipe = given, pipe
        self.network: Network | None = None
        self.panel: list[Network] | None = None
        self.picture: Picture | None = None
        self.commands = 0  # that were heard

    def heard(self) -> Any:
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
            self.judge(self.last())
        elif isinstance(command, SaveCommand):
            self.tell(ImageSaved(save_image(self.last(), self.given)))
        # Change and Stop come too late here: the image is finished.

    def last(self) -> Picture:
        if self.picture is None:
            raise InputError("there is no image yet: expected a run first")
        return self.picture

    def open(self, command: OpenCommand) -> None:
        self.network = self.panel = self.picture = None
        network = open_allowed_network(command, self.given.folders)
        network_names = [str(index) for index in range(network.classes)]
        if network.labels is not None and len(network.labels) == network.classes:
            network_names = [label.name for label in network.labels]
        height, width = network.preprocessing.size  # type: ignore[misc]
        self.network = network
        self.tell(
            NetworkOpened(
                name=network.name,
                weights=network.digest,
                expects=f"{height}x{width} pixels, {network.preprocessing.describe()}",
                notes=(*network.notes.values(), *filter(None, [network.limit])),
                classes=tuple(network_names),
                layers=tuple((layer.name, layer.channels, layer.worth_showing) for layer in network.layers),
            )
        )

    def make(self, command: AscendCommand) -> None:
        if self.network is None:
            raise InputError("no network is open: expected one to be picked first")
        self.picture = None
        torch.set_num_threads(command.threads)
        network, begun = self.network, time.monotonic()
        objectives: list[float] = []
        told = -_PAUSE  # when the last picture was shown

        def on_step(step: Step) -> Recipe | None:
            nonlocal told
            objectives.append(step.objective)
            if time.monotonic() - told >= _PAUSE:
                self.tell(StepEvent(step.step, preview(step), tuple(objectives), step.probability))
                objectives.clear()
                told = time.monotonic()
            return self.steered(step.recipe)

        result = ascend(
            network,
            command.unit,
            command.recipe,
            seed=command.seed,
            options=RunOptions(device=self.given.device),
            callbacks=Callbacks(step=on_step),
        )
        self.picture = picture = result[0]
        self.tell(
            ImageFinished(
                label=picture.label,
                png=_encoded(picture.image(), "PNG"),
                objectives=tuple(picture.objectives),
                steps=picture.steps,
                stopped=picture.stopped,
                seconds=time.monotonic() - begun,
                changes=tuple((step, name, value) for step, name, value in picture.changes),
                is_class=isinstance(picture.unit, Class),
            )
        )
        self.card(picture, [])

    def steered(self, recipe: Recipe) -> Recipe | None:
        """The recipe to go on by, after all that was commanded meanwhile."""
        going: Recipe | None = recipe
        while self.pipe.poll():
            command = self.heard()
            if isinstance(command, StopCommand):
                going = None
            elif isinstance(command, ChangeCommand) and going is not None:
                if command.recipe.resume_key() == recipe.resume_key():
                    going = command.recipe
            else:
                self.tell(CommandFailed(type(command).__name__, "an image is on its way: expected it to end first"))
        return going

    def judge(self, picture: Picture) -> None:
        if not isinstance(picture.unit, Class):
            raise InputError(f"{picture.unit} is no class: judges know classes only")
        self.panel = self.panel or judge_panel.panel(picture.network)
        self.card(picture, self.panel)

    def card(self, picture: Picture, panel: Sequence[Network]) -> None:
        """Measure an image, and put what was measured into what it says of itself."""
        (found,) = judge_module.judge([picture], panel, device=self.given.device)
        picture.scores.update(found)
        self.tell(ScoreCard(picture.scores))


def open_allowed_network(command: OpenCommand, folders: Sequence[str]) -> Network:
    """The network asked for, of the files that may be read.

    Raises:
        InputError: it is a file outside the folders, or cannot be opened.
    """
    network, feed = command.network, command.feed
    if Path(network).is_absolute():
        studio_files.check(network, folders, "networks")
    elif network not in network_names():
        raise InputError(f"network {network!r}: expected a name of timm's or torchvision's, or a file of the list")
    if feed is not None and feed not in PRESETS:
        studio_files.check(feed, folders, "feeds")
    if command.labels is not None:
        studio_files.check(command.labels, folders, "labels")
    if command.weights is not None:
        studio_files.check(command.weights, folders, "weights")
    return open_network(network, feed, command.labels, weights=command.weights, partial=command.partial)


def network_names() -> tuple[str, ...]:
    """The networks that are opened by name: those that ship first."""
    shipped = [name for name in bundled.SIZES if bundled.is_installed(name)]
    caffe = [f"caffe:{name}" for name in ("caffenet", "vgg16", "googlenet")]
    torchvisions = [f"torchvision:{name}" for name in torchvision_names()]
    return (*shipped, *caffe, *torchvisions, *(f"timm:{name}" for name in timm.list_models()))


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


# Keeping


def save_image(picture: Picture, given: StudioConfig) -> str:
    """Write an image into the atlas, or into the folder where there is none; gives where it is.

    An atlas has classes and channels; all other units go into the folder.
    """
    group = None if given.atlas is None else _group(picture)
    if given.atlas is None or group is None:
        return str(save_without_overwriting(picture, Path(given.out)))
    return keep_in_atlas(picture, Store(given.atlas), group)


def save_without_overwriting(picture: Picture, directory: Path) -> Path:
    """Write an image into a folder, beside what is there: none is ever replaced."""
    make_directory(directory)
    name, number = picture.name, 1
    while (directory / f"{name}.png").exists():
        number += 1
        name = f"{picture.name}_{number}"
    return save_picture(replace(picture, name=name), directory)


def _group(picture: Picture) -> Group | None:
    """The group of an atlas that would have nothing but this image; None where no atlas has such a unit."""
    unit = picture.unit
    if isinstance(unit, Class):
        return Group(CLASSES, [unit.index], picture.recipe.to_dict())
    if isinstance(unit, Channel) and unit.reduce == "sum":
        return Group(unit.layer, [unit.channel], picture.recipe.to_dict())
    return None


def keep_in_atlas(picture: Picture, store: Store, own: Group) -> str:
    """Keep an image in an atlas, which is made if it is not there; gives its file.

    A unit that the plan lacks is added to it, with this image.  One that it has gets this as a further facet: what is
    there stays, and so does what is yet to be made.  In the index the image stands under the recipe that the plan has
    for its layer, by which it is found again; its own file says how it was made.

    Raises:
        InputError: the atlas is of another network, holds something else, or cannot be written.
    """
    index = own.indices[0]
    network = picture.network.native or picture.network
    known = {key: str(value) if isinstance(value, Path) else value for key, value in (network.source or {}).items()}
    plan = store.plan() if store.has_plan() else AtlasPlan(network.name, network.digest, known, [])
    if plan.weights != network.digest:
        raise InputError(
            f"the atlas is of {plan.network} (weights {plan.weights}), and {network.name} has {network.digest}: "
            "expected the same network, or another atlas"
        )
    group = next((group for group in plan.groups if group.name == own.name), None)
    planned = group is not None and index in group.indices
    if group is None:
        group = own
        plan = replace(plan, groups=[*plan.groups, own])
    elif not planned:
        wider = replace(group, indices=sorted([*group.indices, index]))
        plan = replace(plan, groups=[wider if each is group else each for each in plan.groups])
    facet = 0 if not planned and plan.facets == 1 else plan.facets
    while store.find_row(group.name, index, facet) is not None:
        facet += 1
    if not planned:
        store.write_plan(plan)  # first, since it refuses a directory that holds something else
    row = store.put(group.name, index, facet, group.digest, picture)
    store.add([row])
    return f"{store.place}/{row['file']}"
