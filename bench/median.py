"""OpenCV's median filter against the tensor operations of `phosphene.pixels.filters`: alone, and in steps of `tence`.

    python bench/median.py  # with opencv-python-headless

All give the same bytes.  Printed are ratios within one run: a way's time over OpenCV's.  For docs/performance.md.
OpenCV does squares of 7 pixels in 8 bits only, so they are not compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product

import cv2
import numpy as np
import torch
from torch import Tensor

import phosphene
from phosphene import Network, Recipe
from phosphene.pixels import filters

STEPS = 24  # a multiple of tence's four


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


def ratios(*runs: Callable[[], object], rounds: int) -> list[float]:
    """How long each takes, over how long the first does: the least of several rounds in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            clock = time.perf_counter()
            run()
            taken.append(time.perf_counter() - clock)
    first, *others = map(min, times)
    return [other / first for other in others]


def alone() -> None:
    print("| threads | size | batch | operations | torch.median |\n|---|---|---|---|---|")
    for threads, size, batch in product((1, 2), (3, 5), (1, 8, 32)):
        torch.set_num_threads(threads)
        images = 255 * torch.rand(batch, 3, 224, 224)
        runs = [partial(function, images, size) for function in (opencv, operations, by_windows)]
        expected = runs[0]()
        assert all(torch.equal(expected, run()) for run in runs[1:])
        found = ratios(*runs, rounds=3 if batch == 32 else 9)
        print(f"| {threads} | {size} | {batch} | " + " | ".join(f"{each:.1f}" for each in found) + " |", flush=True)


def made(network: Network, batch: int, recipe: Recipe, median: Callable[[Tensor, int], Tensor]) -> bytes:
    """The pixels of so many images, made with a median filter."""
    known, filters.median = filters.median, median
    try:
        result = phosphene.ascend(network, [f"class:{index}" for index in range(100, 100 + batch)], recipe)
    finally:
        filters.median = known
    return b"".join(picture.pixels.tobytes() for picture in result)


def steps() -> None:
    """Steps of `tence`, whose median filter is of five pixels in every fourth."""
    network = phosphene.open()
    recipe = phosphene.Recipe.load("tence").override({"steps": STEPS})
    print("\n| threads | batch | a step with the operations |\n|---|---|---|")
    for threads, batch in product((1, 2), (1, 8)):
        torch.set_num_threads(threads)
        runs = [partial(made, network, batch, recipe, median) for median in (opencv, operations)]
        assert runs[0]() == runs[1]()
        (found,) = ratios(*runs, rounds=5)
        print(f"| {threads} | {batch} | {found:.2f} |", flush=True)


if __name__ == "__main__":
    alone()
    steps()
