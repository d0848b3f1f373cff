"""A network's depth, as photographs show it: rows, a matrix, a sentence, and the files of these."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.comparison.depth_cut import Cut
from phosphene.comparison.depth_figure import draw_correlations, draw_depth
from phosphene.comparison.depth_rows import DepthRow
from phosphene.files import atomic_write, make_directory


@dataclass(frozen=True, eq=False)
class DepthReport:
    """A network's depth, as photographs show it.

    Attributes:
        network, weights: its name, and its digest.
        photographs: how many could be read.
        classes: of the logits; 0 without any.
        rows: in the order of calls.
        names: of the rows and columns of `correlations`: the layers, and at last "logits" where there are any.
        correlations: debiased linear CKA of each two, (names, names).
        top1_commonest: the share of photographs whose own first class is the commonest; None without logits.
        label_classes: how many classes the labels have that are probed; 0 without labels.
        labeled: how many photographs have such a label.
        summary: one sentence, from the rows.
        notes: what a reader should know.
        cut: what is lost where the network ends at a layer, if that was asked for.
    """

    network: str
    weights: str
    photographs: int
    classes: int
    rows: list[DepthRow]
    names: list[str]
    correlations: Tensor = field(repr=False)
    top1_commonest: float | None
    label_classes: int
    labeled: int
    summary: str
    notes: list[str]
    cut: Cut | None = None

    @property
    def title(self) -> str:
        """Of its figures."""
        return f"{self.network}, {self.photographs} photographs"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; what is not a number is None."""
        found = {name: value for name, value in vars(self).items() if name not in ("rows", "correlations", "cut")}
        matrix = [[number_or_none(value) for value in row] for row in self.correlations.tolist()]
        cut = None if self.cut is None else self.cut.to_dict()
        return {**found, "rows": [asdict(row) for row in self.rows], "correlations": matrix, "cut": cut}

    def save(self, directory: str | Path) -> list[Path]:
        """Write `depth.json`, `depth.png` and `depth-layers.png`, and the head of a cut as `head.safetensors`.

        Raises:
            InputError: they cannot be written.
        """
        folder = make_directory(Path(directory))
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        written = [
            atomic_write(folder / "depth.json", lambda path: path.write_text(text, encoding="utf-8")),
            atomic_write(folder / "depth.png", lambda path: draw_depth(self.title, self.rows, path)),
            atomic_write(
                folder / "depth-layers.png",
                lambda path: draw_correlations(self.title, self.names, self.correlations, path),
            ),
        ]
        return written if self.cut is None else [*written, self.cut.save_head(folder / "head.safetensors")]


def number_or_none(value: float | Tensor) -> float | None:
    """None of what is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
