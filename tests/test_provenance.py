import contextlib
import filecmp

import numpy as np
import pytest
import torch
from conftest import Small, opened, seeded
from PIL import Image

import phosphene
from phosphene import InputError, Recipe
from phosphene.provenance import again, read_provenance

RECIPE = Recipe.load("tence").changed(
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
    for path in phosphene.ascend(small, units, RECIPE.changed(fields), seed=5).save(tmp_path / "first"):
        if path.name in ("grid.png", "objective.png", "run.json"):
            continue
        made = again(path, small)
        assert made.same
        assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


def test_the_number_of_threads_is_the_one_it_was_made_with_and_is_put_back(small, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    torch.set_num_threads(before)
    path = picture.save(tmp_path / "first")
    made = again(path, small)
    assert made.same
    assert made.picture.threads == 1
    assert torch.get_num_threads() == before
    assert filecmp.cmp(path, made.picture.save(tmp_path / "second"), shallow=False)


def test_an_image_from_a_start_image_carries_that_image(small, tmp_path):
    start = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.changed({"start.kind": "image"}), start=start)
    made = again(picture.save(tmp_path), small)
    assert made.same
    assert np.array_equal(made.picture.start, start)


def test_a_large_start_image_fits_into_the_file(small, tmp_path):
    start = np.random.default_rng(0).integers(0, 256, (700, 600, 3), dtype=np.uint8)  # noise, which does not compress
    recipe = RECIPE.changed({"start.kind": "image", "size": [700, 600], "steps": 1})
    (picture,) = phosphene.ascend(small, "class:cat", recipe, start=start)
    assert again(picture.save(tmp_path), small).same


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_images_of_any_channels_are_saved_and_made_again(tmp_path, channels):
    network = opened(seeded(Small, channels), channels=channels)
    (picture,) = phosphene.ascend(network, "class:1", RECIPE)
    assert again(picture.save(tmp_path), network).same


@pytest.mark.slow
def test_an_image_of_the_bundled_network_names_all_it_takes(lite0, tmp_path):
    result = phosphene.ascend(lite0, ["class:flamingo", "class:teddy"], RECIPE.changed({"size": 96}))
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


def test_an_interrupted_image_is_made_again_as_far_as_it_got(small, tmp_path):
    import signal

    result = phosphene.ascend(
        small, "class:cat", RECIPE.changed({"steps": 40, "schedule.kind": "cosine"}),
        on_progress=lambda progress: round(40 * progress.work) == 9 and signal.raise_signal(signal.SIGINT),
    )  # fmt: skip
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
    with pytest.raises(InputError, match="fed otherwise: channel_order RGB, and here BGR"):
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
