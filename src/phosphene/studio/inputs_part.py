"""The part of the page where size, facets and photographs are picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

from phosphene.errors import InputError
from phosphene.studio.files import list_files, shown_path
from phosphene.studio.messages import DROPPED, MAX_FACETS, RunInputs

_MAX_SIDE = 2048  # pixels


class InputsPart:
    """Size, facets, a start image, a photograph, and a folder of photographs.

    Args:
        folders: whose files may be read.
    """

    def __init__(self, folders: Sequence[str]):
        self.folders = folders
        self.part = ui.expansion("Size, facets and photographs").classes("own")
        with self.part:
            with ui.element("div").classes("line"):
                self.height = _number("Height", 8, _MAX_SIDE)
                self.width = _number("Width", 8, _MAX_SIDE)
                self.facets = _number("Facets", 1, MAX_FACETS)
            ui.label(
                "Height and width in pixels; without them the network's own. Facets are made together, and differ."
            ).classes("hint")
            self.start = ui.select({"": "as the recipe says"}, value="", label="Start image")
            self.photograph = ui.select({"": "none"}, value="", label="Photograph")
            ui.label("match(LAYER) and caricature(LAYER) are of the photograph; dream starts from an image.").classes(
                "hint"
            )
            self.photographs = ui.select({"": "none"}, value="", label="Folder of photographs")
            ui.label("For the recipes explain and vital, and for Judge.").classes("hint")
            ui.label("A photograph may also be dropped onto the page.").classes("hint")
        self.inputs: dict[str, ValueElement[Any]] = {
            "height": self.height,
            "width": self.width,
            "facets": self.facets,
            "start": self.start,
            "photograph": self.photograph,
            "photographs": self.photographs,
        }

    def offer(self, dropped: Mapping[str, Any]) -> None:
        """Offer the images and folders that there are now, and what was dropped onto the page, by name."""
        files = list_files(self.folders)
        here = {DROPPED + name: f"{name} (dropped)" for name in dropped}
        here |= {path: shown_path(path, self.folders) for path in files.images}
        folders = {path: shown_path(path, self.folders) for path in files.photographs}
        for pick, nothing, options in (
            (self.start, "as the recipe says", here),
            (self.photograph, "none", here),
            (self.photographs, "none", folders),
        ):
            offered = {"": nothing, **options}
            pick.set_options(offered, value=pick.value if pick.value in offered else "")

    def picked(self) -> RunInputs:
        """What is picked.

        Raises:
            InputError: a number that is none, or half a size.
        """
        height, width = _whole(self.height, 8), _whole(self.width, 8)
        if (height is None) != (width is None):
            raise InputError("size: expected height and width, or neither")
        return RunInputs(
            size=None if height is None or width is None else (height, width),
            facets=_whole(self.facets, 1) or 1,
            start=str(self.start.value or ""),
            photograph=str(self.photograph.value or ""),
            photographs=str(self.photographs.value or ""),
        )


def _number(label: str, low: int, high: int) -> ui.number:
    return ui.number(label, min=low, max=high, step=1, precision=0)


def _whole(field: ui.number, low: int) -> int | None:
    """The number of a field; None where nothing stands there.

    Raises:
        InputError: it is out of range.
    """
    value, high, name = field.value, int(field.max), str(field.props.get("label", "")).partition(",")[0].lower()
    if value is None or value == "":
        return None
    if not (isinstance(value, int | float) and low <= value <= high and float(value).is_integer()):
        raise InputError(f"{name} {value}: expected a whole number of {low} to {high}")
    return int(value)
