"""Every shipped recipe runs and raises the objective."""

import re

import numpy as np
import pytest
from helpers import SHARED, Small, opened, seeded
from small_recipes import photograph, referring
from tiny import LABELS, vit

import phosphene
from phosphene import Recipe
from phosphene.recipes.files import recipe_names


@pytest.fixture(scope="module")
def made_small():
    return {"small": opened(seeded(Small), size=48, labels=LABELS), "vit": vit()}


@pytest.mark.parametrize("where", ["class", "hidden"])
@pytest.mark.parametrize("which", ["small", "vit"])
@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_runs_and_raises_the_objective(made_small, name, which, where):
    """Views and regularizers make it fall from one step to the next: what is compared is its mean."""
    network, recipe = made_small[which], Recipe.load(name)
    size = network.preprocessing.height
    layer = {"small": "relu2", "vit": "blocks.2"}[which]
    unit = "class:cat" if where == "class" else f"{layer}:3"
    options = {}
    if asked := re.search(r"(match|caricature)\(LAYER\)", recipe.description):
        unit = referring(f"{asked[1]}({layer})", network, photograph((size, size)))
    if recipe.start.kind == "image":
        options["start"] = photograph((size, size), 1)
    recipe = recipe.for_network(network.name).override({"steps": 40})
    if recipe.optimizer.gradient == "raw" and recipe.optimizer.rate == 100:  # for sums over large maps
        recipe = recipe.override({"optimizer.rate": 1e5})
    (picture,) = phosphene.ascend(network, unit, recipe, **options)
    assert picture.steps == 40
    assert np.mean(picture.objectives[-10:]) > np.mean(picture.objectives[:2])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_filters_of_trained_vgg16_convolutions_rise_at_every_depth():
    from safetensors.torch import load_file
    from torchvision.models import vgg16

    module = vgg16().features
    weights = load_file(SHARED / "weights" / "vgg16_features.safetensors")
    module.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    imagenet = phosphene.Preprocessing(64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network = phosphene.open(module, imagenet, name="vgg16_features")
    units = ["3:10", "15:10", "28:10"]  # relu1_2 and relu3_3, which work in place, and conv5_3
    for picture in phosphene.ascend(network, units, Recipe.load("filters").override({"steps": 12})):
        assert picture.scores["objective"] - picture.objectives[0] > 2 * abs(picture.objectives[0])
