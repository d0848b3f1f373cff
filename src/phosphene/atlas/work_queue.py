"""The pieces that a run has yet to make; each is claimed before it goes out, so that several runs share the work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from phosphene.atlas.claims import Claims
from phosphene.atlas.missing import WorkItem, missing_work
from phosphene.atlas.plan import CLASSES, AtlasPlan
from phosphene.atlas.store import Store

LOOK_EVERY = 1.0
"""Seconds between two looks at the units that other runs make, where nothing else is left."""


class WorkQueue:
    """The pieces that a run has yet to make, and what others are making meanwhile.

    Args:
        store: of the atlas.
        plan: its plan.
        pieces: all that it lacks.
        claims: of this run.
    """

    def __init__(self, store: Store, plan: AtlasPlan, pieces: Sequence[WorkItem], claims: Claims):
        self.store, self.plan, self.claims = store, plan, claims
        self.left = deque(pieces)
        self.busy: dict[str, set[int]] = {}  # by group: the units that other runs have claimed
        self.looked = time.monotonic()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left, neither to this run nor to others."""
        return not self.left and not self.busy

    def claim_next(self) -> WorkItem | None:
        """A piece whose units are this run's now; None where all that is left is being made by others."""
        if not self.left and self.busy and time.monotonic() - self.looked >= LOOK_EVERY:
            self.look()
        while self.left:
            piece = self.left.popleft()
            taken = self.claims.take(piece.group, piece.indices)
            others = set(piece.indices).difference(taken)
            if others:
                self.busy.setdefault(piece.group, set()).update(others)
            if taken:
                return WorkItem(piece.group, tuple(taken))
        return None

    def look(self) -> None:
        """Take up what others have claimed no longer, but for what they have made."""
        self.looked = time.monotonic()
        free = self.claims.unclaimed([(group, index) for group, indices in self.busy.items() for index in indices])
        if not free:
            return
        for group, index in free:
            self.busy[group].discard(index)
        self.busy = {group: indices for group, indices in self.busy.items() if indices}
        self.left.extend(missing_work(self.plan, self.store.rows(), set(free)))

    def again(self, piece: WorkItem) -> None:
        """A piece whose worker was lost is next."""
        self.left.appendleft(piece)

    def mark_failed(self, piece: WorkItem, why: str, failed: dict[str, str]) -> None:
        """Of several units each is tried alone; a single one is given up, and noted with the reason."""
        if len(piece.indices) > 1:
            self.left.extend(WorkItem(piece.group, (index,)) for index in piece.indices)
        else:
            prefix = "class" if piece.group == CLASSES else piece.group
            failed[f"{prefix}:{piece.indices[0]}"] = why
            self.mark_done(piece)

    def mark_done(self, piece: WorkItem) -> None:
        self.claims.release([(piece.group, index) for index in piece.indices])
