"""The part of the page where a unit is picked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

from phosphene.studio.elements import alert_label, heading, show_alert
from phosphene.studio.messages import NetworkOpened
from phosphene.studio.picker import Picker

_FIRST = "flamingo"  # the class that is picked at first, where there is one of that name


class UnitPart:
    """The unit: a class, a channel, or whatever is spelled.

    Args:
        on_kind: called when another kind is picked.
    """

    def __init__(self, on_kind: Callable[[], None]):
        self.network: NetworkOpened | None = None
        heading("2. What to show")
        self.error = alert_label()
        kinds = {"class": "a class", "channel": "a channel", "spelled": "any unit"}
        self.kind = ui.toggle(kinds, value="class").props('aria-label="kind of unit" unelevated no-caps')
        self.kind.on_value_change(on_kind)
        self.class_index = Picker("Class: type to search", {}, None, self._say)
        self.class_index.select.bind_visibility_from(self.kind, "value", value="class")
        with ui.element("div").classes("unit").bind_visibility_from(self.kind, "value", value="channel"):
            self.layer = Picker("Layer", {}, None, self._say)
            with ui.element("div").classes("line"):
                self.channel = ui.number("Channel", value=0, min=0, step=1, precision=0)
                self.all_layers = ui.checkbox("all layers", on_change=self.list_layers)
        with ui.element("div").classes("unit").bind_visibility_from(self.kind, "value", value="spelled"):
            self.spelled = ui.input("Unit", placeholder="class:tabby - class:tiger cat")
            ui.label("class:NAME, LAYER:CHANNEL, LAYER:CHANNEL@ROW,COLUMN, LAYER, and sums of them").classes("hint")
        self.inputs: dict[str, ValueElement[Any]] = {
            "kind": self.kind,
            "class": self.class_index.select,
            "all_layers": self.all_layers,
            "layer": self.layer.select,
            "channel": self.channel,
            "spelled": self.spelled,
        }

    def offer(self, network: NetworkOpened) -> None:
        """Offer the units of a network."""
        self.network = network
        names = {index: f"{name} ({index})" for index, name in enumerate(network.classes)}
        first = next((index for index, name in enumerate(network.classes) if name == _FIRST), 0)
        if self.class_index.options == names and self.class_index.value is not None:
            first = self.class_index.value  # what was picked of the same classes stays
        self.class_index.set_options(names, value=first if names else None)
        self.list_layers()
        if not names and self.kind.value == "class":
            self.kind.set_value("channel")

    def list_layers(self) -> None:
        """Offer the layers that are usually shown, or all."""
        if self.network is None:
            return
        layers = [layer for layer in self.network.layers if layer[2] or self.all_layers.value]
        layers = layers or list(self.network.layers)
        options = {name: f"{name} ({channels} channels)" for name, channels, _ in layers}
        names = list(options)
        here = self.layer.value
        middle = names[len(names) // 2] if names else None
        self.layer.set_options(options, value=here if here in options else middle)

    def suggest(self, recipe: str) -> None:
        """Spell a unit that a recipe is for, where it is for such alone and none is spelled."""
        kind = {"invert": "match", "caricature": "caricature"}.get(recipe)
        if kind is None or self.layer.value is None or f"{kind}(" in str(self.spelled.value or ""):
            return
        self.spelled.set_value(f"{kind}({self.layer.value})")
        self.kind.set_value("spelled")

    def _say(self, sentence: str) -> None:
        show_alert(self.error, sentence)

    def is_picked(self) -> bool:
        """Whether a unit is picked; where what is typed is none, that is said."""
        picker = {"class": self.class_index, "channel": self.layer}.get(self.kind.value)
        if picker is None or picker.settle():
            return True
        if picker.typed is None:
            self._say(f"no {picker.what} is picked: expected one of the list")
        return False

    def spelling(self) -> str:
        """The unit, as it is spelled."""
        if self.kind.value == "class":
            return f"class:{self.class_index.value}"
        if self.kind.value == "channel":
            channel = self.channel.value
            whole = channel is not None and float(channel).is_integer()
            return f"{self.layer.value}:{int(channel) if whole else channel}"
        return str(self.spelled.value or "").strip()

    def words(self) -> str:
        """The unit, as it is called."""
        if self.kind.value == "class" and self.network is not None and self.class_index.value is not None:
            return str(self.network.classes[self.class_index.value])
        return self.spelling()

    def is_class(self) -> bool:
        return self.spelling().startswith("class:")
