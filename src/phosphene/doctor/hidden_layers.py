"""What of a network cannot be shown: constant layers, layers without a gradient, dead channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from phosphene.doctor.diagnostics import Diagnostic
from phosphene.errors import join_names
from phosphene.networks.layers import is_activation
from phosphene.networks.network import Network


def constant_layers(network: Network, pixels: Tensor) -> set[str]:
    """The layers that are the same for every image."""
    constant = set()
    rows = len(pixels)

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            # Some layers have several rows an image (windows of it), and some one for all images.
            by_image = output.reshape(rows, -1) if len(output) % rows == 0 else output[:1]
            if float((by_image - by_image[0]).abs().amax()) <= 1e-6 * float(by_image.abs().amax()):
                constant.add(name)

        return read

    with torch.no_grad():
        network.read(pixels, {layer.name: reader(layer.name) for layer in network.layers})
    return constant


def check_gradients(network: Network, pixels: Tensor, constant: set[str]) -> Iterator[Diagnostic]:
    """Layers from which nothing leads back to the image: those that do not depend on it, and those detached."""
    linked = set()

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            if output.requires_grad:
                linked.add(name)

        return read

    with torch.enable_grad():
        network.read(pixels.clone().requires_grad_(), {layer.name: reader(layer.name) for layer in network.layers})
    names = [layer.name for layer in network.layers]
    same = [name for name in names if name in constant] + network.constant
    if same:
        text = join_names(same)
        yield Diagnostic(
            "constant layers", "note", f"the same for every image, so that nothing can be shown of them: {text}"
        )
    cut = [name for name in names if name not in linked and name not in constant]
    if cut:
        text = f"none gets from these layers to the image, so that nothing can be shown of them: {join_names(cut)}"
        yield Diagnostic("gradient", "warning", text)


def check_dead_channels(
    network: Network, pixels: Tensor, constant: set[str], shown: str, made: bool
) -> Iterator[Diagnostic]:
    """Channels behind an activation that are the same everywhere in every image: for a ReLU, always 0."""
    layers = [layer.name for layer in network.layers if layer.name not in constant]
    # Where activations are functions and no modules, every layer is looked at.
    names = [name for name in layers if is_activation(network.module.get_submodule(network.call(name)[0]))] or layers
    lowest, highest = _extremes(network, pixels, names)
    dead = {name: _flat(lowest[name], highest[name]) for name in names}
    share = {name: dead[name] / len(lowest[name]) for name in names if dead[name]}
    of_all = f"of {sum(map(len, lowest.values()))} in {len(names)} {'layers' if names == layers else 'activations'}"
    if not share:
        yield Diagnostic("dead channels", "ok", f"none {of_all}, over {shown}")
        return
    worst = sorted(share, key=lambda name: -share[name])
    where = join_names([f"{name} ({dead[name]} of {len(lowest[name])})" for name in worst], 3)
    text = f"{sum(dead.values())} {of_all} never change over {shown}: {where}"
    if made:
        text += "; some of them may wake for photographs"
    yield Diagnostic("dead channels", "warning" if share[worst[0]] > 0.5 and not made else "note", text)


def _flat(lowest: Tensor, highest: Tensor) -> int:
    return int((highest - lowest <= 1e-6 * (highest.max() - lowest.min())).sum())


def _extremes(network: Network, pixels: Tensor, names: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The least and the greatest value of each channel over all images and positions."""
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            low, high = output.transpose(0, 1).flatten(1).aminmax(dim=1)
            lowest[name] = torch.minimum(lowest.get(name, low), low)
            highest[name] = torch.maximum(highest.get(name, high), high)

        return read

    readers = {name: reader(name) for name in names}
    with torch.no_grad():
        for start in range(0, len(pixels), 8):
            network.read(pixels[start : start + 8], readers)
    return lowest, highest
