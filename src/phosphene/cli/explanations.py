"""The table of what pictures of hidden units explain, and of what is measured of the units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from phosphene.cli import printing

_COLUMNS = (
    *("explains", "together", "best photograph", "nine", "path"),
    *("clarity", "redundancy", "polysemantic", "monosemantic", "MIS"),
)


def print_explanations(console: Console, labels: Sequence[str], cards: Sequence[dict[str, Any]]) -> None:
    """Nothing where no card has any of it."""
    rows = [(label, list(_values(card))) for label, card in zip(labels, cards, strict=True)]
    filled = [index for index in range(len(_COLUMNS)) if any(row[index] for _, row in rows)]
    if filled:
        table = printing.plain_table("shows")
        for index in filled:
            table.add_column(_COLUMNS[index], justify="right")
        for label, row in rows:
            table.add_row(escape(label), *(escape(row[index]) for index in filled))
        console.print(table)
        console.print(_legend(cards), soft_wrap=True)
    for text in dict.fromkeys(card["explanation"]["missing"] for card in cards if _missing(card)):
        console.print(f"no explanation score: {escape(text)}", soft_wrap=True)


def _missing(card: dict[str, Any]) -> bool:
    return "missing" in card.get("explanation", {})


def _values(card: dict[str, Any]) -> Iterator[str]:
    explanation = card.get("explanation", {})
    for found in (
        explanation,
        *(explanation.get(key, {}) for key in ("together", "best_photograph", "nine_photographs")),
    ):
        yield printing.share_error_text(found.get("score"), found.get("error"))
    yield f"{card['path_similarity']['mean']:.2f}" if "path_similarity" in card else ""
    scores = card.get("unit_scores", {})
    for name in ("clarity", "redundancy", "polysemanticity", "monosemanticity"):
        yield "" if scores.get(name) is None else f"{scores[name]:.2f}"
    yield f"{scores['mis']['score']:.2f}" if scores.get("mis") else ""


def _legend(cards: Sequence[dict[str, Any]]) -> str:
    scored = [card["explanation"] for card in cards if "score" in card.get("explanation", {})]
    path = "path: 1 where the network goes through the picture as through photographs of its unit, 0 as through any"
    if not scored:
        return path
    judges = ", ".join(dict.fromkeys(name for each in scored for name in each["judges"]))
    units = {each["other_units"] for each in scored}
    alone = "; a unit judged without others of its layer is judged less sharply" if 0 in units else ""
    return (
        f"explains: how often the picture tells {judges} which of two photographs excites the unit more (chance 0.50, "
        f"{scored[0]['photographs']} photographs{alone}); beside it the same of the photograph that excites the unit "
        f"most, and of nine\n{path}"
    )
