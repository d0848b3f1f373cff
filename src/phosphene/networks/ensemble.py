"""Several networks whose logits of a class are added, each with a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phosphene.errors import InputError


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Several networks, and how much the logits of each count.

    It stands where a network does: the weighted sum of its networks' logits of a class is maximized.  With weights 1
    and -1 that is what the first calls a class and the second does not.

    Attributes:
        networks: each as `phosphene.open` takes it; the first gives the size and the names.
        weights: of each; by default all count alike, and the mean is taken.

    Raises:
        InputError: there is no network, or not a finite weight for each, or all weights are 0.

    Example:
        >>> ascend(Ensemble(["tuned.pth", "original.pth"], [1, -1]), "class:3")
    """

    networks: Sequence[Any]
    weights: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.networks:
            raise InputError("no network is given: expected at least one")
        weights = tuple(float(weight) for weight in self.weights) or (1 / len(self.networks),) * len(self.networks)
        if len(weights) != len(self.networks):
            raise InputError(
                f"{len(weights)} weights for {len(self.networks)} networks: expected none, or one for each"
            )
        if not all(map(math.isfinite, weights)) or not any(weights):
            raise InputError(f"weights {', '.join(map(str, weights))}: expected finite ones that are not all 0")
        object.__setattr__(self, "networks", tuple(self.networks))
        object.__setattr__(self, "weights", weights)
