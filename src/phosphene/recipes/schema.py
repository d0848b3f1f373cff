"""Recipes: all that determines an image, but for the network, the unit and the seed.

Rates and all other pixel quantities are in units of 0..255 pixels, whatever the network's own input range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from phosphene.errors import InputError, did_you_mean, error_text, printable
from phosphene.files import MAX_TOML, is_file, parse_toml, read_text
from phosphene.units.objects import Unit, shows_classes

MAX_NETWORKS = 200
"""Sections of a recipe for networks, each of which is validated with all of the recipe."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Start(_Section):
    """The first image."""

    kind: Literal["gaussian", "numpy", "uniform", "grey", "image"] = Field(
        "gaussian",
        description="noise about the mean image, the same drawn by NumPy's legacy generator (as scripts of 2016 draw "
        "it), uniform noise, mid-grey, or a given image",
    )
    sigma: float = Field(10.0, ge=0, le=255, description="standard deviation of the Gaussian noise")
    low: float = Field(0.0, ge=0, le=255, description="lower end of the uniform noise")
    high: float = Field(255.0, ge=0, le=255, description="upper end of the uniform noise")

    @model_validator(mode="after")
    def _rising(self) -> Start:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class CanvasSettings(_Section):
    """How the image is parametrised."""

    kind: Literal["pixels", "fourier", "maco"] = Field(
        "pixels", description="pixels, Fourier coefficients, or Fourier phases under photographs' magnitude (MACO)"
    )
    exponent: float = Field(
        1.0, ge=0, le=4, description="of a Fourier canvas: a coefficient of frequency f is scaled by 1/f to this power"
    )
    colours: str = Field(
        "imagenet",
        min_length=1,
        description="of a Fourier or MACO canvas, which colours go together: imagenet, photographs (as shipped), none, "
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


class Growth(_Section):
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


class TransformSettings(_Section):
    """Random transforms of the image before it enters the network, drawn anew for each row, view and step."""

    count: int = Field(1, ge=1, le=1024, description="views of an image a step; the objective is their mean")
    crop: tuple[float, float] = Field((1.0, 1.0), description="share of the area that is seen: from, to")
    scale: tuple[float, float] = Field((1.0, 1.0), description="enlargement about the middle of what is seen: from, to")
    rotate: float = Field(0.0, ge=0, le=180, description="degrees at most, either way")
    jitter: float = Field(0.0, ge=0, le=4096, description="shift in pixels at most, either way, down and across")
    flip: bool = Field(False, description="mirrored every other time")
    pad: float = Field(0.0, ge=0, le=4096, description="grey border in pixels around the image")
    noise: tuple[float, float] = Field(
        (0.0, 0.0), description="standard deviation of noise added, in 0..255: from, to; one number is both"
    )
    colour: float = Field(
        0.0,
        ge=0,
        le=1,
        description="each channel brighter or darker, and of more or less contrast, by this share at most",
    )

    @field_validator("crop", "scale", "noise", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> TransformSettings:
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop {list(self.crop)}: expected two shares of the area that rise, up to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 100:
            raise ValueError(f"scale {list(self.scale)}: expected two factors above 0 that rise")
        if not 0 <= self.noise[0] <= self.noise[1] <= 255:
            raise ValueError(f"noise {list(self.noise)}: expected two deviations that rise, from 0 up to 255")
        return self

    @property
    def noisy(self) -> bool:
        """Whether noise is added."""
        return self.noise[1] > 0

    @property
    def affine(self) -> bool:
        """Whether the image is resampled."""
        still = self.crop == self.scale == (1.0, 1.0) and not (self.rotate or self.jitter or self.flip or self.pad)
        return not still


class StatisticsSettings(_Section):
    """Channel means and deviations like natural images' (DeepInversion; Yin et al. 2020)."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class; see docs/quality.md for other units")
    source: Literal["auto", "batchnorm", "gathered"] = Field(
        "auto",
        description="what natural images' are: the running ones of batch normalisation, those gathered by "
        "`phosphene statistics`, or whichever there is",
    )
    pool: Literal["row", "group"] = Field(
        "row", description="taken over one image's views, or over all images of a group that is made together"
    )
    side: Literal["both", "above"] = Field(
        "both",
        description="what costs: being off either way; or only what is more than natural, since no photograph has all "
        "that photographs have on average",
    )
    margin: float = Field(0.0, ge=0, le=100, description="deviation that costs nothing, in natural deviations")
    until: float = Field(1.0, gt=0, le=1, description="which layers count: this share of them, from the first on")
    depth: float = Field(
        0.0, ge=0, le=100, description="how much less later layers count: the last by e to the minus this of the first"
    )
    every: int = Field(1, ge=1, le=1000, description="a layer is looked at every so many steps, the layers in turn")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a running average over an image's steps, which costs in place of the step's own: the share of "
        "what was before",
    )


class TotalVariationPenaltySettings(_Section):
    """The mean |difference| of neighbouring pixels, in 0..1."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class")


class NormSettings(_Section):
    """The mean |difference from the mean image| to a power, in 0..1."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class")
    power: float = Field(2.0, ge=1, le=20, description="2 for L2, 6 as Mahendran & Vedaldi 2016")


class DiversitySettings(_Section):
    """Facets of a unit that differ: the mean cosine of their features, two by two (Olah et al. 2017)."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class")
    layer: str = Field("", description="whose features; by default a late one with a map")


class PenaltySettings(_Section):
    """Terms that are taken off the objective."""

    statistics: StatisticsSettings | None = None
    total_variation: TotalVariationPenaltySettings | None = None
    norm: NormSettings | None = None
    diversity: DiversitySettings | None = None


# Named as the field names them; all others go by torch's own names.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "classic": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
}
_UNFIT = {
    "LBFGS": "it evaluates the objective several times a step",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only",
}


def find_optimizer(name: str) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The torch optimiser of that name, in any case, and the options that the name stands for."""
    if name.lower() in OPTIMIZERS:
        return OPTIMIZERS[name.lower()]
    known = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    for key, value in known.items():
        if key.lower() == name.lower():
            if key in _UNFIT:
                raise ValueError(f"{key} does not fit here: {_UNFIT[key]}")
            return value, {}
    choices = [*OPTIMIZERS, *(key for key in known if key not in _UNFIT)]
    raise ValueError(f"no optimiser is called {name!r}{did_you_mean(name, choices)} (one of {', '.join(choices)})")


class Optimizer(_Section):
    """How a gradient becomes a step."""

    name: str = Field("classic", description="classic, momentum, nesterov, rmsprop, adam, or any optimiser of torch")
    rate: float = Field(gt=0, le=1e12, description="learning rate, in units of 0..255 pixels")
    gradient: Literal["raw", "l2", "rms", "planes"] = Field(
        "raw",
        description="the gradient as it is; divided by its L2 norm; by its root mean square; or each colour plane's by "
        "its own",
    )
    options: dict[str, bool | int | float | str | list[float]] = Field(
        {}, description="further options of the optimiser, as torch names them (momentum, betas, …)"
    )

    @model_validator(mode="after")
    def _constructs(self) -> Optimizer:
        self.build(torch.zeros(1))
        return self

    def build(self, parameter: torch.Tensor) -> torch.optim.Optimizer | None:
        """The torch optimiser of one row, which climbs; None for plain steps along the gradient, which need none."""
        if self.name.lower() == "classic" and not self.options:
            return None
        kind, options = find_optimizer(self.name)
        options = options | self.options
        try:
            return kind([parameter], lr=self.rate, maximize=True, **options)  # type: ignore[call-arg]
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            raise ValueError(f"{kind.__name__} has no option {unknown[1]!r}" if unknown else str(error)) from None
        except ValueError:
            raise
        except Exception as error:  # of what an optimiser does with options that are of another kind
            raise ValueError(
                f"{kind.__name__} does not take {printable(repr(options))} ({error_text(error)})"
            ) from None


class Schedule(_Section):
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


class RegularizerSettings(_Section):
    """What all regularizers have."""

    if TYPE_CHECKING:  # each has them behind its own fields
        every: int
        phase: int

    def acts_after(self, step: int) -> bool:
        """Whether it acts after a step, counted from 1."""
        return step >= self.phase and (step - self.phase) % self.every == 0


class Clip(RegularizerSettings):
    """Values are brought into 0..255."""

    every: int = _every(1)
    phase: int = _phase()


class Decay(RegularizerSettings):
    """L2 decay: the difference from the mean image shrinks."""

    strength: float = Field(1e-4, gt=0, le=1, description="share of the difference that goes")
    every: int = _every(1)
    phase: int = _phase()


class Blur(RegularizerSettings):
    """Gaussian blur."""

    sigma: float = Field(0.5, gt=0, le=100, description="standard deviation in pixels")
    every: int = _every(4)
    phase: int = _phase()


class Median(RegularizerSettings):
    """Median filter, channel by channel."""

    size: Literal[3, 5, 7] = Field(5, description="side of the square in pixels")
    every: int = _every(4)
    phase: int = _phase()


class SmallNorm(RegularizerSettings):
    """Pixels whose colour differs least from the mean image's are set to it (Yosinski et al. 2015)."""

    percentile: float = Field(50.0, gt=0, lt=100, description="share of the pixels, in per cent")
    every: int = _every(1)
    phase: int = _phase()


class SmallContribution(RegularizerSettings):
    """Pixels whose difference from the mean image matters least to the objective are set to it (Yosinski et al.)."""

    percentile: float = Field(90.0, gt=0, lt=100, description="share of the pixels, in per cent")
    every: int = _every(1)
    phase: int = _phase()


class TotalVariation(RegularizerSettings):
    """A gradient step down the total variation."""

    strength: float = Field(1.0, gt=0, le=255, description="the most that a pixel moves by one neighbour, in 0..255")
    every: int = _every(1)
    phase: int = _phase()


RegularizerName = Literal["clip", "decay", "blur", "median", "small_norm", "small_contribution", "total_variation"]
REGULARIZERS: tuple[RegularizerName, ...] = get_args(RegularizerName)


class StoppingSettings(_Section):
    """When a row stops before its last step."""

    patience: int = Field(0, ge=0, le=1_000_000, description="steps without a rise of the smoothed objective; 0: never")
    tolerance: float = Field(0.01, ge=0, le=1, description="relative gain that counts as a rise")
    smoothing: float = Field(0.9, ge=0, lt=1, description="weight of the past in the smoothed objective")
    confidence: float = Field(0.0, ge=0, lt=1, description="the network's probability of the class; 0: never")
    hold: int = Field(10, ge=1, le=1_000_000, description="steps for which that probability must hold")
    still: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="steps in a row without any gradient after which a unit counts as dead; 0: one, or 20 where views "
        "change from step to step",
    )


class OutputSettings(_Section):
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


class TuningRecord(_Section):
    """Where a recipe comes from that a search has found."""

    network: str = Field(description="the network's name")
    weights: str = Field(description="the digest of its weights")
    units: str = Field("classes", description="what it is for: classes, or a layer")
    score: float = Field(description="what the search maximised, of the best trial")
    judges: tuple[str, ...] = Field((), description="the networks whose probability of the class that was")
    trials: int = Field(ge=1, description="how many trials there were")
    space: str = Field("", description="the search space")
    seed: int = Field(0, ge=0, description="of the classes or channels searched on, and of their images")


class Recipe(_Section):
    """All that determines an image, but for the network, the unit and the seed.  Frozen and validated."""

    name: str = Field("custom", min_length=1, description="what the recipe is called")
    description: str = Field("", description="one line about it")
    steps: int = Field(ge=1, le=1_000_000, description="steps at most")
    size: tuple[int, int] | None = Field(None, description="height and width in pixels; the network's own if not given")
    start: Start = Start()
    canvas: CanvasSettings = CanvasSettings()
    growth: Growth | None = None
    views: TransformSettings = TransformSettings()
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    priors: PenaltySettings = PenaltySettings()
    redirect: bool = Field(
        False,
        description="whether a hidden unit that is 0 behind its activation counts as what goes into that (Lucid's "
        "redirected ReLU), so that it wakes",
    )
    order: tuple[RegularizerName, ...] = Field(REGULARIZERS, description="in which the regularizers follow each other")
    clip: Clip | None = None
    decay: Decay | None = None
    blur: Blur | None = None
    median: Median | None = None
    small_norm: SmallNorm | None = None
    small_contribution: SmallContribution | None = None
    total_variation: TotalVariation | None = None
    stop: StoppingSettings = StoppingSettings()
    keep: OutputSettings = OutputSettings()
    found: TuningRecord | None = None
    hidden: dict[str, Any] = Field(
        {},
        description="for units that are not classes: fields by dotted names, since a class is a scene, and what a "
        "hidden unit shows, mostly a texture, is not",
    )
    networks: dict[str, dict[str, Any]] = Field(
        {},
        description="for a network by name, for those that a pattern fits (efficientnet_lite*), or for any `other`: "
        "fields that were found for it, by dotted names",
    )

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.size is not None and not all(1 <= side <= 16384 for side in self.size):
            raise ValueError(f"size {self.size}: expected 1 to 16384 pixels")
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"order names a regularizer twice: {', '.join(self.order)}")
        left_out = [name for name in REGULARIZERS if getattr(self, name) is not None and name not in self.order]
        if left_out:
            raise ValueError(f"order leaves out {', '.join(left_out)}")
        if self.schedule.kind == "progress" and self.optimizer.name.lower() != "classic":
            raise ValueError("schedule.kind progress sizes plain steps: expected optimizer.name classic")
        if self.canvas.kind != "pixels" and self.regularizers:
            raise ValueError(
                f"{self.regularizers[0][0]} changes pixels, and canvas.kind is {self.canvas.kind}: expected pixels, or "
                "priors in its place"
            )
        if self.canvas.kind != "pixels" and self.start.kind in ("numpy", "uniform"):
            raise ValueError(
                f"start.kind {self.start.kind} is of pixels, and canvas.kind is {self.canvas.kind}: expected gaussian"
            )
        if len(self.networks) > MAX_NETWORKS:
            raise ValueError(f"networks has {len(self.networks):,} sections: expected {MAX_NETWORKS} at most")
        if "size" in self.hidden:
            raise ValueError("in hidden: size is of all units: expected it outside")
        variants: dict[str, Callable[[], Recipe]] = {
            f"networks.{name}": partial(self.for_network, name) for name in self.networks
        }
        if self.hidden:
            variants["hidden"] = partial(self._for_kind, hidden=True)
        for place, made in variants.items():
            try:
                made()
            except InputError as error:
                raise ValueError(f"in {place}: {error}") from None
        return self

    def batch_key(self) -> str:
        """Recipes of which this is equal go through a network together, a batch of both (see `phosphene.ascent.loop`).

        It tells which numbers there are and what is drawn; how large they are may differ from row to row.
        """
        views, priors = self.views, self.priors
        drawn = (views.count, views.affine, views.pad > 0)
        kept = priors.model_dump(exclude={name: {"weight"} for name in type(priors).model_fields})
        return repr((self.size, self.canvas.kind, self.canvas.dtype, self.redirect, drawn, kept))

    def resume_key(self) -> str:
        """An image begun by a recipe can go on by any other of which this is equal.

        See `phosphene.ascent.loop.OnStep`.

        It tells what is settled with the first step; how strong things are may change, and when it ends.
        """
        canvas = self.canvas.model_dump(exclude={"contrast"})
        steps = self.steps if self.growth else None  # which say when the canvas grows
        optimizer = (self.optimizer.name, self.optimizer.options)
        return repr((self.batch_key(), self.start, canvas, self.growth, steps, optimizer, self.keep.transparency))

    def changes_to(self, other: Recipe) -> dict[str, Any]:
        """The fields that another recipe of the same course has otherwise, by dotted names: as `override` takes them.

        Example:
            >>> Recipe.load("tence").changes_to(Recipe.load("tence").changed({"median": "off", "blur.sigma": 0.6}))
            {'median': 'off', 'blur.sigma': 0.6, 'blur.every': 4}
        """
        mine, others = (dict(_flat(each.model_dump(mode="json", exclude_none=True))) for each in (self, other))
        gone = [name for name in REGULARIZERS if getattr(self, name) is not None and getattr(other, name) is None]
        changes: dict[str, Any] = dict.fromkeys(gone, "off")
        return changes | {name: value for name, value in others.items() if mine.get(name, _later(name)) != value}

    @property
    def regularizers(self) -> list[tuple[str, RegularizerSettings]]:
        """The names and settings of the regularizers that are on, in their order."""
        return [(name, getattr(self, name)) for name in self.order if getattr(self, name) is not None]

    def override(self, fields: Mapping[str, Any]) -> Recipe:
        """The recipe with fields changed, by their dotted names.

        A field of a regularizer that is off turns it on; the name of a regularizer with the value "off" turns it off.
        What is set here holds on every network and for every unit, also where `networks` or `hidden` have another
        value.

        Raises:
            InputError: a field is unknown (with the nearest) or a value out of range (with the range).

        Example:
            >>> Recipe.load("naive").changed({"median.size": 3, "steps": 100}).median
            Median(size=3, every=4, phase=0)
        """
        data = self.model_dump(exclude_none=True)
        for found in (*data["networks"].values(), data["hidden"]):
            for field in list(found):
                if any(_overlap(field, changed) for changed in fields):
                    del found[field]
        return self._with(fields, data)

    def _with(self, fields: Mapping[str, Any], data: dict[str, Any]) -> Recipe:
        for field, value in fields.items():
            *sections, last = field.split(".")
            place = data
            for section in sections:
                if not isinstance(place.setdefault(section, {}), dict):
                    raise InputError(_unknown_field(field))
                place = place[section]
            optional = (not sections and last in (*REGULARIZERS, "growth")) or sections == ["priors"]
            if optional and value in ("off", False, 0):
                place.pop(last, None)
            else:
                place[last] = value
        return _validate(data, f"recipe {self.name}")

    def section_of(self, network: str) -> str:
        """The section of `networks` that is for a network: of its name, of the first pattern that fits, or `other`."""
        fitting = (section for section in self.networks if fnmatchcase(network, section))
        return network if network in self.networks else next(fitting, "other")

    def for_network(self, name: str) -> Recipe:
        """The recipe with what was found for that network, or else for any `other`, put in, and the rest left out."""
        found = self.networks.get(self.section_of(name), {})
        return self._with(found, self.model_dump(exclude_none=True) | {"networks": {}}) if self.networks else self

    def for_unit(self, unit: Unit) -> Recipe:
        """The recipe with what holds for hidden units put in if the unit is one, and the rest left out."""
        return self._for_kind(not shows_classes(unit))

    def _for_kind(self, hidden: bool) -> Recipe:
        bare = self.model_copy(update={"hidden": {}})
        return bare.override(self.hidden) if hidden else bare

    def to_toml(self) -> str:
        """The recipe as a TOML text, which `Recipe.from_toml` reads back to an equal recipe."""
        return tomli_w.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, without what is not set, and without the defaults of fields that came later."""
        data = self.model_dump(mode="json", exclude_none=True)
        for section in filter(lambda section: isinstance(section, dict), data.values()):
            for name in [name for name, default in _LATER.items() if section.get(name) == default]:
                del section[name]
        if self.order == REGULARIZERS:
            del data["order"]
        for place, name in ((data, "hidden"), (data, "networks"), (data["optimizer"], "options")):
            if not place[name]:
                del place[name]
        return data

    @classmethod
    def from_toml(cls, text: str, origin: str = "recipe") -> Recipe:
        return _validate(parse_toml(text, origin), origin)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        return _validate(dict(data), "recipe")

    @classmethod
    def load(cls, name: str | Path | Recipe) -> Recipe:
        """A recipe that ships, by name, or one of a `.toml` file, by path.

        Raises:
            InputError: there is none (with the nearest names), or it is not valid.
        """
        if isinstance(name, Recipe):
            return name
        if str(name) in recipe_names():
            return cls.from_toml((_SHIPPED / f"{name}.toml").read_text(), f"recipe {name}")
        path = Path(name)
        if path.suffix != ".toml" and not is_file(path):
            near = did_you_mean(str(name), recipe_names())
            raise InputError(f"no recipe is called {str(name)!r}{near or '; see `phosphene recipes`'}")
        origin = f"recipe file {str(path)!r}"
        return cls.from_toml(read_text(path, origin, MAX_TOML), origin)


# Fields of sections that are not written at their defaults: files are then as version 0.1.0 wrote them.
_LATER = {"phase": 0, "dtype": "float32", "rounding": "nearest", "still": 0}

_SHIPPED = resources.files("phosphene") / "recipes" / "shipped"


@lru_cache
def recipe_names() -> tuple[str, ...]:
    """The recipes that ship."""
    return tuple(sorted(entry.name[:-5] for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml")))


def toml_value(text: str) -> Any:
    """A value as TOML spells it, or else the text as it is: `3`, `[0.9, 0.99]`, `true`, `cosine`."""
    try:
        return parse_toml(f"value = {text}", "value")["value"]
    except InputError:
        return text


def fields(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every field of a recipe: its dotted name, its default, its range and what it means."""
    for name, info in section.model_fields.items():
        inner = _section_of(info.annotation)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")
        else:
            default = "" if info.is_required() or info.default is None else str(info.default)
            yield f"{prefix}{name}", default, _range(info), info.description or ""


@lru_cache
def _known_fields() -> tuple[tuple[str, str, str, str], ...]:
    return tuple(fields())


def _later(field: str) -> Any:
    """The default of a field by its dotted name, if it is one that is not written."""
    return _LATER.get(field.rpartition(".")[2])


def _overlap(field: str, other: str) -> bool:
    """Whether one of two dotted names is the other, or a section that has it."""
    return f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}.")


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a recipe as plain data, by dotted names."""
    for name, value in data.items():
        if isinstance(value, dict) and name not in ("options", "hidden", "networks"):  # which are fields themselves
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, _Section):
            return candidate
    return None


def _range(info: Any) -> str:
    choices = getattr(info.annotation, "__args__", ())
    if choices and all(isinstance(choice, str | int) for choice in choices):
        return " or ".join(filter(None, [", ".join(map(str, choices[:-1])), str(choices[-1])]))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [(key, getattr(entry, key)) for entry in info.metadata for key in words if hasattr(entry, key)]
    return " and ".join(f"{words[key]} {value:g}" for key, value in limits)


_MAX_PROBLEMS = 4  # problems of a recipe that are said at once


def _validate(data: dict[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as errors:
        several = errors.errors(include_url=False)
        more = f"; and {len(several) - _MAX_PROBLEMS:,} more" if len(several) > _MAX_PROBLEMS else ""
        raise InputError(f"{origin}: {'; '.join(map(_sentence, several[:_MAX_PROBLEMS]))}{more}") from None


def _sentence(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] == "extra_forbidden":
        return _unknown_field(field)
    if error["type"] == "missing":
        return f"{field} is missing"
    allowed = {name: limits for name, _, limits, _ in _known_fields()}.get(field, "")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{field} = {printable(repr(error['input']))}: {f'expected {allowed}' if allowed else message}"


def _unknown_field(field: str) -> str:
    names = [name for name, *_ in _known_fields()]
    return f"a recipe has no field {field!r}{did_you_mean(field, names) or '; see `phosphene recipes --fields`'}"
