"""All that is shown of where a unit is, as one figure."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from phosphene.attribution.carriers import Carrier
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.pictures import Illustrations
from phosphene.attribution.sheet import SHOWN, overlay, photograph_image
from phosphene.display import opaque
from phosphene.draw.figure import FAINT
from phosphene.draw.grid import INK, MARGIN, PAPER, ellipsize, tile

Row = tuple[str, Sequence[tuple[str, Image.Image]]]
"""What a row is, and its images with their captions."""

_SMALL = 100  # pixels, of the pictures of hidden units
_COLUMNS = 6
_HEAD, _LABEL, _GAP = 34, 26, 24  # pixels


def explain_figure(maps: AttributionMaps, shown: Illustrations) -> Image.Image:
    """The maps, the unit's picture, the changed photograph, photographs that excite the unit, and what carried it."""
    groups: list[list[Row]] = [[(_maps_label(maps), _map_images(maps))]]
    if beside := _beside(maps, shown):
        groups.append([("what it is", beside)])
    if shown.photographs:
        images = [(f"{each.value:.3g}  {each.name}", _fitted(each.marked(), SHOWN)) for each in shown.photographs]
        groups.append([("photographs that excite it most, and what of each its most excited neuron sees", images)])
    groups.append(_carried(maps, shown))
    return _stack(title(maps), groups)


def _carried(maps: AttributionMaps, shown: Illustrations) -> list[Row]:
    """The carriers that have a picture, a row for each layer."""
    rows: list[Row] = []
    for layer in maps.carriers.layers if maps.carriers is not None else ():
        images = [
            (carrier_caption(each), _fitted(shown.carriers[each.unit], _SMALL))
            for each in layer.carriers[: maps.carriers.shown if maps.carriers is not None else 0]
            if each.unit in shown.carriers
        ]
        if images:
            rows.append((f"carried by {layer.layer}", images))
    return rows


def title(maps: AttributionMaps) -> str:
    """What is explained, in words."""
    sure = "" if maps.probability is None else f", probability {maps.probability:.1%}"
    guess = "the network's first guess, " if maps.is_top_class else ""
    return f"{maps.label} in {maps.network}: {guess}response {maps.value:.4g}{sure}"


def carrier_caption(carrier: Carrier) -> str:
    """Its channel, and its share of what its layer contributes."""
    return f"{carrier.channel}  {carrier.share:+.1%}"


def _maps_label(maps: AttributionMaps) -> str:
    signed = [name for name in ("integrated-gradients", "occlusion") if name in maps.maps]
    return "where it is: orange" + (", and blue where the unit loses by what is there" if signed else "")


def _map_images(maps: AttributionMaps) -> list[tuple[str, Image.Image]]:
    photograph = photograph_image(maps.photograph)
    overlays = [(name, overlay(photograph, map_, maps.settings.smoothing)) for name, map_ in maps.maps.items()]
    return [("photograph", photograph), *overlays]


def _beside(maps: AttributionMaps, shown: Illustrations) -> list[tuple[str, Image.Image]]:
    found = []
    if shown.unit is not None:
        found.append(("what excites it most", _fitted(shown.unit, SHOWN)))
    if shown.accentuated is not None:
        value = "" if shown.accentuated_value is None else f": {maps.value:.3g} to {shown.accentuated_value:.3g}"
        found.append((f"towards it{value}", _fitted(shown.accentuated.convert("RGB"), SHOWN)))
        found.append(("only what changed", _fitted(opaque(shown.accentuated), SHOWN)))
    return found


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """An image, its longer side so many pixels."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)


def _stack(words: str, groups: Sequence[Sequence[Row]]) -> Image.Image:
    """Rows below a title; those of a group stand side by side where they fit."""
    bands = [
        [(label, tile([each for _, each in images], [text for text, _ in images], min(len(images), _COLUMNS)))
         for label, images in rows]
        for rows in groups
    ]  # fmt: skip
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    width = max([3 * SHOWN, *(band.width for rows in bands for _, band in rows)])
    places, top = [], _HEAD
    for rows in bands:
        left = tall = 0
        for label, band in rows:
            if left + band.width > width:
                left, top, tall = 0, top + tall, 0
            places.append((label, band, left, top))
            left, tall = left + band.width + _GAP, max(tall, band.height + _LABEL + MARGIN)
        top += tall
    paper = Image.new("RGB", (width, top), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((2 * MARGIN, 8), ellipsize(words, font, width - 4 * MARGIN), INK, font)
    for label, band, left, top in places:
        draw.text((left + MARGIN, top + 6), ellipsize(label, small, band.width - MARGIN), FAINT, small)
        paper.paste(band, (left, top + _LABEL))
    return paper
