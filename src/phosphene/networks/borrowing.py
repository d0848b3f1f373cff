"""A module is lent for the time of a block: in eval mode, frozen, on a device; at the end it is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.torch_state import default_torch_state


@contextmanager
def borrowed(module: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Eval mode, frozen parameters, on `device`; at the end everything is put back as it was."""
    with default_torch_state(), _without_inference_tensors(module):
        modules, parameters = list(module.modules()), list(module.parameters())
        tensors = [*parameters, *module.buffers()]
        modes = [each.training for each in modules]
        flags = [parameter.requires_grad for parameter in parameters]
        values = [tensor.data for tensor in tensors]
        try:
            for each in modules:
                each.training = False
            for parameter in parameters:
                parameter.requires_grad_(False)
            for tensor in tensors:
                tensor.data = tensor.data.to(device)
            yield
        finally:
            for tensor, value in zip(tensors, values, strict=True):
                tensor.data = value
            for each, mode in zip(modules, modes, strict=True):
                each.training = mode
            for parameter, flag in zip(parameters, flags, strict=True):
                parameter.requires_grad_(flag)


@contextmanager
def _without_inference_tensors(module: nn.Module) -> Iterator[None]:
    """Copies stand for parameters and buffers that were made under `torch.inference_mode`, which autograd refuses."""
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    held: dict[str, Any]
    copies: dict[int, Tensor] = {}  # by identity: a tensor may be at several places
    for each in module.modules():
        for held in () if isinstance(each, torch.jit.ScriptModule) else (each._parameters, each._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    if id(tensor) not in copies:
                        copy = tensor.detach().clone()
                        copies[id(tensor)] = nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy
                    replaced.append((held, name, tensor))
    try:
        for held, name, tensor in replaced:
            held[name] = copies[id(tensor)]
        yield
    finally:
        for held, name, tensor in replaced:
            held[name] = tensor
