"""Pictures pulled towards the photographs that excite their unit most."""

import numpy as np
import pytest
import torch
from helpers import SHALLOW, Small, opened, seeded, written_network
from PIL import Image

import phosphene
from phosphene import InputError, Objective, Recipe
from phosphene.ascent.unit_statistics import WHOLE, UnitStatistics, prior_statistics
from phosphene.photographs.activation_statistics import collect
from phosphene.photographs.listing import list_photographs
from phosphene.provenance.reading import read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for index in range(30):
        coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((30, 30), Image.Resampling.BICUBIC).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def network():
    return opened(seeded(Small), labels=["cat", "dog", "tabby cat", "horse", "sea horse"])


def explain(folder, **fields):
    changes = {name.replace("__", "."): value for name, value in fields.items()}
    return Recipe.load("explain").override({"steps": 12, "priors.statistics.photographs": str(folder)} | changes)


def values_of(network, unit, paths):
    layer, channel = unit.split(":")
    found = network.activations(paths, [layer])[layer]
    return found[:, int(channel)].sum((1, 2))


def test_they_are_the_moments_of_the_photographs_that_excite_the_unit_most(network, folder):
    unit, paths = phosphene.parse_unit("relu2:3", network), list_photographs(folder)
    settings = explain(folder).for_unit(unit).priors.statistics
    with network.borrowed():
        found = UnitStatistics(network, settings, torch.device("cpu")).of([(unit, WHOLE), (unit, WHOLE)])
    top = values_of(network, "relu2:3", paths).argsort(descending=True)[:9]
    expected = collect(network, [paths[index] for index in top])
    for of_layer, statistics in zip(found, expected.layers.values(), strict=True):
        assert of_layer.shape == (2, 2, len(statistics.mean))
        for row in (0, 1):
            torch.testing.assert_close(of_layer[0, row], statistics.mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(of_layer[1, row], statistics.std, rtol=1e-3, atol=1e-4)


def test_photographs_are_dealt_out_to_images_that_are_made_together(network, folder):
    unit, paths = phosphene.parse_unit("relu2:3", network), list_photographs(folder)
    settings = explain(folder, priors__statistics__shrinkage=0.0).for_unit(unit).priors.statistics
    top = values_of(network, "relu2:3", paths).argsort(descending=True)[:9]
    with network.borrowed():
        statistics = UnitStatistics(network, settings, torch.device("cpu"))
        nine = statistics.of([(unit, (facet, 9)) for facet in range(9)])
        many = statistics.of([(unit, (facet, 12)) for facet in range(12)])
    for facet in range(9):
        alone = collect(network, [paths[top[facet]]]).layers["conv1"]
        torch.testing.assert_close(nine[0][0, facet], alone.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(many[0][:, :9], nine[0])
    torch.testing.assert_close(many[0][:, 9:], nine[0][:, :3])
    result = phosphene.ascend(network, "relu2:3", explain(folder), facets=3)
    assert len({picture.pixels.tobytes() for picture in result}) == 3


@pytest.mark.parametrize("compare", ["moments", "sorted"])
def test_each_share_is_shrunk_towards_all_photographs(network, folder, compare):
    unit = phosphene.parse_unit("relu2:3", network)
    nine = [(unit, (facet, 9)) for facet in range(9)]
    fields = {"compare": compare, "every": 1, "average": 0.0, "side": "both", "depth": 0.0}
    settings = explain(folder).for_unit(unit).priors.statistics.model_copy(update=fields)

    def found(shrinkage, images):
        shrunk = settings.model_copy(update={"shrinkage": shrinkage})
        with network.borrowed():
            return UnitStatistics(network, shrunk, torch.device("cpu")).of(images)[0]

    def linear(values):  # deviations are no mean of others': mean squares are
        return values if compare == "sorted" else torch.stack([values[0], values[1].square() + values[0].square()])

    apart, half, whole = found(0.0, nine), found(0.5, nine), found(1.0, nine)
    of_all = found(0.5, [(unit, WHOLE)])
    torch.testing.assert_close(of_all, found(0.0, [(unit, WHOLE)]), rtol=0, atol=0)
    torch.testing.assert_close(whole, of_all.expand_as(whole), rtol=1e-4, atol=1e-5)
    middle = (linear(apart) + linear(whole)) / 2
    torch.testing.assert_close(linear(half), middle, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(apart, whole, rtol=0.05)


def test_pictures_come_nearer_to_their_photographs(network, folder):
    paths = list_photographs(folder)
    top = values_of(network, "relu2:3", paths).argsort(descending=True)[:9]
    wanted = collect(network, [paths[index] for index in top]).layers["conv1"]

    def distance(recipe):
        (picture,) = phosphene.ascend(network, "relu2:3", recipe)
        pixels = torch.tensor(picture.pixels).movedim(-1, 0)[None].float()
        map_ = network.activations(pixels, ["conv1"])["conv1"][0].flatten(1)
        return float(((map_.mean(1) - wanted.mean) / wanted.std).square().mean())

    near = distance(explain(folder, steps=40))
    assert near < 0.7 * distance(Recipe.load("draft").override({"steps": 40}))


def test_rows_are_independent_also_in_what_they_are_pulled_towards(network, folder):
    units = ["relu2:3", "relu2:5", "relu1:2"]
    together = phosphene.ascend(network, units, explain(folder))
    for unit, picture in zip(units, together, strict=True):
        (alone,) = phosphene.ascend(network, unit, explain(folder))
        assert np.abs(alone.pixels.astype(int) - picture.pixels).max() <= 1
    assert not np.array_equal(together[0].pixels, together[1].pixels)


def test_a_batch_that_is_split_for_want_of_memory_is_the_same(network, folder):
    options = phosphene.RunOptions(batch=1)
    one = phosphene.ascend(network, ["relu2:3", "relu2:5"], explain(folder), options=options)
    both = phosphene.ascend(network, ["relu2:3", "relu2:5"], explain(folder))
    for first, second in zip(one, both, strict=True):
        assert np.abs(first.pixels.astype(int) - second.pixels).max() <= 1


@pytest.mark.slow
def test_they_are_made_again_while_the_photographs_are_the_same(network, folder, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for path in list_photographs(folder)[:12]:
        (photographs / path.name).write_bytes(path.read_bytes())
    result = phosphene.ascend(network, "relu2:3", explain(photographs))
    (path,) = (file for file in result.save(tmp_path / "out") if file.name.startswith("relu2"))
    assert result[0].statistics[0].startswith("unit ")
    again = phosphene.again(path, network=network)
    assert again.same
    (photographs / "00.png").unlink()
    with pytest.raises(InputError, match="was made with the statistics unit"):
        phosphene.again(path, network=network)


def test_without_photographs_or_with_what_they_cannot_tell_it_is_one_sentence(network, folder, tmp_path):
    with pytest.raises(InputError, match=r"recipe explain pulls towards the photographs .* --photographs DIR"):
        phosphene.ascend(network, "relu2:3", "explain")
    with pytest.raises(InputError, match="there is no such folder"):
        phosphene.ascend(network, "relu2:3", explain(tmp_path / "none"))
    match = phosphene.Match("relu1", np.zeros((24, 24, 3), dtype=np.uint8))
    for unit in (match, Objective(lambda found: found["relu1"].mean(), ["relu1"])):
        with pytest.raises(InputError, match="expected a class, channel"):
            phosphene.ascend(network, unit, explain(folder))


def test_classes_are_left_to_what_the_base_does(network, folder):
    unit = phosphene.parse_unit("class:cat", network)
    assert explain(folder).for_unit(unit).priors.statistics.source == "auto"


def test_where_they_come_from_is_a_digest_of_the_photographs(network, folder, tmp_path):
    settings = explain(folder).for_unit(phosphene.parse_unit("relu2:3", network)).priors.statistics
    layers, origin = prior_statistics(network, settings)
    assert [entry.layer for entry in layers] == ["conv1", "conv2"]
    assert origin == prior_statistics(network, settings)[1]
    assert origin.startswith("unit ")


def test_the_command_takes_photographs(folder, tmp_path, capsys):
    from phosphene.cli.program import main

    own = written_network(tmp_path, "own", 2, SHALLOW)
    arguments = ["filters", "1:0,1", "-n", own, "--steps", "4", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--photographs", str(folder)]) == 0
    assert "recipe   explain" in capsys.readouterr().out
    assert main([*arguments, "--photographs", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_an_atlas_is_made_of_pictures_that_explain(folder, tmp_path, capsys):
    from phosphene.cli.program import main

    own = written_network(tmp_path, "own", 2, SHALLOW)
    atlas = str(tmp_path / "atlas")
    plan = ["atlas", "plan", atlas, "-n", own, "--layers", "1", "--count", "2"]
    assert main([*plan, "--steps", "3", "--facets", "2", "--frames", "0", "--photographs", str(folder)]) == 0
    assert "explain" in capsys.readouterr().out
    assert main(["atlas", "run", atlas]) == 0
    images = sorted((tmp_path / "atlas/images").rglob("*.png"))
    assert len(images) == 4
    assert all(read(image).statistics[0].startswith("unit ") for image in images)
