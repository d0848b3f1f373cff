"""What a recipe says of the start, the canvas, the rate, the end, and the image that is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from phosphene.recipes.section import Section


class Start(Section):
    """The first image."""

    kind: Literal["gaussian", "numpy", "uniform", "grey", "image"] = Field(
        "gaussian",
        description="noise about the mean image, the same drawn by NumPy's legacy generator (as scripts of 2016 draw "
        "it), uniform noise, mid-gray, or a given image",
    )
    sigma: float = Field(10.0, ge=0, le=255, description="standard deviation of the Gaussian noise")
    low: float = Field(0.0, ge=0, le=255, description="lower end of the uniform noise")
    high: float = Field(255.0, ge=0, le=255, description="upper end of the uniform noise")

    @model_validator(mode="after")
    def _rising(self) -> Start:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class CanvasSettings(Section):
    """How the image is parametrized."""

    kind: Literal["pixels", "fourier", "maco", "sum"] = Field(
        "pixels",
        description="pixels, Fourier coefficients, Fourier phases under photographs' magnitude (MACO), or the sum of "
        "planes of all sizes from 1 pixel up",
    )
    exponent: float = Field(
        1.0, ge=0, le=4, description="of a Fourier canvas: a coefficient of frequency f is scaled by 1/f to this power"
    )
    colours: str = Field(
        "imagenet",
        min_length=1,
        description="of all canvases but pixels, which colors go together: imagenet, photographs (as shipped), none, "
        "or a file that `phosphene statistics` made of your own",
    )
    contrast: float = Field(
        0.0,
        ge=0,
        le=100,
        description="the most that the values before the sigmoid deviate from 0 (root mean square); 0: any",
    )
    spectrum: Literal["free", "held"] = Field(
        "free",
        description="of a Fourier canvas, how contrast spreads over the frequencies: freely, or "
        "with no more power in any band than `contrast` squared times the share that photographs have there",
    )

    dtype: Literal["float32", "float64"] = Field(
        "float32",
        description="of a canvas of pixels, how they are kept from step to step; the network's passes have their own "
        "precision",
    )

    @model_validator(mode="after")
    def _holds(self) -> CanvasSettings:
        if self.dtype == "float64" and self.kind != "pixels":
            raise ValueError("dtype 'float64' is of pixels: expected kind 'pixels'")
        if self.spectrum == "held" and (self.kind != "fourier" or not self.contrast):
            raise ValueError("spectrum 'held' needs kind 'fourier' and a contrast above 0")
        return self


class Growth(Section):
    """From coarse to fine: the canvas grows on the way, and what is on it grows along."""

    sizes: tuple[float, ...] = Field(description="shares of the final height and width, rising to 1")
    at: tuple[float, ...] = Field(description="shares of the steps at which each size begins, from 0")

    @model_validator(mode="after")
    def _rising(self) -> Growth:
        if not self.sizes or self.sizes[-1] != 1 or min(self.sizes) <= 0 or list(self.sizes) != sorted(self.sizes):
            raise ValueError(f"sizes {list(self.sizes)}: expected shares that rise to 1, such as [0.43, 0.71, 1]")
        if len(self.at) != len(self.sizes) or self.at[0] != 0 or self.at[-1] >= 1 or list(self.at) != sorted(self.at):
            raise ValueError(
                f"at {list(self.at)}: expected a share for each size, rising from 0, such as [0, 0.3, 0.6]"
            )
        return self


class Schedule(Section):
    """How the rate changes over the steps."""

    kind: Literal["constant", "linear", "cosine", "step", "progress"] = Field(
        "constant",
        description="constant; falling to `end` in a line or a half cosine; multiplied by `factor` every so many "
        "steps; or sized at each step for a wanted gain of the objective, `rate` being the most",
    )
    begin: float = Field(0.0, ge=0, lt=1, description="share of the steps before a linear or cosine fall begins")
    end: float = Field(0.0, ge=0, le=1, description="share of the rate at the end of a linear or cosine fall")
    factor: float = Field(0.5, gt=0, le=1, description="factor of kind step")
    every: int = Field(100, ge=1, le=1_000_000, description="steps between two factors of kind step")
    gain: float = Field(2.0, gt=0, le=1e6, description="gain of the objective a step that kind progress wants")
    warmup: int = Field(0, ge=0, le=1_000_000, description="steps over which the rate rises to its first value")


class StoppingSettings(Section):
    """When a row stops before its last step."""

    patience: int = Field(0, ge=0, le=1_000_000, description="steps without a rise of the smoothed objective; 0: never")
    tolerance: float = Field(0.01, ge=0, le=1, description="relative gain that counts as a rise")
    smoothing: float = Field(0.9, ge=0, lt=1, description="weight of the past in the smoothed objective")
    confidence: float = Field(0.0, ge=0, lt=1, description="the network's own probability of the class; 0: never")
    hold: int = Field(10, ge=1, le=1_000_000, description="steps for which that probability must hold")
    still: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="steps in a row without any gradient after which a unit counts as dead; 0: one, or 20 where views "
        "change from step to step",
    )


class OutputSettings(Section):
    """Which image is kept."""

    rule: Literal["clipped", "last", "best"] = Field(
        "clipped",
        description="the last after clipping but before the other regularizers, the last after all of them, or the "
        "one with the highest objective",
    )
    every: int = Field(0, ge=0, le=1_000_000, description="also keep a frame every so many steps; 0: none")
    until: int = Field(0, ge=0, le=1_000_000, description="last step with a frame; 0: all")
    contrast: float = Field(
        0.0,
        ge=0,
        le=1,
        description="standard deviation, of 1, that the kept image is brought to; 0: as is",
    )
    rounding: Literal["nearest", "down"] = Field(
        "nearest", description="how values become 8 bits: to the nearest whole number, or cut, as NumPy's `astype` does"
    )
    transparency: bool = Field(
        False, description="whether what the objective never cared for is saved transparent (MACO; Fel et al. 2023)"
    )


class TuningRecord(Section):
    """Where a recipe comes from that a search has found."""

    network: str = Field(description="the network's name")
    weights: str = Field(description="the digest of its weights")
    units: str = Field("classes", description="what it is for: classes, or a layer")
    score: float = Field(description="what the search maximized, of the best trial")
    judges: tuple[str, ...] = Field((), description="the networks whose probability of the class that was")
    trials: int = Field(ge=1, description="how many trials there were")
    space: str = Field("", description="the search space")
    seed: int = Field(0, ge=0, description="of the classes or channels searched on, and of their images")
