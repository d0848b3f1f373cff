"""What a network makes of photographs: moments of its channels' activations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phosphene import defaults
from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import evenly_spread
from phosphene.photographs.statistics_files import OF_ACTIVATIONS, statistics_digest, write_statistics


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """The activations of a layer's channels on photographs; each tensor is (channels,).

    Attributes:
        mean, std: over all photographs and positions.
        mean_spread: the standard deviation, between photographs, of a photograph's own mean over its positions.
        std_spread: the standard deviation, between photographs, of a photograph's own standard deviation.
    """

    mean: Tensor
    std: Tensor
    mean_spread: Tensor
    std_spread: Tensor


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """The activations of a network's channels on photographs.

    Attributes:
        network: its name.
        weights: its digest.
        count: of the photographs.
        layers: by their names, in the order of calls.
        preprocessing_fields: the fields of the network's preprocessing.
        unreadable: files that were passed over, since they are no images, or damaged.
    """

    network: str
    weights: str
    count: int
    layers: dict[str, LayerStatistics]
    preprocessing_fields: dict[str, Any]
    unreadable: int = 0

    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names of the layers and their statistics."""
        return statistics_digest(self._tensors())

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file; folders that are missing are made.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {
            "network": self.network,
            "weights": self.weights,
            "count": str(self.count),
            "unreadable": str(self.unreadable),
            "layers": json.dumps(list(self.layers)),  # in their order, which the tensors of a file do not have
            "fed": json.dumps(self.preprocessing_fields),
        }
        return write_statistics(Path(path), self._tensors(), OF_ACTIVATIONS, metadata)

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{kind}/{name}": getattr(layer, kind) for name, layer in self.layers.items() for kind in KINDS}


KINDS = tuple(field.name for field in fields(LayerStatistics))


def statistics_layers(network: Network) -> list[Layer]:
    """The layers over which statistics are gathered by default, in the order of calls.

    These are the convolutions' outputs that have more than one position; they are from before the activation, unless
    the convolution itself has one in it, as Keras's may.  A network with fewer than three (a vision transformer) has
    those of its normalizations and blocks of tokens besides.

    Raises:
        InputError: it has none.
    """
    modules = dict(network.module.named_modules())
    spatial = [layer for layer in network.layers if math.prod(layer.positions) > 1]
    convolutions = [
        layer
        for layer in spatial
        if len(layer.positions) == 2 and _is_convolution(modules[network.call(layer.name)[0]])
    ]
    chosen = convolutions
    if len(convolutions) < 3:
        chosen = [layer for layer in spatial if layer in convolutions or _is_of_tokens(layer)]
    if not chosen:
        why = network.limit or "no convolution of it, nor any block of tokens, has more than one position"
        raise InputError(f"{network.name} has no layer to gather statistics of: {why}; name layers that it has")
    return chosen


def _is_convolution(module: nn.Module) -> bool:
    """By its name, since each framework has its own; a block of several that is called so is none."""
    named = [inner for inner in module.modules() if "Conv" in type(inner).__name__]
    return named == [module]


def _is_of_tokens(layer: Layer) -> bool:
    """Whether it is a normalization or a block of tokens, or of maps on their way through linear layers (Swin)."""
    named = any(kind in layer.type for kind in ("LayerNorm", "RMSNorm")) or layer.type.endswith(("Block", "Layer"))
    return named and layer.channels_last


def collect(
    network: Network,
    paths: Iterable[str | Path],
    *,
    layers: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    batch: int = 16,
    limit: int | None = defaults.PHOTOGRAPHS,
    on_progress: ProgressOption = None,
) -> ActivationStatistics:
    """The activations of a network's channels on photographs, which are preprocessed as it expects.

    Args:
        network: it is handed back as it came.
        paths: image files; those that cannot be read are passed over.
        layers: names; by default `statistics_layers`.
        device: where the network runs; by default where its weights are.
        batch: photographs at once.
        limit: of more photographs so many, evenly spread, are used; None: all.
        on_progress: called with how many files are done, and of how many; by default a bar; False: nothing.

    Raises:
        InputError: no photograph can be read, a layer is not there, or gives numbers that are not finite.
    """
    files = evenly_spread([Path(path) for path in paths], limit)
    chosen = statistics_layers(network) if layers is None else [network.layer(name) for name in layers]
    moments = {layer.name: _MomentsAccumulator() for layer in chosen}
    if not moments:
        raise InputError("no layers: expected at least one layer's name")
    if device is None:
        device = next((tensor.device for tensor in network.module.parameters()), torch.device("cpu"))
    count = 0
    doing = f"{len(chosen)} layers of {network.name}"
    with (
        counted("photographs", on_progress, len(files), doing=doing) as tally,
        network.borrowed(device),
        torch.no_grad(),
    ):
        for done, indices, pixels in decode_batches(files, network.preprocessing, batch):
            count += len(indices)
            network.read(pixels.to(device), {name: of_layer.add for name, of_layer in moments.items()})
            tally.at(done, len(files))
    found = {name: of_layer.statistics() for name, of_layer in moments.items()}
    for name, layer in found.items():
        if not all(bool(getattr(layer, kind).isfinite().all()) for kind in KINDS):
            raise InputError(f"layer {name!r} of {network.name} gives numbers on these photographs that are not finite")
    return ActivationStatistics(
        network.name, network.digest, count, found, plain_fields(network.preprocessing), len(files) - count
    )


class _MomentsAccumulator:
    """Sums over photographs, from which a layer's statistics follow."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None  # (4, channels)

    def add(self, output: Tensor) -> None:
        """Add photographs (rows, channels, *positions)."""
        maps = output.detach().float().flatten(2) if output.ndim > 2 else output.detach().float().unsqueeze(2)
        variance, mean = (moment.cpu().double() for moment in torch.var_mean(maps, 2, correction=0))  # (rows, channels)
        sums = torch.stack([mean, mean.square(), variance, variance.sqrt()]).sum(1)
        self.count += len(maps)
        self.sums = sums if self.sums is None else self.sums + sums

    def statistics(self) -> LayerStatistics:
        assert self.sums is not None
        mean, squared, variance, std = self.sums / self.count
        of_means = (squared - mean.square()).clamp_min(0)
        of_stds = (variance - std.square()).clamp_min(0)
        return LayerStatistics(
            mean=mean.float(),
            std=(variance + of_means).sqrt().float(),
            mean_spread=of_means.sqrt().float(),
            std_spread=of_stds.sqrt().float(),
        )


def plain_fields(preprocessing: Preprocessing) -> dict[str, Any]:
    """A preprocessing's fields as JSON holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(preprocessing)))
    return plain
