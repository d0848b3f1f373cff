"""Networks of images and texts of open_clip, by the name of the architecture and the tag of the weights.

open_clip builds both towers at once; the image tower is the network that is shown, and the rest is kept for texts.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from phosphene.errors import InputError, did_you_mean, first_line
from phosphene.extras import require
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.resizing import can_resize
from phosphene.networks.text import TextEncoder, TextTower
from phosphene.networks.weights import read_weights

_SPELLED = "open_clip:ViT-B-32/laion2b_s34b_b79k"


def open_open_clip(name: str, weights: str | Path | None = None, pretrained: bool = True) -> Network:
    """The image tower of a network of open_clip's, whose output is the embedding, with its text tower.

    Args:
        name: of the architecture, and behind a slash the tag of its weights ("ViT-B-32/laion2b_s34b_b79k").
        weights: a file of both towers' weights, in place of a tag.

    Raises:
        InputError: open_clip is not installed, has no such network or tag, or the weights cannot be had or read.
    """
    clip = require("open_clip", extra="open-clip", what=f"open_clip:{name}")
    architecture, _, tag = name.partition("/")
    if architecture not in clip.list_models():
        raise InputError(f"open_clip has no network {architecture!r}{did_you_mean(architecture, clip.list_models())}")
    path, known = _weights_of(clip, architecture, tag, weights, pretrained)
    whole = _build(clip, architecture, path, known)
    title = f"{architecture}/{tag}" if tag else architecture
    visual: nn.Module = whole.visual
    visual.num_classes = 0  # type: ignore[assignment]
    preprocessing = _preprocessing(clip, whole)
    notes = {"part": f"of {title} (open_clip) the image tower is shown; its output is the embedding that texts share"}
    if not known:  # a tag says it
        notes["preprocessing"] = f"no tag says what {title} expects: {preprocessing.describe()} is assumed"
    network = Network(visual, preprocessing, None, title, notes=notes)
    network.texts = TextEncoder(title, partial(_load_text_tower, architecture, path, known))
    return network


def _weights_of(
    clip: Any, architecture: str, tag: str, weights: str | Path | None, pretrained: bool
) -> tuple[Path | None, dict[str, Any]]:
    """The file of the weights, or None for an untrained network; and what open_clip knows of the tag."""
    if weights is not None or not pretrained:
        path = None if weights is None else Path(weights)
        return _checked(path), {}
    tags = clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        near = f", of which {architecture} has {', '.join(tags[:5])}" if tags else ""
        raise InputError(f"open_clip:{architecture} names no weights: expected their tag, as in {_SPELLED}{near}")
    if tag not in tags:
        near = did_you_mean(tag, tags) or (f"; it has {', '.join(tags[:5])}" if tags else "")
        raise InputError(f"{architecture} of open_clip has no weights {tag!r}{near}")
    known = dict(clip.get_pretrained_cfg(architecture, tag))
    with _quiet(), shown_downloads(f"{architecture}/{tag}"):
        try:
            path = Path(clip.download_pretrained(known))
        except Exception as error:  # of the many of networks, and of the hub's
            reason = first_line(error).split(". ")[0].rstrip(".")
            raise InputError(
                f"the weights {tag} of {architecture} cannot be had: {reason}; give them as a file (--weights FILE)"
            ) from error
    return _checked(path), known


def _checked(path: Path | None) -> Path | None:
    """A file of weights that is there."""
    if path is not None and not path.is_file():
        raise InputError(f"weights file {str(path)!r}: there is no such file")
    return path


@contextmanager
def _tensors_alone(path: Path | None) -> Iterator[str | None]:
    """A file that holds no more than the tensors of one that may hold anything; only in the block, if it is another.

    open_clip reads a file that is none of safetensors by `torch.load`, on some errors without `weights_only`.
    """
    if path is None or path.suffix == ".safetensors":
        yield None if path is None else str(path)
        return
    tensors = {name: tensor.contiguous().clone() for name, tensor in read_weights(path).items()}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "weights.safetensors"
        save_file(tensors, plain)
        yield str(plain)


def _build(clip: Any, architecture: str, path: Path | None, known: dict[str, Any]) -> Any:
    """Both towers, with the weights of a file, or untrained."""
    fed = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if known.get(key) is not None}
    with _tensors_alone(path) as file, _quiet(), torch.random.fork_rng(devices=[]):
        try:
            return clip.create_model(
                architecture,
                pretrained=file,
                force_quick_gelu=bool(known.get("quick_gelu")),
                force_preprocess_cfg=fed,
                pretrained_image=False,
                pretrained_text=False,
                weights_only=True,
            ).eval()
        except Exception as error:
            raise InputError(f"{architecture} of open_clip cannot be built: {first_line(error)}") from error


def _preprocessing(clip: Any, whole: Any) -> Preprocessing:
    known = clip.get_model_preprocess_cfg(whole)
    size = known.get("size", 224)
    interpolation = known.get("interpolation", "bicubic")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return Preprocessing(
        size=sides,
        mean=tuple(known.get("mean", clip.OPENAI_DATASET_MEAN)),
        std=tuple(known.get("std", clip.OPENAI_DATASET_STD)),
        interpolation=interpolation if interpolation in ("bilinear", "nearest") else "bicubic",
        resize="squash" if known.get("resize_mode") == "squash" else "shorter",
        fixed_size=not can_resize(whole.visual) and not _takes(whole.visual, (sides[0] + 32, sides[1] + 32)),
    )


def _takes(visual: nn.Module, size: tuple[int, int]) -> bool:
    try:
        with torch.no_grad():
            visual(torch.zeros(1, 3, *size))
    except Exception:
        return False
    return True


def _load_text_tower(architecture: str, path: Path | None, known: dict[str, Any]) -> TextTower:
    """The text tower of a network, and its tokenizer."""
    clip = require("open_clip", extra="open-clip", what=f"open_clip:{architecture}")
    whole = _build(clip, architecture, path, known)
    del whole.visual
    with _quiet(), shown_downloads(architecture):
        try:
            tokenizer = clip.get_tokenizer(architecture)
        except Exception as error:
            raise InputError(f"the tokenizer of {architecture} cannot be had: {first_line(error)}") from error

    def count(prompt: str) -> int:
        inner = getattr(tokenizer, "tokenizer", None)  # of transformers, where it is not open_clip's own
        return len(tokenizer.encode(prompt)) + 2 if inner is None else len(inner(prompt)["input_ids"])

    def embed(prompts: Sequence[str]) -> Tensor:
        device = next(whole.parameters()).device
        found: Tensor = whole.encode_text(tokenizer(list(prompts)).to(device))
        return found

    return TextTower(whole, count, int(tokenizer.context_length), embed)


@contextmanager
def _quiet() -> Iterator[None]:
    """What open_clip logs of loading is said in errors."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
