"""TorchScript programs, node by node: so that their modules, which hooks do not reach, are layers like any other.

A program's graph is run as it stands, by torch's own operators, and those of the modules that it calls; what a module
gives goes through a stand-in of its name, which can be listened to.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.outputs import tensors_of
from phosphene.networks.preprocessing import Preprocessing
from phosphene.torch_state import default_torch_state

# Operators that are looked for by what calls them (see `outputs.Watch` and `waking.Waking`) go by their public names.
_PUBLIC: dict[str, Callable[..., Any]] = {
    "softmax": lambda x, dim, dtype=None: torch.softmax(x, dim, dtype=dtype),
    "log_softmax": lambda x, dim, dtype=None: torch.log_softmax(x, dim, dtype=dtype),
    "sigmoid": torch.sigmoid,
    "sigmoid_": torch.sigmoid,
    "relu": torch.relu,
    "relu_": torch.relu,
    "relu6": F.relu6,
    "relu6_": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh_": F.hardtanh,
    "clamp": torch.clamp,
    "hardswish": F.hardswish,
    "hardswish_": F.hardswish,
}
_PYTHON: dict[str, Callable[..., Any]] = {
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "aten::__not__": lambda a: not a,
    "aten::__getitem__": lambda values, index: values[index],
    "aten::len": len,
    "aten::Int": int,
    "aten::Float": float,
    "aten::Bool": bool,
    "aten::format": lambda *_: "",
    "aten::append": lambda values, value: [values.append(value), values][1],
    "prim::NumToTensor": torch.tensor,
    "prim::unchecked_cast": lambda value: value,
    "prim::TupleIndex": lambda values, index: values[index],
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: values,
    "prim::dtype": lambda value: value.dtype,
    "prim::device": lambda value: value.device,
    "prim::min": min,
    "prim::max": max,
}
# Of numbers and lists; of tensors they are torch's.
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "eq", "ne", "lt", "gt", "le", "ge", "neg")},
    **{"__and__": operator.and_, "__or__": operator.or_, "floordiv": operator.floordiv, "div": operator.truediv},
    **{"remainder": operator.mod, "pow": operator.pow, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt},
}
_UNPACKING = {"prim::ListUnpack", "prim::TupleUnpack"}
KNOWN_OPERATORS = {
    *("prim::GetAttr", "prim::Constant", "prim::If", "prim::Loop", "prim::RaiseException"),
    *("prim::CallMethod", "prim::CallFunction"),
}
_MOST_TIMES = 100_000  # of a loop
_LIKE = 1e-4  # how far what it gives may be off, over its largest number


class UnknownNodeError(Exception):
    """A program has a node that is not known here."""


class _ModulePart(NamedTuple):
    """A module of a program, and its name in it."""

    module: Any
    name: str


class ScriptedGraph(nn.Module):
    """A program whose modules can be listened to.

    Args:
        program: of one input, images.
    """

    def __init__(self, program: Any):
        super().__init__()
        self.program = program
        self._stand_ins: dict[str, nn.Module] = {}
        self._graphs: dict[Any, list[Any]] = {}
        for name, module in program.named_modules():
            if name:
                self._add(name, getattr(module, "original_name", "Module"))

    def _add(self, name: str, kind: str) -> None:
        parent, _, own = name.rpartition(".")
        self._stand_ins[name] = _stand_in(kind)
        (self._stand_ins[parent] if parent else self).add_module(own, self._stand_ins[name])

    def forward(self, images: Tensor) -> Any:
        return self._called(_ModulePart(self.program, ""), "forward", [images])

    def _called(self, part: _ModulePart, method: str, given: Sequence[Any]) -> Any:
        """What a module's method gives."""
        key = part.name, method
        if key not in self._graphs:
            graph = part.module.graph if method == "forward" else getattr(part.module, method).graph
            self._graphs[key] = [graph, self._read(graph)]
        graph, steps = self._graphs[key]
        missing = len(list(graph.inputs())) - 1 - len(given)
        if missing > 0:
            schema = part.module._c._get_method(method).schema
            given = [*given, *(argument.default_value for argument in schema.arguments[-missing:])]
        result = self._through(graph, steps, [part, *given])
        if method == "forward" and part.name:
            result = self._stand_ins[part.name](result)  # whoever listens to it is called
        return result

    def _through(self, graph: Any, steps: Sequence[Any], given: Sequence[Any]) -> Any:
        values = dict(zip((each.debugName() for each in graph.inputs()), given, strict=True))
        self._run(steps, values)
        results = [values[output.debugName()] for output in graph.outputs()]
        return results[0] if len(results) == 1 else tuple(results)

    def _read(self, block: Any) -> list[Any]:
        return [
            (node, node.kind(), _call(node), [self._read(each) for each in node.blocks()]) for node in block.nodes()
        ]

    def _run(self, steps: Sequence[Any], values: dict[str, Any]) -> None:
        for node, kind, call, blocks in steps:
            names = [output.debugName() for output in node.outputs()]
            given = [values.get(each.debugName()) for each in node.inputs()]
            if kind == "prim::If":
                block = 0 if given[0] else 1
                self._run(blocks[block], values)
                chosen = [values[each.debugName()] for each in list(node.blocks())[block].outputs()]
                values.update(zip(names, chosen, strict=True))
            elif kind == "prim::Loop":
                self._repeat(node, blocks[0], given, values)
            else:
                result = self._result(node, kind, call, given)
                several = kind in _UNPACKING or len(names) > 1
                values.update(zip(names, result if several else [result], strict=False))

    def _result(self, node: Any, kind: str, call: Callable[..., Any] | None, given: Sequence[Any]) -> Any:
        if kind == "prim::GetAttr":
            part, name = given[0], node.s("name")
            found = getattr(part.module, name)
            own = f"{part.name}.{name}" if part.name else name
            return _ModulePart(found, own) if isinstance(found, torch.jit.ScriptModule) else found
        if kind == "prim::Constant":
            return node.output().toIValue()
        if kind == "prim::CallMethod":
            return self._called(given[0], node.s("name"), given[1:])
        if kind == "prim::CallFunction":
            return self._function(node, given)
        if kind in _UNPACKING:
            return given[0]
        if kind == "prim::RaiseException":
            raise RuntimeError("the program raises an exception for this image")
        assert call is not None
        return call(*given)

    def _function(self, node: Any, given: Sequence[Any]) -> Any:
        """What a function gives; torch's own by their names."""
        function = next(iter(node.inputs())).node()
        name = function.s("name") if function.hasAttribute("name") else ""
        own = getattr(F, name, None)
        if own is not None:
            return own(*given[1:])
        return given[0](*given[1:])

    def _repeat(self, node: Any, steps: Sequence[Any], given: Sequence[Any], values: dict[str, Any]) -> None:
        """A loop: at most so many times, and while its condition holds, with what each time hands to the next."""
        (block,) = node.blocks()
        number, *inside = [each.debugName() for each in block.inputs()]
        most, goes_on, *carried = given
        for time in range(min(most, _MOST_TIMES)):
            if not goes_on:
                break
            values.update(zip([number, *inside], [time, *carried], strict=True))
            self._run(steps, values)
            goes_on, *carried = (values[each.debugName()] for each in block.outputs())
        values.update(zip([output.debugName() for output in node.outputs()], carried, strict=True))


def _call(node: Any) -> Callable[..., Any] | None:
    """What a node computes with; None for those that `ScriptedGraph` knows.

    Raises:
        UnknownNodeError: nothing here does.
    """
    kind = node.kind()
    if kind in _PYTHON:
        return _PYTHON[kind]
    if kind in _UNPACKING or kind in KNOWN_OPERATORS:
        return None
    place, _, name = kind.partition("::")
    if place != "aten":
        raise UnknownNodeError(kind)
    if name in _PUBLIC:
        return _PUBLIC[name]
    schema = torch._C.parse_schema(node.schema())
    torchs = getattr(getattr(torch.ops.aten, name, None), schema.overload_name or "default", None)
    if torchs is None and name not in _ARITHMETIC:
        raise UnknownNodeError(kind)
    named = [argument.name if argument.kwarg_only else "" for argument in schema.arguments]

    def call(*values: Any) -> Any:
        if name in _ARITHMETIC and not any(isinstance(value, Tensor) for value in values):
            return _ARITHMETIC[name](*values)
        assert torchs is not None
        pairs = list(zip(named, values, strict=False))
        keywords = {key: value for key, value in pairs if key}
        return torchs(*(value for key, value in pairs if not key), **keywords)

    return call


class _StandIn(nn.Module):
    """Stands for a module of a program: it hands on what that gives."""

    def forward(self, result: Any) -> Any:
        return result


def _stand_in(kind: str) -> nn.Module:
    """By the name of the module's class, so that an activation is known as one."""
    made: nn.Module = type(kind if kind.isidentifier() else "Module", (_StandIn,), {})()
    return made


class Program(nn.Module):
    """A TorchScript program: its own modules take no hooks, but what it returns can be read."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


def open_script(program: Any, preprocessing: Preprocessing) -> nn.Module:
    """The program with its modules as layers, where its graph allows, or as one module."""
    modes = [(module, module.training) for module in program.modules() if hasattr(module, "training")]
    try:
        for module, _ in modes:
            module.training = False
        with default_torch_state():
            return _graph_of(program, preprocessing(preprocessing.noise(1))) or Program(program)
    finally:
        for module, mode in modes:
            module.training = mode


def _graph_of(program: Any, images: Tensor) -> ScriptedGraph | None:
    """The program, in eval mode, with its modules as layers; None where it has what is not known here, or returns
    something else for these images then."""
    try:
        with torch.no_grad():
            expected = tensors_of(program(images))
            graph = ScriptedGraph(program)
            found = tensors_of(graph(images))
    except Exception:  # of whatever is in the program
        return None
    pairs = list(zip(expected, found, strict=False))
    close = all(_close(one.tensor, other.tensor) for one, other in pairs)
    return graph if close and len(expected) == len(found) > 0 else None


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    return bool((first - second).abs().max() <= _LIKE * first.abs().max().clamp_min(1e-6))
