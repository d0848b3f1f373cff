"""Passes of images through a network in which layers are read: by hooks, and no further than to the last of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, join_names
from phosphene.networks import outputs
from phosphene.networks.heads import Attention, register_head_readers, split_head
from phosphene.networks.layers import LOGITS, OUTPUT, Layer, module_call
from phosphene.networks.resizing import Fit
from phosphene.networks.rows import to_rows_first
from phosphene.networks.tracing import Trace

Reader = Callable[[Tensor], None]
"""Is given a layer's output, (rows, channels, *positions), at the moment when it is made."""


@dataclass(frozen=True)
class Forward:
    """A borrowed module, as passes through it need to know it.

    Attributes:
        name: of the network, for messages.
        feed: makes the module's input of pixels (rows, channels, height, width) in 0..255.
        trace: what a pass has shown of the network at its own size.
        module_names: of all modules in it.
        attentions: returns the modules whose heads are layers.
        fit: makes contexts in which the module takes images of the size that is fed.
    """

    module: nn.Module
    name: str
    feed: Callable[[Tensor], Tensor]
    trace: Trace
    module_names: Collection[str]
    attentions: Callable[[], Mapping[str, Attention]]
    fit: Fit = nullcontext

    def logits(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader],
        inputs: Mapping[str, Reader],
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """The logits (rows, classes), from before a softmax or sigmoid at the end; see `Network.forward`."""
        found: list[Tensor] = []

        def keep(result: Any) -> None:
            output = self._output(result)
            if output is None:
                raise InputError(f"{self.name} returns no logits")
            found.append(outputs.as_logits(output))

        self._run(pixels, readers, inputs, seeds, keep)
        return torch.cat(found)

    def read(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader],
        inputs: Mapping[str, Reader],
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Have layers read, of which the logits may be one, and end the pass with the last; see `Network.read`."""
        if LOGITS in readers:
            others = {name: reader for name, reader in readers.items() if name != LOGITS}
            readers[LOGITS](self.logits(pixels, others, inputs, seeds))
        elif readers:
            self._run(pixels, readers, inputs, seeds, None)

    def _run(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader],
        inputs: Mapping[str, Reader],
        seeds: Sequence[int] | None,
        keep: Callable[[Any], None] | None,
    ) -> None:
        """Send images through: all at once, or one at a time where they must not meet.

        `keep` is given what the module returns; without it the pass ends with the last of the readers.
        """
        if not self.trace.unbatchable_reason or (len(pixels) == 1 and not self.trace.random):
            self._pass(pixels, readers, inputs, keep)
            return
        by_row: list[dict[tuple[bool, str], list[Tensor]]] = []
        for row, seed in zip(torch.split(pixels, 1), seeds or [0] * len(pixels), strict=True):
            kept: dict[tuple[bool, str], list[Tensor]] = {}
            by_row.append(kept)
            devices = [pixels.device] if pixels.device.type == "cuda" else []
            with torch.random.fork_rng(devices, enabled=self.trace.random):
                if self.trace.random:
                    torch.manual_seed(seed)
                self._pass(row, _capture_readers(kept, readers, False), _capture_readers(kept, inputs, True), keep)
        for of_inputs, named in ((False, readers), (True, inputs)):
            for name, reader in named.items():
                calls = [kept.get((of_inputs, name), []) for kept in by_row]
                if len({len(each) for each in calls}) > 1:
                    self._missed([name])
                for each in zip(*calls, strict=True):
                    reader(torch.cat(each))

    def _pass(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader],
        inputs: Mapping[str, Reader],
        keep: Callable[[Any], None] | None,
    ) -> None:
        pending = len(readers)

        def count() -> None:
            nonlocal pending
            pending -= 1
            if keep is None and not pending:
                raise _StopForward

        with self.fit(), self._reading(readers, inputs, count, len(pixels)), suppress(_StopForward):
            result = self.module(self.feed(pixels))
            if keep is not None:
                keep(result)
                return
        if pending:
            self._missed([*readers])

    def _missed(self, names: list[str]) -> NoReturn:
        raise InputError(
            f"{join_names(names)} of {self.name}: not called in this pass; it is called for some images only, "
            "and a unit of it cannot be shown"
        )

    @contextmanager
    def _reading(
        self, readers: Mapping[str, Reader], inputs: Mapping[str, Reader], after: Callable[[], None], rows: int
    ) -> Iterator[None]:
        modules = dict(self.module.named_modules())
        layers = {layer.name: layer for layer in self.trace.layers}
        if self.trace.output_layer is not None:
            layers.setdefault(OUTPUT, self.trace.output_layer)
        by_module: dict[str, dict[int, Reader]] = {}
        by_attention: dict[str, dict[int, Reader]] = {}
        for name, reader in readers.items():
            if name not in layers and (head := split_head(name)) and head[0] in self.module_names:
                source = layers[self.attentions()[head[0]].source]
                read = partial(_read_rows_first, reader, source, rows, self.name)
                by_attention.setdefault(head[0], {})[head[1]] = _then(read, after)
                continue
            module, call = module_call(name, self.module_names)
            layer = layers.get(name)
            by_module.setdefault(module, {})[call] = (
                reader if layer is None else partial(_read_rows_first, reader, layer, rows, self.name)
            )
        with ExitStack() as stack:
            for module, by_call in by_module.items():
                tensor_of = outputs.first_tensor if module else self._output
                stack.callback(modules[module].register_forward_hook(_hook(by_call, after, tensor_of)).remove)
            for name, heads in by_attention.items():
                stack.callback(register_head_readers(self.module, heads, self.attentions()[name]))
            for module, reader in inputs.items():
                stack.callback(modules[module].register_forward_pre_hook(_input_hook(reader)).remove)
            if self.trace.ending is not None:
                stack.enter_context(outputs.Bypass(self.trace.ending))
            yield

    def _output(self, result: Any) -> Tensor | None:
        return outputs.pick(result, self.trace.output or "")


class _StopForward(BaseException):
    """All that is read has been: the rest of the network need not run.  No module's `except Exception` stops it."""


def _read_rows_first(reader: Reader, layer: Layer, rows: int, name: str, output: Tensor) -> None:
    try:
        arranged = to_rows_first(output, rows, layer.rows, layer.channels_last)
    except ValueError as error:
        raise InputError(f"layer {layer.name} of {name}: {error}, so it cannot be shown") from None
    reader(arranged)


def _capture_readers(
    kept: dict[tuple[bool, str], list[Tensor]], readers: Mapping[str, Reader], of_inputs: bool
) -> dict[str, Reader]:
    """Readers that only keep what they are given, as it is at that moment."""

    def keep(name: str) -> Reader:
        return lambda tensor: kept.setdefault((of_inputs, name), []).append(tensor.clone())

    return {name: keep(name) for name in readers}


def _then(read: Reader, after: Callable[[], None]) -> Reader:
    """Reads, once in a pass, and says so."""
    done = False

    def reader(tensor: Tensor) -> None:
        nonlocal done
        if not done:
            done = True
            read(tensor)
            after()

    return reader


def _hook(
    by_call: dict[int, Reader], after: Callable[[], None], tensor_of: Callable[[Any], Tensor | None]
) -> Callable[[nn.Module, Any, Any], None]:
    count = 0

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        count += 1
        tensor = tensor_of(output)
        if count in by_call and tensor is not None:
            by_call[count](tensor)
            after()

    return hook


def _input_hook(reader: Reader) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        tensor = outputs.first_tensor(inputs)
        if tensor is not None:
            reader(tensor)

    return hook
