"""An ONNX file is read and checked, with the weights that lie in files beside it, before anything of it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.files import check_file, is_file

_LARGEST_FILE = 2**31  # bytes; protobuf reads no more
_MOST_NODES = 20_000  # a vision transformer of 48 blocks, exported node by node, has a third of it


def read_model(path: Path) -> Any:
    """The file's model, checked, with the weights that lie in files beside it."""
    onnx = require("onnx", extra="onnx")
    check_file(path, f"ONNX file {str(path)!r}", _LARGEST_FILE)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and what else a parser in C++ may think of
        raise InputError(f"{path.name} cannot be read: it is damaged, or no ONNX file") from error
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise InputError(f"{path.name} has {len(graph.node):,} nodes: expected {_MOST_NODES:,} at most")
    names = [text for node in graph.node for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    names += [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    if not all(isinstance(name, str) for name in names):  # protobuf returns bytes that are no UTF-8 as they are
        raise InputError(f"{path.name} cannot be read: it is damaged, since one of its names is no text")
    # Before the checker, which only looks for the files, and before they are read.
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in outside:
        _check_outside(tensor, path)
    try:
        onnx.checker.check_model(str(path))
        if outside:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise InputError(f"{path.name} is no valid ONNX file: {first_line(error).rstrip('.')}") from error
    if model.functions or graph.sparse_initializer:
        what = "functions of its own" if model.functions else "sparse weights"
        raise InputError(f"{path.name} has {what}, which are not read: export it with operators and tensors only")
    return model


def _check_outside(tensor: Any, path: Path) -> None:
    """Refuse weights that would be read from elsewhere than the file's folder, or more of them than they are."""
    onnx = require("onnx", extra="onnx")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if folder not in file.parents:
        raise InputError(f"{path.name} has the weights {tensor.name!r} in {location!r}: expected a file beside it")
    if not is_file(file):
        raise InputError(f"{path.name} has the weights {tensor.name!r} in {location!r}, and there is no such file")
    try:
        size = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name} does not say where in {location!r} the weights {tensor.name!r} are") from error
    if length != size or min(*tensor.dims, offset, 0) < 0 or offset + size > file.stat().st_size:
        raise InputError(f"{location!r}, with weights of {path.name}, is truncated or of another network")
    if "length" not in entries:
        tensor.external_data.add(key="length", value=str(size))
