import numpy as np
import pytest
import torch
from scipy import ndimage

from phosphene.pixels import filters

SHAPES = [(2, 3, 33, 40), (1, 1, 17, 16), (1, 2, 5, 3), (1, 3, 2, 9), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", filters.MEDIAN_SIZES)
def test_median_equals_scipys(size, shape):
    images = torch.randn(shape, generator=torch.Generator().manual_seed(size))
    expected = ndimage.median_filter(images.numpy(), size=(1, 1, size, size))
    assert np.array_equal(filters.median(images, size).numpy(), expected)


def test_median_of_double_precision_is_exact():
    images = torch.rand(1, 3, 20, 21, dtype=torch.float64)
    assert np.array_equal(filters.median(images, 5).numpy(), ndimage.median_filter(images.numpy(), size=(1, 1, 5, 5)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.7])
def test_gaussian_blur_equals_scipys(sigma, shape):
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = ndimage.gaussian_filter(images.numpy(), sigma=(0, 0, sigma, sigma))
    np.testing.assert_allclose(filters.gaussian_blur(images, sigma).numpy(), expected, atol=1e-5)


def test_filters_leave_their_input_alone():
    images = torch.rand(2, 3, 12, 12)
    before = images.clone()
    filters.median(images, 3)
    filters.gaussian_blur(images, 1.0)
    assert torch.equal(images, before)


def test_median_refuses_other_sizes():
    with pytest.raises(ValueError, match="median size 4: expected one of 3, 5, 7"):
        filters.median(torch.rand(1, 1, 8, 8), 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", filters.MEDIAN_SIZES)
def test_median_on_a_gpu_equals_the_cpus(size):
    images = torch.rand(2, 3, 40, 31)
    assert torch.equal(filters.median(images.cuda(), size).cpu(), filters.median(images, size))
