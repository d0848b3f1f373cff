"""Do different networks learn the same features?  All pairs of six networks, and of some with an untrained one.

    python bench/compare.py --out compare-study

Twelve layers of each, evenly spread, over the photographs of ../shared/images: debiased CKA of all layers, and units
matched with those of the most like layer (see docs/compare.md).  Photographs go through each network twice.

OUT/study.json has a row for each pair, OUT/cka.png the heat maps, OUT/PAIR/compare.json all numbers of a pair, and
OUT/chains.jpg features that most of the six share: units of the first network with their mutual best friends in the
others, whose mean correlation is highest, for early, middle and late layers; their pictures are made by `draft`.

The untrained network is EfficientNet-lite0 with the weights that training begins with; its batch normalizations have
the statistics of the photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from units import MOBILENET, SHARED, SQUEEZENET

from phosphene.comparison.networks import ComparisonSettings, compare_all
from phosphene.comparison.page import make_pictures
from phosphene.comparison.result import NetworkComparison
from phosphene.draw.grid import tile
from phosphene.judges.panel import open_judge
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Channel

NETWORKS = {
    "lite0": "efficientnet_lite0",
    "lite1": "efficientnet_lite1",
    "lite2": "efficientnet_lite2",
    "SqueezeNet": SQUEEZENET,
    "MobileNetV1": MOBILENET,
    "ViT (DINOv2)": f"{SHARED}/weights/dinov2_small_saliency",
}
UNTRAINED = "lite0, untrained"
AGAINST_UNTRAINED = ("lite0", "SqueezeNet", "ViT (DINOv2)")
Key = tuple[str, str]
Part = dict[str, slice]


def untrained(like: Network, photographs: Path, seed: int) -> Network:
    """Lite0 before training, its normalizations fed with photographs."""
    torch.manual_seed(seed)
    module = timm.create_model("efficientnet_lite0", pretrained=False)
    for each in module.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.momentum = None  # the mean of all batches
    module.train()
    network = like.replace(module=module, name=UNTRAINED)
    with torch.no_grad():
        for place, (_, pixels) in enumerate(PhotoSet.of(photographs).batches(network.preprocessing)):
            if place < 3:
                module(network.preprocessing(pixels))
    module.eval()
    return network


def thirds(count: int) -> Part:
    """The early, middle and late layers of so many."""
    first, second = round(count / 3), round(2 * count / 3)
    return {"early": slice(0, first), "middle": slice(first, second), "late": slice(second, count)}


def row(found: NetworkComparison) -> dict[str, Any]:
    """The numbers of a pair: means over the early, the middle and the late layers of its first network."""
    best = np.array([cka for _, _, cka in found.best_layers()])
    halves = np.nanmax(found.similarity.halves, 2)
    units = [each.summary() for each in found.matches]
    told: dict[str, Any] = {
        "cka_chance_highest": float(found.similarity.chance_highest.max()),
        "cka_between_halves": float(np.abs(halves[0] - halves[1]).mean()),
    }
    for part, places in thirds(len(best)).items():
        told[f"cka_{part}"] = float(best[places].mean())
        for key in ("correlation", "correlation_held_out", "correlation_chance", "friends", "mutual", "mutual_chance",
                    "r2_by_one", "r2_by_few"):  # fmt: skip
            told[f"{key}_{part}"] = float(np.nanmean([each[key] for each in units[places]]))
    return told


def draw_heats(compared: Mapping[Key, NetworkComparison], names: Sequence[str], path: Path) -> None:
    """A heat map for each pair, below the diagonal, on which each network is with itself."""
    figure = Figure(figsize=(12, 12), layout="constrained")
    axes = figure.subplots(len(names), len(names))
    for each in axes.flat:
        each.set_axis_off()
    for (first, second), found in compared.items():
        if first not in names or second not in names:
            continue
        left, below = names.index(first), names.index(second)
        for row, column, values in (
            (below, left, found.similarity.cka.T),
            (left, left, found.within[0].cka),
            (below, below, found.within[1].cka),
        ):
            axis = axes[row, column]
            axis.set_axis_on()
            shown = axis.imshow(values, origin="lower", vmin=0, vmax=1, cmap="magma", aspect="auto")
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(names[row])
            if row == len(names) - 1:
                axis.set_xlabel(names[column])
    figure.colorbar(shown, ax=axes, label="debiased linear CKA", shrink=0.5)
    figure.suptitle("Layers from the first (left, below) to the last (right, above)")
    figure.savefig(path, dpi=80)


def chains(compared: Mapping[Key, NetworkComparison], names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """For the early, middle and late layers of the first network its units that have friends in other networks, by the
    mean correlation with these, the highest first; a network without a friend counts as 0."""
    friends: dict[tuple[str, int], dict[str, tuple[str, int, float]]] = {}
    for other in names[1:]:
        for match in compared[names[0], other].matches:
            values = {tuple(pair): value for pair, value in
                      zip(match.units.pairs.tolist(), match.units.correlations.tolist(), strict=True)}  # fmt: skip
            for a, b in match.units.friends.tolist():
                if (a, b) in values:
                    friends.setdefault((match.a, a), {})[other] = (match.b, b, values[a, b])
    layers = list(compared[names[0], names[1]].a.layers)
    found = {}
    for part, places in thirds(len(layers)).items():
        mine = [
            {"unit": unit, "friends": known, "mean": sum(value for _, _, value in known.values()) / len(names[1:])}
            for unit, known in friends.items()
            if unit[0] in layers[places]
        ]
        found[part] = sorted(mine, key=lambda each: -each["mean"])
    return found


def draw_chains(
    found: Mapping[str, list[dict[str, Any]]], networks: Mapping[str, Network], steps: int, count: int, path: Path
) -> None:
    """Pictures of the first chains of each part, a row each."""
    names = list(NETWORKS)
    shown = [each for part in found.values() for each in part[:count]]
    units: dict[str, list[Channel | None]] = {names[0]: [Channel(*each["unit"]) for each in shown]}
    for name in names[1:]:
        known = [each["friends"].get(name) for each in shown]
        units[name] = [None if each is None else Channel(each[0], each[1]) for each in known]
    recipe = Recipe.load("draft").override({"steps": steps})
    columns = {}
    for name, wanted in units.items():
        made, _ = make_pictures(networks[name], [each for each in wanted if each is not None], recipe)
        small = {unit: picture.image().convert("RGB").resize((160, 160)) for unit, picture in made.items()}
        white = Image.new("RGB", (160, 160), "white")
        columns[name] = [white if each is None else small[each.layer, each.channel] for each in wanted]
    images, captions = [], []
    for place, each in enumerate(shown):
        for name in names:
            value = each["friends"].get(name)
            images.append(columns[name][place])
            captions.append(f"{name} {each['unit'][1]}" if name == names[0] else
                            f"{name} {value[2]:.2f}" if value else "")  # fmt: skip
    tile(images, captions, columns=len(names)).save(path, quality=85)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=SHARED / "images")
    parser.add_argument("--limit", type=int, default=None, help="of more photographs so many")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=96, help="of a picture; 0: no pictures")
    parser.add_argument("--chains", type=int, default=2, help="of early, middle and late layers, that are shown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("compare-study"))
    parser.add_argument("--draw", action="store_true", help="only make the pictures, of OUT/study.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    networks = {name: open_judge(source) for name, source in NETWORKS.items()}
    if args.draw:
        known = json.loads((args.out / "study.json").read_text(encoding="utf-8"))["chains"]
        draw_chains(known, networks, args.steps, args.chains, args.out / "chains.jpg")
        return 0
    networks[UNTRAINED] = untrained(networks["lite0"], args.photographs, args.seed)
    names = list(networks)
    pairs = list(combinations(range(len(NETWORKS)), 2))
    pairs += [(names.index(name), names.index(UNTRAINED)) for name in AGAINST_UNTRAINED]
    begun = time.perf_counter()
    told = compare_all(
        list(networks.values()), args.photographs, pairs=pairs,
        settings=ComparisonSettings(count=args.layers, limit=args.limit, seed=args.seed),
        on_progress=lambda done, total: print(f"\r{done}/{total}", end="", flush=True),
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    compared = {(names[first], names[second]): found for (first, second), found in told.items()}
    for (first, second), found in compared.items():
        found.save(args.out / f"{first} {second}".replace(", ", "-").replace(" ", "_"))
    draw_heats(compared, list(NETWORKS), args.out / "cka.png")
    known = chains(compared, list(NETWORKS))
    rows = [{"a": first, "b": second, **row(found)} for (first, second), found in compared.items()]
    shared = {part: found[:20] for part, found in known.items()}
    everywhere = {part: sum(len(each["friends"]) == len(NETWORKS) - 1 for each in found)
                  for part, found in known.items()}  # fmt: skip
    data = {"seconds": round(seconds), "rows": rows, "in_all": everywhere, "chains": shared}
    (args.out / "study.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    print_rows(rows)
    print(everywhere, f"{seconds:.0f} s")
    if args.steps:
        draw_chains(known, networks, args.steps, args.chains, args.out / "chains.jpg")
    return 0


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of docs/compare.md."""
    print("\n| A, B | CKA early | middle | late | best friends | correlation early | middle | late |")
    print("|---|---|---|---|---|---|---|---|")
    for each in rows:
        parts = list(thirds(3))
        friends, chance = (np.mean([each[f"{key}_{part}"] for part in parts]) for key in ("mutual", "mutual_chance"))
        cells = [f"{each[f'cka_{part}']:.2f}" for part in parts] + [f"{friends:.0%} ({chance:.0%})"]
        cells += [f"{each[f'correlation_{part}']:.2f} ({each[f'correlation_chance_{part}']:.2f})" for part in parts]
        print(f"| {each['a']}, {each['b']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    raise SystemExit(main())
