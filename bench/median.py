"""OpenCV's median filter against the tensor operations of `phosphene.pixels.filters`: alone, and in steps of `tence`.

    python bench/median.py  # with opencv-python-headless

All give the same bytes.  Printed are ratios within one run: a way's time over OpenCV's.  For docs/performance.md.
OpenCV does squares of 7 pixels in 8 bits only, so they are not compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product

import cv2
import numpy as np
import torch
from torch import Tensor

import phosphene
from phosphene import Network
from phosphene.pixels import filters

STEPS = 24


def opencv(images: Tensor, size: int) -> Tensor:
    margin = size // 2
    padded = np.stack([filters.reflect_pad(image, margin).numpy() for image in images])
    filtered = [[cv2.medianBlur(plane, size) for plane in planes] for planes in padded]
    return torch.from_numpy(np.array(filtered)[..., margin:-margin, margin:-margin].copy())


operations = filters.median


def by_windows(images: Tensor, size: int) -> Tensor:
    """By torch's own `median` of each window."""

    def of_image(image: Tensor) -> Tensor:
        windows = filters.reflect_pad(image, size // 2).unfold(-2, size, 1).unfold(-2, size, 1)
        return windows.flatten(-2).median(dim=-1).values

    return torch.stack([of_image(image) for image in images])


def seconds(*runs: Callable[[], object], rounds: int) -> list[float]:
    """How long each takes: the least of several rounds in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            clock = time.perf_counter()
            run()
            taken.append(time.perf_counter() - clock)
    return [min(taken) for taken in times]


def alone() -> None:
    print("| threads | size | batch | operations | torch.median |\n|---|---|---|---|---|")
    for threads, size, batch in product((1, 2), (3, 5), (1, 8, 32)):
        torch.set_num_threads(threads)
        images = 255 * torch.rand(batch, 3, 224, 224)
        runs = [partial(function, images, size) for function in (opencv, operations, by_windows)]
        expected = runs[0]()
        assert all(torch.equal(expected, run()) for run in runs[1:])
        first, *others = seconds(*runs, rounds=3 if batch == 32 else 9)
        ratios = " | ".join(f"{other / first:.1f}" for other in others)
        print(f"| {threads} | {size} | {batch} | {ratios} |", flush=True)


def step_seconds(network: Network, batch: int) -> float:
    """A step of `tence` without its median filter: the least of several."""
    clocks: list[float] = []
    callbacks = phosphene.Callbacks(progress=lambda _: clocks.append(time.perf_counter()))
    recipe = phosphene.Recipe.load("tence").replace(median=None, steps=STEPS)
    phosphene.ascend(network, [f"class:{index}" for index in range(batch)], recipe, callbacks=callbacks)
    return min(after - before for before, after in pairwise(clocks))


def steps() -> None:
    """The mean step of `tence`, which filters with five pixels after every fourth."""
    network = phosphene.open()
    print("\n| threads | batch | OpenCV, ms | operations, ms | step, ms | with the operations |")
    print("|---|---|---|---|---|---|")
    for threads, batch in product((1, 2), (1, 8)):
        torch.set_num_threads(threads)
        images = 255 * torch.rand(batch, 3, 224, 224)
        first, other = seconds(partial(opencv, images, 5), partial(operations, images, 5), rounds=15)
        step = step_seconds(network, batch)
        ratio = (step + other / 4) / (step + first / 4)
        times = " | ".join(f"{1000 * each:.1f}" for each in (first, other, step))
        print(f"| {threads} | {batch} | {times} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    alone()
    steps()
