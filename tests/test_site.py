"""The atlas's page in a real browser, from the file system."""

import functools
import hashlib
import http.server
import json
import os
import re
import shlex
import subprocess
import threading
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import torch
from helpers import CHROMIUM
from PIL import Image
from test_atlas import make_plan

import phosphene
from phosphene import InputError, Recipe
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import site as atlas_site
from phosphene.atlas import top_photographs
from phosphene.atlas import work as atlas_work
from phosphene.atlas.sheets import frame_crops
from phosphene.atlas.site_data import COLUMNS
from phosphene.atlas.store import Store
from phosphene.atlas.top_photographs import crop_box
from phosphene.cli.program import main
from phosphene.judges import photo_set
from phosphene.networks.labels import Label, pair_classes
from phosphene.studio.messages import StudioConfig
from phosphene.studio.saving import save_image

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.slow  # most share an atlas of hundreds of units
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

NET = """
import torch
from torch import nn

def make():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        relu = nn.ReLU()
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), relu, nn.Conv2d(8, {channels}, 1), nn.AdaptiveAvgPool2d(1), relu,
            nn.Flatten(), nn.Linear({channels}, {classes}),
        )
"""
TAGS = "a </script> <img src=x onerror=document.title=1> <b>horse</b>"  # which stays text
WORDS = ["cat", "dog", "tabby cat", TAGS, "sea horse"]
UNITS = 400
OTHER_WORDS = ["zebra", "Tabby_Cat", "cat", "lion"]


def planned(folder, name, words, channels, steps=3, **options):
    (folder / f"{name}.py").write_text(NET.format(channels=channels, classes=len(words)))
    (folder / f"{name}.toml").write_text(f"size = 16\nmean = 0.5\nstd = 0.25\nlabels = {json.dumps(words)}\n")
    network = phosphene.open(f"{folder / name}.py:make")
    recipe = Recipe.load("clip").override({"steps": steps, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    store = Store(folder / f"an atlas of {name}")
    options = {"classes": range(len(words)), "recipe": recipe, "judges": []} | options
    store.write_plan(make_plan(network, **options))
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    store = planned(folder, "net", WORDS, UNITS, steps=1, classes=[], layers=["0", "2"], frames=0)
    atlas_work.run(store.place)
    network = store.plan().open()
    longer = Recipe.load("clip").override({"steps": 7, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    new = make_plan(network, classes=range(5), layers=["1#2"], count=8, recipe=longer, judges=[], frames=3)
    store.write_plan(atlas_plan.merge_plans(store.plan(), new))
    atlas_work.run(store.place)
    (folder / "photographs").mkdir()
    for name, colour in (("red", (200, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 200))):
        Image.new("RGB", (40, 30), colour).save(folder / f"photographs/{name}.png")
    beside = planned(folder, "other", OTHER_WORDS, 6, layers=["0", "2"], frames=2, facets=2)
    atlas_work.run(beside.place)
    page = atlas_site.write_site(
        store,
        network=network,
        photographs=folder / "photographs",
        beside=atlas_site.Beside(beside, beside.plan().open()),
    )
    return store, Path(page.address)


class Visit:
    """A page, and all that went wrong or out on it."""

    def __init__(self, page, address):
        self.page, self.address, self.errors, self.requests = page, address, [], []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def go(self, place):
        self.page.goto(f"{self.address}{place}")
        return self

    def links(self):
        """Every file that the page now shown leads to."""
        found = self.page.eval_on_selector_all(
            "[href],[src]",
            "all => all.map(each => each.href?.baseVal ?? each.href ?? each.src).filter(each => !each.includes('#'))",
        )
        sheets = self.page.eval_on_selector_all(
            ".thumb, .film", "all => all.map(each => getComputedStyle(each).backgroundImage)"
        )
        return {*found, *(match[1] for sheet in sheets if (match := re.match(r'url\("(.+)"\)', sheet)))}

    def pages(self):
        """Every address within the page that is shown as a link."""
        found = self.page.eval_on_selector_all("a[href*='#/']", "all => all.map(each => each.getAttribute('href'))")
        return set(found)


@pytest.fixture
def visit(browser, made):
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    visit = Visit(context.new_page(), made[1].as_uri())
    yield visit
    context.close()
    assert visit.errors == []
    assert all(url.startswith(("file://", "data:")) for url in visit.requests)


@needs_browser
def test_every_link_resolves(visit, made):
    seen, pages = set(), set()
    units = ("#/classes/3", "#/2/399", "#/1%232/50", "#/~classes/1", "#/~2/5", "#/~/classes/~classes/2")
    for place in ("#/", "#/classes", "#/0", "#/2", "#/1%232", "#/~2", "#/~", *units):
        visit.go(place).page.wait_for_selector(".thumb, .unit img, .side img")
        visit.page.wait_for_timeout(200)
        seen |= visit.links()
        pages |= visit.pages()
    files = [Path(unquote(urlparse(url).path)) for url in seen if not url.startswith("data:")]
    assert len(files) > 20
    assert [file for file in files if not file.exists()] == []
    assert all(file.is_relative_to(made[1].parent) for file in files)  # also the other atlas's: it may be put anywhere
    for place in sorted(pages, key=len)[:40]:
        visit.go(place).page.wait_for_selector("h1")
        assert visit.page.inner_text("h1") != "Not here", place
    visit.go("#/2/399").page.wait_for_selector("#image")
    shown = visit.page.eval_on_selector("#image", "image => image.naturalWidth")
    assert shown == 16


@needs_browser
def test_a_layer_of_hundreds_of_units_scrolls(visit, made):
    page = visit.go("#/2").page
    page.wait_for_selector(".cell")
    assert "400 of 400" in page.inner_text("#count")
    assert page.locator(".cell").count() < 250
    first = page.locator(".cell").first.get_attribute("href")
    for _ in range(40):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(10)
    page.wait_for_selector('.cell[href="#/2/399"]')
    assert page.locator(".cell").first.get_attribute("href") != first
    assert page.locator(".cell").count() < 250
    page.click('.cell[href="#/2/399"]')
    page.wait_for_selector("#image")
    assert "2, channel 399" in page.inner_text("h1")
    living = sum(not unit["dead"] for unit in units_of(made[1], "1#2")[0].values())
    assert 0 < living < 6
    assert page.locator(".near").count() == 6 * 2 + living  # of its own layer, and of those before and after
    assert page.locator('.near[href^="#/1%232/"]').count() == living
    assert page.locator("img.photographs").count() == 1
    assert (
        page.eval_on_selector("img.photographs", "image => image.decode().then(() => image.naturalWidth)") == 3 * 98 - 2
    )


@needs_browser
def test_search_finds_classes_and_units(visit):
    page = visit.go("").page
    page.keyboard.press("/")
    page.keyboard.type("horse")
    page.wait_for_selector("#found a")
    found = page.locator("#found a").all_inner_texts()
    assert {name.partition(" · ")[0] for name in found} == {TAGS, "sea horse"}
    page.fill("#query", "tabby")
    page.wait_for_function("document.querySelectorAll('#found a').length === 2")  # one of each network
    assert "an atlas of net" in page.locator("#found a").first.inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image")
    assert page.inner_text("h1") == "tabby cat"
    page.fill("#query", "tabby")
    page.wait_for_function("document.querySelectorAll('#found a').length === 2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText === 'Tabby_Cat'")
    page.fill("#query", "2:317")
    page.wait_for_selector("#found a:has-text('2:317')")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText.includes('channel 317')")
    page.fill("#query", "unicorn")
    page.wait_for_function("document.querySelector('#found').innerText.includes('nothing found')")


@needs_browser
def test_units_are_sorted_and_filtered_by_score(visit, made):
    rows = {row["index"]: row for row in made[0].rows() if row["group"] == "2"}
    page = visit.go("#/2?sort=retained").page
    page.wait_for_selector(".cell")
    shown = [
        int(href.rpartition("/")[2])
        for href in page.eval_on_selector_all(".cell", "all => all.map(x => x.getAttribute('href'))")
    ]
    worth = [rows[index]["retained"] for index in shown]
    assert worth == pytest.approx(
        sorted((row["retained"] for row in rows.values()), reverse=True)[: len(worth)], rel=1e-4
    )
    least = worth[len(worth) // 2]
    page.fill("input[type=number]", f"{least:.3f}")
    page.press("input[type=number]", "Enter")
    kept = sum(row["retained"] >= float(f"{least:.3f}") for row in rows.values())
    page.wait_for_function("!document.querySelector('#count').innerText.startsWith('400')")
    assert abs(int(page.inner_text("#count").split()[0]) - kept) <= 1  # the page has five digits of each score


@needs_browser
def test_the_keyboard_leads_everywhere(visit):
    page = visit.go("#/0").page
    page.wait_for_selector(".cell")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image")
    assert page.url.endswith("#/0/1")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash === '#/0/2'")
    page.wait_for_selector("#image")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#/0'")


@needs_browser
def test_two_networks_are_side_by_side(visit):
    page = visit.go("#/").page
    page.click("header .tab")
    page.wait_for_selector(".cell")
    assert "2 of 5 and 4 units are in both" in page.inner_text("#count")
    assert page.locator(".cell").all_inner_texts() == ["cat", "tabby cat"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".side")
    assert page.inner_text("h1") == "tabby cat"
    assert page.locator(".side .faint").first.inner_text() == "class:2"
    assert page.locator(".side").nth(1).locator(".faint").first.inner_text() == "class:1"
    loaded = "all => Promise.all(all.map(image => image.decode().then(() => image.naturalWidth)))"
    assert page.eval_on_selector_all(".side img", loaded) == [16, 16]
    left, right = (page.locator(".side").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('h1').innerText === 'cat'")
    page.keyboard.press("/")
    page.keyboard.type("tabby")
    page.wait_for_selector("#found a:has-text('tabby')")
    assert page.locator("#found a").count() == 1  # both networks' are on one page
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText === 'tabby cat'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#count")
    page.set_viewport_size({"width": 360, "height": 700})
    visit.go("#/~/classes/~classes/2").page.wait_for_selector(".side")
    above, below = (page.locator(".side").nth(i).bounding_box() for i in (0, 1))
    assert above["y"] + above["height"] <= below["y"]


@needs_browser
def test_layers_side_by_side_are_paired_by_index_and_sorted_by_how_much_they_differ(visit):
    page = visit.go("#/~/2/~2").page
    page.wait_for_selector(".cell")
    assert "6 of 400 and 6 units are in both" in page.inner_text("#count")
    page.select_option("select[aria-label='sort by']", "retained~")
    page.wait_for_selector(".cell:has-text('%')")
    gaps = []
    for text in page.locator(".cell").all_inner_texts():
        first, second = (float(number) for number in re.findall(r"([-\d.]+) %", text))
        gaps.append(abs(first - second))
    assert len(gaps) == 6
    assert all(gap >= later - 0.11 for gap, later in pairwise(gaps))  # they are shown rounded
    page.select_option("label:has-text('an atlas of net') select", "0")
    page.wait_for_function("document.querySelector('#count').innerText.startsWith('6 of 8 and 6')")


def films(page):
    return page.locator(".film").evaluate_all("all => all.map(each => each.getAttribute('aria-label'))")


@needs_browser
def test_layers_side_by_side_are_paired_as_matched(tmp_path, browser):
    first = planned(tmp_path, "first", WORDS, 6, classes=[], layers=["2"], steps=1)
    second = planned(tmp_path, "second", OTHER_WORDS, 6, classes=[], layers=["0", "2"], steps=1)
    for store in (first, second):
        atlas_work.run(store.place)
    pairs = [[0, 3, 0.25], [5, 1, 0.75], [2, 99, 0.9]]
    told = {
        "phosphene": "comparison of networks",
        "a": {"name": "second", "weights": second.plan().weights},  # the other way round
        "b": {"name": "first", "weights": first.plan().weights},
        "matches": [{"layer_a": "0", "layer_b": "2", "pairs": [[b, a, value] for a, b, value in pairs]}],
    }
    (tmp_path / "compare.json").write_text(json.dumps(told))
    words = ["atlas", "site", first.place, "--beside", second.place, "--plain", "-q", "--match"]
    assert main([*words, str(tmp_path / "compare.json")]) == 0
    page = browser.new_page()
    visit = Visit(page, Path(first.path("index.html")).as_uri()).go("#/~/2/~0")
    page.wait_for_selector(".cell")
    shown = page.eval_on_selector_all(".cell", "all => all.map(each => each.textContent)")
    assert shown == ["5 · 1: 0.75", "0 · 3: 0.25"]
    assert "2 of 6 and 8 units are matched" in page.inner_text("#count")
    page.click(".cell")
    page.wait_for_selector(".sides")
    assert "matched: correlation 0.75" in page.inner_text("main")
    assert visit.errors == []
    told["b"]["weights"] = "0" * 16
    (tmp_path / "compare.json").write_text(json.dumps(told))
    assert main([*words, str(tmp_path / "compare.json")]) == 2
    assert main([*words[:3], "--plain", "--no-beside", "--match", "compare.json"]) == 2


@needs_browser
def test_images_kept_by_other_recipes_are_shown_as_such(tmp_path, browser):
    store = planned(tmp_path, "net", WORDS, 6, classes=[1], steps=1)
    atlas_work.run(store.place)
    picture = phosphene.ascend(store.plan().open(), "class:1", Recipe.load("naive").override({"steps": 2}))[0]
    place = save_image(picture, StudioConfig(atlas=store.place))
    atlas_site.write_site(store, network=store.plan().open())
    page = browser.new_page()
    visit = Visit(page, Path(store.path("index.html")).as_uri()).go("#/classes/1")
    page.wait_for_selector("#kept img")
    assert "Kept, by other recipes" in page.inner_text("main")
    assert page.get_attribute("#kept a", "href") == Path(place).relative_to(store.place).as_posix()
    assert page.locator(".facets img").count() == 1
    assert visit.errors == []


@needs_browser
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_an_ascent_is_played_paused_and_stepped_through(browser, made, motion):
    context = browser.new_context(reduced_motion=motion)
    page = context.new_page()
    page.goto(f"{made[1].as_uri()}#/classes/2")
    page.wait_for_selector(".film")
    if motion == "reduce":
        page.wait_for_timeout(700)
        assert "Play" in page.inner_text("#play")
        assert films(page) == ["tabby cat after 7 steps"]
        page.click("#play")
    page.wait_for_function("document.querySelector('#play').innerText.includes('Pause')")
    page.wait_for_function("document.querySelector('.controls output').innerText === 'step 6 of 7'")
    page.wait_for_function("document.querySelector('#play').innerText.includes('Play')")  # once, and then it rests
    assert films(page) == ["tabby cat after 7 steps"]
    seen = []
    page.focus("input[type=range]")
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        style = page.eval_on_selector(".film", "each => getComputedStyle(each).backgroundPosition")
        seen.append((films(page)[0], style, page.inner_text(".controls output")))
    assert [words for words, _, _ in seen] == [f"tabby cat after {step} steps" for step in (3, 6, 7)]
    assert len({style for _, style, _ in seen}) == 3
    assert page.evaluate("location.hash") == "#/classes/2"  # the arrows are the control's
    page.click("#play")
    page.click("#play")
    assert "Play" in page.inner_text("#play")
    stopped = films(page)
    page.wait_for_timeout(700)
    assert films(page) == stopped
    # Facets are played together; a unit without a film has its curve alone.
    page.goto(f"{made[1].as_uri()}#/~classes/1")
    page.wait_for_function("document.querySelectorAll('.film').length === 2")
    page.goto(f"{made[1].as_uri()}#/0/1")
    page.wait_for_function("document.querySelector('h1').innerText === '0, channel 1'")
    assert page.locator(".film, #play").count() == 0
    context.close()


@needs_browser
def test_a_unit_says_how_it_was_made(visit, made):
    page = visit.go("#/1%232/50").page
    page.wait_for_selector("#command")
    command = page.inner_text("#command")
    verb, again, file = shlex.split(command)
    assert (verb, again) == ("phosphene", "again")
    page.click("summary")
    assert 'name = "clip"' in page.inner_text("details pre")
    result = phosphene.again(Path(made[0].root, file))
    assert result.same
    assert str(result.picture.unit) == "1#2:50"


@needs_browser
def test_the_network_is_drawn_and_its_layers_are_in_order(visit):
    page = visit.go("#/").page
    page.wait_for_selector(".drawn")
    names = page.locator("section").first.locator(".layers strong").all_inner_texts()
    assert names == ["0", "2", "1#2", "classes"]
    drawn = page.locator("section").first.locator(".drawn a")
    assert drawn.evaluate_all("all => all.map(each => each.getAttribute('aria-label'))") == names
    drawn.nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText === '1#2'")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_all_images_have_words(browser, made, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    visit = Visit(context.new_page(), made[1].as_uri())
    for place in ("#/", "#/2", "#/classes/1", "#/2/1", "#/~", "#/~/classes/~classes/2"):
        visit.go(place).page.wait_for_selector(".thumb, #image, .side")
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.page.locator("img:not([alt]), .thumb:not([aria-label]), .film:not([aria-label])").count() == 0
    paper, ink = visit.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = sum(map(int, re.findall(r"\d+", paper)[:3])) > sum(map(int, re.findall(r"\d+", ink)[:3]))
    assert light == (scheme == "light")
    assert visit.errors == []
    context.close()


@needs_browser
def test_what_is_not_there_is_said(visit):
    page = visit.go("#/nosuch").page
    page.wait_for_function("document.querySelector('h1').innerText === 'Not here'")
    visit.go("#/classes/77").page.wait_for_function("document.querySelector('h1').innerText === 'Not here'")


def test_a_site_of_an_atlas_without_images_is_refused_and_writes_nothing(tmp_path, made, capsys):
    store = Store(tmp_path / "a")
    store.write_plan(made[0].plan())
    with pytest.raises(InputError, match="has no image yet"):
        atlas_site.write_site(store)
    assert main(["atlas", "site", str(tmp_path / "a"), "--plain"]) == 2
    assert "phosphene atlas run" in capsys.readouterr().err
    assert os.listdir(tmp_path / "a") == ["atlas.json"]


def test_a_site_beside_what_cannot_be_shown_is_refused_and_writes_nothing(tmp_path, capsys):
    first = planned(tmp_path, "first", WORDS, 4)
    atlas_work.run(first.place)
    second = planned(tmp_path, "second", OTHER_WORDS, 4)
    before = sorted(os.listdir(first.root))
    with pytest.raises(InputError, match="beside itself"):
        atlas_site.write_site(first, beside=atlas_site.Beside(Store(f"{first.place}/")))
    assert main(["atlas", "site", first.place, "--beside", second.place, "--plain"]) == 2
    assert f"{second.place!r} has no image yet" in capsys.readouterr().err
    assert main(["atlas", "site", first.place, "--beside", str(tmp_path / "nowhere")]) == 2
    assert "is no atlas" in capsys.readouterr().err
    assert sorted(os.listdir(first.root)) == before


def test_a_page_written_anew_leaves_nothing_of_the_last(tmp_path):
    first, second = planned(tmp_path, "first", WORDS, 4), planned(tmp_path, "second", OTHER_WORDS, 4)
    for store in (first, second):
        atlas_work.run(store.place)
    assert main(["atlas", "site", first.place, "--beside", second.place, "--plain", "-q"]) == 0
    copied = {row["file"]: row["sha256"] for row in second.rows()}
    (folder,) = os.listdir(Path(first.root, "site"))
    for file, digest in copied.items():
        assert hashlib.sha256(first.read(f"site/{folder}/beside/{file}")).hexdigest() == digest
    images = {row["file"] for row in first.rows()}
    assert main(["atlas", "site", first.place, "--plain", "--no-beside", "-q"]) == 0
    assert not [path for path in Path(first.root, "site").rglob("*") if path.is_file() and "beside" in path.parts]
    assert first.verify() == []
    assert {row["file"] for row in first.rows()} == images


def files_in(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", [InputError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [0, 1, 3])
def test_until_a_page_is_written_anew_the_last_one_is_whole(tmp_path, monkeypatch, how, written):
    store = planned(tmp_path, "first", WORDS, 4, layers=["2"])
    atlas_work.run(store.place)
    atlas_site.write_site(store)
    before, left, write = files_in(store.root), [written], Store.write

    def fails(self, name, data):
        left[0] -= 1
        if left[0] < 0:
            raise how("stopped")
        write(self, name, data)

    monkeypatch.setattr(Store, "write", fails)
    with pytest.raises(how):
        atlas_site.write_site(store)
    monkeypatch.setattr(Store, "write", write)
    assert files_in(store.root) == before
    atlas_site.write_site(store)
    assert len(os.listdir(Path(store.root, "site"))) == 1


def test_classes_of_two_networks_are_paired_by_wordnet_id_or_else_by_name():
    crane, machine = Label(("crane",), "n02012849"), Label(("crane",), "n03126707")
    theirs = {5: machine, 7: crane, 9: Label(("Great_White_Shark", "man-eater")), 11: Label(("crane",))}
    ours = {0: crane, 1: machine, 2: Label(("great white shark",)), 3: Label(("ox",))}
    assert pair_classes(ours, theirs) == [
        [0, 7], [1, 5], [2, 9],
    ]  # fmt: skip
    assert pair_classes({0: Label(("crane",)), 1: Label(("crane",))}, theirs) == [[0, 5], [1, 7]]


def test_the_photographs_that_are_shown_are_those_that_excite_a_unit_most(made):
    network = made[0].plan().open()
    folder = made[1].parents[1] / "photographs"
    photographs = top_photographs.decode(network, photo_set.PhotoSet.of(folder))
    excited = top_photographs.TopPhotographs.of(network, ["classes", "0", "2"], photographs, "cpu")
    shown = {}
    for unit, names, crops in excited.most("0", range(8)):
        shown[unit] = crops
        assert sorted(names) == ["blue.png", "green.png", "red.png"]
        for name, (photograph, _) in zip(names, crops, strict=True):
            with Image.open(folder / name) as image:
                assert photograph.getpixel((0, 0)) == image.getpixel((0, 0))
    assert list(shown) == list(range(8))
    files = sorted(folder.glob("*.png"))
    with network.borrowed("cpu"), torch.no_grad():
        seen = []
        for file in files:
            with Image.open(file) as image:
                pixels = network.preprocessing.photograph(image)[None]
            network.read(pixels, {"0": lambda output: seen.append(output.flatten(2).amax((0, 2)))})
    for unit, crops in shown.items():
        order = torch.stack(seen)[:, unit].argsort(descending=True)
        for (photograph, _), place in zip(crops, order.tolist(), strict=True):
            with Image.open(files[place]) as image:
                assert photograph.getpixel((0, 0)) == image.getpixel((0, 0))


def test_a_crop_is_what_the_neuron_sees():
    box = crop_box((64, 64), 8 * 5 + 3, (8, 8), (11, 11))  # the neuron in row 5, column 3 of 8 by 8
    left, top = round(3.5 * 8 - 5.5), round(5.5 * 8 - 5.5)
    assert box == (left, top, left + 11, top + 11)
    assert crop_box((64, 64), 63, (8, 8), (40, 40)) == (24, 24, 64, 64)  # all of it within the photograph
    assert crop_box((48, 64), 0, (), (48, 64)) == (0, 0, 64, 48)
    photograph = Image.new("RGB", (64, 64), "white")
    assert frame_crops([(photograph, (0, 0, 64, 64))] * 3).size == (3 * 98 - 2, 96)
    assert frame_crops([(photograph, box)] * 3).size == (3 * 98 - 2, 2 * 96 + 2)


def units_of(page, group):
    """The rows of a group on the page, as dictionaries by index, and the text they are in."""
    (file,) = page.parent.glob("site/*/data.js")
    data = json.loads(file.read_text().removeprefix("window.ATLAS = ").rstrip(";"))
    script = next(each["script"] for each in data["groups"] if each["key"] == group)
    text = (page.parent / script).read_text()
    rows = json.loads(text.partition("] = ")[2].rstrip(";"))
    units = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return {unit["index"]: unit for unit in units}, text


def test_units_that_are_alike_are_the_ones_most_active_on_the_image(made):
    store, page = made
    classes, text = units_of(page, "classes")
    assert "</script>" not in text
    assert not any(unit["dead"] for unit in classes.values())
    for index, unit in classes.items():
        assert set(unit["near"]) == {"classes", "1#2"}  # the last layer is next to them
        assert set(unit["near"]["classes"]) == set(range(5)) - {index}
    units, _ = units_of(page, "0")
    network = store.plan().open()
    with network.borrowed("cpu"), torch.no_grad():
        pixels = []
        for unit in units.values():
            with Image.open(Path(store.root, unit["files"][0])) as image:
                pixels.append(torch.tensor(np.asarray(image)).movedim(2, 0).float())
        maps = network.module[:1](network.preprocessing(torch.stack(pixels)))
        own, after = maps.mean((2, 3)), network.module[1:3](maps).mean((2, 3))
    for activity, group in ((own, "0"), (after, "2")):
        apart = (activity - activity.mean(0)) / activity.std(0)
        for index, unit in units.items():
            shown = apart[index, unit["near"][group]]
            assert shown.tolist() == sorted(shown.tolist(), reverse=True)
            others = [i for i in range(apart.shape[1]) if i not in unit["near"][group] and (group, i) != ("0", index)]
            assert shown.min() >= apart[index, others].max() - 1e-3
            assert (group, index) not in [("0", one) for one in unit["near"]["0"]]
    assert set(units[0]["near"]) == {"0", "2"}
    last, _ = units_of(page, "1#2")
    dead = {index for index, unit in last.items() if unit["dead"]}
    assert 0 < len(dead) < len(last)
    for index, unit in last.items():
        if index in dead:  # it has no image of its own
            assert (unit["near"], unit["feeds"]) == ({}, [])
            continue
        assert not dead & set(unit["near"]["1#2"])
        assert set(unit["near"]) == {"1#2", "2"}
        assert {name for _, name in unit["feeds"]} == set(WORDS)
        assert all(WORDS[index] == name for index, name in unit["feeds"])
    theirs, _ = units_of(page, "~0")
    assert set(theirs[0]["near"]) == {"~0", "~2"}


@needs_browser
def test_units_are_filtered_while_one_types(visit):
    page = visit.go("#/classes").page
    page.wait_for_selector(".cell")
    page.click("#name")
    page.keyboard.type("horse")
    page.wait_for_function("document.querySelector('#count').innerText.startsWith('2 of 5')")
    assert page.evaluate("document.activeElement.id") == "name"  # one can go on typing
    assert page.locator(".cell").count() == 2
    page.reload()
    page.wait_for_selector(".cell")
    assert (page.input_value("#name"), page.locator(".cell").count()) == ("horse", 2)
    page.click("#name")
    page.keyboard.press("End")
    page.keyboard.type("s")
    page.wait_for_function("document.querySelector('#count').innerText.startsWith('0 of 5')")
    visit.go("#/2?sort=retained").page.wait_for_selector(".cell")
    page.click("input[type=number]")
    page.keyboard.type("2")  # more than all of an activation
    page.wait_for_function("!document.querySelector('#count').innerText.startsWith('400')")
    assert page.evaluate("document.activeElement.type") == "number"


@needs_browser
def test_escape_leads_from_a_unit_to_its_layer_and_on_to_the_overview(visit):
    page = visit.go("#/2/7").page
    page.wait_for_selector("#image")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#/2'")
    page.wait_for_selector(".cell")
    page.focus("#size")
    page.keyboard.press("Escape")  # first it leaves the field
    assert page.evaluate("location.hash") == "#/2"
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#/'")
    visit.go("#/~").page.wait_for_selector(".cell")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#/'")


def metas(page):
    found = page.eval_on_selector_all(
        "meta[content]", "all => all.map(each => [each.name || each.getAttribute('property'), each.content])"
    )
    return dict(found) | {"title": page.title()}


@needs_browser
def test_every_page_has_a_title_a_description_and_a_picture(visit, made):
    seen = {}
    for place in ("#/", "#/2", "#/classes/2", "#/2/7", "#/~", "#/~/classes/~classes/2"):
        visit.go(place).page.wait_for_selector(".thumb, #image, .side")
        visit.page.wait_for_function(f"location.hash === {json.dumps(place)}")
        visit.page.wait_for_timeout(150)
        seen[place] = told = metas(visit.page)
        assert told["og:title"] == told["title"]
        assert told["og:description"] == told["description"]
        assert (made[1].parent / unquote(told["og:image"])).is_file()
    assert len({told["title"] for told in seen.values()}) == len(seen)
    assert seen["#/classes/2"]["title"].startswith("tabby cat · ")
    assert seen["#/classes/2"]["og:image"].endswith("classes/0000/00002.png")
    assert "clip, 7 steps" in seen["#/classes/2"]["description"]
    text = made[1].read_text()
    preview = re.search(r'og:image" content="([^"]+)"', text)[1]
    with Image.open(made[1].parent / preview) as image:
        assert image.size == (1200, 600)
    assert "<b>" not in text
    assert seen["#/"]["description"] in text


@needs_browser
def test_dead_units_are_marked_can_be_left_out_and_have_no_likeness(visit, made):
    units, _ = units_of(made[1], "1#2")
    dead = [index for index, unit in units.items() if unit["dead"]]
    page = visit.go("#/1%232").page
    page.wait_for_selector(".cell")
    marked = page.eval_on_selector_all(".cell:has(.badge)", "all => all.map(each => each.getAttribute('href'))")
    assert marked == [f"#/1%232/{index}" for index in dead]
    page.click("#dead")
    page.wait_for_function(f"document.querySelector('#count').innerText.startsWith('{len(units) - len(dead)} of')")
    assert page.locator(".cell .badge").count() == 0
    page.reload()
    page.wait_for_selector(".cell")
    assert page.locator(".cell").count() == len(units) - len(dead)
    visit.go(f"#/1%232/{dead[0]}").page.wait_for_selector("#is-dead")
    assert "dead unit" in page.inner_text("#is-dead")
    assert page.locator(".near").count() == 0
    visit.go("#/0").page.wait_for_selector(".cell")
    assert page.locator("#dead").count() == 0  # there is none


@needs_browser
def test_photographs_are_named(visit, made):
    page = visit.go("#/0/3").page
    page.wait_for_selector(".top li")
    assert sorted(page.locator(".top li").all_inner_texts()) == ["blue.png", "green.png", "red.png"]
    assert units_of(made[1], "0")[0][3]["photographs"][1] == page.locator(".top li").all_inner_texts()


@needs_browser
def test_cells_are_as_large_as_one_wants_and_larger_on_a_wide_screen(browser, made):
    def width(page):
        page.wait_for_selector(".cell .thumb")
        return page.locator(".cell .thumb").first.bounding_box()["width"]

    context = browser.new_context(viewport={"width": 1100, "height": 800})
    visit = Visit(context.new_page(), made[1].as_uri()).go("#/2")
    page = visit.page
    assert 80 < width(page) <= 96
    page.fill("#size", "304")
    assert 250 < width(page) <= 304
    style = page.eval_on_selector(".cell .thumb", "each => getComputedStyle(each).backgroundImage")
    assert "images/" in style  # its own image, since the small one would be blurred
    page.reload()
    assert 250 < width(page) <= 304
    assert visit.errors == []
    context.close()
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    assert width(Visit(context.new_page(), made[1].as_uri()).go("#/2").page) > 140
    context.close()


@needs_browser
def test_an_image_can_be_cited(browser, made):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    visit = Visit(context.new_page(), made[1].as_uri()).go("#/classes/3")
    page = visit.page
    page.click("#cite")
    text, bibtex = page.locator("#citation pre").all_inner_texts()
    version = f"phosphene {phosphene.__version__}"
    for word in (TAGS, "an atlas of net", "clip, 7 steps", version, made[0].plan().weights):
        assert word in text
    assert re.fullmatch(r"@misc\{\w+,\n(  \w+ = \{.*\},\n)+\}", bibtex)
    assert bibtex.count("{") == bibtex.count("}")
    page.click("text=Copy BibTeX")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == bibtex
    assert page.locator("#citation b").count() == 0
    page.click("#cite")
    assert page.locator("#citation pre").count() == 0
    assert visit.errors == []
    context.close()


@needs_browser
def test_the_command_works_from_where_it_is_copied(visit, tmp_path, monkeypatch):
    page = visit.go("#/classes/1").page
    page.wait_for_selector("#command")
    words = shlex.split(page.inner_text("#command"))
    monkeypatch.chdir(tmp_path)
    assert main([*words[1:], "-q"]) == 0
    assert len(list(tmp_path.glob("phosphene-again/*.png"))) == 1


@pytest.fixture
def address(tmp_path, made):
    """Where the page is served below a path, published as docs/atlas.md says."""
    docs = (Path(__file__).resolve().parents[1] / "docs/atlas.md").read_text(encoding="utf-8")
    commands = re.search(r"### Publish.*?```sh\n(.*?)```", docs, re.DOTALL)[1].splitlines()
    assert shlex.split(commands[0])[:4] == ["phosphene", "atlas", "site", "my-atlas"]
    (tmp_path / "my-atlas").symlink_to(made[0].root)
    for command in commands[1:]:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    handler = functools.partial(QuietHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/my-pages/"
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@needs_browser
@pytest.mark.skipif(os.name == "nt", reason="the commands are of a Unix shell")
def test_a_page_is_published_below_a_path_of_a_server(browser, made, address, tmp_path, monkeypatch):
    context = browser.new_context()
    visit = Visit(context.new_page(), address)
    loaded = "all => Promise.all(all.map(image => image.decode().then(() => image.naturalWidth)))"
    for place in ("", "#/2", "#/~", "#/classes/2", "#/1%232/50", "#/~classes/1"):
        visit.go(place).page.wait_for_selector(".thumb, #image")
        visit.page.wait_for_timeout(150)
        assert 0 not in visit.page.eval_on_selector_all("img:not([loading])", loaded)
    assert visit.errors == []
    assert all(url.startswith((address, "data:")) for url in visit.requests)
    page = visit.go("#/classes/1").page
    page.wait_for_selector("#image")
    with page.expect_download() as download:
        page.click("#download")
    words = shlex.split(page.inner_text("#command"))
    assert download.value.suggested_filename == words[-1]
    download.value.save_as(tmp_path / words[-1])
    kept = (tmp_path / words[-1]).read_bytes()
    assert kept == made[0].read(units_of(made[1], "classes")[0][1]["files"][0])
    monkeypatch.chdir(tmp_path)
    assert main([*words[1:], "-q"]) == 0
    page.click("#cite")
    assert f"{address}#/classes/1" in page.inner_text("#citation .bibtex")
    context.close()


@pytest.fixture
def small_atlas(tmp_path):
    (tmp_path / "photographs").mkdir()
    for name, colour in (("red", (200, 20, 20)), ("green", (20, 200, 20))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"photographs/{name}.png")
    store = planned(tmp_path, "first", WORDS, 4, layers=["2"], steps=1, frames=0)
    atlas_work.run(store.place)
    return store


def data_of(store):
    (file,) = Path(store.root).glob("site/*/data.js")
    return json.loads(file.read_text().removeprefix("window.ATLAS = ").rstrip(";"))


def test_a_page_remembers_what_it_was_made_with(small_atlas, tmp_path, monkeypatch, capsys):
    place = small_atlas.place
    monkeypatch.chdir(tmp_path)
    assert main(["atlas", "site", place, "--photographs", "photographs", "--title", "Mine", "--judges", "none"]) == 0
    assert "as last time" not in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["atlas", "site", place]) == 0
    said = capsys.readouterr().out
    assert f"as last time: --photographs {tmp_path / 'photographs'} --judges none --title Mine" in said
    assert data_of(small_atlas)["title"] == "Mine"
    assert list(Path(small_atlas.root).glob("site/*/photographs"))
    assert main(["atlas", "site", place, "--no-photographs", "--title", "Yours"]) == 0
    assert "as last time" not in capsys.readouterr().out  # nothing is left of it
    assert data_of(small_atlas)["title"] == "Yours"
    assert not list(Path(small_atlas.root).glob("site/*/photographs"))
    assert main(["atlas", "site", place, "--plain"]) == 0
    assert "as last time: --title Yours" in capsys.readouterr().out
    assert main(["atlas", "site", place, "--photographs", str(tmp_path / "photographs"), "-q"]) == 0
    assert json.loads(small_atlas.read("site.json")) == {
        "format": 1, "photographs": str(tmp_path / "photographs"), "title": "Yours",
    }  # fmt: skip


def test_what_the_settings_of_someone_else_name_is_not_followed(small_atlas, tmp_path, capsys):
    foreign = {"format": 1, "photographs": str(tmp_path / "photographs"), "title": "Theirs"}
    place = Path(small_atlas.root, "site.json")
    place.write_text(json.dumps(foreign))
    assert main(["atlas", "site", small_atlas.place]) == 0
    said = capsys.readouterr().out
    assert "not by you on this machine" in said
    assert data_of(small_atlas)["title"] == "Theirs"
    assert not list(Path(small_atlas.root).glob("site/*/photographs"))
    place.write_text(json.dumps(foreign))
    assert main(["atlas", "site", small_atlas.place, "--trust", "-q"]) == 0
    assert list(Path(small_atlas.root).glob("site/*/photographs"))


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", "{", '{"format": 1, "photographs": 3}', '{"format": 1, "other": "x"}', '{"format": 2}',
        '{"format": 1, "url": "javascript:alert(1)"}', json.dumps({"format": 1, "title": "x" * 201}),
        json.dumps({"format": 1, "title": "a\x1b[2J"}), '{"format": 1, "title": "' + "x" * 70000 + '"}',
    ],
)  # fmt: skip
def test_settings_that_are_none_are_refused(small_atlas, text, capsys):
    before = files_in(small_atlas.root)
    Path(small_atlas.root, "site.json").write_text(text)
    assert main(["atlas", "site", small_atlas.place]) == 2
    assert "site.json" in capsys.readouterr().err
    os.unlink(Path(small_atlas.root, "site.json"))
    assert files_in(small_atlas.root) == before


def test_the_page_is_shown_where_that_is_asked_for(small_atlas, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert main(["atlas", "site", small_atlas.place, "--plain", "-q"]) == 0
    assert shown == []
    assert main(["atlas", "site", small_atlas.place, "--open", "-q"]) == 0
    assert shown == [Path(small_atlas.root, "index.html").resolve().as_uri()]
    assert main(["atlas", "site", "memory://atlas", "--open"]) == 2
    assert "--open" in capsys.readouterr().err


def test_the_address_of_a_page_goes_into_its_preview(small_atlas):
    words = ["atlas", "site", small_atlas.place, "--plain", "-q", "--url"]
    assert main([*words, "https://me.github.io/atlas/"]) == 0
    text = Path(small_atlas.root, "index.html").read_text()
    assert re.search(r'og:image" content="https://me.github.io/atlas/site/\w+/preview.jpg"', text)
    assert 'og:url" content="https://me.github.io/atlas/"' in text
    assert main([*words, "file:///etc"]) == 2
