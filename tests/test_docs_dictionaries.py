"""Every command of docs/dictionaries.md runs, as written, in its order, and its Python too."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import phosphene
from phosphene.cli.program import main
from phosphene.recipes.recipe import Recipe

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "dictionaries.md").read_text(encoding="utf-8")
SHORT = {"filters": ["--steps", "1", "--size", "48", "-o", "out"]}
WIDTH = 1280


@pytest.fixture
def _files(tmp_path, monkeypatch):
    """Probes, two folders of photographs that differ, and dictionaries of the layer bn2.act."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("probes.npy", random.normal(size=(13, WIDTH)))
    for name, color in (("dogs", 0), ("cats", 120)):
        Path(name).mkdir()
        for index in range(5):
            pixels = (random.integers(0, 130, (40, 40, 3)) + color).astype(np.uint8)
            Image.fromarray(pixels).save(f"{name}/{index}.png")
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(16, WIDTH, generator=generator)
    torch.save({"dictionary._weights": weights, "encoder.weight": weights, "dictionary.multiplier": torch.tensor(0.0)},
               "trained.pt")  # fmt: skip
    zeros = torch.zeros(16)
    phosphene.Dictionary(weights, zeros, weights, torch.zeros(WIDTH), "topk", k=4, layer="bn2.act").save(
        "sae.safetensors"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_the_commands_and_the_python_of_the_page(monkeypatch, lite0):
    from phosphene.networks import open as opening

    real = opening.open_network

    def open_once(*given, **options):
        bundled = given[:1] == ("efficientnet_lite0",) and not any((*given[1:], *options.values()))
        return lite0 if bundled else real(*given, **options)

    monkeypatch.setattr(opening, "open_network", open_once)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command)[1:]
        assert main([*words, *SHORT.get(words[0], [])]) == 0, command
    quick = Recipe.load("draft").override({"steps": 1, "size": [48, 48]})
    ascend = phosphene.ascend
    monkeypatch.setattr(phosphene, "ascend", lambda network, units, recipe: ascend(network, units, quick))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(block, names)
    assert len(names["result"]) == 1
