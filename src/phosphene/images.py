"""Image files from elsewhere: what is opened, and what is too large.

All code that reads an image file or its bytes does it here.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from phosphene.display import no_warnings, to_display
from phosphene.errors import InputError, input_errors_for
from phosphene.image_formats import FORMATS, any_format, format_of, formats

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
        found = format_of(head)
        if found not in formats():
            unknown = "it is no image file" if head else "it is empty"
            what = unknown if found is None else f"it is {found}, and no image file that is opened here"
            raise InputError(f"{origin} cannot be read: {what}; expected {any_format()}")
        with input_errors_for(origin, f"a whole {FORMATS[found]} file"), no_warnings():
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
        raise InputError(f"{origin} cannot be read: it is {what} and no image file; expected {any_format()}")


def _check_bytes(size: int, origin: str) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{origin} has {size} bytes: expected at most {MOST_BYTES}")


def _check_size(size: tuple[int, int], origin: str) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise InputError(f"{origin} has {width} x {height} pixels: expected at most {MOST_PIXELS} in all")


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
        raise InputError(f"{origin} cannot be read: it is a damaged {FORMATS[found]} file") from None
    except Image.DecompressionBombError:  # PIL's own bound, which can be set too
        raise InputError(f"{origin} has too many pixels: expected at most {MOST_PIXELS} in all") from None
    with image:
        _check_size(image.size, origin)
        image.load()
        # The texts of an animated PNG would be read only after all its frames.
        has_text = found == "PNG" and not getattr(image, "is_animated", False)
        text: Mapping[Any, Any] = getattr(image, "text", {}) if has_text else {}
        return ImageFile(image, {str(key): str(value) for key, value in text.items()})
