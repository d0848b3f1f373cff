"""The files of a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from phosphene.draw.figure import figure
from phosphene.draw.grid import post_grid
from phosphene.files import atomic_write, make_directory
from phosphene.reproduce.plan import FigurePlan, FigureRow
from phosphene.result import Result, run_data


def save_figure(plan: FigurePlan, rows: Sequence[tuple[FigureRow, Result]], directory: Path) -> dict[str, Any]:
    """Write a figure: `figure.png`, each row's grid as the post has it, and all settings and numbers as `figure.json`.

    Returns:
        What `figure.json` holds.

    Raises:
        InputError: the directory cannot be made or written.
    """
    directory = make_directory(directory)
    data = {
        "figure": plan.figure.name,
        "title": plan.figure.title,
        "settings": plan.settings,
        "rows": [{"label": row.label, **run_data(result)} for row, result in rows],
    }
    name = plan.rows[0].network.name
    pictures = [(row.label, result.pictures) for row, result in rows if result.pictures]
    if pictures:
        image = figure(f"{plan.figure.title}: {name}", pictures)
        atomic_write(directory / "figure.png", lambda path: image.save(path, "PNG"))
    for row, result in rows:
        if result.pictures:
            file = f"grid_{row.slug}.png" if len(plan.rows) > 1 else "grid.png"
            square = post_grid([picture.image() for picture in result])
            atomic_write(directory / file, partial(square.save, format="PNG"))
    text = json.dumps(data, indent=1, ensure_ascii=False)
    atomic_write(directory / "figure.json", lambda path: path.write_text(text, encoding="utf-8"))
    return data
