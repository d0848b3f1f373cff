"""The provenance of an image, read from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from phosphene.errors import InputError, printable
from phosphene.images import open_image
from phosphene.planes import plane_width
from phosphene.png import KEY
from phosphene.provenance.records import Provenance, parse_provenance


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What a PNG made by phosphene says of itself.

    Returns:
        A dictionary with "unit", "label", "seed", "recipe", "network", "steps", "stopped", "batches", "scores",
        "device", "threads", "precision", "versions" and, where the ascent started from a given image, "start", and
        where its recipe was changed on the way, "changes".

    Raises:
        InputError: there is no such file, it is no image, it carries nothing of phosphene's, or what it carries is
            damaged.
    """
    return read(path).to_dict()


def read(path: str | Path) -> Provenance:
    """As `read_provenance`, checked, and as an object."""
    return read_with_image(path)[0]


def load(path: str | Path) -> tuple[Image.Image, Provenance | None]:
    """An image file, and its provenance, or None where it carries nothing of phosphene's.

    Raises:
        InputError: there is no such file, it is no image, or its provenance is damaged.
    """
    path = Path(path)
    opened = open_image(path)
    image, text = opened.image, opened.text.get(KEY)
    if text is None:
        return image, None
    try:
        provenance = parse_provenance(text)
        _check_sizes(provenance, image)
        return image, provenance
    except ValueError as error:
        why = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(f"what image {str(path)!r} says of itself is damaged{why}") from None


def read_with_image(path: str | Path) -> tuple[Provenance, Image.Image]:
    """As `read`, and the image."""
    image, provenance = load(path)
    if provenance is None:
        raise InputError(
            f"image {str(path)!r} does not say how it was made: expected a PNG that phosphene wrote, unchanged"
        )
    return provenance, image


def _check_sizes(provenance: Provenance, image: Image.Image) -> None:
    """Raise an `InputError` where sizes that an image tells of are not its own, so that nothing larger is made."""
    size = provenance.recipe.get("size")
    planes = provenance.network.input.channels
    height, width = image.height, plane_width(image, planes)
    if size is not None and list(size if isinstance(size, list) else [size, size]) != [height, width]:
        raise InputError(f"recipe.size {printable(size)}: the image has {height}x{width} pixels")
    most = 2 * height * width * planes + 4096  # of noise, which does not compress, in base64
    for name in ("start", "photograph"):
        if len(getattr(provenance, name) or "") > most:
            raise InputError(f"{name} is larger than the image")
