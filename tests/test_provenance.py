import contextlib
import filecmp
import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from helpers import Small, opened, seeded
from PIL import Image
from tiny import LABELS, normed, vit

import phosphene
from phosphene import InputError, Recipe
from phosphene.api.again import again
from phosphene.cli.program import main
from phosphene.photographs.activation_files import cache_path
from phosphene.photographs.activation_statistics import collect
from phosphene.provenance.reading import read_provenance
from phosphene.provenance.records import parse_provenance

RECIPE = Recipe.load("tence").override(
    {"steps": 6, "optimizer.rate": 5.0, "optimizer.gradient": "rms", "median.every": 2}
)


@pytest.mark.parametrize(
    ("units", "fields"),
    [
        (["class:cat", "class:dog", "relu2:3"], {}),
        (["class:cat - relu1:2", "mean(relu1:[1,0,0,0,0,0,0,0.1])"], {"optimizer.name": "adam", "optimizer.rate": 3.0}),
        (["class:cat", "class:dog"], {"stop.patience": 2, "stop.tolerance": 0.5, "steps": 50}),
        (["class:cat"], {"size": [19, 26], "keep.contrast": 0.15}),
    ],
)
def test_an_image_is_made_again_from_its_file_alone_byte_for_byte(small, tmp_path, units, fields):
    for path in phosphene.ascend(small, units, RECIPE.override(fields), seed=5).save(tmp_path / "first"):
        if path.name in ("grid.png", "objective.png", "run.json"):
            continue
        made = again(path, small)
        assert made.same
        assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


@pytest.mark.parametrize("draft", [False, True])
def test_an_image_whose_recipe_changed_on_the_way_is_made_again(capsys, tmp_path, draft):
    network = normed()
    begun = Recipe.load("draft").override({"steps": 9, "size": 32}) if draft else RECIPE.override({"steps": 9})
    changes = (
        {3: {"optimizer.rate": 0.3, "priors.statistics.weight": 20.0}, 5: {"views.crop": [0.6, 0.9], "steps": 30}}
        if draft
        else {2: {"median": "off", "blur.sigma": 0.7}, 3: {"optimizer.rate": 1.0 / 3}, 6: {"decay.strength": 0.25}}
    )

    def on_step(step):
        return None if step.step == 7 else step.recipe.override(changes.get(step.step, {}))

    (picture,) = phosphene.ascend(network, "class:cat", begun, seed=5, callbacks=phosphene.Callbacks(step=on_step))
    path = picture.save(tmp_path / "first")
    known = read_provenance(path)
    assert Recipe.from_dict(known["recipe"]) == begun.for_network(network).for_unit(picture.unit)
    assert sorted({step for step, *_ in known["changes"]}) == sorted(changes)
    assert (known["steps"], known["stopped"]) == (8, "interrupted")
    assert main(["show", str(path)]) == 0
    said = capsys.readouterr().out
    for step, name, value in known["changes"]:
        assert f"from step {step} on: {name} = {value}" in said
    made = again(path, network)
    assert made.same
    assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)
    (unchanged,) = phosphene.ascend(network, "class:cat", begun.override({"steps": 8}), seed=5)
    assert not np.array_equal(unchanged.pixels, picture.pixels)


@pytest.mark.slow
def test_the_number_of_threads_is_the_one_it_was_made_with_and_is_put_back(small, tmp_path):
    before = torch.get_num_threads()
    used = 1 if before > 1 else 2
    torch.set_num_threads(used)
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    torch.set_num_threads(before)
    path = picture.save(tmp_path / "first")
    made = again(path, small)
    assert made.same
    assert made.picture.threads == used
    assert torch.get_num_threads() == before
    assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


def test_an_image_from_a_start_image_carries_that_image(small, tmp_path):
    start = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.override({"start.kind": "image"}), start=start)
    made = again(picture.save(tmp_path), small)
    assert made.same
    assert np.array_equal(made.picture.start, start)


@pytest.mark.slow
def test_a_large_start_image_fits_into_the_file(small, tmp_path):
    start = np.random.default_rng(0).integers(0, 256, (700, 600, 3), dtype=np.uint8)  # noise, which does not compress
    recipe = RECIPE.override({"start.kind": "image", "size": [700, 600], "steps": 1})
    (picture,) = phosphene.ascend(small, "class:cat", recipe, start=start)
    assert again(picture.save(tmp_path), small).same


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_images_of_any_channels_are_saved_and_made_again(tmp_path, channels):
    network = opened(seeded(Small, channels), channels=channels)
    (picture,) = phosphene.ascend(network, "class:1", RECIPE)
    assert again(picture.save(tmp_path), network).same


FOURIER = {
    "canvas.kind": "fourier", "optimizer.name": "adam", "optimizer.rate": 0.05, "optimizer.gradient": "raw",
    "clip": "off", "median": "off",
}  # fmt: skip
MACO = {**FOURIER, "canvas.kind": "maco", "keep.transparency": True}
MOVING = {
    "views.crop": [0.4, 1.0], "views.rotate": 20.0, "views.noise": [2.0, 9.0], "views.colour": 0.1, "views.count": 2,
}  # fmt: skip
GROWING = {"growth.sizes": [0.5, 1.0], "growth.at": [0.0, 0.5]}
PULLED = {"priors.statistics.weight": 5.0, "priors.total_variation.weight": 1.0}
DIVERSE = {"priors.diversity.weight": 5.0, "priors.diversity.layer": "relu2", "priors.statistics.pool": "group"}


def photograph(size=(24, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def recipe_of(*fields):
    return RECIPE.override({name: value for each in fields for name, value in each.items()})


def made_again(pictures, network, folder):
    """Each picture saved, and made again from its file, to the last byte; gives what was made."""
    found = []
    for picture in pictures:
        path = picture.save(folder / "first")
        made = again(path, network)
        assert made.same
        assert filecmp.cmp(path, made.picture.save(folder / "second"), shallow=False)
        found.append(made.picture)
    return found


@pytest.mark.parametrize("canvas", [{}, FOURIER, MACO])
@pytest.mark.parametrize("growth", [{}, GROWING])
def test_images_of_every_canvas_views_and_priors_are_made_again(tmp_path, canvas, growth):
    network = normed()
    recipe = recipe_of(canvas, growth, MOVING, PULLED)
    pictures = phosphene.ascend(network, ["class:cat", "relu2:3", "relu1:2@3,4"], recipe, seed=5)
    for picture in made_again(pictures, network, tmp_path):
        assert picture.statistics == ("batchnorm",)
        assert (picture.alpha is not None) == ("keep.transparency" in canvas)


def test_a_transparent_image_keeps_its_colours_under_the_alpha(tmp_path):
    network = opened(seeded(Small), labels=LABELS)
    (picture,) = phosphene.ascend(network, "relu1:2@3,4", recipe_of(MACO))
    with Image.open(picture.save(tmp_path)) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[..., :3], picture.pixels)
        assert np.array_equal(np.asarray(image)[..., 3], picture.alpha)
        assert picture.alpha.min() == 0


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_transparent_images_of_any_channels(tmp_path, channels):
    network = opened(seeded(Small, channels), channels=channels)
    made_again(phosphene.ascend(network, "class:1", recipe_of(MACO)), network, tmp_path)


def test_each_facet_is_made_again_from_its_own_file(tmp_path):
    network = normed()
    pictures = phosphene.ascend(
        network, ["class:cat", "class:dog"], recipe_of(FOURIER, MOVING, PULLED, DIVERSE), facets=3, seed=[1, 50]
    )
    assert [read_provenance(path)["facet"] for path in (p.save(tmp_path) for p in pictures)] == 2 * [
        [0, 3], [1, 3], [2, 3],
    ]  # fmt: skip
    facets = made_again(pictures, network, tmp_path)
    assert [picture.seed for picture in facets] == [1, 2, 3, 50, 51, 52]
    assert [picture.facet for picture in facets] == [picture.facet for picture in pictures]


def test_facets_that_stop_at_different_steps_are_made_again(tmp_path):
    network = normed()
    recipe = recipe_of(FOURIER, MOVING, PULLED, DIVERSE, {"stop.patience": 2, "stop.smoothing": 0.0, "steps": 60})
    pictures = phosphene.ascend(network, "class:cat", recipe, facets=4)
    assert len({picture.steps for picture in pictures}) > 1
    made_again(pictures, network, tmp_path)


@pytest.mark.parametrize("unit", ["match(relu2)", "caricature(relu1) - 0.1*class:cat"])
def test_an_image_of_a_photograph_carries_it(small, tmp_path, unit):
    pictures = phosphene.ascend(
        small,
        [phosphene.parse_unit(unit, small).with_photograph(photograph()), "class:cat"],
        recipe_of(FOURIER, MOVING),
    )
    assert np.array_equal(pictures[0].photograph, photograph())
    assert pictures[1].photograph is None  # a class beside it has no use for it
    found = made_again(pictures, small, tmp_path)
    assert np.array_equal(found[0].photograph, photograph())


def test_a_grown_image_of_a_start_image_is_made_again(small, tmp_path):
    for canvas in ({}, FOURIER):
        recipe = recipe_of(canvas, GROWING, {"start.kind": "image"})
        made_again(phosphene.ascend(small, "relu2", recipe, start=photograph()), small, tmp_path)


def test_an_image_larger_than_its_network_takes_is_made_again(tmp_path):
    network = vit(32)
    network = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
    recipe = recipe_of(FOURIER, MOVING, {"size": [41, 50]})
    pictures = phosphene.ascend(network, ["class:cat", phosphene.Match("blocks.1", photograph((41, 50)))], recipe)
    assert pictures[0].pixels.shape == (41, 50, 3)
    made_again(pictures[1:], network, tmp_path)


def test_an_interrupted_image_that_grows_is_made_again_as_far_as_it_got(small, tmp_path):
    import signal

    pressed = []
    result = phosphene.ascend(
        small,
        ["class:cat", "class:dog"],
        recipe_of(FOURIER, GROWING, MOVING, {"steps": 20}),
        callbacks=phosphene.Callbacks(
            progress=lambda progress: (
                progress.work > 0.2 and not pressed and (pressed.append(1) or signal.raise_signal(signal.SIGINT))
            )
        ),
    )
    assert result.interrupted
    assert result[0].steps < 10
    assert result[0].pixels.shape == (24, 24, 3)
    made_again(result, small, tmp_path)


@pytest.fixture
def by_name(tmp_path):
    """Two networks that open by name and weights, with statistics of batch normalisation and without."""
    from safetensors.torch import save_file

    made = []
    for index, name in enumerate(("test_efficientnet", "test_convnext")):
        with torch.random.fork_rng():
            torch.manual_seed(index)
            module = timm.create_model(name)
        file = tmp_path / f"{name}.safetensors"
        save_file(module.state_dict(), file)
        made.append(phosphene.open(name, weights=file, preprocessing=str(described(tmp_path, 64 - 32 * index))))
    return made


def described(folder, size):
    file = folder / f"{size}.toml"
    file.write_text(f"size = {size}\nmean = 0.5\nstd = 0.25\n")
    return file


@pytest.mark.slow
def test_an_ensemble_is_made_again_from_the_names_of_its_networks(by_name, tmp_path):
    recipe = recipe_of(FOURIER, MOVING, PULLED, {"steps": 3})
    (picture,) = phosphene.ascend(by_name, "class:130", recipe)
    path = picture.save(tmp_path / "first")
    known = read_provenance(path)
    assert [entry["name"] for entry in known["ensemble"]] == ["test_convnext"]
    assert known["ensemble"][0]["weights"] == by_name[1].digest
    assert known["statistics"] == ["batchnorm", ""]
    made = again(path)
    assert made.same
    assert made.picture.network_names == "test_efficientnet + test_convnext"
    assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


def test_gathered_statistics_must_be_those_that_the_image_was_made_with(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path / "kept"))
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(photograph(seed=index)).save(paths[-1])
    collect(small, paths[:2]).save(cache_path(small))
    (picture,) = phosphene.ascend(small, "class:cat", recipe_of(FOURIER, PULLED))
    path = picture.save(tmp_path)
    assert read_provenance(path)["statistics"][0].startswith("gathered ")
    made_again([picture], small, tmp_path)
    collect(small, paths).save(cache_path(small))
    with pytest.raises(InputError, match=r"was made with the statistics gathered .* and here are gathered .*: see"):
        again(path, small)
    cache_path(small).unlink()
    with pytest.raises(InputError, match=r"was made with the statistics gathered .* and here are none: see"):
        again(path, small)


@pytest.mark.slow
def test_an_image_of_the_bundled_network_names_all_it_takes(lite0, tmp_path):
    result = phosphene.ascend(lite0, ["class:flamingo", "class:teddy"], RECIPE.override({"size": 96}))
    path = result.save(tmp_path)[0]
    known = read_provenance(path)
    assert path.name == "130_flamingo.png"
    assert known["unit"] == "class:130"
    assert known["label"] == "flamingo"
    assert known["network"]["weights"] == lite0.digest
    assert known["recipe"]["median"] == {"size": 5, "every": 2}
    assert set(known["versions"]) == {"phosphene", "python", "torch", "timm"}
    assert set(known["scores"]) == {"objective", "probability"}
    made = again(path)
    assert made.same
    assert filecmp.cmp(path, made.picture.save(tmp_path / "again"), shallow=False)


@pytest.mark.slow
def test_an_interrupted_image_is_made_again_as_far_as_it_got(small, tmp_path):
    import signal

    result = phosphene.ascend(
        small,
        "class:cat",
        RECIPE.override({"steps": 40, "schedule.kind": "cosine"}),
        callbacks=phosphene.Callbacks(
            progress=lambda progress: round(40 * progress.work) == 9 and signal.raise_signal(signal.SIGINT)
        ),
    )
    assert result.interrupted
    path = result.save(tmp_path)[0]
    made = again(path, small)
    assert made.same
    assert made.picture.steps == result[0].steps == 10
    assert filecmp.cmp(path, made.picture.save(tmp_path / "again"), shallow=False)


def test_another_network_is_refused(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    path = picture.save(tmp_path)
    with pytest.raises(InputError, match="a network of its maker's own"):
        again(path)
    with pytest.raises(InputError, match=f"of weights {small.digest}, and these"):
        again(path, opened(Small()))


def test_a_network_fed_otherwise_is_refused(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    swapped = phosphene.Preprocessing(24, mean=0.5, std=0.25, channel_order="BGR")
    with pytest.raises(InputError, match="with other preprocessing: channel_order RGB, and here BGR"):
        again(picture.save(tmp_path), phosphene.open(small.module, swapped))


def test_files_that_say_nothing_are_refused(tmp_path):
    plain, text = tmp_path / "plain.png", tmp_path / "text.png"
    Image.new("RGB", (4, 4)).save(plain)
    text.write_text("no image")
    with pytest.raises(InputError, match="does not say how it was made"):
        read_provenance(plain)
    with pytest.raises(InputError, match="is no image file"):
        read_provenance(text)
    with pytest.raises(InputError, match="there is no such file"):
        read_provenance(tmp_path / "none.png")


def test_a_truncated_or_altered_image_raises_nothing_else(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    whole = picture.save(tmp_path).read_bytes()
    broken = tmp_path / "broken.png"
    generator = np.random.default_rng(0)
    for _ in range(200):
        cut = bytearray(whole[: generator.integers(1, len(whole))] if generator.random() < 0.5 else whole)
        cut[generator.integers(len(cut))] ^= 1 << int(generator.integers(8))
        broken.write_bytes(cut)
        with contextlib.suppress(InputError):  # and nothing else
            read_provenance(broken)


def test_why_an_image_of_an_older_version_stopped_is_said_in_todays_words(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    text = json.dumps(picture.provenance() | {"stopped": "confidence held"})
    assert parse_provenance(text).stopped == "probability held"
    assert parse_provenance(json.dumps(picture.provenance())).stopped == picture.stopped
