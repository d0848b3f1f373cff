"""A prototxt as one torch module: the layers of its test phase, in order, each under Caffe's name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, error_text
from phosphene.networks.sources.caffe.blobs import Shape, blob_shapes
from phosphene.networks.sources.caffe.layers import LAYER_TYPES, WITHOUT_EFFECT, LayerType, type_key
from phosphene.networks.sources.caffe.text import Message, near, shown

MOST_LAYERS = 4_000  # ResNet-152 has 1,500
MOST_NUMBERS = 1 << 28  # in one blob, for one image: 1 GiB
MOST_IN_ALL = 1 << 30  # numbers that all layers give for one image: 4 GiB; of VGG16 at its size a fortieth
LARGEST_IMAGE = 1 << 12  # pixels a side


@dataclass(frozen=True)
class Input:
    """The blob that the images are.

    Attributes:
        shape: as the definition declares it: rows, channels, height, width.
        mean, scale: what a data layer subtracts by channel, and multiplies the difference with; no mean where the
            definition does not say.
        mean_file: the mean file that a data layer names instead.
    """

    blob: str
    shape: Shape
    mean: tuple[float, ...] | None = None
    scale: float = 1.0
    mean_file: str = ""


class LayerSpec(NamedTuple):
    """A layer of the definition that has a part in a test."""

    name: str
    type: LayerType
    settings: Message
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]


class UnknownLayerSpec(NamedTuple):
    """A layer that cannot be rebuilt, and why not."""

    name: str
    type_name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    reason: InputError


class GraphCall(NamedTuple):
    """A layer's module by name, the blobs it takes and makes, and those that nobody needs afterwards."""

    module: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    done_with: tuple[str, ...] = ()


class Graph(nn.Module):
    """A network of Caffe layers.  Takes images (rows, channels, height, width), gives its last output."""

    def __init__(self, modules: dict[str, nn.Module], calls: list[GraphCall], images: str, output: str):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._calls, self._images, self._output = _with_lifetimes(calls, output), images, output

    def forward(self, images: Tensor) -> Tensor:
        blobs = {self._images: images}
        for call in self._calls:
            made = self.get_submodule(call.module)(*(blobs[blob] for blob in call.bottoms))
            several = made if isinstance(made, tuple) else (made,) * len(call.tops)
            blobs.update(zip(call.tops, several, strict=True))
            for blob in call.done_with:
                del blobs[blob]
        return blobs[self._output]


def _with_lifetimes(calls: list[GraphCall], output: str) -> list[GraphCall]:
    needed = {output}
    lasting = []
    for call in reversed(calls):
        done_with = {blob for blob in call.bottoms + call.tops if blob not in needed}
        lasting.append(call._replace(done_with=tuple(done_with)))
        needed.difference_update(call.tops)
        needed.update(call.bottoms)
    return lasting[::-1]


class BuiltGraph(NamedTuple):
    """What a definition says.

    Attributes:
        graph: the network, whose parameters have no memory yet (torch's meta device).
        layers: its layers, each with its module.
        input: its input.
        output: the shape of what it gives.
        fixed_size: whether it takes images of that size only.
        stops: where the definition goes on with what cannot be rebuilt, and why; empty where all is here.
    """

    graph: Graph
    layers: list[tuple[LayerSpec, nn.Module]]
    input: Input
    output: Shape
    fixed_size: bool
    stops: str = ""


def build(definition: Message, most: int | None = None) -> BuiltGraph:
    """The network of a definition.

    Args:
        most: parameters that it may have.

    A layer is the submodule of its name, with "_" for "." and "#".  Behind a name that torch has for something else is
    a "_", and behind one that was there already which layer it is of all.  Layers of unknown types are left out, with
    all that is made of what they make.

    Raises:
        InputError: no layer is known, or a setting is unknown, wrong or too large, or does not fit its input.
    """
    input_, layers, stops = _input_and_layers(definition)
    shapes = {input_.blob: input_.shape}
    modules: dict[str, nn.Module] = {}
    with_weights: set[str] = set()
    built, calls = [], []
    open_ends: dict[str, None] = {}
    parameters = made = 0
    for layer in layers:
        module = _built(layer, shapes)
        parameters += sum(map(math.prod, blob_shapes(module)))
        if most is not None and parameters > most:
            raise InputError(
                f"{layer.settings.where}: up to it the definition asks for {parameters:,} parameters: expected "
                f"{most:,} at most without its weights"
            )
        made += sum(math.prod(shapes[top][1:]) for top in layer.tops)
        if made > MOST_IN_ALL:
            raise InputError(f"{layer.settings.where}: up to it {made:,} numbers are made: expected {MOST_IN_ALL:,}")
        if blob_shapes(module):
            if layer.name in with_weights:
                raise InputError(f"{layer.settings.where}: another layer has this name, and both have weights")
            with_weights.add(layer.name)
        name = _free_name(layer.name, modules)
        modules[name] = module
        built.append((layer, module))
        calls.append(GraphCall(name, layer.bottoms, layer.tops))
        for blob in layer.bottoms:
            open_ends.pop(blob, None)
        open_ends |= dict.fromkeys(layer.tops)
    output = list(open_ends)[-1]
    graph = Graph(modules, calls, input_.blob, output).eval()
    rows, channels, height, width = input_.shape
    fixed = not _takes(built, input_.blob, (rows, channels, 2 * height, 2 * width))
    if stops:
        last = next(layer.name for layer in reversed(layers) if output in layer.tops)
        stops = f"{stops}; the network ends at {shown(last)}"
    return BuiltGraph(graph, built, input_, shapes[output], fixed, stops)


def _takes(layers: list[tuple[LayerSpec, nn.Module]], images: str, shape: Shape) -> bool:
    """Whether all layers take what they get of images of a shape."""
    shapes = {images: shape}
    try:
        with torch.device("meta"), torch.no_grad():
            for layer, module in layers:
                shapes |= zip(layer.tops, _given(layer, module, [shapes[blob] for blob in layer.bottoms]), strict=True)
    except _WRONG_SHAPE:
        return False
    return True


def _given(layer: LayerSpec, module: nn.Module, bottoms: list[Shape]) -> list[Shape]:
    """The shapes of what a layer gives, by running it on tensors without memory, or where it keeps them, at once."""
    if layer.type.keeps_shape and len(bottoms) == 1:
        return [bottoms[0]] * len(layer.tops)
    made = module(*map(torch.empty, bottoms))
    several = made if isinstance(made, tuple) else (made,) * len(layer.tops)
    return [tuple(blob.shape) for blob in several]


_WRONG_SHAPE = (RuntimeError, ValueError, IndexError, TypeError, OverflowError)


def _built(layer: LayerSpec, shapes: dict[str, Shape]) -> nn.Module:
    """A layer's module; the shapes of what it makes are put among the others."""
    where = layer.settings.where
    for blob in layer.bottoms:
        if blob not in shapes:
            raise InputError(f"{where}: nothing before it makes its bottom {shown(blob)}{near(blob, shapes)}")
    bottoms = [shapes[blob] for blob in layer.bottoms]
    try:
        with torch.device("meta"), torch.no_grad():
            module = layer.type.build(layer.settings, bottoms, len(layer.tops)).eval()
            layer.settings.refuse_unread(WITHOUT_EFFECT)
            made = _given(layer, module, bottoms)
    except InputError:
        raise
    except _WRONG_SHAPE as error:
        fed = " and ".join("x".join(map(str, shape[1:])) for shape in bottoms)
        raise InputError(f"{where} does not take {fed} ({error_text(error)})") from error
    for top, shape in zip(layer.tops, made, strict=True):
        if shape[:1] != bottoms[0][:1]:
            raise InputError(f"{where} mixes the images of a batch: expected each by itself")
        if math.prod(shape[1:]) > MOST_NUMBERS:
            raise InputError(f"{where} makes {math.prod(shape[1:]):,} numbers: expected up to {MOST_NUMBERS:,}")
        shapes[top] = shape
    return module


_TAKEN = set(dir(Graph({}, [], "", "")))


def _free_name(name: str, modules: dict[str, nn.Module]) -> str:
    name = name.replace(".", "_").replace("#", "_")
    if name in modules:
        name += f"_{len(modules) + 1}"
    while name in modules or name in _TAKEN or not name:
        name += "_"
    return name


# From the definition to its layers.

# What only trains or tests, and has no part in what the network says of an image.
_DROPPED = {
    type_key(name)
    for name in (
        *("Accuracy", "ContrastiveLoss", "EuclideanLoss", "HDF5Output", "HingeLoss", "InfogainLoss"),
        *("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "Silence", "SoftmaxLoss", "SoftmaxWithLoss"),
    )
}
_DATA = {
    type_key(name): settings
    for name, settings in (
        *(("Data", "data_param"), ("ImageData", "image_data_param"), ("MemoryData", "memory_data_param")),
        *(("WindowData", "window_data_param"), ("HDF5Data", "hdf5_data_param"), ("DummyData", "dummy_data_param")),
    )
}
# How a layer is trained.  Settings for layers of other types are no matter to Caffe either.
_OF_NO_MATTER = ("param", "blobs_lr", "weight_decay", "loss_weight", "propagate_down", "phase", "blob_share_mode")


def _input_and_layers(definition: Message) -> tuple[Input, list[LayerSpec], str]:
    """The images, the layers that can be rebuilt, and what is to be said of the others."""
    inputs = _declared_inputs(definition)
    entries: list[LayerSpec | UnknownLayerSpec] = []
    for message in _layer_messages(definition):
        if not _in_test(message):
            continue
        name, type_ = message.text("name"), message.text("type")
        message.where += f": layer {shown(name)} ({shown(type_)})"
        bottoms, tops, key = message.texts("bottom"), message.texts("top"), type_key(type_)
        if key == "input":
            inputs += _input_layer(message, tops)
        elif key in _DATA:
            inputs.append(_data_layer(message, tops, _DATA[key]))
        elif key not in _DROPPED:
            entries.append(_layer(message, name, key, bottoms, tops))
    definition.refuse_unread(("name", "force_backward", "state", "debug_info"))
    used = {blob for entry in entries for blob in entry.bottoms}
    fed = [input_ for input_ in inputs if input_.blob in used]
    if not fed:
        raise InputError(f"{definition.where} has no input: expected one, of images (a deploy.prototxt)")
    images = fed[0] if len(fed) == 1 else _images_among(fed, definition.where)
    layers, stops = _rebuilt(entries, images, {input_.blob for input_ in fed if input_ is not images})
    _check_image(images, definition.where)
    return images, layers, stops


def _images_among(inputs: list[Input], where: str) -> Input:
    """The one of several inputs that has maps: the others are numbers, such as boxes or the size of an image."""
    maps = [input_ for input_ in inputs if len(input_.shape) == 4 and min(input_.shape[2:]) > 1]
    if len(maps) != 1:
        names = ", ".join(shown(input_.blob) for input_ in inputs[:4])
        raise InputError(f"{where} has {len(inputs)} inputs ({names}): expected one, of images (a deploy.prototxt)")
    return maps[0]


def _rebuilt(
    entries: list[LayerSpec | UnknownLayerSpec], images: Input, others: set[str]
) -> tuple[list[LayerSpec], str]:
    """The layers that hang on the images and on known layers only, and where and why there are no more.

    Raises:
        InputError: there is none.
    """
    lost = set(others)  # blobs that cannot be had
    layers: list[LayerSpec] = []
    reasons: dict[str, None] = {}
    first: InputError | None = None
    for entry in entries:
        missing = next((blob for blob in entry.bottoms if blob in lost), None)
        if isinstance(entry, LayerSpec) and missing is None:
            lost.difference_update(entry.tops)
            layers.append(entry)
            continue
        lost.update(entry.tops)
        if isinstance(entry, UnknownLayerSpec):
            first = first or entry.reason
            if missing is None or missing in others:
                reasons[f"layer {shown(entry.name)} is a {shown(entry.type_name)}, which is not known"] = None
        elif missing in others:
            reasons[f"layer {shown(entry.name)} takes the input {shown(missing)}, which is no image"] = None
    if not layers and entries:
        raise first or InputError(f"no layer takes the images {shown(images.blob)} alone: expected a deploy.prototxt")
    left = len(entries) - len(layers)
    if not left:
        return layers, ""
    shown_reasons = " and ".join(list(reasons)[:_MOST_REASONS])
    return layers, f"{left} of {len(entries)} layers are left out: {shown_reasons}"


def _layer_messages(definition: Message) -> list[Message]:
    new, old = definition.messages("layer"), definition.messages("layers")
    if new and old:
        raise InputError(f"{definition.where} has both layer and layers: expected one way to write them")
    found = new or old
    if not found:
        raise InputError(f"{definition.where} has no layers: expected the definition of a Caffe network")
    if len(found) > MOST_LAYERS:
        raise InputError(f"{definition.where} has {len(found):,} layers: expected up to {MOST_LAYERS:,}")
    if any("layer" in message for message in old):
        raise InputError(
            f"{definition.where} is in Caffe's oldest format (2013): expected it as Caffe's upgrade_net_proto_text "
            "writes it"
        )
    return found


def _in_test(message: Message) -> bool:
    """Whether a layer's rules let it take part in a test, at level 0 and no stage."""
    include, exclude = message.messages("include"), message.messages("exclude")
    if include:
        return any(map(_meets, include))
    return not any(map(_meets, exclude))


def _meets(rule: Message) -> bool:
    phase = rule.choice("phase", ("TRAIN", "TEST"), "TEST")
    levels = rule.integer("min_level", 0, -(2**31)) <= 0 <= rule.integer("max_level", 0, -(2**31))
    return phase == "TEST" and levels and "stage" not in rule


_MOST_REASONS = 3  # that a note gives


def _layer(message: Message, name: str, key: str, bottoms: list[str], tops: list[str]) -> LayerSpec | UnknownLayerSpec:
    where = message.where
    if key not in LAYER_TYPES:
        type_name = message.text("type")
        known = near(type_name, [type_.name for type_ in LAYER_TYPES.values()])
        reason = f"{where}: layers of this type are not known{known or ', so the network cannot be rebuilt'}"
        return UnknownLayerSpec(name, type_name, tuple(bottoms), tuple(tops), InputError(reason))
    type_ = LAYER_TYPES[key]
    least, most = type_.bottoms
    if not least <= len(bottoms) <= most:
        raise InputError(f"{where} has {len(bottoms)} bottoms: expected {least}{' or more' * (most > least)}")
    if not tops or (len(tops) > 1 and not type_.several_tops) or len(set(tops)) < len(tops):
        raise InputError(
            f"{where} has {len(tops)} tops: expected {'names of their own' if type_.several_tops else 'one'}"
        )
    settings = message.message(type_.settings) if type_.settings else Message(where)
    others = [field for field in message.names() if field.endswith("_param")]
    message.refuse_unread((*_OF_NO_MATTER, *others))
    return LayerSpec(name, type_, settings, tuple(bottoms), tuple(tops))


def _declared_inputs(definition: Message) -> list[Input]:
    """The inputs of definitions without Input layers."""
    names = definition.texts("input")
    shapes = [shape.integers("dim") for shape in definition.messages("input_shape")]
    if not shapes:
        dims = definition.integers("input_dim")
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    if len(shapes) != len(names):
        raise InputError(f"{definition.where} has {len(names)} inputs and {len(shapes)} shapes of them: expected pairs")
    return [Input(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True)]


def _input_layer(message: Message, tops: list[str]) -> list[Input]:
    shapes = [shape.integers("dim") for shape in message.message("input_param").messages("shape")]
    if len(shapes) == 1:
        shapes *= len(tops)
    if len(shapes) != len(tops):
        raise InputError(f"{message.where} has {len(tops)} tops and {len(shapes)} shapes: expected one for each")
    return [Input(name, tuple(shape)) for name, shape in zip(tops, shapes, strict=True)]


def _data_layer(message: Message, tops: list[str], settings_field: str) -> Input:
    """The images of a data layer, whose size is that of its crops or of what it resizes to."""
    settings, transform = message.message(settings_field), message.message("transform_param")
    crop = transform.integer("crop_size", 0) or settings.integer("crop_size", 0)
    height = crop or settings.integer("new_height", 0) or sum(settings.integers("height")[:1])
    width = crop or settings.integer("new_width", 0) or sum(settings.integers("width")[:1])
    if not tops or not height or not width:
        raise InputError(f"{message.where} does not say what size its images have: expected a deploy.prototxt")
    gray = transform.flag("force_gray", False) or not settings.flag("is_color", True)
    channels = sum(settings.integers("channels")[:1]) or (1 if gray else 3)
    mean = transform.numbers("mean_value")
    if len(mean) not in (0, 1, channels):
        raise InputError(f"{message.where} has {len(mean)} mean values: expected one, or {channels}")
    scale = transform.number("scale", 1.0) if "scale" in transform else settings.number("scale", 1.0)
    if scale <= 0:
        raise InputError(f"{message.where}: scale is {scale}: expected a number above 0")
    file = transform.text("mean_file") or settings.text("mean_file")
    if len(mean) < channels:
        mean = (mean or [0.0]) * channels
    return Input(tops[0], (1, channels, height, width), None if file else tuple(mean), scale, file)


def _check_image(input_: Input, where: str) -> None:
    shape = input_.shape
    if len(shape) != 4 or min(shape) < 1 or shape[1] > LARGEST_IMAGE or max(shape[2:]) > LARGEST_IMAGE:
        shown_shape = "x".join(map(str, shape[:8])) or "none"
        raise InputError(
            f"{where}: the input {shown(input_.blob)} has the shape {shown_shape}: expected rows x channels x height "
            f"x width, of 1 to {LARGEST_IMAGE} each"
        )
