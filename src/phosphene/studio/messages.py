"""What a page and its process tell each other: commands to the process, and messages from it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phosphene.recipes.recipe import Recipe


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
