"""Caffe's layers as torch modules: each built from its message in the definition.

Modules are built on torch's meta device, so that nothing is allocated on a definition's word: their parameters come
to be when they are filled (see `blobs`), from blobs that are really in the file.

Source of what each layer does: Caffe's layer catalog, `caffe.proto`, and the layers' set-up and forward functions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from phosphene.errors import InputError
from phosphene.networks.sources.caffe.blobs import Shape
from phosphene.networks.sources.caffe.modules import (
    Eltwise,
    InnerProduct,
    Permute,
    Power,
    Reshape,
    Scale,
    Slice,
    WithinChannelLRN,
)
from phosphene.networks.sources.caffe.text import Message
from phosphene.networks.sources.modules import Concat

MOST_CHANNELS = 1 << 20
MOST_PIXELS = 1 << 14  # of a kernel, a stride, a padding


Build = Callable[[Message, list[Shape], int], nn.Module]
"""From a layer's settings, the shapes of its bottoms and the number of its tops."""


@dataclass(frozen=True)
class LayerType:
    """How a layer of one type is built.

    Attributes:
        name: as the definition calls the type today.
        settings: the field with what is set for it.
        bottoms: how many blobs it takes, at least and at most.
        several_tops: whether it may give more than one.
        keeps_shape: whether what it gives has the shape of its one bottom, whatever that is.
    """

    name: str
    build: Build
    settings: str = ""
    bottoms: tuple[int, int] = (1, 1)
    several_tops: bool = False
    keeps_shape: bool = False


# Settings that say how a layer was trained or which of Caffe's kernels runs it.
WITHOUT_EFFECT = (
    *("weight_filler", "bias_filler", "filler", "engine", "force_nd_im2col", "stable_prod_grad"),
    "moving_average_fraction",
)


def _convolution(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return _convolved(nn.Conv2d, settings, shapes[0])


def _deconvolution(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return _convolved(nn.ConvTranspose2d, settings, shapes[0])


def _convolved(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], settings: Message, shape: Shape, group: int = 1
) -> nn.Conv2d | nn.ConvTranspose2d:
    """Args: `group` is how many there are where the definition does not say."""
    channels = _maps(settings, shape)
    outputs = _outputs(settings)
    groups = settings.integer("group", group, 1, MOST_CHANNELS)
    if channels % groups or outputs % groups:
        raise InputError(
            f"{settings.where}: group is {groups}: expected a divisor of its {channels} input and {outputs} output "
            "channels"
        )
    if settings.integer("axis", 1, -LARGE_AXIS, LARGE_AXIS) not in (1, -3):
        raise InputError(f"{settings.where}: axis: expected 1, the channels")
    return kind(
        channels,
        outputs,
        _pair(settings, "kernel_size", "kernel"),
        stride=_pair(settings, "stride", "stride", default=1),
        padding=_pair(settings, "pad", "pad", default=0, low=0),
        dilation=_pair(settings, "dilation", "", default=1),
        groups=groups,
        bias=settings.flag("bias_term", True),
    )


def _pooling(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    # Caffe's window rules are torch's: sizes are rounded up, no window begins beyond the image, and an average is over
    # the window's part in the padded image.
    _maps(settings, shapes[0])
    pool = settings.choice("pool", ("MAX", "AVE", "STOCHASTIC"), "MAX")
    if pool == "STOCHASTIC":
        raise InputError(f"{settings.where}: pool is STOCHASTIC: expected MAX or AVE")
    if settings.flag("global_pooling", False):
        for name in ("kernel_size", "kernel_h", "kernel_w"):
            if name in settings:
                raise InputError(f"{settings.where}: {name} with global_pooling: expected one of them")
        # Caffe takes these two here if they change nothing.
        _pair(settings, "stride", "stride", default=1, high=1)
        _pair(settings, "pad", "pad", default=0, low=0, high=0)
        return nn.AdaptiveAvgPool2d(1) if pool == "AVE" else nn.AdaptiveMaxPool2d(1)
    kernel = _pair(settings, "kernel_size", "kernel")
    stride = _pair(settings, "stride", "stride", default=1)
    padding = _pair(settings, "pad", "pad", default=0, low=0)
    if any(pad > size // 2 for pad, size in zip(padding, kernel, strict=True)):
        raise InputError(f"{settings.where}: pad is over half of the kernel: expected up to half of it")
    # Two settings of Caffe's offspring, for sizes rounded down.
    up = settings.flag("ceil_mode", True) and settings.choice("round_mode", ("CEIL", "FLOOR"), "CEIL") == "CEIL"
    if pool == "AVE":
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=up)
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=up)


def _lrn(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    _maps(settings, shapes[0])
    size = settings.integer("local_size", 5, 1, MOST_PIXELS)
    if size % 2 == 0:
        raise InputError(f"{settings.where}: local_size is {size}: expected an odd number")
    alpha, beta, k = settings.number("alpha", 1.0), settings.number("beta", 0.75), settings.number("k", 1.0)
    region = settings.choice("norm_region", ("ACROSS_CHANNELS", "WITHIN_CHANNEL"), "ACROSS_CHANNELS")
    if region == "WITHIN_CHANNEL":
        return WithinChannelLRN(size, alpha, beta)
    return nn.LocalResponseNorm(size, alpha, beta, k)


def _inner_product(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    axis = _axis(settings, shapes[0])
    inputs = math.prod(shapes[0][axis:])
    bias, transposed = settings.flag("bias_term", True), settings.flag("transpose", False)
    return InnerProduct(inputs, _outputs(settings), bias, axis, transposed)


def _relu(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    slope = settings.number("negative_slope", 0.0)
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _prelu(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.PReLU(1 if settings.flag("channel_shared", False) else shapes[0][1])


def _elu(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.ELU(settings.number("alpha", 1.0))


def _sigmoid(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.Sigmoid()


def _tanh(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.Tanh()


def _power(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return Power(settings.number("power", 1.0), settings.number("scale", 1.0), settings.number("shift", 0.0))


def _dropout(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    ratio = settings.number("dropout_ratio", 0.5)
    if not 0 <= ratio < 1:
        raise settings.wrong("dropout_ratio", ratio, "a share of 0 up to 1")
    if not settings.flag("scale_train", True):
        raise InputError(f"{settings.where}: scale_train is false: expected a dropout that does nothing in a test")
    return nn.Dropout(ratio)


def _softmax(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.Softmax(_axis(settings, shapes[0]))


def _batch_norm(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    if not settings.flag("use_global_stats", True):
        raise InputError(
            f"{settings.where}: use_global_stats is false, so that each image depends on the others of its batch: "
            "expected true"
        )
    if not 2 <= len(shapes[0]) <= 4:
        raise InputError(f"{settings.where}: its input is {_x(shapes[0])}: expected channels, or also positions")
    kind = nn.BatchNorm2d if len(shapes[0]) == 4 else nn.BatchNorm1d
    return kind(shapes[0][1], settings.number("eps", 1e-5), affine=False)


def _scale(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    bias = settings.flag("bias_term", False)
    if len(shapes) == 2:
        first, second = shapes
        settings.integer("num_axes", 1, -1, LARGE_AXIS)  # of no consequence here
        if settings.integer("axis", 1, -LARGE_AXIS, LARGE_AXIS) not in (0, -len(first)) or bias:
            raise InputError(f"{settings.where}: a Scale by a second blob: expected axis 0 and no bias")
        if first[: len(second)] != second:
            raise InputError(f"{settings.where}: {_x(first)} cannot be scaled by {_x(second)}")
        return Scale(0, bias=False)
    if _axis(settings, shapes[0]) != 1 or settings.integer("num_axes", 1, -1, LARGE_AXIS) != 1:
        raise InputError(f"{settings.where}: expected a Scale of channels: axis 1 and num_axes 1")
    return Scale(shapes[0][1], bias)


def _concat(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return Concat(_axis(settings, shapes[0], alias="concat_dim"))


def _slice(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    axis = _axis(settings, shapes[0], alias="slice_dim")
    length = shapes[0][axis]
    points = settings.integers("slice_point")
    if not points and length % tops == 0:
        points = [length // tops * index for index in range(1, tops)]
    edges = [0, *points, length]
    if len(points) != tops - 1 or any(left >= right for left, right in itertools.pairwise(edges)):
        raise InputError(
            f"{settings.where}: slice points {points[:16]} cut {length} into {tops}: expected {tops - 1} rising "
            f"numbers of 1 to {length - 1}"
        )
    return Slice(axis, [right - left for left, right in itertools.pairwise(edges)])


def _eltwise(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    operation = settings.choice("operation", ("PROD", "SUM", "MAX"), "SUM")
    coefficients = settings.numbers("coeff")
    if coefficients and (operation != "SUM" or len(coefficients) != len(shapes)):
        raise InputError(
            f"{settings.where}: {len(coefficients)} coefficients of a {operation} of {len(shapes)} blobs: expected "
            "one for each blob of a SUM, or none"
        )
    if len(set(shapes)) > 1:
        raise InputError(f"{settings.where}: its blobs are {' and '.join(map(_x, shapes))}: expected the same shapes")
    return Eltwise(operation, coefficients or [1.0] * len(shapes))


def _flatten(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    end = settings.integer("end_axis", -1, -LARGE_AXIS, LARGE_AXIS)
    return nn.Flatten(_axis(settings, shapes[0]), end)


def _reshape(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    axes = settings.message("shape").integers("dim", -1)
    start = settings.integer("axis", 0, -LARGE_AXIS, LARGE_AXIS)
    count = settings.integer("num_axes", -1, -1, LARGE_AXIS)
    if len(axes) > LARGE_AXIS or axes.count(-1) > 1:
        raise InputError(f"{settings.where}: {len(axes)} axes, {axes.count(-1)} of them -1: expected one -1 at most")
    return Reshape(axes, start, count)


def _permute(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    axes = len(shapes[0])
    given = settings.integers("order", 0)
    order = [*given, *(axis for axis in range(axes) if axis not in given)]
    if sorted(order) != list(range(axes)) or order[0] != 0:
        raise InputError(f"{settings.where}: order {given[:16]}: expected each of {axes} axes once, the rows first")
    return Permute(order)


def _depthwise(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    """A convolution of each channel by itself, whatever the group that is said."""
    channels, outputs = _maps(settings, shapes[0]), _outputs(settings)
    groups = settings.integer("group", channels, 1, MOST_CHANNELS)
    if outputs != channels or groups != channels:
        raise InputError(
            f"{settings.where}: {channels} channels to {outputs} in {groups} groups: expected one for each channel"
        )
    return _convolved(nn.Conv2d, settings, shapes[0], channels)


def _split(settings: Message, shapes: list[Shape], tops: int) -> nn.Module:
    return nn.Identity()


_TYPES = [
    LayerType("Convolution", _convolution, "convolution_param"),
    LayerType("Deconvolution", _deconvolution, "convolution_param"),
    LayerType("ConvolutionDepthwise", _depthwise, "convolution_param"),
    LayerType("DepthwiseConvolution", _depthwise, "convolution_param"),
    LayerType("Pooling", _pooling, "pooling_param"),
    LayerType("LRN", _lrn, "lrn_param", keeps_shape=True),
    LayerType("InnerProduct", _inner_product, "inner_product_param"),
    LayerType("ReLU", _relu, "relu_param", keeps_shape=True),
    LayerType("PReLU", _prelu, "prelu_param", keeps_shape=True),
    LayerType("ELU", _elu, "elu_param", keeps_shape=True),
    LayerType("Sigmoid", _sigmoid, "sigmoid_param", keeps_shape=True),
    LayerType("TanH", _tanh, "tanh_param", keeps_shape=True),
    LayerType("Power", _power, "power_param", keeps_shape=True),
    LayerType("Dropout", _dropout, "dropout_param", keeps_shape=True),
    LayerType("Softmax", _softmax, "softmax_param", keeps_shape=True),
    LayerType("BatchNorm", _batch_norm, "batch_norm_param", keeps_shape=True),
    LayerType("Scale", _scale, "scale_param", bottoms=(1, 2), keeps_shape=True),
    LayerType("Concat", _concat, "concat_param", bottoms=(1, 1 << 16)),
    LayerType("Slice", _slice, "slice_param", several_tops=True),
    LayerType("Eltwise", _eltwise, "eltwise_param", bottoms=(1, 1 << 16)),
    LayerType("Flatten", _flatten, "flatten_param"),
    LayerType("Reshape", _reshape, "reshape_param"),
    LayerType("Permute", _permute, "permute_param"),
    LayerType("Split", _split, several_tops=True, keeps_shape=True),
]


def type_key(name: str) -> str:
    """One spelling for "InnerProduct" and the old "INNER_PRODUCT"."""
    return name.replace("_", "").casefold()


LAYER_TYPES = {type_key(type_.name): type_ for type_ in _TYPES}

LARGE_AXIS = 32


def _outputs(settings: Message) -> int:
    if "num_output" not in settings:
        raise InputError(f"{settings.where}: num_output is missing")
    return settings.integer("num_output", 0, 1, MOST_CHANNELS)


def _maps(settings: Message, shape: Shape) -> int:
    """The channels of a layer's input, which must be maps."""
    if len(shape) != 4:
        raise InputError(f"{settings.where}: its input is {_x(shape)}: expected channels x height x width")
    return shape[1]


def _pair(
    settings: Message, name: str, stem: str, default: int | None = None, low: int = 1, high: int = MOST_PIXELS
) -> tuple[int, int]:
    """Height and width of a kernel, stride, padding or dilation: one number for both, both, or by name."""
    values = settings.integers(name, low, high)
    sides = [f"{stem}_h", f"{stem}_w"] if stem else []
    given = [side for side in sides if side in settings]
    if values and given:
        raise InputError(f"{settings.where}: {name} and {given[0]}: expected one of them")
    if given:
        missing = [side for side in sides if side not in settings]
        if missing and low > 0:
            raise InputError(f"{settings.where}: {given[0]} without {missing[0]}: expected both")
        height, width = (settings.integer(side, low, low, high) for side in sides)
        return height, width
    if not values and default is not None:
        values = [default]
    if len(values) not in (1, 2):
        raise InputError(f"{settings.where}: {name} has {len(values)} numbers: expected one, or height and width")
    return values[0], values[-1]


def _axis(settings: Message, shape: Shape, alias: str = "") -> int:
    """The axis a layer works along, counted from the front: not the rows."""
    name = alias if alias in settings else "axis"
    axis = settings.integer(name, 1, -LARGE_AXIS, LARGE_AXIS)
    found = axis + len(shape) if axis < 0 else axis
    if not 1 <= found < len(shape):
        raise settings.wrong(name, axis, f"an axis of 1 to {len(shape) - 1}")
    return found


def _x(shape: Shape) -> str:
    """A shape without its rows."""
    return "x".join(map(str, shape[1:]))
