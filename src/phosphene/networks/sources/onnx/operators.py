"""ONNX operators as torch modules, where they are called with tensors for sizes and indices.

What is known of these when a file is opened is kept in the module as whole numbers, so that nothing is asked of a
device when images go through; what is not comes as a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import InputError

_WHERE = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDING = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


class Gather(nn.Module):
    """Entries picked along an axis."""

    def __init__(self, axis: int = 0):
        super().__init__()
        self.axis = axis

    def forward(self, data: Tensor, indices: Tensor) -> Tensor:
        index: list[slice | Tensor] = [slice(None)] * (self.axis % data.ndim)
        return data[(*index, indices.to(torch.int64))]


class AxisRanges(nn.Module):
    """A range of each of some axes, forwards or backwards: ONNX's Slice.

    Args:
        known: its inputs that are known already, by name: starts, ends, axes, steps.
    """

    def __init__(self, known: Mapping[str, Sequence[int]]):
        super().__init__()
        self.known = {name: list(values) for name, values in known.items()}

    def forward(
        self,
        data: Tensor,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        given = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        numbers = self.known | {name: value.tolist() for name, value in given.items() if value is not None}
        count = len(numbers["starts"])
        along, by = numbers.get("axes") or range(count), numbers.get("steps") or [1] * count
        for axis, start, end, step in zip(along, numbers["starts"], numbers["ends"], by, strict=True):
            picked = range(*slice(start, end, step).indices(data.shape[axis]))
            if step > 0:
                data = data[(*(slice(None),) * (axis % data.ndim), slice(picked.start, picked.stop, step))]
            else:
                data = data.index_select(axis, torch.tensor(picked, dtype=torch.int64, device=data.device))
        return data


class Split(nn.Module):
    """Parts along an axis: of sizes that are known or given, or `count` of the same size, the last of the rest."""

    def __init__(self, axis: int, count: int, sizes: Sequence[int] | None = None):
        super().__init__()
        self.axis, self.count, self.sizes = axis, count, None if sizes is None else list(sizes)

    def forward(self, data: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        known = self.sizes if sizes is None else sizes.tolist()
        if known is None:
            length = data.shape[self.axis]
            size = math.ceil(length / self.count)
            known = [size] * (self.count - 1)
            known.append(length - sum(known))
        return torch.split(data, known, self.axis)


class Resize(nn.Module):
    """Maps of another height and width.

    Args:
        mode: "nearest", "linear" or "cubic".
        where: which place of the input a pixel of the output is: ONNX's `coordinate_transformation_mode`.
        rounding: ONNX's `nearest_mode`.
        scales, sizes: of all axes, where they are known.

    Raises:
        InputError: torch does not resize so, and neither do we.
    """

    def __init__(
        self,
        mode: str,
        where: str,
        rounding: str,
        scales: Sequence[float] | None = None,
        sizes: Sequence[int] | None = None,
    ):
        super().__init__()
        if where not in _WHERE or rounding not in _ROUNDING or mode not in ("nearest", "linear", "cubic"):
            raise InputError(f"resizes in a way that torch does not ({mode}, {where}, {rounding})")
        if (mode, where) == ("cubic", "asymmetric"):
            raise InputError(f"resizes in a way that torch does not ({mode}, {where})")
        self.mode, self.where, self.rounding = mode, where, rounding
        self.scales = scales if scales is None else list(scales)
        self.sizes = sizes if sizes is None else list(sizes)

    def forward(self, maps: Tensor, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        by = self.scales if scales is None else scales.tolist()
        to = self.sizes if sizes is None else sizes.tolist()
        if to:  # the rows are those of one image where the batch's size is written into the graph
            to = [len(maps), *to[1:]]
            by = [after / before for after, before in zip(to, maps.shape, strict=True)]
        elif by:
            to = [math.floor(size * scale) for size, scale in zip(maps.shape, by, strict=True)]
        if not by or not to:
            raise ValueError("neither scales nor sizes are given")
        if to[1] != maps.shape[1] or by[0] != 1:
            raise ValueError(f"{tuple(maps.shape)} would become {tuple(to)}: expected another height and width only")
        if self.mode == "nearest" or self.where == "asymmetric":
            for axis in range(2, maps.ndim):
                maps = self._along(maps, axis, to[axis], by[axis])
            return maps
        modes = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
        mode = modes[self.mode][maps.ndim]
        if self.where == "align_corners":
            return F.interpolate(maps, size=to[2:], mode=mode, align_corners=True)
        if self.sizes is not None or sizes is not None:
            return F.interpolate(maps, size=to[2:], mode=mode, align_corners=False)
        return F.interpolate(maps, scale_factor=by[2:], mode=mode, align_corners=False)

    def _along(self, maps: Tensor, axis: int, size: int, scale: float) -> Tensor:
        """One axis resized to the nearest, or linearly between the two places around."""
        last = maps.shape[axis] - 1
        places = self._places(torch.arange(size, device=maps.device, dtype=torch.float32), last + 1, size, scale)
        if self.mode == "nearest":
            return maps.index_select(axis, self._rounded(places).clamp(0, last).long())
        places = places.clamp(0, last)
        low = places.floor()
        share = (places - low).to(maps.dtype).view(-1, *[1] * (maps.ndim - axis - 1))
        below, above = low.long(), (low + 1).clamp(max=last).long()
        return maps.index_select(axis, below) * (1 - share) + maps.index_select(axis, above) * share

    def _places(self, pixels: Tensor, before: int, after: int, scale: float) -> Tensor:
        if self.where == "align_corners":
            return pixels * ((before - 1) / (after - 1) if after > 1 else 0)
        if self.where == "pytorch_half_pixel" and after == 1:
            return torch.zeros_like(pixels)
        return pixels / scale if self.where == "asymmetric" else (pixels + 0.5) / scale - 0.5

    def _rounded(self, places: Tensor) -> Tensor:
        match self.rounding:
            case "floor":
                return places.floor()
            case "ceil":
                return places.ceil()
            case "round_prefer_floor":
                return (places - 0.5).ceil()
            case _:
                return (places + 0.5).floor()


_SLICE = ("starts", "ends", "axes", "steps")


def convert_operator(
    node: Any, attributes: Mapping[str, Any], opset: int, known: Mapping[int, Tensor]
) -> tuple[nn.Module, list[str]] | None:
    """The module of a node, and the names of the values that it is called with; None for operators that are not here.

    Args:
        node: an ONNX node.
        known: those of its inputs that depend on nothing, by their index.

    Raises:
        InputError: the operator is here and cannot do that; the text goes on after the node's name.
    """
    match node.op_type:
        case "Gather":
            return Gather(attributes.get("axis", 0)), list(node.input)
        case "Slice":
            inside = {name: attributes[name] for name in _SLICE if name in attributes}
            inside |= {name: known[i].tolist() for i, name in enumerate(_SLICE, 1) if i in known}
            return AxisRanges(inside), _left(node, known)
        case "Split":
            sizes = known[1].tolist() if 1 in known else attributes.get("split")
            return Split(attributes.get("axis", 0), len(node.output), sizes), _left(node, known)
        case "Resize" | "Upsample":
            return _resize(node, attributes, opset, known)
    return None


def _left(node: Any, known: Mapping[int, Tensor]) -> list[str]:
    """A node's inputs with those left out that its module has, which are named by nothing."""
    names = ["" if index in known and index else name for index, name in enumerate(node.input)]
    while not names[-1]:
        names.pop()
    return names


def _resize(
    node: Any, attributes: Mapping[str, Any], opset: int, known: Mapping[int, Tensor]
) -> tuple[nn.Module, list[str]]:
    text = {key: value.decode() for key, value in attributes.items() if isinstance(value, bytes)}
    mode = text.get("mode", "nearest")
    first = node.op_type == "Upsample" or opset < 11  # with scales for a second input, and one way to go
    where = "asymmetric" if first else text.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if first else text.get("nearest_mode", "round_prefer_floor")
    if attributes.get("antialias") or attributes.get("exclude_outside") or attributes.get("axes"):
        raise InputError(f"resizes in a way that torch does not ({mode}, {where})")
    if mode == "cubic" and attributes.get("cubic_coeff_a", -0.75) != -0.75:
        raise InputError(f"resizes in a way that torch does not ({mode}, {where})")
    names = dict(enumerate(node.input))
    at = {"scales": 1} if first else {"scales": 2, "sizes": 3}
    inside = {name: known[index].tolist() for name, index in at.items() if index in known and known[index].numel()}
    if "scales" in attributes:
        inside["scales"] = list(attributes["scales"])
    elif {"height_scale", "width_scale"} & attributes.keys():
        inside["scales"] = [1.0, 1.0, attributes.get("height_scale", 1.0), attributes.get("width_scale", 1.0)]
    module = Resize("linear" if mode == "bilinear" else mode, where, rounding, **inside)
    inputs = [node.input[0], *("" if index in known else names.get(index, "") for index in at.values())]
    while not inputs[-1]:
        inputs.pop()
    return module, inputs
