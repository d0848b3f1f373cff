"""Statistics of the photographs that excite a unit most: what a picture of it is pulled towards.

In place of what natural images are on average, here it is the unit's own: the moments of the layers before it on the
photographs that excite it most, after VITAL (Görgün et al. 2025), which matches how activations of real images are
distributed.  A picture that excites the unit and has these looks like what excites it in the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from phosphene import defaults
from phosphene.ascent.sorted_activations import sorted_values
from phosphene.ascent.statistics import LayerMoments, moments, natural_statistics
from phosphene.default_progress import counted
from phosphene.errors import InputError
from phosphene.networks.forward import Reader
from phosphene.networks.layers import LOGITS, Layer
from phosphene.networks.network import Network
from phosphene.networks.norms import Norm
from phosphene.photographs.activation_statistics import statistics_layers
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import list_photographs, photographs_digest
from phosphene.recipes.penalties import StatisticsSettings
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Objective, Part, Unit

_BATCH = 16

Facet = tuple[int, int]
"""Which of how many images of a unit that are made together."""

WHOLE: Facet = (0, 1)


def unit_statistics_layers(network: Network, settings: StatisticsSettings) -> list[LayerMoments]:
    """The layers that are compared; of what they are nothing is known before a unit is."""
    unknown = torch.zeros(1), torch.ones(1)
    layers = _spread(statistics_layers(network), settings.layer_count)
    return [LayerMoments(layer.name, False, *unknown, network.depth(layer.name)) for layer in layers]


def _spread(layers: list[Layer], count: int) -> list[Layer]:
    """So many, evenly spread from the first to the last; all for 0."""
    if not 0 < count < len(layers):
        return layers
    return [layers[round(index * (len(layers) - 1) / max(1, count - 1))] for index in range(count)]


def unit_statistics_origin(settings: StatisticsSettings) -> str:
    """Where they come from, for a user: "unit DIGEST", of the photographs."""
    return f"unit {photographs_digest(list_photographs(settings.photographs, defaults.PHOTOGRAPHS))}"


def check_unit_statistics(recipe: Recipe, unit: Unit) -> None:
    """Raise an `InputError` where photographs are to tell what excites a unit, and cannot."""
    settings = recipe.priors.statistics
    if settings is None or settings.source != "unit":
        return
    if not settings.photographs:
        raise InputError(
            f"recipe {recipe.name} pulls towards the photographs that excite each unit most: expected a folder of "
            "photographs, --photographs DIR or priors.statistics.photographs"
        )
    if isinstance(unit, Objective) or any(part.needs_reference for _, part in unit.terms()):
        raise InputError(
            f"recipe {recipe.name} pulls towards the photographs that excite each unit most, which are not known of "
            f"{unit}: expected a class, channel, neuron, direction or layer"
        )
    list_photographs(settings.photographs)


def prior_statistics(
    network: Network, settings: StatisticsSettings, norms: Sequence[Norm] | None = None
) -> tuple[list[LayerMoments], str]:
    """The layers of a recipe's penalty of statistics, with what is natural where that is the same for all units.

    Returns:
        The layers, none where nothing is known of them, and where it comes from (see `natural_statistics`).
    """
    if settings.source == "unit":
        return unit_statistics_layers(network, settings), unit_statistics_origin(settings)
    return natural_statistics(network, settings.source, norms)


class UnitStatistics:
    """Of units, what layers are on the photographs that excite each most; measured when first asked for.

    These are the channels' moments, or with `compare = "sorted"` their sorted values.

    Args:
        network: borrowed while it is asked.
        settings: the folder of photographs, and how many of them are a unit's.
        device: where the network is.
    """

    def __init__(self, network: Network, settings: StatisticsSettings, device: torch.device):
        self.network, self.settings, self.device = network, settings, device
        self.layers = [entry.layer for entry in unit_statistics_layers(network, settings)]
        self._is_sorted = settings.compare == "sorted"
        self._readable: list[Path] = []  # the photographs that could be read
        self._moments: dict[str, Tensor] = {}  # by layer, (photographs, 2, channels): means and mean squares
        self._top: dict[Unit, Tensor] = {}  # the indices of its photographs, the most exciting first
        self._found: dict[tuple[Unit, Facet], list[Tensor]] = {}  # by layer, as `_measure` gives it

    def of(self, images: Sequence[tuple[Unit, Facet]]) -> list[Tensor]:
        """For each layer, the means and deviations of its channels for each image, (2, images, channels).

        Of compare sorted it is their sorted values, (images, channels, positions).

        Where several images of a unit are made together, its photographs are dealt out to them, so that each shows
        what others do not.  One photograph alone is a rough estimate of what excites the unit: `shrinkage` draws each
        image's share towards all of them.

        Args:
            images: the unit of each, and which of how many images of it it is.

        Raises:
            InputError: no photograph can be read.
        """
        if new := list(dict.fromkeys(unit for unit, _ in images if unit not in self._top)):
            values = self._read(new)
            order = values.argsort(dim=0, descending=True, stable=True)[: self.settings.top]
            self._top |= {unit: order[:, column] for column, unit in enumerate(new)}
        for image in sorted(set(images) - self._found.keys(), key=str):
            self._found[image] = self._shrunk(self._top[image[0]], image[1])
        axis = 0 if self._is_sorted else 1
        return [torch.stack([self._found[image][index] for image in images], axis) for index in range(len(self.layers))]

    def _shrunk(self, top: Tensor, facet: Facet) -> list[Tensor]:
        """By layer, what is measured on an image's share of a unit's photographs, shrunk towards all of them."""
        share, shrinkage = _dealt(top, facet), self.settings.shrinkage
        found = self._measure(share)
        if shrinkage and len(share) < len(top):
            found = [own.lerp(of_all, shrinkage) for own, of_all in zip(found, self._measure(top), strict=True)]
        return found if self._is_sorted else [_deviations(each) for each in found]

    def _measure(self, chosen: Tensor) -> list[Tensor]:
        """By layer, its channels' means and mean squares on the chosen photographs, on average; or sorted values."""
        if not self._is_sorted:
            return [self._moments[layer][chosen].mean(0) for layer in self.layers]
        sums: dict[str, Tensor] = {}
        paths = [self._readable[index] for index in chosen.tolist()]
        with torch.no_grad():
            for _, _, pixels in decode_batches(paths, self.network.preprocessing, _BATCH):
                self.network.read(pixels.to(self.device), {layer: _sum_reader(sums, layer) for layer in self.layers})
        return [sums[layer] / len(paths) for layer in self.layers]

    def _read(self, units: Sequence[Unit]) -> Tensor:
        """How active units are on each photograph, (photographs, units); and the first time the moments."""
        values: list[Tensor] = []
        known = bool(self._moments) or self._is_sorted
        parts: dict[str, list[Tensor]] = {} if known else {layer: [] for layer in self.layers}
        readable: list[Path] = []
        paths = list_photographs(self.settings.photographs, defaults.PHOTOGRAPHS)
        doing = f"what {len(units)} unit{'s' * (len(units) > 1)} make of them"
        with counted("photographs", total=len(paths), doing=doing) as tally, torch.no_grad():
            for done, indices, pixels in decode_batches(paths, self.network.preprocessing, _BATCH):
                rows = torch.zeros(len(indices), len(units), dtype=torch.float64)
                readers = {layer: [_moments_reader(part)] for layer, part in parts.items()}
                for layer, reader in _value_readers(self.network, units, rows).items():
                    readers.setdefault(layer, []).append(reader)
                self.network.read(pixels.to(self.device), {layer: _all(each) for layer, each in readers.items()})
                values.append(rows)
                readable += [paths[index] for index in indices]
                tally.at(done, len(paths))
        self._readable = readable
        self._moments |= {layer: torch.cat(part) for layer, part in parts.items()}
        return torch.cat(values)


def _dealt(top: Tensor, facet: Facet) -> Tensor:
    """An image's share of a unit's photographs; where there are fewer of them than images, some have the same."""
    place, count = facet
    return top[place % len(top) :: count]


def _value_readers(network: Network, units: Sequence[Unit], rows: Tensor) -> dict[str, Reader]:
    """Readers that add each unit's value on each image to rows, (images, units)."""
    readers: dict[str, list[Reader]] = {}
    for column, unit in enumerate(units):
        for weight, part in unit.terms():
            readers.setdefault(part.layer, []).append(_value_reader(network, part, weight, rows[:, column]))
    return {layer: _all(each) for layer, each in readers.items()}


def _value_reader(network: Network, part: Part, weight: float, values: Tensor) -> Reader:
    """A reader that adds how active a part is on each image to values, (images,)."""
    layout = None if part.layer == LOGITS else network.layer(part.layer).tokens

    def read(activation: Tensor) -> None:
        values.add_(weight * part.responses(part.select(activation, layout)).double().cpu())

    return read


def _moments_reader(parts: list[Tensor]) -> Reader:
    return lambda activation: parts.append(torch.stack(moments(activation), 1).cpu())


def _sum_reader(sums: dict[str, Tensor], layer: str) -> Reader:
    """A reader that adds a layer's sorted values, summed over the images of a pass, (channels, positions)."""

    def read(activation: Tensor) -> None:
        found = sorted_values(activation).sum(dim=0)
        sums[layer] = sums[layer] + found if layer in sums else found

    return read


def _all(readers: Sequence[Reader]) -> Reader:
    def read(activation: Tensor) -> None:
        for each in readers:
            each(activation)

    return read


def _deviations(found: Tensor) -> Tensor:
    """Means and mean squares (2, channels) to means and deviations."""
    mean, square = found
    return torch.stack([mean, (square - mean.square()).clamp_min(0).sqrt()])
