"""Regularizers: changes made to the image after a step.

Each is made from its settings in a recipe and takes images (rows, channels, height, width) in 0..255, the mean image
(channels, 1, 1), and the gradient of this step's objective at the images; it gives the changed images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from phosphene.ascent import filters
from phosphene.recipes import schema

Regularizer = Callable[[Tensor, Tensor, Tensor], Tensor]


def clip(settings: schema.Clip) -> Regularizer:
    """Values below 0 become 0, above 255 become 255."""
    return lambda images, mean, gradient: images.clamp(0, 255)


def decay(settings: schema.Decay) -> Regularizer:
    """The difference from the mean image shrinks by a share: L2 decay (Simonyan et al. 2013, Yosinski et al. 2015)."""
    return lambda images, mean, gradient: torch.lerp(images, mean, settings.strength)


def blur(settings: schema.Blur) -> Regularizer:
    """Gaussian blur (Yosinski et al. 2015)."""
    return lambda images, mean, gradient: filters.gaussian_blur(images, settings.sigma)


def median(settings: schema.Median) -> Regularizer:
    """Median filter (Tencé 2016)."""
    return lambda images, mean, gradient: filters.median(images, settings.size)


def small_norm(settings: schema.SmallNorm) -> Regularizer:
    """Pixels whose difference from the mean image has a small norm over the channels are set to the mean image.

    Yosinski et al. 2015, section 4: "clipping pixels with small norm".
    """
    return lambda images, mean, gradient: _cut(images, mean, (images - mean).norm(dim=1), settings.percentile)


def small_contribution(settings: schema.SmallContribution) -> Regularizer:
    """Pixels without which the objective would hardly change are set to the mean image.

    The change is taken to first order: |sum over channels of gradient * (mean - pixel)|; Yosinski et al. 2015,
    section 4: "clipping pixels with small contribution".
    """

    def regularize(images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        return _cut(images, mean, (gradient * (mean - images)).sum(dim=1).abs(), settings.percentile)

    return regularize


def _cut(images: Tensor, mean: Tensor, sizes: Tensor, percentile: float) -> Tensor:
    """Set the pixels whose size is 0 or below the row's percentile to the mean image; sizes: (rows, height, width)."""
    flat = sizes.flatten(1)
    rank = min(flat.shape[1], round(flat.shape[1] * percentile / 100) + 1)
    threshold = flat.kthvalue(rank, dim=1).values.view(-1, 1, 1)
    return torch.where(((sizes < threshold) | (sizes == 0))[:, None], mean, images)


def total_variation(settings: schema.TotalVariation) -> Regularizer:
    """One step down the total variation, the sum of |differences| between neighbours (Rudin et al. 1992).

    Each neighbour pulls a pixel by `strength`, or by a quarter of the difference where that is less, so that the step
    never overshoots.
    """

    def regularize(images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        down = (images.diff(dim=-2) / 4).clamp(-settings.strength, settings.strength)
        right = (images.diff(dim=-1) / 4).clamp(-settings.strength, settings.strength)
        images = images.clone()
        images[..., :-1, :] += down
        images[..., 1:, :] -= down
        images[..., :, :-1] += right
        images[..., :, 1:] -= right
        return images

    return regularize


FACTORIES: dict[str, Callable[..., Regularizer]] = {
    "clip": clip,
    "decay": decay,
    "blur": blur,
    "median": median,
    "small_norm": small_norm,
    "small_contribution": small_contribution,
    "total_variation": total_variation,
}


def make_regularizers(settings: schema.Recipe) -> list[tuple[str, schema.RegularizerSettings, Regularizer]]:
    """The recipe's regularizers in their order: name, settings, function."""
    return [(name, section, FACTORIES[name](section)) for name, section in settings.regularizers]
