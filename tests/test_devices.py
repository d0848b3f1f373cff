"""Several processes that share the units out; here on the CPU, which may be named more than once."""

import numpy as np
import pytest
import torch
from torch import nn

import phosphene
import phosphene.api.again
from phosphene import Recipe
from phosphene.devices.names import parse_devices
from phosphene.devices.several import SharedCounter

TWO = ["cpu", "cpu"]
SHORT = Recipe.load("naive").override({"steps": 6})


@pytest.mark.slow
def test_the_same_pictures_come_from_two_processes_as_from_one(small, tmp_path):
    units = ["class:cat", "relu2:3", "class:dog", "class:horse", "relu1:0"]
    seen: list[str] = []
    precision = "fp32"  # of a process each, trials on a busy machine may choose differently
    shared = phosphene.ascend(
        small,
        units,
        SHORT,
        options=phosphene.RunOptions(TWO, precision=precision),
        callbacks=phosphene.Callbacks(picture=lambda made: seen.append(made.name)),
        seed=3,
    )
    alone = phosphene.ascend(small, units, SHORT, options=phosphene.RunOptions("cpu", precision=precision), seed=3)
    assert [picture.name for picture in shared] == [picture.name for picture in alone]
    assert sorted(seen) == sorted(picture.name for picture in alone)
    assert not shared.interrupted
    assert shared.not_started == []
    for one, other in zip(shared, alone, strict=True):
        # To the last bits of floating point: the batches differ.
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
        assert one.provenance()["recipe"] == other.provenance()["recipe"]
        assert one.network == other.network
    shared.save(tmp_path)
    assert phosphene.api.again.again(tmp_path / f"{shared[0].name}.png", small).same


@pytest.mark.slow
def test_facets_stay_together_and_all_report(small):
    reports = []
    recipe = Recipe.load("draft").override({"steps": 4, "priors.diversity.weight": 1.0})
    result = phosphene.ascend(
        small,
        ["class:0", "class:1"],
        recipe,
        facets=2,
        options=phosphene.RunOptions(TWO, precision="fp32"),
        callbacks=phosphene.Callbacks(progress=reports.append),
    )
    assert [picture.facet for picture in result] == [(0, 2), (1, 2)] * 2
    assert reports
    assert all(report.total == 4 and 0 <= report.work <= 1 for report in reports)


def test_one_device_in_a_list_is_as_that_device(small):
    result = phosphene.ascend(small, "class:0", SHORT, options=phosphene.RunOptions(device=["cpu"]))
    assert len(result) == 1
    assert (
        len(phosphene.ascend(small, "class:0", SHORT, options=phosphene.RunOptions(device=TWO))) == 1
    )  # one unit needs one process


@pytest.mark.parametrize(
    ("devices", "units", "message"),
    [
        ([], "class:0", "no device is given"),
        (["cpu", "gpu9"], ["class:0", "class:1"], "device 'gpu9' is not there"),
        (TWO, ["class:0", "class:unicorn"], "unicorn"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(small, devices, units, message):
    with pytest.raises(phosphene.InputError, match=message):
        phosphene.ascend(small, units, SHORT, options=phosphene.RunOptions(device=devices))


@pytest.mark.slow
def test_an_error_of_a_process_is_the_callers(small):
    with pytest.raises(phosphene.InputError, match="batch 0: expected at least 1"):
        phosphene.ascend(small, ["class:0", "class:1"], SHORT, options=phosphene.RunOptions(device=TWO, batch=0))


def test_a_network_that_no_other_process_can_have_is_refused():
    class Local(nn.Module):
        """Of this function, so that it cannot be handed on."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    network = phosphene.open(Local(), phosphene.Preprocessing(size=8))
    with pytest.raises(phosphene.InputError, match="Local cannot be handed to other processes"):
        phosphene.ascend(network, ["class:0", "class:1"], SHORT, options=phosphene.RunOptions(device=TWO))


def test_each_unit_is_handed_out_once():
    counter = torch.multiprocessing.get_context("spawn").Value("q", 0)
    first, second = iter(SharedCounter(counter, 5, 2)), iter(SharedCounter(counter, 5, 2))
    assert [next(first), next(second), next(second), next(first), next(second)] == [0, 1, 2, 3, 4]
    assert next(first, None) is next(second, None) is None


def test_devices_by_name():
    assert parse_devices("cpu, cpu") == [torch.device("cpu")] * 2
    count = torch.cuda.device_count()
    assert parse_devices(None) == [torch.device(f"cuda:{index}") for index in range(count)] or [torch.device("cpu")]
    with pytest.raises(phosphene.InputError, match="device 'gpu' is not there"):
        parse_devices("cpu,gpu")
