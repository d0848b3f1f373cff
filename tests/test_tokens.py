"""Tokens, heads and sizes of transformers: what a layer's tokens are, and how units are read from them."""

import copy
import json
import re
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
import torchvision
from PIL import Image
from tiny import vit
from torch import Tensor, nn

import phosphene
from phosphene import Channel, Direction, InputError, Network, Neuron, Preprocessing, Recipe, WholeLayer, png
from phosphene.atlas.plan import AtlasPlan, make_groups
from phosphene.atlas.top_photographs import TopPhotographs
from phosphene.cli.program import main
from phosphene.cli.unit_arguments import list_units
from phosphene.judges.photo_responses import respond
from phosphene.networks.heads import find_attentions, register_head_readers
from phosphene.networks.tokens import TokenLayout
from phosphene.provenance.reading import read_provenance
from phosphene.units.spelling import parse_unit
from phosphene.units.tokens import ALL_TOKENS, PATCHES, TokenSelection

SIZE = 64
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "image_size": SIZE, "patch_size": 16}  # fmt: skip


def opened(module: nn.Module, size: int = SIZE, **more: object) -> Network:
    return phosphene.open(module.eval(), Preprocessing(size=size, mean=0.5, std=0.5), name="net", **more)


def drawn(make, *args: object, **options: object) -> nn.Module:
    """A module of weights that are all other than 0, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(*args, **options)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
    return module


def pixels(rows: int, height: int, width: int) -> Tensor:
    return 255 * torch.rand((rows, 3, height, width), generator=torch.Generator().manual_seed(1))


def of_timm(**options: object) -> Network:
    shape = {"img_size": SIZE, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
    return opened(drawn(timm.create_model, "vit_tiny_patch16_224", **shape | options))


def of_transformers(kind: str, **options: object) -> Network:
    transformers = pytest.importorskip("transformers")
    config = {"CLIPVision": "CLIPVisionConfig", "SiglipVision": "SiglipVisionConfig"}.get(kind, f"{kind}Config")
    model = kind if kind.endswith("Classification") else f"{kind}Model"
    config = config.replace("ForImageClassification", "")
    return opened(drawn(getattr(transformers, model), getattr(transformers, config)(**SMALL | options)))


def of_torchvision() -> Network:
    shape = {"image_size": SIZE, "patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    return opened(drawn(torchvision.models.VisionTransformer, **shape, num_classes=5))


class Plain(nn.Module):
    """A transformer of nobody's library: patches behind some tokens of an unknown kind, and functional activations."""

    def __init__(self, more: int = 3, name: str = "unknown"):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, 16)
        self.mlp = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 8)])
        self.head = nn.Linear(8, 5)
        setattr(self, name, nn.Parameter(torch.zeros(1, more, 8)))
        self.called = name

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).movedim(1, 2)
        tokens = torch.cat([getattr(self, self.called).expand(len(images), -1, -1), patches], dim=1)
        return self.head((tokens + self.mlp[1](torch.relu(self.mlp[0](tokens)))).mean(1))


# What the tokens are


@pytest.mark.parametrize(
    ("make", "layer", "expected"),
    [
        (of_timm, "blocks.0", TokenLayout(1, 0, (4, 4))),
        (of_timm, "patch_embed", TokenLayout(0, 0, (4, 4))),
        (lambda: of_timm(reg_tokens=4), "blocks.0.mlp.act", TokenLayout(1, 4, (4, 4))),
        (lambda: of_timm(class_token=False, global_pool="avg"), "blocks.0", TokenLayout(0, 0, (4, 4))),
        (lambda: of_transformers("Dinov2WithRegisters"), "encoder.layer.1", TokenLayout(1, 4, (4, 4))),
        (lambda: of_transformers("DINOv3ViT", num_register_tokens=2), "model.layer.1", TokenLayout(1, 2, (4, 4))),
        (lambda: of_transformers("DeiT"), "layers.1", TokenLayout(2, 0, (4, 4))),
        (lambda: of_transformers("CLIPVision"), "encoder.layers.1", TokenLayout(1, 0, (4, 4))),
        (lambda: of_transformers("SiglipVision"), "encoder.layers.1", TokenLayout(0, 0, (4, 4))),
        (lambda: of_transformers("ViT"), "layers.0", TokenLayout(1, 0, (4, 4))),
        (of_torchvision, "encoder.layers.encoder_layer_1", TokenLayout(1, 0, (4, 4))),
    ],
)  # fmt: skip
def test_a_network_says_what_its_tokens_are(make, layer, expected):
    network = make()
    found = network.layer(layer)
    assert found.tokens == expected
    assert found.positions == (expected.count,)
    assert "tokens" not in network.notes


def test_what_nothing_says_is_guessed_said_and_can_be_chosen():
    guessed = opened(Plain())
    assert guessed.layer("mlp.1").tokens == TokenLayout(1, 2, (4, 4))
    assert "1 class token, 2 registers, 4 x 4 patches" in guessed.notes["tokens"]
    chosen = opened(Plain(), tokens="0+3")
    assert chosen.layer("mlp.1").tokens == TokenLayout(0, 3, (4, 4))
    assert "tokens" not in chosen.notes
    assert chosen.with_input_size((96, 64)).layer("mlp.1").tokens == TokenLayout(0, 3, (6, 4))
    named = opened(Plain(name="register_tokens"))
    assert named.layer("mlp.1").tokens == TokenLayout(0, 3, (4, 4))
    assert "tokens" not in named.notes


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ("5", "no layer of the network has 5 tokens and a grid"),
        ("a", "such as 1, 0 or 1\\+4"),
        (True, "expected how many"),
    ],
)
def test_tokens_that_a_network_does_not_have_are_refused(tokens, sentence):
    with pytest.raises(InputError, match=sentence):
        opened(Plain(), tokens=tokens)


def test_a_network_without_tokens_has_no_layout_and_takes_none(small):
    assert all(layer.tokens is None for layer in small.layers)
    with pytest.raises(InputError, match="no layer of the network has tokens"):
        phosphene.open(small.module, small.preprocessing, tokens="1")


def test_an_activation_that_is_a_function_has_the_layer_before_it_marked(capsys):
    network = opened(Plain())
    assert [layer.name for layer in network.layers if layer.worth_showing] == ["mlp.0"]
    assert [layer.name for layer in of_torchvision().layers if layer.worth_showing] == [
        f"encoder.layers.encoder_layer_{index}.mlp.1" for index in (0, 1)
    ]


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "CLIPVision", "SiglipVision"])
def test_the_activations_of_the_mlps_are_marked(kind):
    marked = [layer for layer in of_transformers(kind).layers if layer.worth_showing and layer.tokens]
    assert [layer.channels for layer in marked] == [128 if kind == "Dinov2" else 64] * 2


# Units


@pytest.fixture(scope="module")
def network() -> Network:
    return of_timm(reg_tokens=2)


@pytest.fixture(scope="module")
def activation(network) -> Tensor:
    """(channels, tokens) of one image: a class token, two registers, sixteen patches."""
    return network.activations(pixels(1, SIZE, SIZE), "blocks.0")["blocks.0"][0]


@pytest.mark.parametrize(
    ("text", "spelled", "number"),
    [
        ("blocks.0:3", "blocks.0:3@patches", lambda a: a[3, 3:].mean()),
        ("mean(blocks.0:3)", "blocks.0:3@patches", lambda a: a[3, 3:].mean()),
        ("sum(blocks.0:3)", "sum(blocks.0:3@patches)", lambda a: a[3, 3:].sum()),
        ("blocks.0:3@cls", "blocks.0:3@cls", lambda a: a[3, 0]),
        ("blocks.0:3@registers", "blocks.0:3@registers", lambda a: a[3, 1:3].mean()),
        ("blocks.0:3@tokens", "blocks.0:3@tokens", lambda a: a[3].mean()),
        ("sum(blocks.0:3@tokens)", "sum(blocks.0:3@tokens)", lambda a: a[3].sum()),
        ("blocks.0:3@2, 1", "blocks.0:3@2,1", lambda a: a[3, 3 + 2 * 4 + 1]),
        ("blocks.0:3@5", "blocks.0:3@5", lambda a: a[3, 5]),
        ("blocks.0", "blocks.0@patches", lambda a: a[:, 3:].square().mean()),
        ("blocks.0@cls", "blocks.0@cls", lambda a: a[:, 0].square().mean()),
        ("blocks.0@tokens", "blocks.0@tokens", lambda a: a.square().mean()),
        (f"blocks.0:{json.dumps([1.0] * 32)}@cls", None, lambda a: a[:, 0].sum()),
        (f"blocks.0:{json.dumps([1.0] * 32)}", None, lambda a: a[:, 3:].sum(0).mean()),
        ("blocks.0:3@cls - 2*blocks.0:1", "blocks.0:3@cls - 2.0*blocks.0:1@patches",
         lambda a: a[3, 0] - 2 * a[1, 3:].mean()),
    ],
)  # fmt: skip
def test_a_unit_is_read_from_the_tokens_that_it_names(network, activation, text, spelled, number):
    unit = parse_unit(text, network)
    assert spelled is None or str(unit) == spelled
    assert parse_unit(str(unit), network) == unit
    values = respond(network, [unit], pixels(1, SIZE, SIZE)).values
    assert values.item() == pytest.approx(number(activation).item(), rel=1e-4, abs=1e-5)


def test_units_of_python_mean_the_same_as_spelled(network):
    assert parse_unit(Channel("blocks.0", 3), network) == parse_unit("blocks.0:3", network)
    assert parse_unit(Channel("blocks.0", 3, "sum"), network) == parse_unit("sum(blocks.0:3)", network)
    assert Channel("blocks.0", 3, tokens=PATCHES) == Channel("blocks.0", 3, "mean", PATCHES)
    assert Channel("conv", 3) == Channel("conv", 3, "sum") != Channel("conv", 3, "mean")
    assert str(Direction("a", (1, 2), "sum", PATCHES)) == "sum(a:[1.0,2.0]@patches)"
    assert parse_unit(WholeLayer("blocks.0"), network) == WholeLayer("blocks.0", PATCHES)
    assert isinstance(parse_unit("blocks.0:3@5", network), Neuron)
    with pytest.raises(InputError, match=r"tokens 'cls' of blocks\.0: expected a phosphene\.TokenSelection"):
        parse_unit(Channel("blocks.0", 3, tokens="cls"), network)


def test_maps_have_no_tokens_and_keep_their_meaning(network, small):
    assert str(parse_unit("patch_embed.proj:3", network)) == "patch_embed.proj:3"
    assert parse_unit("patch_embed.proj:3@1,1", network) == Neuron("patch_embed.proj", 3, (1, 1))
    with pytest.raises(InputError, match="relu1 has maps, whose neurons are LAYER:CHANNEL@ROW,COLUMN, and no tokens"):
        parse_unit(Channel("relu1", 3, tokens=PATCHES), small)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blocks.0:3@4,0", "the grid has 4 x 4 patches, rows and columns from 0: the nearest is @3,0"),
        ("blocks.0:3@patch", "did you mean patches"),
        ("blocks.0:3@19", "which is 19"),
        ("blocks.0@19", "there are 19 tokens, 0 to 18"),
        ("patch_embed:3@cls", r"there are none among its tokens \(4 x 4 patches\)"),
        ("patch_embed.proj:3@cls", "expected LAYER:CHANNEL@ROW,COLUMN"),
        ("blocks.0:3@", "@registers"),
        ("blocks.0.attn:head9", "it has 4 heads, 0 to 3"),
        ("blocks.0.mlp:head0", "has no attention heads that can be read"),
        ("blocks.0.attn:head0:999", "channel 999 of blocks.0.attn:head0"),
    ],
)
def test_a_token_that_is_not_there_is_refused_in_a_sentence(network, text, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        parse_unit(text, network)
    assert "\n" not in str(raised.value)


def test_of_tokens_that_nobody_knows_all_are_summed_as_ever():
    network = opened(Plain(more=100))
    assert network.layer("mlp.1").tokens is None
    assert str(parse_unit("mlp.1:3", network)) == "mlp.1:3"
    assert str(parse_unit("mlp.1:3@tokens", network)) == "mlp.1:3@tokens"
    with pytest.raises(InputError, match="nothing says which of its 116 tokens are patches"):
        parse_unit("mlp.1:3@patches", network)


def test_channels_of_a_layer_are_listed_at_tokens(network):
    assert [str(unit) for unit in list_units("blocks.0:1-2@cls", network)] == ["blocks.0:1@cls", "blocks.0:2@cls"]
    assert str(list_units("blocks.0", network)[4]) == "blocks.0:4@patches"
    assert str(list_units("blocks.0", network, average=True)[4]) == "blocks.0:4@patches"
    assert str(list_units("blocks.0@cls", network, whole=True)[0]) == "blocks.0@cls"


def test_selections_do_not_depend_on_the_size():
    map_ = torch.arange(3 + 6.0)
    layout = TokenLayout(1, 2, (2, 3))
    assert TokenSelection.parse("@1,2").of(map_, layout).tolist() == [8]
    assert PATCHES.of(torch.arange(3 + 2.0), TokenLayout(1, 2, (1, 2))).tolist() == [3, 4]
    assert ALL_TOKENS.of(map_, None) is map_


# Images of before


def test_an_image_whose_unit_names_no_tokens_was_of_all_and_is_made_again_so(tmp_path):
    network, recipe = vit(), Recipe.load("draft").override({"steps": 1})
    for now, before in (("sum(blocks.1:2@tokens)", "blocks.1:2"), ("blocks.1@tokens", "blocks.1")):
        (picture,) = phosphene.ascend(network, now, recipe)
        path = picture.save(tmp_path)
        known = read_provenance(path)
        assert known["unit"] == now
        path.write_bytes(png.with_provenance(path.read_bytes(), known | {"unit": before, "label": before}))
        again = phosphene.again(path, network)
        assert again.same
        assert str(again.picture.unit) == now
    (picture,) = phosphene.ascend(network, "blocks.1:2", recipe)
    path = picture.save(tmp_path)
    assert read_provenance(path)["unit"] == "blocks.1:2@patches"
    assert phosphene.again(path, network).same


def test_an_image_of_a_network_that_took_one_size_is_made_again_at_that(tmp_path):
    """Views of it were fed, where the network is resized by now."""
    network, recipe = vit(), Recipe.load("draft").override({"steps": 1, "size": [80, 72]})
    fixed = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
    (picture,) = phosphene.ascend(fixed, "class:1", recipe)
    path = picture.save(tmp_path)
    assert read_provenance(path)["network"]["input"]["size"] == [64, 64]
    assert phosphene.again(path, network).same


def test_an_atlas_says_of_which_tokens_its_channels_are_and_one_of_before_has_all(network):
    (group,) = make_groups(network, layers=["blocks.0"], count=2)
    assert (group.tokens, str(group.unit(16, network))) == ("@patches", "blocks.0:16@patches")
    before = replace(group, tokens="")
    assert str(before.unit(16, network)) == "sum(blocks.0:16@tokens)"
    assert before.digest != group.digest
    for each in (group, before):
        plan = AtlasPlan("net", network.digest, {"network": "net"}, [each])
        assert AtlasPlan.from_json(plan.to_json(), "plan.json") == plan
        assert ("tokens" in json.loads(plan.to_json())["groups"][0]) == bool(each.tokens)
    (maps,) = make_groups(network, layers=["patch_embed.proj"], count=2)
    assert maps.tokens == ""
    damaged = json.loads(AtlasPlan("net", network.digest, {"network": "net"}, [group]).to_json())
    damaged["groups"][0]["tokens"] = "@nothing"
    with pytest.raises(InputError, match="tokens @nothing: expected @cls"):
        AtlasPlan.from_json(json.dumps(damaged), "plan.json")


def test_photographs_that_excite_a_channel_of_tokens_most_do_so_by_its_mean_over_the_patches(network):
    photographs = pixels(4, SIZE, SIZE).byte()
    top = TopPhotographs.of(network, ["blocks.0"], (list("abcd"), photographs), "cpu")
    found = network.activations(photographs.float(), "blocks.0")["blocks.0"]
    torch.testing.assert_close(top.values["blocks.0"], found[:, :, 3:].mean(2))


# Heads


@pytest.mark.parametrize(
    ("make", "attention", "projection"),
    [
        (lambda: of_timm(), "blocks.0.attn", "blocks.0.attn.proj"),
        (lambda: of_transformers("Dinov2"), "encoder.layer.1.attention", "encoder.layer.1.attention.o_proj"),
        (lambda: of_transformers("CLIPVision"), "encoder.layers.0.self_attn", "encoder.layers.0.self_attn.out_proj"),
        (of_torchvision, "encoder.layers.encoder_layer_1.self_attention",
         "encoder.layers.encoder_layer_1.self_attention.out_proj"),
    ],
)  # fmt: skip
def test_heads_together_are_what_the_projection_projects(make, attention, projection):
    network = make()
    count = network.attentions[attention].count
    heads = [f"{attention}:head{index}" for index in range(count)]
    output = projection if any(layer.name == projection for layer in network.layers) else attention
    found = network.activations(pixels(2, SIZE, SIZE), [*heads, output])
    together = torch.cat([found[head] for head in heads], dim=1).movedim(1, 2)
    projected = network.module.get_submodule(projection)(together).movedim(2, 1)
    torch.testing.assert_close(projected, found[output], rtol=1e-3, atol=1e-4)
    layer = network.layer(heads[1])
    assert layer.shape == found[heads[1]].shape[1:]
    assert layer.tokens == network.layer(output).tokens
    assert network.depth(heads[1]) == network.depth(output)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("mask", [None, torch.rand(5, 7) > 0.7, torch.randn(5, 7), torch.randn(8, 5, 7)])
def test_the_heads_of_torchs_attention_are_those_that_it_projects(mask, first):
    module = nn.MultiheadAttention(16, 4, batch_first=first).eval()
    given = [torch.randn(2, length, 16) if first else torch.randn(length, 2, 16) for length in (5, 7, 7)]
    heads: dict[int, Tensor] = {}
    attention = find_attentions(nn.Sequential(module))["0"]
    remove = register_head_readers(
        nn.Sequential(module), {index: partial(heads.__setitem__, index) for index in range(4)}, attention
    )
    expected, _ = module(*given, attn_mask=mask, need_weights=False)
    remove()
    found = module.out_proj(torch.cat([heads[index] for index in range(4)], dim=-1))
    torch.testing.assert_close(found, expected)


def test_a_head_is_a_unit_as_a_whole_and_by_channel():
    network = of_timm()
    units = [parse_unit(text, network) for text in ("blocks.1.attn:head3", "blocks.1.attn:head3:2@cls")]
    assert [str(unit) for unit in units] == ["blocks.1.attn:head3@patches", "blocks.1.attn:head3:2@cls"]
    head = network.activations(pixels(1, SIZE, SIZE), "blocks.1.attn:head3")["blocks.1.attn:head3"][0]
    values = respond(network, units, pixels(1, SIZE, SIZE)).values[0]
    torch.testing.assert_close(values, torch.stack([head[:, 1:].square().mean(), head[2, 0]]))
    result = phosphene.ascend(network, units, Recipe.load("draft").override({"steps": 4}))
    assert all(picture.scores["objective"] > picture.objectives[0] for picture in result)


@pytest.mark.parametrize(
    ("make", "block"),
    [
        (of_timm, "blocks.0"),
        (lambda: of_transformers("Dinov2"), "encoder.layer.0"),
        (of_torchvision, "encoder.layers.encoder_layer_0"),
    ],
)
def test_the_residual_stream_after_a_block_is_a_layer(make, block):
    network = make()
    found: list[Tensor] = []
    following = block[:-1] + "1"
    hook = network.module.get_submodule(following).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    stream = network.activations(pixels(1, SIZE, SIZE), block)[block]
    network.activations(pixels(1, SIZE, SIZE), following)
    hook.remove()
    torch.testing.assert_close(found[-1].movedim(1, 2), stream)


# Sizes


def kept(module: nn.Module) -> list[object]:
    """What a module is made of: its tensors by identity, and the names of its attributes."""
    tensors = [(name, id(tensor)) for name, tensor in (*module.named_parameters(), *module.named_buffers())]
    return [
        tensors,
        [sorted(each.__dict__) for each in module.modules()],
        [len(each._forward_pre_hooks) for each in module.modules()],
    ]


def of_torchvision_at(size: int, module: nn.Module) -> nn.Module:
    from torchvision.models.vision_transformer import interpolate_embeddings

    shape = {"image_size": size, "patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    larger = torchvision.models.VisionTransformer(**shape, num_classes=5).eval()
    larger.load_state_dict(interpolate_embeddings(size, 16, OrderedDict(module.state_dict())))
    return larger


def resized_by_timm(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    larger = copy.deepcopy(module)
    larger.set_input_size(img_size=size)
    return larger


@pytest.mark.parametrize(
    ("make", "size", "reference"),
    [
        (of_timm, (96, 80), lambda module: resized_by_timm(module, (96, 80))),
        (lambda: of_timm(reg_tokens=2), (32, 48), lambda module: resized_by_timm(module, (32, 48))),
        (of_torchvision, (96, 96), lambda module: of_torchvision_at(96, module)),
        (lambda: of_transformers("ViTForImageClassification"), (96, 80),
         lambda module: lambda images: module(images, interpolate_pos_encoding=True).logits),
        (lambda: of_transformers("CLIPVision"), (48, 96),
         lambda module: lambda images: module(images, interpolate_pos_encoding=True).last_hidden_state.movedim(2, 1)),
        (lambda: of_transformers("SiglipVision"), (48, 96),
         lambda module: lambda images: module(images, interpolate_pos_encoding=True).last_hidden_state.movedim(2, 1)),
        (lambda: of_transformers("Dinov2"), (48, 96),
         lambda module: lambda images: module(images).last_hidden_state.movedim(2, 1)),
    ],
)  # fmt: skip
def test_position_embeddings_are_resampled_as_the_library_does_it(make, size, reference):
    network = make()
    before, digest = kept(network.module), network.digest
    resized = network.with_input_size(size)
    images = pixels(2, *size)
    name = "logits" if resized.classes else "output"
    found = resized.activations(images, name)[name]
    with torch.no_grad():
        expected = reference(network.module)(network.preprocessing(images))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    grids = {layer.tokens.grid for layer in resized.layers if layer.tokens}
    assert grids == {(size[0] // 16, size[1] // 16)}
    assert [layer.name for layer in resized.layers] == [layer.name for layer in network.layers]
    assert not resized.limit
    assert (kept(network.module), network.digest, resized.digest) == (before, digest, digest)


def test_a_module_is_as_it_was_also_where_a_pass_fails():
    network = of_timm()
    resized, before = network.with_input_size((96, 80)), kept(network.module)

    def fail(_: Tensor) -> None:
        raise RuntimeError("a fault")

    with resized.borrowed(), pytest.raises(RuntimeError, match="a fault"):
        resized.read(pixels(1, 96, 80), {"blocks.0": fail})
    assert kept(network.module) == before
    assert network.activations(pixels(1, SIZE, SIZE), "logits")["logits"].shape == (1, 5)


def test_a_size_that_the_patches_do_not_divide_is_refused_with_the_nearest():
    sentence = "size 70x64: patches of 16x16 pixels do not divide it: expected 64x64 or 80x64, which are nearest"
    for network in (of_timm(), of_transformers("Dinov2")):
        with pytest.raises(InputError, match=sentence):
            phosphene.ascend(network, "blocks.0:1", Recipe.load("draft").override({"steps": 1, "size": [70, 64]}))
    assert of_timm().whole_patches((70, 8)) == (64, 16)


@pytest.mark.parametrize("recipe", ["draft", "natural", "filters"])
def test_images_of_other_sizes_are_made_and_grow(recipe, tmp_path):
    network = of_timm()
    fields = {"steps": 2, "size": [96, 80]} | (
        {"growth.sizes": [0.4, 1.0], "growth.at": [0.0, 0.5]} if recipe == "filters" else {}
    )
    result = phosphene.ascend(network, ["class:1", "blocks.0.mlp.act:3@5,4"], Recipe.load(recipe).override(fields))
    assert [picture.pixels.shape for picture in result] == [(96, 80, 3)] * 2
    path = result[1].save(tmp_path)
    with Image.open(path) as image:
        assert image.size == (80, 96)
    assert phosphene.again(path, network).same


def test_rows_of_tokens_are_independent():
    network, recipe = of_timm(), Recipe.load("draft").override({"steps": 2})
    alone = phosphene.ascend(network, "blocks.0:3", recipe)[0]
    beside = phosphene.ascend(network, ["blocks.0:3", "blocks.0:3@cls", "blocks.1:1@2,2"], recipe)[0]
    options = phosphene.RunOptions(batch=1)
    single = phosphene.ascend(network, ["blocks.0:3@cls", "blocks.0:3"], recipe, options=options)[1]
    assert (alone.pixels == single.pixels).all()
    assert (alone.pixels.astype(int) - beside.pixels).__abs__().max() <= 2


# The command line


FACTORY = """
import timm
def make():
    return timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=2, num_heads=4, reg_tokens=4)
"""


def test_layers_tells_tokens_heads_and_the_residual_stream(tmp_path, capsys):
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "net.toml").write_text("size = 64")
    network = ["-n", f"{tmp_path / 'net.py'}:make"]
    assert main(["layers", *network]) == 0
    told = capsys.readouterr().out
    assert "tokens: 1 class token, 4 registers, 4 x 4 patches" in told
    assert "residual stream: after each block, blocks.0 to blocks.1" in told
    assert "layers of their own, blocks.0.attn:head0 to blocks.1.attn:head3" in told
    assert re.search(r"^\*  blocks.0.mlp.act ", told, re.MULTILINE)
    assert main(["layers", "blocks.1", "--json", *network]) == 0
    (layer,) = json.loads(capsys.readouterr().out)
    assert layer["tokens"] == {"class_tokens": 1, "registers": 4, "grid": [4, 4]}
    assert main(["layers", *network, "--tokens", "9"]) == 2
    assert "no layer of the network has 9 tokens" in capsys.readouterr().err
