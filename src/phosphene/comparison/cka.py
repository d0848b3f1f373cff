"""Centered kernel alignment (CKA) of layers: how alike two layers see the same photographs.

Linear CKA (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", section 3) with the
unbiased estimator of HSIC (Song et al. 2012, eq. 5; Nguyen et al. 2021, "Do Wide and Deep Networks Learn the Same
Things?", eq. 3), so that layers of many channels are not alike by chance on few photographs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ROWS = 128  # of all Gram matrices at once


def cka_matrix(features: Sequence[Tensor]) -> Tensor:
    """Debiased linear CKA of each two of several features of the same photographs.

    1 is what differs by a rotation and a factor; 0 is chance, on average, so that a value may be a little below it.

    Args:
        features: each (photographs, channels), of four photographs or more; as many photographs in each.

    Returns:
        (features, features) in 64 bits; not a number where a feature is the same for all photographs.

    Example:
        >>> rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
        >>> float(cka_matrix([rows, 3 * rows[:, [2, 0, 1, 6, 5, 4, 3]]])[0, 1].round(decimals=6))
        1.0
    """
    rows = [_scaled(each) for each in features]
    count = len(rows[0])
    sums = [_row_sums(each) for each in rows]
    products = torch.zeros(len(rows), len(rows)).double()
    for start in range(0, count, _ROWS):
        block = slice(start, start + _ROWS)
        part = torch.stack([_centered(each, total, block).flatten() for each, total in zip(rows, sums, strict=True)])
        products += part @ part.T
    lengths = products.diagonal().clamp_min(0).sqrt()
    found = products / lengths[:, None] / lengths
    found[~(lengths > 0), :] = float("nan")
    found[:, ~(lengths > 0)] = float("nan")
    return found


def _scaled(features: Tensor) -> Tensor:
    """Centered, and of length 1 on average, which changes no CKA and keeps sums from overflowing."""
    centered = features.double() - features.double().mean(0)
    length = centered.square().sum(1).mean().sqrt()
    return centered / length if length > 1e-12 * features.double().abs().max() else torch.zeros_like(centered)


def _row_sums(rows: Tensor) -> Tensor:
    """Of the Gram matrix without its diagonal, (photographs,)."""
    return rows @ rows.sum(0) - rows.square().sum(1)


def _centered(rows: Tensor, sums: Tensor, block: slice) -> Tensor:
    """Rows of the Gram matrix, centered so that products of two such matrices are unbiased (Székely and Rizzo 2014,
    eq. 3): (rows, photographs), 0 on the diagonal."""
    count = len(rows)
    gram = rows[block] @ rows.T
    centered = gram - (sums[block, None] + sums) / (count - 2) + sums.sum() / ((count - 1) * (count - 2))
    centered.diagonal(block.start).zero_()
    return centered
