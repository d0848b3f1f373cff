"""The input of an ONNX graph: images, of which channels, size and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phosphene.errors import InputError
from phosphene.extras import require

LARGEST_SIDE = 4096  # pixels
UINT8 = 2  # TensorProto.UINT8
_FED = {1: torch.float32, UINT8: torch.float32, 10: torch.float16}  # by TensorProto's FLOAT, UINT8, FLOAT16


@dataclass(frozen=True)
class ImageInput:
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
        return self.kind == UINT8

    @property
    def shape(self) -> tuple[int, int, int, int]:
        if self.channels_last:
            return (1, self.height, self.width, self.channels)
        return (1, self.channels, self.height, self.width)


def find_input(model: Any, name: str, side: int) -> ImageInput:
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
    if not (min(height, width) > 0 and max(height, width) <= LARGEST_SIDE and 0 < channels <= LARGEST_SIDE):
        raise InputError(f"{name} takes {shown}: expected images of 1 to {LARGEST_SIDE} pixels a side")
    kind = tensor.elem_type
    return ImageInput(inputs[0].name, channels, height, width, channels_last, None not in sides, kind, _FED[kind])


def _is_channels_last(dims: Sequence[int | None]) -> bool:
    """Whether the last axis has the channels, of which there are 1, 3 or 4, or else what the height is not."""
    for axis in (1, 3):
        if dims[axis] in (1, 3, 4):
            return axis == 3
    return dims[1] == dims[2] != dims[3] and None not in dims[1:]
