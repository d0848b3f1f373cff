"""Whether the gradient of what a unit is read from gets to the image, and if not, where it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import torch
from torch import nn

from phosphene.networks.forward import Reader
from phosphene.networks.layers import hookable_modules
from phosphene.networks.network import Network
from phosphene.networks.outputs import tensors_of
from phosphene.networks.tracing import probe_images


def layers_without_gradient(network: Network, layers: Sequence[str], device: torch.device) -> dict[str, str]:
    """The layers (or `layers.LOGITS`) from which no gradient gets to the image, each with why.

    Args:
        network: borrowed, on that device.
    """
    reached = _reached(network, layers, device, None)
    if all(reached.values()):
        return {}
    where = _CallTracker(network)
    reached = _reached(network, layers, device, where)
    return {layer: where.said for layer, gets in reached.items() if not gets}


def _reached(
    network: Network, layers: Sequence[str], device: torch.device, where: _CallTracker | None
) -> dict[str, bool]:
    """For each layer whether a gradient gets from it to the image."""
    reached: dict[str, bool] = {}

    def reader(layer: str) -> Reader:
        return lambda output: reached.update({layer: output.requires_grad})

    pixels = probe_images(network.preprocessing)[:1].to(device).requires_grad_()
    # What fails here fails in the ascent, and is said there.
    with suppress(Exception), where.watching() if where is not None else nullcontext():
        network.read(pixels, {layer: reader(layer) for layer in layers})
    return reached


class _CallTracker:
    """Notes the first module at which a pass loses its gradient."""

    def __init__(self, network: Network):
        self.network = network
        self.said = "nothing in it leads to the image"
        self.found = False

    def watching(self) -> ExitStack:
        stack = ExitStack()
        for name, module in hookable_modules(self.network.module):
            stack.callback(module.register_forward_pre_hook(self._enters(name)).remove)
            stack.callback(module.register_forward_hook(self._leaves(name, module)).remove)
        return stack

    def _note(self, text: str) -> None:
        if not self.found:
            self.found, self.said = True, text

    def _enters(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if not torch.is_grad_enabled():
                kind = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
                self._note(f"{self._caller(name)} calls {name!r} under torch.{kind}()")

        return hook

    def _leaves(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            entered = any(each.tensor.requires_grad for each in tensors_of(inputs))
            left = [each.tensor for each in tensors_of(output)]
            if entered and left and not any(tensor.requires_grad for tensor in left):
                self._note(f"{self._called(name)} returns what has none (detach, argmax, whole numbers, no_grad)")

        return hook

    def _called(self, name: str) -> str:
        return f"{name!r} ({type(self.network.module.get_submodule(name)).__name__})" if name else self.network.name

    def _caller(self, name: str) -> str:
        return self._called(name.rpartition(".")[0]) if name else "the network's forward"
