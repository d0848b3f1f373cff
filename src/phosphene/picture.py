"""What an ascent gives: pictures, each with all that is known of it, and the result that holds them."""

from __future__ import annotations

import base64
import io
import math
import platform
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

import phosphene
from phosphene.errors import refusing
from phosphene.networks.network import Network
from phosphene.recipe import Recipe
from phosphene.units import Class, Unit, describe


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, and how it came about.

    Attributes:
        name: of its file, without the suffix: "130_flamingo".
        unit, seed, network, recipe: what it was made from; the recipe with the network's own fields put in, as it was
            at first.
        pixels: the image, 8 bits, (height, width, channels), RGB.
        objectives: the objective before each step.
        probabilities: the network's own probability of the class before each step; empty for other units.
        frames: images on the way, as the recipe's `keep.every` asks, like `pixels`.
        steps: how many were made.
        stopped: why it stopped.
        seconds: its share of the time.
        device: the type of device it was made on, and `threads` how many threads torch had on the CPU.
        start: the image it started from, where one was given, like `pixels`.
        batches: [size, steps] pairs: how many rows were in work at its steps.
        scores: measured on `pixels`: "objective", and for a class "probability", both by the network itself; and what
            `judge` has added.
        photograph: what the unit refers to, where it refers to one, like `pixels`.
        alpha: how opaque each pixel is, 8 bits, (height, width), where the recipe asks for transparency.
        ensemble: further networks whose mean with `network` was maximised.
        facet: which of how many that were made together so that they differ.
        precision: for each network, that of its passes: "fp32", "bf16" or "fp64".
        statistics: for each network, where the statistics of natural images came from that a prior pulled towards.
        changes: of the recipe, on the way: [step, field, value], each made after that step.
    """

    name: str
    unit: Unit
    seed: int
    network: Network
    recipe: Recipe
    pixels: NDArray[np.uint8]
    objectives: list[float]
    probabilities: list[float]
    frames: list[NDArray[np.uint8]]
    steps: int
    stopped: str
    seconds: float
    device: str
    threads: int
    start: NDArray[np.uint8] | None
    batches: list[list[int]]
    scores: dict[str, Any]
    photograph: NDArray[np.uint8] | None = None
    alpha: NDArray[np.uint8] | None = None
    ensemble: tuple[Network, ...] = ()
    facet: tuple[int, int] = (0, 1)
    statistics: tuple[str, ...] = ()
    precision: tuple[str, ...] = ("fp32",)
    changes: Sequence[list[Any]] = ()

    @property
    def label(self) -> str:
        """The unit in words: a class's name, or the unit as it is spelled."""
        return describe(self.unit, self.network)

    def image(self) -> Image.Image:
        """The picture as a PIL image; one of two or more than four channels as grey planes side by side."""
        image = to_pil(self.pixels)
        if self.alpha is not None and self.pixels.shape[-1] in (1, 3):
            image = image.convert("RGB")
            image.putalpha(Image.fromarray(self.alpha))
        return image

    @property
    def makers(self) -> str:
        """The network's name, or those of the ensemble."""
        return " + ".join(network.name for network in (self.network, *self.ensemble))

    def provenance(self) -> dict[str, Any]:
        """All that it takes to make the picture again, and what was measured of it; plain data."""
        return {
            "unit": str(self.unit),
            "label": self.label,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "network": _entry(self.network),
            "steps": self.steps,
            "stopped": self.stopped,
            "batches": self.batches,
            "scores": self.scores,
            "device": self.device,
            "threads": self.threads,
            "precision": list(self.precision),
            "versions": versions(),
            **({} if self.start is None else {"start": encoded(self.start)}),
            **({} if self.photograph is None else {"photograph": encoded(self.photograph)}),
            **({} if not self.ensemble else {"ensemble": [_entry(network) for network in self.ensemble]}),
            **({} if self.facet == (0, 1) else {"facet": list(self.facet)}),
            **({} if self.recipe.priors.statistics is None else {"statistics": list(self.statistics)}),
            **({} if not self.changes else {"changes": list(self.changes)}),
        }

    def save(self, directory: str | Path) -> Path:
        """Write the PNG, with its provenance in it, into a directory; see `phosphene.render.save_picture`."""
        from phosphene import render

        return render.save_picture(self, Path(directory))

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()


def _entry(network: Network) -> dict[str, Any]:
    return {
        "name": network.name,
        "source": network.source,
        "weights": network.digest,
        "input": asdict(network.preprocessing),
    }


class Result(Sequence[Picture]):
    """The pictures of an ascent, in the order of the units.  In a notebook it shows itself as a labelled grid.

    Attributes:
        pictures: as made; after Ctrl-C some may be missing.
        recipe, network: what they were made with.
        interrupted: whether Ctrl-C ended the ascent.
        unmade: the units, spelled, that were not begun.
    """

    def __init__(
        self,
        pictures: list[Picture],
        recipe: Recipe,
        network: Network,
        interrupted: bool = False,
        unmade: Sequence[str] = (),
    ):
        self.pictures, self.recipe, self.network = pictures, recipe, network
        self.interrupted, self.unmade = interrupted, list(unmade)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.pictures[index]

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    def __repr__(self) -> str:
        names = ", ".join(picture.name for picture in self.pictures[:4])
        more = ", …" if len(self) > 4 else ""
        return f"<Result of {self.recipe.name} on {self.network.name}: {len(self)} pictures: {names}{more}>"

    @property
    def images(self) -> NDArray[np.uint8]:
        """All images, 8 bits, (rows, height, width, channels), RGB."""
        return np.stack([picture.pixels for picture in self.pictures])

    @property
    def traces(self) -> list[NDArray[np.float64]]:
        """For each picture the objective before each step, of shape (steps,)."""
        return [np.array(picture.objectives) for picture in self.pictures]

    @property
    def scores(self) -> list[dict[str, Any]]:
        """For each picture what was measured of it as it is saved: see `Picture.scores`."""
        return [picture.scores for picture in self.pictures]

    def judge(
        self,
        judges: str | Network | Sequence[str | Network] | None = None,
        photographs: str | Path | Sequence[str | Path] | None = None,
        device: str | torch.device | None = None,
    ) -> list[dict[str, Any]]:
        """Have other networks say what they see in the pictures, and measure them: see `phosphene.judge`.

        Returns:
            A score card for each picture.  It is put into the picture's `scores` too, and so into its file when it is
            saved.

        Raises:
            InputError: as `phosphene.judge` does.
        """
        from phosphene.judges import judge

        cards = judge(self.pictures, judges, photographs=photographs, device=device) if self.pictures else []
        self.pictures = [
            replace(picture, scores={**picture.scores, **card})
            for picture, card in zip(self.pictures, cards, strict=True)
        ]
        return cards

    def save(self, directory: str | Path = "phosphene-out") -> list[Path]:
        """Write every picture, `grid.png`, `objective.png` and `run.json` into a directory, which is made if needed.

        Each file is written aside and then moved into its place, so that none is ever half there.

        Returns:
            The files written.

        Raises:
            InputError: the directory cannot be made or written.
        """
        from phosphene import render

        return render.save_result(self, Path(directory))

    def grid(self) -> Image.Image:
        """All pictures in a labelled grid."""
        from phosphene import render

        return render.grid(self.pictures)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.grid().save(file, "PNG")
        return file.getvalue()


def to_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """(height, width, channels) to a PIL image; two or more than four channels become grey planes side by side."""
    channels = pixels.shape[-1]
    if channels in (3, 4):
        return Image.fromarray(pixels)
    return Image.fromarray(np.concatenate([pixels[..., i] for i in range(channels)], axis=1))


_LONGEST_TEXT = 2**26  # characters: no PNG that is read has longer ones
_MOST_VALUES = 2**28


def encoded(pixels: NDArray[np.uint8]) -> str:
    """An image as text: its array in NumPy's format, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, pixels=pixels)
    return base64.b64encode(file.getvalue()).decode()


def decoded(text: str) -> NDArray[np.uint8]:
    """The image (height, width, channels) that `encoded` made a text of.

    Raises:
        InputError: it is no such text; nothing is allocated for what only says that it is one.
    """
    with refusing("an image within another's provenance", "one array of bytes in NumPy's format, compressed"):
        if len(text) > _LONGEST_TEXT:
            raise ValueError(f"it has over {_LONGEST_TEXT} characters")
        data = base64.b64decode(text, validate=True)
        # Where an archive ends it says how many files it holds, and a reader keeps a record of each.
        *_, count, directory, _, _ = struct.unpack("<4s4H2LH", data[-22:])
        if data[-22:-18] != b"PK\5\6" or data[-42:-38] == b"PK\6\7" or count != 1 or directory > 2**10:
            raise ValueError("it holds not one array")
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open("pixels.npy") as file:
            return _array(file)


def _array(file: IO[bytes]) -> NDArray[np.uint8]:
    """An array of bytes of three axes, from a file in NumPy's format."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("the array is of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    size = math.prod(shape)
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1 or size > _MOST_VALUES:
        raise ValueError(f"the array is of shape {shape} and type {dtype}")
    values = np.frombuffer(bytearray(file.read(size + 1)), np.uint8)
    return values.reshape(shape, order="F" if by_columns else "C")


def versions() -> dict[str, str]:
    """Versions of what an image's bytes can depend on."""
    return {
        "phosphene": phosphene.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def picture_names(units: Sequence[Unit], seeds: Sequence[int], network: Network) -> list[str]:
    """File names without suffix: `130_flamingo`, `features.29_012`; with the seed where a unit comes more than once."""
    names = [_name(unit, network) for unit in units]
    times = Counter(name.casefold() for name in names)
    names = [
        f"{name}_seed{seed}" if times[name.casefold()] > 1 else name for name, seed in zip(names, seeds, strict=True)
    ]
    repeats: Counter[str] = Counter()
    for i, name in enumerate(names):
        repeats[name.casefold()] += 1
        if repeats[name.casefold()] > 1:
            names[i] = f"{name}_{repeats[name.casefold()]}"
    return names


def _name(unit: Unit, network: Network) -> str:
    if isinstance(unit, Class):
        width = max(3, len(str(network.classes - 1)))
        label = describe(unit, network) if network.labels is not None else "class"
        return f"{unit.index:0{width}d}_{_clean(label)}"
    return _clean(re.sub(r":(\d+)", lambda match: f"_{int(match[1]):04d}", str(unit)))


def _clean(text: str) -> str:
    return re.sub(r"[^\w.@+-]+", "_", text).strip("._")[:100] or "unit"
