"""The part of the page where the image forms: its buttons, its state, its scores, and what was made before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2
from nicegui import ui

from phosphene.studio.elements import alert_label, heading, quiet_button, show_image
from phosphene.studio.scores import score_lines
from phosphene.studio.workspace import MadeImage, ShownImage

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
        on_select: Callable[[MadeImage | None], None],
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
        self.history = History(on_select)

    def show(self, image: ShownImage | None) -> None:
        """Show an image; without one, a place for it."""
        if image is not None:
            show_image(self.image, image.data, image.kind, f"the image that excites {image.title} most, so far")
        self.image.set_visibility(image is not None)
        self.nothing.set_visibility(image is None)
        self.title.set_text("" if image is None else image.title)

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


class History:
    """The images that were made here, the newest first: a click shows one again.

    Args:
        on_select: called with the image that is to be shown; None: the one on its way.
    """

    def __init__(self, on_select: Callable[[MadeImage | None], None]):
        self.on_select = on_select
        self.part = ui.element("div").classes("made-part")
        with self.part:
            heading("Made here")
            self.live = quiet_button("Back to the image on its way", lambda: on_select(None), "visibility")
            self.images = ui.element("div").classes("made")
        self.live.set_visibility(False)
        self.part.set_visibility(False)

    def show_live(self, is_offered: bool) -> None:
        """Whether an image is on its way while another is shown."""
        self.live.set_visibility(is_offered)

    def show(self, images: Sequence[MadeImage], current: MadeImage | None) -> None:
        self.part.set_visibility(bool(images))
        self.images.clear()
        with self.images:
            for made in reversed(images):
                self._thumbnail(made, made is current)

    def _thumbnail(self, made: MadeImage, is_current: bool) -> None:
        image, kept = made.image, " (kept)" if made.place else ""
        button = ui.element("button").props(f"type=button aria-pressed={str(is_current).lower()}")
        button.props["aria-label"] = f"show again: {image.label}, {image.recipe}, seed {image.seed}{kept}"
        button.on("click", lambda: self.on_select(made))
        with button:
            show_image(ui.element("img"), image.thumbnail, "jpeg", "")
            ui.label(image.label).classes("name")
            ui.label(f"{image.recipe}, seed {image.seed}").classes("caption")
            if made.place:
                ui.label("kept").classes("mark").tooltip(made.place)


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
