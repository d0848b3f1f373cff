"""The studio's page: what a tab shows, and what it asks its process to do."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from nicegui import ui

from phosphene.ascent.request import DEFAULT_SEED
from phosphene.errors import InputError, printable
from phosphene.networks.open import DEFAULT
from phosphene.networks.preprocessing import PRESETS
from phosphene.recipes.recipe import Recipe
from phosphene.studio import files as studio_files
from phosphene.studio import worker
from phosphene.studio.controls import Control, change, controls, listed_recipes, switches
from phosphene.studio.processes import Bounds
from phosphene.studio.sessions import RunSlots, Session
from phosphene.studio.worker import (
    CommandFailed,
    ImageFinished,
    ImageSaved,
    NetworkOpened,
    ScoreCard,
    StepEvent,
    StudioConfig,
)
from phosphene.units.objects import Channel, Class

_HERE = resources.files("phosphene") / "studio"
_FIRST = "flamingo"  # the class that is picked at first, where there is one of that name
_NEW_SEED = 2**31
_MOST_KEPT = 24  # images that the page shows again of those that were kept

# What a page is doing.
IDLE, OPENING, WAITING, RUNNING, MEASURING = "idle", "opening", "waiting", "running", "measuring"


class Studio:
    """All pages.

    Args:
        given: what the studio was started with.
        devices: of the pages, in turn.
        bounds: of each page's process.
        turns: of the runs.
        tabs: pages at once.

    Attributes:
        keeping: turns for keeping an image, one page at a time, so that two never choose one place.
    """

    def __init__(self, given: StudioConfig, devices: Sequence[str], bounds: Bounds, turns: RunSlots, tabs: int):
        self.given, self.bounds, self.turns, self.tabs = given, bounds, turns, tabs
        self.keeping = RunSlots(1)
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
    """One tab."""

    def __init__(self, studio: Studio):
        self.studio, self.turns = studio, studio.turns
        self.session: Session | None = None
        self.network: NetworkOpened | None = None
        self.recipe = Recipe.load("natural")
        self.state = IDLE
        self.objectives: list[float] = []
        self.picture: ImageFinished | None = None
        self.kept_now = False
        self.stopping = False
        self.client = ui.context.client
        self._build()
        self.client.on_connect(self.enter)
        self.client.on_delete(self.leave)

    # Coming and going

    def enter(self) -> None:
        if self.session is None:  # or it has come back
            self.open()

    def _is_let_in(self) -> bool:
        """Whether this is one of the pages that may be open at once, and has a process."""
        pages, most = self.studio.pages, self.studio.tabs
        if self not in pages and len(pages) >= most:
            self._now(IDLE, "")
            self._say(self.network_error, f"{most} pages are open, and no more can be: close one, and press Open")
            return False
        pages.add(self)
        if self.session is None:
            given = replace(self.studio.given, device=next(self.studio.devices))
            self.session = Session(given, self.studio.bounds, self.hear, self.on_process_lost)
        return True

    def leave(self) -> None:
        self.studio.pages.discard(self)
        self._end_session()

    def _end_session(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None
        self.network = self.picture = None
        self.turns.end(self)
        self.studio.keeping.end(self)

    def on_process_lost(self, why: str) -> None:
        """The process has ended by itself, or went too far: another begins when a network is opened."""
        self._give_up(f"this page's process was lost, {why}: open a network again")

    def _give_up(self, sentence: str) -> None:
        self._end_session()
        self._now(IDLE, "")
        self._say(self.network_error, sentence)

    # Commands

    def tell(self, command: Any) -> None:
        if self.session is not None:
            self.session.tell(command)

    def open(self) -> None:
        chosen = self.network_pick.value
        if chosen is None:
            self._say(self.network_error, "no network is picked: expected one of the list")
            return
        if not self._is_let_in():
            return
        self.network = self.picture = None
        self._say(self.network_error, "")
        self._now(OPENING, f"opening {Path(chosen).name if Path(chosen).is_absolute() else chosen}")
        self.tell(
            worker.OpenCommand(
                chosen, self.weights_pick.value or None, self.feed_pick.value or None, self.labels_pick.value or None,
                bool(self.partial_pick.value),
            )
        )  # fmt: skip

    def run(self) -> None:
        self._say(self.run_error, "")
        if self.state != IDLE or self.network is None:
            return
        if self._seed() is None:
            self._say(self.run_error, f"seed {self.seed.value}: expected a whole number of 0 to {_NEW_SEED}")
            return
        self._now(WAITING, "")
        if not self.turns.ask(self, self._begin_run):
            self._now(WAITING, f"waiting: {self.turns.running} other images are on their way")

    def _begin_run(self) -> None:
        self.objectives, self.picture, self.kept_now = [], None, False
        threads = max(1, torch.get_num_threads() // max(1, self.turns.running))
        self._card({})
        self._now(RUNNING, "beginning")
        self.tell(worker.AscendCommand(self._unit(), self.recipe, self._seed() or 0, threads))

    def stop(self) -> None:
        """End what is being done; what does not end by itself is ended with its process when this is asked twice."""
        if self.state == WAITING:
            self.turns.end(self)
            self._now(IDLE, "")
        elif self.state == OPENING or (self.stopping and self.state in (RUNNING, MEASURING)):
            self._give_up("what this page did was stopped, with its process: open a network again")
        elif self.state == RUNNING:
            self.tell(worker.StopCommand())
            self.status.set_text("stopping after this step; Stop again ends it at once, and its image is lost")
            self.stopping = True
        elif self.state == MEASURING:
            self.status.set_text("this takes a moment; Stop again ends it at once, and an image not kept is lost")
            self.stopping = True

    def keep(self) -> None:
        self._say(self.run_error, "")
        self.studio.keeping.ask(self, lambda: self.tell(worker.SaveCommand()))

    def judge(self) -> None:
        self._say(self.run_error, "")
        self._now(MEASURING, "asking other networks")
        self.tell(worker.JudgeCommand())

    # Messages

    def hear(self, message: Any) -> None:
        """What the process says."""
        if isinstance(message, NetworkOpened):
            self._opened(message)
        elif isinstance(message, StepEvent):
            self.objectives += message.objectives
            self._show(f"data:image/jpeg;base64,{_text(message.jpeg)}", self._unit_words())
            sure = "" if message.probability is None else f", own probability {message.probability:.0%}"
            if not self.stopping:
                self.status.set_text(f"step {message.step} of {self.recipe.steps}{sure}")
            self._progress(message.step)
        elif isinstance(message, ImageFinished):
            self._made(message)
        elif isinstance(message, ScoreCard):
            if self.state == MEASURING:
                self.turns.end(self)
                self._now(IDLE, self._ending())
            self._card(message.scores)
            if message.scores.get("judges"):
                self.kept_now = False  # it may be kept again, with what they said
                self._now(self.state, self.status.text)
        elif isinstance(message, ImageSaved):
            self.studio.keeping.end(self)
            self._kept(message.place)
        elif isinstance(message, CommandFailed):
            self._failed(message)

    def _opened(self, network: NetworkOpened) -> None:
        self.network = network
        self.about.set_text(f"{network.name}, weights {network.weights}: eats {network.expects}")
        self.notes.set_text(" ".join(f"Note: {note}." for note in network.notes))
        names = {index: f"{name} ({index})" for index, name in enumerate(network.classes)}
        first = next((index for index, name in enumerate(network.classes) if name == _FIRST), 0)
        self.class_pick.set_options(names, value=first if names else None)
        self._fill_layers()
        if not names and self.kind.value == "class":
            self.kind.set_value("channel")
        self._load_recipe()
        self._now(IDLE, "ready")

    def _made(self, picture: ImageFinished) -> None:
        self.picture = picture
        self.objectives = list(picture.objectives)
        self._show(f"data:image/png;base64,{_text(picture.png)}", picture.label)
        self._progress(picture.steps)
        self._now(MEASURING, "measuring the image")

    def _ending(self) -> str:
        if self.picture is None:
            return "ready"
        count = len(self.picture.changes)
        changed = f"; {count} change{'s' * (count != 1)} on the way, kept in its file" if count else ""
        how = f"{self.picture.label}: {self.picture.steps} steps, {self.picture.stopped}"
        return f"{how}, {self.picture.seconds:.0f} s{changed}"

    def _kept(self, place: str) -> None:
        self.kept_now = True
        self._now(self.state, f"kept: {place}")
        if self.picture is None:
            return
        with self.kept, ui.element("figure"):
            image = ui.element("img")
            image.props["src"] = f"data:image/png;base64,{_text(self.picture.png)}"
            image.props["alt"] = self.picture.label
            ui.label(self.picture.label).classes("caption")
        if len(self.kept.default_slot.children) > _MOST_KEPT:
            self.kept.remove(0)
        self.kept_part.set_visibility(True)

    def _failed(self, failed: CommandFailed) -> None:
        if failed.command == "OpenCommand":
            self.about.set_text("")
            self.notes.set_text("")
            self._say(self.network_error, failed.sentence)
        else:
            self._say(self.run_error, failed.sentence)
        if failed.command == "SaveCommand":
            self.studio.keeping.end(self)
        if failed.command in ("AscendCommand", "JudgeCommand"):
            self.turns.end(self)
        if failed.command in ("OpenCommand", "AscendCommand", "JudgeCommand"):
            self._now(IDLE, "no network is open" if self.network is None else self._ending())

    # What is picked

    def _unit(self) -> str:
        """The unit, as it is spelled."""
        if self.kind.value == "class":
            return f"class:{self.class_pick.value}"
        if self.kind.value == "channel":
            channel = self.channel.value
            whole = channel is not None and float(channel).is_integer()
            return f"{self.layer_pick.value}:{int(channel) if whole else channel}"
        return str(self.spelled.value or "").strip()

    def _seed(self) -> int | None:
        """The seed; None if what stands there is none."""
        value = self.seed.value or 0
        fits = isinstance(value, int | float) and 0 <= value <= _NEW_SEED and float(value).is_integer()
        return int(value) if fits else None

    def _unit_words(self) -> str:
        if self.kind.value == "class" and self.network is not None and self.class_pick.value is not None:
            return str(self.network.classes[self.class_pick.value])
        return self._unit()

    def _fill_layers(self) -> None:
        if self.network is None:
            return
        layers = [layer for layer in self.network.layers if layer[2] or self.all_layers.value]
        layers = layers or list(self.network.layers)
        options = {name: f"{name} ({channels} channels)" for name, channels, _ in layers}
        names = list(options)
        here = self.layer_pick.value
        middle = names[len(names) // 2] if names else None
        self.layer_pick.set_options(options, value=here if here in options else middle)

    def _load_recipe(self) -> None:
        if self.network is None or self.state == RUNNING:
            return
        self.recipe = Recipe.load(self.recipe_pick.value).for_network(self.network.name)
        self.recipe_words.set_text(self.recipe.description)
        self._fill_strengths()

    def set(self, field: str, value: Any) -> str:
        """Change a field of the recipe, also on the way; gives what is wrong, if anything."""
        if value is None:
            return "expected a number"
        try:
            recipe = change(self.recipe, field, value)
        except InputError as error:
            return str(error).partition(": ")[2] or str(error)
        if self.state == RUNNING and recipe.resume_key() != self.recipe.resume_key():
            return "is settled with the first step: stop, and run again"
        if recipe != self.recipe:
            self.recipe = recipe
            if self.state == RUNNING:
                self.tell(worker.ChangeCommand(recipe))
        return ""

    def _switch(self, name: str, on: bool) -> None:
        wrong = self.set(name, {} if on else "off")
        self._say(self.run_error, wrong and f"{name}: {wrong}")
        self._fill_strengths()

    def on_recipe_dropped(self, name: str, size: int) -> None:
        """A file was dropped onto the page: it is picked if it is one of those that may be read."""
        self._fill_files()
        there = [
            path
            for path in (*self.files.networks, *self.files.weights)
            if Path(path).name == name and (Path(path).is_dir() or Path(path).stat().st_size == size)
        ]
        if not there:
            self._say(
                self.network_error,
                f"{printable(name)} is not in the folders that this studio may read: expected it in one of --files, "
                "when it is started",
            )
            return
        self._say(self.network_error, "")
        if there[0] in self.files.networks:
            self.network_pick.set_value(there[0])
            self.open()
        else:
            self.weights_pick.set_value(there[0])
            self.own.set_value(True)
            self._say(
                self.network_error, f"{printable(name)} holds weights: pick the network that they are of, and open it"
            )

    # What is shown

    def _now(self, state: str, words: str) -> None:
        """Say what is being done, and offer what can be done meanwhile."""
        self.stopping = self.stopping and self.state == state
        self.state = state
        self.status.set_text(words)
        busy, ready = state != IDLE, self.network is not None
        for element in (self.network_pick, self.open_button, self.recipe_pick, self.recipe_again):
            element.set_enabled(not busy)
        self.run_button.set_enabled(ready and not busy)
        self.stop_button.set_enabled(busy and self.session is not None)
        shown = self.picture is not None
        self.keep_button.set_enabled(shown and not self.kept_now)
        self.judge_button.set_enabled(not busy and self.picture is not None and self.picture.is_class)
        self.busy.set_visibility(state in (OPENING, WAITING, MEASURING))

    def _say(self, where: ui.label, sentence: str) -> None:
        where.set_text(sentence)
        where.set_visibility(bool(sentence))

    def _show(self, source: str, words: str) -> None:
        self.image.props["src"] = source
        self.image.props["alt"] = f"the image that excites {words} most, so far"
        self.image.set_visibility(True)
        self.nothing.set_visibility(False)
        self.title.set_text(words)

    def _progress(self, step: int) -> None:
        self.bar.set_value(min(1.0, step / self.recipe.steps))
        self.curve.set_content(_curve(self.objectives))

    def _card(self, scores: dict[str, Any]) -> None:
        self.card.clear()
        with self.card:
            for name, value, meaning in _lines(scores):
                with ui.element("div").classes("score"):
                    ui.label(name).classes("name")
                    ui.label(value).classes("value")
                    ui.tooltip(meaning)

    def _fill_files(self) -> None:
        self.files = studio_files.list_files(self.studio.given.folders)
        folders = self.studio.given.folders
        own = {path: _relative(path, folders) for path in self.files.networks}
        names = {name: name for name in worker.network_names()}
        self.network_pick.set_options({**_first(names), **own, **names}, value=self.network_pick.value or DEFAULT)
        for pick, known, paths in (
            (self.weights_pick, {"": "its own"}, self.files.weights),
            (
                self.feed_pick,
                {"": "as is known of it", **{preset: preset for preset in PRESETS}},
                self.files.preprocessings,
            ),
            (self.labels_pick, {"": "as are known of it"}, self.files.labels),
        ):
            pick.set_options({**known, **{path: _relative(path, folders) for path in paths}}, value=pick.value or "")

    def _fill_strengths(self) -> None:
        self.strengths.clear()
        with self.strengths:
            # The recipe as it is for the kind of unit that is picked.
            recipe = self.recipe.for_unit(Class(0) if self._unit().startswith("class:") else Channel("", 0))
            for strength in controls(recipe):
                _slider(strength, self.set)
            for name, on in switches(recipe):
                ui.switch(f"{name.replace('_', ' ')}", value=on).on_value_change(
                    partial(lambda name, event: self._switch(name, event.value), name)
                )

    def _build(self) -> None:
        ui.add_css((_HERE / "style.css").read_text(encoding="utf-8"))
        ui.add_body_html(f"<script>{(_HERE / 'drop.js').read_text(encoding='utf-8')}</script>")
        ui.colors(primary="#5b4bc4", negative="#e0413f")
        ui.on("dropped", lambda event: self.on_recipe_dropped(str(event.args["name"]), int(event.args["size"])))
        with ui.element("main").classes("studio"):
            with ui.element("header").classes("top"):
                ui.html("<h1>phosphene studio</h1>", sanitize=False)
                ui.label("Pick what a network should see, and watch the image that excites it most form.")
            with ui.element("section").classes("picks").props('aria-label="what to show"'):
                self._build_network()
                self._build_unit()
                self._build_recipe()
            with ui.element("section").classes("stage").props('aria-label="the image"'):
                self._build_stage()
            with ui.element("section").classes("strengths").props('aria-label="strengths"'):
                ui.html("<h2>Strengths</h2>", sanitize=False)
                ui.label("They may be changed while the image forms.").classes("hint")
                self.strengths = ui.element("div").classes("controls")
        self._fill_files()
        self._now(OPENING, "connecting")

    def _build_network(self) -> None:
        ui.html("<h2>1. Network</h2>", sanitize=False)
        with ui.element("div").classes("line"):
            self.network_pick = ui.select({DEFAULT: DEFAULT}, value=DEFAULT, label="Network", with_input=True)
            self.open_button = _quiet("Open", self.open)
        self.own = ui.expansion("Weights and feeding of your own").classes("own")
        with self.own:
            if not self.studio.given.folders:
                ui.label("No folder may be read: start with --files DIR for weights of your own.").classes("hint")
            self.weights_pick = ui.select({"": "its own"}, value="", label="Weights", with_input=True)
            self.feed_pick = ui.select({"": "as is known of it"}, value="", label="Preprocessing")
            self.labels_pick = ui.select({"": "as are known of it"}, value="", label="Labels")
            self.partial_pick = ui.checkbox("the weights are of some layers only")
            ui.label("A file of these folders may also be dropped onto the page.").classes("hint")
        self.about = ui.label("").classes("hint")
        self.notes = ui.label("").classes("hint")
        self.network_error = _alert()

    def _build_unit(self) -> None:
        ui.html("<h2>2. What to show</h2>", sanitize=False)
        kinds = {"class": "a class", "channel": "a channel", "spelled": "any unit"}
        self.kind = ui.toggle(kinds, value="class").props('aria-label="kind of unit" unelevated no-caps')
        self.kind.on_value_change(self._fill_strengths)
        self.class_pick = ui.select({}, label="Class: type to search", with_input=True)
        self.class_pick.bind_visibility_from(self.kind, "value", value="class")
        with ui.element("div").classes("unit").bind_visibility_from(self.kind, "value", value="channel"):
            self.layer_pick = ui.select({}, label="Layer", with_input=True)
            with ui.element("div").classes("line"):
                self.channel = ui.number("Channel", value=0, min=0, step=1, precision=0)
                self.all_layers = ui.checkbox("all layers", on_change=self._fill_layers)
        with ui.element("div").classes("unit").bind_visibility_from(self.kind, "value", value="spelled"):
            self.spelled = ui.input("Unit", placeholder="class:tabby - class:tiger cat")
            ui.label("class:NAME, LAYER:CHANNEL, LAYER:CHANNEL@ROW,COLUMN, LAYER, and sums of them").classes("hint")

    def _build_recipe(self) -> None:
        ui.html("<h2>3. How</h2>", sanitize=False)
        with ui.element("div").classes("line"):
            self.recipe_pick = ui.select(list(listed_recipes()), value="natural", label="Recipe")
            self.recipe_pick.on_value_change(self._load_recipe)
            self.recipe_again = ui.button(icon="restart_alt", on_click=self._load_recipe, color=None)
            self.recipe_again.classes("quiet").props('flat round aria-label="the recipe as it ships"').tooltip(
                "as it ships"
            )
        self.recipe_words = ui.label("").classes("hint")
        with ui.element("div").classes("line"):
            self.seed = ui.number("Seed", value=DEFAULT_SEED, min=0, max=_NEW_SEED, step=1, precision=0)

    def _build_stage(self) -> None:
        with ui.element("div").classes("buttons"):
            self.run_button = ui.button("Run", icon="play_arrow", on_click=self.run)
            self.stop_button = _quiet("Stop", self.stop, "stop")
            self.keep_button = _quiet("Keep", self.keep, "bookmark_add")
            self.judge_button = _quiet("Judge", self.judge, "groups")
            self.judge_button.tooltip("what other networks see in it")
        with ui.element("div").classes("status"):
            self.busy = ui.spinner(size="1.2em")
            self.status = ui.label("").props("role=status")
        self.run_error = _alert()
        self.bar = ui.linear_progress(0, show_value=False).props('aria-label="how far it is" instant-feedback')
        with ui.element("div").classes("frame"):
            self.nothing = ui.label("The image forms here: press Run.").classes("nothing")
            self.image = ui.element("img").props('id=picture alt=""')
            self.image.set_visibility(False)
        self.title = ui.label("").classes("title")
        self.curve = ui.html("", sanitize=False).classes("curve")
        self.card = ui.element("div").classes("card")
        self.kept_part = ui.element("div").classes("kept-part")
        with self.kept_part:
            ui.html("<h2>Kept</h2>", sanitize=False)
            self.kept = ui.element("div").classes("kept")
        self.kept_part.set_visibility(False)


def _quiet(words: str, on_click: Callable[[], None], icon: str | None = None) -> ui.button:
    return ui.button(words, on_click=on_click, color=None, icon=icon).props("outline").classes("quiet")


def _alert() -> ui.label:
    alert = ui.label("").classes("alert").props("role=alert")
    alert.set_visibility(False)
    return alert


def _slider(strength: Control, change: Callable[[str, Any], str]) -> None:
    """A slider and a number for a field; either follows the other, and what is wrong with it is said below."""

    def tried(value: Any) -> str | None:
        wrong = change(strength.field, value)
        if not wrong:
            slider.set_value(strength.place(value))
        return wrong or None

    def slid(event: Any) -> None:
        if event.args is not None:
            number.set_value(strength.at(float(event.args)))

    with ui.element("div").classes("control"):
        number = ui.number(strength.words, value=float(f"{strength.value:.6g}"), validation=tried)
        number.props("debounce=300 step=any hide-bottom-space").tooltip(strength.help)
        slider = ui.slider(min=strength.low, max=strength.high, step=strength.by, value=strength.place(strength.value))
        slider.props(f'aria-label="{strength.words}"').on("update:model-value", slid, throttle=0.15)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _relative(path: str, folders: Sequence[str]) -> str:
    folder = next((folder for folder in folders if Path(path).is_relative_to(folder)), None)
    return path if folder is None else str(Path(path).relative_to(Path(folder).parent))


def _first(names: dict[str, str]) -> dict[str, str]:
    """The networks that ship."""
    return {name: name for name in names if ":" not in name}


def _curve(objectives: Sequence[float]) -> str:
    """The objective over the steps as a drawing."""
    values = [value for value in objectives if math.isfinite(value)]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    kept = values[:: max(1, len(values) // 300)]
    points = " ".join(
        f"{100 * i / (len(kept) - 1):.2f},{29 - 28 * (value - low) / span:.2f}" for i, value in enumerate(kept)
    )
    return (
        f'<svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label="the objective, {values[0]:.3g} '
        f'at first and {values[-1]:.3g} now"><polyline points="{points}"/></svg>'
        f"<p>objective {values[0]:.3g} → {values[-1]:.3g}</p>"
    )


def _lines(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """A score card in words: what, how much, and what it means."""
    found = []
    if scores.get("probability") is not None:
        found.append(("own probability", f"{scores['probability']:.1%}", "the network's own, of the class"))
    elif scores.get("objective") is not None:
        found.append(("objective", f"{scores['objective']:.4g}", "what was maximised"))
    if scores.get("robustness") is not None:
        found.append(("robustness", f"{scores['robustness']:.0%}", scores["robustness_rule"]))
    if "selectivity" in scores:
        rank = scores["selectivity"]
        found.append(("rank", f"{rank['rank']} of {rank['of']}", "among the layer's channels, on this image"))
    if scores.get("slope") is not None:
        near = f"of the power over frequency; photographs have about {scores['photographs_slope']:.1f}"
        found.append(("slope of the spectrum", f"{scores['slope']:.2f}", near))
    for name, answer in scores.get("judges", {}).items():
        first = ", its first guess" if answer["top1"] else ", among its first five" if answer["top5"] else ""
        found.append((name, f"{answer['probability']:.1%}{first}", "its probability of the class; it took no part"))
    return found
