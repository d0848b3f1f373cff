"""A picture is a record: it holds no network, and needs none."""

import gc
import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded

import phosphene
from phosphene import InputError, Preprocessing, Recipe
from phosphene.provenance.reading import read
from phosphene.provenance.records import NetworkRecord

RECIPE = Recipe.load("tence").override({"steps": 3, "optimizer.rate": 5.0, "optimizer.gradient": "rms"})
LABELS = ["cat", "dog", "tabby cat", "horse", "sea horse"]


def another(seed=1, name="another", **preprocessing):
    """A network like `small` with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Small()
    return phosphene.open(
        module, Preprocessing(**{"size": 20, "mean": 0.5, "std": 0.25} | preprocessing), LABELS, name=name
    )


def test_a_picture_keeps_no_network_alive():
    network = opened(seeded(Small), labels=LABELS)
    module = weakref.ref(network.module)
    (picture,) = phosphene.ascend(network, "class:dog", RECIPE)
    told = picture.provenance()
    del network
    gc.collect()
    assert module() is None
    assert (picture.label, picture.network_names) == ("dog", "small")
    assert picture.provenance() == told
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_a_picture_comes_back_from_a_pickle_as_it_was(small, tmp_path):
    recipe = RECIPE.override({"keep.every": 1})
    (picture,) = phosphene.ascend([small, another()], "class:horse", recipe)
    packed = pickle.dumps(picture)
    assert b"torch" not in packed
    unpacked = pickle.loads(packed)
    assert unpacked.network == picture.network
    assert unpacked.provenance() == picture.provenance()
    assert all(np.array_equal(one, other) for one, other in zip(unpacked.frames, picture.frames, strict=True))
    before, after = picture.save(tmp_path / "before"), unpacked.save(tmp_path / "after")
    assert before.read_bytes() == after.read_bytes()


def test_a_picture_tells_of_the_weights_that_it_was_made_with(small):
    (picture,) = phosphene.ascend(small, "relu1:2", RECIPE)
    weights = small.digest
    small.module.conv1.weight.data.add_(1)
    assert small.digest != weights
    assert picture.network.weights == picture.provenance()["network"]["weights"] == weights


def test_a_network_is_known_from_a_picture_as_from_its_file(lite0, tmp_path):
    for network in (lite0, another(crop=1, interpolation="nearest")):
        (picture,) = phosphene.ascend(network, "class:1", RECIPE.override({"steps": 1, "size": 32}))
        assert read(picture.save(tmp_path)).network == picture.network
        assert picture.network == NetworkRecord.of(network.with_input_size((32, 32)))


def test_a_picture_of_a_network_that_opens_again_is_judged_without_it(lite0):
    result = phosphene.ascend(lite0, ["class:teddy", "blocks.1.0.bn1.act:3"], RECIPE.override({"size": 64}))
    unpacked = pickle.loads(pickle.dumps(list(result)))
    assert phosphene.judge(unpacked, []) == phosphene.judge(result, []) == result.judge([])


def test_a_picture_of_a_network_of_ones_own_is_judged_with_it(small):
    result = phosphene.ascend(small, ["class:cat", "relu2:3"], RECIPE)
    with pytest.raises(InputError, match=r"image '000_cat' .* call phosphene.judge\(pictures, judges, network=network"):
        phosphene.judge(list(result), another())
    cards = phosphene.judge(list(result), another(), network=small)
    assert phosphene.judge(result, another()) == cards
    with pytest.raises(InputError, match="image '000_cat' was made with small of weights"):
        phosphene.judge(list(result), [], network=another())
    small.module.conv1.weight.data.add_(1)
    with pytest.raises(InputError, match="image '000_cat' was made with small of weights"):
        result.judge([])


def test_pictures_of_several_networks_are_each_judged_with_their_own(small):
    resized = small.replace(preprocessing=replace(small.preprocessing, mean=(0.4, 0.4, 0.4)))
    networks = [another(), small, resized]
    results = [phosphene.ascend(network, "class:cat", RECIPE) for network in networks]
    cards = phosphene.judge([picture for result in results for picture in result], [], network=networks)
    assert cards == [card for result in results for card in result.judge([])]


def test_no_member_of_an_ensemble_judges_it_nor_whatever_shares_its_weights(small):
    member = another(3, name="member")
    kin = another(4, name="kin")
    kin.module.conv2.load_state_dict(member.module.conv2.state_dict())
    result = phosphene.ascend([small, member], "class:cat", RECIPE)
    assert [network.name for network in result.networks] == [result.network.name, "member"] == ["small", "member"]
    for judge in (lambda: result.judge(kin), lambda: phosphene.judge(result[0], kin, network=[small, member])):
        with pytest.raises(InputError, match=r"judge kin shares weights .* with member"):
            judge()
    assert phosphene.judge(result[0], another(), network=small)
    with pytest.raises(InputError, match="judge member is member"):
        phosphene.judge(result[0], member, network=small)
