"""The penalty of sorted activations: how far channels on an image are from what they are on photographs of its unit.

From VITAL (Görgün et al. 2025, the sort-matching loss): a channel's values at all positions are sorted, and compared
with the mean of the sorted values of the photographs, so that what is compared is how they are distributed, not where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from phosphene.ascent.statistics import LayerMoments, RunningMoments
from phosphene.hardware import to_device
from phosphene.networks.forward import Reader


class SortedPenalty:
    """Reads a network's layers, and tells how far their sorted activations are from the photographs'.

    Per layer the mean over channels and ranks of the squared difference, in the network's own units; then the mean
    over layers.  It is called as `StatisticsPenalty` is.
    """

    def __init__(self, layers: Sequence[LayerMoments], device: torch.device):
        self.layers, self.device = list(layers), device
        self.distances: dict[int, Tensor] = {}

    def readers(self, steps: Sequence[int], own: Sequence[Tensor]) -> tuple[dict[str, Reader], dict[str, Reader]]:
        """Of layers' outputs; they note the distances of one pass.

        Args:
            steps: not looked at.
            own: of each layer the photographs' sorted values for each row of the pass, (rows, channels, ranks).
        """
        self.distances = {}
        return {
            entry.layer: self._reader(index, wanted)
            for index, (entry, wanted) in enumerate(zip(self.layers, own, strict=True))
        }, {}

    def _reader(self, index: int, wanted: Tensor) -> Reader:
        def read(activation: Tensor) -> None:
            found = sorted_values(activation)
            aim = to_device(wanted, found.device)
            if aim.shape[-1] != found.shape[-1]:  # a map of another size: the same distribution at so many ranks
                aim = functional.interpolate(aim, found.shape[-1], mode="linear", align_corners=True)
            self.distances[index] = (found - aim).square().flatten(1).mean(dim=1)

        return read

    def penalties(
        self,
        rows: int,
        groups: list[int] | None = None,
        depths: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        memories: Sequence[RunningMoments] = (),
    ) -> Tensor:
        """How far each row is, (rows,), on average over its views.

        Args:
            rows: how many.
            depths: of each row the depth of its unit's layer: what comes behind does not count.
            groups, steps, memories: not looked at.
        """
        reach = to_device(torch.tensor([math.inf] * rows if depths is None else list(depths)), self.device)
        counts = [(self.layers[index].depth <= reach).float() for index in self.distances]
        if not counts:
            return torch.zeros(rows, device=self.device)
        found = [each.view(-1, rows).mean(dim=0) for each in self.distances.values()]
        total = torch.stack([one * count for one, count in zip(found, counts, strict=True)]).sum(dim=0)
        return total / torch.stack(counts).sum(dim=0).clamp_min(1)


def sorted_values(activation: Tensor) -> Tensor:
    """Each channel's values, the least first: (rows, channels, *positions) to (rows, channels, positions)."""
    found: Tensor = activation.float().reshape(*activation.shape[:2], -1).sort(dim=-1).values
    return found
