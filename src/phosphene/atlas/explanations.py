"""Explanations of photographs that an atlas keeps, and the list of them that its page reads.

    explanations/NAME/explain.html      the page of one: it needs nothing else, and leads back to the atlas's page
    explanations/NAME/small.jpg         one of its maps, over the photograph
    explanations/NAME/explanation.json  of what it is, and which hidden units carried that
    explanations/index.js               the list, which is written anew with each explanation and with each page

An atlas may come from anyone, so an explanation is listed only if what it says of itself is of its types and bounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from phosphene.atlas.site_data import rounded, to_script
from phosphene.atlas.storage import map_threaded
from phosphene.atlas.store import Store
from phosphene.errors import InputError, printable

FOLDER = "explanations"
INDEX = f"{FOLDER}/index.js"
PAGE, SMALL, RECORD = "explain.html", "small.jpg", "explanation.json"
MOST = 1000
"""Explanations that a page lists; it reads the list when it opens."""
MOST_CARRIERS = 200
_LARGEST = 256 << 10  # bytes of a record, which has some thousand
_NAME = re.compile(r"[\w.-]{1,120}", re.ASCII)
_STRICT = ConfigDict(strict=True, extra="forbid")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected text without control characters")
    return text


_Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class ListedCarrier:
    """A hidden unit that carried what is explained.

    Attributes:
        unit: as the atlas spells it, where it has it.
        id: of its place on the page.
        share: of its layer's contributions, with its sign.
    """

    unit: _Text
    id: Annotated[str, Field(pattern=r"^unit-[0-9]{1,4}$")]
    share: Annotated[float, Field(ge=-1.001, le=1.001)]


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class ListedExplanation:
    """What the atlas's page says of an explanation.

    Attributes:
        weights: digest of the network's.
        photograph: its file's name.
        unit: that is explained, as the atlas spells it, where it has it.
        label: in words.
        value, probability: the unit's response to the photograph, and of a class its probability.
        carriers: those that its page shows.
    """

    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    photograph: _Text
    unit: _Text
    label: _Text
    value: _Finite | None
    probability: _Share | None
    carriers: Annotated[list[ListedCarrier], Field(max_length=MOST_CARRIERS)]


_RECORDS = TypeAdapter(ListedExplanation)


def add_explanation(store: Store, name: str, explanation: ListedExplanation, files: Mapping[str, bytes]) -> list[str]:
    """Put an explanation into an atlas, in the place of an earlier one of that name, and list it.

    Args:
        files: `PAGE` and `SMALL`.

    Returns:
        Why others are not listed, in sentences.

    Raises:
        InputError: it cannot be written.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise InputError(f"explanation {printable(name)!r}: expected a name of letters, digits, '-', '_' and '.'")
    for file, data in files.items():
        store.write(f"{FOLDER}/{name}/{file}", data)
    record = json.dumps(asdict(explanation), indent=1)
    store.write(f"{FOLDER}/{name}/{RECORD}", record.encode())
    return write_list(store, explanation.weights)


def write_list(store: Store, weights: str) -> list[str]:
    """Write the list of all explanations of a network.

    Args:
        weights: the digest of the network's.

    Returns:
        Why some are not listed, in sentences.

    Raises:
        InputError: it cannot be written.
    """
    names = [name for name in store.names(FOLDER) if not name.startswith(".") and name != INDEX.rpartition("/")[2]]
    found = map_threaded(lambda name: _read(store, name, weights), names[:MOST])
    listed = [[name, *_values(each)] for name, each in zip(names, found, strict=False) if not isinstance(each, str)]
    store.write(INDEX, f"window.ATLAS.explanations = {to_script(listed)};".encode())
    notes = [each for each in found if isinstance(each, str)]
    if len(names) > MOST:
        notes.append(f"of {len(names)} explanations the page lists the first {MOST}")
    return notes


def _read(store: Store, name: str, weights: str) -> ListedExplanation | str:
    """An explanation, or why it is not listed."""
    origin = f"explanation {printable(name)!r}"
    if not _NAME.fullmatch(name):
        return f"{origin} is not listed: expected a name of letters, digits, '-', '_' and '.'"
    if missing := {PAGE, SMALL, RECORD}.difference(store.names(f"{FOLDER}/{name}")):
        return f"{origin} is not listed: it has no {min(missing)}"
    try:
        data = store.read(f"{FOLDER}/{name}/{RECORD}")
        explanation = _RECORDS.validate_json(data if len(data) <= _LARGEST else b"")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        return f"{origin} is not listed: its {RECORD} is damaged: {printable(place, 100)}: {first['msg']}"
    except (InputError, OSError) as error:
        return f"{origin} is not listed: its {RECORD} cannot be read: {printable(error)}"
    if explanation.weights != weights:
        return f"{origin} is not listed: it is of other weights than the atlas"
    return explanation


def _values(found: ListedExplanation) -> list[Any]:
    """What the page knows of an explanation, behind its name."""
    carriers = [[each.unit, each.id, rounded(each.share)] for each in found.carriers]
    return [found.photograph, found.unit, found.label, rounded(found.value), rounded(found.probability), carriers]
