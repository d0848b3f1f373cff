"""What an atlas lacks, in pieces that go out together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from phosphene.ascent.preparation import LARGEST_BATCH
from phosphene.atlas.plan import AtlasPlan
from phosphene.atlas.rows import IndexRow, key


@dataclass(frozen=True)
class WorkItem:
    """Units of one group that go out together."""

    group: str
    indices: tuple[int, ...]


def missing_work(
    plan: AtlasPlan, rows: Sequence[IndexRow], among: Collection[tuple[str, int]] | None = None
) -> list[WorkItem]:
    """The units without images by the plan's recipe and weights, in pieces of one batch.

    Args:
        among: only of these, each a group's name and an index.
    """
    there = {key(row): (row["recipe"], row["weights"]) for row in rows}
    pieces = []
    size = max(1, LARGEST_BATCH // plan.facets)
    for group in plan.groups:
        wanted = (group.digest, plan.weights)
        lacks = [
            index
            for index in group.indices
            if (among is None or (group.name, index) in among)
            and any(there.get((group.name, index, facet)) != wanted for facet in range(plan.facets))
        ]
        pieces += [WorkItem(group.name, tuple(lacks[first : first + size])) for first in range(0, len(lacks), size)]
    return pieces
