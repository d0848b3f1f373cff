"""Of every kind of network: the score in run.json is what its own module says of the image that is saved."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from reference import SIZE, close, inputs, made, opened, own, recipe, summed
from test_outputs import Detecting, Ended, Segmenting, Told
from test_programs import Checkpointed, plain
from test_tracing import Branched, Centered, Innermost, Named, Sometimes, TokensFirst, Windows, centered, unnormed
from torch import Tensor, nn

import phosphene


@dataclass
class Kind:
    """A kind of network.

    Attributes:
        make: gives the module.
        class_: a class to show, if it has any, …
        logit: … and what it is of what the module returns.
        layer: whose channel 2 is shown.
        channel: what that is of what the layer returns.
        unit: how it is spelled, if not as the layer and a number.
        given: what is opened, of the module; by default the module itself.
        options: of `phosphene.open`.
    """

    make: Callable[[], nn.Module]
    class_: str | None
    logit: Callable[[Any], Tensor]
    layer: str
    channel: Callable[[Any], Tensor]
    unit: str | None = None
    given: Callable[[nn.Module], Any] = lambda module: module
    options: dict[str, Any] | None = None


def first(output: Tensor) -> Tensor:
    return output[:, 2].sum()


def last(output: Tensor) -> Tensor:
    return output[..., 2].sum()


def one(output: Tensor) -> Tensor:
    return output[0, 1]


def told(put: Callable[..., Any]) -> Callable[[], nn.Module]:
    return lambda: Told(put)


def swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 2),
        num_classes=5,
    )  # fmt: skip


def vit() -> nn.Module:
    module = timm.create_model("test_vit", img_size=SIZE, patch_size=8, num_classes=5)
    nn.init.normal_(module.head.weight, 0, 0.3)
    return module


def exported(module: nn.Module) -> Any:
    return torch.export.export(module, (torch.rand(1, 3, SIZE, SIZE),))


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, torch.rand(1, 3, SIZE, SIZE))


def under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return plain()


def seg(output: Any) -> Tensor:
    return output["out"][0, 3].sum()


KINDS = {
    "a plain one": Kind(plain, "1", one, "3", first),
    "a module in another": Kind(lambda: nn.Sequential(plain()), "1", one, "0.2", first),
    "nn.DataParallel": Kind(lambda: nn.DataParallel(plain()), "1", one, "module.3", first),
    "torch.fx": Kind(lambda: torch.fx.symbolic_trace(plain().eval()), "1", one, "3", first),
    "tokens first": Kind(TokensFirst, "1", one, "block", last),
    "windows of tokens": Kind(Windows, "1", one, "attn", last),
    "windows of maps": Kind(lambda: Windows(True), "1", one, "attn", first),
    "rows innermost": Kind(Innermost, "1", one, "inner", first),
    "Swin": Kind(swin, "1", one, "layers.0.blocks.1.attn.qkv", last),
    "a vision transformer": Kind(vit, "1", one, "blocks.1.mlp.fc1", last),
    "torchvision's transformer": Kind(
        lambda: torchvision.models.VisionTransformer(SIZE, 8, 2, 2, 16, 32, num_classes=5), "1", one,
        "encoder.layers.encoder_layer_1.mlp", last,
    ),
    "batch norm without statistics": Kind(unnormed, "1", one, "2", first),
    "the batch's mean": Kind(centered, "1", one, "1", first),
    "rows mixed behind a map": Kind(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Centered()), None, one, "0", first),
    "a branch beside": Kind(Branched, "1", lambda output: output[0][0, 1], "mix", first),
    "called sometimes": Kind(Sometimes, "1", one, "act", first),
    "odd names": Kind(Named, "1", one, "a - b:1", first),
    "a tuple": Kind(told(lambda m, f, y, o: (f, y)), "1", lambda output: output[1][0, 1], "act", first),
    "a dictionary": Kind(told(lambda m, f, y, o: {"m": m, "out": y}), "1", lambda o: o["out"][0, 1], "act", first),
    "the second of two heads": Kind(
        told(lambda m, f, y, o: {"a": y, "b": o}), "1", lambda output: output["b"][0, 1], "other", first,
        options={"output": "b"},
    ),
    "sigmoid": Kind(lambda: Ended(5, torch.sigmoid), "1", lambda y: torch.logit(y.double())[0, 1], "conv", first),
    "softmax and clamp": Kind(lambda: Ended(5, lambda y: y.softmax(1).clamp(1e-7, 1)), "1", one, "conv", first),
    "regression": Kind(lambda: Ended(1, lambda y: y.squeeze(1)), "0", lambda output: output[0], "conv", first),
    "segmentation": Kind(Segmenting, "3", seg, "backbone", first, options={"labels": list("abcdef")}),
    "detection": Kind(Detecting, None, one, "box", first),
    "features": Kind(lambda: timm.create_model("test_resnet", num_classes=0), None, one, "layer2.0.conv1", first),
    "checkpointing": Kind(lambda: Checkpointed(True), "1", one, "a.4", first),
    "under inference_mode": Kind(under_inference_mode, "1", one, "3", first),
    "torch.export": Kind(plain, "1", one, "3", first, given=exported),
    "TorchScript": Kind(plain, "1", one, "", first, given=scripted),
    "64 bits": Kind(lambda: plain().double(), "1", one, "3", first),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_score_in_run_json_is_the_modules_own(kind, tmp_path):
    module = made(kind.make)
    network = opened(kind.given(module), **(kind.options or {}))
    units = [f"class:{kind.class_}"] * (kind.class_ is not None)
    if kind.layer:
        units.append(kind.unit or summed(network, kind.layer, 2))
    result = phosphene.ascend(network, units, recipe(2, "draft"), options=phosphene.RunOptions(device="cpu"), seed=5)
    result.save(tmp_path)
    module = made(kind.make)  # an untouched one
    pictures = json.loads((tmp_path / "run.json").read_text())["pictures"]
    assert len(pictures) == len(units)
    for picture in pictures:
        images = inputs(network, np.array(Image.open(tmp_path / picture["file"])))
        images = images.to(next(module.parameters()).dtype)
        # Segmentation's classes are channels of its output.
        hidden = not picture["unit"].startswith(("class:", "output:"))
        of = kind.channel if hidden else kind.logit
        value = of(own(module, images, kind.layer if hidden else ""))
        assert picture["scores"]["objective"] == close(value.item()), picture["unit"]


def test_the_score_of_a_network_of_keras_is_its_own(tmp_path):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)), layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(), layers.Dense(4, name="top"),
        ]
    )  # fmt: skip
    network = phosphene.open(model)
    result = phosphene.ascend(
        network, ["class:1", "conv:2"], recipe(2, "draft"), options=phosphene.RunOptions(device="cpu"), seed=5
    )
    of_layer = keras.Model(model.inputs, model.get_layer("conv").output)
    for picture, image, value in zip(
        result, result.pixels, (lambda fed: model(fed)[0, 1], lambda fed: of_layer(fed)[..., 2].sum()), strict=True
    ):
        assert picture.scores["objective"] == close(value(inputs(network, image)).item())
