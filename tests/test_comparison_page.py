"""The command that compares two networks, its page, and the file that pairs units of two atlases."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import written_network
from PIL import Image
from tiny import vit

import phosphene
from phosphene import ComparisonSettings, InputError, Recipe
from phosphene.cli.program import main
from phosphene.comparison.match_file import read_matches
from phosphene.comparison.page import choose_pairs, make_pictures, write_page

BODY = "nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(720, 4))"
QUICK = ["--pictures", "0", "--grid", "4", "-q"]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Two networks as the command line names them; the folder `photographs`."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for index in range(18):
        small = random.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        Image.fromarray(small).resize((20, 20), Image.Resampling.BICUBIC).save(f"photographs/{index}.png")
    return [written_network(tmp_path, name, seed, BODY) for seed, name in enumerate(("first", "second"))]


@pytest.mark.slow
def test_the_command_writes_numbers_a_figure_and_a_page(given, capsys):
    assert main(["compare", *given, "--photographs", "photographs", "--pictures", "1", "--steps", "2",
                 "--grid", "4", "--json"]) == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(Path("phosphene-out/latest/compare.json").read_text())
    assert printed == written
    assert written["photographs"] == 18
    assert [match["layer_a"] for match in written["matches"]] == ["1", "3"]
    assert np.array(written["cka"]["a_b"]["cka"]).shape == (2, 2)
    histogram = written["matches"][0]["histogram"]
    assert sum(histogram["pairs"]) == len(written["matches"][0]["pairs"])
    assert Image.open("phosphene-out/latest/compare.png").size > (800, 600)
    page = Path("phosphene-out/latest/compare.html").read_text()
    assert page.count("data:image/jpeg") == 8  # the best pair and the worst: a picture and photographs of each unit
    assert not re.search(r"<script|https?:", page)
    pictures = {path.parent.name for path in Path("phosphene-out/latest/pictures").rglob("*.png")}
    assert pictures == {"a", "b"}
    found = read_matches("phosphene-out/latest/compare.json")
    assert list(found.pairs) == [(match["layer_a"], match["layer_b"]) for match in written["matches"]]


@pytest.mark.slow
def test_the_command_prints_a_table(given, capsys):
    words = ["compare", *given, "--photographs", "photographs", "--layers", "1=3", *QUICK[:-1]]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "layer of A" in out
    assert "18 photographs went through" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{0}", "--photographs", "photographs"], "1 networks: expected two to compare"),
        (["{0}", "{1}"], "expected --photographs DIR"),
        (["{0}", "{1}", "--photographs", "nowhere"], "there is no such folder"),
        (["{0}", "{1}", "--photographs", "photographs", "--layers", "2", "17"], "has no layer '17'"),
        (["{0}", "{1}", "--photographs", "photographs", "--limit", "5"], "5 photographs: expected at least 16"),
        (["{0}", "{1}", "--photographs", "photographs", "--grid", "900"], "grid 900: expected a whole number"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(words, sentence, given, capsys):
    assert main(["compare", *(word.format(*given) for word in words), "--pictures", "0"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_escapes_what_comes_from_elsewhere(given):
    networks = [phosphene.open(each) for each in given]
    evil = networks[0].replace(name="<script>alert(1)</script>")
    found = phosphene.compare(evil, networks[1], "photographs", settings=ComparisonSettings(grid=4))
    page = write_page(found, (evil, networks[1]), "out", choose_pairs(found, 2)).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_units_of_a_transformer_have_their_pictures(given):
    network = vit()
    names = [layer.name for layer in network.layers if layer.worth_showing][:1]
    found = phosphene.compare(network, network, "photographs", names, settings=ComparisonSettings(grid=4))
    pairs = choose_pairs(found, 1)
    recipe = Recipe.load("clip").override({"steps": 1})
    made, interrupted = make_pictures(network, [pair.units[0] for pair in pairs], recipe)
    assert not interrupted
    page = write_page(found, (network, network), "out", pairs, (made, made)).read_text()
    assert page.count("image of ") == 4  # of both units of both pairs


def test_pairs_are_of_layers_evenly_spread(given):
    networks = [phosphene.open(each) for each in given]
    found = phosphene.compare(*networks, "photographs", settings=ComparisonSettings(grid=4))
    assert choose_pairs(found, 0) == []
    two = choose_pairs(found, 2)
    assert [(pair.kind, pair.units[0].layer) for pair in two] == [
        ("best", "1"), ("best", "3"), ("worst", "1"), ("worst", "3"),
    ]  # fmt: skip
    for best, worst in zip(two[:2], two[2:], strict=True):
        assert best.correlation == best.match.units.correlations[0]
        assert worst.correlation == worst.match.units.correlations[-1]
    many = choose_pairs(found, 50)
    assert len({pair.units for pair in many}) == len(many)  # none twice


GOOD = {
    "phosphene": "comparison of networks",
    "a": {"name": "x", "weights": "1"},
    "b": {"name": "y", "weights": "2"},
    "matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[0, 3, 0.5], [1, 2, -0.1]]}],
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"phosphene": "other"}, "expected the compare.json"),
        ({"a": 3}, "expected a text as name"),
        ({"b": {"name": "y" * 2000, "weights": ""}}, "1000 letters at most"),
        ({"matches": {}}, "expected a list of 10,000 matches at most"),
        ({"matches": [[]]}, "expected a text as layer_a"),
        ({"matches": [{"layer_a": "p", "layer_b": "q"}]}, "expected lists of 1,000,000 pairs"),
        ({"matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[0, 1]]}]}, "expected two units from 0 on"),
        ({"matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[-1, 1, 0.5]]}]}, "expected two units from 0 on"),
        ({"matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[True, 1, 0.5]]}]}, "expected two units from 0 on"),
        ({"matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[0, 1, 7]]}]}, "a correlation of -1 to 1"),
        ({"matches": [{"layer_a": "p", "layer_b": "q", "pairs": [[0, 1, 0], [0, 2, 0]]}]}, "is in two pairs"),
    ],
)
def test_a_match_file_is_data_within_bounds(change, sentence, tmp_path):
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(InputError, match=sentence):
        read_matches(path)


def test_a_match_file_is_read_either_way_round(tmp_path):
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(GOOD))
    found = read_matches(path)
    assert found.between("1", "2") == {("p", "q"): [(0, 3, 0.5), (1, 2, -0.1)]}
    assert found.between("2", "1") == {("q", "p"): [(3, 0, 0.5), (2, 1, -0.1)]}
    with pytest.raises(InputError, match=r"is of x \(1\) and y \(2\): expected one of weights 1 and 3"):
        found.between("1", "3")
    path.write_text("[")
    with pytest.raises(InputError, match="is no JSON"):
        read_matches(path)
