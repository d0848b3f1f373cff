"""Weights from a file, read without executing anything in it, and put into a module of the same shape."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phosphene.errors import InputError, refusing
from phosphene.files import check_file
from phosphene.networks.checkpoint import check_checkpoint


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a state dictionary that torch saved.

    Raises:
        InputError: there is no such file, it is truncated or of another kind, or it holds more than tensors.
    """
    path = Path(path)
    origin = f"weights file {str(path)!r}"
    check_file(path, origin)
    if path.suffix == ".safetensors":
        with refusing(origin, "a .safetensors file, whole"):
            return dict(load_file(path))
    check_checkpoint(path, origin)
    try:
        with refusing(origin, "a state dictionary that torch saved, whole"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that change; whoever reads can do nothing about it
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise InputError(
            f"{origin} holds more than tensors, or is damaged, and is not loaded: expected a "
            "state dictionary (torch.save(module.state_dict(), …)) or a .safetensors file"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{origin} holds no state dictionary: expected names and tensors")
    return loaded


def put_weights(
    module: nn.Module, weights: dict[str, Tensor], name: str, origin: str, partial: bool = False
) -> frozenset[str]:
    """Put weights into a module, all of them or none; gives the names of the tensors that were not among them.

    Args:
        partial: tensors may be missing, as long as some are there.

    Raises:
        InputError: a tensor is missing (unless `partial`), left over, or of another shape: the weights are of another
            network.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    left = [key for key in weights if key not in own]
    other = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    problems = []
    if missing and (not partial or len(missing) == len(own)):
        problems.append(f"{len(missing)} of {len(own)} tensors are missing ({missing[0]}, …)")
    if left:
        problems.append(f"{len(left)} are not of this network ({left[0]}, …)")
    if other:
        key = other[0]
        problems.append(
            f"{len(other)} have another shape ({key}: {tuple(weights[key].shape)} for {tuple(own[key].shape)})"
        )
    if problems:
        advice = ""
        if len(problems) == 1 and missing and len(missing) < len(own) and not partial:
            advice = "; to show the layers whose weights are there, say so: --partial"
        raise InputError(f"the weights in {origin} are not those of {name}: {'; '.join(problems)}{advice}")
    module.load_state_dict(weights, strict=False)
    return frozenset(missing)
