"""The part of the page where the image forms: its buttons, its state, its scores, and what was kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2
from nicegui import ui

from phosphene.studio.elements import alert_label, heading, quiet_button, show_image
from phosphene.studio.scores import score_lines

_MOST_KEPT = 24  # images that the page shows again of those that were kept
_CURVE = jinja2.Template(
    (resources.files("phosphene") / "studio" / "curve.html").read_text(encoding="utf-8"), autoescape=True
)


class Stage:
    """The image and all that belongs to it."""

    def __init__(
        self,
        on_run: Callable[[], None],
        on_stop: Callable[[], None],
        on_save: Callable[[], None],
        on_judge: Callable[[], None],
    ):
        with ui.element("div").classes("buttons"):
            self.run_button = ui.button("Run", icon="play_arrow", on_click=on_run)
            self.stop_button = quiet_button("Stop", on_stop, "stop")
            self.save_button = quiet_button("Keep", on_save, "bookmark_add")
            self.judge_button = quiet_button("Judge", on_judge, "groups")
            self.judge_button.tooltip("what other networks see in it")
        with ui.element("div").classes("status"):
            self.busy = ui.spinner(size="1.2em")
            self.status = ui.label("").props("role=status")
        self.error = alert_label()
        self.bar = ui.linear_progress(0, show_value=False).props('aria-label="how far it is" instant-feedback')
        with ui.element("div").classes("frame"):
            self.nothing = ui.label("The image forms here: press Run.").classes("nothing")
            self.image = ui.element("img").props('id=picture alt=""')
            self.image.set_visibility(False)
        self.title = ui.label("").classes("title")
        self.curve = ui.html("", sanitize=False).classes("curve")
        self.card = ui.element("div").classes("card")
        self.gallery = Gallery()

    def show(self, data: bytes, kind: str, unit: str) -> None:
        """Show an image, a file of a kind, of a unit in words."""
        show_image(self.image, data, kind, f"the image that excites {unit} most, so far")
        self.image.set_visibility(True)
        self.nothing.set_visibility(False)
        self.title.set_text(unit)

    def show_progress(self, share: float, objectives: Sequence[float]) -> None:
        self.bar.set_value(min(1.0, share))
        self.curve.set_content(draw_curve(objectives))

    def show_scores(self, scores: dict[str, Any]) -> None:
        self.card.clear()
        with self.card:
            for name, value, meaning in score_lines(scores):
                with ui.element("div").classes("score"):
                    ui.label(name).classes("name")
                    ui.label(value).classes("value")
                    ui.tooltip(meaning)


class Gallery:
    """The images that were kept, the last ones."""

    def __init__(self) -> None:
        self.part = ui.element("div").classes("kept-part")
        with self.part:
            heading("Kept")
            self.images = ui.element("div").classes("kept")
        self.part.set_visibility(False)

    def add(self, png: bytes, label: str) -> None:
        with self.images, ui.element("figure"):
            show_image(ui.element("img"), png, "png", label)
            ui.label(label).classes("caption")
        if len(self.images.default_slot.children) > _MOST_KEPT:
            self.images.remove(0)
        self.part.set_visibility(True)


def draw_curve(objectives: Sequence[float]) -> str:
    """The objective over the steps as a drawing, in HTML."""
    values = [value for value in objectives if math.isfinite(value)]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = values[:: max(1, len(values) // 300)]
    places = [
        f"{100 * i / (len(points) - 1):.2f},{29 - 28 * (value - low) / span:.2f}" for i, value in enumerate(points)
    ]
    return str(_CURVE.render(first=f"{values[0]:.3g}", last=f"{values[-1]:.3g}", points=" ".join(places)))
