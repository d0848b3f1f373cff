"""What docs/transformers.md shows runs as written, but for networks that are elsewhere, and for steps."""

import re
import shlex
from glob import glob
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import seeded
from PIL import Image
from safetensors.torch import save_file

from phosphene.cli.program import main

pytest.importorskip("transformers")

from tiny_clip import save_clip

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "transformers.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("phosphene ")
    for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    for line in block.splitlines()
]
ELSEWHERE = {
    "timm:vit_small_patch14_dinov2.lvd142m": "small.py:vit",
    "clip:openai/clip-vit-base-patch32": "clip:clip",
}
TIMM = """
import timm

def vit():
    module = timm.models.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=64, depth=7, num_heads=4, num_classes=0, reg_tokens=1
    )
    module.pretrained_cfg = {"input_size": (3, 56, 56), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return module
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks under the names of the page, small and of random weights; photographs and a dictionary."""
    import transformers

    place = tmp_path_factory.mktemp("page")
    (place / "small.py").write_text(TIMM)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=7, num_attention_heads=2, image_size=28, patch_size=14
    )
    seeded(lambda: transformers.Dinov2Model(config)).save_pretrained(place / "folder")
    save_clip(place / "clip", layers=7)
    draw = np.random.default_rng(0)
    (place / "photographs").mkdir()
    for name in ["dog.jpg", *(f"photographs/{i:03}.png" for i in range(100))]:
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / name)
    generator = torch.Generator().manual_seed(0)
    weights = {"W_enc": (16, 8), "b_enc": (8,), "W_dec": (8, 16), "b_dec": (16,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in weights.items()}
    metadata = {"activation": "relu", "apply_b_dec_to_input": "true", "normalize_activations": "none"}
    metadata["layer"] = "encoder.layer.6"
    save_file(tensors, place / "sae.safetensors", metadata)
    return place


@pytest.mark.slow
def test_every_command_of_the_page_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for line in COMMANDS:
        words = [ELSEWHERE.get(word, word) for word in shlex.split(line)]
        words = [path for word in words for path in (glob(word) if "*" in word and "/" in word else [word])]
        if words[0] in ("filters", "classes"):
            words += ["--steps", "1"]
        if words[0] == "judge":
            words = [word for word in words if "activation_fn" in word or not word.endswith(".png")]
            words += ["--judges", "none"]
        if "--size" in words:
            words[words.index("--size") + 1] = "28"
        assert main(words) == 0, line
