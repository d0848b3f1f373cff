"""Which fields of a recipe the page has controls for, and how far their sliders reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from phosphene.recipes.files import recipe_names
from phosphene.recipes.recipe import REGULARIZERS, Recipe
from phosphene.recipes.section import fields
from phosphene.studio.messages import RunInputs

# Recipes that need a photograph, or a folder of them.
OF_IMAGES = ("caricature", "dream", "invert")
OF_FOLDERS = ("explain", "vital")

_WORDS = {
    "steps": "steps",
    "optimizer.rate": "rate",
    "canvas.contrast": "contrast",
    "keep.contrast": "contrast of the kept image",
    "views.crop": "crop: smallest share",
    "views.rotate": "rotation, degrees",
    "views.jitter": "jitter, pixels",
    "views.noise": "noise: at most",
    "views.pad": "border, pixels",
    "priors.statistics.weight": "natural statistics: weight",
    "priors.total_variation.weight": "total variation: weight",
    "priors.norm.weight": "norm: weight",
    "decay.strength": "decay: strength",
    "blur.sigma": "blur: width, pixels",
    "blur.every": "blur: every so many steps",
    "median.size": "median: 3, 5 or 7 pixels",
    "median.every": "median: every so many steps",
    "small_norm.percentile": "small norm: per cent",
    "small_contribution.percentile": "small contribution: per cent",
    "total_variation.strength": "total variation: strength",
}

_LINEAR: dict[str, tuple[float, float, float]] = {  # from, to, by
    "canvas.contrast": (0.2, 10, 0.1),
    "keep.contrast": (0, 0.5, 0.01),
    "views.crop": (0.02, 0.98, 0.01),
    "views.rotate": (0, 45, 1),
    "views.jitter": (0, 64, 1),
    "views.noise": (0, 128, 1),
    "views.pad": (1, 64, 1),
    "blur.sigma": (0.1, 4, 0.1),
    "blur.every": (1, 32, 1),
    "median.size": (3, 7, 2),
    "median.every": (1, 32, 1),
    "small_norm.percentile": (1, 99, 1),
    "small_contribution.percentile": (1, 99, 1),
    "total_variation.strength": (0.1, 20, 0.1),
}
_FACTOR = 100.0  # how far up and down from its value the slider of any other field reaches


@dataclass(frozen=True)
class Control:
    """A field with a control.

    Attributes:
        field: its dotted name.
        words: what it is called on the page.
        help: what it means.
        value: as it is.
        low, high, by: the ends of the slider and its grain; of a logarithmic one these are of the value's logarithm
            to base 10.
        logarithmic: whether the slider is.
    """

    field: str
    words: str
    help: str
    value: float
    low: float
    high: float
    by: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Where on the slider a value is."""
        place = math.log10(max(value, 1e-12)) if self.logarithmic else value
        return min(self.high, max(self.low, place))

    def at(self, place: float) -> float:
        """The value at a place of the slider."""
        value = 10**place if self.logarithmic else place
        return round(value) if self.field == "steps" else float(f"{value:.3g}")


def controls(recipe: Recipe) -> list[Control]:
    """The controls of a recipe: of what it has, in the order of the page."""
    return [_control(field, recipe) for field in _WORDS if _has(recipe, field)]


def switches(recipe: Recipe) -> list[tuple[str, bool]]:
    """The regularizers that a recipe can have, and whether it does; none on a canvas that is not of pixels."""
    return [(name, getattr(recipe, name) is not None) for name in REGULARIZERS if recipe.canvas.kind == "pixels"]


def listed_recipes(images: bool = False, folders: bool = False) -> tuple[str, ...]:
    """The recipes that ship, but for those that need what there is none of: a photograph, or a folder of them."""
    missing = (() if images else OF_IMAGES) + (() if folders else OF_FOLDERS)
    return tuple(name for name in recipe_names() if name not in missing)


def with_inputs(recipe: Recipe, inputs: RunInputs) -> Recipe:
    """A recipe with what of a run's inputs is part of one.

    Raises:
        InputError: a size or a start that the recipe cannot have.
    """
    fields: dict[str, Any] = {}
    if inputs.size is not None:
        fields["size"] = list(inputs.size)
    if inputs.start:
        fields["start.kind"] = "image"
    statistics = recipe.priors.statistics
    if inputs.photographs and (recipe.name in OF_FOLDERS or (statistics and statistics.source == "unit")):
        fields["priors.statistics.photographs"] = inputs.photographs
    return recipe.override(fields) if fields else recipe


def change(recipe: Recipe, field: str, value: Any) -> Recipe:
    """The recipe with a control's field changed.

    Raises:
        InputError: the value is out of range.
    """
    if field == "views.crop":
        value = [value, max(value, recipe.views.crop[1])]
    if field == "views.noise":
        low, high = recipe.views.noise
        value = [value if low == high > 0 else min(low, value), value]
    if field in ("steps", "median.size", "blur.every", "median.every") and float(value).is_integer():
        value = int(value)
    return recipe.override({field: value})


def _has(recipe: Recipe, field: str) -> bool:
    section, _, name = field.rpartition(".")
    if section == "views":
        moving = recipe.views.affine or (name == "noise" and recipe.views.noisy)
        return moving and (name != "pad" or recipe.views.pad > 0)
    if field == "canvas.contrast":
        return recipe.canvas.kind != "pixels" and recipe.canvas.contrast > 0
    return _value(recipe, field) is not None


def _value(recipe: Recipe, field: str) -> Any:
    value: Any = recipe
    for name in field.split("."):
        value = getattr(value, name, None)
    return value


def _control(field: str, recipe: Recipe) -> Control:
    value = _value(recipe, field)
    value = value[0] if field == "views.crop" else value[1] if field == "views.noise" else value
    if field in _LINEAR:
        low, high, by = _LINEAR[field]
        return Control(field, _WORDS[field], _help()[field], value, low, max(high, value), by, False)
    middle = math.log10(value)
    low, high = middle - math.log10(_FACTOR), middle + math.log10(_FACTOR)
    if field == "steps":
        low, high = 0.0, max(math.log10(4096), middle)
    elif field == "decay.strength":
        high = 0.0  # all of the difference
    return Control(field, _WORDS[field], _help()[field], value, low, high, 0.01, True)


@lru_cache
def _help() -> dict[str, str]:
    return {name: words for name, _, _, words in fields(Recipe)}
