"""The canvas: how an image is parametrised, and what an ascent starts from.

A canvas turns parameters, one tensor a row, into images of (rows, channels, height, width) in 0..255:

    pixels    the parameters are the image
    fourier   they are Fourier coefficients of planes whose colors are decorrelated; a coefficient of frequency f is
              scaled by 1/f, so that one step moves coarse and fine alike (Olah et al. 2017, "Feature Visualization")
    maco      they are the phases of those coefficients; the magnitude stays that of photographs (Fel et al. 2023,
              "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization")
    sum       they are planes of 1, 2, 4, … pixels up to the image's size, which are brought to that size and summed:
              what is coarse is moved by all that is under it (Fort & Whitaker 2025, "Direct Ascent Synthesis")

The planes of the last three go through a matrix that gives them photographs' colors, and a sigmoid into 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from phosphene.errors import InputError, did_you_mean, join_names
from phosphene.files import is_file
from phosphene.images import read_image
from phosphene.networks.named import check_file, remember_file
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs import image_statistics, spectra
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.settings import Start

# The square root of the covariance of ImageNet's colors, as Lucid publishes it (Olah et al. 2017), its largest column
# brought to length 1.
IMAGENET_COLOR_MATRIX = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]) / 0.4620
COLOR_CORRELATIONS = ("imagenet", "photographs", "none")
# Planes of deviation 1 are divided by this, as Lucid does, so that rates found for it mean the same here.
_FOURIER_SCALE = 4.0
_BANDS = 12  # of frequencies whose power is held
# What share of photographs' contrast about mid-gray is each one's mean brightness: its deviation from photograph to
# photograph is 0.47 of the deviation of all pixels (100 photographs of ImageNet).
_BRIGHTNESS = 0.22
_CPU = torch.device("cpu")
_LARGEST_LOGIT = 6.0  # of an image given: 0 and 255 are out of the sigmoid's reach


def referenced_files(recipe: Recipe) -> list[str]:
    """The files and folders that a recipe names."""
    statistics = recipe.priors.statistics
    colors = [] if recipe.canvas.colours in COLOR_CORRELATIONS else [recipe.canvas.colours]
    return [*colors, *([statistics.photographs] if statistics and statistics.photographs else [])]


def check_referenced_files(recipe: Recipe, origin: str, trust: bool = False) -> None:
    """Raise an `InputError` where a recipe of a file names another file that is not to be followed."""
    for path in referenced_files(recipe):
        check_file(origin, path, trust)


def remember_referenced_files(recipe: Recipe) -> None:
    """Keep that the user has used the files that a recipe names."""
    for path in referenced_files(recipe):
        remember_file(path)


@dataclass(frozen=True)
class Canvas:
    """How parameters become an image of one height and width.

    Attributes:
        size: height and width.
        initial_parameters: the first parameters of a row, from its generator and, where an image is given, from that.
        to_images: parameters (rows, …) to images (rows, channels, height, width) in 0..255; differentiable.
        resample_parameters: the parameters of one row, carried to this canvas from one of another size.
        is_pixels: whether the parameters are the image, which regularizers may change.
    """

    size: tuple[int, int]
    initial_parameters: Callable[[torch.Generator, Tensor | None], Tensor]
    to_images: Callable[[Tensor], Tensor]
    resample_parameters: Callable[[Tensor, tuple[int, int]], Tensor]
    is_pixels: bool = False


def make_canvas(
    recipe: Recipe, preprocessing: Preprocessing, size: tuple[int, int], device: torch.device = _CPU
) -> Canvas:
    """The recipe's canvas for images of that height and width, which are made on a device.

    Raises:
        InputError: colors for another number of channels, or of a file that cannot be read; or the device does not
            have the numbers asked for.
    """
    if recipe.canvas_function is not None:
        return _own_canvas(recipe, preprocessing, size, device)
    if recipe.canvas.kind == "pixels":
        sized = preprocessing.resized(size)
        dtype = getattr(torch, recipe.canvas.dtype)
        if dtype == torch.float64 and device.type == "mps":
            raise InputError("canvas.dtype float64: device mps has none; expected float32, or another device")
        return Canvas(
            size,
            lambda generator, given: _start_pixels(recipe.start, sized, generator, given).to(dtype),
            lambda parameters: parameters,
            lambda parameters, old: _upsample(parameters, size),
            is_pixels=True,
        )
    color_matrix = color_correlation(recipe.canvas.colours, preprocessing.channels)
    make = {"fourier": _fourier, "maco": _maco, "sum": _sum}[recipe.canvas.kind]
    return make(recipe, color_matrix, size, device)


def _own_canvas(recipe: Recipe, preprocessing: Preprocessing, size: tuple[int, int], device: torch.device) -> Canvas:
    """The canvas that a function of the caller's makes."""
    canvas = recipe.canvas_function(size, preprocessing, device)
    if not isinstance(canvas, Canvas):
        raise InputError(
            f"the canvas of recipe {recipe.name} is a {type(canvas).__name__}: expected a phosphene.Canvas"
        )
    if recipe.regularizers and not canvas.is_pixels:
        names = join_names([name for name, _ in recipe.regularizers])
        raise InputError(
            f"recipe {recipe.name} has regularizers ({names}), which change pixels: expected a canvas with is_pixels, "
            "or a recipe without them"
        )
    return canvas


def color_correlation(colors: str, channels: int) -> Tensor:
    """The matrix (channels, channels) that gives planes photographs' colors, its largest column of length 1.

    Args:
        colors: "imagenet", "photographs", "none", or the path of a file of `phosphene statistics`.
        channels: of the network; for others than three, "imagenet" and "photographs" are as "none".

    Raises:
        InputError: the file cannot be read, or is of another number of channels.
    """
    if colors == "none" or (channels != 3 and colors in ("imagenet", "photographs")):
        return torch.eye(channels)
    if colors == "imagenet":
        return IMAGENET_COLOR_MATRIX
    own = _photographs(colors).colors
    if len(own) != channels:
        raise InputError(f"canvas.colours {colors!r} has {len(own)} channels: the network takes {channels}")
    unit: Tensor = own / own.norm(dim=0).max()
    return unit


def _photographs(colors: str) -> image_statistics.ImageStatistics:
    if colors in COLOR_CORRELATIONS:
        return image_statistics.bundled_image_statistics()
    if not Path(colors).suffix and not is_file(Path(colors)):
        near = did_you_mean(colors, COLOR_CORRELATIONS) or ", or a file that `phosphene statistics` made"
        raise InputError(f"canvas.colours {colors!r}: expected {', '.join(COLOR_CORRELATIONS)}{near}")
    return image_statistics.load_image_statistics(Path(colors))


def frequencies(size: tuple[int, int]) -> Tensor:
    """Of each coefficient of `torch.fft.rfft2`, (height, width // 2 + 1), in cycles a pixel; the mean's is as the
    lowest other one's."""
    height, width = size
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return torch.hypot(down, across).clamp_min(1 / max(size))


def _fourier(recipe: Recipe, color_matrix: Tensor, size: tuple[int, int], device: torch.device) -> Canvas:
    scale = _fourier_scale(size, recipe.canvas.exponent)
    channels = len(color_matrix)
    bands, limits = _bands(size), torch.zeros(0)
    shares = bands * spectra.multiplicity(size[1]).float() / (size[0] * size[1])
    if recipe.canvas.spectrum == "held":
        magnitude = _photographs(recipe.canvas.colours).magnitude_for(*size)[:1]
        power = _power(magnitude[None], shares)[0]
        limits = recipe.canvas.contrast**2 * power / power.sum()
        limits[-1] = recipe.canvas.contrast**2 * _BRIGHTNESS

    # What an image is made with lies where it is made.
    there = [each.to(device) for each in (scale, color_matrix, bands, shares, limits)]

    def images(parameters: Tensor) -> Tensor:
        scale, mixed, bands, shares, limits = there
        coefficients = torch.view_as_complex(parameters.contiguous()) * scale
        if len(limits):
            coefficients = coefficients * _band_factors(coefficients, bands, shares, limits)
        made = torch.fft.irfft2(coefficients, s=size, norm="ortho")
        return to_rgb(made, mixed, recipe.canvas.contrast)

    def start(generator: torch.Generator, given: Tensor | None) -> Tensor:
        if given is not None:
            return torch.view_as_real(torch.fft.rfft2(from_rgb(given, color_matrix), norm="ortho") / scale)
        noise = torch.randn((channels, *scale.shape, 2), generator=generator)
        if recipe.start.kind == "grey":
            return torch.zeros_like(noise)
        # A plane's deviation is this part of the noise's; and near gray a sigmoid's slope is a quarter.
        planes = torch.fft.irfft2(torch.view_as_complex(noise) * scale, s=size, norm="ortho")
        gain: Tensor = planes.std() * color_matrix.norm(dim=1).mean()
        return noise * (recipe.start.sigma / 255 * 4 / gain)

    def resized(parameters: Tensor, old: tuple[int, int]) -> Tensor:
        """The same low frequencies; the new ones are nought."""
        spectrum = torch.view_as_complex(parameters.contiguous()) * _fourier_scale(old, recipe.canvas.exponent)
        grown = _crop_or_pad_spectrum(spectrum, old, size) * math.sqrt(size[0] * size[1] / (old[0] * old[1]))
        return torch.view_as_real(grown / scale)

    return Canvas(size, start, images, resized)


def _bands(size: tuple[int, int]) -> Tensor:
    """Bands of frequencies, evenly spread on a logarithmic scale, and last the mean: how much of each a coefficient is.

    (bands, height, width // 2 + 1), as `rfft2` has them; the sum over bands is 1.
    """
    place = torch.log(frequencies(size) * max(size)) / math.log(max(2, max(size)) * math.sqrt(0.5))
    place = (place * (_BANDS - 1)).clamp(0, _BANDS - 1)
    bands = (1 - (place - torch.arange(_BANDS)[:, None, None]).abs()).clamp_min(0)
    bands[:, 0, 0] = 0
    mean = torch.zeros_like(bands[:1])
    mean[:, 0, 0] = 1
    return torch.cat([bands, mean])


def _power(coefficients: Tensor, shares: Tensor) -> Tensor:
    """The mean square that each band brings to planes, summed over them: (rows, bands).

    Args:
        coefficients: of `torch.fft.rfft2(…, norm="ortho")`, (rows, channels, height, width // 2 + 1).
        shares: what each one's square brings to each band's, (bands, height, width // 2 + 1).
    """
    square = torch.view_as_real(coefficients).square().sum(-1) if coefficients.is_complex() else coefficients.square()
    return torch.einsum("bhw,rhw->rb", shares, square.sum(dim=1))


def _band_factors(coefficients: Tensor, bands: Tensor, shares: Tensor, limits: Tensor) -> Tensor:
    """What coefficients are multiplied by so that no band has more power than its limit: (rows, 1, height, …)."""
    power = _power(coefficients, shares).clamp_min(1e-12)
    factors = (limits / power).clamp_max(1).sqrt()
    return torch.einsum("rb,bhw->rhw", factors, bands)[:, None]


def _fourier_scale(size: tuple[int, int], exponent: float) -> Tensor:
    """What coefficients are multiplied by: 1/f^exponent, with the power that 1/f has."""
    flat = 1 / frequencies(size)
    scale = flat**exponent
    return scale * (flat.square().mean() / scale.square().mean()).sqrt() / _FOURIER_SCALE


def _maco(recipe: Recipe, color_matrix: Tensor, size: tuple[int, int], device: torch.device) -> Canvas:
    magnitude = _magnitude(recipe.canvas.colours, len(color_matrix), size)
    there = [each.to(device) for each in (magnitude, color_matrix)]

    def images(phases: Tensor) -> Tensor:
        magnitude, mixed = there
        spectrum = torch.polar(magnitude.expand_as(phases).contiguous(), phases)
        made = torch.fft.irfft2(spectrum, s=size, norm="ortho")
        planes = made / made.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        return to_rgb(planes, mixed, recipe.canvas.contrast)

    def start(generator: torch.Generator, given: Tensor | None) -> Tensor:
        if given is not None:
            phases: Tensor = torch.fft.rfft2(from_rgb(given, color_matrix), norm="ortho").angle()
            return phases
        return math.pi * (2 * torch.rand(magnitude.shape, generator=generator) - 1)

    def resized(phases: Tensor, old: tuple[int, int]) -> Tensor:
        fresh = torch.Generator().manual_seed(0)
        grown = _crop_or_pad_spectrum(torch.polar(torch.ones_like(phases), phases), old, size)
        drawn = math.pi * (2 * torch.rand(magnitude.shape, generator=fresh) - 1)
        return torch.where(grown.abs() > 0, grown.angle(), drawn)

    return Canvas(size, start, images, resized)


def summed_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The heights and widths of the planes that a canvas of kind "sum" adds up: each half the one before, down to 1."""
    sizes = [size]
    while max(sizes[-1]) > 1:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def _sum(recipe: Recipe, color_matrix: Tensor, size: tuple[int, int], device: torch.device) -> Canvas:
    """The parameters of a row are (channels, values): the planes of all sizes, one behind the other."""
    channels = len(color_matrix)
    counts = [height * width for height, width in summed_sizes(size)]
    mixed = color_matrix.to(device)

    def start(generator: torch.Generator, given: Tensor | None) -> Tensor:
        noise = torch.randn((channels, sum(counts)), generator=generator)
        if recipe.start.kind == "grey":
            return torch.zeros_like(noise)
        if given is not None:
            return whole(from_rgb(given, color_matrix))
        gain: Tensor = _summed_planes(noise[None], size).std() * color_matrix.norm(dim=1).mean()
        return noise * (recipe.start.sigma / 255 * 4 / gain)

    def whole(found: Tensor) -> Tensor:
        """The parameters of planes (channels, height, width): all in the largest ones."""
        rest = found.new_zeros((channels, sum(counts[1:])))
        return torch.cat([found.flatten(1), rest], dim=1)

    def resized(parameters: Tensor, old: tuple[int, int]) -> Tensor:
        return whole(
            F.interpolate(_summed_planes(parameters[None], old), size=size, mode="bilinear", align_corners=False)[0]
        )

    def images(parameters: Tensor) -> Tensor:
        return to_rgb(_summed_planes(parameters, size), mixed, recipe.canvas.contrast)

    return Canvas(size, start, images, resized)


def _summed_planes(parameters: Tensor, size: tuple[int, int]) -> Tensor:
    """(rows, channels, values) to (rows, channels, height, width)."""
    sizes = summed_sizes(size)
    parts = torch.split(parameters, [height * width for height, width in sizes], dim=-1)
    rows = parameters.shape[:-1]
    total: Tensor = parts[0].reshape(*rows, *size)
    for part, each in zip(parts[1:], sizes[1:], strict=True):
        total = total + F.interpolate(part.reshape(*rows, *each), size=size, mode="bilinear", align_corners=False)
    return total


def _magnitude(colors: str, channels: int, size: tuple[int, int]) -> Tensor:
    """Of photographs' coefficients, (channels, height, width // 2 + 1)."""
    magnitude = _photographs(colors).magnitude_for(*size)
    if len(magnitude) != channels:  # of other than three channels: each as the brightness of photographs
        magnitude = magnitude[:1].expand(channels, -1, -1)
    return magnitude


def to_rgb(planes: Tensor, color_matrix: Tensor, contrast: float) -> Tensor:
    """Planes (rows, channels, height, width) to images in 0..255: no more contrast than that, colors, sigmoid."""
    if contrast:
        power = planes.square().mean(dim=(2, 3), keepdim=True).sum(dim=1, keepdim=True)
        deviation = power.clamp_min(1e-12).sqrt()  # of all gray the root would have no gradient
        planes = planes * (contrast / deviation).clamp_max(1)
    colored = torch.einsum("ij,rjhw->rihw", color_matrix, planes)
    return 255 * torch.sigmoid(colored)


def from_rgb(image: Tensor, color_matrix: Tensor) -> Tensor:
    """The planes of an image (channels, height, width) in 0..255: what `to_rgb` makes it of."""
    logits = torch.logit(image.double() / 255, eps=1 / (1 + math.exp(_LARGEST_LOGIT)))
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(color_matrix.double()), logits).float()


def _crop_or_pad_spectrum(spectrum: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A spectrum (…, height, width // 2 + 1) of one size cut or filled up with noughts to that of another."""
    if old == new:
        return spectrum
    down, across = min(old[0], new[0]), min(old[1], new[1])
    # The highest frequency of an even length is left out: it stands there once for both directions.
    low, high, across = (down + 1) // 2, (down - 1) // 2, (across + 1) // 2
    made = spectrum.new_zeros((*spectrum.shape[:-2], new[0], new[1] // 2 + 1))
    made[..., :low, :across] = spectrum[..., :low, :across]
    if high:
        made[..., -high:, :across] = spectrum[..., -high:, :across]
    return made


def _upsample(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]


def start_image(start: Start, preprocessing: Preprocessing, seed: int, given: Tensor | None) -> Tensor:
    """The first image of a row on a canvas of pixels: (channels, height, width) in 0..255, RGB.

    It is drawn on the CPU, so alike on all devices.

    Args:
        start: the recipe's.
        preprocessing: gives the size, the number of channels and the mean image.
        seed: of the row's own generator.
        given: the image for a start of kind "image", as `as_pixels` makes it.

    Raises:
        InputError: the start is "image" and none is given, or one is given and not used.
    """
    check_start(start, given)
    return _start_pixels(start, preprocessing, torch.Generator().manual_seed(seed), given)


def check_start(start: Start, given: Tensor | None) -> None:
    """Raise an `InputError` if the start is "image" and none is given, or one is given and not used."""
    if (given is not None) != (start.kind == "image"):
        raise InputError(
            f"start.kind is {start.kind!r}: expected "
            + ("a start image" if given is None else "'image', since a start image is given")
        )


def _start_pixels(
    start: Start, preprocessing: Preprocessing, generator: torch.Generator, given: Tensor | None
) -> Tensor:
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    if start.kind == "gaussian":
        mean = torch.tensor(preprocessing.mean_pixels).view(-1, 1, 1)
        return mean + start.sigma * torch.randn(shape, generator=generator)
    if start.kind == "numpy":
        # The network's own channel order, as the script draws it in the network's own input space.
        noise = np.random.RandomState(generator.initial_seed()).normal(0, start.sigma, shape)
        drawn = torch.from_numpy(noise)
        drawn = drawn.flip(0) if preprocessing.channel_order == "BGR" else drawn
        return torch.tensor(preprocessing.mean_pixels, dtype=drawn.dtype).view(-1, 1, 1) + drawn
    if start.kind == "uniform":
        return start.low + (start.high - start.low) * torch.rand(shape, generator=generator)
    if start.kind == "grey":
        return torch.full(shape, 127.5)
    assert given is not None
    if given.shape != shape:
        raise InputError(f"a start image of shape {tuple(given.shape)}: expected {shape}, channels first")
    return given.clone()


def as_pixels(image: Any, preprocessing: Preprocessing) -> Tensor:
    """An image of the caller's as pixels of shape (channels, height, width) in 0..255.

    Args:
        image: a path or a PIL image, which is resized and cut to the network's size; or an array or a tensor of
            0..255 (rounded), channels first or last (or none for one channel), which must have that size.
        preprocessing: gives the size and the number of channels.

    Raises:
        InputError: the file is no image, or the array has another shape.
    """
    if isinstance(image, Image.Image):
        return preprocessing.photograph(image)
    if not isinstance(image, np.ndarray | Tensor):
        return preprocessing.photograph(read_image(image))
    pixels = torch.as_tensor(image).detach().float().cpu()
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.shape != shape and pixels.ndim == 3:
        pixels = pixels.permute(2, 0, 1)
    if pixels.shape != shape:
        raise InputError(f"an image of shape {tuple(image.shape)}: expected {shape}, or channels last")
    return pixels.round().clamp(0, 255).contiguous()  # 8 bits, as a file holds them
