"""A TOML file that says what a network expects and what its outputs mean.

    mode = "caffe"              # torch, tf, caffe, unit or byte; all else changes a field of it
    size = 227
    mean = [104, 117, 123]
    labels = "synset_words.txt" # a file beside this one, a list of names, or "imagenet"

Any field of `Preprocessing` may stand in it.  A file `net.toml` beside `net.onnx`, `net.h5` or `net.py` is read when
that network is opened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, printable
from phosphene.files import MAX_TOML, parse_toml, read_text
from phosphene.networks.labels import Labels, imagenet_labels, read_labels
from phosphene.networks.preprocessing import PRESETS, Preprocessing


@dataclass(frozen=True)
class Description:
    """What a file says: a preset and fields of `Preprocessing`, and labels; each may be absent."""

    origin: str
    mode: str | None
    fields: dict[str, Any]
    labels: Labels | None

    def preprocessing(self, known: Preprocessing | None) -> Preprocessing | None:
        """What is known of a network otherwise, with what the file says put in."""
        if self.mode is None and not self.fields:
            return None
        base = known or Preprocessing()
        channels = self.fields.get("channels", base.channels)
        if channels != base.channels:
            base = Preprocessing.from_dict({"size": base.size, "channels": channels}, self.origin)
        preset = {} if self.mode is None else asdict(Preprocessing.preset(self.mode))
        scaling = {name: preset[name] for name in ("mean", "std", "value_range", "channel_order") if preset}
        return Preprocessing.from_dict(asdict(base) | scaling | self.fields, self.origin)


def read_description(path: str | Path) -> Description:
    """Read a description.

    Raises:
        InputError: the file cannot be read, is no TOML, or has a field that cannot be.
    """
    path = Path(path)
    origin = f"description {str(path)!r}"
    values = parse_toml(read_text(path, origin, MAX_TOML), origin)
    labels = _labels(values.pop("labels", None), path, origin)
    mode = values.pop("mode", None)
    if not isinstance(mode, str | None):
        raise InputError(f"{origin}: mode is {printable(repr(mode))}: expected one of {', '.join(PRESETS)}")
    description = Description(origin, mode, values, labels)
    description.preprocessing(None)  # what is wrong with any network is said now
    return description


def _labels(value: Any, path: Path, origin: str) -> Labels | None:
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        try:
            return Labels(value)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None
    if value == "imagenet":
        return imagenet_labels()
    if isinstance(value, str):
        return read_labels(path.parent / value)
    raise InputError(f'{origin}: labels are a list of names, a file, or "imagenet", not {printable(repr(value))}')
