"""Modules of timm's and torchvision's that the caller built: what they expect is known."""

from __future__ import annotations

from typing import Any

from torch import nn

from phosphene.networks.network import Network
from phosphene.networks.sources.timm import is_timm_module, of_timm_module
from phosphene.networks.sources.torchvision import is_torchvision_module, of_torchvision_module


def open_module(module: nn.Module, name: str = "", weights: Any = None) -> Network | None:
    """The network of a module, if it is one of theirs, or the member of an enum says which weights it has."""
    if weights is not None or is_torchvision_module(module):
        return of_torchvision_module(module, name, weights)
    return of_timm_module(module, name) if is_timm_module(module) else None
