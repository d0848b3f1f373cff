"""Gradient ascent on images: what is asked, checked and made ready; the loop that climbs is `phosphene.ascent.loop`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import defaults
from phosphene.ascent.canvas import as_pixels, check_start
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.unit_statistics import check_unit_statistics
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.ensemble import Ensemble
from phosphene.networks.network import Network, same_classes
from phosphene.networks.open import open_network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.recipes.recipe import Recipe
from phosphene.torch_state import default_torch_state
from phosphene.units.file_names import picture_names
from phosphene.units.objects import Class, PhotographPart, Unit, shows_classes
from phosphene.units.spelling import parse_unit

Recipes = str | Path | Recipe | Sequence[str | Path | Recipe]
Units = str | Unit | Sequence[str | Unit]


@dataclass(frozen=True)
class Request:
    """What is to be made: resolved once, and found to go together.

    Attributes:
        networks: at the size at which they are fed; the first is the one shown.
        weights: how much the logits of each count, where they do not count alike.
        units, recipes, seeds, photographs: of the same number; photographs are what units refer to.
        facets: how many images of each unit.
        size: of the images, height and width.
        start: the image to start from.  It and photographs are (channels, height, width) in 0..255.
        options: what belongs to the machine.
        devices: those of the options; images are shared out among several.
    """

    networks: list[Network]
    weights: tuple[float, ...]
    units: list[Unit]
    recipes: list[Recipe]
    seeds: list[int]
    photographs: list[Tensor | None]
    facets: int
    size: tuple[int, int]
    start: Tensor | None
    options: RunOptions
    devices: list[torch.device]

    @property
    def network(self) -> Network:
        return self.networks[0]

    @property
    def device(self) -> torch.device:
        return self.devices[0]

    @property
    def names(self) -> list[str]:
        """Of all images, as their files are called."""
        every = [(unit, seed + facet) for unit, seed in zip(self.units, self.seeds, strict=True)
                 for facet in range(self.facets)]  # fmt: skip
        return picture_names([unit for unit, _ in every], [seed for _, seed in every], self.network)

    @property
    def count(self) -> int:
        """How many images there are to be."""
        return len(self.units) * self.facets

    def not_started(self, places: Collection[int]) -> list[str]:
        """The units, spelled, of whose images these places are missing."""
        return [str(self.units[place // self.facets]) for place in range(self.count)
                if place not in places]  # fmt: skip


def make_request(
    network: Any,
    units: Units,
    recipe: Recipes = "natural",
    *,
    seed: int | Sequence[int] = defaults.SEED,
    start: Any = None,
    facets: int = 1,
    options: RunOptions | None = None,
) -> Request:
    """The arguments of `ascend`, opened and found to go together.

    Raises:
        InputError: a network, unit, recipe, size, seed, start, photograph, device, batch or precision that cannot be.
    """
    options = options or RunOptions()
    if options.batch is not None and options.batch < 1:
        raise InputError(f"batch {options.batch}: expected at least 1")
    with default_torch_state():
        given = [units] if isinstance(units, str | Unit) else list(units)
        if not given:
            raise InputError("no units are given: expected at least one, such as 'class:flamingo'")
        networks, weights = _opened(network)
        recipes = recipes_for(recipe, networks[0], len(given))
        if not options.batches:  # what is made again is made as it was
            _check_patches(networks[0], recipes)
        shown = networks[0] = with_recipe_size(networks[0], *recipes)
        size = recipes[0].size or (shown.preprocessing.height, shown.preprocessing.width)
        parsed = [parse_unit(unit, shown) for unit in given]
        recipes = [own.for_unit(unit) for own, unit in zip(recipes, parsed, strict=True)]
        _check_ensemble(networks, parsed)
        seeds = _seeds(seed, parsed, recipes, facets)
        if any(own.stop.confidence and not isinstance(unit, Class) for unit, own in zip(parsed, recipes, strict=True)):
            raise InputError("stop.confidence is the probability of a class: expected class units only, or 0")
        fed = shown.preprocessing.resized(size)
        started_from = None if start is None else as_pixels(start, fed)
        for own, unit in zip(recipes, parsed, strict=True):
            check_start(own.start, started_from)
            check_unit_statistics(own, unit)
        photographs = _photographs(parsed, fed)
        devices = _devices(options)
    return Request(networks, weights, parsed, recipes, seeds, photographs, facets, size, started_from, options, devices)


def _opened(network: Any) -> tuple[list[Network], tuple[float, ...]]:
    """The networks that are given, one or several, each as `open_network` takes it; and their weights, if any."""
    if isinstance(network, Ensemble):
        alike = set(network.weights) == {1 / len(network.networks)}
        return [open_network(each) for each in network.networks], () if alike else tuple(network.weights)
    several = isinstance(network, list | tuple)
    networks = [open_network(each) for each in (network if several else [network])]
    if not networks:
        raise InputError("no network is given: expected at least one")
    return networks, ()


def _devices(options: RunOptions) -> list[torch.device]:
    """Those of the options: one, unless several are given."""
    if options.device is None or isinstance(options.device, str | torch.device):
        return [find_device(options.device)]
    if not options.device:
        raise InputError("no device is given: expected at least one, such as 'cuda:0'")
    return [find_device(device) for device in options.device]


def _seeds(seed: int | Sequence[int], units: Sequence[Unit], recipes: Sequence[Recipe], facets: int) -> list[int]:
    """The seed of each unit's first image."""
    seeds = [int(each) for each in _per_unit(seed, len(units), "seeds")]
    if facets < 1:
        raise InputError(f"facets {facets}: expected at least 1")
    if not all(0 <= each < 2**63 - facets for each in seeds):
        raise InputError(f"seed {min(seeds)}: expected a whole number of 0 to 2^63 - 1")
    if any(own.start.kind == "numpy" and each + facets > 2**32 for own, each in zip(recipes, seeds, strict=True)):
        raise InputError(f"seed {max(seeds)}: NumPy's legacy generator (start.kind numpy) takes 0 to 2^32 - 1")
    return seeds


def _photographs(units: Sequence[Unit], preprocessing: Preprocessing) -> list[Tensor | None]:
    """What each unit refers to; a photograph of several units is decoded once."""
    decoded: dict[int, Tensor] = {}
    found: list[Tensor | None] = []
    for unit in units:
        needed = [part for _, part in unit.terms() if isinstance(part, PhotographPart)]
        if any(part.photograph is None for part in needed):
            raise InputError(f"{unit} needs a photograph, and none is given")
        if len({id(part.photograph) for part in needed}) > 1:
            raise InputError(f"{unit} refers to several photographs: expected one")
        if needed and id(needed[0].photograph) not in decoded:
            decoded[id(needed[0].photograph)] = as_pixels(needed[0].photograph, preprocessing)
        found.append(decoded[id(needed[0].photograph)] if needed else None)
    return found


def unit_layers(request: Request) -> set[str]:
    return {part.layer for unit in request.units for _, part in unit.terms()}


def recipes_for(recipe: Recipes, network: Network, count: int) -> list[Recipe]:
    """The recipe of each of so many units, as it is for a network.

    Raises:
        InputError: there is none of that name, or there are neither one nor as many as units.
    """
    if isinstance(recipe, str | Path | Recipe):
        return [Recipe.load(recipe).for_network(network)] * count
    return _per_unit([Recipe.load(each).for_network(network) for each in recipe], count, "recipes")


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


def _check_patches(network: Network, recipes: Sequence[Recipe]) -> None:
    """Raise an `InputError` where the network is to be fed images that its patches do not divide: it would not see all.

    One that takes a single size is fed views of these.
    """
    for recipe in recipes:
        if recipe.size is not None and not network.preprocessing.fixed_size and (why := network.misfit(recipe.size)):
            raise InputError(why)


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
