"""The studio's page: what a tab shows, and what it asks its process to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from itertools import cycle
from pathlib import Path
from typing import Any

from nicegui import ui

from phosphene.errors import InputError
from phosphene.processes import share_threads
from phosphene.studio.bounds import Bounds
from phosphene.studio.elements import heading, show_alert
from phosphene.studio.messages import (
    AscendCommand,
    ChangeCommand,
    CommandFailed,
    ImageFinished,
    ImageSaved,
    JudgeCommand,
    NetworkOpened,
    SaveCommand,
    ScoreCard,
    StepEvent,
    StopCommand,
    StudioConfig,
)
from phosphene.studio.network_part import NetworkPart
from phosphene.studio.recipe_part import ControlsPart, RecipePart
from phosphene.studio.scores import describe_outcome
from phosphene.studio.sessions import RunSlots, Session
from phosphene.studio.stage import Stage
from phosphene.studio.unit_part import UnitPart

_FILES = resources.files("phosphene") / "studio"

# What a page is doing.
IDLE, OPENING, WAITING, RUNNING, MEASURING = "idle", "opening", "waiting", "running", "measuring"


class Studio:
    """All pages.

    Args:
        config: what the studio was started with.
        devices: of the pages, in turn.
        bounds: of each page's process.
        runs: turns of the runs.
        tabs: pages at once.

    Attributes:
        saving: turns for keeping an image, one page at a time, so that two never choose one place.
    """

    def __init__(self, config: StudioConfig, devices: Sequence[str], bounds: Bounds, runs: RunSlots, tabs: int):
        self.config, self.bounds, self.runs, self.tabs = config, bounds, runs, tabs
        self.saving = RunSlots(1)
        self.devices = cycle(devices)
        self.pages: set[Page] = set()

    def show(self) -> None:
        """Build a page; its process begins when the browser has connected, and ends some time after it has left."""
        Page(self)

    def close(self) -> None:
        """End all pages' processes."""
        sessions = [page.session for page in self.pages if page.session is not None]
        for page in list(self.pages):
            page.leave()
        for session in sessions:
            session.ended.wait(5)


class Page:
    """One tab: it hears its parts and its process, and tells either what to do.

    Attributes:
        state: what it is doing.
        objectives: of the image that is shown, before each step.
        picture: the image, when it is finished.
        is_saved: whether that is kept, with all that is known of it.
        is_stopping: whether what it does has been told to stop.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self.session: Session | None = None
        self.network: NetworkOpened | None = None
        self.state = IDLE
        self.objectives: list[float] = []
        self.picture: ImageFinished | None = None
        self.is_saved = self.is_stopping = False
        self.handlers: dict[type, Callable[[Any], None]] = {
            NetworkOpened: self.on_opened,
            StepEvent: self.on_step,
            ImageFinished: self.on_finished,
            ScoreCard: self.on_scores,
            ImageSaved: self.on_saved,
            CommandFailed: self.on_failed,
        }
        self._build()
        client = ui.context.client
        client.on_connect(self.enter)
        client.on_delete(self.leave)

    def _build(self) -> None:
        ui.add_css((_FILES / "style.css").read_text(encoding="utf-8"))
        ui.add_body_html(f"<script>{(_FILES / 'page.js').read_text(encoding='utf-8')}</script>")
        ui.colors(primary="#5b4bc4", negative="#e0413f")
        with ui.element("main").classes("studio"):
            with ui.element("header").classes("top"):
                heading("phosphene studio", level=1)
                ui.label("Pick what a network should see, and watch the image that excites it most form.")
            with ui.element("section").classes("picks").props('aria-label="what to show"'):
                self.networks = NetworkPart(self.studio.config.folders, self.open)
                self.units = UnitPart(self.fill_controls)
                self.recipes = RecipePart(self.load_recipe)
            with ui.element("section").classes("stage").props('aria-label="the image"'):
                self.stage = Stage(self.run, self.stop, self.save, self.judge)
            with ui.element("section").classes("strengths").props('aria-label="strengths"'):
                self.controls = ControlsPart(self.set)
        ui.on("dropped", lambda event: self.networks.on_file_dropped(str(event.args["name"]), int(event.args["size"])))
        self._now(OPENING, "connecting")

    # Coming and going

    def enter(self) -> None:
        if self.session is None:  # or it has come back
            self.open()

    def _is_let_in(self) -> bool:
        """Whether this is one of the pages that may be open at once, and has a process."""
        pages, most = self.studio.pages, self.studio.tabs
        if self not in pages and len(pages) >= most:
            self._now(IDLE, "")
            sentence = f"{most} pages are open, and no more can be: close one, and press Open"
            show_alert(self.networks.error, sentence)
            return False
        pages.add(self)
        if self.session is None:
            config = replace(self.studio.config, device=next(self.studio.devices))
            self.session = Session(config, self.studio.bounds, self.hear, self.on_process_lost)
        return True

    def leave(self) -> None:
        self.studio.pages.discard(self)
        self._end_session()

    def _end_session(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None
        self.network = self.picture = None
        self.studio.runs.end(self)
        self.studio.saving.end(self)

    def on_process_lost(self, why: str) -> None:
        """The process has ended by itself, or went too far: another begins when a network is opened."""
        self._give_up(f"this page's process was lost, {why}: open a network again")

    def _give_up(self, sentence: str) -> None:
        self._end_session()
        self._now(IDLE, "")
        show_alert(self.networks.error, sentence)

    # Commands

    def tell(self, command: Any) -> None:
        if self.session is not None:
            self.session.tell(command)

    def open(self) -> None:
        command = self.networks.command()
        if command is None or not self._is_let_in():
            return
        self.network = self.picture = None
        show_alert(self.networks.error, "")
        name = Path(command.network).name if Path(command.network).is_absolute() else command.network
        self._now(OPENING, f"opening {name}")
        self.tell(command)

    def run(self) -> None:
        show_alert(self.stage.error, "")
        if self.state != IDLE or self.network is None or not self.units.is_picked():
            return
        try:
            self.recipes.seed()
        except InputError as error:
            show_alert(self.stage.error, str(error))
            return
        self._now(WAITING, "")
        if not self.studio.runs.ask(self, self._begin_run):
            self._now(WAITING, f"waiting: {self.studio.runs.running} other images are on their way")

    def _begin_run(self) -> None:
        self.objectives, self.picture, self.is_saved = [], None, False
        self.stage.show_scores({})
        self._now(RUNNING, "beginning")
        threads = share_threads(self.studio.runs.running)
        self.tell(AscendCommand(self.units.spelling(), self.recipes.recipe, self.recipes.seed(), threads))

    def stop(self) -> None:
        """End what is being done; what does not end by itself is ended with its process when this is asked twice."""
        if self.state == WAITING:
            self.studio.runs.end(self)
            self._now(IDLE, "")
        elif self.state == OPENING or (self.is_stopping and self.state in (RUNNING, MEASURING)):
            self._give_up("what this page did was stopped, with its process: open a network again")
        elif self.state == RUNNING:
            self.tell(StopCommand())
            self.stage.status.set_text("stopping after this step; Stop again ends it at once, and its image is lost")
            self.is_stopping = True
        elif self.state == MEASURING:
            self.stage.status.set_text("this takes a moment; Stop again ends it at once, and an image not kept is lost")
            self.is_stopping = True

    def save(self) -> None:
        show_alert(self.stage.error, "")
        self.studio.saving.ask(self, lambda: self.tell(SaveCommand()))

    def judge(self) -> None:
        show_alert(self.stage.error, "")
        self._now(MEASURING, "asking other networks")
        self.tell(JudgeCommand())

    # The recipe

    def load_recipe(self) -> None:
        if self.network is not None and self.state != RUNNING:
            self.recipes.load(self.network)
            self.fill_controls()

    def fill_controls(self) -> None:
        self.controls.fill(self.recipes.recipe, self.units.is_class(), self.switch)

    def set(self, field: str, value: Any) -> str:
        """Change a field of the recipe, also on the way; returns what is wrong, if anything."""
        before, running = self.recipes.recipe, self.state == RUNNING
        wrong = self.recipes.change(field, value, running)
        if running and self.recipes.recipe != before:
            self.tell(ChangeCommand(self.recipes.recipe))
        return wrong

    def switch(self, name: str, on: bool) -> None:
        wrong = self.set(name, {} if on else "off")
        show_alert(self.stage.error, wrong and f"{name}: {wrong}")
        self.fill_controls()

    # Messages

    def hear(self, message: Any) -> None:
        """What the process says."""
        self.handlers[type(message)](message)

    def on_opened(self, network: NetworkOpened) -> None:
        self.network = network
        self.networks.describe(network)
        self.units.offer(network)
        self.load_recipe()
        self._now(IDLE, "ready")

    def on_step(self, event: StepEvent) -> None:
        self.objectives += event.objectives
        steps = self.recipes.recipe.steps
        self.stage.show(event.jpeg, "jpeg", self.units.words())
        self.stage.show_progress(event.step / steps, self.objectives)
        if not self.is_stopping:
            sure = "" if event.probability is None else f", own probability {event.probability:.0%}"
            self.stage.status.set_text(f"step {event.step} of {steps}{sure}")

    def on_finished(self, picture: ImageFinished) -> None:
        self.picture = picture
        self.objectives = list(picture.objectives)
        self.stage.show(picture.png, "png", picture.label)
        self.stage.show_progress(picture.steps / self.recipes.recipe.steps, self.objectives)
        self._now(MEASURING, "measuring the image")

    def on_scores(self, card: ScoreCard) -> None:
        if self.state == MEASURING:
            self.studio.runs.end(self)
            self._now(IDLE, describe_outcome(self.picture))
        self.stage.show_scores(card.scores)
        if card.scores.get("judges"):
            self.is_saved = False  # it may be kept again, with what they said
            self._now(self.state, self.stage.status.text)

    def on_saved(self, saved: ImageSaved) -> None:
        self.studio.saving.end(self)
        self.is_saved = True
        self._now(self.state, f"kept: {saved.place}")
        if self.picture is not None:
            self.stage.gallery.add(self.picture.png, self.picture.label)

    def on_failed(self, failed: CommandFailed) -> None:
        if failed.command == "OpenCommand":
            self.networks.describe(None)
            show_alert(self.networks.error, failed.sentence)
        else:
            show_alert(self.stage.error, failed.sentence)
        if failed.command == "SaveCommand":
            self.studio.saving.end(self)
        if failed.command in ("AscendCommand", "JudgeCommand"):
            self.studio.runs.end(self)
        if failed.command in ("OpenCommand", "AscendCommand", "JudgeCommand"):
            self._now(IDLE, "no network is open" if self.network is None else describe_outcome(self.picture))

    def _now(self, state: str, words: str) -> None:
        """Say what is being done, and offer what can be done meanwhile."""
        self.is_stopping = self.is_stopping and self.state == state
        self.state = state
        idle, stage, picture = state == IDLE, self.stage, self.picture
        stage.status.set_text(words)
        stage.busy.set_visibility(state in (OPENING, WAITING, MEASURING))
        self.networks.set_enabled(idle)
        self.recipes.set_enabled(idle)
        stage.run_button.set_enabled(idle and self.network is not None)
        stage.stop_button.set_enabled(not idle and self.session is not None)
        stage.save_button.set_enabled(picture is not None and not self.is_saved)
        stage.judge_button.set_enabled(idle and picture is not None and picture.is_class)
