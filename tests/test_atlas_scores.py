"""Scores of an atlas's hidden units, in its index and on its page, and the game that is played there."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import CHROMIUM
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_atlas import make_plan

import phosphene
from phosphene import Recipe
from phosphene.atlas import game
from phosphene.atlas import work as atlas_work
from phosphene.atlas.rows import COLUMNS, explanation_columns, pack_rows, unpack_rows
from phosphene.atlas.site import write_site
from phosphene.atlas.site_data import COLUMNS as PAGE_COLUMNS
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.judges.explanation import LAST_RANK, NINE, Trials, make_trials
from phosphene.judges.photo_responses import respond
from phosphene.judges.photo_set import PhotoSet
from phosphene.units.objects import Channel

pytestmark = pytest.mark.slow  # most share an atlas whose images are judged
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

# How much of six hues an image has, and three classes of them; each seed has weights of its own.
NET = """
import torch
from torch import nn

HUES = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]

def make():
    with torch.random.fork_rng():
        torch.manual_seed({seed})
        eye, mix, head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 24, 1), nn.Linear(24, 3)
        eye.weight.data = torch.tensor(HUES).float()[..., None, None] + 0.01 * torch.randn(6, 3, 1, 1)
        eye.bias.data.zero_()
        head.weight.data = torch.linalg.pinv(mix.weight.data[:, :, 0, 0])[:3] + 0.01 * torch.randn(3, 24)
        return nn.Sequential(eye, nn.ReLU(), mix, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
"""
LAYER = "1"  # the hues


def saved(folder, name, seed):
    (folder / f"{name}.py").write_text(NET.format(seed=seed))
    (folder / f"{name}.toml").write_text("size = 16\nmean = 0.5\nstd = 0.25\n")
    return f"{folder / name}.py:make"


def take_photographs(folder, count):
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        pixels = draw.integers(0, 256, 3) + draw.normal(0, 20, (16, 16, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


def planned(net, place, **options):
    recipe = Recipe.load("clip").override({"steps": 12, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    options = {"classes": range(3), "layers": [LAYER, "3"], "count": 6, "recipe": recipe} | options
    store = Store(place)
    store.write_plan(make_plan(phosphene.open(net), judges=[], frames=0, **options))
    atlas_work.run(store.place)
    return store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="module")
def photographs(folder):
    return take_photographs(folder / "photographs", 120)


@pytest.fixture(scope="module")
def judge(folder):
    return saved(folder, "judge", 2)


@pytest.fixture(scope="module")
def made(folder, photographs, judge):
    """An atlas of two layers, two facets a unit, with its page."""
    store = planned(saved(folder, "net", 1), folder / "a", facets=2)
    arguments = ["--photographs", str(photographs), "--judges", judge, "-q"]
    assert main(["atlas", "site", store.place, *arguments]) == 0
    return store


@pytest.fixture
def single(tmp_path):
    """An atlas of one layer, without a page."""
    return planned(saved(tmp_path, "net", 1), tmp_path / "a", classes=[], layers=[LAYER])


def site(store, capsys, *arguments):
    status = main(["atlas", "site", store.place, *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def page_data(store):
    (file,) = Path(store.root, "site").glob("*/data.js")
    return json.loads(file.read_text().removeprefix("window.ATLAS = ").removesuffix(";"))


def page_units(store, group=LAYER):
    script = next(each["script"] for each in page_data(store)["groups"] if each["key"] == group)
    rows = json.loads(Path(store.root, script).read_text().partition("] = ")[2].rstrip(";"))
    return {row[0]: dict(zip(PAGE_COLUMNS, row, strict=True)) for row in rows}


SCORED = list(explanation_columns({}))


def test_the_scores_in_the_index_are_those_of_judge_on_the_same_images(made, photographs, judge):
    network = made.plan().open()
    for group in (LAYER, "3"):
        rows = [row for row in made.rows() if row["group"] == group]
        files = [Path(made.root, row["file"]) for row in rows]
        cards = phosphene.judge(files, judge, network=network, photographs=photographs)
        for row, card in zip(rows, cards, strict=True):
            expected = explanation_columns(card)
            for name in SCORED:
                assert row[name] == (pytest.approx(expected[name], abs=1e-6) if expected[name] is not None else None)
    hues = [row for row in made.rows() if row["group"] == LAYER]
    assert all(row["explanation"] > 0.9 for row in hues)
    assert {row["explanation_photographs"] for row in hues} == {120}
    assert {row["explanation_judges"] for row in hues} == {"make"}
    assert all(row[name] is None for row in made.rows() if row["group"] == "classes" for name in SCORED)
    assert made.verify() == []  # no image was written to


GRAY = """
import torch
from torch import nn

def make():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
"""


@pytest.mark.parametrize("kind", ["gray", "of another size"])
def test_images_are_shown_to_judges_and_to_their_network_as_judge_shows_them(kind, tmp_path, photographs, judge):
    net = saved(tmp_path, "net", 1)
    if kind == "gray":
        (tmp_path / "net.py").write_text(GRAY)
        (tmp_path / "net.toml").write_text("size = 16\nchannels = 1\nmean = 0.5\nstd = 0.25\n")
    recipe = Recipe.load("naive").override({"steps": 3, **({} if kind == "gray" else {"size": 24})})
    store = planned(net, tmp_path / "a", classes=[], layers=[LAYER], recipe=recipe)
    network = store.plan().open()
    write_site(store, network=network, photographs=photographs, judges=[judge])
    files = [Path(store.root, row["file"]) for row in store.rows()]
    with Image.open(files[0]) as image:
        assert image.size == ((16, 16) if kind == "gray" else (24, 24))
    cards = phosphene.judge(files, judge, network=network, photographs=photographs)
    for row, card in zip(store.rows(), cards, strict=True):
        expected = explanation_columns(card)
        assert {name: row[name] for name in SCORED} == pytest.approx(expected, abs=1e-6)
    assert any(row["explanation"] is not None for row in store.rows())


def test_any_tool_reads_the_scores_from_parquet(made):
    (part,) = made.parts()
    table = pq.read_table(part, columns=["unit", "explanation", "clarity"])
    assert table.num_rows == len(made.rows()) == 2 * (3 + 6 + 6)
    assert table["explanation"].null_count == 2 * 3


def test_the_page_has_the_scores_and_a_later_one_without_photographs_keeps_them(made, folder, capsys):
    rows = {row["index"]: row for row in made.rows() if row["group"] == LAYER and row["facet"] == 0}
    for index, unit in page_units(made).items():
        for name in SCORED:
            value = rows[index][name]
            assert unit[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
    store = Store(folder / "copy")
    store.fs.cp(made.root, store.root, recursive=True)
    assert site(store, capsys, "--plain")[0] == 0
    later = page_units(store)
    assert later[0]["explanation"] == page_units(made)[0]["explanation"]
    assert later[0]["trials"] is None
    assert "--photographs" in page_data(store)["networks"][0]["game"]["missing"]


# The game


def activations(network, photographs, layer):
    pixels = []
    for file in sorted(photographs.glob("*.png")):
        with Image.open(file) as image:
            pixels.append(network.preprocessing.photograph(image))
    units = [Channel(layer, index) for index in range(network.layer(layer).channels)]
    with network.borrowed("cpu"), torch.no_grad():
        return respond(network, units, torch.stack(pixels)).values


def test_each_pair_has_a_photograph_of_ranks_10_to_30_and_one_of_the_lower_half(made, photographs):
    values = activations(made.plan().open(), photographs, LAYER)
    shown = page_data(made)["networks"][0]["game"]
    assert shown["missing"] == ""
    assert shown["judges"] == ["make"]
    assert len(shown["photographs"]) == 120
    for index, unit in page_units(made).items():
        order = values[:, index].argsort(descending=True).tolist()
        pairs = unit["trials"]["pairs"]
        assert len(pairs) == game.PAIRS
        assert len({tuple(pair[:2]) for pair in pairs}) == game.PAIRS
        for exciting, other, high, low, guesses in pairs:
            assert NINE <= order.index(exciting) < LAST_RANK
            assert order.index(other) >= 60
            assert (high, low) == pytest.approx((float(values[exciting, index]), float(values[other, index])), rel=1e-3)
            assert high > low
            assert guesses in ([0], [1])
        row = next(row for row in made.rows() if (row["group"], row["index"]) == (LAYER, index))
        right = np.mean([pair[4][0] for pair in pairs])
        assert abs(right - row["explanation_together"]) < 0.35  # of twelve pairs of all
    names = [unit["trials"]["name"] for unit in page_units(made).values()]
    assert len(set(names)) == len(names)


def test_photographs_of_the_game_are_small_and_each_is_there_once(made):
    files = page_data(made)["networks"][0]["game"]["photographs"]
    assert len(set(files)) == len(files)
    for file in files:
        with Image.open(Path(made.root, file)) as image:
            assert max(image.size) <= game.SIDE


def test_of_many_photographs_the_page_has_a_bounded_number(single, photographs, judge, monkeypatch):
    monkeypatch.setattr(game, "MOST_PHOTOGRAPHS", 40)
    write_site(single, network=single.plan().open(), photographs=photographs, judges=[judge])
    assert len(page_data(single)["networks"][0]["game"]["photographs"]) == 40
    for unit in page_units(single).values():
        assert all(max(pair[:2]) < 40 for pair in unit["trials"]["pairs"])


@given(st.integers(0, 10**6), st.integers(100, 400), st.integers(0, 400))
def test_pairs_are_of_one_fold_of_kept_photographs_and_never_twice(seed, count, most):
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    trials = make_trials(values)
    kept = set(random.Random(seed).sample(range(count), min(most, count)))
    likeness = torch.randn(2, count, generator=torch.Generator().manual_seed(seed + 1))
    evidence = {"judge": (likeness[0], likeness[1])}
    pairs = game.make_pairs(trials, kept, values, evidence, "unit")
    assert pairs == game.make_pairs(trials, kept, values, evidence, "unit")
    assert len(pairs) <= game.PAIRS
    assert len({pair[:2] for pair in pairs}) == len(pairs)
    for exciting, other, shown, guesses in pairs:
        assert {exciting, other} <= kept
        (fold,) = [i for i, fold in enumerate(trials.folds) if exciting in fold[0]]
        assert other in trials.folds[fold][1]
        assert shown == (float(values[exciting]), float(values[other]))
        assert guesses == [bool(likeness[fold][exciting] > likeness[fold][other])]


def test_the_photographs_that_are_kept_are_those_that_excite_most_units():
    trials = [Trials(torch.arange(9), torch.tensor(exciting), torch.arange(500)) for exciting in ([400, 20], [400, 30])]
    kept = game.choose_photographs([*trials, None], 500)
    assert len(kept) == game.MOST_PHOTOGRAPHS
    assert {20, 30, 400} <= set(kept)
    assert game.choose_photographs([None], 120) == list(range(120))


# What is not there, and what is wrong


def test_too_few_photographs_are_told_and_the_page_is_written(single, tmp_path, judge, capsys):
    few = take_photographs(tmp_path / "few", 40)
    status, out, _ = site(single, capsys, "--photographs", few, "--judges", judge)
    assert status == 0
    assert "no explanation scores: 40 photographs: expected at least 100" in out
    assert all(row["explanation"] is None for row in single.rows())
    assert "40 photographs" in page_data(single)["networks"][0]["game"]["missing"]
    assert page_units(single)[0]["photographs"]
    # Of a hundred files some are none that can be read.
    for i in range(70):
        (few / f"broken{i}.png").write_bytes(b"no image")
    status, out, _ = site(single, capsys, "--photographs", few, "--judges", judge)
    assert status == 0
    assert "no explanation scores: 40 photographs" in out


def test_photographs_of_one_kind_make_a_game_and_no_score(single, tmp_path, judge, capsys):
    folder = tmp_path / "same"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(100):
        pixels = np.array([220, 30, 30]) + draw.normal(0, 3, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    status, out, _ = site(single, capsys, "--photographs", folder, "--judges", judge)
    assert status == 0
    assert "expected photographs of many kinds" in out
    assert "expected photographs of many kinds" in page_data(single)["networks"][0]["unscored"]
    assert page_units(single)[0]["trials"]["pairs"]
    assert all(row["explanation"] is None for row in single.rows())


def test_without_a_judge_there_are_paths_and_a_game_and_earlier_scores_stay(single, photographs, judge, capsys):
    status, out, _ = site(single, capsys, "--photographs", photographs, "--judges", "none", "--json")
    assert status == 0
    told = json.loads(out[: out.index("\n")])
    assert (told["scored"], told["judges"], told["unscored"]) == (0, [], "no judge was asked")
    assert {row["explanation"] for row in single.rows()} == {None}
    assert page_units(single)[0]["trials"]["pairs"][0][4] == []
    status, out, _ = site(single, capsys, "--photographs", photographs, "--judges", judge)
    assert "6 images of hidden units are scored by make" in out
    before = single.rows()
    assert all(row["explanation"] is not None for row in before)
    site(single, capsys, "--photographs", photographs, "--judges", "none")
    assert single.rows() == before


def test_a_judge_that_is_the_network_or_unknown_is_a_sentence_and_the_page_before_stays(
    single, photographs, judge, capsys
):
    assert site(single, capsys, "--photographs", photographs, "--judges", judge)[0] == 0
    before = {path: path.read_bytes() for path in Path(single.root).rglob("*") if path.is_file()}
    own = single.plan().source["network"]
    for arguments, words in (
        (["--photographs", photographs, "--judges", own], "judge make is make"),
        (["--photographs", photographs, "--judges", "nosuchnet"], "nosuchnet"),
        (["--no-photographs", "--judges", judge], "expected --photographs too"),
    ):
        status, _, err = site(single, capsys, *arguments)
        assert status == 2
        assert words in err
        assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path(single.root).rglob("*") if path.is_file()} == before


def test_an_atlas_of_classes_alone_has_no_scores_and_asks_nobody(tmp_path, photographs, capsys):
    store = planned(saved(tmp_path, "net", 1), tmp_path / "a", layers=[])
    status, out, _ = site(store, capsys, "--photographs", photographs)
    assert status == 0
    assert "scores" not in out
    assert page_data(store)["networks"][0]["game"]["photographs"] == []


def test_the_index_of_an_atlas_beside_is_not_written_and_its_units_are_scored_on_the_page(
    single, tmp_path, photographs, judge, capsys, monkeypatch
):
    beside = planned(saved(tmp_path, "beside", 3), tmp_path / "b", classes=[], layers=[LAYER])
    before, passes = beside.rows(), []
    real = PhotoSet.batches
    monkeypatch.setattr(PhotoSet, "batches", lambda *arguments: (passes.append(arguments), real(*arguments))[1])
    status, _, _ = site(single, capsys, "--photographs", photographs, "--judges", judge, "--beside", beside.place)
    assert status == 0
    assert len(passes) == 1 + 2 * 2  # the judge's; each network's, which is then asked what of them it sees
    assert beside.rows() == before
    assert page_units(single, f"~{LAYER}")[0]["explanation"] is not None
    assert page_units(single, f"~{LAYER}")[0]["trials"]["pairs"]


def test_an_index_without_scores_is_read_and_takes_them(single, photographs, judge):
    before = single.rows()
    (path,) = single.parts()
    table = pq.read_table(path)
    pq.write_table(table.drop([name for name in table.column_names if name in SCORED]), path)
    assert single.rows() == before
    report = write_site(single, network=single.plan().open(), photographs=photographs, judges=[judge])
    assert (report.scored, report.judges, report.unscored) == (6, ("make",), "")
    assert all(row["explanation"] is not None for row in single.rows())
    assert len(single.parts()) == 1
    assert single.rebuild().images == 6
    assert single.rows() == before  # the images do not say it


def test_an_image_that_was_made_anew_since_takes_no_scores_of_the_old_one(single):
    first, *others = single.rows()
    scored = [row | {"clarity": 0.5} for row in (first | {"sha256": "0" * 64}, *others)]
    single.update(scored)
    assert [row["clarity"] for row in single.rows()] == [None] + [0.5] * 5


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(allow_nan=False, allow_infinity=False))
def test_scores_come_back_from_parquet_as_they_were(score, error, cosine, path):
    row = dict.fromkeys(COLUMNS) | {
        "group": "a", "index": 3, "facet": 0, "unit": "a:3", "label": "a", "seed": 0, "recipe": "0" * 12,
        "weights": "0" * 16, "file": "images/layer-a/0000/00003.png", "bytes": 1, "sha256": "0" * 64, "steps": 1,
        "stopped": "", "seconds": 1.0, "written": 1.0, "curve": [],
    }  # fmt: skip
    card = {
        "explanation": {"score": score, "error": error, "judges": {"x": {}, "y": {}}, "photographs": 100},
        "unit_scores": {"clarity": cosine, "redundancy": None, "polysemanticity": 1 - cosine, "mis": {"score": score}},
        "path_similarity": {"mean": path},
    }
    row |= explanation_columns(card)
    assert row["explanation_judges"] == "x, y"
    assert unpack_rows(pack_rows([row]), "it") == [row]


def test_what_units_of_a_layer_share_is_kept_once(folder, made):
    network = made.plan().open()
    with network.borrowed("cpu"):
        responses = respond(network, [Channel(LAYER, index) for index in range(6)], torch.zeros(2, 3, 16, 16))
    assert len(responses.profiles) == 1


# The page in a browser


def opened(context, store):
    from test_site import Visit

    return Visit(context.new_page(), Path(store.root, "index.html").as_uri())


@pytest.fixture
def visit(browser, made):
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    visit = opened(context, made)
    yield visit
    context.close()
    assert visit.errors == []
    assert all(url.startswith(("file://", "data:")) for url in visit.requests)


def settled(page):
    """Wait for all images: those that a page is left without are told as requests that failed."""
    page.wait_for_function("[...document.images].every(each => each.complete && each.naturalWidth)")


def answer(page, right):
    """Answer the pair that is shown."""
    settled(page)
    shown = page.eval_on_selector_all(".choice img", "all => all.map(each => each.getAttribute('src'))")
    numbers = [int(re.search(r"0-(\d+)\.jpg", name)[1]) for name in shown]
    group, index = page.evaluate("location.hash").split("/")[1:3]
    pairs = page.evaluate(
        f"window.ATLAS.units[window.ATLAS.groups.find(each => each.key === {group!r}).place]"
        f".find(row => row[0] === {index}).find(each => each?.pairs).pairs"
    )
    (pair,) = [pair for pair in pairs if set(pair[:2]) == set(numbers)]
    page.keyboard.press(str(1 + (numbers.index(pair[0]) if right else numbers.index(pair[1]))))
    page.wait_for_selector("#next")
    return pair


@needs_browser
def test_the_game_is_played_by_keyboard_and_its_tally_is_kept_until_it_is_forgotten(visit):
    page = visit.go(f"#/{LAYER}/2").page
    page.wait_for_selector("#game a")
    page.focus("#game a")
    page.keyboard.press("Enter")
    page.wait_for_selector(".choice")
    assert page.evaluate("document.activeElement.className") == "choice"
    assert page.locator(".shows img").count() == 2  # both facets
    assert page.locator(".choice img:not([alt]), .choice:not([aria-label])").count() == 0
    judged = 0
    for number, right in enumerate([True, False, True], 1):
        pair = answer(page, right)
        judged += pair[4][0]
        assert page.inner_text("#verdict").startswith("Right" if right else "Wrong")
        for value in pair[2:4]:
            assert f"{round(value * 1000) / 1000:g}" in page.inner_text("#verdict")
        assert "make took photograph" in page.inner_text("#verdict")
        won = sum([True, False, True][:number])
        assert f"You: {won} of {number} right. On the same pairs make: {judged}." in page.inner_text("#tally")
        assert f"By chance: {number / 2:g}." in page.inner_text("#tally")
        assert page.evaluate("document.activeElement.id") == "next"
        page.keyboard.press("1")  # is no second answer
        assert f"of {number} right" in page.inner_text("#tally")
        page.keyboard.press("Enter")
    settled(page)
    page.reload()
    page.wait_for_selector(".choice")
    assert "You: 2 of 3 right" in page.inner_text("#tally")
    settled(page)
    page.keyboard.press("Escape")
    page.wait_for_function("document.querySelector('#game')?.innerText.includes('You: 2 of 3 right')")
    settled(page)
    visit.go(f"#/{LAYER}").page.wait_for_selector("#play-layer")
    assert "You: 2 of 3 right" in page.inner_text("#game")
    assert "of 1 unit." in page.inner_text("#game")
    page.click("#game .forget")
    assert "You:" not in page.inner_text("#game")
    assert page.evaluate("localStorage.length") == 0
    page.click("#play-layer")
    page.wait_for_selector(".choice")
    assert "No pair is answered yet" in page.inner_text("#tally")
    settled(page)


@needs_browser
def test_all_pairs_are_answered_once_by_clicks(visit):
    page = visit.go(f"#/{LAYER}/4/play").page
    page.wait_for_selector(".choice")
    seen = set()
    for _ in range(game.PAIRS):
        settled(page)
        seen.add(frozenset(page.eval_on_selector_all(".choice img", "all => all.map(each => each.src)")))
        page.locator(".choice").nth(1).click()
        page.click("#next")
    assert len(seen) == game.PAIRS
    page.wait_for_function("document.querySelector('#verdict').innerText.includes('All 12 pairs')")
    assert f"of {game.PAIRS} right" in page.inner_text("#tally")
    page.click("button:has-text('Another unit')")
    page.wait_for_function(f"location.hash !== '#/{LAYER}/4/play'")
    page.wait_for_selector(".choice")
    settled(page)
    visit.go(f"#/{LAYER}/4/play").page.wait_for_selector(".forget")
    page.click(".forget")
    page.wait_for_selector(".choice")
    settled(page)


@needs_browser
@pytest.mark.parametrize("kept", ["", "x", "1" * 500, "<img src=x onerror=alert(1)>", "-" * 11 + "2"])
def test_answers_that_are_none_count_as_none(visit, kept):
    page = visit.go(f"#/{LAYER}/0/play").page
    page.wait_for_selector(".choice")
    name = page_units_name(page)
    page.evaluate("([name, kept]) => localStorage.setItem(name, kept)", [name, kept])
    settled(page)
    page.reload()
    page.wait_for_selector(".choice")
    assert "No pair is answered yet" in page.inner_text("#tally")
    settled(page)
    page.evaluate("localStorage.clear()")


def page_units_name(page):
    place = page.evaluate(f"window.ATLAS.groups.find(each => each.key === '{LAYER}').place")
    row = f"window.ATLAS.units['{place}'].find(row => row[0] === 0)"
    return "phosphene " + page.evaluate(f"{row}.find(each => each?.pairs).name")


@needs_browser
def test_where_nothing_may_be_kept_the_game_is_played_all_the_same(browser, made):
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('not allowed'); } });"
    )
    visit = opened(context, made)
    page = visit.go(f"#/{LAYER}/1/play").page
    page.wait_for_selector(".choice")
    answer(page, True)
    assert "You: 1 of 1 right" in page.inner_text("#tally")
    assert visit.errors == []
    context.close()


@needs_browser
def test_units_are_sorted_filtered_and_plotted_by_their_scores(visit, made):
    rows = {row["index"]: row for row in made.rows() if row["group"] == "3" and row["facet"] == 0}
    page = visit.go("#/3?sort=redundancy").page
    page.wait_for_selector(".cell")
    assert page.get_attribute("input[type=number]", "aria-label") == "at most"
    shown = page.eval_on_selector_all(
        ".cell", "all => all.map(each => Number(each.getAttribute('href').split('/')[2]))"
    )
    assert shown == sorted(rows, key=lambda index: rows[index]["redundancy"])
    page.click(".plot summary")
    page.wait_for_selector(".plot circle")
    there = [row for row in rows.values() if None not in (row["clarity"], row["explanation"])]
    assert page.locator(".plot circle").count() == len(there) >= 2
    page.select_option(".plot select[aria-label='across']", "redundancy")
    assert "x=redundancy&y=explanation" in page.evaluate("location.hash")
    points = page.eval_on_selector_all(".plot circle", "all => all.map(each => Number(each.getAttribute('cx')))")
    assert points == sorted(points)
    labels = page.eval_on_selector_all(".plot a", "all => all.map(each => each.getAttribute('aria-label'))")
    assert len(set(labels)) == len(labels)
    page.reload()
    page.wait_for_selector(".plot circle")  # the address says it
    page.focus(".plot a")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.getAttribute('href')")
    assert second == page.locator(".plot a").nth(1).get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image")
    assert page.evaluate("location.hash") == second
    index = int(second.rpartition("/")[2])
    assert f"{rows[index]['explanation']:.2f} ± {rows[index]['explanation_error']:.2f}" in page.inner_text("table")
    assert "by make, from 120 photographs" in page.inner_text("main")


@needs_browser
def test_where_there_is_no_game_a_sentence_says_why(browser, single, capsys):
    assert site(single, capsys, "--plain")[0] == 0
    context = browser.new_context()
    visit = opened(context, single)
    for place in (f"#/{LAYER}", f"#/{LAYER}/0", f"#/{LAYER}/0/play"):
        page = visit.go(place).page
        page.wait_for_function("document.querySelector('main').innerText.includes('No game: the page was written')")
        assert page.locator(".choice, #play-layer").count() == 0
    visit.go(f"#/{LAYER}/99/play").page.wait_for_function("document.querySelector('h1').innerText === 'Not here'")
    assert visit.errors == []
    context.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_game_and_the_plot_fit(browser, made, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    visit = opened(context, made)
    for place in (f"#/{LAYER}?x=clarity&y=explanation", f"#/{LAYER}/1/play"):
        page = visit.go(place).page
        page.wait_for_selector(".plot circle, .choice")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("img:not([alt])").count() == 0
        settled(page)
    assert visit.errors == []
    context.close()
