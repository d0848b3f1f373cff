"""A dictionary trained here, its latents' pictures, and whether they explain more than those of the layer's neurons.

    python bench/dictionary.py
    python bench/dictionary.py --networks efficientnet_lite0 --method draft --units 24

A sparse autoencoder with a TopK (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3) is trained
on the vectors that photographs give at one layer: the patch tokens of a vision transformer, or the positions of a
convolutional network's last map.  It is written as plain safetensors, opened again, and of its latents that are live
(on in at least 2 of the photographs) some are drawn with a seed; of the layer's channels as many.  All get pictures by
the same recipe.

The table says how many are more active on their picture than on all but 1 % of the photographs, both averaged over
positions, and the explanation score by two judges (see units.py; 0.5 by chance).  In brackets is the standard error
over units.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from units import SHARED, SQUEEZENET, TUNED_BY, parse_method

import phosphene
from phosphene.draw.grid import tile
from phosphene.judges.explanation import explanation_scores, make_trials
from phosphene.judges.hidden_units import photograph_scores
from phosphene.judges.panel import open_judge
from phosphene.judges.perception import FeatureSpace, of_network
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches
from phosphene.units.objects import Channel, Unit
from phosphene.units.spelling import parse_unit

CPU = torch.device("cpu")
VECTORS = 512  # in a batch


@dataclass(frozen=True)
class Setting:
    """What is trained on, and how.

    Attributes:
        network: as `phosphene.open` takes it.
        layer: whose vectors.
        size: of the pictures, in pixels.
        latents, k: of the dictionary.
        views: random crops of each photograph.
        steps: of the training, of `VECTORS` vectors each.
    """

    network: str
    layer: str
    size: int
    latents: int
    k: int
    views: int
    steps: int


SETTINGS = {
    "dinov2_small_saliency": Setting(f"{SHARED}/weights/dinov2_small_saliency", "encoder.layer.8", 112, 384, 8, 1, 800),
    "efficientnet_lite0": Setting("efficientnet_lite0", "bn2.act", 224, 128, 8, 8, 3000),
}


@dataclass(frozen=True, eq=False)
class Gathered:
    """A layer's vectors.

    Attributes:
        whole: of the photographs as the network is shown them, (photographs, positions, channels), in 16 bits.
        crops: at all positions of random crops of them, mirrored at random, (vectors, channels), in 16 bits.
    """

    whole: Tensor
    crops: Tensor


def gather(network: Network, setting: Setting, photographs: PhotoSet, seed: int) -> Gathered:
    """All that is needed of the photographs, in one go; of tokens the patches alone."""
    generator = torch.Generator().manual_seed(seed)
    size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
    layout = network.layer(setting.layer).tokens
    found: list[Tensor] = []

    def keep(activation: Tensor) -> None:
        flat = activation.flatten(2).movedim(1, -1)  # (rows, positions, channels)
        found.append(flat[:, layout.prefix if layout else 0 :].half())

    parts: list[list[Tensor]] = [[], []]
    with network.borrowed(CPU), torch.no_grad():
        for _, _, pixels in decode_batches(photographs.paths, network.preprocessing, 16):
            views = [torch.cat([crop(row, size, generator) for row in pixels]) for _ in range(setting.views)]
            for kind, images in zip([0, *[1] * setting.views], [pixels, *views], strict=True):
                network.read(images, {setting.layer: keep})
                parts[kind].append(found.pop())
    return Gathered(torch.cat(parts[0]), torch.cat(parts[1]).flatten(0, 1))


def crop(pixels: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    share, top, left, flip = torch.rand(4, generator=generator).tolist()
    height, width = (round(side * (0.5 + 0.5 * share)) for side in pixels.shape[1:])
    y, x = round(top * (pixels.shape[1] - height)), round(left * (pixels.shape[2] - width))
    part = torch.nn.functional.interpolate(pixels[None, :, y : y + height, x : x + width], size, mode="bilinear")
    return part.flip(-1) if flip < 0.5 else part


def train(data: Tensor, latents: int, k: int, steps: int, seed: int) -> phosphene.Dictionary:
    """A TopK autoencoder of standardized channels; dead latents begin anew at large residuals.

    Each latent's encoder is its decoder: apart, encoders of so few vectors learn directions that only these have, and
    pictures climb those.
    """
    generator = torch.Generator().manual_seed(seed)
    some = data[torch.randperm(len(data), generator=generator)[:20_000]].float()
    mean, spread = some.mean(0), some.std(0)
    spread = spread.clamp_min(0.3 * spread.median())  # channels that are nearly always off tell little
    first = (data[torch.randperm(len(data), generator=generator)[:latents]].float() - mean) / spread
    atoms = (first / first.norm(dim=1, keepdim=True)).requires_grad_()
    bias = torch.zeros(latents, requires_grad=True)
    optimizer = torch.optim.Adam([atoms, bias], 1e-3, betas=(0.9, 0.99))
    fired = torch.zeros(latents)
    for step in range(steps):
        batch = data[torch.randint(len(data), (VECTORS,), generator=generator)].float().sub(mean).div(spread)
        best = torch.addmm(bias, batch, atoms.T).topk(k, dim=-1)
        values = best.values.relu()
        residual = batch - torch.nn.functional.embedding_bag(best.indices, atoms, per_sample_weights=values, mode="sum")
        loss = residual.square().sum(1).mean() / batch.square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, 5 * (1 - step / steps))
        optimizer.step()
        with torch.no_grad():
            atoms /= atoms.norm(dim=1, keepdim=True)
            fired += torch.bincount(best.indices[values > 0], minlength=latents)
            if step % 100 == 99:
                if step < 0.75 * steps:
                    dead = torch.nonzero(fired == 0)[:, 0]
                    worst = residual[residual.norm(dim=1).argsort(descending=True)[: len(dead)]]
                    dead = dead[: len(worst)]
                    atoms[dead], bias[dead] = worst / worst.norm(dim=1, keepdim=True), 0.0
                print(f"  step {step + 1}: unexplained {loss:.3f}, dead {int((fired == 0).sum())}", flush=True)
                fired.zero_()
    atoms, bias = atoms.detach(), bias.detach()
    encoder = atoms / spread
    return phosphene.Dictionary(encoder, bias - encoder @ mean, atoms * spread, mean, "topk", k=k)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Units that were drawn, and what photographs say of them.

    Attributes:
        units: with trials.
        values: on the photographs, (photographs, units).
    """

    units: list[Unit]
    values: Tensor


def draw(units: Sequence[Unit], values: Tensor, count: int) -> Drawn:
    """The first so many units that photographs tell enough about."""
    asked = [place for place in range(len(units)) if make_trials(values[:, place]) is not None][:count]
    return Drawn([units[place] for place in asked], values[:, asked])


def pictures(network: Network, drawn: Drawn, method: str, size: int, folder: Path) -> tuple[list[Image.Image], Tensor]:
    """A picture of each unit, and how active the unit is on it: made where they are not there."""
    recipe, _ = parse_method(method)
    recipe = recipe.override({"size": [size, size]} if recipe.size is None else {})
    folder.mkdir(parents=True, exist_ok=True)
    options = phosphene.RunOptions(device="cpu", precision="fp32")
    kept = folder / "active.pt"
    if not kept.exists():
        made = phosphene.ascend(network, drawn.units, recipe, seed=0, options=options)
        for picture in made:
            picture.image().convert("RGB").save(folder / f"{drawn.units.index(picture.unit):03d}.png")
        by_unit = {picture.unit: picture.scores.get("latent", picture.scores["objective"]) for picture in made}
        torch.save(torch.tensor([by_unit[unit] for unit in drawn.units]), kept)
    images = [Image.open(folder / f"{place:03d}.png").convert("RGB") for place in range(len(drawn.units))]
    return images, torch.load(kept)


def row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def score_cells(spaces: Sequence[FeatureSpace], drawn: Drawn, images: Sequence[Image.Image]) -> list[str]:
    """The explanation score of pictures, and of each unit's best photograph, by each judge."""
    trials, cells = [make_trials(column) for column in drawn.values.T], []
    for space in spaces:
        placed = space.place(list(images), CPU)
        likeness = [space.likeness(depth, each) for depth, each in enumerate(placed)]
        for scores in (explanation_scores(likeness, trials, space.judge.depths), photograph_scores(space, trials, 1)):
            values = [each.value for each in scores if each is not None]
            cells.append(f"{np.mean(values):.3f} ({np.std(values) / len(values) ** 0.5:.3f})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--method", default="draft:steps=48", help="a recipe, with fields: draft:steps=48")
    parser.add_argument("--units", type=int, default=12, help="latents, and channels, of each network")
    parser.add_argument("--photographs", type=Path, default=SHARED / "images")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--out", type=Path, default=Path("phosphene-out/dictionary"))
    args = parser.parse_args()
    photographs = PhotoSet.of(args.photographs)
    spaces = [FeatureSpace.of(of_network(open_judge(name)), photographs, CPU) for name in (TUNED_BY, SQUEEZENET)]
    for name in args.networks:
        began = time.perf_counter()
        compare(name, args, photographs, spaces)
        print(f"\n{name}: {time.perf_counter() - began:.0f} s in all", flush=True)


def compare(name: str, args: argparse.Namespace, photographs: PhotoSet, spaces: Sequence[FeatureSpace]) -> None:
    """Train a network's dictionary where it is not there, and print what pictures of its latents and channels tell."""
    setting, network, folder = SETTINGS[name], phosphene.open(SETTINGS[name].network), args.out / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "vectors.pt").exists():
        torch.save(vars(gather(network, setting, photographs, args.seed)), folder / "vectors.pt")
    gathered = Gathered(**torch.load(folder / "vectors.pt"))
    print(f"{name}: {len(gathered.crops):,} vectors of {setting.layer}", flush=True)
    path = folder / "sae.safetensors"
    if not path.exists():
        data = torch.cat([gathered.crops, gathered.whole.flatten(0, 1)])
        trained = train(data, setting.latents, setting.k, setting.steps, args.seed)
        tokens = "patches" if network.layer(setting.layer).tokens else ""
        replace(trained, layer=setting.layer, tokens=tokens).save(path)
    dictionary = phosphene.open_dictionary(path)
    codes = torch.stack([dictionary.encode(image.float()) for image in gathered.whole])  # (…, positions, latents)
    fired = (codes > 0).any(1).sum(0)
    live = torch.nonzero(fired >= 2)[:, 0]
    random = np.random.default_rng(args.seed)
    latents = [int(live[place]) for place in random.permutation(len(live))]
    channels = np.random.default_rng([args.seed, 1]).permutation(dictionary.width).tolist()
    means = {"latents": codes.mean(1)[:, latents], "channels": gathered.whole.float().mean(1)[:, channels]}
    units = {
        "latents": [phosphene.Latent(dictionary, index) for index in latents],
        "channels": [Channel(setting.layer, index, "mean") for index in channels],
    }
    print(f"\n{name}, {setting.layer}: {len(live)} of {dictionary.latents} latents live, {args.method}\n")
    judged = [f"{space.judge.name}{what}" for space in spaces for what in ("", ", best photograph")]
    print(row("", ["drawn", "above their 99th percentile", *judged]) + "\n|" + "---|" * (len(judged) + 3))
    for kind, candidates in units.items():
        drawn = draw([parse_unit(unit, network) for unit in candidates[: 4 * args.units]], means[kind], args.units)
        images, active = pictures(network, drawn, args.method, setting.size, folder / args.method / kind)
        above = (active > drawn.values.quantile(0.99, dim=0)).float().mean()
        cells = [str(len(drawn.units)), f"{above:.0%}", *score_cells(spaces, drawn, images)]
        print(row(kind, cells), flush=True)
        tile([image.resize((112, 112)) for image in images], [""] * len(images), 6).save(folder / f"{kind}.png")


if __name__ == "__main__":
    main()
