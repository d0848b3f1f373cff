"""Are the post's settings, layer by layer, better than one recipe for all layers?

Living channels of each convolution of AlexNet (for the post's CaffeNet) and VGG16: by the post's table for the layer
(`phosphene reproduce`), by `filters` (its method with one normalised rate for all layers) and by `draft`, which takes
fewer steps.  There is no judge of a hidden unit; the columns are what 32 views of the image retain of its activation,
the share of channels that rank first in their layer on their own image, and how active the channel is over those views,
as a multiple of the post's (the median over the channels).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study import parser

import phosphene
from phosphene import Picture, Recipe
from phosphene.draw.grid import grid
from phosphene.judges.judge import judge
from phosphene.reproduce.figures import find_figure
from phosphene.reproduce.plan import FigureSettings
from phosphene.reproduce.plan import plan as plan_figure

NETWORKS = {
    "torchvision:alexnet": ("alexnet_features", "filters-caffenet", 160),
    "torchvision:vgg16": ("vgg16_features", "filters-vgg16", 112),
}
OTHERS = ("filters", "draft")
CHANNELS = 4


def scored(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    cards = judge(pictures, [])
    return [
        {
            "retained": card["retained"],
            "first": card["selectivity"]["rank"] == 1,
            "active": card["retained"] * max(0.0, card["objective"]),
            "steps": picture.steps,
        }
        for card, picture in zip(cards, pictures, strict=True)
    ]


def rows_of(name: str, seed: int) -> tuple[list[dict[str, Any]], list[list[Picture]]]:
    """The scores of each layer by each recipe, and a picture of each."""
    file, figure, size = NETWORKS[name]
    network = phosphene.open(name, weights=f"../shared/weights/{file}.safetensors", partial=True)
    settings = FigureSettings(channels=CHANNELS, size=(size, size))
    plan = plan_figure(find_figure(figure), network, settings, seed=seed, device="cpu")
    rows, shown = [], []
    for row in plan.rows:
        others = {each: Recipe.load(each).for_network(network).override({"size": size}) for each in OTHERS}
        own: dict[str, Any] = {"network": network.name, "layer": row.units[0].layer, "recipes": {}}
        pictures = []
        for label, recipe in {"post": row.recipe, **others}.items():
            made = phosphene.ascend(row.network, row.units, recipe, seed=seed)
            own["recipes"][label] = scored(made)
            pictures.append(made[0])
        rows.append(own)
        shown.append(pictures)
        print(line(own), flush=True)
    return rows, shown


def line(row: dict[str, Any]) -> str:
    post = row["recipes"]["post"]
    cells = []
    for label, scores in row["recipes"].items():
        retained = np.mean([score["retained"] for score in scores])
        first = np.mean([score["first"] for score in scores])
        cell = f"{retained:.2f}, {first:.2f}"
        if label != "post":
            times = [score["active"] / max(own["active"], 1e-9) for score, own in zip(scores, post, strict=True)]
            cell += f", {np.median(times):.2f}"
        cells.append(cell)
    return f"| {row['network']} {row['layer']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    args = parser(__doc__, list(NETWORKS)).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        found, shown = rows_of(name, args.seed)
        rows += found
        in_rows = [pictures[place] for place in range(1 + len(OTHERS)) for pictures in shown]
        short = name.rpartition(":")[2]
        grid(in_rows, len(shown)).convert("RGB").save(Path(args.out) / f"post-{short}.jpg", quality=88)
    (args.out / "post.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n| | post: retained, first | {' | '.join(f'{each}: …, active' for each in OTHERS)} |")
    print("|---|---|---|---|")
    for row in rows:
        print(line(row))
