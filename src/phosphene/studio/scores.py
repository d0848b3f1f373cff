"""What came of a run, and its score card, in words."""

from __future__ import annotations

from typing import Any

from phosphene.studio.messages import ImageFinished


def describe_outcome(picture: ImageFinished | None) -> str:
    """What came of the last run, if there was one."""
    if picture is None:
        return "ready"
    count = len(picture.changes)
    changed = f"; {count} change{'s' * (count != 1)} on the way, kept in its file" if count else ""
    return f"{picture.label}: {picture.steps} steps, {picture.stopped}, {picture.seconds:.0f} s{changed}"


def score_lines(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of each score what it is, how much, and what it means."""
    lines = []
    if scores.get("probability") is not None:
        lines.append(("own probability", f"{scores['probability']:.1%}", "the network's own, of the class"))
    elif scores.get("objective") is not None:
        lines.append(("objective", f"{scores['objective']:.4g}", "what was maximized"))
    if scores.get("robustness") is not None:
        lines.append(("robustness", f"{scores['robustness']:.0%}", scores["robustness_rule"]))
    if "selectivity" in scores:
        rank = scores["selectivity"]
        lines.append(("rank", f"{rank['rank']} of {rank['of']}", "among the layer's channels, on this image"))
    if scores.get("slope") is not None:
        near = f"of the power over frequency; photographs have about {scores['photographs_slope']:.1f}"
        lines.append(("slope of the spectrum", f"{scores['slope']:.2f}", near))
    for name, answer in scores.get("judges", {}).items():
        first = ", its first guess" if answer["top1"] else ", among its first five" if answer["top5"] else ""
        lines.append((name, f"{answer['probability']:.1%}{first}", "its probability of the class; it took no part"))
    return lines
