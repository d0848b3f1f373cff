"""Of the last layer that is run, only the channels that are asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from phosphene.networks.network import Network

# Channels are computed by so many, also where fewer are asked for: what comes out of one should not depend on how many
# others there are.
WIDTH = 32
# How far a narrowed layer may be off, as a share of its largest value.
_TOLERANCE = 1e-3


def producers(network: Network, layers: Collection[str]) -> dict[str, str]:
    """By layer, the module that makes its channels, each from an output of its own.

    That is the layer itself where it is a convolution or linear, or the one right before where it is an activation.
    Layers for which there is none, or none that gives the same when it is narrowed, are left out.

    Args:
        network: borrowed, as it will be used.
        layers: by name.
    """
    names = [name for name in layers if network.call(name)[0] == name and network.layer(name).plain_rows]
    found = _find_producers(network, names) if names else {}
    return {layer: maker for layer, maker in found.items() if _is_equivalent(network, layer, maker)}


def _find_producers(network: Network, layers: Sequence[str]) -> dict[str, str]:
    modules = dict(network.module.named_modules())
    made: dict[int, tuple[str, Tensor]] = {}  # by identity, and held, so that no other gets it
    calls: dict[str, int] = {}
    found: dict[str, str] = {}

    def note_output(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            made[id(output)] = name, output

        return hook

    def note_input(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            if inputs and id(inputs[0]) in made:
                found[name] = made[id(inputs[0])][0]

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            if _has_independent_outputs(module):
                stack.callback(module.register_forward_hook(note_output(name)).remove)
        for name in layers:
            if not _has_independent_outputs(modules[name]) and not list(modules[name].parameters()):
                stack.callback(modules[name].register_forward_pre_hook(note_input(name)).remove)
        network.activations(network.preprocessing.noise(2), layers)
    found |= {name: name for name in layers if name in calls}
    return {layer: maker for layer, maker in found.items() if calls[maker] == 1}


def _has_independent_outputs(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def pick_channels(module: Any, channels: Collection[int], count: int) -> list[int] | None:
    """The channels to compute where so many are read in a batch; None where it would save little."""
    width = WIDTH * math.ceil(max(count, len(channels)) / WIDTH)
    if 2 * width > len(module.weight):
        return None
    others = (channel for channel in range(len(module.weight)) if channel not in channels)
    return [*sorted(channels), *(next(others) for _ in range(width - len(channels)))]


@contextmanager
def sliced_channels(module: Any, channels: Sequence[int]) -> Iterator[None]:
    """A convolution or linear layer computes these channels only, in this order."""
    own = dict(module._parameters)
    picked = {
        # Others in their place, not their data changed: the backward pass, which comes later, needs these.
        name: nn.Parameter(parameter.data[list(channels)], requires_grad=parameter.requires_grad)
        for name, parameter in own.items()
        if parameter is not None
    }
    try:
        module._parameters.update(picked)
        yield
    finally:
        module._parameters.update(own)


def _is_equivalent(network: Network, layer: str, producer: str) -> bool:
    """Whether the layer gives the same channels when its maker is narrowed."""
    module = network.module.get_submodule(producer)
    channels = pick_channels(module, {network.layer(layer).channels - 1}, 1)
    if channels is None:
        return False
    noise = network.preprocessing.noise(2)
    expected = network.activations(noise, layer)[layer][:, channels]
    try:
        with sliced_channels(module, channels):
            output = network.activations(noise, layer)[layer]
    except Exception:  # something beside it needs all of them
        return False
    if output.shape[1] != len(channels):
        return False
    return bool((output - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp_min(1e-6))
