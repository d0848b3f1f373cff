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
    lines += _photograph_lines(scores)
    for name, answer in scores.get("judges", {}).items():
        first = ", its first guess" if answer["top1"] else ", among its first five" if answer["top5"] else ""
        lines.append((name, f"{answer['probability']:.1%}{first}", "its probability of the class; it took no part"))
    return lines


def _photograph_lines(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of the scores that compare with photographs: see `judges.card`."""
    lines = []
    if scores.get("percentile") is not None:
        lines.append(("percentile", f"{scores['percentile']:.0f}", "of the unit's activation among the photographs'"))
    path = scores.get("path_similarity") or {}
    if path.get("mean") is not None:
        meaning = "how far it goes through the network as the unit's photographs do: 1 as these, 0 as any"
        lines.append(("path similarity", f"{path['mean']:.2f}", meaning))
    explanation = scores.get("explanation") or {}
    if explanation.get("score") is not None:
        value = f"{explanation['score']:.0%} ± {explanation['error']:.0%}"
        meaning = f"pairs of photographs whose stronger one it tells; {explanation['chance']:.0%} is chance"
        lines.append(("explains the unit", value, meaning))
    elif explanation.get("missing"):
        lines.append(("explains the unit", "not known", str(explanation["missing"])))
    if scores.get("nearest"):
        near = scores["nearest"]
        lines.append(("nearest photograph", f"{near['distance']:.2f}", f"{near['photograph']}, by {near['judge']}"))
    return lines
