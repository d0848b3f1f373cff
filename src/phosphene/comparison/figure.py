"""A comparison as a figure: which layers are alike, how sure that is, and how alike their units are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from phosphene.comparison.matched_layers import EDGES, ComparedNetwork, MatchedLayers
from phosphene.comparison.similarity import Similarity

_LONGEST = 24  # letters of a layer's name


def draw_comparison(
    networks: tuple[ComparedNetwork, ComparedNetwork],
    similarities: tuple[Similarity, Similarity, Similarity],
    matches: Sequence[MatchedLayers],
    photographs: int,
    few: int,
    path: Path | IO[bytes],
) -> None:
    """Write the figure as a PNG: above CKA between the networks and within each, below what is said of units.

    Args:
        similarities: of A's layers with B's, with each other, and of B's with each other.
        photographs: how many there were.
        few: units at most that one is predicted from.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 11), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.1, 1))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = above.subplots(1, 3)
    a, b = networks
    names = _called(a.name, b.name)
    heats = (
        (similarities[0].cka, (names[0], a.layers), (names[1], b.layers)),
        (similarities[1].cka, (names[0], a.layers), (names[0], a.layers)),
        (similarities[2].cka, (names[1], b.layers), (names[1], b.layers)),
    )
    for axis, (values, rows, columns) in zip(axes, heats, strict=True):
        shown = draw_heat(axis, values, rows, columns)
    above.colorbar(shown, ax=axes, label="debiased linear CKA", shrink=0.8)
    left, middle, right = below.subplots(1, 3)
    _draw_best(left, similarities[0], a.layers)
    _draw_histogram(middle, matches)
    _draw_units(right, matches, few)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(fontsize="x-small", frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    figure.suptitle(f"{names[0]} and {names[1]}, {photographs} photographs")
    figure.savefig(path, dpi=100, format="png")


def draw_heat(
    axis: Any, values: NDArray[np.float64], rows: tuple[str, tuple[str, ...]], columns: tuple[str, tuple[str, ...]]
) -> Any:
    """CKA as colors, from 0 to 1, with the first layers at the bottom left; returns what a color bar is made of.

    Args:
        values: (rows, columns).
        rows, columns: the network's name, and its layers.
    """
    shown = axis.imshow(values, origin="lower", vmin=0, vmax=1, cmap="magma", aspect="auto")
    axis.set_xticks(range(len(columns[1])), [_short(name) for name in columns[1]], rotation=90, fontsize=7)
    axis.set_yticks(range(len(rows[1])), [_short(name) for name in rows[1]], fontsize=7)
    axis.set(xlabel=columns[0], ylabel=rows[0])
    return shown


def _called(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _draw_best(axis: Any, similarity: Similarity, layers: Sequence[str]) -> None:
    """Of each layer of A the CKA of the most like layer of B, on each half, and where photographs are shuffled."""
    best = np.where(np.isnan(similarity.cka), -np.inf, similarity.cka).argmax(1)
    rows = np.arange(len(best))
    halves = similarity.halves[:, rows, best]
    axis.plot(rows, similarity.cka[rows, best], "o-", label="most like layer of B")
    axis.fill_between(rows, halves.min(0), halves.max(0), alpha=0.3, label="on each half of the photographs")
    axis.plot(rows, similarity.chance[rows, best], "--", color="gray", label="photographs shuffled")
    axis.plot(rows, similarity.chance_highest[rows, best], ":", color="gray", label="the highest of 20 shuffles")
    axis.set(ylabel="CKA", ylim=(-0.1, 1.05), xlabel="layer of A")
    axis.set_xticks(rows, [_short(name) for name in layers], rotation=90, fontsize=7)


def _draw_histogram(axis: Any, matches: Sequence[MatchedLayers]) -> None:
    found = np.concatenate([each.units.correlations for each in matches] or [np.zeros(0)])
    chance = np.concatenate([each.units.chance for each in matches] or [np.zeros(0)])
    axis.hist(found, EDGES, alpha=0.75, label="matched units")
    axis.hist(chance, EDGES, histtype="step", color="black", label="photographs shuffled")
    axis.set(xlabel="correlation of a matched pair", ylabel="pairs", xlim=(-0.3, 1))


def _draw_units(axis: Any, matches: Sequence[MatchedLayers], few: int) -> None:
    rows = [each.summary() for each in matches]
    places = range(len(rows))
    for key, style, label in (
        ("correlation", "o-", "matched one to one: mean correlation"),
        ("correlation_held_out", "^-", "the same on photographs held out"),
        ("friends", "s-", "share that are best friends, beyond chance"),
        ("r2_by_one", "v-", "R² of one unit, held out"),
        ("r2_by_few", "D-", f"R² of up to {few} units, held out"),
    ):
        axis.plot(places, [row[key] for row in rows], style, markersize=4, label=label)
    axis.plot(places, [row["correlation_chance"] for row in rows], "--", color="gray", label="photographs shuffled")
    labels = [f"{_short(row['layer_a'])}\n{_short(row['layer_b'])}" for row in rows]
    axis.set_xticks(places, labels, rotation=90, fontsize=6)
    axis.set(ylim=(min(-0.1, *axis.get_ylim()), 1.05), xlabel="layer of A, and of B")
