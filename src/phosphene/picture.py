"""One finished image, with all that is known of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from phosphene.files import atomic_write, make_directory
from phosphene.planes import to_pil
from phosphene.png import KEY
from phosphene.provenance.pixels import encode_pixels
from phosphene.provenance.records import NetworkRecord
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Unit, stored_vectors
from phosphene.versions import versions


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, and how it came about: a frozen record, which holds no network, and can be pickled.

    Attributes:
        name: of its file, without the suffix: "130_flamingo".
        label: the unit in words: a class's name, or the unit as it is spelled.
        unit, seed, recipe: what it was made from; the recipe with the network's own fields put in, as it was at first.
        network: what is known of the network that it was made with: its name, source, input and weights' digest.
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
        ensemble: further networks, like `network`, whose mean with it was maximized.
        weights: of all these, where it was not their mean: what was maximized is their weighted sum.
        facet: which of how many that were made together so that they differ.
        precision: for each network, that of its passes: "fp32", "bf16" or "fp64".
        statistics: for each network, where the statistics of natural images came from that a prior pulled towards.
        changes: of the recipe, on the way: [step, field, value], each made after that step.
    """

    name: str
    label: str
    unit: Unit
    seed: int
    network: NetworkRecord
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
    ensemble: tuple[NetworkRecord, ...] = ()
    weights: tuple[float, ...] = ()
    facet: tuple[int, int] = (0, 1)
    statistics: tuple[str, ...] = ()
    precision: tuple[str, ...] = ("fp32",)
    changes: Sequence[list[Any]] = ()

    def image(self) -> Image.Image:
        """The picture as a PIL image; one of two or more than four channels as gray planes side by side."""
        image = to_pil(self.pixels)
        if self.alpha is not None and self.pixels.shape[-1] in (1, 3):
            image = image.convert("RGB")
            image.putalpha(Image.fromarray(self.alpha))
        return image

    @property
    def network_names(self) -> str:
        """The network's name, or those of the ensemble; with a minus that of one that was climbed down."""
        names = [network.name for network in (self.network, *self.ensemble)]
        signs = [" - " if weight < 0 else " + " for weight in self.weights or [1.0] * len(names)]
        return "".join(f"{sign}{name}" for sign, name in zip(signs, names, strict=True)).removeprefix(" + ").strip()

    def provenance(self) -> dict[str, Any]:
        """All that it takes to make the picture again, and what was measured of it; plain data."""
        return {
            "unit": str(self.unit),
            "label": self.label,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "network": self.network.to_dict(),
            "steps": self.steps,
            "stopped": self.stopped,
            "batches": self.batches,
            "scores": self.scores,
            "device": self.device,
            "threads": self.threads,
            "precision": list(self.precision),
            "versions": versions(),
            **({} if self.start is None else {"start": encode_pixels(self.start)}),
            **({} if self.photograph is None else {"photograph": encode_pixels(self.photograph)}),
            **({} if not self.ensemble else {"ensemble": [network.to_dict() for network in self.ensemble]}),
            **({} if not self.weights else {"weights": list(self.weights)}),
            **({} if self.facet == (0, 1) else {"facet": list(self.facet)}),
            **({} if self.recipe.priors.statistics is None else {"statistics": list(self.statistics)}),
            **({} if not self.changes else {"changes": list(self.changes)}),
            **({"vectors": vectors} if (vectors := stored_vectors(self.unit)) else {}),
        }

    def save(self, directory: str | Path) -> Path:
        """Write the PNG, with its provenance in it, into a directory; see `save_picture`."""
        from phosphene import picture

        return picture.save_picture(self, Path(directory))

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()


def png_info(picture: Picture) -> PngInfo:
    """The text that a picture's PNG carries."""
    info = PngInfo()
    provenance = picture.provenance()
    info.add_text("Title", f"{picture.label} ({picture.network.name}, {picture.recipe.name})")
    info.add_text("Software", f"phosphene {provenance['versions']['phosphene']}")
    # Not compressed: readers refuse a compressed text of over a mebibyte, as a large start image makes it.
    info.add_itxt(KEY, json.dumps(provenance, ensure_ascii=False))
    return info


def save_picture(picture: Picture, directory: Path) -> Path:
    """Write a picture as `NAME.png`, with its provenance in it."""
    directory = make_directory(directory)
    image = picture.image()
    return atomic_write(
        directory / f"{picture.name}.png", lambda path: image.save(path, "PNG", pnginfo=png_info(picture))
    )
