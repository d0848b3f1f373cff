"""The figure of pictures beside photographs: what was compared, curves over layers, and channels that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from phosphene.comparison.pictures_match import MatchRow
from phosphene.comparison.pictures_rows import HALF, PictureRow
from phosphene.display import opaque

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

MOST_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Shown:
    """What a figure shows.

    Attributes:
        title: the network's name.
        rows: of the curves.
        pictures, photographs: some of them.
        channels: pictures of channels, with what stands under each.
        zero: where the path similarity is 0, in words.
        climbed: a picture that was climbed to match, and its rows.
    """

    title: str
    rows: Sequence[PictureRow]
    pictures: Sequence[Image.Image]
    photographs: Sequence[Image.Image]
    channels: Sequence[tuple[Image.Image, str]] = ()
    zero: str = ""
    climbed: tuple[Image.Image, Sequence[MatchRow]] | None = field(default=None)


def draw_comparison(shown: Shown, path: Path) -> None:
    """Pictures and photographs, curves over the layers, and below them the channels that differ most."""
    from matplotlib.figure import Figure

    lines = -(-len(shown.channels) // _PER_LINE)
    panels = 3 + (shown.climbed is not None)
    heights = [2.0, 2.3 * panels + 1.0, *[1.9 * lines] * bool(lines)]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _strip(parts[0], _compared(shown), max(_PER_LINE, len(_compared(shown))))
    _curves(parts[1], shown, panels)
    if lines:
        parts[2].suptitle("the channels that differ most: how much, in the photographs' spread", fontsize="medium")
        _strip(parts[2], shown.channels, _PER_LINE)
    figure.savefig(path, dpi=110, format="png")


_PER_LINE = 8


def _compared(shown: Shown) -> list[tuple[Image.Image, str]]:
    climbed = [(shown.climbed[0], "climbed to match")] if shown.climbed else []
    named = (("picture", shown.pictures), ("photograph", shown.photographs))
    return [*((image, word) for word, images in named for image in images[:MOST_SHOWN]), *climbed]


def _strip(part: SubFigure, images: Sequence[tuple[Image.Image, str]], columns: int) -> None:
    """Images with their captions, so many a line."""
    lines = max(1, -(-len(images) // columns))
    axes = part.subplots(lines, columns, squeeze=False).ravel()
    for each in axes:
        each.set_axis_off()
    for each, (image, caption) in zip(axes, images, strict=False):
        each.imshow(opaque(image))
        each.set_title(caption, fontsize="x-small")


def _curves(part: SubFigure, shown: Shown, panels: int) -> None:
    rows = shown.rows
    all_axes = part.subplots(panels, 1, sharex=True)
    like, size, off = all_axes[:3]
    _curve(like, rows, "path", f"path similarity (0: {shown.zero})")
    _curve(like, rows, "correlation", "rank correlation with photographs", ":")
    _curve(like, rows, "among", "photographs among themselves", ":")
    like.axhline(HALF, color="0.7", linewidth=0.8)
    like.set(ylabel="goes as photographs", ylim=_limits(rows))
    _curve(size, rows, "rms", "root mean square, over photographs'")
    size.axhline(1, color="0.7", linewidth=0.8)
    size.set(ylabel="size", ylim=(0, None))
    _curve(off, rows, "off", "picture")
    _curve(off, rows, "off_photographs", "photographs", ":")
    off.set(ylabel="share of 0 or less", ylim=(-0.03, 1.03))
    if shown.climbed is not None:
        by_layer = {row.layer: row for row in shown.climbed[1]}
        points = [(at, by_layer[row.layer]) for at, row in enumerate(rows) if row.layer in by_layer]
        known = [(at, each) for at, each in points if each.share is not None]
        label = "climbed picture to its photograph\n(1: as far as its pixels shuffled)"
        all_axes[3].plot([at for at, _ in known], [each.share or 0.0 for _, each in known], ".-", label=label)
        matched = [(at, each.share or 0.0) for at, each in known if each.matched]
        all_axes[3].plot([at for at, _ in matched], [share for _, share in matched], "o", label="climbed for")
        all_axes[3].set(ylabel="squared distance", ylim=(-0.03, None))
    all_axes[0].set_title(shown.title)
    all_axes[-1].set_xticks(range(len(rows)), [row.layer for row in rows], rotation=90, fontsize="small")
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize="x-small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _limits(rows: Sequence[PictureRow]) -> tuple[float, float]:
    """So that a layer of hardly any scale does not take all of the axis."""
    paths = [row.path for row in rows if row.path is not None]
    return max(-1.0, min([-0.2, *paths])), min(2.0, max([1.1, *paths])) + 0.05


def _curve(axes: Axes, rows: Sequence[PictureRow], name: str, label: str, style: str = "-") -> None:
    points: list[tuple[int, Any]] = [(at, getattr(row, name)) for at, row in enumerate(rows)]
    known = [(at, value) for at, value in points if value is not None]
    if known:
        axes.plot([at for at, _ in known], [value for _, value in known], f".{style}", linewidth=1.4, label=label)
