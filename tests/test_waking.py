"""Units without a gradient: cut off by the network, which is said, or flat where they stand, which is woken."""

import pytest
import torch
import torch.nn.functional as F
from reference import ascended, check_scores, close, inputs, made, opened, own, recipe
from torch import Tensor, nn

import phosphene
import phosphene.ascent.loop
from phosphene import InputError
from phosphene.networks.waking import RedirectedActivations

# Cut off.


class Inner(nn.Module):
    """A convolution behind which the gradient ends in some way."""

    def __init__(self, cut: str):
        super().__init__()
        self.conv, self.cut = nn.Conv2d(8, 6, 3, 2, 1), cut

    def forward(self, x: Tensor) -> Tensor:
        if self.cut == "no_grad":
            with torch.no_grad():
                return self.conv(x)
        if self.cut == "inference_mode":
            with torch.inference_mode():
                return self.conv(x)
        y = self.conv(x)
        if self.cut == "detach":
            return y.detach()
        if self.cut == "argmax":
            return F.one_hot(y.argmax(1), 6).permute(0, 3, 1, 2).float()
        return y


class Cut(nn.Module):
    def __init__(self, cut: str):
        super().__init__()
        self.stem, self.act, self.inner, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Inner(cut), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(self.act(self.stem(x))).mean((2, 3)))


CUTS = {
    "no_grad": r"'inner' \(Inner\) calls 'inner.conv' under torch.no_grad\(\)",
    "inference_mode": r"'inner' \(Inner\) calls 'inner.conv' under torch.inference_mode\(\)",
    "detach": r"'inner' \(Inner\) returns what has none",
    "argmax": r"'inner' \(Inner\) returns what has none",
}


@pytest.mark.parametrize(("cut", "said"), CUTS.items(), ids=CUTS)
@pytest.mark.parametrize("unit", ["class:1", "inner:2", "fc:3", "class:1 - 0.5*inner:2"])
def test_a_unit_behind_what_cuts_the_gradient_is_answered_with_the_module_that_does(cut, said, unit):
    with pytest.raises(InputError, match=rf"of Cut has no gradient: {said}.*; a layer before that can be shown"):
        ascended(opened(made(Cut, cut)), unit)


@pytest.mark.parametrize("cut", [*CUTS, "nothing"])
def test_a_layer_before_the_cut_is_shown(cut):
    module = made(Cut, cut)
    network = opened(module)
    result = check_scores(
        network, module, "act", lambda output, unit: output[0, unit.channel].sum(), "act:1", "act:3"
    )  # fmt: skip
    assert result.objectives[0][-1] > result.objectives[0][0]
    if cut in ("detach", "argmax"):
        ascended(network, "inner.conv:2")


def test_a_sum_of_which_one_part_has_a_gradient_is_made():
    result = ascended(opened(made(Cut, "detach")), "act:1 + class:1")
    assert len(result.pixels) == 1


def test_a_whole_forward_under_inference_mode_is_named():
    class Predicting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).relu().mean((2, 3)))

    for unit in ("class:1", "conv:2"):
        with pytest.raises(InputError, match=r"Predicting calls 'conv' under torch.inference_mode\(\)"):
            ascended(opened(made(Predicting)), unit)


# Flat where they stand.


class Sleeping(nn.Module):
    """A unit whose activation is flat on noise, and another that is not."""

    def __init__(self, activation: nn.Module, offset: float):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3, padding=1), activation
        self.deep, self.last, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 5)
        with torch.no_grad():
            self.conv.weight[:2] = self.conv.weight[:2].abs() * 3
            self.conv.bias[:2] = offset
            self.deep.weight.zero_()
            self.deep.weight[0, :2] = 0.5
            self.deep.weight[1, 2:] = 0.5
            self.deep.bias.fill_(-0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.deep(self.act(self.conv(x)))).mean((2, 3)))


ACTIVATIONS = {
    "ReLU": nn.ReLU(), "ReLU in place": nn.ReLU(inplace=True), "ReLU6": nn.ReLU6(), "Hardtanh": nn.Hardtanh(0, 2),
}  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_a_unit_behind_activations_that_are_flat_wakes(activation):
    module = made(Sleeping, activation, -6.0)
    network = opened(module)
    settings = recipe(60, "draft")
    result = phosphene.ascend(network, ["last:0"], settings, options=phosphene.RunOptions(device="cpu"), seed=5)
    assert result.objectives[0][0] == pytest.approx(
        -0.01 * 32 * 32
    )  # the bias alone: what goes into `last`, by redirection
    assert result[0].scores["objective"] > 0
    value = own(module, inputs(network, result.pixels[0]), "last")[0, 0].sum().item()
    assert result[0].scores["objective"] == close(value)


def test_without_redirection_such_a_unit_stays_dead():
    module = made(Sleeping, nn.ReLU(), -60.0)
    settings = recipe(60, "draft", redirect=False)
    result = phosphene.ascend(opened(module), ["last:0"], settings, options=phosphene.RunOptions(device="cpu"), seed=5)
    assert result[0].stopped == phosphene.ascent.stopping.DEAD
    assert result[0].scores["objective"] == 0


def test_a_row_that_wakes_changes_none_beside_it():
    network = opened(made(Sleeping, nn.ReLU(), -6.0))
    settings = recipe(5, "draft")
    among = phosphene.ascend(
        network, ["last:0", "last:1"], settings, options=phosphene.RunOptions(device="cpu"), seed=5
    )
    for index, unit in enumerate(("last:0", "last:1")):
        alone = phosphene.ascend(network, [unit], settings, options=phosphene.RunOptions(device="cpu"), seed=5)
        assert abs(alone.pixels[0].astype(int) - among.pixels[index].astype(int)).max() <= 1


FLAT = {
    "relu": (F.relu, -1.0, 7.0), "relu6": (F.relu6, -1.0, 7.0), "Tensor.relu": (lambda x: x.relu(), -1.0, None),
    "clamp": (lambda x: x.clamp(0, 6), -1.0, 7.0), "clamp, by name": (lambda x: x.clamp(min=0, max=6), -1.0, 7.0),
    "clamp_min": (lambda x: x.clamp_min(0), -1.0, None), "hardtanh": (F.hardtanh, -2.0, 2.0),
    "hardsigmoid": (F.hardsigmoid, -4.0, 4.0), "hardswish": (F.hardswish, -4.0, None),
    "relu, in place": (lambda x: F.relu(x * 1, inplace=True), -1.0, None),
    "relu_": (lambda x: (x * 1).relu_(), -1.0, None),
}  # fmt: skip


@pytest.mark.parametrize(("function", "low", "high"), FLAT.values(), ids=FLAT)
def test_a_flat_activation_hands_on_what_brings_it_to_where_it_has_a_slope(function, low, high):
    def slope(at: float, sign: float) -> float:
        x = torch.tensor([at], requires_grad=True)
        with RedirectedActivations(last=1, calls=1):
            y = function(x)
        assert torch.equal(y.detach(), function(x.detach()))
        (gradient,) = torch.autograd.grad(sign * y.sum(), x)
        return gradient.item()

    assert slope(low, 1.0) == 1
    assert slope(low, -1.0) == 0
    if high is not None and function is not F.relu:
        assert slope(high, -1.0) == -1
        assert slope(high, 1.0) == 0
    x = torch.tensor([0.5], requires_grad=True)
    (plain,) = torch.autograd.grad(function(x).sum(), x)
    assert slope(0.5, 1.0) == plain.item()
