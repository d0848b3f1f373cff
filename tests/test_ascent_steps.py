"""The steps of an ascent: their size, their schedule, and which image is kept."""

import math

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from small_recipes import UNITS, all_of, quick
from tiny import normed
from torch import nn

import phosphene
from phosphene import Recipe
from phosphene.ascent import stopping
from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.step import normalize_gradient, schedule_factor
from phosphene.recipes.settings import Schedule


def test_the_objective_rises_for_every_kind_of_unit(small):
    result = phosphene.ascend(small, UNITS, quick(20))
    for picture in result:
        assert picture.scores["objective"] > picture.objectives[0], picture
        assert picture.steps == 20
        assert picture.stopped == stopping.ALL_STEPS
        assert len(picture.objectives) == 20


def test_the_kept_image_is_the_one_the_recipe_names(small):
    """The post's rule keeps the image before the last median, "last" the one after it, "best" the highest."""
    from phosphene.pixels import filters

    fields = {"steps": 8, "median.size": 3, "median.every": 4}
    images = {}
    for rule in ("clipped", "last", "best"):
        (picture,) = phosphene.ascend(small, "class:cat", quick().override({**fields, "keep.rule": rule}))
        images[rule] = picture
    before = torch.from_numpy(images["clipped"].pixels).movedim(-1, 0)[None].float()
    after = filters.median(before, 3)[0].movedim(0, -1).numpy()
    assert np.abs(after - images["last"].pixels).max() <= 1
    assert images["best"].scores["objective"] >= max(images["clipped"].objectives) * (1 - 1e-2)
    assert images["best"].scores["objective"] >= images["last"].scores["objective"]


def test_the_last_image_is_clipped_even_before_a_later_clip_in_the_order(small):
    recipe = quick(3, optimizer__rate=500.0).override({"clip": "off"})
    (picture,) = phosphene.ascend(small, "class:cat", recipe)
    assert picture.pixels.min() == 0
    assert picture.pixels.max() == 255


def test_frames_are_kept_every_k_steps_up_to_the_last_one_asked_for(small):
    (picture,) = phosphene.ascend(small, "class:cat", quick(12, keep__every=3, keep__until=9))
    assert len(picture.frames) == 3
    (whole,) = phosphene.ascend(small, "class:cat", quick(12, keep__every=1))
    assert len(whole.frames) == 12
    assert np.array_equal(whole.frames[2], picture.frames[0])
    assert np.array_equal(whole.frames[-1], whole.pixels)


def test_schedules():
    def factors(**fields):
        schedule = Schedule(**fields)
        return [schedule_factor(schedule, step, 11) for step in range(1, 12)]

    assert factors() == [1.0] * 11
    np.testing.assert_allclose(factors(kind="linear"), np.linspace(1, 0, 11))
    np.testing.assert_allclose(factors(kind="linear", end=0.5), np.linspace(1, 0.5, 11))
    cosine = factors(kind="cosine")
    assert (cosine[0], round(cosine[5], 9), round(cosine[-1], 9)) == (1, 0.5, 0)
    late = factors(kind="linear", begin=0.5)
    assert late[:6] == [1.0] * 6
    assert late[-1] == 0
    assert factors(kind="step", every=4, factor=0.5) == [1] * 4 + [0.5] * 4 + [0.25] * 3


def test_progress_sizes_each_step_for_the_gain_wanted():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0], [-2.0]]))

        def forward(self, images):
            return images.mean((1, 2, 3))[:, None] @ self.weight.T

    recipe = quick(6, schedule__kind="progress", schedule__gain=0.01, optimizer__rate=1e12, optimizer__gradient="raw")
    for picture in phosphene.ascend(opened(seeded(Linear)), ["class:0", "class:1"], recipe):
        np.testing.assert_allclose(np.diff(picture.objectives), 0.01, rtol=1e-2)
    held = recipe.override({"optimizer.rate": 1e-9})
    assert abs(np.diff(phosphene.ascend(opened(seeded(Linear)), "class:0", held)[0].objectives)).max() < 1e-6


@pytest.mark.parametrize(("kind", "size"), [("l2", 12.0), ("rms", 12.0 / math.sqrt(3 * 24 * 24))])
def test_normalised_gradients_make_steps_of_the_rate(small, kind, size):
    recipe = Recipe.load("naive").override({"optimizer.gradient": kind, "optimizer.rate": size, "steps": 1})
    steps = []
    for unit in ("class:cat", "relu1:2"):
        images = torch.full((1, 3, 24, 24), 100.0)
        with small.borrowed():
            objective = Evaluator([small], recipe, torch.device("cpu"))
            gradient = objective([phosphene.units.spelling.parse_unit(unit, small)], images).gradient
        steps.append(recipe.optimizer.rate * normalize_gradient(gradient, kind).norm().item())
    np.testing.assert_allclose(steps, 12.0, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 3, 8, 5, 2)])
def test_each_colour_plane_makes_a_step_of_the_rate(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    sizes = torch.tensor([[1.0, 0.1, 1e-8], [1e-5, 7.0, 0.0]])  # the network does not see the last planes
    found = normalize_gradient(gradient * sizes.view(2, 3, *[1] * (len(shape) - 2)), "planes")
    planes = found.flatten(2).square().mean(2).sqrt()
    assert planes[0, :2].tolist() == pytest.approx([1, 1], rel=1e-4)
    assert planes[1, 1].item() == pytest.approx(1, rel=1e-4)
    assert max(planes[0, 2], planes[1, 0], planes[1, 2]) < 0.01
    torch.testing.assert_close(
        found[:1], normalize_gradient(gradient[:1] * sizes[0].view(1, 3, *[1] * (len(shape) - 2)), "planes")
    )


def test_learning_rates_are_in_pixel_units_whatever_the_networks_range():
    """The same function of the pixels, fed as 0..1 or as -100..400, ascends alike at the same rate."""

    class Scaled(nn.Module):
        def __init__(self, low: float, high: float):
            super().__init__()
            self.body, self.low, self.high = seeded(Small), low, high

        def forward(self, images):
            return self.body((images - self.low) / (self.high - self.low))

    recipe = Recipe.load("clip").override({"steps": 10, "optimizer.rate": 5e5, "start.kind": "uniform"})
    images = []
    for low, high in ((0.0, 1.0), (-100.0, 400.0)):
        network = phosphene.open(Scaled(low, high), phosphene.Preprocessing(24, value_range=(low, high)))
        images.append(phosphene.ascend(network, "class:1", recipe)[0].pixels.astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


def test_scores_are_measured_on_the_image_as_saved(small):
    (picture,) = phosphene.ascend(small, "class:cat", quick())
    with small.borrowed(), torch.no_grad():
        logits = small.forward(torch.from_numpy(picture.pixels).float().movedim(-1, 0)[None])[0]
    assert picture.scores["objective"] == pytest.approx(logits[0].item(), abs=1e-5)
    assert picture.scores["probability"] == pytest.approx(logits.softmax(0)[0].item(), abs=1e-5)


def test_a_prior_of_a_hidden_unit_weighs_by_its_size():
    """The first step, which knows none, is without; all later ones pull."""
    network = normed()
    made = [
        phosphene.ascend(network, "relu1:2", all_of(prior, {"optimizer.rate": 3.0}, steps=steps))[0].pixels.astype(int)
        for steps in (1, 6)
        for prior in ({}, {"priors.total_variation.weight": 200.0})
    ]
    assert np.array_equal(made[0], made[1])
    assert np.abs(np.diff(made[3], axis=0)).mean() < 0.9 * np.abs(np.diff(made[2], axis=0)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["natural", "draft"])
def test_stripes_of_a_hidden_unit_fall_to_its_own_side(recipe):
    """Its image is not the mirror image's as well."""
    module = nn.Sequential(nn.Conv2d(3, 1, 5, bias=False), nn.ReLU())
    stripes = 2.0 * torch.eye(5).roll(1, 1) - torch.eye(5) - torch.eye(5).roll(2, 1)
    module[0].weight.data = stripes.expand(1, 3, 5, 5).clone()
    network = phosphene.open(module, phosphene.Preprocessing(size=32, std=0.25))
    (picture,) = phosphene.ascend(network, "1:0", Recipe.load(recipe).override({"steps": 40}))
    image = torch.from_numpy(picture.pixels.copy()).movedim(-1, 0).float()[None] / 255
    with torch.no_grad():
        own, mirrored = (module(each).mean().item() for each in (image, image.flip(-1)))
    assert own > 2 * mirrored
