"""State dictionaries of overcomplete (Fel et al. 2025), whose files do not say which latents are on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from phosphene.dictionaries.contents import Contents
from phosphene.errors import InputError, join_names, printable

DICTIONARY = "dictionary._weights"
_LINEAR = "encoder.final_block.0"  # of overcomplete's MLPEncoder without hidden layers
_NORM = "encoder.final_block.1"
_EPSILON = 1e-5  # of a BatchNorm1d


def read(tensors: Mapping[str, Tensor], origin: str) -> Contents:
    """Overcomplete has no decoder bias and takes nothing off its input; a batch normalization is folded in."""
    given = {name: tensor.float() for name, tensor in tensors.items()}
    decoder = given.pop(DICTIONARY)
    if decoder.ndim != 2:
        raise InputError(f"{origin}: {DICTIONARY} of shape {tuple(decoder.shape)}: expected (latents, width)")
    multiplier = given.pop("dictionary.multiplier", torch.tensor(0.0))
    decoder = decoder * multiplier.exp() if multiplier.numel() == 1 else decoder
    thresholds = given.pop("thresholds", None)
    encoder, bias = _encoder(given, decoder, origin)
    found = {"W_enc": encoder.T, "W_dec": decoder, "b_enc": bias}
    fields: dict[str, Any] = {"normalize_activations": "none", "apply_b_dec_to_input": False}
    if thresholds is not None:  # they are kept as logarithms
        found["threshold"] = thresholds.exp()
        fields["activation"] = "jumprelu"
    return Contents("overcomplete", found, fields)


def _encoder(given: dict[str, Tensor], decoder: Tensor, origin: str) -> tuple[Tensor, Tensor]:
    """The weights (latents, width) and biases (latents,) of a linear encoder, its normalization folded in."""
    latents = len(decoder)
    zeros = torch.zeros(latents)
    names = {name for name in given if name.startswith("encoder.")}
    if names <= {"encoder.weight", "encoder.bias"}:  # a tied one has no weights of its own
        return given.get("encoder.weight", decoder), given.get("encoder.bias", zeros)
    known = {f"{_LINEAR}.weight", f"{_LINEAR}.bias"}
    known |= {f"{_NORM}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    if f"{_LINEAR}.weight" not in names or not names <= known:
        others = join_names([printable(name, 60) for name in sorted(names - known)])
        raise InputError(f"{origin} has an encoder that is more than linear ({others}): expected one linear layer")
    weight, bias = given[f"{_LINEAR}.weight"], given.get(f"{_LINEAR}.bias", zeros)
    if f"{_NORM}.weight" in names and f"{_NORM}.running_var" not in names:
        raise InputError(f"{origin} normalizes each vector of latents: expected a batch normalization, or none")
    if f"{_NORM}.running_var" in names:
        scale = given.get(f"{_NORM}.weight", zeros + 1) / (given[f"{_NORM}.running_var"] + _EPSILON).sqrt()
        bias = (bias - given.get(f"{_NORM}.running_mean", zeros)) * scale + given.get(f"{_NORM}.bias", zeros)
        weight = weight * scale[:, None]
    return weight, bias
