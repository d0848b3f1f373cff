"""`explain`: its files and its page, the pictures beside the maps, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CHROMIUM, SHALLOW, Small, opened, seeded, written_network
from PIL import Image
from test_atlas import make_plan
from tiny_clip import save_clip, save_tokenizer

import phosphene
from phosphene import Channel, Class, InputError, Recipe
from phosphene.atlas import work as atlas_work
from phosphene.atlas.store import Store
from phosphene.attribution import pictures
from phosphene.attribution.from_atlas import AtlasPicture, AtlasPictures, relative_address
from phosphene.attribution.page import render_page
from phosphene.attribution.pictures import Illustrations, PictureSettings, changed_only, illustrate
from phosphene.attribution.saving import save_explanation
from phosphene.attribution.top_photographs import top_photographs
from phosphene.cli.program import main

QUICK = ["--integration-steps", "4", "--steps", "1", "--no-accentuate"]
FEW = PictureSettings(steps=1, carrier_steps=1, accentuation_steps=1)


@pytest.fixture
def network(tmp_path):
    return written_network(tmp_path, "net", 0, SHALLOW)


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def test_the_command_writes_a_figure_a_page_numbers_and_arrays(tmp_path, network, photograph, capsys):
    out = tmp_path / "out"
    assert main(["explain", photograph, "class:2", "-n", network, "-o", str(out), "--carriers", "2", *QUICK]) == 0
    told = json.loads((out / "explain.json").read_text())
    assert told["unit"] == "class:2"
    assert set(told["methods"]) == {"integrated-gradients", "occlusion", "grad-cam"}
    assert told["methods"]["integrated-gradients"]["gap"] is not None
    assert 0 <= told["chance"]["blobs"]["deletion"] <= 1
    with np.load(out / "explain.npz") as arrays:
        assert arrays["occlusion"].shape == (16, 16)
        assert arrays["photograph"].shape == (16, 16, 3)
    with Image.open(out / "explain.png") as figure:
        assert figure.width > 600
    made = sorted(path.stem for path in (out / "pictures").glob("*.png"))
    assert made == sorted(told["pictures"])
    assert len(made) == 1 + sum(min(2, len(each["carriers"])) for each in told["carriers"]["layers"])
    text = capsys.readouterr().out
    assert "chance" in text
    assert "explain.html" in text


def test_the_numbers_are_printed_and_no_picture_is_made_where_none_is_asked_for(tmp_path, network, photograph, capsys):
    words = ["explain", photograph, "-n", network, "-o", str(tmp_path / "out"), "--no-picture", "--no-accentuate"]
    assert main([*words, "--methods", "saliency", "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_top_class"]
    assert told["pictures"] == []
    assert list(told["methods"]) == ["saliency"]
    assert -1 <= told["methods"]["saliency"]["rank_correlation_with_randomized_weights"] <= 1
    assert not (tmp_path / "out" / "pictures").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.png", "class:1"], "no such file"),
        (["PHOTO", "clas:1"], "no layer"),
        (["PHOTO", "1:99"], "8 channels"),
        (["PHOTO", "class:1", "--methods", "occlusoin"], "did you mean occlusion"),
        (["PHOTO", "class:1", "--methods", "grad-cam", "--layer", "3"], "needs a map"),
        (["PHOTO", "class:1", "--baseline", "blck"], "did you mean black"),
        (["PHOTO", "class:1", "--photographs", "nowhere"], "no such folder"),
        (["PHOTO", "class:1", "--atlas", "nowhere"], "is no atlas"),
        (["PHOTO", "class:1", "--carriers", "-1"], "at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, network, photograph, capsys, words, said):
    given = [photograph if word == "PHOTO" else word for word in words]
    try:
        status = main(["explain", *given, "-n", network, "-o", str(tmp_path / "out"), *QUICK])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_the_page_needs_nothing_else_and_labels_stay_text(tmp_path, small):
    small = opened(small.module, labels=["a <script>alert(1)</script> & b", "dog", "tabby cat", "horse", "sea horse"])
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    maps = phosphene.explain(small, pixels, "class:0", "saliency", carriers=2)
    known = AtlasPicture(Image.new("RGB", (8, 8)), 'javascript:"><b>', '#/"><b>/1', "relu2:1")
    shown = Illustrations(in_atlas={each.unit: known for each in maps.carriers.pictured})
    assert "javascript:" in render_page(maps, shown, tmp_path)
    assert '"><b>' not in render_page(maps, shown, atlas="../../index.html")
    page = render_page(maps, shown, tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert '"><b>' not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page.replace("javascript:", "data:"))


def test_a_photograph_that_is_accentuated_excites_the_unit_more_and_is_transparent_where_it_is_the_same(tmp_path):
    network = opened(seeded(Small), labels=["cat", "dog", "tabby cat", "horse", "sea horse"])
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 100 + 80
    maps = phosphene.explain(network, pixels, "relu2:3", "saliency", curves=False, carriers=0)
    shown = illustrate(network, maps, settings=PictureSettings(picture=False, accentuation_steps=8))
    assert shown.accentuated_value > maps.value
    assert shown.accentuated.mode == "RGBA"
    (made,) = shown.made
    assert made.name == "accentuated"
    assert phosphene.again(made.save(tmp_path), network).same
    photograph = np.full((32, 32, 3), 90, np.uint8)
    changed = photograph.copy()
    changed[:8, :8] = 200
    alpha = np.asarray(changed_only(changed, photograph))[..., 3]
    assert alpha[2, 2] == 255
    assert not alpha[20:, 20:].any()
    assert not np.asarray(changed_only(photograph, photograph))[..., 3].any()


def test_an_objective_of_ones_own_is_not_accentuated_and_that_is_said(small):
    mine = phosphene.Objective(lambda a: a["relu2"][:, 3].mean((1, 2)), layers=["relu2"], name="mine")
    maps = phosphene.explain(small, torch.full((3, 24, 24), 99.0), mine, "saliency", curves=False, carriers=0)
    shown = illustrate(small, maps, mine, PictureSettings(picture=False))
    assert shown.accentuated is None
    assert any("no accentuation" in note for note in shown.notes)


def test_what_was_interrupted_is_not_shown_and_nothing_more_is_made(small, monkeypatch, tmp_path):
    real = pictures.ascend
    calls = []

    def interrupted(*given, **options):
        result = real(*given, **options)
        result.interrupted = True
        calls.append(given)
        return result

    monkeypatch.setattr(pictures, "ascend", interrupted)
    maps = phosphene.explain(small, torch.full((3, 24, 24), 99.0), "class:1", "saliency", curves=False)
    shown = illustrate(small, maps, settings=FEW)
    assert shown.interrupted
    assert len(calls) == 1
    assert shown.unit is None
    assert json.loads((save_explanation(maps, shown, tmp_path)[2]).read_text())["interrupted"]


# Photographs


def test_photographs_are_in_the_order_of_the_unit_and_marked_where_its_neuron_sees(tmp_path):
    module = seeded(Small)
    with torch.no_grad():  # channel 0 of the first layer is how bright a place is
        module.conv1.weight[0].fill_(0.2)
        module.conv1.bias[0] = 0
    network = opened(module)
    for name, place in (("dim", None), ("upper", (3, 4)), ("lower", (18, 20))):
        pixels = np.full((24, 24, 3), 30, np.uint8)
        if place is not None:
            pixels[place[0] - 2 : place[0] + 3, place[1] - 2 : place[1] + 3] = 255 if name == "upper" else 200
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    found = top_photographs(network, Channel("relu1", 0), tmp_path)
    assert [each.name for each in found] == ["upper.png", "lower.png", "dim.png"]
    assert found[0].value > found[1].value > found[2].value
    left, top, right, bottom = found[1].box
    assert left <= 20 < right
    assert top <= 18 < bottom
    assert right - left < 24
    assert found[1].marked().size == (24, 24)
    assert found[1].marked().getpixel((2, 2)) != found[1].image.getpixel((2, 2))
    whole = top_photographs(network, Class(1), tmp_path, count=2)
    assert [each.box for each in whole] == [(0, 0, 24, 24)] * 2


# Texts


@pytest.mark.slow
def test_a_text_has_maps_and_carriers(tmp_path):
    save_clip(tmp_path / "clip")
    save_tokenizer(tmp_path / "clip")
    network = phosphene.open(f"clip:{tmp_path / 'clip'}")
    pixels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    found = phosphene.explain(network, pixels, "text:a red fox", curves=False)
    assert found.maps["integrated-gradients"].any()
    assert found.maps["grad-cam"].shape == (32, 32)
    assert -1 <= found.value <= 1
    with pytest.raises(InputError, match="UNIT"):
        phosphene.explain(network, pixels)


# Atlases


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    name = written_network(folder, "net", 0, SHALLOW)
    network = phosphene.open(name)
    store = Store(folder / "an atlas")
    recipe = Recipe.load("clip").override({"steps": 1})
    store.write_plan(make_plan(network, classes=range(4), layers=["1"], recipe=recipe, judges=[], frames=0))
    atlas_work.run(store.place)
    (folder / "an atlas" / "index.html").write_text("the page")
    return name, store


@pytest.mark.slow
def test_pictures_come_from_an_atlas_and_link_to_its_page(atlas, photograph, tmp_path):
    name, store = atlas
    out = tmp_path / "out"
    words = ["explain", photograph, "class:2", "-n", name, "-o", str(out), "--atlas", store.place, *QUICK]
    assert main(words) == 0
    told = json.loads((out / "explain.json").read_text())
    held = {f"1:{index}" for index in range(8)}
    carriers = [each["unit"] for layer in told["carriers"]["layers"] for each in layer["carriers"][:3]]
    assert len(told["pictures"]) == len([unit for unit in carriers if unit not in held])
    page = (out / "explain.html").read_text()
    links = re.findall(r'href="([^"]*an%20atlas/index.html#[^"]*)"', page)
    assert any(link.endswith("#/classes/2") for link in links)
    for link in links:
        assert (out / link.partition("#")[0].replace("%20", " ")).resolve() == Path(store.root) / "index.html"
    found = AtlasPictures.of(store.place, phosphene.open(name)).find(Channel("1", 3))
    assert found.link.endswith("index.html#/1/3")
    assert found.image.size == (16, 16)


@pytest.mark.slow
def test_an_atlas_of_another_network_is_refused(atlas, photograph, tmp_path, capsys):
    other = written_network(tmp_path, "other", 1, SHALLOW)
    words = ["explain", photograph, "class:2", "-n", other, "-o", str(tmp_path / "out"), "--atlas", atlas[1].place]
    assert main([*words, *QUICK]) == 2
    assert "expected an atlas of the same network" in capsys.readouterr().err


def test_addresses_of_this_machine_are_told_from_the_page_on(tmp_path):
    page = (tmp_path / "an atlas" / "index.html").as_uri()
    assert relative_address(f"{page}#/conv/3", tmp_path / "out") == "../an%20atlas/index.html#/conv/3"
    assert relative_address("https://example.org/index.html#/a/1", tmp_path) == "https://example.org/index.html#/a/1"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_a_click_on_a_hidden_unit_tells_more_of_it(tmp_path, small, browser):
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    maps = phosphene.explain(small, pixels, "class:0", "saliency", carriers=2)
    save_explanation(maps, illustrate(small, maps, settings=FEW), tmp_path)
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "explain.html").as_uri())
    assert page.locator(".panel:visible").count() == 0
    page.locator("svg a").nth(3).click()
    assert page.locator(".panel:visible").count() == 1
    assert page.locator(".panel:visible img").count() == 2
    page.locator(".panel:visible td a").first.click()
    assert page.locator(".panel:visible").count() == 1
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
