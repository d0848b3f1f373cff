"""The arithmetic of passes: what has 16 bits, what has not, and how it is chosen and remembered."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import seeded
from tiny import normed
from torch import nn

import phosphene
from phosphene import png
from phosphene.api.again import again
from phosphene.ascent.evaluator import Evaluator
from phosphene.networks.speed import attention_products, precision
from phosphene.networks.speed.attention_products import AttentionProducts
from phosphene.networks.speed.precision import PrecisionTiming, cast, choose
from phosphene.provenance.reading import read_provenance
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Class

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch, measured_precision):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "measured_timings", {})


def test_inside_the_network_has_16_bits_and_at_the_end_its_very_weights_again():
    network = normed()
    before = {name: tensor.data_ptr() for name, tensor in network.module.state_dict().items()}
    inside = cast(network, "bf16")
    for _ in range(2):
        with network.borrowed(), inside():
            kinds = {tensor.dtype for tensor in network.module.parameters()}
            assert kinds == {torch.bfloat16}
            assert network.forward(torch.rand(2, 3, 24, 24)).dtype == torch.bfloat16
        assert {name: tensor.data_ptr() for name, tensor in network.module.state_dict().items()} == before


def test_weights_come_back_after_an_exception():
    network = normed()
    with pytest.raises(KeyError), network.borrowed(), cast(network, "bf16")():
        raise KeyError
    assert {tensor.dtype for tensor in network.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("statistics", ["off", {"weight": 5.0}])
def test_values_and_gradients_have_32_bits_and_are_near_those_of_fp32(statistics):
    network, recipe = normed(), Recipe.load("draft").override({"priors.statistics": statistics})
    images = 255 * torch.rand((3, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    units = [Class(index) for index in range(3)]
    found = {}
    with network.borrowed():
        for name in ("fp32", "bf16"):
            generators = [torch.Generator().manual_seed(index) for index in range(3)]
            found[name] = Evaluator([network], recipe, CPU, precisions=[name])(units, images, generators)
    own, other = found["fp32"], found["bf16"]
    assert other.values.dtype == other.gradient.dtype == other.probabilities.dtype == torch.float32
    assert not torch.equal(own.gradient, other.gradient)
    cosine = torch.cosine_similarity(own.gradient.flatten(1), other.gradient.flatten(1))
    assert cosine.min() > 0.99
    assert (own.values - other.values).abs().max() < 0.02 * own.values.abs().max() + 0.02


def test_what_is_said_of_a_finished_image_is_measured_in_32_bits():
    network = normed()
    (picture,) = phosphene.ascend(
        network, "class:1", Recipe.load("naive").override({"steps": 5}), options=phosphene.RunOptions(precision="bf16")
    )
    with network.borrowed(), torch.no_grad():
        logits = network.forward(torch.tensor(picture.pixels).movedim(-1, 0)[None].float())
    assert picture.scores["objective"] == pytest.approx(logits[0, 1].item(), rel=1e-5)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_precision_is_in_the_file_and_the_image_is_made_again_in_it(tmp_path, name):
    network = normed()
    recipe = Recipe.load("draft").override({"steps": 6})
    result = phosphene.ascend(network, ["class:1", "relu2:3"], recipe, options=phosphene.RunOptions(precision=name))
    for picture in result:
        path = picture.save(tmp_path)
        assert read_provenance(path)["precision"] == [name]
        assert again(path, network).same


def test_an_image_that_does_not_say_was_made_in_32_bits(tmp_path, monkeypatch):
    network = normed()
    (picture,) = phosphene.ascend(
        network, "class:1", Recipe.load("naive").override({"steps": 3}), options=phosphene.RunOptions(precision="fp32")
    )
    path = picture.save(tmp_path)
    known = read_provenance(path)
    del known["precision"]
    path.write_bytes(png.with_provenance(path.read_bytes(), known))
    monkeypatch.setattr(precision, "measure_timing", lambda *_: pytest.fail("nothing is chosen"))
    assert again(path, network).same


@pytest.mark.parametrize(
    ("trial", "best"),
    [
        (PrecisionTiming(0.1, 0.03), "bf16"),
        (PrecisionTiming(0.1, 0.08), "fp32"),
        (PrecisionTiming(0.1, 0.2), "fp32"),
        (PrecisionTiming(0.1, math.inf), "fp32"),
        (PrecisionTiming(0.001, 0.0003), "fp32"),  # short enough
    ],
)
def test_16_bits_are_taken_where_they_are_worth_it(trial, best):
    assert trial.best == best


def test_a_trial_is_made_once_and_remembered(monkeypatch):
    network, made = normed(), []
    monkeypatch.setattr(precision, "measure_timing", lambda *_: made.append(1) or PrecisionTiming(0.5, 0.1))
    with network.borrowed():
        assert choose(network, CPU) == choose(network, CPU) == "bf16"
        assert len(made) == 1
        monkeypatch.setattr(precision, "measured_timings", {})  # another process
        assert choose(network, CPU) == "bf16"
        assert len(made) == 1
        (kept,) = json.loads(precision.memory_path().read_text()).values()
        assert kept == {"fp32": 0.5, "bf16": 0.1}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}'])
def test_a_damaged_memory_is_as_none(monkeypatch, text):
    network = normed()
    precision.memory_path().parent.mkdir(parents=True)
    precision.memory_path().write_text(text)
    monkeypatch.setattr(precision, "measure_timing", lambda *_: PrecisionTiming(0.5, 0.1))
    with network.borrowed():
        assert choose(network, CPU) == "bf16"


def test_nothing_is_remembered_of_short_passes():
    network = normed()
    with network.borrowed():
        assert choose(network, CPU) == "fp32"
    assert not precision.memory_path().exists()


@pytest.mark.parametrize(
    ("seconds", "most", "found"),
    [
        ({32: 4, 64: 3, 128: 2, 256: 1.99}, 1000, 128),  # no faster at 256
        ({32: 4, 64: 3, 100: 2}, 100, 100),
        ({32: 4, 64: 3}, 1000, 64),  # 128 do not fit
        ({32: 4, 64: 4}, 1000, 32),
        ({}, 20, 20),
    ],
)
def test_a_batch_is_as_wide_as_it_pays(monkeypatch, seconds, most, found):
    def measured(network, device, rows):
        if rows not in seconds:
            raise torch.OutOfMemoryError(f"{rows} rows")
        return seconds[rows]

    monkeypatch.setattr(precision, "measure_seconds", measured)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert precision.best_batch_size(normed(), torch.device("cuda"), "fp32", 32, most) == found
    assert precision.best_batch_size(normed(), CPU, "fp32", 32, most) == min(32, most)


class Picky(nn.Module):
    """Takes numbers of 32 bits only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.float32:
            raise RuntimeError("expected numbers of 32 bits")
        return self.conv(images).mean((2, 3))


def test_a_network_that_does_not_run_in_16_bits(monkeypatch):
    monkeypatch.setattr(precision, "SHORT_PASS", 0.0)
    network = phosphene.open(seeded(Picky), phosphene.Preprocessing(size=24))
    with pytest.raises(phosphene.InputError, match=r"precision bf16: Picky does not run in it.*32 bits"):
        phosphene.ascend(network, "class:1", "naive", options=phosphene.RunOptions(precision="bf16"))
    with network.borrowed():
        assert choose(network, CPU) == "fp32"


@pytest.mark.parametrize("asked", ["fp16", "bf", ""])
def test_another_precision_is_refused(small, asked):
    with pytest.raises(phosphene.InputError, match=f"precision {asked!r}: expected auto, fp32, bf16 or fp64"):
        phosphene.ascend(small, "class:1", "naive", options=phosphene.RunOptions(precision=asked))


# Attention


def attended(tensors, **options):
    """What attention gives in a context of 16 bits, and its gradients."""
    given = [each.clone().requires_grad_() for each in tensors]
    with AttentionProducts():
        found = F.scaled_dot_product_attention(*given, **options)
    weights = torch.linspace(-1, 1, found.shape[-2] * found.shape[-1]).view(found.shape[-2:]).to(found)
    return [found.detach(), *torch.autograd.grad((found * weights).sum(), given)]


def tokens(rows=3, heads=2, count=37, width=16, keys=None, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, heads, each or count, width) for each in (None, keys, keys)]
    return [(4 * torch.randn(shape, generator=generator)).to(dtype) for shape in shapes]


@pytest.mark.parametrize("keys", [None, 21])
@pytest.mark.parametrize("options", [{}, {"scale": 0.5}])
def test_attention_in_16_bits_is_that_of_32_up_to_its_rounding(keys, options):
    given = tokens(keys=keys)
    own = attended([each.float() for each in given], **options)
    for found, exact in zip(attended(given, **options), own, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).norm() < 0.01 * exact.norm()


def test_attention_of_an_image_does_not_depend_on_what_is_beside_it():
    given = tokens(rows=7)
    whole = attended(given)
    for rows in (slice(0, 1), slice(2, 5)):
        for found, each in zip(attended([each[rows] for each in given]), whole, strict=True):
            assert torch.equal(found, each[rows])


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (tokens(), {"attn_mask": torch.ones(37, 37).tril().bool()}),
        (tokens(), {"is_causal": True}),
        (tokens(dtype=torch.float32), {}),
        (tokens(rows=1, heads=1, count=2049, width=2), {}),  # too many weights
    ],
)
def test_other_attention_is_torchs_own(given, options):
    assert torch.equal(attended(given, **options)[0], F.scaled_dot_product_attention(*given, **options))


def test_which_attention_it_is_does_not_depend_on_how_many_images_there_are(monkeypatch):
    monkeypatch.setattr(attention_products, "MAX_WEIGHTS", 2 * 37 * 37)
    used = []
    monkeypatch.setattr(attention_products.AttentionFunction, "apply", lambda *given: used.append(1) or given[0])
    for rows in (1, 5):
        with AttentionProducts():
            F.scaled_dot_product_attention(*tokens(rows=rows))
            F.scaled_dot_product_attention(*tokens(rows=rows, heads=3))
    assert len(used) == 2


def test_a_transformer_in_16_bits_computes_its_attention_so(monkeypatch):
    network = phosphene.open("timm:test_vit", pretrained=False)
    used = []
    own = attention_products.plain_attention
    monkeypatch.setattr(
        attention_products, "plain_attention", lambda *given, **options: used.append(1) or own(*given, **options)
    )
    for name, expected in (("fp32", False), ("bf16", True)):
        with network.borrowed(), cast(network, name)():
            network.forward(torch.rand(2, 3, *network.preprocessing.size))
        assert bool(used) == expected
