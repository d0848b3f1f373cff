"""What is asked of an ascent, and what is refused."""

import numpy as np
import pytest
from small_recipes import quick

import phosphene
from phosphene import InputError, RunOptions


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ([quick(), quick()], "2 recipes for 3 units"),
        ([quick(), quick(size=20), quick()], "expected one size"),
        ([quick(), quick(), "nature"], "did you mean natural"),
    ],
)
def test_recipes_that_cannot_be_are_refused(small, recipes, message):
    with pytest.raises(InputError, match=message):
        phosphene.ascend(small, ["class:cat"] * 3, recipes)


def test_seeds_may_be_numpys(small):
    plain = phosphene.ascend(small, ["class:cat", "class:dog"], quick(2), seed=[3, 4])
    for seed in (np.int64(3), np.array([3, 4])):
        made = phosphene.ascend(small, ["class:cat", "class:dog"], quick(2), seed=seed)
        assert np.array_equal(made[0].pixels, plain[0].pixels)
        assert made[0].seed == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"units": []}, "no units are given"),
        ({"seed": -1}, "seed -1: expected a whole number"),
        ({"seed": [1, 2]}, "2 seeds for 1 units"),
        ({"options": RunOptions(device="cuda:99")}, "device 'cuda:99' is not there: expected cpu"),
        ({"options": RunOptions(device="gpu")}, "device 'gpu' is not there"),
        ({"options": RunOptions(device=[])}, "no device is given"),
        ({"options": RunOptions(batch=0)}, "batch 0: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(small, arguments, sentence):
    units = arguments.pop("units", "class:1")
    with pytest.raises(InputError, match=sentence):
        phosphene.ascend(small, units, quick(), **arguments)
