"""Recipes: all that determines an image, but for the network, the unit and the seed.

Rates and all other pixel quantities are in units of 0..255 pixels, whatever the network's own input range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import tomli_w
from pydantic import Field, ValidationError, field_serializer, field_validator, model_validator

from phosphene.errors import InputError, did_you_mean, join_names, printable
from phosphene.recipes.files import parse_recipe, read_recipe
from phosphene.recipes.optimizer import Optimizer
from phosphene.recipes.overrides import OFF, flat, overlap
from phosphene.recipes.penalties import Penalties
from phosphene.recipes.regularizers import (
    Blur,
    Clip,
    Decay,
    Function,
    FunctionRegularizer,
    Median,
    Regularizer,
    SmallContribution,
    SmallNorm,
    TotalVariation,
    function_name,
)
from phosphene.recipes.section import Section, fields, problems, section_type, unknown_field
from phosphene.recipes.settings import (
    CanvasSettings,
    Growth,
    OutputSettings,
    Schedule,
    Start,
    StoppingSettings,
    TuningRecord,
)
from phosphene.recipes.transforms import Transforms
from phosphene.tables import html_table

if TYPE_CHECKING:
    from phosphene.units.objects import Unit

MAX_NETWORKS = 200
"""Sections of a recipe for networks, each of which is validated with all of the recipe."""


class OpenedNetwork(Protocol):
    """What a recipe asks of a network."""

    @property
    def name(self) -> str: ...

    @property
    def has_tokens(self) -> bool: ...


class Recipe(Section):
    """All that determines an image, but for the network, the unit and the seed.  Frozen and validated."""

    subject: ClassVar[str] = "a recipe"

    name: str = Field("custom", min_length=1, description="what the recipe is called")
    description: str = Field("", description="one line about it")
    steps: int = Field(ge=1, le=1_000_000, description="steps at most")
    size: tuple[int, int] | None = Field(None, description="height and width in pixels; the network's own if not given")
    start: Start = Start()
    canvas: CanvasSettings = CanvasSettings()
    growth: Growth | None = None
    views: Transforms = Transforms()
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    priors: Penalties = Penalties()
    redirect: bool = Field(
        False,
        description="whether a hidden unit that is 0 behind its activation counts as what goes into that (Lucid's "
        "redirected ReLU), so that it wakes",
    )
    order: tuple[str, ...] = Field(
        default_factory=lambda: REGULARIZERS, description="in which the regularizers follow each other"
    )
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
        description="for a network by name, for those that a pattern fits (efficientnet_lite*), for any of `tokens`, "
        "or for any `other`: fields that were found for it, by dotted names; in `hidden`, those for hidden units",
    )
    functions: tuple[Function, ...] = ()  # regularizers of the caller's own, of which a file holds only the names
    canvas_function: Any = None  # makes the caller's own canvas, of which a file holds only the name

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size

    @field_validator("functions", mode="before")
    @classmethod
    def _callable(cls, functions: Any) -> Any:
        for each in functions if isinstance(functions, list | tuple) else [functions]:
            if isinstance(each, Regularizer):
                raise ValueError(f"{each!r} is one of the recipe's own: expected Recipe.replace")
            if not callable(each):
                raise ValueError(
                    f"{printable(each)} is a function in Python, which no file holds, so nothing can be made by this "
                    "recipe as it was: see Recipe.with_regularizers"
                )
        return functions

    @field_validator("canvas_function")
    @classmethod
    def _makes_canvas(cls, function: Any) -> Any:
        if function is not None and not callable(function):
            raise ValueError(
                f"{printable(function)} is a function in Python, which no file holds, so nothing can be made by this "
                "recipe as it was: see Recipe.with_canvas"
            )
        return function

    @field_serializer("canvas_function", when_used="json")
    def _canvas_name(self, function: Any) -> str | None:
        return None if function is None else function_name(function)

    @field_serializer("functions", when_used="json")
    def _names(self, functions: tuple[Function, ...]) -> list[str]:
        return list(map(function_name, functions))

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.size is not None and not all(1 <= side <= 16384 for side in self.size):
            raise ValueError(f"size {self.size}: expected 1 to 16384 pixels")
        self._check_order()
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
        self._check_variants()
        return self

    def _check_order(self) -> None:
        for name in self.order:
            if name not in REGULARIZERS:
                raise ValueError(f"order has {printable(repr(name))}: expected {', '.join(REGULARIZERS)}")
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"order names a regularizer twice: {', '.join(self.order)}")
        left_out = [name for name in REGULARIZERS if getattr(self, name) is not None and name not in self.order]
        if left_out:
            raise ValueError(f"order leaves out {', '.join(left_out)}")

    def _check_variants(self) -> None:
        """For each network, and for hidden units, the recipe is one too."""
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

    def batch_key(self) -> str:
        """Recipes of which this is equal go through a network together, a batch of both (see `phosphene.ascent.loop`).

        It tells which numbers there are and what is drawn; how large they are may differ from row to row.
        """
        views, priors = self.views, self.priors
        drawn = (views.count, views.affine, views.pad > 0)
        kept = priors.model_dump(exclude={name: {"weight"} for name in type(priors).model_fields})
        key = repr((self.size, self.canvas.kind, self.canvas.dtype, self.redirect, drawn, kept))
        return key if self.canvas_function is None else f"{key} {id(self.canvas_function)}"

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
            >>> Recipe.load("tence").changes_to(Recipe.load("tence").override({"median": "off", "blur.sigma": 0.6}))
            {'median': 'off', 'blur.sigma': 0.6, 'blur.every': 4}
        """
        mine, others = (dict(flat(each.model_dump(mode="json", exclude_none=True))) for each in (self, other))
        gone = [name for name in REGULARIZERS if getattr(self, name) is not None and getattr(other, name) is None]
        changes: dict[str, Any] = dict.fromkeys(gone, "off")
        unwritten = {name: _LATER.get(name.rpartition(".")[2]) for name in others}
        return changes | {name: value for name, value in others.items() if mine.get(name, unwritten[name]) != value}

    def _repr_html_(self) -> str:
        """In a notebook, what the recipe settles: its fields that are not at their defaults."""
        usual = {name: default for name, default, *_ in fields(Recipe)}
        written = ((name, value) for name, value in flat(self.to_dict()) if name not in ("name", "description"))
        rows = [
            (name, ", ".join(value) if name == "networks" else value)
            for name, value in written
            if usual.get(name) != str(value) or name.partition(".")[0] in REGULARIZERS
        ]
        return f"<b>{escape(self.name)}</b> {escape(self.description)}{html_table(('field', 'value'), rows)}"

    @property
    def regularizers(self) -> list[tuple[str, Regularizer]]:
        """The names of the regularizers that are on, and they, in their order; the caller's own functions last."""
        named = [(name, getattr(self, name)) for name in self.order if getattr(self, name) is not None]
        return named + [(function_name(each), FunctionRegularizer(function=each)) for each in self.functions]

    def with_regularizers(self, *functions: Function) -> Recipe:
        """The recipe with functions that change the image after each step, behind the regularizers that it has.

        They are no part of a file: an image tells their names, and cannot be made again from its file.

        Args:
            functions: (images, mean, gradient) -> images, as `phosphene.recipes.regularizers.Regularizer` is called,
                with one image at a time, so that images do not depend on what is made beside them.

        Raises:
            InputError: the canvas is not of pixels.

        Example:
            >>> Recipe.load("clip").with_regularizers(lambda images, mean, gradient: images.round()).functions
            (<function <lambda> at ...>,)
        """
        return self._with({"functions": (*self.functions, *functions)}, self.model_dump(exclude_none=True))

    def with_canvas(self, function: Callable[..., Any]) -> Recipe:
        """The recipe on a canvas of the caller's own, in place of `canvas`.

        It is no part of a file: an image tells its name, and cannot be made again from its file.

        Args:
            function: (size, preprocessing, device) -> `phosphene.Canvas`, for images of that height and width.  A
                canvas that is not of pixels takes a recipe without regularizers.
        """
        return self._with({"canvas_function": function}, self.model_dump(exclude_none=True))

    def replace(self, **sections: Any) -> Recipe:
        """The recipe with whole sections, or other fields, in the place of its own; None turns one off.

        What is set here holds on every network and for every unit, as with `override`.

        Raises:
            InputError: there is no such section (with the nearest), or they do not go together.

        Example:
            >>> Recipe.load("clip").replace(median=Median(size=3), steps=100).median
            Median(size=3, every=4, phase=0)
        """
        names = type(self).model_fields.keys() - {"functions", "canvas_function"}
        for name in sections.keys() - names:
            near = did_you_mean(name, names) or f"; expected one of {', '.join(sorted(names))}"
            raise InputError(f"a recipe has no section {name!r}{near}")
        return self.override(sections)

    def override(self, fields: Mapping[str, Any]) -> Recipe:
        """The recipe with fields changed, by their dotted names.

        A field of a regularizer that is off turns it on; the name of a regularizer with the value "off" turns it off.
        What is set here holds on every network and for every unit, also where `networks` or `hidden` have another
        value.

        Raises:
            InputError: a field is unknown (with the nearest) or a value out of range (with the range).

        Example:
            >>> Recipe.load("naive").override({"median.size": 3, "steps": 100}).median
            Median(size=3, every=4, phase=0)
        """
        data = self.model_dump(exclude_none=True)
        sections = list(data["networks"].values())
        for found in (*sections, *(each.get("hidden", {}) for each in sections), data["hidden"]):
            for field in list(found):
                if any(overlap(field, changed) for changed in fields):
                    del found[field]
        return self._with(fields, data)

    def _with(self, fields: Mapping[str, Any], data: dict[str, Any]) -> Recipe:
        for field, value in fields.items():
            *sections, last = field.split(".")
            place = data
            for section in sections:
                if not isinstance(place.setdefault(section, {}), dict):
                    raise InputError(unknown_field(field, type(self)))
                place = place[section]
            optional = (not sections and last in (*REGULARIZERS, "growth")) or sections == ["priors"]
            if optional and value in OFF:
                place.pop(last, None)
            else:
                place[last] = value
        return self._validated(data, f"recipe {self.name}")

    def section_of(self, network: OpenedNetwork | str) -> str:
        """The section of `networks` that is for a network, opened or by name.

        It is that of its name, of the first pattern that fits, `tokens` for one that is opened and has layers of
        tokens, or `other`.
        """
        name = network if isinstance(network, str) else network.name
        fitting = [section for section in self.networks if fnmatchcase(name, section)]
        if name in self.networks or fitting:
            return name if name in self.networks else fitting[0]
        of_tokens = "tokens" in self.networks and not isinstance(network, str) and network.has_tokens
        return "tokens" if of_tokens else "other"

    def for_network(self, network: OpenedNetwork | str) -> Recipe:
        """The recipe with what its section of `networks` has (see `section_of`) put in, and the others left out."""
        if not self.networks:
            return self
        found = dict(self.networks.get(self.section_of(network), {}))
        data = self.model_dump(exclude_none=True) | {"networks": {}}
        hidden = found.pop("hidden", {})
        if not isinstance(hidden, dict):
            raise InputError(f"hidden = {printable(repr(hidden))}: expected a table of fields")
        data["hidden"] |= hidden
        return self._with(found, data)

    def for_unit(self, unit: Unit) -> Recipe:
        """The recipe with what holds for hidden units put in if the unit is one, and the rest left out."""
        from phosphene.units.objects import shows_scenes

        return self._for_kind(not shows_scenes(unit))

    def _for_kind(self, hidden: bool) -> Recipe:
        bare = self.model_copy(update={"hidden": {}})
        return bare.override(self.hidden) if hidden else bare

    def to_toml(self) -> str:
        """The recipe as a TOML text, which `Recipe.from_toml` reads back to an equal recipe.

        Raises:
            InputError: it has functions, which no file holds.
        """
        own = [*self.functions, *([] if self.canvas_function is None else [self.canvas_function])]
        if own:
            names = join_names([function_name(each) for each in own])
            raise InputError(f"recipe {self.name} has functions that no TOML file holds: {names}")
        return tomli_w.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, without what is not set, and without the defaults of fields that came later.

        Of functions it has the names, and `Recipe.from_dict` does not read it then.
        """
        data = self.model_dump(mode="json", exclude_none=True)
        sections = [*data.values(), *data["priors"].values()]
        for section in filter(lambda section: isinstance(section, dict), sections):
            for name in [name for name, default in _LATER.items() if section.get(name) == default]:
                del section[name]
        if self.order == REGULARIZERS:
            del data["order"]
        for place, name in ((data, "functions"), (data, "hidden"), (data, "networks"), (data["optimizer"], "options")):
            if not place[name]:
                del place[name]
        return data

    @classmethod
    def from_toml(cls, text: str, origin: str = "recipe") -> Recipe:
        """The recipe of a TOML text, whose base is a recipe that ships, if it has one.

        Raises:
            InputError: it is no TOML, or not valid.
        """
        return cls._validated(parse_recipe(text, origin), origin)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe of plain data, as of `to_dict`.

        Raises:
            InputError: it is not valid, or has functions, which no file holds.
        """
        return cls._validated(dict(data), "recipe")

    @classmethod
    def load(cls, name: str | Path | Recipe) -> Recipe:
        """A recipe that ships, by name, or one of a `.toml` file, by path.

        Raises:
            InputError: there is none (with the nearest names), or it is not valid.
        """
        return name if isinstance(name, Recipe) else cls._validated(*read_recipe(name))

    @classmethod
    def _validated(cls, data: dict[str, Any], origin: str) -> Recipe:
        try:
            return cls.model_validate(data)
        except ValidationError as errors:
            raise InputError(f"{origin}: {problems(errors, cls)}") from None


_SECTIONS = {name: section_type(info.annotation) or Section for name, info in Recipe.model_fields.items()}

REGULARIZERS: tuple[str, ...] = tuple(name for name, section in _SECTIONS.items() if issubclass(section, Regularizer))
"""The names of the regularizers that a recipe can have."""

# Fields of sections that are not written at their defaults: files are then as version 0.1.0 wrote them.
_LATER = {
    "phase": 0,
    "dtype": "float32",
    "rounding": "nearest",
    "still": 0,
    "photographs": "",
    "top": 9,
    "shrinkage": 0.0,
    "roll": 0,
    "color_shift": 0.0,
    "color_gain": 0.0,
    "color_fade": 0.0,
    "measure": "mean",
    "compare": "moments",
    "layer_count": 0,
    "warmup": 0,
}
