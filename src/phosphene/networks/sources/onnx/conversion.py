"""A node of an ONNX graph as a torch module: ours where there is one, otherwise onnx2pytorch's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.networks.sources.modules import Concat
from phosphene.networks.sources.onnx.nodes import LEARNED, with_inputs
from phosphene.networks.sources.onnx.operators import convert_operator
from phosphene.networks.sources.onnx.values import GraphValues


class Standardization(nn.Module):
    """Batch normalization by what it is given, which exporters use to standardize weights."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, weights: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(weights, None, None, scale, bias, training=True, eps=self.epsilon)


class Pick(nn.Module):
    """Numbers picked from those of one image, laid out in a row (`size` of them), for each image of a batch."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, numbers: Tensor, indices: Tensor) -> Tensor:
        return numbers.reshape(-1, self.size)[:, indices[0]]


def convert_node(node: Any, values: GraphValues, frozen: bool) -> tuple[nn.Module, list[str]]:
    """The node as a module, and the values that it is called with."""
    attributes = values.attributes(node)
    if node.op_type == "Concat":
        return Concat(attributes["axis"]), list(node.input)
    if node.op_type == "Tanh":
        return nn.Tanh(), list(node.input)
    # Before opset 14 more than one output was what said so.
    if node.op_type == "BatchNormalization" and (attributes.get("training_mode") or len(node.output) > 1):
        if not all(key in values.constants for key in node.input):
            raise values.error(node, "is in training mode: export the network in evaluation mode")
        return Standardization(attributes.get("epsilon", 1e-5)), list(node.input[:3])
    if frozen and node.op_type == "Gather" and not attributes.get("axis"):
        picked, (size, *more) = values.constants.get(node.input[1]), values.shape(node.input[0])
        if picked is not None and picked.ndim > 1 and len(picked) == 1 and not more:
            return Pick(size), list(node.input)
    known = {index: values.constants[key] for index, key in enumerate(node.input) if key in values.constants}
    try:
        own = convert_operator(node, attributes, values.opset, known)
    except InputError as error:
        raise values.error(node, str(error)) from error
    if own is not None:
        return own
    baked = _baked_inputs(node, values, frozen)
    module = _by_onnx2pytorch(node, baked, values)
    inputs = [key for index, key in enumerate(node.input) if index not in baked]
    if node.op_type == "MaxPool":
        for part in module.modules():
            if isinstance(part, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
                part.return_indices = False
    if node.op_type == "BatchNormalization":
        module = _plain_batch_norm(module, len(values.shape(node.input[0])))
    if node.op_type == "LayerNormalization" and all(key in values.constants for key in node.input[1:]):
        return _plain_layer_norm(node, attributes, values), inputs[:1]
    return module, inputs


def _baked_inputs(node: Any, values: GraphValues, frozen: bool) -> dict[int, Tensor]:
    """Those inputs, by index, that become part of the module."""
    known = {index: values.constants.get(key) for index, key in enumerate(node.input)}
    if node.op_type in LEARNED:
        baked = {index: value for index, value in known.items() if index and value is not None}
        if len(baked) != len([key for key in node.input[1:] if key]):
            raise values.error(node, "has weights that are not in the file but computed: this is not read")
        if node.op_type == "Gemm" and len(baked) > 1:  # a bias may be a row
            baked[2] = baked[2].flatten().expand(values.shape(node.output[0])[1])
        kernel = values.attributes(node).get("kernel_shape")
        if kernel is not None and tuple(kernel) != tuple(baked[1].shape[2:]):
            raise values.error(node, f"has a kernel of {kernel} and weights of {tuple(baked[1].shape)}")
        return baked
    if node.op_type == "MatMul" and known[0] is None and known[1] is not None and known[1].ndim == 2:
        return {1: known[1]}
    if node.op_type == "Reshape" and len(node.input) > 1:
        shape = values.constants.get(node.input[1])
        if frozen:
            shape = torch.tensor([-1, *values.shape(node.output[0])[1:]])
        if shape is not None:
            return {1: shape}
    return {}


def _by_onnx2pytorch(node: Any, baked: Mapping[int, Tensor], values: GraphValues) -> nn.Module:
    helper = values.onnx.helper
    own = with_inputs(node, [f"x{index}" if key else "" for index, key in enumerate(node.input)])
    own.output[:] = [f"y{index}" for index in range(len(node.output))]
    kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
    del own.attribute[:]
    own.attribute.extend(kept)
    weights = [values.onnx.numpy_helper.from_array(value.numpy(), f"x{index}") for index, value in baked.items()]
    inputs = [
        helper.make_tensor_value_info(name, values.types[key].tensor_type.elem_type, None)
        for index, (name, key) in enumerate(zip(own.input, node.input, strict=True))
        if key and index not in baked
    ]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in own.output]
    model = helper.make_model(
        helper.make_graph([own], "node", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", values.opset)],
    )
    try:
        # Modules draw their first weights at random: the caller's random numbers stay as they are.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("error", module="onnx2pytorch")
            converted = require("onnx2pytorch", extra="onnx").ConvertModel(model, experimental=True)
    except Exception as error:
        raise values.error(node, f"cannot be had in torch: {first_line(error)}") from error
    return getattr(converted, converted.mapping["y0"])  # type: ignore[no-any-return]


def _plain_layer_norm(node: Any, attributes: Mapping[str, Any], values: GraphValues) -> nn.Module:
    shape = values.shape(node.input[0])
    axis = attributes.get("axis", -1)
    with torch.random.fork_rng(devices=[]):
        norm = nn.LayerNorm(shape[axis:], attributes.get("epsilon", 1e-5), bias=len(node.input) > 2)
    norm.weight = nn.Parameter(values.constants[node.input[1]].expand(shape[axis:]).clone())
    if len(node.input) > 2:
        norm.bias = nn.Parameter(values.constants[node.input[2]].expand(shape[axis:]).clone())
    return norm


def _plain_batch_norm(wrapper: Any, rank: int) -> nn.Module:
    """torch's own, which is called as it is in any network; onnx2pytorch wraps it."""
    inner = wrapper.bnu
    if rank != 4:
        return inner  # type: ignore[no-any-return]
    norm = nn.BatchNorm2d(inner.num_features, inner.eps)
    norm.load_state_dict(inner.state_dict())
    return norm
