"""Small images side by side, for the atlas's page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageOps

THUMB = {"side": 96, "columns": 16, "rows": 16}

_PREVIEW = (1200, 600)  # width and height, about as wide as what shows previews of pages cuts them
_TILES = ((8, 4), (4, 2), (2, 1))  # columns and rows of a preview

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


def preview_tile(image: Image.Image) -> Image.Image:
    """An image as large as a preview has any use for."""
    return ImageOps.fit(image.convert("RGB"), (_PREVIEW[1], _PREVIEW[1]), Image.Resampling.LANCZOS)


def make_preview(groups: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """One picture of an atlas, 1200 pixels wide and 600 high: images of its groups in turn.

    Args:
        groups: of each some images, as `preview_tile` makes them.
    """
    longest = max(map(len, groups))
    images = [group[place] for place in range(longest) for group in groups if place < len(group)]
    paper = Image.new("RGB", _PREVIEW, "white")
    columns, rows = next(((across, down) for across, down in _TILES if across * down <= len(images)), (1, 1))
    side = _PREVIEW[1] // rows
    left = (_PREVIEW[0] - columns * side) // 2
    for place, image in enumerate(images[: columns * rows]):
        at = left + place % columns * side, place // columns * side
        paper.paste(image.resize((side, side), Image.Resampling.LANCZOS), at)
    return paper


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
