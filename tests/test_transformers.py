"""Networks of transformers: the same numbers as transformers gives, nothing that comes with them executed."""

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from corruption import check_corrupted
from PIL import Image

import phosphene
from phosphene import InputError, Recipe
from phosphene.networks.from_transformers import open_transformers

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


def test_sizes_are_the_processors_and_those_of_position_embeddings_stay(saved):
    eats = {name: phosphene.open(saved / name).preprocessing for name in CONFIGS}
    assert eats["vit"].size == (32, 32)
    assert eats["vit"].fixed_size
    assert (eats["vit"].resize, eats["convnext"].resize) == ("squash", "shorter")
    assert (eats["convnext"].size, eats["convnext"].crop, eats["convnext"].fixed_size) == ((64, 64), 0.8, False)
    assert eats["convnext"].interpolation == "bicubic"
    assert (eats["resnet"].size, eats["resnet"].crop) == ((64, 64), 0.8)
    assert eats["swin"].std == (1, 1, 1)
    assert phosphene.open(saved / "vit").resized((48, 48)).classes == 0
    assert phosphene.open(saved / "convnext").resized((48, 48)).classes == 3


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


def test_classes_are_named_as_the_configuration_names_them(saved):
    assert phosphene.open(saved / "vit").labels.find("hound") == 1
    assert phosphene.open(saved / "swin").labels is None  # LABEL_0, LABEL_1, …


def test_imagenets_classes_have_all_their_names(tmp_path):
    imagenet = phosphene.networks.imagenet_labels()
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


@pytest.mark.parametrize("name", CONFIGS)
def test_images_are_made_and_the_model_comes_back_as_it_was(saved, name):
    network = phosphene.open(saved / name)
    before = copy.deepcopy(network.module.state_dict())
    hidden = next(layer for layer in network.layers if layer.worth_showing)
    place = ",".join("1" for _ in hidden.positions)
    recipe = Recipe.load("naive").changed({"steps": 5, "optimizer.rate": 2.0, "optimizer.gradient": "rms"})
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
    assert phosphene.open(saved / "vit").softmax is None


def test_weights_of_a_file_and_none(saved):
    network = phosphene.open(saved / "swin", weights=saved / "swin" / "model.safetensors")
    assert network.digest == phosphene.open(saved / "swin").digest
    assert phosphene.open(saved / "swin", pretrained=False).digest != network.digest


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
        ({"num_hidden_layers": 10**6}, "asks for"),
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
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is no image classifier that transformers can build"):
        phosphene.open(tmp_path / "bert", pretrained=False)


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


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_damaged_files_are_refused_in_one_sentence(saved, tmp_path, file):
    folder = tmp_path / "damaged"
    shutil.copytree(saved / "resnet", folder)
    shutil.copy(saved / "resnet" / file, tmp_path / file)

    def opens(path):
        shutil.copy(path, folder / file)
        phosphene.open(folder)

    assert check_corrupted(tmp_path / file, opens, places=100) >= 40
