"""Scores of a unit, not of a picture: what the photographs that excite it say of it.

They are measured in a judge's features, each centered and scaled over all photographs, so that two photographs that
have nothing in common have a cosine of about 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.judges.explanation import NINE

TOP = 16
"""Photographs whose two groups tell how many things a unit shows."""
MIS_TASKS = 20


def clarity(features: Tensor, values: Tensor) -> float:
    """How alike the photographs are that excite a unit most: the mean cosine among nine (SemanticLens, Dreyer 2025).

    Args:
        features: of the photographs, (photographs, features).
        values: how active the unit is on each, (photographs,).
    """
    top = F.normalize(features[_top(values, NINE)], dim=1)
    return _mean_off_diagonal(top @ top.T)


def channel_means(features: Tensor, profiles: Tensor) -> Tensor:
    """The mean of the features of the nine photographs that excite each channel most: (channels, features).

    Args:
        profiles: how active each channel is on each photograph, (photographs, channels).
    """
    return torch.stack([features[_top(values, NINE)].mean(0) for values in profiles.T])


def redundancy(means: Tensor, profiles: Tensor, channel: int) -> float | None:
    """How like another channel of the layer it is: the largest cosine between their means (SemanticLens, Dreyer 2025).

    Args:
        means: of all channels of the layer, by `channel_means`; it is computed once for all of them.

    Returns:
        None for the only channel of a layer that is not silent.
    """
    others = profiles.max(0).values > profiles.min(0).values
    others[channel] = False
    return float(F.cosine_similarity(means[channel][None], means[others]).max()) if others.any() else None


def polysemanticity(features: Tensor, values: Tensor) -> float:
    """How far the photographs that excite a unit most fall into two groups: 1 less the cosine between these.

    Two means of the top photographs' features, from the two that are least alike on (SemanticLens, Dreyer 2025).
    """
    top = F.normalize(features[_top(values, TOP)].double(), dim=1)
    seeds = divmod(int((top @ top.T).argmin()), len(top))
    centers = top[list(seeds)]
    for _ in range(20):
        nearest = (top @ F.normalize(centers, dim=1).T).argmax(1)
        groups = [top[nearest == index] for index in (0, 1)]
        if not all(len(group) for group in groups):
            return 0.0
        centers = torch.stack([group.mean(0) for group in groups])
    return float(1 - F.cosine_similarity(centers[0], centers[1], dim=0))


def monosemanticity(features: Tensor, values: Tensor) -> float | None:
    """The mean cosine of all pairs of photographs, each weighted by how active the unit is on both (Pach et al. 2025).

    Activations are scaled so that the least is 0 and the highest 1.

    Returns:
        None for a unit that all photographs excite alike.
    """
    low, high = values.min(), values.max()
    if not high > low:
        return None
    scaled = ((values - low) / (high - low)).double()
    cosines = F.normalize(features.double(), dim=1)
    weighted = (scaled[:, None] * cosines).sum(0).square().sum() - scaled.square().sum()  # all pairs but i with itself
    weights = scaled.sum().square() - scaled.square().sum()
    return None if weights <= 0 else float(weighted / weights)


def machine_interpretability(likeness: Tensor, values: Tensor) -> dict[str, float] | None:
    """The Machine Interpretability Score of a unit (Zimmermann, Klindt and Brendel 2024), of photographs alone.

    In a task there are nine photographs that excite the unit and nine that do not, and two more, one of each kind:
    which is which is told from what they are like.  Tasks are made as Zimmermann et al. (2023) made them for people:
    the most exciting photographs, ten for each task, are cut into ten bins by rank, each task has one of each, and the
    one of the highest bin is the question; the least exciting ones likewise.

    The published numbers are DreamSim's, on ImageNet, of 20 tasks, as the mean of a logistic function of the
    difference; this is the share of tasks that are solved.

    Args:
        likeness: of all photographs to each other, (photographs, photographs).
        values: how active the unit is on each, (photographs,).

    Returns:
        The "score", and of how many "tasks"; None where there are fewer than 100 photographs for five tasks.
    """
    tasks = min(MIS_TASKS, len(values) // (2 * (NINE + 1)))
    if tasks < 5 or not values.max() > values.min():
        return None
    order = values.double().argsort(descending=True, stable=True)
    draw = torch.Generator().manual_seed(0)
    exciting, silent = (_fair_tasks(each, tasks, draw) for each in (order, order.flip(0)))
    solved = 0.0
    for most, least in zip(exciting, silent, strict=True):
        evidence = [
            likeness[question, most[1:]].mean() - likeness[question, least[1:]].mean()
            for question in (most[0], least[0])
        ]
        solved += float(evidence[0] > evidence[1]) + 0.5 * float(evidence[0] == evidence[1])
    return {"score": solved / tasks, "tasks": tasks}


def _fair_tasks(order: Tensor, tasks: int, draw: torch.Generator) -> Tensor:
    """(tasks, 10): in each row one of each bin, the most extreme first."""
    bins = order[: tasks * (NINE + 1)].reshape(NINE + 1, tasks)
    return torch.stack([each[torch.randperm(tasks, generator=draw)] for each in bins], 1)


def _top(values: Tensor, count: int) -> Tensor:
    return values.double().argsort(descending=True, stable=True)[:count]


def _mean_off_diagonal(cosines: Tensor) -> float:
    count = len(cosines)
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))
