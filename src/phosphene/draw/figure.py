"""A figure: labeled rows of pictures under a title."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from phosphene.display import opaque
from phosphene.draw.grid import INK, MARGIN, PAPER, caption, ellipsize, tile
from phosphene.picture import Picture

FAINT = (110, 110, 110)
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
        draw.text((left + 2 * MARGIN, top + 4), ellipsize(label, small, width - 2 * MARGIN), FAINT, small)
        paper.paste(band, (left, top + 22))
    return paper


def _band(pictures: Sequence[Picture]) -> Image.Image:
    images, captions = [], []
    for picture in pictures:
        image, words = opaque(picture.image()), caption(picture)
        factor = SMALLEST_SHOWN // max(image.size)
        if factor > 1:
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        images.append(image)
        captions.append(words)
    return tile(images, captions, columns=min(len(images), 9))
