"""The page of a run: one HTML file, with all pictures in it, that can be mailed and opened anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from phosphene.files import atomic_write
from phosphene.picture import Picture
from phosphene.planes import to_pil
from phosphene.result import Result

PAGE = "index.html"
_MOST_EMBEDDED = 200  # pictures in the page itself; of more it shows the files beside it
_SCORES = {
    "objective": ("objective", "{:.4g}"),
    "probability": ("the network's own probability", "{:.1%}"),
    "latent": ("the latent itself", "{:.4g}"),
    "robustness": ("robustness: crops and shifts that keep it", "{:.0%}"),
}


class _Shown(NamedTuple):
    """A picture as the page shows it: sources of images, and rows of names and values."""

    label: str
    name: str
    source: str
    original: str
    rows: list[tuple[str, str]]


def write_page(result: Result, directory: Path, command: Sequence[str] = ()) -> Path:
    """Write `index.html` into a run's directory, beside its pictures.

    Each picture is there at its full size, with its numbers, and with what it was made of beside it where it began from
    an image or refers to a photograph; then the objectives over the steps, the recipe, and the command.

    Args:
        command: the words that were typed, if any were.

    Raises:
        InputError: it cannot be written.
    """
    embedded = len(result) <= _MOST_EMBEDDED
    template = jinja2.Template(
        (resources.files("phosphene") / "run.html").read_text(encoding="utf-8"), autoescape=True, trim_blocks=True
    )
    plot = directory / "objective.png"
    text = template.render(
        title=_title(result),
        network=_network(result),
        recipe=result.recipe,
        pictures=[_shown(picture, embedded) for picture in result],
        plot=_data(plot.read_bytes()) if plot.exists() else "",
        missing=result.not_started,
        interrupted=result.interrupted,
        command=_shell(command),
        embedded=embedded,
    )
    return atomic_write(directory / PAGE, lambda aside: aside.write_text(text, encoding="utf-8"))


def _title(result: Result) -> str:
    labels = ", ".join(picture.label for picture in result.pictures[:3])
    more = f" and {len(result) - 3} more" if len(result) > 3 else ""
    return f"{labels}{more}: {result.network.name}" if labels else result.network.name


def _network(result: Result) -> str:
    height, width = result.network.preprocessing.height, result.network.preprocessing.width
    names = " and ".join(network.name for network in result.networks)
    return f"Network {names}, {height}x{width} pixels, weights {result.network.digest}"


def _shell(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(["phosphene", *words]) if words else ""


def _shown(picture: Picture, embedded: bool) -> _Shown:
    beside = picture.photograph if picture.photograph is not None else picture.start
    return _Shown(
        picture.label,
        picture.name,
        _png(picture.image()) if embedded else f"{picture.name}.png",
        "" if beside is None or not embedded else _png(to_pil(beside)),
        _rows(picture),
    )


def _rows(picture: Picture) -> list[tuple[str, str]]:
    rows = [("unit", str(picture.unit)[:200])]
    for name, (words, form) in _SCORES.items():
        value = picture.scores.get(name)
        if isinstance(value, int | float):
            rows.append((words, form.format(value)))
    rows += _judged(picture.scores.get("judges"))
    rows += [("steps", f"{picture.steps}, {picture.stopped}"), ("seed", str(picture.seed))]
    return [*rows, ("seconds", f"{picture.seconds:.1f}")]


def _judged(judges: Any) -> list[tuple[str, str]]:
    if not isinstance(judges, dict):
        return []
    return [(f"{name}'s probability", f"{answer['probability']:.1%}") for name, answer in judges.items()]


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return _data(file.getvalue())


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
