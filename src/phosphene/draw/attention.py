"""Attention as pictures beside the photograph that it is of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phosphene.display import opaque
from phosphene.draw.grid import tile
from phosphene.networks.attention import AttentionMaps
from phosphene.planes import to_pil

_SIDE = 224  # pixels: smaller photographs are enlarged to about this
_BRIGHTEST = 0.98


def attention_sheet(maps: AttentionMaps, heads: Sequence[int] | None = None) -> Image.Image:
    """The photograph, the attention of heads to its patches, and the rollout.

    Each map goes from black, which is 0, to yellow, which is its own brightest fiftieth of the patches: single patches
    that draw all attention, as large networks without registers have them (Darcet et al. 2024), hide nothing else.  A
    caption has what share of the head's attention goes to patches; the rest goes to class tokens and registers.

    Args:
        heads: by default all.
    """
    photograph = opaque(to_pil(maps.photograph)).convert("RGB")
    factor = max(1, round(_SIDE / max(photograph.size)))
    size = (photograph.width * factor, photograph.height * factor)
    chosen = range(len(maps.maps)) if heads is None else heads
    shown = [(f"head {head}, {maps.maps[head].sum():.0%} to patches", maps.maps[head]) for head in chosen]
    if len(chosen) > 1:
        shown.append(("mean of all heads", maps.maps.mean(axis=0)))
    if maps.rollout is not None:
        shown.append(("rollout", maps.rollout))
    images = [photograph.resize(size, Image.Resampling.NEAREST), *(heat_map(values, size) for _, values in shown)]
    return tile(images, ["photograph", *(words for words, _ in shown)], columns=min(len(images), 5))


def heat_map(values: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """Numbers from 0 on in colors, black to yellow, which is the brightest fiftieth; smoothly enlarged.

    Args:
        values: (rows, columns).
        size: width and height.
    """
    import matplotlib

    largest = float(np.quantile(values, _BRIGHTEST))
    enlarged = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    colors = matplotlib.colormaps["inferno"](np.asarray(enlarged).clip(0, largest) / (largest if largest > 0 else 1.0))
    return Image.fromarray((colors[..., :3] * 255).round().astype(np.uint8))
