"""Makes the samples in `0.1.0`: one of everything that phosphene 0.1.0 writes, as small as can be.

    OMP_NUM_THREADS=1 PYTHONPATH=src python tests/written/make.py

They are kept so that later versions are seen to open them (`tests/test_written.py`), so they are not made again: a
sample of a later version goes into a folder of its own.  All files but those in `given`, which stand for a user's,
were written by the commands in `0.1.0/commands.txt`, run in `0.1.0`; what a sample does not need (plots, other files of
a run) was taken away.  What tells of the machine they were made on was replaced: the
names of the machine (`host`), its processor (`a processor`) and its folder (`FOLDER`).  And the processes that were
killed were last seen long ago.

The samples in `0.1.0-early` are of earlier commits of the same version, each in a folder of the commit's name:

    git worktree add ELSEWHERE COMMIT
    cd 0.1.0-early/COMMIT
    OMP_NUM_THREADS=1 PYTHONPATH=ELSEWHERE/src python -m phosphene.cli COMMAND…

    0d52fd0  classes flamingo -r tence --size 32 --steps 4 -o .
    b41472e  classes flamingo -r tence --size 32 --steps 4 -o .
    16f7c08  classes flamingo -r natural --size 32 --steps 4 --facets 2 -o .
    beaefe1  classes flamingo -r natural --size 32 --steps 4 -o .
    02bb5f0  atlas plan atlas --classes 0 --layers bn1.act --count 2 --size 32 --steps 4; atlas run atlas
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fingerprint import fingerprint  # noqa: E402

SAMPLES = HERE / "0.1.0"
CHANNEL = "blocks.3.0.bn2.act:12"
SMALL = ("--size", "32", "--steps", "4", "--precision", "fp32", "--device", "cpu")
OWN = ("-n", "given/net.py:make", "--weights", "given/weights.safetensors")
LAYER = "blocks.0.0.bn1.act"
ATLAS = f"--classes 0-1 --layers {LAYER} --count 2 --size 32 --steps 4 --frames 2".split()

GIVEN = {
    "net.py": """\
        \"\"\"A network of a user's own: five classes, no batch normalization.\"\"\"

        from torch import nn


        def make():
            return nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 6, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(6, 6, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(6, 5),
            )
        """,
    "net.toml": """\
        mode = "torch"
        size = [24, 24]
        mean = [0.5, 0.45, 0.4]
        std = 0.25
        value_range = [0.0, 255]
        channel_order = "BGR"
        crop = 0.875
        labels = ["cat", "dog, puppy", "owl", "horse", "sea horse"]
        """,
    "recipe.toml": """\
        name = "mine"
        description = "All kinds of fields"
        steps = 6
        size = [32, 36]
        order = ["clip", "median", "decay", "blur", "small_norm", "small_contribution", "total_variation"]
        optimizer = {name = "adam", rate = 2.5, gradient = "rms", options = {betas = [0.9, 0.99]}}
        start = {kind = "uniform", low = 90.0, high = 160.0}
        schedule = {kind = "linear", end = 0.3}
        growth = {sizes = [0.5, 1.0], at = [0.0, 0.5]}
        keep = {every = 2, contrast = 0.2}
        [views]
        count = 2
        crop = [0.5, 1.0]
        rotate = 5.0
        jitter = 2.0
        [priors.total_variation]
        weight = 3.0
        [priors.norm]
        weight = 0.5
        power = 6.0
        [median]
        size = 3
        every = 2
        [decay]
        strength = 0.01
        [hidden]
        "views.count" = 1
        [networks.other]
        "optimizer.rate" = 1.5
        [networks."efficientnet_lite0"]
        "optimizer.rate" = 4.0
        """,
    "base.toml": """\
        name = "weak"
        steps = 4
        size = 32
        optimizer = {name = "classic", rate = 0.5, gradient = "rms"}
        clip = {}
        """,
    "space.toml": """\
        base = "base.toml"
        [fields]
        "optimizer.rate" = { low = 8.0, high = 30.0, log = true }
        "views.crop" = { choices = [[0.5, 1.0], [1.0, 1.0]] }
        "median.size" = { choices = [0, 3] }
        "schedule.end" = { low = 0.0, high = 0.5, when = { "schedule.kind" = ["linear"] } }
        "schedule.kind" = { choices = ["constant", "linear"] }
        """,
}


def main() -> None:
    """Make all samples of this version anew."""
    shutil.rmtree(SAMPLES, ignore_errors=True)
    SAMPLES.mkdir()
    os.chdir(SAMPLES)
    os.environ |= PLACES
    platform.node = lambda: "host"
    torch.set_num_threads(1)
    _given()
    _statistics()
    _images()
    _images_of_own_network()
    _recipes()
    _searches()
    _atlases()
    _remembered()
    Path("commands.txt").write_text("\n".join(_said) + "\n", encoding="utf-8")
    Path("fingerprint.json").write_text(json.dumps(fingerprint(), indent=1) + "\n", encoding="utf-8")


PLACES = {
    "PHOSPHENE_RECIPES": "tuned",
    "PHOSPHENE_STATISTICS": "statistics",
    "PHOSPHENE_NETWORKS": "remembered/networks.json",
    "XDG_CACHE_HOME": "cache",
}
_said = [f"export {' '.join(f'{name}={place}' for name, place in PLACES.items())}"]


def run(*arguments: str, quiet: bool = True) -> None:
    """Run a command as a user does, and note it."""
    from phosphene.cli import main as phosphene

    _said.append(f"phosphene {shlex.join(arguments)}")
    if phosphene([*arguments, *(["-q"] if quiet else [])]):
        raise SystemExit(f"failed: {_said[-1]}")


def make(verb: str, *arguments: str, out: str, run_data: bool = False) -> None:
    """Make images into a folder, of which the images stay, and `run.json` where it is asked for."""
    folder = Path("images") / out
    run(verb, *arguments, "-o", str(folder))
    for name in ("grid.png", "objective.png", *([] if run_data else ["run.json"])):
        (folder / name).unlink()


def _given() -> None:
    Path("given/photographs").mkdir(parents=True)
    for name, text in GIVEN.items():
        lines = (line.removeprefix(" " * 8) for line in text.splitlines())
        Path("given", name).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    random = np.random.default_rng(0)
    down, across = np.mgrid[:40, :48]
    for i, name in enumerate(("a", "b", "c")):
        colors = [np.sin(down / (3 + i) + across / (4 + channel)) for channel in range(3)]
        pixels = 128 + 80 * np.stack(colors, 2) + random.normal(0, 8, (40, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f"given/photographs/{name}.png")
    torch.manual_seed(0)
    sys.path.insert(0, "given")
    from net import make as own  # type: ignore[import-not-found]

    module: nn.Module = own()
    save_file(module.state_dict(), "given/weights.safetensors")


def _statistics() -> None:
    run("statistics", "given/photographs", "-o", "statistics/photographs.safetensors")
    run("statistics", "given/photographs", *OWN)


def _images() -> None:
    make("classes", "flamingo", "teddy", *SMALL, out="classes", run_data=True)
    judged = ("--judges", "lite1,lite2", "--photographs", "given/photographs")
    run("judge", "images/classes/130_flamingo.png", *judged)
    units = [CHANNEL, f"{CHANNEL}@0,1", f"class:flamingo - 0.5*{CHANNEL}", f"mean({CHANNEL})"]
    make("filters", *units, *SMALL, out="filters")
    make("filters", "conv_stem", "--whole", *SMALL, out="whole")
    make("classes", "flamingo", "--facets", "2", "-r", "draft", *SMALL, out="facets")
    make("classes", "flamingo", "--with", "efficientnet_lite1", *SMALL, out="ensemble")
    make("classes", "flamingo", "--best-of", "2", "--choosers", "lite1", *SMALL, out="best")
    for verb in ("dream", "invert", "caricature"):
        make(verb, "given/photographs/a.png", "blocks.1.0.bn1.act", *SMALL, out=verb)
    make("classes", "flamingo", "-r", "given/recipe.toml", "--precision", "fp32", out="recipe")
    make("filters", CHANNEL, "-r", "given/recipe.toml", "--precision", "fp32", out="recipe-hidden")
    make("classes", "flamingo", "-r", "maco", "--set", "keep.transparency=true", *SMALL, out="maco")
    colors = "canvas.colours=statistics/photographs.safetensors"
    make("classes", "flamingo", "-r", "draft", "--set", colors, *SMALL, out="colors")
    run("reproduce", "clip", "-n", "efficientnet_lite0", "--classes", "flamingo", *SMALL, "-o", "figure")
    _keep_only("figure", "figure.json")
    _changed_on_the_way("images/changed")


def _changed_on_the_way(folder: str) -> None:
    """An image as the studio keeps it: its recipe was changed on the way, and it was stopped."""
    import phosphene

    changes = {2: {"optimizer.rate": 0.3, "priors.statistics.weight": 20.0}, 3: {"views.crop": [0.6, 0.9]}}

    def on_step(step):  # type: ignore[no-untyped-def]
        return None if step.step == 5 else step.recipe.changed(changes.get(step.step, {}))

    _said.append(f"# {folder}: phosphene.ascend(…, on_step=…), as the studio changes a recipe on the way: {changes}")
    recipe = phosphene.Recipe.load("draft").changed({"steps": 9, "size": 32})
    network = phosphene.open("efficientnet_lite0")
    (picture,) = phosphene.ascend(network, "class:flamingo", recipe, seed=5, on_step=on_step, precision="fp32")
    picture.save(folder)


def _images_of_own_network() -> None:
    small = ("--steps", "4", "--precision", "fp32")
    make("classes", "cat", *OWN, *small, out="own")  # natural, which pulls towards the statistics that were gathered
    make("filters", "0:[1,0,-0.5,0.1]", *OWN, *small, out="own-direction")


def _recipes() -> None:
    """What the user is shown of every recipe that ships, and may keep."""
    from phosphene.recipe import recipe_names

    Path("recipes").mkdir()
    for name in recipe_names():
        with open(f"recipes/{name}.toml", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            run("recipes", name, quiet=False)
        _said[-1] += f" > recipes/{name}.toml"


_SEARCHED = ("--space", "given/space.toml", "--count", "2", "--seed", "3", "--pruner", "none", "-o", "search")


def _searches() -> None:
    """Two searches in one journal; the second was killed while its fourth trial was made."""
    run("search", "--trials", "2", "--judges", "lite1", *_SEARCHED)
    run("search", "--layer", LAYER, "--trials", "3", *_SEARCHED)
    make("filters", f"{LAYER}:2", "--precision", "fp32", out="tuned")  # by the recipe that was found
    _killed(
        f"phosphene.search(phosphene.open('efficientnet_lite0'), '{LAYER}', space='given/space.toml', count=2, "
        "trials=4, seed=3, pruner='none', out='search', on_progress=kill)"
    )
    journal = Path("search/searches.journal")
    journal.write_text(re.sub(r'"seen":[\d.]+', '"seen":1700000000.0', journal.read_text()))


def _atlases() -> None:
    """One that is whole, with its page and an image from the studio, and one whose run was killed."""
    run("atlas", "plan", "atlas", *ATLAS, "--judges", "lite1")
    run("atlas", "run", "atlas")
    _kept_by_the_studio("atlas")
    run("atlas", "site", "atlas", "--photographs", "given/photographs")
    for name in ("app.js", "style.css"):  # as they are in the program
        next(Path("atlas/site").rglob(name)).unlink()
    small = ("--facets", "2", "--frames", "0", "--steps", "4", "--judges", "none")
    run("atlas", "plan", "atlas-own", *OWN, "--classes", "all", "--layers", "0", *small)
    _killed("threading.Thread(target=kill_at_work).start(); phosphene.atlas.run('atlas-own', lease=1.0)")
    for path in Path("atlas-own/claims").glob("*.run"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "0" * 16}))
    plan = Path("atlas-own/atlas.json")
    plan.write_text(plan.read_text().replace(str(SAMPLES), "FOLDER"))
    for path in Path("atlas-own").rglob("*.png"):
        _say_folder(path)


def _say_folder(path: Path) -> None:
    """Have an image say `FOLDER` in place of this folder; its pixels and all else in it stay."""
    from phosphene.provenance import KEY, with_provenance

    with Image.open(path) as image:
        said = json.loads(image.text[KEY].replace(str(SAMPLES), "FOLDER"))  # type: ignore[attr-defined]
    path.write_bytes(with_provenance(path.read_bytes(), said))


def _kept_by_the_studio(place: str) -> None:
    """A second image of a class, by another recipe than the plan's, as the studio keeps it in an atlas."""
    import phosphene
    from phosphene.atlas import Store
    from phosphene.studio import worker

    _said.append(f"# {place}: an image of the class 1 by tence was kept in it by the studio")
    recipe = phosphene.Recipe.load("tence").changed({"steps": 4, "size": 32})
    (picture,) = phosphene.ascend(phosphene.open("efficientnet_lite0"), "class:1", recipe, precision="fp32")
    worker.keep_in_atlas(picture, Store(place), worker._group(picture))


def _remembered() -> None:
    """What the program keeps for itself: how networks of one's own were opened, and which precision is faster."""
    known = Path("remembered/networks.json")
    known.write_text(known.read_text().replace(str(SAMPLES), "FOLDER"))
    run("classes", "flamingo", "--steps", "1", "-r", "tence", "-o", "remembered/images")
    shutil.rmtree("remembered/images")
    measured = json.loads(Path("cache/phosphene/precision.json").read_text())
    plain = {"a processor," + key.partition(",")[2]: value for key, value in measured.items()}
    Path("remembered/precision.json").write_text(json.dumps(plain, indent=1))
    shutil.rmtree("cache")


def _killed(call: str) -> None:
    """Call something in a process that kills itself as soon as there is progress."""
    code = f"""
import os, platform, signal, threading, time, torch
from pathlib import Path
platform.node = lambda: "host"
torch.set_num_threads(1)
import phosphene
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def kill_at_work():
    here = Path("atlas-own")
    while not (list(here.glob("claims/*-*")) and len(list(here.glob("images/*/*/0*.png"))) > 2):
        time.sleep(0.001)
    kill()
{call}
"""
    _said.append(f"# {call}\n# which killed itself (SIGKILL) when it had begun")
    ended = subprocess.run([sys.executable, "-c", code]).returncode
    assert ended == -9, ended


def _keep_only(folder: str, *names: str) -> None:
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.name not in names:
            path.unlink()


if __name__ == "__main__":
    main()
