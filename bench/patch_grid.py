"""How much of the patches' grid is in images: the power at the grid's frequencies over that beside them.

    python bench/patch_grid.py --patch 14 units/reported/vit/*/*.png

At 1, as photographs have it, nothing repeats with the patches.  Of the brightness, in a Hann window, the power at one,
two and three periods a patch, down and across, each over the geometric mean of that at frequencies beside it; printed
is the geometric mean, over the images of each folder, and the largest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def grid_power(image: Image.Image, patch: int) -> float:
    """The logarithm of the ratio; the middle square of an image is brought to 16 patches a side."""
    side, count = min(image.size), 16
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("L").crop((left, top, left + side, top + side)).resize((count * patch, count * patch))
    values = np.asarray(square, float)
    window = np.hanning(len(values))
    power = np.abs(np.fft.fft2((values - values.mean()) * window[:, None] * window)) ** 2
    ratios = []
    for axis in (0, 1):
        along = power.sum(1 - axis)
        for place in (count, 2 * count, 3 * count):
            beside = np.r_[along[place - 6 : place - 2], along[place + 3 : place + 7]]
            ratios.append(along[place - 1 : place + 2].mean() / np.exp(np.log(beside).mean()))
    return float(np.mean(np.log(ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--patch", type=int, default=14, help="pixels of a patch, in an image of 16 patches a side")
    args = parser.parse_args()
    for folder in sorted({path.parent for path in args.images}):
        found = [grid_power(Image.open(path), args.patch) for path in args.images if path.parent == folder]
        mean, most = np.exp(np.mean(found)), np.exp(np.max(found))
        print(f"{folder.name}: {mean:.2f}, at most {most:.2f}, of {len(found)} images")


if __name__ == "__main__":
    main()
