"""The game of the atlas's page: which of two photographs excites a unit more?

A pair is one trial of the explanation score (see `judges.explanation`), so that the judges' guesses are known too.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from phosphene.judges.explanation import Trials

PAIRS = 12  # of each unit
MOST_PHOTOGRAPHS = 300  # which the page has of all that there are
SIDE = 160  # of each in pixels: large enough to be told apart


class Pair(NamedTuple):
    """Two photographs of which one excites a unit more.

    Attributes:
        exciting, other: their indices.
        values: how active the unit is on each.
        guesses: of each judge whether it took the right one.
    """

    exciting: int
    other: int
    values: tuple[float, float]
    guesses: list[bool]


def choose_photographs(trials: Sequence[Trials | None], count: int) -> list[int]:
    """The photographs that pairs are made of: all, or where these are too many those that excite the most units.

    Args:
        trials: of all units.
        count: how many photographs there are.
    """
    uses = torch.zeros(count, dtype=torch.long)
    for each in trials:
        if each is not None:
            uses[each.exciting] += 1
    return sorted(uses.argsort(descending=True, stable=True)[:MOST_PHOTOGRAPHS].tolist())


def make_pairs(
    trials: Trials | None,
    kept: Collection[int],
    values: Tensor,
    evidence: Mapping[str, tuple[Tensor, Tensor]],
    seed: str,
) -> list[Pair]:
    """A unit's pairs, each of one fold of its trials; fewer, or none, where few of its photographs are kept.

    Args:
        kept: the photographs that the page has.
        values: how active the unit is on each photograph.
        evidence: by judge and for each fold, which photographs it finds like the unit's picture: (photographs,) each.
        seed: in words; the same makes the same pairs.
    """
    if trials is None:
        return []
    draw = random.Random(seed)
    folds = [[[i for i in photographs.tolist() if i in kept] for photographs in fold] for fold in trials.folds]
    for photographs in (each for fold in folds for each in fold):
        draw.shuffle(photographs)
    pairs = []
    for number in range(PAIRS):
        fold, place = number % 2, number // 2
        exciting, other = folds[fold]
        if exciting and place < len(other):
            first, second = exciting[place % len(exciting)], other[place]
            guesses = [bool(each[fold][first] > each[fold][second]) for each in evidence.values()]
            pairs.append(Pair(first, second, (float(values[first]), float(values[second])), guesses))
    return pairs


def pair_values(pair: Pair, places: Mapping[int, int]) -> list[Any]:
    """A pair as the page has it; `places` are those of the photographs on it."""
    values = [float(f"{value:.4g}") for value in pair.values]
    return [places[pair.exciting], places[pair.other], *values, [int(each) for each in pair.guesses]]


def thumbnail(photograph: Image.Image) -> Image.Image:
    """A photograph as it is shown, within `SIDE` pixels."""
    small = photograph.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small
