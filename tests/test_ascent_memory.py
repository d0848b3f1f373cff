"""Batches are split to fit into memory, and halved where it runs out."""

import math

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from small_recipes import DIVERSE, FOURIER, GROWING, MOVING, UNITS, all_of, fourier, pixels, quick
from tiny import LABELS, Greedy, Normed

import phosphene
from phosphene import InputError


def test_the_memory_budget_splits_the_batch(small):
    row = 8 * sum(math.prod(layer.shape) for layer in small.layers)
    result = phosphene.ascend(small, UNITS, quick(3), options=phosphene.RunOptions(memory=2 * row))
    assert {size for picture in result for size, _ in picture.batches} == {2}
    assert len(result) == 7


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
