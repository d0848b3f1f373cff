import pytest
import torch

import phosphene
from phosphene import InputError, Recipe
from phosphene.cli.program import main
from phosphene.provenance.reading import read_provenance
from phosphene.recipes.recipe import REGULARIZERS

MEAN = torch.tensor([120.0, 110.0, 100.0]).view(-1, 1, 1)


def regularized(name, images, gradient=None, **fields):
    recipe = Recipe.load("naive").override({f"{name}.every": 1, **{f"{name}.{key}": fields[key] for key in fields}})
    ((found, regularizer),) = recipe.regularizers
    assert (found, regularizer.every) == (name, 1)
    return regularizer(images, MEAN, torch.zeros_like(images) if gradient is None else gradient)


def noise(sigma=60.0, rows=2):
    return MEAN + sigma * torch.randn(rows, 3, 20, 23, generator=torch.Generator().manual_seed(2))


def test_clip_leaves_valid_values_and_bounds_the_rest():
    images = noise(200)
    clipped = regularized("clip", images)
    valid = (images >= 0) & (images <= 255)
    assert torch.equal(clipped[valid], images[valid])
    assert clipped.min() == 0
    assert clipped.max() == 255


def test_decay_shrinks_the_difference_from_the_mean_image():
    images = noise()
    torch.testing.assert_close(regularized("decay", images, strength=0.3) - MEAN, 0.7 * (images - MEAN))


def test_small_norm_cuts_the_given_share_of_pixels_of_each_row_and_the_smallest():
    images = noise()
    images[1] = MEAN + 0.01 * (images[1] - MEAN)  # a faint row is cut by its own measure
    cut = regularized("small_norm", images, percentile=30)
    norms = (images - MEAN).norm(dim=1)
    for row in range(2):
        gone = (cut[row] == MEAN).all(dim=0)
        assert abs(gone.float().mean().item() - 0.3) < 0.01
        assert norms[row][gone].max() < norms[row][~gone].min()
        assert torch.equal(cut[row][:, ~gone], images[row][:, ~gone])


def test_small_contribution_keeps_the_pixels_that_the_objective_depends_on():
    images = noise(rows=1)
    gradient = torch.zeros_like(images)
    gradient[..., :4, :] = 1.0
    cut = regularized("small_contribution", images, gradient, percentile=75)
    contribution = (gradient * (MEAN - images)).sum(dim=1).abs()
    kept = ~(cut == MEAN).all(dim=1)
    assert contribution[kept].min() >= contribution[~kept].max()
    assert kept[:, :4].sum() > 0.5 * kept.sum()


def test_total_variation_falls_and_flat_places_rest():
    def variation(images):
        return (images.diff(dim=-1).abs().sum() + images.diff(dim=-2).abs().sum()).item()

    images = noise()
    for strength in (0.5, 5.0, 255.0):
        assert variation(regularized("total_variation", images, strength=strength)) < variation(images)
    flat = MEAN.expand(1, 3, 9, 9).clone()
    assert torch.equal(regularized("total_variation", flat), flat)
    torch.testing.assert_close(regularized("total_variation", images).mean(), images.mean())  # it only moves values


@pytest.mark.parametrize("name", REGULARIZERS)
def test_rows_do_not_touch_each_other(name):
    images, gradient = noise(rows=3), torch.randn(3, 3, 20, 23)
    together = regularized(name, images, gradient)
    alone = torch.cat([regularized(name, images[i : i + 1], gradient[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)


def test_the_order_is_the_recipes():
    recipe = Recipe.load("tence")
    assert [name for name, _ in recipe.regularizers] == ["clip", "median"]
    turned = recipe.override({"order": [*reversed(REGULARIZERS)]})
    assert [name for name, _ in turned.regularizers] == ["median", "clip"]


def test_functions_of_the_callers_own_change_each_image_by_itself_after_the_others(small, tmp_path, capsys):
    seen = []

    def fade(images, mean, gradient):
        seen.append((tuple(images.shape), bool((images >= 0).all() and (images <= 255).all())))
        images -= images.mean() - mean  # in place, and over all that there is: of the row alone
        return images

    plain = Recipe.load("clip").override({"steps": 4, "optimizer.rate": 5.0, "optimizer.gradient": "rms"})
    recipe = plain.override({"keep.rule": "last"}).with_regularizers(fade)
    together = phosphene.ascend(small, ["class:cat", "class:dog"], recipe)
    height, width = small.preprocessing.size
    assert seen == [((1, 3, height, width), True)] * 8
    for unit, picture in zip(("class:cat", "class:dog"), together, strict=True):
        (alone,) = phosphene.ascend(small, unit, recipe)
        assert (alone.pixels == picture.pixels).all()
    path = together[0].save(tmp_path)
    name = (
        "test_regularizers.test_functions_of_the_callers_own_change_each_image_by_itself_after_the_others.<locals>.fade"
    )
    assert read_provenance(path)["recipe"]["functions"] == [name]
    with pytest.raises(
        InputError, match=r"image '.*\.png': recipe: functions: .*fade is a function in Python, which no"
    ):
        phosphene.again(path, small)
    assert main(["show", str(path)]) == 0
    assert f"functions {name}: the image cannot be made again" in capsys.readouterr().out


@pytest.mark.parametrize("result", [None, 3.0, torch.zeros(1), torch.zeros(3, 3, 20, 23)])
def test_a_function_that_returns_no_images_is_refused(result):
    ((_, regularizer),) = Recipe.load("naive").with_regularizers(lambda images, mean, gradient: result).regularizers
    with pytest.raises(InputError, match=r"<lambda> returned .*: expected images of shape \[1, 3, 20, 23\]"):
        regularizer(noise(), MEAN, noise())
