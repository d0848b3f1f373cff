"""Networks from `.onnx` files: each node becomes a torch module of onnx2pytorch's, and the file is bounded by shape.

A file is walked once, node by node, before anything of it is run: ONNX's own shape inference says what each node
would give for one image, which bounds it; what depends on no image is computed then and there.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.files import check_file, is_file
from phosphene.networks.labels import assumed_labels
from phosphene.networks.network import Network
from phosphene.networks.outputs import logits
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.onnx.operators import convert_operator

# What classifiers of images are made of, as far as onnx2pytorch agrees with onnxruntime on it.
_ELEMENTWISE = (
    *("Abs", "Add", "Clip", "Div", "Erf", "Exp", "HardSigmoid", "Log", "Max", "Min", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"),
)
_OPERATORS = {
    *_ELEMENTWISE,
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
_MOVING = {
    *("Cast", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Range"),
    *("Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
# Whose inputs from the second on are learnt: they become the parameters of a module.
_LEARNED = {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization"}

_SIDES = (224, 256, 384, 299, 240, 288, 192, 160, 128, 96, 64, 32)  # pixels, tried in turn where none are said
_LARGEST_FILE = 2**31  # bytes; protobuf reads no more
_MOST_NODES = 20_000  # a vision transformer of 48 blocks, exported node by node, has a third of it
_LARGEST_SIDE = 4096  # pixels
_LARGEST_SHARE = 160  # of what a node takes to the image, in numbers: attention over patches of 8 pixels takes 144
_LARGEST_SUM = 2**31  # numbers in all nodes' outputs for one image
_SMALLEST_LIMIT = 2**22
_LARGEST_ATTRIBUTE = 2**20
_SHOWN_DATA = 1024  # numbers of a constant that shape inference is told


def open_onnx(path: str | Path) -> Network:
    """The network of an ONNX file: one input, a batch of images, channels first or last.

    Layers are called as the exporter called the modules or nodes.  Of several outputs that of the classes is taken,
    and the module gives all that are floating-point numbers, by name.  What the network eats is not in the file: see
    `notes`.

    Raises:
        InputError: the file is damaged or no ONNX, or has a node (named) that cannot be had in torch.
    """
    path = Path(path)
    require("onnx", extra="onnx", what=path.name)
    require("onnx2pytorch", extra="onnx", what=path.name)
    model = _read(path)
    images, module = _opened(model, path.name)
    fixed = not _takes(module, (images.height + 32, images.width + 32), images)
    fields = {"size": (images.height, images.width), "channels": images.channels, "fixed_size": fixed}
    usual = "byte" if images.of_bytes else "torch" if images.channels == 3 else "unit"
    preprocessing = Preprocessing.preset(usual, **fields)
    notes = {
        "preprocessing": (
            f"what {path.name} eats is not in the file: {preprocessing.describe()} is assumed; `phosphene doctor "
            f"--images DIR` finds out, and {path.stem}.toml beside it or --preprocessing says it"
        )
    }
    if images.of_bytes:
        notes["preprocessing"] = (
            f"{path.name} takes pixels of 8 bits: {preprocessing.describe()} is assumed; {path.stem}.toml beside it or "
            "--preprocessing says otherwise"
        )
    if module.output_note:
        notes["output"] = f"{path.name} {module.output_note}"
    labels = assumed_labels(module.classes)
    if labels is not None:
        notes["labels"] = f"what the outputs of {path.name} mean is not in the file: ImageNet's classes are assumed"
    first = next(iter(module.outputs))
    return Network(
        module, preprocessing, labels, path.stem, notes=notes, output=first if len(module.outputs) > 1 else None
    )


# Reading the file


def _read(path: Path) -> Any:
    """The file's model, checked, with the weights that lie in files beside it."""
    onnx = require("onnx", extra="onnx")
    check_file(path, f"ONNX file {str(path)!r}", _LARGEST_FILE)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and what else a parser in C++ may think of
        raise InputError(f"{path.name} cannot be read: it is damaged, or no ONNX file") from error
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise InputError(f"{path.name} has {len(graph.node):,} nodes: expected {_MOST_NODES:,} at most")
    names = [text for node in graph.node for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    names += [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    if not all(isinstance(name, str) for name in names):  # protobuf gives bytes that are no UTF-8 as they are
        raise InputError(f"{path.name} cannot be read: it is damaged, since one of its names is no text")
    # Before the checker, which only looks for the files, and before they are read.
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in outside:
        _check_outside(tensor, path)
    try:
        onnx.checker.check_model(str(path))
        if outside:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise InputError(f"{path.name} is no valid ONNX file: {_line(error)}") from error
    if model.functions or graph.sparse_initializer:
        what = "functions of its own" if model.functions else "sparse weights"
        raise InputError(f"{path.name} has {what}, which are not read: export it with operators and tensors only")
    return model


def _check_outside(tensor: Any, path: Path) -> None:
    """Refuse weights that would be read from elsewhere than the file's folder, or more of them than they are."""
    onnx = require("onnx", extra="onnx")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if folder not in file.parents:
        raise InputError(f"{path.name} has the weights {tensor.name!r} in {location!r}: expected a file beside it")
    if not is_file(file):
        raise InputError(f"{path.name} has the weights {tensor.name!r} in {location!r}, and there is no such file")
    try:
        size = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name} does not say where in {location!r} the weights {tensor.name!r} are") from error
    if length != size or min(*tensor.dims, offset, 0) < 0 or offset + size > file.stat().st_size:
        raise InputError(f"{location!r}, with weights of {path.name}, is truncated or of another network")
    if "length" not in entries:
        tensor.external_data.add(key="length", value=str(size))


_UINT8 = 2  # TensorProto.UINT8
_FED = {1: torch.float32, _UINT8: torch.float32, 10: torch.float16}  # by TensorProto's FLOAT, UINT8, FLOAT16


@dataclass(frozen=True)
class _ImageInput:
    """The input of a graph: one image of it."""

    name: str
    channels: int
    height: int
    width: int
    channels_last: bool
    sized: bool  # whether the file says the height and the width
    kind: int  # ONNX's number of the type
    dtype: torch.dtype  # as which they are fed; pixels of 8 bits as floating-point numbers too

    @property
    def of_bytes(self) -> bool:
        return self.kind == _UINT8

    @property
    def shape(self) -> tuple[int, int, int, int]:
        if self.channels_last:
            return (1, self.height, self.width, self.channels)
        return (1, self.channels, self.height, self.width)


def _images(model: Any, name: str, side: int) -> _ImageInput:
    """The input, of which sides that the file does not say are taken for `side` pixels."""
    onnx = require("onnx", extra="onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InputError(f"{name} has {len(inputs)} inputs: expected one, of images")
    tensor = inputs[0].type.tensor_type
    # Some exporters write -1 for a size that is free.
    free = [not dim.HasField("dim_value") or dim.dim_value == -1 for dim in tensor.shape.dim]
    dims = [None if is_free else dim.dim_value for is_free, dim in zip(free, tensor.shape.dim, strict=True)]
    shown = f"{'x'.join('?' if dim is None else str(dim) for dim in dims)}"
    if len(dims) != 4 or tensor.elem_type not in _FED:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in range(1, 24) else "unknown"
        raise InputError(
            f"{name} takes {shown or 'a number'} ({kind}): expected images, as a batch x channels x height x width of "
            "floating-point numbers of 32 or 16 bits or of bytes, or with the channels last"
        )
    channels_last = _is_channels_last(dims)
    sides = dims[1:3] if channels_last else dims[2:]
    channels = dims[3] if channels_last else dims[1]
    height, width = (side if known is None else known for known in sides)
    channels = 3 if channels is None else channels
    if not (min(height, width) > 0 and max(height, width) <= _LARGEST_SIDE and 0 < channels <= _LARGEST_SIDE):
        raise InputError(f"{name} takes {shown}: expected images of 1 to {_LARGEST_SIDE} pixels a side")
    kind = tensor.elem_type
    return _ImageInput(inputs[0].name, channels, height, width, channels_last, None not in sides, kind, _FED[kind])


def _is_channels_last(dims: Sequence[int | None]) -> bool:
    """Whether the last axis has the channels, of which there are 1, 3 or 4, or else what the height is not."""
    for axis in (1, 3):
        if dims[axis] in (1, 3, 4):
            return axis == 3
    return dims[1] == dims[2] != dims[3] and None not in dims[1:]


# The network in torch


@dataclass
class _GraphStep:
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
        images: _ImageInput,
        steps: Sequence[_GraphStep],
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
            if step.node.op_type in _MOVING and not step.module.state_dict():
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


class Concat(nn.Module):
    """Concatenation; what is the same for all rows, such as a class token, is repeated for each."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        if self.axis not in (0, -tensors[0].ndim):
            rows = max(len(tensor) for tensor in tensors)
            tensors = tuple(tensor.expand(rows, *tensor.shape[1:]) for tensor in tensors)
        return torch.cat(tensors, self.axis)


class Standardization(nn.Module):
    """Batch normalisation by what it is given, which exporters use to standardise weights."""

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


def _opened(model: Any, name: str) -> tuple[_ImageInput, OnnxGraph]:
    """The images that a network takes, and the network; where the file says no size, of the first usual one."""
    problems = []
    for side in _SIDES:
        images = _images(model, name, side)
        try:
            return images, _module(model, images, name)
        except InputError as error:
            problems.append(error)
            if images.sized:
                break
    raise problems[0]


def _module(model: Any, images: _ImageInput, name: str) -> OnnxGraph:
    """The graph in torch, for any number of images at a time.

    Many exporters write the batch's size, mostly 1, into the shapes of a graph.  Then all that is known for one
    image of this size is taken as fixed, and the first axis of every reshape left open.
    """
    graph = _walked(model, images, name, frozen=False)
    problem = _problem(graph, images)
    if problem:
        frozen = _walked(model, images, name, frozen=True)
        problem = _problem(frozen, images) and problem
        graph = frozen
    if problem:
        raise InputError(f"{name} cannot be run: {problem}")
    return graph


def _problem(graph: OnnxGraph, images: _ImageInput) -> str:
    """What is wrong with a graph: a node that fails, or rows that are not independent; empty if nothing is."""
    generator = torch.Generator().manual_seed(0)
    two = torch.randn(2, images.channels, images.height, images.width, generator=generator)
    one, problem = _run(graph, two[1:])
    if problem:
        return problem
    assert one is not None
    if one.ndim < 2 or len(one) != 1 or not one.is_floating_point():
        return f"one image gives {tuple(one.shape)}: expected (1, classes), or maps of one row"
    graph.classes = one.shape[1] if one.ndim == 2 else 0
    both, problem = _run(graph, two)
    if problem:
        return f"it takes one image at a time, and two fail ({problem}): export it with a dynamic batch"
    assert both is not None
    tolerance = 1e-3 if one.dtype == torch.float32 else 1e-2
    scale = one[one.isfinite()].abs().max().item() if one.isfinite().any() else 0.0
    near = both.shape[1:] == one.shape[1:] and torch.allclose(
        both[1:], one, tolerance, tolerance * scale, equal_nan=True
    )
    if len(both) != 2 or not near:
        return "what it gives for an image depends on the others of a batch: export it with a dynamic batch"
    return ""


def _takes(graph: OnnxGraph, size: tuple[int, int], images: _ImageInput) -> bool:
    try:
        result, problem = _run(graph, torch.zeros(1, images.channels, *size))
    except InputError:
        return False
    if problem or result is None:
        return False
    return result.shape == (1, graph.classes) if graph.classes else result.ndim > 2


def _run(graph: OnnxGraph, images: Tensor) -> tuple[Tensor | None, str]:
    """The logits, or what failed where."""
    running = [""]
    hooks = [
        graph.part(name).register_forward_pre_hook(lambda *_, name=name: running.append(name)) for name in graph.parts()
    ]
    try:
        with torch.no_grad():
            return logits(graph.eval()(images)), ""
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise InputError(f"node {running[-1]!r} needs more memory than there is") from error
        return None, f"node {running[-1]!r} fails: {_line(error)}"
    finally:
        for hook in hooks:
            hook.remove()


# From nodes to steps


def _walked(model: Any, images: _ImageInput, name: str, frozen: bool) -> OnnxGraph:
    """The graph of all outputs that can be read; where not all can be had at once, of the first that can alone."""
    plans = _plans(model, name)
    problems = []
    for outputs in plans:
        try:
            return _walked_to(model, images, name, frozen, outputs)
        except InputError as error:
            problems.append(error)
    raise problems[0]


def _walked_to(model: Any, images: _ImageInput, name: str, frozen: bool, wanted: Sequence[str]) -> OnnxGraph:
    walk = _GraphBuilder(model, images, name, frozen)
    for node in _behind_outputs(model, wanted):
        try:
            walk.take(node)
        except InputError:
            raise
        except Exception as error:  # of a damaged node's many, in ONNX's or onnx2pytorch's code
            raise InputError(f"{name}: node {_title(node)!r} ({node.op_type}) is not read: {_line(error)}") from error
    outputs, note = walk.outputs(wanted)
    ends = list(dict.fromkeys(outputs.values()))
    steps = _with_biases(_used(walk.steps, ends), walk.constants, ends)
    steps = _used(_with_activations(steps, walk.constants), ends)
    if not steps:
        raise InputError(f"{name} gives the same for every image: expected a network")
    for step, own in zip(steps, _names(steps), strict=True):
        step.name = own
    return OnnxGraph(images, steps, walk.constants, outputs, note)


_NAMES = ("logit", "output", "out", "prob", "score", "class")  # of outputs, the likeliest to be the classes' first
_MOST_OUTPUTS = 32
_MOST_ALONE = 4  # outputs that are tried alone


def _plans(model: Any, name: str) -> list[list[str]]:
    """Which outputs to have, in the order to try: all that need no unknown operator, then the likeliest alone."""
    outputs = [value.name for value in model.graph.output][:_MOST_OUTPUTS]
    if not outputs:
        raise InputError(f"{name} has no output")
    refused: InputError | None = None
    known = []
    for output in outputs:
        odd = next((node for node in _behind_outputs(model, [output]) if not _is_known(node)), None)
        if odd is None:
            known.append(output)
        else:
            refused = refused or _unknown(odd, name)
    if not known:
        assert refused is not None
        raise refused
    known.sort(key=_rank)
    return [known, *([output] for output in known[:_MOST_ALONE] if len(known) > 1)]


def _rank(output: str) -> int:
    """How likely, by its name, an output is to be the classes'."""
    lowered = output.lower()
    return next((rank for rank, word in enumerate(_NAMES) if lowered.startswith(word)), len(_NAMES))


def _is_known(node: Any) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _OPERATORS


def _unknown(node: Any, name: str) -> InputError:
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    advice = f"export the network without it, up to {node.input[0]!r}" if len(node.input) else "export it without"
    if "Quantize" in operator or operator.startswith("QLinear"):
        advice = "export the network before it is quantized"
    return InputError(
        f"{name}: node {_title(node)!r} is a {operator}, which is not among the operators that are read; {advice}"
    )


def _behind_outputs(model: Any, outputs: Sequence[str]) -> list[Any]:
    """The nodes that outputs depend on, in their order."""
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


@dataclass
class _GraphBuilder:
    """A pass over the nodes in their order, with all that is known of each value for one image of the usual size.

    Attributes:
        frozen: take what is known for one image of this size for constant.
        aliases: names of values that are the same as others.
        types: ONNX's type and shape of each value.
        constants: values that depend on no image.
        sized: values that depend on the size of the images only, such as shapes.
    """

    model: Any
    images: _ImageInput
    file: str
    frozen: bool
    steps: list[_GraphStep] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    types: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    sized: dict[str, Tensor] = field(default_factory=dict)
    total: int = 0

    def __post_init__(self) -> None:
        self.onnx = require("onnx", extra="onnx")
        self.opset = next((it.version for it in self.model.opset_import if it.domain in ("", "ai.onnx")), 1)
        self.limit = max(_SMALLEST_LIMIT, _LARGEST_SHARE * math.prod(self.images.shape))
        self.types[self.images.name] = self.onnx.helper.make_tensor_type_proto(self.images.kind, self.images.shape)
        for tensor in self.model.graph.initializer:
            self._keep(tensor.name, self._tensor(tensor, f"the weights {tensor.name!r}"))

    def outputs(self, wanted: Sequence[str]) -> tuple[dict[str, str], str]:
        """The values to give, by what they are called, the logits first, and what is to be said of them.

        The logits are what has a row of numbers for an image, by its name the likeliest.
        """
        values = {name: self.aliases.get(name, name) for name in wanted}
        kinds = {name: self.types[key].tensor_type.elem_type for name, key in values.items() if key in self.types}
        floats = {name: values[name] for name, kind in kinds.items() if kind in (1, 10, 11, 16)}
        if not floats:
            kind = self.onnx.TensorProto.DataType.Name(next(iter(kinds.values()), 0))
            raise InputError(
                f"{self.file} gives {kind} only, which has no slope: export the network up to the classes' logits"
            )
        moving = {name: key for name, key in floats.items() if key not in self.constants} or floats
        ordered = dict(sorted(moving.items(), key=lambda entry: (not self._is_row(entry[1]), _rank(entry[0]))))
        first, value = next(iter(ordered.items()))
        others = [output.name for output in self.model.graph.output if output.name != first][:3]
        note = ""
        if others:
            note = f"has several outputs: {first!r} is taken for that of the classes, not {' or '.join(others)}"
        if not self._is_row(value):
            shape = "x".join(map(str, self._shape(value)[1:]))
            return ordered, f"gives {first!r} of {shape} for an image, and no classes: its layers can be shown"
        return ordered, note

    def _is_row(self, name: str) -> bool:
        """Whether it is a row of numbers for an image, or maps of one pixel."""
        shape = self._shape(name)
        return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))

    def take(self, node: Any) -> None:
        if not _is_known(node):
            raise _unknown(node, self.file)
        inputs = [self.aliases.get(key, key) for key in node.input]
        if node.op_type in ("Identity", "Dropout"):
            self.aliases[node.output[0]] = inputs[0]
            return
        if node.op_type == "Constant":
            self._keep(node.output[0], self._constant(node))
            return
        for name, value in self._attributes(node).items():
            if isinstance(value, int) and abs(value) > _LARGEST_ATTRIBUTE:  # axes, groups and counts are no such
                raise self._error(node, f"has {name} = {value}, which cannot be")
        bytes_ = [key for key in inputs if key in self.types and self.types[key].tensor_type.elem_type == _UINT8]
        if node.op_type not in _MOVING and any(key not in self.constants for key in bytes_):
            raise self._error(
                node, "reckons with bytes, which has no slope: export the network with a Cast to numbers before it"
            )
        own = _copied(node, inputs)
        for attribute in own.attribute:  # inference for old opsets takes no axis from the end
            if attribute.name == "axis" and node.op_type == "Concat" and attribute.i < 0:
                attribute.i += len(self._shape(inputs[0]))
        self._infer(own)
        module, taken = self._converted(own)
        if node.op_type in ("Shape", "Size") and inputs[0] not in self.constants:
            (target, known) = (self.sized, True)
        else:
            known = all(key in self.constants or key in self.sized for key in inputs if key)
            target = self.constants if all(key in self.constants for key in inputs if key) else self.sized
        if known:
            outputs = self._computed(own, module, taken)
            (self.constants if self.frozen else target).update(outputs)
        if not known or (target is self.sized and not self.frozen):
            if isinstance(module, nn.Sequential) and len(module) == 2:  # a padding, and what is padded
                between = f"{node.output[0]}/padded"
                padding = self.onnx.helper.make_node("Pad", taken, [between], f"{_title(node)}/Pad")
                self.steps.append(_GraphStep(padding, module[0], taken, [between]))
                module, taken = module[1], [between]
            self.steps.append(_GraphStep(own, module, taken, list(node.output)))

    def _computed(self, node: Any, module: nn.Module, inputs: Sequence[str]) -> dict[str, Tensor]:
        values = [self._value(key) for key in inputs]
        try:
            with torch.no_grad():
                result = module(*values)
        except Exception as error:
            raise self._error(node, f"cannot be computed: {_line(error)}") from error
        return dict(zip(node.output, result if isinstance(result, tuple | list) else (result,), strict=False))

    def _value(self, key: str) -> Tensor | None:
        if not key:
            return None
        known = self.constants.get(key, self.sized.get(key))
        return torch.empty(self._shape(key)) if known is None else known  # only its shape is asked for

    def _keep(self, name: str, value: Tensor) -> None:
        self.constants[name] = value
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
        self.types[name] = self.onnx.helper.make_tensor_type_proto(kind, value.shape)

    def _tensor(self, proto: Any, what: str) -> Tensor:
        try:
            return torch.tensor(self.onnx.numpy_helper.to_array(proto))
        except Exception as error:  # of a damaged tensor's many, in ONNX's code
            raise InputError(f"{self.file}: {what} are of a kind that is not read ({_line(error)})") from error

    def _constant(self, node: Any) -> Tensor:
        values = {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if "value" in values:
            if values["value"].data_location == self.onnx.TensorProto.EXTERNAL:
                raise self._error(node, "has its value in another file, which is not read")
            return self._tensor(values["value"], f"node {_title(node)!r}: its values")
        for name, kind in (("value_float", torch.float32), ("value_int", torch.int64)):
            for key in (name, f"{name}s"):
                if key in values:
                    return torch.tensor(values[key], dtype=kind)
        raise self._error(node, "has no numbers for a value")

    def _infer(self, node: Any) -> None:
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
            raise self._error(node, f"does not fit its inputs: {_line(error)}") from error
        if node.op_type in ("BatchNormalization", "GroupNormalization"):  # which it does not always know
            inferred = {node.output[0]: self.types[node.input[0]]}
        self.types.update(inferred)
        # Weights may be as many as they are in the file.
        limit = max(self.limit, sum(math.prod(self._shape(key)) for key in types))
        for name in dict.fromkeys([node.output[0], *inferred]):
            shape = self._shape(name, node)
            numbers = max(math.prod(shape), self._padded(node))
            self.total += numbers
            if min(shape, default=0) < 0:
                raise self._error(node, f"does not fit its inputs: it would give {shape}")
            if numbers > limit or self.total > _LARGEST_SUM:
                raise self._error(node, f"would take {numbers:,} numbers for one image, which is too many")

    def _padded(self, node: Any) -> int:
        """How many numbers a convolution's or pooling's input has with its padding."""
        attributes = self._attributes(node)
        if not attributes.keys() & {"pads", "auto_pad"} or node.op_type == "Pad":
            return 0
        shape = self._shape(node.input[0])
        sides = shape[2:]
        pads = list(attributes.get("pads", [0] * 2 * len(sides)))
        kernel = list(attributes.get("kernel_shape", self._shape(node.input[1])[2:] if len(node.input) > 1 else sides))
        dilations = list(attributes.get("dilations", [1] * len(sides)))
        if not len(pads) == 2 * len(sides) == 2 * len(kernel) == 2 * len(dilations) or min(*pads, *dilations) < 0:
            raise self._error(node, "has pads that do not fit its input")
        padded = (
            side + before + after + (extent - 1) * dilation
            for side, before, after, extent, dilation in zip(
                sides, pads[: len(sides)], pads[len(sides) :], kernel, dilations, strict=True
            )
        )
        return int(math.prod(shape[:2]) * math.prod(padded))

    def _shape(self, name: str, node: Any = None) -> tuple[int, ...]:
        tensor = self.types[name].tensor_type if name in self.types else None
        dims = None if tensor is None or not tensor.HasField("shape") else list(tensor.shape.dim)
        if dims is None or not all(dim.HasField("dim_value") for dim in dims):
            if node is None:
                raise InputError(f"{self.file}: the shape of {name!r} is not known beforehand, so it is not run")
            raise self._error(node, "gives a shape that is not known beforehand, so it is not run")
        return tuple(dim.dim_value for dim in dims)

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def _error(self, node: Any, problem: str) -> InputError:
        return InputError(f"{self.file}: node {_title(node)!r} ({node.op_type}) {problem}")

    def _converted(self, node: Any) -> tuple[nn.Module, list[str]]:
        """The node as a module, and the values that it is called with."""
        attributes = self._attributes(node)
        if node.op_type == "Concat":
            return Concat(attributes["axis"]), list(node.input)
        if node.op_type == "Tanh":
            return nn.Tanh(), list(node.input)
        # Before opset 14 more than one output was what said so.
        if node.op_type == "BatchNormalization" and (attributes.get("training_mode") or len(node.output) > 1):
            if not all(key in self.constants for key in node.input):
                raise self._error(node, "is in training mode: export the network in evaluation mode")
            return Standardization(attributes.get("epsilon", 1e-5)), list(node.input[:3])
        if self.frozen and node.op_type == "Gather" and not attributes.get("axis"):
            picked, (size, *more) = self.constants.get(node.input[1]), self._shape(node.input[0])
            if picked is not None and picked.ndim > 1 and len(picked) == 1 and not more:
                return Pick(size), list(node.input)
        known = {index: self.constants[key] for index, key in enumerate(node.input) if key in self.constants}
        try:
            own = convert_operator(node, attributes, self.opset, known)
        except InputError as error:
            raise self._error(node, str(error)) from error
        if own is not None:
            return own
        baked = self._baked(node)
        module = self._by_onnx2pytorch(node, baked)
        inputs = [key for index, key in enumerate(node.input) if index not in baked]
        if node.op_type == "MaxPool":
            for part in module.modules():
                if isinstance(part, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
                    part.return_indices = False
        if node.op_type == "BatchNormalization":
            module = _plain_batch_norm(module, len(self._shape(node.input[0])))
        if node.op_type == "LayerNormalization" and all(key in self.constants for key in node.input[1:]):
            return self._plain_layer_norm(node, attributes), inputs[:1]
        return module, inputs

    def _baked(self, node: Any) -> dict[int, Tensor]:
        """Those inputs, by index, that become part of the module."""
        known = {index: self.constants.get(key) for index, key in enumerate(node.input)}
        if node.op_type in _LEARNED:
            baked = {index: value for index, value in known.items() if index and value is not None}
            if len(baked) != len([key for key in node.input[1:] if key]):
                raise self._error(node, "has weights that are not in the file but computed: this is not read")
            if node.op_type == "Gemm" and len(baked) > 1:  # a bias may be a row
                baked[2] = baked[2].flatten().expand(self._shape(node.output[0])[1])
            kernel = self._attributes(node).get("kernel_shape")
            if kernel is not None and tuple(kernel) != tuple(baked[1].shape[2:]):
                raise self._error(node, f"has a kernel of {kernel} and weights of {tuple(baked[1].shape)}")
            return baked
        if node.op_type == "MatMul" and known[0] is None and known[1] is not None and known[1].ndim == 2:
            return {1: known[1]}
        if node.op_type == "Reshape" and len(node.input) > 1:
            shape = self.constants.get(node.input[1])
            if self.frozen:
                shape = torch.tensor([-1, *self._shape(node.output[0])[1:]])
            if shape is not None:
                return {1: shape}
        return {}

    def _by_onnx2pytorch(self, node: Any, baked: Mapping[int, Tensor]) -> nn.Module:
        helper = self.onnx.helper
        own = _copied(node, [f"x{index}" if key else "" for index, key in enumerate(node.input)])
        own.output[:] = [f"y{index}" for index in range(len(node.output))]
        kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
        del own.attribute[:]
        own.attribute.extend(kept)
        weights = [self.onnx.numpy_helper.from_array(value.numpy(), f"x{index}") for index, value in baked.items()]
        inputs = [
            helper.make_tensor_value_info(name, self.types[key].tensor_type.elem_type, None)
            for index, (name, key) in enumerate(zip(own.input, node.input, strict=True))
            if key and index not in baked
        ]
        outputs = [helper.make_tensor_value_info(name, 1, None) for name in own.output]
        model = helper.make_model(
            helper.make_graph([own], "node", inputs, outputs, weights),
            opset_imports=[helper.make_opsetid("", self.opset)],
        )
        try:
            # Modules draw their first weights at random: the caller's random numbers stay as they are.
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.filterwarnings("error", module="onnx2pytorch")
                converted = require("onnx2pytorch", extra="onnx").ConvertModel(model, experimental=True)
        except Exception as error:
            raise self._error(node, f"cannot be had in torch: {_line(error)}") from error
        return getattr(converted, converted.mapping["y0"])  # type: ignore[no-any-return]

    def _plain_layer_norm(self, node: Any, attributes: Mapping[str, Any]) -> nn.Module:
        shape = self._shape(node.input[0])
        axis = attributes.get("axis", -1)
        with torch.random.fork_rng(devices=[]):
            norm = nn.LayerNorm(shape[axis:], attributes.get("epsilon", 1e-5), bias=len(node.input) > 2)
        norm.weight = nn.Parameter(self.constants[node.input[1]].expand(shape[axis:]).clone())
        if len(node.input) > 2:
            norm.bias = nn.Parameter(self.constants[node.input[2]].expand(shape[axis:]).clone())
        return norm


def _plain_batch_norm(wrapper: Any, rank: int) -> nn.Module:
    """torch's own, which is called as it is in any network; onnx2pytorch wraps it."""
    inner = wrapper.bnu
    if rank != 4:
        return inner  # type: ignore[no-any-return]
    norm = nn.BatchNorm2d(inner.num_features, inner.eps)
    norm.load_state_dict(inner.state_dict())
    return norm


def _copied(node: Any, inputs: Sequence[str]) -> Any:
    own = type(node)()
    own.CopyFrom(node)
    own.input[:] = inputs
    return own


def _used(steps: Sequence[_GraphStep], outputs: Sequence[str]) -> list[_GraphStep]:
    """The steps that the outputs depend on."""
    needed, used = set(outputs), list[_GraphStep]()
    for step in reversed(steps):
        if needed & set(step.outputs):
            needed |= set(step.inputs)
            used.append(step)
    return used[::-1]


def _with_biases(steps: list[_GraphStep], constants: Mapping[str, Tensor], outputs: Sequence[str]) -> list[_GraphStep]:
    """The steps with the bias put into the linear layer before it, where an exporter made two of one."""
    uses = Counter([*outputs, *(name for step in steps for name in step.inputs)])
    linear: dict[str, _GraphStep] = {}
    result = []
    for step in steps:
        if step.node.op_type == "MatMul" and isinstance(step.module, nn.Linear) and uses[step.outputs[0]] == 1:
            linear[step.outputs[0]] = step
        before = next((linear[name] for name in step.inputs if name in linear), None)
        bias = next((constants[name] for name in step.inputs if name in constants), None)
        if step.node.op_type == "Add" and before is not None and bias is not None:
            module = before.module
            assert isinstance(module, nn.Linear)
            if bias.shape == (module.out_features,):
                module.bias = nn.Parameter(bias)
                before.outputs = step.outputs
                continue
        result.append(step)
    return result


# Activations that an exporter took apart


def _activations() -> dict[str, nn.Module]:
    return {
        "relu": nn.ReLU(),
        "relu6": nn.ReLU6(),
        "silu": nn.SiLU(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU("tanh"),
        "quick_gelu": timm.layers.QuickGELU(),
        "hardswish": nn.Hardswish(),
        "mish": nn.Mish(),
    }


_LAST = {"Clip", "Div", "Max", "Min", "Mul"}  # the operators in which an activation that was taken apart ends
_REACH = 12  # steps


def _with_activations(steps: list[_GraphStep], constants: Mapping[str, Tensor]) -> list[_GraphStep]:
    """The steps with those put together that make up an activation, found by what they compute.

    `x * sigmoid(x)` is a SiLU, `clip(x, 0, 6)` a ReLU6, and so on; of the steps whose result is used elsewhere, or
    no longer at all, `_used` decides.
    """
    known = _activations()
    grid = torch.linspace(-9, 9, 73)
    curves = {name: module(grid) for name, module in known.items()}
    makers = {output: step for step in steps for output in step.outputs}
    result = []
    for step in steps:
        if step.node.op_type in _LAST:
            for value in _behind(step, makers, constants):
                region = _region(step, value, makers, constants)
                name = next(iter(_fitting(_curve(region, value, constants, grid), curves)), None) if region else None
                if name is not None:
                    step = replace(step, module=_activations()[name], inputs=[value])
                    break
        result.append(step)
    return result


def _behind(step: _GraphStep, makers: Mapping[str, _GraphStep], constants: Mapping[str, Tensor]) -> list[str]:
    """The values that a step may be a function of, the nearest first."""
    found = dict.fromkeys(name for name in step.inputs if name and name not in constants)
    for name in list(found):
        queue = [name]
        while queue and len(found) < _REACH:
            maker = makers.get(queue.pop(0))
            if maker is not None and maker.node.op_type in _ELEMENTWISE:
                fresh = [name for name in maker.inputs if name and name not in constants]
                found.update(dict.fromkeys(fresh))
                queue += fresh
    return list(found)


def _region(
    step: _GraphStep, value: str, makers: Mapping[str, _GraphStep], constants: Mapping[str, Tensor]
) -> list[_GraphStep] | None:
    """The elementwise steps from a value to a step, in their order; None if this depends on anything else."""
    region: list[_GraphStep] = []
    queue = [step]
    while queue:
        current = queue.pop()
        if current in region:
            region.remove(current)
        region.append(current)
        if current.node.op_type not in _ELEMENTWISE or len(region) > _REACH:
            return None
        for name in current.inputs:
            if name in constants:
                if constants[name].numel() != 1:
                    return None
            elif name and name != value:
                if name not in makers:
                    return None
                queue.append(makers[name])
    return region[::-1]


def _curve(region: list[_GraphStep], value: str, constants: Mapping[str, Tensor], grid: Tensor) -> Tensor | None:
    values = {**{name: constants[name] for step in region for name in step.inputs if name in constants}, value: grid}
    try:
        with torch.no_grad():
            for step in region:
                values[step.outputs[0]] = step.module(*(values[name] if name else None for name in step.inputs))
    except Exception:
        return None
    return values[region[-1].outputs[0]].flatten()


def _fitting(curve: Tensor | None, curves: Mapping[str, Tensor]) -> Iterator[str]:
    if curve is not None and curve.is_floating_point():
        for name, other in curves.items():
            if curve.shape == other.shape and torch.allclose(curve.float(), other, rtol=0, atol=2e-5):
                yield name


# Names


def _names(steps: Sequence[_GraphStep]) -> list[str]:
    """A name for each step: that of the module it was exported from, or of the node; unique, in dotted parts."""
    scopes = [_scope(step.node) for step in steps]
    counts = Counter(scope for scope, _ in scopes)
    parents = {scope[:depth] for scope in counts for depth in range(1, len(scope))}
    names: dict[tuple[str, ...], None] = {}
    for scope, operator in scopes:
        alone = scope and counts[scope] == 1 and scope not in parents
        name = first = scope if alone else (*scope, operator)
        number = 1
        while name in names or name in parents or (name in counts and not (alone and name == scope)):
            number += 1
            name = (*first[:-1], f"{first[-1]}_{number}")
        names[name] = None
    return [".".join(name) for name in names]


def _scope(node: Any) -> tuple[tuple[str, ...], str]:
    """The module that a node was exported from, as parts of its name, and what the node is in it."""
    metadata = {entry.key: entry.value for entry in getattr(node, "metadata_props", ())}
    scopes = re.findall(r"'([^']*)'", str(metadata.get("pkg.torch.onnx.name_scopes", "")))
    if scopes:  # torch's exporter
        weights = node.input[1] if node.op_type in ("Conv", "Gemm") and len(node.input) > 1 else ""
        if weights.endswith(".weight"):  # a batch norm may have been merged into it, and given it its scope
            return _parts(weights.removesuffix(".weight")), node.op_type
        inside = scopes[-2] if len(scopes) > 1 else ""
        return _parts("" if inside.startswith("_empty") else inside), node.op_type
    parts = [part for part in _title(node).split("/") if part]
    # torch's exporter of old writes /layer1/layer1.0/conv1/Conv.
    if len(parts) > 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        short = [part for part, after in pairwise(parts) if not after.startswith(f"{part}.")]
        return _parts(".".join(short)), node.op_type
    name = _parts(".".join(parts))
    if not name or name[-1].isdigit():
        name = (*name[:-1], f"{node.op_type}_{name[-1]}" if name else node.op_type)
    return name, node.op_type


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a dotted name, of word characters only, none of which is an attribute of every module."""
    parts = [re.sub(r"[^\w-]+", "_", part)[:64].strip("_") for part in name.split(".")]
    taken = {*dir(OnnxGraph), "training"}
    return tuple(f"{part}_" if part in taken else part for part in parts if part)[-16:]


def _title(node: Any) -> str:
    return node.name or next(iter(node.output), "")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
