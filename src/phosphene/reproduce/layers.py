"""Which layers, and which units of them, a figure of hidden units shows in a network."""

from __future__ import annotations

import torch

from phosphene.ascent.canvas import start_image
from phosphene.ascent.evaluator import Evaluator
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe
from phosphene.reproduce.figures import Figure
from phosphene.units.objects import Channel, Neuron, Unit
from phosphene.units.tokens import PATCHES

# Channels of the convolutions, by the post's network; AlexNet is CaffeNet in one tower.
_CONVOLUTIONS: dict[str, list[tuple[int, ...]]] = {
    "vgg16": [(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)],
    "caffenet": [(96, 256, 384, 384, 256), (64, 192, 384, 256, 256)],
}


def has_posts_layers(figure: Figure, network: Network) -> bool:
    """Whether a network has the layers of the one that the post made the figure with."""
    return tuple(layer.channels for layer in _activations(network)) in _CONVOLUTIONS[figure.network]


def figure_layers(figure: Figure, network: Network) -> list[Layer]:
    """The layers of a figure of hidden units: by name, by their order, or of another network, evenly spread.

    Raises:
        InputError: the network has fewer than the figure shows.
    """
    activations = _activations(network)
    by_name = {layer.name: layer for layer in network.layers}
    wanted = [row["layer"] for row in figure.rows]
    if all(name in by_name for name in wanted):
        return [by_name[name] for name in wanted]
    if len(activations) < len(wanted):
        raise InputError(
            f"{figure.name} shows {len(wanted)} layers: {network.name} has {len(activations)} activations on maps"
        )
    return [activations[index * len(activations) // len(wanted)] for index in range(len(wanted))]


def _activations(network: Network) -> list[Layer]:
    return [layer for layer in network.layers if layer.worth_showing and len(layer.positions) == 2]


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
    channels, tokens = network.layer(layer).channels, PATCHES if network.layer(layer).tokens else None
    where = find_device(device)
    image = start_image(recipe.start, network.preprocessing, seed, None).to(where)
    order = sorted(range(channels), key=lambda channel: _reversed_bits(channel, channels))
    living: list[Channel | Neuron] = []
    dead: list[Channel | Neuron] = []
    with network.borrowed(where):
        objective = Evaluator([network], recipe, where)
        for begin in range(0, channels, 2 * count):
            units = [
                Channel(layer, channel, tokens=tokens) if position is None else Neuron(layer, channel, position)
                for channel in order[begin : begin + 2 * count]
            ]
            gradient = objective(units, image.expand(len(units), -1, -1, -1)).gradient
            for unit, slope in zip(units, gradient.abs().amax(dim=(1, 2, 3)).tolist(), strict=True):
                (living if slope > 0 else dead).append(unit)
            if len(living) >= count:
                break
    return tuple(sorted((living + dead)[:count], key=lambda unit: unit.channel))


def _reversed_bits(index: int, length: int) -> int:
    """A place in an order in which any first few are spread evenly."""
    bits = max(1, (length - 1).bit_length())
    return int(f"{index:0{bits}b}"[::-1], 2)
