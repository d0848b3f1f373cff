"""Caffe's text files, `.prototxt`: protobuf's text format, as nested messages of named values.

Source: protobuf's text format language specification, less what no prototxt has (extensions, `Any`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from phosphene.errors import InputError, did_you_mean
from phosphene.files import read_bytes

MAX_BYTES = 4 << 20  # the largest of known networks is a tenth of it
MAX_DEPTH = 16
LARGEST = 2**31 - 1


class Message:
    """A message: its fields by name, each a list of values, since any may be repeated.

    What is asked for is checked, and what is never asked for can be refused (`refuse_unread`): a setting that this
    reader does not know must not be passed over.

    Attributes:
        where: what errors call it.
    """

    def __init__(self, where: str):
        self.where = where
        self._values: dict[str, list[Value]] = {}
        self._read: set[str] = set()

    def add(self, name: str, value: Value) -> None:
        self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def integer(self, name: str, default: int, low: int = 0, high: int = LARGEST) -> int:
        value = self._one(name)
        return default if value is None else self._integer(name, value, low, high)

    def integers(self, name: str, low: int = 0, high: int = LARGEST) -> list[int]:
        return [self._integer(name, value, low, high) for value in self._all(name)]

    def number(self, name: str, default: float) -> float:
        value = self._one(name)
        return default if value is None else self._number(name, value)

    def numbers(self, name: str) -> list[float]:
        return [self._number(name, value) for value in self._all(name)]

    def flag(self, name: str, default: bool) -> bool:
        value = self._one(name)
        if value is None:
            return default
        if value not in _FLAGS:
            raise self.wrong(name, value, "true or false")
        return _FLAGS[value]

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of some words; a number counts in them, as in protobuf's enumerations."""
        value = self._one(name)
        if value is None:
            return default
        if isinstance(value, int) and 0 <= value < len(choices):
            return choices[value]
        if value not in choices:
            raise self.wrong(name, value, " or ".join(choices))
        return str(value)

    def text(self, name: str) -> str:
        """The text, or "" where there is none."""
        value = self._one(name)
        return "" if value is None else self._text(name, value)

    def texts(self, name: str) -> list[str]:
        return [self._text(name, value) for value in self._all(name)]

    def messages(self, name: str) -> list[Message]:
        found = []
        for value in self._all(name):
            if not isinstance(value, Message):
                raise self.wrong(name, value, "a message in braces")
            found.append(value)
        return found

    def message(self, name: str) -> Message:
        """The message, an empty one where there is none; its errors speak of this one."""
        found = self.messages(name)
        if len(found) > 1:
            raise InputError(f"{self.where}: {name} is given {len(found)} times")
        message = found[0] if found else Message(self.where)
        message.where = self.where
        return message

    def refuse_unread(self, ignored: Sequence[str] = ()) -> None:
        """Refuse fields that nobody asked for and that are not known to be of no consequence."""
        for name in self._values:
            if name not in self._read and name not in ignored:
                raise InputError(f"{self.where}: the setting {shown(name)} is not known{near(name, self._read)}")

    def names(self) -> list[str]:
        return list(self._values)

    def wrong(self, name: str, value: object, expected: str) -> InputError:
        what = "a message" if isinstance(value, Message) else shown(value)
        return InputError(f"{self.where}: {name} is {what}: expected {expected}")

    def _all(self, name: str) -> list[Value]:
        self._read.add(name)
        return self._values.get(name, [])

    def _one(self, name: str) -> Value | None:
        values = self._all(name)
        if len(values) > 1:
            raise InputError(f"{self.where}: {name} is given {len(values)} times")
        return values[0] if values else None

    def _integer(self, name: str, value: Value, low: int, high: int) -> int:
        if not isinstance(value, int) or not low <= value <= high:
            limits = f"of {low} to {high}" if high < LARGEST else f"of {low} or more"
            raise self.wrong(name, value, f"a whole number {limits}")
        return value

    def _number(self, name: str, value: Value) -> float:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, value, "a number")
        return float(value)

    def _text(self, name: str, value: Value) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, value, "a text")
        return value


Value = int | float | str | Message

_FLAGS: dict[Value, bool] = {"true": True, "True": True, "t": True, 1: True}
_FLAGS |= {"false": False, "False": False, "f": False, 0: False}


def shown(value: object, most: int = 60) -> str:
    """A value of a file in one line, not too long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def near(word: str, names: Iterable[str]) -> str:
    """`did_you_mean`, with names from a file: of those that can be shown, and not of very many."""
    names = (name for name in names if len(name) <= 60 and name.isprintable())
    return did_you_mean(word, itertools.islice(names, 1000)) if len(word) <= 60 else ""


def read_prototxt(path: Path) -> Message:
    """A prototxt file.

    Raises:
        InputError: there is no such file, it is too large, or its syntax is wrong (with the line).
    """
    data = read_bytes(path, f"prototxt {str(path)!r}", MAX_BYTES)
    # Comments may be in any encoding; names that matter must fit those in the weights anyhow.
    return parse(data.decode("utf-8-sig", errors="replace"), f"prototxt {str(path)!r}")


def parse(text: str, where: str) -> Message:
    """A text as a message; `where` is what errors call it.

    Raises:
        InputError: its syntax is wrong (with the line).
    """
    tokens = _Tokens(text, where)
    message = Message(where)
    _fill(message, tokens, closing="", depth=0)
    return message


class _Token(NamedTuple):
    kind: str  # "word", "number", "string", "mark", or "end"
    text: str
    line: int


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?|inf\b|nan\b))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<mark>[{}<>\[\]:;,])""",
    re.VERBOSE,
)


class _Tokens:
    """The tokens of a text, one of them in sight."""

    def __init__(self, text: str, where: str):
        self.where = where
        self._tokens = self._scan(text)
        self.next = next(self._tokens)

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self.next = next(self._tokens)
        return token

    def took(self, marks: str) -> bool:
        """Whether the next token is one of these marks; it is taken then."""
        if self.next.kind == "mark" and self.next.text in marks:
            self.take()
            return True
        return False

    def unexpected(self, token: _Token, expected: str) -> InputError:
        found = "the end" if token.kind == "end" else shown(token.text)
        return InputError(f"{self.where}, line {token.line}: expected {expected}, found {found}")

    def _scan(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise InputError(f"{self.where}, line {line}: {shown(text[at])} has no meaning in a prototxt")
            kind = str(match.lastgroup)
            if kind != "space":
                yield _Token(kind, match[0], line)
            line += match[0].count("\n")
            at = match.end()
        yield _Token("end", "", line)


def _fill(message: Message, tokens: _Tokens, closing: str, depth: int) -> None:
    """Read fields into a message up to the closing mark, or to the end."""
    if depth > MAX_DEPTH:
        raise InputError(f"{tokens.where}, line {tokens.next.line}: messages are nested over {MAX_DEPTH} deep")
    while not (tokens.took(closing) if closing else tokens.next.kind == "end"):
        name = tokens.take()
        if name.kind != "word":
            raise tokens.unexpected(name, f"a field's name or {closing!r}" if closing else "a field's name")
        colon = tokens.took(":")
        if not colon and not (tokens.next.kind == "mark" and tokens.next.text in "{<"):
            raise tokens.unexpected(tokens.next, f"':' or '{{' after {shown(name.text)}")
        if tokens.took("["):
            while not tokens.took("]"):
                message.add(name.text, _value(tokens, depth))
                if not tokens.took(",") and tokens.next.text != "]":
                    raise tokens.unexpected(tokens.next, "',' or ']'")
        else:
            message.add(name.text, _value(tokens, depth))
        tokens.took(",;")


def _value(tokens: _Tokens, depth: int) -> Value:
    token = tokens.take()
    if token.kind == "mark" and token.text in "{<":
        message = Message(f"{tokens.where}, line {token.line}")
        _fill(message, tokens, "}" if token.text == "{" else ">", depth + 1)
        return message
    if token.kind == "string":
        parts = [token.text]
        while tokens.next.kind == "string":  # strings side by side are one
            parts.append(tokens.take().text)
        return "".join(_unquoted(part) for part in parts)
    if token.kind == "word":
        return token.text
    if token.kind == "number":
        try:
            return _number(token.text)
        except ValueError:
            raise tokens.unexpected(token, "a number") from None
    raise tokens.unexpected(token, "a value")


def _number(text: str) -> int | float:
    if len(text) > 64:
        raise ValueError("too long")
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if digits[:2] in ("0x", "0X"):
        return sign * int(digits, 16)
    if digits.isdecimal():
        return sign * int(digits, 8 if digits[0] == "0" else 10)
    return sign * float(digits.rstrip("fF") if digits != "inf" else digits)


_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _unquoted(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        octal, hexadecimal, other = match.groups()
        if other is not None:
            return _ESCAPED.get(other, other)
        return chr(int(octal, 8) & 0xFF if octal else int(hexadecimal, 16))

    return _ESCAPE.sub(character, text[1:-1])
