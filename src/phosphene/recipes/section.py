"""A section of a recipe: frozen and validated, with errors that say what was given, what was expected, what is near."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from phosphene.errors import InputError, did_you_mean, printable

_MAX_PROBLEMS = 4  # problems that are said at once


class Section(BaseModel):
    """What all sections have.  One that is made with what it cannot have raises an `InputError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    subject: ClassVar[str] = "it"  # what messages call it behind its name

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as errors:
            raise InputError(f"{type(self).__name__}: {problems(errors, type(self))}") from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # sections within another are made without it


Field = tuple[str, str, str, str]
"""Of a field its dotted name, its default, its range and what it means."""


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[Field]:
    """Every field of a section, and of those within it; those without a description are none of a file."""
    for name, info in section.model_fields.items():
        inner = section_type(info.annotation)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")
        elif info.description:
            default = None if info.is_required() else info.get_default(call_default_factory=True)
            yield f"{prefix}{name}", "" if default is None else str(default), _range(info), info.description


def section_type(annotation: Any) -> type[Section] | None:
    """The section that a field is, if it is one."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _range(info: Any) -> str:
    choices = getattr(info.annotation, "__args__", ())
    if choices and all(isinstance(choice, str | int) for choice in choices):
        return " or ".join(filter(None, [", ".join(map(str, choices[:-1])), str(choices[-1])]))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [(key, getattr(entry, key)) for entry in info.metadata for key in words if hasattr(entry, key)]
    return " and ".join(f"{words[key]} {value:g}" for key, value in limits)


@lru_cache
def _ranges(section: type[Section]) -> dict[str, str]:
    return {name: limits for name, _, limits, _ in fields(section)}


def problems(errors: ValidationError, section: type[Section]) -> str:
    """What is wrong with a section's values, as one sentence."""
    several = errors.errors(include_url=False)
    more = f"; and {len(several) - _MAX_PROBLEMS:,} more" if len(several) > _MAX_PROBLEMS else ""
    return f"{'; '.join(_problem(error, section) for error in several[:_MAX_PROBLEMS])}{more}"


def _problem(error: Any, section: type[Section]) -> str:
    field = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] == "extra_forbidden":
        return unknown_field(field, section)
    if error["type"] == "missing":
        return f"{field} is missing"
    allowed = _ranges(section).get(field, "")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{field} = {printable(repr(error['input']))}: {f'expected {allowed}' if allowed else message}"


def unknown_field(field: str, section: type[Section]) -> str:
    """That a section has no such field, and which are near."""
    near = did_you_mean(field, _ranges(section)) or "; see `phosphene recipes --fields`"
    return f"{section.subject} has no field {field!r}{near}"
