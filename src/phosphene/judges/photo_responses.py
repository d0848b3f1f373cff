"""What a network says of photographs and images: of units, of their layers, and of layers all the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.judges.path_similarity import RankedPaths
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.pixel_metrics import mean_slope, spectral_slope
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.photographs.activation_statistics import statistics_layers
from phosphene.photographs.listing import evenly_spread
from phosphene.units.objects import Channel, Neuron, Part, Unit

_PATH_LAYERS = 12


@dataclass(frozen=True, eq=False)
class Responses:
    """What a network says of images; all on the CPU.

    Attributes:
        values: of each unit, (images, units).
        profiles: by layer, its tokens, and for neurons by position, how active each channel is, (images, channels); see
            `_profile`.
        paths: by layer of the path, how active each channel is on average, (images, channels).
    """

    values: Tensor
    profiles: dict[str, Tensor]
    paths: dict[str, Tensor]

    def profile(self, unit: Unit) -> Tensor | None:
        """That of a channel or neuron, (images, channels); other units have none."""
        return self.profiles[_profile_key(unit)] if isinstance(unit, Channel | Neuron) else None


@dataclass(frozen=True, eq=False)
class PhotoResponses:
    """What a network says of the photographs.

    Attributes:
        units: of the columns of `responses.values`.
        names: of the photographs that could be read.
        slope: the mean of their `spectral_slope`.
    """

    units: tuple[Unit, ...]
    names: tuple[str, ...]
    responses: Responses
    slope: float

    def values(self, unit: Unit) -> Tensor:
        """A unit's, (photographs,)."""
        return self.responses.values[:, self._columns[unit]]

    @cached_property
    def _columns(self) -> dict[Unit, int]:
        return {unit: column for column, unit in enumerate(self.units)}

    @cached_property
    def ranked_paths(self) -> RankedPaths:
        return RankedPaths.of(self.responses.paths)


def respond(network: Network, units: Sequence[Unit], pixels: Tensor, path: Sequence[str] = ()) -> Responses:
    """What a (borrowed) network says of images.

    Args:
        pixels: (rows, channels, height, width) in 0..255.
        path: layers; see `path_layers`.
    """
    by_layer: dict[str, list[tuple[int, float, Part]]] = {layer: [] for layer in path}
    for i, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((i, weight, part))
    values = torch.zeros(len(pixels), len(units))
    profiles: dict[str, Tensor] = {}
    paths: dict[str, Tensor] = {}

    def reader(layer: str) -> Callable[[Tensor], None]:
        layout = None if layer == LOGITS else network.layer(layer).tokens

        def read(activation: Tensor) -> None:
            for i, weight, part in by_layer[layer]:
                seen = part.select(activation, layout)
                values[:, i] += weight * part.responses(seen).float().cpu()
                if units[i] is part and isinstance(part, Channel | Neuron) and _profile_key(part) not in profiles:
                    profiles[_profile_key(part)] = _profile(part, seen)
            if layer in path:
                paths[layer] = _channel_means(activation)

        return read

    if by_layer:
        network.read(pixels, {layer: reader(layer) for layer in by_layer})
    return Responses(values, profiles, {layer: paths[layer] for layer in path})


def respond_to_photographs(
    network: Network, units: Sequence[Unit], photo_set: PhotoSet, device: torch.device
) -> PhotoResponses:
    """What a (borrowed) network says of photographs."""
    path = path_layers(network)
    names: list[str] = []
    seen: list[Responses] = []
    slopes: list[float | None] = []
    for batch, pixels in photo_set.batches(network.preprocessing):
        names += batch
        seen.append(respond(network, units, pixels.to(device), path))
        slopes += [spectral_slope(row) for row in pixels.movedim(1, -1).numpy()]
    joined = Responses(
        torch.cat([part.values for part in seen]),
        {name: torch.cat([part.profiles[name] for part in seen]) for name in seen[0].profiles},
        {layer: torch.cat([part.paths[layer] for part in seen]) for layer in path},
    )
    return PhotoResponses(tuple(units), tuple(names), joined, mean_slope(slopes))


def path_layers(network: Network) -> list[str]:
    """Some dozen layers from the eye to the logits, evenly spread: convolutions or blocks of tokens, if it has any."""
    try:
        layers = [layer.name for layer in statistics_layers(network)]
    except InputError:
        layers = [layer.name for layer in network.layers if math.prod(layer.shape) > 1]
    return [*evenly_spread(layers, _PATH_LAYERS), *([LOGITS] if network.classes else [])]


def _profile_key(part: Channel | Neuron) -> str:
    return f"{part.layer}{part.tokens or ''}" if isinstance(part, Channel) else f"{part.layer}:{part.position}"


def _profile(part: Channel | Neuron, activation: Tensor) -> Tensor:
    """How active each channel of a layer is: over its map on average, or for a neuron at its position.

    Of a unit of some tokens it is given these.  (rows, channels, *positions) to (rows, channels).
    """
    if isinstance(part, Neuron):
        return torch.stack([row[(slice(None), *part.position)] for row in activation]).float().cpu()
    return _channel_means(activation)


def _channel_means(activation: Tensor) -> Tensor:
    return activation.float().reshape(*activation.shape[:2], -1).mean(2).cpu()
