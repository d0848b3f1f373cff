"""The command and the Python of docs/difference.md run as written."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import SHALLOW, written_network
from PIL import Image

import phosphene
from phosphene import Recipe
from phosphene.cli.program import main

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "difference.md").read_text(encoding="utf-8")


@pytest.fixture
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("tuned", "original")):
        written_network(tmp_path, name, seed, SHALLOW)
    Path("photographs").mkdir()
    draw = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(f"photographs/{index}.png")


@pytest.mark.usefixtures("_files")
def test_the_page_runs_as_written(monkeypatch):
    (command,) = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    assert main([*shlex.split(command)[1:], "--steps", "1"]) == 0
    assert Path("phosphene-out/latest/difference.json").is_file()
    quick = Recipe.load("draft").override({"steps": 1})
    monkeypatch.setattr(Recipe, "load", classmethod(lambda cls, name: quick))
    names = {"phosphene": phosphene}
    (block,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    exec(block, names)
    assert Path("difference/difference.png").is_file()
    assert len(names["found"].classes[0].pictures) == 4
