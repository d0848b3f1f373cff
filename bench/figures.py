"""What the post says it saw in its figures, measured on folders that `phosphene reproduce` made.

    phosphene reproduce naive clip decay blur median classes-vgg16 hen -n NETWORK --rates post -o OUT
    python bench/figures.py OUT [--judges mobilenet_v1 efficientnet_lite0]

For each row of each figure: the network's own probability of the class (the least of the row, and the mean), where it
was after 200 steps, what judges that took no part make of the images (top-1, top-5), how grey an image is (the
deviation of its pixels), how saturated (the share of values at 0 or 255), and how green (the mean of green less that of
red and blue).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from study import opened

from phosphene.judges.judge import judge

ANIMALS = {1, 8, 18, 71, 122, 130, 235, 327, 351, 388}


def measured(folder: Path, entry: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    pixels = np.asarray(Image.open(folder / entry["file"]).convert("RGB")).astype(float)
    trace = entry["probability"]
    return {
        "animal": int(entry["unit"].partition(":")[2]) in ANIMALS,
        "own": entry["scores"]["probability"],
        "own at 200": trace[min(200, len(trace)) - 1],
        "deviation": pixels.std(axis=(0, 1)).mean(),
        "saturated": ((pixels == 0) | (pixels == 255)).mean(),
        "green": pixels[..., 1].mean() - pixels[..., [0, 2]].mean(),
        "top1": np.mean([answer["top1"] for answer in card["judges"].values()]),
        "top5": np.mean([answer["top5"] for answer in card["judges"].values()]),
    }


def line(label: str, rows: list[dict[str, Any]]) -> str:
    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    cells = [
        f"{min(row['own'] for row in rows):.1%}, {mean('own'):.1%}", f"{mean('own at 200'):.1%}",
        f"{mean('top1'):.2f}, {mean('top5'):.2f}", f"{mean('deviation'):.0f}", f"{mean('saturated'):.0%}",
        f"{mean('green'):+.0f}",
    ]  # fmt: skip
    return f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judges", nargs="+", default=["mobilenet_v1"], help="names, as bench/quality.py takes them")
    parser.add_argument("--network", default="squeezenet_v1.1", help="that made them, likewise")
    args = parser.parse_args()
    network, panel = opened(args.network), [opened(name) for name in args.judges]
    print("| | own: least, mean | after 200 steps | judged: top-1, top-5 | deviation | saturated | greener |")
    print("|---|---|---|---|---|---|---|")
    for file in sorted(args.folder.glob("**/figure.json")):
        data = json.loads(file.read_text())
        for row in data["rows"]:
            pictures = row["pictures"]
            if not all(entry["unit"].startswith("class:") for entry in pictures):
                continue
            paths = [file.parent / entry["file"] for entry in pictures]
            cards = judge(paths, panel, network=network)
            found = [measured(file.parent, *pair) for pair in zip(pictures, cards, strict=True)]
            print(line(f"{data['figure']}: {row['label']}", found), flush=True)
            if len(pictures) > 10:
                for name, wanted in (("animals", True), ("things", False)):
                    print(line(f"{data['figure']}: its {name}", [each for each in found if each["animal"] is wanted]))


if __name__ == "__main__":
    main()
