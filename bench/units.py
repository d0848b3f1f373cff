"""Pictures of hidden units, and whether they explain them: recipes, other libraries and photographs in one table.

    python bench/units.py --networks efficientnet_lite0 --methods draft draft:facets=4
    python bench/units.py --set tuning --channels 12 --methods draft draft:canvas.contrast=3.2

Channels are drawn with a seed from an early, a middle, a late and the last layer of each network; those of the tuning
set are of other layers.  A method is a recipe, a recipe with fields (`draft:steps=64,canvas.exponent=1`), the same with
`facets=N`, whose N pictures are one explanation, or a library at its defaults or at a budget of passes
(`lucent@default`, `lucent@128`, `horama@128`), from an environment of its own (see quality.py).

The number is the explanation score by two judges, of which the second took no part in any tuning: how often the one of
two photographs that is more like the picture is the one that excites the unit more (0.5 by chance).  Rows of
photographs show what that means: the one that excites the unit most, and the nine.  Below each method is how far it is
above the nine, channel by channel.  In brackets is the standard error over channels.

Images are kept in OUT/SET/NETWORK/METHOD and made once, four channels of every layer at a time, so that a run that was
stopped has about as many of each layer: `--channels` of that number scores them.  OUT/SET/NETWORK/METHOD.png shows
them, a row a layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from peers import PEERS, Job, steps_for
from PIL import Image
from quality import install, run_peer

import phosphene
from phosphene.ascent.stopping import INTERRUPTED
from phosphene.draw.grid import tile
from phosphene.interruption import require_complete
from phosphene.judges.explanation import Trials, explanation_scores, make_trials
from phosphene.judges.hidden_units import photograph_scores
from phosphene.judges.panel import open_judge
from phosphene.judges.perception import FeatureSpace, of_network
from phosphene.judges.photo_responses import respond_to_photographs
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Channel
from phosphene.units.spelling import parse_unit

SHARED = Path("../shared")
MOBILENET = f"{SHARED}/weights/mobilenet_v1.onnx@tf"
SQUEEZENET = f"{SHARED}/weights/squeezenet_v1.1.prototxt={SHARED}/weights/squeezenet_v1.1.caffemodel"
LITE2 = "efficientnet_lite2"
_AT_ONCE = 16  # units of a call: each reads the photographs once
TUNED_BY = MOBILENET  # took part in tuning; the other judge of each network did not


@dataclass(frozen=True)
class Subject:
    """A network whose channels are shown.

    Attributes:
        opens: as `phosphene.open` is called.
        size: of the images, in pixels; None: the network's own.
        reported, tuning: layers from the eye on.
        judge: the one that took no part in tuning.
    """

    opens: dict[str, object]
    size: int | None
    reported: tuple[str, ...]
    tuning: tuple[str, ...]
    judge: str


def _partial(name: str) -> dict[str, object]:
    return {
        "network": f"torchvision:{name}",
        "weights": f"{SHARED}/weights/{name}_features.safetensors",
        "partial": True,
    }


SUBJECTS = {
    "efficientnet_lite0": Subject(
        {"network": "efficientnet_lite0"}, None,
        ("blocks.2.1.bn2.act", "blocks.3.2.bn2.act", "blocks.5.3.bn2.act", "bn2.act"),
        ("blocks.1.1.bn2.act", "blocks.4.1.bn2.act", "blocks.5.1.bn2.act", "blocks.6.0.bn2.act"), SQUEEZENET,
    ),
    "squeezenet": Subject(
        dict(zip(("network", "weights"), SQUEEZENET.split("="), strict=True)),
        None,
        ("fire3/relu_expand3x3", "fire5/relu_expand3x3", "fire8/relu_expand3x3", "fire9/relu_expand3x3"),
        ("fire2/relu_expand3x3", "fire4/relu_expand3x3", "fire6/relu_expand3x3", "fire7/relu_expand3x3"), LITE2,
    ),
    "alexnet": Subject(
        _partial("alexnet"), 160, ("features.1", "features.4", "features.7", "features.11"),
        ("features.9",), SQUEEZENET,
    ),
    "vgg16": Subject(
        _partial("vgg16"), 112, ("features.8", "features.15", "features.22", "features.29"),
        ("features.6", "features.13", "features.20", "features.27"), SQUEEZENET,
    ),
    "vit": Subject(
        {"network": f"{SHARED}/weights/dinov2_small_saliency"}, None,
        tuple(f"encoder.layer.{block}.mlp.activation_fn" for block in (2, 5, 8, 11)),
        tuple(f"encoder.layer.{block}.mlp.activation_fn" for block in (1, 4, 7, 10)), SQUEEZENET,
    ),
}  # fmt: skip


def draw_channels(network: Network, layer: str, count: int, seed: int) -> list[int]:
    """So many channels of a layer, drawn with a seed; the first of them are the same for every count."""
    drawn = np.random.default_rng([seed, *layer.encode()]).permutation(network.layer(layer).channels)
    return [int(index) for index in drawn[:count]]


def parse_method(text: str) -> tuple[Recipe, int]:
    """A recipe, and how many facets."""
    name, _, fields = text.partition(":")
    given = dict(field.split("=", 1) for field in fields.split(",") if field)
    facets = int(given.pop("facets", 1))
    return Recipe.load(name).override({key: _value(value) for key, value in given.items()}), facets


def _value(text: str) -> object:
    try:
        return json.loads(text.replace(";", ","))
    except ValueError:
        return text


def make_by_peer(
    network: Network, opened: dict[str, object], units: Sequence[str], method: str, folder: Path, peers: Path
) -> dict[str, list[Image.Image]]:
    """The pictures of each unit by a library, made where they are not there."""
    name, budget = method.split("@")
    peer, pictures = PEERS[name], {}
    source = {key: _absolute(value) for key, value in opened.items()}
    for layer in dict.fromkeys(unit.rpartition(":")[0] for unit in units):
        channels = [int(unit.rpartition(":")[2]) for unit in units if unit.rpartition(":")[0] == layer]
        place = folder / layer.replace("/", "_")
        missing = [channel for channel in channels if not (place / f"{channel:03d}.png").exists()]
        if missing:
            size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
            job = Job(
                peer=name, steps=steps_for(peer, budget, size), network=source, size=size,
                fixed=network.preprocessing.fixed_size, classes=missing, batch=8, seed=0,
                threads=torch.get_num_threads(), folder=str(place.resolve()), settings="", layer=layer,
            )  # fmt: skip
            environment = (peers / peer.environment).resolve()
            install(environment, peer.environment)
            run_peer(environment, job)
        pictures |= {f"{layer}:{c}": [Image.open(place / f"{c:03d}.png").convert("RGB")] for c in channels}
    return pictures


def _absolute(value: object) -> object:
    return str(Path(value).resolve()) if isinstance(value, str) and Path(value).exists() else value


def make(
    network: Network,
    units: Sequence[str],
    method: str,
    size: int | None,
    folder: Path,
    seed: int,
    precision: str = "fp32",
) -> dict[str, list[Image.Image]]:
    """The pictures of each unit by a method, made where they are not there."""
    recipe, facets = parse_method(method)
    recipe = recipe.override({"size": size} if size and recipe.size is None else {})
    folder.mkdir(parents=True, exist_ok=True)
    names = {unit: [folder / f"{unit.replace('/', '_')}_{facet}.png" for facet in range(facets)] for unit in units}
    missing = [unit for unit in units if not all(path.exists() for path in names[unit])]

    def keep(picture: phosphene.Picture) -> None:
        if picture.stopped != INTERRUPTED:
            picture.image().convert("RGB").save(names[str(picture.unit)][picture.facet[0]])

    batch = facets if facets > 4 else 8  # more at once are slower here
    options = phosphene.RunOptions(device="cpu", precision=precision, batch=batch)
    callbacks = phosphene.Callbacks(picture=keep)
    for start in range(0, len(missing), _AT_ONCE):  # the layers nearest to the eye come first in each call
        some = missing[start : start + _AT_ONCE]
        require_complete(
            phosphene.ascend(network, some, recipe, seed=seed, facets=facets, options=options, callbacks=callbacks)
        )
    return {unit: [Image.open(path).convert("RGB") for path in names[unit]] for unit in units}


@dataclass(frozen=True)
class Asked:
    """What photographs say of a network's units, by layer: the units and their trials."""

    units: dict[str, list[str]]
    trials: dict[str, list[Trials | None]]


def ask(network: Network, layers: Sequence[str], count: int, photographs: PhotoSet, seed: int) -> Asked:
    units, trials = {}, {}
    channels = {layer: draw_channels(network, layer, 3 * count, seed) for layer in layers}
    flat = [parse_unit(Channel(layer, index), network) for layer in layers for index in channels[layer]]
    with network.borrowed("cpu"), torch.no_grad():
        found = respond_to_photographs(network, flat, photographs, torch.device("cpu"))
    for layer in layers:  # channels that photographs leave silent have no trials: the next drawn stands in
        of_layer = [unit for unit in flat if unit.terms()[0][1].layer == layer]
        pairs = [(str(unit), make_trials(found.values(unit))) for unit in of_layer]
        pairs = [pair for pair in pairs if pair[1] is not None][:count]
        units[layer], trials[layer] = [name for name, _ in pairs], [each for _, each in pairs]
    return Asked(units, trials)


def score(
    space: FeatureSpace, asked: Asked, pictures: dict[str, list[Image.Image]], layers: Sequence[str]
) -> dict[str, list[float]]:
    """By layer, the score of each unit's pictures together."""
    found = {}
    for layer in layers:
        units = asked.units[layer]
        placed = space.place([image for unit in units for image in pictures[unit]], torch.device("cpu"))
        count = len(pictures[units[0]])
        likeness = [
            space.likeness(depth, each).reshape(len(units), count, -1).mean(1) for depth, each in enumerate(placed)
        ]
        scores = explanation_scores(likeness, asked.trials[layer], space.judge.depths)
        found[layer] = [each.value for each in scores if each is not None]
    return found


def photographs_rows(space: FeatureSpace, asked: Asked, layers: Sequence[str], count: int) -> dict[str, list[float]]:
    return {
        layer: [each.value for each in photograph_scores(space, asked.trials[layer], count) if each is not None]
        for layer in layers
    }


def row(label: str, judge: str, found: dict[str, list[float]]) -> str:
    cells = [f"{np.mean(each):.3f} ({np.std(each) / len(each) ** 0.5:.3f})" for each in found.values()]
    return (
        f"| {label} | {judge} | "
        + " | ".join([*cells, f"{np.mean([np.mean(each) for each in found.values()]):.3f}"])
        + " |"
    )


def differences(found: dict[str, list[float]], others: dict[str, list[float]]) -> dict[str, list[float]]:
    return {layer: [a - b for a, b in zip(found[layer], others[layer], strict=True)] for layer in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0"], choices=list(SUBJECTS))
    parser.add_argument("--methods", nargs="*", default=["filters", "draft"])
    parser.add_argument("--set", choices=("reported", "tuning"), default="reported")
    parser.add_argument("--channels", type=int, default=24, help="of each layer")
    parser.add_argument("--layers", nargs="+", help="some of the set's")
    parser.add_argument("--photographs", type=Path, default=SHARED / "images")
    parser.add_argument("--seed", type=int, default=28, help="of the channels; images have seed 0")
    parser.add_argument("--precision", default="fp32", help="of the passes: fp32 or bf16")
    parser.add_argument("--out", type=Path, default=Path("units"))
    parser.add_argument("--peers", type=Path, default=Path("phosphene-out/peers"), help="environments of libraries")
    args = parser.parse_args()
    photographs = PhotoSet.of(args.photographs)
    for name in args.networks:
        subject = SUBJECTS[name]
        arguments = dict(subject.opens)
        network = phosphene.open(arguments.pop("network"), **arguments)  # type: ignore[arg-type]
        layers = args.layers or (subject.reported if args.set == "reported" else subject.tuning)
        judges = [TUNED_BY] if args.set == "tuning" else [TUNED_BY, subject.judge]
        spaces = [FeatureSpace.of(of_network(open_judge(judge)), photographs, torch.device("cpu")) for judge in judges]
        asked = ask(network, layers, args.channels, photographs, args.seed if args.set == "reported" else args.seed + 1)
        print(f"\n{name}, {len(photographs.paths)} photographs, {args.set} channels\n")
        print("| | judge | " + " | ".join(layers) + " | mean |\n|---|---|" + "---|" * (len(layers) + 1))
        for space in spaces:
            found = photographs_rows(space, asked, layers, 1)
            print(row("the best photograph", space.judge.name, found), flush=True)
        nine = [photographs_rows(space, asked, layers, 9) for space in spaces]
        for space, found in zip(spaces, nine, strict=True):
            print(row("the nine best", space.judge.name, found), flush=True)
        for method in args.methods:
            folder = args.out / args.set / name / method.replace("/", "_")
            units = [unit for rank in zip_longest(*asked.units.values()) for unit in rank if unit]
            if "@" in method:
                sized = network.with_input_size((subject.size, subject.size)) if subject.size else network
                pictures = make_by_peer(sized, subject.opens, units, method, folder, args.peers)
            else:
                pictures = make(network, units, method, subject.size, folder, 0, args.precision)
            scores = [score(space, asked, pictures, layers) for space in spaces]
            for space, found in zip(spaces, scores, strict=True):
                print(row(method, space.judge.name, found), flush=True)
            for space, found, photographed in zip(spaces, scores, nine, strict=True):
                print(row("… less the nine best", space.judge.name, differences(found, photographed)), flush=True)
            by_layer = [unit for layer in layers for unit in asked.units[layer]]
            shown = [image.resize((96, 96)) for unit in by_layer for image in pictures[unit][:1]]
            tile(shown, [""] * len(shown), len(asked.units[layers[0]])).save(folder.with_name(f"{folder.name}.png"))


if __name__ == "__main__":
    main()
