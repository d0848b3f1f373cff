"""Cards in the images' own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phosphene.errors import InputError
from phosphene.files import atomic_write, parse_json, read_text
from phosphene.png import with_provenance
from phosphene.provenance.reading import load, read_provenance
from phosphene.run_folders import SHEETS, holds_run

MAX_RUN = 64 << 20
"""Bytes of a `run.json`; an image takes some 10 KiB in it."""


def keep(path: str | Path, card: Mapping[str, Any]) -> None:
    """Write a card into the scores that a PNG made by phosphene carries, and into the `run.json` beside it.

    What the card does not have of earlier scores stays.  The pixels and all else in the file stay as they are, byte
    for byte; each file is written aside and then moved into its place.

    Raises:
        InputError: the file cannot be read or written, or was not made by phosphene.
    """
    path = Path(path)
    known = read_provenance(path)
    known["scores"] = {**known["scores"], **card}
    data = with_provenance(path.read_bytes(), known)
    run = _run_with(path, known)
    atomic_write(path, lambda aside: aside.write_bytes(data))
    if run is not None:
        atomic_write(path.with_name("run.json"), lambda aside: aside.write_text(run, encoding="utf-8"))


def _run_with(path: Path, known: Mapping[str, Any]) -> str | None:
    """The `run.json` beside an image with the image's scores in it; None where it does not list the image."""
    try:
        run = path.with_name("run.json")
        data = parse_json(read_text(run, "run.json", MAX_RUN), "run.json", MAX_RUN)
        entries = [
            entry
            for entry in data["pictures"]
            if (entry["file"], entry["unit"], entry["seed"]) == (path.name, known["unit"], known["seed"])
        ]
    except (InputError, KeyError, TypeError):
        return None  # none there, or another program's
    for entry in entries:
        entry["scores"] = known["scores"]
    return json.dumps(data, indent=1, ensure_ascii=False) if entries else None


def without_sheets(paths: Sequence[Path]) -> list[Path]:
    """The files without those that show a run as a whole, as `DIR/*.png` brings them: grids, plots and figures.

    These are known by their names and by the record beside them, and by having no provenance.  A file that is given
    alone stays.
    """
    if len(paths) < 2:
        return list(paths)
    return [path for path in paths if not _is_sheet(path)]


def _is_sheet(path: Path) -> bool:
    return path.name in SHEETS and holds_run(path.parent) and path.is_file() and load(path)[1] is None


def images_in(path: str | Path) -> list[Path]:
    """The image itself, or of a folder all images in it that phosphene made.

    Raises:
        InputError: the folder has none.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.png")) if _is_ours(file)]
    if not found:
        raise InputError(f"folder {str(path)!r} has no image in it that phosphene made: expected one, or images")
    return found


def _is_ours(file: Path) -> bool:
    if file.name in ("grid.png", "objective.png"):
        return False
    try:
        return load(file)[1] is not None
    except InputError:
        return False
