"""One sentence on a network's depth, from its rows."""

from __future__ import annotations

from collections.abc import Sequence

from phosphene.comparison.depth_rows import DepthRow

SHARE = 0.95
LEAST_READ = 0.1
"""Of the variance of the logits; where less is read, nothing is said of where."""


def summarize(rows: Sequence[DepthRow], photographs: int) -> str:
    """Where most of what can be read of the output is there, and what lies behind."""
    if any(row.r2 is None for row in rows):
        return _without_logits(rows)
    read = [row.r2 or 0.0 for row in rows]
    best = max(range(len(rows)), key=read.__getitem__)
    if read[best] < LEAST_READ:
        return (
            f"No layer lets a ridge read more than {max(0.0, read[best]):.0%} of the logits' variance: {photographs} "
            "photographs are too few to say where the output can be read."
        )
    start = len(rows)
    while start and read[start - 1] >= SHARE * read[best]:
        start -= 1
    most = f"the most that a ridge reads on held-out photographs (R² {read[best]:.2f}, at {rows[best].layer})"
    if start == len(rows):
        return (
            f"No layer from which on {SHARE:.0%} can be read of {most}: at the last one, {rows[-1].layer}, it is "
            f"R² {read[-1]:.2f}."
        )
    where = f"From {rows[start].layer} on," if start else f"Already at {rows[0].layer}, the first of these layers,"
    if start == len(rows) - 1:
        where = f"Not before {rows[start].layer}, the last of these layers,"
    return f"{where} {SHARE:.0%} can be read of {most}; {_behind(rows[start], rows[best])}"


def _behind(row: DepthRow, best: DepthRow) -> str:
    time = "" if row.time_share is None else f" and {1 - row.time_share:.0%} of the time"
    gain = ""
    if row != best:
        gain = (
            f", which add {(best.r2 or 0) - (row.r2 or 0):.2f} to R², and take how often the network's own first class "
            f"is read from {row.top1:.0%} to {best.top1:.0%}"
        )
    return (
        f"behind it lie {1 - row.parameter_share:.0%} of the parameters{time}{gain}. That it can be read "
        "does not say that what lies behind is not needed: only a cut tells."
    )


def _without_logits(rows: Sequence[DepthRow]) -> str:
    known = [row for row in rows[1:] if row.cka_before is not None]
    if not known:
        return "There are no logits to read, and the layers do not differ between these photographs."
    least = min(known, key=lambda row: row.cka_before or 0.0)
    return (
        "There are no logits to read; from one of these layers to the next the most changes at "
        f"{least.layer} (CKA {least.cka_before:.2f} with the layer before)."
    )
