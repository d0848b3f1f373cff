"""`reproduce` against a straight port of the post's script, in its own input space, on the same module."""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
from helpers import SHARED, Small, seeded
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import phosphene
from phosphene import Network, Preprocessing
from phosphene.ascent.run_options import RunOptions
from phosphene.draw.grid import post_grid
from phosphene.reproduce.figures import find_figure
from phosphene.reproduce.make import make
from phosphene.reproduce.plan import FigureSettings, plan
from phosphene.reproduce.rates import as_the_script

CLASSES = ["flamingo", "pool table"]
Pixels = NDArray[np.uint8]
Gradient = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def script(gradient: Gradient, shape: tuple[int, int, int], mean: NDArray[np.float64], row: dict, steps: int) -> Pixels:
    """The post's loop: images in 0..255 less the mean, the network's channel order; gives an image as it is saved."""
    np.random.seed(1337)  # noqa: NPY002
    image = np.random.normal(0, 10, (1, *shape))  # noqa: NPY002
    for i in range(steps):
        image += row["rate"] * gradient(image)
        if row["clip"]:
            for channel in range(shape[0]):
                image[0, channel] = np.clip(image[0, channel], 0 - mean[channel], 255 - mean[channel])
        if i < steps - 1:
            if "decay" in row:
                image *= 1 - row["decay"]
            if "blur" in row and i % row["every"] == 0:
                image = scipy.ndimage.gaussian_filter(image, (0, 0, row["blur"], row["blur"]))
            if "median" in row and i % row["every"] == 0:
                image = scipy.ndimage.median_filter(image, (1, 1, row["median"], row["median"]))
    image = image[0] + mean[:, None, None]
    return np.clip(image, 0, 255).astype("uint8").transpose(1, 2, 0)


def gradient_of(loss: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype = torch.float32) -> Gradient:
    def gradient(image: NDArray[np.float64]) -> NDArray[np.float64]:
        at = torch.from_numpy(image).to(dtype).requires_grad_()
        (found,) = torch.autograd.grad(loss(at), at)
        return found.double().numpy()

    return gradient


ROWS = {
    "naive": [{"rate": rate, "clip": False} for rate in (250, 500, 750, 1000)],
    "clip": [{"rate": 1000, "clip": True}],
    "decay": [{"rate": 1000, "clip": True, "decay": decay} for decay in (0.0001, 0.01)],
    "blur": [
        {"rate": 1000, "clip": True, "blur": blur, "every": every} for every in (8, 4) for blur in (0.5, 1)
    ],
    "median": [
        {"rate": 1000, "clip": True, "median": median, "every": every} for median in (3, 5) for every in (12, 8)
    ],
    "classes-vgg16": [{"rate": 8000, "clip": True, "median": 5, "every": 4}],
    "classes-caffenet": [{"rate": 30000, "clip": True, "median": 5, "every": 4}],
    "hen": [{"rate": 30000, "clip": True, "median": 5, "every": 4}],
}  # fmt: skip


def squeezenet() -> Network:
    weights = SHARED / "weights"
    network = phosphene.open(weights / "squeezenet_v1.1.prototxt", weights=weights / "squeezenet_v1.1.caffemodel")
    return network.with_input_size((67, 67))  # a tenth of the work


def random_network() -> Network:
    module = seeded(Small)
    feeds = Preprocessing(33, mean=(103.939, 116.779, 123.68), value_range=(0, 255), channel_order="BGR")
    module.head.weight.data /= 100  # so that the post's rates neither do nothing nor saturate all
    return phosphene.open(module, feeds, ["flamingo", "pool table", "hen", "teddy", "tent"], name="small")


def logits(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What goes into the softmax of Caffe's SqueezeNet, or comes out of a network that has none."""
    return output_of(module, "pool10", inputs).flatten(1) if hasattr(module, "pool10") else module(inputs)


def output_of(module: nn.Module, layer: str, inputs: torch.Tensor) -> torch.Tensor:
    found: list[torch.Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda layer, inputs, output: found.append(output))
    module(inputs)
    hook.remove()
    return found[0]


def difference(first: Pixels, second: Pixels) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def made(network: Network, name: str, steps: int, precision: str = "fp32") -> list[list[phosphene.Picture]]:
    classes = CLASSES if find_figure(name).classes != (8,) else ["hen"]
    planned = plan(find_figure(name), network, FigureSettings(classes=classes, steps=steps, rates="post"))
    return [list(result) for _, result in make(planned, options=RunOptions(precision=precision))]


def scripts(network: Network, row: dict, index: int, steps: int, dtype: torch.dtype = torch.float32) -> Pixels:
    """What the script makes of a class, for a row of a figure: RGB, as `reproduce` saves it."""
    module, mean = copy.deepcopy(network.module).to(dtype), np.array(network.preprocessing.mean)
    gradient = gradient_of(lambda at: logits(module, at)[0, index], dtype)
    shape = (3, network.preprocessing.height, network.preprocessing.width)
    return script(gradient, shape, mean, row, steps)[..., ::-1]


OPENED = pytest.mark.parametrize("opened", [
    random_network,
    pytest.param(
        squeezenet, marks=[pytest.mark.slow, pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")]
    ),
])  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@OPENED
def test_a_figure_is_the_scripts(opened, name):
    """In 64 bits, where sums in another order make no difference."""
    network = opened()
    for row, pictures in zip(ROWS[name], made(network, name, 10, "fp64"), strict=True):
        for picture in pictures:
            theirs = scripts(network, row, picture.unit.index, 10, torch.float64)
            assert difference(picture.pixels, theirs) < 0.01


@pytest.mark.parametrize("name", ["naive", "clip", "decay", "blur", "median"])
@OPENED
def test_a_figure_in_32_bits_begins_as_the_scripts(opened, name):
    """Ascent makes ten times more of each difference in a few steps, and sums of 32 bits in another order differ."""
    network = opened()
    for row, pictures in zip(ROWS[name], made(network, name, 5), strict=True):
        for picture in pictures:
            theirs = scripts(network, row, picture.unit.index, 5)
            assert difference(picture.pixels, theirs) <= 0.5


@pytest.fixture(scope="module")
def filters_of_vgg16():
    network = phosphene.open("torchvision:vgg16", weights=SHARED / "weights/vgg16_features.safetensors", partial=True)
    settings = FigureSettings(channels=2, size=(64, 64), steps=10, rates="post")
    return network, plan(find_figure("filters-vgg16"), network, settings)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize(("layer", "row"), [
    ("features.15", {"rate": 10, "clip": True, "median": 3, "every": 6}),  # relu3_3
    ("features.20", {"rate": 40, "clip": True, "median": 5, "every": 4}),  # relu4_2
])  # fmt: skip
def test_filters_of_vgg16_at_the_posts_rates_are_the_scripts(layer, row, filters_of_vgg16):
    network, planned = filters_of_vgg16
    (wanted,) = (each for each in planned.rows if each.units[0].layer == layer)
    (_, result), *_ = make(dataclasses.replace(planned, rows=(wanted,)), options=RunOptions(precision="fp64"))
    eats = network.preprocessing
    mean = 255 * np.array(eats.mean)
    std = 255 * torch.tensor(eats.std, dtype=torch.float64).view(1, 3, 1, 1)
    layers = int(layer.removeprefix("features.")) + 1
    module = copy.deepcopy(network.module.get_submodule("features")[:layers]).double()
    # The weights take RGB of 0..1 over a deviation: the script's numbers are brought to that before they enter.
    for picture in result:
        channel = picture.unit.channel

        def loss(at: torch.Tensor, channel: int = channel) -> torch.Tensor:
            return module(at / std)[0, channel].sum()

        gradient = gradient_of(loss, torch.float64)
        theirs = script(gradient, (3, 64, 64), mean, row, 10)
        assert difference(picture.pixels, theirs) <= 0.5
        unmoved = script(lambda image: np.zeros_like(image), (3, 64, 64), mean, row, 10)
        assert difference(theirs, unmoved) > 2  # the rate as it stands does move it


def test_the_grid_is_the_posts():
    images = [Image.new("RGB", (6, 4), (shade, shade, shade)) for shade in (40, 80, 120)]
    grid = np.asarray(post_grid(images))
    assert grid.shape == (4 + 5 + 4, 6 + 5 + 6, 3)
    assert (grid[:4, :6] == 40).all()
    assert (grid[:4, 11:] == 80).all()
    assert (grid[9:, :6] == 120).all()
    assert (grid[4:9] == 0).all()
    assert (grid[:, 6:11] == 0).all()
    assert (grid[9:, 11:] == 0).all()


def test_filters_act_after_the_first_step_and_every_so_many():
    recipe = as_the_script(phosphene.Recipe.load("median").override({"median.every": 4}))
    assert [step for step in range(1, 12) if recipe.median.acts_after(step)] == [1, 5, 9]
    assert [step for step in range(1, 12) if phosphene.Recipe.load("tence").median.acts_after(step)] == [4, 8]
    assert [step for step in range(1, 9) if recipe.clip.acts_after(step)] == list(range(1, 9))
