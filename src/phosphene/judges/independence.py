"""Whether a judge had no part in an image, nor shares weights with a network that had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from phosphene.errors import InputError
from phosphene.judges.judged_image import JudgedImage, SourceModel
from phosphene.networks.network import Network


def check_independent(judges: Sequence[Network], images: Sequence[JudgedImage]) -> None:
    """Raise an `InputError` for a judge that is no other network than an image was made with, or that chose one."""
    sources = source_models(images)
    for judge in judges:
        chose = [image.name for image in images if judge.name in image.selectors]
        if chose:
            raise InputError(f"judge {judge.name} chose {chose[0]!r} among several: expected a network that did not")
        digest = judge.digest
        for source in sources:
            relation = dependence(judge, digest, source)
            if relation:
                raise InputError(
                    f"judge {judge.name} {relation}, which the image was made with: expected a network that it was not"
                )


def dependence(judge: Network, digest: str, source: SourceModel) -> str:
    """How a judge is related to a network that an image was made with; empty if it is not."""
    if digest == source.digest:
        return f"is {source.name}"
    if source.network is None:
        return ""
    if (digest, source.digest) not in _SHARED:  # weights of one digest are the same, and comparing them takes a while
        _SHARED[digest, source.digest] = shared_weights(judge, source.network)
    shared = _SHARED[digest, source.digest]
    return f"shares weights ({shared[0]} is {shared[1]} there) with {source.name}" if shared else ""


_SHARED: dict[tuple[str, str], tuple[str, str] | None] = {}  # by the digests of a judge and a source model


def shared_weights(first: Network, second: Network) -> tuple[str, str] | None:
    """Two tensors, one of each network, that hold the same values in whatever order; None if there are none.

    The order is left out since formats differ in it: Keras keeps a kernel as (height, width, in, out), PyTorch as
    (out, in, height, width).  Only learned tensors of at least 64 values that are not all the same are compared.
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


def source_models(images: Sequence[JudgedImage]) -> list[SourceModel]:
    """All networks that the images were made with, each once."""
    found = {(source.name, source.digest): source for image in images for source in image.source_models}
    return list(found.values())
