"""What tells a network's weights from others: a digest, which is computed once for as long as they stay as they are."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Collection, Hashable, Iterator

import torch
from torch import Tensor, nn

_known: weakref.WeakKeyDictionary[nn.Module, dict[frozenset[str], tuple[Hashable, str]]] = weakref.WeakKeyDictionary()


def digest(module: nn.Module, without: Collection[str] = ()) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the names and values of a module's weights.

    Args:
        without: names of those that do not count.
    """
    now, left_out = state(module), frozenset(without)
    kept = _known.setdefault(module, {})
    if left_out not in kept or kept[left_out][0] != now:
        kept[left_out] = now, _hashed(module, left_out)
    return kept[left_out][1]


def state(module: nn.Module) -> Hashable:
    """Something that changes whenever a module's weights do: how often each was written to, where it lies, and some of
    its numbers, since `parameter.data` may be written to without being counted."""
    return tuple(
        (name, id(tensor), 0 if tensor.is_inference() else tensor._version, tensor.data_ptr(), _some(tensor))
        for name, tensor in _tensors(module)
    )


def _some(tensor: Tensor) -> tuple[float, ...]:
    """Some of a tensor's numbers, from its beginning to its end."""
    if tensor.is_meta or not tensor.numel():
        return ()
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()[:1]
    return tuple(map(float, flat[:: max(1, len(flat) // 7)][:8].tolist())) if not flat.is_complex() else ()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _hashed(module: nn.Module, without: Collection[str]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor) and name not in without:
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
