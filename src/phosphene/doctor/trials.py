"""The preprocessings that were tried, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phosphene.doctor.diagnostics import Diagnostic, Level
from phosphene.doctor.outputs import ELIMINATION, SIGNIFICANCE, Outputs, difference, guessing_probability
from phosphene.doctor.preprocessings import differences, is_equivalent, resize_rule
from phosphene.errors import join_names
from phosphene.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class FitTrial:
    """How a network does under one preprocessing.

    Attributes:
        name: of the scaling ("declared", "caffe RGB").
        rule: how photographs are resized, in words.
        preprocessing: what was tried.
        photographs: how many it was shown: a bad one is given up early.
        accuracy: the share of them of which the true class is the most probable.
        probability: the mean probability of the true class.
        same: whether chance explains its difference from the one that fits.
    """

    name: str
    rule: str
    preprocessing: Preprocessing
    photographs: int
    accuracy: float
    probability: float
    same: bool


def make_trial(name: str, preprocessing: Preprocessing, outputs: Outputs, fitting: Outputs) -> FitTrial:
    """Args: `fitting` are the outputs under the preprocessing that fits."""
    return FitTrial(
        name=name,
        rule=resize_rule(preprocessing),
        preprocessing=preprocessing,
        photographs=len(outputs),
        accuracy=float(outputs.right.double().mean()),
        probability=float(outputs.probability.mean()),
        same=difference(outputs, fitting) >= SIGNIFICANCE,
    )


def best_first(trials: list[FitTrial]) -> list[FitTrial]:
    return sorted(trials, key=lambda trial: (-trial.accuracy, -trial.probability))


def none_fits(outputs: dict[str, Outputs]) -> Diagnostic:
    """Where none is better than guessing: whether the labels are off by one, or what else may be wrong."""
    for name, each in outputs.items():
        for offset, side in ((1, "after"), (-1, "before")):
            if guessing_probability(each, offset) < ELIMINATION / 100:
                share = float((each.predicted == each.true + offset).double().mean())
                text = (
                    f"they are off by one: under {name} the output {side} the true class is the greatest in {share:.0%}"
                )
                return Diagnostic("labels", "warning", f"{text} of {len(each)} photographs")
    count = max(map(len, outputs.values()))
    text = (
        f"none fits: under no usual preprocessing does it name more of {count} photographs right than by guessing; see "
        "whether these are enough, the labels in the order of the outputs, and the weights this network's"
    )
    return Diagnostic("preprocessing", "warning", text)


def confirmed_diagnostic(fits: FitTrial, of_scalings: list[FitTrial]) -> Diagnostic:
    """Where the declared preprocessing fits."""
    named = f"names {fits.accuracy:.1%} of {fits.photographs} photographs right"
    best = next(trial for trial in of_scalings if trial.same)
    if best.accuracy > fits.accuracy:
        text = f"the declared one may fit: it {named}, and {best.name} {best.accuracy:.1%}, which may be chance"
        return Diagnostic("preprocessing", "note", text)
    return Diagnostic("preprocessing", "ok", f"the declared one fits: it {named}")


def mismatch_diagnostic(declared: FitTrial, fits: FitTrial, p: float) -> Diagnostic:
    """Where another one fits; `p` is how often chance alone makes such a difference."""
    changes = "; ".join(differences(declared.preprocessing, fits.preprocessing))
    rates = f"{fits.accuracy:.1%} of {fits.photographs} photographs are named right, and not {declared.accuracy:.1%}"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    level: Level = "warning"
    if is_equivalent(declared.preprocessing, fits.preprocessing):
        level, chance = "note", f"{chance}; no image that is made depends on this"
    return Diagnostic("preprocessing", level, f"{changes}: {rates} ({chance})")


def indistinct_diagnostics(fits: FitTrial, of_scalings: list[FitTrial]) -> Iterator[Diagnostic]:
    """Which others may fit as well."""
    same = [trial.name for trial in of_scalings if trial.same and trial.name != fits.name]
    if same:
        text = f"{fits.photographs} photographs are too few to tell {fits.name} from {join_names(same)}"
        yield Diagnostic("preprocessing", "note", text)
