"""A list that can be searched by typing: what is typed is picked, or refused with the nearest names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from phosphene.errors import did_you_mean, printable

NOTHING = object()
"""What `find_option` returns where nothing is found."""


class Picker:
    """A select of one choice, whose text field counts.

    Enter picks the first match of what is typed, and so does leaving the field.  What matches nothing is refused with
    the nearest names, and then nothing is picked: the choice before never stands in for it.

    Args:
        label: of the field; with an article it says in sentences what is picked.
        options: what each choice is called.
        on_wrong: told what is wrong with what is typed, and an empty sentence when that is over.
    """

    def __init__(self, label: str, options: Mapping[Any, str], value: Any, on_wrong: Callable[[str], None]):
        self.what, self.on_wrong = label.partition(":")[0].lower(), on_wrong
        self.options = dict(options)
        self.typed: str | None = None
        self.select = ui.select(self.options, value=value, label=label, with_input=True).classes("picker")
        self.select.on_value_change(self._on_picked)
        ui.on("picked", self._on_event)

    @property
    def value(self) -> Any:
        return self.select.value

    def set_options(self, options: Mapping[Any, str], value: Any) -> None:
        self.options = dict(options)
        self.select.set_options(self.options, value=value)

    def settle(self) -> bool:
        """Pick what was typed, if anything was; returns whether something is picked now."""
        if self.typed is None:
            return self.select.value is not None
        found = find_option(self.typed, self.options)
        if found is NOTHING:
            text = self.typed
            self.select.set_value(None)
            self.typed = text
            self.on_wrong(f"no {self.what} is called {printable(text)!r}{did_you_mean(text, self.options.values())}")
            return False
        self.typed = None
        self.select.set_value(found)
        self.select.run_method("updateInputValue", self.options[found], True)
        self.on_wrong("")
        return True

    def _on_event(self, event: Any) -> None:
        if event.args.get("field") != self.select.html_id:
            return
        if event.args.get("kind") == "typed":
            text = str(event.args.get("text", "")).strip()
            self.typed = text if text and text != self.options.get(self.select.value) else None
        elif self.typed is not None:
            self.settle()
            self.select.run_method("hidePopup")

    def _on_picked(self) -> None:
        if self.select.value is not None:
            self.typed = None
            self.on_wrong("")


def find_option(text: str, options: Mapping[Any, str]) -> Any:
    """The choice that is meant: of that name or number, or else the first that begins so, or has it in it.

    Names have a number or another hint in brackets behind them, which need not be typed.
    """
    wanted = text.strip().casefold()
    names = {value: name.casefold() for value, name in options.items()}
    tests: tuple[Callable[[Any, str], bool], ...] = (
        lambda value, name: wanted in (name, str(value).casefold(), name.rpartition(" (")[0]),
        lambda value, name: name.startswith(wanted),
        lambda value, name: wanted in name,
    )
    for test in tests:
        for value, name in names.items():
            if wanted and test(value, name):
                return value
    return NOTHING
