"""Names for the steps of a graph: those of the modules that an exporter saw, where it wrote them down."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from phosphene.networks.sources.onnx.graph import GraphStep, OnnxGraph
from phosphene.networks.sources.onnx.nodes import title


def step_names(steps: Sequence[GraphStep]) -> list[str]:
    """A name for each step: that of the module it was exported from, or of the node; unique, in dotted parts."""
    scopes = [_scope(step.node) for step in steps]
    counts = Counter(scope for scope, _ in scopes)
    parents = {scope[:depth] for scope in counts for depth in range(1, len(scope))}
    names: dict[tuple[str, ...], None] = {}
    for scope, operator in scopes:
        alone = scope and counts[scope] == 1 and scope not in parents
        name = first = scope if alone else (*scope, operator)
        number = 1
        while name in names or name in parents or (name in counts and not (alone and name == scope)):
            number += 1
            name = (*first[:-1], f"{first[-1]}_{number}")
        names[name] = None
    return [".".join(name) for name in names]


def _scope(node: Any) -> tuple[tuple[str, ...], str]:
    """The module that a node was exported from, as parts of its name, and what the node is in it."""
    metadata = {entry.key: entry.value for entry in getattr(node, "metadata_props", ())}
    scopes = re.findall(r"'([^']*)'", str(metadata.get("pkg.torch.onnx.name_scopes", "")))
    if scopes:  # torch's exporter
        weights = node.input[1] if node.op_type in ("Conv", "Gemm") and len(node.input) > 1 else ""
        if weights.endswith(".weight"):  # a batch norm may have been merged into it, and given it its scope
            return _parts(weights.removesuffix(".weight")), node.op_type
        inside = scopes[-2] if len(scopes) > 1 else ""
        return _parts("" if inside.startswith("_empty") else inside), node.op_type
    parts = [part for part in title(node).split("/") if part]
    # torch's exporter of old writes /layer1/layer1.0/conv1/Conv.
    if len(parts) > 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        short = [part for part, after in pairwise(parts) if not after.startswith(f"{part}.")]
        return _parts(".".join(short)), node.op_type
    name = _parts(".".join(parts))
    if not name or name[-1].isdigit():
        name = (*name[:-1], f"{node.op_type}_{name[-1]}" if name else node.op_type)
    return name, node.op_type


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a dotted name, of word characters only, none of which is an attribute of every module."""
    parts = [re.sub(r"[^\w-]+", "_", part)[:64].strip("_") for part in name.split(".")]
    taken = {*dir(OnnxGraph), "training"}
    return tuple(f"{part}_" if part in taken else part for part in parts if part)[-16:]
