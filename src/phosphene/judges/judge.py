"""Judges: other networks, and plain measurements, say what a finished image is worth.

A score card is a dictionary of plain data, measured on the image as it is saved (8 bits).  Its keys:

    objective           the unit's activation in the network that the image was made with
    probability         that network's own of the class
    judges              by judge, {"top1", "top5", "probability"} of the class; {} where the unit is no class
    judged              the means of these over the judges; absent without any
    tuned               those of the judges that a search maximised to find the image's recipe; absent without any
    robustness          share of 32 random views of the image that keep the unit, in the image's network: crops of 0.5
                        to 1 of the area, scaled by 0.8 to 1.2 and moved by up to an eighth of the side, reflected
                        beyond the edges; always the same ones
    robustness_rule     what keeping means: `OWN_TOP_1`, `ABOVE_PHOTOGRAPHS` or `HALF_ACTIVATION`
    retained            of a hidden unit: the mean share of the whole image's activation that these views have, each 0
                        to 1
    selectivity         of a channel or neuron: its rank among its layer's channels on its own image (1 is the
                        highest): {"rank", "of"}, and with photographs "rank_by_z"; see `_selectivity`
    percentile          with photographs: of the unit's activation among theirs, 100 if it is above all
    nearest             with photographs and judges, of a class: the photograph that is nearest in the first judge's
                        penultimate features: {"photograph", "judge", "distance"}, a cosine distance
    slope               exponent of the radial power spectrum; None where there is none (see `spectral_slope`)
    photographs_slope   its mean over the photographs, or `PHOTOGRAPHS_SLOPE`
    saturated           share of channel values that are 0 or 255, within 1

What needs the image's own network (objective, probability, robustness, selectivity, percentile) is absent where that
is not known; and of a unit that refers to a photograph, such as match(features.29), there is only the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.judges.judged_image import ImageReader, JudgedImage
from phosphene.judges.panel import check_independent, default_judges, open_judges, target_classes
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.pixel_metrics import mean, saturated, spectral_slope
from phosphene.judges.predictions import Predictions, predict
from phosphene.judges.self_metrics import SelfMetrics, measure_source
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.units.objects import Class, Unit

Card = dict[str, Any]


def judge(
    images: str | Path | Picture | Sequence[str | Path | Picture],
    judges: str | Network | Sequence[str | Network] | None = None,
    *,
    network: Network | None = None,
    unit: str | Unit | Sequence[str | Unit | None] | None = None,
    photographs: str | Path | Sequence[str | Path] | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Card]:
    """A score card for each image; its keys are listed at the head of this module.

    Args:
        images: pictures, PNGs that phosphene saved (which say their unit and network themselves), or other image
            files (which are fed as a photograph is, and need a `unit`).
        judges: networks, or names and files as `open_judge` takes them; by default those of the bundled
            EfficientNet-lites that no image was made with or chosen by.  An empty list asks none.
        network: the one that the image files were made with, where it is not opened by what they say (see
            `networks.named`), or where they say nothing; without one, a class of such an image is the first judge's.
        unit: of image files that don't say it, such as "class:flamingo": one, or one for each image.
        photographs: a folder, with all folders in it, or files, to compare with.
        trust: follow whatever image files say of their networks: import code, read files, download weights.
        device: by default a GPU where there is one.
        on_progress: told in words what is being done.

    Raises:
        InputError: an image, photograph, judge, unit or device that cannot be; a judge that an image was made with or
            chosen by, or that shares weights with a network that it was made with; or one that does not know an
            image's class.

    Example:
        >>> cards = judge(["phosphene-out/130_flamingo.png"], ["efficientnet_lite1", "efficientnet_lite2"])
        >>> cards[0]["judged"]["top1"]
        0.5
    """
    where = find_device(device)
    tell = on_progress or (lambda text: None)
    given = [images] if isinstance(images, str | Path | Picture) else list(images)
    if not given:
        raise InputError("no images are given: expected at least one")
    tell("opening networks")
    gallery = None if photographs is None else PhotoSet.of(photographs)
    files = ImageReader(network, None if judges is None else open_judges(judges), trust)
    subjects = [files.read_any(*pair) for pair in zip(given, _each(unit, len(given)), strict=True)]
    panel = default_judges(files, subjects) if judges is None else files.judges
    if judges is not None:
        check_independent(panel, subjects)
    targets = [target_classes(subject, panel) for subject in subjects]  # all that is wrong is said before work begins

    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        own = measure_source(subjects, gallery, where, tell)
        answers = predict(subjects, panel, targets, gallery, where, tell)
    return [_card(*each) for each in zip(subjects, own, answers, strict=True)]


def probabilities(
    pictures: Sequence[Picture], judges: Sequence[Network], device: str | torch.device | None = None
) -> list[float]:
    """The mean over judges of their probability of each picture's class, as on its score card, and no more of that.

    Raises:
        InputError: a picture shows no class, or a judge is no other network than it was made with, or does not know it.
    """
    files = ImageReader(None, list(judges))
    subjects = [files.picture(picture, None) for picture in pictures]
    for subject in subjects:
        if not isinstance(subject.unit, Class):
            raise InputError(f"{subject.unit} is no class: judges know classes only")
    check_independent(judges, subjects)
    targets = [target_classes(subject, judges) for subject in subjects]
    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        answers = predict(subjects, judges, targets, None, find_device(device), lambda text: None)
    return [mean([float(answer["probability"]) for answer in each.judges.values()]) for each in answers]


def _card(subject: JudgedImage, own: SelfMetrics, answers: Predictions) -> Card:
    tuned = [name for name in answers.judges if name in subject.tuned_on]
    judged = {}
    if answers.judges:
        judged = {key: mean([float(answer[key]) for answer in answers.judges.values()]) for key in _JUDGED}
    return {
        **own.scores,
        "judges": answers.judges,
        **({"judged": judged} if judged else {}),
        **({"tuned": tuned} if tuned else {}),
        **own.card,
        **({} if answers.nearest is None else {"nearest": answers.nearest}),
        "slope": spectral_slope(subject.pixels),
        "photographs_slope": own.photographs_slope,
        "saturated": saturated(subject.pixels),
    }


_JUDGED = ("top1", "top5", "probability")


def _each(unit: str | Unit | Sequence[str | Unit | None] | None, count: int) -> list[str | Unit | None]:
    if unit is None or isinstance(unit, str | Unit):
        return [unit] * count
    if len(unit) != count:
        raise InputError(f"{len(unit)} units for {count} images: expected one, or one for each")
    return list(unit)
