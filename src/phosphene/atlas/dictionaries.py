"""The dictionaries that an atlas shows latents of: it keeps a copy of each, and knows it by its digest.

A plan may come from anyone, so it names no file: a group of latents names a digest, and the atlas's own place has the
dictionary of that digest, as plain safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from phosphene.default_progress import ProgressOption, counted
from phosphene.dictionaries.dictionary import Dictionary
from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import list_photographs
from phosphene.units.tokens import TokenSelection

Load = Callable[[], Dictionary]
_loads: dict[str, Load] = {}
NEAREST = 3  # classes whose weights are most like a latent's decoder vector


def file_name(digest: str) -> str:
    """Where the copy of a dictionary is, from the atlas's root on."""
    return f"dictionaries/{digest}.safetensors"


def provide(digest: str, load: Load) -> None:
    """Say how the dictionary of a digest is read, when it is needed."""
    _loads[digest] = load


@lru_cache(4)
def find(digest: str) -> Dictionary:
    """The dictionary of a digest.

    Raises:
        InputError: nobody has provided it, or what is there has another digest.
    """
    if digest not in _loads:
        raise InputError(
            f"the dictionary {digest} of the atlas is not there: expected {file_name(digest)} in its place"
        )
    found = _loads[digest]()
    if found.digest != digest:
        raise InputError(f"the dictionary in {file_name(digest)} is another, or damaged: its digest is {found.digest}")
    return found


def latents_of(dictionary: Dictionary, activation: Tensor, tokens: str, network: Network, layer: str) -> Tensor:
    """All latents of one image at the positions that are looked at: (channels, *positions) to (latents, positions)."""
    if tokens:
        activation = TokenSelection.parse(tokens).of(activation, network.layer(layer).tokens)
    inputs = activation.flatten(1).T if activation.ndim > 1 else activation[None]
    return torch.cat(list(dictionary.chunks(inputs.float()))).T


def live_latents(
    network: Network,
    layer: str,
    dictionary: Dictionary,
    tokens: str,
    photographs: str,
    on_progress: ProgressOption = None,
) -> tuple[Tensor, int]:
    """In how many photographs each latent is on somewhere, (latents,), and of how many.

    Raises:
        InputError: no photograph can be read.
    """
    files = list_photographs(photographs)
    counts, total = torch.zeros(dictionary.latents, dtype=torch.long), 0

    def count(activation: Tensor) -> None:
        for image in activation:
            counts.add_((latents_of(dictionary, image, tokens, network, layer) > 0).any(1).cpu())

    with (
        counted("photographs", on_progress, len(files), doing=f"latents of {layer}") as tally,
        network.borrowed(network.device),
        torch.no_grad(),
    ):
        for done, indices, pixels in decode_batches(files, network.preprocessing, 16):
            total += len(indices)
            network.read(pixels.to(network.device), {layer: count})
            tally.at(done, len(files))
    return counts, total


def nearest_classes(network: Network, layer: str, dictionary: Dictionary, index: int) -> list[list[object]]:
    """The classes whose weights are most like a latent's decoder vector, as [index, name, cosine].

    None where no head of classes reads the layer: a linear one, with nothing that has weights between it and the layer.
    """
    weights = _head(network, layer, dictionary.width)
    if weights is None:
        return []
    vector = dictionary.decoder[index].to(weights)
    cosines = weights @ vector / (weights.norm(dim=1) * vector.norm()).clamp_min(1e-12)
    best = cosines.topk(min(NEAREST, len(cosines)))
    names = network.labels
    return [
        [place, names[place].name if names is not None else str(place), round(value, 3)]
        for place, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _head(network: Network, layer: str, width: int) -> Tensor | None:
    """The weights of the classes, (classes, width), where the head reads the layer itself or its mean."""
    if not network.classes or network.limit:
        return None
    names = [each.name for each in network.layers]
    for each in network.layers[names.index(layer) + 1 :]:
        if layer.startswith(f"{each.name}."):  # it has the layer in it, and ends after it
            continue
        module = network.module.get_submodule(network.call(each.name)[0])
        if isinstance(module, nn.Linear) and (module.in_features, module.out_features) == (width, network.classes):
            return module.weight.detach().float()
        if next(module.parameters(), None) is not None:
            return None
    return None
