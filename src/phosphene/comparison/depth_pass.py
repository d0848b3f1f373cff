"""One pass of photographs through a network, from which everything along its depth is computed.

Of each photograph a layer's output is averaged over positions (of tokens: the class token, beside the mean of the
patches), and of its positions some are taken for the second moment.  What is kept grows with the photographs by a
vector each a layer, and with nothing else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.networks.layers import LOGITS, Layer
from phosphene.networks.network import Network
from phosphene.networks.tokens import TokenLayout
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import evenly_spread
from phosphene.photographs.unfinished import PassFile, SavedTensors, begin_pass, interruptible_pass, pass_key, where

BATCH = 16
POSITIONS = 64  # of each photograph, for the second moment
MOST_CHANNELS = 4096  # of a vector that is kept
MOST_DIRECTIONS = 2048  # of a second moment
_TIMED = 5  # passes
VARIANCE = 0.99


@dataclass(eq=False)
class LayerOnPhotographs:
    """What a layer makes of photographs, as it is read.

    Attributes:
        layer: which.
        pooled: of each batch, the output averaged over positions, (photographs, channels).
        moment, total, count: the second moment and the sum of vectors at positions, and how many these are; of a layer
            without positions nothing.
    """

    layer: Layer
    pooled: list[Tensor] = field(default_factory=list)
    moment: Tensor | None = None
    total: Tensor | None = None
    count: int = 0

    def read(self, activation: Tensor) -> None:
        """Take in a batch, (rows, channels, *positions)."""
        maps = activation.detach().float().flatten(2) if activation.ndim > 2 else activation.detach().float()
        self.pooled.append(hashed(pool(maps, self.layer.tokens), MOST_CHANNELS).cpu())
        if maps.ndim < 3:
            return
        patches = maps if self.layer.tokens is None else maps[:, :, self.layer.tokens.prefix :]
        places = torch.tensor(evenly_spread(range(patches.shape[2]), POSITIONS), device=maps.device)
        rows = hashed(patches[:, :, places].movedim(1, -1).flatten(0, 1), MOST_DIRECTIONS).double()
        moment, total = (rows.T @ rows).cpu(), rows.sum(0).cpu()
        self.moment = moment if self.moment is None else self.moment + moment
        self.total = total if self.total is None else self.total + total
        self.count += len(rows)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is gathered so far, to be written."""
        found = {f"{prefix}/pooled": self.features, f"{prefix}/count": torch.tensor([self.count])}
        if self.moment is not None and self.total is not None:
            found |= {f"{prefix}/moment": self.moment, f"{prefix}/total": self.total}
        return found

    def restore(self, saved: SavedTensors, prefix: str, photographs: int) -> None:
        """Take what was gathered of so many photographs from a file.

        Raises:
            DamagedFileError: the file does not fit.
        """
        layer, width = self.layer, min(self.layer.channels, MOST_DIRECTIONS)
        beside = bool(layer.positions and layer.tokens is not None and layer.tokens.class_tokens)
        channels = min(layer.channels * (2 if beside else 1), MOST_CHANNELS)
        self.pooled = [saved.take(f"{prefix}/pooled", torch.float32, photographs, channels)]
        most = photographs * POSITIONS if layer.positions else 0
        (self.count,) = saved.take_numbers(f"{prefix}/count", [min(1, most)], [most])
        if layer.positions:
            self.moment = saved.take(f"{prefix}/moment", torch.float64, width, width)
            self.total = saved.take(f"{prefix}/total", torch.float64, width)

    @property
    def features(self) -> Tensor:
        """The output averaged over positions, (photographs, channels)."""
        return torch.cat(self.pooled)

    @property
    def variances(self) -> Tensor:
        """Along the principal directions of the vectors at positions, or of the photographs' vectors, largest first."""
        if self.moment is None or self.total is None:
            rows = self.features.double()
            rows = rows - rows.mean(0)
            product = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
            found = torch.linalg.eigvalsh(product / len(rows))
        else:
            mean = self.total / self.count
            found = torch.linalg.eigvalsh(self.moment / self.count - torch.outer(mean, mean))
        largest_first: Tensor = found.flip(0).clamp_min(0)
        return largest_first

    @property
    def samples(self) -> int:
        """Of how many vectors `variances` are."""
        return self.count or sum(map(len, self.pooled))

    @property
    def is_hashed(self) -> bool:
        """Whether it has more channels than are kept."""
        return self.layer.channels > (MOST_CHANNELS if self.moment is None else MOST_DIRECTIONS)


def pool(maps: Tensor, tokens: TokenLayout | None) -> Tensor:
    """The mean over positions, (rows, channels, positions) to (rows, channels); a vector is left as it is.

    Of tokens with a class token, this beside the mean of the patches: (rows, 2 * channels).
    """
    if maps.ndim < 3:
        return maps
    if tokens is None:
        return maps.mean(2)
    patches = maps[:, :, tokens.prefix :].mean(2)
    return torch.cat([maps[:, :, 0], patches], 1) if tokens.class_tokens else patches


def hashed(rows: Tensor, most: int) -> Tensor:
    """No more than so many channels: of more, each is added, with a sign, to one of so many, both drawn with a seed.

    Dot products stay the same on average (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    Learning", lemma 2).  (rows, channels) to (rows, at most `most`).
    """
    channels = rows.shape[1]
    if channels <= most:
        return rows
    draw = torch.Generator().manual_seed(0)
    places = torch.randint(most, (channels,), generator=draw).to(rows.device)
    signs = (2.0 * torch.randint(2, (channels,), generator=draw) - 1).to(rows.device)
    return torch.zeros(len(rows), most, device=rows.device, dtype=rows.dtype).index_add_(1, places, rows * signs)


def participation_ratio(variances: Tensor) -> float:
    """In how many directions the variance is, each weighted by its share: (sum of v)^2 / (sum of v^2).

    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement", eq. 5.
    """
    squares = float(variances.square().sum())
    return float(variances.sum()) ** 2 / squares if squares > 0 else math.nan


def directions_for(variances: Tensor, share: float = VARIANCE) -> int:
    """How many directions, those of most variance first, have a share of the variance.

    Over the number of channels it is the saturation of Shenk et al. 2019 ("Spectral Analysis of Latent
    Representations", eq. 2; their package is delve).
    """
    total = variances.sum()
    return int((variances.cumsum(0) < share * total * (1 - 1e-12)).sum()) + 1 if total > 0 else 0


@dataclass(frozen=True, eq=False)
class DepthPass:
    """What a pass of photographs gave.

    Attributes:
        places: of those photographs that could be read.
        layers: in the order of calls.
        logits: (photographs, classes); None of a network without.
        seconds: of a pass until each layer ends, and at last until the whole pass does, for one photograph, as measured
            on this machine; none where that cannot be told.
    """

    places: list[int]
    layers: list[LayerOnPhotographs]
    logits: Tensor | None
    seconds: list[float]


def pass_photographs(
    network: Network,
    layers: Sequence[Layer],
    files: Sequence[Path],
    device: torch.device,
    on_progress: ProgressOption = None,
) -> DepthPass:
    """Send photographs through a network once.  Within `resumable` it goes on where it was killed.

    Raises:
        InputError: none can be read, or a layer gives numbers on them that are not finite.
    """
    file = begin_pass(lambda: _key(network, layers, files, device))
    now = _DepthState.begin(layers)

    def restore(saved: SavedTensors) -> str:
        now.restore(saved, network, len(files))
        return where(len(files), now.done)

    if not file.resume(restore):
        now = _DepthState.begin(layers)
    if now.done < len(files):
        _pass_the_rest(network, now, files, device, file, on_progress)
    for each in now.layers:
        if not bool(each.features.isfinite().all()):
            name = each.layer.name
            raise InputError(f"layer {name!r} of {network.name} gives numbers on these photographs that are not finite")
    return DepthPass(now.places, now.layers, torch.cat(now.logits) if now.logits else None, now.seconds)


def _key(network: Network, layers: Sequence[Layer], files: Sequence[Path], device: torch.device) -> str:
    return pass_key([network], files, device, {"pass": "depth", "layers": [layer.name for layer in layers]})


def _pass_the_rest(
    network: Network,
    now: _DepthState,
    files: Sequence[Path],
    device: torch.device,
    file: PassFile,
    on_progress: ProgressOption,
) -> None:
    """Send those photographs through the network that have not been."""
    names = [each.layer.name for each in now.layers]
    readers: dict[str, Callable[[Tensor], None]] = {each.layer.name: each.read for each in now.layers}
    if network.classes:
        readers[LOGITS] = lambda activation: now.logits.append(activation.detach().float().cpu())
    doing = f"{len(names)} layers of {network.name}"
    with (
        counted("photographs", on_progress, len(files), doing=doing) as tally,
        interruptible_pass(file) as batch_done,
        network.borrowed(device),
        torch.no_grad(),
    ):
        for done, indices, pixels in decode_batches(files, network.preprocessing, BATCH, now.done):
            network.read(pixels.to(device), readers)
            if not now.seconds:
                now.seconds = measure_seconds(network, names, pixels.to(device))
            now.places += indices
            now.done = done
            batch_done(now.tensors)
            tally.at(done, len(files))
    now.done = len(files)
    file.write(now.tensors)


@dataclass(eq=False)
class _DepthState:
    """What photographs have given so far; see `DepthPass`.

    Attributes:
        done: how many files are done.
        logits: of each batch.
    """

    layers: list[LayerOnPhotographs]
    logits: list[Tensor]
    done: int
    places: list[int]
    seconds: list[float]

    @classmethod
    def begin(cls, layers: Sequence[Layer]) -> _DepthState:
        return cls([LayerOnPhotographs(layer) for layer in layers], [], 0, [], [])

    def tensors(self) -> dict[str, Tensor]:
        """All of it, to be written."""
        found = {
            "done": torch.tensor([self.done]),
            "places": torch.tensor(self.places),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }
        if self.logits:
            found["logits"] = torch.cat(self.logits)
        for index, each in enumerate(self.layers):
            found |= each.tensors(f"layers/{index}")
        return found

    def restore(self, saved: SavedTensors, network: Network, files: int) -> None:
        """Take it from a file.

        Raises:
            DamagedFileError: the file does not fit.
        """
        (self.done,) = saved.take_numbers("done", [1], [files])
        self.places = saved.take_indices("places", files, (1, self.done)).tolist()
        times = 0 if network.random else len(self.layers) + 1
        self.seconds = saved.take("seconds", torch.float64, times).tolist()
        if network.classes:
            self.logits = [saved.take("logits", torch.float32, len(self.places), network.classes)]
        for index, each in enumerate(self.layers):
            each.restore(saved, f"layers/{index}", len(self.places))


def measure_seconds(network: Network, layers: Sequence[str], pixels: Tensor) -> list[float]:
    """Seconds of a (borrowed) network's pass until each layer ends, and until the pass does, an image.

    The median of some passes, each layer's from the same; nothing of a network whose images go through one at a time
    with random numbers of their own.
    """
    if network.random:
        return []
    if network.unbatchable_reason:
        pixels = pixels[:1]
    last = LOGITS if network.classes else network.layers[-1].name
    ends: dict[str, float] = {}

    def clock(name: str) -> Callable[[Tensor], None]:
        def read(activation: Tensor) -> None:
            if activation.device.type == "cuda":
                torch.cuda.synchronize(activation.device)
            ends[name] = time.perf_counter()

        return read

    readers = {name: clock(name) for name in (*layers, last)}
    passes = []
    for _ in range(_TIMED):
        begin = time.perf_counter()
        network.read(pixels, readers)
        passes.append([(ends[name] - begin) / len(pixels) for name in (*layers, last)])
    whole = statistics.median(each[-1] for each in passes)
    return min(passes, key=lambda each: abs(each[-1] - whole))
