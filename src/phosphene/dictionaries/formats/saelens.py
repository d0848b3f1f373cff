"""Folders of SAELens: `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from phosphene.dictionaries.contents import Contents, refuse
from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import check_file, parse_json, read_text

WEIGHTS, SETTINGS = "sae_weights.safetensors", "cfg.json"
_ARCHITECTURES = {
    "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
}  # fmt: skip
_NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")


def read(folder: Path, origin: str) -> Contents:
    told = parse_json(read_text(folder / SETTINGS, f"{SETTINGS} of {origin}"), f"{SETTINGS} of {origin}")
    if not isinstance(told, dict):
        raise InputError(f"{SETTINGS} of {origin} is no table of JSON: expected SAELens's")
    check_file(folder / WEIGHTS, f"{WEIGHTS} of {origin}")
    with input_errors_for(f"{WEIGHTS} of {origin}", "a .safetensors file, whole"):
        tensors = dict(load_file(folder / WEIGHTS))
    contents = Contents("SAELens", tensors, settings_fields(told, origin))
    if contents.fields["activation"] == "jumprelu" and "topk_threshold" in tensors:
        contents.fields.setdefault("threshold", float(tensors["topk_threshold"]))
    return contents


def settings_fields(told: dict[str, Any], origin: str) -> dict[str, Any]:
    """What `cfg.json` says, also as versions before 6 spelled it.

    Raises:
        InputError: an architecture, activation or normalization that is not honored.
    """
    metadata = told.get("metadata") if isinstance(told.get("metadata"), dict) else {}
    assert isinstance(metadata, dict)
    architecture = told.get("architecture", "standard")
    activation = told.get("activation_fn", told.get("activation_fn_str", "relu"))
    options = told.get("activation_fn_kwargs")
    if activation == "topk":
        architecture, told = "topk", {"k": (options or {}).get("k") if isinstance(options, dict) else None} | told
    check_architecture(architecture, activation, origin)
    fields: dict[str, Any] = {
        "activation": _ARCHITECTURES[architecture],
        "apply_b_dec_to_input": told.get("apply_b_dec_to_input", True) is True,  # SAELens's own default
    }
    if architecture == "topk" and isinstance(told.get("k"), int):
        fields["k"] = told["k"]
    if told.get("rescale_acts_by_decoder_norm") is True:
        fields["rescale_acts_by_decoder_norm"] = True
    fields["normalize_activations"] = _normalization(told.get("normalize_activations"), origin)
    if (head := told.get("hook_head_index", metadata.get("hook_head_index"))) is not None:
        raise InputError(
            f"{origin} is of head {printable(repr(head), 40)} alone: expected one of a layer's activations"
        )
    hook = told.get("hook_name", told.get("hook_point", metadata.get("hook_name")))
    if isinstance(hook, str):
        fields["layer"] = printable(hook)
    return fields


def check_architecture(architecture: Any, activation: Any, origin: str) -> None:
    """Raise an `InputError` for one that is not read, by its name."""
    shown = printable(repr(architecture), 60)
    if "transcoder" in str(architecture) or "crosscoder" in str(architecture):
        raise refuse(origin, f"a transcoder (architecture {shown})")
    if architecture not in _ARCHITECTURES:
        raise InputError(f"{origin} has the architecture {shown}: expected one of {', '.join(_ARCHITECTURES)}")
    if activation not in ("relu", "topk"):
        raise InputError(f"{origin} has the activation {printable(repr(activation), 60)}: expected relu or topk")


def _normalization(told: Any, origin: str) -> str:
    """What is done at run time; False and None are SAELens's earlier names of "none", and True of a rescaling."""
    if told in (None, False, "none"):
        return "none"
    if told is True or told == "expected_average_only_in":
        raise InputError(
            f"{origin} expects activations rescaled by their average length (normalize_activations "
            "expected_average_only_in), and does not hold the factor: expected it folded into the weights "
            "(SAELens's fold_activation_norm_scaling_factor)"
        )
    if told not in _NORMALIZATIONS:
        shown = printable(repr(told), 60)
        raise InputError(f"{origin} has normalize_activations {shown}: expected {', '.join(_NORMALIZATIONS)}")
    return str(told)
