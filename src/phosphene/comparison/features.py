"""What layers make of photographs, a batch at a time: maps on one common grid, and where each unit is most active.

Nothing is kept here: a photograph is decoded once for each preprocessing, goes through each network once for all of its
layers, and is handed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.default_progress import OnProgress
from phosphene.errors import InputError
from phosphene.networks.forward import Reader
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.photographs.activation_statistics import statistics_layers
from phosphene.photographs.decoding import decode

_BATCH = 8  # photographs at once


@dataclass(frozen=True, eq=False)
class ReadNetwork:
    """A network, and those of its layers that are read."""

    network: Network
    layers: tuple[str, ...]

    @classmethod
    def of(cls, network: Network, layers: Sequence[str]) -> ReadNetwork:
        """With each layer once, in the order of calls; raises an `InputError` if there is no such layer."""
        named = dict.fromkeys(network.layer(name).name for name in layers)
        known = {layer.name: place for place, layer in enumerate(network.layers)}
        return cls(network, tuple(sorted(named, key=lambda name: known.get(name, len(known)))))

    def widths(self, grid: int) -> dict[str, int]:
        """Of each layer how many numbers a photograph has in its maps on a grid."""
        layers = [self.network.layer(name) for name in self.layers]
        return {layer.name: layer.channels * grid_positions(layer, grid) for layer in layers}


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What a layer makes of some photographs.

    Attributes:
        maps: each channel's, (rows, channels, positions): on the grid, or one position for a layer without any.
        peaks: each channel's highest on each photograph, (rows, channels).
        places: where in the layer's own map that is, counted row by row; of the same shape.
    """

    maps: Tensor
    peaks: Tensor
    places: Tensor


Maps = list[dict[str, LayerMaps]]
"""Of each network, by layer."""


def default_layers(network: Network, count: int) -> list[str]:
    """So many layers from the first to the last, evenly spread: activations, behind which units are usually shown.

    A network that has none of these has convolutions or blocks of tokens instead, or whatever it has.

    Raises:
        InputError: it has no layer.
    """
    names = [layer.name for layer in network.layers if layer.worth_showing]
    if not names:
        try:
            names = [layer.name for layer in statistics_layers(network)]
        except InputError:
            names = [layer.name for layer in network.layers if math.prod(layer.shape) > 1]
    if not names:
        raise InputError(
            f"{network.name} has no layer to compare: {network.limit or 'none of its modules can be read'}"
        )
    return spread(names, count)


def spread(names: Sequence[str], count: int) -> list[str]:
    """So many of the names, evenly spread, with the first and the last; all where there are no more."""
    if len(names) <= count:
        return list(names)
    return [names[round(place * (len(names) - 1) / max(1, count - 1))] for place in range(count)]


def read_photographs(
    networks: Sequence[ReadNetwork],
    files: Sequence[Path],
    grid: int,
    device: torch.device | str | None,
    use: Callable[[int, list[int], Maps], None],
    on_progress: OnProgress | None = None,
    skip: int = 0,
) -> None:
    """Have photographs go through networks, and hand on what their layers make of them.

    Args:
        networks: they are handed back as they came.
        grid: the rows, and the columns, that maps are brought to.
        device: where networks run; by default where their weights are.
        use: is given how many files are done, the places of those of the last few that could be read, and the maps of
            each network.
        on_progress: called with how many files are done, and of how many.
        skip: so many files are left out: they have been used before.

    Raises:
        InputError: none can be read, or a layer gives numbers that are not finite.
    """
    preprocessings = list(dict.fromkeys(each.network.preprocessing for each in networks))
    fed = [preprocessings.index(each.network.preprocessing) for each in networks]
    waiting = _Waiting()
    with ExitStack() as stack:
        for each in networks:
            stack.enter_context(each.network.borrowed(device or each.network.device))
        stack.enter_context(torch.no_grad())
        for place, pixels in enumerate(decode(files, *preprocessings, skip=skip), skip):
            if pixels is not None:
                waiting.add(place, pixels)
            if len(waiting.places) == _BATCH or (place == len(files) - 1 and waiting.places):
                batches = [torch.stack(rows) for rows in zip(*waiting.rows, strict=True)]
                maps = [_maps(each, batches[k], grid) for each, k in zip(networks, fed, strict=True)]
                use(place + 1, waiting.places, maps)
                waiting = _Waiting()
            if on_progress is not None:
                on_progress(place + 1, len(files))


@dataclass
class _Waiting:
    """Photographs that wait for a batch to be full: their places, and their pixels by each preprocessing."""

    places: list[int] = field(default_factory=list)
    rows: list[list[Tensor]] = field(default_factory=list)

    def add(self, place: int, pixels: list[Tensor]) -> None:
        self.places.append(place)
        self.rows.append(pixels)


def _maps(read: ReadNetwork, pixels: Tensor, grid: int) -> dict[str, LayerMaps]:
    network, found = read.network, {}

    def reader(name: str) -> Reader:
        layer = network.layer(name)

        def keep(activation: Tensor) -> None:
            found[name] = _layer_maps(activation.detach().float(), layer, grid)

        return keep

    network.read(pixels.to(network.device), {name: reader(name) for name in read.layers})
    for name, each in found.items():
        if not bool(each.maps.isfinite().all()):
            raise InputError(f"layer {name!r} of {network.name} gives numbers on these photographs that are not finite")
    return {name: found[name] for name in read.layers}  # calls may come in another order


def _layer_maps(activation: Tensor, layer: Layer, grid: int) -> LayerMaps:
    seen = _positions(activation, layer)
    best = seen.flatten(2).max(2)
    return LayerMaps(to_grid(seen, grid).flatten(2).cpu(), best.values.cpu(), best.indices.cpu())


def _positions(activation: Tensor, layer: Layer) -> Tensor:
    """(rows, channels, *positions) to (rows, channels, height, width); see `has_map`."""
    if layer.tokens is not None:
        return activation[..., layer.tokens.prefix :].reshape(*activation.shape[:2], *layer.tokens.grid)
    if activation.ndim == 4:
        return activation
    return (activation.flatten(2).mean(2) if activation.ndim > 2 else activation)[..., None, None]


def grid_positions(layer: Layer, grid: int) -> int:
    """How many positions the maps of a layer have on a grid."""
    return grid * grid if has_map(layer) else 1


def own_positions(layer: Layer) -> int:
    """How many positions a layer's own maps have that are told apart."""
    shape = layer.tokens.grid if layer.tokens is not None else layer.positions
    return math.prod(shape) if has_map(layer) else 1


def has_map(layer: Layer) -> bool:
    """Whether positions of a layer are places in the photograph: those of maps, and patches on their grid.

    Of other layers (vectors, maps of one position, tokens of which nothing says which are patches) a channel has one
    number a photograph, its mean.
    """
    shape = layer.tokens.grid if layer.tokens is not None else layer.positions
    return len(shape) == 2 and math.prod(shape) > 1


def to_grid(maps: Tensor, grid: int) -> Tensor:
    """Maps brought to `grid` rows and columns: means over areas of larger ones, smaller ones by linear interpolation.

    Args:
        maps: (rows, channels, height, width); those of one position stay.

    Returns:
        (rows, channels, grid, grid), or (rows, channels, 1, 1).
    """
    height, width = maps.shape[-2:]
    if (height, width) == (1, 1):
        return maps
    rows, columns = min(height, grid), min(width, grid)
    maps = F.adaptive_avg_pool2d(maps, (rows, columns))
    if (rows, columns) == (grid, grid):
        return maps
    return F.interpolate(maps, size=(grid, grid), mode="bilinear", align_corners=False)
