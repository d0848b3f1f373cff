"""Long runs in miniature: whether memory, files, threads and processes stay as they are.  For docs/soak.md.

    python bench/soak.py ascents           # 2,000 tiny images in one process
    python bench/soak.py atlas             # an atlas of 5,000 tiny units by four processes; --count 500: fewer
    python bench/soak.py studio            # 200 runs in a tab of a studio
    python bench/soak.py tabs              # ten tabs of a studio that run at once

Each prints, as a table in Markdown, what there is at 0, 10, 50 and 100 % of its work (of an atlas at 98), and whether
that is flat: at the end within 5 % of the memory at 10 %, and no files, threads and processes more.  The networks are
small and of random weights, since what leaks does so whatever an image shows.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file
from torch import nn

import phosphene
from phosphene import Network, Preprocessing, Recipe
from phosphene.picture import save_picture

MARKS = (0.0, 0.1, 0.5, 1.0)
ALLOWED = 0.05  # of the memory at a tenth of the work, by which it may be more at the end
TINY = "timm:test_resnet"


@dataclass(frozen=True)
class Reading:
    """What a process and its children hold.

    Attributes:
        share: of the work that is done.
        memory: bytes of main memory; what processes share counts for each.
        files: open file descriptors.
        threads, children: how many.
    """

    share: float
    memory: int
    files: int
    threads: int
    children: int


def read(share: float, process: psutil.Process) -> Reading:
    """What a process and its children hold now."""
    memory = files = threads = 0
    children = process.children(recursive=True)
    for each in [process, *children]:
        with suppress(psutil.NoSuchProcess):
            memory += each.memory_info().rss
            files += each.num_fds() if os.name == "posix" else each.num_handles()
            threads += each.num_threads()
    return Reading(share, memory, files, threads, len(children))


def is_flat(readings: list[Reading]) -> bool:
    """Whether there is at the end what there was at a tenth."""
    early, last = readings[1], readings[-1]
    return (
        last.memory <= early.memory * (1 + ALLOWED)
        and last.files <= early.files
        and last.threads <= early.threads
        and last.children <= early.children
    )


def table(title: str, readings: list[Reading], seconds: float) -> str:
    """The readings in Markdown."""
    lines = [f"**{title}**: {'flat' if is_flat(readings) else 'NOT FLAT'}, {seconds:.0f} s", ""]
    lines += ["| done | memory, MB | open files | threads | child processes |", "|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {each.share:.0%} | {each.memory / 1e6:.0f} | {each.files} | {each.threads} | {each.children} |"
        for each in readings
    ]
    return "\n".join(lines)


class Marks:
    """Readings at some shares of the work."""

    def __init__(self, count: int, process: psutil.Process, marks: tuple[float, ...] = MARKS):
        self.at = {round(share * count): share for share in marks}
        self.process = process
        self.readings: list[Reading] = []

    def __call__(self, done: int) -> None:
        if done in self.at:
            self.readings.append(read(self.at[done], self.process))
            print(self.readings[-1], file=sys.stderr, flush=True)


# One process.


class Tiny(nn.Module):
    """A classifier of three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 64, 3, stride=2, padding=1)
        self.head = nn.Linear(64, 100)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.conv2(torch.relu(self.norm(self.conv1(images)))))
        return self.head(maps.mean((2, 3)))


def tiny_network() -> Network:
    """A network of a new module each time, with the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return phosphene.open(Tiny().eval(), Preprocessing(size=24, mean=0.5, std=0.25), name="tiny")


RECIPES = ("natural", "clip", "naive", "draft", "median")
UNITS = ("class:3", "conv2:5", "conv1:2", "mean(conv2:7)", "class:4 - class:9")


def ascend_once(number: int, folder: Path, network: Network | None = None) -> None:
    """One tiny image, saved, judged and shown, by a recipe, of a unit and a size that go round."""
    recipe = Recipe.load(RECIPES[number % len(RECIPES)]).override({"steps": 1 + number % 3})
    network = network or tiny_network()
    result = phosphene.ascend(
        network, UNITS[number % len(UNITS)], recipe, seed=number, options=phosphene.RunOptions(device="cpu")
    )
    if number % 10 == 0:
        result.save(folder)  # with its figures, which take three times as long as all else
    else:
        save_picture(result[0], folder)
    result.judge([], device="cpu")


def soak_ascents(count: int) -> list[Reading]:
    """Images in this process; every other one of a network that was opened for it."""
    torch.set_num_threads(1)
    marks, network = Marks(count, psutil.Process()), tiny_network()
    with tempfile.TemporaryDirectory() as folder:
        marks(0)
        for number in range(count):
            ascend_once(number, Path(folder) / str(number % 50), None if number % 2 else network)
            marks(number + 1)
    gc.collect()
    print(f"networks in memory at the end: {sum(isinstance(each, Network) for each in gc.get_objects())}")
    return marks.readings


# An atlas.


def soak_atlas(count: int, makers: int = 4) -> list[Reading]:
    """An atlas of one layer, by several processes."""
    from phosphene.atlas import store as atlas_store

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "wide.py").write_text(_WIDE.format(channels=count))
        (place / "wide.toml").write_text("size = 24\n")  # of 224 pixels a layer of 5,000 channels would take gigabytes
        (place / "quick.toml").write_text(Recipe.load("clip").override({"steps": 1}).to_toml())
        environment = {**os.environ, "PYTHONPATH": str(Path(phosphene.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        base = [sys.executable, "-m", "phosphene.cli", "atlas"]
        plan = ["plan", "atlas", "-n", "wide.py:Wide", "--layers", "conv", "-r", "quick.toml", "--judges", "none"]
        subprocess.run([*base, *plan], cwd=place, env=environment, check=True)
        command = [*base, "run", "atlas", "--workers", str(makers), "--device", "cpu", "-q"]
        with subprocess.Popen(command, cwd=place, env=environment) as run:
            # The last while there still are processes.
            marks = Marks(count, psutil.Process(run.pid), (0.0, 0.1, 0.5, 0.98))
            left = sorted(marks.at)
            while left and run.poll() is None:
                done = len(list((place / "atlas").rglob("*.png")))
                if done >= left[0]:
                    marks(left.pop(0))
                time.sleep(0.2)
        print(f"{len(atlas_store.Store(place / 'atlas').rows())} units, exit status {run.returncode}")
    return marks.readings


_WIDE = """
import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, {channels}, 3, padding=1)
        self.head = nn.Linear({channels}, 10)

    def forward(self, images):
        return self.head(torch.relu(self.conv(images)).mean((2, 3)))
"""


# The studio.


class Tab:
    """A page of a studio without a browser: its HTML is read, and its WebSocket spoken to as its own script does.

    Args:
        address: of the studio, with a "/" at its end.

    Attributes:
        place: the page's own address, to which it was led.
        elements: of the page, by id, as they stand.
    """

    def __init__(self, address: str):
        from websockets.sync.client import connect

        with urllib.request.urlopen(address, timeout=60) as answer:
            self.place, html = answer.url, answer.read().decode()
        self.client = re.search(r"client_id\W+([0-9a-f-]{36})", html)[1]  # type: ignore[index]
        text = re.search(r"parseElements\(String\.raw`(.*?)`\)", html, re.DOTALL)[1]  # type: ignore[index]
        for name, letter in (("lt", "<"), ("gt", ">"), ("#96", "`"), ("#36", "$"), ("amp", "&")):
            text = text.replace(f"&{name};", letter)
        self.elements: dict[str, Any] = json.loads(text)
        me = f"client_id={self.client}&tab_id={self.client}&document_id={self.client}"
        path = f"_nicegui_ws/socket.io/?EIO=4&transport=websocket&implicit_handshake=true&next_message_id=0&{me}"
        origin = address.rstrip("/")
        place = address.replace("http", "ws", 1) + path
        self.connecting = connect(place, origin=origin, max_size=None, proxy=None)  # type: ignore[arg-type]
        self.socket = self.connecting.__enter__()
        self.lock = threading.Condition()
        self.left = ""  # why it hears no more, as when the pings of a busy machine come too late
        self.socket.recv()  # how the server pings
        self.socket.send("40")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for message in self.socket:
                if message == "2":
                    self.socket.send("3")
                elif str(message).startswith("42"):
                    kind, data = json.loads(message[2:])
                    if kind == "update":
                        self._update(data)
        except Exception as error:
            self.left = f" ({error!r})"
        with self.lock:
            self.left = self.left or " (it was hung up)"
            self.lock.notify_all()

    def _update(self, data: dict[str, Any]) -> None:
        last = data.pop("_id")
        with self.lock:
            for name, element in data.items():
                if element is None:
                    self.elements.pop(name, None)
                else:
                    self.elements[name] = element
            self.lock.notify_all()
        self.emit("ack", {"next_message_id": last + 1})

    def emit(self, kind: str, data: dict[str, Any]) -> None:
        self.socket.send("42" + json.dumps([kind, {"client_id": self.client, **data}]))

    def event(self, element: str, kind: str, *values: Any) -> None:
        """An event of an element, as the page's script would send it."""
        listeners = self.elements[element]["events"]
        listener = next(each["listener_id"] for each in listeners if each["type"] == kind)
        self.emit("event", {"id": int(element), "listener_id": listener, "args": [json.dumps(each) for each in values]})

    def find(self, fits: Callable[[dict[str, Any]], bool]) -> str:
        with self.lock:
            return next(name for name, element in self.elements.items() if fits(element))

    def labelled(self, label: str) -> str:
        """The element that has this label."""
        return self.find(lambda element: label in (_props(element).get("label"), _props(element).get("aria-label")))

    def can(self, label: str) -> bool:
        """Whether a button can be pressed."""
        return not _props(self.elements[self.labelled(label)]).get("disable")

    def press(self, label: str) -> Tab:
        self.event(self.labelled(label), "click", {})
        return self

    def pick(self, label: str, words: str) -> Tab:
        """Pick what is called so, or begins so, in a list."""
        name = self.labelled(label)
        options = _props(self.elements[name])["options"]
        found = next(each for each in options if each["label"].startswith(words))
        self.event(name, "update:modelValue", found)
        return self

    def fill(self, label: str, value: Any) -> Tab:
        name = self.labelled(label)
        kinds = [each["type"] for each in self.elements[name]["events"]]
        self.event(name, next(kind for kind in kinds if kind.startswith("update:")), value)
        return self

    def texts(self) -> list[str]:
        """What the page says: its state and its alerts."""
        return [
            element.get("text", "")
            for element in self.elements.values()
            if _props(element).get("role") in ("status", "alert") and "hidden" not in element.get("class", [])
        ]

    def says(self, *words: str, timeout: float = 300.0) -> str:
        """What the page says, as soon as it has one of these words."""

        def said() -> str | None:
            return next((text for text in self.texts() if any(word in text for word in words)), None)

        return self.wait(said, f"none of {words}", timeout)

    def wait(self, found: Callable[[], Any], wanted: str, timeout: float = 300.0) -> Any:
        """What is found on the page, as soon as it is something."""
        with self.lock:
            if not self.lock.wait_for(lambda: found() or self.left, timeout) or self.left:
                raise TimeoutError(f"the page says {self.texts()}, and {wanted}{self.left}")
            return found()

    def picture(self) -> str:
        """The image that is shown, as a data URL."""
        return str(_props(self.elements[self.find(lambda each: _props(each).get("id") == "picture")]).get("src", ""))

    def open(self, network: str, weights: str | None = None) -> Tab:
        self.pick("Network", network)
        if weights is not None:
            self.pick("Weights", weights)
        return self.press("Open")

    def begin(self, seed: int, recipe: str = "clip", steps: int = 3) -> Tab:
        """Run, with a seed that the last run did not have; see `end`."""
        self.before, shown = self.picture(), self.labelled("steps")
        if _props(self.elements[self.labelled("Recipe")])["model-value"]["label"] != recipe:
            self.pick("Recipe", recipe)  # for which all controls are made anew
            self.wait(lambda: any(self._is_steps(name) for name in self.elements if name != shown), "its old controls")
        return self.fill("Seed", seed).fill("steps", steps).press("Run")

    def _is_steps(self, name: str) -> bool:
        return _props(self.elements[name]).get("label") == "steps"

    def end(self) -> str:
        """What the page says when the run that was begun has ended and is measured."""

        def is_new() -> bool:
            return self.picture().startswith("data:image/png") and self.picture() != self.before

        self.wait(is_new, "there is no new image")
        return self.says("steps, ")

    def close(self) -> None:
        self.connecting.__exit__(None, None, None)


def _props(element: dict[str, Any]) -> dict[str, Any]:
    return element.get("props") or {}


_SERVE = """
import sys
from phosphene.studio.server import Limits, serve
if __name__ == "__main__":
    ready = lambda page: print(page, flush=True)
    limits = Limits(runs=10, tabs=12, patience=15)
    serve([sys.argv[1]], out=sys.argv[2], port=0, device="cpu", limits=limits, on_ready=ready)
"""


@contextmanager
def studio(place: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A studio with the weights of a tiny network: its address and its process."""
    (place / "files").mkdir()
    save_file(phosphene.open(TINY, pretrained=False).module.state_dict(), place / "files" / "tiny.safetensors")
    (place / "serve.py").write_text(_SERVE)
    environment = {**os.environ, "PYTHONPATH": str(Path(phosphene.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "serve.py", str(place / "files"), str(place / "out")]
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), psutil.Process(process.pid)
        finally:
            process.terminate()


def opened_tab(address: str) -> Tab:
    """A tab that has opened the tiny network."""
    tab = Tab(address)
    tab.says("ready")
    tab.open(TINY, "files/tiny")
    tab.says("opening")
    tab.says("ready")
    return tab


def come_and_go(address: str, process: psutil.Process) -> None:
    """A tab is opened and closed, and its process waited for, which outlives it for a while."""
    before = len(process.children())
    opened_tab(address).close()
    deadline = time.monotonic() + 120
    while len(process.children()) > before and time.monotonic() < deadline:
        time.sleep(0.5)


def soak_studio(count: int) -> list[Reading]:
    """Runs in one tab: each is watched and measured, every other one kept; at every 25th another tab comes and goes."""
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as (address, process):
        marks, tab = Marks(count, process), opened_tab(address)
        marks(0)
        for number in range(count):
            if number % 25 == 24:
                come_and_go(address, process)
            tab.begin(number)
            tab.end()
            if number % 2:
                tab.press("Keep").says("kept: ")
            marks(number + 1)
    return marks.readings


def soak_tabs(count: int) -> list[Reading]:
    """Tabs that run at once, ten times."""
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as (address, process):
        tabs, marks = [opened_tab(address) for _ in range(count)], Marks(10, process)
        marks(0)
        for number in range(10):
            for tab in tabs:
                tab.begin(number)
            for tab in tabs:
                tab.end()
            marks(number + 1)
    return marks.readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    soaks: dict[str, tuple[Callable[[int], list[Reading]], int, str]] = {
        "ascents": (soak_ascents, 2000, "{} ascents in one process"),
        "atlas": (soak_atlas, 5000, "an atlas of {} units by four processes"),
        "studio": (soak_studio, 200, "{} runs in the studio"),
        "tabs": (soak_tabs, 10, "{} tabs of the studio, ten runs in each, all at once"),
    }
    parser.add_argument("what", choices=soaks)
    parser.add_argument("--count", type=int, help="how many, instead of all")
    asked = parser.parse_args()
    soak, count, title = soaks[asked.what]
    count = asked.count or count
    begun = time.monotonic()
    readings = soak(count)
    print(table(title.format(f"{count:,}"), readings, time.monotonic() - begun))


if __name__ == "__main__":
    main()
