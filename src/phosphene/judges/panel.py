"""Who judges: networks that know the class, and that had no part in the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.errors import InputError, did_you_mean
from phosphene.judges.judged_image import ImageReader, JudgedImage, SourceModel
from phosphene.networks.labels import Label, is_same_class
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.units.objects import Class


def open_judge(text: str) -> Network:
    """A judge by name or file; `FILE=WEIGHTS` with its weights, and `…@MODE` with a preprocessing (`FILE.onnx@tf`).

    Raises:
        InputError: there is no such network, file or preprocessing.
    """
    source = judge_source(text)
    return open_network(source["network"], source.get("preprocessing"), weights=source.get("weights"))


def judge_source(text: str) -> dict[str, Any]:
    """The arguments of `open_network` that a judge's name stands for."""
    if Path(text).exists():
        return {"network": text}
    name, _, preprocessing = text.rpartition("@") if "@" in text else (text, "", "")
    name, _, weights = (name, "", "") if Path(name).exists() else name.partition("=")
    if not name:
        raise InputError(f"judge {text!r}: expected a name, a file, FILE=WEIGHTS or FILE@PREPROCESSING")
    found = {"network": name, "preprocessing": preprocessing, "weights": weights}
    return {key: value for key, value in found.items() if value}


def open_judges(judges: str | Network | Sequence[str | Network]) -> list[Network]:
    given = [judges] if isinstance(judges, str | Network) else list(judges)
    opened = [judge if isinstance(judge, Network) else open_judge(judge) for judge in given]
    for judge in opened:
        if [other.name for other in opened].count(judge.name) > 1:
            raise InputError(f"two judges are called {judge.name}: expected each once, or under names of their own")
        if not judge.classes:
            why = judge.limit or "it returns no logits of shape (rows, classes)"
            raise InputError(f"{judge.name} cannot judge: {why}; expected a network that classifies")
    return opened


def default_judges(files: ImageReader, subjects: Sequence[JudgedImage]) -> list[Network]:
    """Those of the bundled networks that no image was made with."""
    if not any(isinstance(subject.unit, Class) for subject in subjects):
        return []  # nobody would be asked
    makers = _source_models(subjects)
    chose = {name for subject in subjects for name in subject.selectors}
    judges = [
        judge
        for judge in files.judges
        if judge.name not in chose and not any(_dependence(judge, judge.digest, maker) for maker in makers)
    ]
    if not judges:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    tuned = {name for subject in subjects for name in subject.tuned_on}
    return [judge for judge in judges if judge.name not in tuned] or judges


def panel(network: Network, judges: Sequence[str | Network] | None = None) -> list[Network]:
    """Judges for what a network will show, opened: those given, or the bundled ones that are no kin of it.

    Raises:
        InputError: one given is kin of the network, or cannot judge; or there is none.
    """
    maker = SourceModel(network.name, network.digest, network)
    if judges is None:
        bundled_ones = ImageReader(None, None).judges
        found = [judge for judge in bundled_ones if not _dependence(judge, judge.digest, maker)]
    else:
        found = open_judges(judges)
        for judge in found:
            if kinship := _dependence(judge, judge.digest, maker):
                raise InputError(f"judge {judge.name} {kinship}, which is to be shown: expected another network")
    if not found:
        raise InputError("no judge is here: expected one to be named, or pip install phosphene[networks]")
    return found


def has_class(judge: Network, index: int, network: Network) -> bool:
    """Whether a judge has a class of a network."""
    try:
        matching_class(judge, index, network)
    except InputError:
        return False
    return True


def _source_models(subjects: Sequence[JudgedImage]) -> list[SourceModel]:
    found = {(maker.name, maker.digest): maker for subject in subjects for maker in subject.source_models}
    return list(found.values())


def check_independent(judges: Sequence[Network], subjects: Sequence[JudgedImage]) -> None:
    """Raise an `InputError` for a judge that is no other network than an image was made with, or that chose one."""
    makers = _source_models(subjects)
    for judge in judges:
        chose = [subject.name for subject in subjects if judge.name in subject.selectors]
        if chose:
            raise InputError(f"judge {judge.name} chose {chose[0]!r} among several: expected a network that did not")
        digest = judge.digest
        for maker in makers:
            kinship = _dependence(judge, digest, maker)
            if kinship:
                raise InputError(
                    f"judge {judge.name} {kinship}, which the image was made with: expected a network that it was not"
                )


def _dependence(judge: Network, digest: str, maker: SourceModel) -> str:
    """How a judge is related to a network that an image was made with; empty if it is not."""
    if digest == maker.digest:
        return f"is {maker.name}"
    if maker.network is None:
        return ""
    if (digest, maker.digest) not in _SHARED:  # weights of one digest are the same, and comparing them takes a while
        _SHARED[digest, maker.digest] = shared_weights(judge, maker.network)
    shared = _SHARED[digest, maker.digest]
    return f"shares weights ({shared[0]} is {shared[1]} there) with {maker.name}" if shared else ""


_SHARED: dict[tuple[str, str], tuple[str, str] | None] = {}  # by the digests of a judge and a maker


def shared_weights(first: Network, second: Network) -> tuple[str, str] | None:
    """Two tensors, one of each network, that hold the same values in whatever order; None if there are none.

    The order is left out since formats differ in it: Keras keeps a kernel as (height, width, in, out), PyTorch as
    (out, in, height, width).  Only learnt tensors of at least 64 values that are not all the same are compared.
    """
    sides = [_learned_tensors(first), _learned_tensors(second)]
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


def _learned_tensors(network: Network) -> dict[str, Tensor]:
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


def target_classes(subject: JudgedImage, judges: Sequence[Network]) -> list[int]:
    """The class of an image that shows one, in each judge; nothing for other images."""
    if not isinstance(subject.unit, Class):
        return []
    for judge in judges:
        channels = subject.pixels.shape[-1]
        if channels not in (1, 3, judge.preprocessing.channels):
            raise InputError(f"image {subject.name!r} of {channels} channels cannot be shown to judge {judge.name}")
    own = subject.network or (judges[0] if judges else None)
    return [] if own is None else [matching_class(judge, subject.unit.index, own) for judge in judges]


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
