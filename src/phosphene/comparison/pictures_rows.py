"""What pictures and photographs do to a network, compared layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.comparison.pictures_reading import LayerResponse
from phosphene.judges.path_similarity import RankedPaths, centered_ranks

LEAST_TO_NORMALIZE = 3
LEAST_FOR_SPREAD = 5
HALF = 0.5
MOST_CHANNELS = 10  # of a layer
_FAR = 3.0  # standard deviations


@dataclass(frozen=True)
class ChannelDifference:
    """A channel that pictures excite otherwise than photographs.

    Attributes:
        channel: its index.
        difference: between the mean of pictures and of photographs, over the standard deviation between photographs (of
            few photographs, over the root mean square of the layer's channels).
        picture, photographs: these means.
    """

    channel: int
    difference: float
    picture: float
    photographs: float


@dataclass(frozen=True)
class PictureRow:
    """A layer, and what pictures do to it beside what photographs do.  What cannot be told is None.

    Attributes:
        layer, channels: what it is.
        correlation: Spearman's, over channels, of a picture's mean activations with a photograph's; the mean over all
            pairs.
        among: the same of photographs among themselves.
        path: between what is 0 and what is 1: the zero set, and the photographs among themselves (see
            `judges.path_similarity`); the mean over pictures.
        rms, rms_z: the root mean square of a picture's activations, over that of photographs; and its distance from
            these in their standard deviations.
        off, off_photographs, off_z: the share of activations that are 0 or less.
        differences: the channels that differ most, the largest difference first.
    """

    layer: str
    channels: int
    correlation: float | None
    among: float | None
    path: float | None
    rms: float | None
    rms_z: float | None
    off: float
    off_photographs: float
    off_z: float | None
    differences: tuple[ChannelDifference, ...]


def compare_layer(layer: str, pictures: LayerResponse, photographs: LayerResponse, zero: LayerResponse) -> PictureRow:
    """A row.

    Args:
        layer: what to call it.
        zero: other photographs, or photographs with their pixels shuffled: where the path similarity is 0.
    """
    enough = len(photographs.rms) >= LEAST_FOR_SPREAD
    mean_rms = float(photographs.rms.mean())
    return PictureRow(
        layer,
        pictures.means.shape[1],
        *_correlations(pictures.means, photographs.means),
        path=mean_path(layer, pictures.means, photographs.means, zero.means),
        rms=float(pictures.rms.mean()) / mean_rms if mean_rms > 0 else None,
        rms_z=_z(pictures.rms, photographs.rms) if enough else None,
        off=float(pictures.off.mean()),
        off_photographs=float(photographs.off.mean()),
        off_z=_z(pictures.off, photographs.off) if enough else None,
        differences=channel_differences(pictures.means, photographs.means),
    )


def _correlations(pictures: Tensor, photographs: Tensor) -> tuple[float | None, float | None]:
    """Of pictures with photographs, and of these among themselves; of fewer than three channels there are no ranks."""
    if pictures.shape[1] < 3:
        return None, None
    ranks, own = centered_ranks(photographs), centered_ranks(pictures)
    count = len(ranks)
    among = ranks @ ranks.T
    mean = (float(among.sum()) - float(among.diagonal().sum())) / (count * (count - 1)) if count > 1 else None
    return float((own @ ranks.T).mean()), mean


def mean_path(layer: str, pictures: Tensor, photographs: Tensor, zero: Tensor) -> float | None:
    """The path similarity at a layer, averaged over pictures; None of few photographs, or where it cannot be told."""
    if len(photographs) < LEAST_TO_NORMALIZE:
        return None
    every, exciting = {layer: torch.cat([photographs, zero])}, torch.arange(len(photographs))
    ranked = RankedPaths.of(every)
    found = [ranked.similarities({layer: picture}, exciting) for picture in pictures]
    return sum(each[layer] for each in found) / len(found) if found[0] else None


def _z(pictures: Tensor, photographs: Tensor) -> float | None:
    spread = float(photographs.double().std())
    return float(pictures.double().mean() - photographs.double().mean()) / spread if spread > 0 else None


def channel_differences(
    pictures: Tensor, photographs: Tensor, most: int = MOST_CHANNELS
) -> tuple[ChannelDifference, ...]:
    """The channels whose means over pictures and photographs differ most, in units of the spread between photographs.

    A channel's spread counts as no less than the layer's mean, so that one that is silent on these photographs is not
    the first for that alone.
    """
    picture, photograph = pictures.double().mean(0), photographs.double().mean(0)
    if len(photographs) >= LEAST_FOR_SPREAD:
        spread = photographs.double().std(0)
        spread = spread.clamp_min(max(float(spread.mean()), 1e-30))
    else:
        spread = photographs.double().square().mean().sqrt().clamp_min(1e-30).expand(len(picture))
    differences = (picture - photograph) / spread
    order = differences.abs().argsort(descending=True, stable=True)[:most].tolist()
    return tuple(
        ChannelDifference(index, float(differences[index]), float(picture[index]), float(photograph[index]))
        for index in order
        if math.isfinite(float(differences[index]))
    )


def departure(rows: Sequence[PictureRow]) -> str | None:
    """The first layer from which on the path similarity is below a half at all layers where it is known."""
    known = [row for row in rows if row.path is not None]
    start = len(known)
    while start and (known[start - 1].path or 0.0) < HALF:
        start -= 1
    return known[start].layer if start < len(known) else None


def summarize_paths(rows: Sequence[PictureRow], zero: str) -> str:
    """How far pictures go through the network as photographs do, and where they are of another size.

    Args:
        zero: what is 0, in words.
    """
    known = [row for row in rows if row.path is not None]
    if not known:
        return (
            "Whether the picture goes through the network as photographs do cannot be told: they are too few, or no "
            f"more like each other than like {zero}; the plain correlations stand in the table."
        )
    return f"{_way(known)} (path similarity: 1 as photographs among themselves, 0 as {zero}).{_size(rows)}"


def _way(known: Sequence[PictureRow]) -> str:
    apart = [(row.path or 0.0) < HALF for row in known]
    if not any(apart):
        return f"The picture goes as photographs do at all {len(known)} layers where it can be told: {HALF} or more"
    if all(apart):
        return f"Nowhere does the picture go as photographs do: below {HALF} at all {len(known)} layers"
    last = len(apart) - 1 - apart[::-1].index(False)
    where = stretches([row.layer for row in known[: last + 1]], apart[: last + 1])
    if last == len(known) - 1:
        return f"At {where} the picture does not go as photographs do, below {HALF}; at the end it does"
    before = f"; before, it does not at {where}" if where else ""
    return f"From {known[last + 1].layer} on the picture goes no longer as photographs do, below {HALF}{before}"


def stretches(layers: Sequence[str], marks: Sequence[bool]) -> str:
    """The layers that are marked, those in a row as one: "a to c, and e"."""
    found: list[list[str]] = []
    for index, (layer, marked) in enumerate(zip(layers, marks, strict=True)):
        if marked and index and marks[index - 1]:
            found[-1] = [found[-1][0], layer]
        elif marked:
            found.append([layer])
    return ", and ".join(" to ".join(each) for each in found)


def _size(rows: Sequence[PictureRow]) -> str:
    known = [row for row in rows if row.rms_z is not None and row.rms is not None]
    largest = max(known, key=lambda row: abs(row.rms_z or 0.0), default=None)
    if largest is None or abs(largest.rms_z or 0.0) < _FAR:
        return ""
    return (
        f" Its activations are {largest.rms:.2f} times as large as photographs' at {largest.layer}, "
        f"{abs(largest.rms_z or 0.0):.0f} standard deviations from them."
    )
