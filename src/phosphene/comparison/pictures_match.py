"""A picture of a class that a network sees as it sees a photograph, as far as some layers: where that stops working.

The unit is the class's logit plus a weight times `match(LAYER)` for each of the layers (feature inversion, Mahendran
and Vedaldi 2015, eq. 2).  Afterwards the distance between picture and photograph is measured at every layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress
from phosphene.comparison.pictures_rows import HALF, stretches
from phosphene.devices.callbacks import Callbacks
from phosphene.errors import InputError
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Class, Match, Sum, Unit
from phosphene.units.spelling import parse_unit


@dataclass(frozen=True)
class MatchSettings:
    """How a picture is climbed that a network is to see as it sees a photograph.

    Attributes:
        layers: whose activations are to be the photograph's.
        unit: the class that is to stay; by default the network's own first of the photograph.
        weight: of each layer's match, beside the class's logit.
        recipe: a name, a file or a recipe; by default that of inversions, which moves the image little, since positions
            are compared.
    """

    layers: tuple[str, ...]
    unit: str | Unit | None = None
    weight: float = 500.0
    recipe: str | Recipe = "invert"


@dataclass(frozen=True)
class MatchRow:
    """A layer, and how far the climbed picture is from the photograph there.

    Attributes:
        layer: its name.
        distance: squared, over the photograph's own square.
        shuffled: the same of the photograph with its pixels shuffled: as far as what has its colors alone.
        share: of the two; 0 is the photograph, and 1 no nearer than its colors bring it.
        matched: whether it was climbed for.
    """

    layer: str
    distance: float
    shuffled: float
    share: float | None
    matched: bool


@dataclass(frozen=True, eq=False)
class ImageMatch:
    """A picture of a class that matches a photograph at some layers.

    Attributes:
        picture: as any other; its file says how it was made.
        unit: what was climbed, spelled.
        probability: the network's own of the class, in the picture; None where it has none.
        photograph_probability: in the photograph.
        rows: in the order of calls.
        summary: one sentence.
    """

    picture: Picture = field(repr=False)
    unit: str
    probability: float | None
    photograph_probability: float | None
    rows: list[MatchRow]
    summary: str


def match_photograph(
    network: Network,
    photograph: Tensor,
    layers: Sequence[str],
    shuffled: Tensor,
    settings: MatchSettings,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImageMatch:
    """Climb a class and a photograph's activations, and measure how far that went.

    Args:
        photograph: (channels, height, width) in 0..255.
        layers: at which it is measured, in the order of calls.
        shuffled: the photograph with its pixels shuffled.

    Raises:
        InputError: the network has no classes, there is no such layer, the unit is no class, or the weight no number
            above 0.
    """
    if not (math.isfinite(settings.weight) and settings.weight > 0):
        raise InputError(f"weight {settings.weight}: expected a number above 0, such as 500")
    class_unit = _class_of(network, photograph, settings.unit)
    pixels = photograph.round().clamp(0, 255).byte().movedim(0, -1).numpy()
    matches = [Match(network.layer(name).name, pixels) for name in settings.layers]
    if not matches:
        raise InputError("no layer to match: expected one or more")
    unit: Sum = class_unit + settings.weight * matches[0]
    for match in matches[1:]:
        unit = unit + settings.weight * match
    result = ascend(network, unit, settings.recipe, callbacks=Callbacks(on_progress))
    if result.interrupted:
        raise KeyboardInterrupt
    picture = result[0]
    made = torch.from_numpy(picture.pixels).movedim(-1, 0).float()
    named = {match.layer for match in matches}
    wanted = list(dict.fromkeys([*layers, *(name for name in named if name not in layers)]))
    rows = _distances(network, torch.stack([made, photograph, shuffled]), wanted, named)
    probability, own = _probabilities(network, torch.stack([made, photograph]), class_unit)
    name = str(class_unit.index) if network.labels is None else network.labels[class_unit.index].name
    words = summarize_match(rows, name, probability)
    return ImageMatch(picture, str(unit), probability, own, rows, words)


def _class_of(network: Network, photograph: Tensor, unit: str | Unit | None) -> Class:
    if not network.classes:
        raise InputError(f"match: {network.no_classes('class that could stay')}")
    if unit is None:
        return Class(int(network.activations(photograph[None], "logits")["logits"].argmax()))
    found = parse_unit(unit, network)
    if not isinstance(found, Class):
        raise InputError(f"unit {str(found)!r}: expected a class, such as class:0, that is to stay")
    return found


def _distances(network: Network, images: Tensor, layers: Sequence[str], named: set[str]) -> list[MatchRow]:
    """Of a picture, a photograph and the shuffled one, in this order."""
    rows: dict[str, MatchRow] = {}

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(activation: Tensor) -> None:
            made, true, shuffled = activation.detach().double().flatten(1)
            square = float(true.square().sum()) or 1e-30
            near, far = (float((each - true).square().sum()) / square for each in (made, shuffled))
            shown = "logits" if name == LOGITS else name
            rows[name] = MatchRow(shown, near, far, near / far if far > 0 else None, name in named)

        return read

    readers: Mapping[str, Any] = {name: reader(name) for name in layers}
    with network.borrowed(network.device), torch.no_grad():
        network.read(images.to(network.device), readers)
    return [rows[name] for name in sorted(layers, key=lambda name: _depth(network, name))]


def _depth(network: Network, name: str) -> int:
    known = {layer.name for layer in network.layers}
    return network.depth(name) if name in known or network.is_head(name) else len(network.layers)


def _probabilities(network: Network, images: Tensor, unit: Class) -> tuple[float | None, float | None]:
    if network.kind == "none":
        return None, None
    made, true = network.probabilities(network.activations(images, "logits")["logits"])[:, unit.index].tolist()
    return made, true


def summarize_match(rows: Sequence[MatchRow], name: str, probability: float | None) -> str:
    """One sentence: where in the network the picture is seen as its photograph, and from where on that stops working.

    Args:
        name: of the class.
        probability: of the class, in the picture.
    """
    known = [row for row in rows if row.share is not None]
    near = [(row.share or 0.0) < HALF for row in known]
    matched = ", ".join(f"{row.layer} ({row.share:.2f})" for row in known if row.matched)
    stays = "" if probability is None else f"; the network gives {name} {probability:.0%}"
    begin = f"Climbed for {name}, and for the photograph at {matched}, it"
    scale = "(0 is the photograph, 1 as far as the photograph with its pixels shuffled)"
    if not any(near):
        return f"{begin} is nowhere below {HALF} {scale}{stays}."
    where = stretches([row.layer for row in known], near)
    last = len(near) - 1 - near[::-1].index(True)
    end = "" if last == len(near) - 1 else f", and stops working at {known[last + 1].layer}"
    return f"{begin} is below {HALF} at {where}{end} {scale}{stays}."
