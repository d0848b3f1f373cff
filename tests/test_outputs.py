"""Which tensor is the logits, what comes after them, and networks that give none, against the module run by hand."""

import collections
import dataclasses
import math
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest
import timm
import torch
import torch.nn.functional as F
from reference import ascended, check_scores, close, inputs, made, opened, own
from torch import Tensor, nn

import phosphene
from phosphene import InputError
from phosphene.cli.program import main

Pair = collections.namedtuple("Pair", ["features", "logits"])


@dataclasses.dataclass
class Answer:
    maps: Tensor
    scores: Tensor


class Told(nn.Module):
    """Maps, features, logits of five classes and of three, put together in some way."""

    def __init__(self, put: Any):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.fc, self.other = nn.Linear(8, 5), nn.Linear(8, 3)
        self.put = put

    def forward(self, x: Tensor) -> Any:
        maps = self.act(self.conv(x))
        features = maps.mean((2, 3))
        return self.put(maps, features, self.fc(features), self.other(features))


def model_output(maps: Tensor, features: Tensor, logits: Tensor, other: Tensor) -> Any:
    from transformers.modeling_outputs import ImageClassifierOutput

    return ImageClassifierOutput(logits=logits, hidden_states=(maps, maps))


PUT = {
    "tensor": lambda maps, features, logits, other: logits,
    "tuple": lambda maps, features, logits, other: (logits, maps),
    "features first": lambda maps, features, logits, other: (features, logits),
    "list": lambda maps, features, logits, other: [maps, logits],
    "dict": lambda maps, features, logits, other: {"features": features, "logits": logits},
    "dict without a known key": lambda maps, features, logits, other: {"maps": maps, "answer": logits},
    "nested": lambda maps, features, logits, other: {"head": {"pred": logits}, "stem": [maps, (features,)]},
    "namedtuple": lambda maps, features, logits, other: Pair(features, logits),
    "dataclass": lambda maps, features, logits, other: Answer(maps, logits),
    "pixels as maps": lambda maps, features, logits, other: logits[..., None, None],
}


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_the_logits_are_found_among_several_tensors(put):
    module = made(Told, put)
    network = opened(module)
    assert network.classes == 5
    assert network.notes == {}
    check_scores(network, module, "fc", lambda output, unit: output[0, unit.index], "class:1", "class:4")
    check_scores(network, module, "act", lambda output, unit: output[0, unit.channel].sum(), "act:3")


def test_the_logits_are_found_in_an_output_of_transformers():
    pytest.importorskip("transformers")
    module = made(Told, model_output)
    assert opened(module).classes == 5
    check_scores(opened(module), module, "fc", lambda output, unit: output[0, unit.index], "class:4")


def test_of_two_heads_the_first_is_taken_and_said_and_output_chooses_another():
    module = made(Told, lambda maps, features, logits, other: {"animal": logits, "color": other})
    guessed = opened(module)
    assert guessed.classes == 5
    (said,) = guessed.notes.values()
    assert "'animal' is taken" in said
    assert "color" in said
    for asked in ("color", 1):
        network = opened(module, output=asked)
        assert network.classes == 3
        assert network.notes == {}
        check_scores(network, module, "other", lambda output, unit: output[0, unit.index], "class:2")
    assert opened(module, output="animal").notes == {}


def test_output_names_what_lies_deep():
    module = made(Told, lambda maps, features, logits, other: {"a": {"x": logits}, "b": [other, maps]})
    assert opened(module, output="b.0").classes == 3
    assert opened(module, output="x").classes == 5
    assert opened(module, output="b.1").layer("output").shape == (8, 16, 16)


@pytest.mark.parametrize("asked", ["colour", 7, "b.9"])
def test_an_output_that_is_not_there_is_answered_with_those_that_are(asked):
    module = made(Told, lambda maps, features, logits, other: {"animal": logits, "color": other})
    with pytest.raises(InputError, match=rf"output '{asked}' of Told: expected one of animal(, | and | or )color"):
        opened(module, output=asked)


def test_output_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text("size = 16\n")
    (tmp_path / "two.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x).relu().mean((2, 3))\n"
        "        return {'animal': self.a(y), 'color': self.b(y)}\n"
    )
    arguments = ["classes", "4", "-n", "two.py:Net", "--steps", "1"]
    assert main([*arguments, "--output", "color"]) == 2
    assert "0 to 2" in capsys.readouterr().err
    assert main([*arguments, "--output", "colour"]) == 2
    assert "did you mean color" in capsys.readouterr().err
    assert main([*arguments, "--output", "animal", "-o", "out"]) == 0


# What comes after the logits.


class Ended(nn.Module):
    """A classifier of so many classes, with something behind its logits."""

    def __init__(self, count: int, end: Any, scale: float = 3.0):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, count)
        self.end = end
        with torch.no_grad():
            self.fc.weight *= scale

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.fc(self.conv(x).relu().mean((2, 3))))


# The classes, what comes behind, what of the output is the probability of class 2 (or 0), and what is shown.
ENDS = {
    "sigmoid, a module": (5, nn.Sigmoid(), lambda y: y[0, 2]),
    "sigmoid, a function": (5, torch.sigmoid, lambda y: y[0, 2]),
    "sigmoid, F's": (5, F.sigmoid, lambda y: y[0, 2]),
    "sigmoid, a method": (5, lambda y: y.sigmoid(), lambda y: y[0, 2]),
    "sigmoid, in place": (5, lambda y: y.sigmoid_(), lambda y: y[0, 2]),
    "softmax, a module": (5, nn.Softmax(1), lambda y: y[0, 2]),
    "softmax, a method": (5, lambda y: y.softmax(-1), lambda y: y[0, 2]),
    "log_softmax, a module": (5, nn.LogSoftmax(1), lambda y: y[0, 2].exp()),
    "log_softmax, a function": (5, lambda y: F.log_softmax(y, dim=1), lambda y: y[0, 2].exp()),
    "binary, (rows, 1)": (1, torch.sigmoid, lambda y: y[0, 0]),
    "binary, (rows,)": (1, lambda y: y.squeeze(1).sigmoid(), lambda y: y[0]),
    "binary, squeezed behind": (1, lambda y: torch.sigmoid(y).squeeze(1), lambda y: y[0]),
    "softmax, flattened behind": (5, lambda y: y[..., None, None].softmax(1).flatten(1), lambda y: y[0, 2]),
}


@pytest.mark.parametrize(("count", "end", "probability"), ENDS.values(), ids=ENDS)
def test_a_softmax_or_sigmoid_at_the_end_is_bypassed_and_gives_the_probabilities(count, end, probability):
    module = made(Ended, count, end)
    network = opened(module)
    assert network.classes == count
    assert network.ending is not None
    unit = f"class:{min(2, count - 1)}"
    # Where the sigmoid works in place, what the last layer holds afterwards is no logit.
    result = ascended(network, unit)
    untouched = made(Ended, count, lambda y: y)
    images = inputs(network, result.pixels[0])
    assert result[0].scores["objective"] == close(own(untouched, images)[0, min(2, count - 1)].item())
    assert result[0].scores["probability"] == close(probability(own(module, images)).item())


@pytest.mark.parametrize(
    "end",
    [
        lambda y: y.softmax(1).clamp(1e-7, 1), lambda y: (y.softmax(1) + (2 * y).softmax(1)) / 2,
        lambda y: y.sigmoid().clamp(1e-6, 1 - 1e-6), lambda y: torch.stack(list(y.sigmoid().unbind(1)), 1),
    ],
    ids=["softmax, clamped", "two softmaxes", "sigmoid, clamped", "sigmoid, put together anew"],
)  # fmt: skip
def test_probabilities_behind_which_something_comes_are_not_bypassed_and_said(end):
    module = made(Ended, 5, end)
    network = opened(module)
    assert network.kind == "itself"
    assert list(network.notes.values()) == [
        "its outputs are probabilities, and no softmax or sigmoid was found that could be bypassed"
    ]
    result = check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:2")
    assert result[0].scores["probability"] == close(result[0].scores["objective"])


def test_a_sigmoid_that_is_a_gate_makes_no_probabilities():
    assert opened(made(Ended, 5, lambda y: y * y.sigmoid())).kind == "softmax"


def test_logits_without_a_softmax_are_read_as_if_one_followed():
    module = made(Ended, 5, lambda y: y)
    network = opened(module)
    result = ascended(network, "class:2")
    logits = own(module, inputs(network, result.pixels[0]))
    assert result[0].scores["probability"] == close(logits.softmax(1)[0, 2].item())


@pytest.mark.parametrize("end", [lambda y: y, lambda y: y.squeeze(1)], ids=["(rows, 1)", "(rows,)"])
def test_a_regression_has_no_probability(end):
    module = made(Ended, 1, end)
    network = opened(module)
    assert network.classes == 1
    assert network.kind == "none"
    result = check_scores(network, module, "", lambda output, unit: output.flatten()[0], "class:0")
    assert "probability" not in result[0].scores


def test_how_logits_become_probabilities_can_be_said():
    module = made(Ended, 5, lambda y: y)
    ways = {
        "sigmoid": lambda y: y.sigmoid(), "softmax": lambda y: y.softmax(1), "itself": lambda y: y,
        "none": lambda y: y * math.nan,
    }  # fmt: skip
    for kind, function in ways.items():
        network = opened(module, probability=kind)
        result = ascended(network, "class:2")
        wanted = function(own(module, inputs(network, result.pixels[0])))[0, 2].item()
        assert result[0].scores.get("probability", math.nan) == pytest.approx(wanted, rel=1e-3, nan_ok=True)
    with pytest.raises(InputError, match="probability 'sigmoidal': expected one of softmax, sigmoid, itself, none"):
        opened(module, probability="sigmoidal")


def test_a_softmax_inside_of_the_network_stays():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).flatten(2)
            return torch.sigmoid(self.fc((y * y.softmax(-1)).sum(-1) * torch.sigmoid(y).mean(-1)))

    module = made(Attention)
    network = opened(module)
    assert network.ending.kind == "sigmoid"
    check_scores(network, module, "fc", lambda output, unit: output[0, unit.index], "class:1")


def test_a_sigmoid_of_keras_is_bypassed(tmp_path):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)), layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="sigmoid", name="top"),
        ]
    )  # fmt: skip
    network = phosphene.open(model)
    assert (network.kind, network.classes) == ("sigmoid", 4)
    result = ascended(network, "class:2")
    fed = inputs(network, result.pixels[0])
    assert result[0].scores["probability"] == close(model(fed)[0, 2].item())
    assert result[0].scores["objective"] == close(float(torch.logit(model(fed)[0, 2].detach())))


# Networks that are no classifiers.


class Segmenting(nn.Module):
    """A map of six classes, as torchvision's segmentation returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.head(self.backbone(x).relu())
        return {"out": F.interpolate(maps, scale_factor=2, mode="bilinear"), "aux": maps}


def of_channel(output: Tensor, unit: phosphene.Unit) -> Tensor:
    return output[0, unit.channel].sum()


def test_segmentation_is_shown_by_its_output_and_by_the_names_of_its_classes():
    module = made(Segmenting)
    names = ["sky", "road", "car", "tree", "wall", "person"]
    network = opened(module, labels=names)
    assert network.classes == 0
    assert network.layer("output").shape == (6, 32, 32)
    assert phosphene.units.spelling.parse_unit("class:tree", network) == phosphene.Channel("output", 3)
    out = lambda output, unit: of_channel(output["out"], unit)  # noqa: E731
    check_scores(network, module, "", out, "output:3", "class:car")
    check_scores(network, module, "backbone", of_channel, "backbone:2")
    with pytest.raises(InputError, match=r"no class:1: its output has 6 channels \(6x32x32\).* output:0"):
        ascended(opened(module), "class:1")
    module = made(Segmenting)
    aux = opened(module, output="aux")
    check_scores(aux, module, "", lambda output, unit: of_channel(output["aux"], unit), "output:3")


def test_an_autoencoder_is_shown_by_the_channels_of_its_output():
    class Auto(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = nn.Conv2d(3, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.dec(self.enc(x).relu()))

    module = made(Auto)
    network = opened(module)
    check_scores(network, module, "", of_channel, "output:1")
    check_scores(network, module, "enc", of_channel, "enc:2")
    check_scores(network, module, "dec", of_channel, "dec:1")
    with pytest.raises(InputError, match=r"Auto is no classifier, so it has no class:0: its output has 3 channels"):
        ascended(network, "class:0")


class Detecting(nn.Module):
    """A list with a dictionary for each image, as torchvision's detectors return it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.box = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        maps = self.box(self.conv(x).relu()).flatten(2).mT
        return [{"boxes": each, "scores": each[:, 0].sigmoid(), "labels": each.argmax(1)} for each in maps]


def test_a_detector_is_shown_by_its_layers():
    module = made(Detecting)
    network = opened(module)
    assert network.classes == 0
    check_scores(network, module, "conv", of_channel, "conv:2", "conv:4")
    check_scores(network, module, "box", of_channel, "box:1")
    with pytest.raises(InputError, match=r"Detecting .*so it has no class:1: show its layers instead"):
        ascended(network, "class:1")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"num_classes": 0}, "returns no logits|is no classifier"),
        ({"features_only": True}, "is no classifier|no logits"),
    ],
    ids=["num_classes=0", "features_only"],
)
def test_backbones_of_timms(options, shown):
    module = made(lambda: timm.create_model("test_resnet", **options))
    network = opened(module, size=32)
    assert network.classes == 0
    layer = next(layer for layer in network.layers if layer.name.startswith("layer2") and len(layer.positions) == 2)
    name, call = network.call(layer.name)
    assert call == 1
    check_scores(network, module, name, of_channel, f"{layer.name}:1")
    with pytest.raises(InputError, match=shown):
        ascended(network, "class:1")


def test_a_backbone_that_returns_features_may_be_asked_for_one_of_them():
    module = made(lambda: timm.create_model("test_resnet", num_classes=0))
    network = opened(module, size=32, output=0)
    check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:3")


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda maps, features, logits, other: logits.argmax(1), "returns int64 numbers"),
        (lambda maps, features, logits, other: logits.detach().numpy(), "returns an object of type ndarray"),
        (lambda maps, features, logits, other: None, "returns an object of type NoneType"),
    ],
    ids=["argmax", "numpy", "nothing"],
)
def test_answers_that_are_no_logits_are_named_and_layers_are_shown(put, said):
    module = made(Told, put)
    network = opened(module)
    with pytest.raises(InputError, match=f"Told {said} and no logits, so it has no class:1: show its layers instead"):
        ascended(network, "class:1")
    check_scores(network, module, "act", of_channel, "act:1")


def test_a_network_of_images_and_texts_is_refused_with_the_part_that_takes_images():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = nn.Conv2d(3, 4, 3)

        def forward(self, images, texts):
            return self.visual(images), texts

    network = opened(Both())
    with pytest.raises(InputError, match=r"does not take images .*; expected its image encoder alone: module.visual"):
        _ = network.layers
