"""What an atlas is to have: groups of units, each with its recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, field_validator

from phosphene import defaults
from phosphene.ascent.canvas import check_referenced_files, remember_referenced_files
from phosphene.atlas import dictionaries, map_files
from phosphene.atlas.activation_map import ActivationMap
from phosphene.dictionaries.dictionary import Dictionary
from phosphene.errors import InputError, error_text, input_errors_for, printable
from phosphene.files import plain_name
from phosphene.judges import panel as judge_panel
from phosphene.judges.panel import judge_source
from phosphene.networks.named import open_referenced, open_referenced_judge, remember, remember_judge
from phosphene.networks.network import Network
from phosphene.recipes import tuned_recipes
from phosphene.recipes.recipe import Recipe
from phosphene.units.latents import Latent
from phosphene.units.objects import Channel, Class, Unit
from phosphene.units.spelling import parse_unit
from phosphene.units.tokens import TokenSelection

FORMAT = 2
CLASSES = tuned_recipes.CLASSES

# Of each image by default: they show how it came about, for about a quarter more bytes.
MOST_FRAMES = 100

# What a plan may ask for: far more than any has, and little enough to be read.
MOST_INDEX = 10**9
_MOST_UNITS = 10**6  # of a group
_MOST_GROUPS = 10_000
_MOST_FACETS = 1000


def _plain(name: str) -> str:
    if not name.isprintable():
        raise ValueError("expected a name without control characters")
    return name


Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_plain)]
_Index = Annotated[int, Field(ge=0, le=MOST_INDEX)]

# Plans are read from files of others: every value is of its own type and within bounds, or there is no plan.
_STRICT = ConfigDict(strict=True, extra="forbid")


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Group:
    """Units that are alike: a network's classes, or a layer's channels.

    Attributes:
        name: "classes", or the layer's.
        indices: of the classes or channels.
        recipe: as plain data, for this network.
        depth: its place among the network's layers, by which groups are shown in order; classes are behind all.
        tokens: from which tokens the channels of a layer are read, such as "@patches"; empty for maps, and in plans of
            before tokens were told apart, whose images show the sum over all of them.
        dictionary: of latents, the digest of their dictionary, whose copy the atlas has (see `atlas.dictionaries`).
        layer: of latents and cells, which the dictionary or the map is of.
        map: of the cells of an activation map, the digest of that, which the atlas has (see `atlas.map_files`).
    """

    name: Name
    indices: Annotated[list[_Index], Field(max_length=_MOST_UNITS)]
    recipe: dict[str, Any]
    depth: _Index = 0
    tokens: Annotated[str, Field(max_length=100)] = ""
    dictionary: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    layer: Annotated[str, Field(max_length=500), AfterValidator(_plain)] = ""
    map: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""

    @field_validator("tokens")
    @classmethod
    def _selection(cls, tokens: str) -> str:
        return tokens and str(TokenSelection.parse(tokens))

    @field_validator("indices")
    @classmethod
    def _each_once(cls, indices: list[int]) -> list[int]:
        if len(set(indices)) != len(indices):
            raise ValueError("expected each index once")
        return indices

    @field_validator("recipe")
    @classmethod
    def _possible(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        Recipe.from_dict(recipe)
        return recipe

    def unit(self, index: int, network: Network) -> Unit:
        """One of them, of the network of the plan.

        Raises:
            InputError: the network has none such.
        """
        if self.name == CLASSES:
            return parse_unit(Class(index), network)
        tokens = TokenSelection.parse(self.tokens) if self.tokens else None
        if self.dictionary:
            return parse_unit(Latent(dictionaries.find(self.dictionary), index, self.layer, tokens), network)
        if self.map:
            return parse_unit(map_files.unit_of(self.map, index, self.layer), network)
        return parse_unit(Channel(self.name, index, tokens=tokens), network, recorded=True)

    @property
    def digest(self) -> str:
        """Of the recipe, the tokens, the dictionary and the map, if there are any: the first 12 digits of SHA-256."""
        told = json.dumps(self.recipe, sort_keys=True) + self.tokens + self.dictionary + self.map
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def read_from(self) -> str:
        """The layer whose output tells of these units; the name itself but for latents and cells."""
        return self.layer or self.name


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class AtlasPlan:
    """What an atlas is to have.

    Attributes:
        network: its name.
        weights: its digest.
        source: the arguments by which it is opened.
        groups: in the order in which they are made.
        facets: images of each unit that differ.
        seed: of all images.
        judges: names of the networks that judge classes, as `phosphene.judges.panel.open_judge` takes them.
        frames: of the ascent that are kept beside each image that is made, as its film; 0: none.
    """

    network: Name
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    source: Annotated[dict[str, Any], Field(max_length=100)]
    groups: Annotated[list[Group], Field(max_length=_MOST_GROUPS)]
    facets: Annotated[int, Field(ge=1, le=_MOST_FACETS)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63 - _MOST_FACETS)] = defaults.SEED
    judges: Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(max_length=100)] | None = None
    frames: Annotated[int, Field(ge=0, le=MOST_FRAMES)] = 0
    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT

    @field_validator("groups")
    @classmethod
    def _named_apart(cls, groups: list[Group]) -> list[Group]:
        names = [group.name for group in groups]
        if len(set(names)) != len(names):
            raise ValueError("expected groups of different names")
        return groups

    @property
    def count(self) -> int:
        """How many images."""
        return self.facets * sum(len(group.indices) for group in self.groups)

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    def open(self, trust: bool = False, instead: str = "plan it yourself") -> Network:
        """The network, as far as what the plan says of it is data, or the user planned it (see `networks.named`).

        Args:
            trust: follow whatever the plan says: import code, read files, download weights.
            instead: what else the user can do, for messages.

        Raises:
            InputError: it is not there any more, has other weights, or the plan asks for more than data.
        """
        for group in self.groups:
            check_referenced_files(Recipe.from_dict(group.recipe), f"the atlas of {printable(self.network)}", trust)
        network = open_referenced("the atlas", self.network, self.source, self.weights, trust=trust, instead=instead)
        if trust:
            remember(network)  # for the processes that make it
        return network

    def to_json(self) -> str:
        plain = asdict(self)
        for group in plain["groups"]:
            if not group["tokens"]:  # as plans without tokens have always been written
                del group["tokens"]
            if not group["map"]:  # likewise
                del group["map"]
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str, origin: str) -> AtlasPlan:
        """Raises an `InputError` if it is no plan, or one of a later version's."""
        with input_errors_for(origin, "the plan of an atlas, as `phosphene atlas plan` writes it"):
            try:
                data = json.loads(text)
            except ValueError as error:
                raise InputError(f"{origin} is no plan of an atlas, or a damaged one ({error_text(error)})") from None
            if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] < 1:
                raise InputError(f"{origin} is no plan of an atlas, or a damaged one: it has no format")
            if data["format"] > FORMAT:
                raise InputError(
                    f"{origin} is an atlas of format {data['format']}: expected {FORMAT}, or a newer phosphene"
                )
            # Of earlier formats, what they lack has its default.
            with _in_sentences(f"{origin} is no plan of an atlas, or a damaged one"):
                groups = data["groups"]
                if isinstance(groups, list):
                    groups = [Group(**group) for group in groups]
                return cls(**(data | {"groups": groups, "format": FORMAT}))


@contextmanager
def _in_sentences(origin: str) -> Iterator[None]:
    """Raise the first of what is wrong with a plan's values as an `InputError`."""
    try:
        yield
    except ValidationError as errors:
        error = errors.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in error["loc"])
        error_text = error["msg"].removeprefix("Value error, ")
        value = printable(repr(error["input"]), 80)
        raise InputError(f"{origin}: {where} = {value}: {error_text[:1].lower()}{error_text[1:]}") from None


def make_groups(
    network: Network,
    *,
    layers: Sequence[str] = (),
    classes: Sequence[int] = (),
    count: int | None = None,
    recipe: str | Path | Recipe | None = None,
) -> list[Group]:
    """Groups of a network's units: its classes, and the channels of layers.

    Args:
        layers: whose channels are shown.
        classes: by index.
        count: of each layer's channels only so many, evenly spread.
        recipe: for all; by default what a search has found for the layer or the classes, or else `draft`.

    Raises:
        InputError: there is no such layer, class or recipe.
    """
    groups = []
    if classes:
        groups.append(_group(CLASSES, [Class(index) for index in dict.fromkeys(classes)], network, recipe))
    for name in dict.fromkeys(layers):
        layer = network.layer(name)
        number = layer.channels if count is None else min(count, layer.channels)
        channels = [i * layer.channels // number for i in range(number)]
        groups.append(_group(layer.name, [Channel(layer.name, channel) for channel in channels], network, recipe))
    return groups


def latent_group(
    network: Network,
    dictionary: Dictionary,
    layer: str = "",
    *,
    count: int | None = None,
    indices: Sequence[int] | None = None,
    recipe: str | Path | Recipe | None = None,
) -> Group:
    """A group of a dictionary's latents.

    Args:
        layer: of the network; by default the one that the dictionary names.
        count: only so many, evenly spread.
        indices: only these; by default all.
        recipe: as of `make_groups`.

    Raises:
        InputError: no layer is known, or it is of another width; or there is no such latent or recipe.
    """
    chosen = list(range(dictionary.latents)) if indices is None else list(indices)
    if count is not None and count < len(chosen):
        chosen = [chosen[i * len(chosen) // count] for i in range(count)]
    if not chosen:
        raise InputError(f"no latents of {dictionary.name} are chosen: expected at least one")
    first = parse_unit(Latent(dictionary, chosen[0], layer), network)
    assert isinstance(first, Latent)
    dictionaries.provide(dictionary.digest, lambda: dictionary)
    settled = (Recipe.load(recipe) if recipe is not None else Recipe.load("draft")).for_network(network.name)
    name = f"{first.layer}:sae:{plain_name(dictionary.name)}"
    return Group(
        name, chosen, settled.for_unit(first).to_dict(), network.depth(first.layer), str(first.tokens or ""),
        dictionary.digest, first.layer,
    )  # fmt: skip


def map_group(network: Network, made: ActivationMap, *, recipe: str | Path | Recipe | None = None) -> Group:
    """A group of the cells of an activation map.

    Args:
        recipe: by default `draft`.

    Raises:
        InputError: there is no such recipe, or the map is of another network.
    """
    if made.weights != network.digest:
        raise InputError(
            f"the map is of {made.network}, weights {made.weights}, and not of {network.name}, weights "
            f"{network.digest}: expected that network"
        )
    data = map_files.to_bytes(made)
    digest = map_files.digest_of(data)
    map_files.provide(digest, lambda: data)
    indices = made.cells.index.tolist()
    first = parse_unit(map_files.unit_of(digest, indices[0], made.layer), network)
    settled = Recipe.load("draft" if recipe is None else recipe).for_network(network.name).for_unit(first)
    return Group(
        map_name(made.layer), indices, settled.to_dict(), network.depth(made.layer), made.tokens, "", made.layer, digest
    )


def map_name(layer: str) -> str:
    """What the group of the cells of a layer's map is called."""
    return f"{layer}:map"


def _group(name: str, units: Sequence[Unit], network: Network, recipe: str | Path | Recipe | None) -> Group:
    parsed = [parse_unit(unit, network) for unit in units]
    chosen = Recipe.load(recipe) if recipe is not None else tuned_recipes.find(network, parsed[0])
    settled = (chosen or Recipe.load("draft")).for_network(network).for_unit(parsed[0])
    indices = [unit.index if isinstance(unit, Class) else unit.channel for unit in parsed]  # type: ignore[attr-defined]
    depth = len(network.layers) if name == CLASSES else network.depth(name)
    return Group(name, indices, settled.to_dict(), depth, str(parsed[0].terms()[0][1].tokens or ""))


def make_plan(
    network: Network,
    groups: Sequence[Group],
    *,
    facets: int = 1,
    seed: int = defaults.SEED,
    judges: Sequence[str] | None = None,
    frames: int = defaults.FRAMES,
) -> AtlasPlan:
    """A plan for a network.

    Args:
        network: as `phosphene.open` returns it for a name or a file, so that workers can open it again.
        groups: of its units; see `make_groups`.
        facets, seed: as for `ascend`.
        judges: who judge classes, by name; by default those of the bundled networks that are not related.
        frames: of each ascent, the finished image among them; 0: none.  They are no part of the recipe: an image is
            the same with and without, and is not made again for them.

    Raises:
        InputError: nothing is to be made, or a recipe or number of frames cannot be; or the network is a module of
            the caller's own, which another process cannot open.
    """
    if frames != 0 and not 2 <= frames <= MOST_FRAMES:
        raise InputError(f"{frames} frames of each ascent: expected 0 for none, or 2 to {MOST_FRAMES}")
    if network.source is None:
        raise InputError(
            f"{network.name} was given as a module, and an atlas is made by processes that open it themselves: "
            "expected one opened from a name or a file, such as 'mynet.py:MyNet'"
        )
    if not groups:
        raise InputError("the atlas would be empty: expected classes, layers, or both")
    remember(network)
    for text in judges or ():
        remember_judge(text, judge_source(text))
    for group in groups:
        remember_referenced_files(Recipe.from_dict(group.recipe))
    sizes = {json.dumps(group.recipe.get("size")) for group in groups}
    if len(sizes) > 1:
        raise InputError(f"recipes of sizes {' and '.join(sorted(sizes))}: expected one size for all")
    source, names = plain_source(network), None if judges is None else list(judges)
    with _in_sentences("the atlas cannot be planned"):
        return AtlasPlan(network.name, network.digest, source, list(groups), facets, seed, names, frames)


def plain_source(network: Network) -> dict[str, Any]:
    """The arguments by which a network is opened, as plain data; none of a module's."""
    source = network.source or {}
    return {key: str(value) if isinstance(value, Path) else value for key, value in source.items()}


def panel(plan: AtlasPlan, network: Network, trust: bool = False) -> list[Network]:
    """The judges of a plan, opened as `AtlasPlan.open` opens its network; none where it has no classes."""
    if plan.judges == [] or all(group.name != CLASSES for group in plan.groups):
        return []
    if plan.judges is None:
        return judge_panel.panel(network)
    return judge_panel.panel(
        network, [open_referenced_judge(text, judge_source(text), trust=trust) for text in plan.judges]
    )


def merge_plans(old: AtlasPlan, new: AtlasPlan) -> AtlasPlan:
    """A plan that has the groups of both; of a group in both, the new one's; and the new one's frames and judges.

    A recipe that is the same as before stays as it was written, maybe by another version, since images are filed under
    its digest.

    Raises:
        InputError: they are of two networks, or have other seeds or facets.
    """
    if old.weights != new.weights:
        raise InputError(
            f"the atlas is of {old.network} (weights {old.weights}), and {new.network} has {new.weights}: expected "
            "the same network, or another directory"
        )
    if (old.seed, old.facets) != (new.seed, new.facets):
        raise InputError(
            f"the atlas has {old.facets} facets of seed {old.seed}, not {new.facets} of seed {new.seed}: expected "
            "the same"
        )
    names, before = [group.name for group in new.groups], {group.name: group for group in old.groups}
    merged = [_as_written(group, before[group.name]) if group.name in before else group for group in new.groups]
    return replace(new, groups=[*(group for group in old.groups if group.name not in names), *merged])


def _as_written(new: Group, old: Group) -> Group:
    same = Recipe.from_dict(new.recipe) == Recipe.from_dict(old.recipe)
    return replace(new, recipe=old.recipe) if same else new
