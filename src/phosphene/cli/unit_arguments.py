"""The units that a command names, or that a verb shows by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phosphene.dictionaries.reading import open_dictionary
from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.units.latents import Latent
from phosphene.units.objects import Channel, Reduce, Unit, WholeLayer
from phosphene.units.spelling import find_layer, layer_and_rest, parse_indices, parse_unit, split_tokens
from phosphene.units.tokens import TokenSelection


def list_units(
    text: str, network: Network, *, count: int | None = None, average: bool = False, whole: bool = False
) -> list[Unit]:
    """`LAYER`, `LAYER:0-7` and `LAYER:1,5,9` to channels, `LAYER@cls` and `LAYER:0-7@cls` to those of these tokens;
    `sae:FILE`, `sae:FILE:0-7` to latents; anything else is a unit as units are spelled."""
    if (latents := _list_latents(text, network, count)) is not None:
        return latents
    plain, at, chosen = split_tokens(text, network)
    name, colon, indices = layer_and_rest(plain, network)
    several = re.fullmatch("[0-9]+([-,][0-9]+)*", indices) and not (at and indices.isdecimal())  # or a neuron
    if re.search(r"\s[+-]\s|[*(]|^\s*-", text) or name in ("class", "text") or (colon and not several):
        return [parse_unit(text, network)]
    layer = network.layer(find_layer(name if colon else plain, text, network))
    tokens = TokenSelection.parse(chosen) if at else None
    if whole:
        return [parse_unit(WholeLayer(layer.name, tokens), network)]
    channels: Sequence[int] = range(layer.channels)
    if colon:
        listed = parse_indices(indices, layer.channels, f"channel {{}} of {layer.name}")
        if listed is None:
            raise InputError(f"channels {indices!r} of {layer.name}: expected a list such as 0-7 or 1,5,9")
        channels = listed
    if count is not None and count < len(channels):
        channels = [channels[i * len(channels) // count] for i in range(count)]
    reduce: Reduce | None = "mean" if average else None
    return [parse_unit(Channel(layer.name, channel, reduce, tokens), network) for channel in channels]


def at_size(network: Network, size: Sequence[int] | None) -> Network:
    """The network at images of --size, which decides what positions its units may have.

    At its own where there is no --size, or it takes none such: what makes the images says so.
    """
    try:
        return network if size is None else network.with_input_size((size[0], size[-1]))
    except InputError:
        return network


def at_layer(text: str, layer: str | None) -> str:
    """A dictionary's latents, of a layer that is given beside them."""
    return f"{layer}:{text}" if layer and text.startswith("sae:") else text


def _list_latents(text: str, network: Network, count: int | None) -> list[Unit] | None:
    """`[LAYER:]sae:FILE[:0-7][@TOKENS]` to units; None for what is spelled otherwise."""
    match = re.fullmatch(r"(?:(.+):)?sae:(.+?)(?::([0-9][0-9,-]*))?(?:@([a-z]+|[0-9]+,[0-9]+))?", text)
    if match is None or re.search(r"\s[+-]\s|^\s*-", text):
        return None
    layer, file, listed, tokens = match.groups()
    dictionary = open_dictionary(re.sub("=[0-9a-f]{16}$", "", file))
    indices: Sequence[int] | None = range(dictionary.latents)
    if listed:
        indices = parse_indices(listed, dictionary.latents, f"latent {{}} of {dictionary.name}")
    if indices is None:
        raise InputError(f"latents {listed!r} of {dictionary.name}: expected a list such as 0-7 or 1,5,9")
    if count is not None and count < len(indices):
        indices = [indices[i * len(indices) // count] for i in range(count)]
    chosen = None if tokens is None else TokenSelection.parse(tokens)
    return [parse_unit(Latent(dictionary, index, layer or "", chosen), network) for index in indices]


def spread_layers(network: Network, count: int = 5) -> list[str]:
    """So many of the layers usually worth showing, evenly spread in depth, the last one with a map among them."""
    layers = [layer.name for layer in network.layers if layer.worth_showing and layer.positions]
    layers = layers or [layer.name for layer in network.layers if layer.positions]
    if not layers:
        raise InputError(f"{network.name} has no layer with a map: expected LAYER")
    return [layers[(i + 1) * len(layers) // count - 1] for i in range(count)] if len(layers) > count else layers
