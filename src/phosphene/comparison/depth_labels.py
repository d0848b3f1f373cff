"""What photographs show, where somebody says it: by their folders, by a table, or by their names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import is_file, parse_json, read_text

FOLDERS = "folders"
MOST_LABELS = 1000
_MAX_TABLE, _MAX_ROWS = 64 << 20, 500_000

Labels = str | Path | Mapping[str, str] | Sequence[str]


def read_labels(source: Labels, paths: Sequence[Path], names: Sequence[str]) -> list[str | None]:
    """A label for each photograph; None where the source says none.

    Args:
        source: "folders" (each photograph's is the folder that it lies in), a CSV file with columns `file` and `label`
            (its first two where it has no header), a JSON file of an object that gives each file its label, such an
            object, or a label for each photograph, in their order.
        paths: of the photographs.
        names: what to call them: their paths within the folder that was given.

    Raises:
        InputError: the source cannot be read, or knows none of the photographs.
    """
    if isinstance(source, Mapping):
        return _looked_up(source, paths, names, "labels")
    if not isinstance(source, str | Path):
        if len(source) != len(paths):
            raise InputError(f"{len(source)} labels for {len(paths)} photographs: expected one for each")
        return [str(label) for label in source]
    if str(source) == FOLDERS:
        found = [path.parent.name for path in paths]
        if len(set(found)) < 2:
            raise InputError(
                f"labels from folders: all photographs are in {found[0]!r}; expected a folder for each class"
            )
        return list(found)
    table = Path(source)
    if not is_file(table):
        raise InputError(f"labels {str(source)!r}: there is no such file; expected folders, or a CSV or JSON file")
    origin = f"labels {str(table)!r}"
    text = read_text(table, origin, _MAX_TABLE)
    known = _of_json(text, origin) if table.suffix.lower() == ".json" else _of_csv(text, origin)
    return _looked_up(known, paths, names, origin)


def _looked_up(known: Mapping[str, Any], paths: Sequence[Path], names: Sequence[str], origin: str) -> list[str | None]:
    found = [
        next((str(known[key]) for key in (name, path.name, str(path)) if key in known), None)
        for path, name in zip(paths, names, strict=True)
    ]
    if not any(label is not None for label in found):
        near = printable(repr(next(iter(known), "")), 60)
        raise InputError(f"{origin}: no file of it, such as {near}, is among the photographs, such as {names[0]!r}")
    return found


def _of_json(text: str, origin: str) -> dict[str, Any]:
    value = parse_json(text, origin, _MAX_TABLE)
    if not isinstance(value, dict) or any(isinstance(each, dict | list | None) for each in value.values()):
        raise InputError(f"{origin}: expected a JSON object that gives each file its label")
    return value


def _of_csv(text: str, origin: str) -> dict[str, Any]:
    with input_errors_for(origin, "a CSV file in UTF-8"):
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))]
    if len(rows) > _MAX_ROWS:
        raise InputError(f"{origin} has over {_MAX_ROWS:,} lines: expected no more")
    columns = (0, 1)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if {"file", "label"} <= set(header):
        columns, rows = (header.index("file"), header.index("label")), rows[1:]
    found = {}
    for row in rows:
        if len(row) <= max(columns):
            raise InputError(f"{origin}: expected file,label and not {printable(','.join(row))!r}")
        found[row[columns[0]].strip()] = row[columns[1]].strip()
    return found


def probed_classes(labels: Sequence[str | None]) -> tuple[list[int], list[str]]:
    """Which photographs a probe of labels is asked about, and its classes: those of two photographs or more.

    Raises:
        InputError: there are fewer than two such classes, or more than `MOST_LABELS`.
    """
    counts: dict[str, int] = {}
    for label in labels:
        if label is not None:
            counts[label] = counts.get(label, 0) + 1
    classes = sorted(label for label, count in counts.items() if count > 1)
    if not 2 <= len(classes) <= MOST_LABELS:
        raise InputError(
            f"labels: {len(classes)} of {len(counts)} classes have two photographs or more; "
            f"expected 2 to {MOST_LABELS} such classes, so that some can be held out"
        )
    known = set(classes)
    return [index for index, label in enumerate(labels) if label in known], classes
