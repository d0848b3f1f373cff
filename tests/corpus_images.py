"""A corpus of small images that keeps what the package draws from changing unseen: `python tests/corpus_images.py`.

It is made through the public names alone, so that modules may move and names inside may change under it.  Of every
image `corpus/images.json` has a checksum of the pixels, and the metadata, both read back from the PNG as saved.  For
another kind of machine, where the last bits of arithmetic differ, it has a thumbnail too, and how far that one is from
those made here with other instructions ("spread").
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import tiny
import torch
import torch.nn.functional as F
from helpers import seeded
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene import (
    Callbacks,
    Channel,
    Class,
    Direction,
    Network,
    Neuron,
    Picture,
    Preprocessing,
    Recipe,
    RunOptions,
    Sum,
    Unit,
    WholeLayer,
)

FILE = Path(__file__).with_name("corpus") / "images.json"
LATER = {"explain", "ghiasi", "text", "vital"}  # recipes that there were not when the corpus was recorded
_SHIPPED = (Path(phosphene.__file__).parent / "recipes" / "shipped").glob("*.toml")
RECIPES = sorted(path.stem for path in _SHIPPED if path.stem not in LATER)
THREADS = 2
STEPS = 8
SIZE = 24  # of the small networks' images
LARGE = 64  # of EfficientNet-lite0's
THUMBNAIL = 8
# The arithmetic of a pass depends on how many images are in it, and so on nothing that a machine's memory decides.
SEED = 11
RUN = RunOptions(device="cpu", batch=4, precision="fp32")
WEIGHTS = (0.5, -1.0, 0.25, 0.0, 1.0, -0.5, 0.75, 0.125, 0.5, -1.0, 0.25, 0.5)  # of a direction in twelve channels

Record = dict[str, Any]
Batch = tuple[str, Sequence[Picture]]


# Networks


class Residual(nn.Module):
    """Depthwise and pointwise convolutions about a residual, SiLU, and batch normalisations that have seen noise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.act = nn.SiLU()
        self.pointwise = nn.Conv2d(12, 12, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 5)
        for norm in (self.stem_norm, self.norm, self.last_norm):
            nn.init.normal_(norm.weight, 1, 0.4)
            nn.init.normal_(norm.bias, 0, 0.3)
        for _ in range(30):
            self(torch.randn(4, 3, SIZE, SIZE))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu6(self.stem_norm(self.stem(images)))
        maps = maps + self.last_norm(self.pointwise(self.act(self.norm(self.depthwise(maps)))))
        return self.head(maps.mean((2, 3)))


def stacked() -> nn.Module:
    """As VGG is built: convolutions, max-pooling, a classifier with a weight for each position; no normalization."""
    sides = SIZE // 4
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12 * sides * sides, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 5),
    ).eval()  # fmt: skip


def opened(module: nn.Module, name: str, **fed: Any) -> Network:
    given = {"size": SIZE, "mean": 0.5, "std": 0.25} | fed
    return phosphene.open(module, Preprocessing(**given), tiny.LABELS, name=name)


def caffe_like(name: str = "stacked") -> Network:
    """Fed with blue first, in 0 to 255 less a mean."""
    fed = {"mean": (104.0, 117.0, 123.0), "std": 60.0, "value_range": (0, 255), "channel_order": "BGR"}
    return opened(seeded(stacked), name, fixed_size=True, **fed)


def grey() -> Network:
    """Fed with one channel, in 0 to 255."""
    fed = {"channels": 1, "mean": 128.0, "std": 64.0, "value_range": (0, 255)}
    return opened(seeded(tiny.Normed, 1), "grey", **fed)


class Shown(NamedTuple):
    """A network and what is shown of it.

    Attributes:
        early, late: layers.
    """

    network: Network
    early: str
    late: str

    @property
    def channels(self) -> int:
        return self.network.layer(self.late).channels


def small_networks() -> dict[str, Shown]:
    return {
        "normed": Shown(tiny.normed(), "relu1", "bn2"),
        "residual": Shown(opened(seeded(Residual), "residual"), "depthwise", "last_norm"),
        "stacked": Shown(caffe_like(), "0", "4"),
        "transformer": Shown(tiny.vit(SIZE), "blocks.0", "blocks.1"),
        "grey": Shown(grey(), "relu1", "bn2"),
    }


def photograph(size: int, channels: int = 3) -> np.ndarray:
    """No photograph: a bright disc on slanted stripes, of whole numbers alone; (height, width, channels)."""
    down, across = np.mgrid[:size, :size]
    stripes = (7 * down + 5 * across) % 97 + 40
    disc = (down * 3 - size) ** 2 + (across * 2 - size) ** 2 < size * size // 3
    planes = [np.where(disc, 230 - 60 * channel, stripes + 30 * channel) for channel in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


# Images


def recipe(name: str, fields: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe that ships, in few steps, with fields changed by their dotted names.

    It is without its section for transformers, which there was not when the corpus was recorded.
    """
    shipped = Recipe.load(name)
    sections = {section: found for section, found in shipped.networks.items() if section != "tokens"}
    return changed(shipped.model_copy(update={"networks": sections}), {"steps": STEPS} | dict(fields or {}))


def changed(recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
    return recipe.override(fields)


def ascended(
    network: Any, units: Any, recipe: Any, batch: int = 4, photograph: Any = None, on_step: Any = None, **more: Any
) -> Sequence[Picture]:
    """The images, made by the options of all; units of tokens are read from all of them, as when it was recorded."""
    if isinstance(network, Network):
        given = [units] if isinstance(units, str | Unit) else units
        units = [phosphene.parse_unit(unit, network, recorded=True) for unit in given]
    if photograph is not None:
        units = [unit.with_photograph(photograph) for unit in units]
    options, callbacks = replace(RUN, batch=batch), Callbacks(step=on_step)
    result = phosphene.ascend(network, units, recipe, options=options, callbacks=callbacks, **{"seed": SEED} | more)
    return list(result)


def best_of(network: Network, units: Any, recipe: Recipe, count: int, by: Network) -> Sequence[Picture]:
    """The images of several seeds that another network likes best."""
    return list(phosphene.best_of(network, units, recipe, count=count, selectors=[by], seed=SEED, options=RUN))


def judged(network: Network, units: Any, recipe: Recipe, by: Network) -> Sequence[Picture]:
    """The images, with what another network says of them among their scores."""
    result = phosphene.ascend(network, units, recipe, seed=SEED, options=RUN)
    result.judge(by)
    return list(result)


def of_recipe(
    shown: Shown, name: str, hidden: bool = True, fields: Mapping[str, Any] | None = None
) -> Sequence[Picture]:
    """By a recipe that ships, a class and, if asked, a hidden unit; by those of photographs, what they are for."""
    network = shown.network
    height, channels = network.preprocessing.height, network.preprocessing.channels
    given: dict[str, Any] = {}
    units = ["class:3", f"{shown.late}:2"][: 2 if hidden else 1]
    own = recipe(name, fields)
    pixels = photograph(own.size[0] if own.size else height, channels)
    if name in ("invert", "caricature"):
        word = "match" if name == "invert" else name
        units, given["photograph"] = [f"{word}({shown.early})", f"{word}({shown.late})"], pixels
    if name == "dream":
        units, given["start"] = ["class:3", shown.late], pixels
    return ascended(network, units, own, **given)


def recipe_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """By every recipe that ships, on every network."""
    for key, each in shown.items():
        for name in RECIPES:
            yield f"{key}/{name}", of_recipe(each, name, hidden=key in ("normed", "transformer"))


def unit_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """Of every kind of unit, spelled and as objects, in maps and in tokens."""
    for key in ("normed", "transformer"):
        network, early, late = shown[key]
        position = (2, 1) if key == "normed" else (5,)
        weights = (WEIGHTS * shown[key].channels)[: shown[key].channels]
        units = [
            "class:1", "class:tabby cat", f"{early}:3", f"sum({late}:3)", f"mean({late}:3)",
            f"{late}:3@{','.join(map(str, position))}", late, f"{late}:{json.dumps(weights)}",
            f"mean({late}:{json.dumps(weights)})", f"-{late}:3", "class:0 - 0.5*class:1",
            f"{early}:2 + 2*mean({late}:1)",
            f"class:2 + {early}:1", Class(4), Channel(late, 4, "mean"), Neuron(late, 4, position), WholeLayer(early),
            Direction(late, weights[::-1]), Sum(((1.0, Class(1)), (-0.25, Channel(late, 0)))),
            Class(2) - 0.5 * Class(3),
        ]  # fmt: skip
        yield f"units/{key}", ascended(network, units, recipe("filters"))
        given = photograph(SIZE)
        units = [f"match({late}) + 0.1*{early}:1", f"caricature({early}) - 0.5*class:2"]
        yield f"references/{key}", ascended(network, units, recipe("invert"), photograph=given)


FIELDS: dict[str, dict[str, Any]] = {
    "start-numpy": {"start.kind": "numpy"},
    "start-uniform": {"start.kind": "uniform", "start.low": 90.0, "start.high": 160.0},
    "start-grey": {"start.kind": "grey"},
    "float64": {"canvas.dtype": "float64"},
    "oblong": {"size": [24, 30]},
    "growth": {"growth.sizes": [0.5, 0.75, 1.0], "growth.at": [0.0, 0.3, 0.6]},
    "momentum": {"optimizer.name": "momentum"},
    "nesterov": {"optimizer.name": "nesterov"},
    "rmsprop": {"optimizer.name": "rmsprop", "optimizer.rate": 2.0},
    "adam": {"optimizer.name": "adam", "optimizer.rate": 4.0, "optimizer.options": {"betas": [0.5, 0.9]}},
    "adagrad": {"optimizer.name": "Adagrad", "optimizer.rate": 4.0},
    "gradient-l2": {"optimizer.gradient": "l2", "optimizer.rate": 300.0},
    "gradient-planes": {"optimizer.gradient": "planes"},
    "linear": {"schedule.kind": "linear", "schedule.begin": 0.25, "schedule.end": 0.1},
    "step": {"schedule.kind": "step", "schedule.factor": 0.5, "schedule.every": 3},
    "progress": {"schedule.kind": "progress", "schedule.gain": 0.5, "optimizer.gradient": "raw", "optimizer.rate": 1e6},
    "order": {"decay.strength": 0.05, "blur.sigma": 0.7, "blur.every": 2, "small_norm.percentile": 20.0,
              "small_contribution.percentile": 30.0, "total_variation.strength": 2.0,
              "order": ["total_variation", "median", "small_contribution", "small_norm", "blur", "decay", "clip"]},
    "phase": {"median.size": 3, "median.every": 3, "median.phase": 2},
    "stop-patience": {"stop.patience": 1, "stop.tolerance": 0.5, "stop.smoothing": 0.5},
    "stop-still": {"stop.still": 2, "optimizer.rate": 0.01, "median": "off"},
    "best": {"keep.rule": "best"},
    "clipped": {"keep.rule": "clipped", "clip": "off"},
    "last-contrast": {"keep.rule": "last", "keep.contrast": 0.2},
    "rounding-down": {"keep.rounding": "down", "keep.every": 3},
    "views": {"views.count": 2, "views.crop": [0.4, 0.9], "views.scale": [0.9, 1.2], "views.rotate": 15.0,
              "views.jitter": 3.0, "views.flip": True, "views.pad": 2.0, "views.noise": [2.0, 8.0],
              "views.colour": 0.2},
    "views-noise": {"views.noise": 5.0},
    "priors": {"priors.statistics.weight": 2.0, "priors.total_variation.weight": 1.0, "priors.norm.weight": 0.5},
    "statistics": {"priors.statistics.weight": 5.0, "priors.statistics.side": "above", "priors.statistics.every": 2,
                   "priors.statistics.average": 0.5, "priors.statistics.margin": 0.1, "priors.statistics.until": 0.5},
    "redirect": {"redirect": True, "views.jitter": 2.0},
}  # fmt: skip
FOURIER_FIELDS: dict[str, dict[str, Any]] = {
    "photographs": {"canvas.colours": "photographs"},
    "colourless": {"canvas.colours": "none", "canvas.exponent": 0.5},
    "contrast": {"canvas.contrast": 0.3},
    "held": {"canvas.contrast": 0.5, "canvas.spectrum": "held"},
    "growth": {"growth.sizes": [0.5, 1.0], "growth.at": [0.0, 0.5]},
    "grey": {"start.kind": "grey"},
    "transparent": {"keep.transparency": True},
}


def field_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """By recipes that turn on what none that ships does, or nothing else with it."""
    network, units = shown["normed"].network, ["class:3", "bn2:2"]
    for base, variants in (("filters", FIELDS), ("lucid", FOURIER_FIELDS)):
        for name, fields in variants.items():
            yield f"fields/{base}/{name}", ascended(network, units, recipe(base, fields))
    sure = recipe("filters", {"stop.confidence": 0.22, "stop.hold": 2})
    yield "fields/filters/stop-confidence", ascended(network, ["class:0", "class:3"], sure)
    named = caffe_like("squeezenet_v1.1")
    for name in ("tence", "natural"):
        yield f"section/{name}", ascended(named, "class:3", recipe(name))


def start_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """From a given image, on pixels and on coefficients."""
    for base in ("filters", "lucid"):
        started = recipe(base, {"start.kind": "image"})
        given = photograph(SIZE)
        yield f"start/{base}", ascended(shown["normed"].network, ["class:3", "relu1:2"], started, start=given)


def joined_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """Of several at once: facets, ensembles, the best of several, other recipes and seeds in one batch."""
    network, other = shown["normed"].network, shown["residual"].network
    diverse = {"priors.diversity.weight": 5.0, "priors.diversity.layer": "relu1"}
    yield "facets", ascended(network, ["class:3", "bn2:2"], recipe("draft"), facets=3)
    yield "facets/layer", ascended(network, "class:3", recipe("filters", diverse), facets=2)
    for name in ("filters", "natural"):
        units = ["class:3", "class:0 - class:1"]
        yield f"ensemble/{name}", ascended([network, other], units, recipe(name))
    yield "best-of", best_of(network, ["class:3", "class:1"], recipe("draft"), 3, other)
    yield "judged", judged(network, "class:2", recipe("draft"), other)
    many = [recipe("filters", {"steps": steps, "optimizer.rate": 4.0 * steps}) for steps in (3, 8, 5, 8, 2)]
    units = ["class:0", "class:1", "relu2:1", "class:2", "relu1:1"]  # the third is dead, and ends at once
    yield "turns", ascended(network, units, many, seed=[5, 4, 3, 2, 1], batch=2)


def steered_images(shown: dict[str, Shown]) -> Iterator[Batch]:
    """Changed on the way, and ended before their time."""

    def steered(step: Any) -> Recipe | None:
        if step.step == 3:
            return changed(step.recipe, {"optimizer.rate": 3.0, "blur.sigma": 0.6, "blur.every": 2})
        return None if step.step == 6 else step.recipe

    units = ["class:3", "bn2:2"]
    network = shown["normed"].network
    yield "steered/filters", ascended(network, units, recipe("filters"), on_step=steered)

    def weakened(step: Any) -> Recipe:
        weaker = {"views.crop": [0.8, 1.0], "optimizer.rate": 0.02}
        return changed(step.recipe, weaker) if step.step == 4 else step.recipe

    yield "steered/natural", ascended(network, units, recipe("natural"), on_step=weakened)


SMALL: tuple[Callable[[dict[str, Shown]], Iterator[Batch]], ...] = (
    recipe_images, unit_images, field_images, start_images, joined_images, steered_images,
)  # fmt: skip


def small_batches() -> Iterator[Batch]:
    """All images of the small networks."""
    shown = small_networks()
    for images in SMALL:
        yield from images(shown)


def large_batches() -> Iterator[Batch]:
    """All images of EfficientNet-lite0: by every recipe, and by one that looks at statistics gathered here."""
    shown = Shown(phosphene.open("efficientnet_lite0"), "blocks.1.0.bn1.act", "blocks.3.0.bn2.act")
    for name in RECIPES:
        yield f"lite0/{name}", of_recipe(shown, name, fields={"size": [LARGE, LARGE]})
    gather("efficientnet_lite0")
    changes = {"size": [LARGE, LARGE], "priors.statistics.source": "gathered"}
    yield "lite0/gathered", ascended(shown.network, "class:flamingo", recipe("natural", changes))


def gather(network: str) -> None:
    """Have a network's activations on a few images kept, as `phosphene statistics` does."""
    from phosphene.cli.program import main

    with tempfile.TemporaryDirectory() as folder:
        for index in range(4):
            pixels = np.roll(photograph(LARGE), 9 * index, axis=1)
            Image.fromarray(pixels).save(Path(folder) / f"{index}.png")
        with redirect_stdout(io.StringIO()):
            status = main(["statistics", folder, "-n", network, "-q"])
    assert status == 0, status


# Records


@contextmanager
def surroundings() -> Iterator[Path]:
    """Two threads, and an empty folder for what a user may have kept; put back at the end."""
    names = ("PHOSPHENE_NETWORKS", "PHOSPHENE_RECIPES", "PHOSPHENE_STATISTICS")
    before, threads = {name: os.environ.get(name) for name in names}, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({name: str(Path(folder) / name) for name in names})
        torch.set_num_threads(THREADS)
        try:
            yield Path(folder)
        finally:
            torch.set_num_threads(threads)
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})


def records(batches: Callable[[], Iterator[Batch]]) -> dict[str, Record]:
    """Of each image, by its name: what is compared."""
    found: dict[str, Record] = {}
    with surroundings() as folder:
        for name, pictures in batches():
            for picture in pictures:
                path = picture.save(folder / "images" / name)
                found[f"{name}/{path.stem}"] = record(picture, path)
    return found


def record(picture: Picture, path: Path) -> Record:
    """What is compared of an image, from its file; what a file does not hold, from the picture."""
    with Image.open(path) as image:
        pixels, text = np.asarray(image), dict(image.text)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    metadata = plain(json.loads(text["phosphene"]))
    metadata["shape"] = list(pixels.shape)
    metadata["trace"] = checksum(json.dumps([picture.objectives, picture.probabilities]).encode())[:16]
    metadata |= {"frames": [checksum(frame.tobytes())[:16] for frame in picture.frames]} if picture.frames else {}
    return {
        "pixels": checksum(pixels.tobytes()),
        "thumbnail": base64.b64encode(thumbnail(pixels).tobytes()).decode(),
        "metadata": metadata,
    }


def plain(provenance: dict[str, Any]) -> dict[str, Any]:
    """What an image says of itself, without versions; images within it as checksums."""
    kept = {name: value for name, value in provenance.items() if name != "versions"}
    for name in ("start", "photograph"):
        if name in kept:
            with np.load(io.BytesIO(base64.b64decode(kept[name]))) as arrays:
                kept[name] = checksum(arrays["pixels"].tobytes())[:16]
    return kept


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Means of areas, eight by eight, rounded."""
    planes = torch.from_numpy(pixels.copy()).double().movedim(-1, 0)
    means: np.ndarray = F.adaptive_avg_pool2d(planes, THUMBNAIL).movedim(0, -1).round().byte().numpy()
    return means


def distance(one: Record, other: Record) -> float:
    """The mean difference of two records' thumbnails, of values in 0 to 255; infinite for different shapes."""
    first, second = (
        np.frombuffer(base64.b64decode(each["thumbnail"]), np.uint8).astype(float) for each in (one, other)
    )
    return float(np.abs(first - second).mean()) if first.shape == second.shape else math.inf


def fingerprint() -> dict[str, Any]:
    """What the last bits of the arithmetic depend on: the libraries, and the kind of processor."""
    told: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        for name, _, value in lines:
            told.setdefault(name.strip(), value.strip())
    flags = told.get("flags", told.get("Features", "")).split()
    wide = sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma", "asimd", "sve")))
    return {
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": " ".join(told.get(name, "") for name in ("vendor_id", "cpu family", "model")),
        "flags": " ".join(wide),
    }


# The file


OWN = ("unit", "label", "scores", "trace", "frames")  # of the metadata, what few images have in common
SHARED = ("recipe", "network", "rest")


def write(parts: dict[str, dict[str, Record]], path: Path = FILE) -> None:
    """Write the corpus: an image a line, and what many have in common once."""
    common: dict[str, Any] = {}

    def shared(value: Any) -> str:
        key = checksum(json.dumps(value, sort_keys=True).encode())[:8]
        common[key] = value
        return key

    def shortened(metadata: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in metadata.items() if name not in OWN + SHARED}
        own = {name: metadata[name] for name in OWN if name in metadata}
        return own | {name: shared((metadata | {"rest": rest})[name]) for name in SHARED}

    images = {
        part: {name: entry | {"metadata": shortened(entry["metadata"])} for name, entry in entries.items()}
        for part, entries in parts.items()
    }
    sections = [f'"fingerprint": {compact(fingerprint())}', lines("common", common)]
    sections += [lines(part, entries) for part, entries in images.items()]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(sections) + "\n}\n", "utf-8")


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def lines(name: str, entries: dict[str, Any]) -> str:
    rows = ",\n".join(f"{compact(key)}:{compact(value)}" for key, value in entries.items())
    return f"{compact(name)}: {{\n{rows}\n}}"


def read(part: str, path: Path = FILE) -> tuple[dict[str, Any], dict[str, Record]]:
    """The recorded fingerprint, and the records of a part, "small" or "large"."""
    found = json.loads(path.read_text("utf-8"))
    common = found["common"]
    for entry in found[part].values():
        metadata = entry["metadata"]
        metadata |= {name: common[metadata[name]] for name in SHARED}
        metadata |= metadata.pop("rest")
    return found["fingerprint"], found[part]


PARTS: dict[str, Callable[[], Iterator[Batch]]] = {"small": small_batches, "large": large_batches}


# Other processors' arithmetic, as this one can be told to do it.
OTHERS = (
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
)


def made_apart(part: str, **environment: str) -> dict[str, Record]:
    """The records of a part, made in a process of its own: as at the start, whatever a caller has done to torch."""
    # Threads that wait for each other sleep: where others use the same cores too, they would spin most of their time.
    package = str(Path(phosphene.__file__).parents[1])
    around = os.environ | {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": package} | environment
    done = subprocess.run([sys.executable, __file__, part], env=around, stdout=subprocess.PIPE, check=True)
    found: dict[str, Record] = json.loads(done.stdout)
    return found


def with_spread(part: str) -> dict[str, Record]:
    """The records of a part, each with how far its thumbnail is from those of other processors' arithmetic."""
    found = made_apart(part)
    others = [made_apart(part, **environment) for environment in OTHERS]
    for name, entry in found.items():
        spread = max(distance(entry, other[name]) for other in others)
        entry |= {"spread": round(spread, 3)} if spread else {}
    return found


def main(parts: Sequence[str]) -> None:
    """Print the records of parts, or record all anew where none is asked for."""
    if parts:
        print(json.dumps({name: entry for part in parts for name, entry in records(PARTS[part]).items()}))
    else:
        write({part: with_spread(part) for part in PARTS})


if __name__ == "__main__":
    main(sys.argv[1:])
