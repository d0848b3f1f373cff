"""`again`: an image made again from its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene.api.bars import shown_progress
from phosphene.ascent.progress import OnStep, Progress
from phosphene.ascent.request import make_request, with_recipe_size
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.unit_statistics import prior_statistics
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.run import run
from phosphene.errors import InputError
from phosphene.interruption import require_complete
from phosphene.networks.ensemble import Ensemble
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.provenance.networks import check_size, open_recorded_network
from phosphene.provenance.pixels import decode_pixels
from phosphene.provenance.reading import read_with_image
from phosphene.recipes.recipe import Recipe
from phosphene.units.spelling import parse_unit


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_statistics(path: str | Path, known: list[str], networks: list[Network], recipe: Recipe) -> None:
    """Raise an `InputError` unless the statistics that the image was pulled towards are the ones there are here."""
    settings = recipe.priors.statistics
    for network, wanted in zip(networks, known, strict=False):
        found = prior_statistics(network, settings)[1] if settings else ""
        if found != wanted:
            raise InputError(
                f"image {str(path)!r} was made with the statistics {wanted or 'of none'} of {network.name}, and here "
                f"are {found or 'none'}: see `phosphene statistics`"
            )


def _replay_changes(changes: Sequence[tuple[int, str, Any]]) -> OnStep | None:
    """Makes the changes that were made on the way: [step, field, value]."""
    if not changes:
        return None
    return lambda step: step.recipe.override({field: value for at, field, value in changes if at == step.step})


@dataclass(frozen=True)
class ReproducedPicture:
    """A picture made again, and whether it is the same to the last byte."""

    picture: Picture
    same: bool


def again(
    path: str | Path,
    network: Network | None = None,
    *,
    trust: bool = False,
    device: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ReproducedPicture:
    """Make an image again from its file alone.

    It is made with as many threads as at first, and by itself; only if that comes out otherwise in batches of the size
    it was first made in.  The last bits of the arithmetic may depend on both.

    Args:
        path: a PNG made by phosphene.
        network: the network it was made with, where that was one of your own; by default it is opened by what the image
            says, as far as that is data (see `networks.named`).
        trust: follow whatever the image says: import code, read files, download weights.
        device: by default the kind of device it was made on.
        on_progress: as for `ascend`.

    Raises:
        InputError: the file cannot be read, or the network is another one, or is not opened by what the image says.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; half an image is none made again.
    """
    provenance, image = read_with_image(path)
    if provenance.unit.startswith("objective("):
        raise InputError(
            f"image {str(path)!r} shows {provenance.unit}, a function that no file holds: expected "
            "phosphene.ascend with it"
        )
    call = "phosphene.again(image, network)"
    recipe = provenance.settings(f"image {str(path)!r}", trust)
    network = open_recorded_network(path, provenance.network, network, call, trust=trust)
    others = [open_recorded_network(path, entry, None, call, trust=trust) for entry in provenance.ensemble]
    if recipe.size is not None and tuple(provenance.network.input.size) != recipe.size:
        # It was fed views at its own size, as networks were whose position embeddings can be resampled by now.
        network = network.replace(preprocessing=replace(network.preprocessing, fixed_size=True))
    check_size(path, provenance.network, network, image)
    facet, facets = provenance.facet
    _check_statistics(path, provenance.statistics, [network, *others], recipe)
    unit = parse_unit(provenance.unit, with_recipe_size(network, recipe), recorded=True, held=provenance.held)
    if provenance.photograph is not None:
        unit = unit.with_photograph(decode_pixels(provenance.photograph))
    wanted = np.asarray(image)
    batches = [list(pair) for pair in provenance.batches]
    attempts = [[[min(size, max(2, facets)), steps] for size, steps in batches], batches]
    for attempt in attempts[: 1 if attempts[0] == attempts[1] else 2]:
        with _threads(provenance.threads):
            options = RunOptions(device or provenance.device, precision=provenance.precision, batches=attempt)
            request = make_request(
                Ensemble([network, *others], provenance.weights),
                unit,
                recipe,
                seed=provenance.seed - facet,
                start=None if provenance.start is None else decode_pixels(provenance.start),
                facets=facets,
                options=options,
            )
            replay = Callbacks(on_progress, step=_replay_changes(provenance.changes))
            with shown_progress(request, replay) as told:
                result = run(request, told)
            picture = require_complete(result)[facet]
        same = np.array_equal(np.asarray(picture.image()), wanted)
        if same:
            break
    # What judges said of the image holds for the same image, and for no other.
    scores = {**provenance.to_dict()["scores"], **picture.scores} if same else picture.scores
    return ReproducedPicture(replace(picture, name=Path(path).stem, batches=batches, scores=scores), same)
