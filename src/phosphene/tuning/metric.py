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
from phosphene.judges.explainer import Explainer
from phosphene.judges.judge import judge, probabilities
from phosphene.judges.perceptual_panel import perceptual_panel
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes import tuned_recipes
from phosphene.tuning.settings import SearchSettings
from phosphene.units.objects import Channel, Class, Unit
from phosphene.units.spelling import parse_unit


@dataclass(frozen=True, eq=False)
class Metric:
    """Units, and what their images are worth.

    Attributes:
        what: "classes", or the layer.
        network: that the units are of.
        judges: of classes, or of what pictures of a layer's channels explain; none for channels without photographs.
        explainer: what asks these about channels.
    """

    what: str
    network: Network
    units: list[Unit]
    judges: list[Network]
    explainer: Explainer | None = None

    @property
    def criterion(self) -> str:
        """What is maximized, in words."""
        if self.explainer is not None:
            return f"how well pictures explain {self.what} to other networks"
        if self.judges:
            return "what other networks give its classes"
        return f"activation that views retain, and selectivity, in {self.what}"

    def scores(self, pictures: Sequence[Picture], device: torch.device, base: Sequence[float] = ()) -> list[float]:
        """0 to 1 for each picture; `base` are the robust activations of the recipe that the search starts from."""
        if self.explainer is not None:
            values = [score.value for score in self.explainer.scores([[each.image()] for each in pictures], device)]
        elif self.judges:
            values = probabilities(pictures, self.judges, device, self.network)
        else:
            cards = judge(pictures, [], network=self.network, device=device, on_progress=False)
            values = [_unit_score(card, least) for card, least in zip(cards, base, strict=True)]
        return [
            0.0 if picture.stopped == NOT_FINITE else value for picture, value in zip(pictures, values, strict=True)
        ]

    def activations(self, pictures: Sequence[Picture], device: torch.device) -> list[float]:
        """How active each hidden unit is over views of its picture; none where judges are asked."""
        if self.judges or self.explainer:
            return []
        cards = judge(pictures, [], network=self.network, device=device, on_progress=False)
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


def make_metric(network: Network, layer: str | None, settings: SearchSettings, device: torch.device) -> Metric:
    """A metric of so many classes, or channels of a layer, drawn by the seed.

    Raises:
        InputError: there is no such layer, there are no classes, photographs that tell nothing, or judges that cannot
            judge.
    """
    if layer is not None:
        return _layer_metric(network, layer, settings, device)
    if settings.photographs is not None:
        raise InputError("photographs tell what hidden units explain: expected a layer, or none for classes")
    return _class_metric(network, settings)


def _layer_metric(network: Network, layer: str, settings: SearchSettings, device: torch.device) -> Metric:
    known = network.layer(layer)
    drawn = torch.randperm(known.channels, generator=torch.Generator().manual_seed(settings.seed))
    count = settings.count or 6
    if settings.photographs is None:
        if settings.judges:
            raise InputError("judges of a layer's channels are asked about photographs: expected --photographs DIR")
        chosen = drawn[:count].sort().values.tolist()
        units = [parse_unit(Channel(known.name, channel), network) for channel in chosen]
        return Metric(known.name, network, units, [])
    judges = perceptual_panel(network, settings.judges)
    units = [parse_unit(Channel(known.name, channel), network) for channel in drawn[: 4 * count].tolist()]
    explainer = Explainer.of(network, units, settings.photographs, judges, device, count)
    return Metric(known.name, network, explainer.units, [judge.network for judge in judges], explainer)


def _class_metric(network: Network, settings: SearchSettings) -> Metric:
    if not network.classes:
        raise InputError(f"{network.name} has no classes: expected a layer")
    opened = panel.panel(network, settings.judges)
    drawn = torch.randperm(network.classes, generator=torch.Generator().manual_seed(settings.seed)).tolist()
    known_to_all = (index for index in drawn if all(panel.has_class(judge, index, network) for judge in opened))
    classes: list[Unit] = [Class(index) for index in sorted(islice(known_to_all, settings.count or 8))]
    if not classes:
        raise InputError(f"{', '.join(judge.name for judge in opened)} know no class of {network.name}")
    return Metric(tuned_recipes.CLASSES, network, classes, opened)
