"""What comes out for a unit does not depend on what is made beside it."""

import numpy as np
import pytest
from small_recipes import FOURIER, GROWING, HELD, MACO, MIXED, MOVING, PULLED, UNITS, all_of, fourier, pixels, quick
from tiny import LABELS, normed

import phosphene
from phosphene import Recipe
from phosphene.ascent.evaluator import Evaluator


def test_a_row_is_the_same_alone_and_among_others(small):
    recipe = quick(20, median__size=3, optimizer__name="adam")
    together = phosphene.ascend(small, UNITS, recipe, seed=range(7))
    for index, unit in enumerate(UNITS):
        (alone,) = phosphene.ascend(small, unit, recipe, seed=index)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        np.testing.assert_allclose(alone.objectives, together[index].objectives, rtol=1e-3, atol=1e-3)


FAMILIES = {
    "pixels": [
        quick(12),
        quick(7, optimizer__name="adam", median__size=3, median__every=2),
        quick(12, optimizer__gradient="l2", schedule__kind="cosine", keep__rule="best"),
        quick(9, blur__sigma=1.0, decay__strength=0.05, keep__every=3),
    ],
    "fourier": [
        fourier(),
        fourier(steps=6, optimizer__rate=0.2, canvas__contrast=1.5),
        fourier(views__crop=[0.6, 0.9], views__rotate=0.0, priors__statistics__weight=5.0),
        fourier(canvas__spectrum="free", keep__transparency=True),
        fourier(growth={"sizes": [0.5, 1.0], "at": [0.0, 0.5]}),
    ],
    "noise": [quick(8, views__noise=4.0, views__colour=0.1), quick(8, views__noise=30.0, views__colour=0.3)],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_other_recipes_are_what_they_are_alone(family):
    network, recipes = normed(), FAMILIES[family]
    units = [f"class:{index % len(LABELS)}" for index in range(len(recipes))]
    together = phosphene.ascend(network, units, recipes)
    assert [picture.recipe for picture in together] == [
        recipe.for_network(network).for_unit(picture.unit) for recipe, picture in zip(recipes, together, strict=True)
    ]
    for unit, recipe, picture in zip(units, recipes, together, strict=True):
        (alone,) = phosphene.ascend(network, unit, recipe)
        assert picture.steps == alone.steps == recipe.steps
        assert np.abs(alone.pixels.astype(int) - picture.pixels).max() <= 1
        np.testing.assert_allclose(alone.objectives, picture.objectives, rtol=1e-3, atol=1e-3)
        assert len(alone.frames) == len(picture.frames)
        assert (alone.alpha is None) == (picture.alpha is None)


@pytest.mark.parametrize("average", [0.0, 0.8])
def test_rows_that_are_at_other_steps_take_their_own_turns(average):
    network, statistics = normed(), {"weight": 5.0, "every": 2, "average": average}
    recipes = [fourier(steps=steps, priors__statistics=statistics) for steps in (5, 8, 8)]
    units = ["class:0", "class:1", "class:2"]
    passes = []
    handle = network.module.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    together = phosphene.ascend(network, units, recipes, options=phosphene.RunOptions(batch=2, precision="fp32"))
    handle.remove()
    assert passes.count(2) < 5 + 8 + 8  # the third begins beside the second, which has made five
    for unit, recipe, picture in zip(units, recipes, together, strict=True):
        (alone,) = phosphene.ascend(network, unit, recipe)
        np.testing.assert_allclose(alone.objectives, picture.objectives, rtol=1e-3, atol=1e-3)
    (always,) = phosphene.ascend(network, "class:2", recipes[2].override({"priors.statistics.every": 1}))
    assert not np.allclose(always.objectives, together[2].objectives, rtol=1e-3, atol=1e-3)


def test_recipes_that_differ_in_numbers_alone_share_their_passes(small):
    passes = []
    handle = small.module.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    try:
        recipes = [quick(4), quick(4, optimizer__rate=2.0, median__size=3), quick(4, optimizer__name="adam")]
        phosphene.ascend(small, ["class:cat"] * 3, recipes)
    finally:
        handle.remove()
    assert passes.count(3) == 4


def test_recipes_of_other_structure_are_made_in_batches_of_their_own(small):
    recipes = [quick(3), fourier(steps=3, priors__statistics="off"), quick(3, views__count=2, views__jitter=2.0)]
    result = phosphene.ascend(small, ["class:cat"] * 3, recipes)
    for recipe, picture in zip(recipes, result, strict=True):
        (alone,) = phosphene.ascend(small, "class:cat", recipe)
        assert np.abs(alone.pixels.astype(int) - picture.pixels).max() <= 1


@pytest.mark.slow
def test_a_row_of_lite0_is_the_same_alone_and_in_a_batch_of_seven(lite0):
    """After 12 steps of the default recipe; and the same bytes when repeated."""
    units = [f"class:{index}" for index in (130, 351, 736, 850, 1, 999, 400)]
    recipe = Recipe.load("tence").override({"steps": 12})
    seven = phosphene.ascend(lite0, units, recipe)
    (alone,) = phosphene.ascend(lite0, units[0], recipe)
    (repeated,) = phosphene.ascend(lite0, units[0], recipe)
    assert np.array_equal(alone.pixels, repeated.pixels)
    assert alone.objectives == repeated.objectives
    # Within 1e-3 of the range of 255 values, on 8-bit images: a rounding may fall to the other side here and there.
    difference = np.abs(alone.pixels.astype(int) - seven[0].pixels)
    assert difference.max() <= 1
    assert difference.mean() < 1e-3 * 255
    np.testing.assert_allclose(alone.objectives, seven[0].objectives, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["draft", "maco"])
def test_a_row_replayed_without_its_company_is_the_same_to_the_last_bit(lite0, recipe):
    units = ["class:flamingo", "class:teddy", "class:hartebeest"]
    recipe = Recipe.load(recipe).for_network(lite0.name).override({"steps": 3, "size": 96})
    together = phosphene.ascend(lite0, units, recipe)
    for unit, picture in zip(units, together, strict=True):
        assert picture.batches == [[3, 3]]
        (replayed,) = phosphene.ascend(lite0, unit, recipe, options=phosphene.RunOptions(batches=picture.batches))
        assert replayed.objectives == picture.objectives
        assert np.array_equal(replayed.pixels, picture.pixels)


def test_the_same_call_gives_the_same_bytes_and_another_seed_another_image(small):
    first, second = (phosphene.ascend(small, UNITS, quick()) for _ in range(2))
    other = phosphene.ascend(small, UNITS, quick(), seed=8)
    for a, b, c in zip(pixels(first), pixels(second), pixels(other), strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    assert first.objectives[0].tolist() == second.objectives[0].tolist()


def test_all_units_go_through_a_small_batch_in_the_order_given(small):
    in_ones, at_once = (
        phosphene.ascend(small, UNITS, quick(), options=phosphene.RunOptions(batch=2)),
        phosphene.ascend(small, UNITS, quick()),
    )
    assert [str(picture.unit) for picture in in_ones] == [str(picture.unit) for picture in at_once]
    for a, b in zip(pixels(in_ones), pixels(at_once), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_units_of_a_layer_are_made_together_and_earlier_layers_first(small, monkeypatch):
    passes = []
    evaluated = Evaluator.__call__

    def watch(self, units, *args, **kwargs):
        passes.append([str(unit) for unit in units])
        return evaluated(self, units, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "__call__", watch)
    units = ["class:1", "relu1:2", "class:2", "relu2:5", "relu1:3", "class:3"]
    result = phosphene.ascend(small, units, quick(3), options=phosphene.RunOptions(batch=2))
    assert [str(picture.unit) for picture in result] == units
    assert passes[::3] == [["relu1:2", "relu1:3"], ["relu2:5"], ["class:1", "class:2"], ["class:3"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "hidden",
    [
        {"canvas.spectrum": "free"},
        {"views.flip": False},
        {"views.noise": 0.0},
        {"priors.statistics": "off"},
        {"optimizer.rate": 0.2, "canvas.contrast": 0.3},
    ],
)
def test_what_a_recipe_has_for_hidden_units_is_for_them_alone(hidden):
    recipe = all_of(HELD, GROWING, MOVING, PULLED)
    units = ["class:1", "relu1:2", "class:1 - relu1:2"]
    plain, other, both = (
        phosphene.ascend(normed(), units, each, seed=3)
        for each in (recipe, recipe.override(hidden), recipe.override({"hidden": hidden}))
    )
    for made, same, differs in zip(both, (plain[0], *other[1:]), (other[0], *plain[1:]), strict=True):
        assert np.array_equal(made.pixels, same.pixels)
        assert not np.array_equal(made.pixels, differs.pixels)
        assert made.recipe == same.recipe  # which is what the file says of it


@pytest.mark.slow
@pytest.mark.parametrize("canvas", [FOURIER, HELD, MACO, {}])
@pytest.mark.parametrize("growth", [{}, GROWING])
def test_a_row_is_the_same_alone_and_among_others_on_every_canvas(canvas, growth):
    network = normed()
    recipe = all_of(canvas, growth, MOVING, PULLED, {"keep.transparency": True})
    together = phosphene.ascend(network, MIXED, recipe, seed=range(5))
    for index, unit in enumerate(MIXED[1:4], 1):  # each kind
        (alone,) = phosphene.ascend(network, unit, recipe, seed=index)
        np.testing.assert_allclose(alone.objectives, together[index].objectives, rtol=1e-3, atol=1e-3)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        assert np.abs(alone.alpha.astype(int) - together[index].alpha).max() <= 2
    again = phosphene.ascend(network, MIXED, recipe, seed=range(5))
    other = phosphene.ascend(network, MIXED, recipe, seed=range(1, 6))
    for a, b, c in zip(pixels(together), pixels(again), pixels(other), strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


def test_rows_at_different_sizes_each_come_out_as_alone():
    """Of more units than the batch has room for, the later ones are coarse while the first ones are fine."""
    network = normed()
    recipe = all_of(FOURIER, GROWING, MOVING, {"stop.patience": 4, "stop.tolerance": 0.2}, steps=16)
    units = [*MIXED, "relu2:1", "class:tabby cat"]
    together = phosphene.ascend(network, units, recipe, seed=range(7), options=phosphene.RunOptions(batch=3))
    assert len({picture.steps for picture in together}) > 1
    sizes = {size for picture in together for size, _ in picture.batches}
    assert max(sizes) <= 3
    for index, unit in enumerate(units):
        (alone,) = phosphene.ascend(network, unit, recipe, seed=index)
        assert alone.steps == together[index].steps
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
