"""What atlases of many networks cost, and what gives way first.  For docs/scale.md.

    python bench/scale.py measure          # about ten minutes; --quick: two
    python bench/scale.py cost queue       # from what was measured; needs no time of the machine's
    python bench/scale.py check            # the simulation beside real runs

- measure: in one run, the times and sizes of everything an atlas is made of, into OUT/scale.json.  Times are core
  seconds, which others at work on the machine change little; what is waited for (disk, Ray) is on the clock.
- cost: the arithmetic for NETWORKS of UNITS each.
- queue: a simulation of makers at work, from the measured times: how much of their time the accelerators work, how long
  all takes, and what is saturated.
- check: runs `atlas run` with one and two makers, one of them killed, and says how far off the simulation is.

Needs simpy (the simulation) and, for the hand-out on Ray, ray.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import simpy
import torch
from fsspec.asyn import AsyncFileSystem
from torch.utils.flop_counter import FlopCounterMode

import phosphene
from phosphene import Recipe
from phosphene.ascent.forecast import Forecast
from phosphene.ascent.preparation import LARGEST_BATCH
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import ray_pool
from phosphene.atlas import site as atlas_site
from phosphene.atlas import work as atlas_work
from phosphene.atlas import worker as atlas_worker
from phosphene.atlas.missing import WorkItem, missing_work
from phosphene.atlas.plan import make_groups
from phosphene.atlas.rows import file_name
from phosphene.atlas.run_progress import RunProgress
from phosphene.atlas.status import status
from phosphene.atlas.store import Store
from phosphene.judges import judge as judge_module
from phosphene.judges.judge import judge
from phosphene.networks.network import Network
from phosphene.units.objects import shows_classes

UNITS = 10_000  # of a network
NETWORKS = 10_000
PIECES = -(-UNITS // LARGEST_BATCH)

# Others' figures, none of them measured here.  Requests a second of a partitioned prefix, as Amazon S3's documentation
# gives them ("Best practices design patterns: optimizing Amazon S3 performance"); of a request's latency it says tens
# of milliseconds for small objects, at the median ("Timeouts and retries for latency-sensitive applications").
WRITE_LIMIT, READ_LIMIT = 3500.0, 5500.0
LATENCY = 0.05
# Of an H100 SXM in fp32 without tensor cores, operations a second as its maker gives them; and the share of them that
# we suppose a step reaches: two cores here reach a fifth of theirs.
GPU_PEAK, GPU_SHARE = 67e12, 0.2
CORES = 8  # of a machine, for each of its GPUs; also supposed

Measured = dict[str, Any]


# An object store.


class Far(AsyncFileSystem):
    """Objects in memory, asked for as an object store's are: each request takes `latency` seconds, any number at once.

    Attributes:
        objects: by path.
        requests: how many of each kind; a listing counts for every thousand names.
        latency: seconds.
    """

    protocol = "far"
    objects: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[Counter[str]] = Counter()
    latency: ClassVar[float] = 0.0

    @classmethod
    def empty(cls, latency: float = 0.0) -> None:
        cls.objects.clear()
        cls.requests.clear()
        cls.latency = latency

    async def asked(self, kind: str, count: int = 1) -> None:
        Far.requests[kind] += count
        await asyncio.sleep(count * Far.latency)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        await self.asked("PUT")
        self.objects[self._strip_protocol(path)] = bytes(value)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        await self.asked("GET")
        return self.found(path)[start:end]

    async def _rm_file(self, path: str, **_: Any) -> None:
        await self.asked("DELETE")
        self.found(path)
        del self.objects[self._strip_protocol(path)]

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        await self.asked("HEAD")
        path = self._strip_protocol(path)
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        return {"name": path, "size": len(self.found(path)), "type": "file"}

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        head = f"{self._strip_protocol(path)}/"
        below = [name.removeprefix(head).split("/") for name in self.objects if name.startswith(head)]
        await self.asked("LIST", max(1, -(-len(below) // 1000)))
        if not below:
            raise FileNotFoundError(path)
        kinds = {f"{head}{first}": "directory" if rest else "file" for first, *rest in below}
        return [{"name": name, "size": 0, "type": kind} for name, kind in kinds.items()] if detail else list(kinds)

    def found(self, path: str) -> bytes:
        try:
            return self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None


fsspec.register_implementation("far", Far, clobber=True)


# What is measured.


class Clock:
    """Seconds of what is done under it: on the clock, and of all cores by this process."""

    def __enter__(self) -> Clock:
        self.began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.began[0]
        self.core = time.process_time() - self.began[1]


def measure(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    network = phosphene.open(args.network)
    found: Measured = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "network": network.name,
    }

    def keep(part: str, value: Any) -> None:
        found[part] = value
        print(f"{part}: {json.dumps(value)}", flush=True)
        (args.out / "scale.json").write_text(json.dumps(found, indent=1))

    keep("floor", {count: floor(count, args) for count in (8, LARGEST_BATCH)})
    keep("operations", {name: operations_of(name, args) for name in args.others})
    for name in args.recipes:
        for label, units in units_of(network, args).items():
            keep(f"{name}, {label}", step_of(network, units, recipe_of(name, args), args))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep("piece", piece(network, folder, args))
        keep("opening", opening(folder))
        keep("index", [index(folder, count) for count in args.rows])
    if find_spec("ray") is not None and not args.quick:
        keep("ray", hand_out())


def recipe_of(name: str, args: argparse.Namespace, **changes: Any) -> Recipe:
    return Recipe.load(name).override({**changes, **({"size": 96} if args.quick else {})})


def units_of(network: Network, args: argparse.Namespace) -> dict[str, list[str]]:
    """A full batch of classes, and one of a layer halfway through the network."""
    layer, rows = middle(network), range(LARGEST_BATCH)
    return {"classes": [f"class:{i}" for i in rows], f"channels of {layer}": [f"{layer}:{i}" for i in rows]}


def middle(network: Network) -> str:
    layers = [layer.name for layer in network.layers if layer.channels >= LARGEST_BATCH]
    return layers[len(layers) // 2]


def step_of(network: Network, units: Sequence[str], recipe: Recipe, args: argparse.Namespace) -> Measured:
    """Core seconds of a step, an image, in a full batch; what comes once an image; and operations of a step."""
    phosphene.ascend(network, units, recipe.override({"steps": 1}))
    costs = []
    for count in (1, 1 + args.steps):
        with Clock() as clock:
            result = phosphene.ascend(network, units, recipe.override({"steps": count}))
        costs.append(clock.core / len(units))
    step = (costs[1] - costs[0]) / args.steps
    few = list(result)[:8]
    with Clock() as clock:
        judge(few, None if shows_classes(few[0].unit) else [], network=result.network)
    return {
        "steps": recipe.steps,
        "step": step,
        "once": max(0.0, costs[0] - step),
        "score": clock.core / len(few),
        "operations": operations(network, units[:2], recipe),
    }


def operations(network: Network, units: Sequence[str], recipe: Recipe) -> float:
    """Floating-point operations of a step, an image."""
    counts = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            phosphene.ascend(network, units, recipe.override({"steps": steps}))
        counts.append(counter.get_total_flops() / len(units))
    return float(counts[1] - counts[0])


def operations_of(name: str, args: argparse.Namespace) -> float:
    """Of a network of random weights, on which they do not depend."""
    torch.manual_seed(0)  # with other weights a unit may be dead
    return operations(phosphene.open(name, pretrained=False), ["class:1", "class:2"], recipe_of("draft", args))


def floor(rows: int, args: argparse.Namespace) -> float:
    """Core seconds of a step of `draft` with so many rows, on a network that costs next to nothing."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, stride=4), torch.nn.ReLU())
    network = phosphene.open(module, phosphene.Preprocessing(size=32, mean=0.5, std=0.25))
    units, recipe = [f"1:{i}" for i in range(rows)], Recipe.load("draft").for_network("none")
    times = []
    for count in (1, 1, 1 + 10 * args.steps):
        with Clock() as clock:
            phosphene.ascend(network, units, recipe.override({"steps": count, "size": 32}))
        times.append(clock.core)
    return (times[2] - times[1]) / (10 * args.steps)


def piece(network: Network, folder: Path, args: argparse.Namespace) -> Measured:
    """A piece made for an object store, and its images kept again and again: there, later, and in a folder."""
    Far.empty()
    recipe = recipe_of("draft", args, **({"steps": 2} if args.quick else {}))
    plan = atlas_plan.make_plan(network, make_groups(network, layers=[middle(network)], recipe=recipe), frames=0)
    given = missing_work(plan, [])[0]
    Store("far://atlas").write_plan(plan)
    maker = atlas_worker.Worker("far://atlas")
    with recorded(atlas_worker, "ascend") as made, recorded(judge_module, "judge") as cards:
        Far.requests.clear()
        maker.make(given)
    cost: Measured = {"requests": dict(Far.requests)}
    with replayed(atlas_worker, "ascend", made[0]), replayed(judge_module, "judge", cards[0]):
        times: dict[float, list[Clock]] = {0.0: [], LATENCY: []}
        for latency in 3 * list(times):  # in turns
            Far.empty(latency)
            Store("far://atlas").write_plan(plan)
            with Clock() as clock:
                maker.make(given)
            times[latency].append(clock)
        quick, slow = (min(clock.wall for clock in clocks) for clocks in times.values())
        cost |= {
            "keep": min(clock.core for clock in times[0.0]),
            "keep, wall": quick,
            "waits": (slow - quick) / LATENCY,
        }
        rows = Store("far://atlas").rows()
        cost["bytes"] = sum(row["bytes"] for row in rows) / len(rows)
        cost["part"] = sum(len(data) for name, data in Far.objects.items() if name.endswith(".parquet"))
        store = Store(folder / "piece")
        store.write_plan(plan)
        local = atlas_worker.Worker(store.place)
        with Clock() as clock:
            local.make(given)
        cost["keep, folder"] = clock.wall
    with Clock() as clock:
        for row in rows:
            store.row_of(row["file"])
    cost["rebuild"] = clock.core / len(rows)
    with Clock() as clock:
        atlas_site.write_site(store)
    cost["site"] = clock.core / len(rows)
    cost["site's bytes"] = sum(path.stat().st_size for path in (folder / "piece/site").rglob("sheet*")) / len(rows)
    cost["site's data"] = sum(path.stat().st_size for path in (folder / "piece/site").rglob("units-*")) / len(rows)
    return cost


@contextlib.contextmanager
def recorded(owner: Any, name: str) -> Iterator[list[Any]]:
    """What a function gives while this lasts."""
    real, given = getattr(owner, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        given.append(real(*arguments, **options))
        return given[-1]

    setattr(owner, name, call)
    try:
        yield given
    finally:
        setattr(owner, name, real)


@contextlib.contextmanager
def replayed(owner: Any, name: str, value: Any) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, lambda *_, **__: value)
    try:
        yield
    finally:
        setattr(owner, name, real)


def opening(folder: Path) -> Measured:
    """A maker in a new process: Python and torch, and then its network and judges."""
    code = (
        "import json, sys, time; clock = time.process_time; from phosphene.atlas import worker; import torch; "
        "torch.set_num_threads(1); begun = clock(); worker.Worker(sys.argv[1]); "
        "print(json.dumps({'begin': begun, 'open': clock() - begun}))"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder / "piece")], stdout=subprocess.PIPE, text=True, check=True
        )
        times.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {name: statistics.median(each[name] for each in times) for name in times[0]}


def index(folder: Path, count: int) -> Measured:
    """An index of so many rows in parts of a batch each: written, read, asked how far it is, and put together."""
    kept = Store(folder / "piece")
    rows, plan = kept.rows(), kept.plan()
    draw = random.Random(0)
    store = Store(folder / f"index-{count}")
    group = plan.groups[0]
    store.write_plan(replace(plan, groups=[replace(group, indices=list(range(count)))]))
    made = [
        rows[i % len(rows)]
        | {"index": i, "file": file_name(group.name, i, 0), "sha256": f"{draw.getrandbits(256):064x}"}
        | {"curve": [draw.gauss(0, 10) for _ in range(40)]}
        for i in range(count)
    ]
    with Clock() as clock:
        for first in range(0, count, LARGEST_BATCH):
            store.add(made[first : first + LARGEST_BATCH])
    parts = len(store.parts())
    cost = {"rows": count, "parts": parts, "commit": clock.wall / parts, "bytes": bytes_of(store) / count}
    with Clock() as clock:
        store.rows()
    cost["read"], cost["read, wall"] = clock.core, clock.wall
    with Clock() as clock:
        status(store.place)
    cost["status"] = clock.core
    with Clock() as clock:
        store.merge()
    cost["compact"] = clock.core
    with Clock() as clock:
        store.rows()
    cost |= {"compacted, bytes": bytes_of(store) / count, "compacted, read": clock.core}
    return cost


def bytes_of(store: Store) -> int:
    return sum(Path(path).stat().st_size for path in store.parts())


class Idle:
    """A maker on Ray that has nothing to do."""

    def __init__(self, *_: Any) -> None:
        pass

    def make(self, group: str, indices: tuple[int, ...]) -> tuple[int, bool, str]:
        if group == "never":
            time.sleep(3600)
        return len(indices), False, ""


def hand_out(pieces: int = 1000, crowd: Sequence[int] = (0, 100, 1000, 4000)) -> Measured:
    """A piece given and reported on a local Ray of two makers, among so many others that are at work.

    Core seconds of the driver, and seconds on the clock.
    """
    import ray

    # Its makers are as nice as this process, or others at work on the machine would be measured.
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
    }
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    real, ray_pool.RayWorker = ray_pool.RayWorker, Idle  # type: ignore[assignment,misc]
    try:
        pool = ray_pool.RayPool("", "local", 2)
        busy = ray.remote(num_cpus=1)(Idle).remote()
        given = [WorkItem("classes", tuple(range(i, i + LARGEST_BATCH))) for i in range(pieces)]
        drive(pool, given[:50])
        cost = {}
        for count in crowd:
            others = [busy.make.remote("never", ()) for _ in range(count - len(pool.busy))]
            pool.busy |= dict.fromkeys(others, (busy, given[0]))
            few = given if count < 1000 else given[:200]
            with Clock() as clock:
                drive(pool, few)
            cost[str(count)] = {"driver": clock.core / len(few), "round trip": clock.wall / len(few)}
        return cost
    finally:
        ray_pool.RayWorker = real  # type: ignore[misc]
        ray.shutdown()


def drive(pool: Any, pieces: Sequence[WorkItem]) -> None:
    given = deque(pieces)

    class Unclaimed:
        """The pieces alone, since what is measured is their way to Ray and back."""

        is_finished = property(lambda self: not given)

        def claim_next(self) -> WorkItem | None:
            return given.popleft() if given else None

        def mark_done(self, piece: WorkItem) -> None:
            pass

    progress = RunProgress({}, 0, len(given), Forecast(len(given), 0))
    atlas_work.Run(Unclaimed(), threading.Event(), progress).work_with(pool)  # type: ignore[arg-type]


# The queue, simulated.


@dataclass(frozen=True)
class Setting:
    """Makers at work; times in seconds.

    Attributes:
        makers: how many, each with an accelerator.
        tasks: what is handed out, of so many `pieces` each: an atlas, or one piece of the only atlas there is.
        apart: whether each task has a network of its own.
        work: the accelerator's, for a piece; `spread` is the standard deviation of its logarithm.
        idle: what a piece takes while the accelerator has nothing to do: score cards, PNGs and waiting for requests.
        opening: of a network; `restart`: of a new process.
        hand, hand_each: the driver's for a task, and more for every maker at work.
        reads, writes: requests of a piece; at most `read_limit` and `write_limit` a second of each of the `prefixes`.
        life: after which a maker is lost, at the mean.
        slow: the share of makers that take `slowness` times as long.
    """

    makers: int
    tasks: int
    pieces: int = 1
    apart: bool = False
    work: float = 1.0
    spread: float = 0.0
    idle: float = 0.0
    opening: float = 0.0
    restart: float = 0.0
    hand: float = 0.0
    hand_each: float = 0.0
    reads: int = 0
    writes: int = 0
    read_limit: float = READ_LIMIT
    write_limit: float = WRITE_LIMIT
    prefixes: int = 1
    life: float = math.inf
    slow: float = 0.0
    slowness: float = 3.0


@dataclass
class Outcome:
    """How it went.

    Attributes:
        seconds: until all was made.
        utilisation: the share of their time that the accelerators work for pieces that are finished; of a slow one
            what another would take counts.
        driver, prefix: the share of the time in which the driver, and the busiest prefix, had something to do.
        requests: of all makers, a second.
        lost: pieces that were begun and lost.
    """

    seconds: float
    utilisation: float
    driver: float
    prefix: float
    requests: float
    lost: int


class Line:
    """Serves one after another: who comes waits until those who came before are served."""

    def __init__(self) -> None:
        self.free = self.busy = 0.0

    def wait(self, now: float, service: float) -> float:
        """Seconds until served."""
        self.free = max(now, self.free) + service
        self.busy += service
        return self.free - now


def simulate(setting: Setting, seed: int = 0, kills: Sequence[float] = ()) -> Outcome:
    """A run with a seed; at each moment of `kills` the first maker is lost, besides those that are lost by chance."""
    env, draw = simpy.Environment(), random.Random(seed)
    left = deque([task, setting.pieces] for task in range(setting.tasks))
    driver = Line()
    reading, writing = ([Line() for _ in range(setting.prefixes)] for _ in range(2))
    ended, back = env.event(), [env.event()]
    done = {"pieces": 0, "work": 0.0, "lost": 0}

    def maker(speed: float) -> Generator[simpy.Event, Any, None]:
        opened: int | None = None
        while True:
            task: list[int] | None = None
            try:
                while not left:
                    yield back[0]
                task = left.popleft()
                yield env.timeout(driver.wait(env.now, setting.hand + setting.hand_each * setting.makers))
                if opened != (task[0] if setting.apart else 0):
                    opened = task[0] if setting.apart else 0
                    yield env.timeout(setting.opening)
                place = task[0] % setting.prefixes
                while task[1]:
                    yield env.timeout(reading[place].wait(env.now, setting.reads / setting.read_limit))
                    seconds = speed * setting.work * draw.lognormvariate(-(setting.spread**2) / 2, setting.spread)
                    yield env.timeout(seconds + setting.idle)
                    yield env.timeout(writing[place].wait(env.now, setting.writes / setting.write_limit))
                    task[1] -= 1
                    done["pieces"] += 1
                    done["work"] += seconds / speed
                if done["pieces"] == setting.tasks * setting.pieces:
                    ended.succeed()
                    return
            except simpy.Interrupt:
                opened = None
                if task is not None:
                    done["lost"] += 1
                    left.appendleft(task)
                    back[0].succeed()
                    back[0] = env.event()
                yield env.timeout(setting.restart)

    def end(process: simpy.Process) -> Generator[simpy.Event, Any, None]:
        while True:
            yield env.timeout(draw.expovariate(1 / setting.life))
            process.interrupt()
            yield env.timeout(setting.restart)

    def kill(process: simpy.Process) -> Generator[simpy.Event, Any, None]:
        for moment in kills:
            yield env.timeout(moment - env.now)
            process.interrupt()

    for number in range(setting.makers):
        process = env.process(maker(setting.slowness if number < int(setting.slow * setting.makers) else 1.0))
        if setting.life < math.inf:
            env.process(end(process))
        if not number:
            env.process(kill(process))
    env.run(until=ended)
    pieces = setting.tasks * setting.pieces
    return Outcome(
        env.now,
        done["work"] / (setting.makers * env.now),
        driver.busy / env.now,
        max(line.busy for line in (*reading, *writing)) / env.now,
        pieces * (setting.reads + setting.writes) / env.now,
        int(done["lost"]),
    )


# What it comes to.


def cost(args: argparse.Namespace) -> None:
    found = read(args)
    total, kept = NETWORKS * UNITS, found["piece"]
    print(f"{NETWORKS:,} networks of {UNITS:,} units, as {found['network']}: a tenth classes, the others channels\n")
    head("recipe", "steps", "score card", "kept", "core hours", "GPU hours, estimated", "core hours beside them")
    for recipe in args.recipes:
        steps = mean(found, recipe, lambda unit: unit["steps"] * unit["step"] + unit["once"])
        score = mean(found, recipe, lambda unit: unit["score"])
        keep = kept["keep"] / LARGEST_BATCH
        hours = (steps + score + keep, accelerator(found, recipe), host(found, recipe))
        row(
            recipe,
            *(f"{each:.3f} s" for each in (steps, score, keep)),
            *(f"{total * each / 3600:,.0f}" for each in hours),
        )
    head("\nnetwork", "operations of a step, an image", "seconds of a GPU for a class by `draft`, estimated")
    own = found["draft, classes"]
    for name, count in {found["network"]: own["operations"], **found["operations"]}.items():
        row(name, f"{count / 1e9:.1f} G", f"{own['steps'] * count / (GPU_PEAK * GPU_SHARE):.3f}")
    index = found["index"][-1]
    head("\nstored", "bytes a unit", "all")
    for what, size in (
        ("images", kept["bytes"]),
        ("index, in parts", index["bytes"]),
        ("index, put together", index["compacted, bytes"]),
        ("page: sheets", kept["site's bytes"]),
        ("page: data", kept["site's data"]),
    ):
        row(what, f"{size:,.0f}", f"{total * size / 1e12:.2f} TB")
    head("\nrequests", "a piece", "all")
    for kind, count in kept["requests"].items():
        row(kind, count, f"{NETWORKS * PIECES * count / 1e6:,.1f} million")


def head(*cells: str) -> None:
    row(*cells)
    print("|" + "---|" * len(cells))


def row(*cells: object) -> None:
    start = "\n| " if str(cells[0]).startswith("\n") else "| "
    print(start + " | ".join(str(cell).strip() for cell in cells) + " |", flush=True)


def read(args: argparse.Namespace) -> Measured:
    file = args.out / "scale.json"
    if not file.is_file():
        raise SystemExit(f"{file} is not there: expected `python bench/scale.py measure` first")
    return json.loads(file.read_text())  # type: ignore[no-any-return]


def mean(found: Measured, recipe: str, value: Callable[[Measured], float]) -> float:
    """Of a unit: a tenth are classes, as of a network of 1000 classes and 10,000 units."""
    classes, channels = (found[name] for name in found if name.startswith(f"{recipe}, "))
    return 0.1 * value(classes) + 0.9 * value(channels)


def accelerator(found: Measured, recipe: str) -> float:
    """Seconds of a GPU for a unit, estimated from operations.

    What comes once an image, and its score card, count as many steps as they are worth here.
    """

    def seconds(unit: Measured) -> float:
        steps = unit["steps"] + (unit["once"] + unit["score"]) / unit["step"]
        return float(steps * unit["operations"] / (GPU_PEAK * GPU_SHARE))

    return mean(found, recipe, seconds)


def host(found: Measured, recipe: str) -> float:
    """Core seconds for a unit beside a GPU: what a step takes on a network that costs nothing, and its PNG."""
    steps = mean(found, recipe, lambda unit: unit["steps"])
    return float(steps * found["floor"][str(LARGEST_BATCH)] + found["piece"]["keep"]) / LARGEST_BATCH


def queue(args: argparse.Namespace) -> None:
    found = read(args)
    kept, opened = found["piece"], found["opening"]
    asked = kept["requests"]
    few = 20 if args.quick else 1
    stepping = found["draft, classes"]["steps"] * found["floor"][str(LARGEST_BATCH)]
    idle = stepping + kept["keep"] / CORES + kept["waits"] * LATENCY
    common = Setting(
        makers=1, tasks=PIECES, work=accelerator(found, "draft") * LARGEST_BATCH, spread=0.1, idle=idle,
        opening=opened["open"], restart=opened["begin"], reads=asked.get("GET", 0) + asked.get("LIST", 0),
        writes=asked.get("PUT", 0), life=24 * 3600, slow=0.02,
    )  # fmt: skip
    driven = common
    if "ray" in found:
        crowd = max(map(int, found["ray"]))
        alone, among = (found["ray"][count]["driver"] for count in ("0", str(crowd)))
        driven = replace(common, hand=alone, hand_each=max(0.0, among - alone) / crowd)
    print(
        f"`draft`, a GPU a maker: of a piece of {LARGEST_BATCH} the GPU works {common.work:.2f} s (estimated) and "
        f"waits {idle:.2f} s: {stepping:.2f} s for Python between the steps, {kept['keep'] / CORES:.2f} s for PNGs on "
        f"{CORES} cores, and {kept['waits'] * LATENCY:.2f} s for an object store at {LATENCY:g} s a request. A maker "
        "lives for 24 hours, and one in fifty takes three times as long.\n"
    )
    table(f"one atlas of {PIECES} pieces, one driver", [replace(driven, makers=n) for n in (1, 8, 32, 64, 128, 256)])
    table(
        "one driver, twenty pieces a maker, and as many prefixes as it takes",
        [replace(driven, makers=n // few, tasks=20 * n // few, prefixes=1000) for n in (100, 1000, 3000)],
    )
    tenth = NETWORKS // 10 // few
    apart = replace(common, makers=100 // few, tasks=tenth, pieces=PIECES, apart=True, prefixes=tenth)
    slowly = replace(apart, idle=stepping + kept["keep"] + sum(asked.values()) * LATENCY)
    table(f"{tenth:,} atlases, each made by one maker, a prefix each", [apart])
    table("the same, and the images of a piece kept one after another", [slowly])
    shared = [replace(apart, makers=n // few, tasks=n // few, pieces=60, prefixes=1) for n in (100, 400, 1000)]
    table("an atlas of 60 pieces a maker, all under one prefix", shared)


def table(title: str, settings: Sequence[Setting]) -> None:
    print(f"{title}\n")
    head("makers", "minutes", "GPUs at work", "driver", "busiest prefix", "requests a second", "lost pieces")
    for setting in settings:
        found = simulate(setting)
        shares = (f"{share:.1%}" for share in (found.utilisation, found.driver, found.prefix))
        row(f"{setting.makers:,}", f"{found.seconds / 60:,.1f}", *shares, f"{found.requests:,.0f}", f"{found.lost:,}")
    print()


# The simulation beside real runs.

RUN = """
import json, os, sys, time
import psutil, torch
from phosphene.atlas import work
from phosphene.atlas.worker import Worker

place, makers, kill = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
real_init, real_make = Worker.__init__, Worker.make

def note(what, seconds):
    with open(place + ".log", "a") as file:
        file.write(json.dumps([what, seconds]) + "\\n")

def init(self, *arguments):
    clock = time.time() if makers == 1 else psutil.Process().create_time()
    real_init(self, *arguments)
    note("opening", time.time() - clock)

def make(self, piece, *watched):
    clock = time.time()
    made = real_make(self, piece, *watched)
    note("piece", time.time() - clock)
    return made

Worker.__init__, Worker.make = init, make  # in the makers' processes as well, which begin with this file

def main():
    torch.set_num_threads(makers)
    clock, killed = time.time(), []
    def done(have, count):
        if kill and have >= kill * count and not killed:
            killed.append(time.time() - clock)
            next(each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())).kill()
    work.run(place, workers=makers, on_done=done)
    print(json.dumps({"seconds": time.time() - clock, "killed": killed}))

if __name__ == "__main__":
    main()
"""


def check(args: argparse.Namespace) -> None:
    """Runs of many pieces, simulated from the times of a short run before, and from the pieces' own times."""
    network = phosphene.open(args.network)
    recipe = Recipe.load("draft").override({"steps": 8, "size": 64})
    layer = next(each.name for each in network.layers if each.channels >= LARGEST_BATCH * args.pieces)
    head("run", "measured", "simulated, from its pieces' times", "from a shorter run's")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.py").write_text(RUN)

        def run(place: str, pieces: int, makers: int, kill: float = 0.0) -> Measured:
            groups = make_groups(network, layers=[layer], count=LARGEST_BATCH * pieces, recipe=recipe)
            plan = atlas_plan.make_plan(network, groups, frames=0)
            Store(folder / place).write_plan(plan)
            command = [sys.executable, str(folder / "run.py"), str(folder / place), str(makers), str(kill)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            noted = [json.loads(line) for line in (folder / f"{place}.log").read_text().splitlines()]
            times = {what: [value for name, value in noted if name == what] for what in ("opening", "piece")}
            return {"pieces": pieces, **times, **json.loads(done.stdout.strip().splitlines()[-1])}

        for makers in (1, 2):
            short = run(f"short-{makers}", 2 * makers, makers)
            for kill in (0.0, 0.4)[:makers]:
                real = run(f"long-{makers}-{kill}", args.pieces, makers, kill)
                cells = []
                for times in (real, short):
                    found = [
                        simulate(setting_of(times, makers, args.pieces), seed, real["killed"]).seconds
                        for seed in range(50)
                    ]
                    predicted = statistics.mean(found)
                    cells.append(f"{predicted:.0f} s ({predicted / real['seconds'] - 1:+.0%})")
                what = f"{makers} maker{'s' * (makers > 1)}, {args.pieces} pieces{', one killed' * bool(kill)}"
                row(what, f"{real['seconds']:.0f} s", *cells)


def setting_of(times: Measured, makers: int, tasks: int) -> Setting:
    spread = statistics.pstdev(map(math.log, times["piece"]))
    opening = statistics.mean(times["opening"])
    return Setting(makers, tasks, work=statistics.mean(times["piece"]), spread=spread, opening=opening)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"measure": measure, "cost": cost, "queue": queue, "check": check}
    parser.add_argument("parts", nargs="+", choices=list(parts))
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--recipes", nargs="+", default=["draft", "natural"])
    parser.add_argument(
        "--others", nargs="*", default=["resnet50", "torchvision:vgg16"], help="whose steps are counted"
    )
    parser.add_argument("--steps", type=int, default=3, help="that are timed")
    parser.add_argument("--rows", type=int, nargs="+", help="of the indices; by default 1e3, 1e4 and 1e5")
    parser.add_argument("--pieces", type=int, default=10, help="of the runs beside which the simulation is put")
    parser.add_argument("--quick", action="store_true", help="small images and few of all")
    parser.add_argument("--out", type=Path, default=Path("phosphene-out"))
    args = parser.parse_args()
    args.rows = args.rows or ([100, 1000] if args.quick else [1000, 10_000, 100_000])
    for part in args.parts:
        parts[part](args)


if __name__ == "__main__":
    main()
