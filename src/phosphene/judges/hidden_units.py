"""What perceptual judges say of hidden units and of their pictures: explanation scores and unit scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from phosphene.default_progress import Tally
from phosphene.judges.explanation import (
    CHANCE,
    MIN_PHOTOGRAPHS,
    Score,
    Trials,
    explanation_scores,
    less_common,
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
    channel_means,
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
        members: of each unit its images, as rows of `placed`.
        photographs: what the network says of them.
        placed: by judge, and for each of its depths, the images: (images, features).
    """

    units: list[Unit]
    members: list[list[int]]
    photographs: PhotoResponses
    placed: Mapping[str, Sequence[Tensor]]

    @cached_property
    def trials(self) -> list[Trials | None]:
        """Of each unit."""
        return [make_trials(self.photographs.values(unit)) for unit in self.units]


@dataclass(frozen=True, eq=False)
class LayerScores:
    """What judges say of a layer's images.

    Attributes:
        cards: by image, what is added to its card.
        evidence: by judge, for the trials of each fold, how much more each photograph is like each unit's images than
            like those of the others: (units, photographs).  The higher of two is the judge's guess.
    """

    cards: dict[int, dict[str, Any]]
    evidence: dict[str, tuple[Tensor, Tensor]]


def explain(
    images: Sequence[JudgedImage],
    metrics: Sequence[SelfMetrics],
    judges: Sequence[PerceptualJudge],
    photo_set: PhotoSet | None,
    device: torch.device,
    tally: Tally,
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
            tally.say(f"asking {judge.name} what photographs look like")
            spaces.append(FeatureSpace.of(judge, photo_set, device))
        missing = next(filter(None, (of_one_kind(space) for space in spaces)), "")
    if missing:
        for i in hidden:
            cards[i]["explanation"] = {"missing": missing}
        return cards
    placed = {}
    for space in spaces:
        tally.say(f"asking {space.judge.name} what pictures look like")
        placed[space.judge.name] = space.place((images[i].image for i in hidden), device)
        tally.add(len(hidden))
    groups = _groups(images, metrics, hidden, placed)
    for group in groups:
        for row, card in score_layer(group, spaces).cards.items():
            cards[hidden[row]] |= card
    for row, both in _scores_of_both_sides(groups, spaces).items():
        cards[hidden[row]]["explanation"]["both_sides"] = both
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


def _groups(
    images: Sequence[JudgedImage],
    metrics: Sequence[SelfMetrics],
    hidden: Sequence[int],
    placed: Mapping[str, Sequence[Tensor]],
) -> list[LayerGroup]:
    """Images of one network whose units are read from the same layer; those of units' negatives are by themselves.

    Args:
        placed: the images, in the order of `hidden`.
    """
    members: dict[tuple[int, tuple[str, ...], bool], dict[Unit, list[int]]] = {}
    for row, i in enumerate(hidden):
        layers = tuple(sorted({part.layer for _, part in images[i].unit.terms()}))
        negative = all(weight < 0 for weight, _ in images[i].unit.terms())
        members.setdefault((id(images[i].network), layers, negative), {}).setdefault(images[i].unit, []).append(row)
    groups = []
    for by_unit in members.values():
        photographs = metrics[hidden[next(iter(by_unit.values()))[0]]].photographs
        assert photographs is not None
        groups.append(LayerGroup(list(by_unit), list(by_unit.values()), photographs, placed))
    return groups


def score_layer(group: LayerGroup, spaces: Sequence[FeatureSpace]) -> LayerScores:
    """The explanation scores of a layer's images, and the unit scores, by judges."""
    by_image: dict[int, dict[str, Score]] = {}
    together: list[dict[str, Score]] = [{} for _ in group.units]
    best: list[dict[str, Score]] = [{} for _ in group.units]
    nine: list[dict[str, Score]] = [{} for _ in group.units]
    evidence = {}
    for space in spaces:
        name, depths = space.judge.name, space.judge.depths
        likeness = [space.likeness(depth, placed) for depth, placed in enumerate(group.placed[name])]
        # The first image of each unit, then the second: each is compared with one image of every other unit.
        for number in range(max(map(len, group.members))):
            chosen = [of_unit[min(number, len(of_unit) - 1)] for of_unit in group.members]
            scores = explanation_scores([each[chosen] for each in likeness], group.trials, depths)
            for members, score in zip(group.members, scores, strict=True):
                if score is not None and number < len(members):
                    by_image.setdefault(members[number], {})[name] = score
        means = [torch.stack([each[of_unit].mean(0) for of_unit in group.members]) for each in likeness]
        _add(together, name, explanation_scores(means, group.trials, depths))
        scored = next((each[name].depths for each in together if name in each), None)
        if scored is not None:
            first, second = (less_common(means[depths.index(depth)]) for depth in scored)
            evidence[name] = first, second
        for found, count in ((best, 1), (nine, 9)):
            _add(found, name, photograph_scores(space, group.trials, count))
    measures = UnitMeasures(group.photographs, _scorer(spaces))
    cards = {}
    for unit, members in enumerate(group.members):
        shared = _shared_card(group, unit, best[unit], nine[unit], measures)
        several = {"together": {"images": len(members), **_plain(together[unit])}} if len(members) > 1 else {}
        for i in members:
            own = _plain(by_image.get(i, {})) if group.trials[unit] is not None else {"missing": _SILENT}
            cards[i] = {**shared, "explanation": {**own, **several, **shared["explanation"]}}
    return LayerScores(cards, evidence)


def _scores_of_both_sides(groups: Sequence[LayerGroup], spaces: Sequence[FeatureSpace]) -> dict[int, dict[str, Any]]:
    """By image, of a unit whose negative has images too: the guess is more like its images and less like those.

    (Borowski et al. 2021 show people both, the most and the least exciting images.)
    """
    members = {
        (id(group.photographs), unit.terms()): rows
        for group in groups
        for unit, rows in zip(group.units, group.members, strict=True)
    }
    cards: dict[int, dict[str, Any]] = {}
    for group in groups:
        opposites = [members.get((id(group.photographs), (-1.0 * unit).terms())) for unit in group.units]
        paired = [(i, rows) for i, rows in enumerate(opposites) if rows and group.trials[i] is not None]
        found: list[dict[str, Score]] = [{} for _ in paired]
        for space in spaces if paired else ():
            likes = [space.likeness(depth, placed) for depth, placed in enumerate(group.placed[space.judge.name])]
            sides = [
                torch.stack([each[group.members[i]].mean(0) - each[rows].mean(0) for i, rows in paired])
                for each in likes
            ]
            _add(
                found,
                space.judge.name,
                explanation_scores(sides, [group.trials[i] for i, _ in paired], space.judge.depths),
            )
        cards |= {
            row: _plain(by_judge) for (i, _), by_judge in zip(paired, found, strict=True) for row in group.members[i]
        }
    return cards


def _add(found: list[dict[str, Score]], name: str, scores: Sequence[Score | None]) -> None:
    for unit, score in enumerate(scores):
        if score is not None:
            found[unit][name] = score


def photograph_scores(space: FeatureSpace, trials: Sequence[Trials | None], count: int) -> list[Score | None]:
    """The score of each unit's best photographs, so many together, as if they were its pictures."""
    scored = [i for i, each in enumerate(trials) if each is not None]
    if not scored:
        return [None] * len(trials)
    shown = torch.stack([each.nine[:count] for each in trials if each is not None])  # (units, so many)
    asked, places = torch.unique(shown, return_inverse=True)
    likeness = [
        space.likeness(depth, features[asked])[places].mean(1) for depth, features in enumerate(space.photographs)
    ]
    some = explanation_scores(likeness, [trials[i] for i in scored], space.judge.depths)
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
    group: LayerGroup, unit: int, best: dict[str, Score], nine: dict[str, Score], measures: UnitMeasures
) -> dict[str, Any]:
    """What all images of a unit have on their cards."""
    explanation = {
        **({"best_photograph": mean_score(list(best.values())).plain()} if best else {}),
        **({"nine_photographs": mean_score(list(nine.values())).plain()} if nine else {}),
        "chance": CHANCE,
        "photographs": len(group.photographs.names),
        "other_units": len(group.units) - 1,
    }
    judge = measures.space.judge
    told = nine.get(judge.name)
    depth = judge.depths.index(told.depths[0]) if told else len(judge.depths) - 1
    return {"explanation": explanation, "unit_scores": measures.of(group.units[unit], depth)}


def _scorer(spaces: Sequence[FeatureSpace]) -> FeatureSpace:
    """The judge that measures units: DreamSim where it is one, since published numbers are by it, or else the first."""
    return next((space for space in spaces if space.judge.name == DREAMSIM), spaces[0])


class UnitMeasures:
    """Scores of units of a layer in a judge's features; what the units have in common is computed once."""

    def __init__(self, photographs: PhotoResponses, space: FeatureSpace):
        self.photographs, self.space = photographs, space
        self._likeness = cache(lambda depth: space.likeness(depth, space.photographs[depth]))
        self._means: dict[tuple[int, int], Tensor] = {}  # by the profile, which a layer's channels share, and depth

    def of(self, unit: Unit, depth: int) -> dict[str, Any]:
        """Scores of a unit at a depth; None where there is none."""
        features, values = self.space.photographs[depth], self.photographs.values(unit)
        scores: dict[str, Any] = {"judge": self.space.judge.name, "depth": self.space.judge.depths[depth]}
        if not bool(values.max() > values.min()):
            return scores
        return {
            **scores,
            "clarity": clarity(features, values),
            "redundancy": self._redundancy(unit, depth),
            "polysemanticity": polysemanticity(features, values),
            "monosemanticity": monosemanticity(features, values),
            "mis": machine_interpretability(self._likeness(depth), values),
        }

    def _redundancy(self, unit: Unit, depth: int) -> float | None:
        profiles = self.photographs.responses.profile(unit)
        if profiles is None or not isinstance(unit, Channel | Neuron):
            return None
        key = id(profiles), depth
        if key not in self._means:
            self._means[key] = channel_means(self.space.photographs[depth], profiles)
        return redundancy(self._means[key], profiles, unit.channel)
