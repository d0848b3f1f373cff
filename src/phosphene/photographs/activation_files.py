"""Where the statistics of a network's activations are kept, and how they are read."""

from __future__ import annotations

from pathlib import Path

import torch

from phosphene import user_folders
from phosphene.errors import InputError
from phosphene.files import parse_json
from phosphene.networks.network import Network
from phosphene.photographs.activation_statistics import KINDS, ActivationStatistics, LayerStatistics, plain_fields
from phosphene.photographs.statistics_files import OF_ACTIVATIONS, damaged, read_statistics

# Of a preprocessing, what the statistics depend on.
_DECISIVE = ("mean", "std", "value_range", "channel_order", "channels", "layout")


def load_activation_statistics(path: str | Path, network: Network) -> ActivationStatistics:
    """What `ActivationStatistics.save` wrote of this network.

    Raises:
        InputError: there is no such file, it is damaged, it is of another network, or the preprocessing was another
            (but for the size of images).
    """
    return _load(Path(path), network, network.digest)


def _load(path: Path, network: Network, digest: str) -> ActivationStatistics:
    found = read_activation_statistics(path)
    if found.weights != digest:
        raise InputError(
            f"statistics {str(path)!r} are of {found.network}, weights {found.weights}, and not of {network.name}, "
            f"weights {digest}: expected what `phosphene statistics DIR -n {network.name}` writes"
        )
    fields, known = plain_fields(network.preprocessing), found.preprocessing_fields
    for name in _DECISIVE:
        if fields[name] != known.get(name):
            raise InputError(
                f"statistics {str(path)!r} were gathered with other preprocessing of {network.name} "
                f"({name} {known.get(name)}, and not {fields[name]}): gather them again, "
                "with `phosphene statistics DIR`"
            )
    return found


def read_activation_statistics(path: Path) -> ActivationStatistics:
    """What `ActivationStatistics.save` wrote, of whatever network.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    tensors, metadata = read_statistics(path, OF_ACTIVATIONS)
    try:
        names, fields = (parse_json(metadata[key], key) for key in ("layers", "fed"))
        if not isinstance(fields, dict) or not isinstance(names, list) or not names:
            raise ValueError("metadata")
        found = ActivationStatistics(
            metadata["network"],
            metadata["weights"],
            int(metadata["count"]),
            {name: LayerStatistics(*(tensors[f"{kind}/{name}"] for kind in KINDS)) for name in names},
            fields,
            int(metadata["unreadable"]),
        )
        for name in names:
            _check_layer(found.layers[name])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, OF_ACTIVATIONS) from error
    return found


def _check_layer(layer: LayerStatistics) -> None:
    tensors = [getattr(layer, kind) for kind in KINDS]
    if any(tensor.ndim != 1 or tensor.shape != tensors[0].shape or tensor.dtype != torch.float32 for tensor in tensors):
        raise ValueError("shapes")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors) or any(
        bool((tensor < 0).any()) for tensor in tensors[1:]
    ):
        raise ValueError("numbers")


def cache_path(network: Network | str) -> Path:
    """Where the statistics of a network, or of that with this digest, are kept.

    In the folder that the environment variable PHOSPHENE_STATISTICS names, or else in statistics/ of the user's cache.
    """
    digest = network if isinstance(network, str) else network.digest
    return user_folders.cache("statistics", "PHOSPHENE_STATISTICS") / f"{digest}.safetensors"


def find_activation_statistics(network: Network) -> ActivationStatistics | None:
    """The statistics of a network that are kept at `cache_path`, if there are.

    Raises:
        InputError: they are damaged, or the preprocessing was another.
    """
    digest = network.digest
    path = cache_path(digest)
    return _load(path, network, digest) if path.is_file() else None
