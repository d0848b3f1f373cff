"""Before or after the activation?

Channels of AlexNet's and VGG16's convolutions and of the ReLUs behind them, by the post's method and by `draft`; behind
the ReLU with its own gradient, and with the convolution's as long as the channel is off (`redirect`).  There is no
judge of a hidden unit; the columns are what views of the image retain of its activation, the share of channels that
rank first in their layer on their own image, and the share that never woke (a gradient of 0 throughout).
"""

import json
import math

import numpy as np
from study import parser

import phosphene
from phosphene.ascent.stopping import is_dead
from phosphene.draw.grid import grid
from phosphene.judges.judge import judge

FILES = {"torchvision:alexnet": "alexnet_features", "torchvision:vgg16": "vgg16_features"}
LAYERS = {"torchvision:alexnet": (0, 3, 6, 8, 10), "torchvision:vgg16": (2, 7, 14, 21, 28)}
RECIPES = {"tence": {"steps": 120}, "draft": {}}
WAYS = {"before": (0, False), "after": (1, False), "redirected": (1, True)}  # layers further on, and the gradient
SHOWN = 3  # images of each way in the picture

if __name__ == "__main__":
    args = parser(__doc__, list(FILES)).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, shown = [], []
    for name in args.networks:
        network = phosphene.open(name, weights=f"../shared/weights/{FILES[name]}.safetensors", partial=True)
        for layer in LAYERS[name]:
            channels = np.random.default_rng(args.seed).choice(network.layer(f"features.{layer}").channels, 8, False)
            for where, (further, redirect) in WAYS.items():
                units = [f"features.{layer + further}:{channel}" for channel in sorted(channels)]
                for recipe, changes in RECIPES.items():
                    used = phosphene.Recipe.load(recipe).for_network(network)
                    used = used.override(changes | {"redirect": redirect})
                    made = phosphene.ascend(network, units, used, seed=args.seed)
                    cards = judge(made, [])
                    alive = [card for card, picture in zip(cards, made, strict=True) if not is_dead(picture.stopped)]
                    retained = [card["retained"] for card in alive]
                    row = {
                        "network": network.name,
                        "layer": f"features.{layer}",
                        "recipe": recipe,
                        "where": where,
                        "images": len(units),
                        "retained": float(np.mean(retained)) if alive else math.nan,
                        "spread": float(np.std(retained, ddof=1)) if len(alive) > 1 else math.nan,
                        "first": float(np.mean([card["selectivity"]["rank"] == 1 for card in alive])) if alive else 0.0,
                        "dead": 1 - len(alive) / len(units),
                    }
                    rows.append(row)
                    print(row, flush=True)
                    if recipe == "draft":
                        shown += list(made)[:SHOWN]
    (args.out / "activation.json").write_text(json.dumps(rows, indent=1) + "\n")
    grid(shown, SHOWN * len(WAYS)).convert("RGB").save(args.out / "activation.jpg", quality=88)
    print(
        "\n| | | " + " | ".join(f"{way}: retained, first, dead" for way in WAYS) + " |\n|---|---|" + "---|" * len(WAYS)
    )
    cells: dict[str, list[str]] = {}
    for row in rows:
        cell = f"{row['retained']:.2f} ± {row['spread']:.2f}, {row['first']:.2f}, {row['dead']:.2f}"
        cells.setdefault(f"{row['network']} {row['layer']} | {row['recipe']}", []).append(cell)
    for label, found in cells.items():
        print(f"| {label} | {' | '.join(found)} |")
