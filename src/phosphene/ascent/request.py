"""Gradient ascent on images: what is asked, checked and made ready; the loop that climbs is `phosphene.ascent.loop`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene.ascent.canvas import as_pixels, check_start
from phosphene.ascent.progress import OnStep
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.network import Network, same_classes
from phosphene.recipes.recipe import Recipe
from phosphene.units.file_names import picture_names
from phosphene.units.objects import Class, Unit, shows_classes
from phosphene.units.spelling import parse_unit

DEFAULT_SEED = 1337


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be made, checked.

    Attributes:
        networks: at the size at which they are fed; the first is the one shown.
        units, recipes, seeds: of the same number.
        facets: how many images of each unit.
        names: of all images.
        size: of the images, height and width.
        start, photograph: (channels, height, width) in 0..255.
    """

    networks: list[Network]
    units: list[Unit]
    recipes: list[Recipe]
    seeds: list[int]
    facets: int
    names: list[str]
    size: tuple[int, int]
    start: Tensor | None
    photograph: Tensor | None
    device: torch.device

    @property
    def network(self) -> Network:
        return self.networks[0]


def make_request(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe],
    seed: int | Sequence[int],
    start: Any,
    photograph: Any,
    facets: int,
    device: str | torch.device | None,
    on_step: OnStep | None,
) -> Request:
    """The arguments of `ascend_here`, opened and found to go together, or an `InputError`."""
    given = [units] if isinstance(units, str | Unit) else list(units)
    if not given:
        raise InputError("no units are given: expected at least one, such as 'class:flamingo'")
    networks = [network] if isinstance(network, Network) else list(network)
    if not networks:
        raise InputError("no network is given: expected at least one")
    recipes = recipes_for(recipe, networks[0], len(given))
    shown = networks[0] = with_recipe_size(networks[0], *recipes)
    size = recipes[0].size or (shown.preprocessing.height, shown.preprocessing.width)
    parsed = [parse_unit(unit, shown) for unit in given]
    recipes = [own.for_unit(unit) for own, unit in zip(recipes, parsed, strict=True)]
    _check_ensemble(networks, parsed)
    seeds = [int(each) for each in _per_unit(seed, len(parsed), "seeds")]
    if facets < 1:
        raise InputError(f"facets {facets}: expected at least 1")
    if facets > 1 and on_step is not None:
        raise InputError(f"on_step may end one image alone, and {facets} facets are made together: expected one")
    if not all(0 <= each < 2**63 - facets for each in seeds):
        raise InputError(f"seed {min(seeds)}: expected a whole number of 0 to 2^63 - 1")
    if any(own.start.kind == "numpy" and each + facets > 2**32 for own, each in zip(recipes, seeds, strict=True)):
        raise InputError(f"seed {max(seeds)}: NumPy's legacy generator (start.kind numpy) takes 0 to 2^32 - 1")
    if any(own.stop.confidence and not isinstance(unit, Class) for unit, own in zip(parsed, recipes, strict=True)):
        raise InputError("stop.confidence is the probability of a class: expected class units only, or 0")
    fed = shown.preprocessing.resized(size)
    started_from = None if start is None else as_pixels(start, fed)
    for own in recipes:
        check_start(own.start, started_from)
    referred = None if photograph is None else as_pixels(photograph, fed)
    _check_photograph(parsed, referred)
    every = [(unit, own + facet) for unit, own in zip(parsed, seeds, strict=True) for facet in range(facets)]
    names = picture_names([unit for unit, _ in every], [each for _, each in every], shown)
    where = find_device(device)
    return Request(networks, parsed, recipes, seeds, facets, names, size, started_from, referred, where)


def unit_layers(request: Request) -> set[str]:
    return {part.layer for unit in request.units for _, part in unit.terms()}


def recipes_for(
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe], network: Network, count: int
) -> list[Recipe]:
    """The recipe of each of so many units, as it is for a network.

    Raises:
        InputError: there is none of that name, or there are neither one nor as many as units.
    """
    if isinstance(recipe, str | Path | Recipe):
        return [Recipe.load(recipe).for_network(network.name)] * count
    return _per_unit([Recipe.load(each).for_network(network.name) for each in recipe], count, "recipes")


def _per_unit(value: Any, count: int, what: str) -> list[Any]:
    """What is given for all units, or for each."""
    if isinstance(value, int | np.integer):
        return [value] * count
    found = list(value)
    if len(found) != count:
        raise InputError(f"{len(found)} {what} for {count} units: expected one, or one for each")
    return found


def distinct(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Each recipe once."""
    found: list[Recipe] = []
    for recipe in recipes:
        if recipe not in found:
            found.append(recipe)
    return found


def with_recipe_size(network: Network, *recipes: Recipe) -> Network:
    """The network fed with images of the recipes' size; at its own where it takes that only and views resample.

    Raises:
        InputError: they have several, or it takes another size only, and a recipe has no views that bring images to it.
    """
    sizes = list(dict.fromkeys(recipe.size for recipe in recipes))
    if len(sizes) > 1:
        raise InputError(f"recipes of sizes {' and '.join(map(str, sizes))}: expected one size for all")
    recipe = next((recipe for recipe in recipes if not recipe.views.affine), recipes[0])
    if recipe.size is None:
        return network
    try:
        found = network.with_input_size(recipe.size)
    except InputError:
        if not recipe.views.affine:
            raise
        return network
    # Of its first layers it may take other sizes all the same.
    return network if network.preprocessing.fixed_size and recipe.views.affine else found


def _check_ensemble(networks: Sequence[Network], units: Sequence[Unit]) -> None:
    if len(networks) == 1:
        return
    for unit in units:
        if not shows_classes(unit):
            raise InputError(f"{unit} is of one network, and {len(networks)} are given: an ensemble shows classes only")
    for other in networks[1:]:
        if not same_classes(networks[0], other):
            raise InputError(
                f"{networks[0].name} and {other.name} do not tell the same classes: expected networks that do"
            )
        channels = [each.preprocessing.channels for each in (networks[0], other)]
        if channels[0] != channels[1]:
            raise InputError(
                f"{networks[0].name} takes images of {channels[0]} channels and {other.name} of {channels[1]}: "
                "expected networks that take the same"
            )


def needs_photograph(unit: Unit) -> bool:
    """Whether a unit needs a photograph."""
    return any(part.needs_reference for _, part in unit.terms())


def _check_photograph(units: Sequence[Unit], photograph: Tensor | None) -> None:
    referenced = [unit for unit in units if needs_photograph(unit)]
    if referenced and photograph is None:
        raise InputError(f"{referenced[0]} needs a photograph, and none is given")
    if photograph is not None and not referenced:
        raise InputError(
            f"a photograph is given, and {units[0]} does not refer to one: expected match(…) or caricature(…)"
        )
