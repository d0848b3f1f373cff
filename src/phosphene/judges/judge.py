"""Judges: other networks, and plain measurements, say what a finished image is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from phosphene.default_progress import Tally, counted
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.judges.card import Card, ScoreCards, score_card
from phosphene.judges.hidden_units import explain, is_explained
from phosphene.judges.image_reader import ImageReader, networks_at_hand
from phosphene.judges.independence import check_independent
from phosphene.judges.judged_image import JudgedImage
from phosphene.judges.metrics import is_metric, open_metric
from phosphene.judges.panel import default_judges, judges_of_classes, open_judges, target_classes
from phosphene.judges.perception import of_network
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.pixel_metrics import mean
from phosphene.judges.predictions import predict
from phosphene.judges.self_metrics import measure_source
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.units.objects import Class, Unit


def judge(
    images: str | Path | Picture | Sequence[str | Path | Picture],
    judges: str | Network | Sequence[str | Network] | None = None,
    *,
    network: Network | Sequence[Network] | None = None,
    unit: str | Unit | Sequence[str | Unit | None] | None = None,
    photographs: str | Path | Sequence[str | Path] | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
    on_progress: Callable[[str], object] | Literal[False] | None = None,
) -> list[Card]:
    """A score card for each image; its keys are listed at the head of `judges.card`.

    Args:
        images: pictures, PNGs that phosphene saved (which say their unit and network themselves), or other image
            files (which are preprocessed as a photograph is, and need a `unit`).
        judges: networks, or names and files as `open_judge` takes them; by default those of the bundled
            EfficientNet-lites that no image was made with or chosen by.  An empty list asks none.  Classes are judged
            by networks that know them; hidden units, where there are photographs, by any network's features, and by
            "lpips" and "dreamsim", where these are installed.
        network: the one that the images were made with, or several, where it is not opened by what they say (see
            `networks.named`), or where they say nothing; without one, a class of such an image is the first judge's.
            A `Result` that is judged as a whole has its own.
        unit: of image files that don't say it, such as "class:flamingo": one, or one for each image.
        photographs: a folder, with all folders in it, or files, to compare with.  Pictures of hidden units are scored
            by at least 100 of many kinds; the units of a layer are best judged together.
        trust: follow whatever image files say of their networks: import code, read files, download weights.
        device: by default a GPU where there is one.
        on_progress: told in words what is being done; by default a bar of how many images and photographs are shown to
            networks; False: nothing.

    Raises:
        InputError: an image, photograph, judge, unit or device that cannot be; a judge that an image was made with or
            chosen by, or that shares weights with a network that it was made with; or one that does not know an
            image's class.

    Example:
        >>> cards = judge(["phosphene-out/130_flamingo.png"], ["efficientnet_lite1", "efficientnet_lite2"])
        >>> cards[0]["judged"]["top1"]
        0.5
    """
    with counted("images shown", None if on_progress is None else False, doing="opening networks") as tally:
        if callable(on_progress):
            tally.show = _words(tally, on_progress)
        return _judge(images, judges, network, unit, photographs, trust, find_device(device), tally)


def _words(tally: Tally, tell: Callable[[str], object]) -> Callable[[], None]:
    """Tells what is being done, once."""
    last = ""

    def show() -> None:
        nonlocal last
        if tally.doing != last:
            last = tally.doing
            tell(last)

    show()
    return show


def _judge(
    images: str | Path | Picture | Sequence[str | Path | Picture],
    judges: str | Network | Sequence[str | Network] | None,
    network: Network | Sequence[Network] | None,
    unit: str | Unit | Sequence[str | Unit | None] | None,
    photographs: str | Path | Sequence[str | Path] | None,
    trust: bool,
    device: torch.device,
    tally: Tally,
) -> list[Card]:
    sources = [images] if isinstance(images, str | Path | Picture) else list(images)
    if not sources:
        raise InputError("no images are given: expected at least one")
    photo_set = None if photographs is None else PhotoSet.of(photographs).counted_on(tally)
    named, metric_names = _split(judges)
    reader = ImageReader(networks_at_hand(images, network), None if named is None else open_judges(named), trust)
    to_judge = [reader.read_any(*pair) for pair in zip(sources, _each(unit, len(sources)), strict=True)]
    hidden = photo_set is not None and any(not isinstance(image.unit, Class) for image in to_judge)
    networks = default_judges(reader, to_judge, hidden) if named is None else reader.judges
    metrics_asked = [open_metric(name) for name in metric_names]
    if judges is not None:
        check_independent([*networks, *(metric.network for metric in metrics_asked)], to_judge)
    panel = judges_of_classes(networks, to_judge)
    targets = [target_classes(image, panel) for image in to_judge]  # all that is wrong is said before work begins
    perceptual = [*map(of_network, networks), *metrics_asked] if hidden else []

    tally.expect(_times_shown(to_judge, len(panel), len(perceptual), photo_set))
    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        metrics = measure_source(to_judge, photo_set, device, tally)
        predictions = predict(to_judge, panel, targets, photo_set, device, tally)
        explanations = explain(to_judge, metrics, perceptual, photo_set, device, tally)
    tally.at(tally.done, int(tally.done))  # of too few photographs, or of one kind, not all judges are asked
    every = zip(to_judge, metrics, predictions, explanations, strict=True)
    return ScoreCards(score_card(*each) for each in every)


def _times_shown(images: Sequence[JudgedImage], judges: int, perceptual: int, photo_set: PhotoSet | None) -> int:
    """How often an image or a photograph is shown to a network: to each image's own, and to the judges."""
    photographs = 0 if photo_set is None else len(photo_set.paths)
    own = len({id(image.network) for image in images})
    classes = sum(isinstance(image.unit, Class) for image in images) if judges else 0
    explained = sum(map(is_explained, images))
    return (
        len(images) + own * photographs  # by themselves, see `self_metrics`
        + classes * judges + photographs * bool(classes)  # see `predictions`
        + (explained + photographs) * perceptual * bool(explained)  # see `hidden_units`
    )  # fmt: skip


def _split(
    judges: str | Network | Sequence[str | Network] | None,
) -> tuple[list[str | Network] | None, list[str]]:
    """The networks among judges, and the names of the metrics."""
    if judges is None:
        return None, []
    given = [judges] if isinstance(judges, str | Network) else list(judges)
    metrics = [each for each in given if isinstance(each, str) and is_metric(each)]
    return [each for each in given if each not in metrics], metrics


def probabilities(
    pictures: Sequence[Picture],
    judges: Sequence[Network],
    device: str | torch.device | None = None,
    network: Network | None = None,
) -> list[float]:
    """The mean over judges of their probability of each picture's class, as on its score card, and no more of that.

    Args:
        network: that the pictures were made with, as for `judge`.

    Raises:
        InputError: a picture shows no class, or a judge is no other network than it was made with, or does not know it.
    """
    reader = ImageReader(networks_at_hand(pictures, network), list(judges))
    images = [reader.picture(picture, None) for picture in pictures]
    for image in images:
        if not isinstance(image.unit, Class):
            raise InputError(f"{image.unit} is no class: judges know classes only")
    check_independent(judges, images)
    targets = [target_classes(image, judges) for image in images]
    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        predictions = predict(images, judges, targets, None, find_device(device), Tally("images shown"))
    return [mean([float(answer["probability"]) for answer in each.judges.values()]) for each in predictions]


def _each(unit: str | Unit | Sequence[str | Unit | None] | None, count: int) -> list[str | Unit | None]:
    if unit is None or isinstance(unit, str | Unit):
        return [unit] * count
    if len(unit) != count:
        raise InputError(f"{len(unit)} units for {count} images: expected one, or one for each")
    return list(unit)
