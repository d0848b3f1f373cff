"""Path similarity: how far a picture goes through its network as photographs do (Geirhos et al. 2023).

At each layer, how active its channels are is ranked, and the ranks of the picture are correlated (Spearman) with those
of the photographs that excite the unit most.  1 is what these are like among themselves, and 0 what they are like other
photographs: a picture that the network sees as it sees photographs stays near 1 all the way.

Geirhos et al. compare single activations; here it is channels, each averaged over its map, since a picture has its
things at other places than a photograph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Where photographs of the unit are hardly more alike than any photographs are, or not surely, a layer says nothing.
_LEAST_SPAN = 0.02
_LEAST_ERRORS = 3.0


@dataclass(frozen=True, eq=False)
class RankedPaths:
    """Photographs, as paths are compared with them: by layer the `centered_ranks`, (photographs, channels)."""

    ranks: dict[str, Tensor]

    @classmethod
    def of(cls, photographs: Mapping[str, Tensor]) -> RankedPaths:
        """From how active each channel is, by layer, (photographs, channels); of two channels there are no ranks."""
        return cls({layer: centered_ranks(rows) for layer, rows in photographs.items() if rows.shape[1] >= 3})

    def similarities(self, picture: Mapping[str, Tensor], exciting: Tensor) -> dict[str, float]:
        """By layer, how the picture goes: 1 as photographs of the unit, 0 as any photographs.

        Layers at which that cannot be told are left out.

        Args:
            picture: by layer, how active each channel is, (channels,).
            exciting: the indices of the photographs of the unit.
        """
        found = {}
        for layer, ranks in self.ranks.items():
            of_unit = ranks[exciting]
            others = (ranks.sum(0) - of_unit.sum(0)) / (len(ranks) - len(exciting))  # on average
            among = of_unit @ of_unit.T
            within = (among.sum(1) - among.diagonal()) / (len(exciting) - 1)  # of each photograph to the rest of them
            between = of_unit @ others
            span = float((within - between).mean())
            error = float((within - between).std()) / math.sqrt(len(exciting))
            if span >= max(_LEAST_SPAN, _LEAST_ERRORS * error):
                own = centered_ranks(picture[layer][None])[0]
                found[layer] = float(((of_unit @ own).mean() - between.mean()) / span)
        return found


def path_similarities(
    picture: Mapping[str, Tensor], photographs: Mapping[str, Tensor], exciting: Tensor
) -> dict[str, float]:
    """`RankedPaths.similarities` of one picture."""
    return RankedPaths.of(photographs).similarities(picture, exciting)


def centered_ranks(values: Tensor) -> Tensor:
    """Ranks of each row's values, ties sharing theirs, so that the product of two rows is Spearman's correlation.

    (rows, channels) to the same shape; a row of one value becomes zeros.
    """
    rows = []
    for row in values.double().numpy():
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        rank = (ends - (counts - 1) / 2)[inverse.ravel()]
        rank = rank - rank.mean()
        norm = np.linalg.norm(rank)
        rows.append(rank / norm if norm > 0 else rank)
    return torch.from_numpy(np.stack(rows))
