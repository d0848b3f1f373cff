"""Every command of docs/explain.md runs, as written, in its order, and its Python too."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_atlas import make_plan

from phosphene import Recipe
from phosphene.atlas import work as atlas_work
from phosphene.atlas.store import Store
from phosphene.cli.program import main

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "explain.md").read_text(encoding="utf-8")
SMALL = ["--size", "64", "--steps", "1", "--integration-steps", "4", "--window", "32"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def _files(tmp_path, monkeypatch, lite0):
    """A photograph, a folder of them, and an atlas of one class."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("photographs").mkdir()
    for name in ("cat.png", "photographs/a.png", "photographs/b.png"):
        Image.fromarray(random.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(name)
    recipe = Recipe.load("clip").override({"steps": 1, "size": [32, 32]})
    store = Store("atlas")
    store.write_plan(make_plan(lite0, classes=[281], layers=[], recipe=recipe, judges=[], frames=0))
    atlas_work.run("atlas")


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_the_commands_and_the_python_of_the_page(monkeypatch, lite0):
    from phosphene.networks import open as opening

    real = opening.open_network

    def open_once(*given, **options):
        bundled = given[:1] == ("efficientnet_lite0",) and not any((*given[1:], *options.values()))
        return lite0 if bundled else real(*given, **options)

    monkeypatch.setattr(opening, "open_network", open_once)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command)[1:]
        short = [word if word != "blocks.3.0.bn2.act:12@7,7" else "blocks.3.0.bn2.act:12@1,1" for word in words]
        assert main([*short, *SMALL]) == 0, command
    assert Path("phosphene-out/latest/explain.html").is_file()
    assert Path("phosphene-out/latest/accentuated.png").is_file()
    for block in blocks("python"):
        small = block.replace('("efficientnet_lite0")', '("efficientnet_lite0").with_input_size((64, 64))')
        assert small != block
        exec(small, {})
    assert Path("maps.png").is_file()
