"""Every recipe of docs/networks.md runs, as written, on a small network of its kind."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision.models
from caffe_writer import caffemodel, random_layers
from helpers import Small, seeded
from PIL import Image

import phosphene
from phosphene.cli.program import main

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCS, re.DOTALL | re.MULTILINE))
MAKING = ("classes", "filters")


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands(section: str) -> list[list[str]]:
    lines = [line for block in blocks(section, "sh") for line in block.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("phosphene ")]
    assert found, section
    return found


def run(section: str) -> None:
    for arguments in commands(section):
        short = ["--steps", "1", "-o", "out"] if arguments[0] in MAKING else []
        assert main([*arguments, *short]) == 0, arguments


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


MYNET = """
from torch import nn

class MyNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""


def test_my_own_torch_class():
    Path("mynet.py").write_text(MYNET)
    names: dict[str, object] = {"phosphene": phosphene}
    exec(MYNET, names)
    for block in blocks("My own torch class", "python"):
        exec(block, names)
    assert names["network"].labels.find("dog") == 1
    torch.save(names["MyNet"]().state_dict(), "trained.pth")
    (description,) = blocks("My own torch class", "toml")
    Path("mynet.toml").write_text(description)
    run("My own torch class")
    assert phosphene.open("mynet.py:MyNet").preprocessing == names["network"].preprocessing


@pytest.mark.slow
def test_my_weights_for_a_network_of_torchvisions():
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save(state, "squeezenet.pth")
    convolutions = {key: value for key, value in state.items() if key.startswith("features")}
    safetensors.torch.save_file(convolutions, "convolutions.safetensors")
    run("A network of torchvision's or timm's, with my weights")


def test_my_keras_model():
    if importlib.util.find_spec("keras") is None:  # imported before its backend is chosen, it takes another
        pytest.skip("needs keras")
    from phosphene.networks.sources.keras.backend import import_keras

    keras = import_keras()
    model = keras.Sequential(
        [keras.Input((24, 24, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D(),
         keras.layers.Dense(3, activation="softmax")]
    )  # fmt: skip
    model.save("model.keras")
    model.save("model.h5")
    run("My Keras model")
    assert phosphene.open(model).classes == 3


DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 24 dim: 24 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 2 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.mark.slow
def test_my_caffe_network():
    Path("deploy.prototxt").write_text(DEPLOY)
    Path("net.caffemodel").write_bytes(caffemodel(random_layers(Path("deploy.prototxt"))))
    Path("synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn02007558 flamingo\n")
    definition = (
        Path(phosphene.__file__).parent / "networks" / "sources" / "caffe" / "definitions" / "googlenet.prototxt"
    )
    Path("bvlc_googlenet.caffemodel").write_bytes(caffemodel(random_layers(definition)))
    run("My Caffe network")


@pytest.mark.slow
def test_my_onnx_file():
    pytest.importorskip("onnx2pytorch")
    pytest.importorskip("onnxscript")
    torch.onnx.export(seeded(Small).eval(), (torch.zeros(1, 3, 24, 24),), "net.onnx", dynamo=True, verbose=False)
    run("My ONNX file")


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_my_exported_or_scripted_program():
    names: dict[str, type] = {}
    exec(MYNET, names)
    module = names["MyNet"]().eval()
    torch.export.save(torch.export.export(module, (torch.rand(1, 3, 16, 16),)), "net.pt2")
    torch.jit.trace(module, torch.rand(1, 3, 16, 16)).save("net.pt")
    Path("net.toml").write_text("size = 16\n")
    run("My exported or scripted program")


def test_a_network_of_hugging_faces():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained("folder")
    run("A network of Hugging Face's")


@pytest.mark.slow
def test_a_transformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=96, num_hidden_layers=7, num_attention_heads=6, mlp_ratio=2, image_size=112, patch_size=14,
        num_register_tokens=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Dinov2WithRegistersModel(config).save_pretrained("folder")
    run("A transformer")
    assert sorted(path.name for path in Path().glob("out*/encoder*")) == [
        "encoder.layer.6.attention_head3@patches.png",
        "encoder.layer.6.attention_head3_0012@patches.png",
        "encoder.layer.6.mlp.activation_fn_0020@7_7.png",
        "encoder.layer.6.mlp.activation_fn_0020@cls.png",
        "encoder.layer.6.mlp.activation_fn_0020@patches.png",
        "encoder.layer.6.mlp.activation_fn_0021@7_7.png",
    ]


@pytest.mark.slow
def test_what_its_layers_return():
    for name in ("cat.jpg", "dog.jpg"):
        Image.new("RGB", (40, 30), (200, 100, 50)).save(name)
    (block,) = blocks("What its layers return", "python")
    expected = re.search(r"torch.Size\(\[(.*)\]\)", block)[1]
    names: dict[str, object] = {"network": phosphene.open(torchvision.models.resnet50(weights=None))}
    exec(block, names)
    assert [*names["found"]["layer4"].shape] == json.loads(f"[{expected}]")


def test_a_module_that_is_built_already(monkeypatch):
    for library, function in ((timm, "create_model"), (torchvision.models, "resnet50")):
        build = getattr(library, function)
        monkeypatch.setattr(library, function, lambda *args, build=build, **_: build(*args))  # without a download
    (block,) = blocks("A network of torchvision's or timm's, with my weights", "python")
    exec(block, {"phosphene": phosphene, "timm": timm, "torchvision": torchvision})


def test_every_section_has_its_test():
    tested = {
        "My own torch class", "A network of torchvision's or timm's, with my weights", "My Keras model",
        "My Caffe network", "My ONNX file", "A network of Hugging Face's", "Is the preprocessing right?",
        "My exported or scripted program", "A transformer", "What its layers return",
        "Kinds of networks",  # in test_kinds.py and the files of tests that it takes its kinds from
    }  # fmt: skip
    assert set(SECTIONS) == tested
