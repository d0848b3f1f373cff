"""What the network says that an image was made with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene.ascent.scores import measure
from phosphene.default_progress import Tally
from phosphene.judges.explanation import NINE
from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.photo_responses import PhotoResponses, respond, respond_to_photographs
from phosphene.judges.photo_set import PhotoSet, photo_set_slope
from phosphene.judges.pixel_metrics import PHOTOGRAPHS_SLOPE, mean
from phosphene.networks.network import Network
from phosphene.pixels.resampling import resize
from phosphene.recipes.transforms import Transforms
from phosphene.units.objects import Channel, Class, Neuron, Unit

ROBUSTNESS_CROPS = 32
ROBUSTNESS_SEED = 20160
OWN_TOP_1 = "the network's own top-1 stays the class"
ABOVE_PHOTOGRAPHS = "the activation stays above the photographs' 99th percentile"
HALF_ACTIVATION = "the activation stays at least half of the whole image's"


@dataclass(frozen=True, eq=False)
class SelfMetrics:
    """What an image's own network says: the scores that it had from the first, and the further card.

    Attributes:
        photographs: what it says of the photographs, where there are any.
    """

    scores: dict[str, float | None]
    card: dict[str, Any]
    photographs_slope: float
    photographs: PhotoResponses | None = None


def measure_source(
    images: Sequence[JudgedImage], photo_set: PhotoSet | None, device: torch.device, tally: Tally
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
            tally.add(len(group))
            continue
        tally.say(f"asking {network.name}, which made them")
        with network.borrowed(device):
            units = list(dict.fromkeys(images[i].unit for i in group if not images[i].needs_reference))
            photographs = None if photo_set is None else respond_to_photographs(network, units, photo_set, device)
            for i in group:
                found[i] = _measure(images[i], network, photographs, device)
                tally.add()
    return [found[i] for i in range(len(images))]


def _measure(
    image: JudgedImage, network: Network, photographs: PhotoResponses | None, device: torch.device
) -> SelfMetrics:
    assert image.fed is not None
    unit = image.unit
    # Each image alone, as when it was made, so that its numbers stay what they were.
    scores = measure(network, unit, image.fed.movedim(0, -1), device, image.photograph)
    finite = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    slope = PHOTOGRAPHS_SLOPE if photographs is None else photographs.slope
    if image.needs_reference:
        return SelfMetrics(finite, {}, slope)
    fed = resize(image.fed.to(device)[None], network.preprocessing.size)  # type: ignore[arg-type]
    values = None if photographs is None else photographs.values(unit)
    card = _robustness(network, unit, fed, scores["objective"], values)
    own = respond(network, [unit], fed, list(photographs.responses.paths) if photographs else ())
    if isinstance(unit, Channel | Neuron):
        profile = own.profile(unit)
        assert profile is not None
        theirs = None if photographs is None else photographs.responses.profile(unit)
        card["selectivity"] = _selectivity(unit, profile[0], theirs)
    if photographs is not None and values is not None:
        card["percentile"] = 100 * (values < scores["objective"]).double().mean().item()
        card |= path_card({layer: rows[0] for layer, rows in own.paths.items()}, photographs, values)
    return SelfMetrics(finite, card, slope, photographs)


def path_card(picture: Mapping[str, Tensor], photographs: PhotoResponses, values: Tensor) -> dict[str, Any]:
    """The path similarity; nothing where there are too few photographs to say.

    Args:
        picture: by layer of the path, how active each channel is, (channels,).
        values: how active the unit is on each photograph.
    """
    if len(values) < 2 * NINE or not values.max() > values.min():
        return {}
    exciting = values.double().argsort(descending=True, stable=True)[:NINE]
    found = photographs.ranked_paths.similarities(picture, exciting)
    return {"path_similarity": {"mean": mean(list(found.values())), "layers": found}} if found else {}


def _robustness(network: Network, unit: Unit, fed: Tensor, whole: float, photographs: Tensor | None) -> dict[str, Any]:
    """The share of views that keep the unit, and the rule."""
    transforms = Transforms(count=ROBUSTNESS_CROPS, crop=(0.5, 1.0), scale=(0.8, 1.2), jitter=min(fed.shape[-2:]) / 8)
    shown = transforms(fed, [torch.Generator().manual_seed(ROBUSTNESS_SEED)])
    if isinstance(unit, Class):
        kept = network.forward(shown).argmax(dim=1) == unit.index
        return {"robustness": kept.double().mean().item(), "robustness_rule": OWN_TOP_1}
    values = respond(network, [unit], shown).values[:, 0]
    if photographs is not None:
        kept, rule = values > photographs.double().quantile(0.99), ABOVE_PHOTOGRAPHS
    else:  # an image that does not excite its unit at all has nothing to keep
        kept, rule = (values >= whole / 2) & (whole > 0), HALF_ACTIVATION
    retained = (values.double() / whole).clamp(0, 1).mean().item() if whole > 0 else 0.0
    return {"robustness": kept.double().mean().item(), "robustness_rule": rule, "retained": retained}


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
