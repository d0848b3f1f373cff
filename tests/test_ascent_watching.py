"""Progress, pictures and steps are reported as they come; a step may change what the next ones do."""

import numpy as np
import pytest
from small_recipes import UNITS, fourier, quick

import phosphene
from phosphene import InputError
from phosphene.ascent import stopping


def test_progress_and_pictures_are_reported_as_they_come(small):
    shares, made = [], []
    phosphene.ascend(
        small,
        UNITS[:3],
        quick(5),
        options=phosphene.RunOptions(batch=2),
        callbacks=phosphene.Callbacks(progress=lambda p: shares.append(p.work), picture=made.append),
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(made) == 3


def test_progress_shows_all_images_in_work_as_they_stand(small):
    seen = []
    callbacks = phosphene.Callbacks(progress=lambda progress: seen.append(progress.pixels()))
    made = phosphene.ascend(small, UNITS[0], fourier(steps=4), facets=2, callbacks=callbacks)
    assert [sorted(images) for images in seen] == [[0, 1]] * 4
    for place, picture in enumerate(made):
        assert (seen[-1][place] == picture.pixels).all()
        assert (seen[0][place] != picture.pixels).any()


def test_every_step_but_the_last_can_be_watched(small):
    seen = []

    def on_step(step):
        seen.append((step.place, step.step, step.objective, step.pixels()))
        return step.recipe

    watched = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(5), callbacks=phosphene.Callbacks(step=on_step))
    assert sorted((place, step) for place, step, *_ in seen) == [(p, s) for p in range(2) for s in range(1, 5)]
    for picture, alone in zip(watched, phosphene.ascend(small, ["class:cat", "relu2:3"], quick(5)), strict=True):
        assert np.array_equal(picture.pixels, alone.pixels)
        assert picture.changes == []
    for place, step, objective, image in seen:
        assert objective == watched[place].objectives[step - 1]
        (shorter,) = phosphene.ascend(small, watched[place].unit, quick(step))
        assert np.abs(image.astype(int) - shorter.pixels).max() <= 1  # the image as it stands is the one so far


def test_a_step_that_gives_no_recipe_is_followed_by_the_last(small):
    (ended, whole) = phosphene.ascend(
        small,
        ["class:cat", "relu2:3"],
        quick(9),
        callbacks=phosphene.Callbacks(step=lambda step: None if (step.place, step.step) == (0, 4) else step.recipe),
    )
    assert (ended.steps, ended.stopped) == (5, stopping.INTERRUPTED)
    assert (whole.steps, whole.stopped) == (9, stopping.ALL_STEPS)
    assert np.abs(ended.pixels.astype(int) - phosphene.ascend(small, "class:cat", quick(5))[0].pixels).max() <= 1


def test_what_a_step_changes_holds_from_the_next_step_on_for_its_row_alone(small):
    changed = quick(8).override({"optimizer.rate": 0.01, "median.size": 3, "median.every": 1})

    def on_step(step):
        return changed if (step.place, step.step) == (0, 4) else step.recipe

    pair = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(8), callbacks=phosphene.Callbacks(step=on_step))
    alone = phosphene.ascend(small, ["class:cat", "relu2:3"], quick(8))
    assert pair[0].changes == [[4, "optimizer.rate", 0.01], [4, "median.size", 3], [4, "median.every", 1]]
    assert pair[0].recipe == quick(8).for_network(small.name)  # as it was at first
    assert pair[0].objectives[:5] == alone[0].objectives[:5]
    assert pair[0].objectives[5:] != alone[0].objectives[5:]
    assert pair[1].changes == []
    assert np.array_equal(pair[1].pixels, alone[1].pixels)


def test_fewer_steps_than_are_made_end_with_the_next(small):
    short = quick(3)
    (picture,) = phosphene.ascend(
        small,
        "class:cat",
        quick(12),
        callbacks=phosphene.Callbacks(step=lambda step: short if step.step == 6 else step.recipe),
    )
    assert (picture.steps, picture.stopped) == (7, stopping.ALL_STEPS)


@pytest.mark.parametrize("kind", ["fourier", "maco"])
def test_a_canvas_that_grows_may_be_given_another_contrast_on_the_way(small, kind):
    base = fourier(canvas__kind=kind, canvas__spectrum="free", growth__sizes=[0.5, 1.0], growth__at=[0.0, 0.5])
    pale = base.override({"canvas.contrast": 0.4})
    for at in (2, 7):  # at either size
        (picture,) = phosphene.ascend(
            small,
            "class:cat",
            base,
            callbacks=phosphene.Callbacks(step=lambda step, at=at: pale if step.step == at else step.recipe),
        )
        assert picture.changes == [[at, "canvas.contrast", 0.4]]
        assert picture.pixels.std() < 0.6 * phosphene.ascend(small, "class:cat", base)[0].pixels.std()


@pytest.mark.parametrize(
    "fields", [{"start.kind": "grey"}, {"optimizer.name": "adam"}, {"views.pad": 3.0}, {"size": 30}]
)
def test_what_is_settled_at_the_start_cannot_change_on_the_way(small, fields):
    other = quick().override(fields)
    with pytest.raises(InputError, match=f"cannot change on the way.*{next(iter(fields))}"):
        phosphene.ascend(small, "class:cat", quick(), callbacks=phosphene.Callbacks(step=lambda step: other))


def test_steps_are_watched_on_one_device_and_without_facets(small):
    for given in ({"options": phosphene.RunOptions(["cpu", "cpu"])}, {"facets": 2}):
        with pytest.raises(InputError, match=r"callbacks\.step"):
            phosphene.ascend(
                small, "class:cat", quick(), callbacks=phosphene.Callbacks(step=lambda step: step.recipe), **given
            )
