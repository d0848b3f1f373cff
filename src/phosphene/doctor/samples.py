"""Images to show a network where no photographs are given: noise, and shapes on noise."""

from __future__ import annotations

import math
import random

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.networks.preprocessing import Preprocessing

# Brightness, blue against yellow, red against green: the directions in which the colors of photographs vary.
_COLORS = ((0.92, 0.35, 0.15), (0.98, 0.0, -0.2), (0.91, -0.36, 0.2))
_MEAN_COLOR, _CONTRAST = (124.0, 117.0, 104.0), 70.0


def natural_noise(preprocessing: Preprocessing, count: int, seed: int = 0) -> Tensor:
    """Noise with the mean color, the contrast, the correlations and the 1/f spectrum of photographs.

    A linear layer makes of it the mean and the variance that it makes of photographs.

    Returns:
        Pixels (count, channels, height, width) in 0..255, RGB.
    """
    return _of_channels(_natural_noise(preprocessing, count, seed), preprocessing.channels)


def _natural_noise(preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    height, width = preprocessing.height, preprocessing.width
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    white = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft2(white) / frequency.clamp_min(1 / max(height, width))
    noise = torch.fft.irfft2(spectrum, s=(height, width))
    noise = noise / noise.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    mean = torch.tensor(_MEAN_COLOR).view(1, 3, 1, 1)
    return (mean + _CONTRAST * torch.einsum("ck,nkhw->nchw", torch.tensor(_COLORS), noise)).clamp(0, 255)


def _of_channels(pixels: Tensor, channels: int) -> Tensor:
    return pixels if channels == 3 else pixels.mean(1, keepdim=True).repeat(1, channels, 1, 1)


def shapes(preprocessing: Preprocessing, count: int, seed: int = 0) -> Tensor:
    """Natural noise behind a hundred polygons and ellipses, plain and textured, one over the other.

    It has the edges that wake channels which no noise does: of EfficientNet-lite0's 19,200 channels behind an
    activation 132 are dead over 200 photographs, 780 over 32 of these images, 4000 over noise alone.

    Returns:
        Pixels (count, channels, height, width) in 0..255, RGB.
    """
    draw = random.Random(seed)
    height, width = preprocessing.height, preprocessing.width
    textures = [
        Image.frombytes("RGB", (width, height), pixels.permute(1, 2, 0).byte().contiguous().numpy().tobytes())
        for pixels in _natural_noise(preprocessing, count, seed)
    ]
    images = []
    for texture in textures:
        image = texture.copy()
        for _ in range(100):
            fill = Image.new("RGB", (width, height), tuple(draw.randrange(256) for _ in range(3)))
            if draw.random() < 0.6:
                fill = Image.blend(fill, draw.choice(textures), draw.random())
            image.paste(fill, mask=_polygon(draw, width, height))
        images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3))
    return _of_channels(torch.stack(images).permute(0, 3, 1, 2).float(), preprocessing.channels)


def _polygon(draw: random.Random, width: int, height: int) -> Image.Image:
    radius = max(width, height) * (0.02 + 0.5 * draw.random() ** 3)
    x, y, across, down = draw.uniform(0, width), draw.uniform(0, height), draw.uniform(0.3, 1.5), draw.uniform(0.3, 1.5)
    angles = sorted(draw.uniform(0, 2 * math.pi) for _ in range(draw.choice((3, 4, 5, 40))))
    mask = Image.new("L", (width, height))
    corners = [(x + radius * across * math.cos(angle), y + radius * down * math.sin(angle)) for angle in angles]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask
