"""What a layer of a network is: one call of one module, and the names by which layers are known."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from phosphene.networks.rows import RowLayout
from phosphene.networks.tokens import TokenLayout
from phosphene.tables import html_table

LOGITS = "class"
"""The name under which a classifier's logits are read, as if they were a layer."""

OUTPUT = "output"
"""The name under which a network's output is a layer, where it is no logits: maps, tokens or features."""


@dataclass(frozen=True)
class Layer:
    """One call of one module in a forward pass.

    Attributes:
        name: the module's, with `#1`, `#2`, … behind it where the module is called more than once.
        type: the module's class.
        shape: of the output for one image, without the rows.
        channels: how many.
        positions: the shape of a channel's map: (height, width), (tokens,), or () for a vector.
        parameters: how many numbers the module itself, with all inside it, has learned.
        worth_showing: whether it is an activation, behind which units are usually shown.
        channels_last: whether the module itself returns (rows, *positions, channels).
        rows: how the module's own output carries the rows.
        raw_shape: the shape of the module's own output for one image.
        tokens: which of its positions are class tokens, registers and patches; None of maps and vectors, and where
            nothing says it.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    channels: int
    positions: tuple[int, ...]
    parameters: int
    worth_showing: bool
    channels_last: bool
    rows: RowLayout
    raw_shape: tuple[int, ...]
    tokens: TokenLayout | None = None

    @property
    def plain_rows(self) -> bool:
        """Whether the rows are on the first axis, and nothing else is."""
        return self.rows == RowLayout()

    @property
    def plain(self) -> bool:
        """Whether the module itself returns (rows, channels, *positions)."""
        return not self.channels_last and self.plain_rows


class Layers(list[Layer]):
    """Layers in the order of their calls.  In a notebook they are a table."""

    def _repr_html_(self) -> str:
        rows = [
            ("*" if layer.worth_showing else "", layer.name, layer.type, layer.channels,
             "x".join(map(str, layer.positions)), f"{layer.parameters:,}" if layer.parameters else "")
            for layer in self
        ]  # fmt: skip
        return html_table(("", "layer", "type", "channels", "map", "parameters"), rows)


def module_call(layer: str, modules: Collection[str]) -> tuple[str, int]:
    """The module whose output a layer is, by name, and which of its calls; the network itself is called "".

    Args:
        modules: the names of the network's modules, one of which may have a `#` in it.
    """
    if layer == OUTPUT and layer not in modules:
        return "", 1
    module, sharp, number = layer.rpartition("#")
    if layer not in modules and sharp and number.isdecimal() and module in modules:
        return module, int(number)
    return layer, 1


def hookable_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that take hooks, by name: those inside of a TorchScript program do not."""
    for name, each in module.named_modules():
        if not isinstance(each, torch.jit.ScriptModule):
            yield name, each


_ACTIVATIONS = {
    *("celu", "elu", "gelu", "gelutanh", "hardmish", "hardswish", "hardtanh", "leakyrelu", "mish", "prelu"),
    *("quickgelu", "relu", "relu6", "rrelu", "selu", "silu", "softplus", "softsign", "swish", "tanh"),
    *("clippedgelu", "fastgelu", "hardsilu", "newgelu", "pytorchgelutanh"),  # as transformers and Keras call them
}


def is_activation(module: nn.Module) -> bool:
    """Whether the module, by its class or a class it is made from, is an activation (gates such as sigmoid are not).

    A layer of Keras may have one in it (`Conv2D(…, activation="relu")`).
    """
    kinds = type(module).__mro__
    names = [kind.__name__ for kind in kinds]
    if any(kind.__module__.startswith("keras.") for kind in kinds):
        names.append(getattr(getattr(module, "activation", None), "__name__", ""))
    return any(name.lower().replace("_", "").removesuffix("activation") in _ACTIVATIONS for name in names)
