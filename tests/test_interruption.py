import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import followers
import numpy as np
import psutil
import pytest
from PIL import Image
from tiny import normed

import phosphene
from phosphene import interruption, processes
from phosphene.cli.program import main
from phosphene.processes import WorkerProcess

SIGNALS = [signal.SIGINT, signal.SIGTERM]
SMALL = ["--size", "32", "-q"]
LAYER = "blocks.0.0.bn1.act"


@pytest.fixture(autouse=True)
def _no_signal_ends_the_tests():
    """As under a shell that ignores neither; a signal that comes late is not the tests' end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def sent(number, seconds):
    """This process gets a signal after so many seconds, if what is within takes so long."""
    over = threading.Event()

    def send():
        if not over.wait(seconds):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def check_whole(folder):
    """All files of a folder can be read, and none lies beside its place."""
    for path in filter(os.path.isfile, folder.rglob("*")):
        assert not path.name.startswith("."), path
        if path.suffix in (".png", ".gif"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".json":
            json.loads(path.read_text())


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_lets_the_step_end_and_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    result = phosphene.ascend(
        normed(),
        ["class:cat", "class:dog"],
        "draft",
        callbacks=phosphene.Callbacks(progress=lambda progress: progress.work > 0.1 and signal.raise_signal(number)),
    )
    assert result.interrupted
    assert [picture.stopped for picture in result] == ["interrupted"] * 2
    assert 0 < result[0].steps < 40
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_is_answered_as_before(number):
    calls = []
    signal.signal(number, lambda *_: calls.append(number))
    with interruption.interruptible() as stop:
        signal.raise_signal(number)
        assert stop.is_set()
        assert not calls
        signal.raise_signal(number)
    assert calls == [number]


def test_within_another_nothing_is_begun_after_an_interruption():
    with interruption.interruptible() as stop:
        signal.raise_signal(signal.SIGTERM)
        result = phosphene.ascend(normed(), ["class:cat"], "draft")
    assert stop.is_set()
    assert result.interrupted
    assert result.not_started == ["class:0"]


def test_another_thread_touches_no_handler():
    before, made = [signal.getsignal(each) for each in SIGNALS], []
    thread = threading.Thread(target=lambda: made.append(phosphene.ascend(normed(), "class:cat", "draft")))
    thread.start()
    while thread.is_alive():
        assert [signal.getsignal(each) for each in SIGNALS] == before
        time.sleep(0.005)
    assert not made[0].interrupted


def test_a_handler_that_is_not_pythons_stays(monkeypatch):
    touched = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: touched.append(arguments))
    with interruption.interruptible():
        pass
    assert touched == []


# The command line, in this process.


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with images and photographs, of which each verb gets its own."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "photographs").mkdir()
    draw = np.random.default_rng(1)
    for index in range(12):
        noise = Image.fromarray(draw.integers(0, 255, (12, 12, 3), np.uint8))
        noise.resize((400, 400)).save(folder / f"photographs/{index}.png")
    assert main(["classes", "1", "2", *SMALL, "--steps", "2", "-o", str(folder / "made")]) == 0
    return folder


VERBS = {
    "classes": ["classes", "1", "2", "3", *SMALL, "--steps", "900", "--batch", "1", "-o", "OUT"],
    "dream": ["dream", "IN/photographs/1.png", LAYER, *SMALL, "--steps", "900", "--animate", "9", "-o", "OUT"],
    "reproduce": ["reproduce", "naive", "-n", "efficientnet_lite0", *SMALL, "--steps", "900", "-o", "OUT"],
    "judge": ["judge", *["IN/made"] * 60, "--dry", "-q"],
    "again": ["again", *["IN/made/001_goldfish.png"] * 200, "-q", "-o", "OUT"],
    "statistics": ["statistics", "IN/photographs", "-n", "efficientnet_lite0", "-q", "-o", "OUT/x.safetensors"],
    "doctor": ["doctor", "-q"],
    "profile": ["profile", "--size", "64", "-q"],
    "search": ["search", "--layer", LAYER, "--count", "2", "--steps", "40", "--dry", "-q", "-o", "OUT"],
    "atlas plan": ["atlas", "plan", "OUT/a", "--layers", LAYER, "--size", "32", "--steps", "900", "-q"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_ends_with_130_one_line_and_whole_files(verb, inputs, tmp_path, capsys):
    draw = random.Random(verb)
    before = psutil.Process().children()  # of other tests
    arguments = [word.replace("IN", str(inputs)).replace("OUT", str(tmp_path / "out")) for word in VERBS[verb]]
    for number in SIGNALS:
        with sent(number, draw.uniform(0.05, 0.5)):
            status = main(arguments)
        err = capsys.readouterr().err
        if status == 0 or (status == 1 and verb == "doctor"):
            assert "interrupted" not in err  # it was faster
            continue
        assert status == 130
        assert err.count("\n") == err.count("phosphene: interrupted") == 1
        check_whole(tmp_path)
    left = [child for child in psutil.Process().children() if child not in before]
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)


def test_pressed_twice_a_verb_ends_at_once_with_whole_files(tmp_path, capsys, monkeypatch):
    from phosphene.ascent.loop import Loop

    real, pressed = Loop.step, []

    def step(*arguments, **options):
        while len(pressed) < 2:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(Loop, "step", step)
    assert main(["classes", "1", "2", *SMALL, "--steps", "500", "-o", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "phosphene: interrupted\n"
    check_whole(tmp_path)


class Swallows:
    """Its end is a finalizer, of which Python drops what is raised in it."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["classes", "statistics"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_is_lost_in_a_finalizer_is_answered_all_the_same(
    verb, inputs, tmp_path, capsys, monkeypatch
):
    from phosphene.networks import open as opening

    real = opening.open_network

    def opens(*arguments, **options):
        Swallows()
        return real(*arguments, **options)

    monkeypatch.setattr(opening, "open_network", opens)
    arguments = [word.replace("IN", str(inputs)).replace("OUT", str(tmp_path / "out")) for word in VERBS[verb]]
    assert main(arguments) == 130
    assert capsys.readouterr().err == "phosphene: interrupted\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing was begun


def test_what_a_library_makes_of_an_interruption_is_one(monkeypatch, capsys):
    from phosphene.cli import running

    def run(arguments):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("numpy.core failed to import") from error

    monkeypatch.setattr(running, "run", run)
    assert main([]) == 130
    assert capsys.readouterr().err == "phosphene: interrupted\n"


# Processes that work for another.


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_processes_are_told_and_those_that_go_on_are_ended_without_traces(tmp_path):
    willing, stubborn = (WorkerProcess(followers.work, str(tmp_path), name) for name in ("willing", "stubborn"))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []).isdisjoint(SIGNALS)
    until(lambda: len(list(tmp_path.glob("*.following"))) == 2)
    assert (tmp_path / "willing.following").read_text() == "SIGINT SIGTERM"
    for _ in range(3):
        for worker in (willing, stubborn):
            worker.interrupt()  # often is as good as once
    willing.process.join(60)
    assert willing.process.exitcode == 0
    until(lambda: (tmp_path / "stubborn.told").exists())
    assert stubborn.process.is_alive()
    processes.end([willing, stubborn], patience=30)
    assert stubborn.process.exitcode == 130
    names = {path.name for path in tmp_path.iterdir()}
    assert "willing.ended" not in names
    assert "stubborn.ended" in names
    assert not any(name.startswith(".") for name in names)


def test_a_process_that_has_not_begun_its_work_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW_TO_IMPORT", "1")
    worker = WorkerProcess(followers.work, str(tmp_path), "x")
    os.kill(worker.process.pid, signal.SIGTERM)  # held back
    time.sleep(0.3)
    assert worker.process.is_alive()
    worker.interrupt()
    worker.process.join(60)
    assert worker.process.exitcode == -signal.SIGKILL


def test_what_processes_say_is_heard_and_those_that_are_lost_are_noticed_at_once(tmp_path):
    kind, lost = (WorkerProcess(followers.echo) for _ in range(2))
    kind.pipe.send("hello")
    assert list(processes.receive([kind, lost], 60)) == [(kind, "hello")]
    assert list(processes.receive([kind, lost], 0.1)) == []
    lost.process.kill()
    assert list(processes.receive([kind, lost], 60)) == [(lost, None)]
    processes.end([kind, lost])


# Processes that begin from nothing.


def begun(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "phosphene", *arguments], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


@pytest.mark.slow
def test_a_signal_amid_the_imports_is_one_line():
    for number in SIGNALS:
        process = begun("layers", stdout=subprocess.DEVNULL)
        while not any("torch" in file.path for file in psutil.Process(process.pid).memory_maps()):
            time.sleep(0.002)  # it begins to import torch
        process.send_signal(number)
        assert (process.communicate(timeout=60)[1], process.returncode) == ("phosphene: interrupted\n", 130)


def test_the_package_is_there_before_torch():
    code = "import sys, phosphene, phosphene.cli.program; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert all(getattr(phosphene, name) is not None for name in phosphene.__all__)
    assert set(phosphene.__all__) <= set(dir(phosphene))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = phosphene.nothing


# Standard output.

FULL = "phosphene: standard output cannot be written: No space left on device\n"
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")


@contextlib.contextmanager
def unwritable(kind, monkeypatch):
    """Standard output as under `| head -0`, or into a full disk."""
    if kind == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    with open(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield


LOST = {
    ("closed", "classes"): (0, "phosphene: nobody reads standard output any more; the work goes on\n"),
    ("closed", "recipes"): (0, ""),
    ("full", "classes"): (1, FULL),
    ("full", "recipes"): (1, FULL),
}


@pytest.mark.slow
@full
@pytest.mark.parametrize(("kind", "verb"), LOST)
def test_an_output_that_cannot_be_written_ends_no_work_and_is_told(kind, verb, tmp_path, capsys, monkeypatch):
    arguments = ["classes", "1", "--size", "32", "--steps", "2", "-o", str(tmp_path)] if verb == "classes" else [verb]
    with unwritable(kind, monkeypatch):
        status = main(arguments)
    lines = capsys.readouterr().err.splitlines(True)
    assert (status, "".join(line for line in lines if "%" not in line)) == LOST[kind, verb]
    if verb == "classes":
        assert {"001_goldfish.png", "grid.png", "run.json"} <= set(os.listdir(tmp_path))


@full
def test_a_process_whose_output_is_full_ends_with_one_line():
    with open("/dev/full", "w") as stream:
        process = begun("recipes", stdout=stream)
        assert (process.communicate(timeout=120)[1], process.returncode) == (FULL, 1)


def test_a_thread_that_never_ends_does_not_keep_what_was_interrupted():
    code = """
import threading
from phosphene.cli import program

def main():
    threading.Thread(target=threading.Event().wait).start()
    return program.statuses.INTERRUPTED

program.main, program._PATIENCE = main, 0.2
program.command()
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert ended.returncode == 130
