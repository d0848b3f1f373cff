"""Directions in a layer, found in photographs: what tells two kinds of them apart, and whitening.

The difference of the mean activations on two sets of photographs is a concept's direction (Kim et al. 2018,
"Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation Vectors", of which it is the
simplest form); whitening (Carter et al. 2019, "Activation Atlas") takes the inverse second moment of activations to it,
so that what is frequent in all photographs counts less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.files import atomic_write
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import list_photographs

DAMPING = 0.01  # of the second moment's mean diagonal
_LEAST = 4  # photographs of each kind, so that half of them can be held out
_BATCH = 16

Photographs = str | Path | Sequence[str | Path]
"""A folder, or files."""


@dataclass(frozen=True, eq=False)
class FoundDirection:
    """A direction in a layer of a network.

    Attributes:
        vector: (channels,).
        layer, network, weights: of which layer, and of which network: its name, and its digest.
        tokens: of a layer of tokens, which were looked at: "patches" or "cls"; otherwise empty.
        counts: of photographs of the two kinds; empty where it was found otherwise.
        auc: how often a held-out photograph of the first kind has more of the direction than one of the second, with
            its standard error: directions of half of the photographs of each kind, asked about the others.
        accuracy: how many held-out photographs are on their own side of the middle.
        whitened: whether the inverse second moment was taken to it.
    """

    vector: Tensor = field(repr=False)
    layer: str
    network: str
    weights: str
    tokens: str = ""
    counts: tuple[int, ...] = ()
    auc: tuple[float, float] | None = None
    accuracy: float | None = None
    whitened: bool = False

    @property
    def is_useless(self) -> bool:
        """Whether it tells held-out photographs apart no better than chance, within two standard errors."""
        return self.auc is not None and self.auc[0] - 2 * self.auc[1] <= 0.5

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file, which units name as `direction:FILE` or `LAYER:[FILE]`.

        Raises:
            InputError: it cannot be written.
        """
        told: dict[str, Any] = {
            "phosphene": "direction", "layer": self.layer, "network": self.network, "weights": self.weights,
            "tokens": self.tokens, "whitened": str(self.whitened).lower(),
        }  # fmt: skip
        if self.counts:
            told["photographs"] = ", ".join(map(str, self.counts))
        if self.auc is not None and self.accuracy is not None:
            told |= {"held_out_auc": f"{self.auc[0]:.4f}", "held_out_auc_error": f"{self.auc[1]:.4f}"}
            told["held_out_accuracy"] = f"{self.accuracy:.4f}"
        data = save({"direction": self.vector.float().contiguous()}, told)
        return atomic_write(Path(path), lambda aside: aside.write_bytes(data))


def difference_of_means(
    network: Network,
    layer: str,
    first: Photographs,
    second: Photographs,
    *,
    tokens: str = "",
    whiten: bool = False,
    on_progress: ProgressOption = None,
) -> FoundDirection:
    """What a layer makes more of on the first photographs than on the second: the difference of its mean activations.

    Args:
        network: it is handed back as it came.
        layer: its name.
        first, second: photographs of two kinds: folders, or files.
        tokens: "cls" or "patches", of a layer of tokens; the patches by default.
        whiten: take the inverse second moment of the activations on all these photographs to it.
        on_progress: called with how many files are done, and of how many; by default a bar; False: nothing.

    Returns:
        The direction, and how well it tells held-out photographs apart.  (The second moment is of all photographs; it
        does not know which are which.)

    Raises:
        InputError: there is no such layer, there are fewer than four photographs of a kind, or these are the same.
    """
    known, chosen = _layer(network, layer, tokens)
    paths = [_files(each) for each in (first, second)]
    gathered = _gather(network, known, chosen, [*paths[0], *paths[1]], on_progress)
    kinds = [
        gathered.means[: (count := sum(place < len(paths[0]) for place in gathered.places))],
        gathered.means[count:],
    ]
    for means, files in zip(kinds, (first, second), strict=True):
        if len(means) < _LEAST:
            raise InputError(
                f"{len(means)} photographs in {str(files)!r}: expected at least {_LEAST} of each kind, so that some "
                "can be held out"
            )
    vector = kinds[0].mean(0) - kinds[1].mean(0)
    if not bool(vector.any()):
        raise InputError(f"the photographs of both kinds excite {layer} alike: expected photographs that differ")
    moment = gathered.second_moment if whiten else None
    auc, accuracy = _held_out(kinds, moment)
    counts = len(kinds[0]), len(kinds[1])
    vector = vector if moment is None else whitened(vector, moment)
    return FoundDirection(vector.float(), layer, network.name, network.digest, chosen, counts, auc, accuracy, whiten)


def whiten_direction(
    network: Network,
    layer: str,
    vector: Any,
    photographs: Photographs,
    *,
    tokens: str = "",
    on_progress: ProgressOption = None,
) -> FoundDirection:
    """A direction with the inverse second moment of a layer's activations on photographs taken to it.

    Args:
        vector: (channels,), of numbers.
        on_progress: as for `difference_of_means`.

    Raises:
        InputError: there is no such layer, or it has another number of channels.
    """
    known, chosen = _layer(network, layer, tokens)
    given = torch.as_tensor(vector).double().flatten()
    if len(given) != known.channels:
        raise InputError(f"a direction of {len(given)} weights: {layer} has {known.channels} channels")
    gathered = _gather(network, known, chosen, _files(photographs), on_progress)
    found = whitened(given, gathered.second_moment)
    return FoundDirection(found.float(), layer, network.name, network.digest, chosen, whitened=True)


def whitened(vector: Tensor, second_moment: Tensor, damping: float = DAMPING) -> Tensor:
    """(S + e)^-1 vector, of a second moment S (channels, channels); e is `damping` times S's mean diagonal."""
    damped = second_moment + damping * second_moment.diagonal().mean() * torch.eye(len(second_moment)).double()
    found: Tensor = torch.linalg.solve(damped, vector.double())
    return found


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What a layer makes of photographs, in 64 bits.

    Attributes:
        places: of those files that could be read.
        means: over positions, of each: (photographs, channels).
        second_moment: of the vectors at all positions of all, (channels, channels).
    """

    places: list[int]
    means: Tensor
    second_moment: Tensor


def _gather(
    network: Network, layer: Layer, tokens: str, files: Sequence[Path], on_progress: ProgressOption
) -> _Gathered:
    means: list[Tensor] = []
    moment, count = torch.zeros(layer.channels, layer.channels).double(), 0

    def read(activation: Tensor) -> None:
        nonlocal moment, count
        rows = _chosen(activation.detach().float(), layer, tokens)  # (rows, channels, positions)
        means.append(rows.double().mean(2).cpu())
        flat = rows.movedim(1, -1).flatten(0, 1)
        moment = moment + (flat.T @ flat).double().cpu()
        count += len(flat)

    places: list[int] = []
    with (
        counted("photographs", on_progress, len(files), doing=layer.name) as tally,
        network.borrowed(network.device),
        torch.no_grad(),
    ):
        for done, indices, pixels in decode_batches(files, network.preprocessing, _BATCH):
            places += indices
            network.read(pixels.to(network.device), {layer.name: read})
            tally.at(done, len(files))
    gathered = _Gathered(places, torch.cat(means), moment / count)
    if not bool(gathered.means.isfinite().all()):
        raise InputError(
            f"layer {layer.name!r} of {network.name} gives numbers on these photographs that are not finite"
        )
    return gathered


def _chosen(activation: Tensor, layer: Layer, tokens: str) -> Tensor:
    """The positions that are looked at: (rows, channels, *positions) to (rows, channels, positions)."""
    flat = activation.flatten(2) if activation.ndim > 2 else activation[..., None]
    if layer.tokens is None or not tokens:
        return flat
    return flat[..., : layer.tokens.class_tokens] if tokens == "cls" else flat[..., layer.tokens.prefix :]


def _layer(network: Network, name: str, tokens: str) -> tuple[Layer, str]:
    """The layer, and which of its tokens are looked at."""
    layer = network.layer(name)
    if tokens not in ("", "cls", "patches"):
        raise InputError(f"tokens {tokens!r}: expected cls or patches")
    if tokens and (layer.tokens is None or (tokens == "cls" and not layer.tokens.class_tokens)):
        raise InputError(f"tokens {tokens!r}: {name} has none that are known as such")
    return layer, tokens or ("patches" if layer.tokens is not None else "")


def _files(photographs: Photographs) -> list[Path]:
    if isinstance(photographs, str | Path):
        return list_photographs(photographs)
    return [Path(each) for each in photographs]


def _held_out(kinds: Sequence[Tensor], moment: Tensor | None) -> tuple[tuple[float, float], float]:
    """The area under the curve with its standard error (DeLong et al. 1988), and the share on their own side: of each
    half of the photographs, by the direction of the other half."""
    areas, variances, right = [], [], []
    for held in (0, 1):
        known = [means[1 - held :: 2].mean(0) for means in kinds]
        vector = known[0] - known[1]
        vector = vector if moment is None else whitened(vector, moment)
        middle = (known[0] + known[1]) @ vector / 2
        first, second = (means[held::2] @ vector for means in kinds)
        above = (first[:, None] > second).double() + 0.5 * (first[:, None] == second).double()
        areas.append(above.mean().item())
        variances.append(
            sum((side.var() / len(side)).item() for side in (above.mean(1), above.mean(0)) if len(side) > 1)
        )
        right.append(((first > middle).double().mean() + (second < middle).double().mean()).item() / 2)
    return (sum(areas) / 2, math.sqrt(sum(variances)) / 2), sum(right) / 2
