"""Networks of images of transformers: from its hub, or from a folder that it saved.

Nothing that comes with a network is executed, and a network is built without memory first, to see whether it is as
large as the file of its weights says.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.files import is_file, parse_json, read_text
from phosphene.networks.checkpoint import check_checkpoint
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.timm import is_timm
from phosphene.networks.sources.transformers.architectures import (
    Architecture,
    architectures,
    assumed_preset,
    fed_by_images,
    own_size,
)
from phosphene.networks.weights import read_weights

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_SAFE = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_PICKLED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]  # read weights_only
_DESCRIPTIONS = [_CONFIG, _PROCESSOR, "processor_config.json"]

_LARGEST_FILE = 2**22  # bytes of a configuration
_LARGEST_NUMBER = 2**20  # in a configuration
_LARGEST_CLASSES = 2**17
_LARGEST_SIDE = 4096  # pixels
_LARGEST_NETWORK = 2**32  # numbers, where there is no file to compare with
_MOST_TENSORS = 10_000
_HEAD = 2**22  # numbers that a network may have beyond its file: a head that has no weights


def open_transformers(name: str | Path, weights: str | Path | None = None, pretrained: bool = True) -> Network:
    """A network of transformers with its weights, with those of a file, or (`pretrained=False`) untrained.

    It is what the configuration's `architectures` names.  A network of images and texts gives its image encoder.

    Args:
        name: a folder that holds a `config.json`, or a name on the hub ("google/vit-base-patch16-224").
        weights: a `.safetensors` file, or a state dictionary saved by torch, for the network of that name.

    Raises:
        InputError: it cannot be had, takes no images, needs code of its own, or is damaged.
    """
    transformers = require("transformers", extra="transformers", what=str(name))
    folder, title = _folder(name, pretrained and weights is None)
    _checked(folder / _CONFIG, title)
    state: dict[str, torch.Tensor] | None = None
    limit = _LARGEST_NETWORK
    if weights is not None:
        state = read_weights(weights)
        limit = sum(tensor.numel() for tensor in state.values()) + _HEAD
    elif pretrained:  # each number takes a byte at least
        files = _weight_files(folder, title)
        limit = sum(file.stat().st_size for file in files) + _HEAD
        for file in files:
            if file.suffix == ".bin":
                check_checkpoint(file, f"{file.name} of {title}")
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of a damaged file's many
            raise InputError(f"the configuration of {title} is not read: {_line(error)}") from error
        ways = architectures(transformers, _plain_outputs(config), title)
        if pretrained or weights is not None:
            origin = title if weights is None else str(weights)
            way, plan, module = _trained(ways, folder, state, title, origin, limit)
        else:
            way, plan = ways[0], _planned(ways[0], title, limit)
            module = _made(way, title)
        values = _processor_values(transformers, folder, title)
    preprocessing, notes = _preprocessing(values, way.config, plan, title)
    if way.note:
        notes["part"] = way.note
    return Network(module.float(), preprocessing, _labels(config) if way.labeled else None, title, notes=notes)


# Files


def _folder(name: str | Path, with_weights: bool) -> tuple[Path, str]:
    """Where the files are, after they were fetched from the hub if need be, and what the network is called."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise InputError(f"folder {str(name)!r} has no {_CONFIG}: expected one that transformers saved")
        return folder, folder.resolve().name
    hub = require("huggingface_hub", extra="transformers", what=str(name))
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)  # its retries are summed up in the error below
    try:
        fetched = Path(hub.snapshot_download(str(name), allow_patterns=[*_DESCRIPTIONS, *_SAFE * with_weights]))
        if with_weights and not any(any(fetched.glob(pattern)) for pattern in _SAFE):
            fetched = Path(hub.snapshot_download(str(name), allow_patterns=[*_DESCRIPTIONS, *_PICKLED]))
    except Exception as error:  # of the many of networks, of the hub's, and of names that cannot be
        raise InputError(
            f"{name} cannot be had from Hugging Face's hub: {_line(error).split('. ')[0]}; give a folder that "
            "transformers saved"
        ) from error
    finally:
        log.setLevel(level)
    if not (fetched / _CONFIG).is_file():
        raise InputError(f"{str(name)!r} has no {_CONFIG}: expected a network of transformers")
    return fetched, str(name)


def _weight_files(folder: Path, title: str) -> list[Path]:
    """The files of the network's own weights."""
    for whole, index, parts in (_SAFE, _PICKLED):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            files = _read_json(folder / index, title).get("weight_map")
            names = set(map(str, files.values())) if isinstance(files, dict) else set()
            if any(Path(name).name != name or not fnmatch(name, parts) for name in names):
                raise InputError(f"{index} of {title} names files that are not beside it: expected {parts}")
            missing = next((name for name in names if not is_file(folder / name)), None)
            if missing is not None or not names:
                raise InputError(f"{title} has no {missing or parts}: expected all the files that its {index} names")
            return [folder / name for name in names]
    raise InputError(f"{title} has no weights: expected a {_SAFE[0]} or {_PICKLED[0]} beside its {_CONFIG}")


def _read_json(path: Path, title: str) -> dict[str, Any]:
    origin = f"{path.name} of {title}"
    values = parse_json(read_text(path, origin, _LARGEST_FILE), origin, _LARGEST_FILE)
    if not isinstance(values, dict):
        raise InputError(f"{path.name} of {title} holds no settings: expected a JSON object")
    return values


def _checked(path: Path, title: str) -> None:
    """Refuse a configuration that would take much memory, fetch or run something, or is of another library."""
    values = _read_json(path, title)
    kind = values.get("model_type")
    architecture = values.get("architecture")
    if kind == "timm_wrapper" or (kind is None and isinstance(architecture, str)):
        known = isinstance(architecture, str) and is_timm(architecture)
        own = f"timm:{architecture}" if known else "timm:NAME"
        raise InputError(f"{title} is a network of timm's: open it as {own}")
    if not isinstance(kind, str):
        raise InputError(f"{path.name} of {title} names no model_type: expected a network of transformers")
    for reason in ("quantization_config", "compression_config"):
        if values.get(reason):
            raise InputError(f"{title} is quantized: expected weights that are floating-point numbers")
    classes = values.get("num_labels", 0)
    if isinstance(classes, int) and classes > _LARGEST_CLASSES:
        raise InputError(f"{path.name} of {title} asks for {classes:,} classes: expected {_LARGEST_CLASSES:,} at most")
    _check_values(values, path.name, title)


def _check_values(values: Any, where: str, title: str) -> None:
    if isinstance(values, int) and abs(values) > _LARGEST_NUMBER:
        raise InputError(f"{where} of {title} asks for {str(values)[:24]}: expected {_LARGEST_NUMBER:,} at most")
    if isinstance(values, list):
        for value in values:
            _check_values(value, where, title)
    if isinstance(values, dict):
        for key, value in values.items():
            if key == "backbone" and isinstance(value, str):
                _check_backbone(values, where, title)
            # Attention may be had from a repository on the hub, as code.
            if key.endswith("_implementation") and value not in (None, "eager", "sdpa"):
                raise InputError(f"{where} of {title} asks for {key} {value!r}: expected eager or sdpa")
            _check_values(value, where, title)


def _check_backbone(values: Mapping[str, Any], where: str, title: str) -> None:
    """Refuse a backbone that would be looked for on the hub: it is timm's, by its name alone."""
    name = values["backbone"]
    if values.get("backbone_config"):
        return
    elsewhere = values.get("use_timm_backbone") is False or not is_timm(name) or bool(values.get("backbone_kwargs"))
    if elsewhere and values.get("model_type") != "timm_backbone":
        raise InputError(
            f"{where} of {title} asks for backbone {name!r}, which is described elsewhere: expected its backbone_config"
        )
    if not is_timm(name):
        raise InputError(f"{where} of {title} asks for backbone {name!r}: expected a name of timm's")


# Modules


def _plain_outputs(config: Any) -> Any:
    """The configuration, whose network gives an object and no attentions, which fast attention has not."""
    parts = [getattr(config, name, None) for name in ("vision_config", "backbone_config")]
    for part in (config, *parts):
        if part is not None and not isinstance(part, Mapping):
            part.output_attentions = False
            part.return_dict = True
    return config


def _made(way: Architecture, title: str, **options: Any) -> nn.Module:
    try:
        return way.make(**options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{title} cannot be built from its {_CONFIG}: {_line(error)}") from error


def _planned(way: Architecture, title: str, limit: int) -> nn.Module:
    """The network without memory for its numbers, of which there may be no more than `limit`."""
    numbers = tensors = 0

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal numbers, tensors
        numbers += 0 if parameter is None else parameter.numel()
        tensors += 1
        if numbers > limit or tensors > _MOST_TENSORS:
            raise InputError(f"{title} is damaged: its {_CONFIG} asks for more numbers than its weights are")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return _made(way, title)
    finally:
        hook.remove()


def _trained(
    ways: Sequence[Architecture],
    folder: Path,
    state: Mapping[str, torch.Tensor] | None,
    title: str,
    origin: str,
    limit: int,
) -> tuple[Architecture, nn.Module, nn.Module]:
    """The first way to build the network for which there are all weights, its plan, and the network."""
    problem: InputError | None = None
    for way in ways:
        plan = _planned(way, title, limit)
        try:
            module, missing = _loaded(way, folder, state, origin)
            if missing and all(name.startswith("pooler.") for name in missing) and way.without_pooler():
                module, missing = _loaded(way, folder, state, origin, **way.without_pooler())
            if not missing:
                return way, plan, fed_by_images(module.eval())
            raise InputError(_incomplete(way, missing, origin))
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _incomplete(way: Architecture, missing: Sequence[str], origin: str) -> str:
    more = " and others" if len(missing) > 1 else ""
    expected = "an image classifier" if way.kind.__name__.endswith("ForImageClassification") else way.kind.__name__
    return f"the weights of {origin} have none for {missing[0]}{more}: expected those of {expected}"


def _loaded(
    way: Architecture, folder: Path, state: Mapping[str, torch.Tensor] | None, origin: str, **options: Any
) -> tuple[nn.Module, list[str]]:
    """The network with its own weights, or with those given, and the names of those that there are none for.

    transformers knows by what names weights went before.
    """
    if state is None and (folder / "adapter_config.json").is_file():
        raise InputError(f"{origin} is an adapter to another network: expected a network with all of its weights")
    options |= {"local_files_only": True} if state is None else {"state_dict": dict(state)}
    options |= {"config": way.config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    source = folder if state is None else None
    module, found = _from_pretrained(way, source, origin, options)
    missing = _missing(module, found)
    prefix = _prefix(missing, found["unexpected_keys"]) if way.note else ""
    if prefix:  # a part that goes by a longer name in the whole
        options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
        module, found = _from_pretrained(way, source, origin, options)
        missing = _missing(module, found)
    return module, missing


def _from_pretrained(
    way: Architecture, source: Path | None, origin: str, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    try:
        with torch.random.fork_rng(devices=[]):
            module, found = way.kind.from_pretrained(source, **options)
    except Exception as error:
        raise InputError(f"the weights of {origin} are not read: {_line(error)}") from error
    for name, given, expected in sorted(found["mismatched_keys"]):
        raise InputError(
            f"the weights of {origin} are of another network: {name} is {tuple(given)} and not {tuple(expected)}"
        )
    return module, found


def _missing(module: nn.Module, found: Mapping[str, Any]) -> list[str]:
    own = [name for name, _ in module.named_parameters()]
    own += [name for name, _ in module.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sorted(set(found["missing_keys"]) & set(own))


def _prefix(missing: Sequence[str], others: Sequence[str]) -> str:
    """What stands before the names of a part's weights in those of the whole; empty if that is not clear."""
    given = set(others)
    starts = {name.removesuffix(missing[0]) for name in given if missing and name.endswith(f".{missing[0]}")}
    fitting = [start for start in sorted(starts, key=len) if all(start + name in given for name in missing)]
    return fitting[0] if fitting else ""


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """What transformers logs of loading is said in errors and notes."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


# What it eats, and what it says


def _processor_values(transformers: Any, folder: Path, title: str) -> dict[str, Any] | None:
    """The settings of the image processor beside a network, with its class's defaults; None if there is none."""
    file = next((folder / name for name in _DESCRIPTIONS[1:] if (folder / name).is_file()), None)
    if file is None:
        return None
    written = _read_json(file, title)
    _check_values(written, file.name, title)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return written | dict(processor.to_dict())
    except Exception:  # a class of its own, or of another version: what is written is all there is
        return {"do_resize": True, "do_rescale": True, "do_normalize": "image_mean" in written} | written


def _preprocessing(
    values: dict[str, Any] | None, config: Any, plan: nn.Module, title: str
) -> tuple[Preprocessing, dict[str, str]]:
    vision = getattr(config, "vision_config", config)  # of a classifier among networks of images and texts
    channels = getattr(vision, "num_channels", None) or 3
    own = _pair(own_size(vision))
    try:
        geometry: dict[str, Any] = _geometry(values) if values is not None else {}
        sizes = [size for size in (geometry.get("size"), own, (224, 224)) if size is not None]
        if max(max(size) for size in sizes) > _LARGEST_SIDE or min(min(size) for size in sizes) < 1:
            raise InputError(f"{title} takes images of {sizes[0]}: expected 1 to {_LARGEST_SIDE} pixels a side")
        # A processor may say another size than the network has position embeddings for.
        size = next((size for size in sizes if _takes(plan, size, channels)), sizes[0])
        geometry |= {"size": size, "channels": channels}
        # A plan that takes no size at all computes with values, which it has not, and tells nothing.
        larger = (size[0] + 32, size[1] + 32)
        geometry["fixed_size"] = _takes(plan, size, channels) and not _takes(plan, larger, channels)
        if values is not None:
            return Preprocessing(**geometry, **_scaling(values)), {}
        preset, changes = assumed_preset(vision) if channels == 3 else ("unit", {})
        preprocessing = Preprocessing.preset(preset, **changes | geometry)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise InputError(f"the image processor of {title} is not read: {_line(error)}") from error
    note = f"{title} comes without an image processor, which says what it eats: {preprocessing.describe()} is assumed"
    return preprocessing, {"preprocessing": f"{note}; `phosphene doctor --images DIR` finds out"}


def _pair(size: Any) -> tuple[int, int] | None:
    """A height and a width, from what transformers writes: a number, two, or a dictionary."""
    if isinstance(size, Mapping):
        if size.get("height") and size.get("width"):
            return int(size["height"]), int(size["width"])
        size = size.get("shortest_edge")
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if isinstance(size, int | float) and size else None


def _geometry(values: Mapping[str, Any]) -> dict[str, Any]:
    """How a photograph becomes an image of the right size, as transformers' image processors do it."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    size = values.get("size") if values.get("do_resize") else None
    cropped = _pair(values.get("crop_size")) if values.get("do_center_crop") else None
    by_shorter = isinstance(size, int) or (isinstance(size, Mapping) and bool(size.get("shortest_edge")))
    resized = _pair(size)
    share = float(values.get("crop_pct") or 1.0)
    if kind.startswith("Levit") and by_shorter and resized:  # which resizes to a little more than it says
        resized = (int(256 / 224 * resized[0]),) * 2
    if kind.startswith("ConvNext") and resized:
        by_shorter = resized[0] < 384  # larger images are squashed
        cropped, share = resized, share if by_shorter else 1.0
    elif share < 1 and resized:
        by_shorter, cropped = True, cropped or resized
    fields: dict[str, Any] = {"resize": "shorter" if by_shorter or resized is None else "squash"}
    final = cropped or resized
    if final is not None:
        fields["size"] = final
    if cropped and resized:
        fields["crop"] = min(1.0, share * cropped[0] / resized[0])
    resample = values.get("resample")
    fields["interpolation"] = "bicubic" if resample is None else _RESAMPLING.get(int(resample), "bicubic")
    return fields


_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def _scaling(values: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers the pixels become."""
    fields: dict[str, Any] = {"value_range": (0.0, 255.0)}
    if values.get("do_rescale"):
        low = -1.0 if values.get("rescale_offset") or values.get("offset") else 0.0
        fields["value_range"] = (low, low + 255 * float(values.get("rescale_factor") or 1 / 255))
    if values.get("do_normalize") and values.get("image_mean") is not None:
        mean, std = values["image_mean"], values.get("image_std", 1.0)
        fields["mean"] = tuple(mean) if isinstance(mean, Sequence) else float(mean)
        fields["std"] = tuple(std) if isinstance(std, Sequence) else float(std)
        kind = str(values.get("image_processor_type") or "")
        if kind.startswith("EfficientNet") and values.get("include_top"):  # which divides by it twice
            fields["std"] = tuple(value**2 for value in fields["std"])
    if values.get("do_flip_channel_order"):
        fields["channel_order"] = "BGR"
    return fields


def _takes(plan: nn.Module, size: tuple[int, int], channels: int) -> bool:
    try:
        with torch.no_grad():
            plan(torch.empty(1, channels, *size, device="meta"))
    except Exception:
        return False
    return True


def _labels(config: Any) -> Labels | None:
    """The names of the classes; with all that ImageNet's are called by where they are ImageNet's."""
    given = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    names = [given.get(index, "").strip() for index in range(len(given))]
    if not all(names) or all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return None
    if len(names) == 1000:
        known = imagenet_labels()
        first = [name.partition(",")[0].strip().casefold() for name in names]
        same = sum(name == label.name.casefold() for name, label in zip(first, known, strict=True))
        if same > 0.95 * len(known):
            return known
    return Labels(names)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__
