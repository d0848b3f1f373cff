"""The atlas's page in a real browser, from the file system."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch
from PIL import Image

import phosphene
from phosphene import InputError, Recipe, atlas, judges
from phosphene.atlas import Store
from phosphene.cli import main

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

NET = """
import torch
from torch import nn

def make():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(1000, 5),
        )
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "net.py").write_text(NET)
    words = json.dumps(["cat", "dog", "tabby cat", "a </script> <b>horse</b>", "sea horse"])
    (folder / "net.toml").write_text(f"size = 16\nmean = 0.5\nstd = 0.25\nlabels = {words}\n")
    network = phosphene.open(f"{folder / 'net.py'}:make")
    recipe = Recipe.load("clip").changed({"steps": 1, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    store = Store(folder / "an atlas")
    store.write_plan(atlas.make_plan(network, classes=range(5), layers=["0", "2"], recipe=recipe, facets=1, judges=[]))
    atlas.run(store.place)
    (folder / "photographs").mkdir()
    for name, colour in (("red", (200, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 200))):
        Image.new("RGB", (40, 30), colour).save(folder / f"photographs/{name}.png")
    page = atlas.write_site(store, network=network, photographs=folder / "photographs")
    return store, Path(page)


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
            "[href],[src]", "all => all.map(each => each.href || each.src).filter(each => !each.includes('#'))"
        )
        sheets = self.page.eval_on_selector_all(
            ".thumb", "all => all.map(each => getComputedStyle(each).backgroundImage)"
        )
        return {*found, *(match[1] for sheet in sheets if (match := re.match(r'url\("(.+)"\)', sheet)))}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


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
    seen = set()
    for place in ("#/", "#/0", "#/1", "#/2", "#/0/3", "#/2/999"):
        visit.go(place).page.wait_for_selector(".thumb, #image")
        visit.page.wait_for_timeout(200)
        seen |= visit.links()
    files = [Path(unquote(urlparse(url).path)) for url in seen if not url.startswith("data:")]
    assert len(files) > 10
    assert [file for file in files if not file.exists()] == []
    shown = visit.page.eval_on_selector("#image", "image => image.naturalWidth")
    assert shown == 16


@needs_browser
def test_a_layer_of_a_thousand_units_scrolls(visit):
    page = visit.go("#/2").page
    page.wait_for_selector(".cell")
    assert "1000 of 1000" in page.inner_text("#count")
    assert page.locator(".cell").count() < 250
    first = page.locator(".cell").first.get_attribute("href")
    for _ in range(40):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(10)
    page.wait_for_selector('.cell[href="#/2/999"]')
    assert page.locator(".cell").first.get_attribute("href") != first
    assert page.locator(".cell").count() < 250
    page.click('.cell[href="#/2/999"]')
    page.wait_for_selector("#image")
    assert "2, channel 999" in page.inner_text("h1")
    assert page.locator(".near").count() == 6
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
    assert found == ["a </script> <b>horse</b>", "sea horse"] or found == ["sea horse", "a </script> <b>horse</b>"]
    page.fill("#query", "tabby")
    page.wait_for_function("document.querySelectorAll('#found a').length === 1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image")
    assert page.inner_text("h1") == "tabby cat"
    page.fill("#query", "2:517")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText.includes('channel 517')")
    page.fill("#query", "zebra")
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
    page.wait_for_function("!document.querySelector('#count').innerText.startsWith('1000')")
    assert abs(int(page.inner_text("#count").split()[0]) - kept) <= 1  # the page has five digits of each score


@needs_browser
def test_the_keyboard_leads_everywhere(visit):
    page = visit.go("#/1").page
    page.wait_for_selector(".cell")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image")
    assert page.url.endswith("#/1/1")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash === '#/1/2'")
    page.wait_for_selector("#image")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#/1'")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_all_images_have_words(browser, made, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    visit = Visit(context.new_page(), made[1].as_uri())
    for place in ("#/", "#/2", "#/0/1"):
        visit.go(place).page.wait_for_selector(".thumb, #image")
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.page.locator("img:not([alt]), .thumb:not([aria-label])").count() == 0
    paper, ink = visit.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = sum(map(int, re.findall(r"\d+", paper)[:3])) > sum(map(int, re.findall(r"\d+", ink)[:3]))
    assert light == (scheme == "light")
    assert visit.errors == []
    context.close()


@needs_browser
def test_what_is_not_there_is_said(visit):
    page = visit.go("#/7").page
    page.wait_for_function("document.querySelector('h1').innerText === 'Not here'")
    visit.go("#/0/77").page.wait_for_function("document.querySelector('h1').innerText === 'Not here'")


def test_a_site_of_an_atlas_without_images_is_refused_and_writes_nothing(tmp_path, made, capsys):
    store = Store(tmp_path / "a")
    store.write_plan(made[0].plan())
    with pytest.raises(InputError, match="has no image yet"):
        atlas.write_site(store)
    assert main(["atlas", "site", str(tmp_path / "a"), "--plain"]) == 2
    assert "phosphene atlas run" in capsys.readouterr().err
    assert os.listdir(tmp_path / "a") == ["atlas.json"]


def test_the_photographs_that_are_shown_are_those_that_excite_a_unit_most(made):
    network = made[0].plan().open()
    folder = made[1].parents[1] / "photographs"
    shown = atlas.site._exciting(network, "0", judges.Gallery.of(folder), "cpu")
    files = sorted(folder.glob("*.png"))
    with network.borrowed("cpu"), torch.no_grad():
        seen = []
        for file in files:
            with Image.open(file) as image:
                pixels = network.preprocessing.photograph(image)[None]
            network.read(pixels, {"0": lambda output: seen.append(output.flatten(2).amax((0, 2)))})
    for unit, crops in shown.items():
        order = torch.stack(seen)[:, unit].argsort(descending=True)
        for crop, place in zip(crops, order.tolist(), strict=True):
            with Image.open(files[place]) as image:
                assert crop.getpixel((0, 0)) == image.getpixel((0, 0))


def test_a_crop_is_what_the_neuron_sees():
    photograph = torch.arange(64 * 64).view(1, 64, 64).remainder(251).expand(3, -1, -1).byte()
    crop = atlas.site._crop(photograph, 8 * 5 + 3, (8, 8), (11, 11))  # the neuron in row 5, column 3 of 8 by 8
    top, left = round(5.5 * 8 - 5.5), round(3.5 * 8 - 5.5)
    assert crop.size == (11, 11)
    assert crop.getpixel((0, 0))[0] == int(photograph[0, top, left])
    assert atlas.site._crop(photograph, 63, (8, 8), (40, 40)).getpixel((39, 39))[0] == int(photograph[0, 63, 63])


def test_units_that_are_alike_are_the_ones_most_active_on_the_image(made):
    store, page = made
    text = (page.parent / "site/units-0.js").read_text()
    assert "</script>" not in text
    data = json.loads(text.partition("] = ")[2].rstrip(";"))
    columns = atlas.site.COLUMNS
    for row in data:
        unit = dict(zip(columns, row, strict=True))
        assert unit["index"] not in unit["near"]
        assert len(set(unit["near"])) == 4
    feeds = [dict(zip(columns, row, strict=True))["feeds"] for row in json.loads(
        (page.parent / "site/units-2.js").read_text().partition("] = ")[2].rstrip(";")
    )]  # fmt: skip
    assert all(len(names) == 5 for names in feeds)
    assert store.plan().groups[0].name == "classes"
