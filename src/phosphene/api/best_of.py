"""Best of several: images of many seeds, of which judges choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from phosphene.api.ascend import ascend
from phosphene.ascent.request import DEFAULT_SEED, recipes_for
from phosphene.errors import InputError
from phosphene.hardware import first_device
from phosphene.judges.judge import judge
from phosphene.judges.panel import open_judge, shared_weights
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.units.objects import Class, Unit
from phosphene.units.spelling import parse_unit


def best_of(
    network: Network,
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe] = "natural",
    *,
    count: int,
    selectors: Sequence[str | Network],
    seed: int = DEFAULT_SEED,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    **options: Any,
) -> Result:
    """Make each class's image from several seeds, and keep the one that the choosers give the highest probability.

    Judges that chose do not score: `judge` refuses them for these images.

    Args:
        network, units, recipe, device: as for `ascend`; classes only.
        count: how many seeds: `seed`, `seed` + 1, …
        choosers: networks that choose, by the mean of their probabilities of the class.
        on_picture: called with each picture that is chosen.
        options: further arguments of `ascend`.

    Returns:
        A `Result` with the chosen pictures.  Their `scores["chosen"]` has the choosers' names, the seeds tried, and
        what the choosers said of each.

    Raises:
        InputError: a unit is no class, the count is below 2, there are no choosers, or one of them is the network.
    """
    given = [units] if isinstance(units, str | Unit) else list(units)
    parsed = [parse_unit(unit, network) for unit in given]
    for unit in parsed:
        if not isinstance(unit, Class):
            raise InputError(f"best of several of {unit}: judges can choose among images of classes only")
    if count < 2:
        raise InputError(f"best of {count}: expected at least 2")
    if not selectors:
        raise InputError("best of several: expected at least one network that chooses")
    panel = [open_judge(each) if isinstance(each, str) else each for each in selectors]
    for chooser in panel:
        if chooser.digest == network.digest or shared_weights(chooser, network):
            raise InputError(f"{chooser.name} cannot choose among images of {network.name}: they share weights")
    seeds = [seed + i for i in range(count)]
    made = ascend(
        network,
        [unit for unit in parsed for _ in seeds],
        [own for own in recipes_for(recipe, network, len(parsed)) for _ in seeds],
        seed=[each for _ in parsed for each in seeds],
        device=device,
        **options,
    )
    if not len(made):  # it was interrupted before the first step
        return made
    cards = judge(list(made), panel, device=first_device(device))
    kept: list[Picture] = []
    for unit in parsed:
        tried = [
            (card["judged"]["probability"], picture)
            for card, picture in zip(cards, made, strict=True)
            if picture.unit == unit
        ]
        if not tried:
            continue
        _, picture = max(tried, key=lambda pair: pair[0])
        chosen = {
            "by": list(cards[0]["judges"]),
            "seeds": [each.seed for _, each in tried],
            "probabilities": [round(probability, 6) for probability, _ in tried],
        }
        name = picture.name.removesuffix(f"_seed{picture.seed}")
        kept.append(replace(picture, name=name, scores=picture.scores | {"chosen": chosen}))
        if on_picture is not None:
            on_picture(kept[-1])
    return Result(kept, made.recipe, made.network, made.interrupted, made.not_started)
