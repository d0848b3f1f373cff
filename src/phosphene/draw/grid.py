"""Pictures in labeled grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from phosphene.picture import Picture

MARGIN = 5  # pixels between images, as in the post's grids


PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def caption(picture: Picture) -> str:
    """The line under a picture: its unit, and the network's own probability of a class."""
    label = f"{picture.label} ({picture.network_names})" if picture.ensemble else picture.label
    if "probability" in picture.scores:
        return f"{label}  {picture.scores['probability']:.1%}"
    return label


def grid(pictures: Sequence[Picture], columns: int | None = None) -> Image.Image:
    """Pictures side by side, with a caption under each."""
    images = [_on_paper(picture.image()) for picture in pictures]
    return tile(images, [caption(picture) for picture in pictures], columns)


def _on_paper(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, PAPER)
    return Image.alpha_composite(paper, image).convert("RGB")


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
            draw.text((left + width / 2, top + height + 2), _ellipsize(words, font, width), INK, font, anchor="ma")
    return paper


def post_grid(images: Sequence[Image.Image]) -> Image.Image:
    """Images as the post's script puts them together: ⌈√n⌉ columns and rows, row by row, on black, a margin between."""
    side = math.ceil(math.sqrt(len(images)))
    width, height = max(image.width for image in images), max(image.height for image in images)
    paper = Image.new("RGB", (side * (width + MARGIN) - MARGIN, side * (height + MARGIN) - MARGIN))
    for i, image in enumerate(images):
        paper.paste(_on_paper(image), (i % side * (width + MARGIN), i // side * (height + MARGIN)))
    return paper


def sheet(images: Sequence[Image.Image], side: int = 112, most: int = 8) -> Image.Image:
    """The first images in a row, small, without captions."""
    small = [_on_paper(image) for image in images[:most]]
    for image in small:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return tile(small, [""] * len(small), len(small))


SMALLEST_SHOWN = 160  # pixels: images of small receptive fields are enlarged to about this


def figure(title: str, rows: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Rows of pictures, each with its label above it, and a title above all; short rows stand side by side."""
    bands = [(label, _band(pictures)) for label, pictures in rows if pictures]
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    width, height = max(band.width for _, band in bands), 22 + max(band.height for _, band in bands)
    shapes = [(columns * width, math.ceil(len(bands) / columns) * height) for columns in range(1, len(bands) + 1)]
    columns = 1 + min(range(len(shapes)), key=lambda i: abs(math.log(shapes[i][0] / shapes[i][1] / 1.2)))
    lines = math.ceil(len(bands) / columns)
    paper = Image.new("RGB", (max(columns * width, round(font.getlength(title)) + 20), 34 + lines * height), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((2 * MARGIN, 8), title, INK, font)
    for i, (label, band) in enumerate(bands):
        left, top = i % columns * width, 34 + i // columns * height
        draw.text((left + 2 * MARGIN, top + 4), _ellipsize(label, small, width - 2 * MARGIN), FAINT, small)
        paper.paste(band, (left, top + 22))
    return paper


def _band(pictures: Sequence[Picture]) -> Image.Image:
    images, captions = [], []
    for picture in pictures:
        image, words = _on_paper(picture.image()), caption(picture)
        factor = SMALLEST_SHOWN // max(image.size)
        if factor > 1:
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        images.append(image)
        captions.append(words)
    return tile(images, captions, columns=min(len(images), 9))


def _ellipsize(words: str, font: Any, width: int) -> str:
    if font.getlength(words) <= width:
        return words
    while len(words) > 1 and font.getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"
