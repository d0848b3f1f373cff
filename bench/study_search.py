"""The search that found what `draft` has of its own for EfficientNet-lite0, and a check of it on other classes.

    python bench/study_search.py search --minutes 55
    python bench/study_search.py check

Caffe's SqueezeNet and EfficientNet-lite2, a relative, are the judges of the search, on 16 classes; the check, on 24
others, has lite1 besides.  None of them is among the classes that bench/quality.py reports, and MobileNetV1 takes no
part.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from quality import drawn
from study import opened

import phosphene
from phosphene import Network, Recipe
from phosphene.judges.panel import open_judge
from phosphene.tuning.search import search
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.space import load_space
from phosphene.tuning.trials import TrialResult

SEED = 3  # of the first 16 classes that it draws none is reported
SEARCHED = 16
# Since then statistics are averaged over steps.
THEN = {"priors.statistics.average": 0.0}
# As `draft` was before; with what the search's best had in common; with what is left of that; and the best itself.
VARIANTS: dict[str, dict[str, object]] = {
    "as it was": {"views.noise": (0.0, 80.0), "schedule.begin": 0.6, "canvas.exponent": 1.0},
    "noise to 40, crops from a tenth": {
        "views.noise": (0.0, 40.0), "views.crop": (0.1, 1.0), "schedule.begin": 0.6, "canvas.exponent": 1.0,
    },
    "noise to 40, a later fall, a steeper spectrum": {},
    "the best trial": {
        "views.noise": (0.0, 40.0), "views.crop": (0.1, 1.0), "schedule.begin": 0.72, "canvas.exponent": 1.09,
        "canvas.contrast": 3.46, "views.colour": 0.34, "priors.statistics.weight": 112.0,
    },
    "the best trial, crops from a fifth": {
        "views.noise": (0.0, 40.0), "views.crop": (0.2, 1.0), "schedule.begin": 0.72, "canvas.exponent": 1.09,
        "canvas.contrast": 3.46, "views.colour": 0.34, "priors.statistics.weight": 112.0,
    },
}  # fmt: skip


def classes_to_check() -> list[int]:
    searched = torch.randperm(1000, generator=torch.Generator().manual_seed(SEED)).tolist()[:SEARCHED]
    others = [index for index in range(1000) if index not in {*drawn(2026, 100), *searched}]
    return sorted(np.random.default_rng(77).choice(others, 24, replace=False).tolist())


def find(network: Network, panel: list[Network], args: argparse.Namespace) -> None:
    def tell(outcome: TrialResult) -> None:
        scores = ", ".join(f"{rung.score:.3f} after {rung.steps}" for rung in outcome.rungs)
        print(outcome.number, outcome.state, scores, outcome.values, outcome.reason, flush=True)

    space = load_space(Path(__file__).with_suffix(".toml"))
    space = replace(space, base=space.base.override(THEN | VARIANTS["as it was"]))
    settings = SearchSettings(
        space=space, count=SEARCHED, judges=panel, seed=SEED, keep=False,
        trials=args.trials, budget=args.minutes, out=args.out,
    )  # fmt: skip
    search(network, settings=settings, on_trial=tell)


def check(network: Network, panel: list[Network], args: argparse.Namespace) -> None:
    classes = [f"class:{index}" for index in classes_to_check()]
    draft = Recipe.load("draft").for_network(network).override(THEN)
    print("top-1, probability by", ", ".join(judge.name for judge in panel))
    for number, (label, changes) in enumerate(VARIANTS.items()):
        result = phosphene.ascend(
            network, classes, draft.override(changes), seed=5, options=phosphene.RunOptions(batch=8)
        )
        result.save(args.out / f"check-{number}")
        cards = [[card["judges"][judge.name] for card in result.judge(panel)] for judge in panel]
        means = [[np.mean([card[key] for card in own]) for key in ("top1", "probability")] for own in cards]
        print(f"{label}: {'; '.join(f'{top:.2f}, {probability:.2f}' for top, probability in means)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "check"))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--out", type=Path, default=Path("searched"))
    arguments = parser.parse_args()
    lite0, squeezenet = phosphene.open("efficientnet_lite0"), opened("squeezenet_v1.1")
    lite1, lite2 = (open_judge(f"efficientnet_lite{number}") for number in (1, 2))
    if arguments.what == "search":
        find(lite0, [squeezenet, lite2], arguments)
    else:
        check(lite0, [squeezenet, lite1, lite2], arguments)
