"""Regularizers: changes made to the images after a step.

Each is its settings, and its call is the change.  To add one, write its class here and name it among the fields of
`phosphene.recipes.recipe.Recipe`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from phosphene.errors import InputError
from phosphene.recipes.section import Section

if TYPE_CHECKING:
    from torch import Tensor


def _every(steps: int) -> Any:
    return Field(steps, ge=1, le=1_000_000, description="every so many steps")


def _phase() -> Any:
    return Field(
        0,
        ge=0,
        le=1_000_000,
        description="the step after which it acts first, counted from 1, and from there on every so many; 0: the step "
        "`every`",
    )


class Regularizer(Section):
    """What all regularizers have."""

    if TYPE_CHECKING:  # each has them behind its own fields
        every: int
        phase: int

    def acts_after(self, step: int) -> bool:
        """Whether it acts after a step, counted from 1."""
        return step >= self.phase and (step - self.phase) % self.every == 0

    @abstractmethod
    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        """The changed images.

        Args:
            images: (rows, channels, height, width) in 0..255.
            mean: the mean image, (channels, 1, 1).
            gradient: of this step's objective at the images, of their shape.
        """


class Clip(Regularizer):
    """Values below 0 become 0, above 255 become 255."""

    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        return images.clamp(0, 255)


class Decay(Regularizer):
    """The difference from the mean image shrinks by a share: L2 decay (Simonyan et al. 2013, Yosinski et al. 2015)."""

    strength: float = Field(1e-4, gt=0, le=1, description="share of the difference that goes")
    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        return images.lerp(mean, self.strength)


class Blur(Regularizer):
    """Gaussian blur (Yosinski et al. 2015)."""

    sigma: float = Field(0.5, gt=0, le=100, description="standard deviation in pixels")
    every: int = _every(4)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        from phosphene.pixels.filters import gaussian_blur

        return gaussian_blur(images, self.sigma)


class Median(Regularizer):
    """Median filter, channel by channel (Tencé 2016)."""

    size: Literal[3, 5, 7] = Field(5, description="side of the square in pixels")
    every: int = _every(4)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        from phosphene.pixels.filters import median

        return median(images, self.size)


class SmallNorm(Regularizer):
    """Pixels whose difference from the mean image has a small norm over the channels are set to the mean image.

    Yosinski et al. 2015, section 4: "clipping pixels with small norm".
    """

    percentile: float = Field(50.0, gt=0, lt=100, description="share of the pixels, in per cent")
    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        return _cut(images, mean, (images - mean).norm(dim=1), self.percentile)


class SmallContribution(Regularizer):
    """Pixels without which the objective would hardly change are set to the mean image.

    The change is taken to first order: |sum over channels of gradient * (mean - pixel)|; Yosinski et al. 2015,
    section 4: "clipping pixels with small contribution".
    """

    percentile: float = Field(90.0, gt=0, lt=100, description="share of the pixels, in per cent")
    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        return _cut(images, mean, (gradient * (mean - images)).sum(dim=1).abs(), self.percentile)


def _cut(images: Tensor, mean: Tensor, sizes: Tensor, percentile: float) -> Tensor:
    """Set the pixels whose size is 0 or below the row's percentile to the mean image; sizes: (rows, height, width)."""
    flat = sizes.flatten(1)
    rank = min(flat.shape[1], round(flat.shape[1] * percentile / 100) + 1)
    threshold = flat.kthvalue(rank, dim=1).values.view(-1, 1, 1)
    return mean.where(((sizes < threshold) | (sizes == 0))[:, None], images)


class TotalVariation(Regularizer):
    """One step down the total variation, the sum of |differences| between neighbors (Rudin et al. 1992).

    Each neighbor pulls a pixel by `strength`, or by a quarter of the difference where that is less, so that the step
    never overshoots.
    """

    strength: float = Field(1.0, gt=0, le=255, description="the most that a pixel moves by one neighbor, in 0..255")
    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        down = (images.diff(dim=-2) / 4).clamp(-self.strength, self.strength)
        right = (images.diff(dim=-1) / 4).clamp(-self.strength, self.strength)
        images = images.clone()
        images[..., :-1, :] += down
        images[..., 1:, :] -= down
        images[..., :, :-1] += right
        images[..., :, 1:] -= right
        return images


Function = Callable[..., Any]
"""(images, mean, gradient) -> images, as `Regularizer.__call__`."""


def function_name(function: Function) -> str:
    """What a function is called in what is told of it."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


class FunctionRegularizer(Regularizer):
    """A function of the caller's own, applied after each step to each image by itself, so that rows stay apart."""

    function: Function
    every: int = _every(1)
    phase: int = _phase()

    def __call__(self, images: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
        """The changed images.

        Raises:
            InputError: the function returns something else than an image of the same shape.
        """
        changed = images.clone()
        for i in range(len(images)):
            result = self.function(images[i : i + 1].clone(), mean, gradient[i : i + 1])
            if getattr(result, "shape", None) != images[i : i + 1].shape:
                shape = list(getattr(result, "shape", ())) or type(result).__name__
                raise InputError(
                    f"regularizer {function_name(self.function)} returned {shape}: expected images of shape "
                    f"{[1, *images.shape[1:]]}"
                )
            changed[i : i + 1] = result.detach()
        return changed
