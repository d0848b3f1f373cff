"""Weights files as people have them: wrapped in dictionaries, with prefixes before the names, with averages beside."""

from __future__ import annotations

import argparse
import logging
import pathlib

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.errors import InputError
from phosphene.networks.weights import put_weights, read_weights


def net(classes: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def put(content: object, folder: pathlib.Path, partial: bool = False) -> nn.Sequential:
    torch.save(content, folder / "w.pth")
    module = net()
    put_weights(module, read_weights(folder / "w.pth"), "net", "w.pth", partial)
    return module


def same(module: nn.Module, state: dict) -> bool:
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


STATE = net().state_dict()
EMA = {key: value + 1 for key, value in STATE.items()}
OPTIMIZER = torch.optim.Adam(net().parameters()).state_dict()
WRAPS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "state", "weights", "params", "ema", "model_ema"),
    *("state_dict_ema", "teacher", "student", "generator"),
)


@pytest.mark.parametrize("key", WRAPS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "encoder."])
def test_wrapped_and_prefixed_weights_are_found(key, prefix, tmp_path):
    state = prefixed(STATE, prefix)
    contents = [
        {key: state, "epoch": 3, "optimizer": OPTIMIZER, "loss": torch.tensor(0.5)},
        {"checkpoint": {key: {"inner": state}}, "best": 0.3},
    ]
    for content in contents:
        assert same(put(content, tmp_path), STATE)


def test_a_counter_of_averaged_models_is_no_weight(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(net())
    assert same(put(averaged.state_dict(), tmp_path), averaged.module.state_dict())


def test_of_several_that_fit_the_plain_one_is_taken_and_said(tmp_path, caplog):
    for content in (
        {"model_ema": EMA, "model": STATE},
        {"teacher": prefixed(EMA, "module."), "student": prefixed(STATE, "module.")},
        {"state_dict": prefixed(EMA, "ema_model.") | prefixed(EMA, "swa.") | prefixed(STATE, "model.")},
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "phosphene"):
            assert same(put(content, tmp_path), STATE)
        assert len(caplog.messages) == 1
        assert "would fit too" in caplog.text
    caplog.clear()
    assert same(put({"ema": EMA, "model": net(7).state_dict()}, tmp_path), EMA)
    assert not caplog.messages


def test_options_beside_the_weights_are_passed_over(tmp_path):
    content = {
        "model": STATE,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
        "best": np.float64(93.1),
        "acc": np.float32(0.5),
    }
    assert same(put(content, tmp_path), STATE)


def test_what_does_not_fit_is_said_of_the_nearest(tmp_path):
    state = prefixed(net(7).state_dict(), "module.")
    with pytest.raises(InputError) as error:
        put({"epoch": 3, "optimizer": OPTIMIZER, "model": state, "loss": 0.1}, tmp_path)
    assert "nearest are the names behind 'module.' of 'model'" in str(error.value)
    assert "2 have another shape (4.weight: (7, 8) for (5, 8))" in str(error.value)
    assert "the file has 'epoch', 'optimizer', 'model', 'loss'" in str(error.value)
    with pytest.raises(InputError, match=r"holds no state dictionary: expected names and tensors, .* has 'a', 'b'$"):
        put({"a": 1, "b": "c"}, tmp_path)
    left = prefixed(STATE | {"more.weight": torch.zeros(1)}, "model.")
    with pytest.raises(InputError, match=r"1 are not of this network \(more.weight, …\)"):
        put(left, tmp_path)


def test_partial_weights_behind_a_prefix(tmp_path):
    convolution = {key: value for key, value in STATE.items() if key.startswith("0.")}
    module = put({"state_dict": prefixed(convolution, "model.")}, tmp_path, partial=True)
    assert torch.equal(module[0].weight, STATE["0.weight"])
    with pytest.raises(InputError, match="--partial"):
        put({"state_dict": prefixed(convolution, "model.")}, tmp_path)


def test_a_pickled_module_stays_refused(tmp_path):
    for content in (net(), {"model": net()}, argparse.Namespace(model=STATE)):
        with pytest.raises(InputError, match=r"holds more than tensors.*torch\.save\(module\.state_dict\(\), …\)"):
            put(content, tmp_path)
