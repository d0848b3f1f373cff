"""What a step costs over the bare forward and backward pass that it needs: ratios, in one run.

    python bench/step.py

For the recipes naive and tence, on EfficientNet-lite0 and on a ResNet-50 with random weights (its speed does not depend
on them), the time of a whole step of a batch (all that happens between two steps, progress and bookkeeping included) is
divided by the time of one plain fp32 forward and backward pass to the input, of the same network, batch and images, in
PyTorch's own memory order; and, since phosphene feeds images channels-last, by the same pass on channels-last images.
The rounds take turns, so that a noisy machine hits all alike.  The median filter's share is measured by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

import phosphene
from phosphene import filters
from phosphene.networks import Network


def bare_pass(network: Network, batch: int, memory_format: torch.memory_format) -> Callable[[], None]:
    images = torch.rand(batch, 3, *network.preprocessing.size).contiguous(memory_format=memory_format)
    rows = torch.arange(batch)

    def run() -> None:
        fed = images.detach().requires_grad_()
        logits = network.module(fed)
        torch.autograd.grad(logits[rows, rows].sum(), fed)

    return run


def seconds(run: Callable[[], object]) -> float:
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def step_seconds(network: Network, recipe: str, batch: int, steps: int = 4) -> float:
    """The mean time of the steps after the first, by progress reports; one in four has a median filter."""
    clocks: list[float] = []
    units = [f"class:{index}" for index in range(batch)]
    settings = phosphene.Recipe.load(recipe).changed({"steps": steps + 1})
    phosphene.ascend(network, units, settings, batch=batch, on_progress=lambda _: clocks.append(time.perf_counter()))
    return (clocks[-1] - clocks[0]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=18, help="images at once (18, the post's)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0", "resnet50"])
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.batch} images, {args.rounds} rounds")
    for name in args.networks:
        network = phosphene.open(name) if "lite" in name else phosphene.open(name, pretrained=False)
        times: dict[str, list[float]] = {key: [] for key in ("plain", "channels-last", "naive", "tence", "median")}
        images = 255 * torch.rand(args.batch, 3, *network.preprocessing.size)
        for _ in range(args.rounds):
            with network.borrowed():
                for key, order in (("plain", torch.contiguous_format), ("channels-last", torch.channels_last)):
                    run = bare_pass(network, args.batch, order)
                    run()
                    times[key] += [seconds(run) for _ in range(2)]
            for recipe in ("naive", "tence"):
                times[recipe].append(step_seconds(network, recipe, args.batch))
            times["median"] += [seconds(partial(filters.median, images, 5)) for _ in range(3)]
        middle = {key: statistics.median(values) for key, values in times.items()}
        print(f"{name}: plain forward and backward {1000 * middle['plain']:.0f} ms, channels-last", end=" ")
        print(f"{middle['channels-last'] / middle['plain']:.2f} of it")
        for recipe in ("naive", "tence"):
            step = middle[recipe]
            print(f"    a step of {recipe:6} {step / middle['plain']:.2f} of plain,", end=" ")
            print(f"{step / middle['channels-last']:.2f} of channels-last")
        print(f"    median 5 of all images {middle['median'] / middle['plain']:.3f} of plain,", end=" ")
        print(f"{middle['median'] / middle['channels-last']:.3f} of channels-last")


if __name__ == "__main__":
    main()
