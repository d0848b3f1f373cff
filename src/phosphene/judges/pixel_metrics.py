"""What is measured of the pixels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHOTOGRAPHS_SLOPE = -2.6
"""The mean of `spectral_slope` over 200 photographs of ImageNet, one for every fifth class, at 224 pixels.

Its standard deviation over them is 0.5, and at 24 to 260 pixels the mean stays within 0.1.  Natural scenes that were
not compressed are at about -2 (Field 1987).
"""


def saturated(pixels: NDArray[np.uint8]) -> float:
    """The share of channel values that are 0 or 255, within 1."""
    return float(((pixels <= 1) | (pixels >= 254)).mean())


def spectral_slope(pixels: NDArray[Any]) -> float | None:
    """The exponent of the radial power spectrum of the luminance: -2 for power that falls with frequency squared.

    A least-squares fit of the logarithm of the radially averaged power by the logarithm of the frequency, from 2 cycles
    an image (its shorter side) up to 0.35 cycles a pixel, of the image less its mean, under a Hann window.

    Args:
        pixels: (height, width, channels); the luminance is Rec. 601's of RGB, and otherwise the channels' mean.

    Returns:
        The slope, or None where there is none: of one color, or of fewer than three frequencies.
    """
    values = pixels.astype(np.float64)
    luminance = values @ np.array([0.299, 0.587, 0.114]) if values.shape[-1] == 3 else values.mean(-1)
    height, width = luminance.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.rfft2((luminance - luminance.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    ring = np.rint(frequency * min(height, width)).astype(int).ravel()
    low, high = 2, int(0.35 * min(height, width))
    if high - low < 2:
        return None
    count = np.bincount(ring)[low : high + 1]
    means = [np.bincount(ring, each.ravel())[low : high + 1] / count for each in (frequency, power)]
    if means[1].min() <= 1e-12:
        return None
    return float(np.polyfit(np.log(means[0]), np.log(means[1]), 1)[0])


def mean_slope(slopes: Sequence[float | None]) -> float:
    found = [slope for slope in slopes if slope is not None]
    return mean(found) if found else PHOTOGRAPHS_SLOPE


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
