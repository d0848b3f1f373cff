"""Explanations that an atlas keeps: its page leads to them, and they lead back."""

import dataclasses
import functools
import http.server
import json
import re
import shlex
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CHROMIUM, SHALLOW, written_network
from PIL import Image
from test_atlas import make_plan

import phosphene
from phosphene import InputError, Recipe
from phosphene.atlas import work as atlas_work
from phosphene.atlas.explanations import INDEX, MOST, RECORD, add_explanation, write_list
from phosphene.atlas.site_data import public_name
from phosphene.atlas.store import Store
from phosphene.attribution.into_atlas import put_into_atlas
from phosphene.attribution.pictures import PictureSettings, illustrate
from phosphene.cli.program import main

BAD = "a </script> <img src=x onerror=document.title=1>"
QUICK = ["--integration-steps", "4", "--steps", "1", "--no-accentuate", "--no-picture", "--methods", "saliency"]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small atlas of four classes and a layer, and the name of its network."""
    folder = tmp_path_factory.mktemp("atlas")
    name = written_network(folder, "net", 0, SHALLOW)
    store = Store(folder / "an atlas")
    recipe = Recipe.load("clip").override({"steps": 1})
    plan = make_plan(phosphene.open(name), classes=range(4), layers=["1"], recipe=recipe, judges=[], frames=0)
    store.write_plan(plan)
    atlas_work.run(store.place)
    return name, store


@pytest.fixture(scope="module")
def explained(made):
    """Maps of a class, and what the atlas has of it and of what carried it."""
    network = phosphene.open(made[0])
    pixels = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    maps = phosphene.explain(network, pixels, "class:2", "saliency", carriers=2)
    settings = PictureSettings(picture=False, accentuate=False, atlas=made[1].place)
    return maps, illustrate(network, maps, settings=settings)


@pytest.fixture
def store(made, tmp_path):
    """An atlas with the plan of the one that was made, and nothing else."""
    found = Store(tmp_path / "an atlas")
    found.write_plan(made[1].plan())
    return found


def listed(store):
    text = store.read(INDEX).decode()
    assert "<" not in text
    return json.loads(text.removeprefix("window.ATLAS.explanations = ").rstrip(";"))


def test_an_explanation_is_listed_and_leads_back(explained, store):
    page, notes = put_into_atlas(*explained, "my cat <b>.png", store.place)
    assert len(notes) == 1
    assert "`phosphene atlas site" in notes[0]
    ((name, photograph, unit, _, value, _, carriers),) = listed(store)
    assert Path(page).parent.name == name
    assert photograph == "my cat <b>.png"
    assert (unit, value) == ("class:2", pytest.approx(explained[0].value, rel=1e-3))
    assert [each[0] for each in carriers] == [each.unit for each in explained[0].carriers.pictured]
    text = Path(page).read_text()
    links = set(re.findall(r'href="(\.\.[^"]*)"', text))
    assert {"../../index.html", "../../index.html#/classes/2", f"../../index.html#/1/{carriers[-1][0][2:]}"} <= links
    for _, place, share in carriers:
        assert f'id="{place}"' in text
        assert -1 <= share <= 1


def test_the_same_photograph_and_unit_take_the_place_of_the_earlier(explained, store):
    pages = {put_into_atlas(*explained, "cat.png", store.place)[0] for _ in range(2)}
    assert len(pages) == len(listed(store)) == 1
    put_into_atlas(*explained, "dog.png", store.place)
    assert len(listed(store)) == 2


def changed(**values):
    return lambda told: told | values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(weights="0" * 16), "other weights"),
        (changed(weights=3), "weights"),
        (changed(unit="x" * 1001), "unit"),
        (changed(photograph="a\u202eb"), "photograph"),
        (changed(value=[1]), "value"),
        (changed(probability=7.0), "probability"),
        (changed(more=1), "more"),
        (changed(carriers=[{"unit": "1:2", "id": "x onclick=alert(1)", "share": 0.1}]), "carriers.0.id"),
        (changed(carriers=[{"unit": "1:2", "id": "unit-1", "share": 0.1}] * 201), "carriers"),
        (lambda told: [], "damaged"),
        (lambda told: "x" * 300_000, "damaged"),
    ],
)
def test_what_is_not_of_its_types_and_bounds_is_left_out_and_said(change, said, explained, store):
    put_into_atlas(*explained, "cat.png", store.place)
    put_into_atlas(*explained, "dog.png", store.place)
    (record,) = Path(store.root).glob(f"explanations/cat*/{RECORD}")
    record.write_text(json.dumps(change(json.loads(record.read_text()))))
    (note,) = write_list(store, explained[0].weights)
    assert "is not listed" in note
    assert said in note
    assert [each[1] for each in listed(store)] == ["dog.png"]


def test_folders_that_are_no_explanations_are_left_out_and_said(explained, store):
    put_into_atlas(*explained, "cat.png", store.place)
    folder = Path(store.root) / "explanations"
    (folder / "<img src=x>").mkdir()
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    notes = write_list(store, explained[0].weights)
    assert [("it has no explain.html" in note, "expected a name of" in note) for note in notes] == [
        (False, True),
        (True, False),
    ]
    assert len(listed(store)) == 1


def test_so_many_are_listed_and_no_more(store, monkeypatch):
    monkeypatch.setattr(Store, "names", lambda self, folder: [f"n{number}" for number in range(MOST + 5)])
    notes = write_list(store, "0" * 16)
    assert notes[-1] == f"of {MOST + 5} explanations the page lists the first {MOST}"
    assert len(notes) == MOST + 1


def test_what_cannot_be_is_refused_in_a_sentence(explained, made, tmp_path, capsys):
    with pytest.raises(InputError, match="can only be read"):
        put_into_atlas(*explained, "cat.png", "https://example.org/atlas")
    with pytest.raises(InputError, match="expected a name of letters"):
        add_explanation(made[1], "../x", None, {})
    assert main(["explain", "cat.png", "--into-atlas"]) == 2
    assert "expected --atlas DIR too" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_one_clicks_from_a_unit_to_its_explanation_and_back(made, tmp_path, browser, capsys):
    """From the command on the page on; the atlas says what the network is."""
    store = made[1]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    photograph = tmp_path / f"{BAD.replace('/', '')}.png"
    Image.fromarray(pixels).save(photograph)
    assert main(["atlas", "site", store.place, "--plain", "-q"]) == 0
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: wrong.append(request.url))
    address = (Path(store.root) / "index.html").as_uri()
    page.goto(f"{address}#/classes/2")
    command = shlex.split(page.locator("#explain-command").inner_text())
    assert command[1:4] == ["explain", "PHOTOGRAPH", "class:2"]
    assert page.locator(".explained").count() == 0
    words = [str(photograph) if word == "PHOTOGRAPH" else word for word in command[1:]]
    assert main([*words, "-o", str(tmp_path / "out"), *QUICK]) == 0
    assert "`phosphene atlas site" not in capsys.readouterr().out, "the page is there, and reads the list anew"
    page.reload()
    page.locator(".explained").click()
    assert page.locator("#carriers").is_visible()
    page.locator("svg a[href*='index.html#/classes/2']").click()
    page.wait_for_selector("#image")
    page.goto("about:blank")
    (entry,) = listed(store)
    carrier = next(each for each in entry[6] if each[0].startswith("1:"))
    page.goto(f"{address}#/1/{carrier[0][2:]}")
    page.locator(".explained").click()
    assert page.locator(f"#{carrier[1]}").is_visible()
    page.locator(".panel:visible a", has_text="in the atlas").click()
    page.wait_for_selector("#image")
    assert page.url == f"{address}#/1/{carrier[0][2:]}"
    page.goto(address)
    page.reload()
    assert photograph.name in page.locator(".explained").inner_text()
    assert page.title() != "1"
    assert wrong == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_words_of_the_command_are_quoted_or_there_is_none(made, browser):
    page = browser.new_page()
    main(["atlas", "site", made[1].place, "--plain", "-q"])
    page.goto((Path(made[1].root) / "index.html").as_uri())
    ask = "([text, windows]) => shellWord(text, windows)"
    hostile = "a'b\"; rm -rf $HOME `x`"
    assert page.evaluate(ask, ["blocks.1.act:12", False]) == "blocks.1.act:12"
    assert shlex.split(page.evaluate(ask, [hostile, False])) == [hostile]
    assert page.evaluate(ask, ["--photographs=x", False]) is None
    assert page.evaluate(ask, ["a b:3", True]) == '"a b:3"'
    assert page.evaluate(ask, ['a" & calc', True]) is None


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_below_a_path_of_a_server_it_leads_there_and_back_too(made, explained, tmp_path, browser):
    put_into_atlas(*explained, "cat.png", made[1].place)
    main(["atlas", "site", made[1].place, "--plain", "-q"])
    for name in ("index.html", "site", "images", "explanations"):  # as docs/atlas.md has it
        (tmp_path / "pages").mkdir(exist_ok=True)
        (tmp_path / "pages" / name).symlink_to(Path(made[1].root) / name)
    handler = functools.partial(QuietHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address, page, wrong = f"http://127.0.0.1:{server.server_port}/pages/", browser.new_page(), []
    page.on("response", lambda response: wrong.append(response.url) if response.status >= 400 else None)
    page.goto(f"{address}#/classes/2")
    page.wait_for_selector("#image")
    assert page.locator("#explain-command").count() == 0, "the network is a file of this machine"
    page.locator(".explained", has_text="cat.png").click()
    page.locator("svg a[href*='index.html#/classes/2']").click()
    page.wait_for_selector("#image")
    assert page.url == f"{address}index.html#/classes/2"
    server.shutdown()
    thread.join()
    server.server_close()
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"network": "resnet50"}, "resnet50"),
        ({"network": "torchvision:resnet18", "weights": None}, "torchvision:resnet18"),
        ({"network": "resnet50", "weights": "mine.pth"}, ""),
        ({"network": "net.py:Net"}, ""),
        ({"network": ["resnet50"]}, ""),
        ({}, ""),
    ],
)
def test_a_network_is_named_to_others_where_its_name_is_all_there_is(source, name, made):
    assert public_name(dataclasses.replace(made[1].plan(), source=source)) == name
