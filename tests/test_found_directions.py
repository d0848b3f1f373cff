"""Directions that are found in photographs, whitened, written and shown; and the command line of dictionaries."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import written_network
from PIL import Image

import phosphene
from phosphene import InputError
from phosphene.cli.program import main
from phosphene.photographs.directions import whitened
from phosphene.units.spelling import parse_unit

BODY = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 4))"


@pytest.fixture(autouse=True)
def _photographs(tmp_path, monkeypatch):
    """Folders of red, of blue, and of any noise."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, color in (("red", (120, 0, 0)), ("blue", (0, 0, 120)), ("any", (60, 60, 60)), ("some", (60, 60, 60))):
        (tmp_path / name).mkdir()
        for index in range(10):
            pixels = random.integers(0, 120, (20, 20, 3)) + np.array(color)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{index}.png")


def test_a_difference_of_means_is_what_it_says(small):
    found = phosphene.difference_of_means(small, "relu2", "red", "blue")
    means = [
        small.activations([f"{name}/{index}.png" for index in range(10)], "relu2")["relu2"].mean((2, 3)).mean(0)
        for name in ("red", "blue")
    ]
    torch.testing.assert_close(found.vector, means[0] - means[1], atol=1e-5, rtol=1e-4)
    assert found.counts == (10, 10)
    assert found.auc[0] > 0.95
    assert found.accuracy > 0.9
    assert not found.is_useless


def test_a_direction_that_tells_nothing_apart_is_told(small):
    found = phosphene.difference_of_means(small, "relu2", "any", "some")
    assert found.is_useless
    assert found.auc[1] > 0


def test_whitening_takes_the_inverse_second_moment(small):
    files = [f"red/{index}.png" for index in range(10)]
    vectors = small.activations(files, "relu2")["relu2"].flatten(2).movedim(1, -1).flatten(0, 1).double()
    moment = vectors.T @ vectors / len(vectors)
    direction = torch.randn(12, generator=torch.Generator().manual_seed(0))
    found = phosphene.whiten_direction(small, "relu2", direction, "red").vector.double()
    damped = moment + 0.01 * moment.diagonal().mean() * torch.eye(12)
    torch.testing.assert_close(damped @ found, direction.double(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whitened(direction, torch.eye(12).double(), 0.0), direction.double())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("relu3", "red", "blue"), "no layer 'relu3'"),
        (("relu2", "red", "none"), "there is no such folder"),
        (("relu2", "red", ["blue/1.png"] * 3), "3 photographs in .*: expected at least 4 of each kind"),
        (("relu2", "red", "red"), "excite relu2 alike"),
    ],
)
def test_photographs_that_make_no_direction_are_refused(arguments, sentence, small):
    with pytest.raises(InputError, match=sentence):
        phosphene.difference_of_means(small, *arguments)
    with pytest.raises(InputError, match="expected cls or patches"):
        phosphene.difference_of_means(small, "relu2", "red", "blue", tokens="registers")
    with pytest.raises(InputError, match="'cls': relu2 has none"):
        phosphene.difference_of_means(small, "relu2", "red", "blue", tokens="cls")


def test_a_direction_is_written_and_shown(tmp_path, capsys):
    network = written_network(tmp_path, "net", 0, BODY)
    assert main(["direction", "red", "blue", "--layer", "1", "-n", network, "-o", "red-blue.safetensors"]) == 0
    assert "chance 0.50" in capsys.readouterr().out
    opened = phosphene.open(network)
    unit = parse_unit("direction:red-blue.safetensors", opened)
    assert unit.layer == "1"
    assert unit.name == "red-blue.safetensors"
    assert parse_unit("1:[red-blue.safetensors]", opened) == unit
    made = ["-n", network, "--steps", "2", "-o", "out"]
    assert main(["filters", "direction:red-blue.safetensors", "cos(1:[red-blue.safetensors])", *made]) == 0
    whiten = [
        "direction",
        "red-blue.safetensors",
        "--layer",
        "1",
        "--whiten",
        "any",
        "-n",
        network,
        "-o",
        "w.safetensors",
    ]
    capsys.readouterr()
    assert main([*whiten, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["whitened"]
    assert told["layer"] == "1"
    assert "vector" not in told
    assert parse_unit("direction:w.safetensors", opened) != unit
    assert main(["direction", "any", "some", "--layer", "1", "--whiten", "-n", network]) == 0
    assert "no better than chance" in capsys.readouterr().out
    assert main(["direction", "red", "--layer", "1", "-n", network]) == 2
    assert "expected two folders of photographs" in capsys.readouterr().err


def test_a_dictionary_is_described_and_what_it_does_not_say_is_said(tmp_path, capsys):
    state = {"W_enc": torch.randn(8, 16), "W_dec": torch.randn(16, 8), "b_enc": torch.zeros(16), "b_dec": torch.ones(8)}
    safetensors.torch.save_file(state, "raw.safetensors")
    assert main(["dictionary", "raw.safetensors"]) == 2
    assert "--set apply_b_dec_to_input=" in capsys.readouterr().err
    said = ["activation=topk", "k=3", "apply_b_dec_to_input=true", "normalize_activations=none", "layer=1"]
    words = [word for pair in said for word in ("--set", pair)]
    assert main(["dictionary", "raw.safetensors", *words, "-o", "sae.safetensors"]) == 0
    assert "topk, k 3" in capsys.readouterr().out
    network = written_network(tmp_path, "net", 0, BODY)
    assert main(["filters", "sae:sae.safetensors:1,4", "-n", network, "--steps", "2", "-o", "out"]) == 0
    assert main(["judge", "out", "-n", network, "--judges", "none"]) in (0, 2)
    assert main(["dictionary", "sae.safetensors", "--set", "k"]) == 2
