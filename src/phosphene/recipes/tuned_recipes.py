"""Recipes that searches have found, kept for the network and the layer, or the classes, that they were found for."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene import user_folders
from phosphene.errors import InputError
from phosphene.files import atomic_write
from phosphene.recipes.recipe import Recipe

if TYPE_CHECKING:
    from phosphene.networks.network import Network
    from phosphene.units.objects import Unit

CLASSES = "classes"

_SHIPPED = resources.files("phosphene") / "recipes" / "tuned"


def directory(network: Network) -> Path:
    """Where the recipes found for a network's weights are kept.

    In the folder that the environment variable PHOSPHENE_RECIPES names, or else in recipes/ of the user's
    configuration.
    """
    return _folder() / network.digest


def any_kept() -> bool:
    """Whether recipes are kept for any network."""
    return next(_folder().glob("*/*.toml"), None) is not None


def _folder() -> Path:
    return user_folders.config("recipes", "PHOSPHENE_RECIPES")


def file_name(units: str) -> str:
    """Of the recipe for classes, or for a layer."""
    return re.sub(r"[^\w.#+-]", "_", units) + ".toml"


def find(network: Network, unit: Unit) -> Recipe | None:
    """The recipe that was found for a unit's layer, or for a network's classes: the user's own, or one that ships.

    Raises:
        InputError: its file is damaged.
    """
    from phosphene.units.objects import shows_classes

    layers = {part.layer for _, part in unit.terms()}
    if shows_classes(unit):
        layers = {CLASSES}
    if len(layers) != 1:
        return None
    (units,) = layers
    own = directory(network) / file_name(units)
    if own.is_file():
        return Recipe.load(own)
    shipped = _SHIPPED / network.name / file_name(units)
    if shipped.is_file():
        return Recipe.from_toml(shipped.read_text(encoding="utf-8"), f"recipe found for {network.name}, {units}")
    return None


def keep(recipe: Recipe, network: Network) -> Path:
    """Keep a recipe that was found, for `find`.

    Raises:
        InputError: it says not for what it was found, or cannot be written.
    """
    if recipe.found is None:
        raise InputError(f"recipe {recipe.name} does not say for which units it was found")
    folder = directory(network)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"directory {str(folder)!r} cannot be written: {error.strerror}") from error
    text = recipe.to_toml()
    return atomic_write(folder / file_name(recipe.found.units), lambda path: path.write_text(text, encoding="utf-8"))
