"""The activation maps that an atlas shows the cells of: it keeps each in a file, and knows it by the file's digest.

A plan may come from anyone, so it names no file: a group of cells names a digest, and the atlas's own place has the map
of that digest, as plain safetensors, of which nothing is believed without bounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from phosphene.atlas.activation_map import POWER, ActivationMap, MapSettings
from phosphene.atlas.layout import Cells
from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import parse_json
from phosphene.networks.network import Network
from phosphene.photographs.positions import Positions
from phosphene.units.objects import Direction
from phosphene.units.tokens import TokenSelection

Load = Callable[[], bytes]
_loads: dict[str, Load] = {}
_MOST_TEXT = 1 << 27  # bytes of photographs' names
_KIND = "activation map"
_DTYPES = {
    "directions": torch.float32, "coordinates": torch.float32, "shares": torch.float32, "photograph": torch.int32,
    "cell": torch.int32, "cells": torch.int32, "photographs": torch.uint8,
}  # fmt: skip


def file_name(digest: str) -> str:
    """Where a map is, from the atlas's root on."""
    return f"maps/{digest}.safetensors"


def digest_of(data: bytes) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def provide(digest: str, read: Load) -> None:
    """Say how the file of a digest is read, when it is needed."""
    _loads[digest] = read


@lru_cache(4)
def find(digest: str) -> ActivationMap:
    """The map of a digest.

    Raises:
        InputError: nobody has provided it, or what is there is another, or damaged.
    """
    return from_bytes(data_of(digest), file_name(digest))


def data_of(digest: str) -> bytes:
    """The file of a digest.

    Raises:
        InputError: nobody has provided it, or what is there has another digest.
    """
    if digest not in _loads:
        raise InputError(f"the map {digest} of the atlas is not there: expected {file_name(digest)} in its place")
    data = _loads[digest]()
    if digest_of(data) != digest:
        raise InputError(f"the map in {file_name(digest)} is another, or damaged: its digest is {digest_of(data)}")
    return data


def unit_of(digest: str, index: int, layer: str) -> Direction:
    """What the picture of a cell is made along: `cos^4*dot(LAYER:[FILE#directions,ROW])`.

    Args:
        index: of the cell, counted row by row.
        layer: which the map is of, as the plan has it.

    Raises:
        InputError: the map has no such cell, or is of another layer.
    """
    found = find(digest)
    if found.layer != layer:
        raise InputError(
            f"the map {digest} is of {found.layer}, and not of {printable(layer)}: expected a plan of its own"
        )
    row = row_of(found, index)
    return Direction(
        found.layer, tuple(found.directions[row].tolist()), None, TokenSelection.parse(found.tokens) if found.tokens
        else None, power=POWER, name=f"{digest}.safetensors#directions,{row}",
    )  # fmt: skip


def row_of(found: ActivationMap, index: int) -> int:
    """The row of a cell among those that a map has.

    Raises:
        InputError: it has no such cell.
    """
    place = int(torch.searchsorted(found.cells.index, index))
    if place >= len(found.cells.index) or int(found.cells.index[place]) != index:
        raise InputError(f"cell {index} of the map of {found.layer}: it has too few activations, or is not on the map")
    return place


def responses_of(digest: str, activation: Tensor, network: Network) -> Tensor:
    """How much of each cell's direction there is at each position: (channels, *positions) to (cells, positions).

    Cells are counted row by row; those that the map has no picture of are silent.
    """
    found = find(digest)
    if found.tokens:
        activation = TokenSelection.parse(found.tokens).of(activation, network.layer(found.layer).tokens)
    inputs = activation.flatten(1).float()
    silent = torch.zeros(found.settings.grid**2, inputs.shape[1], device=inputs.device)
    return silent.index_copy(0, found.cells.index.to(inputs.device), found.directions.to(inputs.device) @ inputs)


def to_bytes(made: ActivationMap) -> bytes:
    """A map as a file: the same map gives the same bytes."""
    cells = made.cells
    tensors = {
        "directions": made.directions.float(),
        "coordinates": made.coordinates.float(),
        "shares": made.positions.shares.float(),
        "photograph": made.positions.photograph.int(),
        "cell": cells.of.int(),
        "cells": torch.stack([cells.index, cells.activations, cells.photographs], 1).int(),
        "photographs": _bytes(json.dumps(made.positions.photographs)),
    }
    if made.attributions is not None:
        tensors["attributions"] = made.attributions.float()
        tensors["labels"] = _bytes(json.dumps(made.labels))
    names = ("layer", "network", "weights", "tokens", "layout", "unattributed", "moment")
    told = {name: getattr(made, name) for name in names} | {"settings": asdict(made.settings), "phosphene": _KIND}
    # One text, since several would come in any order.
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(plain, {"phosphene": json.dumps(told, sort_keys=True)})


def from_bytes(data: bytes, origin: str) -> ActivationMap:
    """What `to_bytes` made.

    Raises:
        InputError: it is damaged, or something else.
    """
    with input_errors_for(origin, "a map, as `phosphene atlas map` writes it"):
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or not 0 < length <= len(data) - 8:
            raise ValueError("no safetensors")
        header = parse_json(data[8 : 8 + length].decode(), origin)
        told = parse_json(header["__metadata__"]["phosphene"], origin)
        if told.pop("phosphene") != _KIND:
            raise ValueError("another kind of file")
        return _assemble(load(data), told)


def _assemble(tensors: dict[str, Tensor], told: dict[str, Any]) -> ActivationMap:
    """The map, if every part is of its type and range; else a `ValueError`, `KeyError` or `TypeError`."""
    settings = MapSettings(**told.pop("settings"))
    _check(tensors, settings)
    photographs = _names(tensors["photographs"])
    index, activations, sources = tensors["cells"].long().T.contiguous()
    cells = Cells(settings.grid, index, activations, sources, tensors["cell"].long())
    positions = Positions(
        tuple((str(name), str(digest)) for name, digest in photographs), tensors["photograph"].long(),
        tensors["shares"],
    )  # fmt: skip
    if bool(((positions.photograph < 0) | (positions.photograph >= len(photographs))).any()):
        raise ValueError("a photograph that is not there")
    attributions = tensors.get("attributions")
    labels = () if attributions is None else tuple(map(str, _names(tensors["labels"])))
    if attributions is not None and tuple(attributions.shape) != (len(index), len(labels)):
        raise ValueError("attributions")
    texts = {name: _text(told[name]) for name in ("layer", "network", "weights", "tokens", "layout", "unattributed")}
    return ActivationMap(
        **texts, settings=settings, positions=positions, coordinates=tensors["coordinates"], cells=cells,
        directions=tensors["directions"], attributions=attributions, labels=labels, moment=int(told["moment"]),
    )  # fmt: skip


def _check(tensors: dict[str, Tensor], settings: MapSettings) -> None:
    for name, dtype in _DTYPES.items():
        if tensors[name].dtype != dtype or not bool(tensors[name].float().isfinite().all()):
            raise ValueError(name)
    count, (rows, _) = len(tensors["photograph"]), tensors["directions"].shape
    if tensors["coordinates"].shape != (count, 2) or tensors["shares"].shape != (count, 2):
        raise ValueError("positions")
    if tensors["cell"].shape != (count,) or tensors["cells"].shape != (rows, 3) or not rows:
        raise ValueError("cells")
    index = tensors["cells"][:, 0]
    if bool((index.diff() <= 0).any()) or int(index[0]) < 0 or int(index[-1]) >= settings.grid**2:
        raise ValueError("cells")
    if int(tensors["cell"].min()) < -1 or int(tensors["cell"].max()) >= rows or int(tensors["cells"].min()) < 0:
        raise ValueError("cells")
    attributions = tensors.get("attributions")
    if attributions is not None and (attributions.dtype != torch.float32 or not bool(attributions.isfinite().all())):
        raise ValueError("attributions")


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _names(data: Tensor) -> list[Any]:
    found = parse_json(bytes(data.numpy()).decode(), "names in it", _MOST_TEXT)
    if not isinstance(found, list):
        raise TypeError("names")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise TypeError("a text")
    return value if value.isprintable() else printable(value)
