"""An atlas of a dictionary's latents: planned, made, and shown with how often each is on, and what it leads to."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import written_network
from PIL import Image

import phosphene
from phosphene.atlas import dictionaries
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.errors import InputError

pytest.importorskip("pyarrow")
BODY = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))"
LATENTS = 12


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A network, a dictionary of its layer "1" whose last latent never fires, and photographs."""
    monkeypatch.chdir(tmp_path)
    network = written_network(tmp_path, "net", 0, BODY)
    random = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(2, LATENTS, 8, generator=random)
    bias = torch.full((LATENTS,), 0.1)
    bias[-1] = -1e6
    decoder = decoder.clone()
    decoder[3] = phosphene.open(network).module[4].weight[2].detach()
    phosphene.Dictionary(encoder, bias, decoder, torch.zeros(8), layer="1").save("sae.safetensors")
    Path("photographs").mkdir()
    colors = np.random.default_rng(0).integers(0, 255, (6, 20, 20, 3)).astype(np.uint8)
    for index, pixels in enumerate(colors):
        Image.fromarray(pixels).save(f"photographs/{index}.png")
    return network


def units_of_page() -> list[dict]:
    (data,) = Path("at/site").glob("*/data.js")
    columns = json.loads(re.sub(r"^window.ATLAS = |;$", "", data.read_text()))["columns"]
    (script,) = data.parent.glob("units-*.js")
    table = json.loads(script.read_text().partition("] = ")[2].removesuffix(";"))
    return [dict(zip(columns, row, strict=True)) for row in table]


@pytest.mark.slow
def test_an_atlas_of_latents(made, capsys):
    plan = ["atlas", "plan", "at", "--dictionary", "sae.safetensors", "-n", made, "--steps", "3", "--frames", "0"]
    assert main([*plan, "--live", "photographs"]) == 0
    assert "1 of 12 latents of sae.safetensors are on in none of 6" in " ".join(capsys.readouterr().out.split())
    (group,) = Store("at").plan().groups
    assert group.name == "1:sae:sae.safetensors"
    assert 11 not in group.indices
    assert main(plan) == 0
    Path("sae.safetensors").unlink()  # an atlas has its own copy
    dictionaries.find.cache_clear()
    assert main(["atlas", "run", "at"]) == 0
    rows = Store("at").rows()
    assert len(rows) == LATENTS
    assert rows[3]["unit"].startswith("1:sae:sae.safetensors=")
    assert main(["atlas", "site", "at", "--photographs", "photographs"]) == 0
    units = units_of_page()
    assert units[3]["label"] == "1, latent 3 of sae.safetensors"
    assert units[3]["nearest"][0][0] == 2
    assert units[3]["nearest"][0][2] == pytest.approx(1, abs=1e-3)
    assert units[-1]["frequency"] == [0, 0]
    assert 0 < max(unit["frequency"][0] for unit in units) <= 1
    assert all(unit["photographs"] for unit in units)


def test_how_often_a_latent_is_on_is_counted(made):
    network, dictionary = phosphene.open(made), phosphene.open_dictionary("sae.safetensors")
    files = sorted(Path("photographs").iterdir())
    counts, total = dictionaries.live_latents(network, "1", dictionary, "", "photographs")
    maps = network.activations(files, "1")["1"]
    wanted = torch.stack([dictionary.encode(image.flatten(1).T).gt(0).any(0) for image in maps]).sum(0)
    assert total == 6
    assert torch.equal(counts, wanted)


def test_a_dictionary_that_is_not_the_plans_is_refused(made):
    assert main(["atlas", "plan", "at", "--dictionary", "sae.safetensors", "-n", made, "--steps", "2"]) == 0
    (copy,) = Path("at/dictionaries").iterdir()
    other = torch.zeros(LATENTS, 8)
    phosphene.Dictionary(other, other[:, 0], other, torch.zeros(8)).save(copy)
    dictionaries.find.cache_clear()
    plan = Store("at").plan()
    with pytest.raises(InputError, match="is another, or damaged: its digest is"):
        plan.groups[0].unit(0, phosphene.open(made))
    copy.unlink()
    with pytest.raises(InputError, match=r"dictionaries/.*there is no such file|cannot be read"):
        plan.groups[0].unit(0, phosphene.open(made))


def test_a_dictionary_of_another_layer_is_refused_before_anything_is_planned(made, capsys):
    plan = ["atlas", "plan", "other", "--dictionary", "sae.safetensors", "-n", made]
    assert main([*plan, "--layer", "4"]) == 2
    assert "is of a layer of 8 channels, and 4 has 4" in " ".join(capsys.readouterr().err.split())
    assert not Path("other").exists()
