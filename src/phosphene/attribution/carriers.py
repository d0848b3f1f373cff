"""Which hidden units carried a unit: their contributions, and how these flow from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.attribution.methods import on_grid
from phosphene.attribution.response import Response, Taps
from phosphene.errors import InputError
from phosphene.networks.layers import Layer
from phosphene.photographs.listing import evenly_spread

LAYERS = 4
PER_LAYER = 10
"""Carriers of each layer whose numbers are kept."""


@dataclass(frozen=True, eq=False)
class Carrier:
    """A channel of a layer, and what it has contributed.

    Attributes:
        layer, channel: which.
        unit: as units are spelled.
        contribution: gradient times activation, summed over positions.
        share: of the layer, over the sum of the sizes of all its channels' contributions.
        map: gradient times activation where it is, (rows, columns); None where the layer has no map.
    """

    layer: str
    channel: int
    unit: str
    contribution: float
    share: float
    map: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class CarrierLayer:
    """A layer, and those of its channels that have contributed most.

    Attributes:
        channels: how many it has.
        total: the sum of all contributions; over a piecewise linear rest of the network without biases, the response.
        carriers: the largest first.
    """

    layer: str
    channels: int
    total: float
    carriers: tuple[Carrier, ...]


@dataclass(frozen=True)
class Edge:
    """How much of a carrier's contribution comes from one of an earlier layer: by their units, and by how much."""

    source: str
    target: str
    contribution: float


@dataclass(frozen=True, eq=False)
class Carriers:
    """What carried a unit, by layer in the order of calls, and between the first few of each layer.

    Attributes:
        layers: in the order of calls.
        edges: between carriers that are shown.
        shown: how many of each layer are.
    """

    layers: tuple[CarrierLayer, ...]
    edges: tuple[Edge, ...]
    shown: int

    @property
    def pictured(self) -> list[Carrier]:
        """The carriers that are shown, by layer."""
        return [carrier for layer in self.layers for carrier in layer.carriers[: self.shown]]


def find_carriers(
    response: Response, pixels: Tensor, shown: int, layers: Sequence[str] | None = None
) -> Carriers | None:
    """The channels of layers before a unit by their contribution to it, for a borrowed network.

    A channel's contribution is its gradient times its activation, summed over positions: the first-order estimate of
    what the unit loses where the channel is set to 0 (Molchanov et al. 2017, "Pruning Convolutional Neural Networks for
    Resource Efficient Inference", the Taylor criterion, with its sign).  Between two layers a carrier's own
    contribution, as a function of the earlier layer, is attributed alike.

    Args:
        pixels: the photograph, (1, channels, height, width) in 0..255.
        shown: of each layer, between how many carriers edges are found.
        layers: by default four, evenly spread over those usually worth showing.

    Returns:
        None where no layer before the unit has a gradient from it.

    Raises:
        InputError: there is no such layer, or it is not before the unit.
    """
    network = response.network
    chosen = _carrier_layers(response, layers)
    taps = Taps(network, chosen)
    with taps.watching():
        value = response(pixels.clone().requires_grad_())[0]
        gradients = taps.gradients(value, [layer.name for layer in chosen])
        kept = [layer for layer in chosen if layer.name in gradients]
        if layers is None:
            kept = _spread([layer for layer in kept if gradients[layer.name].any()])
        found = [_carriers_of(layer, taps, gradients[layer.name]) for layer in kept]
        edges = [
            edge
            for source, target in pairwise(found)
            for edge in _edges(source, target, taps, gradients[target.layer], shown)
        ]
    return Carriers(tuple(found), tuple(edges), shown) if found else None


def _spread(layers: Sequence[Layer]) -> list[Layer]:
    """Some of the layers, evenly spread in depth, the last among them."""
    return list(reversed(evenly_spread(list(reversed(layers)), LAYERS)))


def _carrier_layers(response: Response, names: Sequence[str] | None) -> list[Layer]:
    network = response.network
    before = network.layers[: response.depth]
    if names is not None:
        found = [network.layer(name) for name in names]
        for layer in found:
            if layer.name not in {each.name for each in before}:
                raise InputError(f"layer {layer.name} of {network.name} is not before {response.unit}")
        return sorted(found, key=lambda layer: network.depth(layer.name))
    inside = tuple(f"{name}." for name in network.attentions)
    usual = [
        layer
        for layer in before
        if layer.worth_showing and layer.channels > 1 and not (inside and layer.name.startswith(inside))
    ]
    # Gates of squeeze and excitation have no map: what they switch is carried elsewhere.
    maps = [layer for layer in usual if len(layer.positions) != 2 or min(layer.positions) > 1]
    return maps or usual or [layer for layer in before if layer.channels > 1]


def _carriers_of(layer: Layer, taps: Taps, gradient: Tensor) -> CarrierLayer:
    products = gradient * taps.activation(layer.name)
    by_channel = products.reshape(len(products), -1).sum(1)
    size = float(by_channel.abs().sum())
    grid, has_map = on_grid(products, layer)
    best = by_channel.argsort(descending=True, stable=True)[:PER_LAYER].tolist()
    carriers = tuple(
        Carrier(
            layer.name,
            channel,
            f"{layer.name}:{channel}",
            float(by_channel[channel]),
            float(by_channel[channel]) / size if size else 0.0,
            grid[channel].cpu().numpy() if has_map else None,
        )
        for channel in best
        if by_channel[channel] != 0
    )
    return CarrierLayer(layer.name, layer.channels, float(by_channel.sum()), carriers)


def _edges(source: CarrierLayer, target: CarrierLayer, taps: Taps, gradient: Tensor, shown: int) -> list[Edge]:
    """What each shown carrier of a layer gets from each of an earlier one."""
    edges = []
    for carrier in target.carriers[:shown]:
        weights = torch.zeros_like(gradient)
        weights[carrier.channel] = gradient[carrier.channel]
        towards = taps.gradients((taps.live(target.layer) * weights).sum(), [source.layer])
        if source.layer not in towards:
            continue
        products = towards[source.layer] * taps.activation(source.layer)
        by_channel = products.reshape(len(products), -1).sum(1)
        edges += [Edge(each.unit, carrier.unit, float(by_channel[each.channel])) for each in source.carriers[:shown]]
    return edges
