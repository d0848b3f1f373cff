"""The description of a model in a file of Keras's: of its own layers only, none of which holds code."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from phosphene.errors import InputError
from phosphene.networks.sources.keras.backend import import_keras

_MOST_LAYERS = 1_500  # each takes Keras some 10 ms; NASNetLarge has 1,041


def checked_configuration(config: Any) -> dict[str, Any]:
    """A model's configuration as Keras 3 spells it.

    Raises:
        InputError: something in it is not Keras's own or would run code, or it has too many layers.
    """
    config = _modern(config, _renamed(config))
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise InputError("it describes no model")
    _check_layers(config)
    return config


def _check_layers(config: Any) -> None:
    """Refuse more layers than Keras builds soon."""
    count = 0
    todo = [config]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            inner = node.get("config")
            named = isinstance(inner, dict) and "name" in inner and "class_name" in node
            count += named and "Policy" not in str(node["class_name"])  # which each layer has one of
            todo += node.values()
        elif isinstance(node, list):
            todo += node
    if count > _MOST_LAYERS:
        raise InputError(f"it has {count:,} layers: expected {_MOST_LAYERS:,} at most")


# Whose configuration, or a file it names, Keras would run or read.
_EXECUTING = {
    *("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "StringLookup"),
    *("IntegerLookup", "TextVectorization"),
}
_TENSORFLOWS = {"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod"}
_PLAIN = {"__keras_tensor__", "__ellipsis__", "__slice__", "__numpy__", "__tensor__", "TensorShape"}
_PLACES = {
    *("keras", "keras.activations", "keras.constraints", "keras.dtype_policies", "keras.initializers"),
    *("keras.layers", "keras.models", "keras.quantizers", "keras.regularizers", "builtins"),
}
_FOLDERS = ("activations", "applications", "dtype_policies", "initializers", "layers", "models", "ops", "regularizers")
# Keras's own layers that it does not list under `keras.layers`.
_UNLISTED = {
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
    "LayerScale": "keras.src.applications.convnext",
}
# What Keras 2 wrote and Keras 3 takes no more.
_SEPARABLE = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_DROPPED = {
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "DepthwiseConv1D": _SEPARABLE,
    "DepthwiseConv2D": _SEPARABLE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
}


def _renamed(config: Any) -> dict[str, str]:
    """New names for the layers whose names Keras 3 refuses: `conv1/conv` of Keras 2."""
    names: dict[str, str] = {}
    todo = [config]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            inner = node.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            if isinstance(name, str) and "/" in name:
                names[name] = name.replace("/", "_")
        if isinstance(node, dict | list):
            todo += node.values() if isinstance(node, dict) else node
    return names


def _modern(node: Any, names: dict[str, str]) -> Any:
    """A configuration as Keras 3 spells it, if all in it is Keras's own and none of it code."""
    if isinstance(node, str):
        return names.get(node, node)
    if isinstance(node, list):
        return [_modern(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("class_name") == "__tuple__":
        return _modern(node.get("items"), names)
    if "class_name" in node and "config" in node:
        if str(node.get("module")).startswith("tensorflow.python.ops.init_ops"):
            node = node | {"module": "keras.initializers", "registered_name": None}
        _check_class(node)
    node = {key: _modern(value, names) for key, value in node.items() if key not in ("compile_config", "build_config")}
    if "class_name" in node and "config" in node:
        if node["class_name"] in ("Functional", "Model") and "module" in node:
            node |= {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": None}
        if node["class_name"] in _UNLISTED:
            node |= {"module": _UNLISTED[node["class_name"]], "registered_name": node["class_name"]}
        if node["class_name"] == "BatchNormalization" and isinstance(node["config"].get("axis"), list):
            (node["config"]["axis"],) = node["config"]["axis"]
        for key in _DROPPED.get(node["class_name"], ()):
            node["config"].pop(key, None)
        if isinstance(node["config"], dict):
            node["config"] = _without_unknown(node["class_name"], node["config"])
    return node


def _without_unknown(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Without what a later Keras than this one wrote, where it is switched off (None or False)."""
    known = _parameters(kind)
    if not known:
        return config
    if not config.get("renorm"):  # of batch norm; what goes with it has numbers
        config = {key: value for key, value in config.items() if not key.startswith("renorm_")}
    return {key: value for key, value in config.items() if key in known or not (value is None or value is False)}


@lru_cache
def _parameters(kind: str) -> frozenset[str]:
    """What one of Keras's own layers or initializers may be given; nothing where it is something else."""
    keras = import_keras()
    own = getattr(keras.layers, kind, None) or getattr(keras.initializers, kind, None)
    if not inspect.isclass(own):
        return frozenset()
    makers = [vars(base)["__init__"] for base in own.__mro__ if "__init__" in vars(base)]
    return frozenset(name for maker in makers for name in inspect.signature(maker).parameters)


def _check_class(node: dict[str, Any]) -> None:
    kind, module, inner = node["class_name"], node.get("module"), node["config"]
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(kind, str) or not isinstance(module, str | None) or not kind.isidentifier():
        raise InputError("a layer's type is no word: the file is damaged")
    what = f"layer {name!r} is of type {kind}" if name else f"it holds a {kind}"
    if kind in _EXECUTING:
        raise InputError(
            f"{what}, which runs code or reads files that the model names, and is not loaded: build the model in "
            "Python, and open that"
        )
    if kind in _TENSORFLOWS:
        raise InputError(
            f"{what}, an operation of TensorFlow in a model of Keras 2: save the model's weights there, and give them "
            "to the same network of Keras 3"
        )
    registered = node.get("registered_name")
    own = kind in _PLAIN or kind in _UNLISTED or _is_own(kind, module)
    if not own or (isinstance(registered, str) and ">" in registered):
        raise InputError(f"{what}, which is not Keras's own: build the model in Python, and open that")


def _is_own(kind: str, module: str | None) -> bool:
    if kind in ("Functional", "Model", "Sequential"):
        return module is None or module.partition(".")[0] in ("keras", "tensorflow")
    if module is not None:
        return module in _PLACES or module.startswith(tuple(f"keras.src.{folder}" for folder in _FOLDERS))
    keras = import_keras()
    places = (keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies)
    return kind == "Policy" or any(hasattr(place, kind) for place in places)
