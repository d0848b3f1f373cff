"""The one error of this package that a user can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given cannot be used.  Its text is one sentence: what was given, what was expected, what is near."""


def nearest(word: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The `count` choices spelled most like the word, most alike first, whatever the case."""
    spelled = {choice.casefold(): choice for choice in choices}
    return [spelled[match] for match in difflib.get_close_matches(word.casefold(), spelled, n=count, cutoff=0.4)]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`"; did you mean a, b or c?"`, or nothing where no choice is near."""
    near = nearest(word, choices)
    if not near:
        return ""
    return "; did you mean " + " or ".join(filter(None, [", ".join(near[:-1]), near[-1]])) + "?"
