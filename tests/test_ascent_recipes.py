"""Every shipped recipe runs and raises the objective."""

import re

import numpy as np
import pytest
from helpers import Small, opened, seeded
from PIL import Image
from small_recipes import photograph, referring
from tiny import LABELS, vit

import phosphene
from phosphene import Recipe
from phosphene.recipes.files import recipe_names


@pytest.fixture(scope="module")
def made_small():
    return {"small": opened(seeded(Small), size=48, labels=LABELS), "vit": vit()}


@pytest.mark.parametrize("where", ["class", "hidden"])
@pytest.mark.parametrize("which", ["small", pytest.param("vit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_runs_and_raises_the_objective(made_small, tmp_path, name, which, where):
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
    recipe = recipe.for_network(network).override({"steps": 40})
    if recipe.optimizer.gradient == "raw" and recipe.optimizer.rate == 100:  # for sums over large maps
        recipe = recipe.override({"optimizer.rate": 1e5})
    if recipe.views.changes_colors:  # so much that a single step's objective says little
        recipe = recipe.override({"views.color_shift": 10.0, "views.color_gain": 0.05, "views.color_fade": 5.0})
    statistics = recipe.priors.statistics
    if "priors.statistics.source" in recipe.hidden or (statistics is not None and statistics.source == "unit"):
        for index in range(12):
            Image.fromarray(photograph((size, size), index)).save(tmp_path / f"{index:02}.png")
        recipe = recipe.override({"priors.statistics.photographs": str(tmp_path)})
    (picture,) = phosphene.ascend(network, unit, recipe, **options)
    assert picture.steps == 40
    if statistics is not None and statistics.compare == "sorted":  # the unit itself is not climbed
        assert np.isfinite(picture.objectives).all()
    else:
        assert np.mean(picture.objectives[-10:]) > np.mean(picture.objectives[:2])
