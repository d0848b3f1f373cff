"""Pictures in labeled grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from phosphene.display import opaque
from phosphene.picture import Picture

MARGIN = 5  # pixels between images, as in the post's grids
PAPER, INK = (255, 255, 255), (20, 20, 20)


def caption(picture: Picture) -> str:
    """The line under a picture: its unit, and the network's own probability of a class."""
    label = f"{picture.label} ({picture.network_names})" if picture.ensemble else picture.label
    if "probability" in picture.scores:
        return f"{label}  {picture.scores['probability']:.1%}"
    return label


def grid(pictures: Sequence[Picture], columns: int | None = None) -> Image.Image:
    """Pictures side by side, with a caption under each."""
    images = [opaque(picture.image()) for picture in pictures]
    return tile(images, [caption(picture) for picture in pictures], columns)


def tile(images: Sequence[Image.Image], captions: Sequence[str], columns: int | None = None) -> Image.Image:
    """Images in a grid on white, `MARGIN` pixels apart, each with its caption under it."""
    if columns is None:
        columns = len(images) if len(images) <= 6 else math.ceil(math.sqrt(1.6 * len(images)))
    lines = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    size = min(16, max(9, width // 14))
    font = ImageFont.load_default(size)
    text = size + 8 if any(captions) else 0
    paper = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + lines * (height + text + MARGIN)), PAPER)
    draw = ImageDraw.Draw(paper)
    for i, (image, words) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + i % columns * (width + MARGIN)
        top = MARGIN + i // columns * (height + text + MARGIN)
        paper.paste(image, (left, top))
        if words:
            draw.text((left + width / 2, top + height + 2), ellipsize(words, font, width), INK, font, anchor="ma")
    return paper


def post_grid(images: Sequence[Image.Image]) -> Image.Image:
    """Images as the post's script puts them together: ⌈√n⌉ columns and rows, row by row, on black, a margin between."""
    side = math.ceil(math.sqrt(len(images)))
    width, height = max(image.width for image in images), max(image.height for image in images)
    paper = Image.new("RGB", (side * (width + MARGIN) - MARGIN, side * (height + MARGIN) - MARGIN))
    for i, image in enumerate(images):
        paper.paste(opaque(image), (i % side * (width + MARGIN), i // side * (height + MARGIN)))
    return paper


def sheet(images: Sequence[Image.Image], side: int = 112, most: int = 8) -> Image.Image:
    """The first images in a row, small, without captions."""
    small = [opaque(image).copy() for image in images[:most]]
    for image in small:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return tile(small, [""] * len(small), len(small))


def ellipsize(words: str, font: Any, width: int) -> str:
    """Words as far as they fit into so many pixels."""
    if font.getlength(words) <= width:
        return words
    while len(words) > 1 and font.getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"
