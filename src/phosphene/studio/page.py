"""The studio's page: how a tab shows a workspace, and what it asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from nicegui import ui

from phosphene.errors import InputError, printable
from phosphene.images import SUFFIXES
from phosphene.studio.elements import heading, show_alert
from phosphene.studio.files import find_dropped
from phosphene.studio.inputs_part import InputsPart
from phosphene.studio.messages import DROPPED, MAX_DROPPED_BYTES
from phosphene.studio.network_part import NetworkPart
from phosphene.studio.recipe_part import ControlsPart, RecipePart
from phosphene.studio.stage import Stage
from phosphene.studio.unit_part import UnitPart
from phosphene.studio.workspace import IDLE, MEASURING, OPENING, RUNNING, WAITING, ShownImage, Workspace

_FILES = resources.files("phosphene") / "studio"


class Page:
    """One tab.  All that must outlive it is in its workspace, so that another tab shows the same."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.is_following = False  # whether a field is set to what was picked elsewhere, and tells of nothing new
        self._build()
        self.inputs = {
            **self.networks.inputs,
            **self.units.inputs,
            **self.recipes.inputs,
            **self.given.inputs,
        }
        self.show_inputs()
        for name, field in self.inputs.items():
            field.on_value_change(lambda event, name=name: self._on_pick(name, event.value))
        self.given.photographs.on_value_change(self.show_state)
        client = ui.context.client
        client.on_connect(self.enter)
        client.on_delete(lambda: workspace.detach(self))

    def _build(self) -> None:
        workspace = self.workspace
        ui.add_css((_FILES / "style.css").read_text(encoding="utf-8"))
        ui.add_body_html(f"<script>{(_FILES / 'page.js').read_text(encoding='utf-8')}</script>")
        ui.colors(primary="#5b4bc4", negative="#e0413f")
        with ui.element("main").classes("studio"):
            with ui.element("header").classes("top"):
                heading("phosphene studio", level=1)
                ui.label("Pick what a network should see, and watch the image that excites it most form.")
            with ui.element("section").classes("picks").props('aria-label="what to show"'):
                self.networks = NetworkPart(workspace.studio.config.folders, self.open)
                self.units = UnitPart(self.show_recipe)
                self.recipes = RecipePart(self.load_recipe)
                self.given = InputsPart(workspace.studio.config.folders)
            with ui.element("section").classes("stage").props('aria-label="the image"'):
                self.stage = Stage(self.run, workspace.stop, workspace.save, self.judge, workspace.select)
            with ui.element("section").classes("strengths").props('aria-label="strengths"'):
                self.controls = ControlsPart(lambda field, value: workspace.change(field, value, self))
        ui.on("dropped", lambda event: self.on_file_dropped(str(event.args["name"]), int(event.args["size"])))
        self.show_state()

    def enter(self) -> None:
        """The browser has connected: for the first time, or again after it lost its connection."""
        workspace = self.workspace
        workspace.attach(self)
        self.follow()
        if not workspace.has_begun:
            self.open()

    def follow(self) -> None:
        """Show the workspace as it stands."""
        picks = self.workspace.picks
        with self._following():
            for name in ("kind", "all_layers"):  # by which others are offered
                self.show_pick(name, picks.get(name))
            self.show_network()
            self.show_inputs()
            for name, value in list(picks.items()):
                self.show_pick(name, value)
            for show in (self.show_recipe, self.show_picture, self.show_scores, self.show_made, self.show_alerts):
                show()
            self.show_state()

    @contextmanager
    def _following(self) -> Iterator[None]:
        """Fields that are set here tell of nothing new."""
        before, self.is_following = self.is_following, True
        try:
            yield
        finally:
            self.is_following = before

    def _on_pick(self, name: str, value: Any) -> None:
        if not self.is_following:
            self.workspace.pick(name, value, self)

    def show_pick(self, name: str, value: Any) -> None:
        """Set a field to what was picked in another tab, or before."""
        field = self.inputs[name]
        if value is not None and field.value != value and value in getattr(field, "options", [value]):
            with self._following():
                field.set_value(value)

    # Commands

    def open(self) -> None:
        command = self.networks.command()
        if command is not None:
            self.workspace.open(command)

    def run(self) -> None:
        workspace = self.workspace
        workspace.alert("stage", "")
        if workspace.state != IDLE or workspace.network is None or not self.units.is_picked():
            return
        try:
            workspace.run(self.units.spelling(), self.units.words(), self.recipes.seed(), self.given.picked())
        except InputError as error:
            workspace.alert("stage", str(error))

    def judge(self) -> None:
        self.workspace.judge(str(self.given.photographs.value or ""))

    def load_recipe(self) -> None:
        if not self.is_following:
            self.workspace.load_recipe(self.recipes.name.value)
            self.units.suggest(self.recipes.name.value)

    def on_file_dropped(self, name: str, size: int) -> None:
        """A file was dropped onto the page: one of the folders is picked, and a photograph from elsewhere is sent."""
        if Path(name).suffix.lower() not in SUFFIXES:
            self.networks.on_file_dropped(name, size)
            return
        self.show_inputs()
        matches = find_dropped([path for path in self.given.start.options if path], name, size)
        if matches:
            self.use_image(matches[0])
        elif size > MAX_DROPPED_BYTES:
            self.workspace.alert(
                "stage", f"{printable(name)} is too large: expected {MAX_DROPPED_BYTES:,} bytes at most"
            )
        else:
            ui.run_javascript("sendDropped()")

    def use_image(self, name: str) -> None:
        """Pick an image as what the unit refers to, if it refers to one, or else as the start image."""
        refers = any(f"{kind}(" in self.units.spelling() for kind in ("match", "caricature"))
        (self.given.photograph if refers else self.given.start).set_value(name)
        self.given.part.set_value(True)

    def switch(self, name: str, on: bool) -> None:
        wrong = self.workspace.change(name, {} if on else "off", self)
        self.workspace.alert("stage", wrong and f"{name}: {wrong}")
        self.show_recipe()

    # What it shows

    def show_network(self) -> None:
        network = self.workspace.network
        self.networks.describe(network)
        if network is not None:
            self.units.offer(network)

    def show_inputs(self) -> None:
        """Offer the images that there are, and the recipes that need some."""
        before = set(self.given.start.options)
        self.given.offer(self.workspace.dropped)
        images, folders = (len(field.options) > 1 for field in (self.given.start, self.given.photographs))
        self.recipes.offer(images, folders)
        new = [name for name in self.given.start.options if name.startswith(DROPPED) and name not in before]
        if new and not self.is_following:
            self.use_image(new[-1])

    def show_recipe(self) -> None:
        recipe = self.workspace.recipe
        self.recipes.description.set_text(recipe.description)
        self.controls.fill(recipe, self.units.is_class(), self.switch)

    def show_picture(self) -> None:
        workspace = self.workspace
        if workspace.current is not None:
            image = workspace.current.image
            self.stage.show(ShownImage(image.png, "png", image.label))
            self.stage.show_progress(workspace.share, image.objectives)
        else:
            self.stage.show(workspace.frame)
            self.stage.show_progress(workspace.share, workspace.objectives)

    def show_scores(self) -> None:
        current = self.workspace.current
        self.stage.show_scores({} if current is None else current.scores)

    def show_made(self) -> None:
        workspace = self.workspace
        self.stage.history.show(workspace.made, workspace.current)

    def show_alerts(self) -> None:
        show_alert(self.networks.error, self.workspace.alerts["network"])
        show_alert(self.stage.error, self.workspace.alerts["stage"])

    def show_state(self) -> None:
        """Say what is being done, and offer what can be done meanwhile."""
        workspace, stage = self.workspace, self.stage
        idle, current = workspace.state == IDLE, workspace.current
        stage.status.set_text(workspace.words)
        stage.busy.set_visibility(workspace.state in (OPENING, WAITING, MEASURING))
        self.networks.set_enabled(idle)
        self.recipes.set_enabled(idle)
        stage.run_button.set_enabled(idle and workspace.network is not None)
        stage.stop_button.set_enabled(not idle and workspace.process is not None)
        can_keep = current is not None and current.can_be_kept and not current.is_saved
        stage.save_button.set_enabled(can_keep and workspace.state in (IDLE, MEASURING))
        can_judge = current is not None and current.can_be_judged
        is_class = current is not None and current.image.is_class
        stage.judge_button.set_enabled(idle and can_judge and (is_class or bool(self.given.photographs.value)))
        stage.history.show_live(workspace.state == RUNNING and current is not None)
