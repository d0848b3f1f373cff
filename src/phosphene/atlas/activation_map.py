"""The activation atlas of a layer (Carter et al. 2019): what it makes of photographs, laid out, and averaged by cell.

Activations at random positions of photographs are laid out in the plane by their likeness; a grid is put over it; the
mean of each cell that has enough of them is a direction of the layer, and its picture what the layer sees there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from phosphene import defaults
from phosphene.atlas.class_attribution import MOST, attribute
from phosphene.atlas.layout import FEWEST, Cells, cells_of, lay_out, mean_by_cell
from phosphene.default_progress import OnProgress
from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.photographs.directions import whitened
from phosphene.photographs.listing import list_photographs
from phosphene.photographs.positions import Positions, SampledActivations, grid_of, sample_activations

GRID, LEAST, LEAST_PHOTOGRAPHS = 20, 5, 3
# Of the second moment's mean diagonal.  Of EfficientNet-lite0's blocks.4.2.bn2.act, pictures of neighboring cells
# excite the layer alike with a correlation of 0.11 by 0.01, 0.14 by 0.1 and 0.19 by 1; by 1 little is whitened.
DAMPING = 0.1
MOST_GRID = 200
POWER = 4.0  # of the cosine that the dot product is multiplied by


@dataclass(frozen=True)
class MapSettings:
    """How an activation map is made.

    Attributes:
        grid: rows of cells, and as many columns.
        positions: of each photograph.
        least, least_photographs: activations that a cell needs, and of how many photographs.
        damping: what is added to the second moment before it is inverted, as a share of its mean diagonal: it shrinks
            the inverse towards a multiple of the identity.
        seed: of the positions, and of the layout.

    Raises:
        InputError: one of them cannot be.
    """

    grid: int = GRID
    positions: int = 1
    least: int = LEAST
    least_photographs: int = LEAST_PHOTOGRAPHS
    damping: float = DAMPING
    seed: int = defaults.SEED

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= MOST_GRID:
            raise InputError(f"a grid of {self.grid}: expected 1 to {MOST_GRID} rows of cells")
        for name in ("positions", "least", "least_photographs"):
            if not 1 <= getattr(self, name) < 2**31:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)}: expected at least 1")
        if not 0 < self.damping <= 1e6:
            raise InputError(f"a damping of {self.damping}: expected a number above 0, such as {DAMPING}")


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """The activation atlas of a layer, before its pictures are made.

    Attributes:
        layer, network, weights: of which layer, and of which network: its name, and its digest.
        tokens: "@patches" of a layer of tokens; otherwise empty.
        settings: how it was made.
        positions: where in which photographs the activations are.
        coordinates: the layout of the activations, (activations, 2); the first axis goes right, the second up.
        layout: which network and layer that is of, "NETWORK LAYER", where it is another's; otherwise empty.
        cells: those that have enough activations.
        directions: of each cell, which its picture is made along: its mean activation, whitened, (cells, channels).
        attributions: of each cell to each class, (cells, classes), or none.
        unattributed: why there are none.
        labels: the names of the classes; empty where there are none.
        moment: of how many activations the second moment is.
    """

    layer: str
    network: str
    weights: str
    tokens: str
    settings: MapSettings
    positions: Positions
    coordinates: Tensor = field(repr=False)
    layout: str
    cells: Cells
    directions: Tensor = field(repr=False)
    attributions: Tensor | None = field(default=None, repr=False)
    unattributed: str = ""
    labels: tuple[str, ...] = ()
    moment: int = 0

    def describe(self) -> str:
        """In a sentence, what is assumed."""
        settings, cells = self.settings, self.cells
        return (
            f"{len(cells.index)} of {settings.grid}x{settings.grid} cells have at least {settings.least} activations "
            f"of at least {settings.least_photographs} photographs: {int(cells.activations.sum())} of "
            f"{len(self.positions)} activations of {len(self.positions.photographs)} photographs"
        )

    def answers(
        self, network: Network, files: Sequence[Path], settings: MapSettings, layout: ActivationMap | None
    ) -> bool:
        """Whether it is what `activation_map` would make of its layer: it need not be made again."""
        wanted = settings if layout is None else replace(layout.settings, damping=settings.damping)
        if (self.weights, self.settings, self.layout) != (network.digest, wanted, _layout_name(layout)):
            return False
        if layout is not None and not torch.equal(layout.coordinates, self.coordinates):
            return False
        return self.positions.are_of(files)


def _layout_name(layout: ActivationMap | None) -> str:
    return "" if layout is None else f"{layout.network} {layout.layer}"


def activation_map(
    network: Network,
    layer: str,
    photographs: str | Path | Sequence[str | Path],
    *,
    settings: MapSettings | None = None,
    layout: ActivationMap | None = None,
    attributed: int = MOST,
    on_progress: Callable[[str], OnProgress | None] | Literal[False] | None = None,
) -> ActivationMap:
    """The activation atlas of a layer: activations of photographs, their layout, and each cell's direction.

    Args:
        network: it is handed back as it came.
        layer: its name: one of maps, or of tokens, of which the patches are taken.
        photographs: a folder, or files.
        settings: by default `MapSettings()`.
        layout: the map of another layer or network: positions, layout and grid are that one's, so that a cell of both
            is of the same positions of the same photographs; `settings` then count for nothing but the damping.
        attributed: activations of each cell by which classes are attributed to it; 0: none are.
        on_progress: called with what is done next, returns what is called with how much of it is done; by default
            bars; False: nothing.

    Raises:
        InputError: the layer has no positions, there are too few photographs or activations for a layout or for one
            cell, or the layout is of other photographs.

    Example:
        >>> import phosphene
        >>> network = phosphene.open("efficientnet_lite0")
        >>> made = phosphene.activation_map(network, "blocks.4.2.bn2.act", "photographs")  # doctest: +SKIP
        >>> made.directions.shape  # doctest: +SKIP
        torch.Size([143, 672])
    """
    chosen = settings or MapSettings()
    if layout is not None:
        chosen = replace(layout.settings, damping=chosen.damping)
    files = _files(photographs)
    grid_of(network.layer(layer))
    sampled = sample_activations(
        network, layer, files, count=chosen.positions, seed=chosen.seed,
        positions=None if layout is None else layout.positions, on_progress=_told(on_progress, "activations"),
    )  # fmt: skip
    coordinates = _lay_out(sampled, chosen) if layout is None else layout.coordinates
    cells = cells_of(
        coordinates, sampled.positions.photograph, chosen.grid,
        least=chosen.least, least_photographs=chosen.least_photographs,
    )  # fmt: skip
    cells, means = _with_directions(cells, sampled.vectors)
    attributions, why = None, "no activation was asked for classes"
    if attributed:
        # What a cell has beyond the average: what all have in common says little of any class, and may hide the rest.
        beyond = (means - sampled.vectors.double().mean(0)).float()
        attributions, why = attribute(
            network, layer, beyond, cells.of, sampled.positions, files, most=attributed,
            on_progress=_told(on_progress, "classes of cells"),
        )  # fmt: skip
    directions = whitened(means.T, sampled.second_moment, chosen.damping).T.float().contiguous()
    names = _class_names(network) if attributions is not None else ()
    return ActivationMap(
        layer, network.name, network.digest, "@patches" * (network.layer(layer).tokens is not None), chosen,
        sampled.positions, coordinates, _layout_name(layout), cells, directions,
        attributions, why, names, sampled.count,
    )  # fmt: skip


def _told(
    on_progress: Callable[[str], OnProgress | None] | Literal[False] | None, what: str
) -> OnProgress | Literal[False] | None:
    """Who is told of a part of the work."""
    return (on_progress(what) or False) if callable(on_progress) else on_progress


def _lay_out(sampled: SampledActivations, settings: MapSettings) -> Tensor:
    count = len(sampled.vectors)
    if count < FEWEST:
        raise InputError(
            f"{count} activations of {len(sampled.positions.photographs)} photographs: a layout needs at least "
            f"{FEWEST}; expected more photographs, or more positions of each"
        )
    return lay_out(sampled.vectors, settings.seed)


def _files(photographs: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(photographs, str | Path):
        return list_photographs(photographs)
    return [Path(each) for each in photographs]


def _with_directions(cells: Cells, vectors: Tensor) -> tuple[Cells, Tensor]:
    """The cells whose mean activation is a direction, not 0; and these, (cells, channels), in 64 bits."""
    means = mean_by_cell(vectors, cells.of, len(cells.index))
    there = means.abs().amax(1) > 1e-20
    if not bool(there.any()):
        raise InputError("the layer is silent on these photographs: every cell's mean activation is 0")
    if bool(there.all()):
        return cells, means
    renamed = torch.where(there, there.cumsum(0) - 1, -1)
    of = torch.where(cells.of >= 0, renamed[cells.of.clamp_min(0)], -1)
    kept = Cells(cells.grid, cells.index[there], cells.activations[there], cells.photographs[there], of)
    return kept, means[there]


def _class_names(network: Network) -> tuple[str, ...]:
    if network.labels is None or len(network.labels) != network.classes:
        return tuple(map(str, range(network.classes)))
    return tuple(label.name for label in network.labels)
