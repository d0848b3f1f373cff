"""Where the workers of a Ray cluster write how far they are, and their driver reads it.

It is an actor of its own, since a worker's answers nothing while it makes a piece.  It imports nothing slow.
"""

from __future__ import annotations

from collections.abc import Iterable

Key = tuple[str, int]
"""A piece's group and its first index."""


class ProgressBoard:
    """How far pieces are: of each how many images its steps amount to, and of how many."""

    def __init__(self) -> None:
        self.pieces: dict[Key, tuple[float, int]] = {}

    def put(self, piece: Key, images: float, total: int) -> None:
        self.pieces[piece] = images, total

    def read(self, pieces: Iterable[Key]) -> dict[Key, tuple[float, int]]:
        """What is known of these pieces; all others have ended, and are forgotten."""
        self.pieces = {piece: self.pieces[piece] for piece in pieces if piece in self.pieces}
        return self.pieces
