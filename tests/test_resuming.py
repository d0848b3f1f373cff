"""Passes of photographs that are killed go on, and what comes out is what one gives that nothing interrupted."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from helpers import Small, opened, seeded, written_network
from PIL import Image
from safetensors.torch import load_file, safe_open, save_file
from tiny import vit

import phosphene
from phosphene import ComparisonSettings, resumable
from phosphene.cli.program import main
from phosphene.photographs.unfinished import checksum
from phosphene.run_folders import UNFINISHED, run_folder

SETTINGS = ComparisonSettings(grid=3, block=16)
COUNT = 41
TIMES = ("time_share", "summary")  # of depth
BODY = "nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(720, 4))"


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of smooth noise, of which one is damaged."""
    place = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for index in range(COUNT):
        small = random.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC).save(place / f"{index:02d}.png")
    (place / "07.png").write_bytes(b"no image")
    return place


@pytest.fixture(scope="module")
def pair():
    return opened(seeded(Small)), vit()


def kill_at(place):
    """What ends a pass behind so many photographs of all."""

    def on_progress(done, total):
        if done >= place:
            raise Killed

    return on_progress


def run(kind, pair, folder, on_progress=None):
    if kind == "depth":
        return phosphene.depth(pair[1], folder, on_progress=on_progress)
    layers = ["relu2=blocks.1"] if kind == "one pass" else None
    return phosphene.compare(*pair, folder, layers, settings=SETTINGS, on_progress=on_progress)


def contents(value):
    """All that a result has, to the byte, but how long it took."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, list | tuple):
        return [contents(each) for each in value]
    if dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        return {name: contents(each) for name, each in vars(value).items() if name not in TIMES}
    return repr(value)


@pytest.fixture(scope="module")
def whole(pair, folder):
    return {kind: contents(run(kind, pair, folder)) for kind in ("two passes", "one pass", "depth")}


def killed(kind, pair, folder, place, at, said=None):
    with pytest.raises(Killed), resumable(place, every=0, say=(said if said is not None else []).append):
        run(kind, pair, folder, kill_at(at))


@pytest.mark.parametrize(
    ("kind", "places", "words"),
    [
        ("two passes", (9, 30, 50), ["9 of 41", "25 of 41", "9 of 41, the second time"]),
        ("two passes", (41, 82), ["1 of 41, the second time", "behind the last of 41"]),
        ("one pass", (9, 33, 41), ["9 of 41", "33 of 41", "behind the last of 41"]),
        ("depth", (17, 41), ["18 of 41", "behind the last of 41"]),
    ],
)
def test_what_is_killed_goes_on_and_is_exactly_what_it_would_have_been(
    kind, places, words, pair, folder, tmp_path, whole
):
    said = []
    for place in places:
        killed(kind, pair, folder, tmp_path, place, said)
    with resumable(tmp_path, every=0, say=said.append):
        found = run(kind, pair, folder)
        assert (tmp_path / UNFINISHED).exists(), "what comes behind the photographs may be interrupted too"
    assert contents(found) == whole[kind]
    assert len(said) == len(words)
    for sentence, word in zip(said, words, strict=True):
        assert sentence.startswith("going on ")
        assert word in sentence
    assert not list(tmp_path.iterdir()), "nothing is left"


def resealed(path, change):
    """Change the tensors of an unfinished file, and have its checksum be right."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened_file:
        metadata = opened_file.metadata()
    change(tensors)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata | {"checksum": checksum(arrays)})


def widen(name):
    def change(tensors):
        tensors[name] = torch.zeros(*tensors[name].shape[:-1], tensors[name].shape[-1] + 1, dtype=tensors[name].dtype)

    return change


def fill(name, value):
    return lambda tensors: tensors[name].fill_(value)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("one pass", widen("match/pairs/0/half0/xy")),
        ("one pass", lambda tensors: tensors.pop("match/peaks/1/values")),
        ("one pass", lambda tensors: tensors.update(more=torch.zeros(1))),
        ("one pass", fill("match/peaks/0/photographs", 10**9)),
        ("one pass", fill("match/peaks/0/places", -1)),
        ("one pass", fill("read", COUNT)),
        ("one pass", fill("pass", 7)),
        ("one pass", fill("similarity/blocks", 10**12)),
        ("one pass", lambda tensors: tensors.update(read=tensors["read"].float())),
        ("depth", widen("layers/0/pooled")),
        ("depth", fill("layers/0/count", -3)),
        ("depth", fill("done", 10**6)),
        ("depth", fill("places", -1)),
        ("depth", lambda tensors: tensors.pop("logits")),
    ],
)
def test_a_file_that_does_not_fit_is_not_believed(kind, change, pair, folder, tmp_path, whole):
    killed(kind, pair, folder, tmp_path, 30)
    resealed(tmp_path / UNFINISHED, change)
    said = []
    with resumable(tmp_path, say=said.append):
        found = run(kind, pair, folder)
    assert contents(found) == whole[kind]
    assert said == [f"{tmp_path / UNFINISHED} is damaged: starting again"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-9],
        lambda data: bytes(len(data)),
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
    ],
)
def test_a_file_that_a_crash_has_damaged_is_not_believed(damage, pair, folder, tmp_path, whole):
    killed("depth", pair, folder, tmp_path, 30)
    (tmp_path / UNFINISHED).write_bytes(damage((tmp_path / UNFINISHED).read_bytes()))
    said = []
    with resumable(tmp_path, say=said.append):
        assert contents(run("depth", pair, folder)) == whole["depth"]
    assert ["starting again" in sentence for sentence in said] == [True]


def test_a_file_is_that_of_the_same_run_only(pair, folder, tmp_path):
    killed("one pass", pair, folder, tmp_path, 20)
    said = []
    other = dataclasses.replace(SETTINGS, seed=1)
    with resumable(tmp_path, say=said.append):
        phosphene.compare(*pair, folder, ["relu2=blocks.1"], settings=other)
    assert ["of another run: starting again" in sentence for sentence in said] == [True]


def test_a_file_of_that_name_that_is_something_else_is_left_alone(pair, folder, tmp_path):
    save_file({"mine": torch.zeros(3)}, tmp_path / UNFINISHED)
    with pytest.raises(phosphene.InputError, match="is no unfinished run"), resumable(tmp_path):
        run("depth", pair, folder)
    assert list(load_file(tmp_path / UNFINISHED)) == ["mine"]


def test_a_changed_photograph_makes_another_run(pair, tmp_path):
    for index in range(20):
        Image.new("RGB", (24, 24), (index, 2 * index, 9 * index)).save(tmp_path / f"{index}.png")
    killed("depth", pair, tmp_path, tmp_path / "run", 17)
    os.utime(tmp_path / "3.png", (1, 1))
    said = []
    with resumable(tmp_path / "run", say=said.append):
        run("depth", pair, tmp_path)
    assert ["starting again" in sentence for sentence in said] == [True]


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nothing(pair, folder, tmp_path, whole, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("phosphene.photographs.unfinished.save_file", full)
    said = []
    with resumable(tmp_path, every=0, say=said.append):
        assert contents(run("depth", pair, folder)) == whole["depth"]
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_an_interrupted_pass_finishes_the_photographs_in_hand_and_keeps_them(pair, folder, tmp_path):
    def interrupt(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    said = []
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path):
        run("one pass", pair, folder, interrupt)
    with resumable(tmp_path, say=said.append):
        run("one pass", pair, folder)
    assert said == ["going on at photograph 9 of 41"]


def test_without_it_nothing_is_written(pair, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("one pass", pair, folder)
    assert not list(tmp_path.iterdir())


# Folders.


def test_a_folder_that_holds_the_run_is_taken_and_one_of_another_unfinished_run_is_not(tmp_path):
    def hold(folder, text):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).write_text(text)

    def is_mine(folder):
        return (folder / UNFINISHED).exists() and (folder / UNFINISHED).read_text() == "mine"

    root = tmp_path / "out"
    for name, text in (
        ("001-compare", "mine"),
        ("002-compare", "mine"),
        ("003-compare", "other"),
        ("004-depth", "mine"),
    ):
        hold(root / name, text)
    assert run_folder(None, "compare", root, is_mine).name == "002-compare"
    assert (root / "latest").resolve().name == "002-compare"
    (root / "001-compare" / UNFINISHED).unlink()
    (root / "002-compare" / UNFINISHED).unlink()
    assert run_folder(None, "compare", root, is_mine).name == "005-compare"
    hold(tmp_path / "given", "other")
    assert run_folder(tmp_path / "given", "compare", is_unfinished=is_mine).name == "given-2"
    hold(tmp_path / "given-2", "mine")
    (tmp_path / "given-2" / "compare.json").write_text("{}")
    assert run_folder(tmp_path / "given", "compare", is_unfinished=is_mine).name == "given-2"
    assert run_folder(tmp_path / "given", "compare").name == "given-3"


@pytest.fixture
def words(tmp_path, monkeypatch, folder):
    """A command that compares two small networks."""
    monkeypatch.chdir(tmp_path)
    names = [written_network(tmp_path, name, seed, BODY) for seed, name in enumerate(("first", "second"))]
    return ["compare", *names, "--photographs", str(folder), "--pictures", "0", "--count", "2", "--grid", "3"]


def interrupt_reading(monkeypatch, count):
    """Have Ctrl-C come when so many photographs are read."""
    from phosphene.photographs import decoding

    read, left = decoding.read_image, [count]

    def reading(path):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return read(path)

    monkeypatch.setattr(decoding, "read_image", reading)


@pytest.mark.slow
def test_the_same_command_goes_on_in_its_folder(words, tmp_path, monkeypatch, capsys):
    assert main([*words, "-o", "whole", "-q"]) == 0
    interrupt_reading(monkeypatch, 20)
    assert main(words) == 130
    assert "the same command goes on where this one was" in capsys.readouterr().err
    assert main([*words, "--seed", "5", "-q"]) == 0, "another run has a folder of its own"
    assert main([*words, "--json"]) == 0
    assert main(words) == 0
    assert "going on" not in capsys.readouterr().out
    made = sorted(path.name for path in (tmp_path / "phosphene-out").glob("0*"))
    assert made == ["001-compare", "002-compare", "003-compare"]
    texts = {path: (tmp_path / path / "compare.json").read_text() for path in ("whole", "phosphene-out/001-compare")}
    assert len(set(texts.values())) == 1
    assert not list(tmp_path.rglob(UNFINISHED))


@pytest.mark.slow
def test_a_run_that_is_alive_is_left_alone(words, tmp_path, monkeypatch, capsys):
    interrupt_reading(monkeypatch, 20)
    assert main([*words, "-o", "run"]) == 130
    path = tmp_path / "run" / UNFINISHED
    with safe_open(path, "pt") as opened_file:
        metadata = opened_file.metadata()
    parent = psutil.Process(os.getppid())
    owner = [json.loads(metadata["process"])[0], parent.pid, parent.create_time()]
    save_file(load_file(path), path, metadata | {"process": json.dumps(owner)})
    assert main([*words, "-o", "run"]) == 0
    assert "run holds another run, so this one is kept in run-2" in capsys.readouterr().out
    owner[2] -= 1000  # the number is now that of another process
    save_file(load_file(path), path, metadata | {"process": json.dumps(owner)})
    assert main([*words, "-o", "run"]) == 0
    assert "going on at photograph" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_command_goes_on(words, tmp_path, capsys):
    assert main([*words, "-o", "whole", "-q"]) == 0
    code = (
        "import sys, time; from phosphene.photographs import decoding, unfinished; "
        "unfinished.resumable.__wrapped__.__kwdefaults__['every'] = 0; read = decoding.read_image; "
        "decoding.read_image = lambda path: (time.sleep(0.2), read(path))[1]; "
        "from phosphene.cli.program import main; sys.exit(main(sys.argv[1:]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, *words, "-o", "run"]) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / UNFINISHED).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert main([*words, "-o", "run"]) == 0
    assert "going on at photograph" in capsys.readouterr().out
    texts = {(tmp_path / place / "compare.json").read_text() for place in ("whole", "run")}
    assert len(texts) == 1
