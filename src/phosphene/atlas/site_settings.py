"""What an atlas's page was made with, kept beside the atlas so that it can be made anew without being told again.

An atlas may come from anyone, and the settings name folders, addresses and networks of whoever wrote them.  So they are
read as data within bounds, and what they name is followed only where the user has written the same settings.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from phosphene.atlas.store import Store
from phosphene.errors import InputError, error_text, input_errors_for
from phosphene.files import parse_json
from phosphene.networks import named

FILE = "site.json"
_FORMAT = 1
_LARGEST = 64 << 10  # characters of the file, which has a few hundred


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected text without control characters")
    return text


def _web_address(text: str) -> str:
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("expected an address that begins with https://")
    return text


_Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class SiteSettings:
    """The options of `phosphene atlas site`, as they are spelled; empty where one is not given."""

    photographs: _Text = ""
    judges: _Text = ""
    beside: _Text = ""
    match: _Text = ""
    plain: bool = False
    title: Annotated[_Text, Field(max_length=200)] = ""
    url: Annotated[_Text, Field(max_length=1000), AfterValidator(_web_address)] = ""

    @property
    def options(self) -> dict[str, Any]:
        """Those that are given."""
        return {name: value for name, value in vars(self).items() if name in SETTINGS and value}

    @property
    def followed(self) -> list[str]:
        """Which of the given ones name something that is read, or asked for."""
        return [name for name in ("photographs", "judges", "beside", "match") if getattr(self, name)]


SETTINGS = ("photographs", "judges", "beside", "match", "plain", "title", "url")


def make_settings(values: dict[str, Any], origin: str) -> SiteSettings:
    """Raises an `InputError` if one is not of its type, or out of bounds."""
    try:
        return SiteSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{origin}: {where[:100]}: {first['msg']}") from None
    except TypeError as error:
        raise InputError(f"{origin}: {error_text(error)}") from None


def read_settings(store: Store) -> tuple[SiteSettings, bool]:
    """What the page was made with last, and whether the user has written that; none where it never was.

    Raises:
        InputError: the file is damaged, or no file of such settings.
    """
    origin = f"{FILE} of {store.place!r}"
    try:
        data = store.read(FILE)
    except (FileNotFoundError, NotADirectoryError):
        return SiteSettings(), True
    except OSError as error:
        raise InputError(f"{origin} cannot be read: {error.strerror or error}") from error
    with input_errors_for(origin, "text in UTF-8"):
        text = data.decode()
    told = parse_json(text, origin, _LARGEST)
    if not isinstance(told, dict) or told.pop("format", None) != _FORMAT:
        raise InputError(f"{origin} is none of this version: expected one that `phosphene atlas site` wrote")
    return make_settings(told, origin), named.has_written(data)


def write_settings(store: Store, settings: SiteSettings) -> None:
    """Raises an `InputError` if they cannot be written."""
    data = json.dumps({"format": _FORMAT} | settings.options, indent=1).encode()
    named.remember_written(data)
    store.write(FILE, data)
