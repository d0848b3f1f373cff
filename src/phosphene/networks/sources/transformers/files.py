"""The files of a network of transformers: found, or fetched from the hub, and its configuration refused where it would
take much memory, fetch or run something."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.files import is_file, parse_json, read_text
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.sources.timm import is_timm

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_SAFE = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_PICKLED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]  # read weights_only

_LARGEST_FILE = 2**22  # bytes of a configuration
_LARGEST_NUMBER = 2**20  # in a configuration
_LARGEST_CLASSES = 2**17


def find_folder(name: str | Path, with_weights: bool, beside: Sequence[str] = ()) -> tuple[Path, str]:
    """Where the files are, after they were fetched from the hub if need be, and what the network is called.

    Args:
        beside: the names of further files that are fetched, as far as there are any.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise InputError(f"folder {str(name)!r} has no {CONFIG}: expected one that transformers saved")
        return folder, folder.resolve().name
    hub = require("huggingface_hub", extra="transformers", what=str(name))
    wanted = [CONFIG, *PROCESSORS, *beside]
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)  # its retries are summed up in the error below
    try:
        with shown_downloads(str(name)):
            fetched = Path(hub.snapshot_download(str(name), allow_patterns=[*wanted, *_SAFE * with_weights]))
            if with_weights and not any(any(fetched.glob(pattern)) for pattern in _SAFE):
                fetched = Path(hub.snapshot_download(str(name), allow_patterns=[*wanted, *_PICKLED]))
    except Exception as error:  # of the many of networks, of the hub's, and of names that cannot be
        raise InputError(
            f"{name} cannot be had from Hugging Face's hub: {first_line(error).split('. ')[0]}; give a folder that "
            "transformers saved"
        ) from error
    finally:
        log.setLevel(level)
    if not (fetched / CONFIG).is_file():
        raise InputError(f"{str(name)!r} has no {CONFIG}: expected a network of transformers")
    return fetched, str(name)


def weight_files(folder: Path, title: str) -> list[Path]:
    """The files of the network's own weights."""
    for whole, index, parts in (_SAFE, _PICKLED):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            files = read_settings(folder / index, title).get("weight_map")
            names = set(map(str, files.values())) if isinstance(files, dict) else set()
            if any(Path(name).name != name or not fnmatch(name, parts) for name in names):
                raise InputError(f"{index} of {title} names files that are not beside it: expected {parts}")
            missing = next((name for name in names if not is_file(folder / name)), None)
            if missing is not None or not names:
                raise InputError(f"{title} has no {missing or parts}: expected all the files that its {index} names")
            return [folder / name for name in names]
    raise InputError(f"{title} has no weights: expected a {_SAFE[0]} or {_PICKLED[0]} beside its {CONFIG}")


def read_settings(path: Path, title: str) -> dict[str, Any]:
    """The settings in a JSON file."""
    origin = f"{path.name} of {title}"
    values = parse_json(read_text(path, origin, _LARGEST_FILE), origin, _LARGEST_FILE)
    if not isinstance(values, dict):
        raise InputError(f"{path.name} of {title} holds no settings: expected a JSON object")
    return values


def check_config(path: Path, title: str) -> None:
    """Refuse a configuration that would take much memory, fetch or run something, or is of another library."""
    values = read_settings(path, title)
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
    check_values(values, path.name, title)


def check_values(values: Any, where: str, title: str) -> None:
    """Refuse settings that ask for too much, or for what is elsewhere."""
    if isinstance(values, int) and abs(values) > _LARGEST_NUMBER:
        raise InputError(f"{where} of {title} asks for {str(values)[:24]}: expected {_LARGEST_NUMBER:,} at most")
    if isinstance(values, list):
        for value in values:
            check_values(value, where, title)
    if isinstance(values, dict):
        for key, value in values.items():
            if key == "backbone" and isinstance(value, str):
                _check_backbone(values, where, title)
            # Attention may be had from a repository on the hub, as code.
            if key.endswith("_implementation") and value not in (None, "eager", "sdpa"):
                raise InputError(f"{where} of {title} asks for {key} {value!r}: expected eager or sdpa")
            check_values(value, where, title)


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
