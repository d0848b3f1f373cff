"""Files of saev (Stevens et al. 2025): a line of JSON, then what `torch.save` wrote of a state dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.dictionaries.contents import Contents
from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import check_file, parse_json
from phosphene.networks.weights import load_checkpoint

_MAX_HEADER = 1 << 20
_LAST_SCHEMA = 5
_NEVER_SUBTRACTS = 3  # from this schema on, b_dec is never taken off the input; before schema 1 it always is


def read(path: Path, origin: str) -> Contents:
    check_file(path, origin)
    with input_errors_for(origin, "a line of JSON and a state dictionary, as saev writes it"), path.open("rb") as file:
        line = file.readline(_MAX_HEADER)
        if not line.endswith(b"\n"):
            raise InputError(
                f"{origin}: its first line has no end within {_MAX_HEADER:,} bytes: expected saev's header"
            )
        header = parse_json(line.decode("utf-8"), origin)
        if not isinstance(header, dict):
            raise InputError(f"{origin}: its first line is no table of JSON: expected saev's header")
        with tempfile.TemporaryDirectory() as folder:  # what torch wrote, as a file that can be checked
            rest = Path(folder) / "weights.pt"
            with rest.open("wb") as target:
                shutil.copyfileobj(file, target, 1 << 24)
            loaded = load_checkpoint(rest, origin)
    if not isinstance(loaded, dict):
        raise InputError(f"{origin} holds no state dictionary behind its header: expected saev's")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return _contents(header, tensors, origin)


def _contents(header: dict[str, Any], tensors: dict[str, Tensor], origin: str) -> Contents:
    schema = header.get("schema", 0)
    if type(schema) is not int or not 0 <= schema <= _LAST_SCHEMA:
        shown = printable(repr(schema), 40)
        raise InputError(f"{origin} is of saev's schema {shown}: expected one of 1 to {_LAST_SCHEMA}, or none")
    fields: dict[str, Any] = {"normalize_activations": "none"}
    if schema == 0 or schema >= _NEVER_SUBTRACTS:
        fields["apply_b_dec_to_input"] = schema == 0
    kind, settings = _activation(header, schema)
    threshold = tensors.pop("activation.threshold", None)
    if kind == "Relu":
        fields["activation"] = "relu"
    elif kind == "TopK":
        fields |= {"activation": "topk", "k": settings.get("top_k"), "rectified": False}
    elif kind == "BatchTopK":
        fields["activation"] = "jumprelu"  # as saev runs it once it is trained
        if threshold is not None and threshold.numel() == 1:
            fields["threshold"] = max(0.0, float(threshold))
    else:
        raise InputError(f"{origin} has the activation {printable(repr(kind), 60)}: expected Relu, TopK or BatchTopK")
    if fields.get("k", 1) is None:
        del fields["k"]
    return Contents("saev", tensors, fields)


def _activation(header: dict[str, Any], schema: int) -> tuple[Any, dict[str, Any]]:
    """The class of the activation, and its parameters."""
    if schema == 0:
        return "Relu", {}
    settings = header.get("cfg")
    settings = settings if isinstance(settings, dict) else {}
    told = settings.get("activation")
    if isinstance(told, dict):
        parameters = told.get("params")
        return told.get("cls"), parameters if isinstance(parameters, dict) else {}
    return header.get("cls"), settings
