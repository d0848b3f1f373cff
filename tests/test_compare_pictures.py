"""What a picture does to a network beside what photographs do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene.cli.program import main
from phosphene.comparison.pictures_match import MatchRow, match_photograph, summarize_match
from phosphene.comparison.pictures_reading import LayerResponse, compared_layers, picture_pixels, shuffled_pixels
from phosphene.comparison.pictures_rows import (
    ChannelDifference,
    PictureRow,
    channel_differences,
    compare_layer,
    departure,
    summarize_paths,
)
from phosphene.recipes.recipe import Recipe

QUICK = Recipe.load("naive").override({"steps": 1})
CLIMBED = {"steps": 40, "optimizer.rate": 20.0}


def write(folder, seeds, bright=0.0):
    """Smooth pictures of 24 pixels, so that shuffling their pixels changes what convolutions make of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        random = np.random.default_rng(seed)
        coarse = (random.random((3, 3, 3)) * (255 - bright) + bright).astype(np.uint8)
        Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Photographs, and pictures: one more photograph, and the first one with its pixels shuffled."""
    base = tmp_path_factory.mktemp("images")
    write(base / "photographs", range(8))
    write(base / "picture", [50])
    pixels = np.asarray(Image.open(base / "photographs" / "0.png")).reshape(-1, 3)
    shuffled = np.random.default_rng(0).permutation(pixels).reshape(24, 24, 3)
    (base / "shuffled").mkdir()
    Image.fromarray(shuffled).save(base / "shuffled" / "0.png")
    return base


# Reading


def test_a_response_is_of_means_size_and_what_is_off():
    maps = torch.tensor([[[[1.0, -3.0]], [[0.0, 2.0]]]])
    found = LayerResponse.of(maps)
    assert found.means.tolist() == [[-1.0, 1.0]]
    assert found.rms.tolist() == pytest.approx([(14 / 4) ** 0.5])
    assert found.off.tolist() == [0.5]
    assert LayerResponse.of(torch.tensor([[1.0, -2.0]])).means.tolist() == [[1.0, -2.0]]
    joined = LayerResponse.join([found, LayerResponse.of(2 * maps)])
    assert joined.means.tolist() == [[-1.0, 1.0], [-2.0, 2.0]]


def test_a_picture_of_the_networks_own_size_is_shown_whole(tmp_path):
    preprocessing = replace(opened(seeded(Small)).preprocessing, crop=0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    assert torch.equal(
        picture_pixels(tmp_path / "own.png", preprocessing), torch.from_numpy(pixels).movedim(2, 0).float()
    )
    Image.fromarray(np.pad(pixels, ((24, 24), (24, 24), (0, 0)))).save(tmp_path / "large.png")
    assert picture_pixels(tmp_path / "large.png", preprocessing).shape == (3, 24, 24)


def test_shuffling_keeps_each_pixel_whole():
    pixels = torch.rand(2, 3, 5, 7)
    found = shuffled_pixels(pixels)
    assert not torch.equal(found, pixels)
    for before, after in zip(pixels.flatten(2), found.flatten(2), strict=True):
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist()))


def test_the_layers_end_with_the_logits_where_there_are_any():
    assert compared_layers(opened(seeded(Small)), ["relu2", "relu1"]) == ["relu1", "relu2", "class"]
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert compared_layers(opened(module), None) == ["0", "1"]


# Rows


def responses(means):
    return LayerResponse(means, means.square().mean(1).sqrt().double(), (means <= 0).float().mean(1))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alike(count, kind, seed):
    """Images of one kind: their channels differ a little."""
    return noise(1, 40, seed=kind) + 0.5 * noise(count, 40, seed=seed)


def test_the_scale_runs_from_other_images_to_photographs_among_themselves():
    photographs, zero = responses(alike(12, 1, 2)), responses(alike(12, 3, 4))
    same = compare_layer("x", responses(alike(30, 1, 5)), photographs, zero)
    other = compare_layer("x", responses(alike(30, 3, 6)), photographs, zero)
    assert same.path == pytest.approx(1, abs=0.1)
    assert other.path == pytest.approx(0, abs=0.1)
    assert same.correlation == pytest.approx(same.among, abs=0.1)
    assert other.correlation < 0.5 < same.among


def test_a_layer_that_tells_nothing_apart_has_no_path_similarity():
    photographs, zero = responses(alike(12, 1, 2)), responses(alike(12, 1, 3))
    assert compare_layer("x", responses(alike(3, 1, 5)), photographs, zero).path is None


def test_a_planted_channel_is_found_and_size_and_silence_are_measured():
    photographs = noise(20, 30)
    picture = photographs.mean(0, keepdim=True)
    picture[:, 17] += 8 * photographs[:, 17].std()
    picture[:, 3] -= 6 * photographs[:, 3].std()
    first, second = channel_differences(picture, photographs)[:2]
    assert (first.channel, second.channel) == (17, 3)
    assert first.difference > 5
    assert second.difference < -4
    row = compare_layer("x", responses(3 * photographs), responses(photographs), responses(noise(20, 30, seed=1)))
    assert row.rms == pytest.approx(3, rel=1e-5)
    assert row.rms_z > 3
    assert row.off == row.off_photographs
    assert row.off_z == 0


def test_a_channel_that_is_silent_on_photographs_is_not_first_for_that_alone():
    photographs = noise(20, 10)
    photographs[:, 0] = 0
    picture = photographs.mean(0, keepdim=True)
    picture[:, 0] = 0.1
    picture[:, 5] += 3
    assert channel_differences(picture, photographs)[0].channel == 5


def test_of_few_photographs_there_is_no_scale_and_no_spread():
    photographs, zero = responses(alike(2, 1, 2)), responses(alike(2, 3, 4))
    row = compare_layer("x", responses(alike(1, 1, 5)), photographs, zero)
    assert row.path is row.rms_z is row.off_z is None
    assert row.correlation is not None
    single = compare_layer("x", responses(alike(1, 1, 5)), responses(alike(1, 1, 2)), zero)
    assert single.among is None
    assert single.differences


def made_row(layer, path):
    return PictureRow(layer, 4, 0.5, 0.6, path, 1.0, 0.0, 0.5, 0.5, 0.0, (ChannelDifference(0, 1.0, 1.0, 0.0),))


def test_the_departure_is_where_it_stays_below_a_half():
    rows = [made_row("a", 0.9), made_row("b", 0.3), made_row("c", 0.7), made_row("d", None), made_row("e", 0.4)]
    assert departure(rows) == "e"
    text = summarize_paths(rows, "others")
    assert text.startswith(
        "From e on the picture goes no longer as photographs do, below 0.5; before, it does not at b ("
    )
    assert departure(rows[:3]) is None


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([0.9, 0.8], "goes as photographs do at all 2 layers"),
        ([0.1, 0.2], "Nowhere does the picture go as photographs do"),
        ([None, None], "cannot be told"),
        (
            [0.1, 0.2, 0.9, 0.3, 0.7],
            "At a to b, and d the picture does not go as photographs do, below 0.5; at the end it does (",
        ),
        ([0.9, 0.2, 0.1], "From b on the picture goes no longer as photographs do, below 0.5 ("),
    ],
)
def test_the_sentence_names_every_layer_at_which_the_ways_part(paths, says):
    assert says in summarize_paths([made_row(name, path) for name, path in zip("abcde", paths, strict=False)], "others")


def test_a_size_far_from_that_of_photographs_is_said():
    rows = [made_row("a", 0.9), replace(made_row("b", 0.9), rms=1.76, rms_z=6.3)]
    assert summarize_paths(rows, "others").endswith(
        "1.76 times as large as photographs' at b, 6 standard deviations from them."
    )
    assert "times as large" not in summarize_paths(rows[:1], "others")


# The whole


def test_one_more_photograph_goes_as_photographs_do_and_shuffled_pixels_do_not(folders):
    network = opened(seeded(Small))
    real = phosphene.compare_images(folders / "picture", folders / "photographs", network)
    shuffled = phosphene.compare_images(folders / "shuffled", folders / "photographs", network)
    assert real.rows[-1].layer == "logits"
    pairs = [(a.path, b.path) for a, b in zip(real.rows, shuffled.rows, strict=True) if a.path is not None]
    assert pairs
    assert all(one > other for one, other in pairs)
    assert np.mean([other for _, other in pairs]) < 0.4


def test_other_photographs_are_the_zero_where_they_are_given(folders):
    write(folders / "others", range(20, 28), bright=180.0)
    network = opened(seeded(Small))
    found = phosphene.compare_images(folders / "others", folders / "photographs", network, others=folders / "others")
    assert found.zero == "photographs of other things"
    known = [row.path for row in found.rows if row.path is not None]
    assert known
    assert max(known) < 0.3


@pytest.mark.slow
def test_what_is_saved_has_the_pictures_of_channels(folders, tmp_path):
    network = opened(seeded(Small))
    found = phosphene.compare_images(
        folders / "picture", folders / "photographs", network, layers=["relu1", "relu2"], channels=3, recipe=QUICK
    )
    assert len(found.channels) == 3
    assert all(abs(each.difference) > 0 for each in found.channels)
    found.save(tmp_path)
    told = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert [row["layer"] for row in told["rows"]] == ["relu1", "relu2", "logits"]
    for each in told["channels"]:
        assert (tmp_path / each["picture"]).is_file()
    assert min(Image.open(tmp_path / "compare.png").size) > 500


def test_few_photographs_are_said_to_be_few(folders):
    network = opened(seeded(Small))
    one = folders / "photographs" / "0.png"
    found = phosphene.compare_images(folders / "picture" / "50.png", one, network)
    assert found.departure is None
    assert all(row.path is None for row in found.rows)
    assert found.notes[0].startswith("1 photograph: too few")
    assert "cannot be told" in found.summary
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_network_is_handed_back(folders):
    module = seeded(Small).train()
    phosphene.compare_images(folders / "picture", folders / "photographs", opened(module))
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_is_wrong_is_said(folders):
    network = opened(seeded(Small))
    with pytest.raises(phosphene.InputError, match="there is no file"):
        phosphene.compare_images(folders / "nowhere.png", folders / "photographs", network)
    with pytest.raises(phosphene.InputError, match="did you mean relu2"):
        phosphene.compare_images(folders / "picture", folders / "photographs", network, layers=["relu3", "relu1"])
    with pytest.raises(phosphene.InputError, match="no image is given"):
        phosphene.compare_images([], folders / "photographs", network)
    settings = phosphene.MatchSettings(("relu1",), "relu2:3")
    with pytest.raises(phosphene.InputError, match="expected a class"):
        phosphene.compare_images(folders / "picture", folders / "photographs", network, match=settings)
    for weight in (0.0, float("nan"), float("inf")):
        settings = phosphene.MatchSettings(("relu1",), weight=weight)
        with pytest.raises(phosphene.InputError, match="expected a number above 0"):
            phosphene.compare_images(folders / "picture", folders / "photographs", network, match=settings)
    features = opened(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(phosphene.InputError, match="no class that could stay"):
        phosphene.compare_images(
            folders / "picture", folders / "photographs", features, match=phosphene.MatchSettings(("1",))
        )


# Matching


@pytest.mark.slow
def test_a_climbed_picture_is_nearer_to_its_photograph_the_more_that_weighs(folders):
    network = opened(seeded(Small), labels=["cat", "dog", "tabby cat", "horse", "sea horse"])
    photograph = picture_pixels(folders / "photographs" / "1.png", network.preprocessing)
    shuffled = shuffled_pixels(photograph[None])[0]
    recipe = Recipe.load("naive").override(CLIMBED)
    found = []
    for weight in (0.001, 100.0):
        settings = phosphene.MatchSettings(("relu1",), "class:dog", weight, recipe)
        match = match_photograph(network, photograph, ["relu1", "relu2"], shuffled, settings)
        found.append(match)
        row = next(row for row in match.rows if row.matched)
        assert row.layer == "relu1"
        assert row.share == pytest.approx(row.distance / row.shuffled)
        assert "class:dog" in match.unit or "class:1" in match.unit
    far, near = (next(row.distance for row in each.rows if row.matched) for each in found)
    assert near < 0.8 * far
    assert found[0].probability > found[1].probability
    assert "0 is the photograph" in found[1].summary


def test_the_class_that_stays_is_the_photographs_own(folders):
    network = opened(seeded(Small))
    photograph = picture_pixels(folders / "photographs" / "1.png", network.preprocessing)
    own = int(network.activations(photograph[None], "logits")["logits"].argmax())
    settings = phosphene.MatchSettings(("relu1",), recipe=QUICK)
    match = match_photograph(network, photograph, ["relu1"], shuffled_pixels(photograph[None])[0], settings)
    assert f"class:{own}" in match.unit


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ([0.7, 0.2, 0.3, 0.9], "is below 0.5 at b to c, and stops working at d ("),
        ([0.2, 0.7, 0.3, 0.4], "is below 0.5 at a, and c to d (0 is"),
        ([0.7, 0.8, 0.9, 1.5], "is nowhere below 0.5"),
    ],
)
def test_the_sentence_of_a_match_says_where_it_stops_working(shares, says):
    rows = [MatchRow(name, share, 1.0, share, name == "b") for name, share in zip("abcd", shares, strict=True)]
    text = summarize_match(rows, "dog", 0.4)
    assert says in text
    assert text.startswith(f"Climbed for dog, and for the photograph at b ({shares[1]:.2f})")
    assert text.endswith("gives dog 40%.")


# The command


def test_of_a_folder_of_phosphenes_the_pictures_alone_are_taken(folders, tmp_path):
    network = opened(seeded(Small))
    phosphene.ascend(network, ["class:0", "class:1"], QUICK).save(tmp_path)
    assert (tmp_path / "grid.png").is_file()
    found = phosphene.compare_images(tmp_path, folders / "photographs", network)
    assert len(found.pictures) == 2


def test_a_photograph_that_cannot_be_read_is_passed_over_and_said(folders, tmp_path):
    network = opened(seeded(Small))
    (tmp_path / "0.png").write_text("no image")
    for path in (folders / "photographs").glob("*.png"):
        (tmp_path / f"1{path.name}").write_bytes(path.read_bytes())
    whole = phosphene.compare_images(folders / "picture", folders / "photographs", network)
    found = phosphene.compare_images(folders / "picture", [tmp_path, tmp_path / "10.png"], network)
    assert len(found.photographs) == 8
    assert found.notes[-1] == "left out, since they cannot be read: 1, such as 0.png"
    assert [row.rms for row in found.rows] == pytest.approx([row.rms for row in whole.rows])


@pytest.mark.slow
def test_the_command_says_and_writes_what_the_function_finds(folders, tmp_path, capsys):
    picture, photographs = str(folders / "picture"), str(folders / "photographs")
    command = "--layers blocks.0 blocks.1 --pictures 1 --steps 1 --match blocks.0 --unit flamingo"
    words = ["compare", picture, photographs, "-n", "efficientnet_lite0", *command.split()]
    assert main([*words, "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 picture, 8 photographs" in out
    assert "climbed  class:130" in out
    assert (tmp_path / "compare.png").is_file()
    told = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert [row["matched"] for row in told["match"]["rows"]] == [True, False, False]
    assert main(["compare", picture, "-n", "efficientnet_lite0", "-o", str(tmp_path)]) == 2
    assert "one image is given" in capsys.readouterr().err
