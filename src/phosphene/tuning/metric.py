"""What a search maximizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from phosphene.ascent.stopping import NOT_FINITE
from phosphene.errors import InputError
from phosphene.judges import panel
from phosphene.judges.judge import judge, probabilities
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes import tuned_recipes
from phosphene.units.objects import Channel, Class, Unit
from phosphene.units.spelling import parse_unit


@dataclass(frozen=True, eq=False)
class Metric:
    """Units, and what their images are worth.

    Attributes:
        what: "classes", or the layer.
        network: that the units are of.
        judges: of classes; none for a layer's channels.
    """

    what: str
    network: Network
    units: list[Unit]
    judges: list[Network]

    def scores(self, pictures: Sequence[Picture], device: torch.device, base: Sequence[float] = ()) -> list[float]:
        """0 to 1 for each picture; `base` are the robust activations of the recipe that the search starts from."""
        if self.judges:
            values = probabilities(pictures, self.judges, device, self.network)
        else:
            cards = judge(pictures, [], network=self.network, device=device)
            values = [_unit_score(card, least) for card, least in zip(cards, base, strict=True)]
        return [
            0.0 if picture.stopped == NOT_FINITE else value for picture, value in zip(pictures, values, strict=True)
        ]

    def activations(self, pictures: Sequence[Picture], device: torch.device) -> list[float]:
        """How active each hidden unit is over views of its picture; none of classes."""
        if self.judges:
            return []
        cards = judge(pictures, [], network=self.network, device=device)
        return [_robust_activation(card) for card in cards]


def _robust_activation(card: dict[str, Any]) -> float:
    return float(card["retained"] * max(0.0, card["objective"] or 0.0))


def _unit_score(card: dict[str, Any], base: float) -> float:
    """Of a hidden unit's image, 0 to 1: what views retain of the activation, times the selectivity (1 for the first
    rank of its layer, 0 for the last, on a logarithmic scale), times how active it is, at most as the base's image.

    Without the last factor a gray image would be worth most: it is robust, having nothing to lose.
    """
    selectivity = card["selectivity"]
    first = 1 - math.log(selectivity["rank"]) / math.log(max(2, selectivity["of"]))
    active = min(1.0, _robust_activation(card) / base) if base > 0 else 1.0
    return float(card["retained"] * first * active)


def make_metric(
    network: Network, layer: str | None, count: int | None, judges: Sequence[str | Network] | None, seed: int
) -> Metric:
    """A metric of so many classes, or channels of a layer, drawn by the seed.

    Raises:
        InputError: there is no such layer, there are no classes, or judges that cannot judge.
    """
    generator = torch.Generator().manual_seed(seed)
    if layer is not None:
        if judges:
            raise InputError("judges know classes only: expected none for a layer's channels")
        known = network.layer(layer)
        drawn = torch.randperm(known.channels, generator=generator)[: count or 6].sort().values.tolist()
        units = [parse_unit(Channel(known.name, channel), network) for channel in drawn]
        return Metric(known.name, network, units, [])
    if not network.classes:
        raise InputError(f"{network.name} has no classes: expected a layer")
    opened = panel.panel(network, judges)
    drawn = torch.randperm(network.classes, generator=generator).tolist()
    known_to_all = (index for index in drawn if all(panel.has_class(judge, index, network) for judge in opened))
    classes: list[Unit] = [Class(index) for index in sorted(islice(known_to_all, count or 8))]
    if not classes:
        raise InputError(f"{', '.join(judge.name for judge in opened)} know no class of {network.name}")
    return Metric(tuned_recipes.CLASSES, network, classes, opened)
