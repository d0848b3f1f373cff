"""Every shipped recipe on the same classes: a table, and a picture with a row a recipe.

    python bench/recipes.py --out phosphene-out

The table has the network's own probability of the saved images, the probability and top-1 that the judges give them
(see rates.py), the steps and the seconds an image.  The picture is `recipes.jpg`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rates import judged

import phosphene
from phosphene.draw.grid import tile
from phosphene.recipes.files import recipe_names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    from_noise = [name for name in recipe_names() if name not in ("dream", "invert", "caricature")]
    parser.add_argument("--recipes", nargs="+", default=from_noise)
    parser.add_argument("--classes", nargs="+", default=["flamingo", "hartebeest", "pool table", "teddy"])
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--judges", nargs="*", default=["efficientnet_lite1", "efficientnet_lite2"])
    parser.add_argument("--out", type=Path, default=Path("phosphene-out"))
    args = parser.parse_args()

    network = phosphene.open(args.network)
    judges = [phosphene.open(name) for name in args.judges]
    args.out.mkdir(parents=True, exist_ok=True)
    images, captions = [], []
    print(
        "| recipe | steps | own probability |" + "".join(f" {judge.name} | top-1 |" for judge in judges) + " seconds |"
    )
    print("|---|---|---|" + "---|---|" * len(judges) + "---|")
    for name in args.recipes:
        result = phosphene.ascend(network, [f"class:{label}" for label in args.classes], name)
        own = np.mean([score["probability"] for score in result.scores])
        columns = "".join(" {:.3f} | {:.2f} |".format(*judged(judge, result.pictures)) for judge in judges)
        seconds = np.mean([picture.seconds for picture in result])
        print(f"| `{name}` | {result[0].steps} | {own:.2f} |{columns} {seconds:.0f} |", flush=True)
        images += [picture.image().convert("RGB") for picture in result]
        captions += [f"{name}: {picture.label}" for picture in result]
    tile(images, captions, columns=len(args.classes)).save(args.out / "recipes.jpg", quality=80)


if __name__ == "__main__":
    main()
