"""Every command of docs/atlas-map.md runs, as written, in its order, and its Python too."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import phosphene
from phosphene.atlas import activation_map, unit_map
from phosphene.cli.program import main
from phosphene.recipes.recipe import Recipe

pytest.importorskip("pyarrow")
DOCS = (Path(__file__).resolve().parents[1] / "docs" / "atlas-map.md").read_text(encoding="utf-8")
NET = """
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed({width})
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, {width}, 3), nn.ReLU())
        self.head = nn.Linear({width}, 4)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))
"""
SHORT = {
    "map": ["--steps", "1", "--grid", "2", "--positions", "9"], "plan": ["--steps", "1", "--frames", "0"],
}  # fmt: skip


@pytest.fixture
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, name, width in (("mynet", "MyNet", 12), ("othernet", "OtherNet", 10)):
        code = NET.format(name=name, width=width)
        Path(f"{file}.py").write_text(code)
        Path(f"{file}.toml").write_text("size = 20\nmean = 0.5\nstd = 0.25\n")
        scope: dict[str, object] = {}
        exec(code, scope)
        if name == "MyNet":
            torch.save(scope[name]().state_dict(), "trained.pth")
    Path("photographs").mkdir()
    random = np.random.default_rng(0)
    for index in range(8):
        pixels = random.integers(0, 90, (24, 24, 3)) + random.integers(0, 160, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(f"photographs/{index}.png")
    for module in (activation_map, unit_map):  # UMAP takes half a minute to be compiled
        monkeypatch.setattr(module, "lay_out", lambda vectors, seed: vectors[:, :2].clone().float())


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_the_commands_and_the_python_of_the_page(monkeypatch):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        short = [] if "--units" in words else SHORT.get(words[1], [])
        assert main([*words, *short]) == 0, command
    quick = Recipe.load("draft").override({"steps": 1})
    ascend = phosphene.ascend
    monkeypatch.setattr(phosphene, "ascend", lambda network, units, recipe: ascend(network, units, quick))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(block, names)
    assert len(names["result"]) == 1
    assert (names["row"], names["column"]) < (10, 10)
