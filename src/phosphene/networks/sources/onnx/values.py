"""What is known of the values of an ONNX graph before it is run: types, shapes, and those that depend on no image.

ONNX's own shape inference says what each node would return for one image, which bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.networks.sources.onnx.image_input import ImageInput
from phosphene.networks.sources.onnx.nodes import title

_LARGEST_SHARE = 160  # of what a node takes to the image, in numbers: attention over patches of 8 pixels takes 144
_LARGEST_SUM = 2**31  # numbers in all nodes' outputs for one image
_SMALLEST_LIMIT = 2**22
_SHOWN_DATA = 1024  # numbers of a constant that shape inference is told


class GraphValues:
    """The values of a graph, by name, for one image of the usual size.

    Args:
        model: the file's.
        images: the input.
        file: what to call it in messages.

    Attributes:
        opset: the version of ONNX's operators.
        types: ONNX's type and shape of each value.
        constants: values that depend on no image.
        sized: values that depend on the size of the images only, such as shapes.
    """

    def __init__(self, model: Any, images: ImageInput, file: str):
        self.onnx = require("onnx", extra="onnx")
        self.file = file
        self.opset = next((it.version for it in model.opset_import if it.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, Tensor] = {}
        self.sized: dict[str, Tensor] = {}
        self.types = {images.name: self.onnx.helper.make_tensor_type_proto(images.kind, images.shape)}
        self._limit, self._total = max(_SMALLEST_LIMIT, _LARGEST_SHARE * math.prod(images.shape)), 0
        for tensor in model.graph.initializer:
            self.keep(tensor.name, self._tensor(tensor, f"the weights {tensor.name!r}"))

    def keep(self, name: str, value: Tensor) -> None:
        """A constant."""
        self.constants[name] = value
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
        self.types[name] = self.onnx.helper.make_tensor_type_proto(kind, value.shape)

    def constant(self, node: Any) -> Tensor:
        values = {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if "value" in values:
            if values["value"].data_location == self.onnx.TensorProto.EXTERNAL:
                raise self.error(node, "has its value in another file, which is not read")
            return self._tensor(values["value"], f"node {title(node)!r}: its values")
        for name, kind in (("value_float", torch.float32), ("value_int", torch.int64)):
            for key in (name, f"{name}s"):
                if key in values:
                    return torch.tensor(values[key], dtype=kind)
        raise self.error(node, "has no numbers for a value")

    def infer(self, node: Any) -> None:
        """ONNX's own inference of what the node gives for one image; it is refused where that is too much."""
        onnx = self.onnx
        known = {key: self.constants.get(key, self.sized.get(key)) for key in node.input}
        data = {
            key: onnx.numpy_helper.from_array(value.numpy())
            for key, value in known.items()
            if value is not None and value.numel() <= _SHOWN_DATA
        }
        types = {key: self.types[key] for key in node.input if key in self.types}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[onnx.helper.make_opsetid("", self.opset)]
            )
        except Exception as error:
            raise self.error(node, f"does not fit its inputs: {first_line(error)}") from error
        if node.op_type in ("BatchNormalization", "GroupNormalization"):  # which it does not always know
            inferred = {node.output[0]: self.types[node.input[0]]}
        self.types.update(inferred)
        # Weights may be as many as they are in the file.
        limit = max(self._limit, sum(math.prod(self.shape(key)) for key in types))
        for name in dict.fromkeys([node.output[0], *inferred]):
            shape = self.shape(name, node)
            numbers = max(math.prod(shape), self._padded(node))
            self._total += numbers
            if min(shape, default=0) < 0:
                raise self.error(node, f"does not fit its inputs: it would give {shape}")
            if numbers > limit or self._total > _LARGEST_SUM:
                raise self.error(node, f"would take {numbers:,} numbers for one image, which is too many")

    def _padded(self, node: Any) -> int:
        """How many numbers a convolution's or pooling's input has with its padding."""
        attributes = self.attributes(node)
        if not attributes.keys() & {"pads", "auto_pad"} or node.op_type == "Pad":
            return 0
        shape = self.shape(node.input[0])
        sides = shape[2:]
        pads = list(attributes.get("pads", [0] * 2 * len(sides)))
        kernel = list(attributes.get("kernel_shape", self.shape(node.input[1])[2:] if len(node.input) > 1 else sides))
        dilations = list(attributes.get("dilations", [1] * len(sides)))
        if not len(pads) == 2 * len(sides) == 2 * len(kernel) == 2 * len(dilations) or min(*pads, *dilations) < 0:
            raise self.error(node, "has pads that do not fit its input")
        padded = (
            side + before + after + (extent - 1) * dilation
            for side, before, after, extent, dilation in zip(
                sides, pads[: len(sides)], pads[len(sides) :], kernel, dilations, strict=True
            )
        )
        return int(math.prod(shape[:2]) * math.prod(padded))

    def shape(self, name: str, node: Any = None) -> tuple[int, ...]:
        tensor = self.types[name].tensor_type if name in self.types else None
        dims = None if tensor is None or not tensor.HasField("shape") else list(tensor.shape.dim)
        if dims is None or not all(dim.HasField("dim_value") for dim in dims):
            if node is None:
                raise InputError(f"{self.file}: the shape of {name!r} is not known beforehand, so it is not run")
            raise self.error(node, "gives a shape that is not known beforehand, so it is not run")
        return tuple(dim.dim_value for dim in dims)

    def attributes(self, node: Any) -> dict[str, Any]:
        return {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def error(self, node: Any, problem: str) -> InputError:
        return InputError(f"{self.file}: node {title(node)!r} ({node.op_type}) {problem}".rstrip("."))

    def computed(self, node: Any, module: nn.Module, inputs: Sequence[str]) -> dict[str, Tensor]:
        """What a node returns, of which the inputs are known."""
        try:
            with torch.no_grad():
                result = module(*(self._value(key) for key in inputs))
        except Exception as error:
            raise self.error(node, f"cannot be computed: {first_line(error)}") from error
        return dict(zip(node.output, result if isinstance(result, tuple | list) else (result,), strict=False))

    def _value(self, key: str) -> Tensor | None:
        if not key:
            return None
        known = self.constants.get(key, self.sized.get(key))
        return torch.empty(self.shape(key)) if known is None else known  # only its shape is asked for

    def _tensor(self, proto: Any, what: str) -> Tensor:
        try:
            return torch.tensor(self.onnx.numpy_helper.to_array(proto))
        except Exception as error:  # of a damaged tensor's many, in ONNX's code
            raise InputError(f"{self.file}: {what} are of a kind that is not read ({first_line(error)})") from error
