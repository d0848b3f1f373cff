"""Files of Prisma (ViT-Prisma) and PatchSAE: `{"cfg": …, "state_dict": …}`, as torch saved it.

Their settings are objects of their own classes.  In place of each such object plain data is made: no code of theirs is
there, and none of the file's runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.dictionaries.contents import Contents, refuse
from phosphene.errors import InputError, printable
from phosphene.files import is_file, parse_json, read_text
from phosphene.networks.checkpoint import IGNORED_GLOBALS
from phosphene.networks.weights import load_checkpoint


class _Settings:
    """Stands for an object of settings, and keeps its fields."""

    def __init__(self, *args: object, **kwargs: object):
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.fields = dict(state) if isinstance(state, dict) else {}


_SETTINGS = tuple(
    type(name, (_Settings,), {"__module__": module})
    for module, names in {
        "vit_prisma.sae.config": ("VisionModelSAERunnerConfig",),
        "vit_prisma.configs.HookedViTConfig": ("HookedViTConfig",),
        "sae_training.config": ("Config", "ViTSAERunnerConfig"),
        "src.sae_training.config": ("Config", "ViTSAERunnerConfig"),
    }.items()
    for name in names
)
_STAND_INS = (*IGNORED_GLOBALS, *_SETTINGS)


def load(path: Path, origin: str) -> Any:
    """What torch saved, with plain stand-ins for settings."""
    return load_checkpoint(path, origin, _STAND_INS)


def read(loaded: Mapping[str, Any], path: Path, origin: str) -> Contents:
    """The contents of a file that `load` has read: settings and weights, or weights beside a `config.json`."""
    state = loaded.get("state_dict", loaded)
    settings = loaded.get("cfg", loaded.get("config"))
    if settings is None and is_file(path.with_name("config.json")):
        beside = path.with_name("config.json")
        settings = parse_json(read_text(beside, f"config.json of {origin}"), f"config.json of {origin}")
    told = settings.__dict__.get("fields") if isinstance(settings, _Settings) else settings
    if not isinstance(state, Mapping) or not isinstance(told, Mapping):
        raise InputError(f"{origin} holds no settings beside its weights: expected Prisma's or PatchSAE's cfg")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if told.get("is_transcoder") is True or {"W_skip", "b_dec_out"} & tensors.keys():
        raise refuse(origin, "a transcoder")
    if {"r_mag", "b_gate"} & tensors.keys() or told.get("gated_sae") is True:
        raise InputError(f"{origin} is gated: expected an autoencoder whose latents are on by a ReLU, JumpReLU or TopK")
    if "block_layer" in told:
        return Contents("PatchSAE", tensors, _patchsae_fields(told))
    if "hook_point_layer" in told or "layer_subtype" in told:
        return Contents("Prisma", tensors, _prisma_fields(told, origin))
    raise InputError(f"{origin} has settings of neither Prisma (hook_point_layer) nor PatchSAE (block_layer)")


def _patchsae_fields(told: Mapping[str, Any]) -> dict[str, Any]:
    """PatchSAE's `forward_standard` takes b_dec off its input, normalizes nothing and has a ReLU."""
    layer = f"blocks.{told.get('block_layer')}.hook_resid_post" if told.get("module_name", "resid") == "resid" else ""
    tokens = "cls" if told.get("class_token") is True else ""
    return {
        "activation": "relu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "layer": printable(layer), "tokens": tokens,
    }  # fmt: skip


def _prisma_fields(told: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Prisma's `StandardSparseAutoencoder.encode` normalizes its input, then takes b_dec off."""
    architecture, activation = told.get("architecture", "standard"), told.get("activation_fn_str", "relu")
    if architecture != "standard":
        raise InputError(f"{origin} has the architecture {printable(repr(architecture), 60)}: expected standard")
    if activation not in ("relu", "topk"):
        raise InputError(f"{origin} has the activation {printable(repr(activation), 60)}: expected relu or topk")
    fields: dict[str, Any] = {"activation": activation, "apply_b_dec_to_input": True}
    options = told.get("activation_fn_kwargs")
    if activation == "topk":
        k = options.get("k") if isinstance(options, Mapping) else None
        fields["k"] = k if isinstance(k, int) else 64  # Prisma's own default
    normalization = told.get("normalize_activations")
    if normalization not in (None, "none", "layer_norm", "constant_norm_rescale"):
        shown = printable(repr(normalization), 60)
        raise InputError(
            f"{origin} has normalize_activations {shown}: expected layer_norm, constant_norm_rescale or none"
        )
    fields["normalize_activations"] = normalization or "none"
    if told.get("hook_point_head_index") is not None:
        raise InputError(f"{origin} is of one head alone: expected one of a layer's activations")
    number, kind = told.get("hook_point_layer"), told.get("layer_subtype", "hook_resid_post")
    hook = told.get("_custom_hook_point") or f"blocks.{number}.{kind}"
    fields["layer"] = printable(hook)
    fields["tokens"] = (
        "cls" if told.get("cls_token_only") is True else "patches" * (told.get("use_patches_only") is True)
    )
    return fields
