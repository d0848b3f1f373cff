"""What layers return for images, by the one public reader."""

import numpy as np
import pytest
import torch
from helpers import opened, seeded
from PIL import Image
from tiny import normed
from torch import nn

from phosphene import InputError


class Maps(nn.Module):
    """No classifier: maps of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu_()


def pixels(rows: int = 5, size: int = 24) -> torch.Tensor:
    return torch.rand((rows, 3, size, size), generator=torch.Generator().manual_seed(1)) * 255


def test_layers_and_logits_are_what_a_plain_hook_sees():
    network = normed(inplace=True)
    found = network.activations(pixels(), ["bn1", "relu1", "logits"])
    seen = {}
    network.module.bn1.register_forward_hook(lambda module, inputs, output: seen.update(bn1=output.clone()))
    network.module.eval()
    with torch.no_grad():
        logits = network.module(network.preprocessing(pixels()))
    assert [*found] == ["bn1", "relu1", "logits"]
    torch.testing.assert_close(found["bn1"], seen["bn1"])  # the activation behind it works in place
    torch.testing.assert_close(found["relu1"], seen["bn1"].relu())
    torch.testing.assert_close(found["logits"], logits)


def test_images_go_through_in_batches_of_a_bounded_size():
    network, sizes = normed(), []
    network.layers  # noqa: B018 - sends images through
    network.module.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    whole = network.activations(pixels(), "logits", batch=5)["logits"]
    parts = network.activations(pixels(), "logits", batch=2)["logits"]
    assert sizes == [5, 2, 2, 1]
    torch.testing.assert_close(parts, whole)


def test_the_pass_ends_with_the_last_layer_that_is_read():
    network, called = normed(), []
    network.layers  # noqa: B018
    network.module.head.register_forward_hook(lambda *_: called.append(True))
    network.activations(pixels(), ["relu1"])
    assert not called


def test_photographs_are_read_as_the_network_sees_them(tmp_path):
    network = normed()
    array = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    of_pixels = network.activations(network.preprocessing.photograph(image)[None], ["conv1"])["conv1"]
    for images in ([image], [tmp_path / "a.png"], iter([str(tmp_path / "a.png")])):
        assert torch.equal(network.activations(images, ["conv1"])["conv1"], of_pixels)


def test_bytes_are_pixels_too():
    network, whole = normed(), pixels().round()
    assert torch.equal(
        network.activations(whole.byte(), "conv1")["conv1"], network.activations(whole, "conv1")["conv1"]
    )


def test_a_network_that_is_no_classifier_has_an_output_and_no_logits():
    network = opened(seeded(Maps))
    found = network.activations(pixels(), ["conv", "output"])
    assert torch.equal(found["output"], found["conv"].relu())
    with pytest.raises(InputError, match="no classifier, so it has no logits"):
        network.activations(pixels(), "logits")


def test_a_gradient_is_kept_only_where_it_is_asked_for():
    network, images = normed(), pixels().requires_grad_()
    assert not network.activations(images, "relu2")["relu2"].requires_grad
    found = network.activations(images, ["relu2", "logits"], batch=2, gradient=True)
    (gradient,) = torch.autograd.grad(found["relu2"].sum() + found["logits"].sum(), images)
    assert gradient.shape == images.shape
    assert gradient.any()


def test_the_module_is_left_as_it_was():
    network = normed()
    network.module.train()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    with torch.inference_mode():
        network.activations(pixels(), ["relu1", "logits"])
    assert network.module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    assert not any(module._forward_hooks for module in network.module.modules())


def test_it_may_be_asked_for_while_the_network_is_borrowed():
    network = normed()
    with network.borrowed("cpu"):
        found = network.activations(pixels(), "logits")["logits"]
        assert not network.module.training
    assert torch.equal(found, network.activations(pixels(), "logits")["logits"])


def test_a_layer_that_is_called_logits_goes_first():
    module = nn.Sequential()
    module.add_module("logits", nn.Conv2d(3, 4, 3))
    module.add_module("pool", nn.AdaptiveAvgPool2d(1))
    assert opened(module).activations(pixels(), "logits")["logits"].shape == (5, 4, 22, 22)


@pytest.mark.parametrize(
    ("images", "layers", "problem"),
    [
        (pixels()[0], "conv1", r"images of shape \(3, 24, 24\): expected \(n, 3, height, width\)"),
        (pixels()[:, :1], "conv1", r"expected \(n, 3, height, width\)"),
        ([], "conv1", "no images"),
        ("a.png", "conv1", "one image: expected a list"),
        ([pixels()[0]], "conv1", "an image of type Tensor"),
        (["none.png"], "conv1", "none.png"),
        (pixels(), "conv3", "no layer 'conv3'; did you mean conv"),
    ],
)
def test_what_cannot_be_read_is_said(images, layers, problem):
    with pytest.raises(InputError, match=problem):
        normed().activations(images, layers)
