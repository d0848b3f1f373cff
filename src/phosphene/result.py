"""What an ascent returns: several pictures."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from phosphene.draw.grid import grid
from phosphene.draw.plot import plot
from phosphene.files import atomic_write, make_directory
from phosphene.networks.network import Network
from phosphene.picture import Picture, save_picture
from phosphene.recipes.recipe import Recipe


class Result(Sequence[Picture]):
    """The pictures of an ascent, in the order of the units.  In a notebook it shows itself as a labeled grid.

    Attributes:
        pictures: as made; after Ctrl-C some may be missing.
        recipe: what they were made by.
        networks: what they were made with, in memory: one, or those of an ensemble.
        interrupted: whether Ctrl-C ended the ascent.
        not_started: the units, spelled, that were not begun.
    """

    def __init__(
        self,
        pictures: list[Picture],
        recipe: Recipe,
        networks: Sequence[Network],
        interrupted: bool = False,
        not_started: Sequence[str] = (),
    ):
        self.pictures, self.recipe, self.networks = pictures, recipe, tuple(networks)
        self.interrupted, self.not_started = interrupted, list(not_started)

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
    def network(self) -> Network:
        """The network, or the first of an ensemble."""
        return self.networks[0]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All images, 8 bits, (rows, height, width, channels), RGB."""
        return np.stack([picture.pixels for picture in self.pictures])

    @property
    def objectives(self) -> list[NDArray[np.float64]]:
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
        from phosphene.judges.judge import judge

        cards = judge(self, judges, photographs=photographs, device=device) if self.pictures else []
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
        return save_result(self, Path(directory))

    def grid(self) -> Image.Image:
        """All pictures in a labeled grid."""
        from phosphene.draw import grid

        return grid.grid(self.pictures)

    def show(self) -> None:
        """Show the pictures: in a notebook as a labeled grid, and elsewhere in the system's image viewer."""
        try:
            from IPython.core.getipython import get_ipython
            from IPython.display import display
        except ImportError:
            shell = None
        else:
            shell = get_ipython()
        if shell is not None and hasattr(shell, "kernel"):
            display(self)
        else:
            self.grid().show("phosphene")

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.grid().save(file, "PNG")
        return file.getvalue()


def save_result(result: Result, directory: Path) -> list[Path]:
    """Write all pictures and what belongs to them as a whole."""
    return [*(save_picture(picture, directory) for picture in result), *save_summary(result, directory)]


def save_summary(result: Result, directory: Path) -> list[Path]:
    """Write `grid.png`, `objective.png` and `run.json`."""
    directory = make_directory(directory)
    files = []
    if result.pictures:
        image = grid(result.pictures)
        files.append(atomic_write(directory / "grid.png", lambda path: image.save(path, "PNG")))
        files.append(atomic_write(directory / "objective.png", lambda path: plot(result.pictures, path)))
    text = json.dumps(run_data(result), indent=1, ensure_ascii=False)
    files.append(atomic_write(directory / "run.json", lambda path: path.write_text(text, encoding="utf-8")))
    return files


_LEFT_OUT = ("recipe", "start", "photograph")


def run_data(result: Result) -> dict[str, Any]:
    """A run as plain data: what `run.json` holds."""
    return {
        "network": repr(result.network),
        "recipe": result.recipe.to_dict(),
        "interrupted": result.interrupted,
        "unmade": result.not_started,
        "pictures": [
            {
                "file": f"{picture.name}.png",
                **{key: value for key, value in picture.provenance().items() if key not in _LEFT_OUT},
                "seconds": round(picture.seconds, 3),
                "objective": [_number(value) for value in picture.objectives],
                "probability": [_number(value) for value in picture.probabilities],
            }
            for picture in result
        ],
    }


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
