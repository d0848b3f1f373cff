"""Words that name units, by the photographs that excite them: CLIP-Dissect's soft WPMI.

Oikarinen & Weng 2023 ("CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision Networks"): how
much likelier a word is on the photographs that excite a unit than it is by itself.  With p(t|x), the softmax over all
words of ten times the cosine between a photograph x and a word t in a network of images and texts, and with p(x in B),
the probability that x is among those that excite the unit, of which the most exciting has 0.998 and the last of the top
0.97, and all others 0, their soft WPMI is

    log p(t|B) = sum over x of log(1 + p(x in B) (p(t|x) - 1)),
    soft WPMI  = log p(t|B) - lambda log p(t).

The constants are those of the authors' code, where lambda is 1.  There p(t) is the mean of p(t|B) over the units that
are named together.  Here it is the mean over shuffled photographs, so that a unit's name does not depend on the units
beside it; and these tell, too, how well the best word fits by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.files import read_text
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.layers import OUTPUT
from phosphene.networks.network import Network
from phosphene.networks.text import TEMPLATES, check_text

SHUFFLES = 200  # of the photographs
CONFIDENCE = 0.99  # the share of shuffles whose best word scores less than one that names a unit
MOST_WORDS = 100_000
MIN_PHOTOGRAPHS = 20

_SCALE = 10.0  # of the cosines
_FIRST, _LAST = 0.998, 0.97  # probability of the most exciting photograph, and of the one after the last of the top
_TINY = 1e-7  # under the logarithm
_TOP = 100  # photographs, and of few a tenth
_MOST_NUMBERS = 2**28  # photographs times words
_LARGEST_FILE = 2**24  # bytes of a file of words
_SEED = 20230501


@dataclass(frozen=True)
class WordName:
    """The word that fits a unit best.

    Attributes:
        word: it, whether or not it fits better than by chance.
        score: its soft WPMI.
        margin: how much more that is than the next word's.
        null: what the best word's score stays below on 99 of 100 shuffles of the photographs.
    """

    word: str
    score: float
    margin: float
    null: float

    @property
    def named(self) -> bool:
        """Whether the word fits better than by chance."""
        return self.score > self.null


@dataclass(frozen=True, eq=False)
class WordNamer:
    """Names units by words.

    Attributes:
        words: all of them.
        photographs: the names of those that could be read.
        probabilities: of each word on each photograph, (photographs, words); see the head of this module.
        top: how many photographs of a unit count.
    """

    words: tuple[str, ...]
    photographs: tuple[str, ...]
    probabilities: Tensor
    top: int

    def name(self, values: Tensor) -> WordName:
        """The word of a unit.

        Args:
            values: how active it is on each photograph, (photographs,).
        """
        order = self._shuffles[0]  # of photographs that excite it alike, as those on which it is silent, none is first
        exciting = order[values[order].argsort(descending=True, stable=True)[: self.top]]
        scores = self._evidence(exciting) - self.prior
        best = scores.topk(min(2, len(scores)))
        margin = best.values[0] - best.values[1] if len(scores) > 1 else torch.tensor(math.inf)
        varied = bool(values[exciting[-1]] < values[exciting[0]])
        score = best.values[0].item() if varied else -math.inf  # a unit that is the same everywhere is of no word
        return WordName(self.words[int(best.indices[0])], score, margin.item(), self.null)

    def _evidence(self, exciting: Tensor) -> Tensor:
        """log p(t|B) of each word, (words,), from the photographs that excite a unit, the most exciting first."""
        membership = _FIRST - torch.arange(self.top) / self.top * (_FIRST - _LAST)
        likely = 1 + membership[:, None] * (self.probabilities[exciting] - 1)
        return (likely + _TINY).log().sum(dim=0)

    @cached_property
    def _shuffles(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(_SEED)
        return [torch.randperm(len(self.probabilities), generator=generator) for _ in range(SHUFFLES + 1)]

    @cached_property
    def _by_chance(self) -> Tensor:
        """log p(t|B) of each word for each shuffle, (shuffles, words)."""
        return torch.stack([self._evidence(order[: self.top]) for order in self._shuffles[1:]])

    @cached_property
    def prior(self) -> Tensor:
        """log p(t) of each word, (words,)."""
        return self._by_chance.logsumexp(dim=0) - math.log(SHUFFLES)

    @cached_property
    def null(self) -> float:
        """What the best word's score stays below on 99 of 100 shuffles of the photographs."""
        best = (self._by_chance - self.prior).max(dim=1).values
        return best.double().quantile(CONFIDENCE).item()


def read_words(path: str | Path) -> list[str]:
    """The words of a file, one a line, each once.

    Raises:
        InputError: there is no such file, it is too large, has no word, or has one that no text tower takes.
    """
    origin = f"words file {str(path)!r}"
    lines = read_text(Path(path), origin, _LARGEST_FILE).split("\n")
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < 2:
        raise InputError(f"{origin} has {len(words)} words: expected two or more, one a line")
    if len(words) > MOST_WORDS:
        raise InputError(f"{origin} has {len(words):,} words: expected at most {MOST_WORDS:,}")
    for word in words:
        check_text(word, TEMPLATES)
    return words


def open_namer(
    network: Network,
    words: Sequence[str],
    photo_set: PhotoSet,
    *,
    templates: Sequence[str] = TEMPLATES,
    top: int | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int], object] | None = None,
) -> WordNamer:
    """What names units by words, from what a network of images and texts makes of photographs.

    Args:
        network: that has a text tower.
        templates: that words are put into.
        top: how many photographs of a unit count; by default 100, and of fewer than 1,000 a tenth.
        on_progress: told how many more words and photographs are done.

    Raises:
        InputError: it has no text tower, a word is too long for it, or there are too few photographs, or too many.
    """
    if network.texts is None:
        raise InputError(
            f"{network.name} has no text tower: expected a network of images and texts, such as "
            "-n clip:openai/clip-vit-base-patch32"
        )
    if len(photo_set.paths) * len(words) > _MOST_NUMBERS:
        raise InputError(
            f"{len(photo_set.paths):,} photographs and {len(words):,} words: expected at most {_MOST_NUMBERS:,} pairs"
        )
    vectors = network.texts.vectors(words, templates, device, on_progress)
    names: list[str] = []
    cosines = []
    with network.borrowed(device), torch.no_grad():
        for batch, pixels in photo_set.batches(network.preprocessing):
            names += batch
            embedded = network.activations(pixels, OUTPUT)[OUTPUT].float().cpu()
            cosines.append(torch.nn.functional.normalize(embedded, dim=-1) @ vectors.T)
            if on_progress is not None:
                on_progress(len(batch))
    count = len(names)
    top = max(5, min(_TOP, count // 10)) if top is None else top
    if count < max(MIN_PHOTOGRAPHS, 2 * top):
        raise InputError(
            f"{count} photographs: expected at least {max(MIN_PHOTOGRAPHS, 2 * top)}, twice those of a unit that count"
        )
    return WordNamer(tuple(words), tuple(names), (_SCALE * torch.cat(cosines)).softmax(dim=1), top)
