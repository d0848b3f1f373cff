"""Where in a photograph a unit is: maps, their checks, and what carried it."""

import captum.attr
import numpy as np
import pytest
import scipy.stats
import torch
from helpers import Small, opened, seeded
from PIL import Image
from tiny import LABELS, normed, vit
from torch import nn
from torch.nn import functional as F

import phosphene
from phosphene import AttributionSettings, Class, InputError
from phosphene.attribution.carriers import find_carriers
from phosphene.attribution.checks import Curves, area, perturbation_curves, rank_correlation
from phosphene.attribution.methods import Explained
from phosphene.attribution.response import Response
from phosphene.attribution.settings import METHODS, parse_methods
from phosphene.units.spelling import parse_unit

QUICK = {"curves": False, "carriers": 0}


@pytest.fixture(scope="module")
def photograph():
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1)) * 255
    return pixels.round()


@pytest.fixture(scope="module")
def large():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)).mul(255).round()


class Functional(nn.Module):
    """Its rectifiers are functions, one of them in place and one up to 6."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU6()
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        maps = F.relu(self.conv1(images), inplace=True)
        return self.head(self.act(self.conv2(maps)).mean((2, 3)))


class Modules(Functional):
    """The same with modules of Captum's kind."""

    def __init__(self):
        super().__init__()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, images):
        return self.head(self.relu2(self.conv2(self.relu1(self.conv1(images)))).mean((2, 3)))


class Smooth(nn.Module):
    """No rectifier, and no map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3 * 24 * 24, 8)
        self.act = nn.GELU()
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.act(self.first(images.flatten(1))))


def test_integrated_gradients_sum_to_the_gain_and_what_is_missed_is_told(small, photograph):
    found = phosphene.explain(
        small, photograph, "class:dog", "integrated-gradients", **QUICK, settings=AttributionSettings(steps=200)
    )
    total = float(found.maps["integrated-gradients"].sum())
    gain = found.value - found.baseline_value
    assert total == pytest.approx(gain, abs=0.02 * abs(gain))
    assert found.gap == pytest.approx(total - gain, abs=1e-4)
    rough = phosphene.explain(
        small, photograph, "class:dog", "integrated-gradients", **QUICK, settings=AttributionSettings(steps=2)
    )
    assert abs(rough.gap) > abs(found.gap)


@pytest.mark.parametrize("inplace", [False, True])
def test_grad_cam_is_captums_where_captum_has_it(photograph, inplace):
    network = opened(seeded(Small, 3, inplace), labels=LABELS)
    found = phosphene.explain(
        network, photograph, "class:2", "grad-cam", **QUICK, settings=AttributionSettings(layer="conv2")
    )
    plain = opened(seeded(Small), labels=LABELS)

    def feed(pixels):
        return plain.module(plain.preprocessing(pixels))

    with plain.borrowed():
        cam = captum.attr.LayerGradCam(feed, plain.module.conv2).attribute(
            photograph[None], target=2, relu_attributions=True
        )
    wanted = F.interpolate(cam, (24, 24), mode="bilinear", align_corners=False)[0, 0].detach().numpy()
    assert found.layer == "conv2"
    assert wanted.max() > 0
    assert np.allclose(found.maps["grad-cam"], wanted, rtol=1e-4, atol=1e-6)


def test_guided_backpropagation_is_captums_also_where_rectifiers_are_functions(photograph):
    modules = seeded(Modules)
    functional = Functional()
    functional.load_state_dict(modules.state_dict())
    network = opened(modules)

    def feed(pixels):
        return modules(network.preprocessing(pixels))

    with network.borrowed(), pytest.warns(UserWarning, match="backward hooks"):
        guided = captum.attr.GuidedBackprop(_Fed(feed, modules)).attribute(photograph[None].clone(), target=2)
    wanted = guided.abs().amax(1)[0].detach().numpy()
    for module in (modules, functional):
        found = phosphene.explain(opened(module), photograph, "class:2", "guided-backpropagation", **QUICK)
        assert np.allclose(found.maps["guided-backpropagation"], wanted, rtol=1e-4, atol=1e-9)
    exported = phosphene.open(torch.export.export(modules, (torch.zeros(1, 3, 24, 24),)), network.preprocessing)
    found = phosphene.explain(exported, photograph, "class:2", "guided-backpropagation", **QUICK)
    assert np.allclose(found.maps["guided-backpropagation"], wanted, rtol=1e-4, atol=1e-9)
    plain = phosphene.explain(network, photograph, "class:2", "saliency", **QUICK).maps["saliency"]
    assert not np.allclose(plain, wanted, rtol=1e-2)


def test_rectifiers_in_torchscript_are_not_guided_in_silence(photograph):
    script = torch.jit.trace(seeded(Modules), torch.zeros(2, 3, 24, 24))
    network = opened(script)
    with pytest.raises(InputError, match="TorchScript"):
        phosphene.explain(network, photograph, "class:2", "guided-backpropagation", **QUICK)
    found = phosphene.explain(network, photograph, "class:2", **QUICK)
    assert "occlusion" in found.maps


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_networks_of_other_than_three_channels_are_shown_in_gray(channels):
    network = normed(channels)
    pixels = torch.rand(channels, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    found = phosphene.explain(network, pixels, "class:2", ["saliency", "occlusion"], **QUICK)
    assert found.photograph.shape == (24, 24, channels)
    assert found.figure().height < found.figure().width


class _Fed(nn.Module):
    def __init__(self, feed, inner):
        super().__init__()
        self.feed, self.inner = feed, inner

    def forward(self, pixels):
        return self.feed(pixels)


def test_saliency_is_the_largest_gradient_of_a_pixels_channels(small, photograph):
    found = phosphene.explain(small, photograph, "relu2:3", "saliency", **QUICK)
    pixels = photograph[None].clone().requires_grad_()
    small.activations(pixels, ["relu2"], gradient=True)["relu2"][0, 3].sum().backward()
    assert np.allclose(found.maps["saliency"], pixels.grad[0].abs().amax(0).numpy(), rtol=1e-4)


def test_occlusion_finds_the_only_place_that_a_neuron_sees(small, photograph):
    settings = AttributionSettings(window=4, stride=2)
    found = phosphene.explain(small, photograph, "relu1:1@4,6", "occlusion", **QUICK, settings=settings)
    map_ = found.maps["occlusion"]
    inside, elsewhere = np.abs(map_[2:8, 4:10]).max(), max(np.abs(map_[12:]).max(), np.abs(map_[:, 14:]).max())
    assert inside > 0.01
    assert elsewhere < 1e-6


@pytest.mark.parametrize(
    "unit",
    ["class:dog", "relu2:3", "mean(relu2:3)", "relu2:3@5,6", "relu1:[1,0,0,0,2,0,0,-1]", "class:1 - 0.5*class:2"],
)
def test_every_kind_of_unit_has_maps_and_the_value_that_the_network_gives(small, photograph, unit):
    settings = AttributionSettings(steps=8, window=8)
    found = phosphene.explain(small, photograph, unit, "all", **QUICK, settings=settings)
    assert set(found.maps) == set(METHODS)
    assert all(map_.shape == (24, 24) and map_.dtype == np.float32 for map_ in found.maps.values())
    parsed = parse_unit(unit, small)
    with small.borrowed(), torch.no_grad():
        assert found.value == pytest.approx(float(Response(small, parsed)(photograph[None])[0]))
    assert found.unit == str(parsed)


def test_latents_and_objectives_have_maps(small, photograph):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, 12, generator=generator)
    dictionary = phosphene.Dictionary(weights, torch.full((6,), 0.5), weights, torch.zeros(12), "relu", layer="relu2")
    mine = phosphene.Objective(lambda a: a["relu2"][:, 3].mean((1, 2)), layers=["relu2"], name="mine")
    for unit in (phosphene.Latent(dictionary, 2), mine):
        found = phosphene.explain(small, photograph, unit, "saliency", **QUICK)
        assert found.maps["saliency"].max() > 0
    assert found.value == pytest.approx(
        phosphene.explain(small, photograph, "mean(relu2:3)", "saliency", **QUICK).value
    )


def test_without_a_unit_it_is_the_networks_own_first_guess(small, photograph):
    found = phosphene.explain(small, photograph, methods="saliency", **QUICK)
    logits = small.activations(photograph[None], "logits")["logits"][0]
    assert found.unit == f"class:{int(logits.argmax())}"
    assert found.is_top_class
    assert found.probability == pytest.approx(float(logits.softmax(0).max()), rel=1e-4)


def test_patches_of_a_transformer_are_a_map_and_grad_cams_layer_has_a_gradient(large):
    network = vit()
    found = phosphene.explain(network, large, "class:dog", curves=False, settings=AttributionSettings(steps=4))
    assert network.layer(found.layer).tokens is not None
    assert found.maps["grad-cam"].shape == (64, 64)
    assert found.maps["grad-cam"].any()
    assert len(found.carriers.layers) > 1


def test_the_network_comes_back_as_it_was(large):
    network = normed()
    module = network.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    settings = AttributionSettings(steps=4, window=12, samples=2)
    phosphene.explain(network, large[:, :24, :24], methods="all", check=True, settings=settings)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(each._forward_hooks or each._backward_hooks for each in module.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_apply_is_left_out_with_a_note_or_refused_by_name(photograph):
    network = opened(seeded(Smooth))
    found = phosphene.explain(network, photograph, "class:1", "all", **QUICK)
    assert set(found.maps) == {"integrated-gradients", "occlusion", "saliency"}
    assert len([note for note in found.notes if note.startswith("no map by")]) == 2
    with pytest.raises(InputError, match="needs a map"):
        phosphene.explain(network, photograph, "class:1", "grad-cam", **QUICK)
    with pytest.raises(InputError, match="rectifiers"):
        phosphene.explain(network, photograph, "class:1", "guided-backpropagation", **QUICK)


def test_a_unit_that_is_silent_on_the_photograph_is_said_to_be(small, photograph):
    found = phosphene.explain(small, photograph, "relu1:2", **QUICK)
    module = seeded(Small)
    with torch.no_grad():
        module.conv1.bias.fill_(-100)
    silent = phosphene.explain(opened(module), photograph, "relu1:2", "all", **QUICK)
    assert silent.value == 0
    assert any("has no gradient there" in note for note in silent.notes)
    assert not any("has no gradient there" in note for note in found.notes)
    assert not silent.maps["saliency"].any()


def test_a_unit_without_a_way_back_to_the_pixels_is_still_occluded(photograph):
    class Detached(Small):
        def forward(self, images):
            return super().forward(images).detach()

    found = phosphene.explain(
        opened(seeded(Detached)), photograph, "class:1", "all", settings=AttributionSettings(window=8)
    )
    assert list(found.maps) == ["occlusion"]
    assert any("no gradient gets from it" in note for note in found.notes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"methods": "salency"}, "did you mean saliency"),
        ({"methods": "grad-cam", "settings": AttributionSettings(layer="head")}, "has none"),
        ({"methods": "grad-cam", "unit": "relu1:2", "settings": AttributionSettings(layer="conv2")}, "before it"),
        ({"unit": "class:doge"}, "dog"),
        ({"unit": "relu2:99"}, "12 channels"),
        ({"unit": "match(relu2)"}, "nowhere in one"),
        ({"photograph": "nowhere.png"}, "no such file"),
        ({"carriers": -1}, "0 or more"),
    ],
)
def test_what_cannot_be_is_one_sentence(small, photograph, given, words):
    arguments = {"photograph": photograph, "unit": "class:dog"} | given
    with pytest.raises(InputError, match=words) as caught:
        phosphene.explain(small, **arguments)
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"baseline": "blak"}, {"steps": 1}, {"window": 0}, {"noise": 2.0}, {"batch": 0}):
        with pytest.raises(InputError):
            AttributionSettings(**wrong)
    with pytest.raises(InputError):
        parse_methods([])


# Checks


class Corner(nn.Module):
    """Class 0 is how bright the upper left quarter is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.conv.weight.fill_(0.5)

    def forward(self, images):
        bright = 8 * F.relu(self.conv(images)).mean(1)[:, :12, :12].mean((1, 2))
        return torch.stack([bright, 4 - bright], 1)


def test_a_right_map_deletes_and_inserts_better_than_chance_and_a_wrong_one_worse():
    network = opened(Corner())
    bright = torch.full((3, 24, 24), 230.0)
    bright[:, ::2] = 180
    settings = AttributionSettings(baseline="black", window=6)
    found = phosphene.explain(network, bright, "class:0", ["occlusion"], settings=settings, carriers=0)
    curves = found.curves["occlusion"]
    assert curves.areas[0] < found.chance["blobs"][0]
    assert curves.deletion[0] == pytest.approx(found.probability, abs=1e-5)
    assert curves.insertion[-1] == pytest.approx(found.probability, abs=1e-5)
    with network.borrowed():
        response = Response(network, Class(0))
        explained = Explained(response, settings, bright[None], torch.zeros(1, 3, 24, 24))
        wrong = perturbation_curves(-found.maps["occlusion"], explained)
    assert wrong.areas[0] > found.chance["blobs"][0]


def test_the_area_under_a_curve_is_the_trapezoidal_rule():
    line = np.linspace(0, 1, 5, dtype=np.float32)
    assert area(line) == pytest.approx(0.5)
    assert Curves(line * 0, line * 0 + 1).areas == (0.0, 1.0)


def test_curves_of_hidden_units_go_from_one_to_nothing(small, photograph):
    found = phosphene.explain(small, photograph, "relu2:3", "saliency", carriers=0)
    curve = found.curves["saliency"].deletion
    assert curve[0] == pytest.approx(1, abs=1e-5)
    assert curve[-1] == pytest.approx(0, abs=1e-5)


def test_shuffled_weights_change_the_map_and_the_same_weights_do_not(small, photograph):
    settings = AttributionSettings(steps=8, window=6)
    found = phosphene.explain(
        small, photograph, "class:1", "all", curves=False, carriers=0, check=True, settings=settings
    )
    assert set(found.randomized) == set(METHODS)
    assert abs(found.randomized["saliency"]) < 0.9
    map_ = found.maps["saliency"]
    assert rank_correlation(map_, map_ * 2) == pytest.approx(1)
    assert rank_correlation(map_, np.zeros_like(map_)) is None
    other = np.random.default_rng(0).integers(-4, 5, map_.shape).astype(np.float32)
    wanted = scipy.stats.spearmanr(np.abs(map_).reshape(-1), np.abs(other).reshape(-1)).statistic
    assert rank_correlation(map_, other) == pytest.approx(wanted)


def test_the_same_call_gives_the_same_maps(small, photograph):
    settings = AttributionSettings(samples=3)
    first, second = (
        phosphene.explain(small, photograph, "class:1", "saliency", **QUICK, settings=settings) for _ in range(2)
    )
    assert np.array_equal(first.maps["saliency"], second.maps["saliency"])
    plain = phosphene.explain(small, photograph, "class:1", "saliency", **QUICK)
    assert not np.allclose(first.maps["saliency"], plain.maps["saliency"])


# Carriers


def test_contributions_are_gradient_times_activation(small, photograph):
    with small.borrowed():
        found = find_carriers(Response(small, parse_unit("class:2", small)), photograph[None], 3, ["relu2"])
    activation = small.activations(photograph[None], "relu2")["relu2"][0].mean((1, 2))
    wanted = small.module.head.weight[2].detach() * activation
    layer = found.layers[0]
    assert layer.total == pytest.approx(float(wanted.sum()), rel=1e-4)
    kept = [channel for channel in wanted.argsort(descending=True).tolist() if wanted[channel] != 0][:10]
    assert [each.channel for each in layer.carriers] == kept
    assert layer.carriers[0].contribution == pytest.approx(float(wanted.max()), rel=1e-4)
    assert layer.carriers[0].map.shape == (12, 12)


def test_what_flows_into_a_carrier_sums_to_it_without_biases(photograph):
    module = seeded(Small)
    with torch.no_grad():
        module.conv2.bias.zero_()
    network = opened(module)
    with network.borrowed():
        response = Response(network, parse_unit("class:2", network))
        found = find_carriers(response, photograph[None], 10, ["relu2", "relu1"])
    assert [layer.layer for layer in found.layers] == ["relu1", "relu2"]
    assert found.layers[0].channels == 8
    target = found.layers[1].carriers[0]
    flows = [edge.contribution for edge in found.edges if edge.target == target.unit]
    assert len(flows) == 8
    assert sum(flows) == pytest.approx(target.contribution, rel=1e-3)


def test_carriers_of_layers_that_come_later_are_refused(small, photograph):
    with small.borrowed(), pytest.raises(InputError, match="not before"):
        find_carriers(Response(small, parse_unit("relu1:2", small)), photograph[None], 3, ["relu2"])


def test_the_figure_has_the_photograph_and_each_map(small, photograph):
    found = phosphene.explain(small, photograph, "class:1", ["saliency", "grad-cam"], **QUICK)
    figure = found.figure()
    assert isinstance(figure, Image.Image)
    assert figure.width > 3 * 200
    assert found.to_dict()["methods"]["grad-cam"]["layer"] == found.layer
