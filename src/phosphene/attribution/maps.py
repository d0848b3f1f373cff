"""What is known of where in a photograph a unit is: maps, their checks, and what carried it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phosphene.attribution.carriers import Carriers
from phosphene.attribution.checks import Curves
from phosphene.attribution.methods import FloatMap
from phosphene.attribution.settings import METHODS, AttributionSettings
from phosphene.attribution.sheet import map_sheet
from phosphene.versions import versions


@dataclass(frozen=True, eq=False)
class AttributionMaps:
    """Where in a photograph a unit is.

    Attributes:
        network, weights: its name and digest.
        unit: as units are spelled.
        label: in words.
        is_top_class: whether nobody asked for the unit: it is the network's own first guess.
        value: the unit's response to the photograph, and `baseline_value` to the image without anything in it.
        probability: the network's own of a class; None of other units.
        photograph: as the network is shown it, (height, width, channels) in 8 bits.
        maps: by method, (height, width).  Integrated gradients and occlusion are in units of the response, and may be
            negative; the others are 0 or more.
        layer: Grad-CAM's; empty where there is no such map.
        gap: of integrated gradients, the sum of the map less (value - baseline_value), which would be 0 over
            infinitely many steps (completeness; Sundararajan et al. 2017, proposition 1); None without such a map.
        curves: by method deletion and insertion curves; empty where they were not asked for.
        chance: areas under the curves of deletion and insertion by maps of nothing: of "blobs", and of "pixels"; empty
            likewise.
        randomized: by method, the rank correlation of the map with that of the same network with shuffled weights; None
            where that map is the same everywhere.  Empty where it was not asked for.
        carriers: which hidden units carried it; None where that was not asked for, or none did.
        notes: what a user should know, in sentences.
        settings: by which the maps were made.
    """

    network: str
    weights: str
    unit: str
    label: str
    is_top_class: bool
    value: float
    baseline_value: float
    probability: float | None
    photograph: NDArray[np.uint8]
    maps: Mapping[str, FloatMap]
    layer: str = ""
    gap: float | None = None
    curves: Mapping[str, Curves] = field(default_factory=dict)
    chance: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    randomized: Mapping[str, float | None] = field(default_factory=dict)
    carriers: Carriers | None = None
    notes: tuple[str, ...] = ()
    settings: AttributionSettings = field(default_factory=AttributionSettings)

    @property
    def relative_gap(self) -> float | None:
        """The gap as a share of |value - baseline_value|; None where there is none, or nothing to share."""
        gain = abs(self.value - self.baseline_value)
        return None if self.gap is None or not gain else abs(self.gap) / gain

    def figure(self) -> Image.Image:
        """The photograph, and each map over it."""
        return map_sheet(self.photograph, self.maps, self.settings.smoothing)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as plain data; the maps themselves are arrays."""
        return {
            "network": self.network,
            "weights": self.weights,
            "unit": self.unit,
            "label": self.label,
            "is_top_class": self.is_top_class,
            "value": self.value,
            "baseline_value": self.baseline_value,
            "probability": self.probability,
            "settings": asdict(self.settings),
            "methods": {name: self._numbers(name) for name in self.maps},
            "chance": {
                kind: {"deletion": deletion, "insertion": insertion}
                for kind, (deletion, insertion) in self.chance.items()
            },
            "carriers": None if self.carriers is None else _plain_carriers(self.carriers),
            "notes": list(self.notes),
            "versions": versions(),
        }

    def _numbers(self, name: str) -> dict[str, Any]:
        map_ = self.maps[name]
        found: dict[str, Any] = {"by": METHODS[name], "least": float(map_.min()), "most": float(map_.max())}
        if name == "grad-cam":
            found["layer"] = self.layer
        if name == "integrated-gradients":
            found |= {"sum": float(map_.sum(dtype=np.float64)), "gap": self.gap, "relative_gap": self.relative_gap}
        if name in self.curves:
            curves = self.curves[name]
            found |= dict(zip(("deletion", "insertion"), curves.areas, strict=True))
            found |= {"deletion_curve": curves.deletion.tolist(), "insertion_curve": curves.insertion.tolist()}
        if name in self.randomized:
            found["rank_correlation_with_randomized_weights"] = self.randomized[name]
        return found


def _plain_carriers(carriers: Carriers) -> dict[str, Any]:
    return {
        "shown": carriers.shown,
        "layers": [
            {
                "layer": layer.layer,
                "channels": layer.channels,
                "total": layer.total,
                "carriers": [
                    {
                        "unit": each.unit,
                        "channel": each.channel,
                        "contribution": each.contribution,
                        "share": each.share,
                    }
                    for each in layer.carriers
                ],
            }
            for layer in carriers.layers
        ],
        "edges": [asdict(edge) for edge in carriers.edges],
    }
