import math

import numpy as np
import pytest
import torch
from PIL import Image

from phosphene import InputError, Preprocessing, Recipe
from phosphene.ascent.canvas import (
    IMAGENET_COLOR_MATRIX,
    color_correlation,
    frequencies,
    from_rgb,
    make_canvas,
    summed_sizes,
    to_rgb,
)
from phosphene.photographs.image_statistics import bundled_image_statistics, measure_image_statistics
from phosphene.photographs.spectra import multiplicity

SIZES = [(16, 16), (15, 15), (16, 15), (9, 22), (31, 12)]


def canvas_of(size, kind="fourier", channels=3, **fields):
    recipe = Recipe.load("naive").override(
        {"canvas.kind": kind, **{name.replace("__", "."): fields[name] for name in fields}}
    )
    return make_canvas(recipe, Preprocessing(24, channels=channels), size)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(canvas, seed=0):
    """A canvas's first image, (channels, height, width)."""
    return canvas.to_images(canvas.initial_parameters(generator(seed), None)[None])[0]


def noise(shape, seed=0):
    return torch.randint(0, 256, shape, generator=generator(seed)).float()


def planes_of(image, colours):
    """What is before the colours and the sigmoid."""
    return from_rgb(image, color_correlation(colours, len(image))).double()


@pytest.fixture(scope="module")
def own_colours(tmp_path_factory):
    """A file of `phosphene statistics` of photographs that are red and blue."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(3):
        values = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        values[..., 1] = 90
        Image.fromarray(values).resize((80, 80)).save(folder / f"{index}.png")
    return measure_image_statistics(sorted(folder.iterdir()), 32).save(folder / "own.safetensors")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", ["imagenet", "photographs", "none"])
def test_a_fourier_canvas_starts_from_a_given_image(size, colours):
    given = noise((3, *size))
    canvas = canvas_of(size, canvas__colours=colours)
    made = canvas.to_images(canvas.initial_parameters(generator(), given)[None])[0]
    assert (made - given).abs().max() < 0.7  # black and white are out of the sigmoid's reach
    assert torch.equal(made.round()[(given > 0) & (given < 255)], given[(given > 0) & (given < 255)])


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["fourier", "maco", "sum", "pixels"])
@pytest.mark.parametrize("colours", ["imagenet", "photographs", "none"])
def test_canvases_of_any_channels(channels, kind, colours):
    canvas = canvas_of((15, 18), kind, channels, canvas__colours=colours)
    images = canvas.to_images(torch.stack([canvas.initial_parameters(generator(seed), None) for seed in (1, 1, 2)]))
    assert images.shape == (3, channels, 15, 18)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    if kind != "pixels":
        assert 0 <= images.min() < images.max() <= 255
    grown = canvas_of((20, 31), kind, channels, canvas__colours=colours)
    assert grown.to_images(
        grown.resample_parameters(canvas.initial_parameters(generator(), None), (15, 18))[None]
    ).shape == (1, channels, 20, 31)


@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
@pytest.mark.parametrize("sigma", [1.0, 10.0])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_the_first_image_deviates_by_sigma_about_grey(size, sigma, exponent):
    for colours in ("imagenet", "none"):
        fields = {"start__sigma": sigma, "canvas__exponent": exponent, "canvas__colours": colours}
        images = torch.stack([drawn(canvas_of(size, **fields), seed) for seed in range(3)])
        assert images.mean().item() == pytest.approx(127.5, abs=3 * sigma)
        assert images.std(dim=(1, 2, 3)).mean().item() == pytest.approx(sigma, rel=0.25)


def test_a_grey_start_is_grey():
    assert (drawn(canvas_of((20, 20), start__kind="grey")) == 127.5).all()


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_the_power_of_the_first_image_falls_with_the_frequency_as_the_exponent_says(exponent):
    size = (64, 64)
    canvas = canvas_of(size, canvas__exponent=exponent, canvas__colours="none", start__sigma=1.0)
    power = sum(torch.fft.rfft2(planes_of(drawn(canvas, seed), "none")).abs().square() for seed in range(4)).mean(0)
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None])
    bands = [(low, low * 1.5) for low in (0.03, 0.045, 0.07, 0.1, 0.15, 0.22, 0.33)]
    means = [power[(frequency >= low) & (frequency < high)].mean().log().item() for low, high in bands]
    centres = [frequency[(frequency >= low) & (frequency < high)].mean().log().item() for low, high in bands]
    slope = np.polyfit(centres, means, 1)[0]
    assert slope == pytest.approx(-2 * exponent, abs=0.15)


def test_a_step_moves_coarse_and_fine_by_the_exponent():
    """A coefficient of frequency f has an effect on the image that goes with 1/f."""
    canvas = canvas_of((32, 32), canvas__colours="none")
    effect = {}
    for frequency in (1, 2, 4, 8):
        parameters = torch.zeros(1, 3, 32, 17, 2)
        parameters[:, :, 0, frequency, 0] = 0.01
        effect[frequency] = (canvas.to_images(parameters) - 127.5).abs().max().item()
    np.testing.assert_allclose([effect[f] * f / effect[1] for f in effect], 1, rtol=1e-2)


@pytest.mark.parametrize(("old", "new"), [((15, 21), (30, 42)), ((9, 9), (27, 18)), ((16, 12), (32, 24))])
def test_a_grown_fourier_canvas_shows_the_same_between_more_pixels(old, new):
    small, large = canvas_of(old, canvas__colours="none"), canvas_of(new, canvas__colours="none")
    parameters = small.initial_parameters(generator(), None)
    if old[0] % 2 == 0:  # the highest frequency of an even length goes
        parameters[:, old[0] // 2] = 0
        parameters[:, :, old[1] // 2] = 0
    before = small.to_images(parameters[None])[0]
    after = large.to_images(large.resample_parameters(parameters, old)[None])[0]
    torch.testing.assert_close(after[:, :: new[0] // old[0], :: new[1] // old[1]], before, atol=0.01, rtol=0)
    assert after.std().item() == pytest.approx(before.std().item(), rel=0.1)


@pytest.mark.parametrize(("old", "new"), [((20, 20), (29, 29)), ((15, 26), (41, 30)), ((16, 16), (16, 16))])
def test_a_grown_fourier_canvas_keeps_the_low_frequencies_and_has_no_others(old, new):
    small, large = canvas_of(old), canvas_of(new)
    parameters = small.initial_parameters(generator(), None)
    grown = large.resample_parameters(parameters, old)
    spectra = [
        torch.fft.rfft2(planes_of(canvas.to_images(given[None])[0], "imagenet"), norm="forward")
        for canvas, given in ((small, parameters), (large, grown))
    ]
    rows, columns = (old[0] - 1) // 2, (old[1] - 1) // 2
    for part in (slice(0, rows + 1), slice(-rows, None)):
        torch.testing.assert_close(
            spectra[1][:, part, : columns + 1], spectra[0][:, part, : columns + 1], atol=1e-4, rtol=1e-3
        )
    if new != old:
        assert spectra[1][:, :, columns + 1 :].abs().max() < 1e-4
    else:
        torch.testing.assert_close(grown, parameters)


def test_grown_pixels_are_the_image_enlarged():
    canvas = canvas_of((30, 40), "pixels")
    ramp = torch.linspace(50, 200, 20).expand(3, 15, 20)
    grown = canvas.resample_parameters(ramp, (15, 20))
    assert grown.shape == (3, 30, 40)
    torch.testing.assert_close(grown[:, 15], torch.linspace(48, 202, 40).expand(3, 40), atol=5, rtol=0)
    assert (canvas.resample_parameters(torch.full((3, 15, 20), 77.0), (15, 20)) - 77).abs().max() < 1e-4


@pytest.mark.parametrize("colours", ["imagenet", "photographs", "none", "own"])
def test_the_colours_of_noise_are_those_asked_for(colours, own_colours):
    name = str(own_colours) if colours == "own" else colours
    mixed = color_correlation(name, 3)
    assert mixed.norm(dim=0).max().item() == pytest.approx(1, abs=0.02)
    recipe = {"canvas__colours": name, "start__sigma": 1.0, "canvas__exponent": 0.0}
    canvas = canvas_of((96, 96), **recipe)
    covariance = torch.cov(drawn(canvas).flatten(1))
    wanted = mixed @ mixed.T
    torch.testing.assert_close(covariance / covariance.trace(), wanted / wanted.trace(), atol=0.03, rtol=0)
    if colours == "own":
        assert wanted[1, 1] < 0.01 * wanted[0, 0]


def test_colours_of_other_numbers_of_channels():
    assert torch.equal(color_correlation("none", 3), torch.eye(3))
    for colours in ("imagenet", "photographs", "none"):
        assert torch.equal(color_correlation(colours, 2), torch.eye(2))
    assert torch.equal(color_correlation("imagenet", 3), IMAGENET_COLOR_MATRIX)


def test_colours_that_are_not_there_are_refused(own_colours, tmp_path):
    with pytest.raises(InputError, match=r"colours 'imagnet': expected imagenet.*did you mean imagenet"):
        canvas_of((8, 8), canvas__colours="imagnet")
    with pytest.raises(InputError, match=r"colours 'sepia': expected imagenet, photographs, none.*or a file that"):
        canvas_of((8, 8), "maco", canvas__colours="sepia")
    with pytest.raises(InputError, match="there is no such file"):
        canvas_of((8, 8), canvas__colours=str(tmp_path / "gone.safetensors"))
    with pytest.raises(InputError, match="has 3 channels: the network takes 1"):
        canvas_of((8, 8), channels=1, canvas__colours=str(own_colours))


@pytest.mark.parametrize("kind", ["fourier", "maco", "sum"])
def test_contrast_is_a_cap(kind):
    fields = {"canvas__contrast": 0.5, "canvas__colours": "none"}
    canvas, free = canvas_of((24, 30), kind, **fields), canvas_of((24, 30), kind, canvas__colours="none")
    parameters = canvas.initial_parameters(generator(), None)[None]

    def deviation(made):
        return torch.logit(made.double() / 255).square().mean(dim=(2, 3)).sum(dim=1).sqrt().item()

    if kind == "maco":
        assert deviation(free.to_images(parameters)) > 1
        assert deviation(canvas.to_images(parameters)) == pytest.approx(0.5, rel=1e-3)
    else:
        assert deviation(canvas.to_images(1e3 * parameters)) == pytest.approx(0.5, rel=1e-3)
        torch.testing.assert_close(canvas.to_images(parameters), free.to_images(parameters))  # far below it


@pytest.mark.parametrize("size", [*SIZES, (40, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_held_spectrum_has_no_more_than_photographs_share_in_any_octave(size, channels):
    fields = {"canvas__contrast": 0.8, "canvas__colours": "none"}
    held = canvas_of(size, channels=channels, canvas__spectrum="held", **fields)
    free = canvas_of(size, channels=channels, **fields)
    parameters = held.initial_parameters(generator(), None)[None]
    torch.testing.assert_close(
        held.to_images(parameters), free.to_images(parameters), atol=1e-3, rtol=0
    )  # far below it
    counts = multiplicity(size[1]) / (size[0] * size[1])
    share = bundled_image_statistics().magnitude_for(*size)[0].square() * counts
    octave = (frequencies(size) * max(size)).log2().floor()
    high = torch.where(frequencies(size) > 0.25, 1e3, 1.0)[..., None]  # as noise
    rough = torch.cat([1e3 * parameters, high * parameters])
    rough[:, :, 0, 0] = 0  # the mean is held by itself
    planes = torch.logit(held.to_images(rough).double() / 255)
    found = torch.fft.rfft2(planes, norm="ortho").abs().square().sum(1) * counts
    found[:, 0, 0] = 0
    for each in octave.unique():
        # A band reaches over two octaves at most.
        near = (octave - each).abs() <= 1
        assert (found[:, octave == each].sum(1) <= 0.8**2 * share[near].sum() / share.sum() * 1.01).all()
    assert (found.sum((1, 2)) <= 0.8**2 * 1.01).all()
    assert found[0].sum() > 0.2 * 0.8**2  # and it is used


def test_a_held_spectrum_holds_the_brightness_too():
    """No image is brighter or darker than a photograph's share of the contrast, however far its mean is driven."""
    canvas = canvas_of((32, 32), canvas__contrast=3.0, canvas__spectrum="held", canvas__colours="none")
    parameters = canvas.initial_parameters(generator(), None)[None].repeat(2, 1, 1, 1, 1)
    parameters[0, :, 0, 0] = torch.tensor([1e4, 0.0])
    parameters[1, :, 0, 0] = torch.tensor([-1e-3, 0.0])
    means = torch.logit(canvas.to_images(parameters).double() / 255).mean((2, 3)).square().sum(1)
    assert means[0] == pytest.approx(0.22 * 3.0**2, rel=0.02)
    assert means[1] < 0.01  # below it the mean is as it is


def test_a_held_spectrum_is_of_each_row_alone():
    canvas = canvas_of((16, 18), canvas__contrast=0.8, canvas__spectrum="held")
    parameters = torch.stack([scale * canvas.initial_parameters(generator(), None) for scale in (1.0, 1e3)])
    parameters.requires_grad_()
    together = canvas.to_images(parameters)
    for row in range(2):
        torch.testing.assert_close(canvas.to_images(parameters[row : row + 1])[0], together[row])
    (gradient,) = torch.autograd.grad(together.square().mean(), parameters)
    assert gradient.isfinite().all()


def test_contrast_is_of_each_row_alone():
    planes = torch.randn(2, 3, 8, 8, generator=generator()) * torch.tensor([0.01, 5.0]).view(2, 1, 1, 1)
    together = to_rgb(planes, torch.eye(3), 0.5)
    for row in range(2):
        torch.testing.assert_close(to_rgb(planes[row : row + 1], torch.eye(3), 0.5)[0], together[row])


@pytest.mark.parametrize("size", [*SIZES, (40, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_magnitudes_of_maco_stay_whatever_the_phases(size, channels):
    canvas = canvas_of(size, "maco", channels, canvas__colours="none")
    wanted = bundled_image_statistics().magnitude_for(*size)[:channels]
    for scale in (1.0, 7.0):
        phases = scale * canvas.initial_parameters(generator(3), None)
        planes = torch.logit(canvas.to_images(phases[None])[0].double() / 255)
        assert planes.std().item() == pytest.approx(1, rel=0.02)
        found = torch.fft.rfft2(planes, norm="ortho").abs()
        # The first column and, of an even width, the last one stand for both directions, so their halves mix.
        inner = slice(1, (size[1] + 1) // 2)
        ratio = found[:, :, inner] / wanted[:, :, inner]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), atol=0, rtol=1e-3)


def test_maco_starts_from_the_phases_of_a_given_image():
    ramp = torch.linspace(20, 230, 32).expand(3, 32, 32).clone()
    ramp[:, 10:20, 5:25] = 30.0
    canvas = canvas_of((32, 32), "maco")
    made = canvas.to_images(canvas.initial_parameters(generator(), ramp)[None])[0]
    assert np.corrcoef(made.mean(0).flatten(), ramp.mean(0).flatten())[0, 1] > 0.4
    assert not torch.equal(made, drawn(canvas))


def test_a_grown_maco_canvas_keeps_the_low_phases():
    small, large = canvas_of((15, 15), "maco"), canvas_of((30, 30), "maco")
    phases = small.initial_parameters(generator(), None)
    grown = large.resample_parameters(phases, (15, 15))
    assert grown.shape == large.initial_parameters(generator(), None).shape
    turns = torch.polar(torch.ones_like(phases), phases - grown[:, [*range(8), *range(-7, 0)], :8])
    assert turns.angle().abs().max() < 1e-4
    assert torch.equal(grown, large.resample_parameters(phases, (15, 15)))  # what is new is drawn alike each time


@pytest.mark.parametrize("kind", ["fourier", "maco", "sum"])
def test_images_are_differentiable_and_rows_apart(kind):
    canvas = canvas_of((9, 10), kind)
    parameters = torch.stack([canvas.initial_parameters(generator(seed), None) for seed in (1, 2)]).requires_grad_()
    (gradient,) = torch.autograd.grad(canvas.to_images(parameters)[0, :, 3, 4].sum(), parameters)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0
    # Along the gradient the pixel rises as it says.
    step = 1e-3 / gradient[0].norm().item()
    before, after = (
        canvas.to_images(p[:1])[0, :, 3, 4].sum().item() for p in (parameters, parameters + step * gradient)
    )
    assert after - before == pytest.approx(step * gradient[0].square().sum().item(), rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["fourier", "maco", "sum"])
def test_images_of_a_row_or_a_column(size, kind):
    canvas = canvas_of(size, kind, start__sigma=1.0)
    assert canvas.to_images(canvas.initial_parameters(generator(), None)[None]).isfinite().all()
    large = canvas_of((8, 9), kind)
    assert (
        large.to_images(large.resample_parameters(canvas.initial_parameters(generator(), None), size)[None])
        .isfinite()
        .all()
    )


def test_the_logits_of_an_image_are_within_reach():
    image = torch.tensor([0.0, 127.5, 255.0]).view(3, 1, 1)
    planes = from_rgb(image, torch.eye(3))
    assert math.isclose(planes[0].item(), -6, rel_tol=1e-5)
    assert planes[1] == 0
    torch.testing.assert_close(to_rgb(planes[None], torch.eye(3), 0.0)[0], image, atol=0.7, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_summed_canvas_starts_from_a_given_image_and_grows_with_it(size):
    given = noise((3, *size)).clamp(1, 254)
    canvas = canvas_of(size, "sum")
    parameters = canvas.initial_parameters(generator(), given)
    assert torch.equal(canvas.to_images(parameters[None])[0].round(), given)
    large = canvas_of((2 * size[0], 2 * size[1]), "sum")
    grown = large.to_images(large.resample_parameters(parameters, size)[None])[0]
    back = torch.nn.functional.avg_pool2d(grown, 2)
    assert np.corrcoef(back.flatten(), given.flatten())[0, 1] > 0.8


def test_the_planes_of_a_summed_canvas_are_halved_down_to_one_pixel():
    assert summed_sizes((9, 4)) == [(9, 4), (5, 2), (3, 1), (2, 1), (1, 1)]
    assert summed_sizes((1, 1)) == [(1, 1)]


def test_the_one_pixel_of_a_summed_canvas_moves_all_and_the_finest_moves_one():
    canvas = canvas_of((8, 8), "sum", canvas__colours="none", start__kind="grey")
    parameters = canvas.initial_parameters(generator(), None)[None]
    coarse, fine = parameters.clone(), parameters.clone()
    coarse[..., -1] = 0.1
    fine[..., 0] = 0.1
    assert (canvas.to_images(coarse) > 127.5).all()
    assert (canvas.to_images(fine) > 127.5).sum() == 3  # of three colors one pixel
