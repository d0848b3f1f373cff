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

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from phosphene import provenance
from phosphene.ascent import find_device
from phosphene.errors import InputError, did_you_mean
from phosphene.networks import Network, Preprocessing, bundled, open_network
from phosphene.networks.labels import Label
from phosphene.networks.network import LOGITS
from phosphene.objective import measure
from phosphene.picture import Picture, decoded, to_pil
from phosphene.recipe import Views
from phosphene.render import write_aside
from phosphene.statistics import photographs_in
from phosphene.units import Channel, Class, Neuron, Part, Unit, parse_unit
from phosphene.views import resized, view

BATCH = 32
VIEWS = 32
VIEWS_SEED = 20160

# What it means that a view of the image keeps its unit.
OWN_TOP_1 = "the network's own top-1 stays the class"
ABOVE_PHOTOGRAPHS = "the activation stays above the photographs' 99th percentile"
HALF_ACTIVATION = "the activation stays at least half of the whole image's"

PHOTOGRAPHS_SLOPE = -2.6
"""The mean of `spectral_slope` over 200 photographs of ImageNet, one for every fifth class, at 224 pixels.

Its standard deviation over them is 0.5, and at 24 to 260 pixels the mean stays within 0.1.  Natural scenes that were
not compressed are at about -2 (Field 1987).
"""

Card = dict[str, Any]


def judge(
    images: str | Path | Picture | Sequence[str | Path | Picture],
    judges: str | Network | Sequence[str | Network] | None = None,
    *,
    network: Network | None = None,
    unit: str | Unit | Sequence[str | Unit | None] | None = None,
    photographs: str | Path | Sequence[str | Path] | None = None,
    device: str | torch.device | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Card]:
    """A score card for each image; its keys are listed at the head of this module.

    Args:
        images: pictures, PNGs that phosphene saved (which say their unit and network themselves), or other image
            files (which are fed as a photograph is, and need a `unit`).
        judges: networks, or names and files as `open_judge` takes them; by default those of the bundled
            EfficientNet-lites that no image was made with or chosen by.  An empty list asks none.
        network: the one that the image files were made with, where it cannot be opened by what they say, or where
            they say nothing; without one, a class of such an image is the first judge's.
        unit: of image files that don't say it, such as "class:flamingo": one, or one for each image.
        photographs: a folder, with all folders in it, or files, to compare with.
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
    gallery = None if photographs is None else Gallery.of(photographs)
    files = _Files(network, None if judges is None else _opened_judges(judges))
    subjects = [files.subject(*pair) for pair in zip(given, _each(unit, len(given)), strict=True)]
    panel = _default_judges(files, subjects) if judges is None else files.judges
    if judges is not None:
        _refuse_kin(panel, subjects)
    targets = [_targets(subject, panel) for subject in subjects]  # all that is wrong is said before work begins

    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        own = _asked_own(subjects, gallery, where, tell)
        answers = _asked_judges(subjects, panel, targets, gallery, where, tell)
    return [_card(*each) for each in zip(subjects, own, answers, strict=True)]


def probabilities(
    pictures: Sequence[Picture], judges: Sequence[Network], device: str | torch.device | None = None
) -> list[float]:
    """The mean over judges of their probability of each picture's class, as on its score card, and no more of that.

    Raises:
        InputError: a picture shows no class, or a judge is no other network than it was made with, or does not know it.
    """
    files = _Files(None, list(judges))
    subjects = [files.picture(picture, None) for picture in pictures]
    for subject in subjects:
        if not isinstance(subject.unit, Class):
            raise InputError(f"{subject.unit} is no class: judges know classes only")
    _refuse_kin(judges, subjects)
    targets = [_targets(subject, judges) for subject in subjects]
    with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        answers = _asked_judges(subjects, judges, targets, None, find_device(device), lambda text: None)
    return [_mean([float(answer["probability"]) for answer in each.judges.values()]) for each in answers]


def _card(subject: _Subject, own: _Own, answers: _Answers) -> Card:
    tuned = [name for name in answers.judges if name in subject.tuners]
    judged = {}
    if answers.judges:
        judged = {key: _mean([float(answer[key]) for answer in answers.judges.values()]) for key in _JUDGED}
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


def keep(path: str | Path, card: Card) -> None:
    """Write a card into the scores that a PNG made by phosphene carries, and into the `run.json` beside it.

    What the card does not have of earlier scores stays.  The pixels and all else in the file stay as they are, byte
    for byte; each file is written aside and then moved into its place.

    Raises:
        InputError: the file cannot be read or written, or was not made by phosphene.
    """
    path = Path(path)
    known = provenance.read_provenance(path)
    known["scores"] = {**known["scores"], **card}
    data = provenance.with_provenance(path.read_bytes(), known)
    run = _run_with(path, known)
    write_aside(path, lambda aside: aside.write_bytes(data))
    if run is not None:
        write_aside(path.with_name("run.json"), lambda aside: aside.write_text(run, encoding="utf-8"))


def _run_with(path: Path, known: Mapping[str, Any]) -> str | None:
    """The `run.json` beside an image with the image's scores in it; None where it does not list the image."""
    try:
        data = json.loads(path.with_name("run.json").read_text(encoding="utf-8"))
        entries = [
            entry
            for entry in data["pictures"]
            if (entry["file"], entry["unit"], entry["seed"]) == (path.name, known["unit"], known["seed"])
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # none there, or another program's
    for entry in entries:
        entry["scores"] = known["scores"]
    return json.dumps(data, indent=1, ensure_ascii=False) if entries else None


def images_in(path: str | Path) -> list[Path]:
    """The image itself, or of a folder all images in it that phosphene made.

    Raises:
        InputError: the folder has none.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.png")) if _is_ours(file)]
    if not found:
        raise InputError(f"folder {str(path)!r} has no image in it that phosphene made: expected one, or images")
    return found


def _is_ours(file: Path) -> bool:
    if file.name in ("grid.png", "objective.png"):
        return False
    try:
        return provenance.load(file)[1] is not None
    except InputError:
        return False


# ---------------------------------------------------------------------------------------------- what is judged


class _Maker(NamedTuple):
    """A network that an image was made with; None where only its digest is known."""

    name: str
    digest: str
    network: Network | None


@dataclass(frozen=True, eq=False)
class _Subject:
    """An image to judge.

    Attributes:
        name: for messages.
        image: as judges are shown it.
        pixels: as it is saved, 8 bits (height, width, channels).
        unit: what it shows, of `network`, or where that is None of the first judge.
        network: that it was made with, at its size.
        fed: what that network is shown, (channels, height, width) in 0..255.
        makers: all networks that it was made with.
        photograph: that the unit refers to, like `fed`.
        choosers: names of the networks that chose it among several.
        tuners: names of the networks whose judgement a search maximised to find its recipe.
    """

    name: str
    image: Image.Image
    pixels: NDArray[np.uint8]
    unit: Unit
    network: Network | None
    fed: Tensor | None
    makers: tuple[_Maker, ...]
    photograph: Tensor | None = None
    choosers: tuple[str, ...] = ()
    tuners: tuple[str, ...] = ()

    @property
    def referenced(self) -> bool:
        return any(part.referenced for _, part in self.unit.terms())


def _each(unit: str | Unit | Sequence[str | Unit | None] | None, count: int) -> list[str | Unit | None]:
    if unit is None or isinstance(unit, str | Unit):
        return [unit] * count
    if len(unit) != count:
        raise InputError(f"{len(unit)} units for {count} images: expected one, or one for each")
    return list(unit)


class _Files:
    """Reads images; opens every network that they were made with once.

    Args:
        network: the one they were made with, where the caller has it.
        judges: None for the bundled ones, which are opened when they are needed.
    """

    def __init__(self, network: Network | None, judges: list[Network] | None):
        self.network, self._judges = network, judges
        self.opened: dict[str, Network] = {}
        self.digests: dict[int, str] = {}

    @cached_property
    def judges(self) -> list[Network]:
        if self._judges is not None:
            return self._judges
        return [bundled.open_bundled(name) for name in bundled.SIZES if bundled.is_installed(name)]

    def subject(self, image: str | Path | Picture, unit: str | Unit | None) -> _Subject:
        return self.picture(image, unit) if isinstance(image, Picture) else self.read(Path(image), unit)

    def picture(self, picture: Picture, unit: str | Unit | None) -> _Subject:
        _same_unit(picture.name, unit, str(picture.unit), picture.network)
        makers = tuple(map(self.maker, (picture.network, *picture.ensemble)))
        tuners = picture.recipe.found.judges if picture.recipe.found else ()
        return _made(
            picture.name, picture.pixels, picture.unit, picture.network, makers, picture.photograph, picture.scores,
            tuners,
        )  # fmt: skip

    def read(self, path: Path, unit: str | Unit | None) -> _Subject:
        image, known = provenance.load(path)
        if known is None:
            return self.other(path, image, unit)
        network = self.made_with(path, known["network"])
        _same_unit(str(path), unit, known["unit"], network)
        pixels = _planes(path, image, network.preprocessing.channels)
        makers = (self.maker(network), *self.ensemble(known))
        photograph = decoded(known["photograph"]) if "photograph" in known else None
        unit = parse_unit(known["unit"], network)
        tuners = known["recipe"].get("found", {}).get("judges", ())
        return _made(str(path), pixels, unit, network, makers, photograph, known["scores"], tuners)

    def other(self, path: Path, image: Image.Image, unit: str | Unit | None) -> _Subject:
        """An image that phosphene did not make."""
        if unit is None:
            raise InputError(f"image {str(path)!r} does not say what it shows: expected its unit, such as 'class:NAME'")
        asked = self.network or (self.judges[0] if self.judges else None)
        if asked is None:
            raise InputError(f"image {str(path)!r} does not say how it was made: expected its network, or a judge")
        parsed = parse_unit(unit, asked)
        if self.network is None and not isinstance(parsed, Class):
            raise InputError(
                f"image {str(path)!r} does not say how it was made, and {parsed} is no class: expected its network"
            )
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise InputError(f"image {str(path)!r} of mode {image.mode}: expected one that has colours") from error
        fed = None if self.network is None else self.network.preprocessing.photograph(image)
        makers = () if self.network is None else (self.maker(self.network),)
        return _Subject(str(path), image, np.asarray(image), parsed, self.network, fed, makers)

    def made_with(self, path: Path, known: dict[str, Any]) -> Network:
        key = json.dumps(known, sort_keys=True)
        if key not in self.opened:
            call = "phosphene.judge(images, judges, network=network)"
            source = json.dumps(known["source"], sort_keys=True)
            network = provenance.made_with(path, known, self.network or self.opened.get(source), call)
            self.opened[source] = network
            self.opened[key] = network.resized(tuple(known["input"]["size"]))
        return self.opened[key]

    def ensemble(self, known: dict[str, Any]) -> Iterator[_Maker]:
        """The other networks that an image was made with at once."""
        for entry in known.get("ensemble", ()):
            key = json.dumps(entry["source"], sort_keys=True)
            if entry["source"] is not None and key not in self.opened:
                self.opened[key] = open_network(**entry["source"])
            yield _Maker(entry["name"], entry["weights"], None if entry["source"] is None else self.opened[key])

    def maker(self, network: Network) -> _Maker:
        if id(network.module) not in self.digests:
            self.digests[id(network.module)] = network.digest
        return _Maker(network.name, self.digests[id(network.module)], network)


def _made(
    name: str,
    pixels: NDArray[np.uint8],
    unit: Unit,
    network: Network,
    makers: tuple[_Maker, ...],
    photograph: NDArray[np.uint8] | None,
    scores: dict[str, Any],
    tuners: Sequence[str],
) -> _Subject:
    shown = None if photograph is None else _tensor(photograph)
    choosers = tuple(scores.get("chosen", {}).get("by", ()))
    return _Subject(
        name, to_pil(pixels), pixels, unit, network, _tensor(pixels), makers, shown, choosers, tuple(tuners)
    )


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(pixels).movedim(-1, 0).float()


def _planes(path: Path, image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """An image file of phosphene's as it was made, (height, width, channels), without any transparency."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and channels in (1, 3):
        pixels = pixels[..., :channels]
    elif pixels.ndim == 2 and pixels.shape[1] % channels == 0:  # grey planes side by side
        pixels = np.stack(np.split(pixels, channels, axis=1), axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != channels:
        raise InputError(f"image {str(path)!r} has no {channels} channels: expected the file as phosphene wrote it")
    return pixels


def _same_unit(name: str, unit: str | Unit | None, known: str, network: Network) -> None:
    if unit is not None and str(parse_unit(unit, network)) != known:
        raise InputError(f"image {name!r} was made for {known}, and {unit!s} is given: expected no unit for it")


# ---------------------------------------------------------------------------------------------- who judges


def open_judge(text: str) -> Network:
    """A judge by name or file; `FILE=WEIGHTS` with its weights, and `…@MODE` with a preprocessing (`FILE.onnx@tf`).

    Raises:
        InputError: there is no such network, file or preprocessing.
    """
    if Path(text).exists():
        return open_network(text)
    name, _, preprocessing = text.rpartition("@") if "@" in text else (text, "", "")
    name, _, weights = (name, "", "") if Path(name).exists() else name.partition("=")
    if not name:
        raise InputError(f"judge {text!r}: expected a name, a file, FILE=WEIGHTS or FILE@PREPROCESSING")
    return open_network(name, preprocessing or None, weights=weights or None)


def _opened_judges(judges: str | Network | Sequence[str | Network]) -> list[Network]:
    given = [judges] if isinstance(judges, str | Network) else list(judges)
    opened = [judge if isinstance(judge, Network) else open_judge(judge) for judge in given]
    for judge in opened:
        if [other.name for other in opened].count(judge.name) > 1:
            raise InputError(f"two judges are called {judge.name}: expected each once, or under names of their own")
        if not judge.classes:
            why = judge.limit or "it gives no logits of shape (rows, classes)"
            raise InputError(f"{judge.name} cannot judge: {why}; expected a network that classifies")
    return opened


def _default_judges(files: _Files, subjects: Sequence[_Subject]) -> list[Network]:
    """Those of the bundled networks that no image was made with."""
    if not any(isinstance(subject.unit, Class) for subject in subjects):
        return []  # nobody would be asked
    makers = _makers(subjects)
    chose = {name for subject in subjects for name in subject.choosers}
    judges = [
        judge
        for judge in files.judges
        if judge.name not in chose and not any(_kinship(judge, judge.digest, maker) for maker in makers)
    ]
    if not judges:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    tuned = {name for subject in subjects for name in subject.tuners}
    return [judge for judge in judges if judge.name not in tuned] or judges


def panel(network: Network, judges: Sequence[str | Network] | None = None) -> list[Network]:
    """Judges for what a network will show, opened: those given, or the bundled ones that are no kin of it.

    Raises:
        InputError: one given is kin of the network, or cannot judge; or there is none.
    """
    maker = _Maker(network.name, network.digest, network)
    if judges is None:
        bundled_ones = _Files(None, None).judges
        found = [judge for judge in bundled_ones if not _kinship(judge, judge.digest, maker)]
    else:
        found = _opened_judges(judges)
        for judge in found:
            if kinship := _kinship(judge, judge.digest, maker):
                raise InputError(f"judge {judge.name} {kinship}, which is to be shown: expected another network")
    if not found:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    return found


def knows(judge: Network, index: int, network: Network) -> bool:
    """Whether a judge has a class of a network."""
    try:
        class_in(judge, index, network)
    except InputError:
        return False
    return True


def _makers(subjects: Sequence[_Subject]) -> list[_Maker]:
    found = {(maker.name, maker.digest): maker for subject in subjects for maker in subject.makers}
    return list(found.values())


def _refuse_kin(judges: Sequence[Network], subjects: Sequence[_Subject]) -> None:
    """Raise an `InputError` for a judge that is no other network than an image was made with, or that chose one."""
    makers = _makers(subjects)
    for judge in judges:
        chose = [subject.name for subject in subjects if judge.name in subject.choosers]
        if chose:
            raise InputError(f"judge {judge.name} chose {chose[0]!r} among several: expected a network that did not")
        digest = judge.digest
        for maker in makers:
            kinship = _kinship(judge, digest, maker)
            if kinship:
                raise InputError(
                    f"judge {judge.name} {kinship}, which the image was made with: expected a network that it was not"
                )


def _kinship(judge: Network, digest: str, maker: _Maker) -> str:
    """How a judge is related to a network that an image was made with; empty if it is not."""
    if digest == maker.digest:
        return f"is {maker.name}"
    if maker.network is None:
        return ""
    shared = shared_weights(judge, maker.network)
    return f"shares weights ({shared[0]} is {shared[1]} there) with {maker.name}" if shared else ""


def shared_weights(first: Network, second: Network) -> tuple[str, str] | None:
    """Two tensors, one of each network, that hold the same values in whatever order; None if there are none.

    The order is left out since formats differ in it: Keras keeps a kernel as (height, width, in, out), PyTorch as
    (out, in, height, width).  Only learnt tensors of at least 64 values that are not all the same are compared.
    """
    sides = [_learnt(first), _learnt(second)]
    sizes = [{tensor.numel() for tensor in side.values()} for side in sides]
    # Sorting is what takes time: only what can be the same is sorted.
    digests = [
        {_values_digest(tensor): name for name, tensor in side.items() if tensor.numel() in sizes[0] & sizes[1]}
        for side in sides
    ]
    for digest, name in digests[0].items():
        if digest in digests[1]:
            return name, digests[1][digest]
    return None


def _learnt(network: Network) -> dict[str, Tensor]:
    """A network's parameters that tell it from others: no scalars, ones, zeros, or what was not loaded.

    Buffers may be tables that all networks of a kind have (of positions, for example), so that they count only where a
    network keeps all its weights in them.
    """
    parameters, buffers = dict(network.module.named_parameters()), dict(network.module.named_buffers())
    for tensors in (parameters, buffers):
        found = {
            name: tensor.detach()
            for name, tensor in tensors.items()
            if name not in network.unloaded
            and tensor.is_floating_point()
            and tensor.numel() >= 64
            and bool(tensor.detach().min() != tensor.detach().max())
        }
        if found:
            return found
    return {}


def _values_digest(tensor: Tensor) -> str:
    values = np.sort(tensor.detach().cpu().float().numpy(), axis=None)
    return hashlib.sha256((values + 0.0).tobytes()).hexdigest()  # + 0.0: -0.0 and 0.0 are the same


def _targets(subject: _Subject, judges: Sequence[Network]) -> list[int]:
    """The class of an image that shows one, in each judge; nothing for other images."""
    if not isinstance(subject.unit, Class):
        return []
    for judge in judges:
        channels = subject.pixels.shape[-1]
        if channels not in (1, 3, judge.preprocessing.channels):
            raise InputError(f"image {subject.name!r} of {channels} channels cannot be shown to judge {judge.name}")
    own = subject.network or (judges[0] if judges else None)
    return [] if own is None else [class_in(judge, subject.unit.index, own) for judge in judges]


def class_in(judge: Network, index: int, network: Network) -> int:
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
    found = [i for i, other in enumerate(labels[1]) if label.wordnet and other.wordnet == label.wordnet]
    if not found:
        found = [i for i, other in enumerate(labels[1]) if _same_name(label, other)]
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


def _same_name(label: Label, other: Label) -> bool:
    if label.wordnet and other.wordnet:
        return False  # "crane" is a bird and a machine
    names = {name.casefold().replace("_", " ") for name in label.names}
    return any(name.casefold().replace("_", " ") in names for name in other.names)


# ---------------------------------------------------------------------------------------------- photographs


@dataclass(frozen=True)
class Gallery:
    """Photographs to compare with: files, and what to call each."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, photographs: str | Path | Sequence[str | Path]) -> Gallery:
        """From a folder, with all folders in it, or from files.

        Raises:
            InputError: there is no such folder or file, or no image file in it.
        """
        if not isinstance(photographs, str | Path):
            paths = tuple(map(Path, photographs))
            missing = [path for path in paths if not path.is_file()]
            if missing or not paths:
                what = f"there is no file {str(missing[0])!r}" if missing else "none are given: expected files"
                raise InputError(f"photographs: {what}, or give a folder")
            return cls(paths, tuple(path.name for path in paths))
        folder = Path(photographs)
        paths = tuple(photographs_in(folder))
        return cls(paths, tuple(path.relative_to(folder).as_posix() for path in paths))

    def batches(self, way: Preprocessing) -> Iterator[tuple[list[str], Tensor]]:
        """Names and pixels (rows, channels, height, width) of those that can be read, `BATCH` at once.

        Raises:
            InputError: none can.
        """
        count = 0
        names: list[str] = []
        pixels: list[Tensor] = []
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                with Image.open(path) as image:
                    pixels.append(way.photograph(image))
            except InputError:
                raise
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue
            names.append(name)
            count += 1
            if len(names) == BATCH:
                yield names, torch.stack(pixels)
                names, pixels = [], []
        if names:
            yield names, torch.stack(pixels)
        if not count:
            raise InputError(
                f"none of {len(self.paths)} photographs, such as {str(self.paths[0])!r}, can be read: they are no "
                "image files, or damaged ones"
            )


# ---------------------------------------------------------------------------------------------- the image's own network


@dataclass(frozen=True, eq=False)
class _Own:
    """What an image's own network says: the scores that it had from the first, and the further card."""

    scores: dict[str, float | None]
    card: Card
    photographs_slope: float


@dataclass(frozen=True, eq=False)
class _Reference:
    """What a network says of the photographs.

    Attributes:
        values: of each unit, (photographs, units).
        profiles: of each unit's whole layer, (photographs, channels); see `_profile`.
        slope: the mean of their `spectral_slope`.
    """

    values: Tensor
    profiles: dict[str, Tensor]
    slope: float


def _asked_own(
    subjects: Sequence[_Subject], gallery: Gallery | None, device: torch.device, tell: Callable[[str], None]
) -> list[_Own]:
    found: dict[int, _Own] = {}
    groups: dict[int, list[int]] = {}
    for i, subject in enumerate(subjects):
        groups.setdefault(id(subject.network), []).append(i)
    for group in groups.values():
        network = subjects[group[0]].network
        if network is None:
            slope = PHOTOGRAPHS_SLOPE if gallery is None else _gallery_slope(gallery)
            found |= {i: _Own({}, {}, slope) for i in group}
            continue
        tell(f"asking {network.name}, which made them")
        with network.borrowed(device):
            units = list(dict.fromkeys(subjects[i].unit for i in group if not subjects[i].referenced))
            reference = None if gallery is None else _reference(network, units, gallery, device)
            for i in group:
                found[i] = _own(subjects[i], network, units, reference, device)
    return [found[i] for i in range(len(subjects))]


def _own(
    subject: _Subject,
    network: Network,
    units: Sequence[Unit],
    reference: _Reference | None,
    device: torch.device,
) -> _Own:
    """Args: `units` are those of the columns of the reference."""
    assert subject.fed is not None
    unit = subject.unit
    # Each image alone, as when it was made, so that its numbers stay what they were.
    scores = measure(network, unit, subject.fed.movedim(0, -1), device, subject.photograph)
    finite = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    slope = PHOTOGRAPHS_SLOPE if reference is None else reference.slope
    if subject.referenced:
        return _Own(finite, {}, slope)
    fed = resized(subject.fed.to(device)[None], network.preprocessing.size)  # type: ignore[arg-type]
    photographs = None if reference is None else reference.values[:, units.index(unit)]
    card = _robustness(network, unit, fed, scores["objective"], photographs)
    if isinstance(unit, Channel | Neuron):
        profile = _look(network, [unit], fed).profiles[str(unit)]
        theirs = None if reference is None else reference.profiles[str(unit)]
        card["selectivity"] = _selectivity(unit, profile[0], theirs)
    if photographs is not None:
        card["percentile"] = 100 * (photographs < scores["objective"]).double().mean().item()
    return _Own(finite, card, slope)


def _robustness(network: Network, unit: Unit, fed: Tensor, whole: float, photographs: Tensor | None) -> Card:
    """The share of views that keep the unit, and the rule."""
    settings = Views(count=VIEWS, crop=(0.5, 1.0), scale=(0.8, 1.2), jitter=min(fed.shape[-2:]) / 8)
    shown = view(fed, settings, [torch.Generator().manual_seed(VIEWS_SEED)])
    if isinstance(unit, Class):
        kept = network.forward(shown).argmax(dim=1) == unit.index
        return {"robustness": kept.double().mean().item(), "robustness_rule": OWN_TOP_1}
    values = _look(network, [unit], shown).values[:, 0]
    if photographs is not None:
        kept, rule = values > photographs.double().quantile(0.99), ABOVE_PHOTOGRAPHS
    else:  # an image that does not excite its unit at all has nothing to keep
        kept, rule = (values >= whole / 2) & (whole > 0), HALF_ACTIVATION
    retained = (values.double() / whole).clamp(0, 1).mean().item() if whole > 0 else 0.0
    return {"robustness": kept.double().mean().item(), "robustness_rule": rule, "retained": retained}


class _Seen(NamedTuple):
    values: Tensor  # (rows, units), on the CPU
    profiles: dict[str, Tensor]  # by unit, (rows, channels)


def _look(network: Network, units: Sequence[Unit], pixels: Tensor) -> _Seen:
    """The activation of every unit on every image, and the profiles of the units' layers."""
    by_layer: dict[str, list[tuple[int, float, Part]]] = {}
    for i, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((i, weight, part))
    values = torch.zeros(len(pixels), len(units))
    profiles: dict[str, Tensor] = {}

    def reader(layer: str) -> Callable[[Tensor], None]:
        def read(activation: Tensor) -> None:
            for i, weight, part in by_layer[layer]:
                scores = torch.stack([part.score(row) for row in activation])
                values[:, i] += weight * scores.float().cpu()
                if units[i] is part and isinstance(part, Channel | Neuron):
                    profiles[str(part)] = _profile(part, activation)

        return read

    if by_layer:
        _read(network, pixels, {layer: reader(layer) for layer in by_layer})
    return _Seen(values, profiles)


def _read(network: Network, pixels: Tensor, readers: dict[str, Callable[[Tensor], None]]) -> None:
    """As `Network.read`, with the logits as one more layer."""
    if LOGITS not in readers:
        network.read(pixels, readers)
        return
    logits = network.forward(pixels, {name: reader for name, reader in readers.items() if name != LOGITS})
    readers[LOGITS](logits)


def _profile(part: Channel | Neuron, activation: Tensor) -> Tensor:
    """How active each channel of a layer is: over its map on average, or for a neuron at its position.

    (rows, channels, *positions) to (rows, channels).
    """
    if isinstance(part, Neuron):
        return torch.stack([row[(slice(None), *part.position)] for row in activation]).float().cpu()
    return activation.float().reshape(*activation.shape[:2], -1).mean(2).cpu()


def _selectivity(unit: Channel | Neuron, profile: Tensor, photographs: Tensor | None) -> dict[str, int]:
    """The rank of a channel among its layer's on its own image, by mean activation as it is.

    Channels differ in scale, so with photographs also by how many standard deviations each is above its mean over
    these.  A neuron is ranked by all channels' activations at its position; a direction, layer or sum has no rank.
    """
    ranks = {"rank": _rank(profile, unit.channel), "of": len(profile)}
    if photographs is not None:
        spread = photographs.double().std(0, correction=0).clamp_min(1e-12)  # silent on all: any activity is far out
        ranks["rank_by_z"] = _rank((profile - photographs.double().mean(0)) / spread, unit.channel)
    return ranks


def _rank(values: Tensor, index: int) -> int:
    return 1 + int((values > values[index]).sum())


def _reference(network: Network, units: Sequence[Unit], gallery: Gallery, device: torch.device) -> _Reference:
    seen: list[_Seen] = []
    slopes: list[float | None] = []
    for _, pixels in gallery.batches(network.preprocessing):
        seen.append(_look(network, units, pixels.to(device)))
        slopes += [spectral_slope(row) for row in pixels.movedim(1, -1).numpy()]
    profiles = {name: torch.cat([part.profiles[name] for part in seen]) for name in seen[0].profiles}
    return _Reference(torch.cat([part.values for part in seen]), profiles, _mean_slope(slopes))


def _gallery_slope(gallery: Gallery) -> float:
    """Of photographs at 224 pixels, as `PHOTOGRAPHS_SLOPE` is."""
    pixels = (row for _, batch in gallery.batches(Preprocessing(224, crop=0.875)) for row in batch)
    return _mean_slope([spectral_slope(row.movedim(0, -1).numpy()) for row in pixels])


def _mean_slope(slopes: Sequence[float | None]) -> float:
    found = [slope for slope in slopes if slope is not None]
    return _mean(found) if found else PHOTOGRAPHS_SLOPE


# ---------------------------------------------------------------------------------------------- the judges


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the judges say of one image."""

    judges: dict[str, dict[str, bool | float]]
    nearest: dict[str, str | float] | None


def _asked_judges(
    subjects: Sequence[_Subject],
    judges: Sequence[Network],
    targets: Sequence[Sequence[int]],
    gallery: Gallery | None,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[_Answers]:
    asked = [i for i, indices in enumerate(targets) if indices]
    answers: list[dict[str, dict[str, bool | float]]] = [{} for _ in subjects]
    nearest: dict[int, dict[str, str | float]] = {}
    for number, judge in enumerate(judges if asked else ()):
        tell(f"asking {judge.name}")
        features: list[Tensor] = []
        with judge.borrowed(device):
            for first in range(0, len(asked), BATCH):
                rows = asked[first : first + BATCH]
                pixels = torch.stack([judge.preprocessing.photograph(subjects[i].image) for i in rows]).to(device)
                logits, penultimate = _features(judge, pixels)
                features.append(penultimate)
                for i, row in zip(rows, logits.float().cpu(), strict=True):
                    answers[i][judge.name] = _answer(row, targets[i][number], judge, subjects[i])
            if gallery is not None and number == 0:
                near = _nearest(judge, torch.cat(features), gallery, device)
                nearest = dict(zip(asked, near, strict=True))
    return [_Answers(answers[i], nearest.get(i)) for i in range(len(subjects))]


def _answer(logits: Tensor, index: int, judge: Network, subject: _Subject) -> dict[str, bool | float]:
    probability = logits.softmax(dim=0)[index].item()
    if not math.isfinite(probability):
        raise InputError(f"judge {judge.name} gives no finite numbers for {subject.name!r}: see `phosphene doctor`")
    above = int((logits >= logits[index]).sum()) - 1  # a tie is not won
    return {"top1": above < 1, "top5": above < 5, "probability": probability}


def _features(network: Network, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (rows, classes) and penultimate features (rows, channels)."""
    layer = penultimate(network)
    found: list[Tensor] = []

    def read(output: Tensor) -> None:
        found.append(output.reshape(*output.shape[:2], -1).mean(2))

    logits = network.forward(pixels, {} if layer is None else {layer: read})
    return logits, (found[0] if found else logits).float().cpu()


def penultimate(network: Network) -> str | None:
    """The last layer before the logits, whose map, if it has one, is averaged; None if there is no other layer.

    From the last layer back, all that have as many channels as there are classes belong to the logits: the classifier,
    a softmax, the modules around them.  What a 1x1 convolution classifies is averaged as its answers would be.
    """
    hidden = [layer.name for layer in network.layers]
    channels = [layer.channels for layer in network.layers]
    while channels and channels[-1] == network.classes:
        channels.pop()
    return hidden[len(channels) - 1] if channels else None


def _nearest(
    judge: Network, features: Tensor, gallery: Gallery, device: torch.device
) -> Iterator[dict[str, str | float]]:
    names: list[str] = []
    theirs: list[Tensor] = []
    for batch, pixels in gallery.batches(judge.preprocessing):
        names += batch
        theirs.append(_features(judge, pixels.to(device))[1])
    similarity = F.normalize(features.double(), dim=1) @ F.normalize(torch.cat(theirs).double(), dim=1).T
    for row in similarity:
        best = int(row.argmax())
        yield {"photograph": names[best], "judge": judge.name, "distance": max(0.0, 1 - row[best].item())}


# ---------------------------------------------------------------------------------------------- the pixels


def saturated(pixels: NDArray[np.uint8]) -> float:
    """The share of channel values that are 0 or 255, within 1."""
    return float(((pixels <= 1) | (pixels >= 254)).mean())


def spectral_slope(pixels: NDArray[Any]) -> float | None:
    """The exponent of the radial power spectrum of the luminance: -2 for power that falls with frequency squared.

    A least-squares fit of the logarithm of the radially averaged power by the logarithm of the frequency, from 2 cycles
    an image (its shorter side) up to 0.35 cycles a pixel, of the image less its mean, under a Hann window.

    Args:
        pixels: (height, width, channels); the luminance is Rec. 601's of RGB, and otherwise the channels' mean.

    Returns:
        The slope, or None where there is none: of one colour, or of fewer than three frequencies.
    """
    values = pixels.astype(np.float64)
    luminance = values @ np.array([0.299, 0.587, 0.114]) if values.shape[-1] == 3 else values.mean(-1)
    height, width = luminance.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.rfft2((luminance - luminance.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    ring = np.rint(frequency * min(height, width)).astype(int).ravel()
    low, high = 2, int(0.35 * min(height, width))
    if high - low < 2:
        return None
    count = np.bincount(ring)[low : high + 1]
    means = [np.bincount(ring, each.ravel())[low : high + 1] / count for each in (frequency, power)]
    if means[1].min() <= 1e-12:
        return None
    return float(np.polyfit(np.log(means[0]), np.log(means[1]), 1)[0])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
