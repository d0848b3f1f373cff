"""What a search is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phosphene import defaults
from phosphene.errors import InputError, did_you_mean
from phosphene.networks.network import Network
from phosphene.tuning.samplers import PRUNERS, SAMPLERS
from phosphene.tuning.space import Space


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes about it.

    Attributes:
        space: one that ships ("classes", "layers", "post"), a TOML file or a `Space`; by default "classes" or "layers".
        count: how many classes (8) or channels (6), drawn by the seed.
        judges: as `phosphene.judge` takes networks; by default the bundled ones that are not related.  They judge
            classes, and with photographs what pictures of channels explain.
        photographs: a folder, or files, of at least 100: of a layer, the explanation score is maximized (see
            `judges.explanation`), and without them how active and selective channels are.
        trials: how many there are in the end, those of other processes and earlier calls included.
        budget: minutes after which no further trial is begun.
        steps: of a whole trial; by default the recipe's.
        sampler: "tpe" (Bergstra et al. 2011) or "random" (Bergstra & Bengio 2012).
        pruner: "halving" (Jamieson & Talwalkar 2016, asynchronous), "hyperband" (Li et al. 2018), or "none": of the
            trials after a ninth and a third of the steps, where these are 40 or more, only the best third goes on.
            Each such rung is an ascent of its own, since a rate falls over as many steps as there are.
        compute: minimize the passes too, where `steps` or `views.count` are searched; without pruning.
        storage: a file, by default OUT/searches.journal, or the URL of a database as Optuna takes it.
        out: the folder for the recipe and the trials' images.
        seed: of the classes or channels, the images and the sampler.
        keep: whether the recipe is kept for the network, so that `phosphene classes` and `filters` use it.

    Raises:
        InputError: a sampler or pruner that there is not, or a number that is not above 0.
    """

    space: str | Path | Space | None = None
    count: int | None = None
    judges: Sequence[str | Network] | None = None
    trials: int = 50
    budget: float | None = None
    steps: int | None = None
    sampler: str = "tpe"
    pruner: str = "halving"
    compute: bool = False
    storage: str | Path | None = None
    out: str | Path = "phosphene-search"
    seed: int = defaults.SEED
    keep: bool = True
    photographs: str | Path | Sequence[str | Path] | None = None

    def __post_init__(self) -> None:
        for value, known, what in ((self.sampler, SAMPLERS, "sampler"), (self.pruner, PRUNERS, "pruner")):
            if value not in known:
                raise InputError(f"{what} {value!r}: expected {', '.join(known)}{did_you_mean(value, known)}")
        if any(number is not None and not number > 0 for number in (self.trials, self.count, self.budget)):
            raise InputError(f"trials {self.trials}, count {self.count}, budget {self.budget}: expected all above 0")
