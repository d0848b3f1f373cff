"""The score card of an image: what judges and measurements say of it.

A score card is a dictionary of plain data, measured on the image as it is saved (8 bits).  Its keys:

    objective           the unit's activation in the network that the image was made with
    probability         that network's own of the class
    judges              by judge, {"top1", "top5", "probability"} of the class; {} where the unit is no class
    judged              the means of these over the judges; absent without any
    tuned               those of the judges that a search maximized to find the image's recipe; absent without any
    robustness          share of 32 random views of the image that keep the unit, in the image's network: crops of 0.5
                        to 1 of the area, scaled by 0.8 to 1.2 and moved by up to an eighth of the side, reflected
                        beyond the edges; always the same ones
    robustness_rule     what keeping means: `OWN_TOP_1`, `ABOVE_PHOTOGRAPHS` or `HALF_ACTIVATION`
    retained            of a hidden unit: the mean share of the whole image's activation that these views have, each 0
                        to 1
    selectivity         of a channel or neuron: its rank among its layer's channels on its own image (1 is the
                        highest): {"rank", "of"}, and with photographs "rank_by_z"; see `_selectivity`.  Of a text,
                        where words are given, its rank among these (see `judges.word_ranks`)
    nearest_words       beside it, the words that come nearest to the image: [[word, cosine], …]
    percentile          with photographs: of the unit's activation among theirs, 100 if it is above all
    nearest             with photographs and judges, of a class: the photograph that is nearest in the first judge's
                        penultimate features: {"photograph", "judge", "distance"}, a cosine distance
    path_similarity     with photographs: how far the network goes through the picture as through the nine photographs
                        that excite the unit most, {"mean", "layers"}: by layer, 1 as these among themselves and 0 as
                        any photographs; see `judges.path_similarity`
    explanation         with photographs and judges, of a hidden unit: whether the picture tells which of two
                        photographs excites the unit more (see `judges.explanation`): "score" (a share of pairs; 0.5 is
                        "chance") and "error" (its standard error), the means over "judges", each with the "depths" at
                        which it judged; the same of all images of the unit "together", where there are several; of it
                        and the images of its negative, "both_sides", where there are any; of the "best_photograph"
                        and the "nine_photographs"; and of how many "photographs" and with how many "other_units" of
                        the layer.  Or why there is none: "missing"
    unit_scores         beside it, of the unit itself, in the features of one "judge" (DreamSim, or the first) at the
                        "depth" at which the nine photographs explain the layer's units best: "clarity",
                        "redundancy", "polysemanticity", "monosemanticity", and "mis", the Machine Interpretability
                        Score, {"score", "tasks"}; see `judges.unit_scores`
    slope               exponent of the radial power spectrum; None where there is none (see `spectral_slope`)
    photographs_slope   its mean over the photographs, or `PHOTOGRAPHS_SLOPE`
    saturated           share of channel values that are 0 or 255, within 1

What needs the image's own network (objective, probability, robustness, selectivity, percentile) is absent where that
is not known; and of a unit that refers to a photograph, such as match(features.29), there is only the objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.pixel_metrics import mean, saturated, spectral_slope
from phosphene.judges.predictions import Predictions
from phosphene.judges.self_metrics import SelfMetrics
from phosphene.tables import html_table

Card = dict[str, Any]
_JUDGED = ("top1", "top5", "probability")


class ScoreCards(list[Card]):
    """Cards, in the order of the images.  In a notebook they are a table of what is one number."""

    def _repr_html_(self) -> str:
        flattened = [dict(_numbers(card)) for card in self]
        columns = list(dict.fromkeys(name for card in flattened for name in card))
        rows = ([index, *(card.get(name, "") for name in columns)] for index, card in enumerate(flattened))
        return html_table(("", *columns), rows)


def _numbers(card: Card) -> Iterator[tuple[str, str]]:
    """What of a card is one number, by name."""
    for name, value in card.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, f"{value:.4g}"
        elif name == "judges":
            yield from ((judge, f"{answer['probability']:.1%}") for judge, answer in value.items())
        elif name == "explanation" and "score" in value:
            yield "explanation", f"{value['score']:.2f} ± {value['error']:.2f}"
        elif name == "selectivity":
            yield "rank", f"{value['rank']} of {value['of']}"


def score_card(
    image: JudgedImage, metrics: SelfMetrics, predictions: Predictions, explanation: Mapping[str, Any]
) -> Card:
    """The card of an image; its keys are listed at the head of this module."""
    tuned = [name for name in predictions.judges if name in image.tuned_on]
    judged = {}
    if predictions.judges:
        judged = {key: mean([float(answer[key]) for answer in predictions.judges.values()]) for key in _JUDGED}
    return {
        **metrics.scores,
        "judges": predictions.judges,
        **({"judged": judged} if judged else {}),
        **({"tuned": tuned} if tuned else {}),
        **metrics.card,
        **({} if predictions.nearest is None else {"nearest": predictions.nearest}),
        **explanation,
        "slope": spectral_slope(image.pixels),
        "photographs_slope": metrics.photographs_slope,
        "saturated": saturated(image.pixels),
    }
