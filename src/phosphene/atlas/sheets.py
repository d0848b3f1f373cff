"""Small images side by side, for the atlas's page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

THUMB = {"side": 96, "columns": 16, "rows": 16}

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


def make_sheets(images: Sequence[Image.Image]) -> Iterator[bytes]:
    """Small images side by side on as few sheets as hold them."""
    side, columns, rows = THUMB["side"], THUMB["columns"], THUMB["rows"]
    for first in range(0, len(images), columns * rows):
        part = images[first : first + columns * rows]
        sheet = Image.new("RGB", (columns * side, -(-len(part) // columns) * side))
        for i, image in enumerate(part):
            small = image.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (i % columns * side, i // columns * side))
        yield jpeg(sheet)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def frame_crops(crops: Sequence[tuple[Image.Image, Box]]) -> Image.Image:
    """Photographs side by side, what is seen of each framed, and below what is seen where that is not all of it."""
    side = THUMB["side"]
    whole = all(box == (0, 0, *photograph.size) for photograph, box in crops)
    paper = Image.new("RGB", (len(crops) * (side + 2) - 2, side if whole else 2 * side + 2), "white")
    for i, (photograph, box) in enumerate(crops):
        left = i * (side + 2)
        paper.paste(photograph.resize((side, side), Image.Resampling.LANCZOS), (left, 0))
        if not whole:
            paper.paste(photograph.crop(box).resize((side, side), Image.Resampling.LANCZOS), (left, side + 2))
            across, down = side / photograph.width, side / photograph.height
            frame = (left + box[0] * across, box[1] * down, left + box[2] * across - 1, box[3] * down - 1)
            ImageDraw.Draw(paper).rectangle(frame, outline=(255, 220, 0), width=2)
    return paper
