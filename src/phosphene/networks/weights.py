"""Weights from a file, read without executing anything in it, and put into a module of the same shape."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import check_file
from phosphene.networks.checkpoint import IGNORED_GLOBALS, check_checkpoint

_log = logging.getLogger(__name__)

_DEEPEST = 4  # dictionaries within each other
_MOST_FOUND = 64  # state dictionaries of one file
_MOST_PREFIXES = 8  # tried of each
_MOST_PARTS = 16  # of a name between dots, before which a prefix may end
_SHOWN_KEYS = 5
_AVERAGED = re.compile(r"(^|[._])(ema|average|averaged|avg|swa|teacher|shadow|momentum|target|polyak)(?=[._]|$)")
_COUNTER = re.compile(r"(^|\.)n_averaged$")  # of torch's averaged models


class Weights(dict[str, Tensor]):
    """The tensors of a file by name: of all state dictionaries in it, the plain model's.

    Attributes:
        found: all state dictionaries, by where in the file they are ("" where the file is one itself).
        keys_at_top: what the file has, where it is no state dictionary itself.
    """

    def __init__(self, found: Mapping[str, Mapping[str, Tensor]], keys_at_top: tuple[str, ...] = ()):
        self.found = dict(sorted(found.items(), key=lambda entry: (_is_averaged(entry[0]), -len(entry[1]))))
        self.keys_at_top = keys_at_top
        super().__init__(next(iter(self.found.values())))


def read_weights(path: str | Path) -> Weights:
    """The tensors of a `.safetensors` file, or of a state dictionary that torch saved, alone or within others.

    Raises:
        InputError: there is no such file, it is truncated or of another kind, or it holds more than tensors.
    """
    path = Path(path)
    origin = f"weights file {str(path)!r}"
    check_file(path, origin)
    if path.suffix == ".safetensors":
        with input_errors_for(origin, "a .safetensors file, whole"):
            return Weights({"": load_file(path)})
    loaded = load_checkpoint(path, origin)
    found = dict(_state_dictionaries(loaded)) if isinstance(loaded, dict) else {}
    if not found:
        inside = f", and it has {_quoted(loaded)}" if isinstance(loaded, dict) and loaded else ""
        raise InputError(f"{origin} holds no state dictionary: expected names and tensors{inside}")
    return Weights(found, () if "" in found else tuple(map(str, loaded)))


def load_checkpoint(path: Path, origin: str, stand_ins: Sequence[type] = IGNORED_GLOBALS) -> Any:
    """What a file of `torch.save` holds: tensors, and plain data around them.

    Args:
        stand_ins: classes that are made in place of those of the same names in the file; all others are refused.

    Raises:
        InputError: it is damaged, asks for more than is in it, or holds objects of other classes.
    """
    check_checkpoint(path, origin)
    refused = (
        f"{origin} holds more than tensors, or is damaged, and is not loaded: expected a "
        "state dictionary (torch.save(module.state_dict(), …)) or a .safetensors file"
    )
    try:
        with (
            input_errors_for(origin, "a state dictionary that torch saved, whole"),
            warnings.catch_warnings(),
            torch.serialization.safe_globals(list(stand_ins)),
        ):
            warnings.simplefilter("ignore")  # of kinds of tensors that change; whoever reads can do nothing about it
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise InputError(refused) from error
    if isinstance(loaded, tuple(stand_ins)):
        raise InputError(refused)
    return loaded


def _state_dictionaries(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All state dictionaries in a dictionary, with where they are: "state_dict", "ema.model"; the outer ones first.

    A few numbers beside the tensors do no harm, and neither do tensors beside nested dictionaries, such as a loss.
    """
    queue: list[tuple[str, Mapping[Any, Any], int]] = [("", loaded, 1)]
    count = 0
    while queue and count < _MOST_FOUND:
        where, entries, depth = queue.pop(0)
        named = {key: value for key, value in entries.items() if isinstance(key, str)}
        tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
        nested = {key: value for key, value in named.items() if isinstance(value, dict) and value}
        if (tensors and (where or not nested)) or not entries:
            count += 1
            yield where, tensors
        if depth < _DEEPEST:
            queue += [(f"{where}.{key}" if where else key, value, depth + 1) for key, value in nested.items()]


class _StateDictMatch(NamedTuple):
    """A state dictionary of a file with a prefix taken from its names, and how it compares with a network.

    Attributes:
        where: in the file.
        prefix: of the names.
        weights: those whose names have the prefix, without it.
        beside: names of the others.
        missing, left, other: names that only the network has, that only the file has, and of two shapes.
    """

    where: str
    prefix: str
    weights: dict[str, Tensor]
    beside: list[str]
    missing: list[str]
    left: list[str]
    other: list[str]

    @property
    def is_averaged(self) -> bool:
        return _is_averaged(f"{self.where}.{self.prefix}")

    @property
    def title(self) -> str:
        """What it is called in the file, empty where it is the file."""
        inside = repr(printable(self.where, 60)) if self.where else ""
        behind = f"the names behind {printable(self.prefix, 60)!r}" if self.prefix else ""
        return " of ".join(part for part in (behind, inside) if part)


def put_weights(
    module: nn.Module, weights: dict[str, Tensor], name: str, origin: str, partial: bool = False
) -> frozenset[str]:
    """Put weights into a module, all of them or none; gives the names of the tensors that were not among them.

    Of a file with several state dictionaries the one that fits is taken, the plain model's before an average of it,
    and a prefix that all its names have, such as DataParallel's "module.", is taken off.

    Args:
        partial: tensors may be missing, as long as some are there.

    Raises:
        InputError: a tensor is missing (unless `partial`), left over, or of another shape: the weights are of another
            network.
    """
    own = module.state_dict()
    found = weights.found if isinstance(weights, Weights) else {"": weights}
    tried = [fit for where, entries in found.items() for fit in _fits(own, entries, where)]
    fitting = [fit for fit in tried if not _problems(fit, own, partial)]
    # Sorting keeps the order among equals: of the file, and without a prefix first.
    fitting.sort(key=lambda fit: (len(fit.missing), fit.is_averaged))
    if not fitting:
        raise InputError(_refusal(tried, own, weights, name, origin, partial))
    taken = fitting[0]
    same = [fit for fit in fitting[1:] if len(fit.missing) == len(taken.missing)]
    if same:
        others = " and ".join(fit.title or "the rest" for fit in same[:3])
        _log.warning("%s: the weights of %s are %s; %s would fit too", origin, name, taken.title or "its own", others)
    elif taken.prefix and any(not _COUNTER.search(key) for key in taken.beside):
        _log.warning("%s: the weights of %s are %s; the rest is not used", origin, name, taken.title)
    module.load_state_dict(taken.weights, strict=False)
    return frozenset(taken.missing)


def _fits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str) -> Iterator[_StateDictMatch]:
    """The weights without any prefix that makes at least one of their names one of the network's."""
    for prefix in _prefixes(own, weights):
        inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        counted = {key for key in inside if _COUNTER.search(key) and key not in own}
        inside = {key: value for key, value in inside.items() if key not in counted}
        missing = [key for key in own if key not in inside and not key.endswith("num_batches_tracked")]
        left = [key for key in inside if key not in own]
        other = [key for key in own if key in inside and own[key].shape != inside[key].shape]
        yield _StateDictMatch(
            where, prefix, inside, [key for key in weights if not key.startswith(prefix)], missing, left, other
        )


def _prefixes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """None, and the prefixes behind which most names are the network's."""
    counts: Counter[str] = Counter()
    for key in weights:
        end = 0
        for _ in range(_MOST_PARTS):
            end = key.find(".", end) + 1
            if not end:
                break
            if key[end:] in own:
                counts[key[:end]] += 1
    return ["", *(prefix for prefix, _ in counts.most_common(_MOST_PREFIXES))]


def _problems(fit: _StateDictMatch, own: Mapping[str, Tensor], partial: bool) -> list[str]:
    problems = []
    if fit.missing and (not partial or len(fit.missing) == len(own)):
        problems.append(f"{len(fit.missing)} of {len(own)} tensors are missing ({fit.missing[0]}, …)")
    if fit.left:
        problems.append(f"{len(fit.left)} are not of this network ({fit.left[0]}, …)")
    if fit.other:
        key = fit.other[0]
        shapes = f"{tuple(fit.weights[key].shape)} for {tuple(own[key].shape)}"
        problems.append(f"{len(fit.other)} have another shape ({key}: {shapes})")
    return problems


def _refusal(
    tried: list[_StateDictMatch],
    own: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    name: str,
    origin: str,
    partial: bool,
) -> str:
    """What of the best candidate does not fit."""
    best = min(tried, key=lambda fit: len(fit.missing) + len(fit.left) + len(fit.other))
    problems = _problems(best, own, partial)
    advice = ""
    if len(problems) == 1 and best.missing and len(best.missing) < len(own) and not partial:
        advice = "; to show the layers whose weights are there, say so: --partial"
    top = weights.keys_at_top if isinstance(weights, Weights) else ()
    inside = f"; the file has {_quoted(top)}" if top else ""
    nearest = f" (nearest are {best.title})" if best.title else ""
    return f"the weights in {origin} are not those of {name}{nearest}: {'; '.join(problems)}{inside}{advice}"


def _is_averaged(place: str) -> bool:
    return _AVERAGED.search(place.lower()) is not None


def _quoted(keys: Any) -> str:
    shown = [printable(repr(str(key)), 60) for key in keys]
    return ", ".join(shown[:_SHOWN_KEYS]) + (", …" if len(shown) > _SHOWN_KEYS else "")
