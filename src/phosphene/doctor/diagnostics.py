"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning"]


@dataclass(frozen=True)
class Diagnostic:
    """One thing found.

    Attributes:
        topic: what it is about, in a word or two.
        level: "ok", "note" (to be known) or "warning" (to be changed).
        text: a sentence.
    """

    topic: str
    level: Level
    text: str
