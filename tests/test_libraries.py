"""Modules of timm's and torchvision's that the user built, and transforms that say what a network expects."""

import pytest
import timm
import torch
import torchvision.models as models
import torchvision.transforms as transforms
from torch import nn
from torchvision.transforms import v2

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD


def resnet() -> nn.Module:
    return models.resnet18(weights=None)


def test_a_module_of_timm_says_what_it_expects():
    module = timm.create_model("resnet10t", pretrained=False)
    network = phosphene.open(module)
    by_name = phosphene.open("timm:resnet10t", pretrained=False)
    assert network.preprocessing == by_name.preprocessing
    assert network.preprocessing.size == (176, 176)
    assert (network.name, network.notes) == ("resnet10t", {})
    assert network.labels[42].name == by_name.labels[42].name
    assert network.module is module


def test_a_module_of_timm_with_other_classes_channels_and_size():
    network = phosphene.open(timm.create_model("resnet10t", pretrained=False, num_classes=7, in_chans=1))
    assert network.labels is None
    assert (network.classes, network.preprocessing.channels) == (7, 1)
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64)
    assert phosphene.open(vit).preprocessing.size == (64, 64)


def test_a_module_of_torchvision_is_assumed_to_be_fed_as_for_imagenet_and_that_is_said():
    network = phosphene.open(resnet())
    expected = Preprocessing.preset("torch", size=224, interpolation="bilinear", crop=0.875)
    assert network.preprocessing == expected
    assert "nothing says what ResNet expects: RGB 0..1 less (0.485" in network.notes["preprocessing"]
    assert "ImageNet's classes are assumed" in network.notes["labels"]
    assert network.labels[146].name == "albatross"
    assert phosphene.open(models.resnet18(weights=None, num_classes=9)).labels is None
    assert phosphene.open(models.inception_v3(weights=None, init_weights=False)).preprocessing.size == (299, 299)


@pytest.mark.parametrize("how", ["weights", "preprocessing", "transforms"])
def test_the_member_of_a_weights_enum_says_what_a_module_expects(how):
    member = models.ResNet18_Weights.IMAGENET1K_V1
    given = {"preprocessing": member.transforms()} if how == "transforms" else {how: member}
    network = phosphene.open(resnet(), **given)
    assert network.preprocessing == phosphene.open("torchvision:resnet18", pretrained=False).preprocessing
    assert "preprocessing" not in network.notes
    assert ("labels" in network.notes) is (how == "transforms")
    assert len(network.labels) == 1000


def test_the_labels_are_those_of_the_weights():
    member = models.segmentation.LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1
    module = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    network = phosphene.open(module, weights=member)
    assert network.labels[8].name == "cat"
    assert network.preprocessing.size == (520, 520)


def test_what_the_caller_says_of_a_module_goes_first():
    network = phosphene.open(resnet(), Preprocessing(64, mean=0.5), [str(i) for i in range(1000)], name="mine")
    assert (network.preprocessing, network.name) == (Preprocessing(64, mean=0.5), "mine")
    assert network.labels[3].name == "3"
    assert not network.notes


def test_a_module_of_neither_needs_a_preprocessing():
    with pytest.raises(InputError, match="needs a Preprocessing"):
        phosphene.open(nn.Conv2d(3, 4, 3))


def test_the_weights_of_a_module_are_in_it():
    with pytest.raises(InputError, match="is a module, and has its weights"):
        phosphene.open(resnet(), weights="resnet.pth")


def test_a_factory_of_a_known_module_says_what_it_expects(tmp_path):
    (tmp_path / "net.py").write_text("import timm\n\n\ndef net():\n    return timm.create_model('resnet10t')\n")
    network = phosphene.open(f"{tmp_path / 'net.py'}:net")
    assert network.preprocessing.size == (176, 176)
    assert "preprocessing" not in network.notes


NORMALIZE = (IMAGENET_MEAN, IMAGENET_STD)
TORCH = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        (
            transforms.Compose([
                transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                transforms.Normalize(*NORMALIZE),
            ]),
            Preprocessing(224, **TORCH, interpolation="bilinear", crop=0.875),
        ),
        (
            v2.Compose([
                v2.ToImage(), v2.ToDtype(torch.uint8, scale=True), v2.Resize((96, 128), v2.InterpolationMode.BICUBIC),
                v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25]),
            ]),
            Preprocessing((96, 128), mean=0.5, std=0.25, resize="squash"),
        ),
        (
            [transforms.Resize([40]), transforms.Grayscale(), transforms.PILToTensor()],
            Preprocessing(40, channels=1, value_range=(0, 255), interpolation="bilinear"),
        ),
        (
            nn.Sequential(v2.Resize(32), v2.ConvertImageDtype(torch.float32)),
            Preprocessing(32, interpolation="bilinear"),
        ),
        (
            timm.data.create_transform((3, 160, 160), crop_pct=0.8, interpolation="bicubic"),
            Preprocessing(160, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop=0.8),
        ),
    ],
)  # fmt: skip
def test_transforms_are_read_as_data(pipeline, expected):
    module = nn.Conv2d(expected.channels, 2, 3)
    assert phosphene.open(module, pipeline).preprocessing == expected


@pytest.mark.parametrize(
    ("pipeline", "problem"),
    [
        ([transforms.Resize(32), transforms.RandomHorizontalFlip()], "has a RandomHorizontalFlip, which is not read"),
        ([transforms.RandomResizedCrop(32)], "has a RandomResizedCrop, which is not read: expected Resize"),
        ([transforms.Lambda(lambda image: image), transforms.ToTensor()], "has a Lambda"),
        ([transforms.Grayscale(3), transforms.Resize(32)], "has a Grayscale"),
        (v2.RandomChoice([v2.Resize(32)]), "has a RandomChoice"),
        (transforms.ToTensor(), "no Resize and no CenterCrop"),
        ([transforms.CenterCrop(32), transforms.Resize(16)], "expected the Resize before the CenterCrop"),
    ],
)
def test_what_is_no_data_in_transforms_is_named(pipeline, problem):
    with pytest.raises(InputError, match=problem):
        phosphene.open(nn.Conv2d(3, 4, 3), pipeline)


def test_transforms_and_weights_go_with_names_too(monkeypatch):
    pipeline = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    network = phosphene.open("torchvision:squeezenet1_1", pipeline, pretrained=False)
    assert network.preprocessing == Preprocessing(64, interpolation="bilinear")
    assert network.source is None  # words alone do not open it again
    member = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    state = models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: state)
    network = phosphene.open("squeezenet1_1", weights=member)
    assert network.source == {"network": "torchvision:squeezenet1_1", "weights": "IMAGENET1K_V1"}
