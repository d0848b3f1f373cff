"""OpenCV's median filter against the tensor operations of `phosphene.pixels.filters`: alone, and in steps of `tence`.

    python bench/median.py

Both give the same bytes.  Printed are ratios within one run: the operations' time over OpenCV's, each the median of
several rounds in turns.  For docs/performance.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import phosphene
from phosphene.pixels import filters

ROUNDS = 7
STEPS = 24  # a multiple of tence's four


def operations(images: Tensor, size: int) -> Tensor:
    return torch.stack([filters.median_planes(image, size) for image in images])


def sorted_windows(images: Tensor, size: int) -> Tensor:
    """By torch's own `median` of each window."""

    def of_image(image: Tensor) -> Tensor:
        windows = filters.reflect_pad(image, size // 2).unfold(-2, size, 1).unfold(-2, size, 1)
        return windows.flatten(-2).median(dim=-1).values

    return torch.stack([of_image(image) for image in images])


def ratios(*runs: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """How long each takes, over how long the first does."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            clock = time.perf_counter()
            run()
            taken.append(time.perf_counter() - clock)
    first, *others = map(statistics.median, times)
    return [other / first for other in others]


def alone() -> None:
    print("| threads | size | batch | operations | torch.median |\n|---|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size in (3, 5):
            for batch in (1, 8, 32):
                images = 255 * torch.rand(batch, 3, 224, 224)
                runs = [
                    lambda f=f, images=images, size=size: f(images, size)
                    for f in (filters.median, operations, sorted_windows)
                ]
                assert all(torch.equal(runs[0](), run()) for run in runs[1:])
                found = ratios(*runs, rounds=3 if batch == 32 else ROUNDS)
                print(f"| {threads} | {size} | {batch} | " + " | ".join(f"{each:.2f}" for each in found) + " |")


def steps() -> None:
    """Steps of `tence`, whose median filter is of five pixels in every fourth."""
    network = phosphene.open()
    recipe = phosphene.Recipe.load("tence").override({"steps": STEPS})
    opencv = filters.median
    print("\n| threads | batch | median.size | a step with the operations |\n|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (1, 8):
            for size in (3, 5):
                chosen = recipe.override({"median.size": size})

                def run(
                    median: Callable[[Tensor, int], Tensor], chosen: phosphene.Recipe = chosen, batch: int = batch
                ) -> bytes:
                    filters.median = median
                    units = [f"class:{index}" for index in range(100, 100 + batch)]
                    try:
                        result = phosphene.ascend(network, units, chosen)
                    finally:
                        filters.median = opencv
                    return b"".join(picture.pixels.tobytes() for picture in result)

                runs = [lambda run=run, median=median: run(median) for median in (opencv, operations)]
                assert runs[0]() == runs[1]()
                (found,) = ratios(*runs, rounds=5)
                print(f"| {threads} | {batch} | {size} | {found:.2f} |")


if __name__ == "__main__":
    alone()
    steps()
