"""A gradient for units that have none: through activations that are flat where they stand.

What a ReLU makes of a negative number has no slope, so a unit behind one that is 0 everywhere gives the image nothing
to climb by.  Here such an activation hands a gradient on wherever that would bring it to where it has a slope, and
holds back what would take it further away, as Lucid's redirected ReLU does in its first steps (Olah et al. 2017).
Numbers stay what they are.

Only the last few activations before the unit do so, as few as will do: half of all activations are flat at any time,
and a gradient through all of them is mostly of what does not matter yet.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Where an activation is flat: below the first number, and above the second.
_FLAT: dict[Any, tuple[float, float]] = {
    F.relu: (0.0, math.inf),
    torch.relu: (0.0, math.inf),
    Tensor.relu: (0.0, math.inf),
    torch.relu_: (0.0, math.inf),
    Tensor.relu_: (0.0, math.inf),
    F.relu6: (0.0, 6.0),
    F.hardswish: (-3.0, math.inf),
    F.hardsigmoid: (-3.0, 3.0),
}
_CLAMPS = {torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, Tensor.clamp_, F.hardtanh, F.hardtanh_}
_MINIMUMS = {Tensor.clamp_min, torch.clamp_min, Tensor.clamp_min_}


REDIRECT_DEPTHS = (2, 3, 4, 6, 8, 16, 32, 1_000_000)
"""How many of the last activations hand gradients on, by turns, until there is one; the unit's own is the last."""


class RedirectedActivations(TorchFunctionMode):
    """The last activations of a pass hand gradients on where they are flat, if these bring them to where they are not.

    Args:
        last: how many.
        calls: how many there are in a pass.

    Attributes:
        calls: how many there were so far.
    """

    def __init__(self, last: int, calls: int):
        super().__init__()
        self.first, self.calls = calls - last, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        flat = _flat(function, args, kwargs)
        if flat is None or not isinstance(args[0], Tensor):
            return function(*args, **kwargs)
        self.calls += 1
        if self.calls <= self.first or not torch.is_grad_enabled():
            return function(*args, **kwargs)
        entering = args[0]
        before = entering.clone() if _in_place(function, args, kwargs) else entering
        result = function(*args, **kwargs)
        return result + _RedirectedGradient.apply(before, *flat)


def _flat(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float] | None:
    if function in _FLAT and args:
        return _FLAT[function]
    given = [*args[1:3], None, None]
    if function in _MINIMUMS and args:
        low = kwargs.get("min", given[0])
        return (float(low), math.inf) if isinstance(low, int | float) else None
    if function in _CLAMPS and args:
        names = ("min_val", "max_val") if function in (F.hardtanh, F.hardtanh_) else ("min", "max")
        low, high = (kwargs.get(name, value) for name, value in zip(names, given, strict=False))
        if names[0] == "min_val":
            low, high = -1.0 if low is None else low, 1.0 if high is None else high
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        return (float(bounds[0]), float(bounds[1])) if all(isinstance(each, int | float) for each in bounds) else None
    return None


def _in_place(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if getattr(function, "__name__", "").endswith("_"):
        return True
    places = {F.relu: 1, F.relu6: 1, F.hardswish: 1, F.hardsigmoid: 1, F.hardtanh: 3}
    place = places.get(function)
    return bool(kwargs.get("inplace") or (place is not None and len(args) > place and args[place]))


class _RedirectedGradient(torch.autograd.Function):
    """Nothing, (…), with a gradient where what goes in lies outside of two numbers, and should come closer."""

    @staticmethod
    def forward(context: Any, entering: Tensor, low: float, high: float) -> Tensor:
        context.save_for_backward(entering)
        context.bounds = low, high
        return torch.zeros_like(entering)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (entering,) = context.saved_tensors
        (gradient,) = gradients
        low, high = context.bounds
        useful = ((entering <= low) & (gradient > 0)) | ((entering >= high) & (gradient < 0))
        return gradient * useful, None, None
