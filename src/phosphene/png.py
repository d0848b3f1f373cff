"""The text that a PNG made by phosphene carries."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

KEY = "phosphene"
"""The keyword of the text."""


def with_provenance(png: bytes, provenance: dict[str, Any]) -> bytes:
    """A PNG's bytes with another provenance in it, and all else as it is."""
    # An iTXt chunk: keyword, not compressed, neither language nor translated keyword.
    text = KEY.encode() + b"\0" * 5 + json.dumps(provenance, ensure_ascii=False).encode()
    pieces, at, written = [png[:8]], 8, False
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, end = png[at + 4 : at + 8], at + 12 + length
        if kind in (b"tEXt", b"zTXt", b"iTXt") and png[at + 8 :].startswith(KEY.encode() + b"\0"):
            if not written:
                body = b"iTXt" + text
                pieces.append(struct.pack(">I", len(text)) + body + struct.pack(">I", zlib.crc32(body)))
            written = True
        else:
            pieces.append(png[at:end])
        at = end
        if kind == b"IEND":
            break
    return b"".join([*pieces, png[at:]])
