"""`ascend`: the images that excite units most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from phosphene.ascent.progress import OnStep, Progress
from phosphene.ascent.request import DEFAULT_SEED
from phosphene.devices.one import ascend_here
from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result
from phosphene.units.objects import Unit


def ascend(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe] = "natural",
    *,
    seed: int | Sequence[int] = DEFAULT_SEED,
    start: Any = None,
    photograph: Any = None,
    facets: int = 1,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    batch: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    on_step: OnStep | None = None,
    precision: str | Sequence[str] = "auto",
    batches: Sequence[Sequence[int]] = (),
) -> Result:
    """Make the images that excite units most.

    Each image has its own unit, seed, optimiser and stop: what comes out does not depend on what else is made (up to
    floating point), and the same call gives the same bytes on the same machine.

    Args:
        network: as `phosphene.open` gives it.  It is handed back as it came.  Several make an ensemble, for classes:
            the mean of their logits is maximised; the first gives the size and the names.
        units: one or several, as objects or spelled ("class:flamingo", "features.29:12").
        recipe: the name of one that ships, the path of a TOML file, or a `Recipe`.  Fields found for this network
            (`recipe.networks`) are put in.  Or one for each unit; those that differ only in how large their numbers
            are go through the network in one batch.
        seed: for all units, or one for each.
        start: the image to start from where the recipe's `start.kind` is "image": a path, a PIL image or an array.
        photograph: what units such as "match(features.29)" refer to; given like `start`.
        facets: how many images of each unit, made together so that they differ (the recipe's `priors.diversity`);
            their seeds are the unit's and the next ones.
        device: "cpu", "cuda", …; by default a GPU where there is one.  Several share the units out (see
            `phosphene.devices.several.ascend_on`).
        batch: the most images at once; by default what fits into `memory`, and 32 at most on a CPU; on other devices
            more, where a short trial says that they are faster for it.
        memory: bytes to fill; by default 40 % of what is free on a CPU and 80 % on a GPU.
        precision: "fp32", "bf16", "fp64", or "auto": of the first two the one in which this machine runs the network
            faster, which is measured once and remembered.  It is of the network's passes; for several networks one,
            or one for each.
        on_progress, on_picture: called after every step, and with every finished picture as soon as it is.
        on_step: called with every image on its way, after each of its steps; gives the recipe by which it goes on, or
            None to end it with the next step.  What it changes is in the picture's `changes`.  On one device, and
            without facets.
        batches: [size, steps] pairs, to replay another run: each step's batch is filled up to that size with copies,
            since arithmetic depends on the size of the batch in its last bits, and the ascent ends with the last pair.

    Returns:
        A `Result` with a picture for each unit, in the order given.  After Ctrl-C it has what was made so far, the
        pictures in work as they stood, and `interrupted` is true.

    Raises:
        InputError: a unit, recipe, size, seed, start, device or precision that cannot be.

    Example:
        >>> result = ascend(phosphene.open(), ["class:flamingo", "class:teddy"], "tence", seed=7)
        >>> result.save("phosphene-out")
    """
    options: dict[str, Any] = {"seed": seed, "start": start, "photograph": photograph, "facets": facets}
    options |= {"batch": batch, "memory": memory, "precision": precision, "batches": batches}
    if device is not None and not isinstance(device, str | torch.device):
        if on_step is not None:
            raise InputError(f"on_step is called on one device, and {len(device)} are given: expected one")
        from phosphene.devices.several import ascend_on

        return ascend_on(device, network, units, recipe, on_progress=on_progress, on_picture=on_picture, **options)

    def made(_: int, picture: Picture) -> None:
        if on_picture is not None:
            on_picture(picture)

    options |= {"on_progress": on_progress, "on_step": on_step}
    return ascend_here(network, units, recipe, device=device, on_finished=made, **options)
