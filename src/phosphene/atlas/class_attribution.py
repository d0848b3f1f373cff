"""What the cells of an activation atlas speak for: each class's logit, to first order (Carter et al. 2019).

How much a direction at a position adds to a logit is the logit's gradient there, dotted with the direction; a cell's
attribution is the mean over its activations.  The direction here is what the cell's mean activation has beyond that of
all, since what all have in common may hide the rest (of EfficientNet-lite0's blocks.6.0.bn2.act the classes of
photographs are then among the first, and else among the last).

All classes come from one pass that carries derivatives forwards (Baydin et al. 2018, "Automatic Differentiation in
Machine Learning: a Survey", section 3.1): the logits' derivative along the direction, put at that position, is that dot
product for every class at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from phosphene.default_progress import ProgressOption, Tally, counted
from phosphene.errors import first_line
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.positions import Positions, grid_of, places

MOST = 8
"""Activations of each cell that are asked, evenly spread."""

_BATCH = 16


def attribute(
    network: Network,
    layer: str,
    directions: Tensor,
    of: Tensor,
    positions: Positions,
    files: Sequence[Path],
    *,
    most: int = MOST,
    on_progress: ProgressOption = None,
) -> tuple[Tensor | None, str]:
    """The attributions of cells to classes.

    Args:
        directions: of each cell, (cells, channels): its mean activation, or what this has beyond the mean of all.
        of: for each position its cell, or -1, (positions,).
        positions: in the photographs that could be read, of the files, in their order.
        files: of the photographs.
        most: activations of each cell that are asked, evenly spread among them.
        on_progress: called with how many files are done, and of how many; by default a bar; False: nothing.

    Returns:
        (cells, classes) in 32 bits, and ""; or None, and why there are none.
    """
    if not network.classes:
        return None, f"{network.name} has no classes"
    asked = _evenly(of, len(directions), most)
    sums, counts = torch.zeros(len(directions), network.classes, dtype=torch.float64), torch.zeros(len(directions))
    try:
        doing = f"classes of {len(directions)} cells"
        with (
            counted("photographs", on_progress, len(files), doing=doing) as tally,
            network.borrowed(network.device),
            _differentiable(),
        ):
            where = places(positions.shares, grid_of(network.layer(layer))).to(network.device)
            for part, pixels in _batches(network, positions, asked, files, tally):
                cells = of[part]
                moved = _derivative(network, layer, pixels, where[part], directions[cells].to(network.device))
                sums.index_add_(0, cells, moved.double())
                counts.index_add_(0, cells, torch.ones(len(cells)))
    except (NotImplementedError, RuntimeError, _NotCarriedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return None, f"{network.name} has no derivative forwards from {layer} ({first_line(error)})"
    found = (sums / counts.clamp_min(1)[:, None]).float()
    if not bool(found.isfinite().all()):
        return None, f"{network.name} gives derivatives that are not finite"
    return found, ""


class _NotCarriedError(Exception):
    """The logits do not depend on what was put at the layer, as far as can be told."""


@contextmanager
def _differentiable() -> Iterator[None]:
    """Without the fused attention of PyTorch, which has no derivative forwards."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _evenly(of: Tensor, cells: int, most: int) -> Tensor:
    """The indices of so many activations of each cell, in order of the activations."""
    chosen = []
    for cell in range(cells):
        mine = (of == cell).nonzero()[:, 0]
        count = min(most, len(mine))
        chosen.append(mine[torch.arange(count) * len(mine) // max(1, count)])
    return torch.cat(chosen).sort().values


def _batches(
    network: Network, positions: Positions, asked: Tensor, files: Sequence[Path], tally: Tally
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the positions at once, by index, and the pixels of the photograph of each."""
    place = 0
    for done, indices, pixels in decode_batches(files, network.preprocessing, _BATCH):
        mine = positions.photograph[asked]
        here = asked[(mine >= place) & (mine < place + len(indices))]
        for part in torch.split(here, _BATCH):
            yield part, pixels[positions.photograph[part] - place].to(network.device)
        place += len(indices)
        tally.at(done, len(files))


def _derivative(network: Network, layer: str, pixels: Tensor, where: Tensor, tangents: Tensor) -> Tensor:
    """The logits' derivative along a vector at one position of a layer, of each row: (rows, classes).

    Args:
        where: the place of each row, counted row by row of the layer's grid.
        tangents: (rows, channels).
    """
    known = network.layer(layer)
    rows = torch.arange(len(pixels), device=pixels.device)
    carried = False

    def put(activation: Tensor) -> None:
        nonlocal carried
        if carried:
            return
        carried = True
        along = torch.zeros_like(activation)
        if known.tokens is None:
            width = activation.shape[-1]
            along[rows, :, where // width, where % width] = tangents.to(along)
        else:
            along[rows, :, where + known.tokens.prefix] = tangents.to(along)
        activation.add_(forward_mode.make_dual(torch.zeros_like(activation), along))  # type: ignore[no-untyped-call]

    with forward_mode.dual_level():
        logits = network.forward(pixels, {layer: put})
        moved: Tensor | None = forward_mode.unpack_dual(logits).tangent  # type: ignore[no-untyped-call]
        if moved is None:
            raise _NotCarriedError("what is put there does not reach the logits")
        return moved.detach().clone().cpu()
