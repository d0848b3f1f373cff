"""The rows of an atlas's index: what each says of an image, and how they are kept and read.

An atlas may come from anyone, so a row is believed only if every value is of its type and range, and its files are
where files of that group, index and facet belong.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes Python's own from 3.12 on

from phosphene.atlas.plan import CLASSES, MOST_INDEX, Name
from phosphene.errors import InputError, input_errors_for, printable
from phosphene.extras import require
from phosphene.judges.word_names import WordName
from phosphene.provenance.records import current_reason

BUCKET = 500

IndexRow = dict[str, Any]
Key = tuple[str, int, int]
"""An image's group, index and facet."""

_WORDS = 1000  # characters of a label or another text that is shown
_POINTS = 40  # of a curve
# A row has a checksum of its own, which no compression makes smaller than its 32 bytes; and the columns of one row hold
# no more than its curve.
_LEAST_ROW = 32
# How much larger a part of an index may be in memory: one of few rows is mostly names of columns.
_EXPANSION = 64


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) <= _WORDS else printable(text, _WORDS)


_Text = Annotated[str, AfterValidator(_shown)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
_Weights = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Path = Annotated[str, Field(max_length=4096)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Place = Annotated[int, Field(ge=0, le=MOST_INDEX)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]  # as rounding leaves it
_Time = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]

# The columns of the index: their types as Arrow names them, and what values they take.
_COLUMNS: dict[str, tuple[str, Any]] = {
    "group": ("string", Name),  # "classes", or the layer
    "index": ("int64", _Place),  # of the class or channel
    "facet": ("int64", _Place),
    "unit": ("string", _Text),
    "label": ("string", _Text),
    "seed": ("int64", Annotated[int, Field(ge=0, lt=2**63)]),
    "recipe": ("string", _Digest),
    "weights": ("string", _Weights),
    "file": ("string", _Path),  # from the atlas's root on
    "bytes": ("int64", _Count),
    "sha256": ("string", _Sha256),
    "steps": ("int64", _Count),
    "stopped": ("string", Annotated[_Text, AfterValidator(current_reason)]),
    "seconds": ("double", _Time),
    "written": ("double", _Time),  # seconds since 1970
    "objective": ("double", float | None),
    "probability": ("double", float | None),
    "judged": ("double", float | None),  # the judges' mean probability of the class
    "top1": ("double", float | None),  # the share of the judges whose first guess it is
    "robustness": ("double", float | None),
    "retained": ("double", float | None),
    "rank": ("int64", _Count | None),  # among the layer's channels, on its own image
    "of": ("int64", _Count | None),
    "slope": ("double", float | None),
    "saturated": ("double", float | None),
    "curve": ("list<double>", Annotated[list[float], Field(max_length=_POINTS)]),  # the objective at some of the steps
    "film": ("string", _Path | None),  # from the atlas's root on; null: none
    "film_bytes": ("int64", _Count | None),
    "film_sha256": ("string", _Sha256 | None),
    "film_frames": ("int64", _Count | None),
    "film_every": ("int64", _Count | None),  # steps between two frames
    # Of hidden units, by photographs and judges; null where there were none (see `judges.card`).
    "explanation": ("double", _Share | None),  # how often the image tells which of two photographs excites the unit
    "explanation_error": ("double", _Share | None),
    "explanation_together": ("double", _Share | None),  # the same of all images of the unit
    "explanation_best": ("double", _Share | None),  # the same of the photograph that excites it most
    "explanation_nine": ("double", _Share | None),  # the same of nine
    "explanation_judges": ("string", _Text | None),  # whose mean that is, by name
    "explanation_photographs": ("int64", _Count | None),  # how many there were
    "path_similarity": ("double", _Finite | None),
    "clarity": ("double", _Cosine | None),
    "redundancy": ("double", _Cosine | None),
    "polysemanticity": ("double", Annotated[float, Field(ge=-0.001, le=2.001)] | None),
    "monosemanticity": ("double", _Cosine | None),
    "mis": ("double", _Share | None),
    # The word that names a hidden unit, "none" where no word does better than by chance; null where none was asked for.
    "word": ("string", _Text | None),
    "word_score": ("double", _Finite | None),  # soft WPMI; null where the unit is the same on all photographs
    "word_margin": ("double", _Finite | None),  # above the next word's
    "word_null": ("double", _Finite | None),  # what the best word's stays below by chance
    "word_by": ("string", _Text | None),  # the network of images and texts
}
COLUMNS: dict[str, str] = {name: kind for name, (kind, _) in _COLUMNS.items()}
WORD_COLUMNS = [name for name in COLUMNS if name.split("_")[0] == "word"]
NO_WORD = "none"
_FILM = [name for name in COLUMNS if name.startswith("film")]

_ROW = TypedDict("_ROW", {name: values for name, (_, values) in _COLUMNS.items()})  # type: ignore[misc]
_ROW.__pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[attr-defined]
_ROWS = TypeAdapter(list[_ROW])


def key(row: IndexRow) -> Key:
    return row["group"], row["index"], row["facet"]


def file_name(group: str, index: int, facet: int) -> str:
    """Where an image is, from the atlas's root on."""
    folder = CLASSES if group == CLASSES else "layer-" + re.sub(r"[^\w.#+-]", "_", group)
    return f"images/{folder}/{index // BUCKET:04d}/{index:05d}{f'_{facet}' if facet else ''}.png"


def film_name(group: str, index: int, facet: int) -> str:
    """Where the film of an image is."""
    return file_name(group, index, facet).removesuffix("png") + "webp"


def files_of(row: IndexRow) -> list[str]:
    """An image's own file, and its film's if it has one."""
    return [row["file"]] if row["film"] is None else [row["file"], row["film"]]


def curve(objectives: Sequence[float]) -> list[float]:
    """The objective at some of the steps, evenly spread."""
    if len(objectives) > _POINTS:
        objectives = [objectives[round(i * (len(objectives) - 1) / (_POINTS - 1))] for i in range(_POINTS)]
    return [float(f"{value:.5g}") for value in objectives if math.isfinite(value)]


def digest(data: bytes) -> str:
    """The checksum of a file, as rows have it."""
    return hashlib.sha256(data).hexdigest()


def explanation_columns(card: Mapping[str, Any]) -> IndexRow:
    """What a row has of a score card's explanation, unit scores and path."""
    explanation, unit = card.get("explanation") or {}, card.get("unit_scores") or {}
    scored = explanation.get("score") is not None
    others = {"together": "together", "best": "best_photograph", "nine": "nine_photographs"}
    return {
        "explanation": explanation.get("score"),
        "explanation_error": explanation.get("error"),
        **{f"explanation_{name}": (explanation.get(given) or {}).get("score") for name, given in others.items()},
        "explanation_judges": ", ".join(explanation.get("judges") or ()) or None,
        "explanation_photographs": explanation.get("photographs") if scored else None,
        "path_similarity": (card.get("path_similarity") or {}).get("mean"),
        **{name: unit.get(name) for name in ("clarity", "redundancy", "polysemanticity", "monosemanticity")},
        "mis": (unit.get("mis") or {}).get("score"),
    }


def word_columns(named: WordName | None, by: str) -> IndexRow:
    """What a row has of the word that names its unit; without one what is known before any was asked for."""
    if named is None:
        return dict.fromkeys(WORD_COLUMNS)
    numbers = {"word_score": named.score, "word_margin": named.margin, "word_null": named.null}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"word": named.word if named.named else NO_WORD, **finite, "word_by": by}


def make_row(name: str, data: bytes, known: dict[str, Any], place: dict[str, Any]) -> IndexRow:
    """The row of an image.

    Args:
        name, data: of its file.
        known: its provenance.
        place: what it says of its place in the atlas.
    """
    scores = known["scores"]
    film = place.get("film", {})
    judged, selectivity = scores.get("judged", {}), scores.get("selectivity", {})
    return {
        "group": place["group"],
        "index": place["index"],
        "facet": place["facet"],
        "unit": known["unit"],
        "label": known["label"],
        "seed": known["seed"],
        "recipe": place["recipe"],
        "weights": known["network"]["weights"],
        "file": name,
        "bytes": len(data),
        "sha256": digest(data),
        "steps": known["steps"],
        "stopped": known["stopped"],
        "seconds": place["seconds"],
        "written": place["written"],
        "objective": scores.get("objective"),
        "probability": scores.get("probability"),
        "judged": judged.get("probability"),
        "top1": judged.get("top1"),
        "robustness": scores.get("robustness"),
        "retained": scores.get("retained"),
        "rank": selectivity.get("rank"),
        "of": selectivity.get("of"),
        "slope": scores.get("slope"),
        "saturated": scores.get("saturated"),
        "curve": place.get("curve", []),
        "film": film_name(place["group"], place["index"], place["facet"]) if film else None,
        "film_bytes": film.get("bytes"),
        "film_sha256": film.get("sha256"),
        "film_frames": film.get("frames"),
        "film_every": film.get("every"),
        **explanation_columns(scores),
        **word_columns(None, ""),
    }


def validate_rows(rows: Sequence[IndexRow], origin: str) -> list[IndexRow]:
    """The rows, if each has what a row has, and its files are in their places.

    Raises:
        InputError: the first fault, in one sentence.
    """
    try:
        valid: list[IndexRow] = _ROWS.validate_python(rows)  # type: ignore[assignment]
    except ValidationError as errors:
        error = errors.errors(include_url=False, include_context=False)[0]
        column = next((part for part in error["loc"] if isinstance(part, str)), "")
        raise InputError(
            f"{origin} has {printable(repr(error['input']), 80)} for {column!r}: {error['msg'][:1].lower()}"
            f"{error['msg'][1:]}"
        ) from None
    for row in valid:
        if row["file"] != (wanted := file_name(*key(row))):
            raise InputError(
                f"{origin} says that {row['group']} {row['index']}, facet {row['facet']}, is in "
                f"{printable(repr(row['file']), 200)}: expected {wanted!r}"
            )
        if (row["explanation"] is None) != (row["explanation_error"] is None):
            raise InputError(f"{origin} has an explanation score of {row['file']} without its error, or an error alone")
        filmed = {row[name] is not None for name in _FILM}
        if len(filmed) > 1 or row["film"] not in (None, film_name(*key(row))):
            raise InputError(
                f"{origin} says that the film of {row['file']} is in {printable(repr(row['film']), 200)}: expected "
                f"{film_name(*key(row))!r} with its bytes, checksum and frames, or none"
            )
    return valid


def pack_rows(rows: Sequence[IndexRow]) -> bytes:
    """Rows as a Parquet file."""
    pa = require("pyarrow", "atlas", "an atlas")
    pq = require("pyarrow.parquet", "atlas", "an atlas")
    types = {"double": pa.float64(), "int64": pa.int64(), "string": pa.string(), "list<double>": pa.list_(pa.float64())}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()


def unpack_rows(data: bytes, origin: str) -> list[IndexRow]:
    """The rows of a Parquet file; columns that an older one lacks are None.

    Raises:
        InputError: it is none of an index, or claims more rows than its bytes can hold.
    """
    pq = require("pyarrow.parquet", "atlas", "an atlas")
    with input_errors_for(origin, "a part of an index, as `phosphene atlas index` makes it again from the images"):
        names = [name for name in pq.read_schema(io.BytesIO(data)).names if name in COLUMNS]
        strings = [name for name in names if COLUMNS[name] == "string"]
        file = pq.ParquetFile(io.BytesIO(data), read_dictionary=strings)
        _check_size(file.metadata, len(data))
        table = file.read(columns=names)
        for name in names:
            _check_column(name, table.column(name))
        rows = [dict.fromkeys(COLUMNS) | row for row in table.to_pylist()]
        try:
            return validate_rows(rows, origin)
        except InputError as error:
            raise InputError(f"{error}; `phosphene atlas index` makes the index again from the images") from None


def _check_size(claimed: Any, size: int) -> None:
    """Raise a `ValueError` if a file of so many bytes cannot hold what it claims: nothing is allocated before."""
    if claimed.num_rows * _LEAST_ROW > size:
        raise ValueError(f"{claimed.num_rows} rows in {size} bytes")
    groups = [claimed.row_group(i) for i in range(claimed.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > _EXPANSION * size:
        raise ValueError(f"{size} bytes that claim to be over {_EXPANSION} times as many")
    if sum(group.num_rows for group in groups) != claimed.num_rows:
        raise ValueError("parts of other numbers of rows than the whole")
    for group in groups:
        if any(group.column(i).num_values > _POINTS * max(1, group.num_rows) for i in range(group.num_columns)):
            raise ValueError("more values than rows")


def _check_column(name: str, column: Any) -> None:
    """Raise a `ValueError` if a column is of another type, or has a text that no row has."""
    kind = str(column.type)
    if COLUMNS[name] == "string":
        if kind not in ("string", "dictionary<values=string, indices=int32, ordered=0>"):
            raise ValueError(f"{name} of type {kind}: expected string")
        compute = require("pyarrow.compute", "atlas", "an atlas")
        for chunk in column.chunks:
            values = getattr(chunk, "dictionary", chunk)
            if (compute.max(compute.binary_length(values)).as_py() or 0) > 4 * 4096:
                raise ValueError(f"a text of over {4 * 4096} bytes for {name}")
    elif kind.replace("list<element: ", "list<").replace("list<item: ", "list<") != COLUMNS[name]:
        raise ValueError(f"{name} of type {kind}: expected {COLUMNS[name]}")
