"""How far an atlas is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from phosphene.atlas.claims import Claims
from phosphene.atlas.store import Store


@dataclass(frozen=True)
class Status:
    """How far an atlas is.

    Attributes:
        groups: of each its name, and how many of its images there are, of how many.
        size: bytes of all images and films.
        rate: images an hour, over the last half hour in which some were made; 0 where none were.
        left: seconds until all are there at that rate; None where nothing is known, 0 where all are.
        last: seconds since the last image.
        claimed: units that runs are making now.
    """

    groups: list[tuple[str, int, int]]
    size: int
    rate: float
    left: float | None
    last: float | None
    claimed: int = 0

    @property
    def image_count(self) -> int:
        return sum(have for _, have, _ in self.groups)

    @property
    def count(self) -> int:
        return sum(want for _, _, want in self.groups)


def status(place: str, window: float = 1800.0) -> Status:
    """How far an atlas is; from any process, while it is made.

    Raises:
        InputError: there is no atlas.
    """
    store = Store(place)
    plan = store.plan()
    rows = store.rows()
    there: dict[tuple[str, str, str], int] = {}
    wanted = {group.name: set(group.indices) for group in plan.groups}
    mine = [row for row in rows if row["index"] in wanted.get(row["group"], ()) and row["facet"] < plan.facets]
    for row in mine:
        kind = (row["group"], row["recipe"], row["weights"])
        there[kind] = there.get(kind, 0) + 1
    groups = [
        (group.name, there.get((group.name, group.digest, plan.weights), 0), len(group.indices) * plan.facets)
        for group in plan.groups
    ]
    written = sorted(row["written"] for row in mine)
    rate = 0.0
    if len(written) > 1:
        recent = [moment for moment in written if moment > written[-1] - window]
        # The first of them was begun before it was written.
        span = recent[-1] - recent[0]
        rate = 3600 * (len(recent) - 1) / span if span > 0 else 0.0
    left = sum(want - have for _, have, want in groups)
    return Status(
        groups,
        sum(row["bytes"] + (row["film_bytes"] or 0) for row in rows),
        rate,
        0.0 if not left else 3600 * left / rate if rate else None,
        time.time() - written[-1] if written else None,
        Claims(store).count(),
    )
