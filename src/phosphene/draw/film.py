"""How a picture came about, on one image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from phosphene.picture import Picture
from phosphene.planes import to_pil

FILM_SIDE, FILM_COLUMNS = 128, 4


@dataclass(frozen=True)
class Film:
    """How a picture came about, on one image: small frames in rows of `FILM_COLUMNS`, at last the picture itself.

    A page that is opened from the file system can show any frame of it, and cannot step through an animation.

    Attributes:
        image: of all frames, without transparency.
        frames: how many.
        every: steps between two; from the last but one to the picture there may be fewer.
    """

    image: Image.Image
    frames: int
    every: int


def film(picture: Picture) -> Film | None:
    """The film of a picture; None where its recipe keeps no frames."""
    every = picture.recipe.keep.every
    if not every:
        return None
    # The frame of the last step, where there is one, is the picture before the last touches of its recipe.
    shown = [frame for number, frame in enumerate(picture.frames, 1) if number * every < picture.steps]
    width, height = film_size(picture)
    frames = [*shown, picture.pixels]
    paper = Image.new("RGB", (min(len(frames), FILM_COLUMNS) * width, math.ceil(len(frames) / FILM_COLUMNS) * height))
    for i, frame in enumerate(frames):
        small = to_pil(frame).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        paper.paste(small, (i % FILM_COLUMNS * width, i // FILM_COLUMNS * height))
    return Film(paper, len(frames), every)


def film_size(picture: Picture) -> tuple[int, int]:
    """Width and height of each frame of a film: the picture's, or as much smaller as `FILM_SIDE` asks."""
    width, height = to_pil(picture.pixels).size
    share = min(1.0, FILM_SIDE / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))
