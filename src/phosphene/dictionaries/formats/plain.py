"""Plain safetensors: `W_enc`, `b_enc`, `W_dec`, `b_dec`, and the rest in the metadata."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from phosphene.dictionaries.contents import FIELDS, Contents, refuse
from phosphene.errors import InputError, input_errors_for
from phosphene.files import check_file

_CROSS_LAYER = ("W_enc_0", "W_dec_0", "encoders.0", "W_enc.0", "W_dec.0")


def load(path: Path, origin: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    check_file(path, origin)
    with input_errors_for(origin, "a .safetensors file, whole"), safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
        return tensors, dict(opened.metadata() or {})


def read(tensors: dict[str, Tensor], metadata: dict[str, str], origin: str) -> Contents:
    """What the metadata says of `contents.FIELDS` is taken, under these names; "hook_name" is a layer too."""
    check_kind(tensors, origin)
    fields: dict[str, Any] = {name: metadata[name] for name in FIELDS if metadata.get(name)}
    if "layer" not in fields and metadata.get("hook_name"):
        fields["layer"] = metadata["hook_name"]
    if fields.get("activation") != "topk":
        with contextlib.suppress(KeyError):
            del fields["k"]
    return Contents("safetensors", tensors, fields)


def check_kind(tensors: dict[str, Tensor], origin: str) -> None:
    """Raise an `InputError` for tensors of other things than a sparse autoencoder, by their name."""
    if any(name.startswith(_CROSS_LAYER) for name in tensors):
        raise refuse(origin, "a cross-layer transcoder")
    if {"W_skip", "b_dec_out"} & tensors.keys():
        raise refuse(origin, "a transcoder")
    if {"r_mag", "b_gate"} & tensors.keys():
        raise InputError(f"{origin} is gated: expected an autoencoder whose latents are on by a ReLU, JumpReLU or TopK")
