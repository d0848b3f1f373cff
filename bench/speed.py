"""How fast: the steps of recipes, and other libraries', over plain passes; and what an image costs.  For
docs/performance.md.

    python bench/speed.py steps --networks efficientnet_lite0 vgg16
    python bench/speed.py peers
    python bench/speed.py units
    python bench/speed.py quality

- steps: whole steps of a recipe over one plain forward and backward pass in fp32 of the same network and batch, its
  parts, and the share of the machine's peak that the network's pass reaches (see `phosphene profile`).  The plain pass
  is in the same process, whose memory phosphene has seen to; "alone" is the step over one in a process of its own.
- filters: a channel of a layer beside a class.
- peers: the same for other libraries, which quality.py installs; both are fed by phosphene's own networks.
- units: seconds and memory against the number of units.
- precision: what judges say of Caffe's SqueezeNet's images made in fp32 and in bf16.
- quality: seconds until MobileNetV1 names 80 % of the images, ours and lucent's.

All are ratios in one run: the rounds take turns, and the median counts.  A network that has no weights here has random
ones, on which its speed does not depend.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peers import PEERS, Job, read_json
from quality import FILES, LeftOutError, arguments, drawn, install, open_network, run_peer

import phosphene
from phosphene.doctor import profiling
from phosphene.networks.network import Network

NETWORKS = (
    "efficientnet_lite0", "torchvision:vgg16", "resnet50", "torchvision:alexnet", "vit_base_patch16_224",
    "vit_small_patch14_dinov2@224",
)  # fmt: skip
TRAINED = ("efficientnet_lite0", *FILES)


def opened(name: str) -> Network:
    """A network, or NAME@SIZE at another size than its own."""
    torch.manual_seed(0)  # with other weights a unit may be dead
    plain_name, _, size = name.partition("@")
    network = phosphene.open(**specified(plain_name), name=plain_name if plain_name in FILES else "")
    return network.with_input_size((int(size), int(size))) if size else network


def unit_of(network: Network) -> str:
    """A class, or where there is none a channel of the last layer that is usually shown."""
    return "class:1" if network.classes else f"{[layer for layer in network.layers if layer.worth_showing][-1].name}:3"


def specified(name: str) -> dict[str, object]:
    """The arguments of `phosphene.open`."""
    return arguments(name) if name in TRAINED else {"network": name, "pretrained": False}


def steps(args: argparse.Namespace) -> None:
    heads = ("network", "recipe", "precision", "step", "alone", "network's pass", "views", "priors", "canvas")
    heads += ("regularizers", "rest", "of peak")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in args.networks:
        network = opened(name)
        alone = statistics.median(elsewhere("plain", name, args)["seconds"] for _ in range(args.rounds))
        for recipe in args.recipes:
            found = profiling.profile(
                network, unit_of(network), recipe, batch=args.batch, precision=args.precision, rounds=args.rounds
            )
            shares = (
                found.step / found.plain,
                found.step / alone,
                *(part / found.plain for part in found.parts.values()),
            )
            cells = [f"{share:.2f}" for share in shares]
            print(
                f"| {network.name} | {recipe} | {found.precision} | {' | '.join(cells)} | {found.share_of_peak:.0%} |",
                flush=True,
            )


def elsewhere(part: str, name: str, args: argparse.Namespace, count: int = 0) -> dict[str, float]:
    """What a part prints that runs in a process of its own."""
    command = [sys.executable, __file__, part, "--networks", name, "--batch", str(args.batch), "--count", str(count)]
    command += ["--precision", args.precision, "--threads", str(args.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def plain(args: argparse.Namespace) -> None:
    """A plain pass, as PyTorch is without phosphene."""
    network = opened(args.networks[0])
    times = []
    with network.borrowed():
        run = profiling.plain_pass(network, args.batch, torch.device("cpu"))
        for _ in range(4):
            clock = time.perf_counter()
            run()
            times.append(time.perf_counter() - clock)
    print(json.dumps({"seconds": statistics.median(times[1:])}))


def filters(args: argparse.Namespace) -> None:
    for name, layer in (("torchvision:vgg16", "features.15"), ("efficientnet_lite0", "blocks.3.0.bn1.act")):
        network = opened(name)
        times: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for unit in ("class:1", f"{layer}:3"):
                profile = profiling.profile(
                    network, unit, "tence", batch=args.batch, precision=args.precision, rounds=1
                )
                times.setdefault(unit, []).append(profile.step)
        whole, part = (statistics.median(values) for values in times.values())
        print(f"{network.name}: a step of tence for a channel of {layer} takes {part / whole:.2f} of one for a class")


def peers(args: argparse.Namespace) -> None:
    """Two runs of each, of few and of more steps: the difference is what a step takes."""
    install(args.peers, "torch")
    for name in args.networks:
        network = opened(name)
        if not network.classes or network.preprocessing.size[0] != network.preprocessing.size[1]:
            continue
        for peer in ("lucent", "torch-dreams", "horama"):
            rows = min(args.batch, PEERS[peer].batch)
            ratios = []
            for _ in range(args.rounds):
                costs = []
                for count in (3, 9):
                    with tempfile.TemporaryDirectory() as folder:
                        job = Job(
                            peer, count, specified(name), network.preprocessing.size, network.preprocessing.fixed_size,
                            list(range(rows)), rows, 0, torch.get_num_threads(), folder, "",
                        )  # fmt: skip
                        try:
                            run_peer(args.peers.resolve() / "torch", job)
                        except LeftOutError as error:
                            print(f"{network.name}: {peer}: {error}")
                            break
                        costs.append(read_json(Path(folder) / "made.json")["000"])
                if len(costs) < 2:
                    break
                passes = (costs[1]["passes"] - costs[0]["passes"]) / 6
                seconds = (costs[1]["seconds"] - costs[0]["seconds"]) / 6
                ratios.append((seconds / statistics.mean(cost["plain"] for cost in costs), passes))
            if ratios:
                ratio, passes = (statistics.median(values) for values in zip(*ratios, strict=True))
                print(
                    f"{network.name}: a step of {peer} takes {ratio:.2f} plain passes, and feeds the network "
                    f"{passes:.2f} images of its size: {ratio / passes:.2f} a pass",
                    flush=True,
                )


def units(args: argparse.Namespace) -> None:
    """Each count in a process of its own, whose largest memory is told."""
    for name in args.networks[:1]:
        first = 0.0
        for count in (8, 32, 128, 512):
            found = elsewhere("one", name, args, count)
            first = first or found["each"]
            print(
                f"{name}: {count:4} units: {found['each']:.3f} s each, {found['each'] / first:.2f} of the first; "
                f"{found['memory'] / 2**20:.0f} MiB",
                flush=True,
            )


def one(args: argparse.Namespace) -> None:
    import resource

    network = opened(args.networks[0])
    classes = [f"class:{index % network.classes}" for index in range(args.count)]
    recipe = phosphene.Recipe.load("draft").override({"steps": 6, "size": 112})
    phosphene.ascend(
        network, classes[: args.batch], recipe, options=phosphene.RunOptions(batch=args.batch, precision=args.precision)
    )
    clock = time.perf_counter()
    phosphene.ascend(
        network,
        classes,
        recipe,
        seed=list(range(args.count)),
        options=phosphene.RunOptions(batch=args.batch, precision=args.precision),
    )
    each = (time.perf_counter() - clock) / args.count
    print(json.dumps({"each": each, "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def quality(args: argparse.Namespace) -> None:
    """`draft` with fewer and fewer steps, by classes that bench/quality.py reports first; and lucent at its default."""
    network = opened("efficientnet_lite0")
    judge = open_network("mobilenet_v1", arguments("mobilenet_v1"))
    classes = drawn(2026, 24)
    for count in args.budgets:
        recipe = phosphene.Recipe.load("draft").override({"steps": count})
        clock = time.perf_counter()
        result = phosphene.ascend(
            network,
            [f"class:{index}" for index in classes],
            recipe,
            seed=2026,
            options=phosphene.RunOptions(batch=args.batch, precision=args.precision),
        )
        seconds = (time.perf_counter() - clock) / len(classes)
        cards = result.judge([judge])
        print(f"draft, {count} steps: {seconds:.1f} s an image, top-1 {named(cards, judge.name):.2f}", flush=True)
    install(args.peers, "torch")
    with tempfile.TemporaryDirectory() as folder:
        few = classes[: args.batch]
        job = Job(
            "lucent", 512, specified("efficientnet_lite0"), network.preprocessing.size, False, few, args.batch, 2026,
            torch.get_num_threads(), folder, "",
        )  # fmt: skip
        run_peer(args.peers.resolve() / "torch", job)
        seconds = np.mean([cost["seconds"] for cost in read_json(Path(folder) / "made.json").values()])
        files = [Path(folder) / f"{index:03d}.png" for index in few]
        cards = phosphene.judge(files, [judge], network=network, unit=[f"class:{index}" for index in few])
    print(f"lucent, 512 steps: {seconds:.1f} s an image, top-1 {named(cards, judge.name):.2f} of {len(few)} classes")


def precision(args: argparse.Namespace) -> None:
    """`draft` of 50 classes that bench/quality.py reports, in both precisions from the same seeds."""
    network = opened("squeezenet_v1.1")
    panel = [open_network(name, arguments(name)) for name in ("mobilenet_v1", "efficientnet_lite0")]
    units = [f"class:{index}" for index in drawn(2026, 50)]
    for name in ("fp32", "bf16"):
        clock = time.perf_counter()
        result = phosphene.ascend(
            network, units, "draft", seed=2026, options=phosphene.RunOptions(batch=args.batch, precision=name)
        )
        seconds = (time.perf_counter() - clock) / len(units)
        cards = result.judge(panel)
        said = ", ".join(
            f"{judge.name} {named(cards, judge.name):.2f}, "
            f"{np.mean([card['judges'][judge.name]['probability'] for card in cards]):.3f}"
            for judge in panel
        )
        own = {key: float(np.mean([card[key] for card in cards])) for key in ("probability", "robustness", "slope")}
        print(
            f"{name}: {seconds:.1f} s an image; top-1 and probability by {said}; own {own['probability']:.3f}, robust "
            f"{own['robustness']:.3f}, slope {own['slope']:.2f}",
            flush=True,
        )


def named(cards: list[dict[str, object]], judge: str) -> float:
    return float(np.mean([card["judges"][judge]["top1"] for card in cards]))  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "steps": steps,
        "filters": filters,
        "peers": peers,
        "units": units,
        "quality": quality,
        "precision": precision,
    }
    hidden = {"one": one, "plain": plain}
    parser.add_argument("part", choices=[*parts, *hidden])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--recipes", nargs="+", default=["naive", "tence", "natural"])
    parser.add_argument("--batch", type=int, default=8, help="images at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budgets", type=int, nargs="+", default=[128, 64, 48, 32, 24])
    parser.add_argument("--count", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, default=Path("phosphene-out/peers"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
    if args.part not in hidden:
        print(f"torch {torch.__version__}, {where}, {args.batch} images, {args.rounds} rounds", flush=True)
    (parts | hidden)[args.part](args)


if __name__ == "__main__":
    main()
