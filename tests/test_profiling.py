import json
import math

import pytest
from helpers import Small, opened, seeded
from tiny import normed
from torch import nn

import phosphene
from phosphene.cli.program import main
from phosphene.doctor import profiling
from phosphene.doctor.profiling import profile


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch):
    monkeypatch.setattr(profiling, "PEAK_SIDE", 256)


@pytest.mark.parametrize(
    ("unit", "recipe"), [("class:1", "natural"), ("relu2:3", "tence"), ("class:2", "deepinversion")]
)
def test_the_parts_are_the_step(unit, recipe):
    found = profile(normed(), unit, recipe, batch=3, rounds=2)
    assert math.fsum(found.parts.values()) == pytest.approx(found.step)
    assert found.batch == 3
    assert min(found.step, found.plain, found.peak, found.parts["network"]) > 0
    assert 0 < found.share_of_peak < 1
    assert (found.parts["regularizers"] > 0) == (recipe != "natural")


def test_operations_are_those_of_the_layers_up_to_the_unit():
    network = opened(seeded(Small))
    first = 24 * 24 * 8 * 27  # of conv1, multiplications an image
    # Forward and backward to the input are two operations each.
    assert profile(network, "relu1:3", "naive", batch=4, rounds=1).operations == 4 * 4 * first
    assert profile(network, "class:3", "naive", batch=4, rounds=1).operations > 4 * 4 * first


def test_a_unit_that_cannot_be_climbed_cannot_be_timed():
    module = seeded(Small)
    nn.init.constant_(module.conv2.bias, -1e6)
    with pytest.raises(phosphene.InputError, match=r"relu2:3 cannot be timed: dead unit.* after 1 step"):
        profile(opened(module), "relu2:3", "naive", rounds=1)


@pytest.mark.slow
def test_on_the_command_line(capsys):
    arguments = ["profile", "-r", "naive", "--batch", "2", "--size", "64", "blocks.0.0.bn1.act:3"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "a step of 2 images" in printed
    assert "GFLOP/s" in printed
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"parts", "step", "plain", "share_of_peak", "precision"}
    assert main([*arguments[:-1], "nowhere:3"]) == 2
