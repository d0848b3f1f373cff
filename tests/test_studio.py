"""The studio: what it lets in, what it reads, what it keeps, and its page in a real browser."""

import asyncio
import base64
import http.client
import importlib.util
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import Pipe
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
import torch
from helpers import CHROMIUM
from PIL import Image
from safetensors.torch import save_file
from test_atlas import make_plan

import phosphene
from phosphene import InputError, Recipe
from phosphene.atlas.missing import missing_work
from phosphene.atlas.plan import Group
from phosphene.atlas.site_data import SiteAtlas
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.provenance.reading import read_provenance
from phosphene.studio import files as studio_files
from phosphene.studio import worker
from phosphene.studio.controls import change, controls, listed_recipes, switches, with_inputs
from phosphene.studio.guard import Guard
from phosphene.studio.messages import (
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
from phosphene.studio.opening import open_allowed_network
from phosphene.studio.saving import save_image
from phosphene.studio.scores import score_lines
from phosphene.studio.sessions import RunSlots
from phosphene.units.objects import Channel, Class

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from soak import Tab

needs_nicegui = pytest.mark.skipif(importlib.util.find_spec("nicegui") is None, reason="NiceGUI is not installed")
needs_client = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("websockets", "nicegui"))), reason="NiceGUI is not installed"
)
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and all(map(importlib.util.find_spec, ("playwright", "nicegui")))),
    reason="there is no Chromium (apt-get install chromium), Playwright or NiceGUI",
)
PATIENCE = 120_000  # milliseconds, for machines that do much else
NET = "timm:test_resnet"
QUICK = Recipe.load("clip").override({"steps": 5, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a tiny network, and things that are none."""
    folder = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = phosphene.open(NET, pretrained=False).module
    save_file(module.state_dict(), folder / "tiny.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no weights")
    if os.name == "posix":
        os.mkfifo(folder / "fifo.safetensors")
        (folder / "passwd.safetensors").symlink_to("/etc/passwd")
    return folder


@pytest.fixture(scope="module")
def tiny(folder):
    return phosphene.open(NET, weights=folder / "tiny.safetensors")


# The door


def answered(headers, kind="http", port=8765):
    """What the guard answers, and whether the page was asked."""
    asked, sent = [], []

    async def app(scope, receive, send):
        asked.append(scope)
        if kind == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(Guard(app, port)(scope, None, send))
    return (sent[0].get("status", sent[0].get("code")) if sent else None), bool(asked)


HERE = ("Host", "127.0.0.1:8765")


@pytest.mark.parametrize(
    "headers",
    [
        [HERE],
        [("host", "localhost:8765"), ("origin", "http://localhost:8765")],
        [HERE, ("Origin", "http://127.0.0.1:8765"), ("Sec-Fetch-Site", "same-origin")],
        [HERE, ("Sec-Fetch-Site", "none")],
    ],
)
def test_its_own_page_is_let_in(headers):
    assert answered(headers) == (200, True)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "evil.example:8765")],  # a name that leads here: DNS rebinding
        [("Host", "127.0.0.1")],
        [("Host", "127.0.0.1:8766")],
        [("Host", "0.0.0.0:8765")],
        [("Host", "localhost.evil.example:8765")],
        [HERE, ("Host", "evil.example")],
        [HERE, ("Origin", "http://evil.example")],
        [HERE, ("Origin", "null")],
        [HERE, ("Origin", "https://127.0.0.1:8765")],
        [HERE, ("Origin", "http://localhost:8765")],
        [HERE, ("Origin", "http://127.0.0.1:3000")],
        [HERE, ("Origin", "http://127.0.0.1:8765"), ("Origin", "http://evil.example")],
        [HERE, ("Sec-Fetch-Site", "cross-site")],
        [HERE, ("Origin", "http://127.0.0.1:8765"), ("Sec-Fetch-Site", "same-site")],
    ],
)
def test_all_others_are_refused(kind, headers):
    assert answered(headers, kind) == (403 if kind == "http" else 1008, False)


def test_a_websocket_says_where_it_is_from():
    assert answered([HERE], "websocket") == (1008, False)
    assert answered([HERE, ("Origin", "http://127.0.0.1:8765")], "websocket") == (None, True)


# What it reads


def test_the_files_of_the_folders_are_listed_by_what_they_are_for(tmp_path):
    inside = tmp_path / "inside"
    (inside / "deep" / "hf").mkdir(parents=True)
    for name in ("a.onnx", "b.pth", "deep/c.H5", "deep/hf/config.json", "d.toml", "e.txt", "net.py", ".secret.pth"):
        (inside / name).write_text("")
    found = studio_files.list_files([str(inside)])
    assert found.networks == tuple(str(inside / name) for name in ("a.onnx", "deep/c.H5", "deep/hf"))
    assert found.weights == tuple(str(inside / name) for name in ("b.pth", "deep/c.H5"))
    assert (found.preprocessings, found.labels[-1]) == ((str(inside / "d.toml"),), str(inside / "e.txt"))
    assert studio_files.list_files([]) == studio_files.FileListing()


def test_links_and_dots_lead_nowhere_else(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "net.onnx").write_text("")
    (inside / "own.onnx").write_text("")
    (inside / "link.onnx").symlink_to(outside / "net.onnx")
    (inside / "way").symlink_to(outside)
    (inside / "self.onnx").symlink_to(inside / "own.onnx")
    folders = [str(inside)]
    assert studio_files.list_files(folders).networks == (str(inside / "own.onnx"), str(inside / "self.onnx"))
    for path in ("link.onnx", "../outside/net.onnx", "way/net.onnx", "../inside2/x.onnx", "../../../../etc/passwd"):
        with pytest.raises(InputError, match="not in the folders that this studio may read"):
            studio_files.check(f"{inside}/{path}", folders, "networks")
        with pytest.raises(InputError, match="not in the folders"):
            open_allowed_network(OpenCommand(f"{inside}/{path}"), folders)
    assert studio_files.check(str(inside / "own.onnx"), folders, "networks") == str(inside / "own.onnx")
    for path in ("nosuch.onnx", "./own.onnx", "way/../own.onnx"):  # only as it is listed
        with pytest.raises(InputError, match=r"not listed|not in the folders"):
            studio_files.check(f"{inside}/{path}", folders, "networks")
    (tmp_path / "inside2").mkdir()  # a name that begins alike
    (tmp_path / "inside2/x.onnx").write_text("")
    with pytest.raises(InputError, match="not in the folders"):
        studio_files.check(str(tmp_path / "inside2/x.onnx"), folders, "networks")


def test_what_a_file_is_read_with_is_of_the_folders_too(tmp_path):
    inside = tmp_path / "inside"
    (inside / "hf").mkdir(parents=True)
    (tmp_path / "words.txt").write_text("a")
    (inside / "net.onnx").write_text("")
    (inside / "net.toml").write_text('labels = "../words.txt"')
    (inside / "hf/config.json").write_text("{}")
    (inside / "hf/model.safetensors").symlink_to(tmp_path / "words.txt")
    kinds = {"net.onnx": "networks", "net.toml": "preprocessings", "hf": "networks"}
    for name, kind in kinds.items():
        with pytest.raises(InputError, match="leads to"):
            studio_files.check(str(inside / name), [str(inside)], kind)
    (inside / "net.toml").write_text('labels = "imagenet"')
    (inside / "hf/model.safetensors").unlink()
    for name, kind in kinds.items():
        studio_files.check(str(inside / name), [str(inside)], kind)


@pytest.mark.skipif(os.name != "posix", reason="has no FIFOs and sockets")
def test_what_is_no_file_is_neither_listed_nor_opened(tmp_path):
    """FIFOs would be waited for, devices never end, names that are no text cannot be told to a browser."""
    inside = tmp_path / "inside"
    inside.mkdir()
    os.mkfifo(inside / "fifo.onnx")
    os.mkfifo(inside / "fifo.toml")
    os.mkfifo(inside / "fifo.txt")
    (inside / "folder.onnx").mkdir()
    (inside / "circle.onnx").symlink_to(inside / "circle.onnx")
    (inside / "null.onnx").symlink_to("/dev/null")
    (inside / "stdin.txt").symlink_to("/dev/stdin")
    (inside / "nowhere.onnx").symlink_to(inside / "nosuch.onnx")
    (inside / "a\nb.onnx").write_text("")
    (inside / "a\x1b[31mb.onnx").write_text("")
    (inside / "a\u202eb.onnx").write_text("")
    Path(os.fsdecode(os.fsencode(inside) + b"/\xff.onnx")).write_text("")
    (inside / "good.onnx").write_text("")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(inside / "door.onnx"))
        found = studio_files.list_files([str(inside)])
    assert found == studio_files.FileListing(networks=(str(inside / "good.onnx"),))
    for path in inside.iterdir():
        if path.name != "good.onnx":
            with pytest.raises(InputError, match=r"not listed|not in the folders"):
                studio_files.check(str(path), [str(inside)], "networks")
    (inside / "fifo.onnx").unlink()
    (inside / "fifo.onnx").write_text("")  # beside which stands fifo.toml
    with pytest.raises(InputError, match=r"leads to .*fifo.toml', which is no file"):
        studio_files.check(str(inside / "fifo.onnx"), [str(inside)], "networks")


@pytest.mark.parametrize(
    "labels",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "../words.txt",
        "link.txt",
        "fifo.txt",
        "/dev/zero",
        "folder",
        "a\\u0000b",
        "..",
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="has no FIFOs")
def test_labels_that_a_description_names_are_files_of_the_folders(tmp_path, labels):
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (tmp_path / "words.txt").write_text("secret")
    (inside / "link.txt").symlink_to(tmp_path / "words.txt")
    os.mkfifo(inside / "fifo.txt")
    (inside / "net.onnx").write_text("")
    (inside / "net.toml").write_text(f'labels = "{labels}"')
    for name, kind in (("net.onnx", "networks"), ("net.toml", "preprocessings")):
        with pytest.raises(InputError, match="leads to") as refusal:
            studio_files.check(str(inside / name), [str(inside)], kind)
        assert "secret" not in str(refusal.value)
    asked = OpenCommand(NET, preprocessing=str(inside / "net.toml"))
    with pytest.raises(InputError, match="leads to"):
        open_allowed_network(asked, (str(inside),))


def test_a_description_that_is_large_is_not_read(tmp_path):
    (tmp_path / "net.onnx").write_text("")
    with open(tmp_path / "net.toml", "wb") as file:
        file.truncate(2**40)  # bytes, of which the disk has none
    with pytest.raises(InputError, match="too large"):
        studio_files.check(str(tmp_path / "net.onnx"), [str(tmp_path)], "networks")


def test_what_is_denied_is_left_out_and_listing_ends(tmp_path, monkeypatch):
    for name in ("a.onnx", "denied.onnx"):
        (tmp_path / name).write_text("")
    for number in range(300):
        (tmp_path / f"f{number}/g").mkdir(parents=True)
    real = Path.stat

    def stat(self, **options):
        if "denied" in self.name:
            raise PermissionError(13, "denied")
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert studio_files.list_files([str(tmp_path)]).networks == (str(tmp_path / "a.onnx"),)
    monkeypatch.setattr(studio_files, "MAX_FILES", 100)
    looked = []
    monkeypatch.setattr(studio_files, "is_regular", lambda path: looked.append(path) or True)
    for number in range(300):
        (tmp_path / f"f{number}/g/x.onnx").write_text("")
    studio_files.list_files([str(tmp_path)])
    assert len(looked) <= 100


@pytest.mark.parametrize(
    "asked",
    [
        "mynet.py:make",
        "os:getcwd",
        "../x.onnx",
        "x.onnx",
        "hf:google/vit-base-patch16-224",
        "timm:nosuch",
        "",
        "/x.py:f",
    ],
)
def test_only_names_that_are_known_are_opened_without_a_file(asked):
    with pytest.raises(InputError, match=r"expected a name|not in the folders"):
        open_allowed_network(OpenCommand(asked), ())


def test_no_file_is_run(tmp_path):
    (tmp_path / "net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for spelled in ("net.py", "net.py:make"):
        with pytest.raises(InputError):
            open_allowed_network(OpenCommand(f"{tmp_path}/{spelled}"), (str(tmp_path),))
    assert not (tmp_path / "ran").exists()


def test_every_file_given_with_a_network_is_of_the_folders(folder, tmp_path):
    (tmp_path / "w.pth").write_text("")
    (folder / "words.txt").write_text("a")
    for field in ("weights", "preprocessing", "labels"):
        with pytest.raises(InputError, match="not in the folders"):
            open_allowed_network(OpenCommand(NET, **{field: str(tmp_path / "w.pth")}), (str(folder),))
        with pytest.raises(InputError, match="not listed"):
            open_allowed_network(OpenCommand(NET, **{field: str(folder / "nosuch")}), (str(folder),))
    with pytest.raises(InputError, match="not listed with the weights"):
        open_allowed_network(OpenCommand(NET, weights=str(folder / "words.txt")), (str(folder),))
    (folder / "words.txt").unlink()
    network = open_allowed_network(OpenCommand(NET, weights=str(folder / "tiny.safetensors")), (str(folder),))
    assert network.name == "test_resnet"


# Strengths


@pytest.mark.parametrize("unit", [Class(0), Channel("relu1", 2)])
@pytest.mark.parametrize("name", listed_recipes())
def test_every_control_changes_what_it_says_and_may_do_so_on_the_way(name, unit):
    recipe = Recipe.load(name).for_network("none").for_unit(unit)
    shown = controls(recipe)
    assert {"steps", "optimizer.rate"} <= {control.field for control in shown}
    for control in shown:
        assert control.low <= control.place(control.value) <= control.high
        assert control.at(control.place(control.value)) == pytest.approx(control.value, rel=0.01)
        for place in (control.low, control.high):
            changed = change(recipe, control.field, control.at(place))
            assert set(recipe.changes_to(changed)) <= {control.field}
            if control.field != "steps" or recipe.growth is None:
                assert changed.resume_key() == recipe.resume_key()
    for regularizer, on in switches(recipe):
        turned = recipe.override({regularizer: "off" if on else {}})
        assert (getattr(turned, regularizer) is None) == on
        assert turned.resume_key() == recipe.resume_key()


def test_recipes_that_need_photographs_are_offered_where_there_are_some():
    assert "natural" in listed_recipes()
    assert all(Recipe.load(name).start.kind != "image" for name in listed_recipes())
    assert set(listed_recipes(images=True)) - set(listed_recipes()) == {"dream", "invert", "caricature"}
    assert set(listed_recipes(folders=True)) - set(listed_recipes()) == {"explain", "vital"}


def test_what_a_run_is_given_becomes_part_of_its_recipe():
    naive, folder = Recipe.load("naive"), "/some/photographs"
    assert with_inputs(naive, RunInputs(photographs=folder)) == naive  # which takes none
    given = with_inputs(naive, RunInputs(size=(40, 56), start="/a.png"))
    assert (given.size, given.start.kind) == ((40, 56), "image")
    vital = with_inputs(Recipe.load("vital"), RunInputs(photographs=folder))
    assert vital.priors.statistics.photographs == folder
    explain = with_inputs(Recipe.load("explain"), RunInputs(photographs=folder)).for_unit(Channel("relu1", 0))
    assert (explain.priors.statistics.photographs, explain.priors.statistics.source) == (folder, "unit")


# Runs


def test_runs_take_turns_in_the_order_in_which_they_asked():
    turns, begun = RunSlots(2), []
    for who in "abcd":
        assert turns.ask(who, lambda who=who: begun.append(who)) == (who in "ab")
    assert begun == ["a", "b"]
    turns.end("c")  # who waited, and is gone
    turns.end("a")
    assert begun == ["a", "b", "d"]
    turns.end("nobody")
    assert turns.running == 2


@contextmanager
def talking(folder, out):
    """A worker, the pipe to it, and what it says; that is read on the way, since a pipe holds little."""
    here, there = Pipe()
    said = []

    def listen():
        with suppress(EOFError, OSError):
            while True:
                said.append(here.recv())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield worker.StudioWorker(StudioConfig((str(folder),), None, str(out)), there), here, said
    finally:
        there.close()
        listener.join(60)


def done(folder, tmp_path, *commands):
    """What a process answers to commands that are all there before it begins."""
    with talking(folder, tmp_path / "out") as (one, here, said):
        for command in commands:
            here.send(command)
        while one.pipe.poll():
            command = one.receive()
            try:
                one.do(command)
            except InputError as error:
                one.tell(CommandFailed(type(command).__name__, str(error)))
    return said


def test_a_run_is_watched_changed_stopped_and_kept_with_what_was_changed(folder, tmp_path):
    begun = QUICK.override({"steps": 50}).for_network("test_resnet")
    said = done(
        folder, tmp_path,
        OpenCommand(NET, weights=str(folder / "tiny.safetensors")),
        AscendCommand("class:3", begun, 7, 1),
        ChangeCommand(begun.override({"optimizer.rate": 0.5})), StopCommand(), SaveCommand(),
    )  # fmt: skip
    assert [type(message) for message in said] == [
        NetworkOpened, StepEvent, CommandFailed, ImageFinished, ScoreCard,
    ]  # fmt: skip
    assert said[2].sentence == "an image is on its way: expected it to end first"  # Keep came too early
    opened, seen, _, made, card = said
    assert len(opened.classes) == 1000
    assert seen.step == 1
    assert (made.steps, made.stopped) == (2, "interrupted")
    assert card.scores["robustness"] >= 0


def test_an_image_kept_after_changes_is_made_again_from_its_file(tiny, folder, tmp_path):
    begun = QUICK.override({"steps": 8}).for_network(tiny.name)
    (picture,) = phosphene.ascend(
        tiny,
        "class:3",
        begun,
        callbacks=phosphene.Callbacks(
            step=lambda step: begun.override({"optimizer.rate": 0.5}) if step.step == 3 else step.recipe
        ),
    )
    assert picture.changes == [[3, "optimizer.rate", 0.5]]
    place = save_image(picture, StudioConfig(out=str(tmp_path / "out")))
    assert read_provenance(place)["changes"] == [[3, "optimizer.rate", 0.5]]
    assert phosphene.again(place).same


def test_nothing_that_is_kept_is_ever_replaced(tiny, tmp_path):
    (picture,) = phosphene.ascend(tiny, "class:3", QUICK.override({"steps": 1}))
    places = [save_image(picture, StudioConfig(out=str(tmp_path))) for _ in range(3)]
    assert len(set(places)) == 3
    assert sorted(os.listdir(tmp_path)) == sorted(Path(place).name for place in places)


def test_what_cannot_be_done_is_said_in_the_librarys_words(folder, tmp_path):
    said = done(
        folder, tmp_path,
        SaveCommand(), AscendCommand("class:3", QUICK, 1, 1),
        OpenCommand(NET, weights=str(folder / "broken.safetensors")),
        OpenCommand(NET, weights=str(folder / "tiny.safetensors")),
        AscendCommand("nosuch:3", QUICK, 1, 1),
        JudgeCommand(),
    )  # fmt: skip
    sentences = [message.sentence for message in said if isinstance(message, CommandFailed)]
    for sentence, words in zip(
        sentences, ["no image yet", "no network is open", "cannot be read", "no layer 'nosuch'", "no image yet"],
        strict=True,
    ):  # fmt: skip
        assert words in sentence


def test_images_made_before_are_kept_and_the_last_ones_only(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MAX_MADE", 2)
    opening = OpenCommand(NET, weights=str(folder / "tiny.safetensors"))
    quick = QUICK.override({"steps": 1})
    runs = [AscendCommand("class:3", quick, seed, 1, number=seed) for seed in (1, 2, 3)]
    said = done(
        folder, tmp_path, opening, *runs, SaveCommand(1), SaveCommand(2), opening, SaveCommand(3), JudgeCommand(3)
    )
    saved = {message.number: message.place for message in said if isinstance(message, ImageSaved)}
    assert sorted(saved) == [2, 3]
    assert [read_provenance(place)["seed"] for _, place in sorted(saved.items())] == [2, 3]
    failed = [message for message in said if isinstance(message, CommandFailed)]
    assert [message.command for message in failed] == ["SaveCommand", "JudgeCommand"]
    assert "not open any more" in failed[1].sentence
    made = [message for message in said if isinstance(message, ImageFinished)]
    assert [(one.number, one.recipe, one.seed) for one in made] == [(number, "clip", number) for number in (1, 2, 3)]
    assert len(made[0].thumbnail) < len(made[0].png)


# Photographs, sizes, facets


@pytest.fixture(scope="module")
def album(folder):
    """A folder of three photographs, among the files that may be read."""
    album = folder / "album"
    album.mkdir()
    random = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(album / f"{name}.png")
    yield album
    shutil.rmtree(album)


def test_images_and_their_folders_are_listed_and_nothing_leads_out_of_them(tmp_path):
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    for path in (inside / "deep/a.JPG", tmp_path / "secret.png"):
        Image.new("RGB", (8, 8)).save(path, "PNG")
    folders = [str(inside)]
    found = studio_files.list_files(folders)
    assert (found.images, found.photographs) == ((str(inside / "deep/a.JPG"),), (str(inside), str(inside / "deep")))
    assert studio_files.check(str(inside / "deep"), folders, "photographs") == str(inside / "deep")
    for path, kind in ((tmp_path, "photographs"), (tmp_path / "secret.png", "images"), ("/etc", "photographs")):
        with pytest.raises(InputError, match="not in the folders that this studio may read"):
            studio_files.check(str(path), folders, kind)
    (inside / "deep/link.png").symlink_to(tmp_path / "secret.png")
    assert studio_files.list_files(folders).images == found.images
    with pytest.raises(InputError, match="leads to"):
        studio_files.check(str(inside / "deep"), folders, "photographs")


def opened(folder, *commands):
    """What a process answers besides, after the tiny network was opened."""
    said = done(folder, folder.parent, OpenCommand(NET, weights=str(folder / "tiny.safetensors")), *commands)
    return said[1:]


def test_a_run_is_given_a_size_facets_and_images(folder, album):
    inputs = RunInputs(size=(48, 64), facets=2, start=str(album / "a.png"))
    recipe = with_inputs(QUICK.override({"steps": 1}), inputs)
    data = (album / "a.png").read_bytes()
    pictures = []
    for start in (inputs.start, data):
        said = opened(folder, AscendCommand("class:3", recipe, 5, 1, 1, inputs.facets, start))
        made = [message for message in said if isinstance(message, ImageFinished)]
        assert [(one.number, one.seed) for one in made] == [(1, 5), (2, 6)]
        assert [message.number for message in said if isinstance(message, ScoreCard)] == [1, 2]
        pictures.append([one.png for one in made])
        assert Image.open(io.BytesIO(made[0].png)).size == (64, 48)
    assert pictures[0] == pictures[1]  # from its file, or dropped onto the page


def test_units_that_refer_to_a_photograph_are_made_of_the_one_that_is_picked(folder, album, tiny):
    layer = next(layer.name for layer in tiny.layers if layer.worth_showing)
    recipe = Recipe.load("invert").override({"steps": 2})
    photograph = str(album / "b.png")
    (none, *_), (made, *_) = (
        [each for each in opened(folder, AscendCommand(f"match({layer})", recipe, 1, 1, 1, 1, None, given))
         if not isinstance(each, StepEvent)]
        for given in (None, photograph)
    )  # fmt: skip
    assert "needs a photograph" in none.sentence
    assert made.label == f"match({layer})"


def test_images_that_are_none_too_large_or_elsewhere_are_refused_in_a_sentence(folder, album, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    recipe = QUICK.override({"start.kind": "image"})
    for start, words in (
        (str(tmp_path / "secret.png"), "not in the folders"), (b"no image", "it is no image file"),
        (bomb.getvalue(), "pixels"),
    ):  # fmt: skip
        (said,) = opened(folder, AscendCommand("class:3", recipe, 1, 1, start=start))
        assert words in said.sentence
    given = with_inputs(Recipe.load("vital"), RunInputs(photographs="/etc"))
    (said,) = opened(folder, AscendCommand("class:3", given, 1, 1))
    assert "not in the folders" in said.sentence


def test_facets_are_told_of_and_stopped_together(folder):
    begun = QUICK.override({"steps": 50}).for_network("test_resnet")
    said = opened(folder, AscendCommand("class:3", begun, 7, 1, facets=2), StopCommand())
    assert any(isinstance(message, StepEvent) for message in said)
    made = [message for message in said if isinstance(message, ImageFinished)]
    assert [one.stopped for one in made] == ["interrupted", "interrupted"]
    assert max(one.steps for one in made) < 10


def test_facets_are_shown_in_one_sheet_while_they_form(folder, monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0)
    begun = with_inputs(QUICK.override({"steps": 3}), RunInputs(size=(32, 32), facets=3))
    said = opened(folder, AscendCommand("class:3", begun, 7, 1, facets=3))
    sheets = [Image.open(io.BytesIO(message.jpeg)) for message in said if isinstance(message, StepEvent)]
    made = [Image.open(io.BytesIO(message.png)) for message in said if isinstance(message, ImageFinished)]
    assert len(sheets) == 3
    width, height = made[0].size
    assert {sheet.size for sheet in sheets} == {(2 * width + 15, 2 * height + 15)}  # with margins of 5 pixels
    last = np.asarray(sheets[-1].convert("L")).astype(float)
    cells = [last[5 + y : 5 + y + height, 5 + x : 5 + x + width] for y in (0, height + 5) for x in (0, width + 5)]
    gray = [np.asarray(image.convert("L")).astype(float) for image in made]
    alike = np.array([[np.corrcoef(cell.ravel(), one.ravel())[0, 1] for cell in cells[:3]] for one in gray])
    assert (alike.argmax(axis=1) == [0, 1, 2]).all()
    assert alike.diagonal().min() > 0.7  # as a JPEG has them
    alone = phosphene.ascend(
        phosphene.open(NET, weights=str(folder / "tiny.safetensors")), "class:3", begun, seed=7, facets=3
    )
    assert [picture.image().tobytes() for picture in alone] == [image.tobytes() for image in made]


def test_hidden_units_are_judged_by_photographs(folder, album, tiny, monkeypatch):
    monkeypatch.setattr(worker.judge_panel, "panel", lambda network: [])
    layer = next(layer.name for layer in tiny.layers if layer.worth_showing)
    run = AscendCommand(f"{layer}:2", QUICK.override({"steps": 1}), 1, 1, 1)
    said = opened(folder, run, JudgeCommand(1), JudgeCommand(1, str(folder.parent)), JudgeCommand(1, str(album)))
    sentences = [message.sentence for message in said if isinstance(message, CommandFailed)]
    assert "unless a folder of photographs is picked" in sentences[0]
    assert "not in the folders" in sentences[1]
    card = [message.scores for message in said if isinstance(message, ScoreCard)][-1]
    lines = {name: value for name, value, _ in score_lines(card)}
    assert 0 <= float(lines["percentile"]) <= 100


def test_an_image_is_filed_under_the_recipe_that_it_was_begun_by(folder, tmp_path):
    """Also where all that another recipe has was put in on the way, and where another was run since."""
    begun, other = (Recipe.load(name).override({"steps": 6}).for_network("test_resnet") for name in ("clip", "decay"))
    with talking(folder, tmp_path / "out") as (one, here, said):
        for *now, last in (
            [OpenCommand(NET, weights=str(folder / "tiny.safetensors"))],
            [ChangeCommand(other), AscendCommand("class:3", begun, 7, 1, 1)],
            [AscendCommand("class:3", other, 7, 1, 2)],
            [SaveCommand(1)],
        ):
            for command in now:
                here.send(command)
            one.do(last)
    first, second = (message for message in said if isinstance(message, ImageFinished))
    assert (first.recipe, second.recipe) == ("clip", "decay")
    assert {field.partition(".")[0] for _, field, _ in first.changes} >= {"decay"}
    (saved,) = (message for message in said if isinstance(message, ImageSaved))
    known = read_provenance(saved.place)
    assert known["recipe"]["name"] == "clip"
    assert "decay" not in known["recipe"]
    assert phosphene.again(saved.place).same


# The atlas


@pytest.fixture
def pictures(tiny):
    layer = next(layer.name for layer in tiny.layers if layer.worth_showing)
    units = ["class:3", "class:5", f"{layer}:2", f"mean({layer}:2)"]
    return list(phosphene.ascend(tiny, units, QUICK.override({"steps": 1})))


def test_units_are_kept_in_an_atlas_that_is_made_with_the_first(pictures, tmp_path):
    pytest.importorskip("pyarrow")
    given = StudioConfig(atlas=str(tmp_path / "atlas"), out=str(tmp_path / "out"))
    places = [save_image(picture, given) for picture in [*pictures, pictures[0]]]
    store = Store(tmp_path / "atlas")
    plan, rows = store.plan(), store.rows()
    assert [(group.name, group.indices) for group in plan.groups] == [
        ("classes", [3, 5]), (pictures[2].unit.layer, [2]),
    ]  # fmt: skip
    assert {(row["group"], row["index"], row["facet"]) for row in rows} == {
        (pictures[2].unit.layer, 2, 0), ("classes", 3, 0), ("classes", 3, 1), ("classes", 5, 0),
    }  # fmt: skip
    assert store.verify() == []
    assert missing_work(plan, rows) == []  # `atlas run` makes none of them again
    assert store.rebuild().images == 4
    assert Path(places[3]).parent == tmp_path / "out"  # an atlas has no means of maps
    assert all(Path(place).is_file() for place in places)
    assert phosphene.again(places[0]).same


def test_what_an_atlas_has_or_plans_stays(tiny, pictures, tmp_path):
    pytest.importorskip("pyarrow")
    store = Store(tmp_path / "atlas")
    store.write_plan(make_plan(tiny, classes=[3, 4], recipe=QUICK, judges=[]))
    before = store.plan()
    save_image(pictures[0], StudioConfig(atlas=store.place))
    assert store.plan() == before
    (row,) = store.rows()
    assert (row["index"], row["facet"]) == (3, 1)  # its own place is yet to be filled by the plan's recipe
    assert [piece.indices for piece in missing_work(before, store.rows())] == [(3, 4)]
    save_image(pictures[1], StudioConfig(atlas=store.place))
    assert store.plan().groups[0].indices == [3, 4, 5]
    assert store.plan().groups[0].recipe == before.groups[0].recipe
    assert {(row["index"], row["facet"]) for row in store.rows()} == {(3, 1), (5, 1)}


def test_an_image_in_an_atlas_is_filed_under_the_recipe_it_was_made_by(tiny, pictures, tmp_path):
    pytest.importorskip("pyarrow")
    store, given = Store(tmp_path / "atlas"), StudioConfig(atlas=str(tmp_path / "atlas"))
    alone = Group("classes", [3], pictures[0].recipe.to_dict()).digest
    planned = phosphene.ascend(tiny, "class:3", QUICK)[0]
    for picture in (planned, pictures[0], replace(planned, changes=[[1, "optimizer.rate", 2.0]])):
        save_image(picture, given)
    rows = store.rows()
    assert [(row["facet"], row["recipe"]) for row in rows[:2]] == [(0, store.plan().groups[0].digest), (1, alone)]
    assert len({row["recipe"] for row in rows}) == 3  # one that was changed on the way is by neither
    assert missing_work(store.plan(), rows) == []
    assert [row["recipe"] for row in rows] == [store.find_row("classes", 3, facet)["recipe"] for facet in range(3)]
    (_, units), shown = SiteAtlas.of(store, None, "").groups[0], SiteAtlas.of(store, None, "there/")
    assert [[row["facet"] for row in facets] for facets in units] == [[0]]
    assert shown.kept == {("classes", 3): [f"there/{row['file']}" for row in rows[1:]]}


def test_an_atlas_of_another_network_and_a_folder_of_other_things_are_refused(pictures, tiny, tmp_path):
    pytest.importorskip("pyarrow")
    store = Store(tmp_path / "atlas")
    store.write_plan(replace(make_plan(tiny, classes=[3], recipe=QUICK, judges=[]), weights="0" * 16))
    with pytest.raises(InputError, match="expected the same network, or another atlas"):
        save_image(pictures[0], StudioConfig(atlas=store.place))
    assert store.rows() == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        save_image(pictures[0], StudioConfig(atlas=str(tmp_path / "other")))
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


# The command


def test_without_its_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    assert main(["studio", "--no-browser"]) == 2
    assert 'pip install "phosphene[studio]"' in capsys.readouterr().err


@pytest.mark.slow
@needs_nicegui
def test_what_it_cannot_be_started_with_is_said(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "atlas.json").write_text("{")
        for given, words in (
            (["--files", str(tmp_path / "no")], "there is no such folder"),
            (["--atlas", str(tmp_path)], "no plan of an atlas"),
            (["--device", "nosuch"], "is not there"),
            (["--port", str(taken.getsockname()[1])], "cannot be had"),
        ):
            assert main(["studio", "--no-browser", *given]) == 2
            assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["atlas.json"]


# The page

START = """
import sys
from phosphene.studio.server import Limits, serve
if __name__ == "__main__":
    ready = lambda page: print(page, flush=True)
    serve([sys.argv[1]], out=sys.argv[2], port=0, limits=Limits(patience=15), device="cpu", on_ready=ready)
"""


@pytest.fixture(scope="module")
def studio(folder, tmp_path_factory):
    """A studio that runs: its address, its process, and where it keeps images."""
    place = tmp_path_factory.mktemp("studio")
    (place / "start.py").write_text(START)
    out = place / "out"
    source = str(Path(phosphene.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "start.py", str(folder), str(out)], cwd=place, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    yield address, psutil.Process(process.pid), out
    process.terminate()
    process.wait(60)
    assert sorted(os.listdir(place)) in (["out", "start.py"], ["start.py"])


# The page, spoken to as its script does


@pytest.fixture(scope="module")
def tab(studio):
    """A tab that all these tests use, one after the other."""
    tab = Tab(studio[0])
    yield tab
    tab.close()


def asked(address, path, **headers):
    """The status and the text of an answer to a path that is sent as it stands."""
    port = int(address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(headers.pop("method", "GET"), path, headers.pop("body", None), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


@needs_client
@pytest.mark.slow
def test_a_page_shows_the_files_of_its_folders_alone_and_opens_no_others(studio, tab, folder):
    one = tab
    options = [each["label"] for each in one.elements[one.labelled("Weights")]["props"]["options"]]
    assert options == ["its own", f"{folder.name}/broken.safetensors", f"{folder.name}/tiny.safetensors"]
    one.says("ready")
    for name in ("fifo.safetensors", "passwd.safetensors", "../x", "\x1b[2Jx", "é" * 5000):
        one.event("0", "dropped", {"name": name, "size": 5})
        said = one.says("is not in the folders that this studio may read")
        assert "\x1b" not in said
        assert len(said) < 400
    for event in ({}, {"name": 5}, {"name": "x", "size": "y"}, [], None, "x"):  # as no page sends
        one.event("0", "dropped", event)
    network, weights = one.labelled("Network"), one.labelled("Weights")
    for value in ({"value": 10**6, "label": "/etc/passwd"}, "/etc/passwd", {"value": "x"}, [1]):
        one.event(weights, "update:modelValue", value)
        one.event(network, "update:modelValue", value)
    one.open(NET, f"{folder.name}/tiny").says("opening")
    one.says("ready")
    for process in (studio[1], *studio[1].children(recursive=True)):  # and nothing goes out
        ends = [end.ip for each in process.net_connections("inet") for end in (each.laddr, each.raddr) if end]
        assert set(ends) <= {"127.0.0.1"}


@needs_client
@pytest.mark.slow
def test_no_path_of_the_server_leads_to_a_file(studio, folder):
    address = studio[0]
    assert asked(address, "/")[0] == 303  # to an address of its own
    page = urllib.request.urlopen(address, timeout=60).read()
    assert re.findall(rb"""(?:src|href)=["']?(?:https?:)?//""", page) == []  # it loads nothing from elsewhere
    version = re.search(rb"/_nicegui/([\d.]+)/static", page)[1].decode()
    for base in ("", f"/_nicegui/{version}/static", f"/_nicegui/{version}/resources/x", f"/_nicegui/{version}/esm/x"):
        for way in (
            "/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "//etc/passwd", "/%00", "/..\\..\\etc\\passwd",
            str(folder / "tiny.safetensors"), "/openapi.json", "/docs",
        ):  # fmt: skip
            status, text = asked(address, base + way)
            assert status in (400, 403, 404), (base + way, status)
            assert b"root:" not in text
    for method in ("POST", "PUT", "DELETE", "PATCH"):  # a form of another site sends its origin, and is refused before
        assert asked(address, "/", method=method)[0] in (404, 405)
        assert asked(address, "/", method=method, Origin="http://evil.example")[0] == 403
    polling = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert asked(address, polling, Origin="http://evil.example")[0] == 403
    assert asked(address, polling, method="POST", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert asked(address, polling, Host="evil.example")[0] == 403


@needs_client
@pytest.mark.slow
def test_a_page_whose_process_is_killed_says_so_and_another_goes_on(studio, tab, folder):
    one, other = tab, Tab(studio[0])
    one.says("ready")
    workers = [each for each in studio[1].children() if "spawn_main" in " ".join(each.cmdline())]
    mine = min(workers, key=psutil.Process.create_time)
    other.says("ready")
    other.open(NET, f"{folder.name}/tiny").says("opening")
    other.says("ready")
    other.begin(1, steps=4000)
    other.wait(lambda: other.picture(), "no picture")
    mine.kill()
    said = one.says("process was lost", timeout=10)
    assert said.endswith(": open a network again")
    assert said.count(". ") == 0
    assert not one.can("Run")
    one.open(NET, f"{folder.name}/tiny").says("opening")
    one.press("Stop").says("was stopped", timeout=10)  # whatever it does
    first = other.picture()
    other.wait(lambda: other.picture() != first, "the other's image has stopped")
    other.press("Stop")
    assert "interrupted" in other.end()
    kept = other.press("Keep").says("kept: ")
    assert (studio[2] / Path(kept.removeprefix("kept: ")).name).is_file()
    other.close()


SAID = """
    window.said = [];
    window.heard = 0;  // what was waited for last
    let last = [];
    new MutationObserver(() => {
        const now = [...document.querySelectorAll('[role=status], [role=alert]')]
            .filter(each => each.checkVisibility()).map(each => each.innerText);
        window.said.push(...now.filter(each => !last.includes(each)));
        last = now;
    }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
"""


class Visit:
    """A tab, and all that went wrong or out in it."""

    contexts: ClassVar = []

    def __init__(self, browser, address, **options):
        from playwright.sync_api import TimeoutError as MissedError

        self.missed = MissedError
        self.context = browser.new_context(**options)
        self.contexts.append(self.context)
        self.context.add_init_script(SAID)  # what is said for a moment alone is not missed
        self.page = page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        self.address, self.errors, self.requests = address, [], []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda websocket: self.requests.append(websocket.url.replace("ws://", "http://")))
        page.goto(address)

    def says(self, words):
        """Wait until the page says so, or find that it did since what was waited for last."""
        self.page.wait_for_function(
            """words => {
                const at = window.said.findIndex((each, at) => at >= window.heard && each.includes(words));
                if (at >= 0) window.heard = at;
                return at >= 0;
            }""",
            arg=words,
        )
        return self

    def pick(self, label, words, *, exact=True):
        """Pick what a list has, or not exactly what ends so.

        The list is shortened as one types, so on a busy machine a click may miss what it was aimed at: then again.
        """
        field = self.page.get_by_role("combobox", name=label, exact=True)
        name = words if exact else re.compile(re.escape(words) + "$")
        for _ in range(5):
            field.click()
            if field.get_attribute("readonly") is None:
                field.fill(words)
            with suppress(self.missed):
                self.page.get_by_role("option", name=name, exact=exact).first.click(timeout=10_000)
            self.page.wait_for_timeout(400)
            shown = [field.input_value(), *field.locator("xpath=ancestor::label[1]").inner_text().splitlines()]
            if words in shown or (not exact and any(each.endswith(f"/{words}") for each in shown)):
                return self
        raise AssertionError(f"{words} is not picked: {label} shows {shown}")

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()
        return self

    def open_tiny(self, weights="tiny.safetensors"):
        self.says("ready")
        if not self.page.get_by_role("combobox", name="Weights").is_visible():
            self.page.get_by_text("Weights and preprocessing").click()
        self.pick("Weights", weights, exact=False)
        self.pick("Network", NET).press("Open")
        if weights == "tiny.safetensors":
            try:
                self.page.get_by_text(re.compile(f"^{NET.rpartition(':')[2]}.*: expects")).wait_for()
                self.page.wait_for_function("document.querySelector('[role=status]').innerText === 'ready'")
            except self.missed:
                told = self.page.locator(".picks").inner_text(), self.page.evaluate("window.said")
                raise AssertionError(f"{NET} was not opened: {told}") from None
        return self

    def run(self, recipe="naive", steps=4096):
        self.pick("Recipe", recipe)
        self.page.get_by_label("steps", exact=True).first.fill(str(steps))
        self.page.wait_for_timeout(500)
        self.press("Run")
        self.page.wait_for_selector("#picture[src^='data:image/']")
        return self

    def source(self):
        return self.page.get_attribute("#picture", "src")

    def step(self):
        found = re.match(r"step (\d+)", self.page.locator("[role=status]").inner_text())
        return int(found[1]) if found else 0

    def close(self):
        """Leave, and check that all was right and nothing went out."""
        self.context.close()
        assert self.errors == []
        assert len(self.requests) > 5
        assert all(url.startswith((self.address, "data:")) for url in self.requests), self.requests


@pytest.fixture(autouse=True)
def closed():
    """No page of a test that failed is left for the next."""
    yield
    while Visit.contexts:
        Visit.contexts.pop().close()


@needs_browser
@pytest.mark.slow
def test_pick_run_see_it_change_change_strengths_stop_and_keep(browser, studio, folder):
    address, _, out = studio
    visit = Visit(browser, address)
    visit.open_tiny().run()
    first = visit.source()
    visit.page.wait_for_function("first => document.querySelector('#picture').src !== first", arg=first)
    visit.page.get_by_label("rate", exact=True).first.fill("0.123")
    visit.page.wait_for_timeout(1500)
    visit.press("Stop").says("interrupted").says("1 change on the way")
    assert visit.source().startswith("data:image/png")
    visit.page.wait_for_selector(".score:has-text('robustness')")
    visit.press("Keep").says("kept: ")
    place = Path(visit.page.locator("[role=status]").inner_text().removeprefix("kept: "))
    assert out in place.parents or place.parent.name == out.name
    saved = out / place.name
    known = read_provenance(saved)
    assert [(field, value) for _, field, value in known["changes"]] == [("optimizer.rate", 0.123)]
    assert known["stopped"] == "interrupted"
    assert known["steps"] > known["changes"][0][0]
    shown = base64.b64decode(visit.source().partition(",")[2])
    assert len(shown) > 1000
    again = phosphene.again(saved)
    assert again.same
    assert np.asarray(again.picture.image()).shape[:2] == (160, 160)
    assert visit.page.locator(".made .mark").count() == 1
    visit.close()


@needs_browser
@pytest.mark.slow
def test_a_run_goes_on_when_anothers_is_stopped_or_leaves(browser, studio):
    address, process, _ = studio
    one, two, third = (Visit(browser, address) for _ in range(3))
    for visit in (one, two, third):
        visit.open_tiny()
    one.run()
    two.run()
    third.press("Run").says("waiting: 2 other images")
    one.press("Stop").says("interrupted")
    third.page.wait_for_selector("#picture[src^='data:image/jpeg']")  # whose turn it is now
    before = two.step()
    two.page.wait_for_function(
        "before => +document.querySelector('[role=status]').innerText.split(' ')[1] > before", arg=before
    )

    def found():
        return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]

    deadline = time.monotonic() + 60
    while len(found()) > 3 and time.monotonic() < deadline:  # those of pages before end a while after them
        time.sleep(0.5)
    workers = found()
    assert len(workers) == 3
    one.close()
    third.close()
    deadline = time.monotonic() + 60
    while sum(child.is_running() for child in workers) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    (left,) = [child for child in workers if child.is_running()]  # those of closed tabs have ended
    before = two.step()
    two.page.wait_for_function(
        "before => +document.querySelector('[role=status]').innerText.split(' ')[1] > before", arg=before
    )
    left.kill()
    two.says("process was lost").press("Open").says("ready").run("clip", 3).says("all steps done")
    two.close()


@needs_browser
@pytest.mark.slow
def test_a_run_goes_on_through_a_reload_and_is_found_again_at_its_address(browser, studio):
    visit = Visit(browser, studio[0])
    page = visit.page
    visit.open_tiny()
    field = page.get_by_role("combobox", name="Class: type to search")
    field.click()
    field.fill("5")
    field.press("Enter")
    page.get_by_label("Seed", exact=True).fill("11")
    visit.run(steps=100_000)
    page.get_by_label("rate", exact=True).first.fill("0.321")
    page.wait_for_timeout(1000)
    place, before = page.url, visit.step()
    assert re.fullmatch(re.escape(studio[0]) + r"s/[\w-]{22}", place)
    page.reload()
    page.wait_for_function(
        "before => +document.querySelector('[role=status]')?.innerText.split(' ')[1] > before", arg=before
    )
    page.wait_for_selector("#picture[src^='data:image/jpeg']")

    def shows(page):
        assert page.get_by_label("Seed", exact=True).input_value() == "11"
        assert page.get_by_label("rate", exact=True).first.input_value() == "0.321"
        assert (
            "naive" in page.locator(".q-select", has_text=re.compile("^Recipe")).inner_text()
        )  # while it runs it cannot be picked
        assert page.get_by_role("combobox", name="Class: type to search").input_value().endswith("(5)")
        assert page.locator(".curve polyline").get_attribute("points").count(",") > 5

    shows(page)
    other = visit.context.new_page()  # a second tab of the same address, and the first stays
    other.goto(place)
    other.wait_for_selector("#picture[src^='data:image/jpeg']")
    shows(other)
    other.get_by_role("button", name="Stop", exact=True).click()
    visit.says("interrupted").says("1 change on the way")
    other.wait_for_selector(".score:has-text('robustness')")
    page.close()
    other.reload()
    other.wait_for_selector(".score:has-text('robustness')")
    shows(other)
    assert other.get_attribute("#picture", "src").startswith("data:image/png")
    other.goto("about:blank")
    deadline = time.monotonic() + 60
    while asked(studio[0], place.removeprefix(studio[0].rstrip("/")))[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(2)
    assert other.goto(place).status == 410
    assert "This page is gone" in other.inner_text("h1")
    visit.errors = [error for error in visit.errors if "410" not in error]
    visit.close()


@needs_browser
@pytest.mark.slow
def test_what_was_made_is_shown_again_with_its_scores_and_kept(browser, studio):
    visit = Visit(browser, studio[0])
    page = visit.page
    visit.open_tiny().run("clip", 3).says("all steps done")
    first = visit.source()
    page.get_by_label("Seed", exact=True).fill("77")
    visit.run("naive", 2).says("2 steps, all steps done")
    second = visit.source()
    assert first != second
    assert page.locator(".made button").all_inner_texts()[0].split("\n")[1:] == ["naive, seed 77"]
    page.get_by_role("button", name=re.compile("show again: .*, clip, seed")).click()
    page.wait_for_function("first => document.querySelector('#picture').src === first", arg=first)
    visit.says("3 steps, all steps done")
    page.wait_for_selector(".score:has-text('robustness')")
    visit.press("Keep").says("kept: ")
    kept = studio[2] / Path(page.locator("[role=status]").inner_text().removeprefix("kept: ")).name
    assert read_provenance(kept)["recipe"]["name"] == "clip"
    assert page.get_by_role("button", name="(kept)").count() == 1
    page.reload()
    page.wait_for_function("first => document.querySelector('#picture')?.src === first", arg=first)
    assert page.locator(".made button").count() == 2
    assert page.locator(".made button[aria-pressed=true] .mark").count() == 1
    visit.pick("Network", NET).press("Open").says("opening").says("ready")  # its pictures stay, and can be kept
    page.get_by_role("button", name=re.compile("show again: .*, naive, seed 77")).click()
    visit.press("Keep").says("kept: ")
    assert page.get_by_role("button", name="Judge", exact=True).is_disabled()
    visit.close()


DROP = """([name, data]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
    dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
}"""


@needs_browser
@pytest.mark.slow
def test_a_photograph_is_dropped_onto_the_page_and_used(browser, studio):
    visit = Visit(browser, studio[0])
    page = visit.page
    visit.open_tiny()
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(file, "PNG")
    page.evaluate(DROP, ["words.png", base64.b64encode(b"no image at all").decode()])
    visit.says("words.png is no image file")
    page.evaluate(DROP, ["mine.png", base64.b64encode(file.getvalue()).decode()])
    page.locator(".q-select", has_text="mine.png (dropped)").first.wait_for()
    visit.pick("Recipe", "invert")
    assert page.get_by_role("textbox", name="Unit").input_value().startswith("match(")
    visit.pick("Photograph", "mine.png (dropped)").pick("Start image", "as the recipe says")
    page.get_by_label("Height", exact=True).fill("64")
    page.get_by_label("Width", exact=True).fill("48")
    page.get_by_label("Facets", exact=True).fill("2")
    page.get_by_label("steps", exact=True).first.fill("3")
    page.wait_for_timeout(500)
    visit.press("Run").says("3 steps, all steps done")
    assert page.locator(".made button").count() == 2
    assert Image.open(io.BytesIO(base64.b64decode(visit.source().partition(",")[2]))).size == (48, 64)
    page.reload()
    page.locator(".q-select", has_text="mine.png (dropped)").first.wait_for()
    page.wait_for_function("document.querySelector('[aria-label=\"Height\"]').value === '64'")
    visit.errors = [error for error in visit.errors if "415" not in error]
    visit.close()


@needs_client
@pytest.mark.slow
def test_what_is_sent_to_the_page_is_bounded_and_of_its_own_page(studio, tab):
    place = urllib.request.urlopen(studio[0], timeout=60).url.removeprefix(studio[0].rstrip("/"))
    assert asked(studio[0], f"{place}/photograph", method="POST")[0] == 410  # no tab shows it
    assert asked(studio[0], "/s/x/photograph", method="POST")[0] == 410
    place = f"{tab.place.removeprefix(studio[0].rstrip('/'))}/photograph?name=%1b%5b2J..%2f..%2fa.png"
    elsewhere = {"Origin": "http://evil.example"}
    assert asked(studio[0], place, method="POST", body=b"x", **elsewhere)[0] == 403
    assert asked(studio[0], place, method="POST", body=b"x" * 20_000_001)[0] == 413
    said = tab.says("is too large: expected 20,000,000 bytes at most")
    assert said.startswith("a.png")
    assert asked(studio[0], place, method="POST", body=b"%!PS")[0] == 415
    tab.says("is no image file that is opened here")


@needs_client
@pytest.mark.slow
def test_no_address_is_guessed(studio):
    for token in ("zzz", "0" * 22, "%2e%2e", "a%00b"):
        status, text = asked(studio[0], f"/s/{token}")
        assert status == 410
        assert b"Begin another" in text
        assert token.encode() not in text


@pytest.mark.parametrize(
    ("text", "index"),
    [("tabby", 2), ("TIGER", 1), ("1", 1), ("flamingo (0)", 0), ("abb", 2), ("nothing", None), ("", None)],
)
def test_what_is_typed_into_a_list_is_found(text, index):
    pytest.importorskip("nicegui")
    from phosphene.studio.picker import NOTHING, find_option

    names = {0: "flamingo (0)", 1: "tiger cat (1)", 2: "tabby (2)"}
    assert find_option(text, names) == (NOTHING if index is None else index)


@needs_browser
@pytest.mark.slow
def test_what_is_typed_is_picked_or_refused_and_never_falls_back(browser, studio):
    visit = Visit(browser, studio[0])
    visit.says("ready")
    field = visit.page.get_by_role("combobox", name="Class: type to search")
    field.click()
    field.fill("tabby")
    field.press("Enter")
    visit.page.wait_for_function("field => field.value === 'tabby (281)'", arg=field.element_handle())
    field.click()
    field.fill("flamigno")
    visit.press("Run").says("no class is called 'flamigno'; did you mean flamingo (130)")
    assert visit.page.locator("#picture").is_hidden()
    network = visit.page.get_by_role("combobox", name="Network", exact=True)
    network.click()
    network.fill("efficientnet_lite9")
    visit.press("Open").says("no network is called 'efficientnet_lite9'; did you mean")
    network.click()
    network.fill("efficientnet_lite0")
    network.press("Enter")
    visit.press("Open").says("opening efficientnet_lite0").says("ready")
    visit.close()


@needs_browser
@pytest.mark.slow
def test_what_a_slow_click_points_at_is_picked(browser, studio):
    """Between press and release the list stays as it is, although the press takes the focus out of the field."""
    visit = Visit(browser, studio[0])
    page = visit.page
    visit.says("ready")
    field = page.get_by_role("combobox", name="Class: type to search")
    field.click()
    field.fill("cat")
    options = page.get_by_role("option")
    page.wait_for_function("[...document.querySelectorAll('[role=option]')].every(each => /cat/i.test(each.innerText))")
    words = options.nth(2).inner_text()
    options.nth(2).hover()
    page.mouse.down()
    page.wait_for_timeout(1000)
    page.mouse.up()
    page.wait_for_function("([field, words]) => field.value === words", arg=[field.element_handle(), words])
    page.wait_for_timeout(500)
    assert field.input_value() == words
    page.reload()  # as the server has it
    page.wait_for_function("words => document.querySelector('input[aria-label^=Class]')?.value === words", arg=words)
    visit.close()


@needs_browser
@pytest.mark.slow
def test_what_is_wrong_is_said_on_the_page_and_the_studio_goes_on(browser, studio, folder):
    visit = Visit(browser, studio[0])
    visit.open_tiny("broken.safetensors").says("cannot be read")
    size = (folder / "tiny.safetensors").stat().st_size
    drop = """([name, size]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(size)], name));
        dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
    }"""
    visit.page.evaluate(drop, ["elsewhere.safetensors", 5])
    visit.says("elsewhere.safetensors is not in the folders")
    visit.page.evaluate(drop, ["tiny.safetensors", size])
    visit.says("tiny.safetensors holds weights").press("Open").says("ready")
    visit.press("any unit")
    visit.page.get_by_role("textbox", name="Unit").fill("nosuch:3")
    visit.pick("Recipe", "naive").press("Run").says("test_resnet has no layer 'nosuch'")
    rate = visit.page.get_by_label("rate", exact=True).first
    rate.fill("-1")
    visit.page.get_by_text("expected above 0").wait_for()
    rate.fill("2")
    visit.page.get_by_role("textbox", name="Unit").fill("class:3 - class:5")
    visit.run("clip", 3).says("all steps done")
    visit.close()


@needs_browser
@pytest.mark.slow
def test_on_a_phone_nothing_is_cut_off_and_all_controls_have_names(browser, studio):
    visit = Visit(browser, studio[0], viewport={"width": 360, "height": 700})
    visit.says("ready").pick("Recipe", "tence")
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    named = page.evaluate(
        """() => [...document.querySelectorAll('input, button, [role=slider], [role=switch], [role=checkbox]')]
          .filter(each => each.checkVisibility() && !each.closest('[aria-hidden=true]'))
          .map(each => each.getAttribute('aria-label') || each.labels?.[0]?.innerText || each.innerText
            || each.closest('[aria-label]')?.getAttribute('aria-label') || each.outerHTML)"""
    )
    assert len(named) > 15
    assert [name for name in named if name.startswith("<")] == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(  # the page follows a moment later
            """light => {
                const sum = color => color.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)
                const style = getComputedStyle(document.body)
                return (sum(style.backgroundColor) > sum(style.color)) === light
            }""",
            arg=scheme == "light",
        )
    visit.close()


@needs_browser
@pytest.mark.slow
def test_other_sites_get_nothing_from_it(browser, studio):
    """A page of another origin, in the same browser, asks it in every way that a page can."""
    address, process, _ = studio
    port = int(address.rstrip("/").rpartition(":")[2])

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>elsewhere")

        def log_message(self, *_):
            pass

    site = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    asking = """async ([address, socket]) => {
      const image = await new Promise(done => {
        const image = new Image(); image.onload = () => done("in"); image.onerror = () => done("out");
        image.src = address + "favicon.ico";
      });
      const text = await fetch(address).then(answer => answer.ok ? "in" : "out", () => "out");
      const web = await new Promise(done => {
        const web = new WebSocket(socket); web.onopen = () => done("in"); web.onerror = () => done("out");
      });
      return [image, text, web];
    }"""
    socket_address = f"ws://127.0.0.1:{port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    context = browser.new_context()
    page = context.new_page()
    for shown, found in ((address, "in"), (f"http://127.0.0.1:{site.server_port}/", "out")):
        page.goto(shown)
        assert page.evaluate(asking, [address, socket_address]) == [found] * 3
    context.close()
    site.shutdown()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": base64.b64encode(b"0" * 16).decode()}
    path = socket_address.partition(f":{port}")[2]
    for origin, wanted in ((address.rstrip("/"), 101), ("http://evil.example", 403), (None, 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path, headers=upgrade | ({} if origin is None else {"Origin": origin}))
        assert connection.getresponse().status == wanted
        connection.close()
    for headers, wanted in (
        ({}, 303),
        ({"Host": f"evil.example:{port}"}, 403),
        ({"Origin": "http://evil.example"}, 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().status == wanted
        connection.close()
    heard = {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}
    assert heard == {"127.0.0.1"}
