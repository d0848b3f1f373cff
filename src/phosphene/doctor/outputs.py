"""What a network says of labeled photographs, and whether two such answers differ beyond chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Below the first a difference is believed; below the second a candidate is given up before it has seen all photographs.
SIGNIFICANCE, ELIMINATION = 0.05, 0.01


@dataclass(frozen=True)
class Outputs:
    """What the network says of the first photographs: the likeliest class and the true one's probability, of each."""

    classes: int
    true: Tensor
    predicted: Tensor
    probability: Tensor

    def __len__(self) -> int:
        return len(self.true)

    def first(self, count: int) -> Outputs:
        return Outputs(self.classes, self.true[:count], self.predicted[:count], self.probability[:count])

    def and_then(self, more: Outputs) -> Outputs:
        pairs = ((self.true, more.true), (self.predicted, more.predicted), (self.probability, more.probability))
        return Outputs(self.classes, *map(torch.cat, pairs))

    @property
    def right(self) -> Tensor:
        return self.predicted == self.true

    @property
    def score(self) -> Tensor:
        """The logarithm of the true class's probability, bounded: more than guessing wrong costs nothing."""
        return (self.probability.double() + 1 / self.classes).log()

    @property
    def rank(self) -> tuple[float, float]:
        return float(self.right.double().mean()), float(self.score.mean())


def difference(one: Outputs, other: Outputs) -> float:
    """How often chance alone would make a difference as large as that between two, on the photographs that both saw.

    Accuracy takes many photographs to tell a preprocessing from its neighbor, probabilities take few, but mislead
    where a network is too sure of itself or not enough.  So the probabilities of the true class count where they point
    where accuracy does (a paired permutation test of their logarithms), and otherwise the photographs that one of the
    two names right and the other does not (McNemar's exact test).
    """
    count = min(len(one), len(other))
    one, other = one.first(count), other.first(count)
    wins, losses = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    scores = one.score - other.score
    if (wins - losses) * float(scores.sum()) > 0:
        return sign_flips(scores)
    return fair_coin(wins, losses)


def sign_flips(differences: Tensor) -> float:
    """How often a sum as far from 0 comes out when each difference is as likely to be of the other sign."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (4000, len(differences)), generator=generator).to(differences) * 2 - 1
    as_far = (signs @ differences).abs() >= differences.sum().abs() * (1 - 1e-9)
    return (1 + int(as_far.sum())) / (1 + len(signs))


def fair_coin(heads: int, tails: int) -> float:
    """How often a fair coin falls as one-sidedly as that, or more."""
    flips = heads + tails
    return min(1.0, 2 * sum(math.comb(flips, k) for k in range(min(heads, tails) + 1)) / (1 << flips))


def guessing_probability(outputs: Outputs, offset: int = 0) -> float:
    """How often one would be right as often who always names the commonest class."""
    count = len(outputs)
    share = float(outputs.true.bincount().max()) / count
    right = int((outputs.predicted == outputs.true + offset).sum())
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right, count + 1))
