"""What one network calls a class and another does not: the pictures that climb the difference of their logits.

Two checkpoints of one network, or an original and what was fine-tuned from it, agree on most images.  What excites a
class of the one and not of the other shows what changed between them: a new feature, or a shortcut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene import defaults
from phosphene.api.ascend import ascend
from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.scores import measure
from phosphene.default_progress import OnProgress, ProgressOption, counted
from phosphene.devices.callbacks import Callbacks
from phosphene.draw.grid import tile
from phosphene.errors import InputError
from phosphene.files import atomic_write, make_directory
from phosphene.judges.explanation import MIN_PHOTOGRAPHS, explanation_scores, make_trials, mean_score
from phosphene.judges.panel import check_unrelated, open_judges
from phosphene.judges.perception import FeatureSpace, of_network
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.ensemble import Ensemble
from phosphene.networks.forward import Reader
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network, same_classes
from phosphene.networks.open import open_network
from phosphene.picture import Picture
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Class
from phosphene.units.spelling import find_classes

SIDES = ("first less second", "second less first", "first alone", "second alone")
"""What each of the four pictures of a class climbs."""

_MARKS = ("A - B", "B - A", "A", "B")
_WEIGHTS = ((1.0, -1.0), (-1.0, 1.0))
_ALL = 10  # of networks with no more classes than this, all are shown


@dataclass(frozen=True, eq=False)
class ClassDifference:
    """Of a class, its pictures, and what both networks say of each.

    Attributes:
        index, name: of the class.
        pictures: by side, see `SIDES`.
        probabilities: by side, that of the class by the first network and by the second.
        on_photographs: the mean probability of the class over photographs, by each network; none without.
        explanation: how often a judge tells by each of the first two pictures on which of two photographs the networks
            differ more, as `phosphene judge` has it: by side a plain score; empty without judges.
    """

    index: int
    name: str
    pictures: tuple[Picture, ...]
    probabilities: tuple[tuple[float, float], ...]
    on_photographs: tuple[float, float] | None
    explanation: dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class NetworkDifference:
    """What two networks do not call by one name.

    Attributes:
        networks: the names of both.
        classes: those that are shown.
        disagreements: the share of photographs of which they name another class first; None without photographs.
        notes: what a reader should know.
    """

    networks: tuple[str, str]
    classes: list[ClassDifference]
    disagreements: float | None = None
    notes: list[str] = field(default_factory=list)

    def figure(self) -> Image.Image:
        """A row for each class: its four pictures, each with both networks' probabilities of it.

        A is the first network, and B the second.
        """
        images, captions = [], []
        for shown in self.classes:
            for side, picture, (first, second) in zip(_MARKS, shown.pictures, shown.probabilities, strict=True):
                images.append(picture.image().convert("RGB"))
                captions.append(f"{shown.name}, {side} ({first:.0%}, {second:.0%})")
        return tile(images, captions, len(SIDES))

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as plain data."""
        return {
            "networks": list(self.networks),
            "disagreements": self.disagreements,
            "notes": self.notes,
            "classes": [
                {
                    "index": shown.index,
                    "name": shown.name,
                    "on_photographs": shown.on_photographs,
                    "explanation": shown.explanation,
                    "pictures": [
                        {"side": side, "file": f"{picture.name}.png", "objective": picture.scores["objective"],
                         "probabilities": list(both)}
                        for side, picture, both in zip(SIDES, shown.pictures, shown.probabilities, strict=True)
                    ],
                }
                for shown in self.classes
            ],
        }  # fmt: skip

    def save(self, directory: str | Path = "phosphene-out") -> list[Path]:
        """Write every picture, `difference.png` and `difference.json` into a directory, which is made if needed.

        Raises:
            InputError: the directory cannot be made or written.
        """
        folder = make_directory(Path(directory))
        files = [picture.save(folder) for shown in self.classes for picture in shown.pictures]
        figure = self.figure()
        files.append(atomic_write(folder / "difference.png", lambda aside: figure.save(aside, "PNG")))
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        files.append(atomic_write(folder / "difference.json", lambda aside: aside.write_text(text, encoding="utf-8")))
        return files


def difference(
    first: Any,
    second: Any,
    classes: Sequence[str | int] = (),
    recipe: str | Path | Recipe = "natural",
    *,
    photographs: str | Path | Sequence[str | Path] | None = None,
    judges: Sequence[str | Network] = (),
    options: DifferenceOptions | None = None,
) -> NetworkDifference:
    """Picture what one network calls a class and another does not, both ways, and each alone beside them.

    Args:
        first, second: networks of the same classes, each as `phosphene.open` takes it; they are handed back as they
            came.
        classes: indices, WordNet ids or names.  By default all of a network of no more than ten; of others those of
            which the networks' probabilities differ most over the photographs.
        recipe: as for `ascend`.
        photographs: a folder, or files: how often the networks differ on them, and which classes differ most.
        judges: networks that took no part: whether the pictures tell on which of two photographs the networks differ
            more (at least 100 photographs).
        options: how many classes, the seed, and where it runs.

    Raises:
        InputError: networks of other classes, no class of that name, none named where there are many and no
            photographs, too few photographs for judges, or judges without photographs.

    Example:
        >>> found = difference("tuned.pth", "original.pth", photographs="photos")
        >>> found.save("phosphene-out")
    """
    options = options or DifferenceOptions()
    pair = open_network(first), open_network(second)
    _check(pair, judges, photographs)
    logits = None if photographs is None else _read(pair, PhotoSet.of(photographs), options)
    indices = _chosen(pair, classes, logits, options.count)
    made = _pictures(pair, indices, recipe, options)
    shown = [
        ClassDifference(
            index,
            str(pair[0].labels[index].name) if pair[0].labels is not None else f"class {index}",
            pictures,
            tuple(_probabilities(pair, picture, index) for picture in pictures),
            None if logits is None else _mean_probabilities(logits, index),
            {},
        )
        for index, pictures in zip(indices, made, strict=True)
    ]
    notes = _notes(pair)
    if judges and logits is not None and photographs is not None:
        shown, more = _explained(pair, shown, logits, PhotoSet.of(photographs), judges, options)
        notes += more
    other = None if logits is None else float((logits[0].argmax(1) != logits[1].argmax(1)).double().mean())
    return NetworkDifference((pair[0].name, pair[1].name), shown, other, notes)


@dataclass(frozen=True)
class DifferenceOptions:
    """Of `difference`.

    Attributes:
        count: how many classes, where they are chosen by photographs.
        seed: of all pictures.
        run: where it runs.
        on_progress: called as `ascend` calls it, with `stages` runs in turn; by default a bar, unless `run.progress` is
            False.
        on_files: called with how many photographs are shown, and of how many; by default as `on_progress`.
    """

    count: int = 4
    seed: int = defaults.SEED
    run: RunOptions = field(default_factory=RunOptions)
    on_progress: Callable[[Progress], None] | None = None
    on_files: OnProgress | None = None

    @property
    def count_files(self) -> ProgressOption:
        """Who is told of the photographs."""
        return False if self.on_files is None and self.run.progress is False else self.on_files


def _check(pair: tuple[Network, Network], judges: Sequence[Any], photographs: Any) -> None:
    for network in pair:
        if not network.classes:
            raise InputError(f"{network.name} shows no classes: expected two networks of the same classes")
    if not same_classes(*pair):
        counts = " and ".join(f"{network.classes} of {network.name}" for network in pair)
        raise InputError(f"the networks do not tell the same classes ({counts}): expected networks that do")
    if judges and photographs is None:
        raise InputError("judges are asked about photographs, and none are given: expected photographs")


def _notes(pair: tuple[Network, Network]) -> list[str]:
    if pair[0].digest == pair[1].digest:
        return ["both networks have the same weights: there is nothing that tells them apart"]
    return []


def _read(pair: tuple[Network, Network], photographs: PhotoSet, options: DifferenceOptions) -> tuple[Tensor, Tensor]:
    """Both networks' logits on the photographs, (photographs, classes) each."""
    found = []
    with counted("photographs shown", options.count_files, 2 * len(photographs.paths)) as tally:
        counting = photographs.counted_on(tally)
        for network in pair:
            tally.say(f"to {network.name}")
            rows: list[Tensor] = []
            with network.borrowed(network.device), torch.no_grad():
                for _, pixels in counting.batches(network.preprocessing):
                    network.read(pixels.to(network.device), {LOGITS: _keeper(rows)})
            found.append(torch.cat(rows))
    return found[0], found[1]


def _keeper(rows: list[Tensor]) -> Reader:
    return lambda logits: rows.append(logits.detach().double().cpu())


def _chosen(
    pair: tuple[Network, Network], classes: Sequence[str | int], logits: tuple[Tensor, Tensor] | None, count: int
) -> list[int]:
    if classes:
        found = [index for each in classes for index in find_classes(str(each), pair[0])]
        return list(dict.fromkeys(found))
    total = pair[0].classes
    assert total is not None
    if total <= _ALL:
        return list(range(total))
    if logits is None:
        raise InputError(
            f"{total} classes, and none is named: expected names, or photographs to find those that differ most"
        )
    probabilities = [each.softmax(1) for each in logits]
    gap = (probabilities[0] - probabilities[1]).abs().mean(0)
    return [int(index) for index in gap.argsort(descending=True, stable=True)[:count]]


def _pictures(
    pair: tuple[Network, Network], indices: list[int], recipe: str | Path | Recipe, options: DifferenceOptions
) -> list[tuple[Picture, ...]]:
    """Of each class its four pictures, in the order of `SIDES`."""
    sources: list[Any] = [*(Ensemble(pair, weights) for weights in _WEIGHTS), *pair]
    made = []
    for source, side in zip(sources, SIDES, strict=True):
        result = ascend(
            source,
            [Class(index) for index in indices],
            recipe,
            seed=options.seed,
            options=options.run,
            callbacks=Callbacks(options.on_progress),
        )
        if result.interrupted:
            raise KeyboardInterrupt
        made.append([_renamed(picture, side) for picture in result])
    return [tuple(pictures) for pictures in zip(*made, strict=True)]


def _renamed(picture: Picture, side: str) -> Picture:
    return replace(picture, name=f"{picture.name}_{side.replace(' ', '-')}")


def _probabilities(pair: tuple[Network, Network], picture: Picture, index: int) -> tuple[float, float]:
    """Both networks' probability of a class in a finished picture, as it is saved."""
    found = []
    for network in pair:
        with network.borrowed(network.device):
            scores = measure(network, Class(index), torch.from_numpy(picture.pixels), network.device)
        found.append(scores["probability"])
    return found[0], found[1]


def _mean_probabilities(logits: tuple[Tensor, Tensor], index: int) -> tuple[float, float]:
    first, second = (float(each.softmax(1)[:, index].mean()) for each in logits)
    return first, second


def _explained(
    pair: tuple[Network, Network],
    shown: list[ClassDifference],
    logits: tuple[Tensor, Tensor],
    photographs: PhotoSet,
    judges: Sequence[str | Network],
    options: DifferenceOptions,
) -> tuple[list[ClassDifference], list[str]]:
    """The classes with how well the first two pictures of each tell where the networks differ."""
    if len(logits[0]) < MIN_PHOTOGRAPHS:
        raise InputError(
            f"{len(logits[0])} photographs: expected at least {MIN_PHOTOGRAPHS}, of many kinds, for judges of them"
        )
    device = torch.device("cpu")
    opened = open_judges(list(judges))
    for judge in opened:
        for network in pair:
            check_unrelated(judge, network)
    total = len(opened) * len(photographs.paths)
    with counted("photographs shown", options.count_files, total, doing="to the judges") as tally:
        counting = photographs.counted_on(tally)
        spaces = [FeatureSpace.of(of_network(judge), counting, device) for judge in opened]
    gaps = logits[0] - logits[1]
    found: list[dict[str, dict[str, Any]]] = [{} for _ in shown]
    silent = []
    for place, side in enumerate(SIDES[:2]):
        sign = 1 - 2 * place
        trials = [make_trials(sign * gaps[:, each.index]) for each in shown]
        silent += [f"{each.name}, {side}" for each, one in zip(shown, trials, strict=True) if one is None]
        by_judge = []
        for space in spaces:
            placed = space.place([each.pictures[place].image().convert("RGB") for each in shown], device)
            likeness = [space.likeness(depth, rows) for depth, rows in enumerate(placed)]
            by_judge.append(explanation_scores(likeness, trials, space.judge.depths))
        for row, scores in enumerate(zip(*by_judge, strict=True)):
            known = [score for score in scores if score is not None]
            if known:
                found[row][side] = mean_score(known).plain()
    notes = [f"too few photographs tell the networks apart by {name}" for name in silent]
    return [replace(each, explanation=own) for each, own in zip(shown, found, strict=True)], notes
