"""An ONNX graph as a torch module: its nodes, run in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.networks.sources.onnx.image_input import ImageInput
from phosphene.networks.sources.onnx.nodes import MOVING


@dataclass
class GraphStep:
    """A node as it is run: `outputs = module(*inputs)`, all by the names of values."""

    node: Any
    module: nn.Module
    inputs: list[str]
    outputs: list[str]
    name: str = ""


class OnnxGraph(nn.Module):
    """The nodes of an ONNX graph, run in their order.

    Args:
        images: the name of the input, and whether it has its channels last; `forward` takes them first in any case.
        steps: the nodes, named; their modules become submodules of these names, but for those that only move numbers.
        constants: the values that no node gives.
        outputs: the names of the values that it gives, by what they are called; the first is of the logits.
        note: what a user should know of the outputs.

    Attributes:
        classes: how many the logits are of; known once it was run; 0 where it gives maps.
    """

    classes = 0
    turns_images = True

    def __init__(
        self,
        images: ImageInput,
        steps: Sequence[GraphStep],
        constants: Mapping[str, Tensor],
        outputs: Mapping[str, str],
        note: str = "",
    ):
        super().__init__()
        # All other attributes begin with an underscore, as no node's name does.
        self._input, self._outputs, self._channels_last = images.name, dict(outputs), images.channels_last
        self._dtype, self._note, self._of_bytes = images.dtype, note, images.of_bytes
        self._constants: dict[str, str] = {}
        for name in dict.fromkeys(name for step in steps for name in step.inputs if name in constants):
            self._constants[name] = f"_constant_{len(self._constants)}"
            value = constants[name]
            if value.is_floating_point() and value.numel() > 1:
                self.register_parameter(self._constants[name], nn.Parameter(value))
            else:
                self.register_buffer(self._constants[name], value)
        self._moving: dict[str, nn.Module] = {}
        for step in steps:
            if step.node.op_type in MOVING and not step.module.state_dict():
                self._moving[step.name] = step.module
                continue
            *path, name = step.name.split(".")
            parent: nn.Module = self
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(name, step.module)
        last = {name: index for index, step in enumerate(steps) for name in step.inputs}
        self._steps = [
            (step.name, step.inputs, step.outputs, [name for name in set(step.inputs) if last[name] == index])
            for index, step in enumerate(steps)
        ]

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """The logits; of a graph of several outputs all of them by name, the logits first."""
        values = {name: getattr(self, own) for name, own in self._constants.items()}
        images = images.to(self._dtype) if self._dtype == torch.float16 else images
        values[self._input] = images.permute(0, 2, 3, 1) if self._channels_last else images
        kept = set(self._outputs.values())
        for name, inputs, outputs, done in self._steps:
            result = self.part(name)(*(values[key] if key else None for key in inputs))
            values.update(zip(outputs, result if isinstance(result, tuple | list) else (result,), strict=False))
            for key in done:
                if key not in kept:
                    values.pop(key, None)
        given = {name: values[key] for name, key in self._outputs.items()}
        return given if len(given) > 1 else next(iter(given.values()))

    @property
    def outputs(self) -> list[str]:
        """The names of the values that it gives, the logits' first."""
        return list(self._outputs)

    @property
    def takes_bytes(self) -> bool:
        """Whether the file takes pixels of 8 bits."""
        return self._of_bytes

    @property
    def output_note(self) -> str:
        """What a user should know of the outputs; empty where nothing is to be said."""
        return self._note

    def parts(self) -> list[str]:
        """The names of the nodes, in their order."""
        return [name for name, *_ in self._steps]

    def part(self, name: str) -> nn.Module:
        """The module of a node."""
        return self._moving[name] if name in self._moving else self.get_submodule(name)
