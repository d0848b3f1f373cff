"""Layers of every arrangement: their shapes, and the scores of their units, against the module run by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import SIZE, ascended, check_scores, close, inputs, made, opened, own, recipe, summed
from torch import Tensor, nn

import phosphene
from phosphene import InputError


class TokensFirst(nn.Module):
    """Blocks that take (tokens, rows, channels), as nn.TransformerEncoderLayer does by default."""

    def __init__(self, patch: int = 8):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, patch, patch)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=False)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))


class Windows(nn.Module):
    """Four windows of each image as rows of their own; `maps` leaves them maps, else they are tokens."""

    def __init__(self, maps: bool = False):
        super().__init__()
        self.maps = maps
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.attn = nn.Conv2d(16, 16, 3, padding=1) if maps else nn.Linear(16, 16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        b, c, h, w = y.shape
        y = y.view(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(b * 4, c, h // 2, w // 2)
        if self.maps:
            return self.fc(self.attn(y).relu().view(b, 4, c, -1).mean((1, 3)))
        return self.fc(self.attn(y.flatten(2).mT).relu().view(b, -1, c).mean(1))


class Innermost(nn.Module):
    """Two halves of each image, on the axis of the rows, with the rows changing fastest."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(torch.cat(self.embed(x).chunk(2, dim=2)))
        return self.fc(torch.stack(y.relu().chunk(2)).mean((0, 3, 4)))


def channel_last(output: Tensor, unit: phosphene.Unit) -> Tensor:
    return output[..., unit.channel].sum()


def channel_first(output: Tensor, unit: phosphene.Unit) -> Tensor:
    return output[:, unit.channel].sum()


KINDS = {
    "tokens first": (TokensFirst, (), "block", (16, 16), channel_last),
    "windows of tokens": (Windows, (), "attn", (16, 64), channel_last),
    "windows of maps": (Windows, (True,), "attn", (16, 4, 4, 4), channel_first),
    "rows innermost": (Innermost, (), "inner", (8, 2, 4, 8), channel_first),
}
kinds = pytest.mark.parametrize(("factory", "args", "layer", "shape", "of"), KINDS.values(), ids=KINDS)


@kinds
def test_units_of_layers_whose_first_axis_is_not_the_rows_score_what_the_module_gives(factory, args, layer, shape, of):
    module = made(factory, *args)
    network = opened(module)
    assert network.layer(layer).shape == shape
    assert network.unbatchable_reason == ""
    check_scores(network, module, layer, of, *(summed(network, layer, index) for index in (1, 2, 3)))


@kinds
def test_such_a_layer_gives_the_same_image_alone_and_in_company(factory, args, layer, shape, of):
    network = opened(made(factory, *args))
    units = [summed(network, layer, index) for index in (1, 2, 3)]
    together = ascended(network, *units)
    for unit, image in zip(units, together.pixels, strict=True):
        # Sums of another order, and then a rounded pixel.
        assert np.abs(ascended(network, unit).pixels[0].astype(int) - image).max() <= 1
    facets = phosphene.ascend(
        network, units[:1], recipe(3), options=phosphene.RunOptions(device="cpu"), seed=5, facets=3
    )
    module = made(factory, *args)
    for picture, image in zip(facets, facets.pixels, strict=True):
        assert picture.scores["objective"] == close(float(of(own(module, inputs(network, image), layer), picture.unit)))


@kinds
def test_classes_behind_such_a_layer_are_the_modules(factory, args, layer, shape, of):
    module = made(factory, *args)
    check_scores(opened(module), module, "", lambda output, unit: output[0, unit.index], "class:1", "class:4")


class Sequence(nn.Module):
    """Patches as a sequence, tokens first, through a module that returns several tensors."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.patch, self.inner, self.fc = nn.Conv2d(3, 8, 8, 8), inner, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).permute(2, 0, 1)
        return self.fc((self.inner(t, t, t) if isinstance(self.inner, nn.MultiheadAttention) else self.inner(t))[0][-1])


@pytest.mark.parametrize(
    "inner", [lambda: nn.MultiheadAttention(8, 2), lambda: nn.GRU(8, 8), lambda: nn.LSTM(8, 8)],
    ids=["MultiheadAttention", "GRU", "LSTM"],
)  # fmt: skip
def test_modules_that_take_tokens_first_and_return_several_tensors(inner):
    module = made(lambda: Sequence(inner()))
    network = opened(module)
    assert network.layer("inner").shape == (8, 16)
    check_scores(
        network,
        module,
        "inner",
        lambda output, unit: output[0][..., unit.channel].sum(),
        summed(network, "inner", 1),
        summed(network, "inner", 6),
    )
    check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:2")


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_tokens_as_many_as_the_images_that_tell_the_rows(tokens):
    class Few(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.inner = nn.Conv2d(3, 8, (SIZE // tokens, SIZE), SIZE // tokens), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0)

    module = made(Few)
    network = opened(module)
    assert network.layer("inner").shape == (8, tokens)
    check_scores(network, module, "inner", channel_last, "inner:1", "inner:2", "inner:3")


def test_layers_whose_size_depends_on_the_image_cannot_be_shown():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
            self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

        def forward(self, x: Tensor) -> Tensor:
            t = self.patch(x).flatten(2).mT
            chosen, y = t[..., 0] > t[..., 1], torch.zeros_like(t)
            y[chosen], y[~chosen] = self.experts[0](t[chosen]), self.experts[1](t[~chosen])
            return self.fc(y.mean(1))

    module = made(Experts)
    network = opened(module)
    assert "experts.0" not in [layer.name for layer in network.layers]
    with pytest.raises(InputError, match=r"'experts.0' .* cannot be shown: its output is .* not twice as large"):
        network.layer("experts.0")
    check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:1", "class:2")
    check_scores(network, module, "patch", channel_first, "patch:2")


def test_one_neuron_of_such_a_layer():
    module = made(TokensFirst)
    check_scores(
        opened(module), module, "block", lambda output, unit: output[unit.position[0], 0, unit.channel], "block:3@5",
        "block:2@0",
    )  # fmt: skip
    module = made(Windows)
    check_scores(
        opened(module), module, "attn", lambda output, unit: output.flatten(0, 1)[unit.position[0], unit.channel],
        "attn:3@21",
    )  # fmt: skip
    module = made(Innermost)
    check_scores(
        opened(module), module, "inner", lambda output, unit: output[unit.position[0], unit.channel][unit.position[1:]],
        "inner:3@1,2,5",
    )  # fmt: skip
    with pytest.raises(InputError, match="outside of the map of block"):
        phosphene.units.spelling.parse_unit("block:3@16", opened(made(TokensFirst)))


def test_the_norm_of_such_a_layer_is_its_own():
    module = made(Windows)
    check_scores(opened(module), module, "attn", lambda output, unit: output.square().mean(), "attn")


@pytest.mark.parametrize("factory", [TokensFirst, Windows, Innermost])
def test_such_a_layer_of_images_of_another_size(factory):
    module = made(factory)
    layer = {TokensFirst: "block", Windows: "attn", Innermost: "inner"}[factory]
    network = opened(module).with_input_size((48, 32))
    shape = {TokensFirst: (16, 24), Windows: (16, 96), Innermost: (8, 2, 6, 8)}[factory]
    assert network.layer(layer).shape == shape
    got: list[Tensor] = []
    images = torch.rand((3, 3, 48, 32), generator=torch.Generator().manual_seed(1)) * 255
    with network.borrowed(), torch.no_grad():
        network.read(images, {layer: lambda output: got.append(output.clone())})
    of = channel_first if factory is Innermost else channel_last
    unit = phosphene.Channel(layer, 2)
    for row, image in zip(got[0], images, strict=True):
        alone = own(module, network.preprocessing(image[None]), layer)
        assert row[2].sum().item() == close(float(of(alone, unit)))


# Images that depend on each other, and on chance.


def unnormed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class Centered(nn.Module):
    """Has the batch's mean subtracted."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(dim=0, keepdim=True)


def centered() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), Centered(), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


class MonteCarlo(nn.Module):
    """Dropout that is never off, or noise."""

    def __init__(self, noise: bool = False):
        super().__init__()
        self.noise = noise
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        y = y + 0.1 * torch.randn(y.shape) if self.noise else F.dropout(y, 0.5, training=True)
        return self.fc(y.mean((2, 3)))


@pytest.mark.parametrize(
    ("factory", "args"), [(unnormed, ()), (centered, ()), (MonteCarlo, ()), (MonteCarlo, (True,))],
    ids=["batch norm without statistics", "the batch's mean", "dropout", "noise"],
)  # fmt: skip
def test_where_rows_mix_or_chance_rules_images_go_through_one_at_a_time(factory, args):
    module = made(factory, *args)
    network = opened(module)
    among = ascended(network, "class:1", "class:2", "class:3")
    for index, unit in enumerate(("class:1", "class:2", "class:3")):
        alone, again = ascended(network, unit), ascended(network, unit)
        assert (alone.pixels[0] == again.pixels[0]).all()
        assert (alone.pixels[0] == among.pixels[index]).all()
        assert alone[0].scores == among[index].scores
    assert network.unbatchable_reason
    assert network.random == (factory is MonteCarlo)
    sentences = [each for each in network.notes.values() if "go through it one at a time" in each]
    assert len(sentences) == 1
    assert ("random numbers" in sentences[0]) == network.random
    if not network.random:
        check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:1", "class:3")
    else:
        # Chance has a seed: it is neither the caller's, nor is the caller's moved on.
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        ascended(network, "class:1")
        assert torch.equal(torch.random.get_rng_state(), before)


def test_the_score_where_chance_rules_is_that_of_one_draw():
    module = made(MonteCarlo)
    network = opened(module)
    result = ascended(network, "class:1")
    values = []
    for seed in range(200):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            values.append(own(module, inputs(network, result.pixels[0]))[0, 1].item())
    assert min(values) <= result[0].scores["objective"] <= max(values)


def test_a_plain_network_has_no_such_remark():
    network = opened(made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))
    assert not network.unbatchable_reason
    assert network.notes == {}


# Branches, calls and names.


class Branched(nn.Module):
    """Two heads; the second, which the first does not depend on, reads a convolution and its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.norm, self.mix, self.fc = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.2, 3)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        y = self.conv(x)
        return self.fc(x.mean((2, 3))), self.mix(self.norm(y) + y)


@pytest.mark.parametrize("layer", ["mix", "norm", "conv", "stem"])
def test_hidden_units_on_a_branch_that_folding_would_change(layer):
    module = made(Branched)
    check_scores(opened(module), module, layer, channel_first, f"{layer}:2", f"{layer}:5")


def test_the_second_output_of_a_branched_network():
    module = made(Branched)
    network = opened(module, output=1)
    assert network.classes == 0
    assert network.layer("output").shape == (8, 16, 16)
    check_scores(network, module, "", lambda output, unit: output[1][0, unit.channel].sum(), "output:2", "output:5")


class Sometimes(nn.Module):
    """A layer for plain images only, and another that is called twice for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Linear(8, 5)
        self.early, self.extra = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        y = self.early(y) if x.std() < 0.01 else self.extra(self.extra(y))
        return self.fc(y.mean((2, 3)))


def test_layers_that_are_called_only_sometimes():
    module = made(Sometimes)
    network = opened(module)
    assert "early" not in [layer.name for layer in network.layers]
    assert network.layer("extra#1").shape == network.layer("extra#2").shape == (8, 16, 16)
    check_scores(network, module, "extra", channel_first, "extra#2:1")
    check_scores(network, module, "act", channel_first, "act:1")
    with pytest.raises(InputError, match="'early' is not called"):
        ascended(network, "early:2")
    with pytest.raises(InputError, match="called 2 times: expected extra#1 to extra#2"):
        ascended(network, "extra:2")
    flat = np.full((SIZE, SIZE, 3), 128, np.uint8)
    with pytest.raises(InputError, match=r"extra#2 of .*not called in this pass"):
        phosphene.ascend(
            network,
            ["extra#2:1"],
            recipe(3, **{"start.kind": "image"}),
            options=phosphene.RunOptions(device="cpu"),
            start=flat,
        )


class Named(nn.Module):
    """Modules of names that mean something in a unit's spelling."""

    def __init__(self) -> None:
        super().__init__()
        for index, name in enumerate(NAMES):
            self.add_module(name, nn.Conv2d(8 if index else 3, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for name in NAMES:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


NAMES = ["b", "a + b", "a - b:1", "c#2", "c", "2*c", "with space", "mean(c)", "class:1", "-d", "match(c)"]


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_may_name_any_module(name):
    module = made(Named)
    network = opened(module)
    assert [layer.name for layer in network.layers] == NAMES
    unit = phosphene.units.spelling.parse_unit(f"{name}:1", network)
    assert unit == phosphene.Channel(name, 1)
    assert phosphene.units.spelling.parse_unit(str(unit), network) == unit
    check_scores(network, module, name, channel_first, f"{name}:1")


def test_sums_of_units_of_such_names():
    network = opened(made(Named))
    read = phosphene.units.spelling.parse_unit("a + b:1 - 0.5*c:2 + b:3", network)
    assert [(weight, str(part)) for weight, part in read.terms()] == [(1, "a + b:1"), (-0.5, "c:2"), (1, "b:3")]
    assert phosphene.units.spelling.parse_unit(str(read), network) == read
    assert str(phosphene.units.spelling.parse_unit("c:1 + b:1", network)) == "c:1 + b:1"
    assert phosphene.units.spelling.parse_unit("mean(a + b:1)", network) == phosphene.Channel("a + b", 1, "mean")
    assert phosphene.units.spelling.parse_unit("a + b", network) == phosphene.WholeLayer("a + b")
    assert phosphene.units.spelling.parse_unit("class:1", network) == phosphene.Class(1)


# The same numbers at every size of a batch.


def test_layers_that_are_the_same_for_every_image_cannot_be_shown():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) + self.inner(torch.ones(1, 4))

    network = opened(made(Constant))
    assert [layer.name for layer in network.layers] == ["conv"]
    with pytest.raises(InputError, match="'inner' of Constant cannot be shown: it is the same for every image"):
        network.layer("inner")


def test_a_network_that_takes_one_image_at_a_time_says_so():
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1, "one image only"
            return self.fc(self.conv(x).relu().mean((2, 3)))

    module = made(One)
    network = opened(module)
    assert any("takes one image at a time (one image only)" in each for each in network.notes.values())
    check_scores(network, module, "conv", channel_first, "conv:1", "conv:2")
    check_scores(network, module, "", lambda output, unit: output[0, unit.index], "class:1", "class:2")
