"""`explain`: where in a photograph a unit is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.attribution.carriers import Carriers, find_carriers
from phosphene.attribution.checks import (
    RANDOM_MAPS,
    Curves,
    mean_areas,
    perturbation_curves,
    random_maps,
    randomized_weights,
    rank_correlation,
)
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.methods import Explained, FloatMap, NotApplicableError, make_baseline, make_map
from phosphene.attribution.response import Response
from phosphene.attribution.settings import ALL, DEFAULT_METHODS, AttributionSettings, parse_methods
from phosphene.default_progress import counted
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.activations import pixel_batches
from phosphene.networks.gradients import layers_without_gradient
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.units.objects import Class, Unit, describe
from phosphene.units.spelling import parse_unit

_LARGE_GAP = 0.1  # of the completeness of integrated gradients

Photograph = Image.Image | str | os.PathLike[str] | Tensor


def explain(
    network: Any,
    photograph: Photograph,
    unit: str | Unit | None = None,
    methods: str | Sequence[str] | None = None,
    *,
    carriers: int = 3,
    curves: bool = True,
    check: bool = False,
    settings: AttributionSettings | None = None,
) -> AttributionMaps:
    """Where in a photograph a unit is, and which hidden units carried it.

    The network is handed back as it came, and what is drawn at random is drawn by `settings.seed`.

    Args:
        network: a `Network`, or what `phosphene.open` takes.
        photograph: PIL's image, a file of one, or pixels (channels, height, width) in 0..255.
        unit: an object or its spelling; by default the network's own first guess.
        methods: names of `attribution.settings.METHODS`, or "all"; by default integrated gradients, occlusion and
            Grad-CAM.  What does not apply to the network is left out, with a note, unless it is asked for by name.
        carriers: how many hidden units of each layer are told of by the flow between them; 0: none at all.
        curves: whether deletion and insertion are measured.
        check: whether the maps are compared with those of shuffled weights.
        settings: how maps are made.

    Raises:
        InputError: a network, photograph, unit, method or setting that cannot be, or a method that is asked for by name
            and does not apply.

    Example:
        >>> found = phosphene.explain("efficientnet_lite0", "flamingo.jpg")
        >>> found.label, found.maps["grad-cam"].shape
        ('flamingo', (224, 224))
    """
    settings = settings or AttributionSettings()
    asked = parse_methods(DEFAULT_METHODS if methods is None else methods)
    strict = methods is not None and asked != parse_methods(ALL)
    if carriers < 0:
        raise InputError(f"carriers {carriers}: expected how many of each layer, 0 or more")
    opened = open_network(network)
    given = photograph[None] if isinstance(photograph, Tensor) else [photograph]
    (pixels,) = pixel_batches(given, opened.preprocessing, 1)
    device = opened.device if settings.device is None else find_device(settings.device)
    total = len(asked) * (1 + curves + check) + RANDOM_MAPS * curves + bool(carriers)
    with counted("maps and curves", total=total) as tally, opened.borrowed(device):
        pixels = pixels.to(device).clamp(0, 255).round()
        chosen = _top_class(opened, pixels) if unit is None else parse_unit(unit, opened)
        explained = replace(_begin(Response(opened, chosen), pixels, settings), tally=tally)
        maps = _maps(asked, explained, strict)
        found = AttributionMaps(
            **_of_unit(explained, unit is None),
            maps=maps,
            layer=explained.layer if "grad-cam" in maps else "",
            gap=explained.gap if "integrated-gradients" in maps else None,
            settings=settings,
        )
        if (found.relative_gap or 0) > _LARGE_GAP:
            explained.notes.append(
                f"integrated gradients of {settings.steps} steps miss the gain by {found.relative_gap:.0%}: more steps "
                "miss less"
            )
        if curves and maps:
            found = replace(found, **_curves(maps, explained))
        if check:
            found = replace(found, randomized=_randomized(maps, explained))
        if carriers:
            tally.say("what carried it")
            found = replace(found, carriers=_carriers(explained, carriers))
            tally.add()
        tally.at(tally.done, int(tally.done))  # of a method that does not apply there is nothing more
    return replace(found, notes=tuple(dict.fromkeys(explained.notes)))


def _top_class(network: Network, pixels: Tensor) -> Class:
    if not network.classes:
        raise InputError(f"{network.no_classes('first guess')}; expected UNIT")
    with torch.no_grad():
        return Class(int(network.forward(pixels)[0].argmax()))


def _begin(response: Response, pixels: Tensor, settings: AttributionSettings) -> Explained:
    """What is explained, with whether it can be by gradients."""
    network = response.network
    explained = Explained(response, settings, pixels, make_baseline(network, pixels, settings.baseline))
    layers = list(dict.fromkeys(part.layer for _, part in response.unit.terms()))
    cut = layers_without_gradient(network, layers, pixels.device)
    if len(cut) == len(layers):
        explained.no_gradient = f"no gradient gets from it to the photograph: {next(iter(cut.values()))}"
        return explained
    leaf = pixels.clone().requires_grad_()
    value = response(leaf)[0]
    gradient = torch.autograd.grad(value, leaf, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None or not bool(gradient.any()):
        explained.notes.append(
            f"{response.unit} is {float(value.detach()):.4g} on this photograph and has no gradient there: maps by "
            "gradients are empty"
        )
    return explained


def _of_unit(explained: Explained, is_top_class: bool) -> dict[str, Any]:
    response = explained.response
    with torch.no_grad():
        value, baseline = (float(response(each)[0]) for each in (explained.pixels, explained.baseline))
        probability = response.probability(explained.pixels)
    photograph = explained.pixels[0].to(torch.uint8).movedim(0, -1).contiguous().cpu().numpy()
    return {
        "network": response.network.name,
        "weights": response.network.digest,
        "unit": str(response.unit),
        "label": describe(response.unit, response.network),
        "is_top_class": is_top_class,
        "value": value,
        "baseline_value": baseline,
        "probability": None if probability is None else float(probability[0]),
        "photograph": photograph,
    }


def _maps(methods: Sequence[str], explained: Explained, strict: bool) -> dict[str, FloatMap]:
    found = {}
    for method in methods:
        explained.tally.say(f"map by {method}")
        try:
            found[method] = make_map(method, explained)
        except NotApplicableError as error:
            if strict:
                raise
            explained.notes.append(f"no map by {method}: {error}")
        explained.tally.add()
    return found


def _curves(maps: dict[str, FloatMap], explained: Explained) -> dict[str, Any]:
    found = {name: _curves_of(map_, f"curves of {name}", explained) for name, map_ in maps.items()}
    chance = {
        kind: mean_areas([_curves_of(each, "curves of random maps", explained) for each in nothing])
        for kind, nothing in random_maps(explained.size, explained.settings.seed).items()
    }
    return {"curves": found, "chance": chance}


def _curves_of(map_: FloatMap, doing: str, explained: Explained) -> Curves:
    explained.tally.say(doing)
    curves = perturbation_curves(map_, explained)
    explained.tally.add()
    return curves


def _randomized(maps: dict[str, FloatMap], explained: Explained) -> dict[str, float | None]:
    """The rank correlation of each map with that of the network with shuffled weights."""
    found: dict[str, float | None] = {}
    aside = replace(explained, notes=[])
    if aside.layer:
        aside.settings = replace(aside.settings, layer=aside.layer)
    with randomized_weights(explained.response.network, explained.settings.seed):
        for name, map_ in maps.items():
            explained.tally.say(f"map by {name}, of shuffled weights")
            try:
                found[name] = rank_correlation(map_, make_map(name, aside))
            except NotApplicableError:
                found[name] = None
            explained.tally.add()
    return found


def _carriers(explained: Explained, shown: int) -> Carriers | None:
    if explained.no_gradient:
        return None
    found = find_carriers(explained.response, explained.pixels, shown)
    if found is None:
        explained.notes.append(f"no hidden unit carried {explained.response.unit}: no layer before it has a gradient")
    return found
