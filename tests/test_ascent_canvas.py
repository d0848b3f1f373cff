"""Starts, sizes and canvases, also those that grow from coarse to fine."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from small_recipes import (
    FOURIER,
    GROWING,
    MACO,
    MOVING,
    PULLED,
    UNITS,
    all_of,
    fourier,
    photograph,
    quick,
    rising,
)
from tiny import LABELS, Flat, normed, vit

import phosphene
from phosphene import InputError
from phosphene.ascent import stopping


@pytest.mark.parametrize("spectrum", ["free", "held"])
def test_an_ascent_may_start_from_grey_on_a_canvas_of_held_contrast(spectrum):
    recipe = fourier(start__kind="grey", canvas__spectrum=spectrum, priors__statistics="off")
    (picture,) = phosphene.ascend(normed(), "class:dog", recipe)
    assert picture.stopped == stopping.ALL_STEPS
    assert picture.objectives[-1] > picture.objectives[0]


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(24, 24), (17, 30)])
@pytest.mark.parametrize("kind", ["gaussian", "uniform", "grey"])
def test_any_channels_sizes_and_starts(channels, size, kind):
    network = opened(seeded(Small, channels), channels=channels)
    (picture,) = phosphene.ascend(network, "class:1", quick(4, size=size, start__kind=kind))
    assert picture.pixels.shape == (*size, channels)
    assert picture.scores["objective"] > picture.objectives[0]


def test_starts_are_what_they_say(small):
    from phosphene.ascent.canvas import start_image
    from phosphene.recipes.settings import Start

    preprocessing = phosphene.Preprocessing((200, 301), mean=(0.2, 0.5, 0.8))
    gaussian = start_image(Start(), preprocessing, 1, None)
    np.testing.assert_allclose(gaussian.mean((1, 2)), [51, 127.5, 204], atol=0.3)
    np.testing.assert_allclose(gaussian.std((1, 2)), 10, atol=0.3)
    uniform = start_image(Start(kind="uniform", low=50, high=60), preprocessing, 1, None)
    assert uniform.min() >= 50
    assert uniform.max() <= 60
    assert (start_image(Start(kind="grey"), preprocessing, 1, None) == 127.5).all()


def test_an_ascent_starts_from_a_given_image(small):
    given = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    recipe = quick(1, start__kind="image", optimizer__rate=1e-6)
    (picture,) = phosphene.ascend(small, "class:1", recipe, start=given)
    assert np.array_equal(picture.pixels, given)
    with pytest.raises(InputError, match="expected a start image"):
        phosphene.ascend(small, "class:1", recipe)
    with pytest.raises(InputError, match="expected 'image', since a start image is given"):
        phosphene.ascend(small, "class:1", quick(), start=given)
    with pytest.raises(InputError, match=r"an image of shape \(9, 9, 3\): expected \(3, 24, 24\)"):
        phosphene.ascend(small, "class:1", recipe, start=given[:9, :9])


@pytest.mark.parametrize("canvas", [FOURIER, MACO])
@pytest.mark.parametrize("unit", ["class:cat", "relu1:2"])
def test_the_objective_rises_on_every_canvas(small, canvas, unit):
    first, last = rising(small, unit, all_of(canvas, {"views.jitter": 2.0}, steps=30))
    assert last > first


def test_transparency_changes_nothing_but_says_what_the_objective_cared_for(small):
    """The unit sees the upper left corner only."""
    recipe = all_of(MACO, {"keep.transparency": True}, steps=8)
    (shown,) = phosphene.ascend(small, "relu1:2@3,4", recipe)
    (plain,) = phosphene.ascend(small, "relu1:2@3,4", recipe.override({"keep.transparency": False}))
    assert plain.alpha is None
    assert np.array_equal(shown.pixels, plain.pixels)
    assert shown.alpha.shape == (24, 24)
    assert shown.alpha[3, 4] == 255
    assert shown.alpha[12:, 12:].max() == 0
    image = shown.image()
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image)[..., :3], shown.pixels)
    assert np.array_equal(np.asarray(image)[..., 3], shown.alpha)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 44), (12, 9)])
@pytest.mark.parametrize("canvas", [FOURIER, {}])
def test_a_canvas_of_another_size_than_the_network_takes(size, canvas):
    recipe = all_of(canvas, {"views.crop": [0.3, 1.0], "size": size}, steps=20)
    for network in (vit(), opened(seeded(Flat), labels=LABELS)):
        network = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
        for unit in ("class:cat", f"mean({network.layers[1].name}:3)"):
            first, last = rising(network, unit, recipe)
            assert last > first
            (picture,) = phosphene.ascend(network, unit, recipe.override({"steps": 2}))
            assert picture.pixels.shape == (*size, 3)
    with pytest.raises(InputError, match="patches of 16x16 pixels do not divide it"):
        phosphene.ascend(vit(), "class:cat", quick(2, size=size))


@pytest.mark.parametrize("canvas", [{}, {**FOURIER, "optimizer.rate": 1e-9}])
def test_detail_that_a_coarse_start_loses_is_put_back(small, canvas):
    recipe = all_of({"optimizer.rate": 1e-6}, GROWING, canvas, {"start.kind": "image", "keep.rule": "last"})
    (picture,) = phosphene.ascend(small, "class:1", recipe, start=photograph())
    assert np.abs(picture.pixels.astype(int) - photograph()).max() <= 1
    (coarse,) = phosphene.ascend(
        small,
        "class:1",
        recipe.override({"growth.at": [0.0, 0.9, 0.95]}),
        start=photograph(),
        options=phosphene.RunOptions(batches=[[2, 3]]),
    )
    assert np.abs(coarse.pixels.astype(int) - photograph()).mean() > 10


@pytest.mark.parametrize("canvas", [{}, FOURIER, MACO])
def test_what_grows_ends_at_its_size_and_so_does_every_frame(small, canvas):
    recipe = all_of(canvas, GROWING, {"size": [25, 30], "keep.every": 2}, steps=20)
    (picture,) = phosphene.ascend(small, "class:1", recipe)
    assert [frame.shape for frame in picture.frames] == [(25, 30, 3)] * 10
    assert picture.pixels.shape == (25, 30, 3)
    assert np.array_equal(picture.frames[-1], picture.pixels)
    first, last = rising(small, "class:1", recipe.override({"keep.every": 0}))
    assert last > first


def test_at_a_size_too_small_for_a_network_it_sees_the_image_enlarged():
    """A class needs the whole network, which takes its own size only; the first layers take any."""
    network = opened(seeded(Flat), labels=LABELS)
    recipe = all_of(GROWING, steps=20)
    units = ["class:1", "relu:2", "class:2"]
    together = phosphene.ascend(network, units, recipe)
    for index, unit in enumerate(units):
        (alone,) = phosphene.ascend(network, unit, recipe)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        assert together[index].scores["objective"] > together[index].objectives[0]


def test_the_best_image_of_one_that_grows_is_of_its_final_size(small):
    (picture,) = phosphene.ascend(small, "class:1", all_of(GROWING, {"keep.rule": "best", "optimizer.rate": 300.0}))
    assert picture.pixels.shape == (24, 24, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("canvas", [{"median.size": 5}, FOURIER, MACO])
@pytest.mark.parametrize("more", [{}, {**GROWING, **PULLED, **MOVING, "keep.transparency": True}])
def test_the_gpu_gives_what_the_cpu_gives(canvas, more):
    network, recipe = normed(), all_of(canvas, more, steps=10)
    for a, b in zip(
        phosphene.ascend(network, UNITS, recipe, options=phosphene.RunOptions(device="cuda")),
        phosphene.ascend(network, UNITS, recipe, options=phosphene.RunOptions(device="cpu")),
        strict=True,
    ):
        assert np.abs(a.pixels.astype(int) - b.pixels).mean() < 1
