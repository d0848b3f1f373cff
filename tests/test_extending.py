"""The examples of docs/extending.md run as written, and what they make is no part of a file."""

import re
from pathlib import Path

import numpy as np
import pytest

import phosphene
from phosphene import InputError
from phosphene.recipes.recipe import Recipe

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
OBJECTIVE, REGULARIZER, CANVAS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch, lite0):
    """Runs an example in few steps and small; returns its names."""
    monkeypatch.chdir(tmp_path)
    ascend = phosphene.ascend

    def quickly(network, units, recipe):
        assert network == "efficientnet_lite0"
        used = Recipe.load(recipe).override({"steps": 40, "size": [64, 64]})
        return ascend(lite0, units, used, options=phosphene.RunOptions("cpu", precision="fp32"))

    monkeypatch.setattr(phosphene, "ascend", quickly)

    def run(code):
        names = {"phosphene": phosphene}
        exec(code, names)
        return names

    return run


def refused(picture, folder):
    """Why an image cannot be made again from its file."""
    with pytest.raises(InputError) as error:
        phosphene.again(picture.save(folder))
    return str(error.value)


@pytest.mark.slow
def test_an_objective(run, tmp_path, lite0):
    names = run(OBJECTIVE)
    mine, plain = names["result"]
    assert mine.name == "objective_seven-not-three"
    assert np.mean(mine.objectives[-5:]) > np.mean(mine.objectives[:5])
    assert not np.array_equal(mine.pixels, plain.pixels)
    assert "objective(seven-not-three), a function that no file holds" in refused(mine, tmp_path)


def test_an_objective_of_units_is_their_sum(run, lite0):
    layer = "blocks.2.1.bn2.act"
    value = phosphene.Objective(lambda a: a[layer][0, 7].mean() - 0.5 * a[layer][0, 3].mean(), [layer], "both")
    recipe = Recipe.load("clip").override({"optimizer.rate": 0.5})  # which starts from the seed alone
    spelled = f"mean({layer}:7) - 0.5*mean({layer}:3)"
    made = [phosphene.ascend("efficientnet_lite0", unit, recipe)[0] for unit in (value, spelled)]
    assert made[0].objectives == pytest.approx(made[1].objectives, rel=1e-4)


@pytest.mark.parametrize(
    ("function", "layers", "sentence"),
    [
        (lambda a: a["relu2"], ["relu2"], r"objective 'mine' returns a tensor of shape \(1, 12, 12, 12\): expected"),
        (lambda a: 3.0, ["relu2"], "objective 'mine' returns float: expected a tensor of one number"),
        (lambda a: a["relu2"].sum(), [], "objective 'mine' reads no layer"),
        (lambda a: a["relu2"].sum(), ["relu9"], "relu9"),
    ],
)
def test_objectives_that_cannot_be(small, function, layers, sentence):
    with pytest.raises(InputError, match=sentence):
        phosphene.ascend(small, phosphene.Objective(function, layers, "mine"), "draft")


def test_an_objective_is_a_sum_of_its_own(small):
    mine = phosphene.Objective(lambda a: a["relu2"].sum(), ["relu2"], "mine")
    with pytest.raises(InputError, match="expected the sum within its function"):
        phosphene.Class(1) + mine


@pytest.mark.slow
def test_a_regularizer(run, tmp_path):
    names = run(REGULARIZER)
    (picture,) = names["result"]
    assert picture.provenance()["recipe"]["functions"][0].endswith("posterize")
    assert "posterize" in refused(picture, tmp_path)
    with pytest.raises(InputError, match="posterize"):
        names["recipe"].to_toml()


@pytest.mark.slow
def test_a_canvas(run, tmp_path):
    names = run(CANVAS)
    (picture,) = names["result"]
    assert (picture.pixels == picture.pixels[..., :1]).all()
    assert np.mean(picture.objectives[-5:]) > np.mean(picture.objectives[:5])
    assert picture.provenance()["recipe"]["canvas_function"].endswith("gray")
    assert "gray" in refused(picture, tmp_path)


def test_a_canvas_that_is_none_and_one_that_regularizers_cannot_change(small):
    with pytest.raises(InputError, match=r"is a str: expected a phosphene\.Canvas"):
        phosphene.ascend(small, "class:1", Recipe.load("draft").with_canvas(lambda *_: "canvas"))
    names: dict[str, object] = {"phosphene": phosphene}
    exec(CANVAS.partition("\nrecipe")[0], names)
    with pytest.raises(InputError, match=r"has regularizers \(clip"):
        phosphene.ascend(small, "class:1", Recipe.load("tence").with_canvas(names["gray"]))
