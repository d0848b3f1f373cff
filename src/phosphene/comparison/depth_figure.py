"""The figures of a network's depth: curves over its layers, and how alike each two of them are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from phosphene.comparison.depth_rows import DepthRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_READ = (  # fields, with that of the standard error and that of chance
    ("r2", "r2_error", "", "R² of the logits"),
    ("top1", "top1_error", "top1_chance", "the network's first class"),
    ("label_top1", "label_error", "label_chance", "labels"),
    ("cka_logits", "", "", "CKA with the logits"),
)


def draw_depth(title: str, rows: Sequence[DepthRow], path: Path) -> None:
    """What can be read at each layer, in how many directions its variance is, and what lies before it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, 2.5 + 0.28 * len(rows)), 9), layout="constrained")
    reading, size, share = figure.subplots(3, 1, sharex=True)
    for value, error, chance, label in _READ:
        _curve(reading, rows, value, label, error)
        if chance and any(getattr(row, chance) is not None for row in rows):
            _curve(reading, rows, chance, f"{label}, by chance", style=":")
    reading.set(ylabel="read on held-out photographs", ylim=_limits(rows))
    reading.set_title(title)
    _curve(size, rows, "channels", "channels", style=":")
    _curve(size, rows, "directions", "directions with 99 % of the variance")
    _curve(size, rows, "participation", "participation ratio")
    size.set(ylabel="directions", yscale="log")
    _curve(share, rows, "cka_before", "CKA with the layer before")
    _curve(share, rows, "parameter_share", "parameters so far")
    _curve(share, rows, "time_share", "time so far (on this machine)")
    share.set(ylabel="share", ylim=(-0.03, 1.05))
    share.set_xticks(range(len(rows)), [row.layer for row in rows], rotation=90, fontsize="small")
    for axes in (reading, size, share):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110, format="png")


def _limits(rows: Sequence[DepthRow]) -> tuple[float, float]:
    """From 0, or somewhat below where something is, to 1."""
    least = min((value for row in rows for value in (row.r2, row.cka_logits) if value is not None), default=0.0)
    return max(-0.5, min(-0.03, least - 0.03)), 1.05


def _curve(axes: Axes, rows: Sequence[DepthRow], value: str, label: str, error: str = "", style: str = "-") -> None:
    """A field over the layers, with its standard error; nothing where no row has it."""
    points = [(index, row) for index, row in enumerate(rows) if getattr(row, value) is not None]
    if not points:
        return
    places = [index for index, _ in points]
    values: list[Any] = [getattr(row, value) for _, row in points]
    color = axes.lines[-1].get_color() if style == ":" and axes.lines else None
    (line,) = axes.plot(
        places, values, style, marker="" if style == ":" else ".", linewidth=1.4, color=color, label=label
    )
    if error:
        errors = [getattr(row, error) or 0.0 for _, row in points]
        low = [each - spread for each, spread in zip(values, errors, strict=True)]
        high = [each + spread for each, spread in zip(values, errors, strict=True)]
        axes.fill_between(places, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def draw_correlations(title: str, names: Sequence[str], correlations: Tensor, path: Path) -> None:
    """CKA of each two layers, and of each with the logits, in the order of calls."""
    from matplotlib.figure import Figure

    side = max(5.0, 2.0 + 0.26 * len(names))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(correlations.numpy(), vmin=0, vmax=1, cmap="magma")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.8, label="debiased linear CKA of two layers")
    figure.savefig(path, dpi=110, format="png")
