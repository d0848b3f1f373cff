"""What docs/text-and-attention.md shows runs as written, but for networks that are elsewhere, and for steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_atlas import make_plan

import phosphene
from phosphene.atlas.store import Store
from phosphene.cli.program import main

pytest.importorskip("transformers")

from tiny_clip import save_clip

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "text-and-attention.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCS, re.DOTALL | re.MULTILINE))
ELSEWHERE = {"clip:openai/clip-vit-base-patch32": "clip:folder", "timm:vit_tiny_patch16_224": "tower"}


def blocks(section, language):
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands(section):
    lines = [line for block in blocks(section, "sh") for line in block.splitlines()]
    assert lines, section
    return [[ELSEWHERE.get(word, word) for word in shlex.split(line)[1:]] for line in lines]


@pytest.fixture(autouse=True)
def _a_folder_with_a_clip_and_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_clip(Path("folder"))
    Path("words.txt").write_text("fox\ndog\ncat\ndrawing\n")
    draw = np.random.default_rng(0)
    Path("photographs").mkdir()
    for name in ["dog.jpg", *(f"photographs/{i:02}.png" for i in range(24))]:
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(name)


@pytest.mark.slow
def test_an_image_for_a_text(monkeypatch):
    for words in commands("An image for a text"):
        assert main([*words, *(["--steps", "1"] if words[0] == "classes" else [])]) == 0, words
    real = phosphene.ascend

    def ascend(network, units, recipe):
        return real(network, units, phosphene.Recipe.load(recipe).override({"steps": 1, "views.count": 2}))

    monkeypatch.setattr(phosphene, "ascend", ascend)
    names = {}
    for block in blocks("An image for a text", "python"):
        exec(block, names)
    assert [factor for factor, _ in names["difference"][0].unit.parts] == [1, -0.5]
    scores = phosphene.show("phosphene-out/latest/text_a_red_fox.png")["scores"]
    assert scores["selectivity"]["of"] == 5


@pytest.mark.slow
def test_a_word_for_a_unit(capsys):
    network = phosphene.open("clip:folder")
    recipe = phosphene.Recipe.load("naive").override({"steps": 1})
    plan = make_plan(network, layers=["vision_model.encoder.layers.0.mlp"], count=3, recipe=recipe, judges=[], frames=0)
    Store("atlas").write_plan(plan)
    assert main(["atlas", "run", "atlas", "--trust", "-q"]) == 0
    (words,) = commands("A word for a unit")
    assert main([*words, "--trust"]) == 0
    assert "of 3 units are named by folder, from 5 of 24 photographs each" in capsys.readouterr().out
    assert all(row["word"] is not None for row in Store("atlas").rows())


@pytest.mark.slow
def test_where_a_transformer_looks():
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8
    )
    transformers.Dinov2Model(config).save_pretrained("tower")
    for words in commands("Where a transformer looks"):
        assert main([("tower" if word == "folder" else word) for word in words]) == 0, words
    assert len(list(Path("phosphene-out").glob("0*/attention_dog_*.png"))) == 2
    names = {"phosphene": phosphene, "network": phosphene.open("tower")}
    for block in blocks("Where a transformer looks", "python"):
        exec(block, names)
    assert names["maps"].rollout.shape == names["maps"].maps.shape[1:]
    assert torch.tensor(names["maps"].weights).isfinite().all()
