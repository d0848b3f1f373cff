import math
import signal

import numpy as np
import pytest
import torch
from conftest import SHARED, Small, opened, seeded
from torch import nn

import phosphene
from phosphene import InputError, Recipe, ascent
from phosphene.objective import Objective
from phosphene.recipe import Schedule

UNITS = ["class:cat", "relu1:2", "mean(relu2:5)", "class:dog - class:cat", "relu2:3@4,6", "conv2", "class:horse"]


def quick(steps=12, **fields):
    rate = {"optimizer.gradient": "rms", "optimizer.rate": 6.0}
    return Recipe.load("clip").changed(
        {**rate, "steps": steps, **{name.replace("__", "."): fields[name] for name in fields}}
    )


def pixels(result):
    return [picture.pixels for picture in result]


def test_the_objective_rises_for_every_kind_of_unit(small):
    result = phosphene.ascend(small, UNITS, quick(20))
    for picture in result:
        assert picture.scores["objective"] > picture.objectives[0], picture
        assert picture.steps == 20
        assert picture.stopped == ascent.ALL_STEPS
        assert len(picture.objectives) == 20


def test_a_row_is_the_same_alone_and_among_others(small):
    recipe = quick(20, median__size=3, optimizer__name="adam")
    together = phosphene.ascend(small, UNITS, recipe, seed=range(7))
    for index, unit in enumerate(UNITS):
        (alone,) = phosphene.ascend(small, unit, recipe, seed=index)
        assert np.abs(alone.pixels.astype(int) - together[index].pixels).max() <= 1
        np.testing.assert_allclose(alone.objectives, together[index].objectives, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_row_of_lite0_is_the_same_alone_and_in_a_batch_of_seven(lite0):
    """After 50 steps of the default recipe; and the same bytes when repeated."""
    units = [f"class:{index}" for index in (130, 351, 736, 850, 1, 999, 400)]
    recipe = Recipe.load("tence").changed({"steps": 50})
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
    in_ones, at_once = phosphene.ascend(small, UNITS, quick(), batch=2), phosphene.ascend(small, UNITS, quick())
    assert [str(picture.unit) for picture in in_ones] == [str(picture.unit) for picture in at_once]
    for a, b in zip(pixels(in_ones), pixels(at_once), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_the_memory_budget_splits_the_batch(small):
    row = 8 * sum(math.prod(layer.shape) for layer in small.layers)
    result = phosphene.ascend(small, UNITS, quick(3), memory=2 * row)
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
    assert stopped == [ascent.DEAD, ascent.NOT_FINITE, *[ascent.ALL_STEPS] * 3]
    assert result[0].steps == 1
    assert 1 < result[1].steps < 40
    assert result[1].pixels.std() > 0
    (alone,) = phosphene.ascend(network, "class:4", quick(40))
    assert np.abs(alone.pixels.astype(int) - result[4].pixels).max() <= 1


def test_a_row_stops_when_its_smoothed_objective_stops_rising(small):
    recipe = quick(400, stop__patience=10, stop__tolerance=0.02)
    result = phosphene.ascend(small, UNITS[:3], recipe)
    assert {picture.stopped for picture in result} == {ascent.PLATEAU}
    assert len({picture.steps for picture in result}) > 1  # each by itself
    for picture in result:
        assert 10 < picture.steps < 400
        assert picture.scores["objective"] > 0.9 * max(picture.objectives)


def test_a_row_stops_when_its_confidence_has_held(small):
    recipe = quick(400, stop__confidence=0.5, stop__hold=4)
    small.module.head.weight.data *= 30  # to be sure of anything at all
    for picture in phosphene.ascend(small, ["class:cat", "class:dog"], recipe):
        assert picture.stopped == ascent.CONFIDENT
        assert min(picture.probabilities[-4:]) >= 0.5
        assert min(picture.probabilities[-5:]) < 0.5
    with pytest.raises(InputError, match="expected class units only"):
        phosphene.ascend(small, "relu1:2", recipe)


def test_the_kept_image_is_the_one_the_recipe_names(small):
    """The post's rule keeps the image before the last median, "last" the one after it, "best" the highest."""
    from phosphene import filters

    fields = {"steps": 8, "median.size": 3, "median.every": 4}
    images = {}
    for rule in ("clipped", "last", "best"):
        (picture,) = phosphene.ascend(small, "class:cat", quick().changed({**fields, "keep.rule": rule}))
        images[rule] = picture
    before = torch.from_numpy(images["clipped"].pixels).movedim(-1, 0)[None].float()
    after = filters.median(before, 3)[0].movedim(0, -1).numpy()
    assert np.abs(after - images["last"].pixels).max() <= 1
    assert images["best"].scores["objective"] >= max(images["clipped"].objectives) * (1 - 1e-2)
    assert images["best"].scores["objective"] >= images["last"].scores["objective"]


def test_the_last_image_is_clipped_even_before_a_later_clip_in_the_order(small):
    recipe = quick(3, optimizer__rate=500.0).changed({"clip": "off"})
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
        return [ascent._factor(schedule, step, 11) for step in range(1, 12)]

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
    held = recipe.changed({"optimizer.rate": 1e-9})
    assert abs(np.diff(phosphene.ascend(opened(seeded(Linear)), "class:0", held)[0].objectives)).max() < 1e-6


@pytest.mark.parametrize(("kind", "size"), [("l2", 12.0), ("rms", 12.0 / math.sqrt(3 * 24 * 24))])
def test_normalised_gradients_make_steps_of_the_rate(small, kind, size):
    recipe = Recipe.load("naive").changed({"optimizer.gradient": kind, "optimizer.rate": size, "steps": 1})
    steps = []
    for unit in ("class:cat", "relu1:2"):
        images = torch.full((1, 3, 24, 24), 100.0)
        with small.borrowed():
            objective = Objective([small], recipe, torch.device("cpu"))
            gradient = objective([phosphene.units.parse_unit(unit, small)], images).gradient
        steps.append(recipe.optimizer.rate * ascent._normalised(gradient, kind).norm().item())
    np.testing.assert_allclose(steps, 12.0, rtol=1e-4)


def test_learning_rates_are_in_pixel_units_whatever_the_networks_range():
    """The same function of the pixels, fed as 0..1 or as -100..400, ascends alike at the same rate."""

    class Scaled(nn.Module):
        def __init__(self, low: float, high: float):
            super().__init__()
            self.body, self.low, self.high = seeded(Small), low, high

        def forward(self, images):
            return self.body((images - self.low) / (self.high - self.low))

    recipe = Recipe.load("clip").changed({"steps": 10, "optimizer.rate": 5e5, "start.kind": "uniform"})
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
    from phosphene.canvas import start_image
    from phosphene.recipe import Start

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
        small, UNITS[:3], quick(5), batch=2, on_progress=lambda p: shares.append(p.work), on_picture=made.append
    )  # fmt: skip
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(made) == 3


def test_ctrl_c_keeps_what_is_made_and_begins_nothing_more(small):
    handler = signal.getsignal(signal.SIGINT)

    def press(progress):
        if progress.done == 2 and progress.work > 0.4:
            signal.raise_signal(signal.SIGINT)

    result = phosphene.ascend(small, UNITS, quick(30), batch=2, on_progress=press)
    assert result.interrupted
    assert [picture.stopped for picture in result] == [ascent.ALL_STEPS] * 2 + [ascent.INTERRUPTED] * 2
    assert len(result.unmade) == 3
    assert signal.getsignal(signal.SIGINT) is handler


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


@pytest.mark.parametrize("name", phosphene.recipe.recipe_names())
def test_every_shipped_recipe_runs_and_raises_the_objective(small, name):
    recipe = Recipe.load(name)
    recipe = recipe.changed(
        {"steps": 8, "optimizer.rate": 2e4 if recipe.optimizer.gradient == "raw" else recipe.optimizer.rate}
    )
    (picture,) = phosphene.ascend(small, "class:cat", recipe)
    assert picture.steps == 8
    assert max(picture.objectives[1:]) > picture.objectives[0]


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
    for picture in phosphene.ascend(network, units, Recipe.load("filters").changed({"steps": 24})):
        assert picture.scores["objective"] - picture.objectives[0] > 2 * abs(picture.objectives[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_what_the_cpu_gives(small):
    recipe = quick(10, median__size=5)
    for a, b in zip(
        phosphene.ascend(small, UNITS, recipe, device="cuda"),
        phosphene.ascend(small, UNITS, recipe, device="cpu"),
        strict=True,
    ):
        assert np.abs(a.pixels.astype(int) - b.pixels).mean() < 1
