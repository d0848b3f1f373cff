"""Programs, quantized networks and the state of torch: the images are those of the plain module."""

import copy
import hashlib
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import timm
import torch
import torch.nn.functional as F
from reference import SIZE, ascended, check_scores, close, inputs, made, opened, own
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import phosphene
from phosphene import InputError
from phosphene.networks import identity, scripted
from phosphene.networks.sources import programs


def plain(end: bool = False) -> nn.Sequential:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.3, 2)
    return module.append(nn.Softmax(1)) if end else module


def of_channel(output: Tensor, unit: phosphene.Unit) -> Tensor:
    return output[0, unit.channel].sum()


def of_class(output: Tensor, unit: phosphene.Unit) -> Tensor:
    return output[0, unit.index]


# TorchScript and torch.export.


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    file = tmp_path_factory.mktemp("scripts") / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(made(plain), torch.rand(1, 3, SIZE, SIZE))
        traced.save(str(file))
        return {
            "script": torch.jit.script(made(plain)), "trace": traced, "file": file,
            "with a softmax": torch.jit.script(made(plain, True)),
        }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["script", "trace", "file", "with a softmax"])
def test_classes_of_torchscript_programs_are_the_modules(kind, scripts):
    given = scripts[kind]
    if kind == "file":
        known = phosphene.Preprocessing(size=SIZE, mean=0.4, std=0.3)
        network = phosphene.open(given, known)
        assert network.name == "net"
    else:
        network = opened(given)
    assert network.classes == 5
    module = made(plain)
    result = check_scores(network, module, "", of_class, "class:1", "class:3")
    assert (network.ending is not None) == (kind == "with a softmax")
    logits = own(module, inputs(network, result.pixels[0]), "")
    assert result[0].scores["probability"] == close(logits.softmax(1)[0, 1].item())
    assert [layer.name for layer in network.layers] == [str(i) for i in range(9 if kind == "with a softmax" else 8)]
    for layer in ("0", "1", "2", "3", "4"):
        check_scores(network, module, layer, of_channel, f"{layer}:1", f"{layer}:4")


class Branching(nn.Module):
    """What TorchScript knows besides straight lines: conditions, loops, lists, several outputs, functions."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)])
        self.act = nn.ReLU6()
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        sizes: list[int] = []
        for conv in self.convs:
            maps = self.act(conv(maps))
            sizes.append(maps.size(2))
        for size in sizes:
            if size > 3:
                maps = maps + 0.5 * F.softplus(maps, beta=2.0)
        first, second = maps.chunk(2, 1)
        return self.head(torch.cat([second, first], 1).mean((2, 3)))


def test_conditions_loops_and_functions_of_a_program_are_followed():
    module = made(Branching)
    network = opened(torch.jit.script(module))
    assert [layer.name for layer in network.layers] == ["convs.0", "act#1", "convs.1", "act#2", "head"]
    check_scores(network, module, "", of_class, "class:1", "class:4")
    check_scores(network, module, "convs.1", of_channel, "convs.1:1", "convs.1:3")


def test_a_program_that_cannot_be_followed_shows_its_classes(monkeypatch):
    monkeypatch.setattr(scripted, "KNOWN_OPERATORS", {"prim::GetAttr", "prim::Constant"})
    module = made(plain)
    network = opened(torch.jit.script(module))
    check_scores(network, module, "", of_class, "class:1", "class:3")
    with pytest.raises(InputError, match="TorchScript program, and none of its layers can be read"):
        ascended(network, "3:1")


def test_a_torchscript_file_without_a_description_says_what_is_assumed(scripts):
    network = phosphene.open(scripts["file"])
    assert "0..1 and 224x224 are assumed" in network.notes["preprocessing"]
    assert network.source == {"network": str(scripts["file"])}


def test_a_torchscript_module_in_a_module_leaves_the_others_their_layers():
    module = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 5, 3)))
    module[1] = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()).eval())
    network = opened(module)
    assert [layer.name for layer in network.layers if layer.name != "output"] == ["0", "2"]
    check_scores(network, module, "2", of_channel, "2:1", "2:3")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    module = made(plain)
    free = torch.export.export(
        module, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )  # fmt: skip
    one = torch.export.export(module, (torch.rand(1, 3, SIZE, SIZE),))
    folder = tmp_path_factory.mktemp("exports")
    torch.export.save(free, str(folder / "free.pt2"))
    torch.export.save(one, str(folder / "one.pt2"))
    return {
        "program": free, "unflattened": torch.export.unflatten(free), "module": free.module(),
        "file": folder / "free.pt2", "program of one row": one, "file of one row": folder / "one.pt2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["program", "unflattened", "module", "file", "program of one row", "file of one row"]
)  # fmt: skip
def test_exported_programs_are_the_modules(kind, exports):
    network = phosphene.open(exports[kind], phosphene.Preprocessing(size=SIZE, mean=0.4, std=0.3))
    module = made(plain)
    assert network.classes == 5
    check_scores(network, module, "", of_class, "class:1", "class:3")
    if kind == "module":  # one graph
        with pytest.raises(InputError, match="one graph, and none of its layers can be read"):
            ascended(network, "3:1")
    else:
        assert [layer.name for layer in network.layers] == [str(index) for index in range(8)]
        for layer in ("0", "1", "2", "3", "4"):
            check_scores(network, module, layer, of_channel, f"{layer}:1", f"{layer}:4")
    assert ("takes one image at a time" in " ".join(network.notes.values())) == ("one row" in kind)


def test_an_exported_file_knows_the_size_of_its_images(exports):
    network = phosphene.open(exports["file"])
    assert network.preprocessing.size == (SIZE, SIZE)
    assert network.preprocessing.fixed_size
    assert "32x32 are assumed" in network.notes["preprocessing"]


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_a_program_that_is_damaged_is_refused_in_a_sentence(suffix, exports, scripts, tmp_path):
    data = (exports["file"] if suffix == ".pt2" else scripts["file"]).read_bytes()
    damaged = tmp_path / f"net{suffix}"
    listing = data.index(b"PK\x01\x02")  # of what the archive holds, which is all that is left
    damaged.write_bytes(bytes(listing) + data[listing:])
    with pytest.raises(InputError, match=r"program '.*' cannot be read"):
        phosphene.open(damaged)


# Quantized networks.


def quantizable() -> nn.Module:
    ao = torch.ao.quantization
    return nn.Sequential(
        ao.QuantStub(), nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 5), ao.DeQuantStub(),
    )  # fmt: skip


def static() -> nn.Module:
    module = made(quantizable)
    engine = torch.backends.quantized.supported_engines[-1]
    torch.backends.quantized.engine = engine
    module.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = torch.ao.quantization.prepare(module)
        for seed in range(8):
            prepared(torch.rand((4, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)) * 3 - 1)
        return torch.ao.quantization.convert(prepared)


def dynamic() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(made(plain), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize("kind", [static, dynamic])
def test_quantized_networks_are_shown_in_floating_point(kind):
    module = kind()
    network = opened(module)
    assert programs.quantized_modules(module)
    assert programs.quantized_modules(network.module) == []
    assert "quantized weights are shown in floating point" in network.notes["precision"]
    result = ascended(network, "class:1", "class:3")
    for index, picture in zip((1, 3), result, strict=True):
        outputs = own(module, inputs(network, result.pixels[(1, 3).index(index)]))
        # Eight bits: within a few hundredths of what the logits range over.
        assert abs(picture.scores["objective"] - outputs[0, index].item()) < 0.1 * float(outputs.abs().max())
    assert len(ascended(network, "1:2" if kind is static else "3:2").pixels) == 1


def test_a_quantized_module_without_a_counterpart_is_named():
    module = static()
    module.append(
        torch.ao.nn.quantized.LayerNorm((5,), nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(5)), 1.0, 0)
    )
    with pytest.raises(
        InputError, match="its 8 is a LayerNorm, which has no gradient: expected the network in floating"
    ):
        opened(module)


# Modules without values.


def test_modules_without_values_are_refused_with_what_to_do():
    with torch.device("meta"):
        module = plain()
    with pytest.raises(InputError, match=r"on the meta device, and its 0.weight has no values: expected .*to_empty"):
        opened(module)
    lazy = nn.Sequential(nn.LazyConv2d(8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(InputError, match=r"is lazy, and its 0.weight has no shape yet: expected .* called once"):
        opened(lazy)
    lazy(torch.rand(2, 3, SIZE, SIZE))
    check_scores(opened(lazy), lazy, "", of_class, "class:1")


def test_a_module_of_several_inputs_is_refused():
    module = made(nn.Bilinear, 3, 3, 2)
    with pytest.raises(InputError, match=r"Bilinear does not take images of 3 channels and 32x32 pixels \(.*argument"):
        _ = opened(module).layers


def test_a_pickled_module_is_not_run(tmp_path):
    torch.save(made(plain), tmp_path / "net.pt")
    with pytest.raises(InputError, match="holds weights and no network"):
        phosphene.open(tmp_path / "net.pt")
    with pytest.raises(InputError, match="holds more than tensors"):
        phosphene.open("resnet18", weights=tmp_path / "net.pt")


# Activation checkpointing.


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool):
        super().__init__()
        self.a, self.fc, self.reentrant = plain()[:5], nn.Linear(6, 5), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(checkpoint(self.a, x, use_reentrant=self.reentrant).mean((2, 3)))


def functions() -> dict:
    """Torch's own functions for checkpointing."""
    return {name: value for name, value in vars(torch.utils.checkpoint).items() if callable(value)}


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant):
    module = made(Checkpointed, reentrant)
    own_functions = functions()
    network = opened(module)
    check_scores(network, module, "", of_class, "class:1", "class:2")
    for layer in ("a.0", "a.2", "a"):
        check_scores(network, module, layer, of_channel, f"{layer}:1", f"{layer}:3")
    rise = ascended(network, "class:1", steps=5)
    assert rise.objectives[0][-1] > rise.objectives[0][0]
    assert functions() == own_functions


def test_timms_activation_checkpointing():
    def tiny(checkpointing: bool) -> nn.Module:
        module = timm.create_model("test_vit", img_size=SIZE, patch_size=8, num_classes=5)
        nn.init.normal_(module.head.weight, 0, 0.3)
        module.set_grad_checkpointing(checkpointing)
        return module

    units = ("class:1", "blocks.2:3")
    one, other = (ascended(opened(made(tiny, checkpointing)), *units) for checkpointing in (True, False))
    assert (one.pixels[0] == other.pixels[0]).all()
    assert (one.pixels[1] == other.pixels[1]).all()
    module = made(tiny, True)
    check_scores(opened(module), module, "", of_class, "class:1")


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.5 compiles whatever is to be compiled")
@pytest.mark.parametrize("in_place", [False, True])
def test_what_torch_compile_returns_is_not_compiled(in_place):
    compiled: list[int] = []

    def backend(graph, inputs):
        compiled.append(1)
        return graph.forward

    module = made(plain)
    if in_place:
        module.compile(backend=backend)
    else:
        module = torch.compile(module, backend=backend)
    network = opened(module)
    layer = "3" if in_place else "_orig_mod.3"
    found = ascended(network, "class:1", f"{layer}:2")
    assert same_images(found, ascended(opened(made(plain)), "class:1", "3:2"))
    assert compiled == []
    module(torch.rand(1, 3, SIZE, SIZE))  # the caller's pass is
    assert compiled


# What the caller has set.


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def switched_off():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


def settings() -> tuple:
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"), torch.get_default_dtype(),
    )  # fmt: skip


STATES = {
    "no_grad": torch.no_grad, "set_grad_enabled": switched_off, "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16), "float64": double,
}  # fmt: skip
states = pytest.mark.parametrize("state", STATES.values(), ids=STATES)


@states
@pytest.mark.parametrize("units", [("class:1", "4:2"), ("2:3",)])
def test_what_the_caller_has_set_changes_no_byte_and_is_there_afterwards(state, units):
    module = made(plain)
    wanted = ascended(opened(module), *units)
    with state():
        before = settings()
        found = ascended(opened(module), *units)
        assert settings() == before
    assert same_images(found, wanted)
    assert [each.scores for each in found] == [each.scores for each in wanted]


def same_images(one: phosphene.Result, other: phosphene.Result) -> bool:
    return all((a == b).all() for a, b in zip(one.pixels, other.pixels, strict=True))


class Failing(nn.Module):
    """Raises at its sixth call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = plain(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 20:
            raise ValueError("that was one too many")
        return self.inner(x)


@states
def test_what_the_caller_has_set_is_there_after_an_exception(state):
    module = made(Failing)
    checkpointing = functions()
    with state():
        before = settings()
        with pytest.raises(ValueError, match="one too many"):
            ascended(opened(module), "class:1", steps=100)
        assert settings() == before
    assert functions() == checkpointing
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("still_in_it", [False, True])
def test_a_module_that_was_made_under_inference_mode(still_in_it):
    wanted = ascended(opened(made(plain)), "class:1", "3:2")
    with torch.inference_mode():
        module = made(plain)
    assert next(module.parameters()).is_inference()
    with torch.inference_mode() if still_in_it else nullcontext():
        found = ascended(opened(module), "class:1", "3:2")
    assert same_images(found, wanted)
    assert next(module.parameters()).is_inference()
    assert opened(module).digest == opened(made(plain)).digest


# The digest.


@pytest.fixture
def hashes(monkeypatch):
    """How often a hash is begun."""
    counted: list[int] = []
    real = hashlib.sha256

    def counting(*args):
        counted.append(1)
        return real(*args)

    monkeypatch.setattr(identity.hashlib, "sha256", counting)
    return counted


def test_weights_are_hashed_once_for_as_long_as_they_stay(hashes):
    network = opened(made(plain))
    assert len({network.digest for _ in range(1000)}) == 1
    assert (
        len({network.with_input_size((48, 48)).digest for _ in range(3)} | {network.replace(name="other").digest}) == 1
    )
    assert len(hashes) == 1


CHANGES = {
    "in place": lambda module: module[0].weight.requires_grad_(False).mul_(2),
    "one number": lambda module: module[3].weight.requires_grad_(False)[1, 1, 1, 1].add_(1),
    "data": lambda module: module[0].weight.data.mul_(2),
    "state dict": lambda module: module.load_state_dict(plain().state_dict()),
    "another tensor": lambda module: setattr(module[7], "bias", nn.Parameter(torch.ones(5))),
    "other data": lambda module: setattr(module[7].bias, "data", torch.ones(5)),
    "a buffer": lambda module: module[1].running_mean.add_(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_follows_the_weights(change, hashes):
    module = made(plain)
    network = opened(module)
    first = network.digest
    backup = copy.deepcopy(module.state_dict())
    change(module)
    assert network.digest != first
    assert len(hashes) == 2
    module.load_state_dict(backup)
    assert network.digest == first


def test_the_norms_follow_the_weights():
    module = made(plain)
    network = opened(module)
    (before,) = network.norms
    with torch.no_grad():
        module[1].running_mean.add_(1)
        module[1].running_var.mul_(4)
        module[1].weight.data.mul_(-1)
    (after,) = network.norms
    torch.testing.assert_close(after.mean, before.mean + 1)
    torch.testing.assert_close(after.std, before.std * 2)
    torch.testing.assert_close(after.sign, -before.sign)
