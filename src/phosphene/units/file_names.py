"""What the files of images are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from phosphene.networks.network import Network
from phosphene.units.objects import Class, Text, Unit, describe


def picture_names(units: Sequence[Unit], seeds: Sequence[int], network: Network) -> list[str]:
    """File names without suffix: `130_flamingo`, `features.29_012`; with the seed where a unit comes more than once."""
    names = [_name(unit, network) for unit in units]
    times = Counter(name.casefold() for name in names)
    names = [
        f"{name}_seed{seed}" if times[name.casefold()] > 1 else name for name, seed in zip(names, seeds, strict=True)
    ]
    repeats: Counter[str] = Counter()
    for i, name in enumerate(names):
        repeats[name.casefold()] += 1
        if repeats[name.casefold()] > 1:
            names[i] = f"{name}_{repeats[name.casefold()]}"
    return names


def _name(unit: Unit, network: Network) -> str:
    if isinstance(unit, Class):
        width = max(3, len(str(network.classes - 1)))
        label = describe(unit, network) if network.labels is not None else "class"
        return f"{unit.index:0{width}d}_{_clean(label)}"
    if isinstance(unit, Text):
        return _clean(f"text_{unit.text}")
    return _clean(re.sub(r":(\d+)", lambda match: f"_{int(match[1]):04d}", str(unit)))


def _clean(text: str) -> str:
    return re.sub(r"[^\w.@+-]+", "_", text).strip("._")[:100] or "unit"
