"""Formats of image files, told by their first bytes."""

from __future__ import annotations

from functools import cache

from PIL import features

# By their names in PIL, as people write them.
FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "AVIF": "AVIF"}

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


@cache
def formats() -> tuple[str, ...]:
    """The formats that are opened, as PIL names them; AVIF only where PIL was built with it."""
    has_avif = "avif" in features.modules and features.check_module("avif")
    return tuple(name for name in FORMATS if name != "AVIF" or has_avif)


def any_format() -> str:
    """The formats that are opened, in words."""
    *most, last = (FORMATS[name] for name in formats())
    return f"{', '.join(most)} or {last}"


def format_of(head: bytes) -> str | None:
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
