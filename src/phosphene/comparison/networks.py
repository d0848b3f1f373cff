"""`compare`: what two networks, or two checkpoints of one, share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from phosphene import defaults
from phosphene.comparison.features import (
    Maps,
    ReadNetwork,
    default_layers,
    has_map,
    read_photographs,
)
from phosphene.comparison.gathered import Gathered, LayerPair, Matcher
from phosphene.comparison.matched_layers import ComparedNetwork, MatchedLayers
from phosphene.comparison.matching import FEW
from phosphene.comparison.result import NetworkComparison
from phosphene.comparison.similarity import BLOCK, WIDTH, Similarity, SimilaritySums
from phosphene.default_progress import ProgressOption, Tally, counted
from phosphene.errors import InputError, join_names
from phosphene.extras import require
from phosphene.judges.panel import open_judge
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.photographs.listing import evenly_spread
from phosphene.photographs.unfinished import PassFile, SavedTensors, begin_pass, interruptible_pass, pass_key, where

LEAST = 16  # photographs, so that each half has an unbiased estimate
_MOST_GRID = 64


@dataclass(frozen=True)
class ComparisonSettings:
    """How networks are compared.

    Attributes:
        count: so many layers of each, evenly spread, where none are named.
        grid: rows and columns that maps are brought to.
        limit: of more photographs so many, evenly spread; None: all.
        few: units of B that one of A is predicted from.
        block: photographs at most whose products are taken with each other.
        seed: of the photographs' order, of shuffles and of projections.
    """

    count: int = 12
    grid: int = 7
    limit: int | None = defaults.PHOTOGRAPHS
    few: int = FEW
    block: int = BLOCK
    seed: int = defaults.SEED

    def __post_init__(self) -> None:
        bounds = {"count": (1, 1000), "grid": (1, _MOST_GRID), "few": (1, 100), "block": (LEAST, 4096)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"{name} {value!r}: expected a whole number of {least} to {most}")


def compare(
    a: Network | str,
    b: Network | str,
    photographs: str | Path | Sequence[str | Path],
    layers: Sequence[str] | None = None,
    *,
    settings: ComparisonSettings | None = None,
    device: torch.device | str | None = None,
    on_progress: ProgressOption = None,
) -> NetworkComparison:
    """What two networks, or two checkpoints of one, share: layers that are alike, and units that are.

    All of it is linear and of photographs, each with its network's own preprocessing.  Layers are compared by debiased
    CKA (see `comparison.similarity`), units by the correlation of their activations over photographs and positions
    (see `comparison.matching`), each beside what comes out where the second network's photographs are shuffled.
    Photographs go through both networks in a random order; where layers are matched by likeness they go twice, since
    the likeness is known only at the end.  Memory does not grow with their number.

    *By halves* means: each CKA is computed on either half of the photographs as well (`Similarity.halves`), also that
    of a network's layers with each other (`NetworkComparison.within`); how much the two differ says how sure it is.
    A layer's CKA with itself is always 1, so that halves say nothing of it.

    Within `phosphene.resumable(folder)` it goes on where it was killed.

    Args:
        a, b: networks, or names and files of such, also `FILE=WEIGHTS` and `FILE@PREPROCESSING`.  They are handed back
            as they came.
        photographs: a folder, or files.
        layers: "LAYER" of A, whose units are matched with those of the most like layer of B, or "LAYER=LAYER" of B; by
            default a dozen layers of each, and of each of A the most like one of B.
        device: where they run; by default where their weights are.
        on_progress: called with how many files are done, and of how many, both times together; by default a bar;
            False: nothing.

    Raises:
        InputError: there is no such layer, or there are fewer than 16 photographs that can be read.

    Example:
        >>> found = phosphene.compare("efficientnet_lite0", "efficientnet_lite1", "photographs")
        >>> found.best_layers()[-1], found.matches[-1].summary()["correlation"]
    """
    settings = settings or ComparisonSettings()
    opened = [each if isinstance(each, Network) else open_judge(each) for each in (a, b)]
    first, second, wanted = _layers(opened[0], opened[1], layers, settings.count)
    run = _Run([first, second], [(0, 1)], photographs, settings, device, on_progress)
    return run.compare({(0, 1): wanted})[0]


def compare_all(
    networks: Sequence[Network],
    photographs: str | Path | Sequence[str | Path],
    *,
    settings: ComparisonSettings | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    device: torch.device | str | None = None,
    on_progress: ProgressOption = None,
) -> dict[tuple[int, int], NetworkComparison]:
    """`compare` of pairs of networks, for which photographs go through each network no more often than for one.

    Args:
        pairs: of places of networks; by default all.

    Returns:
        By pair, of the places of networks.  It goes on where it was killed, as `compare` does.

    Raises:
        InputError: as `compare` does.
    """
    settings = settings or ComparisonSettings()
    read = [ReadNetwork.of(each, default_layers(each, settings.count)) for each in networks]
    pairs = list(combinations(range(len(read)), 2)) if pairs is None else list(pairs)
    run = _Run(read, pairs, photographs, settings, device, on_progress)
    return dict(zip(pairs, run.compare(dict.fromkeys(pairs)), strict=True))


def _layers(
    a: Network, b: Network, layers: Sequence[str] | None, count: int
) -> tuple[ReadNetwork, ReadNetwork, list[tuple[str, str]] | None]:
    """The layers that are read of each network, and those to be matched: with "" the most like one of B is."""
    if layers is None:
        return ReadNetwork.of(a, default_layers(a, count)), ReadNetwork.of(b, default_layers(b, count)), None
    if not layers:
        raise InputError("no layers: expected at least one, as LAYER of A or LAYER=LAYER of B")
    parted = [text.partition("=") for text in layers]
    wanted = [(left.strip(), right.strip()) for left, _, right in parted]
    for text, (left, right) in zip(layers, wanted, strict=True):
        if not left or ("=" in text and not right):
            raise InputError(f"layers {text!r}: expected LAYER of A, or LAYER=LAYER of B")
    named = [right for _, right in wanted if right]
    others = named if len(named) == len(wanted) else [*default_layers(b, count), *named]
    return ReadNetwork.of(a, [left for left, _ in wanted]), ReadNetwork.of(b, others), list(dict.fromkeys(wanted))


class _Run:
    """Photographs that go through networks."""

    def __init__(
        self,
        networks: Sequence[ReadNetwork],
        pairs: Sequence[tuple[int, int]],
        photographs: str | Path | Sequence[str | Path],
        settings: ComparisonSettings,
        device: torch.device | str | None,
        on_progress: ProgressOption,
    ):
        for module in ("scipy.optimize", "sklearn.linear_model"):
            require(module, "analysis", "comparing networks")  # before photographs have gone through
        self.networks, self.pairs, self.settings = list(networks), list(pairs), settings
        self.device, self.on_progress = device, on_progress
        found = evenly_spread(PhotoSet.of(photographs).paths, settings.limit)
        if len(found) < LEAST:
            raise InputError(f"{len(found)} photographs: expected at least {LEAST}, to compare networks by")
        order = np.random.default_rng([settings.seed, 0]).permutation(len(found))
        self.files = [found[place] for place in order]

        self.tally = Tally("photographs")

    def compare(self, wanted: dict[tuple[int, int], list[LayerPair] | None]) -> list[NetworkComparison]:
        """Of each pair, with the layers that are to be matched."""
        networks = ", ".join(each.network.name for each in self.networks)
        with counted("photographs", self.on_progress, len(self.files), doing=networks) as self.tally:
            return self._compare(wanted)

    def _compare(self, wanted: dict[tuple[int, int], list[LayerPair] | None]) -> list[NetworkComparison]:
        file = begin_pass(lambda: self._key(wanted))
        now = self._begin(wanted)

        def restore(saved: SavedTensors) -> str:
            self._restore(now, saved, wanted)
            total, ended = len(self.files), now.done == len(self.files)
            number, done = (now.number + 1, 0) if ended else (now.number, now.done)
            return where(total, total if number == now.passes else done, ", the second time" if number == 1 else "")

        if not file.resume(restore):
            now = self._begin(wanted)
        if now.number == 0:
            self._photographs(now, self.networks, file)
        found = now.sums.finish()
        between = dict(zip(self.pairs, found, strict=False))
        if now.matcher is None:
            self._begin_matching(now, wanted, found)
        if now.matcher is not None and now.number < now.passes:
            self._photographs(now, now.matcher.networks, file)
        within = found[len(self.pairs) :]
        self.tally.say("matching units")
        return [self._comparison(pair, between[pair], (within[pair[0]], within[pair[1]]), now) for pair in self.pairs]

    def _key(self, wanted: dict[tuple[int, int], list[LayerPair] | None]) -> str:
        layers = [each.layers for each in self.networks]
        what = {"pass": "compare", "layers": layers, "pairs": self.pairs, "wanted": list(wanted.items())}
        networks = [each.network for each in self.networks]
        device = self.device or [str(each.device) for each in networks]
        return pass_key(networks, self.files, device, {**what, "settings": asdict(self.settings)})

    def _begin(self, wanted: dict[tuple[int, int], list[LayerPair] | None]) -> Gathered:
        itself = [(place, place) for place in range(len(self.networks))]
        sums = SimilaritySums([*self.pairs, *itself], self.settings.block, self.settings.seed)
        known = {
            pair: layers for pair, layers in wanted.items() if layers is not None and all(right for _, right in layers)
        }
        if len(known) == len(wanted):
            return Gathered(sums, Matcher(self.networks, known), passes=1)
        return Gathered(sums, None, passes=2)

    def _begin_matching(
        self,
        now: Gathered,
        wanted: dict[tuple[int, int], list[LayerPair] | None],
        found: Sequence[Similarity],
    ) -> None:
        """Choose the layers that are matched by their likeness, which is known now."""
        between = zip(self.pairs, found, strict=False)
        now.matcher = Matcher(
            self.networks, {pair: self._choose(pair, similarity, wanted[pair]) for pair, similarity in between}
        )

    def _photographs(self, now: Gathered, networks: Sequence[ReadNetwork], file: PassFile) -> None:
        """Have the photographs that are left go through networks."""
        total, number = len(self.files), now.number

        def tell(done: float, _: int) -> None:
            self.tally.at(number * total + done, now.passes * total)

        with interruptible_pass(file) as batch_done:

            def use(done: int, indices: list[int], maps: Maps) -> None:
                now.add(done, indices, maps)
                batch_done(now.tensors)

            if now.done < total:
                read_photographs(networks, self.files, self.settings.grid, self.device, use, tell, now.done)
        if len(now.read) < LEAST:
            raise InputError(
                f"{len(now.read)} photographs that can be read: expected at least {LEAST}, to compare networks by"
            )
        now.sums.finish()
        now.number, now.done = number + 1, 0
        file.write(now.tensors)

    def _restore(
        self, now: Gathered, saved: SavedTensors, wanted: dict[tuple[int, int], list[LayerPair] | None]
    ) -> None:
        """Take what was gathered from a file."""
        total, grid = len(self.files), self.settings.grid
        now.number, now.done = saved.take_numbers("pass", [0, 0], [now.passes, total])
        now.read = saved.take_indices("read", total, (LEAST if now.number else 1, total)).tolist()
        now.sums.restore(saved, "similarity", [each.widths(grid) for each in self.networks], len(now.read))
        if now.number and now.matcher is None:
            self._begin_matching(now, wanted, now.sums.finish())
        if now.matcher is not None and (now.passes == 1 or (now.number, now.done) > (1, 0)):
            now.matcher.restore(saved, "match", grid, total)

    def _choose(self, pair: tuple[int, int], similarity: Similarity, layers: list[LayerPair] | None) -> list[LayerPair]:
        """The layers to be matched: for each of A that has none the most like one of B."""
        left, right = (self.networks[place].layers for place in pair)
        best = np.where(np.isnan(similarity.cka), -np.inf, similarity.cka).argmax(1)
        likest = {name: right[int(place)] for name, place in zip(left, best, strict=True)}
        if layers is not None:
            return [(a, b or likest[a]) for a, b in layers]
        return list(likest.items())

    def _comparison(
        self,
        pair: tuple[int, int],
        similarity: Similarity,
        within: tuple[Similarity, Similarity],
        now: Gathered,
    ) -> NetworkComparison:
        a, b = (self.networks[place] for place in pair)
        matches = []
        assert now.matcher is not None
        for layers, units, peaks in now.matcher.finish(pair, self.settings.few):
            place = a.layers.index(layers[0]), b.layers.index(layers[1])
            cka, chance = float(similarity.cka[place]), float(similarity.chance[place])
            matches.append(MatchedLayers(*layers, cka, chance, units, peaks))
        return NetworkComparison(
            a=ComparedNetwork(a.network.name, a.network.digest, a.layers),
            b=ComparedNetwork(b.network.name, b.network.digest, b.layers),
            photographs=tuple(self.files),
            unreadable=len(self.files) - len(now.read),
            similarity=similarity,
            within=within,
            matches=tuple(matches),
            settings=asdict(self.settings),
            notes=tuple(self._notes(a, b, [name for at, name in now.sums.sketched if at in pair], now)),
        )

    def _notes(self, a: ReadNetwork, b: ReadNetwork, sketched: list[str], now: Gathered) -> Iterator[str]:
        counted = now.sums.count
        yield f"{len(now.read)} photographs went through in a random order (seed {self.settings.seed})"
        if counted > self.settings.block or counted < len(now.read):
            yield f"CKA is that of {counted} of them, in blocks of {self.settings.block}"
        if sketched:
            yield (
                f"{join_names(list(dict.fromkeys(sketched)), 3)}: random projections to two times {WIDTH} numbers, "
                "for CKA alone, since a photograph has more there"
            )
        if a.network.preprocessing != b.network.preprocessing:
            yield "each network has its own preprocessing, so a position may be a little elsewhere in the photograph"
        for read in (a, b):
            flat = [name for name in read.layers if not has_map(read.network.layer(name))]
            if flat:
                yield f"{read.network.name}: {join_names(flat, 3)} by the mean over positions, which are no grid"
            for topic in ("preprocessing", "tokens"):
                if topic in read.network.notes:
                    yield f"{read.network.name}: {read.network.notes[topic]}"
