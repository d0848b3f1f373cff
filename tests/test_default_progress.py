"""What is shown of an ascent by default, in Python."""

import sys
import types

import pytest
from helpers import Small, opened, seeded

import phosphene
from phosphene import Callbacks, Recipe, RunOptions
from phosphene.api import bars
from phosphene.default_progress import without_progress

STEPS = Recipe.load("naive").override({"steps": 5})


@pytest.fixture
def network():
    return opened(seeded(Small))


def test_where_output_goes_into_a_file_nothing_is_shown(network, capsys):
    phosphene.ascend(network, "class:0", STEPS)
    assert capsys.readouterr() == ("", "")


def test_when_asked_it_is_shown_and_by_default_on_a_terminal(network, capsys, monkeypatch):
    phosphene.ascend(network, "class:0", STEPS, options=RunOptions(progress=True))
    assert "own probability" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for options, shown in ((None, True), (RunOptions(progress=False), False)):
        phosphene.ascend(network, "class:0", STEPS, options=options)
        assert ("own probability" in capsys.readouterr().err) == shown
    with without_progress():
        phosphene.ascend(network, "class:0", STEPS)
    phosphene.ascend(network, "class:0", STEPS, callbacks=Callbacks(lambda progress: None))
    assert "own probability" not in capsys.readouterr().err


def test_in_a_notebook_the_picture_is_shown_as_it_forms_and_is_the_same(network, monkeypatch):
    shown = []
    monkeypatch.setattr(bars, "notebook_display", lambda: shown.append)
    ticks = iter(range(1000))
    monkeypatch.setattr(bars, "time", types.SimpleNamespace(monotonic=lambda: float(next(ticks))))
    watched = phosphene.ascend(network, "class:0", STEPS, options=RunOptions(progress=True))
    assert shown.pop() == {"text/plain": ""}, "at the end its place is empty"
    assert len(shown) == 4
    assert shown[0].size == (24, 24)
    alone = phosphene.ascend(network, "class:0", STEPS)
    assert (watched.pixels == alone.pixels).all()
    assert watched[0].provenance() == alone[0].provenance()
