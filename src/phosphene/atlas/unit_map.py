"""An atlas's units laid out by likeness: by how active they are on the same images, or photographs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict  # pydantic takes Python's own from 3.12 on

from phosphene import defaults
from phosphene.atlas.layout import FEWEST, lay_out, on_unit_square
from phosphene.atlas.plan import CLASSES
from phosphene.atlas.relations import fed_as_made, means_of_units, standardize
from phosphene.atlas.site_data import SiteAtlas
from phosphene.atlas.storage import map_threaded
from phosphene.atlas.store import Store
from phosphene.default_progress import ProgressOption, Tally, counted
from phosphene.errors import InputError, input_errors_for
from phosphene.extras import require
from phosphene.files import parse_json
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import list_photographs

FILE = "maps/units.json"
_BATCH = 32
_MOST_ASSIGNED = 1500  # units whose places are found together; of more, by rows
_SPARE = 1.25  # places for each unit
_MOST_TEXT = 1 << 26

_Name = Annotated[str, Field(max_length=500)]
_Place = Annotated[int, Field(ge=0, lt=2**31)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Plain(TypedDict):
    grid: Annotated[int, Field(ge=1, le=10_000)]
    groups: Annotated[list[_Name], Field(max_length=10_000)]
    units: list[tuple[_Place, _Place, _Place, _Place]]
    coordinates: list[tuple[_Number, _Number]]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    probes: Annotated[str, Field(max_length=200)]


_Plain.__pydantic_config__ = ConfigDict(strict=False, extra="forbid")  # type: ignore[attr-defined]
_PLAIN = TypeAdapter(_Plain)


@dataclass(frozen=True, eq=False)
class UnitMap:
    """An atlas's units in the plane.

    Attributes:
        grid: rows of places, and as many columns.
        groups: the names of the units' groups.
        units: (row, column, group, index) of each unit; no two have the same place.
        coordinates: where UMAP put each, (units, 2).
        seed: of the layout.
        probes: what the units' responses are to, in words: "53 images of the atlas".
    """

    grid: int
    groups: tuple[str, ...]
    units: tuple[tuple[int, int, int, int], ...]
    coordinates: Tensor = field(repr=False)
    seed: int
    probes: str

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "grid": self.grid, "groups": list(self.groups), "units": [list(unit) for unit in self.units],
            "coordinates": [[round(value, 5) for value in point] for point in self.coordinates.tolist()],
            "seed": self.seed, "probes": self.probes,
        }  # fmt: skip


def lay_out_units(
    store: Store,
    network: Network,
    *,
    photographs: str | Path | None = None,
    seed: int = defaults.SEED,
    on_progress: ProgressOption = None,
) -> UnitMap:
    """Lay out the units of an atlas that have images, and keep the layout in the atlas (`maps/units.json`).

    A unit is what it responds to: its mean on each image (of a class, the logit), in standard deviations.

    Args:
        network: the plan's.
        photographs: a folder, to whose photographs the units respond; by default to the atlas's own images.
        on_progress: called with how many images are done, and of how many; by default a bar; False: nothing.

    Raises:
        InputError: the atlas has fewer than 12 units, or no image; or there are no photographs.
    """
    atlas = SiteAtlas.of(store, network, "")
    places = [(number, rows[0]["index"]) for number, (_, units) in enumerate(atlas.groups) for rows in units]
    if len(places) < FEWEST:
        raise InputError(f"{len(places)} units in {store.place!r}: a layout needs at least {FEWEST}")
    groups = [group for group, _ in atlas.groups]
    hidden = [group for group in groups if group.name != CLASSES]
    with counted(
        "images" if photographs is None else "photographs", on_progress, doing="what units make of them"
    ) as tally:
        batches = _own_images(atlas, network, tally) if photographs is None else _shots(network, photographs, tally)
        means, logits = means_of_units(network, hidden, batches, network.device)
    if any(group.name == CLASSES for group in groups):
        if logits is None:
            raise InputError(f"{network.name} has no logits, which its classes are laid out by")
        means[CLASSES] = logits
    responses = [means[group.name][:, [rows[0]["index"] for rows in units]] for group, units in atlas.groups]
    count = len(responses[0])
    if count < 3:
        raise InputError(f"{count} images: expected at least 3, by which units are alike or not")
    coordinates = lay_out(standardize(torch.cat(responses, 1)).T, seed)
    grid, cells = grid_places(coordinates)
    probes = f"{count} {'images of the atlas' if photographs is None else 'photographs'}"
    units = tuple((*divmod(cell, grid), *place) for cell, place in zip(cells, places, strict=True))
    made = UnitMap(grid, tuple(group.name for group in groups), units, coordinates, seed, probes)
    store.write(FILE, json.dumps(made.to_plain()).encode())
    return made


def read_unit_map(store: Store) -> UnitMap | None:
    """The layout that an atlas has of its units; None where it has none.

    Raises:
        InputError: it is damaged.
    """
    if not store.fs.exists(store.path(FILE)):
        return None
    origin = f"{FILE} of {store.place!r}"
    with input_errors_for(origin, "a layout, as `phosphene atlas map --units` writes it"):
        plain = parse_json(store.read(FILE).decode(), origin, _MOST_TEXT)
        try:
            found = _PLAIN.validate_python(plain)
        except ValidationError as errors:
            raise ValueError(errors.errors(include_url=False)[0]["msg"]) from None
        units, grid = found["units"], found["grid"]
        inside = all(row < grid and column < grid and group < len(found["groups"]) for row, column, group, _ in units)
        if not inside or len(units) != len(found["coordinates"]) or len({unit[:2] for unit in units}) != len(units):
            raise ValueError("places that are not there, or of two units")
        return UnitMap(
            grid, tuple(found["groups"]), tuple(units), torch.tensor(found["coordinates"]).reshape(-1, 2),
            found["seed"], found["probes"],
        )  # fmt: skip


def _own_images(atlas: SiteAtlas, network: Network, tally: Tally) -> Iterator[Tensor]:
    rows = [unit[0] for _, units in atlas.groups for unit in units]
    for first in range(0, len(rows), _BATCH):
        images = map_threaded(atlas.store.image, rows[first : first + _BATCH])
        yield torch.stack([fed_as_made(network, image) for image in images])
        tally.at(min(len(rows), first + _BATCH), len(rows))


def _shots(network: Network, photographs: str | Path, tally: Tally) -> Iterator[Tensor]:
    files = list_photographs(photographs)
    for done, _, pixels in decode_batches(files, network.preprocessing, _BATCH):
        yield pixels
        tally.at(done, len(files))


def grid_places(coordinates: Tensor) -> tuple[int, list[int]]:
    """A place of a grid for each point, near to it, no two at the same: the side of the grid, and the places."""
    count = len(coordinates)
    grid = math.ceil(math.sqrt(count * _SPARE))
    square = on_unit_square(coordinates)
    right, down = square[:, 0] * (grid - 1), (1 - square[:, 1]) * (grid - 1)
    if count > _MOST_ASSIGNED:
        return grid, _by_rows(right, down, grid)
    optimize = require("scipy.optimize", "analysis", "a map of units")
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    far = (down[:, None] - rows.flatten()) ** 2 + (right[:, None] - columns.flatten()) ** 2
    _, places = optimize.linear_sum_assignment(far.numpy())
    return grid, [int(place) for place in places]


def _by_rows(right: Tensor, down: Tensor, grid: int) -> list[int]:
    """As many points in each row, from the top; each row's from the left."""
    places = [0] * len(right)
    each = math.ceil(len(right) / grid)
    for row, mine in enumerate(torch.split(down.argsort(stable=True), each)):
        for order, point in enumerate(mine[right[mine].argsort(stable=True)].tolist()):
            places[point] = row * grid + order * grid // each
    return places
