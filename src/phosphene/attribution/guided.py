"""Guided backpropagation: at every rectifier only what is positive goes back.

Captum's own sets hooks on modules of the class `torch.nn.ReLU`, and on nothing else: a network whose rectifiers are
functions, `ReLU6`, or one module that is used twice, gets a plain gradient from it without a word.  Here the functions
themselves are watched during the pass, whoever calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class GuidedPass(TorchFunctionMode):
    """The context of a pass whose rectifiers (ReLU, ReLU6, a clamp from 0 on) let back only positive gradients.

    Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net", section 3.4: where the input is
    positive, the gradient that is positive goes back.

    Attributes:
        rectifiers: how many were called.
        others: how many activations of another kind (GELU, SiLU, …) were called, which are left as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rectifiers = self.others = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = dict(kwargs or {})
        named = getattr(function, "_overloadpacket", function)  # as exported programs call it
        bounds = _bounds(named, args, kwargs)
        if bounds is None:
            self.others += named in _OTHERS
            return function(*args, **kwargs)
        self.rectifiers += 1
        inputs = args[0] if args else kwargs["input"]
        if not (named in _IN_PLACE or kwargs.get("inplace") or _positional_in_place(named, args)):
            return _Rectify.apply(inputs, *bounds)
        return inputs.copy_(_Rectify.apply(inputs.clone(), *bounds))


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, low: float, high: float | None) -> Tensor:
        passed = inputs > low if high is None else (inputs > low) & (inputs < high)
        ctx.save_for_backward(passed)
        return inputs.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (passed,) = ctx.saved_tensors
        return gradients[0].clamp_min(0) * passed, None, None


_ATEN: Any = torch.ops.aten
_RELU: set[Callable[..., Any]] = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, _ATEN.relu, _ATEN.relu_),
}
_RELU6: set[Callable[..., Any]] = {F.relu6, _ATEN.relu6, _ATEN.relu6_}
_HARDTANH: set[Callable[..., Any]] = {F.hardtanh, F.hardtanh_, _ATEN.hardtanh, _ATEN.hardtanh_}
_CLAMP: set[Callable[..., Any]] = {
    *(torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_),
    *(_ATEN.clamp, _ATEN.clamp_, *_HARDTANH),
}
_CLAMP_MIN: set[Callable[..., Any]] = {
    *(torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_, _ATEN.clamp_min, _ATEN.clamp_min_),
}
_IN_PLACE: set[Callable[..., Any]] = {
    *(F.relu_, torch.relu_, Tensor.relu_, torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_, F.hardtanh_),
    *(torch.clamp_min_, Tensor.clamp_min_, _ATEN.relu_, _ATEN.relu6_, _ATEN.hardtanh_, _ATEN.clamp_),
    _ATEN.clamp_min_,
}
_OTHERS: set[Callable[..., Any]] = {
    *(F.gelu, F.silu, F.elu, F.selu, F.celu, F.mish, F.hardswish, F.leaky_relu, F.prelu, F.softplus, torch.tanh),
    *(torch.prelu, torch.selu, Tensor.tanh, _ATEN.gelu, _ATEN.silu, _ATEN.elu, _ATEN.hardswish, _ATEN.leaky_relu),
}


def _bounds(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float | None] | None:
    """From where to where a rectifier lets its input through; None of any other function."""
    if function in _RELU:
        return 0.0, None
    if function in _RELU6:
        return 0.0, 6.0
    if function not in _CLAMP and function not in _CLAMP_MIN:
        return None
    if function in _HARDTANH:
        low, high = _given(args, kwargs, ("min_val", "max_val"), (-1.0, 1.0))
    elif function in _CLAMP:
        low, high = _given(args, kwargs, ("min", "max"), (None, None))
    else:
        low, high = _given(args, kwargs, ("min",), (None,))[0], None
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return None
    inputs = args[0] if args else kwargs.get("input")
    return (0.0, high) if isinstance(inputs, Tensor) and inputs.is_floating_point() else None


def _given(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...], defaults: tuple[Any, ...]
) -> list[Any]:
    return [
        args[place] if len(args) > place else kwargs.get(name, default)
        for place, (name, default) in enumerate(zip(names, defaults, strict=True), start=1)
    ]


def _positional_in_place(function: Any, args: tuple[Any, ...]) -> bool:
    """Whether `inplace` is given by its place: behind the input, or of a hardtanh behind its bounds."""
    place = {F.relu: 1, F.relu6: 1, F.hardtanh: 3}.get(function)
    return place is not None and len(args) > place and bool(args[place])
