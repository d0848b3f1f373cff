"""Spectra of images: free of their edges, and as a small smooth table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from phosphene.errors import InputError

# Up to so many cycles a pixel the spectrum is measured: near the highest, 0.5, it is the resizing's and not the
# photographs'.  It is kept at so many frequencies an octave, in so many directions of the half circle.
_MEASURED, _PER_OCTAVE, _DIRECTIONS = 1 / 3, 3, 36


def periodic_spectrum(planes: Tensor) -> Tensor:
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


def polar_frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
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


def spectrum_table(magnitude: Tensor) -> tuple[Tensor, Tensor, float]:
    """A mean spectrum (channels, size, size // 2 + 1) as a small smooth table: frequencies, magnitude and slope.

    Each entry is a mean, in the logarithm, over the coefficients about it: as wide as the table is fine or, where
    coefficients are fewer, half a cycle.  Before, the power law is taken out, so that the mean is nearly of equals.

    Raises:
        InputError: there is no detail in the photographs.
    """
    size = magnitude.shape[1]
    frequency, angle = polar_frequencies(size, size)
    highest = _MEASURED * size
    measured = (frequency > 0) & (frequency <= highest)
    frequency, angle = frequency[measured], angle[measured]
    spectrum = magnitude[:, measured]
    if not bool((spectrum[0] > 0).any()):
        raise InputError("the photographs are of one color each: expected some with detail in them")
    seen = spectrum.amax(1, keepdim=True) > 1e-6 * spectrum.amax()
    logarithm = torch.where(seen, spectrum, spectrum[:1]).clamp_min(1e-12).log()  # gray photographs have one plane
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
    centered = frequency.log() - (weight * frequency.log()).sum()
    return -float((weight * centered * logarithm).sum() / (weight * centered.square()).sum())
