"""Every command of docs/compare.md runs, as written, in its order, and its Python too."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import written_network
from PIL import Image
from test_atlas import make_plan

import phosphene
from phosphene import ComparisonSettings, Recipe
from phosphene.atlas import work as atlas_work
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.networks import open as opening

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "compare.md").read_text(encoding="utf-8")
SHORT = {
    "compare": ["--pictures", "1", "--steps", "1", "--count", "2", "--grid", "2", "-r", "clip", "-q"],
    "atlas": ["--plain", "-q"],
}
SMALL = {"blocks.3.0.bn2.act=blocks.3.1.bn2.act": "1=3", "bn2.act": "3"}
BODY = "nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(720, 4))"


@pytest.fixture
def _files(tmp_path, monkeypatch):
    """A folder of photographs, small networks for the names that the page has, and an atlas of each."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("photographs").mkdir()
    for index in range(16):
        Image.fromarray(random.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(f"photographs/{index}.png")
    real = opening.open_network
    files = {name: written_network(tmp_path, name, seed, BODY) for seed, name in enumerate(("first", "second"))}
    known = {"efficientnet_lite0": real(files["first"]), "efficientnet_lite1": real(files["second"])}

    recipe = Recipe.load("clip").override({"steps": 1})
    for place, network in zip(("atlas-lite0", "atlas-lite1"), known.values(), strict=True):
        store = Store(place)
        store.write_plan(make_plan(network, classes=[], layers=["1", "3"], recipe=recipe, judges=[]))
        atlas_work.run(store.place)

    def open_small(network, *given, **options):
        by_weights = {"before.pth": "efficientnet_lite0", "after.pth": "efficientnet_lite1"}
        return known[by_weights.get(options.get("weights"), network)]

    for module in ("phosphene.networks.open", "phosphene.judges.panel"):
        monkeypatch.setattr(f"{module}.open_network", open_small)


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_the_commands_and_the_python_of_the_page(monkeypatch):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 4
    for command in commands:
        words = shlex.split(command.partition("  #")[0])[1:]
        given = [SMALL.get(word, word) for word in words]
        assert main([*given, *SHORT[words[0]]]) == 0, command
    settings = ComparisonSettings(count=2, grid=2)
    compare = phosphene.compare
    monkeypatch.setattr(phosphene, "compare", lambda a, b, given: compare(a, b, given, settings=settings))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(block.replace('"bn2.act"', '"3"'), names)
    assert names["match"].units.pairs.shape[1] == 2
    assert Path("phosphene-out/latest/compare.html").exists()
