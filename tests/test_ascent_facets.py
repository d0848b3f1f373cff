"""Facets: several images of a unit that differ."""

import numpy as np
import pytest
import torch
from small_recipes import DIVERSE, FOURIER, MOVING, PULLED, all_of
from tiny import normed

import phosphene
from phosphene import defaults
from phosphene.recipes.penalties import DiversityPenalty


def alike(network, pictures):
    """The mean cosine of the features of pictures."""
    found = []
    images = torch.stack([torch.from_numpy(picture.pixels) for picture in pictures]).movedim(-1, 1).float()
    with network.borrowed(), torch.no_grad():
        network.read(images, {"relu2": found.append})
    return DiversityPenalty(weight=1)(found[0], [0] * len(pictures)).mean().item()


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
        assert [picture.seed for picture in result] == [defaults.SEED + i for i in range(4)]
        assert len({picture.name for picture in result}) == 4


@pytest.mark.slow
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
