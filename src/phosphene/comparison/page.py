"""A page on two networks: their figure, a table, and pairs of units with their pictures and photographs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from phosphene import defaults
from phosphene.api.ascend import ascend
from phosphene.ascent.run_options import RunOptions
from phosphene.atlas.sheets import frame_crops, jpeg
from phosphene.atlas.top_photographs import crop_box
from phosphene.comparison.features import has_map, spread
from phosphene.comparison.matched_layers import MatchedLayers
from phosphene.comparison.moments import Peaks
from phosphene.comparison.result import NetworkComparison
from phosphene.devices.callbacks import Callbacks
from phosphene.display import opaque
from phosphene.errors import InputError
from phosphene.files import atomic_write, make_directory
from phosphene.images import read_image
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.picture import Picture
from phosphene.planes import to_pil
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Channel

_SIDE = 200  # pixels of a picture on the page
_TITLES = {"best": "Pairs that are most alike", "worst": "Pairs that are least alike"}


@dataclass(frozen=True)
class UnitPair:
    """Two units that belong together.

    Attributes:
        kind: "best" or "worst" of its layers.
        units: of A and of B.
        correlation: theirs.
        match: the layers.
    """

    kind: str
    units: tuple[Channel, Channel]
    correlation: float
    match: MatchedLayers


Pictures = Mapping[tuple[str, int], Picture]
"""Of units of one network, by their layer and channel: a picture's own unit also says of which tokens it is."""


def choose_pairs(comparison: NetworkComparison, count: int) -> list[UnitPair]:
    """So many of the best and so many of the worst pairs: of layers evenly spread, where that suffices one of each.

    A pair is one of the assignment; a layer of a single pair has no worst.
    """
    matches = [each for each in comparison.matches if len(each.units.pairs)]
    if not matches or count < 1:
        return []
    chosen = [matches[int(place)] for place in spread([str(place) for place in range(len(matches))], count)]
    deep = math.ceil(count / len(chosen))
    found: dict[str, list[UnitPair]] = {"best": [], "worst": []}
    for rank in range(deep):
        for match in chosen:
            places = {"best": rank, "worst": len(match.units.pairs) - 1 - rank}
            if places["best"] < places["worst"] or (rank == 0 and places["best"] == places["worst"]):
                for kind, place in places.items():
                    if kind == "best" or places["best"] < place:
                        found[kind].append(_pair(kind, match, place))
    return [*found["best"][:count], *found["worst"][:count]]


def _pair(kind: str, match: MatchedLayers, place: int) -> UnitPair:
    first, second = match.units.pairs[place].tolist()
    units = Channel(match.a, first), Channel(match.b, second)
    return UnitPair(kind, units, float(match.units.correlations[place]), match)


def make_pictures(
    network: Network,
    units: Sequence[Channel],
    recipe: Recipe,
    seed: int = defaults.SEED,
    options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[dict[tuple[str, int], Picture], bool]:
    """Pictures of units of one network, each once; and whether Ctrl-C ended that before all were made."""
    result = ascend(network, list(dict.fromkeys(units)), recipe, seed=seed, options=options, callbacks=callbacks)
    made = {}
    for picture in result:
        unit = picture.unit
        assert isinstance(unit, Channel)
        made[unit.layer, unit.channel] = picture
    return made, result.interrupted


def write_page(
    comparison: NetworkComparison,
    networks: tuple[Network, Network],
    directory: str | Path,
    pairs: Sequence[UnitPair] = (),
    pictures: tuple[Pictures, Pictures] = ({}, {}),
) -> Path:
    """Write `compare.html` into a directory: one file, which asks nobody for anything; returns it.

    Args:
        networks: those that were compared; they feed the photographs, and say what a unit sees of one.
        pairs: what `choose_pairs` returns.
        pictures: of the pairs' units, for each network; those that are missing are left out.

    Raises:
        InputError: it cannot be written, or a photograph is gone.
    """
    folder = make_directory(Path(directory))
    figure = io.BytesIO()
    comparison.draw(figure)
    rows = [each.summary() for each in comparison.matches]
    names = _called(comparison)
    makers = [_PhotographStrips(comparison, network) for network in networks]
    shown = [_shown_pair(pair, names, makers, pictures) for pair in pairs]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("phosphene.comparison", ""), autoescape=True)
    page = environment.get_template("page.html").render(
        a=names[0],
        b=names[1],
        weights=(comparison.a.weights, comparison.b.weights),
        photographs=len(comparison.photographs) - comparison.unreadable,
        unreadable=comparison.unreadable,
        figure=_address(figure.getvalue(), "png"),
        columns=list(TABLE),
        rows=[{"a": row["layer_a"], "b": row["layer_b"], "cells": table_cells(row)} for row in rows],
        few=comparison.settings["few"],
        groups=[
            {"title": title, "pairs": [each for each, pair in zip(shown, pairs, strict=True) if pair.kind == kind]}
            for kind, title in _TITLES.items()
        ],
        notes=comparison.notes,
    )
    return atomic_write(folder / "compare.html", lambda path: path.write_text(page, encoding="utf-8"))


TABLE = ("CKA", "units", "dead", "correlation", "friends", "R² by one", "by few")
"""The columns of a table of layers, behind their names."""


def table_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of that table, of what `MatchedLayers.summary` returns; in brackets is chance."""

    def number(key: str) -> str:
        return "-" if not math.isfinite(row[key]) else f"{row[key]:.2f}"

    return [
        f"{number('cka')} ({number('cka_chance')})",
        "{} · {}".format(*row["channels"]),
        "{} · {}".format(*row["dead"]),
        f"{number('correlation')} ({number('correlation_chance')})",
        f"{row['friends']:.0%}",
        number("r2_by_one"),
        number("r2_by_few"),
    ]


def _called(comparison: NetworkComparison) -> tuple[str, str]:
    a, b = comparison.a.name, comparison.b.name
    return (a, b) if a != b else (f"{a} (A)", f"{b} (B)")


def _shown_pair(
    pair: UnitPair,
    names: tuple[str, str],
    makers: Sequence[_PhotographStrips],
    pictures: tuple[Pictures, Pictures],
) -> dict[str, Any]:
    units = []
    for name, unit, maker, made, peaks in zip(names, pair.units, makers, pictures, pair.match.peaks, strict=True):
        picture = made.get((unit.layer, unit.channel))
        strip = maker.strip(unit.layer, unit.channel, peaks)
        units.append(
            {
                "network": name,
                "name": str(unit),
                "picture": "" if picture is None else _address(jpeg(_small(picture)), "jpeg"),
                "photographs": _address(jpeg(strip), "jpeg"),
            }
        )
    return {"correlation": f"{pair.correlation:.2f}", "units": units}


def _small(picture: Picture) -> Image.Image:
    image = opaque(picture.image()).convert("RGB")
    factor = _SIDE / max(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class _PhotographStrips:
    """The photographs that excite units most, with what the most excited neuron sees of each."""

    def __init__(self, comparison: NetworkComparison, network: Network):
        self.comparison, self.network = comparison, network
        self._fields: dict[str, tuple[int, int]] = {}

    def strip(self, layer: str, unit: int, peaks: Peaks) -> Image.Image:
        known = self.network.layer(layer)
        size: tuple[int, int] = self.network.preprocessing.size  # type: ignore[assignment]
        shape = known.positions if known.tokens is None and has_map(known) else ()  # a token sees all of it
        if layer not in self._fields:
            self._fields[layer] = receptive_field(self.network, layer) if shape else size
        crops = []
        for index, place in zip(peaks.photographs[unit].tolist(), peaks.places[unit].tolist(), strict=True):
            crops.append((self._photograph(index), crop_box(size, place, shape, self._fields[layer])))
        return frame_crops(crops)

    def _photograph(self, index: int) -> Image.Image:
        path = self.comparison.photographs[index]
        if not path.is_file():
            raise InputError(f"photograph {str(path)!r}: there is no such file any more")
        pixels = self.network.preprocessing.photograph(read_image(path)).clamp(0, 255).byte()
        return to_pil(pixels.movedim(0, -1).contiguous().numpy()).convert("RGB")
