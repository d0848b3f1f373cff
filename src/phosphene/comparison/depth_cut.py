"""A network that ends at one of its layers, with a head that is fitted there: what is lost, and what is saved.

The head is a ridge from the layer's output, averaged over positions, to the whole network's logits.  So that what the
few photographs lose is not taken for what the cut loses, the same head is fitted at the last layer as well.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from phosphene.comparison.depth_layers import parameters_so_far
from phosphene.comparison.depth_pass import MOST_CHANNELS, DepthPass, hashed, pool
from phosphene.comparison.depth_readout import Ridge, deal_folds, fit_ridge, read_held_out
from phosphene.errors import InputError
from phosphene.files import atomic_write
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches

_BATCH = 16
_TIMED = 5  # passes


@dataclass(frozen=True, eq=False)
class Cut:
    """What is lost where a network ends at a layer, and what is saved.

    Attributes:
        layer: at which it ends.
        last: the last layer, at which the same head is fitted for comparison.
        photographs: how many; each is held out once.
        top1, top1_error: how often the first class of the cut network is the whole network's, with its standard error.
        r2: the share of the variance of the whole network's logits.
        last_top1, last_r2: the same at `last`.
        lost, lost_error: how much more often the head at `last` is right, with its standard error over photographs.
        parameters, head_parameters, whole_parameters: of what is kept, of the head, and of the whole network.
        seconds, whole_seconds: of the cut network and the whole, an image; as measured once on this machine.
        head: fitted to all photographs.
    """

    layer: str
    last: str
    photographs: int
    top1: float
    top1_error: float
    r2: float
    last_top1: float
    last_r2: float
    lost: float
    lost_error: float
    parameters: int
    head_parameters: int
    whole_parameters: int
    seconds: float
    whole_seconds: float
    head: Ridge = field(repr=False)

    @property
    def summary(self) -> str:
        """One sentence."""
        saved = 1 - (self.parameters + self.head_parameters) / max(1, self.whole_parameters)
        time_saved = 1 - self.seconds / self.whole_seconds
        here = f"{self.top1:.0%} ± {self.top1_error:.0%} of held-out photographs (R² of the logits {self.r2:.2f})"
        end = f"{self.last_top1:.0%} (R² {self.last_r2:.2f})"
        return (
            f"Ended at {self.layer}, with a head fitted there, it names the whole network's first class of {here}; "
            f"with such a head at {self.last}, of {end}: the cut loses {self.lost:.0%} ± {self.lost_error:.0%}, "
            f"and saves {saved:.0%} of the parameters and {time_saved:.0%} of the time."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the head's weights."""
        found = {name: value for name, value in vars(self).items() if name != "head"}
        return {**found, "penalty": self.head.penalty, "summary": self.summary}

    def save_head(self, path: str | Path) -> Path:
        """Write the head to a safetensors file: `weight` (classes, channels) and `bias` (classes,).

        Raises:
            InputError: it cannot be written.
        """
        tensors = {"weight": self.head.weight.T.float().contiguous(), "bias": self.head.bias.float()}
        data = save(tensors, {"phosphene": "head", "layer": self.layer})
        return atomic_write(Path(path), lambda aside: aside.write_bytes(data))


def cut_network(network: Network, passed: DepthPass, name: str, files: Sequence[Path], device: torch.device) -> Cut:
    """End a network at a layer, by what a pass of photographs gave.

    Args:
        passed: with the layer among its layers.
        files: of the photographs, of which some are timed.

    Raises:
        InputError: the network has no logits, or the layer is the last of `passed`.
    """
    if passed.logits is None:
        raise InputError(f"cut {name!r}: {network.no_classes('logits that a head could be fitted to')}")
    by_name = {each.layer.name: each for each in passed.layers}
    last = passed.layers[-1]
    if name == last.layer.name:
        before = passed.layers[-2].layer.name
        raise InputError(f"cut {name!r}: it is the last of the layers; expected one before it, such as {before}")
    logits, folds = passed.logits, deal_folds(len(passed.logits))
    here, end = (read_held_out(each.features, logits, folds) for each in (by_name[name], last))
    head = fit_ridge(by_name[name].features, logits)
    (parameters,) = parameters_so_far(network, [by_name[name].layer])
    seconds, whole = _measure(network, by_name[name].layer, head, files, device)
    lost = end.hits.double() - here.hits.double()
    return Cut(
        layer=name,
        last=last.layer.name,
        photographs=len(logits),
        top1=here.top1,
        top1_error=here.top1_error,
        r2=here.r2,
        last_top1=end.top1,
        last_r2=end.r2,
        lost=float(lost.mean()),
        lost_error=_mean_error(lost),
        parameters=parameters,
        head_parameters=head.weight.numel() + head.bias.numel(),
        whole_parameters=network.parameters,
        seconds=seconds,
        whole_seconds=whole,
        head=head,
    )


def _mean_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


def cut_logits(network: Network, layer: Layer, head: Ridge, pixels: Tensor) -> Tensor:
    """The logits of the cut network: nothing behind the layer is run.

    Args:
        network: borrowed.
        pixels: (rows, channels, height, width) in 0..255.

    Returns:
        (rows, classes), in 64 bits.
    """
    found: list[Tensor] = []

    def read(activation: Tensor) -> None:
        maps = activation.float().flatten(2) if activation.ndim > 2 else activation.float()
        found.append(head(hashed(pool(maps, layer.tokens), MOST_CHANNELS)))

    network.read(pixels, {layer.name: read})
    return found[0]


def _measure(
    network: Network, layer: Layer, head: Ridge, files: Sequence[Path], device: torch.device
) -> tuple[float, float]:
    """Seconds of the cut network and of the whole, an image: the median of some passes of each, in turn."""
    moved = Ridge(head.weight.to(device), head.bias.to(device), head.penalty)
    pixels = next(decode_batches(files, network.preprocessing, _BATCH)).pixels.to(device)

    def clocked(run: Callable[[], Tensor]) -> float:
        begin = time.perf_counter()
        run().sum().item()  # which waits for a GPU
        return (time.perf_counter() - begin) / len(pixels)

    with network.borrowed(device), torch.no_grad():
        runs = (lambda: cut_logits(network, layer, moved, pixels), lambda: network.forward(pixels))
        times = [[clocked(run) for run in runs] for _ in range(_TIMED + 1)][1:]
    return statistics.median(each[0] for each in times), statistics.median(each[1] for each in times)
