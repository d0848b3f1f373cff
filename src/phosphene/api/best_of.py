"""Best of several: images of many seeds, of which judges choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from phosphene import defaults
from phosphene.api.bars import shown_progress
from phosphene.ascent.request import Recipes, Request, Units, make_request
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.run import run
from phosphene.errors import InputError
from phosphene.judges.independence import shared_weights
from phosphene.judges.judge import judge
from phosphene.judges.panel import open_judge
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.result import Result
from phosphene.units.objects import Class


def best_of(
    network: Any,
    units: Units,
    recipe: Recipes = "natural",
    *,
    count: int,
    selectors: Sequence[str | Network],
    seed: int = defaults.SEED,
    options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
) -> Result:
    """Make each class's image from several seeds, and keep the one to which selectors give the highest probability.

    Judges that selected do not score: `judge` refuses them for these images.

    Args:
        network, units, recipe, options: as for `ascend`; classes only.
        count: how many seeds: `seed`, `seed` + 1, …
        selectors: networks that choose, by the mean of their probabilities of the class.
        callbacks: as for `ascend`; `picture` is called with each picture that is selected.

    Returns:
        A `Result` with the selected pictures.  Their `scores["chosen"]` has the selectors' names, the seeds tried, and
        what the selectors said of each.

    Raises:
        InputError: a unit is no class, the count is below 2, there are no selectors, or one of them is the network.
    """
    request = make_request(network, units, recipe, seed=seed, options=options)
    return run_best_of(request, count, selectors, callbacks)


def run_best_of(
    request: Request, count: int, selectors: Sequence[str | Network], callbacks: Callbacks | None = None
) -> Result:
    """As `best_of`, of a request for one image of each unit."""
    callbacks = callbacks or Callbacks()
    for unit in request.units:
        if not isinstance(unit, Class):
            raise InputError(f"best of several of {unit}: judges can choose among images of classes only")
    if count < 2:
        raise InputError(f"best of {count}: expected at least 2")
    if not selectors:
        raise InputError("best of several: expected at least one network that chooses")
    panel = [open_judge(each) if isinstance(each, str) else each for each in selectors]
    for selector in panel:
        if selector.digest == request.network.digest or shared_weights(selector, request.network):
            raise InputError(
                f"{selector.name} cannot choose among images of {request.network.name}: they share weights"
            )
    every = _of_each_seed(request, count)
    with shown_progress(every, replace(callbacks, picture=None)) as told:
        made = run(every, told)
    if not len(made):  # it was interrupted before the first step
        return made
    progress: Literal[False] | None = False if request.options.progress is False else None
    cards = judge(made, panel, device=request.device, on_progress=progress)
    selected = []
    for unit in request.units:
        tried = [
            (card["judged"]["probability"], picture)
            for card, picture in zip(cards, made, strict=True)
            if picture.unit == unit
        ]
        if tried:
            selected.append(_best(tried, list(cards[0]["judges"])))
            if callbacks.picture is not None:
                callbacks.picture(selected[-1])
    return Result(selected, made.recipe, made.networks, made.interrupted, made.not_started)


def _of_each_seed(request: Request, count: int) -> Request:
    """The request with each unit so many times, of one seed after another."""

    def each(values: list[Any]) -> list[Any]:
        return [value for value in values for _ in range(count)]

    return replace(
        request,
        units=each(request.units),
        recipes=each(request.recipes),
        photographs=each(request.photographs),
        seeds=[seed + i for seed in request.seeds for i in range(count)],
    )


def _best(tried: Sequence[tuple[float, Picture]], selectors: list[str]) -> Picture:
    """The picture of the highest probability, with what was said of all."""
    _, picture = max(tried, key=lambda pair: pair[0])
    scores = {
        "by": selectors,
        "seeds": [each.seed for _, each in tried],
        "probabilities": [round(probability, 6) for probability, _ in tried],
    }
    name = picture.name.removesuffix(f"_seed{picture.seed}")
    return replace(picture, name=name, scores=picture.scores | {"chosen": scores})
