"""Image files from elsewhere: what is opened, what is too large, and how a viewer shows it.

All code that reads an image file or its bytes does it here.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError, features

from phosphene.errors import InputError, input_errors_for

MOST_PIXELS = 2**27
"""Images of more pixels are refused before they are decoded: 134 million, as 16384 x 8192 has them.

That is more than cameras of 100 megapixels take, and half a gibibyte once decoded.  It can be set.
"""

MOST_BYTES = 2**29
"""Files of more bytes are refused before they are read.  It can be set."""

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
)
"""How the names of image files end."""

# A PNG of so many chunks, texts and bytes of text is refused before a decoder keeps them all in memory.
_MOST_CHUNKS, _MOST_TEXTS, _MOST_TEXT_BYTES = 100_000, 1000, 2**26
# A progressive JPEG may go through the whole image once for every scan of a few bytes.  No encoder writes so many.
_MOST_SCANS = 100

_FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "AVIF": "AVIF"}

_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}

# What is often given as an image and is none that is opened here.
_OTHERS: dict[str, tuple[bytes, ...]] = {
    "PostScript": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PDF": (b"%PDF",),
    "JPEG 2000": (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "Photoshop (PSD)": (b"8BPS",),
    "DirectDraw (DDS)": (b"DDS ",),
    "OpenEXR": (b"v/1\x01",),
    "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
    "Netpbm": tuple(b"P%d%c" % (kind, space) for kind in range(1, 8) for space in b" \n\r\t"),
    "QOI": (b"qoif",),
    "FITS": (b"SIMPLE  =",),
    "ICO": (b"\0\0\1\0", b"\0\0\2\0"),
    "a zip archive": (b"PK\x03\x04",),
    "gzip": (b"\x1f\x8b",),
    "HDF5": (b"\x89HDF",),
    "a NumPy array": (b"\x93NUMPY",),
    "a pointer of Git LFS": (b"version https://git-lfs",),
}
_BRANDS = {"HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis"), "AVIF": (b"avif", b"avis")}


@dataclass(frozen=True)
class ImageFile:
    """An image file, decoded.

    Attributes:
        image: its pixels as they are kept, of any of PIL's modes; of an animation the first frame.
        text: what a PNG's text chunks say, by keyword.  Nothing of it is checked.
    """

    image: Image.Image
    text: Mapping[str, str]


def open_image(source: str | os.PathLike[str] | bytes, name: str | None = None) -> ImageFile:
    """Open an image file of a known format, which is named by its content and not by its suffix, and decode it.

    Args:
        source: a path, or a file's bytes.
        name: what to call it in messages; by default the path.

    Raises:
        InputError: there is no such file, it is of another format, damaged, or larger than `MOST_PIXELS` or
            `MOST_BYTES`.
    """
    origin = (
        f"image {str(source)!r}" if name is None and not isinstance(source, bytes) else f"image {name or 'bytes'!r}"
    )
    with input_errors_for(origin, "an image file"), _open(source, origin) as file:
        head = file.read(1024)
        found = _format_of(head)
        if found not in formats():
            unknown = "it is no image file" if head else "it is empty"
            what = unknown if found is None else f"it is {found}, and no image file that is opened here"
            raise InputError(f"{origin} cannot be read: {what}; expected {_any_format()}")
        with input_errors_for(origin, f"a whole {_FORMATS[found]} file"), _no_warnings():
            if found == "PNG":
                _check_chunks(file, origin)
            elif found == "JPEG":
                _check_scans(file, origin)
            elif found == "WEBP":
                _check_size(_webp_size(head), origin)
            return _decode(file, found, origin)


def read_image(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Image.Image:
    """An image file as a viewer shows it: see `open_image` and `to_display`."""
    return to_display(
        open_image(source, name).image, name or (str(source) if not isinstance(source, bytes) else "bytes")
    )


def to_display(image: Image.Image, name: str = "given") -> Image.Image:
    """An image as a viewer shows it, of mode "L", "RGB" or, where anything may be transparent, "RGBA".

    It is turned as its EXIF data say.  Palettes, CMYK and other spaces become RGB, without color profiles.  Of 16 bits
    the upper 8 count.  Integers of 32 bits and floating point have no range of their own: floating point of 0..1 is
    taken for black to white; of other values, those within 0..255 are as they are, integers within 0..65535 are of 16
    bits, and any others are stretched from their least to their greatest.

    Raises:
        InputError: it cannot be decoded.
    """
    with input_errors_for(f"image {name!r}", "an image whose pixels can be decoded"), _no_warnings():
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


@cache
def formats() -> tuple[str, ...]:
    """The formats that are opened, as PIL names them; AVIF only where PIL was built with it."""
    has_avif = "avif" in features.modules and features.check_module("avif")
    return tuple(name for name in _FORMATS if name != "AVIF" or has_avif)


def _any_format() -> str:
    *most, last = (_FORMATS[name] for name in formats())
    return f"{', '.join(most)} or {last}"


# Opening


@contextmanager
def _open(source: str | os.PathLike[str] | bytes, origin: str) -> Iterator[IO[bytes]]:
    """A file that is a regular one, or bytes; never what does not end, such as a pipe or a device."""
    if isinstance(source, bytes):
        _check_bytes(len(source), origin)
        with io.BytesIO(source) as file:
            yield file
        return
    path = Path(source)
    _check_regular(path.stat().st_mode, origin)  # first, since to open some devices is to do something
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    # PIL is given no path: it would map the file, and the process would end if that was cut short meanwhile.
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        _check_regular(state.st_mode, origin)
        _check_bytes(state.st_size, origin)
        yield file


def _check_regular(mode: int, origin: str) -> None:
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        what = kind.get(stat.S_IFMT(mode), "a device")
        raise InputError(f"{origin} cannot be read: it is {what} and no image file; expected {_any_format()}")


def _check_bytes(size: int, origin: str) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{origin} has {size} bytes: expected at most {MOST_BYTES}")


def _check_size(size: tuple[int, int], origin: str) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise InputError(f"{origin} has {width} x {height} pixels: expected at most {MOST_PIXELS} in all")


def _format_of(head: bytes) -> str | None:
    """What a file is, by its first bytes: a format as PIL names it, or another in words; None for anything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        # The major brand and, up to the end of this box, the compatible ones: most HEIC and some AVIF say "mif1" first.
        brands = head[8 : min(64, int.from_bytes(head[:4], "big"))]
        major = next((kind for kind, names in _BRANDS.items() if brands[:4] in names), None)
        return major or next(
            (kind for kind, names in _BRANDS.items() if any(name in brands for name in names)), "a video"
        )
    for kind, signatures in (_SIGNATURES | _OTHERS).items():
        if head.startswith(signatures):
            return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return "SVG"
    return "a web page" if text.startswith((b"<!doctype html", b"<html")) else None


def _check_chunks(file: IO[bytes], origin: str) -> None:
    """Raise an `InputError` if a PNG has very many chunks, very much text, or a chunk that goes on beyond its end."""
    at, chunks, texts, length = 8, 0, 0, 0
    end = file.seek(0, 2)
    file.seek(at)
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        chunks += 1
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts, length = texts + 1, length + size
        if chunks > _MOST_CHUNKS or texts > _MOST_TEXTS or length > _MOST_TEXT_BYTES:
            raise InputError(
                f"{origin} has over {_MOST_CHUNKS} chunks, {_MOST_TEXTS} texts or {_MOST_TEXT_BYTES} bytes of text: "
                "expected an ordinary PNG file"
            )
        at += 12 + size
        if at - 4 > end:  # memory for all of it would be asked for
            raise InputError(f"{origin} cannot be read: it is cut short, or damaged; expected a whole PNG file")
        file.seek(at)


def _check_scans(file: IO[bytes], origin: str) -> None:
    """Raise an `InputError` if a JPEG has very many scans."""
    file.seek(0)
    data, at, scans = file.read(), 2, 0
    while (marker := _MARKER.search(data, at)) is not None and marker[1] != b"\xd9":  # the image's end
        scans += marker[1] == b"\xda"
        if scans > _MOST_SCANS:
            raise InputError(f"{origin} has over {_MOST_SCANS} scans: expected an ordinary JPEG file")
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


# Of a JPEG: what begins a segment, and is neither filling nor within compressed data.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Of an extended WebP the size of its canvas, for which its decoder makes room when it opens it."""
    if head[12:16] != b"VP8X" or len(head) < 30:
        return (0, 0)
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


def _decode(file: IO[bytes], found: str, origin: str) -> ImageFile:
    try:
        image = Image.open(file, formats=(found,))
    except UnidentifiedImageError:
        raise InputError(f"{origin} cannot be read: it is a damaged {_FORMATS[found]} file") from None
    except Image.DecompressionBombError:  # PIL's own bound, which can be set too
        raise InputError(f"{origin} has too many pixels: expected at most {MOST_PIXELS} in all") from None
    with image:
        _check_size(image.size, origin)
        image.load()
        # The texts of an animated PNG would be read only after all its frames.
        has_text = found == "PNG" and not getattr(image, "is_animated", False)
        text: Mapping[Any, Any] = getattr(image, "text", {}) if has_text else {}
        return ImageFile(image, {str(key): str(value) for key, value in text.items()})


class _WarningFilter:
    """How many threads are within `_no_warnings`, and what undoes it."""

    lock = threading.Lock()
    silenced = 0
    filters: warnings.catch_warnings[None]


@contextmanager
def _no_warnings() -> Iterator[None]:
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


# As a viewer shows it

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
