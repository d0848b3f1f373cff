"""Deletion and insertion of each map's method over photographs, with maps of nothing as chance: docs/explain.md.

    python bench/explain.py ../shared/images --count 20

For each photograph the network's own first guess is explained.  A row has the mean over photographs of the areas under
both curves with its standard error, of how many photographs the map does better than the mean of the maps of nothing,
and the rank correlation of the map with that of shuffled weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

import phosphene
from phosphene import AttributionMaps, AttributionSettings
from phosphene.attribution.checks import perturbation_curves
from phosphene.attribution.explain import explain
from phosphene.attribution.methods import Explained, make_baseline
from phosphene.attribution.response import Response
from phosphene.networks.network import Network
from phosphene.photographs.listing import list_photographs
from phosphene.units.spelling import parse_unit

SMOOTHED, PIXELS, CHANCE = "saliency, SmoothGrad of 16", "random pixels", "random blobs"


def measure(network: Network, path: Path, settings: AttributionSettings) -> dict[str, list[float]]:
    """For each method [area of deletion, area of insertion, rank correlation with shuffled weights]."""
    found = explain(network, path, methods="all", carriers=0, check=True, settings=settings)
    rows = {
        name: [*found.curves[name].areas, found.randomized[name] if found.randomized[name] is not None else math.nan]
        for name in found.maps
    }
    smooth = AttributionSettings(samples=16, seed=settings.seed, batch=settings.batch)
    noisy = explain(network, path, found.unit, "saliency", carriers=0, curves=False, settings=smooth)
    rows[SMOOTHED] = [*areas_of(noisy.maps["saliency"], network, found, settings), math.nan]
    rows[PIXELS] = [*found.chance["pixels"], math.nan]
    rows[CHANCE] = [*found.chance["blobs"], math.nan]
    gap = found.relative_gap
    print(f"{path.name}: {found.label} {found.probability:.0%}, gap {gap or 0:.1%}", flush=True)
    return rows


def areas_of(
    map_: np.ndarray, network: Network, found: AttributionMaps, settings: AttributionSettings
) -> tuple[float, float]:
    """Under the curves of deletion and insertion by any map of the same unit and photograph."""
    pixels = torch.from_numpy(found.photograph.copy()).movedim(-1, 0)[None].float()
    with network.borrowed():
        response = Response(network, parse_unit(found.unit, network))
        explained = Explained(response, settings, pixels, make_baseline(network, pixels, settings.baseline))
        return perturbation_curves(map_, explained).areas


def table(rows: list[dict[str, list[float]]]) -> str:
    """The rows of all photographs as a table of Markdown."""
    lines = ["| map | deletion | insertion | better than blobs | shuffled weights |", "|---|---|---|---|---|"]
    chance = np.array([row[CHANCE][:2] for row in rows])
    for name in rows[0]:
        areas = np.array([row[name] for row in rows])
        mean, error = areas[:, :2].mean(0), areas[:, :2].std(0, ddof=1) / math.sqrt(len(rows))
        better = ((areas[:, 0] < chance[:, 0]).sum(), (areas[:, 1] > chance[:, 1]).sum())
        said = "" if name == CHANCE else f"{better[0]} and {better[1]} of {len(rows)}"
        random = "" if np.isnan(areas[:, 2]).all() else f"{np.nanmean(areas[:, 2]):.2f}"
        lines.append(
            f"| {name} | {mean[0]:.3f} ± {error[0]:.3f} | {mean[1]:.3f} ± {error[1]:.3f} | {said} | {random} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("-n", "--network", default="efficientnet_lite0")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON of all numbers")
    args = parser.parse_args()
    network = phosphene.open(args.network)
    begun = time.process_time()
    settings = AttributionSettings()
    rows = []
    paths = list_photographs(args.photographs, args.count)
    for path in (*paths[::3], *paths[1::3], *paths[2::3]):  # whenever it is ended, they are evenly spread
        rows.append(measure(network, path, settings))
        if args.out is not None:  # what is measured is kept, whatever comes
            args.out.write_text(json.dumps(rows), encoding="utf-8")
    print(table(rows))
    print(f"{time.process_time() - begun:.0f} s of CPU")


if __name__ == "__main__":
    main()
