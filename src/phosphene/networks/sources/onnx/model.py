"""Networks from `.onnx` files: each node becomes a torch module of onnx2pytorch's, and the file is bounded by shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.networks.labels import assumed_labels
from phosphene.networks.network import Network
from phosphene.networks.outputs import logits
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.onnx.builder import build_graph
from phosphene.networks.sources.onnx.files import read_model
from phosphene.networks.sources.onnx.graph import OnnxGraph
from phosphene.networks.sources.onnx.image_input import ImageInput, find_input

_SIDES = (224, 256, 384, 299, 240, 288, 192, 160, 128, 96, 64, 32)  # pixels, tried in turn where none are said


def open_onnx(path: str | Path) -> Network:
    """The network of an ONNX file: one input, a batch of images, channels first or last.

    Layers are called as the exporter called the modules or nodes.  Of several outputs that of the classes is taken,
    and the module gives all that are floating-point numbers, by name.  What the network expects is not in the file: see
    `notes`.

    Raises:
        InputError: the file is damaged or no ONNX, or has a node (named) that cannot be had in torch.
    """
    path = Path(path)
    require("onnx", extra="onnx", what=path.name)
    require("onnx2pytorch", extra="onnx", what=path.name)
    model = read_model(path)
    images, module = _opened(model, path.name)
    fixed = not _takes(module, (images.height + 32, images.width + 32), images)
    fields = {"size": (images.height, images.width), "channels": images.channels, "fixed_size": fixed}
    usual = "byte" if images.of_bytes else "torch" if images.channels == 3 else "unit"
    preprocessing = Preprocessing.preset(usual, **fields)
    notes = {
        "preprocessing": (
            f"what {path.name} expects is not in the file: {preprocessing.describe()} is assumed; `phosphene doctor "
            f"--images DIR` finds out, and {path.stem}.toml beside it or --preprocessing says it"
        )
    }
    if images.of_bytes:
        notes["preprocessing"] = (
            f"{path.name} takes pixels of 8 bits: {preprocessing.describe()} is assumed; {path.stem}.toml beside it or "
            "--preprocessing says otherwise"
        )
    if module.output_note:
        notes["output"] = f"{path.name} {module.output_note}"
    labels = assumed_labels(module.classes)
    if labels is not None:
        notes["labels"] = f"what the outputs of {path.name} mean is not in the file: ImageNet's classes are assumed"
    first = next(iter(module.outputs))
    return Network(
        module, preprocessing, labels, path.stem, notes=notes, output=first if len(module.outputs) > 1 else None
    )


# The first size and shape of batch that goes through


def _opened(model: Any, name: str) -> tuple[ImageInput, OnnxGraph]:
    """The images that a network takes, and the network; where the file says no size, of the first usual one."""
    problems = []
    for side in _SIDES:
        images = find_input(model, name, side)
        try:
            return images, _module(model, images, name)
        except InputError as error:
            problems.append(error)
            if images.sized:
                break
    raise problems[0]


def _module(model: Any, images: ImageInput, name: str) -> OnnxGraph:
    """The graph in torch, for any number of images at a time.

    Many exporters write the batch's size, mostly 1, into the shapes of a graph.  Then all that is known for one
    image of this size is taken as fixed, and the first axis of every reshape left open.
    """
    graph = build_graph(model, images, name, frozen=False)
    problem = _problem(graph, images)
    if problem:
        frozen = build_graph(model, images, name, frozen=True)
        problem = _problem(frozen, images) and problem
        graph = frozen
    if problem:
        raise InputError(f"{name} cannot be run: {problem}")
    return graph


def _problem(graph: OnnxGraph, images: ImageInput) -> str:
    """What is wrong with a graph: a node that fails, or rows that are not independent; empty if nothing is."""
    generator = torch.Generator().manual_seed(0)
    two = torch.randn(2, images.channels, images.height, images.width, generator=generator)
    one, problem = _run(graph, two[1:])
    if problem:
        return problem
    assert one is not None
    if one.ndim < 2 or len(one) != 1 or not one.is_floating_point():
        return f"one image gives {tuple(one.shape)}: expected (1, classes), or maps of one row"
    graph.classes = one.shape[1] if one.ndim == 2 else 0
    both, problem = _run(graph, two)
    if problem:
        return f"it takes one image at a time, and two fail ({problem}): export it with a dynamic batch"
    assert both is not None
    tolerance = 1e-3 if one.dtype == torch.float32 else 1e-2
    scale = one[one.isfinite()].abs().max().item() if one.isfinite().any() else 0.0
    near = both.shape[1:] == one.shape[1:] and torch.allclose(
        both[1:], one, tolerance, tolerance * scale, equal_nan=True
    )
    if len(both) != 2 or not near:
        return "what it gives for an image depends on the others of a batch: export it with a dynamic batch"
    return ""


def _takes(graph: OnnxGraph, size: tuple[int, int], images: ImageInput) -> bool:
    try:
        result, problem = _run(graph, torch.zeros(1, images.channels, *size))
    except InputError:
        return False
    if problem or result is None:
        return False
    return result.shape == (1, graph.classes) if graph.classes else result.ndim > 2


def _run(graph: OnnxGraph, images: Tensor) -> tuple[Tensor | None, str]:
    """The logits, or what failed where."""
    running = [""]
    hooks = [
        graph.part(name).register_forward_pre_hook(lambda *_, name=name: running.append(name)) for name in graph.parts()
    ]
    try:
        with torch.no_grad():
            return logits(graph.eval()(images)), ""
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise InputError(f"node {running[-1]!r} needs more memory than there is") from error
        return None, f"node {running[-1]!r} fails: {first_line(error).rstrip('.')}"
    finally:
        for hook in hooks:
            hook.remove()
