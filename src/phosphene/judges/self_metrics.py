"""What the network says that an image was made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phosphene.ascent.scores import measure
from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.photo_set import PhotoSet, photo_set_slope
from phosphene.judges.pixel_metrics import PHOTOGRAPHS_SLOPE, mean_slope, spectral_slope
from phosphene.networks.network import Network
from phosphene.pixels.resampling import resize
from phosphene.recipes.transforms import Transforms
from phosphene.units.objects import Channel, Class, Neuron, Part, Unit

ROBUSTNESS_CROPS = 32
ROBUSTNESS_SEED = 20160
OWN_TOP_1 = "the network's own top-1 stays the class"
ABOVE_PHOTOGRAPHS = "the activation stays above the photographs' 99th percentile"
HALF_ACTIVATION = "the activation stays at least half of the whole image's"


@dataclass(frozen=True, eq=False)
class SelfMetrics:
    """What an image's own network says: the scores that it had from the first, and the further card."""

    scores: dict[str, float | None]
    card: dict[str, Any]
    photographs_slope: float


@dataclass(frozen=True, eq=False)
class _PhotoBaseline:
    """What a network says of the photographs.

    Attributes:
        values: of each unit, (photographs, units).
        profiles: of each unit's whole layer, (photographs, channels); see `_profile`.
        slope: the mean of their `spectral_slope`.
    """

    values: Tensor
    profiles: dict[str, Tensor]
    slope: float


def measure_source(
    images: Sequence[JudgedImage], photo_set: PhotoSet | None, device: torch.device, tell: Callable[[str], None]
) -> list[SelfMetrics]:
    """What each image's own network says of it."""
    found: dict[int, SelfMetrics] = {}
    groups: dict[int, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(id(image.network), []).append(i)
    for group in groups.values():
        network = images[group[0]].network
        if network is None:
            slope = PHOTOGRAPHS_SLOPE if photo_set is None else photo_set_slope(photo_set)
            found |= {i: SelfMetrics({}, {}, slope) for i in group}
            continue
        tell(f"asking {network.name}, which made them")
        with network.borrowed(device):
            units = list(dict.fromkeys(images[i].unit for i in group if not images[i].needs_reference))
            reference = None if photo_set is None else _reference(network, units, photo_set, device)
            for i in group:
                found[i] = _measure(images[i], network, units, reference, device)
    return [found[i] for i in range(len(images))]


def _measure(
    image: JudgedImage,
    network: Network,
    units: Sequence[Unit],
    reference: _PhotoBaseline | None,
    device: torch.device,
) -> SelfMetrics:
    """Args: `units` are those of the columns of the reference."""
    assert image.fed is not None
    unit = image.unit
    # Each image alone, as when it was made, so that its numbers stay what they were.
    scores = measure(network, unit, image.fed.movedim(0, -1), device, image.photograph)
    finite = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    slope = PHOTOGRAPHS_SLOPE if reference is None else reference.slope
    if image.needs_reference:
        return SelfMetrics(finite, {}, slope)
    fed = resize(image.fed.to(device)[None], network.preprocessing.size)  # type: ignore[arg-type]
    photographs = None if reference is None else reference.values[:, units.index(unit)]
    card = _robustness(network, unit, fed, scores["objective"], photographs)
    if isinstance(unit, Channel | Neuron):
        profile = _responses(network, [unit], fed).profiles[str(unit)]
        theirs = None if reference is None else reference.profiles[str(unit)]
        card["selectivity"] = _selectivity(unit, profile[0], theirs)
    if photographs is not None:
        card["percentile"] = 100 * (photographs < scores["objective"]).double().mean().item()
    return SelfMetrics(finite, card, slope)


def _robustness(network: Network, unit: Unit, fed: Tensor, whole: float, photographs: Tensor | None) -> dict[str, Any]:
    """The share of views that keep the unit, and the rule."""
    transforms = Transforms(count=ROBUSTNESS_CROPS, crop=(0.5, 1.0), scale=(0.8, 1.2), jitter=min(fed.shape[-2:]) / 8)
    shown = transforms(fed, [torch.Generator().manual_seed(ROBUSTNESS_SEED)])
    if isinstance(unit, Class):
        kept = network.forward(shown).argmax(dim=1) == unit.index
        return {"robustness": kept.double().mean().item(), "robustness_rule": OWN_TOP_1}
    values = _responses(network, [unit], shown).values[:, 0]
    if photographs is not None:
        kept, rule = values > photographs.double().quantile(0.99), ABOVE_PHOTOGRAPHS
    else:  # an image that does not excite its unit at all has nothing to keep
        kept, rule = (values >= whole / 2) & (whole > 0), HALF_ACTIVATION
    retained = (values.double() / whole).clamp(0, 1).mean().item() if whole > 0 else 0.0
    return {"robustness": kept.double().mean().item(), "robustness_rule": rule, "retained": retained}


class _Responses(NamedTuple):
    values: Tensor  # (rows, units), on the CPU
    profiles: dict[str, Tensor]  # by unit, (rows, channels)


def _responses(network: Network, units: Sequence[Unit], pixels: Tensor) -> _Responses:
    """The activation of every unit on every image, and the profiles of the units' layers."""
    by_layer: dict[str, list[tuple[int, float, Part]]] = {}
    for i, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((i, weight, part))
    values = torch.zeros(len(pixels), len(units))
    profiles: dict[str, Tensor] = {}

    def reader(layer: str) -> Callable[[Tensor], None]:
        def read(activation: Tensor) -> None:
            for i, weight, part in by_layer[layer]:
                scores = torch.stack([part.score(row) for row in activation])
                values[:, i] += weight * scores.float().cpu()
                if units[i] is part and isinstance(part, Channel | Neuron):
                    profiles[str(part)] = _profile(part, activation)

        return read

    if by_layer:
        network.read(pixels, {layer: reader(layer) for layer in by_layer})
    return _Responses(values, profiles)


def _profile(part: Channel | Neuron, activation: Tensor) -> Tensor:
    """How active each channel of a layer is: over its map on average, or for a neuron at its position.

    (rows, channels, *positions) to (rows, channels).
    """
    if isinstance(part, Neuron):
        return torch.stack([row[(slice(None), *part.position)] for row in activation]).float().cpu()
    return activation.float().reshape(*activation.shape[:2], -1).mean(2).cpu()


def _selectivity(unit: Channel | Neuron, profile: Tensor, photographs: Tensor | None) -> dict[str, int]:
    """The rank of a channel among its layer's on its own image, by mean activation as it is.

    Channels differ in scale, so with photographs also by how many standard deviations each is above its mean over
    these.  A neuron is ranked by all channels' activations at its position; a direction, layer or sum has no rank.
    """
    ranks = {"rank": _rank(profile, unit.channel), "of": len(profile)}
    if photographs is not None:
        spread = photographs.double().std(0, correction=0).clamp_min(1e-12)  # silent on all: any activity is far out
        ranks["rank_by_z"] = _rank((profile - photographs.double().mean(0)) / spread, unit.channel)
    return ranks


def _rank(values: Tensor, index: int) -> int:
    return 1 + int((values > values[index]).sum())


def _reference(network: Network, units: Sequence[Unit], photo_set: PhotoSet, device: torch.device) -> _PhotoBaseline:
    seen: list[_Responses] = []
    slopes: list[float | None] = []
    for _, pixels in photo_set.batches(network.preprocessing):
        seen.append(_responses(network, units, pixels.to(device)))
        slopes += [spectral_slope(row) for row in pixels.movedim(1, -1).numpy()]
    profiles = {name: torch.cat([part.profiles[name] for part in seen]) for name in seen[0].profiles}
    return _PhotoBaseline(torch.cat([part.values for part in seen]), profiles, mean_slope(slopes))
