"""What a forward pass shows of a network: its layers, which axis of each is the rows, and where its logits come out.

Two different images go through the network, and the first of them alone.  A layer's output carries the rows on the
axis that is twice as long for two, where the first half of it is what the first image gives alone: it may be another
axis than the first (tokens first), or a multiple of the rows (windows folded into them).  Where the first image gives
other numbers in company than alone, the network mixes rows, or draws random numbers; then images go through it one at
a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from phosphene.errors import first_line
from phosphene.networks.layers import OUTPUT, Layer, is_activation, module_call
from phosphene.networks.outputs import (
    Choice,
    Ending,
    Probability,
    as_logits,
    choose,
    is_called_logits,
    is_detection,
    is_model_output,
    is_no_logits,
    pick,
    tensors_of,
)
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.recording import PassRecord, call_places, record_pass
from phosphene.networks.rows import RowLayout, differ, find_row_layout, guess_row_layout, sample_of, shape_of_one
from phosphene.networks.tokens import TokenScheme, find_tokens

_OUTPUT_TYPE = "Output"  # no module's


class Trace(NamedTuple):
    """What a forward pass shows.

    Attributes:
        layers: in the order in which they end.
        left_out: why some modules' outputs are no layers, by module.
        classes: of the logits; 0 without any.
        output: the name of the tensor that is the output; None if there is no tensor in it.
        ending: the softmax or sigmoid that it ends in.
        output_layer: the output as a layer, where it is no logits; among `layers` where it is none of theirs.
        unbatchable_reason: why images go through it one at a time; empty where they need not.
        random: whether it draws random numbers.
        probable: whether the output is probabilities, made in a way that cannot be bypassed.
        note: what was guessed of the output.
        dtype: of the output, where it is no floating-point tensor.
        tokens: what the tokens of its layers are; None where it has none, or nothing says it.
    """

    layers: list[Layer]
    left_out: dict[str, str]
    classes: int = 0
    output: str | None = None
    ending: Ending | None = None
    output_layer: Layer | None = None
    unbatchable_reason: str = ""
    random: bool = False
    probable: bool = False
    note: str = ""
    dtype: str = ""
    tokens: TokenScheme | None = None

    @property
    def probability(self) -> Probability:
        """How the logits become probabilities."""
        if self.ending is not None:
            return self.ending.kind
        return "itself" if self.probable else "softmax" if self.classes > 1 else "none"

    @property
    def notes(self) -> dict[str, str]:
        """What a user should know of it, in sentences, by topic."""
        found = {"output": self.note} if self.note else {}
        if self.tokens is not None and self.tokens.note:
            found["tokens"] = self.tokens.note
        if self.unbatchable_reason:
            end = ", each with its own from its seed" if self.random else ""
            found["rows"] = f"{self.unbatchable_reason}; images go through it one at a time{end}"
        if self.probable:
            found["probability"] = (
                "its outputs are probabilities, and no softmax or sigmoid was found that could be bypassed"
            )
        return found


def probe_images(preprocessing: Preprocessing) -> Tensor:
    """Noise about the mean, and something quite different: coarser, and of more contrast.

    (2, channels, height, width) in 0..255.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = preprocessing.size  # type: ignore[misc]
    mean = torch.tensor(preprocessing.mean_pixels).view(-1, 1, 1)
    noise = torch.randn((preprocessing.channels, height, width), generator=generator)
    coarse = torch.rand((1, preprocessing.channels, 4, 4), generator=generator)
    other = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] * 255
    return torch.stack([(mean + 30 * noise).clamp(0, 255), (other + 5 * noise).clamp(0, 255)])


def trace(
    module: nn.Module,
    run: Callable[[Tensor], Any],
    pixels: Tensor,
    *,
    layout_last: bool,
    requested: str | int | None,
    name: str,
    classifies: bool = True,
) -> Trace:
    """Send images through a (borrowed) module, and look.

    Args:
        module: whose modules' calls are layers.
        run: what sends pixels through it.
        pixels: two different images, (2, channels, height, width) in 0..255.
        layout_last: whether maps on their way have their channels last as a rule.
        requested: the output that the user names.
        name: the network's.
        classifies: whether its output may be logits.

    Raises:
        InputError: there is no output of that name.
        Exception: whatever the module raises for the first image alone.
    """
    first = record_pass(module, run, pixels[:1], layout_last)
    chosen = choose(first.result, requested, name, _dependency_test(run, pixels[:1]))
    together: PassRecord | None = None
    why, random = "", False
    try:
        together = record_pass(module, run, pixels, layout_last, first)
    except Exception as error:
        why = f"it takes one image at a time ({first_line(error)})"
    rows, left_out, mixed = ({}, {}, "") if together is None else _compare(first, together, chosen)
    if mixed:
        again = record_pass(module, run, pixels[:1], layout_last)
        random = any(differ(one.sample, other.sample) for one, other in zip(first.calls, again.calls, strict=False))
        random = random or _output_changes(first, again, chosen)
        why = "its forward draws random numbers" if random else f"what {mixed} is for one image depends on the others"
    found = Trace(_layers(first, rows, left_out), left_out, unbatchable_reason=why, random=random)
    return _with_output(found, first, chosen, classifies or requested is not None)


def trace_resized(
    module: nn.Module, run: Callable[[Tensor], Any], pixels: Tensor, layout_last: bool, native: Trace
) -> Trace:
    """Of images of another size, by what is known of the network at its own.  One image is sent as far as it gets.

    Args: as `trace`.
    """
    first = record_pass(module, run, pixels[:1], layout_last, as_far=True)
    modules = {name for name, _ in module.named_modules()}
    known = {module_call(layer.name, modules): layer for layer in native.layers}
    layers = []
    for place, index in call_places(first.calls).items():
        call = first.calls[index]
        if place in known and len(call.shape) == len(known[place].raw_shape):
            layers.append(_resized(known[place], call.shape))
    output = None if native.output is None else pick(first.result, native.output)
    output_layer = native.output_layer
    if output_layer is not None and output is not None and output.ndim == len(output_layer.raw_shape):
        output_layer = _resized(output_layer, tuple(output.shape))
        layers += [output_layer] if module_call(OUTPUT, modules) in known else []
    classes = _classes(output, True) if output is not None and native.classes else 0
    return native._replace(layers=layers, classes=classes, output_layer=output_layer)


_MLP = re.compile(r"mlp|ffn|feed_?forward|intermediate|linear1$|fc1$|c_fc$", re.IGNORECASE)


def with_tokens(found: Trace, module: nn.Module, size: tuple[int, int], given: tuple[int, int] | None) -> Trace:
    """The trace of a network at its own size, with what the tokens of its layers are.

    Args:
        size: of its images.
        given: class tokens and registers, where the user says it.

    Raises:
        InputError: no layer has as many tokens as the user says.
    """
    layers = [*found.layers, *([] if found.output_layer is None else [found.output_layer])]
    modules = dict(module.named_modules())
    maps = [
        (modules[layer.name], layer.positions)
        for layer in layers
        if len(layer.positions) == 2 and layer.name in modules
    ]
    lengths = [layer.positions[0] for layer in layers if _has_tokens(layer)]
    found = laid_out(found._replace(tokens=find_tokens(module, size, lengths, maps, given)), size)
    if any(layer.worth_showing for layer in found.layers):
        return found
    return found._replace(layers=[_marked(layer, modules) for layer in found.layers])


def _marked(layer: Layer, modules: Mapping[str, nn.Module]) -> Layer:
    """Marked where it widens the channels for an activation that is a function and no module."""
    module = modules.get(layer.name)
    widens = isinstance(module, nn.Linear) and module.out_features > module.in_features
    return replace(layer, worth_showing=True) if layer.tokens and widens and _MLP.search(layer.name) else layer


def laid_out(found: Trace, size: tuple[int, int]) -> Trace:
    """The trace, with the layout of its layers' tokens for images of a size."""
    scheme = found.tokens
    if scheme is None:
        return found

    def lay_out(layer: Layer) -> Layer:
        layout = scheme.layout(size, layer.positions[0]) if _has_tokens(layer) else None
        return layer if layout is None else replace(layer, tokens=layout)

    output = found.output_layer
    return found._replace(
        layers=[lay_out(layer) for layer in found.layers], output_layer=None if output is None else lay_out(output)
    )


def _has_tokens(layer: Layer) -> bool:
    """Whether its positions are tokens of the whole image, one behind the other."""
    return len(layer.positions) == 1 and layer.positions[0] > 1 and layer.channels_last and not layer.rows.folded


def _resized(layer: Layer, raw: tuple[int, ...]) -> Layer:
    shape = shape_of_one(raw, layer.rows, layer.channels_last)
    return replace(layer, shape=shape, channels=shape[0], positions=shape[1:], raw_shape=raw, tokens=None)


# Layers


def _compare(
    first: PassRecord, together: PassRecord, chosen: Choice | None
) -> tuple[dict[int, RowLayout], dict[str, str], str]:
    """How each call carries the rows, why some modules' outputs are no layers, and what mixes the rows, if something
    does."""
    rows: dict[int, RowLayout] = {}
    left_out: dict[str, str] = {}
    mixed = ""
    for index, call in enumerate(first.calls):
        layout, wrong = together.rows.get(index, (None, "it is not called in the same way for every image"))
        if layout is None:
            left_out[call.name] = wrong
        else:
            rows[index] = layout
            mixed = mixed or (call.name if wrong else "")
    one, two = _output(first, chosen), _output(together, chosen)
    if not mixed and one is not None and two is not None and one.ndim:
        layout, wrong = find_row_layout(tuple(one.shape), sample_of(one), two)
        mixed = "its output" if layout is not None and wrong else ""
    return rows, left_out, mixed


def _layers(first: PassRecord, rows: Mapping[int, RowLayout], left_out: Mapping[str, str]) -> list[Layer]:
    kept = [(index, call) for index, call in enumerate(first.calls) if index in rows or call.name not in left_out]
    times = Counter(call.name for _, call in kept)
    seen: Counter[str] = Counter()
    layers = []
    for index, call in kept:
        seen[call.name] += 1
        layout = rows.get(index, guess_row_layout(call.shape))
        shape = shape_of_one(call.shape, layout, call.last)
        layers.append(
            Layer(
                name=f"{call.name}#{seen[call.name]}" if times[call.name] > 1 else call.name,
                type=type(call.module).__name__,
                shape=shape,
                channels=shape[0],
                positions=shape[1:],
                parameters=sum(parameter.numel() for parameter in call.module.parameters()),
                worth_showing=is_activation(call.module) and shape[1:] != (1, 1),
                channels_last=call.last,
                rows=layout,
                raw_shape=call.shape,
            )
        )
    return layers


# The output


def _output(passed: PassRecord, chosen: Choice | None) -> Tensor | None:
    return None if chosen is None else pick(passed.result, chosen.name)


def _output_changes(first: PassRecord, again: PassRecord, chosen: Choice | None) -> bool:
    one, other = _output(first, chosen), _output(again, chosen)
    return one is not None and other is not None and differ(sample_of(one), sample_of(other))


def _with_output(trace: Trace, first: PassRecord, chosen: Choice | None, classifies: bool) -> Trace:
    """The trace, with what is known of the network's output."""
    if chosen is None:
        return trace._replace(dtype=_kind(first.result))
    output = pick(first.result, chosen.name)
    assert output is not None
    classes = _classes(output, classifies and not _says_otherwise(first.result, chosen.name))
    ending = first.watch.ending(output) if classes else None
    layer = None if classes else _output_layer(output, trace.layers)
    sample = sample_of(output)
    same = any(call.shape == tuple(output.shape) and torch.equal(call.sample, sample) for call in first.calls)
    return trace._replace(
        layers=[*trace.layers, layer] if layer is not None and not same else trace.layers,
        output_layer=layer,
        classes=classes,
        output=chosen.name,
        ending=ending,
        probable=bool(classes) and ending is None and (_is_probable(as_logits(output)) or first.watch.hands_on(output)),
        note=chosen.note,
    )


def _classes(output: Tensor, may_be: bool) -> int:
    """How many classes an output for one image has, if it is logits."""
    if not may_be or (output.ndim > 2 and output[0, 0].numel() != 1):
        return 0
    logits = as_logits(output)
    return logits.shape[1] if logits.ndim == 2 and len(logits) == 1 else 0


def _says_otherwise(result: Any, name: str) -> bool:
    return (is_model_output(result) and not is_called_logits(name)) or any(
        each.name == name and is_no_logits(each) for each in tensors_of(result)
    )


def _output_layer(output: Tensor, layers: Sequence[Layer]) -> Layer | None:
    """The network's output as a layer, where it is no logits."""
    if output.ndim < 2 or len(output) != 1 or any(layer.name.partition("#")[0] == OUTPUT for layer in layers):
        return None
    last = output.ndim == 3
    shape = shape_of_one(tuple(output.shape), RowLayout(), last)
    return Layer(OUTPUT, _OUTPUT_TYPE, shape, shape[0], shape[1:], 0, False, last, RowLayout(), tuple(output.shape))


def _is_probable(logits: Tensor) -> bool:
    """Whether they are probabilities of classes, as far as one image tells."""
    within = bool(((logits >= 0) & (logits <= 1)).all())
    return within and logits.shape[1] > 1 and bool((logits.sum(dim=1) - 1).abs().max() < 1e-3)


def _dependency_test(run: Callable[[Tensor], Any], pixels: Tensor) -> Callable[[str, str], bool]:
    """Tells which of a network's outputs is made from which, by their gradients; in a pass of its own."""
    passes: list[dict[str, Tensor]] = []

    def depends_on(one: str, other: str) -> bool:
        if not passes:
            try:
                with torch.enable_grad():
                    result = run(pixels.clone().requires_grad_())
                passes.append({each.name: each.tensor for each in tensors_of(result)})
            except Exception:  # of whatever is in the network
                passes.append({})
        tensor, source = passes[0].get(other), passes[0].get(one)
        if tensor is None or source is None or not tensor.requires_grad or not source.requires_grad:
            return False
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(tensor.sum(), source, retain_graph=True, allow_unused=True)
        except RuntimeError:
            return False
        return gradient is not None

    return depends_on


def _kind(result: Any) -> str:
    """What a network returned, in words, that has no floating-point tensor in it."""
    if is_detection(result):
        return "boxes of what it finds"
    tensors = [each.tensor for each in tensors_of(result)]
    if tensors:
        return f"{str(tensors[0].dtype).removeprefix('torch.')} numbers"
    return f"an object of type {type(result).__name__}"
