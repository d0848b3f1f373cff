import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

import phosphene
from phosphene import InputError, Recipe, background, files
from phosphene.draw import animation
from phosphene.draw import film as film_module
from phosphene.draw.grid import MARGIN

RECIPE = Recipe.load("clip").override({"steps": 5, "optimizer.rate": 5.0, "optimizer.gradient": "rms"})


@pytest.fixture
def result(small):
    return phosphene.ascend(small, ["class:cat", "class:sea horse", "relu2:3"], RECIPE.override({"keep.every": 1}))


def test_a_result_saves_its_pictures_a_grid_a_plot_and_the_run(result, tmp_path):
    names = [path.name for path in result.save(tmp_path)]
    assert names == [
        "000_cat.png", "004_sea_horse.png", "relu2_0003.png", "grid.png", "objective.png", "run.json",
    ]  # fmt: skip
    assert sorted(names) == sorted(os.listdir(tmp_path))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "000_cat.png")), result[0].pixels)
    run = json.loads((tmp_path / "run.json").read_text())
    assert [picture["file"] for picture in run["pictures"]] == names[:3]
    assert len(run["pictures"][0]["objective"]) == 5
    assert Recipe.from_dict(run["recipe"]) == result.recipe


def test_a_result_is_a_sequence_that_shows_itself(result):
    assert len(result) == 3
    assert result.pixels.shape == (3, 24, 24, 3)
    assert [trace.shape for trace in result.objectives] == [(5,)] * 3
    assert result._repr_png_()[:4] == result[0]._repr_png_()[:4] == b"\x89PNG"
    assert "3 pictures: 000_cat" in repr(result)


def test_the_grid_shows_every_picture_unchanged_with_margins(result):
    grid = np.asarray(result.grid())
    margin, height, width = MARGIN, 24, 24
    for column, picture in enumerate(result):
        left = margin + column * (width + margin)
        assert np.array_equal(grid[margin : margin + height, left : left + width], picture.pixels)
        assert (grid[:, left - margin : left] == 255).all()


def test_units_made_twice_have_names_of_their_own(small):
    result = phosphene.ascend(small, ["class:cat"] * 3, RECIPE, seed=[1, 2, 2])
    assert [picture.name for picture in result] == ["000_cat_seed1", "000_cat_seed2", "000_cat_seed2_2"]


@pytest.mark.slow
def test_animations_have_the_frames_and_the_picture(result, tmp_path):
    with Image.open(animation.save_animation(result[0], tmp_path, "gif")) as gif:
        assert gif.n_frames >= 5
        assert gif.size == (24, 24)
    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoCapture(str(animation.save_animation(result[0], tmp_path, "mp4")))
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == 6


def test_odd_sizes_are_animated_too(small, tmp_path):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE.override({"keep.every": 1, "size": [25, 31]}))
    assert animation.save_animation(picture, tmp_path, "mp4").stat().st_size > 0


def test_bad_animations_are_refused(small, result, tmp_path):
    with pytest.raises(InputError, match="expected gif or mp4"):
        animation.save_animation(result[0], tmp_path, "avi")
    (still,) = phosphene.ascend(small, "class:cat", RECIPE)
    with pytest.raises(InputError, match="has no frames"):
        animation.save_animation(still, tmp_path)
    assert not os.listdir(tmp_path)


def test_nothing_is_half_written_and_nothing_is_lost(result, tmp_path):
    path = result[0].save(tmp_path)
    before = path.read_bytes()

    def fail(aside):
        aside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        files.atomic_write(path, fail)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_pictures_are_written_beside_what_goes_on_and_in_order(result):
    begun, wait, written = threading.Event(), threading.Event(), []

    def write(picture):
        begun.set()
        wait.wait(10)
        written.append(picture.name)

    with background.background_writer(write) as hand:
        for picture in result:
            hand(picture)
        assert begun.wait(10)
        assert not written  # and yet all are handed on
        wait.set()
    assert written == [picture.name for picture in result]


def test_what_is_handed_on_is_written_whatever_comes_after(result):
    written = []

    def interrupted():
        with background.background_writer(written.append) as hand:
            for picture in result:
                hand(picture)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written == list(result)


@pytest.mark.parametrize("bad", [0, -1])
def test_a_file_that_cannot_be_written_is_said(result, bad):
    written = []

    def write(picture):
        if picture is result[bad]:
            raise InputError("no room")
        written.append(picture)

    def hand_on():
        with background.background_writer(write) as hand:
            for picture in result:
                hand(picture)

    with pytest.raises(InputError, match="no room"):
        hand_on()
    assert len(written) < len(result)


def test_directories_that_cannot_be_are_refused(result, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        result.save(tmp_path / "file" / "deeper")


def test_a_film_has_the_frames_in_order_and_at_last_the_picture(small):
    (picture,) = phosphene.ascend(small, "relu2:3", RECIPE.override({"steps": 11, "keep.every": 2}))
    film = film_module.film(picture)
    assert (film.frames, film.every, film.image.size) == (6, 2, (4 * 24, 2 * 24))
    whole = np.asarray(film.image)
    for i, frame in enumerate([*picture.frames, picture.pixels]):
        left, top = i % 4 * 24, i // 4 * 24
        assert np.array_equal(whole[top : top + 24, left : left + 24], frame)
    # The frame of the last step gives way to the picture; of one that stopped early there are so many fewer.
    (even,) = phosphene.ascend(small, "relu2:3", RECIPE.override({"steps": 10, "keep.every": 5}))
    assert (len(even.frames), film_module.film(even).frames) == (2, 2)
    assert np.array_equal(np.asarray(film_module.film(even).image)[:, 24:], even.pixels)
    assert film_module.film(phosphene.ascend(small, "relu2:3", RECIPE)[0]) is None


def test_the_frames_of_a_film_are_small(small):
    recipe = RECIPE.override({"size": (150, 300), "steps": 2, "keep.every": 1})
    (picture,) = phosphene.ascend(small, "relu2:3", recipe)
    assert film_module.film_size(picture) == (128, 64)
    assert film_module.film(picture).image.size == (2 * 128, 64)
