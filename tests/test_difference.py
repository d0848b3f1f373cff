"""What one network calls a class and another does not."""

import json

import numpy as np
import pytest
import torch
from helpers import SHALLOW, Small, opened, seeded, written_network
from PIL import Image
from torch import nn

import phosphene
from phosphene import DifferenceOptions, Ensemble, InputError, Recipe
from phosphene.cli.program import main
from phosphene.comparison.difference import SIDES
from phosphene.provenance.reading import read

LABELS = ["zero", "one", "two"]
NAIVE = Recipe.load("naive").override({"steps": 25, "optimizer.rate": 800.0})


class Colors(nn.Module):
    """Classes by the mean of color planes: of 0 red, of 1 green, and of 2 what it is told."""

    def __init__(self, third):
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.tensor([[1.0, -1, 0], [-1, 1, 0], third])

    def forward(self, images):
        return self.head(images.mean((2, 3)))


def colors(*third, **fields):
    return opened(Colors(third), labels=LABELS, **fields)


RED_AND_BLUE, RED = (2.0, 0, 2.0), (2.0, 0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for index in range(110):
        Image.fromarray(draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)).resize((20, 20)).save(folder / f"{index}.png")
    return folder


def mean_color(picture):
    return picture.pixels.reshape(-1, 3).mean(0)


def test_the_pictures_show_what_tells_the_networks_apart():
    found = phosphene.difference(colors(*RED_AND_BLUE), colors(*RED), ["two"], NAIVE)
    (shown,) = found.classes
    (more, less, first, second) = map(mean_color, shown.pictures)
    neutral = 127
    assert more[2] > neutral + 40, "blue is what the first has and the second has not"
    assert abs(more[0] - neutral) < 15, "red is what both have"
    assert less[2] < neutral - 40
    assert first[0] > neutral + 40
    assert second[0] > neutral + 40
    assert shown.name == "two"
    assert shown.probabilities[0][0] > shown.probabilities[0][1]


def test_a_weighted_ensemble_climbs_the_weighted_sum_and_its_images_are_made_again(tmp_path):
    networks = [colors(*RED_AND_BLUE), colors(*RED)]
    result = phosphene.ascend(Ensemble(networks, [1, -2]), "class:2", NAIVE)
    (picture,) = result
    with networks[0].borrowed(), torch.no_grad():
        pixels = torch.tensor(picture.pixels).movedim(-1, 0)[None].float()
        logits = [float(network.activations(pixels, ["logits"])["logits"][0, 2]) for network in networks]
    assert picture.scores["objective"] == pytest.approx(logits[0] - 2 * logits[1], rel=1e-4, abs=1e-5)
    assert " - " in picture.network_names
    path = picture.save(tmp_path)
    assert read(path).weights == [1, -2]


def test_alike_weights_are_the_ensemble_that_there_was():
    networks = [colors(*RED_AND_BLUE), colors(*RED)]
    listed, alike = (phosphene.ascend(given, "class:2", NAIVE)[0] for given in (networks, Ensemble(networks)))
    assert np.array_equal(listed.pixels, alike.pixels)
    assert "weights" not in alike.provenance()


def test_images_of_a_difference_are_made_again_from_their_files(tmp_path):
    networks = [written_network(tmp_path, name, seed, SHALLOW) for seed, name in enumerate(("first", "second"))]
    result = phosphene.ascend(Ensemble(networks, [1, -0.5]), "class:3", NAIVE.override({"steps": 3}))
    path = result[0].save(tmp_path)
    assert phosphene.again(path, trust=True).same


def test_classes_that_differ_most_on_photographs_are_chosen(folder):
    many = [nn.Linear(3, 12), nn.Linear(3, 12)]
    many[1].load_state_dict(many[0].state_dict())
    with torch.no_grad():
        many[1].weight[7] += torch.tensor([4.0, -4, 0])
    pools = [opened(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), each)) for each in many]
    options = DifferenceOptions(count=1)
    found = phosphene.difference(*pools, recipe=NAIVE.override({"steps": 1}), photographs=folder, options=options)
    assert [shown.index for shown in found.classes] == [7]
    assert found.disagreements > 0
    with pytest.raises(InputError, match="12 classes, and none is named: expected names, or photographs"):
        phosphene.difference(*pools)


def test_judges_say_whether_the_pictures_tell_where_the_networks_differ(folder):
    judge = opened(seeded(Small))
    found = phosphene.difference(
        colors(*RED_AND_BLUE), colors(*RED), ["two"], NAIVE, photographs=folder, judges=[judge]
    )
    (shown,) = found.classes
    assert set(shown.explanation) == set(SIDES[:2])
    assert shown.explanation[SIDES[0]]["score"] > 0.7
    assert np.subtract(*shown.on_photographs) != 0


def test_it_is_written_whole_and_read_as_plain_data(tmp_path):
    found = phosphene.difference(colors(*RED_AND_BLUE), colors(*RED), [2, 0], NAIVE.override({"steps": 2}))
    files = found.save(tmp_path)
    assert len(files) == 2 * 4 + 2
    told = json.loads((tmp_path / "difference.json").read_text())
    for shown in told["classes"]:
        assert [picture["side"] for picture in shown["pictures"]] == list(SIDES)
        assert all((tmp_path / picture["file"]).is_file() for picture in shown["pictures"])


def test_the_networks_come_back_as_they_were_and_the_same_weights_are_said():
    network = colors(*RED)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    network.module.train()
    found = phosphene.difference(network, colors(*RED), ["one"], NAIVE.override({"steps": 1}))
    assert network.module.training
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert any("same weights" in note for note in found.notes)


def test_bad_input_is_one_sentence(folder):
    first, other = colors(*RED), opened(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)))
    without = opened(nn.Conv2d(3, 4, 1))
    for arguments, fields, message in (
        ((first, other), {}, "do not tell the same classes .3 of .* and 4 of"),
        ((first, without), {}, "shows no classes"),
        ((first, colors(*RED_AND_BLUE), ["tow"]), {}, "did you mean two"),
        ((first, colors(*RED_AND_BLUE)), {"judges": ["efficientnet_lite0"]}, "asked about photographs, and none"),
    ):
        with pytest.raises(InputError, match=message):
            phosphene.difference(*arguments, **fields)
    for networks, weights, message in (
        ([], [], "no network is given"),
        ([first, first], [1], "1 weights for 2 networks"),
        ([first, first], [0, 0], "finite ones that are not all 0"),
        ([first, first], [1, float("nan")], "finite ones"),
    ):
        with pytest.raises(InputError, match=message):
            Ensemble(networks, weights)


def test_the_command(tmp_path, capsys):
    networks = [written_network(tmp_path, name, seed, SHALLOW) for seed, name in enumerate(("first", "second"))]
    quick = ["-r", "naive", "--steps", "1", "-o", str(tmp_path / "out")]
    assert main(["difference", *networks, "3", *quick]) == 0
    assert (tmp_path / "out" / "difference.png").is_file()
    told = capsys.readouterr().out
    assert "first less second" in told
    assert main(["difference", *networks, "9", *quick]) == 2
    assert "class" in capsys.readouterr().err
