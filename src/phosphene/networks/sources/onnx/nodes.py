"""The nodes of an ONNX graph: which operators are read, and which nodes an output depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phosphene.errors import InputError

# What classifiers of images are made of, as far as onnx2pytorch agrees with onnxruntime on it.
ELEMENTWISE = (
    *("Abs", "Add", "Clip", "Div", "Erf", "Exp", "HardSigmoid", "Log", "Max", "Min", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"),
)
_OPERATORS = {
    *ELEMENTWISE,
    *("And", "Attention", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Celu", "Concat", "Constant"),
    *("ConstantOfShape", "Conv", "ConvTranspose", "Cos", "DepthToSpace", "Dropout", "Einsum", "Elu", "Equal"),
    *("Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool"),
    *("GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSwish", "Identity"),
    *("InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LogSoftmax"),
    *("LpNormalization", "MatMul", "MaxPool", "Mean", "Mish", "Mod", "Not", "Or", "PRelu", "Pad"),
    *("RMSNormalization", "Range", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare", "Reshape", "Resize", "RotaryEmbedding", "Round", "ScatterND", "Selu"),
    *("Shape", "Sign", "Sin", "Size", "Slice", "Softmax", "Softsign", "SpaceToDepth", "Split", "Squeeze", "Sum"),
    *("Swish", "Tile", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where"),
}
# Which only move numbers: they are no layers.
MOVING = {
    *("Cast", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Range"),
    *("Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
# Whose inputs from the second on are learnt: they become the parameters of a module.
LEARNED = {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization"}


def title(node: Any) -> str:
    """What a node is called, for messages."""
    return node.name or next(iter(node.output), "")


def with_inputs(node: Any, inputs: Sequence[str]) -> Any:
    """A copy of a node with other inputs."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    return copy


# From the outputs back to the nodes

_NAMES = ("logit", "output", "out", "prob", "score", "class")  # of outputs, the likeliest to be the classes' first
_MOST_OUTPUTS = 32
_MOST_ALONE = 4  # outputs that are tried alone


def output_plans(model: Any, name: str) -> list[list[str]]:
    """Which outputs to have, in the order to try: all that need no unknown operator, then the likeliest alone."""
    outputs = [value.name for value in model.graph.output][:_MOST_OUTPUTS]
    if not outputs:
        raise InputError(f"{name} has no output")
    refused: InputError | None = None
    known = []
    for output in outputs:
        odd = next((node for node in nodes_behind(model, [output]) if not is_known(node)), None)
        if odd is None:
            known.append(output)
        else:
            refused = refused or unknown_operator(odd, name)
    if not known:
        assert refused is not None
        raise refused
    known.sort(key=output_rank)
    return [known, *([output] for output in known[:_MOST_ALONE] if len(known) > 1)]


def output_rank(output: str) -> int:
    """How likely, by its name, an output is to be the classes'."""
    lowered = output.lower()
    return next((rank for rank, word in enumerate(_NAMES) if lowered.startswith(word)), len(_NAMES))


def is_known(node: Any) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _OPERATORS


def unknown_operator(node: Any, name: str) -> InputError:
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    advice = f"export the network without it, up to {node.input[0]!r}" if len(node.input) else "export it without"
    if "Quantize" in operator or operator.startswith("QLinear"):
        advice = "export the network before it is quantized"
    return InputError(
        f"{name}: node {title(node)!r} is a {operator}, which is not among the operators that are read; {advice}"
    )


def nodes_behind(model: Any, outputs: Sequence[str]) -> list[Any]:
    """The nodes that outputs depend on, in their order."""
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]
