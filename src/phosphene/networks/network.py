"""A network: a torch module, what it eats, what its outputs mean, and how to read its layers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from phosphene.errors import InputError, did_you_mean
from phosphene.networks.labels import Labels
from phosphene.networks.preprocessing import Preprocessing

LOGITS = "class"
"""The name under which a classifier's logits are read, as if they were a layer."""


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
    """

    name: str
    type: str
    shape: tuple[int, ...]
    channels: int
    positions: tuple[int, ...]
    parameters: int
    worth_showing: bool


class Network:
    """A torch module, with what it eats and what its outputs mean.

    The module stays the caller's: whatever is done with it is done between `with network.borrowed(device):` and the
    end of that block, after which its modes, gradient flags, devices and hooks are as they were.

    Args:
        module: any module that takes a batch of images and returns logits: a tensor of shape (rows, classes), or a
            tuple, a dictionary or an object with one in it (`logits`, or the first).
        preprocessing: what the module eats.
        labels: a name for each output, or a `Labels`; without them classes are known by index.
        name: what to call it, and `source` what `phosphene.open` opens it by, where it can.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Preprocessing,
        labels: Labels | Sequence[str] | None = None,
        name: str = "",
        source: str | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"a network of type {type(module).__name__}: expected a torch.nn.Module")
        self.module = module
        self.preprocessing = preprocessing
        self.labels = labels if isinstance(labels, Labels | None) else Labels(labels)
        self.name = name or type(module).__name__
        self.source = source

    def __repr__(self) -> str:
        height, width = self.preprocessing.size  # type: ignore[misc]
        return f"<Network {self.name}: {height}x{width}, {self.parameters:,} parameters, weights {self.digest}>"

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names and values of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            if isinstance(tensor, Tensor):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def resized(self, size: tuple[int, int]) -> Network:
        """The same network fed with images of another height and width.

        Raises:
            InputError: it cannot take them: its size is fixed, or they are too small for its pooling.
        """
        if size == self.preprocessing.size:
            return self
        if self.preprocessing.fixed_size:
            raise InputError(f"size {_shown(size)}: {self.name} takes {_shown(self.preprocessing.size)} pixels only")
        if min(size) < self.stride:
            raise InputError(
                f"size {_shown(size)}: {self.name} halves its maps down to {_shown(self._smallest_map)} at "
                f"{_shown(self.preprocessing.size)} pixels, so it takes {self.stride} or more"
            )
        network = Network(self.module, self.preprocessing.resized(size), self.labels, self.name, self.source)
        if network.classes != self.classes:
            raise InputError(f"size {_shown(size)}: {self.name} takes {_shown(self.preprocessing.size)} pixels only")
        return network

    @contextmanager
    def borrowed(self, device: torch.device | str = "cpu") -> Iterator[None]:
        """Eval mode, frozen parameters, on `device`; at the end everything is put back as it was."""
        modules, parameters = list(self.module.modules()), list(self.module.parameters())
        tensors = [*parameters, *self.module.buffers()]
        modes = [module.training for module in modules]
        flags = [parameter.requires_grad for parameter in parameters]
        values = [tensor.data for tensor in tensors]
        try:
            for module in modules:
                module.training = False
            for parameter in parameters:
                parameter.requires_grad_(False)
            for tensor in tensors:
                tensor.data = tensor.data.to(device)
            yield
        finally:
            for tensor, value in zip(tensors, values, strict=True):
                tensor.data = value
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for parameter, flag in zip(parameters, flags, strict=True):
                parameter.requires_grad_(flag)

    def forward(self, pixels: Tensor, readers: dict[str, Reader] | None = None) -> Tensor:
        """Run the (borrowed) network on pixels, and have layers read on the way.

        Args:
            pixels: (rows, channels, height, width) in 0..255, RGB.
            readers: for a layer's name, a function that is given the layer's output as (rows, channels, *positions)
                at the moment when it is made: what an in-place activation makes of it later does not matter.

        Returns:
            The logits (rows, classes), from before the softmax if the network ends in one.
        """
        modules = dict(self.module.named_modules())
        with ExitStack() as stack:
            wanted: dict[str, dict[int, Reader]] = {}
            for name, reader in (readers or {}).items():
                module_name, _, call = name.partition("#")
                wanted.setdefault(module_name, {})[int(call or 1)] = reader
            for module_name, by_call in wanted.items():
                hook = modules[module_name].register_forward_hook(_reading(by_call, self._channels_first))
                stack.callback(hook.remove)
            if self.softmax is not None:
                stack.enter_context(_WithoutSoftmax(self.softmax))
            return logits(self.module(self._fed(pixels)))

    def _fed(self, pixels: Tensor) -> Tensor:
        inputs = self.preprocessing(pixels)
        # Channels last in memory is the faster order for convolutions, on CPUs and GPUs; the shape stays.
        return inputs if self.preprocessing.layout == "NHWC" else inputs.contiguous(memory_format=torch.channels_last)

    def layer(self, name: str) -> Layer:
        """The layer of that name, or an `InputError` with the nearest names."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        calls = [layer.name for layer in self.layers if layer.name.partition("#")[0] == name]
        if calls:
            raise InputError(f"layer {name!r} is called {len(calls)} times: expected {calls[0]} to {calls[-1]}")
        if name in dict(self.module.named_modules()):
            raise InputError(
                f"layer {name!r} is not called, or gives no tensor, when an image goes through {self.name}"
            )
        near = did_you_mean(name, self._by_name)
        raise InputError(f"{self.name} has no layer {name!r}{near or '; see `phosphene layers`'}")

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @property
    def layers(self) -> list[Layer]:
        """Every call of a module that gives a tensor, in the order in which they end; taken from one forward pass."""
        return self._traced[0]

    @property
    def stride(self) -> int:
        """How many pixels one place of the network's smallest map stands for: no image may be smaller."""
        return max(1, math.ceil(self.preprocessing.height / self._smallest_map[0]))

    @property
    def _smallest_map(self) -> tuple[int, int]:
        maps = [layer.positions for layer in self.layers if len(layer.positions) == 2 and min(layer.positions) > 1]
        return min(maps, default=self.preprocessing.size)  # type: ignore[return-value]

    @property
    def classes(self) -> int:
        """How many classes the logits have."""
        return self._traced[1]

    @property
    def softmax(self) -> int | None:
        """If the network ends in a softmax: how many softmaxes are called before that one; otherwise None."""
        return self._traced[2]

    @cached_property
    def _traced(self) -> tuple[list[Layer], int, int | None]:
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        calls: list[tuple[str, nn.Module, tuple[int, ...]]] = []

        def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                tensor = first_tensor(output)
                if name and tensor is not None and tensor.ndim >= 2 and tensor.is_floating_point():
                    calls.append((name, module, tuple(self._channels_first(tensor).shape[1:])))

            return hook

        with ExitStack() as stack:
            stack.enter_context(self.borrowed(device))
            stack.enter_context(torch.no_grad())
            for name, module in self.module.named_modules():
                stack.callback(module.register_forward_hook(record(name)).remove)
            watch = stack.enter_context(_SoftmaxWatch())
            pixels = torch.tensor(self.preprocessing.mean_pixels, device=device).view(1, -1, 1, 1)
            output = self._first_run(pixels.expand(-1, -1, *self.preprocessing.size))  # type: ignore[misc]
        times = {name: sum(1 for called, *_ in calls if called == name) for name, *_ in calls}
        seen: dict[str, int] = {}
        layers = []
        for name, module, shape in calls:
            seen[name] = seen.get(name, 0) + 1
            layers.append(
                Layer(
                    name=f"{name}#{seen[name]}" if times[name] > 1 else name,
                    type=type(module).__name__,
                    shape=shape,
                    channels=shape[0],
                    positions=shape[1:],
                    parameters=sum(parameter.numel() for parameter in module.parameters()),
                    worth_showing=is_activation(module) and shape[1:] != (1, 1),
                )
            )
        return layers, output.shape[1] if output.ndim == 2 else 0, watch.index_of(output)

    def _first_run(self, pixels: Tensor) -> Tensor:
        try:
            return logits(self.module(self._fed(pixels)))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self.name} does not take images of {self.preprocessing.channels} channels and "
                f"{_shown(self.preprocessing.size)} pixels ({_first_line(error)})"
            ) from error

    def _channels_first(self, output: Tensor) -> Tensor:
        """A layer's output as (rows, channels, *positions): token and channels-last layers are turned."""
        last = self.preprocessing.layout == "NHWC" or getattr(self.module, "output_fmt", "NCHW") == "NHWC"
        if output.ndim == 3 or (output.ndim > 3 and last):
            return output.movedim(-1, 1)
        return output


Reader = Callable[[Tensor], None]

_ACTIVATIONS = {
    *("celu", "elu", "gelu", "gelutanh", "hardmish", "hardswish", "hardtanh", "leakyrelu", "mish", "prelu"),
    *("quickgelu", "relu", "relu6", "rrelu", "selu", "silu", "softplus", "softsign", "swish", "tanh"),
}


def is_activation(module: nn.Module) -> bool:
    """Whether the module, by its class or a class it is made from, is an activation (gates such as sigmoid are not)."""
    return any(kind.__name__.lower() in _ACTIVATIONS for kind in type(module).__mro__)


def first_tensor(output: Any) -> Tensor | None:
    """The tensor in what a module returned: itself, its `logits`, or the first in a tuple, list or dictionary."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)


def logits(output: Any) -> Tensor:
    """What a classifier returned, as one tensor (rows, classes); maps of one pixel are flattened."""
    tensor = first_tensor(output)
    if tensor is None:
        raise InputError(
            f"the network returned {type(output).__name__}: expected a tensor, or something with one in it"
        )
    return tensor.flatten(1) if tensor.ndim > 2 and tensor[0, 0].numel() == 1 else tensor


def _reading(by_call: dict[int, Reader], turned: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    count = 0

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        count += 1
        tensor = first_tensor(output)
        if count in by_call and tensor is not None:
            by_call[count](turned(tensor))

    return hook


def _shown(size: tuple[int, int] | int) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


_SOFTMAX = {
    F.softmax,
    F.log_softmax,
    torch.softmax,
    torch.log_softmax,
    torch.special.softmax,
    torch.special.log_softmax,
    Tensor.softmax,
    Tensor.log_softmax,
}


class _SoftmaxWatch(TorchFunctionMode):
    """Records what every softmax gives, whether a module or a function calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function in _SOFTMAX:
            self.outputs.append(result)
        return result

    def index_of(self, output: Tensor) -> int | None:
        """Which softmax gave the network's output, if one did."""
        if self.outputs and self.outputs[-1].data_ptr() == output.data_ptr():
            return len(self.outputs) - 1
        return None


class _WithoutSoftmax(TorchFunctionMode):
    """Lets the softmax of that index through unchanged, so that the logits come out."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.count = index, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function in _SOFTMAX:
            self.count += 1
            if self.count == self.index + 1:
                return args[0] if args else (kwargs or {})["input"]
        return function(*args, **(kwargs or {}))
