"""Recipes and other libraries on the same classes of the same network, scored by other networks: one table.

    python bench/quality.py --classes 24
    python bench/quality.py --network squeezenet_v1.1 --entries natural lucent@default horama@512
    python bench/quality.py --score-only

An entry is a recipe (a name, or a TOML file), or a library at its defaults or at a budget of passes: lucent@default,
lucent@512, horama@512.  A pass is one forward and backward pass of one image of the network's own size.  See peers.py
for how each library is called; they are installed into environments of their own (--peers).  The first n classes are
the same for every n, so that a small run is a part of a large one.

Images are kept in OUT/NETWORK/ENTRY/CLASS.png and made once; what they cost is in made.json beside them, and scores
in scores.json.  OUT/quality.json has all numbers, and OUT/NETWORK/ENTRY.png the first 24 images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers import PEERS, SPECTRUM, Job, counted, keep, plain_pass, progress, read_json, steps_for, write_json
from PIL import Image

import phosphene
from phosphene.ascent.loop import SMALLEST_BATCH
from phosphene.draw.grid import tile
from phosphene.hardware import find_device
from phosphene.judges import judge as judge_module
from phosphene.judges.independence import shared_weights
from phosphene.judges.panel import open_judge
from phosphene.judges.self_metrics import ROBUSTNESS_CROPS, ROBUSTNESS_SEED
from phosphene.networks.network import Network

SHARED = Path("../shared")
# Networks with files there, by name: the arguments of `phosphene.open`, and the Keras model of the same weights.
FILES: dict[str, dict[str, str]] = {
    "mobilenet_v1": {"network": "mobilenet_v1.onnx", "preprocessing": "tf"},
    "squeezenet_v1.1": {"network": "squeezenet_v1.1.prototxt", "weights": "squeezenet_v1.1.caffemodel"},
}
KERAS = {"mobilenet_v1": "mobilenet_v1.keras"}
JUDGES = ("efficientnet_lite0", "mobilenet_v1", "squeezenet_v1.1")
RELATIVES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
ENTRIES = (
    *("natural", "draft", "tence", "maco"),
    *("lucent@default", "lucent-full@512", "lucent@128", "horama@default", "horama@512"),
    *("torch-dreams@default", "torch-dreams@512"),
)
PHOTOGRAPHS = "photographs"
KEPT = ("objective", "probability", "judges", "robustness", "slope", "saturated")  # of a score card
SHEET = 24

# Environments of the peers: what is installed with what it needs, and what alone.
REQUIREMENTS = {
    "torch": (
        ("decorator", "einops", "ipython", "matplotlib", "pytest", "tqdm"),
        ("torch-lucent==0.1.8", "kornia==0.4.1", "horama==0.3.0", "torch-dreams==4.0.0"),
    ),
    "tensorflow": (
        ("tensorflow-cpu==2.21.0", "tf-keras", "tensorflow-probability", "tf-keras-vis==0.8.7", "einops", "deprecated",
         "opencv-python-headless", "scikit-learn", "scikit-image", "matplotlib"),
        ("xplique==2.0.2",),
    ),
}  # fmt: skip
SPECTRUM_WHEEL = "xplique==2.0.2"  # brings the mean spectrum of ImageNet that horama would download
SPECTRUM_SHA256 = "a4810ea049ef9a0fe4e3f26660188e53222281879b333e8fd61377f7491aafc8"


class LeftOutError(Exception):
    """An entry, or a judge, that cannot be had, and why."""


@dataclass
class Bench:
    """What all entries share."""

    network: Network
    opened: dict[str, Any]  # the arguments of `phosphene.open`
    classes: list[int]  # in the order of their draw
    seed: int
    batch: int
    limit: int | None
    out: Path
    peers: Path
    judges: list[Network] = field(default_factory=list)
    relatives: list[Network] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.out / self.network.name

    def place(self, entry: str) -> Path:
        """Where an entry's images are; those of a run with fewer steps are kept apart."""
        name = Path(entry).stem if entry.endswith(".toml") else entry
        return self.folder / (f"{name}~{self.limit}" if self.limit else name)


# Networks.


def arguments(name: str, weights: str | None = None, preprocessing: str | None = None) -> dict[str, Any]:
    """The arguments of `phosphene.open` for a name or a file; paths are absolute, as peers run elsewhere."""
    known = FILES.get(name)
    if known is not None:
        found = {key: value if key == "preprocessing" else SHARED / "weights" / value for key, value in known.items()}
    else:
        found = {"network": name, "weights": weights, "preprocessing": preprocessing}
    return {key: absolute(value) for key, value in found.items() if value is not None}


def absolute(value: str | Path) -> str:
    return str(Path(value).resolve()) if Path(value).is_file() else str(value)


def open_network(name: str, arguments: Mapping[str, Any]) -> Network:
    try:
        return phosphene.open(**arguments, name=name if name in FILES else "")
    except phosphene.InputError as error:
        raise LeftOutError(str(error)) from error


def open_judges(bench: Bench, names: Sequence[str]) -> list[Network]:
    """Those of the networks that can be had and are not the network itself, in whatever format."""
    found = []
    for name in names:
        try:
            judge = open_network(name, arguments(name)) if name in FILES else open_judge(name)
        except (LeftOutError, phosphene.InputError) as error:
            bench.notes.append(f"judge {name}: {error}")
            continue
        if judge.digest == bench.network.digest or shared_weights(judge, bench.network):
            bench.notes.append(f"judge {name}: it is the network itself, or shares weights with it: left out")
            continue
        found.append(judge)
    return found


def drawn(seed: int, count: int) -> list[int]:
    """The first classes of a draw: a hundred, then the others, so that those of a smaller count are among them."""
    generator = np.random.default_rng(seed)
    hundred = generator.choice(1000, 100, replace=False)
    others = generator.permutation(np.setdiff1d(np.arange(1000), hundred))
    return np.concatenate([hundred, others])[:count].tolist()


# Images.


def make(bench: Bench, entry: str) -> None:
    """Make the images of an entry that are not there yet."""
    name, at, budget = entry.partition("@")
    peer = PEERS.get(name)
    if at and peer is None:
        raise LeftOutError(f"there is no library {name!r}: expected one of {', '.join(PEERS)}")
    if not at and peer is not None:
        raise LeftOutError(f"expected a budget: {name}@default, or {name}@512 for 512 passes")
    if peer is None:
        make_by_recipe(bench, entry)
    else:
        make_by_peer(bench, entry, name, budget)


def unmade(folder: Path, classes: Sequence[int], settings: str) -> list[int]:
    """The classes that have no image by these settings."""
    made = read_json(folder / "made.json")
    there = [
        index
        for index in classes
        if (folder / f"{index:03d}.png").is_file() and made.get(f"{index:03d}", {}).get("settings") == settings
    ]
    kept = [index for index in classes if (folder / f"{index:03d}.png").is_file()]
    other = sum(f"{index:03d}" in made for index in kept) - len(there)
    if other:
        print(f"{folder.name}: {other} images are of other settings and are made again", file=sys.stderr)
    return [index for index in classes if index not in there]


def digest_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def make_by_recipe(bench: Bench, entry: str) -> None:
    network = bench.network
    try:
        recipe = phosphene.Recipe.load(entry).for_network(network)
    except phosphene.InputError as error:
        raise LeftOutError(str(error)) from error
    if bench.limit:
        recipe = recipe.override({"steps": min(recipe.steps, bench.limit)})
    settings = digest_of(recipe.to_dict(), network.digest, bench.seed)
    folder = bench.place(entry)
    missing = unmade(folder, bench.classes, settings)
    if not missing:
        return
    device = find_device(None)
    with network.borrowed(device):
        plain = plain_pass(network, device.type)
    for start in range(0, len(missing), bench.batch):
        classes = missing[start : start + bench.batch]
        clock = time.perf_counter()
        with counted(network) as passes:
            result = phosphene.ascend(
                network,
                [f"class:{i}" for i in classes],
                recipe,
                seed=bench.seed,
                options=phosphene.RunOptions(batch=bench.batch),
            )
        if result.interrupted:
            raise KeyboardInterrupt
        seconds = (time.perf_counter() - clock) / len(classes)
        each = passes[0] / max(len(classes), SMALLEST_BATCH)  # a single image goes with a copy beside it
        images = [{"": picture.image().convert("RGB")} for picture in result]
        steps = float(np.mean([picture.steps for picture in result]))
        cost = {"settings": settings, "steps": steps, "passes": each, "seconds": seconds, "plain": plain}
        keep(folder, dict(zip(classes, images, strict=True)), cost)
        progress(entry, start + len(classes), len(missing), seconds, each)


def make_by_peer(bench: Bench, entry: str, name: str, budget: str) -> None:
    peer = PEERS[name]
    preprocessing = bench.network.preprocessing
    opened = bench.opened
    if peer.environment == "tensorflow":
        keras = KERAS.get(bench.network.name)
        if keras is None or not (SHARED / "weights" / keras).is_file():
            raise LeftOutError(
                f"{name} needs TensorFlow, in which {bench.network.name} cannot be run: it is compared on "
                f"{', '.join(KERAS)} only, which is there as a Keras file too"
            )
        opened = {"network": str((SHARED / "weights" / keras).resolve())}
    steps = steps_for(peer, budget, preprocessing.size)
    steps = min(steps, bench.limit) if bench.limit else steps
    settings = digest_of(name, steps, bench.network.digest, bench.seed)
    folder = bench.place(entry)
    missing = unmade(folder, bench.classes, settings)
    if not missing:
        return
    job = Job(
        peer=name,
        steps=steps,
        network=opened,
        size=preprocessing.size,
        fixed=preprocessing.fixed_size,
        classes=missing,
        batch=bench.batch,
        seed=bench.seed,
        threads=torch.get_num_threads(),
        folder=str(folder.resolve()),
        settings=settings,
    )
    environment = (bench.peers / peer.environment).resolve()
    install(environment, peer.environment)
    run_peer(environment, job)


def run_peer(environment: Path, job: Job) -> None:
    """Run peers.py in an environment, its progress passed on."""
    script = Path(__file__).resolve().with_name("peers.py")
    command = [str(python_of(environment)), str(script), json.dumps(job._asdict())]
    quiet = os.environ | {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    last = "without a word"
    with subprocess.Popen(command, cwd=environment, env=quiet, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
    if process.returncode:
        raise LeftOutError(f"failed: {last}")


# The peers' environments.


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(environment: Path, kind: str) -> None:
    """Make an environment, once; that for PyTorch sees what the running one has, after its own."""
    done = environment / "installed.json"
    needed, alone = REQUIREMENTS[kind]
    if read_json(done).get("requirements") == [*needed, *alone]:
        return
    print(f"installing {', '.join(alone)} into {environment.name}", file=sys.stderr, flush=True)
    call(sys.executable, "-m", "venv", str(environment))
    if kind == "torch":
        (folder,) = [*environment.glob("lib/python*/site-packages"), *environment.glob("Lib/site-packages")]
        seen = [path for path in sys.path if path.endswith("-packages")]
        (folder / "running.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    pip = (str(python_of(environment)), "-m", "pip")
    call(*pip, "install", *needed)
    call(*pip, "install", "--no-deps", *alone)
    if kind == "torch":
        call(*pip, "download", "--no-deps", "--dest", str(environment), SPECTRUM_WHEEL)
        take_spectrum(environment)
    write_json(done, {"requirements": [*needed, *alone]})


def call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise LeftOutError(f"{' '.join(command[1:4])} … failed: {lines[-1] if lines else 'without a word'}")


def take_spectrum(environment: Path) -> None:
    (wheel,) = environment.glob("xplique-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"xplique/features_visualizations/{SPECTRUM}")
    if hashlib.sha256(data).hexdigest() != SPECTRUM_SHA256:
        raise LeftOutError(f"{SPECTRUM} of {SPECTRUM_WHEEL} is not the one expected")
    (environment / SPECTRUM).write_bytes(data)
    wheel.unlink()


# Scores.


def key_of(network: Network) -> str:
    return f"{network.name} {network.digest}"


def whole(network: Network) -> Network:
    """The network shown images as they are, not cut as photographs are."""
    return network.replace(preprocessing=replace(network.preprocessing, crop=1.0))


def scored(bench: Bench, folder: Path, files: Mapping[int, Path]) -> dict[int, dict[str, Any]]:
    """The score card of each image, by class; only those that the folder's scores.json lacks are made."""
    panel = [*bench.judges, *bench.relatives]
    by = digest_of([key_of(judge) for judge in panel], bench.network.digest, ROBUSTNESS_CROPS, ROBUSTNESS_SEED)
    known = read_json(folder / "scores.json")
    sums = {index: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for index, path in files.items()}
    scores = {index: known.get(f"{index:03d}", {}) for index in files}
    lacking = [index for index in files if (scores[index].get("file"), scores[index].get("by")) != (sums[index], by)]
    if lacking:
        network = bench.network if folder.name == PHOTOGRAPHS else whole(bench.network)
        units = [f"class:{index}" for index in lacking]
        cards = judge_module.judge([files[index] for index in lacking], panel, network=network, unit=units)
        for index, card in zip(lacking, cards, strict=True):
            scores[index] = {"file": sums[index], "by": by} | {key: card[key] for key in KEPT}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "scores.json", known | {f"{index:03d}": scores[index] for index in files})
    return scores


# The table.


class Row(NamedTuple):
    """An entry's numbers: the scores of each image by class, and the means of what they cost."""

    name: str
    scores: dict[int, dict[str, Any]]
    cost: dict[str, float]


def rows_of(bench: Bench, entry: str) -> list[Row]:
    """The entry's row, and one for each further view of its images."""
    folder = bench.place(entry)
    made = read_json(folder / "made.json")
    rows = []
    for place in (folder, *sorted(folder.parent.glob(f"{folder.name}+*/"))):
        files = {index: place / f"{index:03d}.png" for index in bench.classes}
        files = {index: path for index, path in files.items() if path.is_file() and f"{index:03d}" in made}
        if files:
            costs = [made[f"{index:03d}"] for index in files]
            keys = ("steps", "passes", "seconds", "plain")
            cost = {key: float(np.mean([each[key] for each in costs])) for key in keys}
            rows.append(Row(place.name, scored(bench, place, files), cost if place == folder else {}))
            sheet(bench, place.name, files)
    return rows


def sheet(bench: Bench, name: str, files: Mapping[int, Path]) -> None:
    """The first images of an entry, as one picture."""
    chosen = [index for index in bench.classes if index in files][:SHEET]
    labels = bench.network.labels
    captions = [labels[index].name if labels is not None else str(index) for index in chosen]
    tile([Image.open(files[index]) for index in chosen], captions, min(6, len(chosen))).save(
        bench.folder / f"{name}.png"
    )


def photographs(bench: Bench, folder: Path) -> list[Row]:
    files = {int(path.name[:3]): path for path in sorted(folder.glob("[0-9][0-9][0-9]_*.jpg"))}
    if not files:
        bench.notes.append("there are no photographs to compare with")
        return []
    bench.notes.append(
        f"{PHOTOGRAPHS}: {len(files)} labelled photographs, one of each of their classes, which "
        "are not the drawn ones: a mark to measure by, and no entry."
    )
    return [Row(PHOTOGRAPHS, scored(bench, bench.folder / PHOTOGRAPHS, files), {})]


def shares(row: Row, judge: Network) -> list[float]:
    """Top-1, top-5 and mean probability by a judge."""
    given = [score["judges"][judge.name] for score in row.scores.values()]
    return [float(np.mean([answer[key] for answer in given])) for key in ("top1", "top5", "probability")]


def summary(bench: Bench, row: Row) -> dict[str, Any]:
    """A row's means, as quality.json has them."""
    by_judge = {judge.name: shares(row, judge) for judge in (*bench.judges, *bench.relatives)}
    means = np.mean([by_judge[judge.name] for judge in bench.judges] or [[math.nan] * 3], axis=0).tolist()
    own = {key: float(np.mean([score[key] for score in row.scores.values()])) for key in ("probability", "robustness")}
    return {
        "images": len(row.scores),
        "judges": by_judge,
        "mean": means,
        "standard_error": math.sqrt(means[0] * (1 - means[0]) / len(row.scores)),
        **own,
        **row.cost,
    }


def cells(bench: Bench, name: str, row: Mapping[str, Any]) -> list[str]:
    def three(values: Sequence[float]) -> str:
        return f"{100 * values[0]:.0f} / {100 * values[1]:.0f} / {values[2]:.2f}"

    def cost(form: str, *keys: str) -> str:
        return form.format(*(row[key] for key in keys)) if keys[0] in row else ""

    mean, by_judge = row["mean"], row["judges"]
    overhead = row["seconds"] / row["passes"] / row["plain"] if row.get("passes") else None
    return [
        name,
        str(row["images"]),
        f"**{100 * mean[0]:.0f}** ± {100 * row['standard_error']:.0f}",
        f"{100 * mean[1]:.0f}",
        f"{mean[2]:.2f}",
        *(three(by_judge[judge.name]) for judge in bench.judges),
        *(three(by_judge[judge.name]) for judge in bench.relatives),
        f"{row['probability']:.2f}",
        f"{100 * row['robustness']:.0f}",
        cost("{:.0f}", "passes"),
        cost("{:.1f}", "seconds"),
        "" if overhead is None else f"{overhead:.2f}",
    ]


def table(bench: Bench, rows: Mapping[str, Mapping[str, Any]]) -> str:
    heads = [
        *("entry", "images", "mean top-1 %", "top-5 %", "probability"),
        *(judge.name for judge in bench.judges),
        *(f"{judge.name} (relative)" for judge in bench.relatives),
        *("own probability", "robust %", "passes", "s", "s a pass"),
    ]
    lines = [heads, ["---"] * len(heads), *(cells(bench, name, row) for name, row in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def explained(bench: Bench, entries: Sequence[str]) -> list[str]:
    """What is under the table."""
    lines = [
        "The mean is over the judges " + ", ".join(judge.name for judge in bench.judges) + ", ± its standard error, "
        "binomial over the images. A judge's column has top-1 % / top-5 % / the mean probability of the class.",
        f"own probability: by {bench.network.name} itself. robust: the share of {ROBUSTNESS_CROPS} random crops (area "
        "0.5..1), shifts (1/8) and scales (0.8..1.2) of an image whose first class is still the image's, by the same.",
        "passes: forward and backward passes of one image of the network's size, an image. s: seconds an image. "
        "s a pass: over those of a plain pass, measured just before.",
    ]
    if bench.relatives:
        names = " and ".join(judge.name for judge in bench.relatives)
        lines.append(
            f"{names} are relatives of {bench.network.name} and flatter what it made: they are not in the mean."
        )
    used = dict.fromkeys(entry.partition("@")[0] for entry in entries if "@" in entry)
    return [*lines, *(f"{name}: {PEERS[name].note}" for name in used if name in PEERS), *bench.notes]


def write_results(bench: Bench, header: str, rows: Sequence[Row], means: Mapping[str, Any]) -> None:
    path = bench.out / (f"quality~{bench.limit}.json" if bench.limit else "quality.json")
    data = {
        "header": header,
        "classes": bench.classes,
        "judges": [key_of(judge) for judge in bench.judges],
        "relatives": [key_of(judge) for judge in bench.relatives],
        "notes": bench.notes,
        "entries": {
            row.name: {**means[row.name], "scores": {f"{index:03d}": score for index, score in row.scores.items()}}
            for row in rows
        },
    }
    write_json(path, read_json(path) | {bench.network.name: data})


def header_of(bench: Bench, draw: int) -> str:
    device = find_device(None)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    height, width = bench.network.preprocessing.size
    return (
        f"{bench.network.name} ({height}x{width}), {len(bench.classes)} classes of draw {draw}; "
        f"torch {torch.__version__}, {where}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="efficientnet_lite0", help=f"as phosphene has them, or {', '.join(FILES)}")
    parser.add_argument("--weights")
    parser.add_argument("--preprocessing")
    parser.add_argument("--judges", nargs="*", default=JUDGES, help="as `phosphene judge` has them")
    parser.add_argument("--relatives", nargs="*", default=RELATIVES, help="which flatter one another")
    parser.add_argument("--classes", type=int, default=100, help="how many are drawn")
    parser.add_argument("--draw", type=int, default=2026, help="seed of the draw of classes, and of the images")
    parser.add_argument("--entries", nargs="*", default=ENTRIES, metavar="ENTRY")
    parser.add_argument("--batch", type=int, default=8, help="images at once")
    parser.add_argument("--out", type=Path, default=Path("phosphene-out/quality"))
    parser.add_argument("--peers", type=Path, default=Path("phosphene-out/peers"))
    parser.add_argument("--photographs", type=Path, default=SHARED / "images", help="named NNN_….jpg by their class")
    parser.add_argument("--score-only", action="store_true", help="make nothing")
    parser.add_argument("--limit-steps", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()

    opened = arguments(args.network, args.weights, args.preprocessing)
    try:
        network = open_network(args.network, opened)
    except LeftOutError as error:
        sys.exit(str(error))
    bench = Bench(
        network, opened, drawn(args.draw, args.classes), args.draw, args.batch, args.limit_steps, args.out, args.peers
    )
    related = network.name in RELATIVES
    asked = [name for name in JUDGES if name != network.name] if args.judges is JUDGES else args.judges
    relatives = [name for name in args.relatives if related and name != network.name]
    bench.judges = open_judges(bench, [name for name in asked if name not in relatives])
    bench.relatives = open_judges(bench, relatives)
    header = header_of(bench, args.draw)
    print(header, file=sys.stderr)

    rows: list[Row] = []
    for entry in args.entries:
        try:
            if not args.score_only:
                make(bench, entry)
        except LeftOutError as error:
            bench.notes.append(f"{entry}: {error}")
            print(bench.notes[-1], file=sys.stderr)
        found = rows_of(bench, entry)
        if not found and not any(note.startswith(f"{entry}:") for note in bench.notes):
            bench.notes.append(f"{entry}: no images yet")
        rows += found
    rows += photographs(bench, args.photographs)
    means = {row.name: summary(bench, row) for row in rows}
    write_results(bench, header, rows, means)
    print(f"{header}\n\n{table(bench, means)}\n")
    print("\n".join(f"- {line}" for line in explained(bench, args.entries)))


if __name__ == "__main__":
    main()
