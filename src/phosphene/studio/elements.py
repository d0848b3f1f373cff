"""Elements that several parts of the page have."""

from __future__ import annotations

import base64
from collections.abc import Callable

from nicegui import ui


def heading(text: str, level: int = 2) -> None:
    ui.html(text, sanitize=False, tag=f"h{level}")


def quiet_button(text: str, on_click: Callable[[], None], icon: str | None = None) -> ui.button:
    return ui.button(text, on_click=on_click, color=None, icon=icon).props("outline").classes("quiet")


def alert_label() -> ui.label:
    """A place for what went wrong; see `show_alert`."""
    alert = ui.label("").classes("alert").props("role=alert")
    alert.set_visibility(False)
    return alert


def show_alert(alert: ui.label, sentence: str) -> None:
    """Say a sentence; an empty one hides what was said before."""
    alert.set_text(sentence)
    alert.set_visibility(bool(sentence))


def show_image(image: ui.element, data: bytes, kind: str, alt: str) -> None:
    """Have an `img` show a file of a kind, such as "png"."""
    image.props["src"] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image.props["alt"] = alt
