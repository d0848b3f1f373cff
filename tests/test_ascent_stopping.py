"""When a row stops, what it says then, and what Ctrl-C keeps."""

import signal

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from small_recipes import FOURIER, GROWING, MACO, UNITS, all_of, fourier, pressed_at, quick

import phosphene
from phosphene import InputError
from phosphene.ascent import loop, stopping


class Odd(Small):
    """A class that is dead, one that is not a number from some brightness on, and three in order."""

    def forward(self, images):
        logits = super().forward(images)
        dead = logits[:, :1] * 0
        bad = torch.where(images.mean((1, 2, 3))[:, None] > 0.4, torch.nan, 1.0) * images.mean((1, 2, 3))[:, None]
        return torch.cat([dead, bad, logits[:, 2:]], dim=1)


def test_a_dead_and_a_failing_row_stop_alone_and_say_why():
    network = opened(seeded(Odd))
    result = phosphene.ascend(network, [f"class:{i}" for i in range(5)], quick(40))
    stopped = [picture.stopped for picture in result]
    assert stopped == [stopping.DEAD, stopping.NOT_FINITE, *[stopping.ALL_STEPS] * 3]
    assert result[0].steps == 1
    assert 1 < result[1].steps < 40
    assert result[1].pixels.std() > 0
    (alone,) = phosphene.ascend(network, "class:4", quick(40))
    assert np.abs(alone.pixels.astype(int) - result[4].pixels).max() <= 1


@pytest.fixture
def reads(monkeypatch):
    """Has numbers be read every seventh step, as if the CPU were waited for; gives how many rows' each time."""
    found, begin, read = [], loop.Loop.__init__, loop.Loop.read

    def rarely(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.read_every = 7

    def counted(self, due, images, last):
        found.append(len(due))
        read(self, due, images, last)

    monkeypatch.setattr(loop.Loop, "__init__", rarely)
    monkeypatch.setattr(loop.Loop, "read", counted)
    return found


def test_images_do_not_depend_on_how_often_their_numbers_are_read(small, request):
    recipes = [quick(20), fourier(steps=18), quick(16, keep__rule="best"), quick(40, stop__patience=6)]
    classes = ["class:cat", "class:dog", "class:horse"]
    before = [phosphene.ascend(small, classes, recipe, seed=[1, 2, 3]) for recipe in recipes]
    reads = request.getfixturevalue("reads")
    for recipe, expected in zip(recipes, before, strict=True):
        reads.clear()
        found = phosphene.ascend(small, classes, recipe, seed=[1, 2, 3])
        for one, other in zip(found, expected, strict=True):
            assert (one.pixels == other.pixels).all()
            assert (one.objectives, one.probabilities) == (other.objectives, other.probabilities)
            assert (one.steps, one.stopped, one.scores) == (other.steps, other.stopped, other.scores)
        rarely = recipe in recipes[:2]  # the others depend on the numbers of each step
        assert sum(map(bool, reads)) == (4 if rarely else max(picture.steps for picture in found))


def test_a_failing_row_stays_where_it_is_until_that_is_read(request):
    network = opened(seeded(Odd))
    _, before = phosphene.ascend(network, ["class:0", "class:1"], quick(40))
    request.getfixturevalue("reads")
    dead, failed = phosphene.ascend(network, ["class:0", "class:1"], quick(40))
    assert (dead.stopped, dead.steps) == (stopping.DEAD, 1)
    assert failed.stopped == stopping.NOT_FINITE
    assert before.steps <= failed.steps < before.steps + 7
    assert (failed.pixels == before.pixels).all()


def test_a_row_stops_when_its_smoothed_objective_stops_rising(small):
    recipe = quick(400, stop__patience=10, stop__tolerance=0.02)
    result = phosphene.ascend(small, UNITS[:3], recipe)
    assert {picture.stopped for picture in result} == {stopping.PLATEAU}
    assert len({picture.steps for picture in result}) > 1  # each by itself
    for picture in result:
        assert 10 < picture.steps < 400
        assert picture.scores["objective"] > 0.9 * max(picture.objectives)


def test_a_row_stops_when_its_probability_has_held(small):
    recipe = quick(400, stop__confidence=0.5, stop__hold=4)
    small.module.head.weight.data *= 30  # to be sure of anything at all
    for picture in phosphene.ascend(small, ["class:cat", "class:dog"], recipe):
        assert picture.stopped == stopping.PROBABILITY_HELD
        assert min(picture.probabilities[-4:]) >= 0.5
        assert min(picture.probabilities[-5:]) < 0.5
    with pytest.raises(InputError, match="expected class units only"):
        phosphene.ascend(small, "relu1:2", recipe)


def test_ctrl_c_keeps_what_is_made_and_begins_nothing_more(small):
    handler = signal.getsignal(signal.SIGINT)

    def press(progress):
        if progress.done == 2 and progress.work > 0.4:
            signal.raise_signal(signal.SIGINT)

    units = [f"class:{index}" for index in range(5)]
    result = phosphene.ascend(
        small, units, quick(30), options=phosphene.RunOptions(batch=2), callbacks=phosphene.Callbacks(progress=press)
    )
    assert result.interrupted
    assert [picture.stopped for picture in result] == [stopping.ALL_STEPS] * 2 + [stopping.INTERRUPTED] * 2
    assert result.not_started == ["class:4"]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("canvas", [{}, FOURIER, MACO])
def test_ctrl_c_at_a_coarse_size_gives_an_image_of_the_final_one(small, canvas):
    recipe = all_of(canvas, GROWING, {"keep.transparency": True}, steps=20)
    result = phosphene.ascend(
        small,
        ["class:1", "class:2", "class:3"],
        recipe,
        options=phosphene.RunOptions(batch=2),
        callbacks=phosphene.Callbacks(progress=pressed_at(0.1)),
    )
    assert result.interrupted
    assert [picture.stopped for picture in result] == [stopping.INTERRUPTED] * 2
    for picture in result:
        assert picture.steps < 6
        assert picture.pixels.shape == (24, 24, 3)
        assert picture.alpha.shape == (24, 24)
        assert picture.pixels.std() > 0
