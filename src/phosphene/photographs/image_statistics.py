"""What photographs are like: their spectra and colors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.activation_statistics import OnProgress
from phosphene.photographs.files import OF_PHOTOGRAPHS, damaged, photographs_digest, read_statistics, write_statistics
from phosphene.photographs.listing import decoded, none_readable

# Up to so many cycles a pixel the spectrum is measured: near the highest, 0.5, it is the resizing's and not the
# photographs'.  It is kept at so many frequencies an octave, in so many directions of the half circle.
_MEASURED, _PER_OCTAVE, _DIRECTIONS = 1 / 3, 3, 36


# Photographs


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Averages over photographs, each one's middle square: their colours and their spectrum.

    The *planes* of an image are what its colours are mixed from: `pixels = mean + colours @ planes`, in 0..1.  Those of
    photographs are uncorrelated and have unit variance.

    Attributes:
        mean: the mean colour in 0..1, RGB: (channels,).
        colours: a square root of the covariance of the colours, in 0..1: (channels, channels).  The columns are its
            principal axes, each times the standard deviation along it, from the widest (light against dark) down.
        frequencies: where the spectrum was measured, in cycles an image, rising: (frequencies,).
        magnitude: the mean magnitude of the planes' Fourier coefficients (orthonormal) at these frequencies, in
            directions evenly spread from -90 degrees (downwards) to below 90: (channels, frequencies, directions).
        slope: the a of the power law 1/f^a that fits the first plane's magnitude best.
        count: of the photographs.
        unreadable: files that were passed over, since they are no images, or damaged.
    """

    mean: Tensor
    colours: Tensor
    frequencies: Tensor
    magnitude: Tensor
    slope: float
    count: int
    unreadable: int = 0

    def magnitude_for(self, height: int, width: int) -> Tensor:
        """The magnitude of the Fourier coefficients of planes of that size: (channels, height, width // 2 + 1).

        For `torch.fft.irfft2(…, s=(height, width), norm="ortho")`; with the phases of any real image, such as those of
        the `rfft2` of noise, the planes have unit variance.  The mean of a plane (frequency 0) is 0: an image's
        mean colour is then `mean`.

        Photographs are alike at all scales, so frequencies are taken in cycles an image and not a pixel: the image is
        like a whole photograph, whatever its size.  Of an image that is no square it is the shorter side that counts.
        Beyond the measured frequencies the magnitude falls as 1/f^slope.
        """
        frequency, angle = _polar(height, width)
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
        return photographs_digest({name: getattr(self, name) for name in _TABLES} | {"slope": torch.tensor(self.slope)})

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {"slope": repr(self.slope), "count": str(self.count), "unreadable": str(self.unreadable)}
        return write_statistics(Path(path), {name: getattr(self, name) for name in _TABLES}, OF_PHOTOGRAPHS, metadata)


_TABLES = ("mean", "colours", "frequencies", "magnitude")


def load_image_statistics(path: str | Path) -> ImageStatistics:
    """What `ImageStatistics.save` wrote.

    Raises:
        InputError: there is no such file, it is damaged, or it holds something else.
    """
    tensors, metadata = read_statistics(Path(path), OF_PHOTOGRAPHS)
    try:
        found = ImageStatistics(
            **{name: tensors[name] for name in _TABLES},
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
    tensors = [getattr(found, name) for name in _TABLES]
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

    Mean, colours and spectrum are all of these same photographs, which do not ship themselves.
    """
    with resources.as_file(resources.files("phosphene") / "photographs" / "photographs.safetensors") as path:
        return load_image_statistics(path)


def measure_image_statistics(
    paths: Iterable[str | Path], size: int = 256, on_progress: OnProgress | None = None
) -> ImageStatistics:
    """Average photographs, each brought to `size` pixels by its shorter side, and its middle square cut out.

    They are read twice: the planes of which the spectrum is measured need the colours of all.

    Args:
        paths: image files; those that cannot be read are passed over.  For good high frequencies they should be
            larger than `size`.

    Raises:
        InputError: none of them can be read, all are of one colour, or the size is below 16.
    """
    files = [Path(path) for path in paths]
    if size < 16:
        raise InputError(f"size {size}: expected at least 16 pixels, since less shows no spectrum")
    show = on_progress or (lambda done, total: None)
    colour = _ColorCovariance()
    for done, pixels in enumerate(decoded(files, Preprocessing(size)), 1):
        if pixels is not None:
            colour.add(pixels.double() / 255)
        show(done, 2 * len(files))
    if not colour.count:
        raise none_readable(files)
    mean, colours = colour.mean(), colour.square_root()
    unmixing = torch.linalg.inv(colours)
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for done, pixels in enumerate(decoded(files, Preprocessing(size)), 1):
        if pixels is not None:
            planes = torch.tensordot(unmixing, pixels.double() / 255 - mean.view(-1, 1, 1), 1)
            total += _periodic_spectrum(planes).abs()
        show(len(files) + done, 2 * len(files))
    frequencies, magnitude, slope = _table(total / colour.count)
    return ImageStatistics(
        mean.float(), colours.float(), frequencies.float(), magnitude.float(), slope,
        colour.count, len(files) - colour.count,
    )  # fmt: skip


class _ColorCovariance:
    """Sums over pixels, from which the mean and the covariance of their colours follow."""

    def __init__(self) -> None:
        self.count = 0
        self.first = torch.zeros(3, dtype=torch.float64)
        self.second = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, pixels: Tensor) -> None:
        colours = pixels.flatten(1)  # (channels, pixels)
        self.count += 1
        self.first += colours.mean(1)
        self.second += colours @ colours.T / colours.shape[1]

    def mean(self) -> Tensor:
        return self.first / self.count

    def square_root(self) -> Tensor:
        """U sqrt(S) of the covariance U S U^T: principal axes, each times the standard deviation along it."""
        covariance = self.second / self.count - torch.outer(self.mean(), self.mean())
        axes, variances, _ = torch.linalg.svd(covariance)
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # of the two directions of an axis, the lighter
        rounding = 1 / 12 / 255**2  # the variance that rounding to 8 bits makes: grey photographs have no more
        colours: Tensor = axes * variances.clamp_min(rounding).sqrt()
        return colours


def _periodic_spectrum(planes: Tensor) -> Tensor:
    """The orthonormal `rfft2` of planes without the cross that the jumps from edge to opposite edge make.

    Of an image that is the sum of a periodic one and of one with no detail inside, the former (Moisan, "Periodic plus
    smooth image decomposition", 2011): unlike behind a window, all of the image counts alike.
    """
    height, width = planes.shape[-2:]
    jumps = torch.zeros_like(planes)
    vertical, horizontal = planes[..., -1, :] - planes[..., 0, :], planes[..., -1] - planes[..., 0]
    jumps[..., 0, :] += vertical
    jumps[..., -1, :] -= vertical
    jumps[..., 0] += horizontal
    jumps[..., -1] -= horizontal
    rows, columns = (2 * torch.cos(2 * math.pi * frequency) for frequency in _frequencies(height, width))
    laplacian = rows[:, None] + columns[None] - 4
    laplacian[0, 0] = 1
    smooth = torch.fft.rfft2(jumps, norm="ortho") / laplacian
    smooth[..., 0, 0] = 0  # the mean stays with the periodic part
    periodic: Tensor = torch.fft.rfft2(planes, norm="ortho") - smooth
    return periodic  # (…, height, width // 2 + 1)


def _frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The frequencies of the rows and the columns of an `rfft2`, in cycles a pixel."""
    return torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)


def _polar(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of each coefficient of an `rfft2` the frequency, in cycles a shorter side, and the direction in degrees."""
    rows, columns = (frequency * min(height, width) for frequency in _frequencies(height, width))
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    return torch.hypot(rows, columns), torch.rad2deg(torch.atan2(rows, columns))  # both (height, width // 2 + 1)


def multiplicity(width: int) -> Tensor:
    """How often each column of an `rfft2` stands in the full spectrum: all but the first and the middle one twice."""
    counts = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def _table(magnitude: Tensor) -> tuple[Tensor, Tensor, float]:
    """A mean spectrum (channels, size, size // 2 + 1) as a small smooth table: frequencies, magnitude and slope.

    Each entry is a mean, in the logarithm, over the coefficients about it: as wide as the table is fine or, where
    coefficients are fewer, half a cycle.  Before, the power law is taken out, so that the mean is nearly of equals.
    """
    size = magnitude.shape[1]
    frequency, angle = _polar(size, size)
    highest = _MEASURED * size
    measured = (frequency > 0) & (frequency <= highest)
    frequency, angle = frequency[measured], angle[measured]
    spectrum = magnitude[:, measured]
    if not bool((spectrum[0] > 0).any()):
        raise InputError("the photographs are of one colour each: expected some with detail in them")
    seen = spectrum.amax(1, keepdim=True) > 1e-6 * spectrum.amax()
    logarithm = torch.where(seen, spectrum, spectrum[:1]).clamp_min(1e-12).log()  # grey photographs have one plane
    slope = _slope(frequency, logarithm[0])
    flat = logarithm + slope * frequency.log()
    nodes = torch.logspace(0, math.log2(highest), round(_PER_OCTAVE * math.log2(highest)) + 1, 2, dtype=torch.float64)
    directions = torch.arange(_DIRECTIONS, dtype=torch.float64) * 180 / _DIRECTIONS - 90
    turns = (angle - directions[:, None] + 90) % 180 - 90  # (directions, coefficients)
    rows = []
    for node in nodes.tolist():
        octaves = max(0.5 / _PER_OCTAVE, math.log2(1 + 0.5 / node))
        degrees = max(90 / _DIRECTIONS, math.degrees(0.5 / node))
        distance = ((frequency / node).log2() / octaves) ** 2 + (turns / degrees) ** 2
        rows.append(flat @ torch.softmax(-distance / 2, 1).T - slope * math.log(node))
    return nodes, torch.stack(rows, 1).exp(), slope


def _slope(frequency: Tensor, logarithm: Tensor) -> float:
    """The a of 1/f^a by least squares in the logarithms, in which each octave counts alike; both (coefficients,)."""
    weight = frequency**-2 / (frequency**-2).sum()
    centred = frequency.log() - (weight * frequency.log()).sum()
    return -float((weight * centred * logarithm).sum() / (weight * centred.square()).sum())
