"""Who judges: networks that know the class, and that had no part in the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, did_you_mean
from phosphene.judges.image_reader import ImageReader
from phosphene.judges.independence import dependence, source_models
from phosphene.judges.judged_image import JudgedImage, SourceModel
from phosphene.networks.labels import Label, is_same_class
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.units.objects import Class

_FILES = (".prototxt", ".h5", ".keras", ".onnx", ".pt", ".pt2")


def open_judge(text: str) -> Network:
    """A judge by name or file; `FILE=WEIGHTS` with its weights, and `…@MODE` with a preprocessing (`FILE.onnx@tf`).

    Raises:
        InputError: there is no such network, file or preprocessing.
    """
    source = judge_source(text)
    return open_network(**source)


def judge_source(text: str) -> dict[str, Any]:
    """The arguments of `open_network` that a judge's name stands for."""
    if Path(text).exists():
        return {"network": text}
    name, _, preprocessing = text.rpartition("@") if "@" in text else (text, "", "")
    name, _, weights = (name, "", "") if Path(name).exists() else name.partition("=")
    if not name:
        raise InputError(f"judge {text!r}: expected a name, a file, FILE=WEIGHTS or FILE@PREPROCESSING")
    found = {"network": name, "preprocessing": preprocessing, "weights": weights}
    given: dict[str, Any] = {key: value for key, value in found.items() if value}
    # Of a network by name the weights may be of its first layers alone, which judge hidden units.
    return given | {"partial": True} if weights and Path(name).suffix not in _FILES else given


def open_judges(judges: str | Network | Sequence[str | Network]) -> list[Network]:
    """Judges, opened where they are not.

    Raises:
        InputError: as `open_judge`, or two have one name.
    """
    given = [judges] if isinstance(judges, str | Network) else list(judges)
    opened = [judge if isinstance(judge, Network) else open_judge(judge) for judge in given]
    for judge in opened:
        if [other.name for other in opened].count(judge.name) > 1:
            raise InputError(f"two judges are called {judge.name}: expected each once, or under names of their own")
    return opened


def check_classifier(judge: Network) -> None:
    """Raises: InputError: it returns no logits, so that it cannot be asked about classes."""
    if not judge.classes:
        why = judge.limit or "it returns no logits of shape (rows, classes)"
        raise InputError(f"{judge.name} cannot judge: {why}; expected a network that classifies")


def judges_of_classes(judges: Sequence[Network], images: Sequence[JudgedImage]) -> list[Network]:
    """The judges that are asked about images of classes: all, where there are such images.

    Raises:
        InputError: there are, and a judge does not classify.
    """
    if not any(isinstance(image.unit, Class) for image in images):
        return []
    for judge in judges:
        check_classifier(judge)
    return list(judges)


def default_judges(reader: ImageReader, images: Sequence[JudgedImage], hidden: bool = False) -> list[Network]:
    """Those of the bundled networks that no image was made with.

    Args:
        hidden: whether images of hidden units are judged too, as with photographs.
    """
    if not hidden and not any(isinstance(image.unit, Class) for image in images):
        return []  # nobody would be asked
    sources = source_models(images)
    chose = {name for image in images for name in image.selectors}
    judges = [
        judge
        for judge in reader.judges
        if judge.name not in chose and not any(dependence(judge, judge.digest, source) for source in sources)
    ]
    if not judges:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    tuned = {name for image in images for name in image.tuned_on}
    return [judge for judge in judges if judge.name not in tuned] or judges


def unrelated_bundled(network: Network) -> list[Network]:
    """The bundled networks that are installed and not related to one.

    Raises:
        InputError: there is none.
    """
    source = SourceModel(network.name, network.digest, network)
    found = [judge for judge in ImageReader(None, None).judges if not dependence(judge, judge.digest, source)]
    if not found:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    return found


def check_unrelated(judge: Network, network: Network) -> None:
    """Raise an `InputError` for a judge that is related to a network that is to be shown."""
    if relation := dependence(judge, judge.digest, SourceModel(network.name, network.digest, network)):
        raise InputError(f"judge {judge.name} {relation}, which is to be shown: expected another network")


def panel(network: Network, judges: Sequence[str | Network] | None = None) -> list[Network]:
    """Judges of the classes that a network will show, opened: those given, or the bundled ones not related to it.

    Raises:
        InputError: one given is related to the network, or cannot judge; or there is none.
    """
    if judges is None:
        return unrelated_bundled(network)
    found = open_judges(judges)
    if not found:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    for judge in found:
        check_classifier(judge)
        check_unrelated(judge, network)
    return found


def has_class(judge: Network, index: int, network: Network) -> bool:
    """Whether a judge has a class of a network."""
    try:
        matching_class(judge, index, network)
    except InputError:
        return False
    return True


def target_classes(image: JudgedImage, judges: Sequence[Network]) -> list[int]:
    """The class of an image that shows one, in each judge; nothing for other images."""
    if not isinstance(image.unit, Class):
        return []
    for judge in judges:
        channels = image.pixels.shape[-1]
        if channels not in (1, 3, judge.preprocessing.channels):
            raise InputError(f"image {image.name!r} of {channels} channels cannot be shown to judge {judge.name}")
    own = image.network or (judges[0] if judges else None)
    return [] if own is None else [matching_class(judge, image.unit.index, own) for judge in judges]


def matching_class(judge: Network, index: int, network: Network) -> int:
    """The index that a class of a network has in a judge.

    By WordNet id or name where both have labels, and otherwise by index where both have as many classes.

    Raises:
        InputError: the judge has no such class, or several.
    """
    if judge is network:
        return index
    labels = [_labels(network), _labels(judge)]
    if labels[0] is None or labels[1] is None:
        if network.classes != judge.classes:
            without = network if labels[0] is None else judge
            raise InputError(
                f"judge {judge.name} has {judge.classes} classes and {network.name} {network.classes}, and "
                f"{without.name} has no labels: expected labels for both, or as many classes in the same order"
            )
        return index
    label = labels[0][index]
    alike = [i for i, other in enumerate(labels[1]) if is_same_class(label, other)]
    found = [i for i in alike if label.wordnet and labels[1][i].wordnet == label.wordnet] or alike
    if len(found) == 1:
        return found[0]
    named = f"class {index} ({label.name}) of {network.name}"
    if found:
        several = ", ".join(f"{i} ({labels[1][i].name})" for i in found[:5])
        raise InputError(f"{named} is any of {several} of judge {judge.name}: expected labels with WordNet ids in both")
    near = did_you_mean(label.name, [name for other in labels[1] for name in other.names])
    raise InputError(
        f"{named} is none of the {judge.classes} classes of judge {judge.name}: expected a judge that knows it{near}"
    )


def _labels(network: Network) -> Sequence[Label] | None:
    if network.labels is not None and len(network.labels) != network.classes:
        raise InputError(f"{len(network.labels)} labels for the {network.classes} outputs of {network.name}")
    return network.labels
