"""What the studies share: variants of a recipe on the same classes of some networks, scored by other networks.

Each study_*.py asks one of the post's open questions.  It makes an image of each of --classes classes, drawn with
--seed and none of them among those that bench/quality.py reports, for every variant on every network; all variants of
a network start from the same seeds.  It prints a table and writes into OUT: NAME.json with all numbers, NAME.png with
the means and their standard errors, and NAME.jpg with the first images of each variant.  What a file of numbers has
already is not made again.

    python bench/study_keep.py --classes 16 --networks squeezenet_v1.1 efficientnet_lite0
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from quality import JUDGES, arguments, drawn, open_network

import phosphene
from phosphene import Network, Recipe
from phosphene.judges import judge as judge_module
from phosphene.judges.independence import shared_weights

SHOWN = 6  # images of each variant in the picture
SIDE = 128  # pixels of each

Variants = Mapping[str, Recipe]
Card = dict[str, Any]


def parser(text: str | None, networks: Sequence[str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", default=list(networks), help="names, as bench/quality.py takes them")
    made.add_argument("--classes", type=int, default=16)
    made.add_argument("--seed", type=int, default=3)
    made.add_argument("--out", type=Path, default=Path("docs/studies"))
    return made


def opened(name: str) -> Network:
    return open_network(name, arguments(name))


def panel_of(network: Network) -> list[Network]:
    """Judges that are not related to a network."""
    found = [opened(name) for name in JUDGES if name != network.name]
    return [judge for judge in found if not shared_weights(judge, network)]


def classes_of(args: argparse.Namespace) -> list[int]:
    reported = set(drawn(2026, 100))
    others = [index for index in range(1000) if index not in reported]
    return sorted(np.random.default_rng(args.seed).choice(others, args.classes, replace=False).tolist())


class Study:
    """The numbers of a study, kept in its file as they come.

    Args:
        name: of its files.
        args: as `parser` parses them.
    """

    def __init__(self, name: str, args: argparse.Namespace):
        self.name, self.args = name, args
        args.out.mkdir(parents=True, exist_ok=True)
        self.file = args.out / f"{name}.json"
        self.data: dict[str, Any] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.images: dict[tuple[str, str], list[Image.Image]] = {}

    def run(self, network: Network, variants: Variants) -> None:
        """Make and score every variant's images of the classes."""
        for label, recipe in variants.items():
            self.add(network, label, recipe, partial(phosphene.ascend, network, recipe=recipe, seed=self.args.seed))

    def add(
        self, network: Network, label: str, recipe: Recipe, make: Callable[..., Sequence[phosphene.Picture]]
    ) -> None:
        """Score what is made of the classes, if it is not known."""
        units = [f"class:{index}" for index in classes_of(self.args)]
        settings = [network.digest, units, recipe.for_network(network).to_dict(), self.args.seed]
        if not self.known(network.name, label, settings):
            pictures = list(make(units=units))
            cards = judge_module.judge(pictures, panel_of(network), network=network)
            self.keep(network.name, label, settings, pictures, cards)

    def known(self, network: str, label: str, settings: Any) -> bool:
        return json.dumps(self.data.get(network, {}).get(label, {}).get("settings")) == json.dumps(settings)

    def keep(
        self, network: str, label: str, settings: Any, pictures: Sequence[phosphene.Picture], cards: Sequence[Card]
    ) -> None:
        scores = [
            {
                "judges": {name: answer["probability"] for name, answer in card["judges"].items()},
                "top1": {name: answer["top1"] for name, answer in card["judges"].items()},
                "own": card["probability"],
                "robustness": card["robustness"],
                "steps": picture.steps,
                "seconds": picture.seconds,
            }
            for picture, card in zip(pictures, cards, strict=True)
        ]
        self.data.setdefault(network, {})[label] = {"settings": settings, "scores": scores}
        self.file.write_text(json.dumps(self.data, indent=1) + "\n")
        row = [picture.image().convert("RGB").resize((SIDE, SIDE)) for picture in pictures[:SHOWN]]
        self.images[network, label] = row
        place = self.args.out / f".{self.name}"
        place.mkdir(exist_ok=True)
        sheet = Image.new("RGB", (SIDE * len(row), SIDE))
        for index, image in enumerate(row):
            sheet.paste(image, (SIDE * index, 0))
        sheet.save(place / f"{network}-{slug(label)}.png")
        print(f"{network}: {label}: {summary(scores)}", flush=True)

    def report(self, note: str = "") -> None:
        """Print the tables, and draw the chart and the picture."""
        for network, variants in self.data.items():
            print(f"\n{network}, {len(next(iter(variants.values()))['scores'])} images a row{note}\n")
            print(table(variants))
        chart(self.data).savefig(self.args.out / f"{self.name}.png", bbox_inches="tight")
        sheet_of(self.args.out / f".{self.name}", self.data).save(self.args.out / f"{self.name}.jpg", quality=88)


def slug(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan


def judged(scores: Sequence[Card]) -> list[float]:
    """Each image's mean probability over the judges."""
    return [float(np.mean(list(score["judges"].values()))) for score in scores]


def summary(scores: Sequence[Card]) -> str:
    value, error = mean(judged(scores))
    return f"{value:.3f} ± {error:.3f}"


def table(variants: Mapping[str, Any]) -> str:
    names = list(next(iter(variants.values()))["scores"][0]["judges"])
    lines = [
        "| | judged | " + " | ".join(names) + " | own | robust | steps |",
        "|---|---|" + "---|" * (len(names) + 3),
    ]
    for label, entry in variants.items():
        scores = entry["scores"]
        cells = [summary(scores)]
        for name in names:
            top = np.mean([score["top1"][name] for score in scores])
            cells.append(f"{top:.2f}, {np.mean([score['judges'][name] for score in scores]):.2f}")
        cells += [f"{np.mean([score[key] for score in scores]):.2f}" for key in ("own", "robustness")]
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {np.mean([score['steps'] for score in scores]):.0f} |")
    return "\n".join(lines)


def chart(data: Mapping[str, Any]) -> Figure:
    """Bars of the mean judged probability, with standard errors; a panel for each network."""
    rows = max(len(variants) for variants in data.values())
    figure = Figure(figsize=(4.6 * len(data), 0.36 * rows + 1.1), dpi=110)
    FigureCanvasAgg(figure)
    for axes, (network, variants) in zip(np.atleast_1d(figure.subplots(1, len(data))), data.items(), strict=True):
        means = [mean(judged(entry["scores"])) for entry in variants.values()]
        axes.barh(range(len(means)), [value for value, _ in means], xerr=[error for _, error in means], color="#4c78a8")
        axes.set_yticks(range(len(means)), list(variants), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, None)
        axes.set_title(network, fontsize=10)
        axes.set_xlabel("judges' mean probability of the class", fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
    figure.tight_layout()
    return figure


def sheet_of(place: Path, data: Mapping[str, Any]) -> Image.Image:
    """The first images of every variant, a row each, under its name."""
    font, rows = ImageFont.load_default(13), []
    for network, variants in data.items():
        for label in variants:
            file = place / f"{network}-{slug(label)}.png"
            if file.is_file():
                rows.append((f"{network}: {label}", Image.open(file)))
    columns = 2 if len(rows) > 5 else 1
    width, height = SIDE * SHOWN + 10, SIDE + 22
    lines = math.ceil(len(rows) / columns)
    paper = Image.new("RGB", (columns * width, lines * height), "white")
    draw = ImageDraw.Draw(paper)
    for index, (label, image) in enumerate(rows):
        left, top = index // lines * width, index % lines * height
        draw.text((left + 2, top + 3), label, "black", font)
        paper.paste(image, (left, top + 20))
    return paper


def changed(name: str, **fields: Any) -> Callable[[Network], Recipe]:
    """A recipe as it is for a network, with fields changed; their dots written as two underscores."""
    changes = {field.replace("__", "."): value for field, value in fields.items()}
    return lambda network: Recipe.load(name).for_network(network).override(changes)


def main(
    name: str, text: str | None, variants: Mapping[str, Callable[[Network], Recipe]], networks: Sequence[str]
) -> None:
    """A study whose variants are recipes."""
    args = parser(text, networks).parse_args()
    study = Study(name, args)
    for network in map(opened, args.networks):
        study.run(network, {label: make(network) for label, make in variants.items()})
    study.report()
