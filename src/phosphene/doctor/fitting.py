"""Which of the usual preprocessings fits a network, by labelled photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from phosphene.doctor.diagnostics import Diagnostic, Level
from phosphene.doctor.photographs import LabeledPhotographs, check_classes, read_photographs
from phosphene.doctor.preprocessings import (
    DECLARED,
    candidates,
    differences,
    is_equivalent,
    resize_rule,
    resize_rules,
    suggestion,
)
from phosphene.errors import join_names
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing

# Below the first a difference is believed; below the second a candidate is given up before it has seen all photographs.
SIGNIFICANCE, ELIMINATION = 0.05, 0.01
ROUND = 32
"""How many photographs are shown before the candidates are compared again."""


@dataclass(frozen=True)
class FitTrial:
    """How a network does under one preprocessing.

    Attributes:
        name: of the scaling ("declared", "caffe RGB").
        rule: how photographs are resized, in words.
        preprocessing: what was tried.
        photographs: how many it was shown: a bad one is given up early.
        accuracy: the share of them of which the true class is the most probable.
        confidence: the mean probability of the true class.
        same: whether chance explains its difference from the one that fits.
    """

    name: str
    rule: str
    preprocessing: Preprocessing
    photographs: int
    accuracy: float
    confidence: float
    same: bool


@dataclass(frozen=True)
class PreprocessingFit:
    """Which preprocessing fits.

    Attributes:
        trials: first of scalings, then of resize rules under the scaling that fits; each with the best first.
        fits: the declared one, unless another is better beyond chance; None if none is better than guessing.
        findings: what this says.
        remedy: what to say where the declared one does not fit: an option, or lines of TOML; otherwise empty.
        unreadable: how many of the photographs could not be read.
    """

    trials: tuple[FitTrial, ...]
    best: FitTrial | None
    diagnostics: tuple[Diagnostic, ...]
    suggestion: str
    unreadable: int


@dataclass(frozen=True)
class _Outputs:
    """What the network says of the first photographs: the likeliest class and the true one's probability, of each."""

    classes: int
    true: Tensor
    predicted: Tensor
    probability: Tensor

    def __len__(self) -> int:
        return len(self.true)

    def first(self, count: int) -> _Outputs:
        return _Outputs(self.classes, self.true[:count], self.predicted[:count], self.probability[:count])

    def and_then(self, more: _Outputs) -> _Outputs:
        pairs = ((self.true, more.true), (self.predicted, more.predicted), (self.probability, more.probability))
        return _Outputs(self.classes, *map(torch.cat, pairs))

    @property
    def right(self) -> Tensor:
        return self.predicted == self.true

    @property
    def score(self) -> Tensor:
        """The logarithm of the true class's probability, bounded: more than guessing wrong costs nothing."""
        return (self.probability.double() + 1 / self.classes).log()

    @property
    def rank(self) -> tuple[float, float]:
        return float(self.right.double().mean()), float(self.score.mean())


@dataclass(frozen=True)
class _TestSet:
    """The photographs, in the order in which they are shown: their pixels under each resize rule, and labels."""

    pixels: dict[str, Tensor]
    labels: Tensor
    unreadable: int


def fit(
    network: Network,
    photographs: LabeledPhotographs,
    device: torch.device | str = "cpu",
    on_progress: Callable[[str], None] | None = None,
) -> PreprocessingFit:
    """Try the usual preprocessings on labelled photographs, and say which fits.

    First the scalings (see `candidates`) under the declared resize rule, then the resize rules under the scaling that
    fits.  A candidate that is worse beyond doubt is given up early; the declared one is shown all photographs.

    Raises:
        InputError: the network is no classifier, or no photograph can be read.
    """
    check_classes(network)
    declared = network.preprocessing
    shown = _load_test_set(photographs, declared)
    race = _Comparison(network, shown, device, on_progress or (lambda text: None))

    scalings = candidates(declared)
    answers = race.run(scalings, keep=DECLARED)
    best = max(answers, key=lambda name: answers[name].rank)
    trials = [_trial(name, scalings[name], answers[name], answers[best]) for name in answers]
    if _guessing_probability(answers[best]) >= ELIMINATION:
        trials = [replace(trial, same=False) for trial in _best_first(trials)]
        return PreprocessingFit(tuple(trials), None, (_none_fits(answers),), "", shown.unreadable)

    # The declared one is believed until another is better beyond chance.
    chosen = DECLARED if difference(answers[best], answers[DECLARED]) >= SIGNIFICANCE else best
    first = resize_rule(declared)
    ways = {
        rule: replace(scalings[chosen], resize=way.resize, crop=way.crop)
        for rule, way in resize_rules(declared).items()
    }
    by_rule = race.run(ways, keep=first, known={first: answers[chosen]})
    best_rule = max(by_rule, key=lambda rule: by_rule[rule].rank)
    rule = first if difference(by_rule[best_rule], by_rule[first]) >= SIGNIFICANCE else best_rule

    fitting = by_rule[rule]
    fits = _trial(chosen, ways[rule], fitting, fitting)
    of_scalings = _best_first([_trial(name, scalings[name], answers[name], fitting) for name in answers])
    of_rules = _best_first([_trial(chosen, ways[rule], by_rule[rule], fitting) for rule in by_rule if rule != first])
    before = _trial(DECLARED, declared, answers[DECLARED], fitting)
    verdict = (
        _confirmed_diagnostic(fits, of_scalings)
        if fits.preprocessing == declared
        else _mismatch_diagnostic(before, fits, difference(fitting, answers[DECLARED]))
    )
    findings = (verdict, *_others(fits, of_scalings))
    return PreprocessingFit(
        (*of_scalings, *of_rules), fits, findings, suggestion(declared, fits.preprocessing), shown.unreadable
    )


def _load_test_set(photographs: LabeledPhotographs, declared: Preprocessing) -> _TestSet:
    rules = resize_rules(declared)
    images, readable = read_photographs(photographs, rules.values())
    # Shuffled, so that the first of them are of all kinds.
    order = torch.randperm(len(readable), generator=torch.Generator().manual_seed(0))
    pixels = {rule: tensor[order] for rule, tensor in zip(rules, images, strict=True)}
    return _TestSet(pixels, torch.tensor(readable.labels)[order], len(photographs) - len(readable))


@dataclass(frozen=True)
class _Comparison:
    """Shows photographs to a network under several preprocessings."""

    network: Network
    test_set: _TestSet
    device: torch.device | str
    say: Callable[[str], None]

    def run(
        self, tried: dict[str, Preprocessing], keep: str, known: dict[str, _Outputs] | None = None
    ) -> dict[str, _Outputs]:
        """What the network says under each; one clearly worse than the best so far is shown no more, except `keep`."""
        answers = dict(known or {})
        new = [name for name in tried if name not in answers]
        running, total = list(tried), len(self.test_set.labels)
        for start in range(0, total, ROUND):
            rows = slice(start, min(start + ROUND, total))
            asked = [name for name in running if name in new]
            self.say(f"photographs {start + 1} to {rows.stop} of {total} under {len(asked)} preprocessings")
            for name in asked:
                more = self.ask(tried[name], rows)
                answers[name] = answers[name].and_then(more) if name in answers else more
            so_far = {name: answers[name].first(rows.stop) for name in running}
            best = max(so_far.values(), key=lambda given: given.rank)
            running = [name for name in running if name == keep or difference(best, so_far[name]) >= ELIMINATION]
        return {name: answers[name] for name in tried}

    def ask(self, preprocessing: Preprocessing, rows: slice) -> _Outputs:
        network = self.network.replace(preprocessing=preprocessing)
        pixels, true = self.test_set.pixels[resize_rule(preprocessing)][rows], self.test_set.labels[rows]
        size = 8 if torch.device(self.device).type == "cpu" else ROUND  # few at a time stay in a CPU's cache
        with network.borrowed(self.device), torch.no_grad():
            batches = [pixels[i : i + size].to(self.device).float() for i in range(0, len(pixels), size)]
            probabilities = torch.cat(
                [network.probabilities(network.forward(batch).double()).cpu() for batch in batches]
            )
        known = true.clamp_max(probabilities.shape[1] - 1)  # there may be more labels than outputs
        probability = probabilities.gather(1, known[:, None])[:, 0].nan_to_num()
        return _Outputs(network.classes, true, probabilities.argmax(1), probability)


def difference(one: _Outputs, other: _Outputs) -> float:
    """How often chance alone would make a difference as large as that between two, on the photographs that both saw.

    Accuracy takes many photographs to tell a preprocessing from its neighbour, probabilities take few, but mislead
    where a network is too sure of itself or not enough.  So the probabilities of the true class count where they point
    where accuracy does (a paired permutation test of their logarithms), and otherwise the photographs that one of the
    two names right and the other does not (McNemar's exact test).
    """
    count = min(len(one), len(other))
    one, other = one.first(count), other.first(count)
    wins, losses = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    scores = one.score - other.score
    if (wins - losses) * float(scores.sum()) > 0:
        return sign_flips(scores)
    return fair_coin(wins, losses)


def sign_flips(differences: Tensor) -> float:
    """How often a sum as far from 0 comes out when each difference is as likely to be of the other sign."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (4000, len(differences)), generator=generator).to(differences) * 2 - 1
    as_far = (signs @ differences).abs() >= differences.sum().abs() * (1 - 1e-9)
    return (1 + int(as_far.sum())) / (1 + len(signs))


def fair_coin(heads: int, tails: int) -> float:
    """How often a fair coin falls as one-sidedly as that, or more."""
    flips = heads + tails
    return min(1.0, 2 * sum(math.comb(flips, k) for k in range(min(heads, tails) + 1)) / (1 << flips))


def _guessing_probability(answers: _Outputs, offset: int = 0) -> float:
    """How often one would be right as often who always names the commonest class."""
    count = len(answers)
    share = float(answers.true.bincount().max()) / count
    right = int((answers.predicted == answers.true + offset).sum())
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right, count + 1))


def _none_fits(answers: dict[str, _Outputs]) -> Diagnostic:
    for name, given in answers.items():
        for offset, side in ((1, "after"), (-1, "before")):
            if _guessing_probability(given, offset) < ELIMINATION / 100:
                share = float((given.predicted == given.true + offset).double().mean())
                text = (
                    f"they are off by one: under {name} the output {side} the true class is the greatest in {share:.0%}"
                )
                return Diagnostic("labels", "warning", f"{text} of {len(given)} photographs")
    count = max(map(len, answers.values()))
    text = (
        f"none fits: under no usual preprocessing does it name more of {count} photographs right than by guessing; see "
        "whether these are enough, the labels in the order of the outputs, and the weights this network's"
    )
    return Diagnostic("preprocessing", "warning", text)


def _trial(name: str, preprocessing: Preprocessing, answers: _Outputs, fitting: _Outputs) -> FitTrial:
    return FitTrial(
        name=name,
        rule=resize_rule(preprocessing),
        preprocessing=preprocessing,
        photographs=len(answers),
        accuracy=float(answers.right.double().mean()),
        confidence=float(answers.probability.mean()),
        same=difference(answers, fitting) >= SIGNIFICANCE,
    )


def _best_first(trials: list[FitTrial]) -> list[FitTrial]:
    return sorted(trials, key=lambda trial: (-trial.accuracy, -trial.confidence))


def _confirmed_diagnostic(fits: FitTrial, of_scalings: list[FitTrial]) -> Diagnostic:
    named = f"names {fits.accuracy:.1%} of {fits.photographs} photographs right"
    best = next(trial for trial in of_scalings if trial.same)
    if best.accuracy > fits.accuracy:
        text = f"the declared one may fit: it {named}, and {best.name} {best.accuracy:.1%}, which may be chance"
        return Diagnostic("preprocessing", "note", text)
    return Diagnostic("preprocessing", "ok", f"the declared one fits: it {named}")


def _mismatch_diagnostic(declared: FitTrial, fits: FitTrial, p: float) -> Diagnostic:
    changes = "; ".join(differences(declared.preprocessing, fits.preprocessing))
    rates = f"{fits.accuracy:.1%} of {fits.photographs} photographs are named right, and not {declared.accuracy:.1%}"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    level: Level = "warning"
    if is_equivalent(declared.preprocessing, fits.preprocessing):
        level, chance = "note", f"{chance}; no image that is made depends on this"
    return Diagnostic("preprocessing", level, f"{changes}: {rates} ({chance})")


def _others(fits: FitTrial, of_scalings: list[FitTrial]) -> Iterator[Diagnostic]:
    same = [trial.name for trial in of_scalings if trial.same and trial.name != fits.name]
    if same:
        text = f"{fits.photographs} photographs are too few to tell {fits.name} from {join_names(same)}"
        yield Diagnostic("preprocessing", "note", text)
