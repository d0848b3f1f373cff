import contextlib
import copy
import math
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SHARED, Small, opened, seeded
from tiny import LABELS, Flat, Normed, normed, vit
from torch import nn

import phosphene
import phosphene.recipes.schema
from phosphene import InputError, Recipe
from phosphene.ascent import loop, penalties, request, stopping
from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.step import normalize_gradient, schedule_factor
from phosphene.ascent.transforms import resize
from phosphene.recipes.schema import Schedule

UNITS = ["class:cat", "relu1:2", "mean(relu2:5)", "class:dog - class:cat", "relu2:3@4,6", "conv2", "class:horse"]


def quick(steps=12, **fields):
    rate = {"optimizer.gradient": "rms", "optimizer.rate": 6.0}
    return Recipe.load("clip").override(
        {**rate, "steps": steps, **{name.replace("__", "."): fields[name] for name in fields}}
    )


def pixels(result):
    return [picture.pixels for picture in result]


def test_the_objective_rises_for_every_kind_of_unit(small):
    result = phosphene.ascend(small, UNITS, quick(20))
    for picture in result:
        assert picture.scores["objective"] > picture.objectives[0], picture
        assert picture.steps == 20
        assert picture.stopped == stopping.ALL_STEPS
        assert len(picture.objectives) == 20


def test_a_row_is_the_same_alone_and_among_others(small):
    recipe = quick(20, median__size=3, optimizer__name="adam")
    together = phosphene.ascend(small, UNITS, recipe, seed=range(7))
    for index, unit in enumerate(UNITS):
        (alone,) = phosphene.ascend(small, unit, recipe, seed=index)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        np.testing.assert_allclose(alone.objectives, together[index].objectives, rtol=1e-3, atol=1e-3)


def fourier(**fields):
    return Recipe.load("draft").override(
        {"steps": 10, "start.sigma": 5.0, **{name.replace("__", "."): value for name, value in fields.items()}}
    )


@pytest.mark.parametrize("spectrum", ["free", "held"])
def test_an_ascent_may_start_from_grey_on_a_canvas_of_held_contrast(spectrum):
    recipe = fourier(start__kind="grey", canvas__spectrum=spectrum, priors__statistics="off")
    (picture,) = phosphene.ascend(normed(), "class:dog", recipe)
    assert picture.stopped == stopping.ALL_STEPS
    assert picture.objectives[-1] > picture.objectives[0]


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
        recipe.for_network(network.name).for_unit(picture.unit)
        for recipe, picture in zip(recipes, together, strict=True)
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


@pytest.mark.slow
def test_a_row_of_lite0_is_the_same_alone_and_in_a_batch_of_seven(lite0):
    """After 50 steps of the default recipe; and the same bytes when repeated."""
    units = [f"class:{index}" for index in (130, 351, 736, 850, 1, 999, 400)]
    recipe = Recipe.load("tence").override({"steps": 50})
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


@pytest.mark.parametrize("recipe", ["draft", "maco"])
def test_a_row_replayed_without_its_company_is_the_same_to_the_last_bit(lite0, recipe):
    units = ["class:flamingo", "class:teddy", "class:hartebeest"]
    recipe = Recipe.load(recipe).for_network(lite0.name).override({"steps": 3})
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
    assert first.traces[0].tolist() == second.traces[0].tolist()


def test_seeds_may_be_numpys(small):
    plain = phosphene.ascend(small, ["class:cat", "class:dog"], quick(2), seed=[3, 4])
    for seed in (np.int64(3), np.array([3, 4])):
        made = phosphene.ascend(small, ["class:cat", "class:dog"], quick(2), seed=seed)
        assert np.array_equal(made[0].pixels, plain[0].pixels)
        assert made[0].seed == 3


def test_all_units_go_through_a_small_batch_in_the_order_given(small):
    in_ones, at_once = (
        phosphene.ascend(small, UNITS, quick(), options=phosphene.RunOptions(batch=2)),
        phosphene.ascend(small, UNITS, quick()),
    )
    assert [str(picture.unit) for picture in in_ones] == [str(picture.unit) for picture in at_once]
    for a, b in zip(pixels(in_ones), pixels(at_once), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_the_memory_budget_splits_the_batch(small):
    row = 8 * sum(math.prod(layer.shape) for layer in small.layers)
    result = phosphene.ascend(small, UNITS, quick(3), options=phosphene.RunOptions(memory=2 * row))
    assert {size for picture in result for size, _ in picture.batches} == {2}
    assert len(result) == 7


class Greedy(Small):
    """Runs out of memory on more than three images."""

    def forward(self, images):
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return super().forward(images)


def test_running_out_of_memory_halves_the_batch_and_goes_on(small):
    greedy = opened(seeded(Greedy), labels=small.labels)
    result = phosphene.ascend(greedy, UNITS, quick())
    for a, b in zip(pixels(result), pixels(phosphene.ascend(small, UNITS, quick())), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert max(size for picture in result for size, _ in picture.batches) == 3


class GreedyBackwards(Normed):
    """Runs out of memory on the way back from the fourth batch of more than three images."""

    def forward(self, images):
        if len(images) > 3 and images.requires_grad:
            images.register_hook(self.run_out)
        return super().forward(images)

    def run_out(self, gradient):
        self.times = getattr(self, "times", 0) + 1
        if self.times == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_what_a_step_remembered_that_ran_out_of_memory_is_forgotten():
    recipe = fourier(priors__statistics={"weight": 5.0, "average": 0.8})
    units = [f"class:{index}" for index in range(5)]
    greedy, enough = (opened(seeded(kind), labels=LABELS) for kind in (GreedyBackwards, Normed))
    for a, b in zip(*(phosphene.ascend(network, units, recipe) for network in (greedy, enough)), strict=True):
        assert len(a.batches) > 1
        np.testing.assert_allclose(a.objectives, b.objectives, rtol=1e-3, atol=1e-3)


class Hopeless(Small):
    def forward(self, images):
        if images.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(images)


def test_memory_too_small_for_one_image_is_said():
    with pytest.raises(InputError, match="out of memory with one image of 24x24 pixels"):
        phosphene.ascend(opened(seeded(Hopeless)), ["class:1", "class:2"], quick())


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
    monkeypatch.setitem(loop._READ_EVERY, "cpu", 7)
    found, read = [], loop.Loop.read

    def counted(self, due, images, last):
        found.append(len(due))
        read(self, due, images, last)

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


def test_a_row_stops_when_its_confidence_has_held(small):
    recipe = quick(400, stop__confidence=0.5, stop__hold=4)
    small.module.head.weight.data *= 30  # to be sure of anything at all
    for picture in phosphene.ascend(small, ["class:cat", "class:dog"], recipe):
        assert picture.stopped == stopping.CONFIDENT
        assert min(picture.probabilities[-4:]) >= 0.5
        assert min(picture.probabilities[-5:]) < 0.5
    with pytest.raises(InputError, match="expected class units only"):
        phosphene.ascend(small, "relu1:2", recipe)


def test_the_kept_image_is_the_one_the_recipe_names(small):
    """The post's rule keeps the image before the last median, "last" the one after it, "best" the highest."""
    from phosphene.ascent import filters

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
    from phosphene.recipes.schema import Start

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


def test_scores_are_measured_on_the_image_as_saved(small):
    (picture,) = phosphene.ascend(small, "class:cat", quick())
    with small.borrowed(), torch.no_grad():
        logits = small.forward(torch.from_numpy(picture.pixels).float().movedim(-1, 0)[None])[0]
    assert picture.scores["objective"] == pytest.approx(logits[0].item(), abs=1e-5)
    assert picture.scores["probability"] == pytest.approx(logits.softmax(0)[0].item(), abs=1e-5)


def test_progress_and_pictures_are_reported_as_they_come(small):
    shares, made = [], []
    phosphene.ascend(
        small,
        UNITS[:3],
        quick(5),
        options=phosphene.RunOptions(batch=2),
        callbacks=phosphene.Callbacks(progress=lambda p: shares.append(p.work), picture=made.append),
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(made) == 3


def test_every_step_but_the_last_can_be_watched(small):
    seen = []

    def on_step(step):
        seen.append((step.place, step.step, step.objective, step.pixels()))
        return step.recipe

    watched = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(5), callbacks=phosphene.Callbacks(step=on_step))
    assert sorted((place, step) for place, step, *_ in seen) == [(p, s) for p in range(2) for s in range(1, 5)]
    for picture, alone in zip(watched, phosphene.ascend(small, ["class:cat", "relu2:3"], quick(5)), strict=True):
        assert np.array_equal(picture.pixels, alone.pixels)
        assert picture.changes == []
    for place, step, objective, image in seen:
        assert objective == watched[place].objectives[step - 1]
        (shorter,) = phosphene.ascend(small, watched[place].unit, quick(step))
        assert np.abs(image.astype(int) - shorter.pixels).max() <= 1  # the image as it stands is the one so far


def test_a_step_that_gives_no_recipe_is_followed_by_the_last(small):
    (ended, whole) = phosphene.ascend(
        small,
        ["class:cat", "relu2:3"],
        quick(9),
        callbacks=phosphene.Callbacks(step=lambda step: None if (step.place, step.step) == (0, 4) else step.recipe),
    )
    assert (ended.steps, ended.stopped) == (5, stopping.INTERRUPTED)
    assert (whole.steps, whole.stopped) == (9, stopping.ALL_STEPS)
    assert np.abs(ended.pixels.astype(int) - phosphene.ascend(small, "class:cat", quick(5))[0].pixels).max() <= 1


def test_what_a_step_changes_holds_from_the_next_step_on_for_its_row_alone(small):
    changed = quick(8).override({"optimizer.rate": 0.01, "median.size": 3, "median.every": 1})

    def on_step(step):
        return changed if (step.place, step.step) == (0, 4) else step.recipe

    pair = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(8), callbacks=phosphene.Callbacks(step=on_step))
    alone = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(8))
    assert pair[0].changes == [[4, "optimizer.rate", 0.01], [4, "median.size", 3], [4, "median.every", 1]]
    assert pair[0].recipe == quick(8).for_network(small.name)  # as it was at first
    assert pair[0].objectives[:5] == alone[0].objectives[:5]
    assert pair[0].objectives[5:] != alone[0].objectives[5:]
    assert pair[1].changes == []
    assert np.array_equal(pair[1].pixels, alone[1].pixels)


def test_fewer_steps_than_are_made_end_with_the_next(small):
    short = quick(3)
    (picture,) = phosphene.ascend(
        small,
        "class:cat",
        quick(12),
        callbacks=phosphene.Callbacks(step=lambda step: short if step.step == 6 else step.recipe),
    )
    assert (picture.steps, picture.stopped) == (7, stopping.ALL_STEPS)


@pytest.mark.parametrize("kind", ["fourier", "maco"])
def test_a_canvas_that_grows_may_be_given_another_contrast_on_the_way(small, kind):
    base = fourier(canvas__kind=kind, canvas__spectrum="free", growth__sizes=[0.5, 1.0], growth__at=[0.0, 0.5])
    pale = base.override({"canvas.contrast": 0.4})
    for at in (2, 7):  # at either size
        (picture,) = phosphene.ascend(
            small,
            "class:cat",
            base,
            callbacks=phosphene.Callbacks(step=lambda step, at=at: pale if step.step == at else step.recipe),
        )
        assert picture.changes == [[at, "canvas.contrast", 0.4]]
        assert picture.pixels.std() < 0.6 * phosphene.ascend(small, "class:cat", base)[0].pixels.std()


@pytest.mark.parametrize(
    "fields", [{"start.kind": "grey"}, {"optimizer.name": "adam"}, {"views.pad": 3.0}, {"size": 30}]
)
def test_what_is_settled_at_the_start_cannot_change_on_the_way(small, fields):
    other = quick().override(fields)
    with pytest.raises(InputError, match=f"cannot change on the way.*{next(iter(fields))}"):
        phosphene.ascend(small, "class:cat", quick(), callbacks=phosphene.Callbacks(step=lambda step: other))


def test_steps_are_watched_on_one_device_and_without_facets(small):
    for given in ({"device": ["cpu", "cpu"]}, {"facets": 2}):
        with pytest.raises(InputError, match="on_step"):
            phosphene.ascend(
                small, "class:cat", quick(), callbacks=phosphene.Callbacks(step=lambda step: step.recipe), **given
            )


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"units": []}, "no units are given"),
        ({"seed": -1}, "seed -1: expected a whole number"),
        ({"seed": [1, 2]}, "2 seeds for 1 units"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there: expected cpu"),
        ({"device": "gpu"}, "device 'gpu' is not there"),
        ({"batch": 0}, "batch 0: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(small, arguments, sentence):
    units = arguments.pop("units", "class:1")
    with pytest.raises(InputError, match=sentence):
        phosphene.ascend(small, units, quick(), **arguments)


# Canvases, views and priors


FOURIER = {
    "canvas.kind": "fourier", "start.sigma": 4.0, "optimizer.name": "adam", "optimizer.rate": 0.05,
    "optimizer.gradient": "raw", "keep.rule": "last", "clip": "off",
}  # fmt: skip
HELD = {**FOURIER, "canvas.contrast": 0.1, "canvas.spectrum": "held"}
MACO = {**FOURIER, "canvas.kind": "maco", "optimizer.rate": 0.3}
MOVING = {
    "views.crop": [0.5, 1.0], "views.rotate": 10.0, "views.flip": True, "views.noise": [2.0, 4.0], "views.count": 2,
}  # fmt: skip
PULLED = {
    "priors.statistics.weight": 5.0, "priors.total_variation.weight": 1.0, "priors.norm.weight": 1.0,
}  # fmt: skip
GROWING = {"growth.sizes": [0.5, 0.75, 1.0], "growth.at": [0.0, 0.3, 0.6]}
MIXED = ["class:cat", "relu1:2", "class:dog - class:cat", "mean(relu2:3)", "class:horse"]


def all_of(*fields, steps=12):
    return quick(steps).override({name: value for each in fields for name, value in each.items()})


def rising(network, unit, recipe, **options):
    """The objective, as measured on the image, after one step and after all."""
    return [
        phosphene.ascend(network, unit, used, **options)[0].scores["objective"]
        for used in (recipe.override({"steps": 1}), recipe)
    ]


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


@pytest.mark.parametrize("canvas", [FOURIER, HELD, MACO, {}])
@pytest.mark.parametrize("growth", [{}, GROWING])
def test_a_row_is_the_same_alone_and_among_others_on_every_canvas(canvas, growth):
    network = normed()
    recipe = all_of(canvas, growth, MOVING, PULLED, {"keep.transparency": True})
    together = phosphene.ascend(network, MIXED, recipe, seed=range(5))
    for index, unit in enumerate(MIXED):
        (alone,) = phosphene.ascend(network, unit, recipe, seed=index)
        np.testing.assert_allclose(alone.objectives, together[index].objectives, rtol=1e-3, atol=1e-3)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        assert np.abs(alone.alpha.astype(int) - together[index].alpha).max() <= 2
    again = phosphene.ascend(network, MIXED, recipe, seed=range(5))
    other = phosphene.ascend(network, MIXED, recipe, seed=range(1, 6))
    for a, b, c in zip(pixels(together), pixels(again), pixels(other), strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("canvas", [FOURIER, MACO])
@pytest.mark.parametrize("unit", ["class:cat", "relu1:2"])
def test_the_objective_rises_on_every_canvas(small, canvas, unit):
    first, last = rising(small, unit, all_of(canvas, {"views.jitter": 2.0}, steps=30))
    assert last > first


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
    with pytest.raises(InputError, match="takes 64x64 pixels only"):
        phosphene.ascend(vit(), "class:cat", quick(2, size=size))


# From coarse to fine


def pressed_at(work):
    """Presses Ctrl-C once, when so much is done."""
    pressed = []

    def on_progress(progress):
        if progress.work > work and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    return on_progress


def photograph(size=(24, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


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


# Facets


def alike(network, pictures):
    """The mean cosine of the features of pictures."""
    found = []
    images = torch.stack([torch.from_numpy(picture.pixels) for picture in pictures]).movedim(-1, 1).float()
    with network.borrowed(), torch.no_grad():
        network.read(images, {"relu2": found.append})
    return penalties.similarity(found[0], [0] * len(pictures)).mean().item()


@pytest.mark.parametrize("unit", ["class:cat", "relu1:2"])
@pytest.mark.parametrize("canvas", [{}, FOURIER])
def test_facets_differ_more_with_diversity_than_without(small, unit, canvas):
    recipes = [
        all_of(canvas, {"priors.diversity.layer": "relu2", "priors.diversity.weight": weight}, steps=30)
        for weight in (1e-6, 30.0)
    ]
    found = [phosphene.ascend(small, unit, recipe, facets=4) for recipe in recipes]
    assert alike(small, found[1]) < alike(small, found[0]) - 0.02
    for result in found:
        assert [picture.facet for picture in result] == [(i, 4) for i in range(4)]
        assert [picture.seed for picture in result] == [request.DEFAULT_SEED + i for i in range(4)]
        assert len({picture.name for picture in result}) == 4


DIVERSE = {"priors.diversity.weight": 10.0, "priors.diversity.layer": "relu2"}


@pytest.mark.parametrize("pool", ["row", "group"])
def test_a_group_is_the_same_alone_and_among_others(pool):
    network = normed()
    recipe = all_of(FOURIER, MOVING, PULLED, DIVERSE, {"priors.statistics.pool": pool})
    units = ["class:cat", "relu1:2", "class:dog"]
    together = phosphene.ascend(network, units, recipe, seed=[1, 20, 300], facets=3)
    in_twos = phosphene.ascend(
        network, units, recipe, seed=[1, 20, 300], facets=3, options=phosphene.RunOptions(batch=2)
    )
    assert max(size for picture in in_twos for size, _ in picture.batches) == 3  # no group is torn
    for index, (unit, seed) in enumerate(zip(units, (1, 20, 300), strict=True)):
        alone = phosphene.ascend(network, unit, recipe, seed=seed, facets=3)
        for facet in range(3):
            for made in (together, in_twos):
                assert np.abs(alone[facet].pixels.astype(int) - made[3 * index + facet].pixels).max() <= 1


def test_a_group_pulls_together_on_the_statistics():
    network = normed()
    made = [
        phosphene.ascend(network, "class:cat", all_of(FOURIER, PULLED, {"priors.statistics.pool": pool}), facets=3)
        for pool in ("row", "group")
    ]
    assert not np.array_equal(made[0][0].pixels, made[1][0].pixels)
    alone = phosphene.ascend(network, "class:cat", all_of(FOURIER, PULLED, {"priors.statistics.pool": "group"}))
    assert np.abs(alone[0].pixels.astype(int) - made[1][0].pixels).max() > 1
    assert np.abs(
        alone[0].pixels.astype(int) - phosphene.ascend(network, "class:cat", all_of(FOURIER, PULLED))[0].pixels
    ).max() <= 1  # fmt: skip


def test_running_out_of_memory_never_tears_a_group(small):
    greedy = opened(seeded(Greedy), labels=small.labels)
    recipe = all_of(FOURIER, DIVERSE)
    units = ["class:cat", "relu1:2", "class:dog"]
    result = phosphene.ascend(greedy, units, recipe, facets=3)
    assert {size for picture in result for size, _ in picture.batches} == {3}
    for a, b in zip(pixels(result), pixels(phosphene.ascend(small, units, recipe, facets=3)), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    with pytest.raises(InputError, match="out of memory with 4 facets of 24x24 pixels: expected fewer"):
        phosphene.ascend(greedy, units, recipe, facets=4)
    with pytest.raises(InputError, match="facets 0: expected at least 1"):
        phosphene.ascend(small, units, recipe, facets=0)


def test_running_out_of_memory_draws_the_same_views_again(small):
    greedy = opened(seeded(Greedy), labels=small.labels)
    recipe = all_of(FOURIER, GROWING, {**MOVING, "views.count": 1})
    for a, b in zip(
        pixels(phosphene.ascend(greedy, UNITS, recipe)), pixels(phosphene.ascend(small, UNITS, recipe)), strict=True
    ):
        assert np.abs(a.astype(int) - b).max() <= 1


# Several networks


def ensemble():
    second = phosphene.open(
        seeded(Small), phosphene.Preprocessing(16, value_range=(-100, 100), channel_order="BGR"), LABELS, name="other"
    )
    second.module.head.weight.data *= 5
    return [normed(), second]


def state_of(network):
    return [
        (name, module.training, set(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks),
         {key: (id(value), value is not None and value.requires_grad) for key, value in module._parameters.items()})
        for name, module in network.module.named_modules()
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["well", "an exception", "Ctrl-C", "Ctrl-C twice"])
def test_networks_are_handed_back_as_they_came(request, ending):
    networks = ensemble()
    networks[0].module.train()
    networks[1].module.conv1.weight.requires_grad_(False)
    before = [(state_of(network), copy.deepcopy(network.module.state_dict())) for network in networks]

    def failing(progress):
        raise ZeroDivisionError

    on_progress = {"an exception": failing, "well": None}.get(ending, pressed_at(0.3))
    recipe = all_of(FOURIER, MOVING, PULLED, DIVERSE)
    ends = {"an exception": pytest.raises(ZeroDivisionError), "Ctrl-C twice": pytest.raises(KeyboardInterrupt)}
    original = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, original))
    patched = signal.getsignal(signal.SIGINT)
    with ends.get(ending, contextlib.nullcontext()):
        made = phosphene.ascend(
            networks,
            "class:cat",
            recipe,
            facets=2,
            callbacks=phosphene.Callbacks(
                progress=on_progress,
                picture=(lambda picture: signal.raise_signal(signal.SIGINT)) if ending == "Ctrl-C twice" else None,
            ),
        )
        assert made.interrupted == (ending == "Ctrl-C")
    assert signal.getsignal(signal.SIGINT) is patched
    assert networks[0].module.conv1.bias is None
    for network, (state, weights) in zip(networks, before, strict=True):
        assert state_of(network) == state
        for name, value in network.module.state_dict().items():
            assert torch.equal(value, weights[name]), name


def test_an_ensemble_shows_what_all_its_networks_take_for_the_class():
    networks = ensemble()
    recipe = all_of(FOURIER, steps=40)

    def logit(network, picture):
        size = network.preprocessing.size
        image = torch.from_numpy(picture.pixels).movedim(-1, 0)[None].float()
        with network.borrowed(), torch.no_grad():
            return network.forward(resize(image, size))[0, 1].item()

    (both,) = phosphene.ascend(networks, "class:dog", recipe)
    assert both.network_names == "small + other"
    assert both.scores["objective"] == pytest.approx(logit(networks[0], both), abs=1e-4)
    (first,) = phosphene.ascend(networks[:1], "class:dog", recipe)
    assert logit(networks[1], both) > logit(networks[1], first)
    assert logit(networks[0], both) > both.objectives[0]
    (again,) = phosphene.ascend(networks, ["class:dog", "class:cat"], recipe)[:1]
    assert np.abs(again.pixels.astype(int) - both.pixels).max() <= 1


def test_one_network_at_two_sizes_is_an_ensemble_too():
    network = normed()
    recipe = all_of(FOURIER, {"priors.statistics.weight": 0.1}, steps=30)
    digests = []
    (picture,) = phosphene.ascend(
        [network, network.with_input_size((18, 18))],
        "class:1",
        recipe,
        callbacks=phosphene.Callbacks(picture=lambda made: digests.append(made.provenance()["ensemble"][0]["weights"])),
    )
    assert digests == [network.digest]
    assert picture.statistics == ("batchnorm", "batchnorm")
    assert picture.scores["objective"] > picture.objectives[0]
    twice = phosphene.ascend([network, network], "class:1", recipe)[0]
    assert np.abs(twice.pixels.astype(int) - phosphene.ascend(network, "class:1", recipe)[0].pixels).max() <= 1


def test_ensembles_that_cannot_be_are_refused():
    first, second = ensemble()
    with pytest.raises(InputError, match="relu1:2 is of one network, and 2 are given: an ensemble shows classes only"):
        phosphene.ascend([first, second], ["class:1", "relu1:2"], quick(2))
    with pytest.raises(InputError, match="is of one network"):
        phosphene.ascend([first, second], "class:1 - 0.5*relu1:2", quick(2))
    others = second.replace(labels=["cat", "dog", "tabby cat", "horse", "seal"])
    with pytest.raises(InputError, match="small and other do not tell the same classes: expected networks that do"):
        phosphene.ascend([first, others], "class:1", quick(2))
    grey = opened(seeded(Small, 1), channels=1, labels=LABELS)
    with pytest.raises(InputError, match="takes images of 3 channels and small of 1: expected networks that take the"):
        phosphene.ascend([first, grey], "class:1", quick(2))
    with pytest.raises(InputError, match="no network is given: expected at least one"):
        phosphene.ascend([], "class:1", quick(2))


# Photographs


def test_units_of_a_photograph_need_one_and_others_take_none(small):
    with pytest.raises(InputError, match=r"match\(relu1\) needs a photograph, and none is given"):
        phosphene.ascend(small, ["class:1", "match(relu1)"], quick(2))
    with pytest.raises(InputError, match=r"class:1 does not refer to one: expected match\(…\) or caricature\(…\)"):
        phosphene.ascend(small, "class:1", quick(2), photograph=photograph())
    with pytest.raises(InputError, match=r"an image of shape \(9, 9, 3\): expected \(3, 24, 24\)"):
        phosphene.ascend(small, "match(relu1)", quick(2), photograph=photograph((9, 9)))


def test_the_match_of_a_photograph_with_itself_is_the_highest(small):
    recipe = quick(1, start__kind="image", optimizer__rate=1e-9)
    for unit in ("match(relu1)", "match(relu2)", "match(class)"):
        (picture,) = phosphene.ascend(small, unit, recipe, start=photograph(), photograph=photograph())
        assert picture.scores["objective"] == pytest.approx(0, abs=1e-6)
        (other,) = phosphene.ascend(small, unit, recipe, start=photograph(seed=1), photograph=photograph())
        assert other.scores["objective"] < -1e-4


def soft(size):
    """A photograph that has a large bright disk and a dark one."""
    down, across = np.mgrid[:size, :size] / size
    disks = 1 / (1 + ((down - 0.3) ** 2 + (across - 0.35) ** 2) * 40) - 1 / (
        1 + ((down - 0.7) ** 2 + (across - 0.7) ** 2) * 60
    )
    return np.uint8(127 + 100 * disks[..., None] * [1.0, 0.6, 0.2])


@pytest.mark.parametrize("views", [{}, {"views.crop": [0.7, 1.0], "views.rotate": 5.0, "views.flip": True}])
@pytest.mark.parametrize(("make", "layer"), [(normed, "relu1"), (lambda: vit(32), "blocks.0")])
def test_an_early_layer_gives_the_photograph_back(views, make, layer):
    network = make()
    size = network.preprocessing.height
    recipe = all_of(FOURIER, views, steps=150).override({"optimizer.rate": 0.1, "schedule.kind": "cosine"})
    (picture,) = phosphene.ascend(network, f"match({layer})", recipe, photograph=soft(size))
    assert picture.scores["objective"] > 0.3 * picture.objectives[0]
    assert np.corrcoef(picture.pixels.ravel(), soft(size).ravel())[0, 1] > 0.6


@pytest.mark.parametrize("unit", ["match(blocks.1)", "caricature(blocks.1)", "match(patch_embed) - 0.1*class:1"])
def test_photographs_of_a_canvas_larger_than_a_fixed_network(unit):
    recipe = all_of(FOURIER, {"views.crop": [0.4, 1.0], "size": [80, 72]}, steps=30)
    first, last = rising(vit(), unit, recipe, photograph=photograph((80, 72)))
    assert last > first


# Recipes


@pytest.fixture(scope="module")
def made_small():
    return {"small": opened(seeded(Small), size=48, labels=LABELS), "vit": vit()}


@pytest.mark.parametrize("where", ["class", "hidden"])
@pytest.mark.parametrize("which", ["small", "vit"])
@pytest.mark.parametrize("name", phosphene.recipes.schema.recipe_names())
def test_every_shipped_recipe_runs_and_raises_the_objective(made_small, name, which, where):
    """Views and regularizers make it fall from one step to the next: what is compared is its mean."""
    network, recipe = made_small[which], Recipe.load(name)
    size = network.preprocessing.height
    layer = {"small": "relu2", "vit": "blocks.2"}[which]
    unit = "class:cat" if where == "class" else f"{layer}:3"
    options = {}
    if asked := re.search(r"(match|caricature)\(LAYER\)", recipe.description):
        unit, options["photograph"] = f"{asked[1]}({layer})", photograph((size, size))
    if recipe.start.kind == "image":
        options["start"] = photograph((size, size), 1)
    recipe = recipe.for_network(network.name).override({"steps": 40})
    if recipe.optimizer.gradient == "raw" and recipe.optimizer.rate == 100:  # for sums over large maps
        recipe = recipe.override({"optimizer.rate": 1e5})
    (picture,) = phosphene.ascend(network, unit, recipe, **options)
    assert picture.steps == 40
    assert np.mean(picture.objectives[-10:]) > np.mean(picture.objectives[:2])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_filters_of_trained_vgg16_convolutions_rise_at_every_depth():
    from safetensors.torch import load_file
    from torchvision.models import vgg16

    module = vgg16().features
    weights = load_file(SHARED / "weights" / "vgg16_features.safetensors")
    module.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    imagenet = phosphene.Preprocessing(96, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network = phosphene.open(module, imagenet, name="vgg16_features")
    units = ["3:10", "15:10", "28:10"]  # relu1_2 and relu3_3, which work in place, and conv5_3
    for picture in phosphene.ascend(network, units, Recipe.load("filters").override({"steps": 24})):
        assert picture.scores["objective"] - picture.objectives[0] > 2 * abs(picture.objectives[0])


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
