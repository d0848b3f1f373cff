"""Fields of recipes as plain data: by dotted names, of one table laid over another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phosphene.errors import InputError
from phosphene.files import parse_toml

OFF: tuple[Any, ...] = ("off", False, 0, None)
"""What turns off a section that can be off."""

_WHOLE = ("options", "hidden", "networks")  # tables that are fields themselves


def toml_value(text: str) -> Any:
    """A value as TOML spells it, or else the text as it is: `3`, `[0.9, 0.99]`, `true`, `cosine`."""
    try:
        return parse_toml(f"value = {text}", "value")["value"]
    except InputError:
        return text


def overlap(field: str, other: str) -> bool:
    """Whether one of two dotted names is the other, or a section that has it."""
    return f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}.")


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a recipe as plain data, by dotted names."""
    for name, value in data.items():
        if isinstance(value, dict) and name not in _WHOLE:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A table laid over another: tables within are merged by field, and one that is "off" is left out."""
    found = {name: value for name, value in base.items() if name not in own}
    for name, value in own.items():
        below = base.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            found[name] = merged(below, value)
        elif not (isinstance(below, dict) and value == "off"):
            found[name] = value
    return found
