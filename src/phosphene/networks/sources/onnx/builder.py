"""A graph is walked node by node, in their order, and each becomes a step of a torch module.

What depends on no image is computed then and there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from phosphene.errors import InputError, first_line
from phosphene.networks.sources.onnx.conversion import convert_node
from phosphene.networks.sources.onnx.graph import GraphStep, OnnxGraph
from phosphene.networks.sources.onnx.image_input import UINT8, ImageInput
from phosphene.networks.sources.onnx.merging import needed_steps, with_activations, with_biases
from phosphene.networks.sources.onnx.names import step_names
from phosphene.networks.sources.onnx.nodes import (
    MOVING,
    is_known,
    nodes_behind,
    output_plans,
    output_rank,
    title,
    unknown_operator,
    with_inputs,
)
from phosphene.networks.sources.onnx.values import GraphValues

_LARGEST_ATTRIBUTE = 2**20


def build_graph(model: Any, images: ImageInput, name: str, frozen: bool) -> OnnxGraph:
    """The graph of all outputs that can be read; where not all can be had at once, of the first that can alone."""
    plans = output_plans(model, name)
    problems = []
    for outputs in plans:
        try:
            return _build(model, images, name, frozen, outputs)
        except InputError as error:
            problems.append(error)
    raise problems[0]


def _build(model: Any, images: ImageInput, name: str, frozen: bool, wanted: Sequence[str]) -> OnnxGraph:
    builder = _GraphBuilder(model, images, name, frozen)
    for node in nodes_behind(model, wanted):
        try:
            builder.add(node)
        except InputError:
            raise
        except Exception as error:  # of a damaged node's many, in ONNX's or onnx2pytorch's code
            raise builder.values.error(node, f"is not read: {first_line(error)}") from error
    outputs, note = builder.outputs(wanted)
    ends = list(dict.fromkeys(outputs.values()))
    steps = with_biases(needed_steps(builder.steps, ends), builder.values.constants, ends)
    steps = needed_steps(with_activations(steps, builder.values.constants), ends)
    if not steps:
        raise InputError(f"{name} gives the same for every image: expected a network")
    for step, own in zip(steps, step_names(steps), strict=True):
        step.name = own
    return OnnxGraph(images, steps, builder.values.constants, outputs, note)


class _GraphBuilder:
    """A pass over the nodes in their order.

    Args:
        frozen: take what is known for one image of this size for constant.

    Attributes:
        values: all that is known of them.
        steps: of the nodes so far.
        aliases: names of values that are the same as others.
    """

    def __init__(self, model: Any, images: ImageInput, file: str, frozen: bool):
        self.model, self.file, self.frozen = model, file, frozen
        self.values = GraphValues(model, images, file)
        self.steps: list[GraphStep] = []
        self.aliases: dict[str, str] = {}

    def add(self, node: Any) -> None:
        """The next node, as a step, an alias or a constant."""
        if not is_known(node):
            raise unknown_operator(node, self.file)
        inputs = [self.aliases.get(key, key) for key in node.input]
        if node.op_type in ("Identity", "Dropout"):
            self.aliases[node.output[0]] = inputs[0]
            return
        values = self.values
        if node.op_type == "Constant":
            values.keep(node.output[0], values.constant(node))
            return
        self._check(node, inputs)
        own = with_inputs(node, inputs)
        for attribute in own.attribute:  # inference for old opsets takes no axis from the end
            if attribute.name == "axis" and node.op_type == "Concat" and attribute.i < 0:
                attribute.i += len(values.shape(inputs[0]))
        values.infer(own)
        module, taken = convert_node(own, values, self.frozen)
        target = self._kept_as(node, inputs)
        if target is not None:
            (values.constants if self.frozen else target).update(values.computed(own, module, taken))
        if target is None or (target is values.sized and not self.frozen):
            self._add_step(own, module, taken)

    def _check(self, node: Any, inputs: Sequence[str]) -> None:
        """Refuse numbers that cannot be, and arithmetic of bytes."""
        values = self.values
        for name, value in values.attributes(node).items():
            if isinstance(value, int) and abs(value) > _LARGEST_ATTRIBUTE:  # axes, groups and counts are no such
                raise values.error(node, f"has {name} = {value}, which cannot be")
        of_bytes = [key for key in inputs if key in values.types and values.types[key].tensor_type.elem_type == UINT8]
        if node.op_type not in MOVING and any(key not in values.constants for key in of_bytes):
            raise values.error(
                node, "reckons with bytes, which has no slope: export the network with a Cast to numbers before it"
            )

    def _kept_as(self, node: Any, inputs: Sequence[str]) -> dict[str, Tensor] | None:
        """Among which values those of a node belong, if they are known beforehand."""
        constants, sized = self.values.constants, self.values.sized
        if node.op_type in ("Shape", "Size") and inputs[0] not in constants:
            return sized
        if all(key in constants for key in inputs if key):
            return constants
        return sized if all(key in constants or key in sized for key in inputs if key) else None

    def _add_step(self, node: Any, module: nn.Module, inputs: list[str]) -> None:
        if isinstance(module, nn.Sequential) and len(module) == 2:  # a padding, and what is padded
            between = f"{node.output[0]}/padded"
            padding = self.values.onnx.helper.make_node("Pad", inputs, [between], f"{title(node)}/Pad")
            self.steps.append(GraphStep(padding, module[0], inputs, [between]))
            module, inputs = module[1], [between]
        self.steps.append(GraphStep(node, module, inputs, list(node.output)))

    def outputs(self, wanted: Sequence[str]) -> tuple[dict[str, str], str]:
        """The values to give, by what they are called, the logits first, and what is to be said of them.

        The logits are what has a row of numbers for an image, by its name the likeliest.
        """
        values = {name: self.aliases.get(name, name) for name in wanted}
        kinds = {
            name: self.values.types[key].tensor_type.elem_type
            for name, key in values.items()
            if key in self.values.types
        }
        floats = {name: values[name] for name, kind in kinds.items() if kind in (1, 10, 11, 16)}
        if not floats:
            kind = self.values.onnx.TensorProto.DataType.Name(next(iter(kinds.values()), 0))
            raise InputError(
                f"{self.file} gives {kind} only, which has no slope: export the network up to the classes' logits"
            )
        moving = {name: key for name, key in floats.items() if key not in self.values.constants} or floats
        ordered = dict(sorted(moving.items(), key=lambda entry: (not self._is_row(entry[1]), output_rank(entry[0]))))
        first, value = next(iter(ordered.items()))
        others = [output.name for output in self.model.graph.output if output.name != first][:3]
        note = ""
        if others:
            note = f"has several outputs: {first!r} is taken for that of the classes, not {' or '.join(others)}"
        if not self._is_row(value):
            shape = "x".join(map(str, self.values.shape(value)[1:]))
            return ordered, f"gives {first!r} of {shape} for an image, and no classes: its layers can be shown"
        return ordered, note

    def _is_row(self, name: str) -> bool:
        """Whether it is a row of numbers for an image, or maps of one pixel."""
        shape = self.values.shape(name)
        return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
