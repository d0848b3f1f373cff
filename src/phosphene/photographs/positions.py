"""Activations at random positions of photographs, as an activation atlas is made of (Carter et al. 2019).

A position is kept as a share of the photograph as it is fed to the network, so that a layer of another size, or of
another network, can be read at the same positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.images import read_image
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions in photographs.

    Attributes:
        photographs: those that could be read, each its file's name and the first 16 hexadecimal digits of the SHA-256
            of the file.
        photograph: which of them each position is in, (positions,).
        shares: where, as shares of height and width of the photograph as it is fed, (positions, 2), from 0 to below 1.
    """

    photographs: tuple[tuple[str, str], ...]
    photograph: Tensor
    shares: Tensor

    def are_of(self, files: Sequence[Path]) -> bool:
        """Whether these files, without those that cannot be read, are its photographs."""
        described = [(file, describe(file)) for file in files]
        known = set(self.photographs)
        if tuple(told for _, told in described if told in known) != self.photographs:
            return False
        return not any(_is_readable(file) for file, told in described if told not in known)

    def __len__(self) -> int:
        return len(self.photograph)


@dataclass(frozen=True, eq=False)
class SampledActivations:
    """A layer's activations at positions of photographs.

    Attributes:
        vectors: (positions, channels), in 32 bits.
        second_moment: of the vectors at all positions of all the photographs, (channels, channels), in 64 bits.
        count: how many vectors that is of.
    """

    positions: Positions
    vectors: Tensor = field(repr=False)
    second_moment: Tensor = field(repr=False)
    count: int


def grid_of(layer: Layer) -> tuple[int, int]:
    """Rows and columns of a layer's positions: of its map, or of its patches.

    Raises:
        InputError: it has none.
    """
    if layer.tokens is not None:
        return layer.tokens.grid
    if len(layer.positions) == 2:
        return layer.positions[0], layer.positions[1]
    has = f"{layer.positions[0]} tokens, of which nothing says which are patches" if layer.positions else "none"
    if len(layer.positions) > 2:
        has = f"those of {'x'.join(map(str, layer.positions))}"
    raise InputError(
        f"layer {layer.name!r} has no positions in rows and columns ({has}): expected a layer of maps, or of patches"
    )


def places(shares: Tensor, grid: tuple[int, int]) -> Tensor:
    """The places of positions in a grid of rows and columns, counted row by row: (positions, 2) to (positions,)."""
    rows, columns = ((shares[:, axis] * length).long().clamp(0, length - 1) for axis, length in enumerate(grid))
    return rows * grid[1] + columns


def on_grid(activation: Tensor, layer: Layer) -> Tensor:
    """A layer's output at its positions: (rows, channels, *positions) to (rows, channels, positions), a view."""
    flat = activation.flatten(2)
    return flat if layer.tokens is None else flat[..., layer.tokens.prefix :]


def sample_activations(
    network: Network,
    layer: str,
    files: Sequence[Path],
    *,
    count: int = 1,
    seed: int = 0,
    positions: Positions | None = None,
    on_progress: ProgressOption = None,
) -> SampledActivations:
    """A layer's activations at random positions of photographs.

    Which positions of a photograph are drawn depends on the seed and the photograph alone, not on the others.

    Args:
        network: it is handed back as it came.
        layer: its name.
        files: of the photographs; those that cannot be read are left out.
        count: positions of each photograph, all different; of a layer that has fewer, all of them.
        positions: these, in place of random ones; their photographs are the files, in their order.
        on_progress: called with how many files are done, and of how many; by default a bar; False: nothing.

    Raises:
        InputError: there is no such layer, or it has no positions; no photograph can be read; `positions` are of other
            photographs; or an activation is not finite.
    """
    known = network.layer(layer)
    grid = grid_of(known)
    read = _read if positions is None else _reader_of(positions, files)
    names: list[tuple[str, str]] = []
    drawn: list[tuple[Tensor, Tensor]] = []  # of each photograph the shares of its positions, and the vectors there
    moment, vectors = torch.zeros(known.channels, known.channels, dtype=torch.float64), 0
    batch: list[tuple[str, str]] = []

    def take(activation: Tensor) -> None:
        nonlocal moment, vectors
        rows = on_grid(activation.detach(), known).float()  # (rows, channels, positions)
        for name, row in zip(batch, rows, strict=True):
            shares = read(name, len(names), count, seed, grid)
            names.append(name)
            drawn.append((shares, row.T[places(shares, grid).to(row.device)].cpu()))
        flat = rows.movedim(1, -1).flatten(0, 1)
        moment = moment + (flat.T @ flat).double().cpu()
        vectors += len(flat)

    with (
        counted("photographs", on_progress, len(files), doing=layer) as tally,
        network.borrowed(network.device),
        torch.no_grad(),
    ):
        for done, indices, pixels in decode_batches(files, network.preprocessing, _BATCH):
            batch = [describe(files[index]) for index in indices]
            network.read(pixels.to(network.device), {layer: take})
            tally.at(done, len(files))
    of = torch.cat([torch.full((len(shares),), place) for place, (shares, _) in enumerate(drawn)])
    found = Positions(tuple(names), of, torch.cat([shares for shares, _ in drawn]))
    if positions is not None:
        _check_same(positions, found)
    sampled = SampledActivations(found, torch.cat([each for _, each in drawn]), moment / vectors, vectors)
    if not bool(sampled.second_moment.isfinite().all()) or not bool(sampled.vectors.isfinite().all()):
        raise InputError(f"layer {layer!r} of {network.name} gives numbers on these photographs that are not finite")
    return sampled


Read = Callable[[tuple[str, str], int, int, int, tuple[int, int]], Tensor]


def _read(name: tuple[str, str], place: int, count: int, seed: int, grid: tuple[int, int]) -> Tensor:
    """Positions of one photograph, drawn by the seed and its digest: the centers of places of the grid."""
    told = hashlib.sha256(f"{seed} {name[1]}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(told[:7], "big"))
    chosen = torch.randperm(grid[0] * grid[1], generator=generator)[:count].sort().values
    where = torch.stack([chosen // grid[1], chosen % grid[1]], 1)
    return ((where + 0.5) / torch.tensor(grid)).float()


def _reader_of(positions: Positions, files: Sequence[Path]) -> Read:
    """Positions of one photograph, of those that are given."""

    def read(name: tuple[str, str], place: int, count: int, seed: int, grid: tuple[int, int]) -> Tensor:
        if place >= len(positions.photographs) or positions.photographs[place] != name:
            raise _other_photographs(name[0])
        return positions.shares[positions.photograph == place]

    return read


def _check_same(given: Positions, found: Positions) -> None:
    """Raise an `InputError` if photographs of the given positions are not there."""
    if len(found.photographs) < len(given.photographs):
        raise _other_photographs(given.photographs[len(found.photographs)][0])


def _other_photographs(name: str) -> InputError:
    return InputError(
        f"the layout is of other photographs, beginning with {name!r}: expected the folder of photographs that it was "
        "made of, unchanged"
    )


def _is_readable(file: Path) -> bool:
    try:
        read_image(file)
    except InputError:
        return False
    return True


def describe(file: Path) -> tuple[str, str]:
    """A file's name, and the first 16 hexadecimal digits of its SHA-256."""
    return file.name, hashlib.sha256(file.read_bytes()).hexdigest()[:16]
