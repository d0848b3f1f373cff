"""What a kill costs an atlas, and what it costs to keep units one by one and to share them out.  For docs/atlas.md.

    python bench/atlas_kills.py kills      # two runs at once on a tiny network, one killed 30 times; a Markdown table
    python bench/atlas_kills.py overhead   # the same atlas by this and by another version (--than SRC): the ratio

A kill is SIGKILL at a random moment at which units were finished that were not at the kill before.  Counted are units
whose image was whole in its place: whether any is gone or was made again afterwards, how many were in work at the kill
and are lost, and whether `atlas index` finds just what is there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import phosphene
from phosphene import Recipe
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import work as atlas_work
from phosphene.atlas.claims import Claims
from phosphene.atlas.rows import file_name
from phosphene.atlas.store import Store

NET = """
import torch
from torch import nn

def make():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, {units}, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({units}, 5),
        )
"""


def planned(folder: Path, name: str, units: int, steps: int, size: int = 16, frames: int = 2) -> Store:
    (folder / "net.py").write_text(NET.format(units=units))
    (folder / "net.toml").write_text(f"size = {size}\nmean = 0.5\nstd = 0.25\n")
    network = phosphene.open(f"{folder / 'net.py'}:make")
    recipe = Recipe.load("clip").override({"steps": steps, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    store = Store(folder / name)
    groups = atlas_plan.make_groups(network, layers=["2"], recipe=recipe)
    store.write_plan(atlas_plan.make_plan(network, groups, judges=[], frames=frames))
    return store


def images(store: Store) -> dict[str, int]:
    """Every image in its place, and when it was written."""
    found = {}
    for path in Path(store.root, "images").rglob("*.png"):
        found[str(path.relative_to(store.root))] = path.stat().st_mtime_ns
    return found


def begun(place: str) -> Any:
    """A run in a process of its own, forked of one that has torch imported and has run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["phosphene.atlas.work", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "pyarrow.parquet"]
    )
    process = context.Process(target=_run, args=(place,))
    process.start()
    return process


def _run(place: str) -> None:
    torch.set_num_threads(1)
    atlas_work.run(place)


def in_work(store: Store, process: int, there: dict[str, int]) -> int:
    """How many units a killed run had claimed and not finished."""
    runs = {
        name.removesuffix(".run")
        for name in store.names("claims")
        if name.endswith(".run") and json.loads(store.read(f"claims/{name}"))["process"][0] == process
    }
    claimed = [name for name in store.names("claims") if not name.endswith(".run")]
    mine = [name for name in claimed if store.read(f"claims/{name}").decode() in runs]
    indices = {int(name.partition(".")[0].partition("-")[2]) for name in mine}
    return sum(file_name("2", index, 0) not in there for index in indices)


def kills(count: int, units: int, steps: int) -> bool:
    """Print the table; whether no finished unit was lost or made twice, and every index equals the files."""
    draw = random.Random(11)
    print("| kill | after s | finished before | of them lost | in work, lost | made twice | index = files |")
    print("|---|---|---|---|---|---|---|")
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        store = planned(Path(folder), "a", units, steps)
        trial = begun(store.place)
        while not images(store):
            time.sleep(0.01)
        trial.kill()
        trial.join()
        finished = images(store)
        for number in range(1, count + 1):
            process, clock, more = begun(store.place), time.monotonic(), draw.randint(1, 40)
            while len(images(store)) < len(finished) + more:  # units are to be finished before
                assert process.is_alive(), "all are made: expected more units or fewer kills"
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.2))
            process.kill()
            process.join()
            after = time.monotonic() - clock
            now = images(store)
            work = in_work(store, process.pid, now)
            rebuilt = store.rebuild()
            indexed = {row["file"] for row in store.rows()}
            lost = len(finished.keys() - now.keys())
            twice = sum(name in now and now[name] != written for name, written in finished.items())
            whole = indexed == now.keys() and not rebuilt.left_out and store.verify() == []
            fine = fine and not lost and not twice and whole
            print(
                f"| {number} | {after:.2f} | {len(now)} | {lost} | {work} | {twice} | {'yes' if whole else 'no'} |",
                flush=True,
            )
            finished = now
        two = [begun(store.place) for _ in range(2)]
        for process in two:
            process.join()
        now = images(store)
        again = sum(now.get(name) != written for name, written in finished.items())
        left = store.names("claims")
        print(
            f"\nThen two runs at once made the other {len(now) - len(finished)} of {units}; {again} made twice, ",
            end="",
        )
        print(f"{len(store.verify())} damaged, {len(store.rows())} in the index, {len(left)} claims left.")
        return fine and len(now) == units and not again and not left


RUN = """
import json, sys, time
import torch
torch.set_num_threads(1)
from phosphene.atlas import work
clock, core = time.perf_counter(), time.process_time()
work.run(sys.argv[1])
print(json.dumps([time.perf_counter() - clock, time.process_time() - core]))
"""


def overhead(than: str, units: int, steps: int, size: int, turns: int) -> None:
    """Print the time of an atlas by this version over that by another, in turns; core seconds, and on the clock."""
    here = str(Path(phosphene.__file__).resolve().parents[1])
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            times = {}
            for source in (than, here)[:: 1 if turn % 2 else -1]:
                store = planned(Path(folder), f"{turn}-{source == here}", units, steps, size, frames=8)
                told = subprocess.run(
                    [sys.executable, "-c", RUN, store.place],
                    env=os.environ | {"PYTHONPATH": source}, check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                times[source] = json.loads(told.stdout)
            ratios.append([ours / theirs for ours, theirs in zip(times[here], times[than], strict=True)])
            print(f"| {turn + 1} | {ratios[-1][0]:.3f} | {ratios[-1][1]:.3f} |", flush=True)
    clock, core = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"median: {clock:.3f} on the clock, {core:.3f} of core seconds")


def claims(units: int = 32, turns: int = 20) -> None:
    """Print what it takes to claim a piece's units and to give them back."""
    with tempfile.TemporaryDirectory() as folder, Claims(Store(folder)) as mine:
        clock = time.perf_counter()
        for turn in range(turns):
            mine.take("2", range(turn * units, (turn + 1) * units))
            mine.release(list(mine.held))
        print(f"claims of {units} units, taken and given back: {1000 * (time.perf_counter() - clock) / turns:.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=["kills", "overhead"])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--units", type=int, help="of the layer (4000; overhead: 64)")
    parser.add_argument("--steps", type=int, help="of an image (60; overhead: 200)")
    parser.add_argument("--size", type=int, default=64, help="of the images, for overhead")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--than", metavar="SRC", help="the folder `src` of the version to compare with")
    args = parser.parse_args()
    if args.what == "kills":
        return 0 if kills(args.kills, args.units or 4000, args.steps or 60) else 1
    if not args.than:
        parser.error("overhead needs --than SRC")
    claims()
    overhead(args.than, args.units or 64, args.steps or 200, args.size, args.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
