"""The ladder of docs/quality.md: from the post's method up, one change at a time, and what was tried and left out.

    python bench/ladder.py                      # all steps of the ladder, on 24 classes, 128 passes an image
    python bench/ladder.py --tried              # the changes that did not make it
    python bench/ladder.py --steps 512 --only statistics

The classes are drawn from those that bench/quality.py does not draw at its own default, so that nothing is tuned on
what is reported there; the judges are Caffe's SqueezeNet and EfficientNet-lite1 and -lite2, relatives of the network.
MobileNetV1 never judges here.  Writes OUT/LABEL.png (the first eight images), OUT/ladder.json and, of all labels that
are there, OUT/ladder.jpg; a label that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import phosphene
from phosphene.draw.grid import tile
from phosphene.recipes.recipe import Recipe

REPORTED = 2026  # the draw of bench/quality.py
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"
JUDGES = [f"{WEIGHTS}/squeezenet_v1.1.prototxt={WEIGHTS}/squeezenet_v1.1.caffemodel", "lite1", "lite2"]

UNMOVED = {"views.crop": [1.0, 1.0], "views.rotate": 0.0, "views.flip": False}
CONSTANT = {"schedule.kind": "constant"}
NONE = {"priors.statistics": "off"}
FREE = {"canvas.spectrum": "free"}
ANY = FREE | {"canvas.contrast": 0.0}
# Before statistics were averaged over steps.
STEP_BY_STEP = {"priors.statistics.average": 0.0}
# Before a search changed these three (docs/search.md).
BY_HAND = STEP_BY_STEP | {"canvas.exponent": 1.0, "schedule.begin": 0.6, "views.noise": [0.0, 80.0]}
# Before views had noise and other colours.
CALM = BY_HAND | {"views.noise": 0.0, "views.colour": 0.0, "priors.statistics.weight": 250.0}
# Before the steps were plain ones.
ADAM = CALM | {"optimizer.name": "adam", "optimizer.gradient": "raw", "optimizer.rate": 0.08}
ALWAYS = {"priors.statistics.every": 1}  # all layers at every step
# Statistics as DeepInversion has them.
EITHER = ALWAYS | {"priors.statistics.side": "both", "priors.statistics.weight": 100.0}
# From a recipe, with these fields changed.
LADDER: dict[str, tuple[str, dict[str, Any]]] = {
    "post": ("tence", {}),
    "fourier": ("draft", ADAM | UNMOVED | CONSTANT | NONE | ANY | {"canvas.colours": "none"}),
    "colours": ("draft", ADAM | UNMOVED | CONSTANT | NONE | ANY),
    "crops": ("draft", ADAM | CONSTANT | NONE | ANY | {"views.rotate": 0.0, "views.flip": False}),
    "rotated, flipped": ("draft", ADAM | CONSTANT | NONE | ANY),
    "falling rate": ("draft", ADAM | NONE | ANY),
    "contrast held": ("draft", ADAM | NONE | FREE),
    "statistics": ("draft", ADAM | FREE | EITHER),
    "above alone": ("draft", ADAM | FREE | ALWAYS | {"priors.statistics.weight": 100.0}),
    "weight 250": ("draft", ADAM | FREE | ALWAYS),
    "spectrum held": ("draft", ADAM | ALWAYS),
    "plain steps": ("draft", CALM | ALWAYS),
    "layers in turn": ("draft", CALM),
    "colours of views": ("draft", CALM | {"views.colour": 0.3}),
    "noise": ("draft", BY_HAND | {"priors.statistics.weight": 250.0}),
    "weight 100 again": ("draft", BY_HAND),
    "as a search found": ("draft", STEP_BY_STEP),
    "averaged over steps": ("draft", {}),
}
BEFORE = ADAM | ALWAYS
EARLIER = BEFORE | FREE | EITHER
TRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "draft": ("draft", {}),
    "half averaged": ("draft", {"priors.statistics.average": 0.5}),
    "longer averaged": ("draft", {"priors.statistics.average": 0.95}),
    # Before the search.
    "noise up to 50": ("draft", BY_HAND | {"views.noise": [0.0, 50.0]}),
    "noise up to 120": ("draft", BY_HAND | {"views.noise": [0.0, 120.0]}),
    "noise of 50 alone": ("draft", CALM | {"views.noise": 50.0}),
    "noise, weight 50": ("draft", BY_HAND | {"priors.statistics.weight": 50.0}),
    "noise, weight 25": ("draft", BY_HAND | {"priors.statistics.weight": 25.0}),
    "noise, contrast 2.6": ("draft", BY_HAND | {"canvas.contrast": 2.6}),
    # Before views had noise and other colours.
    "a rate of 0.2": ("draft", CALM | {"optimizer.rate": 0.2}),
    "momentum": ("draft", CALM | {"optimizer.name": "momentum", "optimizer.rate": 0.01}),
    "each plane's own": ("draft", CALM | {"optimizer.gradient": "planes"}),
    "each plane's own, contrast 4": ("draft", CALM | {"optimizer.gradient": "planes", "canvas.contrast": 4.0}),
    # On the steps of before, by Adam.
    "weight 100": ("draft", BEFORE | {"priors.statistics.weight": 100.0}),
    "weight 600": ("draft", BEFORE | {"priors.statistics.weight": 600.0}),
    "spectrum free": ("draft", BEFORE | FREE),
    "contrast free": ("draft", BEFORE | ANY),
    "smaller crops": ("draft", BEFORE | {"views.crop": [0.15, 0.8]}),
    "larger crops": ("draft", BEFORE | {"views.crop": [0.6, 1.0]}),
    "total variation": ("draft", BEFORE | {"priors.total_variation.weight": 10.0}),
    "from coarse to fine": ("draft", BEFORE | {"growth.sizes": [0.57, 1.0], "growth.at": [0.0, 0.4]}),
    "two views a step": ("draft", BEFORE | {"views.count": 2, "steps": 64}),
    "photographs' colours": ("draft", BEFORE | {"canvas.colours": "photographs"}),
    # On the statistics of before, taken either way.
    "either way": ("draft", EARLIER),
    "either way, contrast free": ("draft", EARLIER | ANY),
    "either way, by depth": ("draft", EARLIER | {"priors.statistics.depth": 0.5}),
    "either way, depth 1, contrast 2.2": (
        "draft", EARLIER | {"priors.statistics.depth": 1.0, "canvas.contrast": 2.2},
    ),
    "either way, early layers": ("draft", EARLIER | {"priors.statistics.until": 0.6}),
    "either way, a margin": ("draft", EARLIER | {"priors.statistics.margin": 0.5}),
    "either way, longer momentum": ("draft", EARLIER | {"optimizer.options": {"betas": [0.97, 0.999]}}),
    "either way, a louder start": ("draft", EARLIER | {"start.sigma": 30.0}),
    "either way, steeper spectrum": ("draft", EARLIER | {"canvas.exponent": 1.3}),
}  # fmt: skip


def drawn(count: int, seed: int) -> list[int]:
    """Classes that bench/quality.py does not report."""
    reported = set(np.random.default_rng(REPORTED).choice(1000, 100, replace=False).tolist())
    others = np.array([index for index in range(1000) if index not in reported])
    return np.random.default_rng(seed).choice(others, count, replace=False).tolist()


def made(label: str, base: str, fields: dict[str, Any], classes: list[int], args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table; also writes its picture."""
    steps = {} if "steps" in fields else {"steps": args.steps}
    recipe = Recipe.load(base).for_network("efficientnet_lite0").override(fields | steps)
    clock = time.perf_counter()
    result = phosphene.ascend(phosphene.open(), [f"class:{index}" for index in classes], recipe, seed=args.seed)
    seconds = (time.perf_counter() - clock) / len(classes)
    result.judge([phosphene.judges.panel.open_judge(spec) for spec in JUDGES])
    tile([picture.image() for picture in result[:8]], [picture.label for picture in result[:8]], 8).save(
        args.out / f"{label}.png"
    )
    cards = result.scores
    row: dict[str, Any] = {"label": label, "classes": len(classes), "steps": recipe.steps, "seconds": round(seconds, 1)}
    for name in cards[0]["judges"]:
        row[name] = {
            key: round(float(np.mean([card["judges"][name][key] for card in cards])), 3)
            for key in ("top1", "probability")
        }
    row["own"] = round(float(np.mean([card["probability"] for card in cards])), 3)
    row["robustness"] = round(float(np.mean([card["robustness"] for card in cards])), 3)
    row["saturated"] = round(float(np.mean([card["saturated"] for card in cards])), 4)
    return row


def sheet_of(out: Path, labels: list[str], side: int = 128) -> Image.Image:
    """The labels' pictures below each other, eight images of that side in each, the classes' names under the last."""
    font, band = ImageFont.load_default(13), side + 20
    paper = Image.new("RGB", (8 * side, len(labels) * band + 20), "white")
    draw = ImageDraw.Draw(paper)
    for place, label in enumerate(labels):
        with Image.open(out / f"{label}.png") as tiles:
            scale = 8 * side / tiles.width
            tiles = tiles.convert("RGB").resize((8 * side, round(scale * tiles.height)), Image.Resampling.LANCZOS)
        draw.text((2, place * band + 2), label, "black", font)
        whole = place == len(labels) - 1
        paper.paste(tiles if whole else tiles.crop((0, 0, 8 * side, side)), (0, place * band + 18))
    return paper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tried", action="store_true")
    parser.add_argument("--only", nargs="*", metavar="LABEL")
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("phosphene-out/ladder"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "ladder.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    classes = drawn(args.classes, args.seed)
    for label, (base, fields) in (TRIED if args.tried else LADDER).items():
        label = label if args.steps == 128 else f"{label} {args.steps}"
        if (args.only and label not in args.only) or any(row["label"] == label for row in rows):
            continue
        rows.append(made(label, base, fields, classes, args))
        file.write_text(json.dumps(rows, indent=1))
        print(json.dumps(rows[-1]), flush=True)
    sheet_of(args.out, [row["label"] for row in rows]).save(args.out / "ladder.jpg", quality=88)
    for row in rows:
        judged = "  ".join(
            f"{name} {row[name]['top1']:.2f} {row[name]['probability']:.3f}"
            for name in row
            if isinstance(row[name], dict)
        )
        print(f"{row['label']:22} own {row['own']:.2f}  {judged}  robust {row['robustness']:.2f}  {row['seconds']} s")


if __name__ == "__main__":
    main()
