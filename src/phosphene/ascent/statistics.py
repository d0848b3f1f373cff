"""The penalty of activation statistics: how far a network's reading of an image is from that of natural ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from phosphene.hardware import to_device
from phosphene.networks.forward import Reader
from phosphene.networks.network import Network
from phosphene.networks.norms import Norm
from phosphene.photographs import activation_files
from phosphene.recipes.penalties import StatisticsSettings

# Deviations below this share of the natural one, or of the layer's largest, count as this.
_LEAST = 1e-3
# Of larger maps every other row and column is taken: as good an estimate at a quarter of the cost.
_LARGEST_MAP = 56 * 56


RunningMoments = dict[int, Tensor]
"""Of one image, by layer, the running averages of its channels' means and mean squares: (2, channels)."""


@dataclass(frozen=True)
class LayerMoments:
    """What a layer's channels are on natural images: means and deviations, (channels,)."""

    layer: str
    inputs: bool  # whether of what goes into the module, not what comes out
    mean: Tensor
    std: Tensor
    depth: float = 0.0  # how many layers end before it
    sign: Tensor | float = 1.0  # of each channel, -1 where less of it is more to what comes behind


def natural_statistics(
    network: Network, source: str, norms: Sequence[Norm] | None = None
) -> tuple[list[LayerMoments], str]:
    """The statistics of natural images that there are for a network, and where they come from.

    Args:
        network: opened.
        source: "batchnorm", "gathered" or "auto": batch normalization's where there are, or else those gathered.
        norms: what goes into the batch normalizations now, where that is not as `network.norms` says.

    Returns:
        The layers' statistics, none where there are none, and words for a user: "batchnorm", "gathered DIGEST", "".
    """
    norms = (network.norms if norms is None else norms) if source in ("auto", "batchnorm") else []
    depths: dict[str, int] = {}
    for depth, entry in enumerate(network.layers):
        depths.setdefault(entry.name, depth)
        depths.setdefault(network.call(entry.name)[0], depth)
    if norms:
        found = [
            LayerMoments(norm.module, True, norm.mean, norm.std, depths.get(norm.module, math.inf), norm.sign)
            for norm in norms
        ]
        return found, "batchnorm"
    gathered = activation_files.find_activation_statistics(network) if source in ("auto", "gathered") else None
    if gathered is None:
        return [], ""
    found = [
        LayerMoments(name, False, layer.mean, layer.std, depths.get(name, math.inf))
        for name, layer in gathered.layers.items()
    ]
    return found, f"gathered {gathered.digest()}"


class StatisticsPenalty:
    """Reads the moments of a network's layers, and tells how far they are from natural images'.

    From DeepInversion (Yin et al. 2020, "Dreaming to Distill", equation 4), here with the deviations in units of the
    natural ones, so that layers weigh alike: per layer the squared difference of the channels' means over the natural
    variance, plus the squared difference of the ratio of the deviations from 1; the mean over channels, then layers.

    The natural ones are means over many photographs, and each has its own things, no photograph all of them.  So an
    image that is pulled towards them from below gets things that are not of its class; with `side = "above"` only
    what is more than natural costs.

    A view shows a part of an image, and its moments are another part's at the next step.  With `average` a running
    average over the steps stands in their place; its gradient is as if it were the newest moments alone.
    """

    def __init__(self, natural: list[LayerMoments], settings: StatisticsSettings, device: torch.device):
        self.settings, self.device = settings, device
        natural = natural[: max(1, round(len(natural) * settings.until))]
        self.natural = [_clamp_std(entry, device) for entry in natural]
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}

    def readers(
        self, steps: Sequence[int] = (), own: Sequence[Tensor] = ()
    ) -> tuple[dict[str, Reader], dict[str, Reader]]:
        """Of layers' outputs, and of modules' inputs; they note the moments of one pass.

        Args:
            steps: how many each row has made: only layers whose turn it is in one of them are read.
            own: of each layer what counts as natural for each row of the pass, means and deviations (2, rows,
                channels), in place of what does for all.
        """
        self.moments = {}
        of_rows = [
            _clamp_std(replace(entry, mean=each[0], std=each[1]), self.device)
            for entry, each in zip(self.natural, own, strict=False)
        ]
        outputs: dict[str, Reader] = {}
        inputs: dict[str, Reader] = {}
        turns = {self._turn(step) for step in steps or [0]}
        for index, entry in enumerate(self.natural):
            if self._turn(index) in turns:
                (inputs if entry.inputs else outputs)[entry.layer] = self._reader(index, of_rows)
        return outputs, inputs

    def _turn(self, number: int) -> int:
        return number % self.settings.every

    def _reader(self, index: int, of_rows: Sequence[LayerMoments]) -> Reader:
        def read(activation: Tensor) -> None:
            if math.prod(activation.shape[2:]) == 1:  # of one position there is no deviation
                return
            first, second = moments(activation)
            entry = of_rows[index] if of_rows else self.natural[index]
            mean = entry.sign * (first - entry.mean) / entry.std
            square = (second - 2 * first * entry.mean + entry.mean.square()) / entry.std.square()
            self.moments[index] = mean, square

        return read

    def penalties(
        self,
        rows: int,
        groups: list[int] | None = None,
        depths: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        memories: Sequence[RunningMoments] = (),
    ) -> Tensor:
        """How far each row is, (rows,), from the moments noted of all its views (or of its group's, where given).

        Args:
            rows: how many.
            groups: of each row.
            depths: of each row the depth of its unit's layer: what comes behind does not count.
            steps: how many each row has made: only layers whose turn it is count.
            memories: of each row, which is brought up to date; without them nothing is averaged.
        """
        layers, weights = [], []
        turn_of = [self._turn(step) for step in steps or [0] * rows]
        turns = to_device(torch.tensor(turn_of), self.device)
        reach = to_device(torch.tensor([math.inf] * rows if depths is None else list(depths)), self.device)
        for index, (mean, square) in self.moments.items():
            mean, square = mean.view(-1, rows, mean.shape[-1]).mean(0), square.view(-1, rows, square.shape[-1]).mean(0)
            if self.settings.average and memories:
                due = [turn == self._turn(index) for turn in turn_of]
                mean, square = self._averaged(index, mean, square, memories, due)
            if groups is not None:
                mean, square = _group_mean(mean, groups), _group_mean(square, groups)
            deviation = (square - mean.square()).clamp_min(_LEAST**2).sqrt()
            off = self._off(mean).square() + self._off(deviation - 1).square()
            counts = (self.natural[index].depth <= reach) & (turns == self._turn(index))
            weights.append(math.exp(-self.settings.depth * index / len(self.natural)) * counts)
            layers.append(weights[-1] * off.mean(dim=1))
        if not layers:  # the units' layers come before them all
            return torch.zeros(rows, device=self.device)
        return torch.stack(layers).sum(dim=0) / torch.stack(weights).sum(dim=0).clamp_min(1e-30)

    def _averaged(
        self, index: int, mean: Tensor, square: Tensor, memories: Sequence[RunningMoments], due: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """A layer's moments (rows, channels), averaged with those remembered, if any; rows that are due remember it."""
        new = torch.stack([mean, square], dim=1)  # (rows, 2, channels)
        now = new.detach()
        before = torch.stack([memory.get(index, row) for memory, row in zip(memories, now, strict=True)])
        average = torch.lerp(now, before, self.settings.average)
        for memory, row, is_due in zip(memories, average, due, strict=True):
            if is_due:
                memory[index] = row
        first, second = (average + (new - now)).unbind(dim=1)
        return first, second

    def _off(self, value: Tensor) -> Tensor:
        """What of a difference from the natural costs."""
        if self.settings.side == "both":
            value = value.abs()
        return (value - self.settings.margin).clamp_min(0)


def _clamp_std(entry: LayerMoments, device: torch.device) -> LayerMoments:
    """On a device, with the deviations of channels that hardly ever change brought to a share of the largest one."""
    std = entry.std.to(device).float()
    least = _LEAST * std.amax(-1, keepdim=True).clamp_min(1e-12)
    sign = torch.as_tensor(entry.sign, dtype=torch.float32, device=device)
    return replace(entry, mean=entry.mean.to(device).float(), std=std.clamp_min(least), sign=sign)


def _group_mean(values: Tensor, groups: list[int]) -> Tensor:
    """Each row's values (rows, channels) replaced by the mean over its group."""
    same = to_device(torch.tensor([[float(a == b) for b in groups] for a in groups]), values.device)
    return (same / same.sum(dim=1, keepdim=True)) @ values


class _MomentsFunction(torch.autograd.Function):
    """Each channel's mean and mean square over its positions: (rows, channels, *positions) to twice (rows, channels).

    By matrix products, and with a backward pass of one operation: many times faster than `mean` and `var`.
    """

    @staticmethod
    def forward(context: Any, activation: Tensor) -> tuple[Tensor, Tensor]:
        # As channels-last maps lie in memory; a copy in 32 bits, since what comes after may work in place.
        wide = torch.promote_types(activation.dtype, torch.float32)
        seen = _subsample(activation).movedim(1, -1).to(wide, copy=True, memory_format=torch.contiguous_format)
        context.save_for_backward(seen)
        context.shape, context.dtype = activation.shape, activation.dtype
        flat = seen.flatten(1, -2)  # (rows, positions, channels)
        mean = flat.new_full((1, flat.shape[1]), 1 / flat.shape[1])
        if not flat.is_cpu:
            return (mean @ flat)[:, 0], (mean @ flat.square())[:, 0]
        # Row by row, so that the squares stay in the cache.
        squares = torch.cat([mean @ row.square() for row in flat])
        return torch.cat([mean @ row for row in flat]), squares

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (seen,) = context.saved_tensors
        count = math.prod(seen.shape[1:-1])
        first, second = (gradient.view(len(seen), *[1] * (seen.ndim - 2), -1) / count for gradient in gradients)
        if seen.shape[1:-1] == context.shape[2:]:
            return _channels_first(torch.addcmul(first, seen, 2 * second).to(context.dtype))
        # In the order in which the rest of the gradient lies: a sum of two orders is slow, and what follows it too.
        rows, channels, height, width = context.shape
        whole = _channels_first(seen.new_zeros((rows, height, width, channels)))
        torch.addcmul(first, seen, 2 * second, out=_subsample(whole).movedim(1, -1))
        return whole.to(context.dtype)


def _channels_first(maps: Tensor) -> Tensor:
    return maps.movedim(-1, 1)


def _subsample(activation: Tensor) -> Tensor:
    """Every other row and column of a large map."""
    large = activation.ndim == 4 and activation.shape[2] * activation.shape[3] > _LARGEST_MAP
    return activation[:, :, ::2, ::2] if large else activation


def moments(activation: Tensor) -> tuple[Tensor, Tensor]:
    """The channels' means and mean squares over positions: of (rows, channels, *positions), each (rows, channels)."""
    first, second = _MomentsFunction.apply(activation if activation.ndim > 2 else activation[:, :, None])
    return first, second
