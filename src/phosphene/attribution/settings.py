"""How maps are made, and by which methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from phosphene.errors import InputError, did_you_mean, printable

METHODS = {
    "integrated-gradients": "integrated gradients (Sundararajan et al. 2017)",
    "occlusion": "occlusion (Zeiler & Fergus 2014)",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017)",
    "guided-backpropagation": "guided backpropagation (Springenberg et al. 2015)",
    "saliency": "saliency (Simonyan et al. 2013)",
}
"""The methods by name, and whose they are."""

DEFAULT_METHODS = ("integrated-gradients", "occlusion", "grad-cam")
ALL = "all"

Baseline = Literal["mean", "black", "gray", "white", "blur"]
BASELINES: tuple[str, ...] = get_args(Baseline)

_MOST = 10_000


@dataclass(frozen=True)
class AttributionSettings:
    """How maps are made.

    Attributes:
        baseline: the image without anything in it, from which integrated gradients start, with which occlusion covers
            and to which deletion leads: the network's "mean" image, "black", "gray", "white", or the photograph as a
            "blur".
        steps: of integrated gradients.
        window: the side of what occlusion covers at once, in pixels; by default a seventh of the shorter side.
        stride: how far the window moves; by default half a window.
        layer: of Grad-CAM; by default the last one with a map before the unit, from which a gradient gets to the unit.
        samples: SmoothGrad (Smilkov et al. 2017): saliency and guided backpropagation are the mean over so many copies
            with noise; 0: of the photograph alone.
        noise: its standard deviation, a share of the range of pixels.
        smoothing: of the maps as they are shown, a Gaussian's standard deviation as a share of the shorter side; 0:
            none.  Arrays and numbers are of the maps as they are.
        seed: of what is random.
        batch: so many images go through at once.
        device: where; by default where the network is.

    Raises:
        InputError: a value is none of these.
    """

    baseline: Baseline = "mean"
    steps: int = 50
    window: int | None = None
    stride: int | None = None
    layer: str | None = None
    samples: int = 0
    noise: float = 0.15
    smoothing: float = 0.015
    seed: int = 0
    batch: int = 16
    device: str | None = None

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            given = printable(self.baseline, 40)
            raise InputError(
                f"baseline {given!r}: expected {', '.join(BASELINES[:-1])} or {BASELINES[-1]}"
                f"{did_you_mean(str(given), BASELINES)}"
            )
        for name, least in (("steps", 2), ("window", 1), ("stride", 1), ("samples", 0), ("batch", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and least <= value <= _MOST):
                raise InputError(f"{name} {printable(repr(value), 40)}: expected a whole number of {least} to {_MOST}")
        for name in ("noise", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)!r}: expected a share of 0 to 1")


def parse_methods(text: str | Sequence[str]) -> tuple[str, ...]:
    """Methods by their names, in the order of `METHODS`: "saliency,occlusion", a list of names, or "all".

    Raises:
        InputError: no method is called so (with the nearest), or none is given.
    """
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else list(text)
    if names == [ALL]:
        return tuple(METHODS)
    for name in names:
        if name not in METHODS:
            known = ", ".join(METHODS)
            near = did_you_mean(str(name), METHODS) or f"; expected some of {known}, or all"
            raise InputError(f"no method is called {printable(repr(name), 60)}{near}")
    if not names:
        raise InputError(f"no methods are given: expected some of {', '.join(METHODS)}, or all")
    return tuple(name for name in METHODS if name in names)
