"""What came out where pictures and photographs were compared: rows, sentences, a figure, and the files of these."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from phosphene.comparison.pictures_figure import Shown, draw_comparison
from phosphene.comparison.pictures_match import ImageMatch
from phosphene.comparison.pictures_rows import PictureRow
from phosphene.files import atomic_write, make_directory
from phosphene.picture import Picture, save_picture


@dataclass(frozen=True, eq=False)
class ShownChannel:
    """A channel that differs, and its own picture.

    Attributes:
        layer, channel, difference: as `ChannelDifference`.
        picture: of the channel.
    """

    layer: str
    channel: int
    difference: float
    picture: Picture = field(repr=False)


@dataclass(frozen=True, eq=False)
class ImageComparison:
    """What pictures do to a network beside what photographs do.

    Attributes:
        network, weights: its name, and its digest.
        pictures, photographs: names of what was compared.
        zero: where the path similarity is 0, in words.
        rows: in the order of calls.
        departure: the first layer from which on the path similarity stays below a half; None where there is none.
        summary: how far they go the same way, and where they are of another size.
        notes: what a reader should know.
        thumbnails: of some pictures and photographs, as the network is shown them.
        channels: the channels that differ most, with their pictures, where these were asked for.
        match: a climbed picture, if that was asked for.
    """

    network: str
    weights: str
    pictures: list[str]
    photographs: list[str]
    zero: str
    rows: list[PictureRow]
    departure: str | None
    summary: str
    notes: list[str]
    thumbnails: tuple[list[Image.Image], list[Image.Image]] = field(repr=False)
    channels: list[ShownChannel] = field(default_factory=list)
    match: ImageMatch | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; what is not a number is None."""
        left = ("rows", "thumbnails", "channels", "match")
        found: dict[str, Any] = {name: value for name, value in vars(self).items() if name not in left}
        found["rows"] = [asdict(row) for row in self.rows]
        found["channels"] = [
            {"layer": each.layer, "channel": each.channel, "difference": each.difference, "picture": _file(each)}
            for each in self.channels
        ]
        if self.match is not None:
            told = {name: value for name, value in vars(self.match).items() if name not in ("picture", "rows")}
            found["match"] = {**told, "rows": [asdict(row) for row in self.match.rows]}
        plain: dict[str, Any] = _plain(found)
        return plain

    def save(self, directory: str | Path) -> list[Path]:
        """Write `compare.json` and `compare.png`, the channels' pictures into `channels`, and a climbed picture.

        Raises:
            InputError: they cannot be written.
        """
        folder = make_directory(Path(directory))
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        written = [
            atomic_write(folder / "compare.json", lambda path: path.write_text(text, encoding="utf-8")),
            atomic_write(folder / "compare.png", lambda path: draw_comparison(self._shown(), path)),
        ]
        if self.channels:
            inner = make_directory(folder / "channels")
            written += [save_picture(each.picture, inner) for each in self.channels]
        if self.match is not None:
            written.append(save_picture(self.match.picture, folder))
        return written

    def _shown(self) -> Shown:
        """What the figure shows."""
        pictures, photographs = self.thumbnails
        captions = [
            (each.picture.image(), f"{each.layer}:{each.channel}  {each.difference:+.1f}") for each in self.channels
        ]
        climbed = None if self.match is None else (self.match.picture.image(), self.match.rows)
        return Shown(f"{self.network}", self.rows, pictures, photographs, captions, self.zero, climbed)


def _file(each: ShownChannel) -> str:
    return f"channels/{each.picture.name}.png"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
