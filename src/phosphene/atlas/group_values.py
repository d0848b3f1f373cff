"""How active the units of a group are at the positions of its layer, where they are no channels."""

from __future__ import annotations

from torch import Tensor

from phosphene.atlas import map_files
from phosphene.atlas.dictionaries import find, latents_of
from phosphene.atlas.plan import Group
from phosphene.networks.network import Network


def is_computed(group: Group) -> bool:
    """Whether its units are read from more than one channel: latents, and cells of a map."""
    return bool(group.dictionary or group.map)


def width(group: Group) -> int:
    """How many units there could be, by index."""
    return map_files.find(group.map).settings.grid ** 2 if group.map else find(group.dictionary).latents


def values_of(group: Group, activation: Tensor, network: Network) -> Tensor:
    """All units at the positions that are looked at: (channels, *positions) to (units, positions)."""
    if group.map:
        return map_files.responses_of(group.map, activation, network)
    return latents_of(find(group.dictionary), activation, group.tokens, network, group.layer)
