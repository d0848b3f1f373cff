import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from tiny import LABELS, Flat, normed, vit

from phosphene import InputError, Recipe
from phosphene.ascent.evaluator import Evaluator, RowSettings
from phosphene.ascent.scores import measure, penalty_layers, references, scores
from phosphene.pixels.resampling import resize
from phosphene.recipes.penalties import DiversityPenalty
from phosphene.units.spelling import parse_unit

CPU = torch.device("cpu")
MOVING = {"views.crop": [0.4, 0.9], "views.rotate": 20.0, "views.flip": True, "views.count": 3}


def noise(rows=2, size=(24, 24), seed=0):
    return 255 * torch.rand((rows, 3, *size), generator=torch.Generator().manual_seed(seed))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def recipe(**fields):
    return Recipe.load("naive").override({name.replace("__", "."): fields[name] for name in fields})


def objective(network, fields=None, photograph=None):
    networks = network if isinstance(network, list) else [network]
    return Evaluator(networks, Recipe.load("naive").override(fields or {}), CPU, photograph)


def parsed(network, *texts):
    return [parse_unit(text, network) for text in texts]


@pytest.mark.parametrize("text", ["class:1", "mean(relu2:3)", "relu1", "relu1:2@3,4", "class:1 - 0.5*relu1:2"])
def test_the_gradient_is_that_of_the_score(small, text):
    units, images = parsed(small, text, text), noise().requires_grad_()
    with small.borrowed():
        value, _ = scores(small, units, images)
        (wanted,) = torch.autograd.grad(value.sum(), images)
        made = objective(small)(units, images)
    torch.testing.assert_close(made.values, value.detach())
    torch.testing.assert_close(made.gradient, wanted)
    assert not made.gradient.requires_grad


def test_probabilities_are_of_the_classes_only(small):
    units = parsed(small, "class:1", "relu1:2", "class:1 + class:2")
    with small.borrowed():
        made = objective(small)(units, noise(3))
        wanted = small.forward(noise(3)).softmax(1)[0, 1]
    assert made.probabilities[0].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert made.probabilities[1:].isnan().all()


def test_scores_are_means_over_the_views(small):
    units = parsed(small, "class:1", "relu1:2")
    one = {name: value for name, value in MOVING.items() if name != "views.count"}
    with small.borrowed():
        made = objective(small, {**one, "views.count": 16})(units, noise(), generators(1, 2))
        again = objective(small, {**one, "views.count": 16})(units, noise(), generators(1, 2))
        single = objective(small, one)
        drawn = [single(units, noise(), generators(10 * i + 1, 10 * i + 2)).values for i in range(32)]
    assert torch.equal(made.values, again.values)
    assert torch.equal(made.gradient, again.gradient)
    mean, spread = torch.stack(drawn).mean(0), torch.stack(drawn).std(0)
    assert ((made.values - mean).abs() < 2 * spread).all()
    assert (spread > 0).all()


@pytest.mark.parametrize("text", ["class:1", "relu1:2", "match(relu1)", "caricature(relu2)", "match(class)"])
@pytest.mark.parametrize("fields", [{}, MOVING, {"views.count": 2, "views.noise": 5.0}])
def test_a_row_is_the_same_alone_among_others_and_beside_copies(small, text, fields):
    units = parsed(small, text, "match(pool)", text, "match(relu1)")
    with small.borrowed():
        used = objective(small, fields, noise(1, seed=5)[0])
        together = used(units, noise(4), generators(1, 2, 3, 4))
        for row in range(4):
            for padding in (0, 1, 2, 5):
                alone = used(
                    units[row : row + 1], noise(4)[row : row + 1], generators(*range(1, 5))[row : row + 1],
                    padding=padding,
                )  # fmt: skip
                torch.testing.assert_close(alone.values[0], together.values[row], atol=1e-4, rtol=1e-4)
                assert alone.gradient.shape == (1, 3, 24, 24)
                slope = together.gradient[row]
                torch.testing.assert_close(alone.gradient[0], slope, atol=1e-4 * slope.abs().max(), rtol=1e-2)


def test_the_priors_weights_are_scaled_row_by_row():
    network = normed()
    units = parsed(network, "class:1", "class:1")
    with network.borrowed():
        used = objective(network, {"priors.statistics.weight": 5.0, "priors.total_variation.weight": 5.0})
        plain = objective(network)(units, noise()).gradient
        scaled = used(units, noise(), (), RowSettings(scales=torch.tensor([0.0, 2.0]))).gradient
        full = used(units, noise()).gradient
    torch.testing.assert_close(scaled[0], plain[0])
    torch.testing.assert_close(scaled[1] - plain[1], 2 * (full[1] - plain[1]), atol=1e-6, rtol=1e-3)


# Photographs


def test_a_photograph_matches_itself_best(small):
    photograph = noise(1, seed=5)
    units = parsed(small, "match(relu1)", "match(relu2)", "match(class)", "0.5*match(pool)")
    with small.borrowed():
        used = objective(small, photograph=photograph[0])
        same = used(units, photograph.expand(4, -1, -1, -1))
        near = used(units, photograph + 0.1 * (noise(4) - 127))
    torch.testing.assert_close(same.values, torch.zeros(4), atol=1e-6, rtol=0)
    assert same.gradient.abs().max() < 1e-5
    assert (near.values < -1e-6).all()


@pytest.mark.parametrize("make", [normed, vit])
def test_the_photograph_is_changed_as_the_image_is(make):
    network = make()
    size = network.preprocessing.height
    layers = [layer.name for layer in network.layers if layer.positions]
    photograph = noise(1, (size, size), seed=5)
    units = parsed(network, f"match({layers[len(layers) // 2]})", f"match({layers[0]})")
    with network.borrowed():
        fields = {**MOVING, "views.jitter": 4.0, "views.scale": [0.8, 1.2], "views.noise": 9.0, "views.colour": 0.2}
        used = objective(network, fields, photograph[0])
        for padding in (0, 5):
            made = used(units, photograph.expand(2, -1, -1, -1), generators(1, 2), padding=padding)
            torch.testing.assert_close(made.values, torch.zeros(2), atol=1e-5, rtol=0)
        assert used(units, noise(2, (size, size)), generators(1, 2)).values.max() < -1e-3


def test_a_photograph_beside_does_not_change_what_others_are_shown(small):
    units = parsed(small, "class:1")
    with small.borrowed():
        made = [
            objective(small, {**MOVING, "views.noise": 9.0}, photograph)(units, noise(1), generators(1))
            for photograph in (None, noise(1, seed=5)[0])
        ]
    assert torch.equal(made[0].gradient, made[1].gradient)


def test_a_caricature_grows_along_what_the_photograph_has(small):
    photograph = noise(1, seed=5)
    units = parsed(small, "caricature(relu1)")
    with small.borrowed():
        used = objective(small, photograph=photograph[0])
        values = [used(units, image).values.item() for image in (torch.full_like(photograph, 127.5), photograph)]
        stronger = used(units, 127.5 + 2 * (photograph - 127.5)).values.item()
    assert values[0] < values[1] < stronger
    assert values[1] == pytest.approx(1, abs=1e-4)  # of the photograph itself: in units of its own length


def test_only_the_layers_wanted_are_referenced(small):
    units = parsed(small, "match(relu1)", "class:1")
    with small.borrowed():
        found = references(small, units, noise(1))
        assert set(found) == {"relu1"}
        assert references(small, units, None) == {}
        assert references(small, parsed(small, "class:1"), noise(1)) == {}
        logits = references(small, parsed(small, "match(class)"), noise(3))["class"]
        assert logits.shape == (3, 5)


# Sizes


def test_images_of_another_size_are_shown_to_the_network_at_that_size_where_it_takes_it(small):
    fixed, flat = vit(), opened(seeded(Flat))
    for network, text, own in (
        (small, "class:1", False),
        (fixed, "class:1", True),
        (flat, "class:1", True),
        (flat, "relu:1", False),
    ):
        used, size = objective(network), (40, 44)
        unit = parsed(network, text)
        found = used.network_at(0, size, unit)
        assert found.preprocessing.size == (network.preprocessing.size if own else size), text
        assert used.network_at(0, size, unit) is found
        with network.borrowed():
            made = used(unit, noise(1, size))
            assert made.gradient.shape == (1, 3, *size)
            assert made.gradient.abs().max() > 0
            shown = resize(noise(1, size), found.preprocessing.size)
            assert made.values.item() == pytest.approx(scores(found, unit, shown)[0].item(), rel=1e-4)


def test_measures_are_of_the_image_alone_at_the_networks_size(small):
    units = parsed(small, "class:1", "match(relu1)")
    pixels = noise(1, (30, 20))[0].to(torch.uint8).movedim(0, -1)
    image = resize(pixels.movedim(-1, 0)[None].float(), (24, 24))
    with small.borrowed():
        found = measure(small, units[0], pixels, CPU)
        logits = small.forward(image)[0]
        assert found["objective"] == pytest.approx(logits[1].item(), abs=1e-5)
        assert found["probability"] == pytest.approx(logits.softmax(0)[1].item(), abs=1e-5)
        matched = measure(small, units[1], pixels, CPU, photograph=image[0])
        assert matched == {"objective": pytest.approx(0, abs=1e-6)}


# Several networks


def ensemble():
    first, second = normed(), opened(seeded(Small), size=16, labels=LABELS)
    second.module.head.weight.data *= 5
    return [first, second]


def test_an_ensemble_is_the_mean_of_its_networks_each_fed_at_its_own_size():
    networks = ensemble()
    units = parsed(networks[0], "class:1", "class:4")
    with networks[0].borrowed(), networks[1].borrowed():
        made = objective(networks)(units, noise(2, (24, 24)))
        alone = [objective(network)(units, resize(noise(2), network.preprocessing.size)).values for network in networks]
        torch.testing.assert_close(made.values, (alone[0] + alone[1]) / 2, atol=1e-5, rtol=1e-5)
        first = networks[0].forward(noise(2)).softmax(1)
        torch.testing.assert_close(made.probabilities, first[[0, 1], [1, 4]])
        slopes = [
            torch.autograd.grad(
                scores(network, units, resize(leaf, network.preprocessing.size))[0].sum(), leaf
            )[0]
            for network in networks
            for leaf in [noise().requires_grad_()]
        ]  # fmt: skip
    torch.testing.assert_close(made.gradient, (slopes[0] + slopes[1]) / 2, atol=1e-6, rtol=1e-3)


def test_the_statistics_of_an_ensemble_are_each_networks_own():
    networks = [normed(), normed()]
    networks[1].module.bn1.running_mean += 1
    units = parsed(networks[0], "class:1")
    fields = {"priors.statistics.weight": 3.0}
    with networks[0].borrowed(), networks[1].borrowed():
        used = objective(networks, fields)
        assert used.origins == ("batchnorm", "batchnorm")
        made = used(units, noise(1)).gradient
        alone = [objective(network, fields)(units, noise(1)).gradient for network in networks]
    torch.testing.assert_close(made, (alone[0] + alone[1]) / 2, atol=1e-6, rtol=1e-3)


def test_the_origins_say_where_each_networks_statistics_are_from(small):
    fields = {"priors.statistics.weight": 3.0}
    assert objective([normed(), small], fields).origins == ("batchnorm", "")
    assert objective([normed(), small]).origins == ("", "")


# Diversity


@pytest.mark.parametrize("text", ["class:1", "relu1:2", "relu2:1"])
def test_facets_are_told_apart_by_a_layer_wherever_the_unit_is(small, text):
    """Also where the layer is behind the unit's own."""
    units, groups = parsed(small, *[text] * 3), [7, 7, 3]
    fields = {"priors.diversity.weight": 4.0, "priors.diversity.layer": "relu2"}
    with small.borrowed():
        plain = objective(small)(units, noise(3)).gradient
        made = objective(small, fields)(units, noise(3), (), RowSettings(groups=groups), padding=5).gradient
        leaf, found = noise(3).requires_grad_(), []
        small.read(leaf, {"relu2": found.append})
        (slope,) = torch.autograd.grad(DiversityPenalty(weight=1)(found[0], groups).sum(), leaf)
    assert slope[:2].abs().max() > 0
    torch.testing.assert_close(made, plain - 4 * slope, atol=1e-4 * plain.abs().max(), rtol=1e-2)
    torch.testing.assert_close(made[2], plain[2], atol=1e-6, rtol=1e-4)


def test_which_layers_the_priors_read(small):
    network = normed()
    assert penalty_layers(network, recipe(priors__statistics__weight=1.0)) == []  # inputs of the normalisations only
    with_layer = recipe(priors__diversity__weight=1.0, priors__diversity__layer="relu1")
    assert penalty_layers(network, with_layer) == ["relu1"]
    assert penalty_layers(small, with_layer, first=False) == []
    with pytest.raises(InputError, match="no layer 'relu9'"):
        penalty_layers(network, recipe(priors__diversity__weight=1.0, priors__diversity__layer="relu9"))


def test_an_objective_that_does_not_depend_on_the_image_has_no_gradient(small):
    small.module.head.weight.data.zero_()
    with small.borrowed():
        made = objective(small)(parsed(small, "class:1"), noise(1))
    assert made.gradient.abs().max() == 0
    assert np.isfinite(made.values.item())


# Dead activations


def test_a_unit_that_is_dead_is_woken_through_its_activation():
    network = opened(seeded(Small), labels=LABELS)
    network.module.conv1.bias.data[2] = -100  # dead everywhere
    units = parsed(network, "relu1:2", "relu1:3", "relu1", "mean(relu1:2)", "relu1:2@3,4")
    with network.borrowed():
        plain, woken = (objective(network, {"redirect": asked})(units, noise(5)) for asked in (False, True))
        assert [value == 0 for value in plain.values.tolist()] == [True, False, False, True, True]
        assert [slope == 0 for slope in plain.gradient.abs().amax((1, 2, 3)).tolist()] == [
            True,
            False,
            False,
            True,
            True,
        ]
        assert woken.gradient.abs().amax((1, 2, 3)).min() > 0
        assert woken.values[0] < 0
        for row in (1, 2):
            assert torch.equal(woken.gradient[row], plain.gradient[row])
        for row in range(5):  # whatever else is in the batch
            alone = objective(network, {"redirect": True})(units[row : row + 1], noise(5)[row : row + 1])
            torch.testing.assert_close(alone.gradient[0], woken.gradient[row], atol=1e-6, rtol=1e-3)
