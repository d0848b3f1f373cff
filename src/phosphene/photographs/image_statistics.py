"""What photographs are like: their colors and their spectrum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.decoding import decode
from phosphene.photographs.spectra import multiplicity, periodic_spectrum, polar_frequencies, spectrum_table
from phosphene.photographs.statistics_files import (
    OF_PHOTOGRAPHS,
    damaged,
    read_statistics,
    statistics_digest,
    write_statistics,
)


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Averages over photographs, each one's middle square: their colors and their spectrum.

    The *planes* of an image are what its colors are mixed from: `pixels = mean + colors @ planes`, in 0..1.  Those of
    photographs are uncorrelated and have unit variance.

    Attributes:
        mean: the mean color in 0..1, RGB: (channels,).
        colors: a square root of the covariance of the colors, in 0..1: (channels, channels).  The columns are its
            principal axes, each times the standard deviation along it, from the widest (light against dark) down.
        frequencies: where the spectrum was measured, in cycles an image, rising: (frequencies,).
        magnitude: the mean magnitude of the planes' Fourier coefficients (orthonormal) at these frequencies, in
            directions evenly spread from -90 degrees (downwards) to below 90: (channels, frequencies, directions).
        slope: the a of the power law 1/f^a that fits the first plane's magnitude best.
        count: of the photographs.
        unreadable: files that were passed over, since they are no images, or damaged.
    """

    mean: Tensor
    colors: Tensor
    frequencies: Tensor
    magnitude: Tensor
    slope: float
    count: int
    unreadable: int = 0

    def magnitude_for(self, height: int, width: int) -> Tensor:
        """The magnitude of the Fourier coefficients of planes of that size: (channels, height, width // 2 + 1).

        For `torch.fft.irfft2(…, s=(height, width), norm="ortho")`; with the phases of any real image, such as those of
        the `rfft2` of noise, the planes have unit variance.  The mean of a plane (frequency 0) is 0: an image's
        mean color is then `mean`.

        Photographs are alike at all scales, so frequencies are taken in cycles an image and not a pixel: the image is
        like a whole photograph, whatever its size.  Of an image that is no square it is the shorter side that counts.
        Beyond the measured frequencies the magnitude falls as 1/f^slope.
        """
        frequency, angle = polar_frequencies(height, width)
        magnitude = self._interpolated(frequency.clamp_min(1e-6), angle)
        magnitude[:, 0, 0] = 0
        power = (magnitude.square() * multiplicity(width)).sum((1, 2), keepdim=True)
        scale = (height * width / power.clamp_min(1e-12)).sqrt()
        return (magnitude * scale).float()  # (channels, height, width // 2 + 1)

    def _interpolated(self, frequency: Tensor, angle: Tensor) -> Tensor:
        """Linear in the logarithms of frequency and magnitude, and in the direction, which is periodic."""
        within = frequency.clamp(float(self.frequencies[0]), float(self.frequencies[-1]))
        nodes, table = self.frequencies.double().log(), self.magnitude.double().log()
        row = (torch.searchsorted(nodes, within.log(), right=True) - 1).clamp(0, len(nodes) - 2)
        down = ((within.log() - nodes[row]) / (nodes[row + 1] - nodes[row])).clamp(0, 1)
        directions = table.shape[2]
        turn = (angle + 90) / 180 * directions
        column = turn.floor()
        across, first = turn - column, column.long() % directions
        second = (first + 1) % directions

        def at(row: Tensor) -> Tensor:
            return torch.lerp(table[:, row, first], table[:, row, second], across)

        return torch.lerp(at(row), at(row + 1), down).exp() * (frequency / within) ** -self.slope

    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the averages."""
        return statistics_digest(self._tensors() | {"slope": torch.tensor(self.slope)})

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {"slope": repr(self.slope), "count": str(self.count), "unreadable": str(self.unreadable)}
        return write_statistics(Path(path), self._tensors(), OF_PHOTOGRAPHS, metadata)

    def _tensors(self) -> dict[str, Tensor]:
        return {key: getattr(self, name) for key, name in _TENSORS.items()}


# Attributes by their keys in a file.
_TENSORS = {"mean": "mean", "colours": "colors", "frequencies": "frequencies", "magnitude": "magnitude"}


def load_image_statistics(path: str | Path) -> ImageStatistics:
    """What `ImageStatistics.save` wrote.

    Raises:
        InputError: there is no such file, it is damaged, or it holds something else.
    """
    tensors, metadata = read_statistics(Path(path), OF_PHOTOGRAPHS)
    try:
        found = ImageStatistics(
            **{name: tensors[key] for key, name in _TENSORS.items()},
            slope=float(metadata["slope"]),
            count=int(metadata["count"]),
            unreadable=int(metadata["unreadable"]),
        )
        _check(found)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise damaged(Path(path), OF_PHOTOGRAPHS) from error
    return found


def _check(found: ImageStatistics) -> None:
    channels, nodes, directions = found.magnitude.shape
    shapes = ((channels,), (channels, channels), (nodes,), (channels, nodes, directions))
    tensors = [getattr(found, name) for name in _TENSORS.values()]
    if tuple(tuple(tensor.shape) for tensor in tensors) != shapes or min(channels, nodes - 1, directions) < 1:
        raise ValueError("shapes")
    if not all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError("numbers")
    if not math.isfinite(found.slope) or not bool((found.magnitude > 0).all()):
        raise ValueError("numbers")
    if float(found.frequencies[0]) <= 0 or not bool((found.frequencies.diff() > 0).all()):
        raise ValueError("frequencies")


@lru_cache(maxsize=1)
def bundled_image_statistics() -> ImageStatistics:
    """The averages that ship: over 200 photographs, one for every fifth class of ImageNet.

    Mean, colors and spectrum are all of these same photographs, which do not ship themselves.
    """
    with resources.as_file(resources.files("phosphene") / "photographs" / "photographs.safetensors") as path:
        return load_image_statistics(path)


def measure_image_statistics(
    paths: Iterable[str | Path], size: int = 256, on_progress: ProgressOption = None
) -> ImageStatistics:
    """Average photographs, each brought to `size` pixels by its shorter side, and its middle square cut out.

    They are read twice: the planes of which the spectrum is measured need the colors of all.

    Args:
        paths: image files; those that cannot be read are passed over.  For good high frequencies they should be
            larger than `size`.
        on_progress: called with how many files are read, and of how many, both times together; by default a bar;
            False: nothing.

    Raises:
        InputError: none of them can be read, all are of one color, or the size is below 16.
    """
    files = [Path(path) for path in paths]
    if size < 16:
        raise InputError(f"size {size}: expected at least 16 pixels, since less shows no spectrum")
    covariance = _ColorCovariance()
    with counted("photographs, twice each", on_progress, 2 * len(files), doing="colors") as tally:
        for photograph in decode(files, Preprocessing(size)):
            for pixels in photograph or ():
                covariance.add(pixels.double() / 255)
            tally.add()
        mean, colors, count = covariance.mean(), covariance.square_root(), covariance.count
        unmixing = torch.linalg.inv(colors)
        total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
        tally.doing = "spectra"
        for photograph in decode(files, Preprocessing(size)):
            for pixels in photograph or ():
                planes = torch.tensordot(unmixing, pixels.double() / 255 - mean.view(-1, 1, 1), 1)
                total += periodic_spectrum(planes).abs()
            tally.add()
    frequencies, magnitude, slope = spectrum_table(total / count)
    return ImageStatistics(
        mean.float(), colors.float(), frequencies.float(), magnitude.float(), slope, count, len(files) - count
    )


class _ColorCovariance:
    """Sums over pixels, from which the mean and the covariance of their colors follow."""

    def __init__(self) -> None:
        self.count = 0
        self.first = torch.zeros(3, dtype=torch.float64)
        self.second = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, pixels: Tensor) -> None:
        colors = pixels.flatten(1)  # (channels, pixels)
        self.count += 1
        self.first += colors.mean(1)
        self.second += colors @ colors.T / colors.shape[1]

    def mean(self) -> Tensor:
        return self.first / self.count

    def square_root(self) -> Tensor:
        """U sqrt(S) of the covariance U S U^T: principal axes, each times the standard deviation along it."""
        covariance = self.second / self.count - torch.outer(self.mean(), self.mean())
        axes, variances, _ = torch.linalg.svd(covariance)
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # of the two directions of an axis, the lighter
        rounding = 1 / 12 / 255**2  # the variance that rounding to 8 bits makes: gray photographs have no more
        colors: Tensor = axes * variances.clamp_min(rounding).sqrt()
        return colors
