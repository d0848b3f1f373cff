"""What the atlas's page knows of a map: cells, names of classes over its regions, and where each photograph is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene.atlas.activation_map import POWER, ActivationMap
from phosphene.atlas.map_files import row_of

TOLD = 10  # classes of each cell
_BLOCKS = (1, 2, 3, 5, 8, 13, 21, 34)  # cells along the side of a region that has a name
_MOST_CLASSES = 2000  # by which the page filters


def map_values(found: ActivationMap, indices: Sequence[int]) -> dict[str, Any]:
    """A map as plain data for the page.

    Args:
        indices: of the cells that have a picture, in the order of the page's units.

    Raises:
        InputError: the map has no such cell.
    """
    rows = torch.tensor([row_of(found, index) for index in indices])
    grid = found.settings.grid
    return {
        "grid": grid,
        "cells": [
            [index // grid, index % grid, int(found.cells.activations[row]), int(found.cells.photographs[row])]
            for index, row in zip(indices, rows.tolist(), strict=True)
        ],
        "photographs": _photographs(found, rows),
        "facts": _facts(found),
        "unattributed": found.unattributed,
        **_classes(found, rows),
    }


def _photographs(found: ActivationMap, rows: Tensor) -> list[list[Any]]:
    """Of each photograph its file's name and digest, and at which of the page's cells it is."""
    place = torch.full((len(found.cells.index) + 1,), -1)
    place[rows] = torch.arange(len(rows))
    at = place[found.cells.of]  # what is in no cell is at the last place, which is none
    pairs = torch.unique(torch.stack([found.positions.photograph, at], 1)[at >= 0], dim=0)
    cells: list[list[int]] = [[] for _ in found.positions.photographs]
    for photograph, cell in pairs.tolist():
        cells[photograph].append(cell)
    return [[name, digest, mine] for (name, digest), mine in zip(found.positions.photographs, cells, strict=True)]


def _facts(found: ActivationMap) -> list[str]:
    settings = found.settings
    facts = [
        found.describe(),
        f"a cell is a place of the layout, UMAP by cosine, seed {settings.seed}"
        + (f", of {found.layout}" if found.layout else ""),
        f"its picture maximizes the dot product with its mean activation, times their cosine to the power {POWER:g}",
        f"the mean is whitened by the second moment of {found.moment} activations, damped by {settings.damping:g} of "
        "its mean diagonal",
    ]
    if found.attributions is not None:
        facts.append(
            "a class is attributed to a cell by its logit's gradient, at the cell's own activations, along what their "
            "mean has beyond that of all"
        )
    return facts


def _classes(found: ActivationMap, rows: Tensor) -> dict[str, Any]:
    """The classes of the cells, what the page filters by, and the names over regions."""
    if found.attributions is None:
        return {"classes": [], "shares": "", "names": []}
    attributions = found.attributions[rows]
    best = attributions.topk(min(TOLD, attributions.shape[1]), dim=1)
    counts = torch.bincount(best.indices.flatten(), minlength=attributions.shape[1])
    known = counts.argsort(descending=True, stable=True)[: min(_MOST_CLASSES, int((counts > 0).sum()))].sort().values
    share = attributions[:, known]
    share = (share / share.amax(0).clamp_min(1e-12)).clamp(0, 1)
    told = [
        [[found.labels[index], round(value, 4)] for index, value in zip(mine, values, strict=True)]
        for mine, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return {
        "classes": [found.labels[index] for index in known.tolist()],
        # For each class, of each cell its attribution as a share of the class's highest, in 8 bits.
        "shares": base64.b64encode((share.T * 255).round().byte().contiguous().numpy().tobytes()).decode(),
        "told": told,
        "names": [[block, region_names(found, rows, block)] for block in _BLOCKS if block <= found.settings.grid],
    }


def region_names(found: ActivationMap, rows: Tensor, block: int) -> list[list[Any]]:
    """The class of the highest mean attribution of each block of cells, as [row, column, name], at their middle.

    Of neighbors of one class only the first is named.
    """
    assert found.attributions is not None
    grid = found.settings.grid
    index = found.cells.index[rows]
    row, column = index // grid, index % grid
    names: dict[tuple[int, int], int] = {}
    found_names: list[list[Any]] = []
    for place in torch.unique(torch.stack([row // block, column // block], 1), dim=0).tolist():
        mine = (row // block == place[0]) & (column // block == place[1])
        best = int(found.attributions[rows][mine].mean(0).argmax())
        down, across = place
        names[down, across] = best
        if best in (names.get((down - 1, across)), names.get((down, across - 1)), names.get((down - 1, across - 1))):
            continue
        middle = row[mine].double().mean().item() + 0.5, column[mine].double().mean().item() + 0.5
        found_names.append([round(middle[0], 2), round(middle[1], 2), found.labels[best]])
    return found_names
