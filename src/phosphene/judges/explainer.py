"""Explanation scores of many pictures of the same units: what photographs and judges say is measured once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from phosphene.default_progress import counted
from phosphene.errors import InputError
from phosphene.judges.explanation import Score, Trials, explanation_scores, make_trials, mean_score
from phosphene.judges.hidden_units import of_one_kind, why_not_scored
from phosphene.judges.perception import FeatureSpace, PerceptualJudge
from phosphene.judges.photo_responses import respond_to_photographs
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.photographs.listing import photographs_digest
from phosphene.units.objects import Unit


@dataclass(frozen=True, eq=False)
class Explainer:
    """What scores pictures of some units of a layer.

    Attributes:
        units: those that can be asked about.
        trials: of each.
        spaces: judges, with what they make of the photographs.
        photographs: a digest of the photographs' names and sizes.
    """

    units: list[Unit]
    trials: list[Trials]
    spaces: list[FeatureSpace]
    photographs: str

    @classmethod
    def of(
        cls,
        network: Network,
        units: Sequence[Unit],
        photographs: str | Path | Sequence[str | Path],
        judges: Sequence[PerceptualJudge],
        device: torch.device,
        count: int | None = None,
    ) -> Explainer:
        """Of the first `count` of some units of a layer that photographs tell enough about.

        Raises:
            InputError: there are too few photographs, or they are of one kind, or they excite none of the units.
        """
        photo_set = PhotoSet.of(photographs)
        total = len(photo_set.paths) * (1 + len(judges))
        with counted("photographs shown", total=total, doing=f"to {network.name} and its judges") as tally:
            photo_set = photo_set.counted_on(tally)
            with network.borrowed(device), torch.no_grad():
                responses = respond_to_photographs(network, units, photo_set, device)
            if missing := why_not_scored(len(responses.names)):
                raise InputError(missing)
            spaces = [FeatureSpace.of(judge, photo_set, device) for judge in judges]
        if missing := next(filter(None, map(of_one_kind, spaces)), ""):
            raise InputError(missing)
        asked = [(unit, trials) for unit in units if (trials := make_trials(responses.values(unit))) is not None]
        if not asked:
            raise InputError(f"{len(units)} units, such as {units[0]}: the photographs excite none of them enough")
        units, chosen = [unit for unit, _ in asked[:count]], [trials for _, trials in asked[:count]]
        return cls(units, chosen, spaces, photographs_digest(photo_set.paths))

    def scores(self, images: Sequence[Sequence[Image.Image]], device: torch.device) -> list[Score]:
        """The mean over judges, for each unit, of how its pictures together explain it.

        Args:
            images: of each unit as many pictures.
        """
        by_judge = []
        for space in self.spaces:
            placed = space.place([image for each in images for image in each], device)
            likeness = [
                space.likeness(depth, rows).reshape(len(images), -1, len(space.photographs[depth])).mean(1)
                for depth, rows in enumerate(placed)
            ]
            by_judge.append(_whole(explanation_scores(likeness, self.trials, space.judge.depths)))
        return [mean_score(scores) for scores in zip(*by_judge, strict=True)]


def _whole(scores: Sequence[Score | None]) -> list[Score]:
    return [score for score in scores if score is not None]  # each unit has trials
