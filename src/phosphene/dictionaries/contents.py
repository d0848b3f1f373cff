"""What a file of a dictionary holds, in the words of one format, and the `Dictionary` that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene.dictionaries.dictionary import Dictionary
from phosphene.dictionaries.encoder import KINDS, NORMALIZATIONS
from phosphene.errors import InputError, did_you_mean, join_names, printable

MAX_LATENTS, MAX_WIDTH = 1 << 22, 1 << 18
FIELDS = {
    "activation": "relu, jumprelu or topk",
    "k": "how many latents of a topk are on at a time",
    "threshold": "above which the latents of a jumprelu are on, where it is one for all",
    "rectified": "true or false: whether those of a topk that are negative are 0",
    "apply_b_dec_to_input": "true or false: whether b_dec is subtracted from the input first",
    "normalize_activations": "none, layer_norm or constant_norm_rescale",
    "rescale_acts_by_decoder_norm": "true or false: whether latents are counted in lengths of their decoder vectors",
    "layer": "the network's layer, or a hook's name such as blocks.9.hook_resid_post",
    "tokens": "cls or patches",
}
"""What a file may leave open, and a user may say."""


@dataclass
class Contents:
    """What a reader found in a file.

    Attributes:
        format: whose.
        tensors: "W_enc" (width, latents), "b_enc" (latents,), "W_dec" (latents, width), "b_dec" (width,), and where
            there are some "threshold" (latents,); biases that a format does without may be missing.
        fields: what the file, or its format, says of `FIELDS`; what it does not say is missing.
        notes: what was assumed, in sentences.
    """

    format: str
    tensors: dict[str, Tensor]
    fields: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def refuse(origin: str, what: str) -> InputError:
    """The error of a dictionary of a kind that is none of ours."""
    return InputError(
        f"{origin} is {what}, which is not read: expected a sparse autoencoder of one layer's activations"
    )


def check_fields(fields: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Fields as they are given, in Python or as words, in their types.

    Raises:
        InputError: there is no such field, or no such value.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise InputError(f"{origin} has no field {printable(name, 60)!r}{did_you_mean(name, FIELDS)}")
        try:
            found[name] = _typed(name, value)
        except (TypeError, ValueError):
            raise InputError(f"{origin}: {name} = {printable(repr(value), 60)}: expected {FIELDS[name]}") from None
    return found


def _typed(name: str, value: Any) -> Any:
    """A field's value in its own type; raises ValueError for one that cannot be."""
    if name in ("rectified", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        known = {"true": True, "false": False}
        return value if isinstance(value, bool) else known.get(str(value).lower()) or _false(value)
    if name == "k":
        number = int(value)
        if isinstance(value, bool) or number != float(value) or not 1 <= number <= MAX_LATENTS:
            raise ValueError(name)
        return number
    if name == "threshold":
        threshold = float(value)
        if not abs(threshold) < 1e30:
            raise ValueError(name)
        return threshold
    choices = {"activation": KINDS, "normalize_activations": NORMALIZATIONS, "tokens": ("cls", "patches", "")}
    if not isinstance(value, str) or len(value) > 500 or (name in choices and value not in choices[name]):
        raise ValueError(name)
    return value


def _false(value: Any) -> bool:
    if str(value).lower() != "false":
        raise ValueError(value)
    return False


def assemble(contents: Contents, path: Path, given: Mapping[str, Any]) -> Dictionary:
    """The dictionary of a file's contents.

    Args:
        given: of `FIELDS`, what a user says; it counts before what the file says.

    Raises:
        InputError: shapes do not go together, numbers are not finite, or neither the file nor the user says what has to
            be known.
    """
    origin = f"dictionary {str(path)!r}"
    tensors = _checked(contents.tensors, origin)
    fields = check_fields({**contents.fields, **given}, origin)
    encoder, decoder = tensors["W_enc"].T.contiguous(), tensors["W_dec"].contiguous()
    latents, width = encoder.shape
    decoder_bias = tensors.get("b_dec", torch.zeros(width))
    bias = tensors.get("b_enc", torch.zeros(latents)).double()
    if _subtracts(fields, decoder_bias, contents.format, origin):
        bias = bias - encoder.double() @ decoder_bias.double()
    if fields.get("rescale_acts_by_decoder_norm"):
        lengths = decoder.norm(dim=1)
        encoder, bias = encoder * lengths[:, None], bias * lengths.double()
        decoder = decoder / lengths[:, None].clamp_min(1e-12)
    kind, k, threshold = _activation(fields, tensors.get("threshold"), latents, contents.format, origin)
    normalization = fields.get("normalize_activations")
    if normalization is None:
        raise _ask(origin, contents.format, "what is done to activations first", "normalize_activations")
    return Dictionary(
        encoder, bias.float(), decoder, decoder_bias, kind, threshold, k, fields.get("rectified", True), normalization,
        fields.get("layer", ""), fields.get("tokens", ""), contents.format, path, tuple(contents.notes),
        tuple(sorted(given.items())),
    )  # fmt: skip


def _checked(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The tensors in 32 bits, of shapes that go together."""
    missing = [name for name in ("W_enc", "W_dec") if name not in tensors]
    if missing:
        held = join_names([printable(name, 40) for name in tensors])
        raise InputError(
            f"{origin} has no {' and no '.join(missing)}, but {held or 'no tensor'}: expected a dictionary"
        )
    if tensors["W_enc"].ndim == 3 or tensors["W_dec"].ndim == 3:
        raise refuse(origin, "a cross-layer transcoder or a crosscoder (its weights are of several layers)")
    width, latents = tensors["W_enc"].shape if tensors["W_enc"].ndim == 2 else (0, 0)
    expected = {
        "W_enc": (width, latents), "W_dec": (latents, width), "b_enc": (latents,), "b_dec": (width,),
        "threshold": (latents,),
    }  # fmt: skip
    if not (1 <= latents <= MAX_LATENTS and 1 <= width <= MAX_WIDTH):
        raise InputError(f"{origin}: W_enc of shape {tuple(tensors['W_enc'].shape)}: expected (width, latents)")
    decoder = tensors["W_dec"]
    if decoder.ndim == 2 and len(decoder) == latents != width and decoder.shape[1] != width:
        raise refuse(origin, f"a transcoder (from {width} channels to {decoder.shape[1]})")
    found = {}
    for name in expected.keys() & tensors.keys():
        if tuple(tensors[name].shape) != expected[name] or tensors[name].is_complex():
            raise InputError(
                f"{origin}: {name} of shape {tuple(tensors[name].shape)}: expected {expected[name]}, as W_enc is of "
                f"{width} channels and {latents} latents"
            )
        found[name] = tensors[name].detach().float()
        if not bool(found[name].isfinite().all()):
            raise InputError(f"{origin}: {name} has numbers that are not finite: expected finite ones")
    return found


def _subtracts(fields: Mapping[str, Any], decoder_bias: Tensor, format_: str, origin: str) -> bool:
    """Whether the decoder's bias is taken off the input; where it is 0, that does not matter."""
    told = fields.get("apply_b_dec_to_input")
    if told is None and bool(decoder_bias.any()):
        raise _ask(origin, format_, "whether b_dec is subtracted from the input first", "apply_b_dec_to_input")
    return bool(told)


def _activation(
    fields: Mapping[str, Any], threshold: Tensor | None, latents: int, format_: str, origin: str
) -> tuple[str, int, Tensor | None]:
    """The kind of the activation, k of a topk, and the thresholds of a jumprelu."""
    kind = fields.get("activation")
    if kind is None:
        raise _ask(origin, format_, "which latents are on", "activation")
    if kind == "relu":
        return kind, 0, None
    if kind == "topk":
        if "k" not in fields:
            raise _ask(origin, format_, "how many latents are on at a time", "k")
        if fields["k"] > latents:
            raise InputError(f"{origin}: k = {fields['k']} of {latents} latents: expected no more than there are")
        return kind, fields["k"], None
    if "threshold" in fields:
        threshold = torch.full((latents,), float(fields["threshold"]))
    if threshold is None:
        raise _ask(origin, format_, "above which value latents are on", "threshold")
    return kind, 0, threshold


def _ask(origin: str, format_: str, what: str, name: str) -> InputError:
    return InputError(
        f"{origin} ({format_}) does not say {what}: say it and write the dictionary anew, with `phosphene dictionary "
        f"FILE --set {name}=… -o OUT.safetensors` ({FIELDS[name]})"
    )
