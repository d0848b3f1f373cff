"""Opening networks: one function, one small module per source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, get_args

from torch import nn
from typing_extensions import Unpack

from phosphene import defaults
from phosphene.errors import InputError, did_you_mean
from phosphene.extras import require
from phosphene.files import is_file
from phosphene.networks.description import Description, read_description
from phosphene.networks.labels import Labels, read_labels
from phosphene.networks.network import Network
from phosphene.networks.outputs import Probability
from phosphene.networks.preprocessing import PRESETS, Preprocessing
from phosphene.networks.sources import bundled, programs
from phosphene.networks.sources.libraries import open_module
from phosphene.networks.sources.python import is_factory, open_factory
from phosphene.networks.sources.timm import is_timm, open_timm, timm_names
from phosphene.networks.sources.torchvision import is_torchvision, open_torchvision, torchvision_names
from phosphene.networks.sources.transforms import is_transforms, is_weights, read_transforms
from phosphene.networks.tokens import parse_tokens


class SourceOptions(TypedDict, total=False):
    """What only some sources of networks take: see `open_network`."""

    weights: str | Path | Any
    mean: str | Path | Sequence[float] | None
    partial: bool
    pretrained: bool
    tokens: str | int | None


def open_network(
    network: str | Path | nn.Module | Network | Any = defaults.NETWORK,
    preprocessing: Preprocessing | str | Path | Any = None,
    labels: Labels | Sequence[str] | str | Path | None = None,
    *,
    name: str = "",
    output: str | int | None = None,
    probability: Probability | None = None,
    **source: Unpack[SourceOptions],
) -> Network:
    """Open a network, with the preprocessing that it was trained with.

    Args:
        network: one of

            - "efficientnet_lite0" (bundled; also "lite0"), a name of timm's or torchvision's ("resnet50"; both have
              some: "timm:resnet50", "torchvision:resnet50");
            - a module of timm's or torchvision's, which says what it expects, or any other torch module;
            - a Keras model (".keras", ".h5", or an object) or one of keras.applications ("keras:MobileNet");
            - a Caffe definition (".prototxt") or one that ships ("caffe:caffenet", "caffe:vgg16", "caffe:googlenet");
            - an ONNX file (".onnx");
            - a folder that transformers saved, or a name on its hub ("hf:google/vit-base-patch16-224");
            - a network of images and texts, whose texts are units: a folder or a name on the hub for transformers
              ("clip:openai/clip-vit-base-patch32", "clip:google/siglip-base-patch16-224"), or one of open_clip's with
              its weights' tag ("open_clip:ViT-B-32/laion2b_s34b_b79k");
            - a function of your own that returns a module ("package.module:factory", "path/to/file.py:factory");
            - a program that `torch.export.save` (".pt2") or `torch.jit.save` (".pt") wrote, or what
              `torch.export.export` returns.
        preprocessing: what the network expects, where that is not known or known wrongly: a `Preprocessing`, the name
            of a preset ("torch", "tf", "caffe", "unit", "byte"), a TOML file (see `networks.description`), or
            transforms of torchvision (`weights.transforms()`, a `Compose`).  A TOML file beside the network's file,
            with the same name, is found by itself.
        labels: the names of the outputs, or a file of them (see `read_labels`).
        name: what to call a module of your own.
        output: which of several tensors that the network returns is the logits, by name or index (see `Network`).
        probability: how logits become probabilities, "softmax", "sigmoid", "itself" or "none" (see `Network`).
        weights: a file of weights: `.safetensors` or a state dictionary saved by torch; `.caffemodel` for Caffe;
            `.h5` for keras.applications; or a member of torchvision's weights enum, or its name.  With a module a
            member says which weights it was built with.
        mean: for Caffe: "104,117,123", those numbers, or a `.binaryproto` or `.npy` file.
        partial: the weights may be of some layers only; layers up to the last of them can be shown.
        tokens: how many class tokens and registers stand before its patches, such as "1+4", "1" or "0", where nothing
            says it and it was guessed (see `Network.notes`).
        pretrained: False leaves a network opened by name untrained, as is useful in tests and as a baseline.

    Raises:
        InputError: the name is unknown (with the nearest), a file is damaged or of another kind, weights cannot be
            had, or a preprocessing is missing.

    Example:
        >>> network = open_network("efficientnet_lite0")
        >>> network.labels[network.labels.find("teddy")].name
        'teddy'
    """
    if isinstance(network, Network):
        return network
    for unknown in source.keys() - SourceOptions.__annotations__.keys():
        near = did_you_mean(unknown, SourceOptions.__annotations__)
        raise TypeError(f"phosphene.open has no argument {unknown!r}{near}")
    weights: Any = source.get("weights")
    tokens = source.get("tokens")
    transforms: Any = preprocessing
    if is_weights(transforms):
        weights, transforms = transforms if weights is None else weights, transforms.transforms
    if is_transforms(transforms):
        preprocessing = read_transforms(transforms)
    if isinstance(network, str | Path):
        given = {
            "preprocessing": preprocessing, "labels": labels, "weights": weights, "mean": source.get("mean"),
            "partial": source.get("partial", False), "output": output, "probability": probability,
            "tokens": None if tokens is None else str(tokens),
        }  # fmt: skip
        opened = _open_by_name(str(network), given, source.get("pretrained", True))
    else:
        opened = _open_object(network, preprocessing, weights, name)
    found = _read_by(_laid_out(_overridden(opened, preprocessing, labels, name)), output, probability)
    return found if tokens is None else _with_tokens(found, tokens)


def _open_by_name(network: str, given: dict[str, Any], pretrained: bool) -> Network:
    """The network, with the arguments by which it is opened again."""
    weights = given["weights"]
    if is_weights(weights):  # a member of torchvision's
        network = network if ":" in network else f"torchvision:{network}"
        weights = weights.name
    opened, beside = _open_source(_OpenRequest(network, weights, given["mean"], given["partial"], pretrained))
    arguments = {"network": network} | {key: _plain(value) for key, value in given.items() if value}
    if weights is not None:
        arguments["weights"] = _plain(weights)
    # Objects are not kept: what they stand for is not opened again by words alone.
    opened = opened.replace(source=None if any(value is _OBJECT for value in arguments.values()) else arguments)
    if beside is not None and is_file(beside):
        opened = _described(opened, read_description(beside))
    return opened


def _open_object(network: Any, preprocessing: Any, weights: Any, name: str) -> Network:
    """A network that the caller holds, which has its weights."""
    if programs.is_exported(network):
        network = programs.modules_of(network)
    if _is_keras(network):
        from phosphene.networks.sources.keras.model import open_keras

        return open_keras(network)
    if not isinstance(network, nn.Module):
        raise InputError(f"a network of type {type(network).__name__}: expected a name, a file or a torch.nn.Module")
    if weights is not None and not is_weights(weights):
        raise InputError(f"{type(network).__name__} is a module, and has its weights: load others with load_state_dict")
    known = open_module(network, name, weights)
    if known is not None:
        return known
    if preprocessing is None:
        raise InputError(
            f"a module of your own ({type(network).__name__}) needs a Preprocessing: say what it expects, for example "
            "phosphene.Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))"
        )
    return _of_module(network, preprocessing if isinstance(preprocessing, Preprocessing) else Preprocessing(), name)


class _OpenRequest(NamedTuple):
    """What `open_network` was asked for by name or file."""

    network: str
    weights: str | Path | None
    mean: str | Path | Sequence[float] | None
    partial: bool
    pretrained: bool


def _open_source(request: _OpenRequest) -> tuple[Network, Path | None]:
    """The network, and where a description of it may stand."""
    prefix, colon, rest = request.network.partition(":")
    path = Path(request.network)
    if request.mean is not None and prefix != "caffe" and path.suffix != ".prototxt":
        raise InputError("mean is for Caffe networks: expected --preprocessing for all others")
    if colon and prefix in _BY_PREFIX:
        return _BY_PREFIX[prefix](request._replace(network=rest)), None
    if path.suffix in _BY_SUFFIX:
        if not is_file(path):
            raise InputError(f"network file {request.network!r}: there is no such file")
        return _BY_SUFFIX[path.suffix](request), path.with_suffix(".toml")
    if programs.is_program(path):
        if request.weights is not None:
            raise InputError(f"{request.network} has its weights in it: expected no others")
        return programs.open_program(path), path.with_suffix(".toml")
    if is_file(path / "config.json"):
        return _transformers(request), path / "phosphene.toml"
    if is_factory(request.network):
        opened, file = open_factory(request.network, request.weights, request.partial)
        return opened, file.with_suffix(".toml") if file else None
    return _by_name(request), None


def _by_name(request: _OpenRequest) -> Network:
    name = request.network
    full = f"efficientnet_{name}" if f"efficientnet_{name}" in bundled.SIZES else name
    if full in bundled.SIZES:
        if request.weights is not None or not request.pretrained:
            raise InputError(f"{full} comes with its own weights; for others open timm's tf_{full}")
        return bundled.open_bundled(full)
    if is_timm(name):
        return _timm(request)
    if is_torchvision(name):
        return _torchvision(request)
    if Path(name).suffix == ".pt2":
        raise InputError(f"network file {name!r}: there is no such file")
    if Path(name).suffix in (".pth", ".pt", ".bin", ".safetensors", ".caffemodel"):
        raise InputError(
            f"{name!r} holds weights and no network: name the network they are of, and give them as its weights "
            f"(--network NAME --weights {name})"
        )
    near = did_you_mean(name, [*bundled.SIZES, *timm_names(), *torchvision_names()])
    raise InputError(f"no network is called {name!r}{near or '; see `phosphene networks`'}")


def _timm(request: _OpenRequest) -> Network:
    return open_timm(request.network, request.weights, request.pretrained, request.partial)


def _torchvision(request: _OpenRequest) -> Network:
    return open_torchvision(request.network, request.weights, request.pretrained, request.partial)


def _caffe(request: _OpenRequest) -> Network:
    from phosphene.networks.sources.caffe.model import open_caffe

    _whole(request)
    return open_caffe(request.network, request.weights, request.mean, request.pretrained)


def _keras(request: _OpenRequest) -> Network:
    require("h5py", extra="keras", what=request.network)  # not Keras yet, whose backend is chosen at its import
    from phosphene.networks.sources.keras.model import open_keras

    _whole(request)
    return open_keras(request.network, request.weights, request.pretrained)


def _onnx(request: _OpenRequest) -> Network:
    from phosphene.networks.sources.onnx.model import open_onnx

    if request.weights is not None:
        raise InputError(f"{request.network} has its weights in it: expected no others")
    return open_onnx(request.network)


def _transformers(request: _OpenRequest) -> Network:
    from phosphene.networks.sources.transformers.model import open_transformers

    _whole(request)
    return open_transformers(request.network, request.weights, request.pretrained)


def _clip(request: _OpenRequest) -> Network:
    from phosphene.networks.sources.transformers.image_text import open_image_text

    _whole(request)
    if not request.pretrained:
        raise InputError(f"clip:{request.network} without weights: expected hf:{request.network} for an untrained one")
    return open_image_text(request.network, request.weights)


def _open_clip(request: _OpenRequest) -> Network:
    from phosphene.networks.sources.open_clip import open_open_clip

    _whole(request)
    return open_open_clip(request.network, request.weights, request.pretrained)


def _whole(request: _OpenRequest) -> None:
    if request.partial:
        raise InputError(
            f"partial weights of {request.network}: expected a network of torchvision's, timm's or your own"
        )


_BY_PREFIX: dict[str, Callable[[_OpenRequest], Network]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "caffe": _caffe,
    "keras": _keras,
    "hf": _transformers,
    "clip": _clip,
    "open_clip": _open_clip,
}

_BY_SUFFIX: dict[str, Callable[[_OpenRequest], Network]] = {
    ".prototxt": _caffe,
    ".keras": _keras,
    ".h5": _keras,
    ".hdf5": _keras,
    ".onnx": _onnx,
}


FILES = (*_BY_SUFFIX, *programs.SUFFIXES)  # the endings of networks' files


def _is_keras(network: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(network).__mro__)


_OBJECT = object()


def _plain(value: Any) -> Any:
    """An argument as JSON holds it, for the image that is made with the network."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(entry, str | int | float) for entry in value):
        return list(value)
    return _OBJECT


def _described(network: Network, description: Description) -> Network:
    preprocessing = description.preprocessing(network.preprocessing)
    if preprocessing is not None:
        network = network.replace(preprocessing=preprocessing, notes=_without(network.given_notes, "preprocessing"))
    if description.labels is not None:
        network = network.replace(labels=description.labels, notes=_without(network.given_notes, "labels"))
    return network


def _overridden(
    network: Network,
    preprocessing: Preprocessing | str | Path | None,
    labels: Labels | Sequence[str] | str | Path | None,
    name: str,
) -> Network:
    """What the caller says goes before what is known of the network."""
    if isinstance(preprocessing, str) and preprocessing in PRESETS:
        network = _described(network, Description("preprocessing", preprocessing, {}, None))
    elif isinstance(preprocessing, str | Path):
        if Path(preprocessing).suffix != ".toml":
            Preprocessing.preset(str(preprocessing))  # raises, with the nearest
        network = _described(network, read_description(preprocessing))
    elif preprocessing is not None:
        network = network.replace(preprocessing=preprocessing, notes=_without(network.given_notes, "preprocessing"))
    if labels is not None:
        found = read_labels(labels) if isinstance(labels, str | Path) else labels
        network = network.replace(labels=found, notes=_without(network.given_notes, "labels"))
    return network.replace(name=name) if name else network


def _laid_out(network: Network) -> Network:
    """As the module of an ONNX file takes its images, whichever way a description of the file has them.

    It turns images itself where the file has the channels last, and a file that takes bytes takes no shares of 1.
    """
    module, preprocessing = network.module, network.preprocessing
    if getattr(module, "turns_images", False) and preprocessing.layout != "NCHW":
        preprocessing = replace(preprocessing, layout="NCHW")
    if getattr(module, "takes_bytes", False) and preprocessing == replace(preprocessing, **PRESETS["unit"]):
        preprocessing = replace(preprocessing, value_range=(0, 255))
    return network if preprocessing is network.preprocessing else network.replace(preprocessing=preprocessing)


def _of_module(module: nn.Module, preprocessing: Preprocessing, name: str) -> Network:
    called = name or type(module).__name__
    if not programs.quantized_modules(module):
        return Network(module, preprocessing, name=name)
    note = "its quantized weights are shown in floating point: activations are not rounded as in the network itself"
    return Network(programs.dequantize(module, called), preprocessing, name=called, notes={"precision": note})


def _read_by(network: Network, output: str | int | None, probability: Probability | None) -> Network:
    """With what the caller says of its outputs."""
    if probability is not None and probability not in get_args(Probability):
        near = did_you_mean(str(probability), get_args(Probability))
        raise InputError(f"probability {probability!r}: expected one of {', '.join(get_args(Probability))}{near}")
    changes: dict[str, Any] = {}
    if output is not None:
        changes |= {"output": output, "notes": _without(network.given_notes, "output")}
    if probability is not None:
        changes["probability"] = probability
    found = network.replace(**changes) if changes else network
    if output is not None:
        _ = found.layers  # which raises where there is no such output
    return found


def _with_tokens(network: Network, tokens: str | int) -> Network:
    """With the class tokens and registers that the caller says it has."""
    parse_tokens(tokens)  # raises where it is neither
    found = network.replace(tokens=str(tokens))
    _ = found.layers  # which raises where no layer has as many
    return found


def _without(notes: dict[str, str], topic: str) -> dict[str, str]:
    return {key: note for key, note in notes.items() if key != topic}
