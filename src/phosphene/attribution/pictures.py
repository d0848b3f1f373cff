"""Beside a map: the unit's own picture, the photograph changed towards it, and pictures of what carried it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from phosphene.api.ascend import ascend
from phosphene.ascent.run_options import RunOptions
from phosphene.attribution.from_atlas import AtlasPicture, AtlasPictures
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.methods import make_baseline, map_layers
from phosphene.attribution.response import Response
from phosphene.attribution.sheet import plain_image
from phosphene.attribution.top_photographs import MarkedPhotograph, top_photographs
from phosphene.display import opaque
from phosphene.errors import InputError
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.pixels.filters import gaussian_blur
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.units.objects import Match, Objective, OneChannel, Sum, Unit
from phosphene.units.spelling import parse_unit

Tell = Callable[[str], object]


@dataclass(frozen=True)
class PictureSettings:
    """What is shown beside the maps.

    Attributes:
        picture: whether pictures of units are made, by the recipe draft: the unit's own and those of what carried it.
        steps: of it; by default the recipe's.
        accentuate: whether the photograph is changed towards the unit.
        accentuation_steps, carrier_steps: of the changed photograph, and of the carriers' pictures.
        photographs: a folder, of which those are shown that excite the unit most.
        atlas: a directory or URL of an atlas of the network, from which pictures are taken that it has.
        seed: of all pictures.
        device: where.
    """

    picture: bool = True
    steps: int | None = None
    accentuate: bool = True
    accentuation_steps: int = 40
    carrier_steps: int = 32
    photographs: Path | None = None
    atlas: str | None = None
    seed: int = 0
    device: str | None = None


@dataclass(eq=False)
class Illustrations:
    """What is shown beside the maps; each is None, or empty, where it was not asked for or cannot be.

    Attributes:
        unit: the unit's own picture.
        accentuated: the photograph changed towards the unit, transparent where it did not change.
        accentuated_value: the unit's response to it.
        photographs: those that excite the unit most.
        carriers: pictures of hidden units, by unit.
        in_atlas: what an atlas has of units, by unit.
        made: pictures that were made, with how.
        notes: what a user should know, in sentences.
        interrupted: whether Ctrl-C ended it early.
    """

    unit: Image.Image | None = None
    accentuated: Image.Image | None = None
    accentuated_value: float | None = None
    photographs: Sequence[MarkedPhotograph] = ()
    carriers: dict[str, Image.Image] = field(default_factory=dict)
    in_atlas: dict[str, AtlasPicture] = field(default_factory=dict)
    made: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def keep(self, result: Result, name: str = "") -> list[Picture]:
        """What an ascent has made, of which all are finished; nothing where it was interrupted.

        Args:
            name: of its file, where it has another than its unit's.
        """
        self.interrupted = self.interrupted or result.interrupted
        pictures = [] if result.interrupted else [replace(each, name=name or each.name) for each in result]
        self.made += pictures
        return pictures


def illustrate(
    network: Network,
    maps: AttributionMaps,
    unit: str | Unit | None = None,
    settings: PictureSettings | None = None,
    on_part: Tell = lambda text: None,
) -> Illustrations:
    """The pictures beside maps.

    Args:
        network: the maps' own.
        unit: the maps' own; by default as they spell it.
        on_part: called with what is made next, in words.

    Raises:
        InputError: the atlas is of another network, or there are no photographs.
    """
    settings = settings or PictureSettings()
    parsed = parse_unit(maps.unit if unit is None else unit, network)
    shown = Illustrations()
    atlas = None if settings.atlas is None else AtlasPictures.of(settings.atlas, network)
    if settings.photographs is not None:
        on_part("photographs that excite it most")
        shown.photographs = top_photographs(network, parsed, settings.photographs, settings.device)
    if settings.picture or atlas is not None:
        on_part(f"the picture of {maps.label}")
        _show_unit(shown, network, parsed, settings, atlas)
    if settings.accentuate and not shown.interrupted:
        on_part("the photograph, changed towards it")
        _accentuate(shown, network, parsed, maps, settings)
    if maps.carriers is not None and not shown.interrupted and (settings.picture or atlas is not None):
        on_part("pictures of what carried it")
        _show_carriers(shown, network, [each.unit for each in maps.carriers.pictured], settings, atlas)
    return shown


def _show_unit(
    shown: Illustrations, network: Network, unit: Unit, settings: PictureSettings, atlas: AtlasPictures | None
) -> None:
    found = None if atlas is None else atlas.find(unit)
    if found is not None:
        shown.unit = found.image
        shown.in_atlas[str(unit)] = found
        return
    if settings.picture:
        for picture in _make(shown, network, [unit], _draft(settings.steps), settings):
            shown.unit = opaque(picture.image())


def _show_carriers(
    shown: Illustrations, network: Network, units: Sequence[str], settings: PictureSettings, atlas: AtlasPictures | None
) -> None:
    missing = []
    for name in units:
        found = None if atlas is None else atlas.find(parse_unit(name, network))
        if found is None:
            missing.append(name)
            continue
        shown.carriers[name] = found.image
        shown.in_atlas[name] = found
    if missing and settings.picture:
        pictures = _make(shown, network, missing, _draft(settings.carrier_steps), settings)
        shown.carriers |= {name: opaque(picture.image()) for name, picture in zip(missing, pictures, strict=False)}


def _draft(steps: int | None) -> Recipe:
    return Recipe.load("draft").override({} if steps is None else {"steps": steps})


def _make(
    shown: Illustrations, network: Network, units: Sequence[str | Unit], recipe: Recipe, settings: PictureSettings
) -> list[Picture]:
    options = RunOptions(settings.device)
    return shown.keep(ascend(network, list(units), recipe, seed=settings.seed, options=options))


# Accentuation

_STRENGTH = 10.0  # of likeness to the photograph, times how large the unit's responses are
_DEPTH = 3  # the layer of likeness has so many times as many layers with a map before the unit as before it
_RATE = 0.02
_UNCHANGED, _CHANGED = 0.1, 0.9  # shares of the pixels, of which those that changed less are transparent, more opaque


def _accentuate(
    shown: Illustrations, network: Network, unit: Unit, maps: AttributionMaps, settings: PictureSettings
) -> None:
    """Feature accentuation (Hamblin et al. 2024): from the photograph's own Fourier coefficients on, at the cost of
    being unlike it in an early layer.

    The unit is climbed together with minus the squared distance of that layer's activations to those of the photograph,
    over the photograph's own square.
    """
    if isinstance(unit, Objective):
        shown.notes.append("no accentuation: an objective of one's own is no part of a sum")
        return
    response = Response(network, unit)
    layers = map_layers(response)
    if not layers:
        shown.notes.append(f"no accentuation: no layer with a map comes before {unit}")
        return
    photograph: NDArray[np.uint8] = maps.photograph
    pixels = torch.from_numpy(photograph.copy()).movedim(-1, 0)[None].float()
    layer = layers[len(layers) // _DEPTH].name
    weight = _STRENGTH * _size(response, pixels)
    together = Sum((*unit.terms(), (weight, Match(layer, photograph=photograph))))
    recipe = Recipe.load("draft").override(
        {"steps": settings.accentuation_steps, "start.kind": "image", "optimizer.rate": _RATE}
    )
    try:
        result = ascend(
            network, together, recipe, seed=settings.seed, start=photograph, options=RunOptions(settings.device)
        )
    except InputError as error:
        shown.notes.append(f"no accentuation: {error}")
        return
    for picture in shown.keep(result, "accentuated"):
        shown.accentuated = changed_only(picture.pixels, photograph)
        after = torch.from_numpy(picture.pixels.copy()).movedim(-1, 0)[None].float()
        with network.borrowed(network.device), torch.no_grad():
            shown.accentuated_value = float(response(after.to(network.device))[0])


def _size(response: Response, pixels: Tensor) -> float:
    """How large responses such as the unit's are on the photograph: of a channel or class, the layer's largest."""
    network, terms = response.network, response.unit.terms()
    sizes = []
    with network.borrowed(network.device), torch.no_grad():
        pixels = pixels.to(network.device)
        for image in (pixels, make_baseline(network, pixels, "mean")):
            sizes.append(float(response(image)[0]))
        size = max(abs(sizes[0]), abs(sizes[0] - sizes[1]))
        for weight, part in terms:
            if isinstance(part, OneChannel):
                name = "logits" if part.layer == LOGITS else part.layer
                activation = network.activations(pixels, name)[name][0]
                seen = part.select(activation, None if part.layer == LOGITS else network.layer(part.layer).tokens)
                size = max(size, abs(weight) * max(abs(float(part.of_map(each))) for each in seen))
    return size or 1.0


def changed_only(pixels: NDArray[np.uint8], photograph: NDArray[np.uint8]) -> Image.Image:
    """A changed photograph, as opaque at each place as it changed there; (height, width, channels) both."""
    change = np.abs(pixels.astype(np.float32) - photograph).mean(axis=-1)
    smooth = gaussian_blur(torch.from_numpy(change)[None, None], max(0.5, min(change.shape) / 64))[0, 0].numpy()
    low, high = (float(np.quantile(smooth, share)) for share in (_UNCHANGED, _CHANGED))
    high = max(high, float(smooth.max()) / 2)  # where little has changed, that is all there is to see
    opacity: NDArray[Any] = ((smooth - low) / (high - low)).clip(0, 1) if high > low else smooth * 0
    image = plain_image(pixels)
    image.putalpha(Image.fromarray((opacity * 255).round().astype(np.uint8)))
    return image
