"""Networks of transformers: the same numbers as transformers gives, nothing that comes with them executed."""

import copy
import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from corruption import check_corrupted
from helpers import SHARED
from PIL import Image

import phosphene
from phosphene import InputError, Recipe
from phosphene.networks.sources.transformers.model import open_transformers

transformers = pytest.importorskip("transformers")

CONFIGS = {
    "vit": lambda: transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog, hound", 2: "horse"}, label2id={"cat": 0, "dog, hound": 1, "horse": 2},
    ),
    "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=3),
    "swin": lambda: transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=3
    ),
    "resnet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    ),
}  # fmt: skip
PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.25, 0.5, 0.5]),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8),
    "swin": lambda: transformers.ViTImageProcessor(size={"height": 64, "width": 64}, do_normalize=False),
    "resnet": lambda: transformers.MobileNetV2ImageProcessor(
        size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}
    ),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, config in CONFIGS.items():
            model = transformers.AutoModelForImageClassification.from_config(config())
            model.save_pretrained(folder / name)
            PROCESSORS[name]().save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_photograph_gets_the_logits_that_transformers_gives_it(saved, name):
    network = phosphene.open(saved / name)
    model = transformers.AutoModelForImageClassification.from_pretrained(saved / name).eval()
    # Of the size that the network sees: how a resized image differs from library to library is no matter here.
    processor, side = PROCESSORS[name](), network.preprocessing.height
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    inputs = processor(image, return_tensors="pt", do_resize=False)["pixel_values"]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    with torch.no_grad(), network.borrowed():
        torch.testing.assert_close(network.preprocessing(pixels), inputs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.forward(pixels), model(inputs).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_sizes_are_the_processors_and_position_embeddings_are_resampled_for_others(saved):
    eats = {name: phosphene.open(saved / name).preprocessing for name in CONFIGS}
    assert eats["vit"].size == (32, 32)
    assert not eats["vit"].fixed_size
    assert (eats["vit"].resize, eats["convnext"].resize) == ("squash", "shorter")
    assert (eats["convnext"].size, eats["convnext"].crop, eats["convnext"].fixed_size) == ((64, 64), 0.8, False)
    assert eats["convnext"].interpolation == "bicubic"
    assert (eats["resnet"].size, eats["resnet"].crop) == ((64, 64), 0.8)
    assert eats["swin"].std == (1, 1, 1)
    network = phosphene.open(saved / "vit")
    assert network.with_input_size((48, 48)).classes == network.classes
    declared = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
    assert declared.with_input_size((48, 48)).classes == 0
    assert phosphene.open(saved / "convnext").with_input_size((48, 48)).classes == 3


OTHER_PROCESSORS = {
    "squash": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "crop": lambda: transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "squash, crop": lambda: transformers.BeitImageProcessor(
        size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    ),
    "percent": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8),
    "large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 400}, crop_pct=0.8),
    "percent, crop": lambda: transformers.PoolFormerImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "a little more": lambda: transformers.LevitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "-1 to 1, twice": lambda: transformers.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, image_std=[0.3, 0.4, 0.5]
    ),
    "BGR": lambda: transformers.MobileViTImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ),
    "bytes": lambda: transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_PROCESSORS)
def test_photographs_are_fed_as_the_processor_feeds_them(saved, tmp_path, name):
    shutil.copytree(saved / "resnet", tmp_path / "net")
    processor = OTHER_PROCESSORS[name]()
    processor.save_pretrained(tmp_path / "net")
    eats = phosphene.open(tmp_path / "net").preprocessing
    across, down = np.meshgrid(np.arange(120), np.arange(90))
    image = Image.fromarray(np.stack([across * 2, down * 2, across + down], -1).astype(np.uint8))
    expected = processor(image, return_tensors="pt")["pixel_values"]
    fed = eats(eats.photograph(image)[None])
    assert fed.shape == expected.shape
    # Rounding where to cut moves an image by up to half a pixel: 2 of 255 where its brightness rises by 4 a pixel.
    assert (fed - expected).abs().mean() < 0.015 * (expected.max() - expected.min())


def test_a_processor_of_another_size_does_not_keep_a_vit_from_its_own(saved, tmp_path):
    shutil.copytree(saved / "vit", tmp_path / "vit")
    transformers.ViTImageProcessor().save_pretrained(tmp_path / "vit")  # 224 pixels
    assert phosphene.open(tmp_path / "vit").preprocessing.size == (32, 32)


@pytest.mark.slow
def test_classes_are_named_as_the_configuration_names_them(saved):
    assert phosphene.open(saved / "vit").labels.find("hound") == 1
    assert phosphene.open(saved / "swin").labels is None  # LABEL_0, LABEL_1, …


def test_imagenets_classes_have_all_their_names(tmp_path):
    imagenet = phosphene.networks.labels.imagenet_labels()
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8],
        depths=[1],
        layer_type="basic",
        id2label=dict(enumerate(", ".join(label.names[:1]) for label in imagenet)),
    )
    config.save_pretrained(tmp_path)
    assert phosphene.open(tmp_path, pretrained=False).labels[2].wordnet == "n01484850"


def test_without_a_processor_what_it_eats_is_assumed_and_said(saved, tmp_path):
    shutil.copytree(saved / "resnet", tmp_path / "resnet")
    (tmp_path / "resnet" / "preprocessor_config.json").unlink()
    network = phosphene.open(tmp_path / "resnet")
    assert "comes without an image processor" in network.notes["preprocessing"]
    assert phosphene.open(tmp_path / "resnet", "tf").notes == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_images_are_made_and_the_model_comes_back_as_it_was(saved, name):
    network = phosphene.open(saved / name)
    before = copy.deepcopy(network.module.state_dict())
    hidden = next(layer for layer in network.layers if layer.worth_showing)
    place = ",".join("1" for _ in hidden.positions)
    recipe = Recipe.load("naive").override({"steps": 5, "optimizer.rate": 2.0, "optimizer.gradient": "rms"})
    result = phosphene.ascend(network, ["class:1", f"{hidden.name}:3", f"{hidden.name}:2@{place}"], recipe)
    assert all(picture.objectives[-1] > picture.objectives[0] for picture in result)
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.module.parameters())


def test_activations_are_worth_showing_and_tokens_are_positions(saved):
    vit, resnet = phosphene.open(saved / "vit"), phosphene.open(saved / "resnet")
    shown = [layer for layer in vit.layers if layer.worth_showing]
    assert [(layer.type, layer.shape) for layer in shown] == [("GELUActivation", (32, 17))] * 2
    assert {layer.type for layer in resnet.layers if layer.worth_showing} == {"ReLU"}
    assert vit.layer("classifier").shape == (3,)


def test_gradients_reach_the_pixels_of_each_image(saved):
    network = phosphene.open(saved / "vit")
    pixels = torch.full((2, 3, 32, 32), 100.0, requires_grad=True)
    with network.borrowed():
        network.forward(pixels)[0, 1].backward()
    assert pixels.grad[0].abs().max() > 0
    assert pixels.grad[1].abs().max() == 0


def test_softmaxes_of_attention_are_left_alone(saved):
    assert phosphene.open(saved / "vit").ending is None


@pytest.mark.slow
def test_weights_of_a_file_and_none(saved):
    network = phosphene.open(saved / "swin", weights=saved / "swin" / "model.safetensors")
    assert network.digest == phosphene.open(saved / "swin").digest
    assert phosphene.open(saved / "swin", pretrained=False).digest != network.digest


@pytest.mark.slow
def test_weights_in_several_files_and_of_half_precision(saved, tmp_path):
    model = transformers.AutoModelForImageClassification.from_pretrained(saved / "swin")
    model.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert not (tmp_path / "parts/model.safetensors").exists()
    network = phosphene.open(tmp_path / "parts")
    assert network.digest == phosphene.open(saved / "swin").digest
    next((tmp_path / "parts").glob("model-00002-of-*")).unlink()
    with pytest.raises(InputError, match="parts has no model-00002-of-"):
        phosphene.open(tmp_path / "parts")
    index = tmp_path / "parts/model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"] = dict.fromkeys(values["weight_map"], "../parts/model-1-of-1.safetensors")
    index.write_text(json.dumps(values))
    with pytest.raises(InputError, match="names files that are not beside it"):
        phosphene.open(tmp_path / "parts")
    model.half().save_pretrained(tmp_path / "half")
    assert phosphene.open(tmp_path / "half").module.dtype == torch.float32


class Dangerous:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.slow
def test_pickled_weights_are_read_and_not_executed(saved, tmp_path, capsys):
    shutil.copytree(saved / "resnet", tmp_path / "net", ignore=shutil.ignore_patterns("*.safetensors"))
    state = transformers.AutoModelForImageClassification.from_pretrained(saved / "resnet").state_dict()
    torch.save(state, tmp_path / "net/pytorch_model.bin")
    assert phosphene.open(tmp_path / "net").digest == phosphene.open(saved / "resnet").digest
    torch.save(state | {"classifier.1.bias": Dangerous()}, tmp_path / "net/pytorch_model.bin")
    with pytest.raises(InputError, match="the weights of net are not read"):
        phosphene.open(tmp_path / "net")
    (tmp_path / "net/pytorch_model.bin").write_bytes(pickle.dumps({"classifier.1.bias": Dangerous()}))
    with pytest.raises(InputError, match=r"pytorch_model\.bin of net cannot be read"):
        phosphene.open(tmp_path / "net")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"attn_implementation": "someone/kernels"}, "asks for attn_implementation 'someone/kernels'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "is quantized"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": None, "architecture": "resnet18"}, "open it as timm:resnet18"),
        ({"num_labels": 10**6}, "asks for 1,000,000 classes"),
    ],
)
def test_configurations_that_are_refused(saved, tmp_path, changes, problem):
    config = json.loads((saved / "vit/config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=problem):
        phosphene.open(tmp_path, pretrained=False)


def test_what_cannot_be_opened_is_said(saved, tmp_path):
    with pytest.raises(InputError, match=r"nobody/nothing cannot be had from Hugging Face's hub: .*; give a folder"):
        phosphene.open("hf:nobody/nothing")
    shutil.copytree(saved / "vit", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(InputError, match=r"has no weights: expected a model.safetensors"):
        phosphene.open(tmp_path / "bare")
    backbone = transformers.ViTModel(CONFIGS["vit"]())
    backbone.save_pretrained(tmp_path / "backbone")
    config = json.loads((tmp_path / "backbone/config.json").read_text())
    config["architectures"] = ["ViTForImageClassification"]
    (tmp_path / "backbone/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"have none for classifier\.bias and others: expected those of an image"):
        phosphene.open(tmp_path / "backbone")
    with pytest.raises(InputError, match=r"have none for classifier\.bias and others"):
        phosphene.open(saved / "vit", weights=saved / "resnet" / "model.safetensors")
    other = copy.deepcopy(CONFIGS["vit"]())
    other.hidden_size, other.intermediate_size = 24, 48
    transformers.AutoModelForImageClassification.from_config(other).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"are of another network: \S+ is \(.*\) and not \(.*\)"):
        phosphene.open(saved / "vit", weights=tmp_path / "other" / "model.safetensors")
    with pytest.raises(InputError, match=r"has no config\.json"):
        open_transformers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 10**6), ("hidden_size", 10**9)])
def test_a_configuration_that_asks_for_far_too_much_is_refused(saved, tmp_path, key, value):
    shutil.copytree(saved / "vit", tmp_path / "huge")
    config = json.loads((tmp_path / "huge/config.json").read_text()) | {key: value}
    (tmp_path / "huge/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"asks for|cannot be had|can build"):
        phosphene.open(tmp_path / "huge")


def test_code_that_comes_with_a_model_is_not_run(saved, tmp_path):
    shutil.copytree(saved / "vit", tmp_path / "code")
    config = json.loads((tmp_path / "code/config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "code.Own", "AutoModelForImageClassification": "code.Net"},
    }
    (tmp_path / "code/config.json").write_text(json.dumps(config))
    (tmp_path / "code/code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError):
        phosphene.open(tmp_path / "code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_damaged_files_are_refused_in_one_sentence(saved, tmp_path, file):
    folder = tmp_path / "damaged"
    shutil.copytree(saved / "resnet", folder)
    shutil.copy(saved / "resnet" / file, tmp_path / file)

    def opens(path):
        shutil.copy(path, folder / file)
        phosphene.open(folder)

    assert check_corrupted(tmp_path / file, opens, places=50) >= 20


# Networks that are no classifiers

VIT = dict(  # noqa: C408
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
)
DINO = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2)  # noqa: C408
TEXT = {key: VIT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")} | {
    "vocab_size": 99,
    "max_position_embeddings": 8,
}
NAFLEX = {key: TEXT[key] for key in TEXT if key[0] in "hin"} | {"num_patches": 16, "patch_size": 8}
STAGES = {"hidden_sizes": [8] * 4, "depths": [1] * 4}
RESNET = STAGES | {"embedding_size": 8, "layer_type": "basic"}
SEGFORMER = STAGES | {"num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
NAMES = {"id2label": {0: "sky", 1: "road", 2: "dog"}, "label2id": {"sky": 0, "road": 1, "dog": 2}}
DPT = VIT | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4}
DETR = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")}
DETR |= {"d_model": 32, "num_queries": 4, "backbone": None, "use_timm_backbone": False}


def _detr():
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    return transformers.DetrConfig(backbone_config=backbone, **DETR, **NAMES)


def _upernet():
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage1", "stage2", "stage3", "stage4"])
    sizes = {"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False}
    return transformers.UperNetConfig(backbone_config=backbone, **sizes, **NAMES)


# A class that is saved, its configuration, and the class that is opened if it is another.
UNCLASSED = {
    "Dinov2Model": lambda: transformers.Dinov2Config(**DINO),
    "Dinov2WithRegistersModel": lambda: transformers.Dinov2WithRegistersConfig(**DINO, num_register_tokens=2),
    "DINOv3ViTModel": lambda: transformers.DINOv3ViTConfig(**VIT),
    "CLIPVisionModel": lambda: transformers.CLIPVisionConfig(**VIT),
    "CLIPVisionModelWithProjection": lambda: transformers.CLIPVisionConfig(**VIT),
    "SiglipVisionModel": lambda: transformers.SiglipVisionConfig(**VIT),
    "Siglip2VisionModel": lambda: transformers.Siglip2VisionConfig(**NAFLEX),
    "ViTModel": lambda: transformers.ViTConfig(**VIT),
    "ViTMAEModel": lambda: transformers.ViTMAEConfig(**VIT),
    "BeitModel": lambda: transformers.BeitConfig(**VIT),
    "DeiTModel": lambda: transformers.DeiTConfig(**VIT),
    "SwinModel": lambda: transformers.SwinConfig(**SWIN),
    "Swinv2Model": lambda: transformers.Swinv2Config(**SWIN),
    "ConvNextModel": lambda: transformers.ConvNextConfig(**STAGES),
    "ResNetModel": lambda: transformers.ResNetConfig(**RESNET),
    "SegformerForSemanticSegmentation": lambda: transformers.SegformerConfig(**SEGFORMER, **NAMES),
    "UperNetForSemanticSegmentation": _upernet,
    "DPTForDepthEstimation": lambda: transformers.DPTConfig(**DPT, fusion_hidden_size=8),
    "DetrForObjectDetection": _detr,
    "YolosForObjectDetection": lambda: transformers.YolosConfig(**(VIT | {"image_size": [32, 32]}), **NAMES),
}
PARTS = {
    "CLIPModel": ("CLIPVisionModel", lambda: transformers.CLIPConfig(vision_config=VIT, text_config=TEXT)),
    "SiglipModel": ("SiglipVisionModel", lambda: transformers.SiglipConfig(vision_config=VIT, text_config=TEXT)),
    "Siglip2Model": ("Siglip2VisionModel", lambda: transformers.Siglip2Config(vision_config=NAFLEX, text_config=TEXT)),
    "BlipModel": ("BlipVisionModel", lambda: transformers.BlipConfig(vision_config=VIT, text_config=TEXT)),
    "LlavaForConditionalGeneration": ("CLIPVisionModel", lambda: transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VIT), text_config=transformers.LlamaConfig(**TEXT)
    )),
    "ViTMAEForPreTraining": ("ViTMAEModel", lambda: transformers.ViTMAEConfig(
        **VIT, decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1
    )),
}  # fmt: skip


def _saved(name, config, folder):
    """Such a network with random weights, which were saved."""
    kind = getattr(transformers, name, None)
    if kind is None:
        pytest.skip(f"this transformers has no {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config()).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # zeros are no weights that are told apart
    model.save_pretrained(folder)
    return model


def _layers_of(module, pixels, **options):
    """What each module gives, the first time it is called."""
    given = {}

    def keep(name):
        def hook(module, inputs, output):
            tensor = output if isinstance(output, torch.Tensor) else None
            if tensor is not None:
                given.setdefault(name, tensor.detach().clone())

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name]
    with torch.no_grad():
        module(pixels, **options)
    for hook in hooks:
        hook.remove()
    return given


@pytest.mark.slow
@pytest.mark.parametrize("name", UNCLASSED)
def test_a_network_without_classes_opens_with_the_class_and_weights_that_were_saved(tmp_path, name):
    model = _saved(name, UNCLASSED[name], tmp_path)
    network = phosphene.open(tmp_path)
    assert type(network.module).__name__ == name
    assert "part" not in network.notes
    state, own = network.module.state_dict(), model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)
    assert (network.labels is not None) == (name in LABELED)
    if name == "CLIPVisionModelWithProjection":  # an embedding is no class
        return
    assert network.classes == 0
    assert [layer for layer in network.layers if layer.worth_showing]


LABELED = {
    "SegformerForSemanticSegmentation",
    "UperNetForSemanticSegmentation",
    "DetrForObjectDetection",
    "YolosForObjectDetection",
}


@pytest.mark.parametrize("name", [name for name in UNCLASSED if name not in ("ViTMAEModel", "Siglip2VisionModel")])
def test_its_layers_are_those_of_transformers(tmp_path, name):
    model = _saved(name, UNCLASSED[name], tmp_path)
    network = phosphene.open(tmp_path)
    pixels = torch.rand(1, 3, *network.preprocessing.size, generator=torch.Generator().manual_seed(0)) * 255
    with network.borrowed(), torch.no_grad():
        fed = network.preprocessing(pixels)
        found, expected = _layers_of(network.module, fed), _layers_of(model, fed)
        assert found.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_of_a_network_of_more_than_images_the_image_encoder_is_opened_and_said(tmp_path, name):
    part, config = PARTS[name]
    model = _saved(name, config, tmp_path)
    network = phosphene.open(tmp_path)
    assert type(network.module).__name__ == part
    assert f"encoder is opened ({part})" in network.notes["part"]
    own = model.state_dict()
    for key, value in network.module.state_dict().items():
        assert any((given == key or given.endswith(f".{key}")) and torch.equal(own[given], value) for given in own), key
    assert network.preprocessing.size == (32, 32)
    assert network.classes == 0


def test_a_classifier_of_clips_stays_whole(tmp_path):
    config = transformers.CLIPConfig(vision_config=VIT, text_config=TEXT, num_labels=4)
    _saved("CLIPForImageClassification", lambda: config, tmp_path)
    network = phosphene.open(tmp_path)
    assert (type(network.module).__name__, network.classes) == ("CLIPForImageClassification", 4)
    assert "part" not in network.notes


def test_a_masked_autoencoder_sees_all_patches_in_their_places(tmp_path):
    _saved("ViTMAEModel", UNCLASSED["ViTMAEModel"], tmp_path)
    network = phosphene.open(tmp_path)
    dark = torch.zeros(1, 3, 32, 32)
    light = dark.clone()
    light[:, :, 8:16, 16:24] = 255  # the seventh patch of sixteen; before the patches is the class token
    with network.borrowed(), torch.no_grad():
        first, again, lit = (_layers_of(network.module, network.preprocessing(x)) for x in (dark, dark, light))
    name = "layers.0.layernorm_before"
    assert first[name].shape[1] == 17
    assert torch.equal(first[name], again[name])
    assert (first[name] != lit[name]).any(-1)[0].nonzero().tolist() == [[7]]


def test_siglip_2_takes_images_as_its_processor_cuts_them(tmp_path):
    model = _saved("Siglip2VisionModel", UNCLASSED["Siglip2VisionModel"], tmp_path)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    network = phosphene.open(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    given = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)(image, return_tensors="pt")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    with network.borrowed(), torch.no_grad():
        found = network.module(network.preprocessing(pixels)).last_hidden_state
        expected = model(given.pop("pixel_values"), **given).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_pooler_that_was_not_published_is_left_out(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False).save_pretrained(tmp_path)
    network = phosphene.open(tmp_path)
    assert not any(name.startswith("pooler") for name, _ in network.module.named_parameters())
    # Where the configuration does not name a class, weights without a head are those of the network without one.
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": None}))
    assert type(phosphene.open(tmp_path).module).__name__ == "ViTModel"


@pytest.mark.parametrize(
    ("config", "takes"),
    [
        (lambda: transformers.BertConfig(architectures=["BertModel"]), "texts"),
        (lambda: transformers.BertConfig(), "texts"),
        (lambda: transformers.Wav2Vec2Config(architectures=["Wav2Vec2Model"]), "sounds"),
        (lambda: transformers.VideoMAEConfig(architectures=["VideoMAEForVideoClassification"]), "videos"),
        (lambda: transformers.TimesformerConfig(architectures=["TimesformerModel"]), "videos"),
    ],
)
def test_networks_of_other_things_are_refused_by_what_they_take(tmp_path, config, takes):
    config().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=rf"is a network of {takes}: expected a network that takes one image"
    ) as refused:
        phosphene.open(tmp_path, pretrained=False)
    assert f"({config().model_type})" in str(refused.value)


@pytest.mark.parametrize(
    ("model_type", "preset"), [("resnet", (0.485, 0.229)), ("vit", (0.0, 1.0)), ("clip_vision_model", (0.4815, 0.2686))]
)
def test_what_is_assumed_is_what_such_networks_are_usually_fed(tmp_path, model_type, preset):
    names = {"resnet": "ResNetModel", "vit": "ViTModel", "clip_vision_model": "CLIPVisionModel"}
    _saved(names[model_type], UNCLASSED[names[model_type]], tmp_path)
    network = phosphene.open(tmp_path)
    eats = network.preprocessing
    assert (eats.mean[0], eats.std[0]) == pytest.approx(preset, abs=1e-4)
    assert eats.value_range == ((-1, 1) if model_type == "vit" else (0, 1))
    assert eats.describe() in network.notes["preprocessing"]


@pytest.mark.slow
def test_a_backbone_of_timms_is_built_and_none_is_looked_for_on_the_hub(tmp_path):
    config = _detr().to_dict() | {"backbone_config": None, "backbone": "resnet18", "use_timm_backbone": True}
    config |= {"architectures": ["DetrForObjectDetection"], "use_pretrained_backbone": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = phosphene.open(tmp_path, pretrained=False)
    assert "model.backbone.model.layer1.0.conv1" in {layer.name for layer in network.layers}
    for changes in ({"backbone": "someone/backbone"}, {"use_timm_backbone": False}, {"backbone": "hf-hub:a/b"}):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(InputError, match=r"asks for backbone '.*', which is described elsewhere"):
            phosphene.open(tmp_path, pretrained=False)


def test_attentions_are_not_asked_for(tmp_path):
    _saved("ViTModel", UNCLASSED["ViTModel"], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"output_attentions": True, "return_dict": False}))
    network = phosphene.open(tmp_path)
    output = network.module(torch.zeros(1, 3, 32, 32))
    assert set(output.keys()) == {"last_hidden_state", "pooler_output"}
    assert network.module.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.slow
def test_a_trained_dinov2_opens_as_it_lies_there():
    folder = SHARED / "weights/dinov2_small_saliency"
    if not folder.is_dir():
        pytest.skip("needs the trained DINOv2")
    network = phosphene.open(folder)
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    assert (network.classes, network.preprocessing.size, network.preprocessing.crop) == (0, (224, 224), 0.875)
    assert sum(layer.worth_showing for layer in network.layers) == 12
    pixels = 255 * torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with network.borrowed(), torch.no_grad():
        fed = network.preprocessing(pixels)
        found, expected = _layers_of(network.module, fed), _layers_of(model, fed)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])
