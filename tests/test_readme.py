"""What the README shows, runs."""

import re
from pathlib import Path

import pytest
from torch import nn

import phosphene
from phosphene.recipes.files import recipe_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_examples_run(tmp_path, monkeypatch):
    """As written, but for the number of steps."""

    def ascend(network, units, recipe, **options):
        recipe = phosphene.Recipe.load(recipe) if isinstance(recipe, str) else recipe
        return real(network, units, recipe.override({"steps": 4}), **options)

    real = phosphene.ascend
    monkeypatch.setattr(phosphene, "ascend", ascend)
    monkeypatch.chdir(tmp_path)
    names = {"my_module": nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert {"130_flamingo.png", "grid.png", "objective.png", "run.json"} <= {path.name for path in tmp_path.rglob("*")}
    assert names["network"].labels[3].name == "three"
    assert names["network"].classes == 10


def test_the_command_that_ci_runs_is_the_readmes():
    command = 'python -m pip install -e ".[test]"'
    assert f"{command} && pytest -n 2\n" in README
    assert f"grep -m 1 -F '{command}' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_recipe_that_ships_is_told_of():
    told = README.replace("`yosinski-a` … `yosinski-d`", "`yosinski-a` `yosinski-b` `yosinski-c` `yosinski-d`")
    assert all(f"`{name}`" in told for name in recipe_names())
