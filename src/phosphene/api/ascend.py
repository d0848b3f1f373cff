"""`ascend`: the images that excite units most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phosphene import defaults
from phosphene.api.bars import shown_progress
from phosphene.ascent.request import Recipes, Units, make_request
from phosphene.ascent.run_options import RunOptions
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.run import run
from phosphene.result import Result


def ascend(
    network: Any,
    units: Units,
    recipe: Recipes = "natural",
    *,
    seed: int | Sequence[int] = defaults.SEED,
    start: Any = None,
    facets: int = 1,
    options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
) -> Result:
    """Make the images that excite units most.

    Each image has its own unit, seed, optimizer and stop: what comes out does not depend on what else is made (up to
    floating point), and the same call gives the same bytes on the same machine.

    Args:
        network: a `Network`, or what `phosphene.open` takes.  It is handed back as it came.  A list of several makes
            an ensemble, for classes: the mean of their logits is maximized; the first gives the size and the names.
        units: one or several, as objects or spelled ("class:flamingo", "features.29:12").
        recipe: the name of one that ships, the path of a TOML file, or a `Recipe`.  Fields found for this network
            (`Recipe.networks`) are put in.  Or one for each unit; those that differ only in how large their numbers
            are go through the network in one batch.
        seed: for all units, or one for each.
        start: the image to start from where the recipe's `start.kind` is "image": a path, a PIL image or an array.
        facets: how many images of each unit, made together so that they differ (the recipe's `priors.diversity`);
            their seeds are the unit's and the next ones.
        options: where it runs: devices, batch, memory, precision.
        callbacks: functions that are told of progress, of finished pictures and of steps.

    Returns:
        A `Result` with a picture for each unit, in the order given.  After Ctrl-C it has what was made so far, the
        pictures in work as they stood, and `interrupted` is true.

    Raises:
        InputError: a network, unit, recipe, size, seed, start, device or precision that cannot be.

    Example:
        >>> result = ascend("efficientnet_lite0", ["class:flamingo", "class:teddy"], "tence", seed=7)
        >>> result.save("phosphene-out")
    """
    request = make_request(network, units, recipe, seed=seed, start=start, facets=facets, options=options)
    with shown_progress(request, callbacks) as told:
        return run(request, told)
