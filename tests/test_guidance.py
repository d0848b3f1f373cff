"""What newcomers type, and what they are told."""

import pytest
from helpers import SHALLOW, Small, opened, seeded, written_network

import phosphene
from phosphene import InputError
from phosphene.cli.parser import VERBS
from phosphene.cli.program import main

LABELS = ["cat", "Dog", "tabby cat", "horse", "sea horse"]


def test_without_words_three_things_to_try_are_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    tried = [line.split()[1] for line in told.splitlines() if line.startswith("  phosphene ")]
    assert len(tried) == 3
    assert set(tried) < set(VERBS)
    assert "-n NAME" in told


def test_a_class_where_a_unit_is_expected_is_told_as_what_it_is():
    network = opened(seeded(Small), labels=LABELS)
    for text in ("dog", "Dog"):
        with pytest.raises(InputError, match="it is a class: class:Dog"):
            phosphene.parse_unit(text, network)
        with pytest.raises(InputError, match="class:Dog"):
            phosphene.ascend(network, text, "naive")
    with pytest.raises(InputError) as error:
        phosphene.parse_unit("nothing like it", network)
    assert "class" not in str(error.value)


def test_a_class_may_be_spelled_as_units_are(tmp_path):
    words = ["-n", written_network(tmp_path, "net", 0, SHALLOW), "-r", "naive", "--steps", "1", "-q"]
    assert main(["classes", "class:2", *words, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "002_class.png").is_file()


def test_a_class_that_is_not_seen_after_few_steps_is_said(tmp_path, capsys):
    body = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 400))"
    words = ["classes", "2", "-n", written_network(tmp_path, "net", 0, body), "-r", "naive"]
    assert main([*words, "--steps", "1", "-o", str(tmp_path / "few")]) == 0
    assert "1 steps are few, naive takes" in capsys.readouterr().out


def test_notebooks_show_the_sentence_and_no_frames():
    assert InputError("what was given: expected this")._render_traceback_() == [
        "InputError: what was given: expected this"
    ]


def test_a_result_is_shown_where_there_is_no_notebook(monkeypatch):
    from PIL import Image

    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title=None: shown.append(self.size))
    phosphene.ascend(opened(seeded(Small)), "class:0", phosphene.Recipe.load("naive").override({"steps": 1})).show()
    assert len(shown) == 1


def test_notebooks_show_tables():
    network = opened(seeded(Small), labels=["<i>cat</i>", *LABELS[1:]])
    layers = network.layers
    assert layers == list(layers)
    assert layers._repr_html_().count("<tr>") == 1 + len(layers)
    recipe = phosphene.Recipe.load("tence")
    told = recipe._repr_html_()
    assert "median.size" in told
    assert "Clipping and a median filter" in told
    assert "canvas.kind" not in told, "what is as usual is left out"
    result = phosphene.ascend(network, ["class:0", "relu2:3"], phosphene.Recipe.load("naive").override({"steps": 1}))
    cards = result.judge([])
    assert isinstance(cards, list)
    assert "robustness" in cards._repr_html_()
    assert "<i>" not in cards._repr_html_()
