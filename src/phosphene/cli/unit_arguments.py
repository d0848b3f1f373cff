"""The units that a command names, or that a verb shows by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.units.objects import Channel, Unit, WholeLayer
from phosphene.units.spelling import find_layer, layer_and_rest, parse_indices, parse_unit


def list_units(
    text: str, network: Network, *, count: int | None = None, average: bool = False, whole: bool = False
) -> list[Unit]:
    """`LAYER`, `LAYER:0-7` and `LAYER:1,5,9` to channels; anything else is a unit as units are spelled."""
    name, colon, indices = layer_and_rest(text, network)
    several = re.fullmatch("[0-9]+([-,][0-9]+)*", indices)
    if re.search(r"\s[+-]\s|[*(]|^\s*-", text) or name in ("class", "text") or (colon and not several):
        return [parse_unit(text, network)]
    layer = network.layer(find_layer(name if colon else text, text, network))
    if whole:
        return [WholeLayer(layer.name)]
    channels: Sequence[int] = range(layer.channels)
    if colon:
        listed = parse_indices(indices, layer.channels, f"channel {{}} of {layer.name}")
        if listed is None:
            raise InputError(f"channels {indices!r} of {layer.name}: expected a list such as 0-7 or 1,5,9")
        channels = listed
    if count is not None and count < len(channels):
        channels = [channels[i * len(channels) // count] for i in range(count)]
    return [parse_unit(Channel(layer.name, channel, "mean" if average else None), network) for channel in channels]


def spread_layers(network: Network, count: int = 5) -> list[str]:
    """So many of the layers usually worth showing, evenly spread in depth, the last one with a map among them."""
    layers = [layer.name for layer in network.layers if layer.worth_showing and layer.positions]
    layers = layers or [layer.name for layer in network.layers if layer.positions]
    if not layers:
        raise InputError(f"{network.name} has no layer with a map: expected LAYER")
    return [layers[(i + 1) * len(layers) // count - 1] for i in range(count)] if len(layers) > count else layers
