import filecmp
import json
import os
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers import SHARED, Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Label, Labels, Preprocessing, Recipe, png
from phosphene.cli.program import main
from phosphene.judges import card_files, pixel_metrics, predictions, self_metrics
from phosphene.judges import panel as judge_panel
from phosphene.judges.independence import shared_weights
from phosphene.provenance.reading import read_provenance
from phosphene.provenance.records import NetworkRecord

RECIPE = Recipe.load("tence").override(
    {"steps": 6, "optimizer.rate": 5.0, "optimizer.gradient": "rms", "median.every": 2}
)
LABELS = ["cat", "dog", "tabby cat", "horse", "sea horse"]
IMAGES = SHARED / "images"
needs_shared = pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared")


def another(seed=1, labels=LABELS, name="another", **preprocessing):
    """A network like `small` with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Small()
    return phosphene.open(
        module, Preprocessing(**{"size": 20, "mean": 0.5, "std": 0.25} | preprocessing), labels, name=name
    )


class Colours(nn.Module):
    """Red, green and blue: how much of each an image has; green speaks ten times as loud as a channel."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Conv2d(3, 3, 1, bias=False)
        self.eye.weight.data = torch.diag(torch.tensor([1.0, 10.0, 1.0]))[..., None, None]
        self.relu = nn.ReLU()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.diag(torch.tensor([8.0, 0.8, 8.0]))

    def forward(self, images):
        return self.head(self.relu(self.eye(images)).mean((2, 3)))


@pytest.fixture
def colours():
    return phosphene.open(Colours(), Preprocessing(16), ["red", "green", "blue"], name="colours")


def flat(path, colour, size=16):
    Image.new("RGB", (size, size), colour).save(path)
    return path


@pytest.fixture
def gallery(tmp_path):
    """Dim photographs in a folder of folders, of which green is the most various."""
    for folder, colour in {"a/dim_red": (60, 20, 10), "a/dim_green": (10, 90, 10), "b/dim_blue": (5, 10, 60)}.items():
        (tmp_path / "gallery" / folder).parent.mkdir(parents=True, exist_ok=True)
        flat(tmp_path / "gallery" / f"{folder}.png", colour)
    (tmp_path / "gallery" / "broken.png").write_bytes(b"no image")
    return tmp_path / "gallery"


# the card


def test_a_card_of_a_class_has_what_all_networks_say(small):
    result = phosphene.ascend(small, ["class:cat", "class:dog"], RECIPE)
    others = [another(1, name="first"), another(2, name="second", size=31)]
    for picture, card in zip(result, phosphene.judge(result, others), strict=True):
        assert {name: card[name] for name in ("objective", "probability")} == picture.scores
        assert set(card["judges"]) == {"first", "second"}
        for answer in card["judges"].values():
            assert answer["top5"]  # of five classes
            assert 0 <= answer["probability"] <= 1
        for name, mean in card["judged"].items():
            assert mean == pytest.approx(np.mean([answer[name] for answer in card["judges"].values()]))
        assert 0 <= card["robustness"] <= 1
        assert (32 * card["robustness"]).is_integer()
        assert card["robustness_rule"] == self_metrics.OWN_TOP_1
        assert card["photographs_slope"] == pixel_metrics.PHOTOGRAPHS_SLOPE
        assert not {"percentile", "nearest", "selectivity"} & card.keys()
        assert json.loads(json.dumps(card)) == card


def test_a_judge_says_what_it_says_of_the_saved_image(small, tmp_path):
    path = phosphene.ascend(small, "class:horse", RECIPE)[0].save(tmp_path)
    judge = another()
    (card,) = phosphene.judge(path, judge, network=small)
    with judge.borrowed(), torch.no_grad(), Image.open(path) as image:
        probabilities = judge.forward(judge.preprocessing.photograph(image)[None]).softmax(1)[0]
    assert card["judges"]["another"]["probability"] == pytest.approx(probabilities[3].item(), abs=1e-6)
    assert card["judges"]["another"]["top1"] == (probabilities.argmax().item() == 3)


def test_pictures_and_their_files_have_the_same_cards(small, tmp_path):
    result = phosphene.ascend(small, ["class:cat", "relu1:2", "class:dog - relu2:1"], RECIPE)
    paths = [picture.save(tmp_path) for picture in result]
    assert phosphene.judge(result, another()) == phosphene.judge(paths, another(), network=small)


def test_cards_are_the_same_every_time_and_alone_or_together(small):
    result = phosphene.ascend(small, ["class:cat", "class:dog", "relu2:3"], RECIPE)
    cards = phosphene.judge(result, another())
    assert phosphene.judge(list(result), another(), network=small) == cards
    (alone,) = phosphene.judge(result[1], another(), network=small)
    assert alone["robustness"] == cards[1]["robustness"]
    assert alone["probability"] == cards[1]["probability"]
    assert alone["judged"]["probability"] == pytest.approx(cards[1]["judged"]["probability"], abs=1e-6)


def test_networks_are_handed_back_as_they_came(small, gallery):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    judge = another()
    for network in (small, judge):
        network.module.train()
    before = [network.digest for network in (small, judge)]
    phosphene.judge(picture, judge, network=small, photographs=gallery)
    assert [network.digest for network in (small, judge)] == before
    for network in (small, judge):
        assert all(module.training and not module._forward_hooks for module in network.module.modules())
        assert all(parameter.requires_grad for parameter in network.module.parameters())


def test_a_result_is_judged_in_place_and_its_files_say_so(small, tmp_path):
    result = phosphene.ascend(small, ["class:cat", "relu1:0"], RECIPE)
    cards = result.judge([another()])
    assert result.scores == cards
    result.save(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    for picture, card, entry in zip(result, cards, run["pictures"], strict=True):
        assert read_provenance(tmp_path / f"{picture.name}.png")["scores"] == entry["scores"] == card


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_any_channels_are_measured(tmp_path, channels):
    network = opened(seeded(Small, channels), channels=channels)
    path = phosphene.ascend(network, "class:1", RECIPE)[0].save(tmp_path)
    scores = read_provenance(path)["scores"]
    (card,) = phosphene.judge(path, [], network=network)
    assert card["probability"] == scores["probability"]
    assert card["judges"] == {}
    if channels == 2:
        with pytest.raises(InputError, match="of 2 channels cannot be shown to judge another"):
            phosphene.judge(path, another(labels=None), network=network)


# robustness


def test_a_view_of_one_colour_keeps_its_class_and_one_dot_is_lost_in_most(colours, tmp_path):
    flat(tmp_path / "blue.png", (10, 10, 200))
    dot = np.full((16, 16, 3), (40, 40, 0), np.uint8)
    dot[0, 0] = (0, 0, 255)
    Image.fromarray(dot).save(tmp_path / "dot.png")
    blue, dotted = phosphene.judge(
        [tmp_path / "blue.png", tmp_path / "dot.png"], [], network=colours, unit="class:blue"
    )
    assert blue["robustness"] == 1
    assert dotted["robustness"] < 0.1


# hidden units


def test_a_hidden_unit_is_judged_by_its_own_network_alone(small):
    judge = another()
    asked = 0

    def count(*_):
        nonlocal asked
        asked += 1

    judge.classes  # noqa: B018  looks at the judge's layers
    judge.module.register_forward_hook(count)
    units = ["relu2:3", "relu2:3@1,2", "conv2", "mean(relu2:[1,0,0,0,0,0,0,0,0,0,0,1])", "class:cat - class:dog"]
    cards = phosphene.judge(phosphene.ascend(small, units, RECIPE), judge)
    assert asked == 0
    for unit, card in zip(units, cards, strict=True):
        assert card["judges"] == {}
        assert not {"judged", "probability", "nearest"} & card.keys()
        assert card["robustness_rule"] == self_metrics.HALF_ACTIVATION
        assert ("selectivity" in card) == unit.startswith("relu2")
        if "selectivity" in card:
            assert card["selectivity"]["of"] == 12
            assert 1 <= card["selectivity"]["rank"] <= 12


def test_a_unit_that_refers_to_a_photograph_has_its_objective_only(small):
    photograph = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (picture,) = phosphene.ascend(small, phosphene.Match("relu2", photograph), RECIPE)
    (card,) = phosphene.judge(picture, [], network=small)
    assert card["objective"] == picture.scores["objective"]
    assert not {"robustness", "percentile", "selectivity"} & card.keys()


def test_channels_are_ranked_as_they_are_and_by_what_is_usual_for_each(colours, gallery, tmp_path):
    reddish = flat(tmp_path / "reddish.png", (250, 60, 0))
    for unit in ("relu:0", "relu:0@3,3"):
        (bare,) = phosphene.judge(reddish, [], network=colours, unit=unit)
        assert bare["selectivity"] == {"rank": 2, "of": 3}
        (card,) = phosphene.judge(reddish, [], network=colours, unit=unit, photographs=gallery)
        assert card["selectivity"] == {"rank": 2, "of": 3, "rank_by_z": 1}
        assert card["robustness_rule"] == self_metrics.ABOVE_PHOTOGRAPHS
        assert card["robustness"] == 1
        assert card["percentile"] == 100


def test_the_percentile_is_of_the_photographs(colours, gallery, tmp_path):
    images = [flat(tmp_path / f"{red}.png", (red, 0, 0)) for red in (2, 15, 40, 200)]
    for unit in ("class:red", "mean(relu:0)"):
        cards = phosphene.judge(images, [], network=colours, unit=unit, photographs=gallery)
        assert [round(card["percentile"]) for card in cards] == [0, 67, 67, 100]


def test_a_unit_that_is_not_excited_is_not_robust(colours, tmp_path):
    (card,) = phosphene.judge(flat(tmp_path / "blue.png", (0, 0, 255)), [], network=colours, unit="relu:0")
    assert card["objective"] == 0
    assert card["robustness"] == 0


# photographs


def test_the_nearest_photograph_is_the_one_of_the_same_colours(colours, gallery, tmp_path):
    judge = phosphene.open(seeded(Colours), Preprocessing(20), ["red", "green", "blue"], name="judge")
    image = flat(tmp_path / "blue.png", (20, 40, 240))
    (card,) = phosphene.judge(image, judge, unit="class:blue", photographs=gallery)
    assert card["nearest"]["photograph"] == "b/dim_blue.png"
    assert card["nearest"]["judge"] == "judge"
    assert card["nearest"]["distance"] == pytest.approx(0, abs=1e-3)
    files = [gallery / "a" / "dim_red.png", gallery / "broken.png"]
    (card,) = phosphene.judge(image, judge, unit="class:blue", photographs=files)
    assert card["nearest"]["photograph"] == "dim_red.png"
    assert 0.5 < card["nearest"]["distance"] <= 1


class Convolutional(nn.Module):
    """Classifies by a 1x1 convolution, with a gate in between whose map is one pixel too."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 7, 3)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid())
        self.second = nn.Conv2d(7, 9, 3)
        self.classifier = nn.Sequential(nn.Conv2d(9, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.softmax = nn.Softmax(dim=1)

    def forward(self, images):
        maps = self.first(images)
        return self.softmax(self.classifier(self.second(maps * self.gate(maps))))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(5, 3))

    def forward(self, images):
        return images.mean((2, 3)) @ self.weights.T


def test_the_penultimate_layer_is_what_is_classified(small, lite0):
    assert predictions.penultimate(small) == "relu2"
    assert predictions.penultimate(opened(seeded(Convolutional))) == "second"
    assert predictions.penultimate(opened(Linear())) is None
    assert lite0.layer(predictions.penultimate(lite0)).shape == (1280,)


# the pixels


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("shape", [(128, 128), (97, 150)])
def test_the_slope_is_the_exponent_of_the_power(exponent, shape):
    noise = np.random.default_rng(0).normal(size=shape)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = 1
    image = np.fft.irfft2(np.fft.rfft2(noise) / frequency ** (exponent / 2), shape)
    pixels = (127 + 40 * image / image.std()).clip(0, 255).round().astype(np.uint8)
    assert pixel_metrics.spectral_slope(np.stack([pixels] * 3, axis=-1)) == pytest.approx(-exponent, abs=0.25)


def test_there_is_no_slope_without_frequencies():
    assert pixel_metrics.spectral_slope(np.full((64, 64, 3), 90, np.uint8)) is None
    assert pixel_metrics.spectral_slope(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)) is None


def test_saturated_values_are_counted():
    pixels = np.full((20, 20, 3), 128, np.uint8)
    assert pixel_metrics.saturated(pixels) == 0
    pixels[:10] = 0
    assert pixel_metrics.saturated(pixels) == 0.5
    pixels[:10] = 1
    pixels[10:, :, 2] = 254
    assert pixel_metrics.saturated(pixels) == pytest.approx(0.5 + 0.5 / 3)
    pixels[:] = (2, 253, 100)
    assert pixel_metrics.saturated(pixels) == 0


# who may judge


class Turned(nn.Module):
    """As `Small`, its weights kept as Keras keeps them: height, width, in, out."""

    def __init__(self, small):
        super().__init__()
        self.kernels = nn.ParameterList([nn.Parameter(conv.weight.permute(2, 3, 1, 0).clone()) for conv in small])

    def forward(self, images):
        for kernel in self.kernels:
            images = nn.functional.conv2d(images, kernel.permute(3, 2, 0, 1))
        return images.mean((2, 3))[:, :5]


def test_a_judge_that_made_the_image_is_refused_under_any_name(small):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    copy = opened(seeded(Small), labels=LABELS, size=28)
    for judge in (small, small.replace(name="third"), copy.replace(name="third")):
        with pytest.raises(InputError, match=f"judge {judge.name} is small, which the image was made with"):
            phosphene.judge(picture, [another(), judge], network=small)


def test_a_judge_with_some_of_the_makers_weights_is_refused(small):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    turned = opened(Turned([small.module.conv1, small.module.conv2]))
    with pytest.raises(InputError, match=r"shares weights \(kernels.0 is conv1.weight there\) with small"):
        phosphene.judge(picture, turned.replace(name="third"), network=small)
    tuned = another()
    tuned.module.conv2.load_state_dict(small.module.conv2.state_dict())
    with pytest.raises(InputError, match=r"judge another shares weights \(conv2.weight is conv2.weight there\)"):
        phosphene.judge(picture, tuned, network=small)
    double = another()
    double.module.conv2.weight.data = small.module.conv2.weight.data.flip(0)
    double.module.double()
    assert shared_weights(double, small) == ("conv2.weight", "conv2.weight")


def test_what_all_networks_have_is_no_kinship(small):
    judge = another()
    for network in (small, judge):
        network.module.norm = nn.BatchNorm1d(100)  # ones and zeros
        network.module.register_buffer("positions", torch.linspace(0, 1, 100))
        network.module.bias = nn.Parameter(torch.arange(10.0))
    assert shared_weights(small, judge) is None
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    assert set(phosphene.judge(picture, judge, network=small)[0]["judges"]) == {"another"}


def test_no_member_of_an_ensemble_judges_its_images(small, tmp_path):
    member, other = another(3, name="member"), another()
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    together = replace(picture, ensemble=(NetworkRecord.of(member),))
    path = together.save(tmp_path)
    for image in (together, path):
        assert phosphene.judge(image, other, network=small)
        with pytest.raises(InputError, match="judge member is member, which the image was made with"):
            phosphene.judge(image, [other, member], network=small)


def test_who_chose_an_image_does_not_judge_it(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    chosen = replace(picture, scores=picture.scores | {"chosen": {"by": ["member"]}})
    path = chosen.save(tmp_path)
    for image in (chosen, path):
        assert phosphene.judge(image, another(), network=small)
        with pytest.raises(InputError, match=r"judge member chose .* among several"):
            phosphene.judge(image, [another(), another(3, name="member")], network=small)
    card_files.keep(path, phosphene.judge(path, another(), network=small)[0])
    assert read_provenance(path)["scores"]["chosen"] == {"by": ["member"]}


@pytest.mark.slow
def test_the_bundled_networks_judge_by_default_without_the_maker(lite0):
    (picture,) = phosphene.ascend(lite0, "class:teddy", RECIPE.override({"steps": 1, "size": 64}))
    (card,) = phosphene.judge(picture)
    assert list(card["judges"]) == ["efficientnet_lite1", "efficientnet_lite2"]
    assert shared_weights(lite0, phosphene.open("lite1")) is None
    (hidden,) = phosphene.ascend(lite0, "blocks.1.0.bn1.act:3", RECIPE.override({"steps": 1, "size": 64}))
    assert phosphene.judge(hidden)[0]["judges"] == {}


@pytest.mark.slow
@needs_shared
@pytest.mark.skipif(not (find_spec("keras") and find_spec("onnx2pytorch")), reason="needs keras and onnx2pytorch")
def test_the_same_weights_are_found_in_two_formats():
    weights = SHARED / "weights"
    onnx = judge_panel.open_judge(f"{weights / 'mobilenet_v1.onnx'}@tf")
    keras = judge_panel.open_judge(f"{weights / 'mobilenet_v1.keras'}@tf")
    caffe = judge_panel.open_judge(f"{weights / 'squeezenet_v1.1.prototxt'}={weights / 'squeezenet_v1.1.caffemodel'}")
    assert onnx.preprocessing.value_range == (-1, 1)
    assert shared_weights(onnx, keras) is not None
    assert shared_weights(onnx, caffe) is None


# which class


def test_classes_are_matched_by_id_and_by_name(small):
    first = small.replace(labels=Labels([Label(("crane",), "n1"), Label(("crane",), "n2"), *LABELS[2:]]))
    second = another(labels=Labels([*LABELS[2:], Label(("lifter",), "n2"), Label(("crane", "bird"), "n1")]))
    assert judge_panel.matching_class(second, 0, first) == 4
    assert judge_panel.matching_class(second, 1, first) == 3
    assert judge_panel.matching_class(second, 4, first) == 2
    named = another(labels=["Sea_Horse", "horse, pony", "x", "y", "z"])
    assert [judge_panel.matching_class(named, index, small) for index in (4, 3)] == [0, 1]
    assert judge_panel.matching_class(another(labels=None), 3, small) == 3


def test_a_judge_that_does_not_know_the_class_is_refused(small):
    (picture,) = phosphene.ascend(small, "class:horse", RECIPE)
    with pytest.raises(
        InputError, match=r"class 3 \(horse\) of small is none of the 5 classes of judge another.*house"
    ):
        phosphene.judge(picture, another(labels=["a", "b", "house", "c", "d"]), network=small)
    with pytest.raises(InputError, match=r"is any of 0 \(horse\), 1 \(horse\) of judge another"):
        phosphene.judge(picture, another(labels=["horse", "horse", "b", "c", "d"]), network=small)
    with pytest.raises(InputError, match="5 labels for the 3 outputs"):
        phosphene.judge(picture, phosphene.open(Colours(), Preprocessing(16), LABELS, name="another"), network=small)
    with pytest.raises(InputError, match="judge another has 3 classes and small 5, and another has no labels"):
        phosphene.judge(picture, phosphene.open(Colours(), Preprocessing(16), name="another"), network=small)


# images of others


def test_images_of_others_are_judged_by_what_they_are_said_to_show(colours, tmp_path):
    images = [flat(tmp_path / "red.png", (255, 9, 9), 40), flat(tmp_path / "blue.jpg", (9, 9, 255), 30)]
    judge = phosphene.open(seeded(Colours), Preprocessing(20), ["blue", "red", "green"], name="judge")
    judge.module.head.weight.data = judge.module.head.weight.data[[2, 0, 1]]
    cards = phosphene.judge(images, judge, unit=["class:red", "class:blue"])
    assert [card["judged"]["top1"] for card in cards] == [1, 1]
    assert not {"probability", "robustness", "percentile"} & cards[0].keys()
    own = opened(seeded(Small), labels=["red", "blue", "green", "x", "y"])
    cards = phosphene.judge(images, judge, unit=["class:red", "class:blue"], network=own)
    assert [card["judged"]["top1"] for card in cards] == [1, 1]
    assert {"probability", "robustness"} <= cards[0].keys()


def test_an_image_without_words_needs_a_class(small, tmp_path):
    image = flat(tmp_path / "red.png", "red")
    with pytest.raises(InputError, match=r"red.png' does not say what it shows: expected its unit"):
        phosphene.judge(image, another())
    with pytest.raises(InputError, match="does not say how it was made: expected its network, or a judge"):
        phosphene.judge(image, [], unit="class:cat")
    with pytest.raises(InputError, match="relu1:3 is no class: expected its network"):
        phosphene.judge(image, another(), unit="relu1:3")
    with pytest.raises(InputError, match="2 units for 1 images"):
        phosphene.judge([image], another(), unit=["class:cat", "class:dog"])


def test_an_image_that_says_what_it_shows_is_told_nothing_else(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    for image in (picture, picture.save(tmp_path)):
        with pytest.raises(InputError, match="was made for class:0, and class:dog is given"):
            phosphene.judge(image, another(), network=small, unit="class:dog")
        assert phosphene.judge(image, another(), network=small, unit="class:cat")


def test_a_network_of_ones_own_is_asked_for_and_must_be_the_same(small, tmp_path):
    path = phosphene.ascend(small, "class:cat", RECIPE)[0].save(tmp_path)
    with pytest.raises(InputError, match=r"maker's own \(small\): open it and call phosphene.judge\("):
        phosphene.judge(path, another())
    with pytest.raises(InputError, match="was made with small of weights"):
        phosphene.judge(path, [], network=another())


@pytest.mark.slow
@needs_shared
def test_photographs_are_named_right_and_are_like_photographs(lite0):
    paths = sorted(IMAGES.glob("*.jpg"))[::40]
    units = [f"class:{int(path.name[:3])}" for path in paths]
    cards = phosphene.judge(paths, "efficientnet_lite1", network=lite0, unit=units)
    assert np.mean([card["judged"]["top1"] for card in cards]) >= 0.6
    assert np.mean([card["judged"]["top5"] for card in cards]) >= 0.8
    assert np.mean([card["probability"] for card in cards]) > 0.4
    assert np.mean([card["robustness"] for card in cards]) > 0.4
    assert np.mean([card["slope"] for card in cards]) == pytest.approx(pixel_metrics.PHOTOGRAPHS_SLOPE, abs=0.6)


# keeping


def chunks(data):
    """A PNG's chunks, as (kind, contents)."""
    at, found = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def test_a_kept_card_changes_nothing_but_the_scores(small, tmp_path):
    paths = phosphene.ascend(small, ["class:cat", "class:dog"], RECIPE).save(tmp_path)[:2]
    before = [path.read_bytes() for path in paths]
    known = read_provenance(paths[0])
    run = json.loads((tmp_path / "run.json").read_text())
    (card,) = phosphene.judge(paths[0], another(), network=small)
    card_files.keep(paths[0], card)
    assert read_provenance(paths[0]) == known | {"scores": known["scores"] | card}
    assert paths[1].read_bytes() == before[1]
    old, new = chunks(before[0]), chunks(paths[0].read_bytes())
    assert [kind for kind, _ in old] == [kind for kind, _ in new]
    assert [pair for pair in old if not pair[1].startswith(b"phosphene\0")] == [
        pair for pair in new if not pair[1].startswith(b"phosphene\0")
    ]
    run["pictures"][0]["scores"] |= card
    assert json.loads((tmp_path / "run.json").read_text()) == run
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_kept_card_is_as_if_the_picture_had_been_saved_with_it(small, tmp_path):
    result = phosphene.ascend(small, ["class:cat"], RECIPE)
    path = result.save(tmp_path / "kept")[0]
    card_files.keep(path, phosphene.judge(path, another(), network=small)[0])
    result.judge(another())
    assert filecmp.cmp(path, result.save(tmp_path / "saved")[0], shallow=False)
    assert filecmp.cmp(tmp_path / "kept" / "run.json", tmp_path / "saved" / "run.json", shallow=False)


def test_a_judged_image_is_made_again_with_its_card(small, tmp_path):
    path = phosphene.ascend(small, "class:cat", RECIPE).save(tmp_path / "first")[0]
    (card,) = phosphene.judge(path, another(), network=small)
    card_files.keep(path, card)
    made = phosphene.again(path, small)
    assert made.same
    assert made.picture.scores == card
    assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


def test_a_later_card_goes_before_an_earlier_one_and_the_rest_stays(small, gallery, tmp_path):
    path = phosphene.ascend(small, "class:cat", RECIPE)[0].save(tmp_path)
    card_files.keep(path, phosphene.judge(path, another(), network=small, photographs=gallery)[0])
    card_files.keep(path, phosphene.judge(path, another(2, name="second"), network=small)[0])
    scores = read_provenance(path)["scores"]
    assert set(scores["judges"]) == {"second"}
    assert "percentile" in scores


def test_a_card_that_cannot_be_written_leaves_the_file_whole(small, tmp_path, monkeypatch):
    path = phosphene.ascend(small, "class:cat", RECIPE).save(tmp_path)[0]
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        card_files.keep(path, {"slope": -2.0})
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.parametrize("text", ["no JSON", "[1, 2]", '{"pictures": 3}', '{"pictures": [{"file": 1}]}', None])
def test_a_run_json_of_another_kind_is_left_alone(small, tmp_path, text):
    path = phosphene.ascend(small, "class:cat", RECIPE)[0].save(tmp_path)
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    card_files.keep(path, {"slope": -2.0})
    assert read_provenance(path)["scores"]["slope"] == -2
    assert (tmp_path / "run.json").read_text() == text if text else not (tmp_path / "run.json").exists()


def test_a_file_with_scores_of_another_kind_is_damaged(small, tmp_path):
    path = phosphene.ascend(small, "class:cat", RECIPE)[0].save(tmp_path)
    known = read_provenance(path) | {"scores": [1, 2]}
    path.write_bytes(png.with_provenance(path.read_bytes(), known))
    with pytest.raises(InputError, match="says of itself is damaged"):
        card_files.keep(path, {"slope": -2.0})


def test_only_phosphenes_images_keep_cards(tmp_path):
    image = flat(tmp_path / "red.png", "red")
    before = image.read_bytes()
    with pytest.raises(InputError, match="does not say how it was made"):
        card_files.keep(image, {"slope": -2.0})
    assert image.read_bytes() == before


# bad input


def test_judges_are_named_in_one_word(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(judge_panel, "open_network", lambda **more: asked.append(more))
    for text in ("lite1", "a.prototxt=b.caffemodel", "net.onnx@tf", "a.h5=b.h5@feed.toml", "timm:vgg16=c.pth"):
        judge_panel.open_judge(text)
    assert asked == [
        {"network": "lite1"},
        {"network": "a.prototxt", "weights": "b.caffemodel"},
        {"network": "net.onnx", "preprocessing": "tf"},
        {"network": "a.h5", "preprocessing": "feed.toml", "weights": "b.h5"},
        {"network": "timm:vgg16", "weights": "c.pth", "partial": True},
    ]


@pytest.mark.parametrize(
    "text", ["", "@tf", "=weights.h5", "efficientnet_lite1@tff", "efficientnet_lite9", "none.onnx"]
)
def test_words_that_name_no_judge_are_refused(small, text):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.override({"steps": 1}))
    with pytest.raises(InputError):
        phosphene.judge(picture, [text])


def test_what_cannot_be_is_said(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.override({"steps": 1}))
    text = tmp_path / "text.png"
    text.write_text("no image")
    for arguments, more, message in [
        (([], []), {}, "no images are given"),
        ((tmp_path / "none.png", []), {}, "there is no such file"),
        ((text, []), {}, "is no image file"),
        ((picture, []), {"device": "gpu9"}, "device 'gpu9' is not there"),
        ((picture, []), {"photographs": tmp_path / "none"}, "there is no such folder"),
        ((picture, []), {"photographs": []}, "photographs: none are given"),
        ((picture, []), {"photographs": [tmp_path / "none.jpg"]}, "there is no file"),
        ((picture, []), {"photographs": [text]}, "none of 1 photographs"),
        ((picture, [another(), another(2)]), {}, "two judges are called another"),
        ((picture, phosphene.open(nn.Conv2d(3, 4, 3), Preprocessing(20), name="maps")), {}, "maps cannot judge"),
    ]:
        with pytest.raises(InputError, match=message):
            phosphene.judge(*arguments, network=small, **more)


def test_a_judge_that_gives_no_numbers_is_refused(small):
    judge = another()
    judge.module.head.bias.data[0] = torch.nan
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.override({"steps": 1}))
    with pytest.raises(InputError, match="judge another returns no finite numbers"):
        phosphene.judge(picture, judge, network=small)


# the command line


@pytest.fixture
def made(lite0, tmp_path):
    """A folder with an image of the bundled network."""
    phosphene.ascend(lite0, "class:flamingo", RECIPE.override({"steps": 1, "size": 64})).save(tmp_path / "made")
    return tmp_path / "made"


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_prints_and_keeps_cards(capsys, made):
    status, out, err = run(capsys, "judge", made, "--judges", "efficientnet_lite1")
    assert status == 0, err
    for said in ("flamingo", "efficientnet_lite1", "robust", "slope", "saturated", "* its top-1", "phosphene show"):
        assert said in out
    assert "relative" not in out
    scores = read_provenance(made / "130_flamingo.png")["scores"]
    assert set(scores["judges"]) == {"efficientnet_lite1"}
    assert json.loads((made / "run.json").read_text())["pictures"][0]["scores"] == scores
    out = run(capsys, "show", made / "130_flamingo.png")[1]
    assert "judge     efficientnet_lite1: " in out
    assert "saturated" in out


@pytest.mark.slow
def test_the_command_says_that_relatives_flatter(capsys, made):
    out = run(capsys, "judge", made, "--dry")[1]
    assert "efficientnet_lite2" in out
    assert "efficientnet_lite0" not in out
    assert "flatter images that a relative made" in out


def test_the_command_gives_json_and_writes_nothing_when_dry(capsys, made):
    before = (made / "130_flamingo.png").read_bytes()
    status, out, err = run(capsys, "judge", made, "--dry", "--json", "--judges", "none")
    assert (status, err) == (0, "")
    (card,) = json.loads(out)
    assert card["image"] == str(made / "130_flamingo.png")
    assert card["judges"] == {}
    assert (made / "130_flamingo.png").read_bytes() == before


@pytest.mark.slow
def test_the_command_judges_images_of_others(capsys, tmp_path, gallery):
    image = flat(tmp_path / "red.png", "red", 64)
    before = image.read_bytes()
    arguments = ("judge", image, "--class", "flamingo", "--photographs", gallery)
    status, out, err = run(capsys, *arguments, "--judges", "lite1")
    assert status == 0, err
    assert "nearest photograph" in out
    assert "dim_red.png" in out
    assert image.read_bytes() == before
    status, out, _ = run(capsys, *arguments, "--judges", "none", "-n", "lite0")
    assert status == 0
    assert "percentile" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{made}", "--class", "dog"], "the images say themselves what they show"),
        (["{made}", "--judges", "efficientnet_lite0"], "judge efficientnet_lite0 is efficientnet_lite0"),
        (["{made}", "--judges", "efficientnet_lite11"], "did you mean efficientnet_lite1"),
        (["{made}/grid.png"], "does not say what it shows"),
        (["{made}/.."], "has no image in it that phosphene made"),
        (["{made}/none.png"], "there is no such file"),
    ],
)
def test_the_command_refuses_in_one_sentence(capsys, made, arguments, said):
    status, out, err = run(capsys, "judge", *(argument.format(made=made) for argument in arguments))
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
