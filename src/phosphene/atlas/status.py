"""How far an atlas is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from phosphene.atlas.claims import Claims
from phosphene.atlas.store import Store

_BURST = 1.0  # seconds between two images of one batch, at most


@dataclass(frozen=True)
class Status:
    """How far an atlas is.

    Attributes:
        groups: of each its name, and how many of its images there are, of how many.
        size: bytes of all images and films.
        rate: images an hour, over the last half hour in which some were made; 0 where that is not known yet.
        left: seconds until all are there at that rate; None where nothing is known, 0 where all are.
        last: seconds since the last image.
        claimed: units that runs are making now.
        work: share of the steps of these that is made, as far as runs have told; None where none has.
    """

    groups: list[tuple[str, int, int]]
    size: int
    rate: float
    left: float | None
    last: float | None
    claimed: int = 0
    work: float | None = None

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
    rate = hourly_rate([(row["written"], row["seconds"]) for row in mine], window)
    left = sum(want - have for _, have, want in groups)
    claims = Claims(store)
    done, in_work = claims.work()
    return Status(
        groups,
        sum(row["bytes"] + (row["film_bytes"] or 0) for row in rows),
        rate,
        0.0 if not left else 3600 * left / rate if rate else None,
        time.time() - written[-1] if written else None,
        claims.count(),
        done / in_work if in_work else None,
    )


def hourly_rate(images: Sequence[tuple[float, float]], window: float = 1800.0) -> float:
    """Images an hour over the last `window` seconds in which some were written; 0 where that is not known yet.

    Images of a batch are made together, and written nearly at once.  So what counts is not the time between them: the
    first batch counts from when it was begun, or, where older ones are left out, not at all.

    Args:
        images: of each when it was written, in seconds, and its share of the time that its batch took.
    """
    ordered = sorted(images)
    recent = [image for image in ordered if image[0] > ordered[-1][0] - window]
    if not recent:
        return 0.0
    first = [recent[0]]
    for image in recent[1:]:
        if image[0] - first[-1][0] > _BURST:
            break
        first.append(image)
    if len(recent) < len(ordered):
        count, start = len(recent) - len(first), first[-1][0]
    else:
        count, start = len(recent), first[0][0] - sum(seconds for _, seconds in first)
    span = recent[-1][0] - start
    return 3600 * count / span if count and span > 0 else 0.0
