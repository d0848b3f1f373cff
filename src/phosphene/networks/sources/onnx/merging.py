"""Steps of a graph that are one module in the network: a linear layer and its bias, an activation taken apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from phosphene.networks.sources.onnx.graph import GraphStep
from phosphene.networks.sources.onnx.nodes import ELEMENTWISE


def needed_steps(steps: Sequence[GraphStep], outputs: Sequence[str]) -> list[GraphStep]:
    """The steps that the outputs depend on."""
    needed, used = set(outputs), list[GraphStep]()
    for step in reversed(steps):
        if needed & set(step.outputs):
            needed |= set(step.inputs)
            used.append(step)
    return used[::-1]


def with_biases(steps: list[GraphStep], constants: Mapping[str, Tensor], outputs: Sequence[str]) -> list[GraphStep]:
    """The steps with the bias put into the linear layer before it, where an exporter made two of one."""
    uses = Counter([*outputs, *(name for step in steps for name in step.inputs)])
    linear: dict[str, GraphStep] = {}
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


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), as CLIP has it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.sigmoid(1.702 * inputs)


def _activations() -> dict[str, nn.Module]:
    return {
        "relu": nn.ReLU(),
        "relu6": nn.ReLU6(),
        "silu": nn.SiLU(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU("tanh"),
        "quick_gelu": QuickGELU(),
        "hardswish": nn.Hardswish(),
        "mish": nn.Mish(),
    }


_LAST = {"Clip", "Div", "Max", "Min", "Mul"}  # the operators in which an activation that was taken apart ends
_REACH = 12  # steps


def with_activations(steps: list[GraphStep], constants: Mapping[str, Tensor]) -> list[GraphStep]:
    """The steps with those put together that make up an activation, found by what they compute.

    `x * sigmoid(x)` is a SiLU, `clip(x, 0, 6)` a ReLU6, and so on; of the steps whose result is used elsewhere, or
    no longer at all, `needed_steps` decides.
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


def _behind(step: GraphStep, makers: Mapping[str, GraphStep], constants: Mapping[str, Tensor]) -> list[str]:
    """The values that a step may be a function of, the nearest first."""
    found = dict.fromkeys(name for name in step.inputs if name and name not in constants)
    for name in list(found):
        queue = [name]
        while queue and len(found) < _REACH:
            maker = makers.get(queue.pop(0))
            if maker is not None and maker.node.op_type in ELEMENTWISE:
                fresh = [name for name in maker.inputs if name and name not in constants]
                found.update(dict.fromkeys(fresh))
                queue += fresh
    return list(found)


def _region(
    step: GraphStep, value: str, makers: Mapping[str, GraphStep], constants: Mapping[str, Tensor]
) -> list[GraphStep] | None:
    """The elementwise steps from a value to a step, in their order; None if this depends on anything else."""
    region: list[GraphStep] = []
    queue = [step]
    while queue:
        current = queue.pop()
        if current in region:
            region.remove(current)
        region.append(current)
        if current.node.op_type not in ELEMENTWISE or len(region) > _REACH:
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


def _curve(region: list[GraphStep], value: str, constants: Mapping[str, Tensor], grid: Tensor) -> Tensor | None:
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
