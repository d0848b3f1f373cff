"""How far into a network its layers can be shown, and why no further."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from phosphene.networks.layers import Layer, module_call
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.tracing import Trace

Limit = tuple[int, str]
"""How many of a network's layers can be shown, and why no more; the text is empty where all can."""


def untrained_limit(layers: Sequence[Layer], unloaded: Collection[str], modules: Collection[str]) -> Limit:
    """From which layer on the network has weights that were not loaded.

    Args:
        unloaded: names of parameters.
        modules: the names of the network's modules.
    """
    called = [module_call(layer.name, modules)[0] for layer in layers]
    owners = {name.rpartition(".")[0]: name for name in unloaded}
    for owner, name in owners.items():
        if owner not in called:  # no telling which layers use it
            return 0, f"the weights given have no {name}"
    index = next(index for index, name in enumerate(called) if name in owners)
    last = f", and the last layer before it is {layers[index - 1].name}" if index else ""
    return index, f"the weights given have none for {called[index]}{last}"


def size_limits(preprocessing: Preprocessing, trace: Trace, native: Preprocessing, native_trace: Trace) -> list[Limit]:
    """From which layer on images of another size than the network's own do not do."""
    size = preprocessing.size
    maps = [(i, layer.positions) for i, layer in enumerate(native_trace.layers) if len(layer.positions) == 2]
    strides = {index: math.ceil(native.height / positions[0]) for index, positions in maps if min(positions) > 1}
    short = [index for index, stride in strides.items() if stride > min(size)]  # type: ignore[arg-type]
    limits = []
    if short:
        most, first = max(strides.values()), strides[short[0]]
        whole = f", and {most} for the whole network" if most > first else ""
        text = f"images of {size_text(size)} pixels are too small for it: expected {first} or more{whole}"
        limits.append((short[0], text))
    if trace.classes != native_trace.classes:
        fits = min(len(trace.layers), len(native_trace.layers) - 1)
        limits.append((fits, f"it takes {size_text(native.size)} pixels, and here are {size_text(size)}"))
    return limits


def size_text(size: tuple[int, int] | int) -> str:
    """A size as a user writes it: "224x224"."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
