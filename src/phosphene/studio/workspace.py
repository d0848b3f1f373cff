"""What goes on at one address of the studio: a network, a run, its image and what was picked, whoever is looking."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

from phosphene.errors import InputError
from phosphene.processes import share_threads
from phosphene.recipes.recipe import Recipe
from phosphene.studio.bounds import Bounds
from phosphene.studio.controls import change, with_inputs
from phosphene.studio.messages import (
    DROPPED,
    MAX_MADE,
    AscendCommand,
    ChangeCommand,
    CommandFailed,
    ImageFinished,
    ImageSaved,
    JudgeCommand,
    NetworkOpened,
    OpenCommand,
    RunInputs,
    SaveCommand,
    ScoreCard,
    StepEvent,
    StopCommand,
    StudioConfig,
)
from phosphene.studio.scores import describe_outcome
from phosphene.studio.sessions import RunSlots, Session

MAX_DROPPED = 4
"""Images that were dropped onto a page and are held for it: the last ones."""

_FIRST_TAB = 60.0  # seconds in which a browser that was led to an address comes to show it

# What a workspace is doing.
IDLE, OPENING, WAITING, RUNNING, MEASURING = "idle", "opening", "waiting", "running", "measuring"


class View(Protocol):
    """A tab that shows a workspace; each method draws one part of it anew."""

    def show_state(self) -> None: ...
    def show_alerts(self) -> None: ...
    def show_made(self) -> None: ...
    def show_network(self) -> None: ...
    def show_recipe(self) -> None: ...
    def show_picture(self) -> None: ...
    def show_scores(self) -> None: ...
    def show_inputs(self) -> None: ...
    def show_pick(self, name: str, value: Any) -> None: ...


@dataclass(frozen=True)
class ShownImage:
    """An image as a page shows it: a file of a kind, such as "png", and the unit in words."""

    data: bytes
    kind: str
    title: str


@dataclass
class MadeImage:
    """An image that was made here.

    Attributes:
        image: as its process told of it.
        scores: what was measured of it.
        place: where it is kept; empty before.
        is_saved: whether it is kept with all that is known of it.
        can_be_kept, can_be_judged: whether the process still has it, and the network that it is of.
    """

    image: ImageFinished
    scores: dict[str, Any]
    place: str = ""
    is_saved: bool = False
    can_be_kept: bool = True
    can_be_judged: bool = True


class Studio:
    """All workspaces, each at an address of its own.

    Args:
        config: what the studio was started with.
        devices: of the workspaces, in turn.
        bounds: of each one's process.
        runs: turns of the runs.
        tabs: workspaces that may have a process at once.
        patience: seconds that a workspace lives on after the last tab that showed it has left.

    Attributes:
        saving: turns for keeping an image, one at a time, so that two never choose one place.
        workspaces: those that live, by token.
        active: those that have, or had, a process.
    """

    def __init__(
        self,
        config: StudioConfig,
        devices: Sequence[str],
        bounds: Bounds,
        runs: RunSlots,
        tabs: int,
        patience: float = 300.0,
    ):
        self.config, self.bounds, self.runs, self.tabs, self.patience = config, bounds, runs, tabs, patience
        self.saving = RunSlots(1)
        self.devices = cycle(devices)
        self.workspaces: dict[str, Workspace] = {}
        self.active: set[Workspace] = set()

    def begin(self) -> Workspace:
        """A new workspace, at an address that nobody can guess; it ends unless a tab comes to show it."""
        workspace = Workspace(self, secrets.token_urlsafe(16))
        self.workspaces[workspace.token] = workspace
        workspace.wait_for_tabs(max(_FIRST_TAB, self.patience))
        return workspace

    def admit(self, workspace: Workspace) -> bool:
        """Whether a workspace may have a process; for it the one that was left longest and makes nothing is ended."""
        if workspace not in self.active and len(self.active) >= self.tabs:
            left = [each for each in self.active if not each.views and each.state == IDLE]
            if not left:
                return False
            min(left, key=lambda each: each.left).end()
        self.active.add(workspace)
        return True

    def close(self) -> None:
        """End all workspaces with their processes."""
        processes = [each.process for each in self.active if each.process is not None]
        for workspace in {*self.workspaces.values(), *self.active}:
            workspace.end()
        for process in processes:
            process.ended.wait(5)


class Workspace:
    """One address: what its process does, and what its tabs show.

    Attributes:
        token: of its address.
        state: what it is doing; `words` say it.
        views: the tabs that show it.
        left: when the last of them left.
        picks: what was picked, by the name of the field.
        recipe: that the next run begins by, or this one goes on by.
        inputs: that the last run was given besides.
        dropped: image files that were dropped onto the page, by name, the last `MAX_DROPPED`.
        objectives: of the image that is shown, before each step; `share` is how much of it is made.
        frame: the image on its way, as it was last seen.
        made: what was made, the last images.
        current: which of them is shown; None: that on its way.
        is_stopping: whether what it does has been told to stop.
        alerts: what went wrong, by where it is said: "network" or "stage".
    """

    def __init__(self, studio: Studio, token: str):
        self.studio, self.token = studio, token
        self.process: Session | None = None
        self.network: NetworkOpened | None = None
        self.state, self.words = OPENING, "connecting"
        self.views: set[View] = set()
        self.left = time.monotonic()
        self.picks: dict[str, Any] = {}
        self.recipe = Recipe.load("natural")
        self.title = ""
        self.inputs = RunInputs()
        self.dropped: dict[str, bytes] = {}
        self.objectives: list[float] = []
        self.share = 0.0
        self.frame: ShownImage | None = None
        self.made: list[MadeImage] = []
        self.current: MadeImage | None = None
        self.number = self.number_awaited = 0  # of the last image that was asked for; that is measured last now
        self.is_stopping = self.has_begun = False
        self.alerts = {"network": "", "stage": ""}
        self._end_timer: asyncio.TimerHandle | None = None
        self.handlers: dict[type, Callable[[Any], None]] = {
            NetworkOpened: self.on_opened,
            StepEvent: self.on_step,
            ImageFinished: self.on_finished,
            ScoreCard: self.on_scores,
            ImageSaved: self.on_saved,
            CommandFailed: self.on_failed,
        }

    # Its tabs

    def attach(self, view: View) -> None:
        """A tab shows it from now on, also one that was slow and comes when it has ended."""
        self.studio.workspaces[self.token] = self
        self.views.add(view)
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    def detach(self, view: View) -> None:
        """A tab has left; with the last one the time begins after which it ends."""
        if view not in self.views:  # it was loaded, and never shown
            return
        self.views.discard(view)
        if not self.views and self.token in self.studio.workspaces:
            self.left = time.monotonic()
            self.wait_for_tabs(self.studio.patience)

    def wait_for_tabs(self, seconds: float) -> None:
        """End it after so many seconds, unless a tab comes."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        """End it, with its process: its address leads nowhere from now on."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        self.studio.workspaces.pop(self.token, None)
        self.studio.active.discard(self)
        self._end_process()

    def show(self, *parts: str) -> None:
        """Have all tabs draw parts anew."""
        for view in list(self.views):
            for part in parts:
                getattr(view, f"show_{part}")()

    def alert(self, place: str, sentence: str) -> None:
        """Say what is wrong; an empty sentence hides what was said before."""
        self.alerts[place] = sentence
        self.show("alerts")

    def pick(self, name: str, value: Any, by: View) -> None:
        """Something was picked in a tab: the others follow."""
        self.picks[name] = value
        for view in self.views - {by}:
            view.show_pick(name, value)

    # Its process

    def _is_let_in(self) -> bool:
        """Whether this may have a process, and has one."""
        if not self.studio.admit(self):
            self.now(IDLE, "")
            most = self.studio.tabs
            self.alert("network", f"{most} pages are open, and no more can be: close one, and press Open")
            return False
        if self.process is None:
            config = replace(self.studio.config, device=next(self.studio.devices))
            self.process = Session(config, self.studio.bounds, self.hear, self.on_process_lost)
        self.has_begun = True
        return True

    def _end_process(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None
        self.network = self.frame = None
        for made in self.made:
            made.can_be_kept = made.can_be_judged = False
        self.studio.runs.end(self)
        self.studio.saving.end(self)

    def on_process_lost(self, why: str) -> None:
        """The process has ended by itself, or went too far: another begins when a network is opened."""
        self._give_up(f"this page's process was lost, {why}: open a network again")

    def _give_up(self, sentence: str) -> None:
        self._end_process()
        self.alert("network", sentence)
        self.now(IDLE, "")

    # Commands

    def tell(self, command: Any) -> None:
        if self.process is not None:
            self.process.tell(command)

    def open(self, command: OpenCommand) -> None:
        if not self._is_let_in():
            return
        self.network = self.frame = None
        for made in self.made:
            made.can_be_judged = False
        self.alert("network", "")
        name = Path(command.network).name if Path(command.network).is_absolute() else command.network
        self.now(OPENING, f"opening {name}")
        self.tell(command)

    def run(self, unit: str, title: str, seed: int, inputs: RunInputs) -> None:
        """Make images of a unit, as it is spelled and in words, when its turn comes.

        Raises:
            InputError: the recipe cannot have such a size or start.
        """
        with_inputs(self.recipe, inputs)
        self.alert("stage", "")
        self.now(WAITING, "")
        if not self.studio.runs.ask(self, lambda: self._begin_run(unit, title, seed, inputs)):
            self.now(WAITING, f"waiting: {self.studio.runs.running} other images are on their way")

    def _begin_run(self, unit: str, title: str, seed: int, inputs: RunInputs) -> None:
        self.objectives, self.current, self.frame = [], None, None
        self.title, self.share, self.inputs = title, 0.0, inputs
        first, self.number = self.number + 1, self.number + inputs.facets
        self.number_awaited = self.number
        self.show("picture", "scores", "made")
        self.now(RUNNING, "beginning")
        start, photograph = (self._source(name) for name in (inputs.start, inputs.photograph))
        recipe, threads = with_inputs(self.recipe, inputs), share_threads(self.studio.runs.running)
        self.tell(AscendCommand(unit, recipe, seed, threads, first, inputs.facets, start, photograph))

    def _source(self, name: str) -> str | bytes | None:
        """An image as a process is told of it: a path, or the bytes of one that was dropped."""
        return self.dropped.get(name.removeprefix(DROPPED), name) if name else None

    def drop(self, name: str, data: bytes) -> None:
        """An image file was dropped onto the page."""
        self.dropped.pop(name, None)
        self.dropped[name] = data
        while len(self.dropped) > MAX_DROPPED:
            self.dropped.pop(next(iter(self.dropped)))
        self.show("inputs")

    def select(self, made: MadeImage | None) -> None:
        """Show an image again that was made; None: the one on its way."""
        self.current = made
        if self.state == IDLE:
            self.words = self._outcome()
        self.show("picture", "scores", "made", "state")

    def _outcome(self) -> str:
        return describe_outcome(None if self.current is None else self.current.image)

    def stop(self) -> None:
        """End what is being done; what does not end by itself is ended with its process when this is asked twice."""
        if self.state == WAITING:
            self.studio.runs.end(self)
            self.now(IDLE, "")
        elif self.state == OPENING or (self.is_stopping and self.state in (RUNNING, MEASURING)):
            self._give_up("what this page did was stopped, with its process: open a network again")
        elif self.state == RUNNING:
            self.tell(StopCommand())
            self.is_stopping = True
            self.now(RUNNING, "stopping after this step; Stop again ends it at once, and its image is lost")
        elif self.state == MEASURING:
            self.is_stopping = True
            self.now(MEASURING, "this takes a moment; Stop again ends it at once, and an image not kept is lost")

    def save(self) -> None:
        """Keep the image that is shown."""
        self.alert("stage", "")
        if self.current is not None:
            command = SaveCommand(self.current.image.number)
            self.studio.saving.ask(self, lambda: self.tell(command))

    def judge(self, photographs: str) -> None:
        """Ask other networks what they see in the image that is shown, and compare it with photographs, if given."""
        if self.current is None:
            return
        self.alert("stage", "")
        self.now(MEASURING, "asking other networks")
        self.number_awaited = self.current.image.number
        self.tell(JudgeCommand(self.current.image.number, photographs or None))

    # The recipe

    def load_recipe(self, name: str) -> None:
        """The recipe of a name, as it ships, for the network that is open."""
        if self.network is not None and self.state != RUNNING:
            self.recipe = Recipe.load(name).for_network(self.network)
            self.show("recipe")

    def change(self, field: str, value: Any, by: View) -> str:
        """Change a field of the recipe, also on the way, or leave it; returns what is wrong, if anything."""
        if value is None:
            return "expected a number"
        if self.state == RUNNING and self.inputs.facets > 1:
            return "is settled with the first step, since facets are made together"
        try:
            recipe = change(self.recipe, field, value)
        except InputError as error:
            return str(error).partition(": ")[2] or str(error)
        if self.state == RUNNING and recipe.resume_key() != self.recipe.resume_key():
            return "is settled with the first step: stop, and run again"
        if recipe != self.recipe:
            self.recipe = recipe
            if self.state == RUNNING:
                self.tell(ChangeCommand(with_inputs(recipe, self.inputs)))
            for view in self.views - {by}:
                view.show_recipe()
        return ""

    # Messages

    def hear(self, message: Any) -> None:
        """What the process says."""
        self.handlers[type(message)](message)

    def on_opened(self, network: NetworkOpened) -> None:
        self.network = network
        self.show("network")
        self.load_recipe(str(self.picks.get("recipe", "natural")))
        self.now(IDLE, "ready")

    def on_step(self, event: StepEvent) -> None:
        self.objectives += event.objectives
        steps = self.recipe.steps
        self.share = event.step / steps
        if event.jpeg:
            self.frame = ShownImage(event.jpeg, "jpeg", self.title)
        if self.current is None:
            self.show("picture")
        if not self.is_stopping:
            sure = "" if event.probability is None else f", own probability {event.probability:.0%}"
            self.words = f"step {event.step} of {steps}{sure}"
            self.show("state")

    def on_finished(self, image: ImageFinished) -> None:
        self.current = MadeImage(image, {})
        self.made = [*self.made, self.current][-MAX_MADE:]
        self.share = image.steps / self.recipe.steps
        self.show("picture", "made")
        self.now(MEASURING, "measuring the image")

    def _made(self, number: int) -> MadeImage | None:
        return next((made for made in self.made if made.image.number == number), None)

    def on_scores(self, card: ScoreCard) -> None:
        made = self._made(card.number)
        if made is not None:
            made.scores = card.scores
            made.is_saved = made.is_saved and not card.scores.get("judges")  # to be kept again, with what they said
        self.show("scores")
        if self.state == MEASURING and card.number >= self.number_awaited:
            self.studio.runs.end(self)
            self.now(IDLE, self._outcome())

    def on_saved(self, saved: ImageSaved) -> None:
        self.studio.saving.end(self)
        made = self._made(saved.number)
        if made is not None:
            made.is_saved, made.place = True, saved.place
        self.show("made")
        self.now(self.state, f"kept: {saved.place}")

    def on_failed(self, failed: CommandFailed) -> None:
        if failed.command == "OpenCommand":
            self.show("network")
            self.alert("network", failed.sentence)
        else:
            self.alert("stage", failed.sentence)
        if failed.command == "SaveCommand":
            self.studio.saving.end(self)
        if failed.command in ("AscendCommand", "JudgeCommand"):
            self.studio.runs.end(self)
        if failed.command in ("OpenCommand", "AscendCommand", "JudgeCommand"):
            self.now(IDLE, "no network is open" if self.network is None else self._outcome())
        self.show("state")

    def now(self, state: str, words: str) -> None:
        """Say what is being done."""
        self.is_stopping = self.is_stopping and self.state == state
        self.state, self.words = state, words
        self.show("state")
