"""The part of the page where a network is picked and opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

from phosphene import defaults
from phosphene.errors import printable
from phosphene.networks.preprocessing import PRESETS
from phosphene.studio.elements import alert_label, heading, quiet_button, show_alert
from phosphene.studio.files import find_dropped, list_files, shown_path
from phosphene.studio.messages import NetworkOpened, OpenCommand
from phosphene.studio.opening import network_names
from phosphene.studio.picker import Picker


class NetworkPart:
    """The network, with weights and a description of one's own.

    Args:
        folders: whose files may be read.
        on_open: called when a network is to be opened.
    """

    def __init__(self, folders: Sequence[str], on_open: Callable[[], None]):
        self.folders, self.on_open = folders, on_open
        heading("1. Network")
        with ui.element("div").classes("line"):
            self.network = Picker("Network", {defaults.NETWORK: defaults.NETWORK}, defaults.NETWORK, self._say)
            self.open_button = quiet_button("Open", on_open)
        self.files_part = ui.expansion("Weights and preprocessing of your own").classes("own")
        with self.files_part:
            if not folders:
                ui.label("No folder may be read: start with --files DIR for weights of your own.").classes("hint")
            self.weights = Picker("Weights", {"": "its own"}, "", self._say)
            self.preprocessing = ui.select({"": "as is known of it"}, value="", label="Preprocessing")
            self.labels = ui.select({"": "as are known of it"}, value="", label="Labels")
            self.partial = ui.checkbox("the weights are of some layers only")
            ui.label("A file of these folders may also be dropped onto the page.").classes("hint")
        self.about = ui.label("").classes("hint")
        self.notes = ui.label("").classes("hint")
        self.error = alert_label()
        self.inputs: dict[str, ValueElement[Any]] = {
            "network": self.network.select,
            "weights": self.weights.select,
            "preprocessing": self.preprocessing,
            "labels": self.labels,
            "partial": self.partial,
        }
        self.list_files()

    def set_enabled(self, enabled: bool) -> None:
        self.network.select.set_enabled(enabled)
        self.open_button.set_enabled(enabled)

    def command(self) -> OpenCommand | None:
        """What is picked; None, with an alert, where no network is."""
        for picker in (self.network, self.weights):
            if not picker.settle():
                if picker.typed is None:
                    show_alert(self.error, f"no {picker.what} is picked: expected one of the list")
                return None
        files = (self.weights.value or None, self.preprocessing.value or None, self.labels.value or None)
        return OpenCommand(self.network.value, *files, bool(self.partial.value))

    def _say(self, sentence: str) -> None:
        show_alert(self.error, sentence)

    def describe(self, network: NetworkOpened | None) -> None:
        """Say what is known of the network that is open, if one is."""
        if network is None:
            self.about.set_text("")
            self.notes.set_text("")
            return
        self.about.set_text(f"{network.name}, weights {network.weights}: expects {network.expects}")
        self.notes.set_text(" ".join(f"Note: {note}." for note in network.notes))

    def list_files(self) -> None:
        """Offer the files that are in the folders now."""
        self.files = list_files(self.folders)
        names = network_names()
        shipped = {name: name for name in names if ":" not in name}
        own = {path: shown_path(path, self.folders) for path in self.files.networks}
        options = {**shipped, **own, **{name: name for name in names}}
        self.network.set_options(options, value=self.network.value)
        presets = {preset: preset for preset in PRESETS}
        for pick, known, paths in (
            (self.weights, {"": "its own"}, self.files.weights),
            (self.preprocessing, {"": "as is known of it", **presets}, self.files.preprocessings),
            (self.labels, {"": "as are known of it"}, self.files.labels),
        ):
            pick.set_options(
                {**known, **{path: shown_path(path, self.folders) for path in paths}}, value=pick.value or ""
            )

    def on_file_dropped(self, name: str, size: int) -> None:
        """A file was dropped onto the page: it is picked if it is one of those that may be read."""
        self.list_files()
        matches = find_dropped((*self.files.networks, *self.files.weights), name, size)
        if not matches:
            show_alert(
                self.error,
                f"{printable(name)} is not in the folders that this studio may read: expected it in one of --files, "
                "when it is started",
            )
        elif matches[0] in self.files.networks:
            self.network.select.set_value(matches[0])
            show_alert(self.error, "")
            self.on_open()
        else:
            self.weights.select.set_value(matches[0])
            self.files_part.set_value(True)
            show_alert(self.error, f"{printable(name)} holds weights: pick the network that they are of, and open it")
