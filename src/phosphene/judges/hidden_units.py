"""What perceptual judges say of hidden units and of their pictures: explanation scores and unit scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene.judges.explanation import (
    CHANCE,
    MIN_PHOTOGRAPHS,
    Score,
    Trials,
    explanation_scores,
    make_trials,
    mean_score,
)
from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.metrics import DREAMSIM
from phosphene.judges.perception import FeatureSpace, PerceptualJudge
from phosphene.judges.photo_responses import PhotoResponses
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.self_metrics import SelfMetrics
from phosphene.judges.unit_scores import (
    clarity,
    machine_interpretability,
    monosemanticity,
    polysemanticity,
    redundancy,
)
from phosphene.units.objects import Channel, Class, Neuron, Unit

_MOST_OF_ONE_CLASS = 0.5
_SILENT = "too few photographs excite it more than the lower half of them do"


@dataclass(frozen=True, eq=False)
class LayerGroup:
    """The images of hidden units of one layer that are judged together.

    Attributes:
        units: each once.
        members: of each unit the indices of its images.
        photographs: what the network says of them.
        trials: of each unit.
    """

    units: list[Unit]
    members: list[list[int]]
    photographs: PhotoResponses
    trials: list[Trials | None]


def explain(
    images: Sequence[JudgedImage],
    metrics: Sequence[SelfMetrics],
    judges: Sequence[PerceptualJudge],
    photo_set: PhotoSet | None,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """What is to be added to each image's card: nothing for classes, or without photographs or judges.

    Raises:
        InputError: a judge returns numbers that are not finite.
    """
    cards: list[dict[str, Any]] = [{} for _ in images]
    hidden = [i for i, image in enumerate(images) if is_explained(image) and metrics[i].photographs is not None]
    if not hidden or not judges or photo_set is None:
        return cards
    count = min(len(metrics[i].photographs.names) for i in hidden)  # type: ignore[union-attr]
    missing = why_not_scored(count)
    spaces: list[FeatureSpace] = []
    if not missing:
        for judge in judges:
            tell(f"asking {judge.name} what photographs look like")
            spaces.append(FeatureSpace.of(judge, photo_set, device))
        missing = next(filter(None, (of_one_kind(space) for space in spaces)), "")
    if missing:
        for i in hidden:
            cards[i]["explanation"] = {"missing": missing}
        return cards
    placed = {
        space.judge.name: space.place([images[i].image for i in hidden], device) for space in spaces
    }  # in the order of `hidden`
    for group in _groups(images, metrics, hidden):
        _score_group(group, hidden, spaces, placed, cards)
    return cards


def is_explained(image: JudgedImage) -> bool:
    """Whether an image is of a hidden unit that photographs excite more or less."""
    classes = all(isinstance(part, Class) for _, part in image.unit.terms())
    return image.network is not None and not classes and not image.needs_reference


def why_not_scored(count: int) -> str:
    """Why so many photographs do not do for explanation scores, in words; empty if they do."""
    if count >= MIN_PHOTOGRAPHS:
        return ""
    return f"{count} photographs: expected at least {MIN_PHOTOGRAPHS}, of many kinds, for an explanation score"


def of_one_kind(space: FeatureSpace) -> str:
    """Whether photographs are nearly all of one class to a judge that classifies, in words; empty if they are not."""
    top = space.top_classes
    if top is None:
        return ""
    share = float(top.bincount().max()) / len(top)
    if share <= _MOST_OF_ONE_CLASS:
        return ""
    label = space.judge.network.labels
    index = int(top.bincount().argmax())
    name = label[index].name if label is not None and index < len(label) else f"class {index}"
    return f"{share:.0%} of the photographs are {name} to {space.judge.name}: expected photographs of many kinds"


def _groups(images: Sequence[JudgedImage], metrics: Sequence[SelfMetrics], hidden: Sequence[int]) -> list[LayerGroup]:
    """Images of one network whose units are read from the same layer."""
    members: dict[tuple[int, tuple[str, ...]], dict[Unit, list[int]]] = {}
    for i in hidden:
        layers = tuple(sorted({part.layer for _, part in images[i].unit.terms()}))
        members.setdefault((id(images[i].network), layers), {}).setdefault(images[i].unit, []).append(i)
    groups = []
    for by_unit in members.values():
        photographs = metrics[next(iter(by_unit.values()))[0]].photographs
        assert photographs is not None
        trials = [make_trials(photographs.values(unit)) for unit in by_unit]
        groups.append(LayerGroup(list(by_unit), list(by_unit.values()), photographs, trials))
    return groups


def _score_group(
    group: LayerGroup,
    hidden: Sequence[int],
    spaces: Sequence[FeatureSpace],
    placed: dict[str, list[Tensor]],
    cards: list[dict[str, Any]],
) -> None:
    place = {image: row for row, image in enumerate(hidden)}
    rows = [[place[i] for i in members] for members in group.members]
    single = max(map(len, rows))
    by_image: dict[int, dict[str, Score]] = {}
    together: list[dict[str, Score]] = [{} for _ in group.units]
    best: list[dict[str, Score]] = [{} for _ in group.units]
    nine: list[dict[str, Score]] = [{} for _ in group.units]
    for space in spaces:
        name, ours = space.judge.name, placed[space.judge.name]
        depths = range(len(space.photographs))
        likeness = [space.likeness(depth, ours[depth]) for depth in depths]
        # The first image of each unit, then the second: each is compared with one image of every other unit.
        for number in range(single):
            chosen = [of_unit[min(number, len(of_unit) - 1)] for of_unit in rows]
            scores = explanation_scores([each[chosen] for each in likeness], group.trials, space.judge.depths)
            for members, score in zip(group.members, scores, strict=True):
                if score is not None and number < len(members):
                    by_image.setdefault(members[number], {})[name] = score
        means = [torch.stack([each[of_unit].mean(0) for of_unit in rows]) for each in likeness]
        _add(together, name, explanation_scores(means, group.trials, space.judge.depths))
        for found, count in ((best, 1), (nine, 9)):
            _add(found, name, photograph_scores(space, group.trials, count))
    for unit, members in enumerate(group.members):
        shared = _shared_card(group, unit, best[unit], nine[unit], spaces)  # fmt: skip
        several = {"together": {"images": len(members), **_plain(together[unit])}} if len(members) > 1 else {}
        for i in members:
            own = _plain(by_image.get(i, {})) if group.trials[unit] is not None else {"missing": _SILENT}
            cards[i] |= {**shared, "explanation": {**own, **several, **shared["explanation"]}}


def _add(found: list[dict[str, Score]], name: str, scores: Sequence[Score | None]) -> None:
    for unit, score in enumerate(scores):
        if score is not None:
            found[unit][name] = score


def photograph_scores(space: FeatureSpace, trials: Sequence[Trials | None], count: int) -> list[Score | None]:
    """The score of each unit's best photographs, so many together, as if they were its pictures."""
    likeness = []
    for depth in range(len(space.photographs)):
        rows = [
            torch.zeros(len(space.photographs[depth]), dtype=torch.float64)
            if each is None
            else space.likeness(depth, space.photographs[depth][each.nine[:count]]).mean(0)
            for each in trials
        ]
        likeness.append(torch.stack(rows))
    scored = [i for i, each in enumerate(trials) if each is not None]
    some = explanation_scores([each[scored] for each in likeness], [trials[i] for i in scored], space.judge.depths)
    found: list[Score | None] = [None] * len(trials)
    for i, score in zip(scored, some, strict=True):
        found[i] = score
    return found


def _plain(scores: dict[str, Score]) -> dict[str, Any]:
    """The mean over the judges, and each."""
    if not scores:
        return {}
    by_judge = {name: {**score.plain(), "depths": list(score.depths)} for name, score in scores.items()}
    return {**mean_score(list(scores.values())).plain(), "judges": by_judge}


def _shared_card(
    group: LayerGroup,
    unit: int,
    best: dict[str, Score],
    nine: dict[str, Score],
    spaces: Sequence[FeatureSpace],
) -> dict[str, Any]:
    """What all images of a unit have on their cards."""
    explanation = {
        **({"best_photograph": mean_score(list(best.values())).plain()} if best else {}),
        **({"nine_photographs": mean_score(list(nine.values())).plain()} if nine else {}),
        "chance": CHANCE,
        "photographs": len(group.photographs.names),
        "other_units": len(group.units) - 1,
    }
    space = _scorer(spaces)
    told = nine.get(space.judge.name)
    depth = space.judge.depths.index(told.depths[0]) if told else len(space.judge.depths) - 1
    scores = unit_scores(group.units[unit], group.photographs, space, depth)
    return {"explanation": explanation, "unit_scores": scores}


def _scorer(spaces: Sequence[FeatureSpace]) -> FeatureSpace:
    """The judge that measures units: DreamSim where it is one, since published numbers are by it, or else the first."""
    return next((space for space in spaces if space.judge.name == DREAMSIM), spaces[0])


def unit_scores(unit: Unit, photographs: PhotoResponses, space: FeatureSpace, depth: int) -> dict[str, Any]:
    """Scores of a unit in a judge's features at a depth; None where there is none."""
    features, values = space.photographs[depth], photographs.values(unit)
    scores: dict[str, Any] = {"judge": space.judge.name, "depth": space.judge.depths[depth]}
    if not bool(values.max() > values.min()):
        return scores
    profiles = photographs.responses.profiles.get(str(unit))
    channel = unit.channel if isinstance(unit, Channel | Neuron) else None
    return {
        **scores,
        "clarity": clarity(features, values),
        "redundancy": None if profiles is None or channel is None else redundancy(features, profiles, channel),
        "polysemanticity": polysemanticity(features, values),
        "monosemanticity": monosemanticity(features, values),
        "mis": machine_interpretability(space.likeness(depth, features), values),
    }
