"""Filters, transforms and grids of images of any size and number: what they do is what a plain reference does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from phosphene.draw import grid
from phosphene.pixels import filters
from phosphene.pixels.resampling import resize
from phosphene.recipes.transforms import Transforms

SIDE = st.integers(1, 24)
SHAPE = st.tuples(st.integers(1, 2), st.integers(1, 4), SIDE, SIDE)
SEED = st.integers(0, 99)


def images_of(shape, seed):
    """(rows, channels, height, width) in 0..255."""
    return 255 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def generators(count, seed):
    return [torch.Generator().manual_seed(seed + row) for row in range(count)]


def windows(planes, size):
    """Each pixel's square, mirrored at the edges: (…, height, width, size, size)."""
    margin = size // 2
    padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(margin, margin)] * 2, mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(-2, -1))


@pytest.mark.slow
@given(SHAPE, SEED, st.sampled_from(filters.MEDIAN_SIZES), st.sampled_from([torch.float32, torch.float64]))
def test_the_median_is_numpys(shape, seed, size, dtype):
    images = images_of(shape, seed).to(dtype)
    expected = np.median(windows(images.numpy(), size), axis=(-2, -1))
    assert np.array_equal(filters.median(images, size).numpy(), expected)


@given(SHAPE, SEED, st.floats(0.2, 3))
def test_the_blur_is_a_weighted_mean_of_each_square(shape, seed, sigma):
    images = images_of(shape, seed)
    radius = max(1, int(4 * sigma + 0.5))
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = np.outer(bell, bell) / bell.sum() ** 2
    expected = (windows(images.numpy().astype(float), 2 * radius + 1) * weights).sum(axis=(-2, -1))
    np.testing.assert_allclose(filters.gaussian_blur(images, sigma).numpy(), expected, atol=1e-3)


MOVING = st.builds(
    Transforms,
    count=st.integers(1, 3),
    crop=st.sampled_from([(0.3, 0.9), (0.5, 0.5), (1, 1)]),
    scale=st.sampled_from([(0.8, 1.2), (1, 1)]),
    rotate=st.floats(0, 180),
    jitter=st.floats(0, 8),
    flip=st.booleans(),
    pad=st.floats(0, 6),
)


@given(MOVING, SHAPE, SEED, st.tuples(SIDE, SIDE))
def test_moved_images_stay_in_range_and_have_the_size_asked_for(transforms, shape, seed, size):
    images = images_of(shape, seed)
    seen = transforms(images, generators(shape[0], seed), size)
    assert seen.shape == (transforms.count * shape[0], shape[1], *size)
    assert seen.min() >= min(images.min(), 127.5) - 1e-2  # the border is gray
    assert seen.max() <= max(images.max(), 127.5) + 1e-2


@given(MOVING, SHAPE, SEED, st.tuples(SIDE, SIDE))
def test_gray_stays_gray_wherever_it_is_moved(transforms, shape, seed, size):
    gray = torch.full(shape, 127.5)
    seen = transforms(gray, generators(shape[0], seed), size)
    torch.testing.assert_close(seen, torch.full_like(seen, 127.5))


@given(MOVING, SHAPE, SEED)
def test_a_row_is_moved_by_its_own_generator(transforms, shape, seed):
    images = images_of(shape, seed)
    together = transforms(images, generators(shape[0], seed))
    last = shape[0] - 1
    alone = transforms(images[last:], generators(shape[0], seed)[last:])
    torch.testing.assert_close(together[last :: shape[0]], alone, rtol=1e-4, atol=1e-2)


@given(SHAPE, st.floats(0, 255), st.tuples(SIDE, SIDE))
def test_an_image_of_one_color_is_so_at_every_size(shape, value, size):
    resized = resize(torch.full(shape, value), size)
    assert resized.shape == (*shape[:2], *size)
    torch.testing.assert_close(resized, torch.full_like(resized, value))


PICTURES = st.lists(
    st.builds(
        lambda size, seed: Image.fromarray(np.random.default_rng(seed).integers(0, 200, (*size, 3), dtype=np.uint8)),
        st.tuples(st.integers(1, 30), st.integers(1, 30)),
        SEED,
    ),
    min_size=1,
    max_size=40,
)


@given(PICTURES, st.none() | st.integers(1, 50), st.booleans())
def test_every_image_is_whole_in_a_grid_of_any_number(images, columns, captioned):
    paper = grid.tile(images, ["a caption" if captioned else ""] * len(images), columns)
    left = list(images)
    down, across = max(image.height for image in images), max(image.width for image in images)
    pixels = np.asarray(paper)
    tops = [top for top in range(grid.MARGIN, paper.height - down) if not (pixels[top, grid.MARGIN] == 255).all()]
    for top in tops:
        for start in range(grid.MARGIN, paper.width - across, across + grid.MARGIN):
            image = left[0] if left else None
            if image is not None and np.array_equal(
                pixels[top : top + image.height, start : start + image.width], np.asarray(image)
            ):
                left.pop(0)
    assert not left


@given(PICTURES)
def test_the_posts_grid_is_square_and_every_image_is_whole_in_it(images):
    pixels = np.asarray(grid.post_grid(images))
    side = int(np.ceil(np.sqrt(len(images))))
    down, across = max(image.height for image in images), max(image.width for image in images)
    assert pixels.shape == (side * (down + grid.MARGIN) - grid.MARGIN, side * (across + grid.MARGIN) - grid.MARGIN, 3)
    for index, image in enumerate(images):
        top, left = index // side * (down + grid.MARGIN), index % side * (across + grid.MARGIN)
        assert np.array_equal(pixels[top : top + image.height, left : left + image.width], np.asarray(image))
