"""torchvision's networks, one's own by name, and files that say what a network expects."""

import json
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from corruption import check_corrupted
from helpers import SHARED, Small, seeded
from PIL import Image

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.cli.program import main
from phosphene.networks.labels import read_labels
from phosphene.networks.sources.torchvision import torchvision_names
from phosphene.networks.weights import put_weights, read_weights
from phosphene.units.spelling import parse_unit

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))

ready = Net()
number = 3

def wide():
    return Net(8)

def needs(width):
    return Net(width)

def breaks():
    raise RuntimeError("no luck\\nat all")

def words():
    return "a network"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "own_nets.py").write_text(OWN)
    (tmp_path / "mynet.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_network_of_ones_own_opens_by_file_and_by_module(own):
    by_file = phosphene.open("mynet.py:wide")
    assert by_file.layer("conv").channels == 8
    assert phosphene.open(f"{own}/mynet.py:Net").layer("conv").channels == 4
    assert phosphene.open("package.own_nets:ready").classes == 2
    assert "0..1 and 224x224 are assumed" in by_file.notes["preprocessing"]
    assert by_file.source == {"network": "mynet.py:wide"}


def test_its_weights_and_a_description_beside_it_are_read(own):
    weights = phosphene.open("mynet.py:wide").module.state_dict()
    safetensors.torch.save_file({key: value + 1 for key, value in weights.items()}, own / "trained.safetensors")
    (own / "words.txt").write_text("n02123045 tabby, tabby cat\nn02099601 golden retriever\n")
    (own / "mynet.toml").write_text('mode = "caffe"\nsize = [20, 24]\nlabels = "words.txt"\n')
    network = phosphene.open("mynet.py:wide", weights="trained.safetensors")
    assert torch.equal(network.module.conv.bias, read_weights("trained.safetensors")["conv.bias"])
    assert network.preprocessing == Preprocessing.preset("caffe", size=(20, 24))
    assert network.labels.find("n02123045") == network.labels.find("Tabby Cat") == 0
    assert network.notes == {}
    # What the caller says goes before the file beside it.
    told = phosphene.open("mynet.py:wide", "tf", ["cat", "dog"], weights="trained.safetensors")
    assert told.preprocessing == Preprocessing.preset("tf", size=(20, 24))
    assert told.labels.find("dog") == 1
    (own / "other.toml").write_text("mean = 0.5\nstd = 0.25\n")
    assert phosphene.open("mynet.py:wide", "other.toml").preprocessing.mean == (0.5,) * 3


def test_an_image_of_it_can_be_made_again_from_its_file_alone(own):
    torch.save(seeded(phosphene.open("mynet.py:Net").module.__class__).state_dict(), own / "w.pth")
    (own / "mynet.toml").write_text("size = 16\n")
    network = phosphene.open("mynet.py:Net", "tf", weights="w.pth")
    (path, *_) = phosphene.ascend(network, "class:1", phosphene.Recipe.load("naive").override({"steps": 3})).save("out")
    assert phosphene.show(path)["network"]["source"] == {
        "network": "mynet.py:Net", "preprocessing": "tf", "weights": "w.pth",
    }  # fmt: skip
    assert phosphene.again(path).same


@pytest.mark.parametrize(
    ("spelled", "sentence"),
    [
        ("mynet.py:wid", r"mynet.py has no 'wid'; did you mean wide"),
        ("mynet.py:number", "is a int: expected a function that gives a torch module"),
        ("mynet.py:needs", "cannot be called without arguments: it needs "),
        ("mynet.py:breaks", "cannot be called without arguments: RuntimeError: no luck; expected"),
        ("mynet.py:words", "gives a str: expected a torch.nn.Module"),
        ("none.py:wide", "'none.py': there is no such file"),
        ("no.such.module:wide", "module 'no.such.module' cannot be imported: No module named 'no'"),
        ("broken.py:net", "'broken.py' cannot be run: SyntaxError"),
        ("timm:resnet51", "timm has no network 'resnet51'; did you mean .*resnet50"),
        ("torchvision:resnet51", "torchvision has no network 'resnet51'; did you mean .*resnet50"),
        ("none.onnx", "network file 'none.onnx': there is no such file"),
        ("net.caffemodel", "holds weights and no network: name the network they are of"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_sentence(own, spelled, sentence):
    (own / "broken.py").write_text("def net(:\n")
    with pytest.raises(InputError, match=sentence) as caught:
        phosphene.open(spelled)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("size = ", "is no TOML"),
        ("sise = 5", "has no field 'sise'; did you mean size"),
        ('mode = "cafe"', "no preprocessing is called 'cafe'; did you mean caffe"),
        ("std = 0", "std .* expected numbers above 0"),
        ("size = true\nmean = 'no'", "size True: expected a height and a width"),
        ("labels = 5", "labels are a list of names"),
        ('labels = "none.txt"', "labels file .* there is no such file"),
    ],
)
def test_a_bad_description_is_answered_with_a_sentence(own, text, sentence):
    (own / "mynet.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        phosphene.open("mynet.py:wide")


def test_grey_images_need_no_more_than_their_number_of_channels(own):
    (own / "mynet.toml").write_text("channels = 1\nmean = 0.1307\nstd = 0.3081\nsize = 28\n")
    assert phosphene.open("mynet.py:wide").preprocessing == Preprocessing(28, 0.1307, 0.3081, channels=1)


def test_labels_of_every_kind_of_file(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog, hound\n\n")
    assert [label.names for label in read_labels(tmp_path / "names.txt")] == [("cat",), ("dog", "hound")]
    (tmp_path / "index.json").write_text(json.dumps({"1": ["n02084071", "dog"], "0": ["n02121620", "big_cat"]}))
    labels = read_labels(tmp_path / "index.json")
    assert (labels[0].name, labels[0].wordnet, labels.find("dog")) == ("big cat", "n02121620", 1)
    (tmp_path / "list.json").write_text(json.dumps(["cat", "dog"]))
    assert read_labels(tmp_path / "list.json").find("dog") == 1
    for name, text in (
        ("gap.json", '{"0": "a", "2": "b"}'),
        ("no.json", "{"),
        ("empty.txt", "\n"),
        ("hole.txt", "a\n\nb"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"labels file .*{name}"):
            read_labels(tmp_path / name)


def test_torchvision_networks_are_fed_and_labelled_by_their_metadata():
    network = phosphene.open("torchvision:squeezenet1_1", pretrained=False)
    transforms = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    assert network.preprocessing.size == (224, 224)
    assert network.preprocessing.crop == 224 / 256
    assert network.preprocessing.interpolation == transforms.interpolation.value
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    fed = network.preprocessing(network.preprocessing.photograph(image)[None])[0]
    torch.testing.assert_close(fed, transforms(image), atol=1e-5, rtol=1e-5)
    assert network.labels.find("teddy") == 850
    assert phosphene.open("squeezenet1_1", pretrained=False).name == "squeezenet1_1"  # timm has none of that name


def test_torchvision_weights_come_from_a_file_named_by_its_enum_or_any_other(tmp_path):
    weights = torchvision.models.get_model("shufflenet_v2_x0_5").state_dict()
    torch.save(weights, tmp_path / "mine.pth")
    network = phosphene.open("torchvision:shufflenet_v2_x0_5", weights=tmp_path / "mine.pth")
    assert all(torch.equal(value, weights[name]) for name, value in network.module.state_dict().items())
    # A file of the name that torchvision gives it is fed as that member of the enum says.
    mobile = torchvision.models.get_model("mobilenet_v2").state_dict()
    for name, resized in (("mobilenet_v2-b0353104.pth", 256), ("mobilenet_v2-7ebf99e0.pth", 232)):
        torch.save(mobile, tmp_path / name)
        opened = phosphene.open("torchvision:mobilenet_v2", weights=tmp_path / name)
        assert opened.preprocessing.crop == pytest.approx(224 / resized)
    with pytest.raises(
        InputError, match=r"cannot be had: .*give them as a file \(--weights mobilenet_v2-7ebf99e0.pth\)"
    ):
        phosphene.open("torchvision:mobilenet_v2")
    with pytest.raises(InputError, match="has no weights 'IMAGENET1K_V3' of mobilenet_v2; did you mean IMAGENET1K_V"):
        phosphene.open("torchvision:mobilenet_v2", weights="IMAGENET1K_V3")


DETECTORS = [
    "fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large",
    pytest.param("keypointrcnn_resnet50_fpn", marks=pytest.mark.slow),
]  # fmt: skip
SEGMENTERS = [
    "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", pytest.param("fcn_resnet50", marks=pytest.mark.slow)
]  # fmt: skip


@pytest.fixture
def no_downloads(monkeypatch):
    """Whatever torchvision downloads is what `given` holds; nothing if that is empty."""
    given = {}

    def load(url, *args, **kwargs):
        assert given, f"{url} was asked for"
        return dict(given)

    for module in ("torchvision._internally_replaced_utils", "torchvision.models._api"):
        monkeypatch.setattr(f"{module}.load_state_dict_from_url", load)
    return given


def _published(name, given):
    """Random weights as torchvision publishes them: backbones of detectors have frozen batch norms."""
    options = {"aux_loss": True} if name.startswith(("deeplab", "fcn")) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = torchvision.models.get_model(name, weights=None, weights_backbone=None, **options).state_dict()
        for key, value in state.items():
            if key.endswith("running_var"):
                value.uniform_(1e-3, 1e-2)  # small enough for epsilon to matter
                state[key.replace("running_var", "weight")].fill_(0.05)  # and what comes out stays of the order of 1
    frozen = "rcnn" in name or "retinanet" in name
    dropped = [key for key in state if frozen and "body" in key and key.endswith("num_batches_tracked")]
    given.update({key: value for key, value in state.items() if key not in dropped})


@pytest.mark.parametrize("name", DETECTORS + SEGMENTERS)
def test_detectors_and_segmentation_are_built_as_torchvision_builds_them(no_downloads, name):
    _published(name, no_downloads)
    reference = torchvision.models.get_model(name, weights="DEFAULT").eval()
    network = phosphene.open(f"torchvision:{name}")
    state = network.module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in no_downloads.items())
    inputs = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with network.borrowed(), torch.no_grad():
        found, expected = network.module.backbone(inputs), reference.backbone(inputs)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=1e-4)


def test_untrained_detectors_and_segmentation_download_nothing_and_say_what_they_eat(no_downloads):
    ssdlite = phosphene.open("ssdlite320_mobilenet_v3_large", pretrained=False)
    assert (ssdlite.preprocessing.size, ssdlite.preprocessing.describe()) == ((320, 320), "RGB 0..1")
    assert ssdlite.labels[17].name == "cat"
    assert len(ssdlite.labels) == 91
    assert phosphene.open("fasterrcnn_resnet50_fpn", pretrained=False).preprocessing.size == (800, 800)
    lraspp = phosphene.open("torchvision:lraspp_mobilenet_v3_large", pretrained=False)
    assert (lraspp.preprocessing.size, lraspp.preprocessing.mean) == ((520, 520), (0.485, 0.456, 0.406))
    assert lraspp.labels.find("aeroplane") == 1
    assert len(lraspp.labels) == 21


def test_a_detectors_transform_leaves_images_of_its_size_alone():
    network = phosphene.open("fasterrcnn_mobilenet_v3_large_320_fpn", pretrained=False)
    fed = torch.rand(1, 3, *network.preprocessing.size)
    images, _ = network.module.transform([fed[0]])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(images.tensors[0], (fed[0] - mean) / std)


def test_torchvisions_networks_of_other_things_are_refused_by_their_kind():
    names = torchvision_names()
    assert {"resnet18", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn", "fcn_resnet101"} <= set(names)
    for name, kind in (("r3d_18", "video"), ("raft_small", "optical flow"), ("quantized_resnet18", "quantized")):
        assert name not in names
        for asked in (name, f"torchvision:{name}"):
            with pytest.raises(InputError, match=f"{name} is one of torchvision's {kind} networks: expected one that"):
                phosphene.open(asked, pretrained=False)


def test_networks_that_turn_their_input_themselves_are_built_so():
    module = torchvision.models.get_model("googlenet", init_weights=False, aux_logits=False)
    from phosphene.networks.sources.torchvision import model_options

    assert model_options("googlenet", module.state_dict()) == {
        "init_weights": False, "transform_input": True, "aux_logits": False,
    }  # fmt: skip
    assert model_options("vgg16", {}) == {}


def test_partial_weights_show_the_layers_up_to_the_last_of_them(tmp_path):
    module = seeded(Small)
    state = {key: value for key, value in module.state_dict().items() if key.startswith("conv")}
    safetensors.torch.save_file(state, tmp_path / "convolutions.safetensors")
    fresh = Small()
    with pytest.raises(InputError, match=r"2 of 6 tensors are missing \(head.weight, …\); to show .*--partial"):
        put_weights(fresh, read_weights(tmp_path / "convolutions.safetensors"), "small", "file")
    missing = put_weights(fresh, state, "small", "file", partial=True)
    assert missing == {"head.weight", "head.bias"}
    network = phosphene.Network(fresh, Preprocessing(24), name="small", unloaded=missing)
    assert [layer.name for layer in network.layers] == ["conv1", "relu1", "pool", "conv2", "relu2"]
    assert network.classes == 0
    reason = "cannot be shown: the weights given have none for head, and the last layer before it is relu2"
    for unit in ("class:1", "head:1"):
        with pytest.raises(InputError, match=reason):
            parse_unit(unit, network)
    assert network.digest == phosphene.Network(seeded(Small), Preprocessing(24), unloaded=missing).digest
    assert phosphene.ascend(network, "relu2:3", phosphene.Recipe.load("naive").override({"steps": 2}))[0].steps == 2
    with pytest.raises(InputError, match="6 of 6 tensors are missing"):
        put_weights(fresh, {}, "small", "file", partial=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_trained_convolutions_of_alexnet_open_alone():
    file = SHARED / "weights/alexnet_features.safetensors"
    network = phosphene.open("torchvision:alexnet", weights=file, partial=True)
    assert network.layers[-1].name == "classifier.0"  # the dropout before the first untrained layer
    assert torch.equal(network.module.features[0].weight, read_weights(file)["features.0.weight"])
    with pytest.raises(InputError, match=r"have none for classifier\.1"):
        parse_unit("class:flamingo", network)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_are_refused_in_one_sentence(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    state = seeded(Small).state_dict()
    torch.save(state, file) if suffix == ".pth" else safetensors.torch.save_file(state, file)

    def opens(path):
        put_weights(Small(), read_weights(path), "small", str(path))

    assert check_corrupted(file, opens) >= 100  # every cut, and changed names and lengths


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [("h5py", "net.keras", "keras"), ("onnx", "net.onnx", "onnx"), ("transformers", "hf:a/b", "transformers")],
)
def test_without_an_extra_what_to_install_is_said(own, monkeypatch, capsys, missing, name, extra):
    (own / name.replace(":", "_").replace("/", "_")).write_bytes(b"")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf'needs .*: pip install "phosphene\[{extra}\]"'):
        phosphene.open(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    main(["networks"])
    assert f'pip install "phosphene[{extra}]"' in capsys.readouterr().out


def test_presets_are_what_their_names_say():
    pixels = torch.tensor([0.0, 51.0, 255.0]).view(1, 3, 1, 1)
    expected = {
        "torch": [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225],
        "tf": [-1, -0.6, 1],
        "caffe": [255 - 103.939, 51 - 116.779, 0 - 123.68],
        "unit": [0, 0.2, 1],
        "byte": [0, 51, 255],
    }
    for name, values in expected.items():
        fed = Preprocessing.preset(name, size=1)(pixels)
        torch.testing.assert_close(fed.flatten(), torch.tensor(values, dtype=torch.float32), atol=1e-4, rtol=1e-4)
    assert Preprocessing.preset("caffe").describe() == "BGR 0..255 less (103.9, 116.8, 123.7)"
    assert Preprocessing.preset("tf").describe() == "RGB -1..1"


def test_squashing_shows_the_whole_photograph():
    image = Image.new("RGB", (60, 30), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 6, 30))  # the left tenth
    cut = Preprocessing(30, interpolation="nearest").photograph(image)
    squashed = Preprocessing(30, interpolation="nearest", resize="squash").photograph(image)
    assert cut.max() == 0
    assert (squashed[0] == 255).float().mean().item() == pytest.approx(0.1)
