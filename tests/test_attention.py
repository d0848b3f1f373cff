"""Attention of heads to patches: the libraries' own numbers, whichever way they compute it, and the rollout of them."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.cli.program import main
from phosphene.draw.attention import attention_sheet, heat_map
from phosphene.networks.attention import CLASS_TOKEN, MEAN, POOLING, attention_layers

SIZE, PATCH = 32, 8
PIXELS = 255 * torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def opened(module, **fields):
    return phosphene.open(module, Preprocessing(size=SIZE, mean=0.5, std=0.25, **fields), name="tiny")


def seeded(kind, *args, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind(*args, **options).eval()
        for parameter in module.parameters():  # attention of fresh weights is the same to all patches
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    return module


def timm_vit(**options):
    sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    return seeded(VisionTransformer, **sizes | options)


def hooked(module, place, run, before=True):
    """What goes into a part of a module when it is run."""
    kept = []
    part = module.get_submodule(place)
    hook = part.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            run()
    finally:
        hook.remove()
    return kept[0]


def inputs_of(network):
    return network.preprocessing(PIXELS[None])


def check(found, expected, layout_prefix=1):
    """The arrays against the library's own weights, (heads, queries, keys)."""
    np.testing.assert_allclose(found.weights, expected, atol=1e-5)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    row = expected[:, 0] if found.query == CLASS_TOKEN else expected.mean(1)
    np.testing.assert_allclose(found.maps.reshape(len(row), -1), row[:, layout_prefix:], atol=1e-5)
    np.testing.assert_allclose(found.prefix, row[:, :layout_prefix].sum(1), atol=1e-5)


# Each library's own


@pytest.mark.parametrize("registers", [0, 4])
def test_timms_attention_is_its_own_also_where_it_is_fused(registers):
    module = timm_vit(reg_tokens=registers)
    network = opened(module)
    assert all(block.attn.fused_attn for block in module.blocks)
    found = phosphene.attention(network, PIXELS, "blocks.1.attn")
    for block in module.blocks:
        block.attn.fused_attn = False
    expected = hooked(module, "blocks.1.attn.attn_drop", lambda: module(inputs_of(network)))[0].numpy()
    check(found, expected, 1 + registers)
    unfused = phosphene.attention(network, PIXELS, "blocks.1.attn")
    np.testing.assert_allclose(unfused.weights, expected, atol=1e-6)
    assert found.query == CLASS_TOKEN
    assert found.layers == ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_hugging_faces_attention_is_its_own(way, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=SIZE, patch_size=PATCH
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Dinov2Model(config).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"_attn_implementation": way}))
    network = phosphene.open(tmp_path)
    own = transformers.Dinov2Model.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = own(inputs_of(network), output_attentions=True).attentions
    for index in range(2):
        check(phosphene.attention(network, PIXELS, f"encoder.layer.{index}"), expected[index][0].numpy())


def test_torchvisions_attention_is_its_own():
    module = seeded(
        TorchvisionTransformer, image_size=SIZE, patch_size=PATCH, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=48
    )
    network = opened(module)
    found = phosphene.attention(network, PIXELS)
    last = module.encoder.layers.encoder_layer_1.self_attention
    tokens = hooked(module, "encoder.layers.encoder_layer_1.self_attention", lambda: module(inputs_of(network)))
    with torch.no_grad():
        expected = last(tokens, tokens, tokens, need_weights=True, average_attn_weights=False)[1]
    check(found, expected[0].numpy())
    assert found.layer == "encoder.layers.encoder_layer_1.self_attention"


@pytest.mark.parametrize(("kind", "query"), [("clip", CLASS_TOKEN), ("siglip", POOLING)])
def test_towers_of_images_and_texts_have_theirs(kind, query, tmp_path):
    pytest.importorskip("transformers")
    from tiny_clip import save_clip

    model = save_clip(tmp_path / kind, kind)
    network = phosphene.open(f"clip:{tmp_path / kind}")
    found = phosphene.attention(network, PIXELS)
    assert found.query == query
    with torch.no_grad():
        model.vision_model.set_attn_implementation("eager")
        seen = model.vision_model(inputs_of(network), output_attentions=True)
        if kind == "clip":
            expected = seen.attentions[-1][0]
        else:
            head = model.vision_model.head
            tokens = seen.last_hidden_state
            expected = head.attention(head.probe, tokens, tokens, average_attn_weights=False)[1][0]
    check(found, expected.numpy(), 1 if kind == "clip" else 0)
    assert found.rollout.sum() == pytest.approx(1 if kind == "siglip" else found.rollout.sum(), abs=1e-5)


def test_without_a_class_token_the_patches_are_averaged_and_a_pooling_asks_for_itself():
    module = timm_vit(class_token=False, global_pool="avg")
    found = phosphene.attention(opened(module), PIXELS)
    assert found.query == MEAN
    np.testing.assert_allclose(found.maps.sum((1, 2)), 1, atol=1e-5)
    pooled = phosphene.attention(opened(timm_vit(class_token=False, global_pool="map")), PIXELS)
    assert (pooled.layer, pooled.query, pooled.weights.shape) == ("attn_pool", POOLING, (3, 1, 16))


class Written(nn.Module):
    """Attention as people write it, by a module that is a softmax, with causal order as torch's function takes it."""

    def __init__(self, fused):
        super().__init__()
        self.patches, self.out = nn.Conv2d(3, 8, PATCH, PATCH), nn.Linear(8, 2)
        self.softmax, self.fused = nn.Softmax(dim=-1), fused

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        heads = tokens.unflatten(2, (2, 4)).transpose(1, 2)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True, scale=0.1)
        else:
            logits = 0.1 * heads @ heads.transpose(-2, -1)
            mask = torch.ones(16, 16, dtype=torch.bool).tril().logical_not()
            mixed = self.softmax(logits.masked_fill(mask, -torch.inf)) @ heads
        return self.out(mixed.transpose(1, 2).flatten(2)).mean(1)


def test_a_network_of_ones_own_is_watched_whichever_way_it_is_written():
    class Whole(nn.Sequential):
        patch_size = PATCH

    found = [phosphene.attention(opened(Whole(seeded(Written, fused))), PIXELS) for fused in (True, False)]
    np.testing.assert_allclose(found[0].weights, found[1].weights, atol=1e-6)
    assert np.triu(found[0].weights[0], 1).sum() == 0
    assert [each.layer for each in found] == ["0", "0"]


# The rollout


def test_the_rollout_is_the_product_of_what_each_layer_hands_on():
    module = timm_vit()
    network = opened(module)
    product = np.eye(17)
    for index in range(3):
        own = phosphene.attention(network, PIXELS, f"blocks.{index}")
        mixed = 0.5 * own.weights.mean(0) + 0.5 * np.eye(17)
        product = mixed / mixed.sum(1, keepdims=True) @ product
        np.testing.assert_allclose(own.rollout.ravel(), product[0, 1:], atol=1e-5)
    assert own.rollout.shape == (4, 4)


def test_there_is_no_rollout_where_the_layers_before_are_of_other_tokens():
    module = timm.create_model("cait_xxs24_224", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    found = phosphene.attention(opened(module.eval()), PIXELS)
    assert found.weights.shape[1] == 1
    assert found.rollout is None


# What is borrowed, and what cannot be


def test_the_network_is_as_it_was_also_after_an_exception():
    module = timm_vit()
    module.train()
    network = opened(module)
    hooks = lambda: sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())  # noqa: E731
    before = hooks()
    with torch.no_grad():
        module.eval()
        logits = module(inputs_of(network))
        module.train()
    phosphene.attention(network, PIXELS)
    _ = network.layers
    failing = module.blocks[2].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError, match="no"):
        phosphene.attention(network, PIXELS)
    failing.remove()
    assert hooks() == before
    assert module.training
    assert module.blocks[0].attn.fused_attn
    with torch.no_grad():
        assert torch.equal(module.eval()(inputs_of(network)), logits)


def test_a_larger_size_has_a_finer_map():
    network = opened(timm_vit(dynamic_img_size=True))
    pixels = 255 * torch.rand(3, 48, 64)
    assert phosphene.attention(network.with_input_size((48, 64)), pixels).maps.shape == (3, 6, 8)


def test_what_has_no_attention_to_patches_is_refused_in_a_sentence(small):
    with pytest.raises(InputError, match="small has no attention: expected a transformer"):
        attention_layers(small)
    network = opened(timm_vit())
    with pytest.raises(InputError, match=r"no attention in a layer 'blocks.7'; did you mean blocks"):
        phosphene.attention(network, PIXELS, "blocks.7")
    with pytest.raises(InputError, match=r"layer 'blocks' has several attention layers in it: expected blocks.0.attn"):
        phosphene.attention(network, PIXELS, "blocks")
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2)
    )
    with pytest.raises(InputError, match="attends within 4 windows of 16 tokens: expected attention to all patches"):
        phosphene.attention(opened(swin.eval()), PIXELS, "layers.0")


# Pictures


def test_the_sheet_has_the_photograph_every_head_and_the_rollout():
    found = phosphene.attention(opened(timm_vit()), PIXELS)
    whole, part = attention_sheet(found), attention_sheet(found, [1])
    assert whole.height > part.height
    assert part.width == 3 * 224 + 4 * 5  # the photograph, a head and the rollout
    corner = np.asarray(whole)[5:229, 5:229]
    np.testing.assert_array_equal(corner[::7, ::7], found.photograph)


def test_a_heat_map_rises_from_black_and_one_bright_patch_hides_nothing():
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    values[0, 0] = 1000
    colors = np.asarray(heat_map(values, (10, 10))).astype(int).sum(2)
    assert colors[0, 1] < 30
    assert (np.diff(colors.ravel()[1:95]) >= 0).mean() > 0.9
    assert heat_map(np.zeros((2, 2), np.float32), (4, 4)).getpixel((0, 0)) == (0, 0, 4)


def test_the_command_writes_a_sheet_and_the_arrays(tmp_path, capsys, monkeypatch):
    (tmp_path / "net.py").write_text(
        "from timm.models.vision_transformer import VisionTransformer\n"
        "def make():\n    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)\n"
    )
    (tmp_path / "net.toml").write_text("size = 32\n")
    Image.fromarray(PIXELS.byte().permute(1, 2, 0).numpy()).save(tmp_path / "dog.png")
    monkeypatch.chdir(tmp_path)
    words = ["attention", "dog.png", "-n", "net.py:make", "-o", "out"]
    assert main([*words, "--layer", "blocks.1.attn", "--heads", "0,2"]) == 0
    assert "3 heads: the attention of the class token to the patches" in capsys.readouterr().out
    arrays = np.load("out/attention_dog_blocks.1.attn.npz")
    assert {name: arrays[name].shape for name in arrays} == {
        "maps": (3, 4, 4), "prefix": (3,), "weights": (3, 17, 17), "photograph": (32, 32, 3), "rollout": (4, 4)
    }  # fmt: skip
    assert Image.open("out/attention_dog_blocks.1.attn.png").width > 4 * 224
    assert main([*words, "--layer", "blocks.0.attn:head1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == ["blocks.0.attn", "blocks.1.attn"]
    for wrong, says in [
        (["--heads", "3"], "head 3 of blocks.1.attn: expected 0 to 2"),
        (["--heads", "a"], "expected a list such as 0-5"),
        (["--layer", "blocks.0.attn:head1", "--heads", "1"], "expected no --heads beside it"),
    ]:
        assert main([*words, *wrong]) == 2
        assert says in capsys.readouterr().err
    assert main(["attention", "dog.png"]) == 2
    assert "attention is a transformer's" in capsys.readouterr().err
