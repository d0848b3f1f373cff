"""The one error of this package that a user can cause, and how text from elsewhere is shown."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_LONGEST = 1000  # characters of an error's text; what is quoted from a file may have any number


class InputError(ValueError):
    """Something given cannot be used.  Its text is one sentence: what was given, what was expected, what is near."""

    def __init__(self, text: str = ""):
        super().__init__(printable(text, _LONGEST))

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show: the sentence, not the frames that it came through."""
        return [f"{type(self).__name__}: {self}"]


def printable(text: object, limit: int = 200) -> str:
    """Text from elsewhere as it can be shown on a terminal: without control characters, and no longer than `limit`.

    A terminal obeys control characters, and some reverse the direction of the text around them; each is shown by its
    escape sequence.  Line breaks stay.  What is too long loses its middle.
    """
    shown = str(text)
    if len(shown) > limit:
        head = limit * 2 // 3
        shown = f"{shown[:head]} … {shown[len(shown) - (limit - head - 3) :]}"
    return "".join(letter if _harmless(letter) else letter.encode("unicode_escape").decode() for letter in shown)


def _harmless(letter: str) -> bool:
    return letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


@contextmanager
def input_errors_for(origin: str, expected: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged or hostile file into an `InputError`.

    Libraries raise errors of any kind on a file that is not what they take it for, so any is caught; one that is an
    `InputError` already passes as it is.

    Args:
        origin: what is read, for the message: "weights file 'net.pth'".
        expected: what it should have been: "a state dictionary".

    Example:
        >>> with refusing("table 'a.csv'", "a file and a label a line"):
        ...     raise KeyError("x")
        Traceback (most recent call last):
        ...
        phosphene.errors.InputError: table 'a.csv' cannot be read (KeyError: 'x'): expected a file and a label a line
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{origin}: there is no such file") from None
    except Exception as error:
        raise InputError(f"{origin} cannot be read ({error_text(error)}): expected {expected}") from error


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text, shortened, or its kind where it has no text."""
    lines = str(error).strip().splitlines()
    return printable(lines[0] if lines else type(error).__name__, limit)


def error_text(error: BaseException) -> str:
    """The kind of an error and the first line of its text, shortened."""
    lines = str(error).strip().splitlines()
    return printable(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def nearest(word: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The `count` choices spelled most like the word, most alike first, whatever the case."""
    if len(word) > _LONGEST:  # what takes the square of its length is not asked of any
        return []
    spelled = {choice.casefold(): choice for choice in choices}
    return [spelled[match] for match in difflib.get_close_matches(word.casefold(), spelled, n=count, cutoff=0.4)]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`"; did you mean a, b or c?"`, or nothing where no choice is near."""
    near = nearest(word, choices)
    if not near:
        return ""
    return "; did you mean " + " or ".join(filter(None, [", ".join(near[:-1]), near[-1]])) + "?"


def join_names(names: Sequence[str], most: int = 5) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
