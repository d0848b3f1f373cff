"""Images as a viewer shows them, whatever their mode, orientation and range."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from phosphene.errors import input_errors_for


def to_display(image: Image.Image, name: str = "given") -> Image.Image:
    """An image as a viewer shows it, of mode "L", "RGB" or, where anything may be transparent, "RGBA".

    It is turned as its EXIF data say.  Palettes, CMYK and other spaces become RGB, without color profiles.  Of 16 bits
    the upper 8 count.  Integers of 32 bits and floating point have no range of their own: floating point of 0..1 is
    taken for black to white; of other values, those within 0..255 are as they are, integers within 0..65535 are of 16
    bits, and any others are stretched from their least to their greatest.

    Raises:
        InputError: it cannot be decoded.
    """
    with input_errors_for(f"image {name!r}", "an image whose pixels can be decoded"), no_warnings():
        image.load()
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            shown = Image.fromarray(_eight_bits(image))
            shown.info = {key: value for key, value in image.info.items() if key == "exif"}
            return _apply_orientation(shown)
        image = _apply_orientation(image)
        if image.mode == "LAB":
            image = _lab_to_rgb(image)
        elif image.mode in ("La", "RGBa"):  # colors that are multiplied with their opacity
            image = image.convert({"La": "LA"}.get(image.mode, "RGBA"))
        mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
        return image if image.mode == mode else image.convert(mode)


def opaque(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """An image that `to_display` gave, of mode "L" or "RGB"; what is transparent is on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _apply_orientation(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data, of whatever kind, keep no viewer from showing the pixels
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}  # so that it turns once
    return turned


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels (height, width) of an image of one channel of more than 8 bits."""
    values: NDArray[Any] = np.asarray(image)
    if image.mode.startswith("I;16") or image.format == "PNG" or (image.mode == "I" and _within(values, 256, 65535)):
        table = ((np.arange(65536) + 128) // 257).astype(np.uint8)
        shown: NDArray[np.uint8] = table[values]
    else:
        shown = _rescale_to_bytes(values)
    clear = image.info.get("transparency")  # the one value that is
    if isinstance(clear, int):
        shown[values == clear] = 255
    return shown


def _within(values: NDArray[Any], low: int, high: int) -> bool:
    """Whether all values are in 0..`high`, and some are at least `low`."""
    return bool(values.size and values.min() >= 0 and low <= values.max() <= high)


def _rescale_to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers or floating point of any range, (height, width), of which the least is black and the greatest white.

    What is within 0..255, or in floating point within 0..1, has that range.  What is no number is black.
    """
    is_float = values.dtype.kind == "f"
    shown = np.empty(values.shape, np.uint8)
    with np.errstate(all="ignore"):  # what is no number warns when it is compared
        finite: Any = np.isfinite(values) if is_float else True
        low = float(values.min(where=finite, initial=np.inf if is_float else values.flat[0]))
        high = float(values.max(where=finite, initial=-np.inf if is_float else values.flat[0]))
        if low >= 0 and high <= 1 and is_float:
            low, high = 0, 1
        elif low >= 0 and high <= 255:
            low, high = 0, 255
        for given, wanted in zip(values, shown, strict=True):  # row by row: they have 64 bits meanwhile
            row = np.nan_to_num(given.astype(np.float64), nan=low, posinf=high, neginf=low)
            wanted[:] = ((row - low) * (255 / ((high - low) or 1))).round()
    return shown


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert shown is not None
    return shown


class _WarningFilter:
    """How many threads are within `no_warnings`, and what undoes it."""

    lock = threading.Lock()
    silenced = 0
    filters: warnings.catch_warnings[None]


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep PIL's warnings from the user.

    What is warned of belongs to the whole process: of threads that read at once the first sets it, the last undoes it.
    """
    with _WarningFilter.lock:
        if not _WarningFilter.silenced:
            _WarningFilter.filters = warnings.catch_warnings()
            _WarningFilter.filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _WarningFilter.silenced += 1
    try:
        yield
    finally:
        with _WarningFilter.lock:
            _WarningFilter.silenced -= 1
            if not _WarningFilter.silenced:
                _WarningFilter.filters.__exit__(None, None, None)
