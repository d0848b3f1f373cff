"""Of the last layer only the channels asked for: the same numbers, and never where something needs all of them."""

import numpy as np
import pytest
import torch
from helpers import opened, seeded
from torch import nn

import phosphene
from phosphene import Recipe
from phosphene.api.again import again
from phosphene.ascent.evaluator import Evaluator
from phosphene.networks.speed.channel_slicing import pick_channels, producers, sliced_channels
from phosphene.networks.speed.folding import optimized
from phosphene.units.spelling import parse_unit

CPU = torch.device("cpu")


class Wide(nn.Module):
    """Layers of 96 channels: some can be narrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(96, 96, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(96)
        self.act2 = nn.SiLU()
        self.depthwise = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.conv3 = nn.Conv2d(96, 96, 1)
        self.relu3 = nn.ReLU()
        self.shared = nn.Linear(96, 96)
        self.head = nn.Linear(96, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.depthwise(self.act2(self.bn2(self.conv2(self.relu1(self.conv1(images))))))
        inner = self.conv3(maps)
        maps = maps + inner  # before the activation reads it
        vectors = (self.relu3(inner) + maps).mean((2, 3))
        return self.head(self.shared(self.shared(vectors)))


@pytest.fixture
def wide():
    network = opened(seeded(Wide), size=16)
    with torch.no_grad():
        nn.init.normal_(network.module.bn2.weight, 1, 0.3, torch.Generator().manual_seed(1))
    return network


def test_which_module_makes_a_layers_channels(wide):
    layers = [layer.name for layer in wide.layers]
    with wide.borrowed():
        unfolded = producers(wide, layers)
        with optimized(wide, []):
            found = producers(wide, layers)
    # A batch normalisation reads all channels, unless it is folded; what is added to the image needs all of them; a
    # module that is called twice has no one output; and the last layer is too narrow to gain.
    assert unfolded == {"conv1": "conv1", "relu1": "conv1", "conv2": "conv2", "conv3": "conv3"}
    assert found == unfolded | {"act2": "conv2"}


@pytest.mark.parametrize(("channels", "count"), [([5], 1), ([70, 3], 2), (range(32), 32)])
def test_a_narrowed_layer_computes_these_channels_and_is_whole_again(channels, count):
    module = seeded(nn.Conv2d, 3, 96, 3)
    images = torch.rand(2, 3, 8, 8)
    whole, weight = module(images), module.weight.data_ptr()
    picked = pick_channels(module, set(channels), count)
    assert len(picked) == len(set(picked)) == 32
    with sliced_channels(module, picked):
        torch.testing.assert_close(module(images), whole[:, picked])
    assert module.weight.data_ptr() == weight
    torch.testing.assert_close(module(images), whole)


def test_a_layer_is_not_narrowed_for_half_its_channels():
    assert pick_channels(nn.Conv2d(3, 63, 3), {1}, 1) is None
    assert pick_channels(nn.Conv2d(3, 96, 3), set(range(33)), 33) is None
    assert len(pick_channels(nn.Linear(3, 64), {1}, 1)) == 32


@pytest.mark.parametrize(
    "units", [["relu1:3", "relu1:90", "relu1:3"], ["act2:7@3,4", "act2:95"], ["conv2:1 - 0.5*conv2:2"]]
)
@pytest.mark.parametrize("redirect", [False, True])
def test_scores_and_gradients_are_those_of_the_whole_layer(wide, units, redirect):
    parsed = [parse_unit(unit, wide) for unit in units]
    recipe = Recipe.load("naive").override({"redirect": redirect})
    images = 255 * torch.rand((len(parsed), 3, 16, 16), generator=torch.Generator().manual_seed(2))
    with wide.borrowed(), optimized(wide, [units[0].partition(":")[0]]):
        layers = {part.layer for unit in parsed for _, part in unit.terms()}
        narrow, whole = Evaluator([wide], recipe, CPU, layers=layers), Evaluator([wide], recipe, CPU)
        assert set(narrow.producers) == layers
        one, other = narrow(parsed, images), whole(parsed, images)
    torch.testing.assert_close(one.values, other.values)
    torch.testing.assert_close(one.gradient, other.gradient)


@pytest.mark.slow
def test_images_of_several_layers_are_made_and_made_again(wide, tmp_path):
    units = ["relu1:3", "act2:7", "relu1:80", "class:1", "relu3:5", "mean(act2:9)", "act2:4 - 0.5*relu1:2", "act2"]
    recipe = Recipe.load("draft").override({"steps": 8})
    result = phosphene.ascend(wide, units, recipe)
    assert [str(picture.unit) for picture in result] == units
    for picture in result:
        assert picture.steps == 8
        assert again(picture.save(tmp_path), wide).same
        alone = phosphene.ascend(wide, str(picture.unit), recipe)[0]
        assert np.abs(alone.pixels.astype(int) - picture.pixels.astype(int)).max() <= 2
