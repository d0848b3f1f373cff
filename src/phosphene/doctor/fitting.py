"""Which of the usual preprocessings fits a network, by labeled photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from phosphene.default_progress import ProgressOption, Tally, counted
from phosphene.doctor.comparison import Comparison, load_test_set
from phosphene.doctor.diagnostics import Diagnostic
from phosphene.doctor.outputs import ELIMINATION, SIGNIFICANCE, Outputs, difference, guessing_probability
from phosphene.doctor.photographs import LabeledPhotographs, check_classes
from phosphene.doctor.preprocessings import DECLARED, candidates, resize_rule, resize_rules, suggestion
from phosphene.doctor.trials import (
    FitTrial,
    best_first,
    confirmed_diagnostic,
    indistinct_diagnostics,
    make_trial,
    mismatch_diagnostic,
    none_fits,
)
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class PreprocessingFit:
    """Which preprocessing fits.

    Attributes:
        trials: first of scalings, then of resize rules under the scaling that fits; each with the best first.
        best: the declared one, unless another is better beyond chance; None if none is better than guessing.
        diagnostics: what this says.
        suggestion: what to say where the declared one does not fit: an option, or lines of TOML; otherwise empty.
        unreadable: how many of the photographs could not be read.
    """

    trials: tuple[FitTrial, ...]
    best: FitTrial | None
    diagnostics: tuple[Diagnostic, ...]
    suggestion: str
    unreadable: int

    def to_dict(self) -> dict[str, Any]:
        """As `phosphene doctor --json` prints it."""
        return {
            "trials": self.trials,
            "fits": self.best,
            "findings": self.diagnostics,
            "remedy": self.suggestion,
            "unreadable": self.unreadable,
        }


def fit(
    network: Network,
    photographs: LabeledPhotographs,
    device: torch.device | str = "cpu",
    on_progress: ProgressOption = None,
) -> PreprocessingFit:
    """Try the usual preprocessings on labeled photographs, and say which fits.

    First the scalings (see `candidates`) under the declared resize rule, then the resize rules under the scaling that
    fits.  A candidate that is worse beyond doubt is given up early; the declared one is shown all photographs.

    Args:
        network: it is handed back as it came.
        photographs: of which the classes are known.
        device: where the network runs.
        on_progress: called with how many photographs are shown, and of how many: first for the scalings, then for the
            resize rules; by default a bar; False: nothing.

    Raises:
        InputError: the network is no classifier, or no photograph can be read.
    """
    with counted("photographs", on_progress, doing="reading photographs") as tally:
        return _fit(network, photographs, device, tally)


def _fit(
    network: Network, photographs: LabeledPhotographs, device: torch.device | str, tally: Tally
) -> PreprocessingFit:
    check_classes(network)
    declared = network.preprocessing
    test_set = load_test_set(photographs, declared)
    comparison = Comparison(network, test_set, device, tally)

    scalings = candidates(declared)
    by_scaling = comparison.run(scalings, keep=DECLARED)
    likeliest = _best(by_scaling)
    if guessing_probability(by_scaling[likeliest]) >= ELIMINATION:
        trials = [make_trial(name, scalings[name], by_scaling[name], by_scaling[likeliest]) for name in by_scaling]
        trials = [replace(trial, same=False) for trial in best_first(trials)]
        return PreprocessingFit(tuple(trials), None, (none_fits(by_scaling),), "", test_set.unreadable)

    scaling, declared_rule = _unless_better(DECLARED, by_scaling), resize_rule(declared)
    by_name = _resized(scalings[scaling], declared)
    by_rule = comparison.run(by_name, keep=declared_rule, known={declared_rule: by_scaling[scaling]})
    rule = _unless_better(declared_rule, by_rule)

    fitting = by_rule[rule]
    best = make_trial(scaling, by_name[rule], fitting, fitting)
    of_scalings = best_first([make_trial(name, scalings[name], by_scaling[name], fitting) for name in by_scaling])
    of_rules = best_first(
        [make_trial(scaling, by_name[each], by_rule[each], fitting) for each in by_rule if each != declared_rule]
    )
    if best.preprocessing == declared:
        verdict = confirmed_diagnostic(best, of_scalings)
    else:
        before = make_trial(DECLARED, declared, by_scaling[DECLARED], fitting)
        verdict = mismatch_diagnostic(before, best, difference(fitting, by_scaling[DECLARED]))
    return PreprocessingFit(
        (*of_scalings, *of_rules),
        best,
        (verdict, *indistinct_diagnostics(best, of_scalings)),
        suggestion(declared, best.preprocessing),
        test_set.unreadable,
    )


def _resized(scaling: Preprocessing, declared: Preprocessing) -> dict[str, Preprocessing]:
    """A scaling under each of the usual resize rules, by their words."""
    return {rule: replace(scaling, resize=each.resize, crop=each.crop) for rule, each in resize_rules(declared).items()}


def _best(outputs: dict[str, Outputs]) -> str:
    return max(outputs, key=lambda name: outputs[name].rank)


def _unless_better(declared: str, outputs: dict[str, Outputs]) -> str:
    """The declared one is believed until another is better beyond chance."""
    best = _best(outputs)
    return declared if difference(outputs[best], outputs[declared]) >= SIGNIFICANCE else best
