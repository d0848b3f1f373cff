"""The files of `explain`: the figure, the page, the numbers, the arrays, and the pictures that were made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.attribution.figure import explain_figure
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.page import render_page
from phosphene.attribution.pictures import Illustrations
from phosphene.files import atomic_write, make_directory
from phosphene.picture import save_picture


def save_explanation(maps: AttributionMaps, shown: Illustrations, folder: Path) -> list[Path]:
    """Write explain.png, explain.html, explain.json and explain.npz, and beside them what was made.

    Raises:
        InputError: they cannot be written.
    """
    folder = make_directory(folder)
    figure = explain_figure(maps, shown)
    page = render_page(maps, shown, folder)
    text = json.dumps(_finite(explanation_data(maps, shown)), indent=1)
    written = [
        atomic_write(folder / "explain.png", lambda path: figure.save(path, "PNG")),
        atomic_write(folder / "explain.html", lambda path: path.write_text(page, encoding="utf-8")),
        atomic_write(folder / "explain.json", lambda path: path.write_text(text, encoding="utf-8")),
        atomic_write(folder / "explain.npz", lambda path: _save_arrays(maps, path)),
    ]
    if shown.accentuated is not None:
        accentuated = shown.accentuated
        written.append(atomic_write(folder / "accentuated.png", lambda path: accentuated.save(path, "PNG")))
    return [*written, *(save_picture(picture, folder / "pictures") for picture in shown.made)]


def explanation_data(maps: AttributionMaps, shown: Illustrations) -> dict[str, Any]:
    """The numbers of `AttributionMaps.to_dict`, and those of what is shown beside."""
    return maps.to_dict() | {
        "notes": [*maps.notes, *shown.notes],
        "accentuated_value": shown.accentuated_value,
        "photographs": [{"name": each.name, "value": each.value, "box": list(each.box)} for each in shown.photographs],
        "pictures": [picture.name for picture in shown.made],
        "interrupted": shown.interrupted,
    }


def _save_arrays(maps: AttributionMaps, path: Path) -> None:
    carried = {
        f"carrier {each.unit}": each.map
        for each in (maps.carriers.pictured if maps.carriers is not None else ())
        if each.map is not None
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **{"photograph": maps.photograph, **maps.maps, **carried})  # type: ignore[arg-type]


def _finite(data: Any) -> Any:
    """Numbers that JSON has none of are null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
