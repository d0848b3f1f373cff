"""Networks of Keras 3, run on its torch backend: `.keras` and `.h5` files, `keras.applications`, and one's own."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import InputError, did_you_mean
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.labels import assumed_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.keras.backend import import_keras
from phosphene.networks.sources.keras.files import (
    all_layers,
    check_h5,
    put_keras_weights,
    read_h5,
    read_keras,
    reason,
)
from phosphene.networks.sources.keras.vgg import is_old_vgg, read_old_vgg

SUFFIXES = (".keras", ".h5", ".hdf5")
_SIZE = 224  # pixels, for a model that takes any


def open_keras(source: Any, weights: str | Path | None = None, pretrained: bool = True) -> Network:
    """A network of Keras, by name, from a file, or as it is.

    Args:
        source: a name of `keras.applications` in any case; a `.keras`, `.h5` or `.hdf5` file with a model in it, or
            with the weights of a VGG of Keras 1 or 2; or a `keras.Model`, which stays the caller's.
        weights: a file of weights for a name or for the model of a file: `.weights.h5`, `.h5` or `.keras`.
        pretrained: False leaves a named network, or that of a file, untrained.

    Raises:
        InputError: Keras is missing or runs on another backend, the name is unknown (with the nearest), the file is
            damaged, runs code or is of another network, or the weights cannot be had.
    """
    if not isinstance(source, str | Path):
        return _of_model(source, weights, pretrained)
    path = Path(source)
    if path.suffix.lower() in SUFFIXES:
        return _of_file(path, weights, pretrained)
    return _application(str(source), weights, pretrained)


class KerasModule(nn.Module):
    """A Keras model as a torch module, whose submodules are its layers under their names (`outer/inner`).

    Args:
        model: of one input, on Keras's torch backend.
        layers: its layers by name, without those that only stand for an input.

    A model in Keras calls its layers, but does not have them as submodules; here they are, and their forward hooks are
    called.  All weights are the parameters of this module, each once.
    """

    model: Any

    def __init__(self, model: Any, layers: dict[str, Any]):
        super().__init__()
        object.__setattr__(self, "model", model)  # no submodule: it has its layers' parameters once more
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.last = _is_channels_last(model)

    def forward(self, images: Tensor) -> Any:
        """Images in the model's own layout; a map that comes out is (rows, channels, height, width)."""
        import keras

        with ExitStack() as stack:
            stack.enter_context(keras.device(str(images.device)))
            for layer in self.children():
                # Keras keeps what went into a softmax or sigmoid with what comes out of it.  Where that is bypassed,
                # these two are one, and would keep all of the pass alive.
                if _ends_classes(layer):
                    stack.callback(layer.register_forward_hook(_forget_logits).remove)
            try:
                output = self.model(images, training=False)
            except ValueError as error:  # a page of text, of which the reason is a line
                raise ValueError(reason(error)) from error
        return output.movedim(-1, 1) if isinstance(output, Tensor) and output.ndim == 4 and self.last else output

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        # By place: Keras numbers the layers that nobody named through all models of a process.
        for index, variable in enumerate(self.model.weights):
            yield f"{prefix}{'.' if prefix else ''}{index}.{variable.name}", variable.value

    def state_dict(  # type: ignore[override]
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        # As the parameters: the layers' own dictionaries have the seeds of their dropout besides.
        destination = {} if destination is None else destination
        for name, parameter in self.named_parameters():
            destination[prefix + name] = parameter if keep_vars else parameter.detach()
        return destination


def _ends_classes(layer: nn.Module) -> bool:
    """Whether the layer is a softmax or a sigmoid, or has one in it."""
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    return type(layer).__name__ == "Softmax" or activation in ("softmax", "sigmoid")


def _forget_logits(layer: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and vars(output).get("_keras_logits") is output:
        del vars(output)["_keras_logits"]


def _of_model(model: Any, weights: str | Path | None, pretrained: bool) -> Network:
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise InputError(f"a network of type {type(model).__name__}: expected a keras.Model")
    if weights is not None or not pretrained:
        raise InputError(f"{model.name} is a model of your own: put its weights into it in Python")
    return _network(model, model.name)


def _of_file(path: Path, weights: str | Path | None, pretrained: bool) -> Network:
    import_keras()
    trained = pretrained and weights is None
    if path.suffix.lower() == ".keras":
        model = read_keras(path, trained)
    else:
        check_h5(path)
        model = read_old_vgg(path, trained=trained) if is_old_vgg(path) else read_h5(path, trained)
    if weights is not None:
        model = put_keras_weights(lambda: model, Path(weights), path.stem)
    return _network(model, path.stem, path)


def _application(name: str, weights: str | Path | None, pretrained: bool) -> Network:
    keras = import_keras()
    found = {function: getattr(keras.applications, function) for function in dir(keras.applications)}
    known = {function.lower(): function for function, value in found.items() if inspect.isfunction(value)}
    if name.lower() not in known:
        raise InputError(f"keras.applications has no network {name!r}{did_you_mean(name, known.values())}")
    name = known[name.lower()]
    if weights is not None:
        model = _application_with(name, found[name], Path(weights))
    else:
        try:
            with keras.device("cpu"), redirect_stdout(sys.stderr), shown_downloads(f"weights of {name}"):
                model = found[name](weights="imagenet" if pretrained else None)
        except Exception as error:
            what = f"the pretrained weights of {name} cannot be had" if pretrained else f"{name} cannot be built"
            give = "; give them as a file (--weights FILE)" if pretrained else ""
            raise InputError(f"{what}: {reason(error).split('. ')[0]}{give}") from error
    family = found[name].__module__.rpartition(".")[2]
    return _network(model, name, mode=preprocessing_mode(keras, family))


def _application_with(name: str, build: Callable[..., Any], path: Path) -> Any:
    """A named network with the weights of a file, which may be those without the classifier."""
    if path.suffix in (".h5", ".hdf5"):
        check_h5(path)
        if name in ("VGG16", "VGG19") and is_old_vgg(path):
            return read_old_vgg(path, name)
    try:
        return put_keras_weights(lambda: build(weights=None), path, name)
    except InputError as error:
        try:
            return put_keras_weights(lambda: build(weights=None, include_top=False), path, name)
        except InputError:
            raise error from error.__cause__


def _of_any_size(model: Any, shape: tuple[int, ...]) -> Any:
    """The same model for images of any height and width; None where something in it is made for images of `shape`."""
    keras = import_keras()
    sides = (1, 2) if _is_channels_last(model) else (2, 3)

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.Model):
            return layer.__class__.from_config(layer.get_config())
        free = [None if axis in sides else side for axis, side in enumerate(layer.input_shape)]
        return keras.models.clone_model(layer, input_tensors=keras.Input(free[1:]), clone_function=copy)

    try:
        with keras.device("cpu"):
            clone = copy(model)
            clone.set_weights(model.get_weights())
        with keras.device("meta"):
            other = [side + 32 if axis in sides else side for axis, side in enumerate((1, *shape[1:]))]
            clone(torch.empty(other, device="meta"), training=False)
    except Exception:  # a fully connected layer behind a map, or learned positions
        return None
    same = [weight.path for weight in clone.weights] == [weight.path for weight in model.weights]
    return clone if same else None


def _network(model: Any, name: str, path: Path | None = None, mode: str | None = None) -> Network:
    """The network of a model: of a file, of `keras.applications` (which say what it expects), or of the caller's."""
    size, channels, fixed = _input(model, name)
    if fixed and (path or mode) and (clone := _of_any_size(model, model.input_shape)) is not None:
        model, fixed = clone, False
    module = KerasModule(model, _named_layers(model, fresh=mode is not None))
    known, sure = (mode, True) if mode else _known_application(model)
    preprocessing = Preprocessing.preset(
        # Of the means it is not known what they are for other than colors.
        "unit" if channels != 3 and known in ("caffe", "torch") else known,
        size=size,
        channels=channels,
        layout="NHWC" if module.last else "NCHW",
        interpolation="bilinear",
        resize="squash",
        fixed_size=fixed,
    )
    notes = {}
    if not sure:
        says = f"{path.stem}.toml beside it or --preprocessing" if path else "a Preprocessing given to phosphene.open"
        notes["preprocessing"] = (
            f"what {path.name if path else name} expects is not in the {'file' if path else 'model'}: "
            f"{preprocessing.describe()} is assumed; `phosphene doctor --images DIR` finds out, and {says} says it"
        )
    labels = assumed_labels(_outputs(model))
    if labels is not None and not mode:
        notes["labels"] = (
            f"what the outputs of {path.name if path else name} mean is not in the {'file' if path else 'model'}: "
            "ImageNet's classes are assumed"
        )
    return Network(module, preprocessing, labels, name, notes=notes)


def _named_layers(model: Any, fresh: bool) -> dict[str, Any]:
    """A model's layers by name; `fresh` counts those that nobody named as in a process that has no other model."""
    layers = [(name, layer) for name, layer in all_layers(model) if type(layer).__name__ != "InputLayer"]
    first: dict[str, int] = {}
    if fresh:
        for name, layer in layers:
            if number := _number(name, layer):
                kind, count = number
                first[kind] = min(count, first.get(kind, count))
    named: dict[str, Any] = {}
    for name, layer in layers:
        number = _number(name, layer)
        if fresh and number:
            kind, count = number
            name = f"{kind}_{count - first[kind]}" if count > first[kind] else kind
        named.setdefault(name.replace(".", "_"), layer)
    return named


def _number(name: str, layer: Any) -> tuple[str, int] | None:
    """A name that Keras gave ("conv2d_7"), as the kind and the number; MobileNet's "reshape_2" is its own."""
    match = re.fullmatch(r"(\w+?)(?:_(\d+))?", name)
    if match is None or name == "reshape_2" or match[1].replace("_", "") != type(layer).__name__.lower():
        return None
    return match[1], int(match[2] or 0)


def _input(model: Any, name: str) -> tuple[tuple[int, int], int, bool]:
    """The size of the images that a model takes, their channels, and whether it takes that size only."""
    shape = getattr(model, "input_shape", None)
    if shape is None:
        raise InputError(f"{name} says not what its input is: expected a Functional or a built Sequential model")
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise InputError(f"{name} takes an input of shape {shape}: expected one, of images")
    channels = shape[-1] if _is_channels_last(model) else shape[1]
    if channels is None:
        raise InputError(f"{name} takes an input of shape {shape}: expected one with a number of channels")
    height, width = _spatial(model, shape)
    return (height or _SIZE, width or _SIZE), channels, None not in (height, width)


def _spatial(model: Any, shape: tuple[int | None, ...]) -> tuple[int | None, int | None]:
    return (shape[1], shape[2]) if _is_channels_last(model) else (shape[2], shape[3])


def _is_channels_last(model: Any) -> bool:
    """By the first layer that says, such as a convolution; otherwise by where the input has few channels."""
    orders = (getattr(layer, "data_format", None) for _, layer in all_layers(model))
    order = next((order for order in orders if order in ("channels_last", "channels_first")), None)
    if order is None:
        shape: Any = getattr(model, "input_shape", ())
        return len(shape) != 4 or shape[-1] in (1, 3, 4) or shape[1] not in (1, 3, 4)
    return bool(order == "channels_last")


def _outputs(model: Any) -> int:
    """How many classes a model has, as far as its shape tells; otherwise 0."""
    shape = getattr(model, "output_shape", None)
    shape = shape[0] if isinstance(shape, list) and shape else shape
    return math.prod(shape[1:]) if isinstance(shape, tuple) and None not in shape[1:] else 0


# By the name of one of its layers, the module of `keras.applications` that a network is of.  The first that fits.
FAMILIES = (
    ("xception", r"block2_sepconv1"),
    ("densenet", r"conv2_block1_concat"),
    ("resnet_v2", r"conv2_block1_preact_bn"),
    ("resnet", r"conv2_block1_1_conv|res2a_branch2a"),
    ("mobilenet_v3", r"expanded_conv_1_expand"),
    ("mobilenet_v2", r"block_1_expand|expanded_conv_depthwise"),
    ("mobilenet", r"conv_dw_1"),
    ("inception_resnet_v2", r"conv_7b|block8_10_mixed"),
    ("inception_v3", r"mixed10"),
    ("nasnet", r"(separable_conv_1_)?(bn_)?normal_left1_0|normal_concat_0"),
    ("efficientnet_v2", r"block1a_project_conv"),
    ("efficientnet", r"block1a_dwconv"),
    ("convnext", r".*_stage_0_block_0_depthwise_conv"),
    ("vgg16", r"block1_conv1"),
)


def _known_application(model: Any) -> tuple[str, bool]:
    """What a model expects, by what it does to its input and by its family; and whether that is more than a guess."""
    keras = import_keras()
    layers = [layer for _, layer in all_layers(model)]
    names = [layer.name for layer in layers]
    family = next((family for family, name in FAMILIES if any(re.fullmatch(name, own) for own in names)), None)
    mode = preprocessing_mode(keras, family) if family else None
    for operation in _before_weights(model):
        kind = type(operation).__name__
        if kind == "Rescaling":
            return ("byte" if np.max(np.abs(operation.scale)) < 0.1 else "unit"), True
        if kind == "Normalization":
            return "byte", mode == "byte"
        if kind in ("TrueDivide", "Divide", "Subtract", "GetItem", "Multiply", "Add"):  # preprocess_input, called in it
            return "byte", False
    if mode == "byte":  # its own rescaling was left out
        return "tf", False
    return (mode, True) if mode else ("unit", False)


def _before_weights(model: Any) -> Iterator[Any]:
    """The operations from a model's input to its first layer with weights."""
    for operation in getattr(model, "operations", model.layers):
        if getattr(operation, "layers", None):
            yield from _before_weights(operation)
            return
        if getattr(operation, "weights", None) and type(operation).__name__ != "Normalization":
            return
        yield operation


def preprocessing_mode(keras: Any, family: str) -> str:
    """What the `preprocess_input` of a module of `keras.applications` does, from what it makes of two colors."""
    pixels = np.array([[[[0.0, 0.0, 0.0], [255.0, 255.0, 0.0]]]])
    first, second = getattr(keras.applications, family).preprocess_input(pixels, data_format="channels_last")[0, 0]
    if not first.any():
        return "byte" if second[0] == 255 else "unit"
    if np.allclose(first, -1):
        return "tf"
    return "caffe" if second[0] < 0 < second[2] else "torch"
