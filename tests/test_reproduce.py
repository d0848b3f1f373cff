import copy
import itertools
import json

import pytest
import torch
from helpers import SHARED, Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.networks.receptive import receptive_field
from phosphene.recipes.recipe import Recipe
from phosphene.reproduce.figures import figures, find_figure
from phosphene.reproduce.layers import living_units
from phosphene.reproduce.make import make
from phosphene.reproduce.plan import FigureSettings, plan
from phosphene.reproduce.rates import adapt_recipe
from phosphene.units.objects import Channel, Neuron


class Vgg(nn.Module):
    """The thirteen convolutions of VGG16 on images of 32 pixels, with a quick classifier behind."""

    def __init__(self, narrower: int = 1) -> None:
        super().__init__()
        channels = 3
        for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
            for index in range(1, count + 1):
                self.add_module(f"conv{block}_{index}", nn.Conv2d(channels, width // narrower, 3, padding=1))
                self.add_module(f"relu{block}_{index}", nn.ReLU())
                channels = width // narrower
            self.add_module(f"pool{block}", nn.MaxPool2d(2))
        self.pool, self.flatten, self.fc8 = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            images = module(images)
        return images


CAFFES = Preprocessing(32, mean=(104, 117, 123), value_range=(0, 255), channel_order="BGR")


@pytest.fixture(scope="module")
def vgg() -> phosphene.Network:
    return phosphene.open(seeded(Vgg), CAFFES, phosphene.networks.labels.imagenet_labels(), name="vgg16")


def test_the_figures_hold_the_posts_settings(vgg):
    assert len(figures()) == 11
    recipes = {name: [adapt_recipe(figure, row, vgg)[0] for row in figure.rows] for name, figure in figures().items()}
    assert [recipe.optimizer.rate for recipe in recipes["naive"]] == [250, 500, 750, 1000]
    assert [recipe.decay.strength for recipe in recipes["decay"]] == [1e-4, 1e-2]
    assert [(r.blur.sigma, r.blur.every) for r in recipes["blur"]] == [(0.5, 8), (1, 8), (0.5, 4), (1, 4)]
    assert [(r.median.size, r.median.every) for r in recipes["median"]] == [(3, 12), (3, 8), (5, 12), (5, 8)]
    (best,) = recipes["classes-vgg16"]
    assert (best.optimizer.rate, best.median.size, best.median.every, best.steps) == (8000, 5, 4, 1000)
    assert len(set(find_figure("classes-vgg16").classes)) == 18
    assert [recipe.optimizer.rate for recipe in recipes["filters-vgg16"]] == [
        1,
        1,
        2,
        2,
        6,
        10,
        10,
        40,
        40,
        40,
        80,
        80,
        80,
    ]
    assert [row["layer"] for row in find_figure("filters-caffenet").rows] == [f"relu{i}" for i in range(1, 6)]
    assert {recipe.steps for recipe in recipes["filters-vgg16"]} == {200}
    assert all(not recipe.networks for each in recipes.values() for recipe in each)


def test_on_the_posts_network_fed_as_the_posts_the_settings_stand(vgg):
    assert "the post's own" in plan(find_figure("median"), vgg).settings
    assert plan(find_figure("classes-vgg16"), vgg).rows[0].recipe.optimizer.rate == 8000


def test_filters_of_the_same_layers_fed_with_smaller_numbers_get_rates_that_much_higher(vgg):
    preprocessing = Preprocessing.preset("torch", size=32)
    other = vgg.replace(preprocessing=preprocessing)
    scale = 255 * sum(preprocessing.std) / 3
    rows = find_figure("filters-vgg16").rows
    recipes, sources = zip(*(adapt_recipe(find_figure("filters-vgg16"), row, other) for row in rows), strict=True)
    assert "up to 57.6 times as high" in sources[0]
    times = [recipe.optimizer.rate / row["optimizer.rate"] for recipe, row in zip(recipes, rows, strict=True)]
    assert times[0] == pytest.approx(scale, rel=0.01)
    assert all(later < 1.01 * before for before, later in itertools.pairwise(times))
    assert times[-1] < 10


def test_a_network_without_biases_then_takes_the_very_same_steps(vgg):
    module = copy.deepcopy(vgg.module)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    whole = phosphene.open(module, CAFFES, name="vgg16")
    small = whole.replace(
        preprocessing=Preprocessing(32, tuple(m / 255 for m in CAFFES.mean), 0.25, channel_order="BGR")
    )
    unit = "relu2_1:5"
    images = []
    for network in (whole, small):
        recipe, _ = adapt_recipe(find_figure("filters-vgg16"), find_figure("filters-vgg16").rows[2], network)
        recipe = recipe.override({"steps": 1, "optimizer.rate": recipe.optimizer.rate * 1e3})
        images.append(
            phosphene.ascend(network, unit, recipe, options=phosphene.RunOptions(precision="fp32")).pixels.astype(int)
        )
    assert abs(images[0] - images[1]).max() <= 1
    start = phosphene.ascend(whole, unit, recipe.override({"optimizer.rate": 1e-9})).pixels.astype(int)
    assert abs(images[0] - start).mean() > 1  # they did move


def test_classes_of_another_network_get_the_rates_found_for_it(lite0, small):
    figure = find_figure("naive")
    recipe, source = adapt_recipe(figure, figure.rows[0], lite0)
    found = Recipe.load("naive").networks["efficientnet_lite0"]["optimizer.rate"]
    assert recipe.optimizer.rate == found * 250 / 1000
    assert "found for efficientnet_lite0" in source
    recipe, source = adapt_recipe(figure, figure.rows[0], small)
    assert recipe.optimizer.gradient == "rms"
    assert "none were found for small" in source


def test_filters_of_another_network_are_spread_over_its_depth(lite0):
    planned = plan(find_figure("filters-caffenet"), lite0, FigureSettings(channels=1, size=(64, 64)))
    names = [layer.name for layer in lite0.layers]
    places = [names.index(row.units[0].layer) for row in planned.rows]
    assert places == sorted(set(places))
    assert places[0] < 10
    assert places[-1] > len(names) / 2
    assert {row.recipe.optimizer.gradient for row in planned.rows} == {"rms"}
    assert [row.recipe.median and row.recipe.median.size for row in planned.rows] == [None, 3, 3, 5, 5]


@pytest.mark.slow
def test_a_figure_is_made_row_by_row_with_names_of_its_own(vgg):
    planned = plan(find_figure("median"), vgg, FigureSettings(classes=["flamingo", "8"], steps=2))
    kept = []
    rows = list(make(planned, seed=7, on_picture=lambda row, picture: kept.append(picture.name)))
    assert [row.label for row, _ in rows] == [
        "median 3, every 12", "median 3, every 8", "median 5, every 12", "median 5, every 8",
    ]  # fmt: skip
    assert [result.pictures[0].unit.index for _, result in rows] == [130] * 4
    assert len(set(kept)) == 8
    assert kept[0] == "130_flamingo_median-3_every-12"
    assert all(picture.seed == 7 and picture.steps == 2 for _, result in rows for picture in result)


def test_living_channels_are_alive_and_spread():
    module = seeded(Small)
    with torch.no_grad():
        module.conv2.bias[:6] = -100.0  # the first six channels never wake
    network = opened(module)

    def chosen(count, position=None):
        units = living_units(network, "relu2", position, Recipe.load("clip"), count, seed=1)
        assert all(type(unit) is (Channel if position is None else Neuron) for unit in units)
        return [unit.channel for unit in units]

    assert chosen(3) == [6, 8, 10]
    assert chosen(12) == list(range(12))
    assert set(chosen(2, (3, 3))) <= set(range(6, 12))


VGG = [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]


@pytest.mark.slow
def test_receptive_fields_are_those_of_the_literature():
    network = opened(seeded(Vgg, 8), size=224)
    digest = network.digest
    activations = [layer.name for layer in network.layers if layer.worth_showing]
    assert [receptive_field(network, name) for name in activations] == [(side, side) for side in VGG]
    assert network.digest == digest
    assert all(parameter.requires_grad for parameter in network.module.parameters())
    alexnet = nn.Sequential(
        nn.Conv2d(3, 4, 11, stride=4, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        *(layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(True))),
    )  # fmt: skip
    network = opened(alexnet, size=224)
    activations = [layer.name for layer in network.layers if layer.worth_showing]
    assert [receptive_field(network, name)[0] for name in activations] == [11, 51, 99, 131, 163]


@pytest.mark.slow
def test_filters_as_large_as_what_a_neuron_sees(vgg):
    planned = plan(find_figure("filters-vgg16"), vgg, FigureSettings(at_receptive_field=True, channels=1, steps=1))
    sizes = [row.network.preprocessing.size for row in planned.rows]
    assert sizes == [(min(side, 32),) * 2 for side in VGG]
    assert planned.rows[0].units[0].position == (1, 1)
    _, result = next(make(planned))
    assert result.pixels.shape == (1, 3, 3, 3)


def test_what_a_figure_cannot_show_is_said(vgg, small):
    with pytest.raises(InputError, match="no figure is called 'mediann'; did you mean median"):
        find_figure("mediann")
    with pytest.raises(InputError, match="shows classes, which see the whole image"):
        plan(find_figure("clip"), vgg, FigureSettings(at_receptive_field=True))
    with pytest.raises(InputError, match="shows hidden units: expected no classes"):
        plan(find_figure("filters-vgg16"), vgg, FigureSettings(classes=["hen"]))
    with pytest.raises(InputError, match="shows 13 layers: small has 2 activations"):
        plan(find_figure("filters-vgg16"), small)


def test_on_the_command_line(tmp_path, capsys):
    from phosphene.cli.program import main

    assert main(["reproduce", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in figures())
    arguments = ["reproduce", "hen", "clip", "-n", "efficientnet_lite0", "--size", "64", "--steps", "3"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "settings those found for efficientnet_lite0" in out
    with Image.open(tmp_path / "hen" / "008_hen.gif") as gif:
        assert gif.n_frames >= 3  # the picture itself may equal the last frame
    data = json.loads((tmp_path / "clip" / "figure.json").read_text())
    assert data["figure"] == "clip"
    assert [picture["seed"] for picture in data["rows"][0]["pictures"]] == [1337] * 4
    assert {path.name for path in (tmp_path / "clip").iterdir()} == {
        "figure.png", "figure.json", "grid.png", *(picture["file"] for picture in data["rows"][0]["pictures"]),
    }  # fmt: skip
    assert main(["reproduce", "clip", "-o", str(tmp_path / "none")]) == 2
    assert "whose weights do not ship: give them (--weights FILE.caffemodel" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_trained_weights_of_the_convolutions_alone_show_all_thirteen_layers(tmp_path):
    network = phosphene.open("torchvision:vgg16", weights=SHARED / "weights/vgg16_features.safetensors", partial=True)
    planned = plan(find_figure("filters-vgg16"), network, FigureSettings(channels=1, size=(32, 32), steps=4))
    for row, result in make(planned):
        first, last = result.objectives[0][0], result.objectives[0][-1]
        assert last > first or result.pictures[0].stopped.startswith("dead"), row.label
    with pytest.raises(InputError, match=r"cannot be shown: the weights given have none for classifier\.0"):
        next(make(plan(find_figure("clip"), network)))
