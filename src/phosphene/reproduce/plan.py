"""A figure of Fabien Tencé's post (2016) on a network, the post's or any other: its rows, ready to be made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phosphene import defaults
from phosphene.errors import InputError, did_you_mean
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.recipes.recipe import Recipe
from phosphene.reproduce.figures import Figure
from phosphene.reproduce.layers import figure_layers, living_units
from phosphene.reproduce.rates import RATES, adapt_recipe, for_one_neuron
from phosphene.units.objects import Channel, Class, Neuron, Unit
from phosphene.units.spelling import find_class


@dataclass(frozen=True)
class FigureSettings:
    """What of a figure is to be other than the post's.

    Attributes:
        classes: others than the post's.
        channels: of hidden units: how many of each layer, evenly spread over those that are alive at the start.
        size: of the images; by default the network's.
        at_receptive_field: of hidden units: each as large as what its middle neuron sees, for that neuron alone.
        rates: "fit", those that fit the network (see `adapt_recipe`), or "post", the post's as they stand.
        steps: other than the figure's.

    Raises:
        InputError: the rates are neither.
    """

    classes: Sequence[str] = ()
    channels: int = 2
    size: tuple[int, int] | None = None
    at_receptive_field: bool = False
    rates: str = "fit"
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.rates not in RATES:
            near = did_you_mean(self.rates, RATES)
            raise InputError(f"rates {self.rates!r}: expected {' or '.join(RATES)}{near}")


@dataclass(frozen=True)
class FigureRow:
    """One row of a figure, ready to be made: what tells it from the others, and what to ascend."""

    label: str
    network: Network
    units: tuple[Unit, ...]
    recipe: Recipe

    @property
    def slug(self) -> str:
        """The label as a part of a file's name."""
        return re.sub(r"[^\w.-]+", "", self.label.replace(", ", "_").replace(" ", "-"))


@dataclass(frozen=True)
class FigurePlan:
    """A figure on a network: its rows, and in words where their settings come from."""

    figure: Figure
    rows: tuple[FigureRow, ...]
    settings: str


def plan(
    figure: Figure,
    network: Network,
    settings: FigureSettings | None = None,
    *,
    seed: int = defaults.SEED,
    device: str | torch.device | None = None,
) -> FigurePlan:
    """A figure on a network.

    Raises:
        InputError: the network has no such classes or layers, or cannot show them at that size.
    """
    settings = settings or FigureSettings()
    for_neurons = settings.at_receptive_field
    shown: list[tuple[Network, tuple[Unit, ...]]]
    if figure.classes:
        if for_neurons:
            raise InputError(f"{figure.name} shows classes, which see the whole image: expected a figure of filters")
        indices = [find_class(name, network) for name in settings.classes] or list(figure.classes)
        recipes, source = _recipes(figure, network, settings)
        shown = [(network, tuple(map(Class, indices)))] * len(recipes)
    else:
        if settings.classes:
            raise InputError(f"{figure.name} shows hidden units: expected no classes")
        recipes, source = _recipes(figure, network, settings)
        layers = figure_layers(figure, network)
        if for_neurons and settings.rates == "fit":
            recipes = [for_one_neuron(recipe, network, each) for recipe, each in zip(recipes, layers, strict=True)]
            if recipes[0].optimizer.gradient == "raw":
                source += "; times how many neurons along a side see one pixel, since only one of them pulls at it"
        shown = [
            _layer_units(network, layer, recipe, settings, seed, device)
            for layer, recipe in zip(layers, recipes, strict=True)
        ]
    rates_differ = len({row.get("optimizer.rate") for row in figure.rows}) > 1
    rows = [
        FigureRow(_label(row, recipe, units, where if for_neurons else None, rates_differ), where, units, recipe)
        for row, recipe, (where, units) in zip(figure.rows, recipes, shown, strict=True)
    ]
    return FigurePlan(figure, tuple(rows), source)


def _recipes(figure: Figure, network: Network, settings: FigureSettings) -> tuple[list[Recipe], str]:
    """The recipes of the rows, and in words where the first one's settings come from."""
    changes: dict[str, Any] = {} if settings.steps is None else {"steps": settings.steps}
    if settings.size is not None:
        changes["size"] = settings.size
    adapted = [adapt_recipe(figure, row, network, settings.rates) for row in figure.rows]
    return [recipe.override(changes) for recipe, _ in adapted], adapted[0][1]


def _layer_units(
    network: Network,
    layer: Layer,
    recipe: Recipe,
    settings: FigureSettings,
    seed: int,
    device: str | torch.device | None,
) -> tuple[Network, tuple[Unit, ...]]:
    """A layer's units, and the network at the size at which they are shown."""
    position = None
    if settings.at_receptive_field:
        network = network.with_input_size(receptive_field(network, layer.name))
        position = tuple(length // 2 for length in network.layer(layer.name).positions)
    return network, living_units(network, layer.name, position, recipe, settings.channels, seed, device)


_WORDS = {
    "optimizer.rate": "rate {}",
    "decay.strength": "decay {}",
    "blur.sigma": "blur {}",
    "blur.every": "every {}",
    "median.size": "median {}",
    "median.every": "every {}",
    "steps": "{} steps",
}


def _label(
    row: dict[str, Any], recipe: Recipe, units: Sequence[Unit], sized: Network | None, rates_differ: bool
) -> str:
    words = [
        _WORDS[key].format(f"{value:g}") for key, value in row.items() if key in _WORDS and key != "optimizer.rate"
    ]
    if "optimizer.rate" in row and (rates_differ or not words):
        words.insert(0, f"rate {recipe.optimizer.rate:g}")
    if sized is not None:
        height, width = sized.preprocessing.size  # type: ignore[misc]
        words.insert(0, f"{height}x{width} px")
    first = units[0]
    if isinstance(first, Channel | Neuron):
        words.insert(0, row["layer"] if row["layer"] == first.layer else f"{row['layer']} ({first.layer})")
    return ", ".join(words)
