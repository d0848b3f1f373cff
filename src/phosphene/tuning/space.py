"""Search spaces: which fields of a recipe a search tries, and what values.

A space is a TOML file: the recipe that it starts from, and for each field searched a range or choices.

    base = "draft"  # one that ships, or a file, from this one's folder on

    [fields]
    "optimizer.rate" = { low = 0.02, high = 0.3, log = true }
    "canvas.contrast" = { low = 1.5, high = 5.0 }
    "views.crop" = { choices = [[0.15, 1.0], [0.3, 1.0], [0.5, 1.0]] }
    "median.size" = { choices = [0, 3, 5] }
    "median.every" = { low = 1, high = 12 }
    "schedule.end" = { low = 0.0, high = 0.5, when = { "schedule.kind" = ["linear", "cosine"] } }

A range of two whole numbers gives whole numbers.  Where a field of a regularizer, a prior or of `growth` becomes "off",
or 0 and may not be 0, that is off, and none of its other fields is drawn; `when` says so for other fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from phosphene.errors import InputError, did_you_mean, input_errors_for, printable
from phosphene.files import MAX_TOML, is_file, parse_toml, read_text
from phosphene.recipes.penalties import Penalties
from phosphene.recipes.recipe import REGULARIZERS, OpenedNetwork, Recipe
from phosphene.recipes.section import fields

_SHIPPED = resources.files("phosphene") / "tuning" / "spaces"
_SWITCHED = (*REGULARIZERS, "growth", *(f"priors.{name}" for name in Penalties.model_fields))
_OFF = (0, "off", False)

MAX_CHOICES = 200
"""Of one field, each of which is validated with all of a recipe; a search tries some hundred images in all."""


class OptunaTrial(Protocol):
    """What draws values: Optuna's trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = ...) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Domain:
    """The values of one field: a range, or choices.

    Attributes:
        low, high, log: of a range; even on a logarithmic scale or not.
        choices: where it is no range.
        when: the field is drawn only where these others have one of these values.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that stand for all: those of a range are allowed where its ends are."""
        return self.choices or (self.low, self.high)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def sample(self, name: str, trial: OptunaTrial) -> Any:
        if self.choices:  # a database keeps plain values only, so lists are kept as texts
            return json.loads(trial.suggest_categorical(name, [json.dumps(choice) for choice in self.choices]))
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: of the one that ships, or of the file.
        base: the recipe whose other fields stay as they are.
        domains: by the fields' dotted names, in the order in which they are drawn.
    """

    name: str
    base: Recipe
    domains: Mapping[str, Domain]

    def sample(self, trial: OptunaTrial) -> dict[str, Any]:
        """One value for each field that counts, by its dotted name."""
        values: dict[str, Any] = {}
        for name, domain in self.domains.items():
            section = _section(name)
            off = any(_section(other) == section and self.is_off(other, values[other]) for other in values if section)
            if not off and all(values.get(other) in allowed for other, allowed in domain.when.items()):
                values[name] = domain.sample(name, trial)
        return values

    def is_off(self, name: str, value: Any) -> bool:
        """Whether a value of a field stands for its section being off."""
        if not _section(name) or value not in _OFF:
            return False
        try:
            _with_value(self.base, name, value)
        except InputError:
            return True
        return False

    def params_of(self, recipe: Recipe) -> dict[str, Any]:
        """A recipe's own values of the fields searched, as Optuna keeps them; without those that are out of range."""
        found: dict[str, Any] = {}
        for name, domain in self.domains.items():
            value = _value(recipe, name)
            if domain.choices:
                alike = [choice for choice in domain.choices if self.stands_for(recipe, name, choice) == value]
                if alike:
                    found[name] = json.dumps(alike[0])
            elif isinstance(value, int | float) and domain.low <= value <= domain.high:
                found[name] = value
        return found

    def stands_for(self, recipe: Recipe, name: str, choice: Any) -> Any:
        """What a recipe has where a choice is put in: one number may stand for a range, and 0 for nothing."""
        if self.is_off(name, choice):
            return None
        try:
            return _value(recipe.override({name: choice}), name)
        except InputError:  # it only goes together with other fields
            return choice

    def recipe(self, values: Mapping[str, Any], network: OpenedNetwork | str = "") -> Recipe:
        """The base as it is for a network, with these values.

        Raises:
            InputError: they do not go together.
        """
        base = self.base.for_network(network)
        off = [_section(name) for name, value in values.items() if self.is_off(name, value)]
        return base.override({name: value for name, value in values.items() if _section(name) not in off}).override(
            dict.fromkeys(off, "off")
        )

    def text(self) -> str:
        """All that decides what is drawn, as one text."""
        domains = {
            name: (domain.ends, domain.log, {key: list(values) for key, values in domain.when.items()})
            for name, domain in self.domains.items()
        }
        return json.dumps([self.base.to_dict(), domains])


def load_space(name: str | Path) -> Space:
    """A space that ships, by name, or one of a TOML file, by path.

    Raises:
        InputError: there is none, or it has a field that recipes do not have or values that it cannot take.
    """
    if str(name) in space_names():
        return _parsed((_SHIPPED / f"{name}.toml").read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if path.suffix != ".toml" and not is_file(path):
        near = did_you_mean(str(name), space_names()) or f"; expected {', '.join(space_names())}, or a TOML file"
        raise InputError(f"no search space is called {str(name)!r}{near}")
    return _parsed(read_text(path, f"space file {str(path)!r}", MAX_TOML), str(path), path.parent)


def space_names() -> tuple[str, ...]:
    """The spaces that ship."""
    return tuple(sorted(entry.name[:-5] for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml")))


def _parsed(text: str, origin: str, folder: Path | None = None) -> Space:
    data = parse_toml(text, f"space {origin}")
    unknown = set(data) - {"base", "fields", "description"}
    if unknown or not isinstance(data.get("base"), str) or not isinstance(data.get("fields"), dict):
        raise InputError(f"space {origin}: expected base = RECIPE and a table [fields]{_said(unknown)}")
    if not data["fields"]:
        raise InputError(f"space {origin} searches no field: expected at least one in [fields]")
    named = data["base"]
    base = Recipe.load(folder / named if folder is not None and named.endswith(".toml") else named)
    with input_errors_for(f"space {origin}", "fields of a recipe, each with a range or choices"):
        return _of_fields(base, data["fields"], origin)


def _of_fields(base: Recipe, entries: dict[str, Any], origin: str) -> Space:
    domains = {name: _domain(name, entry, origin) for name, entry in entries.items()}
    for name, domain in domains.items():
        for value in domain.ends:
            _check_value(base, name, value, origin)
    return Space(Path(origin).stem, base, _in_order(domains, origin))


def _said(unknown: set[str]) -> str:
    return f", not {', '.join(sorted(unknown))}" if unknown else ""


def _domain(name: str, entry: Any, origin: str) -> Domain:
    known = [known for known, *_ in fields(Recipe)]
    if name not in known:
        raise InputError(f"space {origin}: a recipe has no field {name!r}{did_you_mean(name, known)}")
    keys = {"low", "high", "log", "when"} if isinstance(entry, dict) and "low" in entry else {"choices", "when"}
    if not isinstance(entry, dict) or set(entry) - keys or not ("choices" in entry or {"low", "high"} <= set(entry)):
        raise InputError(
            f"space {origin}: {name} = {printable(repr(entry))}: expected {{ low, high, log }} or {{ choices }}"
        )
    when = entry.get("when", {})
    if not isinstance(when, dict) or not all(isinstance(values, list) for values in when.values()):
        raise InputError(
            f'space {origin}: when of {name} is {printable(repr(when))}: expected {{ "FIELD" = [VALUES] }}'
        )
    conditions = {other: tuple(values) for other, values in when.items()}
    if "choices" in entry:
        if not isinstance(entry["choices"], list) or not entry["choices"]:
            raise InputError(
                f"space {origin}: choices of {name} are {printable(repr(entry['choices']))}: expected a list of values"
            )
        if len(entry["choices"]) > MAX_CHOICES:
            raise InputError(f"space {origin}: {name} has {len(entry['choices']):,} choices: expected {MAX_CHOICES}")
        json.dumps(entry["choices"])  # as which they are kept
        return Domain(choices=tuple(entry["choices"]), when=conditions)
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high or not isinstance(log, bool) or (log and low <= 0):
        raise InputError(
            f"space {origin}: {name} from {low!r} to {high!r}: expected two numbers that rise, on a logarithmic scale "
            "above 0"
        )
    return Domain(low, high, log, when=conditions)


def _value(recipe: Recipe, name: str) -> Any:
    """A field's value in a recipe, as JSON has it; None where its section is off."""
    value: Any = recipe.model_dump(mode="json")
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _with_value(base: Recipe, name: str, value: Any) -> Recipe:
    """The base with a field's value, of a section that is on.

    Raises:
        InputError: the field cannot have it.
    """
    section = _section(name)
    weighed = section.startswith("priors.") and name != f"{section}.weight"
    return base.override(({f"{section}.weight": 1.0} if weighed else {}) | {name: value})


def _check_value(base: Recipe, name: str, value: Any, origin: str) -> None:
    if _section(name) and value in _OFF:
        return
    try:
        _with_value(base, name, value)
    except InputError as error:
        # What only goes together with other fields cannot be told from one alone.
        if str(error).startswith(f"recipe {base.name}: {name} = "):
            raise InputError(f"space {origin}: {str(error).partition(': ')[2]}") from None


def _in_order(domains: dict[str, Domain], origin: str) -> dict[str, Domain]:
    """Those that may switch their section off before its others; and each after those that it depends on."""
    switches_first = sorted(
        domains, key=lambda name: not (_section(name) and set(map(str, domains[name].ends)) & _TEXTS)
    )
    found: dict[str, Domain] = {}
    left = switches_first
    while left:
        ready = [name for name in left if set(domains[name].when) <= set(found)]
        if not ready:
            missing = next(other for name in left for other in domains[name].when if other not in found)
            raise InputError(f"space {origin}: `when` names {missing!r}, which is not searched before it")
        found |= {name: domains[name] for name in ready}
        left = [name for name in left if name not in found]
    return found


_TEXTS = {str(value) for value in _OFF}


def _section(name: str) -> str:
    """The part of a recipe that a field belongs to, where that can be off; or nothing."""
    return next((section for section in _SWITCHED if name.startswith(f"{section}.")), "")
