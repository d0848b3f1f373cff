"""What a page and its process tell each other: commands to the process, and messages from it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phosphene.recipes.recipe import Recipe

MAX_MADE = 24
"""Images that a page shows again, and that its process can still judge and keep: the last ones."""


MAX_DROPPED_BYTES = 20_000_000
"""Bytes of an image file that is dropped onto a page and sent to it."""

MAX_FACETS = 8
"""Images that are made at once of one unit."""

DROPPED = "dropped:"
"""How the name of an image begins that was dropped onto the page, where a path would stand."""


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
    """Open a network: by name, or a file in the folders; `preprocessing` is a preset or a file, as is
    `labels`."""

    network: str
    weights: str | None = None
    preprocessing: str | None = None
    labels: str | None = None
    partial: bool = False


@dataclass(frozen=True)
class RunInputs:
    """What a run is given besides a unit, a recipe and a seed.

    Attributes:
        size: height and width in pixels; None: the network's own.
        facets: images that are made at once so that they differ.
        start: the image to start from: a path of the folders, or of `DROPPED` and a name; empty: none.
        photograph: that the unit refers to, in the same way.
        photographs: a folder of photographs, for recipes that take one; empty: none.
    """

    size: tuple[int, int] | None = None
    facets: int = 1
    start: str = ""
    photograph: str = ""
    photographs: str = ""


@dataclass(frozen=True)
class AscendCommand:
    """Make images of a unit, as it is spelled, with so many threads.

    Attributes:
        number: of the first image; further ones have the next numbers.
        facets: how many images.
        start: the image to start from, if one is given: a path, or a file's bytes.
        photograph: that the unit refers to, if one is given, in the same way.
    """

    unit: str
    recipe: Recipe
    seed: int
    threads: int
    number: int = 0
    facets: int = 1
    start: str | bytes | None = None
    photograph: str | bytes | None = None


@dataclass(frozen=True)
class ChangeCommand:
    """Go on by this recipe."""

    recipe: Recipe


@dataclass(frozen=True)
class StopCommand:
    """End the image that is on its way."""


@dataclass(frozen=True)
class JudgeCommand:
    """Ask other networks what they see in an image, also compared with a folder of photographs, if one is given."""

    number: int = 0
    photographs: str | None = None


@dataclass(frozen=True)
class SaveCommand:
    """Write an image where images are kept."""

    number: int = 0


# Messages


@dataclass(frozen=True)
class NetworkOpened:
    """A network is open.

    Attributes:
        name, weights: of the network; the digest of the latter.
        expects: its input, in words.
        notes: what a user should know, in sentences.
        classes: their names, or their indices.
        layers: their names, how many channels each has, and whether it is usually shown.
        has_tokens: whether it has layers of tokens.
    """

    name: str
    weights: str
    expects: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    layers: tuple[tuple[str, int, bool], ...]
    has_tokens: bool


@dataclass(frozen=True)
class StepEvent:
    """An image on its way.

    Attributes:
        step: how many are made.
        jpeg: the image as it stands; empty of several, which are seen when they are finished.
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
        number: by which it is called.
        label: the unit in words.
        recipe, seed: by which it was made: the name of the former.
        png: the image, and `thumbnail` a small one of it, a JPEG.
        objectives: before each step.
        steps, stopped, seconds: how many, why, and how long.
        changes: of the recipe on the way: [step, field, value].
        is_class: whether it shows a class, which other networks can judge.
    """

    number: int
    label: str
    recipe: str
    seed: int
    png: bytes
    thumbnail: bytes
    objectives: tuple[float, ...]
    steps: int
    stopped: str
    seconds: float
    changes: tuple[tuple[int, str, Any], ...]
    is_class: bool


@dataclass(frozen=True)
class ScoreCard:
    """What was measured of an image: see `phosphene.judge`; with the judges, if they were asked."""

    number: int
    scores: dict[str, Any]


@dataclass(frozen=True)
class ImageSaved:
    """An image is kept, there."""

    number: int
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
