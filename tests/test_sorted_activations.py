"""Pictures whose activations are distributed as on the photographs of their unit (VITAL)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from PIL import Image

import phosphene
from phosphene import InputError, Recipe
from phosphene.ascent.sorted_activations import SortedPenalty, sorted_values
from phosphene.ascent.statistics import LayerMoments
from phosphene.ascent.step import schedule_factor
from phosphene.ascent.unit_statistics import WHOLE, UnitStatistics
from phosphene.photographs.listing import list_photographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for index in range(12):
        coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((30, 30), Image.Resampling.BICUBIC).save(folder / f"{index:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def network():
    return opened(seeded(Small))


def vital(folder, **fields):
    changes = {"steps": 40, "schedule.warmup": 4, "priors.statistics.top": 3, "priors.statistics.layer_count": 2}
    return Recipe.load("vital").override(changes | {"priors.statistics.photographs": str(folder)} | fields)


def penalty(wanted, found):
    entry = LayerMoments("layer", False, torch.zeros(1), torch.ones(1), 3.0)
    made = SortedPenalty([entry], torch.device("cpu"))
    readers, inputs = made.readers([0], [wanted])
    assert not inputs
    readers["layer"](found)
    return made


def test_where_things_are_costs_nothing_and_what_they_are_does():
    draw = torch.Generator().manual_seed(0)
    there = torch.randn(1, 5, 6, 6, generator=draw)
    moved = there.flatten(2)[..., torch.randperm(36, generator=draw)].view(1, 5, 6, 6)
    assert float(penalty(sorted_values(there), moved).penalties(1)) == 0
    assert float(penalty(sorted_values(there), moved + 0.5).penalties(1)) == pytest.approx(0.25, rel=1e-5)


def test_it_is_the_papers_formula_value_and_gradient():
    """Each value against the photographs' mean value of its rank."""
    draw = torch.Generator().manual_seed(1)
    photographs, image = torch.randn(7, 4, 5, 5, generator=draw), torch.randn(1, 4, 5, 5, generator=draw)
    mean = photographs.flatten(2).sort(-1).values.mean(0)
    rank = image.flatten(2)[0].argsort(-1).argsort(-1)
    ours, theirs = (image.clone().requires_grad_() for _ in range(2))
    found = penalty(sorted_values(photographs).mean(0)[None], ours).penalties(1).sum()
    expected = (theirs.flatten(2)[0] - mean.gather(-1, rank)).square().mean()
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_map_of_another_size_is_compared_by_its_distribution():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    assert float(penalty(sorted_values(ramp), torch.linspace(0, 1, 25).view(1, 1, 5, 5)).penalties(1)) < 1e-6


def test_layers_behind_the_unit_do_not_count():
    made = penalty(sorted_values(torch.zeros(2, 1, 4)), torch.ones(2, 1, 4))
    assert made.penalties(2, depths=[3, 2]).tolist() == [1, 0]


def test_the_photographs_are_those_that_excite_the_unit_most(network, folder):
    unit = phosphene.parse_unit("relu2:3", network)
    paths = [path for path in list_photographs(folder) if path.stem != "broken"]
    settings = vital(folder).priors.statistics
    with network.borrowed():
        statistics = UnitStatistics(network, settings, torch.device("cpu"))
        found = statistics.of([(unit, WHOLE), (unit, WHOLE)])
    values = network.activations(paths, ["relu2"])["relu2"][:, 3].sum((1, 2))
    top = [paths[index] for index in values.argsort(descending=True)[:3]]
    assert len(statistics.layers) == len(found) == 2
    for layer, of_layer in zip(statistics.layers, found, strict=True):
        expected = sorted_values(network.activations(top, [layer])[layer]).mean(0)
        for row in of_layer:
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_pictures_come_nearer_to_their_photographs_and_rows_are_independent(network, folder):
    units = ["relu2:3", "relu2:5"]
    alone = {"priors.norm": "off", "priors.total_variation": "off"}  # of so small a network, nothing beside them
    before, after = (phosphene.ascend(network, units, vital(folder, steps=steps, **alone)) for steps in (5, 60))
    with network.borrowed():
        statistics = UnitStatistics(network, vital(folder).priors.statistics, torch.device("cpu"))
        wanted = statistics.of([(phosphene.parse_unit(unit, network), WHOLE) for unit in units])

    def distances(result):
        pixels = torch.stack([torch.tensor(picture.pixels).movedim(-1, 0).float() for picture in result])
        found = network.activations(pixels, statistics.layers)
        of_layers = [
            (sorted_values(found[layer]) - aim).square().mean((1, 2))
            for layer, aim in zip(statistics.layers, wanted, strict=True)
        ]
        return torch.stack(of_layers).mean(0)

    assert bool((distances(after) < 0.5 * distances(before)).all())
    (one,) = phosphene.ascend(network, units[1], vital(folder, steps=60, **alone))
    assert np.abs(one.pixels.astype(int) - after[1].pixels).max() <= 1


def test_the_rate_rises_and_falls():
    schedule = Recipe.load("vital").schedule
    factors = [schedule_factor(schedule, step, 2000) for step in range(1, 2001)]
    assert factors[0] == 0.01
    assert factors[99] == 1.0
    assert factors[1999] == pytest.approx(0, abs=1e-5)
    assert all(a >= b for a, b in pairwise(factors[99:]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"priors.statistics.source": "auto"}, "compare sorted is of photographs: expected source unit, not auto"),
        ({"priors.statistics.side": "above"}, "compare sorted knows no side: expected both"),
    ],
)
def test_what_it_cannot_is_said(folder, fields, message):
    with pytest.raises(InputError, match=message):
        vital(folder, **fields)


def test_it_needs_photographs(network):
    with pytest.raises(InputError, match="expected a folder of photographs"):
        phosphene.ascend(network, "relu2:3", "vital")
