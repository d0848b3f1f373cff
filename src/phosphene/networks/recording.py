"""One pass of images through a module, with every call of a module in it recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from phosphene.networks.layers import hookable_modules
from phosphene.networks.outputs import Watch, first_tensor
from phosphene.networks.rows import RowLayout, find_row_layout, sample_of


@dataclass
class ModuleCall:
    """One call of one module: its output's shape, whether it has its channels last, and a sample of it."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    last: bool
    sample: Tensor


class PassRecord(NamedTuple):
    """One pass of images through a module.

    Attributes:
        calls: of its modules, in the order in which they end.
        result: what the module returned.
        watch: the softmaxes and sigmoids that were called.
        rows: of two images, by the place of a call in the pass of the first alone: how its output carries the rows,
            and what is wrong with it.
    """

    calls: list[ModuleCall]
    result: Any
    watch: Watch
    rows: dict[int, tuple[RowLayout | None, str]]


def record_pass(
    module: nn.Module,
    run: Callable[[Tensor], Any],
    pixels: Tensor,
    layout_last: bool,
    alone: PassRecord | None = None,
    as_far: bool = False,
) -> PassRecord:
    """A pass, with every call recorded; of two images, it is compared with that of the first of them alone.

    With `as_far`, what the module raises ends the pass, and nothing is returned.
    """
    calls: list[ModuleCall] = []
    orders = _ChannelOrders(layout_last)
    places = call_places(alone.calls if alone else [])
    times: Counter[str] = Counter()
    rows: dict[int, tuple[RowLayout | None, str]] = {}

    def record(called: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None or tensor.ndim < 2 or not tensor.is_floating_point():
                return
            place = places.get((called, times[called] + 1))
            times[called] += 1
            if alone is None:
                last = orders.is_last(module, inputs, tensor)
                calls.append(ModuleCall(called, module, tuple(tensor.shape), last, sample_of(tensor)))
            elif place is not None:  # now: what comes after may work in place
                rows[place] = find_row_layout(alone.calls[place].shape, alone.calls[place].sample, tensor)

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
    return PassRecord(calls, result, watch, rows)


def call_places(calls: Sequence[ModuleCall]) -> dict[tuple[str, int], int]:
    """Of each call, by its module's name and which of its calls it is (1, 2, …): where it stands."""
    times: Counter[str] = Counter()
    found = {}
    for place, call in enumerate(calls):
        times[call.name] += 1
        found[call.name, times[call.name]] = place
    return found


class _ChannelOrders:
    """Which tensors of a pass have their channels last: tokens, and maps on their way through linear layers.

    A module that keeps the shape keeps the order too.  What is made between modules has the network's usual order.
    """

    def __init__(self, usual: bool):
        self.usual = usual
        self.known: dict[int, tuple[Tensor, bool]] = {}  # by identity, and held, so that no other gets it

    def is_last(self, module: nn.Module, inputs: Any, output: Tensor) -> bool:
        if id(output) not in self.known:
            last = output.ndim == 3 or (output.ndim > 3 and self._of(module, inputs, output))
            self.known[id(output)] = output, last
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
