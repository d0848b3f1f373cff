import math

import numpy as np
import pytest
import torch
from helpers import opened, seeded
from PIL import Image
from tiny import Normed, normed, vit
from torch import nn

import phosphene
from phosphene import InputError, Recipe
from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.statistics import LayerMoments, StatisticsPenalty, moments, natural_statistics
from phosphene.networks.speed.folding import fused_batch_norms
from phosphene.photographs.activation_files import cache_path
from phosphene.photographs.activation_statistics import collect
from phosphene.recipes.penalties import DiversityPenalty, NormPenalty, StatisticsSettings, TotalVariationPenalty
from phosphene.units.spelling import parse_unit

CPU = torch.device("cpu")
MEAN, STD = torch.tensor([1.0, -3.0, 0.0, 20.0]), torch.tensor([0.5, 2.0, 1.0, 7.0])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def natural(rows=2, size=(6, 7)):
    """Activations whose channels have exactly MEAN and STD in each row."""
    maps = noise(rows, 4, math.prod(size))
    maps = (maps - maps.mean(2, keepdim=True)) / maps.std(2, keepdim=True, correction=0)
    return (MEAN[:, None] + STD[:, None] * maps).view(rows, 4, *size)


def penalties_of(activation, rows=None, groups=None, **fields):
    settings = StatisticsSettings(weight=1.0, **fields)
    prior = StatisticsPenalty([LayerMoments("layer", False, MEAN, STD)], settings, CPU)
    prior.readers()[0]["layer"](activation)
    return prior.penalties(rows or len(activation), groups)


def test_natural_activations_cost_nothing():
    torch.testing.assert_close(penalties_of(natural()), torch.zeros(2), atol=1e-6, rtol=0)


def test_what_is_off_costs_its_square_in_natural_deviations():
    off = natural()
    off[1] += 0.7 * STD[:, None, None]
    torch.testing.assert_close(penalties_of(off), torch.tensor([0, 0.49]), atol=1e-4, rtol=1e-3)
    wide = MEAN[:, None, None] + 1.5 * (natural() - MEAN[:, None, None])
    torch.testing.assert_close(penalties_of(wide), torch.full((2,), 0.25), atol=1e-4, rtol=1e-3)
    one = natural()
    one[:, 2] += 2 * STD[2]  # one channel of four
    torch.testing.assert_close(penalties_of(one), torch.full((2,), 1.0), atol=1e-4, rtol=1e-3)
    costs = [penalties_of(natural() + shift * STD[:, None, None])[0].item() for shift in (0, 0.5, 1, 2, 4)]
    assert costs == sorted(costs)


def test_the_margin_costs_nothing():
    off = natural() + 0.7 * STD[:, None, None]
    assert penalties_of(off, margin=0.8).max() == 0
    torch.testing.assert_close(penalties_of(off, margin=0.5), torch.full((2,), 0.04), atol=1e-4, rtol=1e-2)


def test_only_what_is_more_than_natural_costs():
    shifted = natural()
    shifted[0] -= 0.7 * STD[:, None, None]
    shifted[1] += 0.7 * STD[:, None, None]
    torch.testing.assert_close(penalties_of(shifted, side="above"), torch.tensor([0, 0.49]), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(penalties_of(shifted, side="both"), torch.full((2,), 0.49), atol=1e-4, rtol=1e-3)
    middle = MEAN[:, None, None]
    narrow, wide = (middle + factor * (natural() - middle) for factor in (0.5, 1.5))
    assert penalties_of(narrow, side="above").max() < 1e-6
    torch.testing.assert_close(penalties_of(wide, side="above"), torch.full((2,), 0.25), atol=1e-4, rtol=1e-3)


def test_layers_are_looked_at_in_turn():
    names = ["a", "b", "c", "d", "e", "f"]
    every = [LayerMoments(name, False, MEAN, STD) for name in names]

    def costs(steps, **fields):
        prior = StatisticsPenalty(every, StatisticsSettings(weight=1, **fields), CPU)
        outputs, _ = prior.readers(steps)
        for place, name in enumerate(names):
            if name in outputs:
                outputs[name](natural(3) + place * STD[:, None, None])
        return list(outputs), prior.penalties(3, steps=steps)

    read, found = costs([0, 3, 4], every=3)
    assert read == ["a", "b", "d", "e"]  # it is nobody's turn to look at c and f
    expected = torch.tensor([(0 + 9) / 2, (0 + 9) / 2, (1 + 16) / 2])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    turns = [costs([step] * 3, every=3)[1] for step in range(3)]
    torch.testing.assert_close(torch.stack(turns).mean(0), costs([0] * 3)[1], atol=1e-4, rtol=1e-3)


def test_a_running_average_costs_what_it_is_and_pulls_as_if_it_were_all_new():
    prior = StatisticsPenalty(
        [LayerMoments("layer", False, MEAN, STD)], StatisticsSettings(weight=1, average=0.75), CPU
    )
    memories, scale = [{}, {}], STD[:, None, None]
    for shift, expected in ((1.0, 1.0), (5.0, 2.0**2 + (2 - 1) ** 2)):  # 0.75 of 1 and 0.25 of 5; of squares 8
        activation = (natural() + shift * scale).requires_grad_()
        prior.readers()[0]["layer"](activation)
        cost = prior.penalties(2, memories=memories)
        torch.testing.assert_close(cost, torch.full((2,), expected), atol=1e-3, rtol=1e-3)
    (found,) = torch.autograd.grad(cost.sum(), activation)
    maps = (activation - MEAN[:, None, None]) / scale
    mean = 0.75 * 1 + 0.25 * maps.mean((2, 3))
    deviation = (0.75 * 2 + 0.25 * maps.square().mean((2, 3)) - mean.square()).sqrt()
    (part,) = torch.autograd.grad((mean.square() + (deviation - 1).square()).mean(1).sum(), activation)
    torch.testing.assert_close(found, part / 0.25, atol=1e-4, rtol=1e-3)


def test_a_running_average_is_of_the_steps_at_which_a_layer_is_looked_at_for_the_row():
    prior = StatisticsPenalty(
        [LayerMoments("layer", False, MEAN, STD)], StatisticsSettings(weight=1, average=0.5, every=2), CPU
    )
    memories = [{}, {}]
    prior.readers([0, 1])[0]["layer"](natural())
    prior.penalties(2, steps=[0, 1], memories=memories)
    assert [list(memory) for memory in memories] == [[0], []]


def test_moments_are_over_all_views_of_a_row_or_of_a_group():
    halves = natural(4)
    halves[:2] += STD[:, None, None]
    halves[2:] -= STD[:, None, None]  # two views of two rows, and over both the mean is natural
    expected = (math.sqrt(2) - 1) ** 2  # but not the deviation
    torch.testing.assert_close(penalties_of(halves, rows=2), torch.full((2,), expected), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        penalties_of(halves, groups=[1, 2, 1, 2]), torch.full((4,), expected), atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(penalties_of(halves, groups=[1, 1, 2, 2]), torch.ones(4), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(penalties_of(halves, groups=[1, 2, 3, 4]), penalties_of(halves))


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 4, 3, 2), (3, 2, 1), (1, 2, 3, 2, 2)])
def test_the_gradient_of_the_moments(shape):
    activation = noise(*shape).double().requires_grad_()
    torch.autograd.gradcheck(moments, (activation,))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_large_map_is_of_what_is_looked_at_and_lies_channels_last(order):
    activation = noise(2, 3, 70, 71).contiguous(memory_format=order).requires_grad_()
    first, second = moments(activation)
    (found,) = torch.autograd.grad((first * noise(2, 3) + second).sum(), activation)
    seen = activation[:, :, ::2, ::2]
    (expected,) = torch.autograd.grad((seen.mean((2, 3)) * noise(2, 3) + seen.square().mean((2, 3))).sum(), activation)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 11), (2, 3), (1, 3, 70, 70)])
def test_moments_are_means_and_mean_squares_over_positions(shape):
    activation = noise(*shape)
    flat = activation[..., ::2, ::2] if shape[-1] == 70 else activation
    flat = flat.reshape(shape[0], 3, -1)
    first, second = moments(activation)
    torch.testing.assert_close(first, flat.mean(2))
    torch.testing.assert_close(second, flat.square().mean(2))
    channels_last = activation.contiguous(memory_format=torch.channels_last) if activation.ndim == 4 else activation
    torch.testing.assert_close(moments(channels_last)[0], first)


def test_a_layer_of_one_position_has_no_deviation_and_does_not_count():
    prior = StatisticsPenalty(
        [LayerMoments("a", False, MEAN, STD), LayerMoments("b", False, MEAN, STD)], StatisticsSettings(weight=1), CPU
    )
    outputs, _ = prior.readers()
    outputs["a"](natural() + STD[:, None, None])
    outputs["b"](noise(2, 4, 1, 1))
    torch.testing.assert_close(prior.penalties(2), torch.ones(2), atol=1e-4, rtol=1e-3)
    outputs, _ = prior.readers()
    outputs["b"](noise(2, 4))
    assert prior.penalties(2).tolist() == [0, 0]


def test_channels_that_hardly_ever_change_do_not_count_for_more_than_a_share():
    prior = StatisticsPenalty(
        [LayerMoments("a", False, MEAN, torch.tensor([0.0, 1, 1, 1]))], StatisticsSettings(weight=1), CPU
    )
    assert prior.natural[0].std.min() == pytest.approx(1e-3)


def recipe(**fields):
    found = {
        "priors.statistics.weight": 2.0,
        **{name.replace("__", "."): fields[name] for name in fields},
    }
    return Recipe.load("naive").override(found)


def evaluated(network, units, images, *, fold=True, **fields):
    """Score and gradient, with all that the network's priors add."""
    parsed = [parse_unit(unit, network) for unit in units]
    read = [part.layer for unit in parsed for _, part in unit.terms()]
    with network.borrowed():
        if not fold:
            return Evaluator([network], recipe(**fields), CPU)(parsed, images)
        with fused_batch_norms(network, read) as norms:
            return Evaluator([network], recipe(**fields), CPU, norms=[norms])(parsed, images)


def pixels(rows=2, size=24, channels=3):
    return 127 + 50 * noise(rows, channels, size, size)


@pytest.mark.parametrize("side", ["both", "above"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("unit", ["class:1", "relu1:2", "conv2:3"])
def test_the_statistics_of_a_folded_network_are_those_of_the_network(unit, inplace, side):
    network, images = normed(inplace=inplace), 127 + 150 * noise(2, 3, 24, 24)
    network.module.bn1.weight.data[::2] *= -1  # where more that goes in is less that comes out
    weight = {"priors__statistics__weight": 2.0 if unit == "class:1" else 500.0, "priors__statistics__side": side}
    kept, made = (evaluated(network, [unit] * 2, images, fold=fold, **weight) for fold in (False, True))
    torch.testing.assert_close(made.values, kept.values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.gradient, kept.gradient, atol=2e-3 * kept.gradient.abs().max(), rtol=1e-3)
    plain = evaluated(network, [unit] * 2, images, priors__statistics="off")
    assert (plain.gradient - made.gradient).abs().max() > 0.05 * made.gradient.abs().max()


def test_the_gradient_is_of_the_score_less_the_penalty():
    """By finite differences, the penalty being written out for the module's own batch normalisations."""
    network = normed(inplace=False)

    def total(images):
        with network.borrowed():
            maps, found = network.preprocessing(images), []
            for conv, norm in ((network.module.conv1, network.module.bn1), (network.module.conv2, network.module.bn2)):
                maps = conv(network.module.pool(maps) if found else maps)
                var, mean = torch.var_mean(maps, (2, 3), correction=0)
                running = norm.running_var.sqrt()
                off = ((mean - norm.running_mean) / running).square() + (var.sqrt() / running - 1).square()
                found.append(off.mean(1))
                maps = torch.relu(norm(maps))
            return network.module.head(maps.mean((2, 3)))[:, 1] - 2 * torch.stack(found).mean(0)

    images = pixels(1).requires_grad_()
    (wanted,) = torch.autograd.grad(total(images).sum(), images)
    made = evaluated(network, ["class:1"], images.detach())
    torch.testing.assert_close(made.gradient, wanted, atol=2e-3 * wanted.abs().max(), rtol=2e-3)


def test_a_unit_before_all_statistics_is_shown_without_them():
    network = normed()
    made = evaluated(network, ["conv1:2"], pixels(1))
    plain = evaluated(network, ["conv1:2"], pixels(1), priors__statistics="off")
    torch.testing.assert_close(made.gradient, plain.gradient)


def test_what_works_in_place_behind_a_layer_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path))
    gradients = []
    for inplace in (False, True):
        network = normed(inplace=inplace)
        gathered(network)
        fields = {"priors__statistics__source": "gathered", "priors__diversity__weight": 1.0}
        found = evaluated(network, ["class:1"] * 2, pixels(), **fields, priors__diversity__layer="bn2")
        gradients.append(found.gradient)
    torch.testing.assert_close(*gradients)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(4):
        values = np.random.default_rng(index).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(values).resize((40, 40)).save(folder / f"{index}.png")
    gathered.paths = sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def _photographs(photographs):
    """Those that `gathered` reads."""


def gathered(network):
    found = collect(network, gathered.paths)
    found.save(cache_path(network))
    return found


def test_statistics_are_batch_normalisations_or_gathered_or_none(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path))
    network = normed()
    found, origin = natural_statistics(network, "auto")
    assert origin == "batchnorm"
    assert [(entry.layer, entry.inputs) for entry in found] == [("bn1", True), ("bn2", True)]
    assert natural_statistics(network, "gathered") == ([], "")
    assert natural_statistics(small, "auto") == natural_statistics(small, "batchnorm") == ([], "")
    for opened_, source in ((small, "auto"), (network, "gathered")):
        made = gathered(opened_)
        found, origin = natural_statistics(opened_, source)
        assert origin == f"gathered {made.digest()}"
        assert [(entry.layer, entry.inputs) for entry in found] == [("conv1", False), ("conv2", False)]
    assert natural_statistics(network, "auto")[1] == "batchnorm"
    assert natural_statistics(small, "batchnorm") == ([], "")


@pytest.mark.slow
@pytest.mark.parametrize("make", [normed, vit])
def test_gathered_statistics_pull_towards_what_photographs_give(make, tmp_path, monkeypatch):
    """An ascent with them ends with less of a penalty than without."""
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path))
    network = make()
    gathered(network)
    costs = {}
    for weight in (1e-3, 30.0):
        used = Recipe.load("clip").override(
            {"steps": 25, "optimizer.gradient": "rms", "optimizer.rate": 5.0, "start.sigma": 40.0,
             "priors.statistics.weight": weight, "priors.statistics.source": "gathered"}
        )  # fmt: skip
        (picture,) = phosphene.ascend(network, "class:1", used)
        assert picture.statistics[0].startswith("gathered ")
        assert picture.provenance()["statistics"] == list(picture.statistics)
        with network.borrowed():
            objective = Evaluator([network], used, CPU)
            prior = objective.statistics[0]
            outputs, _ = prior.readers()
            network.forward(torch.from_numpy(picture.pixels).movedim(-1, 0)[None].float(), outputs)
            costs[weight] = prior.penalties(1).item()
    assert costs[30.0] < 0.7 * costs[1e-3]


def test_without_any_statistics_the_prior_does_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path))
    fields = {"steps": 3, "optimizer.gradient": "rms"}
    plain = Recipe.load("clip").override(fields)
    first, second = (
        phosphene.ascend(small, "class:1", used)[0]
        for used in (plain, plain.override({"priors.statistics.weight": 50}))
    )
    assert np.array_equal(first.pixels, second.pixels)
    assert second.statistics == ("",)


def test_what_is_behind_a_units_layer_does_not_pull_it_whatever_else_is_in_the_batch():
    network, images = normed(), pixels(3)
    fields = {"priors__statistics__weight": 500.0}
    made = evaluated(network, ["relu1:2", "class:1", "conv1:2"], images, **fields)
    for row, unit in enumerate(("relu1:2", "class:1", "conv1:2")):
        alone = evaluated(network, [unit], images[row : row + 1], **fields).gradient[0]
        torch.testing.assert_close(made.gradient[row], alone, atol=1e-3 * alone.abs().max(), rtol=1e-3)


def test_later_layers_count_for_less_by_the_depth():
    entries = [LayerMoments(name, False, MEAN, STD) for name in "ab"]
    for depth, expected in ((0.0, 0.5), (2.0, math.exp(-1) / (1 + math.exp(-1)))):
        prior = StatisticsPenalty(entries, StatisticsSettings(weight=1, depth=depth), CPU)
        outputs, _ = prior.readers()
        outputs["a"](natural())
        outputs["b"](natural() + STD[:, None, None])
        torch.testing.assert_close(prior.penalties(2), torch.full((2,), expected), atol=1e-4, rtol=1e-3)


def test_total_variation_by_hand():
    variation = TotalVariationPenalty(weight=1)
    image = torch.tensor([[0.0, 255], [255, 0]]).expand(1, 3, 2, 2)
    assert variation(image, None).item() == 2
    step = torch.zeros(1, 1, 3, 4)
    step[..., 2:] = 51
    assert variation(step, None).item() == pytest.approx(0.2 / 3)
    both = torch.cat([image, torch.full((1, 3, 2, 2), 9.0)])
    assert variation(both, None).tolist() == [2, 0]
    assert variation(torch.ones(1, 3, 1, 1), None).item() == 0
    assert variation(torch.tensor([[[[0.0, 255]]]]), None).item() == 1


@pytest.mark.parametrize(("power", "expected"), [(1.0, 0.35), (2.0, 0.145), (6.0, (0.2**6 + 0.5**6) / 2)])
def test_the_norm_by_hand(power, expected):
    image = torch.tensor([51.0, 127.5]).view(1, 1, 1, 2) + 20
    cost = NormPenalty(weight=1, power=power)(image, torch.tensor(20.0).view(1, 1, 1))
    assert cost.item() == pytest.approx(expected, rel=1e-5)


def test_euclidean_total_variation_by_hand_and_flat_where_nothing_varies():
    images = torch.zeros(2, 2, 2, 2)
    images[0, 0, 0, 0] = images[0, 1] = 255.0  # one corner of the first channel; nothing varies in the second
    images.requires_grad_()
    cost = TotalVariationPenalty(weight=1, measure="euclidean")(images, torch.zeros(2, 1, 1))
    assert cost[0].item() == pytest.approx(1.5, rel=1e-4)  # down, across, one diagonal: 1 each; half of the channels
    (gradient,) = torch.autograd.grad(cost.sum(), images)
    assert not gradient[1].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("name", "function"), [("total_variation", 1.0), ("norm", 2.0)])
def test_the_terms_of_the_image_are_in_the_gradient(name, function):
    network, images = normed(), pixels(2)
    leaf = images.clone().requires_grad_()
    mean = torch.tensor(network.preprocessing.mean_pixels).view(-1, 1, 1)
    cost = (TotalVariationPenalty if name == "total_variation" else NormPenalty)(weight=1)(leaf, mean)
    (own,) = torch.autograd.grad(cost.sum(), leaf)
    off = {"priors__statistics": "off"}
    plain = evaluated(network, ["class:1"] * 2, images, **off)
    made = evaluated(network, ["class:1"] * 2, images, **off, **{f"priors__{name}__weight": 3.0})
    torch.testing.assert_close(made.gradient, plain.gradient - 3 * own, atol=1e-7, rtol=1e-4)
    assert torch.equal(made.values, plain.values)


def test_equal_features_are_alike_and_orthogonal_ones_are_not():
    similarity = DiversityPenalty(weight=1)
    features = torch.zeros(4, 2, 8)
    features[0, 0] = features[1, 0] = torch.arange(8.0)
    features[2, 1] = torch.arange(8.0)
    features[3, 0] = 5 * torch.arange(8.0).flip(0) + 3  # elsewhere, and stronger: the same texture
    assert similarity(features[:2], [0, 0]).tolist() == pytest.approx([1, 1])
    assert similarity(features[[0, 2]], [0, 0]).tolist() == pytest.approx([0, 0])
    assert similarity(features[[0, 3]], [0, 0]).tolist() == pytest.approx([1, 1])
    assert similarity(features[:3], [0, 0, 0]).tolist() == pytest.approx([0.5, 0.5, 0])
    assert similarity(features[:3], [0, 1, 0]).tolist() == pytest.approx([0, 0, 0])
    assert similarity(features[:2], [0, 1]).tolist() == [0, 0]
    assert similarity(noise(2, 6), [0, 0])[0] <= 1  # of a vector
    assert similarity(torch.zeros(2, 3, 4), [0, 0]).tolist() == [0, 0]


def test_the_layer_that_tells_facets_apart():
    network = normed()
    assert DiversityPenalty(weight=1).layer_of(network) == "relu2"
    assert DiversityPenalty(weight=1, layer="pool").layer_of(network) == "pool"
    assert vit().layer(DiversityPenalty(weight=1).layer_of(vit())).positions
    with pytest.raises(InputError, match="no layer 'relu3'; did you mean relu2"):
        DiversityPenalty(weight=1, layer="relu3").layer_of(network)

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 5)

        def forward(self, images):
            return self.head(images.mean((2, 3)))

    with pytest.raises(InputError, match=r"has no layer with a map: expected priors\.diversity\.layer"):
        DiversityPenalty(weight=1).layer_of(opened(seeded(Linear)))


def test_a_second_batch_normalisation_on_vectors_does_not_count():
    class Vectors(Normed):
        def __init__(self):
            super().__init__()
            self.bn3 = nn.BatchNorm1d(12).eval()

        def forward(self, images):
            maps = self.relu1(self.bn1(self.conv1(images)))
            maps = self.relu2(self.bn2(self.conv2(self.pool(maps))))
            return self.head(self.bn3(maps.mean((2, 3))) if hasattr(self, "bn3") else maps.mean((2, 3)))

    network = opened(seeded(Vectors))
    assert len(network.norms) == 3
    network.module.bn3.running_mean += 100
    before = evaluated(network, ["relu2:1"], pixels(1))
    network.module.bn3.running_mean -= 100
    torch.testing.assert_close(evaluated(network, ["relu2:1"], pixels(1)).gradient, before.gradient)
    slopes = [
        evaluated(network, ["class:1"], pixels(1), priors__statistics__weight=weight).gradient for weight in (1e-9, 2.0)
    ]
    assert (slopes[0] - slopes[1]).abs().max() > 0
