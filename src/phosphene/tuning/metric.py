"""What a search maximizes."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psutil
import torch

from phosphene.ascent.stopping import NOT_FINITE
from phosphene.errors import InputError
from phosphene.judges import judge as judge_module
from phosphene.judges import panel as judge_panel
from phosphene.judges.judge import probabilities
from phosphene.judges.panel import has_class
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes import tuned_recipes
from phosphene.units.objects import Channel, Class, Unit
from phosphene.units.spelling import parse_unit

# A process on another machine that has not been heard of for so many seconds is taken for dead.
_SILENT = 900.0


# What is maximised.


@dataclass(frozen=True, eq=False)
class Metric:
    """Units, and what their images are worth."""

    what: str  # "classes", or the layer
    units: list[Unit]
    judges: list[Network]

    def scores(self, pictures: Sequence[Picture], device: torch.device, base: Sequence[float] = ()) -> list[float]:
        """0 to 1 for each picture; `base` are the robust activations of the recipe that the search starts from."""
        if self.judges:
            values = probabilities(pictures, self.judges, device)
        else:
            cards = judge_module.judge(list(pictures), [], device=device)
            values = [_unit_score(card, least) for card, least in zip(cards, base, strict=True)]
        return [
            0.0 if picture.stopped == NOT_FINITE else value for picture, value in zip(pictures, values, strict=True)
        ]

    def activations(self, pictures: Sequence[Picture], device: torch.device) -> list[float]:
        """How active each hidden unit is over views of its picture; none of classes."""
        if self.judges:
            return []
        return [_robust_activation(card) for card in judge_module.judge(list(pictures), [], device=device)]


def _robust_activation(card: dict[str, Any]) -> float:
    return float(card["retained"] * max(0.0, card["objective"] or 0.0))


def _unit_score(card: dict[str, Any], base: float) -> float:
    """Of a hidden unit's image, 0 to 1: what views retain of the activation, times the selectivity (1 for the first
    rank of its layer, 0 for the last, on a logarithmic scale), times how active it is, at most as the base's image.

    Without the last factor a grey image would be worth most: it is robust, having nothing to lose.
    """
    selectivity = card["selectivity"]
    first = 1 - math.log(selectivity["rank"]) / math.log(max(2, selectivity["of"]))
    active = min(1.0, _robust_activation(card) / base) if base > 0 else 1.0
    return float(card["retained"] * first * active)


def make_metric(
    network: Network, layer: str | None, count: int | None, panel: Sequence[str | Network] | None, seed: int
) -> Metric:
    generator = torch.Generator().manual_seed(seed)
    if layer is not None:
        if panel:
            raise InputError("judges know classes only: expected none for a layer's channels")
        known = network.layer(layer)
        chosen = torch.randperm(known.channels, generator=generator)[: count or 6].sort().values.tolist()
        units = [parse_unit(Channel(known.name, channel), network) for channel in chosen]
        return Metric(known.name, units, [])
    if not network.classes:
        raise InputError(f"{network.name} has no classes: expected a layer")
    opened = judge_panel.panel(network, panel)
    drawn = torch.randperm(network.classes, generator=generator).tolist()
    known_to_all = (index for index in drawn if all(has_class(judge, index, network) for judge in opened))
    classes: list[Unit] = [Class(index) for index in sorted(islice(known_to_all, count or 8))]
    if not classes:
        raise InputError(f"{', '.join(judge.name for judge in opened)} know no class of {network.name}")
    return Metric(tuned_recipes.CLASSES, classes, opened)


def is_alive(process: str, seen: float) -> bool:
    node, _, rest = process.partition(" ")
    if node != platform.node():
        return time.time() - seen < _SILENT
    number, _, created = rest.partition(" ")
    try:
        return f"{psutil.Process(int(number)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        return False
