"""A network: a torch module, what it eats, what its outputs mean, and how to read its layers."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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
        channels_last: whether the module itself gives (rows, *positions, channels).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    channels: int
    positions: tuple[int, ...]
    parameters: int
    worth_showing: bool
    channels_last: bool


class Network:
    """A torch module, with what it eats and what its outputs mean.

    The module stays the caller's: whatever is done with it is done between `with network.borrowed(device):` and the
    end of that block, after which its modes, gradient flags, devices and hooks are as they were.

    Args:
        module: any module that takes a batch of images and returns logits: a tensor of shape (rows, classes), or a
            tuple, a dictionary or an object with one in it (`logits`, or the first).
        preprocessing: what the module eats.
        labels: a name for each output, or a `Labels`; without them classes are known by index.
        name: what to call it.
        source: the arguments by which `phosphene.open` opens it, where it can.
        notes: what a user should know, in sentences, by topic ("preprocessing", "labels": these were assumed).
        unloaded: names of parameters that have no trained values: no layer from the first of them on is shown.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Preprocessing,
        labels: Labels | Sequence[str] | None = None,
        name: str = "",
        source: Mapping[str, Any] | None = None,
        notes: Mapping[str, str] | None = None,
        unloaded: Collection[str] = (),
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"a network of type {type(module).__name__}: expected a torch.nn.Module")
        self.module = module
        self.preprocessing = preprocessing
        self.labels = labels if isinstance(labels, Labels | None) else Labels(labels)
        self.name = name or type(module).__name__
        self.source = source
        self.notes = dict(notes or {})
        self.unloaded = frozenset(unloaded)
        self.native: Network | None = None  # the same at its own size, where this one was resized
        self._own_digest: str | None = None  # while the weights are others for a time

    def __repr__(self) -> str:
        height, width = self.preprocessing.size  # type: ignore[misc]
        return f"<Network {self.name}: {height}x{width}, {self.parameters:,} parameters, weights {self.digest}>"

    def changed(self, **changes: Any) -> Network:
        """The same network with other `preprocessing`, `labels`, `name`, `source` or `notes`."""
        names = ("module", "preprocessing", "labels", "name", "source", "notes", "unloaded")
        return Network(**{name: getattr(self, name) for name in names} | changes)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names and values of all weights that were loaded."""
        if self._own_digest is not None:
            return self._own_digest
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            if isinstance(tensor, Tensor) and name not in self.unloaded:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def resized(self, size: tuple[int, int]) -> Network:
        """The same network fed with images of another height and width.

        Of images too small for the whole network the first layers can be shown, up to where they get too small.

        Raises:
            InputError: it takes its own size only.
        """
        if size == self.preprocessing.size:
            return self
        network = self.changed(preprocessing=self.preprocessing.resized(size))
        network.native = self.native or self
        if not network._traced.layers:
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

    @cached_property
    def norms(self) -> list[Norm]:
        """The batch normalisations that have running statistics, in the order of calls."""
        found = []
        for name in dict.fromkeys(layer.name.partition("#")[0] for layer in self.layers):
            module = self.module.get_submodule(name)
            mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, Tensor) and isinstance(variance, Tensor) and mean.ndim == 1:
                weight = getattr(module, "weight", None)
                sign = torch.ones_like(mean) if weight is None else weight.detach().sign()
                found.append(Norm(name, mean.detach(), variance.detach().clamp_min(1e-10).sqrt(), sign))
        return found

    @contextmanager
    def under_its_digest(self) -> Iterator[None]:
        """Whatever is done to the weights until the end of the block, the digest stays."""
        self._own_digest = self.digest
        try:
            yield
        finally:
            self._own_digest = None

    def forward(
        self, pixels: Tensor, readers: dict[str, Reader] | None = None, inputs: dict[str, Reader] | None = None
    ) -> Tensor:
        """Run the (borrowed) network on pixels, and have layers read on the way.

        Args:
            pixels: (rows, channels, height, width) in 0..255, RGB.
            readers: for a layer's name, a function that is given the layer's output as (rows, channels, *positions)
                at the moment when it is made: what an in-place activation makes of it later does not matter.
            inputs: for a module's name, a function that is given what goes into the module, at each of its calls.

        Returns:
            The logits (rows, classes), from before the softmax if the network ends in one.
        """
        with self._reading(readers or {}, inputs or {}, lambda: None):
            return logits(self.module(self._fed(pixels)))

    def read(self, pixels: Tensor, readers: dict[str, Reader], inputs: dict[str, Reader] | None = None) -> None:
        """As `forward`, but no further than to the last of `readers`: nothing behind it is run, nor its input read."""
        pending = len(readers)

        def count() -> None:
            nonlocal pending
            pending -= 1
            if not pending:
                raise _Enough

        with self._reading(readers, inputs or {}, count), suppress(_Enough):
            self.module(self._fed(pixels))

    @contextmanager
    def _reading(
        self, readers: dict[str, Reader], inputs: dict[str, Reader], after: Callable[[], None]
    ) -> Iterator[None]:
        modules = dict(self.module.named_modules())
        softmax = self.softmax  # found by a pass of its own, which no reader should see
        turned = {layer.name for layer in self._calls if layer.channels_last}
        wanted: dict[str, dict[int, Reader]] = {}
        for name, reader in readers.items():
            module_name, _, call = name.partition("#")
            wanted.setdefault(module_name, {})[int(call or 1)] = _turning(reader) if name in turned else reader
        with ExitStack() as stack:
            for module_name, by_call in wanted.items():
                hook = modules[module_name].register_forward_hook(_hook(by_call, after))
                stack.callback(hook.remove)
            for module_name, reader in inputs.items():
                stack.callback(modules[module_name].register_forward_pre_hook(_input_hook(reader)).remove)
            if softmax is not None:
                stack.enter_context(_WithoutSoftmax(softmax))
            yield

    def _fed(self, pixels: Tensor) -> Tensor:
        inputs = self.preprocessing(pixels)
        weights = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), inputs)
        inputs = inputs.to(weights.dtype)
        # Channels last in memory is the faster order for convolutions, on CPUs and GPUs; the shape stays.
        return inputs if self.preprocessing.layout == "NHWC" else inputs.contiguous(memory_format=torch.channels_last)

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            InputError: there is none (with the nearest names), or it cannot be shown (with the reason).
        """
        found = self._by_name.get(name)
        if found is not None:
            return found
        calls = [layer.name for layer in self._calls if layer.name.partition("#")[0] == name]
        if name in calls or (calls and calls[0] not in self._by_name):
            raise InputError(f"layer {name!r} of {self.name} cannot be shown: {self.limit}")
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

    def depth(self, name: str) -> int:
        """How many layers end before that one."""
        return self._depths[self.layer(name).name]

    @cached_property
    def _depths(self) -> dict[str, int]:
        return {layer.name: index for index, layer in enumerate(self.layers)}

    @property
    def layers(self) -> list[Layer]:
        """The layers that can be shown: calls of a module that give a tensor, in the order in which they end."""
        return self._traced.layers[: self._reach[0]]

    @property
    def classes(self) -> int:
        """How many classes the logits have; 0 if it gives none, or none that can be shown (see `limit`)."""
        return 0 if self.limit else self._traced.classes

    @property
    def limit(self) -> str:
        """Why nothing beyond the last of `layers` can be shown; empty if all can."""
        return self._reach[1]

    @property
    def softmax(self) -> int | None:
        """If the network ends in a softmax: how many softmaxes are called before that one; otherwise None."""
        return (self.native or self)._traced.softmax

    @property
    def _calls(self) -> list[Layer]:
        """Every layer, whether or not it can be shown."""
        return (self.native or self)._traced.layers

    @cached_property
    def _reach(self) -> tuple[int, str]:
        """How many layers can be shown, and why no more."""
        limits = [(len(self._calls), "")]
        if self.unloaded:
            limits.append(self._untrained())
        if self.native is not None:
            limits += self._too_small(self.native)
        return min(limits)

    def _untrained(self) -> tuple[int, str]:
        """From which layer on the network has weights that were not loaded."""
        called = [layer.name.partition("#")[0] for layer in self._calls]
        owners = {name.rpartition(".")[0]: name for name in self.unloaded}
        for owner, name in owners.items():
            if owner not in called:  # no telling which layers use it
                return 0, f"the weights given have no {name}"
        index = next(index for index, name in enumerate(called) if name in owners)
        last = f", and the last layer before it is {self._calls[index - 1].name}" if index else ""
        return index, f"the weights given have none for {called[index]}{last}"

    def _too_small(self, native: Network) -> Iterator[tuple[int, str]]:
        """From which layer on images of this size do not do."""
        size = self.preprocessing.size
        height = native.preprocessing.height
        maps = [(i, layer.positions) for i, layer in enumerate(self._calls) if len(layer.positions) == 2]
        strides = {index: math.ceil(height / positions[0]) for index, positions in maps if min(positions) > 1}
        short = [index for index, stride in strides.items() if stride > min(size)]  # type: ignore[arg-type]
        if short:
            most = max(strides.values())
            whole = f", and {most} for the whole network" if most > strides[short[0]] else ""
            yield (
                short[0],
                f"images of {_shown(size)} pixels are too small for it: expected {strides[short[0]]} or more{whole}",
            )
        if self._traced.classes != native._traced.classes:
            fits = min(len(self._traced.layers), len(self._calls) - 1)
            yield fits, f"it takes {_shown(native.preprocessing.size)} pixels, and here are {_shown(size)}"

    @cached_property
    def _traced(self) -> _Trace:
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        calls: list[tuple[str, nn.Module, tuple[int, ...], bool]] = []
        orders = _Orders(self.preprocessing.layout == "NHWC" or getattr(self.module, "output_fmt", "") == "NHWC")

        def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                tensor = first_tensor(output)
                if name and tensor is not None and tensor.ndim >= 2 and tensor.is_floating_point():
                    last = orders.is_last(module, inputs, tensor)
                    shape = tensor.movedim(-1, 1).shape if last else tensor.shape
                    calls.append((name, module, tuple(shape[1:]), last))

            return hook

        classes, softmax = 0, None
        with ExitStack() as stack:
            stack.enter_context(self.borrowed(device))
            stack.enter_context(torch.no_grad())
            for name, module in self.module.named_modules():
                stack.callback(module.register_forward_hook(record(name)).remove)
            watch = stack.enter_context(_SoftmaxWatch())
            pixels = torch.tensor(self.preprocessing.mean_pixels, device=device).view(1, -1, 1, 1)
            try:
                output = logits(self.module(self._fed(pixels.expand(-1, -1, *self.preprocessing.size))))  # type: ignore[misc]
                classes = output.shape[1] if output.ndim == 2 and len(output) == 1 else 0
                softmax = watch.index_of(output)
            except InputError:
                raise
            except Exception as error:
                if self.native is None:
                    raise InputError(
                        f"{self.name} does not take images of {self.preprocessing.channels} channels and "
                        f"{_shown(self.preprocessing.size)} pixels ({_first_line(error)})"
                    ) from error
        times = Counter(name for name, *_ in calls)
        seen: dict[str, int] = {}
        layers = []
        for index, (name, module, shape, last) in enumerate(calls):
            seen[name] = seen.get(name, 0) + 1
            own = f"{name}#{seen[name]}" if times[name] > 1 else name
            layers.append(
                Layer(
                    name=own if self.native is None else self.native._traced.layers[index].name,
                    type=type(module).__name__,
                    shape=shape,
                    channels=shape[0],
                    positions=shape[1:],
                    parameters=sum(parameter.numel() for parameter in module.parameters()),
                    worth_showing=is_activation(module) and shape[1:] != (1, 1),
                    channels_last=last,
                )
            )
        return _Trace(layers, classes, softmax)


Reader = Callable[[Tensor], None]


class Norm(NamedTuple):
    """What goes into a batch normalisation in training: its channels' means and deviations, (channels,).

    `sign` is -1 where the module's weight turns a channel round, so that less of it is more behind.
    """

    module: str
    mean: Tensor
    std: Tensor
    sign: Tensor


def same_classes(first: Network, second: Network) -> bool:
    """Whether two networks tell the same classes by the same numbers, as far as their labels say."""
    if not first.classes or first.classes != second.classes:
        return False
    if first.labels is None or second.labels is None:
        return True
    pairs = list(zip(first.labels, second.labels, strict=False))
    return all(a.wordnet == b.wordnet if a.wordnet and b.wordnet else a.name == b.name for a, b in pairs)


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


class _Trace(NamedTuple):
    """What one forward pass shows."""

    layers: list[Layer]
    classes: int
    softmax: int | None


class _Enough(BaseException):
    """All that is read has been: the rest of the network need not run.  No module's `except Exception` stops it."""


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


def _turning(reader: Reader) -> Reader:
    return lambda output: reader(output.movedim(-1, 1))


def _hook(by_call: dict[int, Reader], after: Callable[[], None]) -> Callable[[nn.Module, Any, Any], None]:
    count = 0

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        count += 1
        tensor = first_tensor(output)
        if count in by_call and tensor is not None:
            by_call[count](tensor)
            after()

    return hook


def _input_hook(reader: Reader) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        tensor = first_tensor(inputs)
        if tensor is not None:
            reader(tensor)

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
