import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene.pixels.resampling import resize
from phosphene.recipes import transforms
from phosphene.recipes.transforms import Transforms, affine_maps, apply_transforms

GREY = 127.5
ALL = {
    "count": 2, "crop": (0.3, 0.9), "scale": (0.8, 1.3), "rotate": 30.0, "jitter": 5.0, "flip": True, "pad": 3.0,
    "noise": 4.0, "colour": 0.2,
}  # fmt: skip


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(settings, generator, size):
    return affine_maps([settings], [generator], size)[0]


def noise(rows=2, channels=3, size=(20, 24)):
    return torch.randint(0, 256, (rows, channels, *size), generator=torch.Generator().manual_seed(9)).float()


def smooth(rows=1, size=(40, 60)):
    """Images whose values change by less than 5 a pixel."""
    down, across = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    image = GREY + 40 * torch.sin(down / 12) + 40 * torch.cos(across / 15)
    return image.expand(rows, 3, *size).clone()


@pytest.fixture
def in_the_middle(monkeypatch):
    """All that is drawn uniformly is in the middle of its range, so without shift, turn and mirror."""
    monkeypatch.setattr(torch, "rand", lambda shape, generator=None: torch.full(shape, 0.5))


def test_a_view_without_any_setting_is_the_image_itself():
    images = noise()
    assert torch.equal(Transforms()(images, generators(1, 2)), images)
    assert torch.equal(Transforms()(images), images)
    assert torch.equal(Transforms(count=3)(images, generators(1, 2)), images.repeat(3, 1, 1, 1))


def test_the_affine_map_without_any_setting_is_the_identity():
    theta = draw(Transforms(flip=True), *generators(0), (20, 24))
    torch.testing.assert_close(theta[0].abs(), torch.eye(2, 3))
    seen = Transforms(flip=True, count=8)(noise(1), generators(0))
    apart = torch.stack([(seen - other).abs().amax(dim=(1, 2, 3)) for other in (noise(1), noise(1).flip(-1))])
    assert apart.amin(dim=0).max() < 1e-2  # each is the image or its mirror image


@pytest.mark.parametrize(
    "fields",
    [
        ALL,
        {**ALL, "pad": 0.0},
        {"noise": 5.0, "colour": 0.1},
        {"noise": 3.0, "count": 3},
        {"noise": (1.0, 9.0), "count": 2},
    ],
)
def test_a_rows_views_depend_on_its_own_generator_only(fields):
    settings, images = Transforms(**fields), noise(4)
    together = settings(images, generators(1, 2, 3, 4)).unflatten(0, (settings.count, 4))
    for row in range(4):
        alone = settings(images[row : row + 1], generators(row + 1))
        torch.testing.assert_close(together[:, row], alone, atol=1e-3, rtol=0)
    again = settings(images, generators(1, 2, 3, 4)).unflatten(0, (settings.count, 4))
    assert torch.equal(together, again)
    other = settings(images, generators(5, 2, 3, 4)).unflatten(0, (settings.count, 4))
    assert not torch.equal(together[:, 0], other[:, 0])
    assert torch.equal(together[:, 1:], other[:, 1:])


def test_the_next_step_draws_other_views():
    own = generators(1)
    first, second = (Transforms(**ALL)(noise(1), own) for _ in range(2))
    assert not torch.allclose(first, second, atol=1)


def test_all_rows_first_views_come_first_and_views_are_drawn_apart():
    images, settings = noise(3), Transforms(count=4, crop=(0.3, 0.8))
    seen = settings(images, generators(1, 2, 3)).unflatten(0, (4, 3))
    flat = settings(images * 0 + torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1, 1), generators(1, 2, 3))
    torch.testing.assert_close(flat.mean(dim=(1, 2, 3)), torch.tensor([10.0, 20.0, 30.0]).repeat(4))
    for row in range(3):
        for first in range(4):
            for second in range(first):
                assert (seen[first, row] - seen[second, row]).abs().max() > 1


def test_flip_only_mirrors_about_every_other_time():
    image = smooth()
    image[..., 30:] += 20
    seen = Transforms(flip=True, count=64)(image, generators(3))
    mirrored = (seen - image.flip(-1)).abs().amax(dim=(1, 2, 3)) < 0.05
    plain = (seen - image).abs().amax(dim=(1, 2, 3)) < 0.05
    assert (mirrored ^ plain).all()
    assert 16 <= mirrored.sum() <= 48


@pytest.mark.parametrize("fields", [{"rotate": 90.0}, {"rotate": 180.0, "crop": 0.5}, {"jitter": 50.0}, {"scale": 0.3}])
def test_moved_images_stay_in_range(fields):
    images = noise(3)
    seen = Transforms(count=5, **fields)(images, generators(1, 2, 3))
    assert seen.isfinite().all()
    assert seen.min() >= -1e-3
    assert seen.max() <= 255 + 1e-3


def test_turns_are_of_so_many_degrees_at_most_and_by_pixels():
    theta = draw(Transforms(rotate=30.0, count=200), *generators(0), (20, 60))
    stretch = torch.tensor([[1, 3.0], [1 / 3, 1]])  # height over width
    turned = theta[:, :, :2] * stretch
    angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]).rad2deg()
    assert 25 < angle.abs().max() <= 30
    assert angle.min() < -20
    torch.testing.assert_close(turned @ turned.mT, torch.eye(2).expand(200, 2, 2), atol=1e-5, rtol=0)


def test_a_quarter_turn_is_one(monkeypatch):
    uniform = torch.full((8, 1), 0.5)
    uniform[1] = 1.0  # the angle
    monkeypatch.setattr(torch, "rand", lambda shape, generator=None: uniform)
    images = noise(1, size=(16, 16))
    seen = Transforms(rotate=90.0)(images, generators(0))
    assert min((seen - torch.rot90(images, k, (2, 3))).abs().max() for k in (1, 3)) < 0.1


@pytest.mark.parametrize(("down", "across"), [(3, 0), (0, -4), (-2, 5)])
def test_jitter_by_whole_pixels_shifts(monkeypatch, down, across):
    places = torch.full((8, 1), 0.5)
    places[6], places[7] = 0.5 + across / 20, 0.5 + down / 20
    monkeypatch.setattr(torch, "rand", lambda shape, generator=None: places)
    images = noise()
    seen = Transforms(jitter=10.0)(images, generators(1, 2))
    shifted = images.roll((-down, -across), (2, 3))
    rows = slice(max(0, -down), 20 - max(0, down))
    columns = slice(max(0, -across), 24 - max(0, across))
    torch.testing.assert_close(seen[..., rows, columns], shifted[..., rows, columns], atol=0.01, rtol=0)


def test_jitter_is_by_so_many_pixels_at_most():
    theta = draw(Transforms(jitter=7.0, count=400), *generators(0), (20, 60))
    shifts = theta[:, :, 2] * torch.tensor([30.0, 10.0])  # in pixels, across and down
    assert shifts.abs().amax(dim=0).min() > 6.5
    assert shifts.abs().max() <= 7.001


def test_the_middle_crop_is_that_part_of_the_image(in_the_middle):
    images = noise(2, size=(32, 40))
    middle = images[..., 8:24, 10:30]
    seen = Transforms(crop=0.25)(images, generators(1, 2), (16, 20))
    torch.testing.assert_close(seen, middle, atol=0.01, rtol=0)
    larger = Transforms(crop=0.25)(images, generators(1, 2))
    wanted = F.interpolate(middle, size=(32, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(larger[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=0.01, rtol=0)


def test_enlargement_is_about_the_middle(in_the_middle):
    images = noise(1, size=(32, 40))
    torch.testing.assert_close(
        Transforms(scale=2.0)(images, generators(1)),
        Transforms(crop=0.25)(images, generators(1)),
        atol=0.01,
        rtol=0,
    )


@pytest.mark.parametrize("crop", [(0.2, 0.6), (0.5, 0.5)])
def test_crops_lie_in_the_image_and_are_of_the_areas_asked_for(crop):
    theta = draw(Transforms(crop=crop, count=300), *generators(0), (20, 60))
    area = theta[:, 0, 0] * theta[:, 1, 1]
    assert area.min() >= crop[0] - 1e-5
    assert area.max() <= crop[1] + 1e-5
    assert area.max() - area.min() >= 0.9 * (crop[1] - crop[0]) - 1e-5
    reach = theta[:, :, 2].abs() + torch.stack([theta[:, 0, 0], theta[:, 1, 1]], dim=1)
    assert reach.max() <= 1 + 1e-5
    assert theta[:, :, 2].abs().max() > 0.2


def test_the_border_is_grey_and_the_image_is_whole_within_it(in_the_middle):
    images = noise(1, size=(24, 24))
    seen = Transforms(pad=4.0)(images, generators(1), (32, 32))  # a pixel stays a pixel
    torch.testing.assert_close(seen[..., 4:28, 4:28], images, atol=0.01, rtol=0)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[4:28, 4:28] = False
    assert (seen[..., border] - GREY).abs().max() < 0.01
    own = Transforms(pad=8.0)(images, generators(1))
    assert own.shape == images.shape
    assert (own[..., :3, :] - GREY).abs().max() < 0.01


@pytest.mark.parametrize("fields", [{}, ALL, {"noise": 3.0}, {"crop": 0.5}])
@pytest.mark.parametrize("size", [(10, 12), (33, 20)])
def test_views_are_of_the_size_asked_for(fields, size):
    settings = Transforms(**fields)
    assert settings(noise(2), generators(1, 2), size).shape == (2 * settings.count, 3, *size)
    if not fields:
        torch.testing.assert_close(settings(noise(2), generators(1, 2), size), resize(noise(2), size))


def test_smooth_images_look_alike_at_every_size():
    image = smooth()
    for size in ((20, 30), (80, 120), (17, 41)):
        back = resize(Transforms()(image, generators(1), size), (40, 60))
        assert (back - image).abs()[..., 2:-2, 2:-2].max() < 6
    assert resize(image, (40, 60)) is image


@pytest.mark.parametrize("fields", [ALL, {"colour": 0.3, "noise": 3.0}, {}])
def test_views_are_differentiable_and_rows_apart(fields):
    images = noise(2).requires_grad_()
    settings = Transforms(**fields)
    seen = settings(images, generators(1, 2)).unflatten(0, (settings.count, 2))
    (gradient,) = torch.autograd.grad(seen[:, 0].sum(), images)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_noise_and_colour_are_of_the_size_asked_for():
    grey = torch.full((1, 3, 50, 50), 100.0)
    seen = Transforms(noise=8.0, count=4)(grey, generators(1))
    assert seen.std(dim=(1, 2, 3)).mean().item() == pytest.approx(8, rel=0.05)
    assert (seen[0] - seen[1]).std() > 5
    bright = Transforms(colour=0.2, count=300)(grey, generators(1)).mean(dim=(2, 3))
    low, high = GREY * 0.8 - 27.5 * 1.2, GREY * 1.2 - 27.5 * 0.8
    assert low <= bright.min() < 100 - 20
    assert 100 + 20 < bright.max() <= high
    assert bright.std(dim=1).min() > 0.1  # each channel by itself
    assert (seen.mean() - 100).abs() < 1


def test_a_range_of_noise_gives_every_view_a_deviation_of_its_own():
    grey = torch.full((2, 3, 50, 50), 100.0)
    deviations = Transforms(noise=(4.0, 12.0), count=200)(grey, generators(1, 2)).std(dim=(1, 2, 3))
    assert 3.8 < deviations.min() < 4.4
    assert 11.6 < deviations.max() < 12.3
    assert deviations.mean().item() == pytest.approx(8, rel=0.05)
    rows = deviations.view(200, 2)
    assert (rows[:, 0] - rows[:, 1]).abs().median() > 1


def test_rows_without_noise_or_colours_are_as_they_are_alone():
    loud, calm = Transforms(crop=0.5, noise=(2.0, 9.0), colour=0.3), Transforms(crop=0.5)
    images, own = noise(3), generators(1, 2, 3)
    together = apply_transforms(images, [loud, calm, loud], own)
    torch.testing.assert_close(together[1:2], calm(images[1:2], generators(2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(together[2:], loud(images[2:], generators(3)), atol=1e-3, rtol=0)
    alone = generators(2)
    calm(images[1:2], alone)
    assert torch.equal(own[1].get_state(), alone[0].get_state())


def test_nothing_is_drawn_where_nothing_is_moved():
    own = generators(1)
    before = own[0].get_state()
    Transforms(count=2)(noise(1), own)
    assert torch.equal(own[0].get_state(), before)


def test_turning_a_smooth_image_there_and_back_leaves_its_middle():
    image, settings = smooth(), Transforms(rotate=20.0)
    theta = draw(settings, *generators(5), (40, 60))
    back = torch.cat([torch.linalg.inv(theta[:, :, :2]), theta[:, :, 2:]], dim=2)
    turned = settings(image, generators(5))
    grid = F.affine_grid(back, [1, 3, 40, 60], align_corners=False)
    there = F.grid_sample(turned, grid, align_corners=False)
    assert (there - image).abs()[..., 12:28, 18:42].max() < 1
    assert not math.isclose(theta[0, 0, 1].item(), 0, abs_tol=1e-3)


class Counted(TorchDispatchMode):
    """Counts the operations that are dispatched: on a GPU each would be launched by itself."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_further_row_adds_few_operations():
    def operations(rows):
        images, own = noise(rows), generators(*range(rows))
        with Counted() as counted:
            Transforms(**{**ALL, "count": 1})(images, own)
        return counted.count

    assert (operations(30) - operations(10)) / 20 < 15


def test_noise_of_another_device_is_set_by_the_rows_generator(monkeypatch):
    monkeypatch.setattr(transforms, "noise_generator", lambda device, generator: on_another(generator))
    on_another = partial(transforms.seeded_generator, torch.device("cpu"))
    grey, settings = torch.full((3, 3, 50, 50), 100.0), Transforms(noise=8.0)
    seen = settings(grey, generators(1, 2, 3))
    assert seen.std(dim=(1, 2, 3)).tolist() == pytest.approx([8] * 3, rel=0.05)
    assert torch.equal(settings(grey[:1], generators(2)), seen[1:2])
    own = generators(2)
    first, second = (settings(grey[:1], own) for _ in range(2))
    assert torch.equal(first, seen[1:2])
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_rows_views_depend_on_its_own_generator_only():
    settings, images = Transforms(**ALL), noise(4).cuda()
    together = settings(images, generators(1, 2, 3, 4)).unflatten(0, (settings.count, 4))
    alone = settings(images[2:3], generators(3))
    torch.testing.assert_close(together[:, 2], alone, atol=1e-2, rtol=0)


# Shifted around the edges, and of other colors


def test_what_is_rolled_out_on_one_side_comes_in_opposite():
    image = noise(1)
    views = Transforms(count=16, roll=3)(image, generators(0))
    places = [(down, across) for down in range(-3, 4) for across in range(-3, 4)]
    found = [[place for place in places if torch.equal(view, image[0].roll(place, (-2, -1)))] for view in views]
    assert all(len(each) == 1 for each in found)
    assert len({each[0] for each in found}) > 8


def test_a_roll_is_of_each_row_and_does_not_touch_rows_without():
    images = noise()
    alone = apply_transforms(images[:1], [Transforms(count=2, roll=4)], generators(5))
    both = apply_transforms(images, [Transforms(count=2, roll=4), Transforms(count=2)], generators(5, 6))
    assert torch.equal(both[[0, 2]], alone)
    assert torch.equal(both[[1, 3]], images[[1, 1]])


def test_colors_are_shifted_and_then_multiplied_channel_by_channel():
    image = noise(1)
    views = Transforms(count=32, color_shift=20.0, color_gain=0.5)(image, generators(1))
    low, high = image.amin((2, 3)), image.amax((2, 3))
    gain = (views.amax((2, 3)) - views.amin((2, 3))) / (high - low)
    shift = views.amin((2, 3)) / gain - low
    assert gain.log().abs().max() <= 0.5 + 1e-4
    assert gain.log().std() == pytest.approx(0.5 / 3**0.5, rel=0.2)
    assert shift.abs().max() <= 20 + 1e-2
    torch.testing.assert_close(views, (image + shift[:, :, None, None]) * gain[:, :, None, None], atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_fading_shift_falls_in_a_line_to_nothing(progress):
    settings = Transforms(count=256, color_fade=40.0)
    views = apply_transforms(torch.zeros(1, 3, 2, 2), [settings], generators(2), progress=[progress])
    assert views.std(dim=0).mean() == pytest.approx(40 * (1 - progress), rel=0.1, abs=1e-6)
    assert torch.equal(views, views[:, :, :1, :1].expand_as(views))
