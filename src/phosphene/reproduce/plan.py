"""The figures of Fabien Tencé's post (2016), each from one call, on the post's networks or on any other.

`figures.toml` holds the post's settings.  They fit the networks that the post used, fed as they were: 0..255 less the
mean.  On others the rates are changed as `adapted` says, unless the post's own are asked for, and every figure tells
which it used.  All else is as in the post's script, whatever the network: see `as_the_script`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phosphene.ascent.canvas import start_image
from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.request import DEFAULT_SEED
from phosphene.errors import InputError, did_you_mean
from phosphene.hardware import find_device
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.recipes.schema import Recipe
from phosphene.reproduce.figures import Figure
from phosphene.reproduce.rates import RATES, adapt_recipe, for_one_neuron, layers_of
from phosphene.units.objects import Channel, Class, Neuron, Unit
from phosphene.units.spelling import find_class


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
    """A figure on a network: its rows, and where their settings come from."""

    figure: Figure
    rows: tuple[FigureRow, ...]
    settings: str


def plan(
    figure: Figure,
    network: Network,
    *,
    classes: Sequence[str] = (),
    channels: int = 2,
    size: tuple[int, int] | None = None,
    at_receptive_field: bool = False,
    rates: str = "fit",
    steps: int | None = None,
    seed: int = DEFAULT_SEED,
    device: str | torch.device | None = None,
) -> FigurePlan:
    """What a figure takes on a network.

    Args:
        classes: others than the post's.
        channels: of hidden units: how many of each layer, evenly spread over those that are alive at the start.
        size: of the images; by default the network's.
        at_receptive_field: of hidden units: each as large as what its middle neuron sees, for that neuron alone.
        rates: "fit", those that fit the network (see `adapted`), or "post", the post's as they stand.
        steps: other than the figure's.

    Raises:
        InputError: the network has no such classes or layers, or cannot show them at that size.
    """
    if rates not in RATES:
        raise InputError(f"rates {rates!r}: expected {' or '.join(RATES)}{did_you_mean(rates, RATES)}")
    if figure.classes:
        if at_receptive_field:
            raise InputError(f"{figure.name} shows classes, which see the whole image: expected a figure of filters")
        indices = [find_class(name, network) for name in classes] or list(figure.classes)
        chosen: list[tuple[Network, tuple[Unit, ...]]] = [(network, tuple(map(Class, indices)))] * len(figure.rows)
    elif classes:
        raise InputError(f"{figure.name} shows hidden units: expected no classes")
    else:
        chosen = []
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    if size is not None:
        changes["size"] = size
    recipes, settings = zip(*(adapt_recipe(figure, row, network, rates) for row in figure.rows), strict=True)
    recipes = tuple(recipe.changed(changes) for recipe in recipes)
    if not figure.classes:
        layers = layers_of(figure, network)
        if at_receptive_field and rates == "fit":
            recipes = tuple(for_one_neuron(r, network, layer) for r, layer in zip(recipes, layers, strict=True))
        for layer, recipe in zip(layers, recipes, strict=True):
            where, position = network, None
            if at_receptive_field:
                where = network.with_input_size(receptive_field(network, layer.name))
                position = tuple(length // 2 for length in where.layer(layer.name).positions)
            chosen.append((where, living_units(where, layer.name, position, recipe, channels, seed, device)))
    rates_differ = len({row.get("optimizer.rate") for row in figure.rows}) > 1
    rows = [
        FigureRow(_label(row, recipe, units, where if at_receptive_field else None, rates_differ), where, units, recipe)
        for row, recipe, (where, units) in zip(figure.rows, recipes, chosen, strict=True)
    ]
    said = settings[0]
    if at_receptive_field and rates == "fit" and recipes[0].optimizer.gradient == "raw":
        said += "; times how many neurons along a side see one pixel, since only one of them pulls at it"
    return FigurePlan(figure, tuple(rows), said)


def living_units(
    network: Network,
    layer: str,
    position: tuple[int, ...] | None,
    recipe: Recipe,
    count: int,
    seed: int,
    device: str | torch.device | None = None,
) -> tuple[Unit, ...]:
    """So many channels of a layer, evenly spread over those whose gradient at the first image is not zero everywhere.

    With a position, the channels' neurons there.  Without enough of them the dead fill up: their pictures say so.
    """
    if recipe.size is not None:
        network = network.with_input_size(recipe.size)
    channels = network.layer(layer).channels
    where = find_device(device)
    image = start_image(recipe.start, network.preprocessing, seed, None).to(where)
    order = sorted(range(channels), key=lambda channel: _spread(channel, channels))
    living: list[Channel | Neuron] = []
    dead: list[Channel | Neuron] = []
    with network.borrowed(where):
        objective = Evaluator([network], recipe, where)
        for begin in range(0, channels, 2 * count):
            units = [
                Channel(layer, channel) if position is None else Neuron(layer, channel, position)
                for channel in order[begin : begin + 2 * count]
            ]
            gradient = objective(units, image.expand(len(units), -1, -1, -1)).gradient
            for unit, slope in zip(units, gradient.abs().amax(dim=(1, 2, 3)).tolist(), strict=True):
                (living if slope > 0 else dead).append(unit)
            if len(living) >= count:
                break
    return tuple(sorted((living + dead)[:count], key=lambda unit: unit.channel))


def _spread(index: int, length: int) -> float:
    """A place in an order in which any first few are spread evenly: the bits of the index, reversed."""
    bits = max(1, (length - 1).bit_length())
    return int(f"{index:0{bits}b}"[::-1], 2)


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
