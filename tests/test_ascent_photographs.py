"""Units of a photograph."""

from dataclasses import replace

import numpy as np
import pytest
from small_recipes import FOURIER, all_of, photograph, quick, referring, rising
from tiny import normed, vit

import phosphene
from phosphene import InputError, Match


def test_units_of_a_photograph_need_one_and_others_take_none(small):
    with pytest.raises(InputError, match=r"match\(relu1\) needs a photograph, and none is given"):
        phosphene.ascend(small, ["class:1", "match(relu1)"], quick(2))
    with pytest.raises(InputError, match=r"class:1 does not refer to one: expected match\(…\) or caricature\(…\)"):
        phosphene.ascend(small, referring("class:1", small, photograph()), quick(2))
    with pytest.raises(InputError, match=r"an image of shape \(9, 9, 3\): expected \(3, 24, 24\)"):
        phosphene.ascend(small, Match("relu1", photograph((9, 9))), quick(2))


def test_the_match_of_a_photograph_with_itself_is_the_highest(small):
    recipe = quick(1, start__kind="image", optimizer__rate=1e-9)
    for unit in ("match(relu1)", "match(relu2)", "match(class)"):
        (picture,) = phosphene.ascend(small, referring(unit, small, photograph()), recipe, start=photograph())
        assert picture.scores["objective"] == pytest.approx(0, abs=1e-6)
        (other,) = phosphene.ascend(small, referring(unit, small, photograph()), recipe, start=photograph(seed=1))
        assert other.scores["objective"] < -1e-4


def soft(size):
    """A photograph that has a large bright disk and a dark one."""
    down, across = np.mgrid[:size, :size] / size
    disks = 1 / (1 + ((down - 0.3) ** 2 + (across - 0.35) ** 2) * 40) - 1 / (
        1 + ((down - 0.7) ** 2 + (across - 0.7) ** 2) * 60
    )
    return np.uint8(127 + 100 * disks[..., None] * [1.0, 0.6, 0.2])


@pytest.mark.slow
@pytest.mark.parametrize("views", [{}, {"views.crop": [0.7, 1.0], "views.rotate": 5.0, "views.flip": True}])
@pytest.mark.parametrize(("make", "layer"), [(normed, "relu1"), (lambda: vit(32), "blocks.0")])
def test_an_early_layer_gives_the_photograph_back(views, make, layer):
    network = make()
    size = network.preprocessing.height
    recipe = all_of(FOURIER, views, steps=150).override({"optimizer.rate": 0.1, "schedule.kind": "cosine"})
    (picture,) = phosphene.ascend(network, Match(layer, soft(size)), recipe)
    assert picture.scores["objective"] > 0.3 * picture.objectives[0]
    assert np.corrcoef(picture.pixels.ravel(), soft(size).ravel())[0, 1] > 0.6


@pytest.mark.parametrize("unit", ["match(blocks.1)", "caricature(blocks.1)", "match(patch_embed) - 0.1*class:1"])
def test_photographs_of_a_canvas_larger_than_a_fixed_network(unit):
    network = vit()
    network = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
    recipe = all_of(FOURIER, {"views.crop": [0.4, 1.0], "size": [80, 72]}, steps=30)
    first, last = rising(network, referring(unit, network, photograph((80, 72))), recipe)
    assert last > first
