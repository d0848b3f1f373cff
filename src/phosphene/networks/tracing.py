"""What a forward pass shows of a network: its layers, which axis of each is the rows, and where its logits come out.

Two different images go through the network, and the first of them alone.  A layer's output carries the rows on the
axis that is twice as long for two, where the first half of it is what the first image gives alone: it may be another
axis than the first (tokens first), or a multiple of the rows (windows folded into them).  Where the first image gives
other numbers in company than alone, the network mixes rows, or draws random numbers; then images go through it one at
a time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from phosphene.networks.outputs import (
    Choice,
    Ending,
    Watch,
    as_logits,
    choose,
    first_tensor,
    is_called_logits,
    is_detection,
    is_model_output,
    is_no_logits,
    pick,
    tensors_of,
)

OUTPUT = "output"
"""The name under which a network's output is a layer, where it is no logits: maps, tokens or features."""

CONSTANT = "it is the same for every image, or one output for all images together"
"""Why a module's output is no layer that can be shown."""

_OUTPUT_TYPE = "Output"  # no module's

# So many numbers of each layer are compared.
_SAMPLE = 4096
# How far one image's may be off in company, as a share of their size: sums in another order make no more of it.
_OFF = {torch.float64: 1e-6, torch.float32: 2e-3}
_OFF_ELSE = 0.1  # in 16 bits


@dataclass(frozen=True)
class Layer:
    """One call of one module in a forward pass.

    Attributes:
        name: the module's, with `#1`, `#2`, … behind it where the module is called more than once.
        type: the module's class.
        shape: of the output for one image, without the rows.
        channels: how many.
        positions: the shape of a channel's map: (height, width), (tokens,), or () for a vector.
        parameters: how many numbers the module itself, with all inside it, has learnt.
        worth_showing: whether it is an activation, behind which units are usually shown.
        channels_last: whether the module itself gives (rows, *positions, channels).
        rows: how the module's own output carries the rows.
        raw_shape: the shape of the module's own output for one image.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    channels: int
    positions: tuple[int, ...]
    parameters: int
    worth_showing: bool
    channels_last: bool
    rows: RowLayout
    raw_shape: tuple[int, ...]

    @property
    def plain_rows(self) -> bool:
        """Whether the rows are on the first axis, and nothing else is."""
        return self.rows == RowLayout()

    @property
    def plain(self) -> bool:
        """Whether the module itself gives (rows, channels, *positions)."""
        return not self.channels_last and self.rows == RowLayout()


class RowLayout(NamedTuple):
    """How an output carries the rows.

    Attributes:
        axis: the one that they lie on.
        folded: whether something else (windows, tokens) lies on that axis as well.
        innermost: where it is folded, whether the rows change fastest along it.
    """

    axis: int = 0
    folded: bool = False
    innermost: bool = False


def to_rows_first(output: Tensor, rows: int, how: RowLayout, channels_last: bool) -> Tensor:
    """A module's own output for so many images as (rows, channels, *positions).

    Raises:
        ValueError: it does not carry that many rows.
    """
    if how.axis:
        output = output.movedim(how.axis, 0)
    if not how.folded:
        if len(output) != rows:
            raise ValueError(f"it gives {len(output)} rows for {rows} images")
        return output.movedim(-1, 1) if channels_last else output
    if len(output) % rows:
        raise ValueError(f"it gives {len(output)} rows for {rows} images")
    parts = len(output) // rows
    rest = output.shape[1:]
    output = output.reshape(parts, rows, *rest).transpose(0, 1) if how.innermost else output.reshape(rows, parts, *rest)
    output = output.movedim(-1 if channels_last else 2, 1)
    return output.flatten(2) if output.ndim <= 4 else output  # windows of tokens are tokens


class Trace(NamedTuple):
    """What a forward pass shows.

    Attributes:
        layers: in the order in which they end.
        left_out: why some modules' outputs are no layers, by module.
        classes: of the logits; 0 without any.
        output: the name of the tensor that is the output; None if there is no tensor in it.
        ending: the softmax or sigmoid that it ends in.
        output_layer: the output as a layer, where it is no logits; among `layers` where it is none of theirs.
        alone: why images go through it one at a time; empty where they need not.
        random: whether it draws random numbers.
        probable: whether the output is probabilities, made in a way that cannot be bypassed.
        note: what was guessed of the output.
        dtype: of the output, where it is no floating-point tensor.
    """

    layers: list[Layer]
    left_out: dict[str, str]
    classes: int
    output: str | None
    ending: Ending | None
    output_layer: Layer | None = None
    unbatchable_reason: str = ""
    random: bool = False
    probable: bool = False
    note: str = ""
    dtype: str = ""


@dataclass
class _ModuleCall:
    """One call of one module."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    last: bool
    sample: Tensor


_How = tuple["RowLayout | None", str]  # how an output carries the rows, and what is wrong with it


class _PassRecord(NamedTuple):
    """One pass of images through a module."""

    calls: list[_ModuleCall]
    result: Any
    watch: Watch
    rows: dict[int, _How]  # by the place of a call in a pass of one image


def trace(
    module: nn.Module,
    run: Callable[[Tensor], Any],
    pixels: Tensor,
    *,
    layout_last: bool,
    requested: str | int | None,
    name: str,
    like: Trace | None = None,
    classifies: bool = True,
) -> Trace:
    """Send images through a (borrowed) module, and look.

    Args:
        module: whose modules' calls are layers.
        run: what sends pixels through it.
        pixels: two different images, (2, channels, height, width) in 0..255.
        layout_last: whether maps on their way have their channels last as a rule.
        asked: the output that the user names.
        name: the network's.
        classifies: whether its output may be logits.
        like: that of the same network at its own size; then one image is sent through, as far as it gets.

    Raises:
        InputError: there is no output of that name.
        Exception: whatever the module raises for the first image alone.
    """
    first = _run_pass(module, run, pixels[:1], layout_last, as_far=like is not None)
    if like is not None:
        return _alike(first, like)
    chosen = choose(first.result, requested, name, _dependency_test(run, pixels[:1]))
    rows: dict[int, RowLayout] = {}
    left_out: dict[str, str] = {}
    why = mixed = ""
    random = False
    try:
        together = _run_pass(module, run, pixels, layout_last, first)
    except Exception as error:
        together, why = None, f"it takes one image at a time ({_first_line(error)})"
    if together is not None:
        for index, call in enumerate(first.calls):
            how, wrong = together.rows.get(index, (None, "it is not called in the same way for every image"))
            if how is None:
                left_out[call.name] = wrong
            else:
                rows[index] = how
                mixed = mixed or (call.name if wrong else "")
        mixed = mixed or ("its output" if _output_mixes(_output(first, chosen), _output(together, chosen)) else "")
    if mixed:
        again = _run_pass(module, run, pixels[:1], layout_last)
        random = any(_differ(one.sample, other.sample) for one, other in zip(first.calls, again.calls, strict=False))
        random = random or _changes(_output(first, chosen), _output(again, chosen))
        why = "its forward draws random numbers" if random else f"what {mixed} is for one image depends on the others"
    layers = _layers(first, rows, left_out)
    return _with_output(
        Trace(layers, left_out, 0, None, None, None, why, random), first, chosen, classifies or requested is not None
    )


def _output(passed: _PassRecord, chosen: Choice | None) -> Tensor | None:
    return None if chosen is None else pick(passed.result, chosen.name)


def _output_mixes(alone: Tensor | None, together: Tensor | None) -> bool:
    if alone is None or together is None or not alone.ndim:
        return False
    how, wrong = _rows(tuple(alone.shape), _sample(alone), together)
    return how is not None and bool(wrong)


def _changes(first: Tensor | None, second: Tensor | None) -> bool:
    return first is not None and second is not None and _differ(_sample(first), _sample(second))


def _run_pass(
    module: nn.Module,
    run: Callable[[Tensor], Any],
    pixels: Tensor,
    layout_last: bool,
    alone: _PassRecord | None = None,
    as_far: bool = False,
) -> _PassRecord:
    """A pass, with every call noted; of two images, it is compared with that of the first of them alone.

    With `as_far`, what the module raises ends the pass, and nothing comes out.
    """
    calls: list[_ModuleCall] = []
    orders = _Orders(layout_last)
    places = _places(alone.calls if alone else [])
    times: Counter[str] = Counter()
    rows: dict[int, _How] = {}

    def record(called: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None or tensor.ndim < 2 or not tensor.is_floating_point():
                return
            place = places.get((called, times[called]))
            times[called] += 1
            if alone is None:
                last = orders.is_last(module, inputs, tensor)
                calls.append(_ModuleCall(called, module, tuple(tensor.shape), last, _sample(tensor)))
            elif place is not None:  # now: what comes after may work in place
                rows[place] = _rows(alone.calls[place].shape, alone.calls[place].sample, tensor)

        return hook

    with ExitStack() as stack:
        for called, each in hookable_modules(module):
            if called:
                stack.callback(each.register_forward_hook(record(called)).remove)
        watch = stack.enter_context(Watch())
        try:
            result = run(pixels)
        except Exception:
            if not as_far:
                raise
            result = None
    return _PassRecord(calls, result, watch, rows)


def _places(calls: Sequence[_ModuleCall]) -> dict[tuple[str, int], int]:
    """Of each call, by its module's name and how often that was called before: where it stands."""
    times: Counter[str] = Counter()
    found = {}
    for place, call in enumerate(calls):
        found[call.name, times[call.name]] = place
        times[call.name] += 1
    return found


def hookable_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that can be listened to, by name: those inside of a TorchScript program cannot."""
    for name, each in module.named_modules():
        if not isinstance(each, torch.jit.ScriptModule):
            yield name, each


def _sample(tensor: Tensor) -> Tensor:
    """Some numbers from all over a tensor, which depend on its shape and numbers alone."""
    sides = max(1, tensor.ndim)
    most = max(2, math.ceil(_SAMPLE ** (1 / sides)))
    for axis in range(tensor.ndim):  # views: maps with their channels last in memory are not copied
        tensor = tensor[(slice(None),) * axis + (slice(None, None, max(1, tensor.shape[axis] // most)),)]
    return tensor.detach().reshape(-1).double().cpu()


def _differ(first: Tensor, second: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    if first.shape != second.shape:
        return True
    if not (first.isfinite().all() and second.isfinite().all()):
        return bool((first.isnan() != second.isnan()).any())
    return bool((first - second).norm() > _OFF.get(dtype, _OFF_ELSE) * first.norm().clamp_min(1e-12))


def _rows(one: tuple[int, ...], sample: Tensor, together: Tensor) -> _How:
    """How an output for two images carries the rows, from the shape and a sample of that for the first of them alone.

    Beside it stands "mixed" where the first image gives other numbers in company, or why it carries none.
    """
    two = tuple(together.shape)
    if one == two:
        return None, CONSTANT
    axes = [axis for axis in range(len(one)) if two == (*one[:axis], 2 * one[axis], *one[axis + 1 :])]
    if not axes:
        return None, f"its output is {_shape(one)} for one image and {_shape(two)} for two, which is not twice as large"
    for axis in axes:
        length = one[axis]
        if not _differ(sample, _sample(together.narrow(axis, 0, length)), together.dtype):
            return RowLayout(axis, length > 1), ""
        alternate = together.movedim(axis, 0)[0::2].movedim(0, axis)
        if length > 1 and not _differ(sample, _sample(alternate), together.dtype):
            return RowLayout(axis, True, True), ""
    return RowLayout(axes[0], one[axes[0]] > 1), "mixed"


def _layers(first: _PassRecord, rows: dict[int, RowLayout], left_out: Mapping[str, str]) -> list[Layer]:
    kept = [(index, call) for index, call in enumerate(first.calls) if index in rows or call.name not in left_out]
    times = Counter(call.name for _, call in kept)
    seen: Counter[str] = Counter()
    layers = []
    for index, call in kept:
        seen[call.name] += 1
        how = rows.get(index, _guess_row_layout(call))
        shape = _one_shape(call.shape, how, call.last)
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
                rows=how,
                raw_shape=call.shape,
            )
        )
    return layers


def _with_output(trace: Trace, first: _PassRecord, chosen: Choice | None, classifies: bool) -> Trace:
    """The trace, with what is known of the network's output."""
    if chosen is None:
        return trace._replace(dtype=_kind(first.result))
    output = pick(first.result, chosen.name)
    assert output is not None
    classes = _classes(output, classifies and not _says_otherwise(first.result, chosen.name))
    ending = first.watch.ending(output) if classes else None
    shown = None if classes else _output_layer(output, trace.layers)
    sample = _sample(output)
    same = any(call.shape == tuple(output.shape) and torch.equal(call.sample, sample) for call in first.calls)
    return trace._replace(
        layers=[*trace.layers, shown] if shown is not None and not same else trace.layers,
        output_layer=shown,
        classes=classes,
        output=chosen.name,
        ending=ending,
        probable=bool(classes) and ending is None and (_is_probable(as_logits(output)) or first.watch.hands_on(output)),
        note=chosen.note,
    )


def _alike(first: _PassRecord, like: Trace) -> Trace:
    """Of images of another size, by what is known of the network at its own."""
    numbered = {}
    for layer in like.layers:
        numbered[_numbered(layer.name)] = layer
    layers = []
    for (name, time), index in _places(first.calls).items():
        call, known = first.calls[index], numbered.get((name, time + 1))
        if known is not None and len(call.shape) == len(known.raw_shape):
            shape = _one_shape(call.shape, known.rows, known.channels_last)
            layers.append(replace(known, shape=shape, channels=shape[0], positions=shape[1:], raw_shape=call.shape))
    output = None if like.output is None else pick(first.result, like.output)
    shown = like.output_layer
    if shown is not None and output is not None and output.ndim == len(shown.raw_shape):
        shape = _one_shape(tuple(output.shape), shown.rows, shown.channels_last)
        shown = replace(shown, shape=shape, channels=shape[0], positions=shape[1:], raw_shape=tuple(output.shape))
        layers += [shown] if (OUTPUT, 1) in numbered else []
    classes = _classes(output, True) if output is not None and like.classes else 0
    return like._replace(layers=layers, classes=classes, output_layer=shown)


def _numbered(layer: str) -> tuple[str, int]:
    """A layer's module, and which call of it that is."""
    module, sharp, time = layer.rpartition("#")
    return (module, int(time)) if sharp and time.isdecimal() else (layer, 1)


def _guess_row_layout(call: _ModuleCall) -> RowLayout:
    """How one image's output carries its row, where that could not be tried."""
    if call.shape[0] == 1:
        return RowLayout()
    return RowLayout(1) if len(call.shape) == 3 and call.shape[1] == 1 else RowLayout(0, True)


def _one_shape(shape: tuple[int, ...], how: RowLayout, last: bool) -> tuple[int, ...]:
    """Of one image's output, arranged, without the row."""
    return tuple(to_rows_first(torch.empty(shape, device="meta"), 1, how, last).shape[1:])


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
    shape = _one_shape(tuple(output.shape), RowLayout(), last)
    return Layer(OUTPUT, _OUTPUT_TYPE, shape, shape[0], shape[1:], 0, False, last, RowLayout(), tuple(output.shape))


def _is_probable(logits: Tensor) -> bool:
    """Whether they are probabilities of classes, as far as one image tells."""
    within = bool(((logits >= 0) & (logits <= 1)).all())
    return within and logits.shape[1] > 1 and bool((logits.sum(dim=1) - 1).abs().max() < 1e-3)


def _dependency_test(run: Callable[[Tensor], Any], pixels: Tensor) -> Callable[[str, str], bool]:
    """Tells which of a network's outputs is made from which, by their gradients; in a pass of its own."""
    made: list[dict[str, Tensor]] = []

    def feeds(one: str, other: str) -> bool:
        if not made:
            try:
                with torch.enable_grad():
                    result = run(pixels.clone().requires_grad_())
                made.append({each.name: each.tensor for each in tensors_of(result)})
            except Exception:  # of whatever is in the network
                made.append({})
        tensor, source = made[0].get(other), made[0].get(one)
        if tensor is None or source is None or not tensor.requires_grad or not source.requires_grad:
            return False
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(tensor.sum(), source, retain_graph=True, allow_unused=True)
        except RuntimeError:
            return False
        return gradient is not None

    return feeds


def _kind(result: Any) -> str:
    """What a network returned, in words, that has no floating-point tensor in it."""
    if is_detection(result):
        return "boxes of what it finds"
    tensors = [each.tensor for each in tensors_of(result)]
    if tensors:
        return f"{str(tensors[0].dtype).removeprefix('torch.')} numbers"
    return f"an object of type {type(result).__name__}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class _Orders:
    """Which tensors of a pass have their channels last: tokens, and maps on their way through linear layers.

    A module that keeps the shape keeps the order too.  What is made between modules has the network's usual order.
    """

    def __init__(self, usual: bool):
        self.usual = usual
        self.known: dict[int, tuple[Tensor, bool]] = {}  # by identity, and held, so that no other gets it

    def is_last(self, module: nn.Module, inputs: Any, output: Tensor) -> bool:
        if id(output) not in self.known:
            self.known[id(output)] = (
                output,
                output.ndim == 3 or (output.ndim > 3 and self._of(module, inputs, output)),
            )
        return self.known[id(output)][1]

    def _of(self, module: nn.Module, inputs: Any, output: Tensor) -> bool:
        if isinstance(module, nn.modules.conv._ConvNd):
            return False
        if isinstance(module, nn.Linear) or (isinstance(module, nn.LayerNorm) and "2d" not in type(module).__name__):
            return True
        source = first_tensor(inputs)
        if source is not None and id(source) in self.known and source.shape == output.shape:
            return self.known[id(source)][1]
        return self.usual


_ACTIVATIONS = {
    *("celu", "elu", "gelu", "gelutanh", "hardmish", "hardswish", "hardtanh", "leakyrelu", "mish", "prelu"),
    *("quickgelu", "relu", "relu6", "rrelu", "selu", "silu", "softplus", "softsign", "swish", "tanh"),
    *("clippedgelu", "fastgelu", "hardsilu", "newgelu", "pytorchgelutanh"),  # as transformers and Keras call them
}


def is_activation(module: nn.Module) -> bool:
    """Whether the module, by its class or a class it is made from, is an activation (gates such as sigmoid are not).

    A layer of Keras may have one in it (`Conv2D(…, activation="relu")`).
    """
    kinds = type(module).__mro__
    names = [kind.__name__ for kind in kinds]
    if any(kind.__module__.startswith("keras.") for kind in kinds):
        names.append(getattr(getattr(module, "activation", None), "__name__", ""))
    return any(name.lower().replace("_", "").removesuffix("activation") in _ACTIVATIONS for name in names)
