"""What several networks take for a class; and networks are handed back as they came."""

import contextlib
import copy
import signal

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from small_recipes import DIVERSE, FOURIER, MOVING, PULLED, all_of, pressed_at, quick
from tiny import LABELS, normed

import phosphene
from phosphene import InputError
from phosphene.pixels.resampling import resize


def ensemble():
    second = phosphene.open(
        seeded(Small), phosphene.Preprocessing(16, value_range=(-100, 100), channel_order="BGR"), LABELS, name="other"
    )
    second.module.head.weight.data *= 5
    return [normed(), second]


def state_of(network):
    return [
        (name, module.training, set(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks),
         {key: (id(value), value is not None and value.requires_grad) for key, value in module._parameters.items()})
        for name, module in network.module.named_modules()
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["well", "an exception", "Ctrl-C", "Ctrl-C twice"])
def test_networks_are_handed_back_as_they_came(request, ending):
    networks = ensemble()
    networks[0].module.train()
    networks[1].module.conv1.weight.requires_grad_(False)
    before = [(state_of(network), copy.deepcopy(network.module.state_dict())) for network in networks]

    def failing(progress):
        raise ZeroDivisionError

    on_progress = {"an exception": failing, "well": None}.get(ending, pressed_at(0.3))
    recipe = all_of(FOURIER, MOVING, PULLED, DIVERSE)
    ends = {"an exception": pytest.raises(ZeroDivisionError), "Ctrl-C twice": pytest.raises(KeyboardInterrupt)}
    original = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, original))
    patched = signal.getsignal(signal.SIGINT)
    with ends.get(ending, contextlib.nullcontext()):
        made = phosphene.ascend(
            networks,
            "class:cat",
            recipe,
            facets=2,
            callbacks=phosphene.Callbacks(
                progress=on_progress,
                picture=(lambda picture: signal.raise_signal(signal.SIGINT)) if ending == "Ctrl-C twice" else None,
            ),
        )
        assert made.interrupted == (ending == "Ctrl-C")
    assert signal.getsignal(signal.SIGINT) is patched
    assert networks[0].module.conv1.bias is None
    for network, (state, weights) in zip(networks, before, strict=True):
        assert state_of(network) == state
        for name, value in network.module.state_dict().items():
            assert torch.equal(value, weights[name]), name


def test_an_ensemble_shows_what_all_its_networks_take_for_the_class():
    networks = ensemble()
    recipe = all_of(FOURIER, steps=40)

    def logit(network, picture):
        size = network.preprocessing.size
        image = torch.from_numpy(picture.pixels).movedim(-1, 0)[None].float()
        with network.borrowed(), torch.no_grad():
            return network.forward(resize(image, size))[0, 1].item()

    (both,) = phosphene.ascend(networks, "class:dog", recipe)
    assert both.network_names == "small + other"
    assert both.scores["objective"] == pytest.approx(logit(networks[0], both), abs=1e-4)
    (first,) = phosphene.ascend(networks[:1], "class:dog", recipe)
    assert logit(networks[1], both) > logit(networks[1], first)
    assert logit(networks[0], both) > both.objectives[0]
    (again,) = phosphene.ascend(networks, ["class:dog", "class:cat"], recipe)[:1]
    assert np.abs(again.pixels.astype(int) - both.pixels).max() <= 1


@pytest.mark.slow
def test_one_network_at_two_sizes_is_an_ensemble_too():
    network = normed()
    recipe = all_of(FOURIER, {"priors.statistics.weight": 0.1}, steps=30)
    digests = []
    (picture,) = phosphene.ascend(
        [network, network.with_input_size((18, 18))],
        "class:1",
        recipe,
        callbacks=phosphene.Callbacks(picture=lambda made: digests.append(made.provenance()["ensemble"][0]["weights"])),
    )
    assert digests == [network.digest]
    assert picture.statistics == ("batchnorm", "batchnorm")
    assert picture.scores["objective"] > picture.objectives[0]
    twice = phosphene.ascend([network, network], "class:1", recipe)[0]
    assert np.abs(twice.pixels.astype(int) - phosphene.ascend(network, "class:1", recipe)[0].pixels).max() <= 1


def test_ensembles_that_cannot_be_are_refused():
    first, second = ensemble()
    with pytest.raises(InputError, match="relu1:2 is of one network, and 2 are given: an ensemble shows classes only"):
        phosphene.ascend([first, second], ["class:1", "relu1:2"], quick(2))
    with pytest.raises(InputError, match="is of one network"):
        phosphene.ascend([first, second], "class:1 - 0.5*relu1:2", quick(2))
    others = second.replace(labels=["cat", "dog", "tabby cat", "horse", "seal"])
    with pytest.raises(InputError, match="small and other do not tell the same classes: expected networks that do"):
        phosphene.ascend([first, others], "class:1", quick(2))
    grey = opened(seeded(Small, 1), channels=1, labels=LABELS)
    with pytest.raises(InputError, match="takes images of 3 channels and small of 1: expected networks that take the"):
        phosphene.ascend([first, grey], "class:1", quick(2))
    with pytest.raises(InputError, match="no network is given: expected at least one"):
        phosphene.ascend([], "class:1", quick(2))
