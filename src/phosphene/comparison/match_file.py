"""Which units two networks share, as the file of `compare` says it; anything may be in that file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, printable
from phosphene.files import parse_json, read_text

JSON_KIND = "comparison of networks"

_MOST_BYTES = 64 << 20
_MOST_MATCHES = 10_000
_MOST_PAIRS = 1_000_000  # of all layers together
_MOST_INDEX = 10**9
_LONGEST = 1000  # letters of a name

Pairs = dict[tuple[str, str], list[tuple[int, int, float]]]
"""By layer of A and of B, units that belong together, and their correlation."""


@dataclass(frozen=True)
class MatchFile:
    """What such a file says.

    Attributes:
        origin: the file, for messages.
        names, weights: of A and of B: the networks' names, and the digests of their weights.
        pairs: of units.
    """

    origin: str
    names: tuple[str, str]
    weights: tuple[str, str]
    pairs: Pairs

    def between(self, first: str, second: str) -> Pairs:
        """The pairs of two networks, by the digests of their weights, whichever of them is A.

        Raises:
            InputError: the file is of other networks.
        """
        if (first, second) == self.weights:
            return self.pairs
        if (second, first) == self.weights:
            return {(b, a): [(j, i, r) for i, j, r in each] for (a, b), each in self.pairs.items()}
        told = " and ".join(f"{name} ({digest})" for name, digest in zip(self.names, self.weights, strict=True))
        raise InputError(f"{self.origin} is of {told}: expected one of weights {first} and {second}")


def read_matches(path: str | Path) -> MatchFile:
    """Read the `compare.json` of two networks.

    Raises:
        InputError: there is no such file, it is none, or it has what no comparison has.
    """
    origin = f"match file {str(path)!r}"
    data = parse_json(read_text(Path(path), origin, _MOST_BYTES), origin, _MOST_BYTES)
    if not isinstance(data, dict) or data.get("phosphene") != JSON_KIND:
        raise InputError(f"{origin}: expected the compare.json that `phosphene compare` of two networks writes")
    names, weights = ([_name(data.get(side), key, origin) for side in ("a", "b")] for key in ("name", "weights"))
    matches = data.get("matches")
    if not isinstance(matches, list) or len(matches) > _MOST_MATCHES:
        raise InputError(f"{origin}: expected a list of {_MOST_MATCHES:,} matches at most")
    found: Pairs = {}
    count = 0
    for match in matches:
        layers = _name(match, "layer_a", origin), _name(match, "layer_b", origin)
        pairs = match.get("pairs")
        count += len(pairs) if isinstance(pairs, list) else _MOST_PAIRS + 1
        if count > _MOST_PAIRS:
            raise InputError(f"{origin}: expected lists of {_MOST_PAIRS:,} pairs at most, for all layers together")
        found[layers] = [_pair(pair, origin) for pair in pairs]
        for side in (0, 1):
            if len({pair[side] for pair in found[layers]}) < len(found[layers]):
                raise InputError(f"{origin}: a unit of {printable(layers[side])} is in two pairs: expected one")
    return MatchFile(origin, (names[0], names[1]), (weights[0], weights[1]), found)


def _name(values: Any, key: str, origin: str) -> str:
    name = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(name, str) or len(name) > _LONGEST:
        raise InputError(f"{origin}: expected a text as {key}, of {_LONGEST} letters at most")
    return name


def _pair(pair: Any, origin: str) -> tuple[int, int, float]:
    if isinstance(pair, list) and len(pair) == 3:
        first, second, value = pair
        whole = all(type(each) is int and 0 <= each <= _MOST_INDEX for each in (first, second))
        if whole and type(value) in (int, float) and math.isfinite(value) and -1 <= value <= 1:
            return first, second, float(value)
    raise InputError(
        f"{origin}: pair {printable(repr(pair), 60)}: expected two units from 0 on, and a correlation of -1 to 1"
    )
