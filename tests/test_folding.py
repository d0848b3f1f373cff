import copy

import pytest
import timm
import torch
from helpers import opened, seeded
from timm.layers import Conv2dSame
from tiny import Flat, Normed, normed, vit
from torch import nn

from phosphene.networks.speed.folding import fused_batch_norms, optimized


def photographs(size=24, rows=3):
    return 255 * torch.rand((rows, 3, size, size), generator=torch.Generator().manual_seed(4))


def logits(network, images=None):
    with torch.no_grad():
        return network.forward(photographs() if images is None else images)


def gradient(network, images=None):
    leaf = (photographs() if images is None else images).clone().requires_grad_()
    return torch.autograd.grad(network.forward(leaf)[:, 1].sum(), leaf)[0]


def is_folded(module):
    return "forward" in vars(module)


def state_of(module):
    """All there is of a module that folding could change."""
    return [
        (name, set(vars(inner)), inner.training, {key: id(value) for key, value in inner._parameters.items()},
         len(inner._forward_hooks), len(inner._forward_pre_hooks))
        for name, inner in module.named_modules()
    ]  # fmt: skip


@pytest.fixture(params=["small", "in place", "one channel more", "timm"])
def network(request):
    if request.param == "timm":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = timm.create_model("test_efficientnet", num_classes=5)
        for inner in module.modules():
            if isinstance(inner, nn.BatchNorm2d):
                nn.init.normal_(inner.weight, 1, 0.3, torch.Generator().manual_seed(1))
                nn.init.normal_(inner.running_mean, 0, 0.2, torch.Generator().manual_seed(2))
        return opened(module, size=32)
    return normed(inplace=request.param == "in place")


def test_a_folded_network_is_the_same_function(network):
    images = photographs(network.preprocessing.height)
    with network.borrowed():
        before, slope = logits(network, images), gradient(network, images)
        with fused_batch_norms(network):
            norms = [network.module.get_submodule(norm.module) for norm in network.norms]
            assert norms
            assert all(map(is_folded, norms))
            torch.testing.assert_close(logits(network, images), before, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(gradient(network, images), slope, atol=1e-4 * slope.abs().max(), rtol=1e-3)


def test_a_network_is_handed_back_as_it_came(network):
    module = network.module.train()
    weights, before = copy.deepcopy(module.state_dict()), state_of(module)
    with network.borrowed(), fused_batch_norms(network):
        assert not torch.equal(next(module.parameters()), next(iter(weights.values())))
    assert state_of(module) == before
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_also_after_an_exception():
    network = normed()
    assert network.module.conv1.bias is None
    weights, before = copy.deepcopy(network.module.state_dict()), state_of(network.module)

    def interrupted():
        with network.borrowed(), fused_batch_norms(network):
            assert network.module.conv1.bias is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert network.module.conv1.bias is None
    assert state_of(network.module) == before
    assert all(torch.equal(value, weights[name]) for name, value in network.module.state_dict().items())


def test_the_digest_stays_while_folded():
    network = normed()
    before = network.digest
    with network.borrowed(), fused_batch_norms(network):
        assert network.digest == before
    assert network.digest == before


def test_the_moments_given_are_those_of_what_goes_into_the_module():
    """Both before and after folding natural activations have the mean and deviation that the norm says."""
    network = normed()
    with network.borrowed():
        plain = {norm.module: norm for norm in network.norms}
        with fused_batch_norms(network) as norms:
            assert [norm.module for norm in norms] == ["bn1", "bn2"]
            for norm in norms:
                module = network.module.get_submodule(norm.module)
                raw = plain[norm.module]
                scale = module.weight / torch.sqrt(module.running_var + module.eps)
                torch.testing.assert_close(norm.std, (raw.std * scale).abs(), rtol=1e-3, atol=1e-3)
                torch.testing.assert_close(norm.mean, (raw.mean - module.running_mean) * scale + module.bias)


def test_layers_that_are_read_stay_as_they_are():
    network = normed()
    read = {}
    with network.borrowed(), torch.no_grad():
        network.forward(photographs(), {"conv1": lambda output: read.update(before=output.clone())})
        with fused_batch_norms(network, ["conv1"]) as norms:
            network.forward(photographs(), {"conv1": lambda output: read.update(after=output.clone())})
            assert not is_folded(network.module.bn1)
            assert is_folded(network.module.bn2)
            assert torch.equal(norms[0].std, network.norms[0].std)
            assert not torch.equal(norms[1].std, network.norms[1].std)
    assert torch.equal(read["before"], read["after"])


class Blocks(Normed):
    """Blocks that end in a convolution, or do nothing, stand before the normalisations."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Identity(), self.conv1)
        self.nothing = nn.Identity()

    def forward(self, images):
        if not hasattr(self, "block"):  # while it is made
            return super().forward(images)
        maps = self.relu1(self.bn1(self.block(images)))
        return self.head(self.relu2(self.bn2(self.nothing(self.conv2(maps)))).mean((2, 3)))


@pytest.mark.parametrize(("layer", "norm"), [("block", "bn1"), ("conv1", "bn1"), ("nothing", "bn2"), ("conv2", "bn2")])
def test_what_hands_a_convolution_on_is_read_as_it_is(layer, norm):
    network = opened(seeded(Blocks))
    read = {}
    with network.borrowed(), torch.no_grad():
        network.forward(photographs(), {layer: lambda output: read.update(before=output.clone())})
        with fused_batch_norms(network, [layer]):
            network.forward(photographs(), {layer: lambda output: read.update(after=output.clone())})
            assert [name for name in ("bn1", "bn2") if not is_folded(network.module.get_submodule(name))] == [norm]
    torch.testing.assert_close(read["before"], read["after"], atol=1e-4, rtol=1e-4)


class Between(Normed):
    """The activation, in place, comes before the normalisation."""

    def forward(self, images):
        maps = self.pool(self.bn1(self.relu1(self.conv1(images))))
        return self.head(self.relu2(self.bn2(self.conv2(maps))).mean((2, 3)))


class Branching(Normed):
    """What a convolution makes is used twice."""

    def forward(self, images):
        maps = self.conv1(images)
        maps = self.relu1(self.bn1(maps)) + maps
        return self.head(self.relu2(self.bn2(self.conv2(maps))).mean((2, 3)))


class Shared(Normed):
    """A convolution is called twice, once before each of two normalisations."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = copy.deepcopy(self.bn1)
        self.bn3 = copy.deepcopy(self.bn1)
        nn.init.normal_(self.bn3.weight)
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        maps = self.relu1(self.bn1(self.conv1(images)))
        if self.conv2.out_channels == 8:
            maps = self.bn3(self.conv2(self.relu2(self.bn2(self.conv2(maps)))))
        else:
            maps = self.bn2(self.conv2(maps))
        return self.head(maps.mean((2, 3)))


class Standardised(nn.Conv2d):
    """Its weight is not used as it is."""

    def forward(self, images):
        return nn.functional.conv2d(images, self.weight / self.weight.norm(), self.bias, padding=1)


class OfItsOwn(Normed):
    def __init__(self):
        super().__init__()
        conv = Standardised(3, 8, 3, padding=1, bias=False)
        conv.weight.data = self.conv1.weight.data
        self.conv1 = conv


@pytest.mark.parametrize("kind", [Between, Branching, Shared, OfItsOwn, Flat])
def test_what_cannot_be_folded_is_left_as_it_is(kind):
    network = opened(seeded(kind))
    plain = {norm.module: norm.std for norm in network.norms}
    with network.borrowed():
        before, state = logits(network), state_of(network.module)
        with fused_batch_norms(network) as norms:
            torch.testing.assert_close(logits(network), before, atol=1e-4, rtol=1e-4)
            for norm in norms:
                module = network.module.get_submodule(norm.module)
                assert is_folded(module) != torch.equal(norm.std, plain[norm.module])
        assert state_of(network.module) == state


def test_a_forward_of_the_callers_stays():
    network = normed()
    own = network.module.bn1.forward
    network.module.bn1.forward = lambda images: 2 * own(images)
    mine = network.module.bn1.forward
    with network.borrowed():
        before = logits(network)
        with fused_batch_norms(network):
            assert network.module.bn1.forward is mine
            assert is_folded(network.module.bn2)
            torch.testing.assert_close(logits(network), before, atol=1e-4, rtol=1e-4)
    assert network.module.bn1.forward is mine


def test_networks_without_batch_normalisation_or_parameters_pass_through():
    class Bare(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    for network in (vit(), opened(Bare())):
        with network.borrowed(), fused_batch_norms(network) as norms:
            assert norms == []


def test_a_channel_that_is_switched_off_counts_as_hardly_changing():
    network = normed()
    network.module.bn1.weight.data[2] = 0
    with network.borrowed(), fused_batch_norms(network) as norms:
        assert norms[0].std[2] == pytest.approx(1e-3 * network.module.bn1.weight.abs().max().item())
        assert is_folded(network.module.bn1)


def test_the_bundled_network_is_folded_whole(lite0):
    with lite0.borrowed(), fused_batch_norms(lite0) as norms:
        modules = [lite0.module.get_submodule(norm.module) for norm in norms]
        assert len(modules) == 49
        assert all(map(is_folded, modules))
    assert not any(map(is_folded, modules))


class Padded(nn.Module):
    """TensorFlow's padding at strides 1 and 2, of kernels odd and even, square or not, and activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv2dSame(3, 6, 3, stride=2, bias=True)
        self.act = nn.ReLU6(inplace=True)
        self.deep = Conv2dSame(6, 6, (5, 3), stride=(2, 1), groups=6)
        self.relu = nn.ReLU(inplace=True)
        self.wide = Conv2dSame(6, 8, 2, stride=2)
        self.last = Conv2dSame(8, 5, 3, dilation=2)

    def forward(self, images):
        return self.last(self.wide(self.relu(self.deep(self.act(self.first(images)))))).mean((2, 3))


@pytest.mark.parametrize("size", [(24, 24), (25, 24), (31, 33), (17, 40)])
def test_tensorflows_padding_is_taken_over_by_the_convolution(size):
    network = opened(seeded(Padded), size=size)
    images = 255 * torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(4))
    before, slope = logits(network, images), gradient(network, images)
    state = state_of(network.module)
    with network.borrowed(), optimized(network):
        assert is_folded(network.module.first)
        assert is_folded(network.module.wide)
        assert not is_folded(network.module.last)  # dilated
        torch.testing.assert_close(logits(network, images), before)
        torch.testing.assert_close(gradient(network, images), slope)
    assert state_of(network.module) == state


def test_activations_that_need_their_input_do_not_work_in_place():
    network = opened(seeded(Padded))
    with optimized(network):
        assert not network.module.act.inplace
        assert network.module.relu.inplace
    assert network.module.act.inplace
