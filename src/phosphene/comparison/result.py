"""What a comparison of two networks found: arrays, plain data and a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from phosphene.comparison.figure import draw_comparison
from phosphene.comparison.match_file import JSON_KIND
from phosphene.comparison.matched_layers import EDGES, ComparedNetwork, MatchedLayers
from phosphene.comparison.similarity import Similarity
from phosphene.files import atomic_write, make_directory
from phosphene.versions import package_version


@dataclass(frozen=True, eq=False)
class NetworkComparison:
    """What two networks share.

    Attributes:
        a, b: the networks.
        photographs: the files, in the order in which they went through; `Peaks.photographs` are places in it.
        unreadable: how many of them were passed over.
        similarity: the CKA of A's layers with B's.
        within: that of A's layers with each other, and of B's.
        matches: the layers whose units were matched, in A's order.
        settings: how it was done.
        notes: what is to be known, in sentences.
    """

    a: ComparedNetwork
    b: ComparedNetwork
    photographs: tuple[Path, ...] = field(repr=False)
    unreadable: int
    similarity: Similarity = field(repr=False)
    within: tuple[Similarity, Similarity] = field(repr=False)
    matches: tuple[MatchedLayers, ...] = field(repr=False)
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def match(self, layer: str) -> MatchedLayers:
        """That of a layer of A; raises a `KeyError` if it was not matched."""
        return {each.a: each for each in reversed(self.matches)}[layer]

    def best_layers(self) -> list[tuple[str, str, float]]:
        """For each layer of A the most like layer of B, and their CKA; layers that have none are left out."""
        return [
            (layer, self.b.layers[int(np.nanargmax(row))], float(np.nanmax(row)))
            for layer, row in zip(self.a.layers, self.similarity.cka, strict=True)
            if np.isfinite(row).any()
        ]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON holds them; what is not a number is null."""
        cka = {"a_b": self.similarity, "a_a": self.within[0], "b_b": self.within[1]}
        return {
            "phosphene": JSON_KIND,
            "version": package_version(),
            "a": vars(self.a) | {"layers": list(self.a.layers)},
            "b": vars(self.b) | {"layers": list(self.b.layers)},
            "photographs": len(self.photographs) - self.unreadable,
            "unreadable": self.unreadable,
            "settings": self.settings,
            "notes": list(self.notes),
            "cka": {name: {key: _plain(value) for key, value in vars(each).items()} for name, each in cka.items()},
            "matches": [_match_data(each) for each in self.matches],
        }

    def draw(self, path: Path | IO[bytes]) -> None:
        """Write the figure, a PNG: see `comparison.figure`."""
        count = len(self.photographs) - self.unreadable
        similarities = self.similarity, *self.within
        draw_comparison((self.a, self.b), similarities, self.matches, count, self.settings["few"], path)

    def save(self, directory: str | Path = "phosphene-out") -> list[Path]:
        """Write `compare.json` and `compare.png` into a directory, which is made if needed; returns the files.

        Raises:
            InputError: the directory cannot be made or written.
        """
        folder = make_directory(Path(directory))
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        return [
            atomic_write(folder / "compare.json", lambda path: path.write_text(text, encoding="utf-8")),
            atomic_write(folder / "compare.png", self.draw),
        ]


def _match_data(match: MatchedLayers) -> dict[str, Any]:
    units = match.units
    few = units.few
    return {
        **{key: _plain(value) for key, value in match.summary().items()},
        "dead": [each.tolist() for each in units.dead],
        "pairs": _with_values(units.pairs, units.correlations),
        "chance": _plain(units.chance),
        "friend_pairs": units.friends.tolist(),
        "friends_threshold": _plain(units.friends_threshold),
        "best": _plain(units.best[0]),
        "best_chance": _plain(units.best[1]),
        "histogram": {
            "edges": _plain(EDGES),
            "pairs": np.histogram(units.correlations, EDGES)[0].tolist(),
            "chance": np.histogram(units.chance, EDGES)[0].tolist(),
        },
        "few": {
            "units": few.units.tolist(),
            "sources": [[each for each in row if each >= 0] for row in few.sources.tolist()],
            "by_one": _plain(few.by_one),
            "by_few": _plain(few.by_few),
        },
    }


def _with_values(pairs: NDArray[np.int64], values: NDArray[np.float64]) -> list[list[Any]]:
    return [[*pair, _plain(value)] for pair, value in zip(pairs.tolist(), values.tolist(), strict=True)]


def _plain(value: Any) -> Any:
    """Numbers to five digits; those that are none are null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
