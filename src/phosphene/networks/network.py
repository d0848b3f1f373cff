"""A network: a torch module, what it eats, what its outputs mean, and how to read its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, did_you_mean, join_names
from phosphene.networks import identity, outputs, scripted, tracing
from phosphene.networks.labels import Labels
from phosphene.networks.outputs import Bypass, Ending, Probability, first_tensor
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.tracing import OUTPUT, Layer, Trace, to_rows_first
from phosphene.torch_state import default_torch_state

LOGITS = "class"
"""The name under which a classifier's logits are read, as if they were a layer."""


class Network:
    """A torch module, with what it eats and what its outputs mean.

    The module stays the caller's: whatever is done with it is done between `with network.borrowed(device):` and the
    end of that block, after which its modes, gradient flags, devices and hooks are as they were.

    Args:
        module: any module that takes a batch of images.  A classifier returns logits: a tensor of shape (rows,
            classes), or tuples, dictionaries and objects with one in them.
        preprocessing: what the module eats.
        labels: a name for each output, or a `Labels`; without them classes are known by index.
        name: what to call it.
        source: the arguments by which `phosphene.open` opens it, where it can.
        notes: what a user should know, in sentences, by topic ("preprocessing", "labels": these were assumed).
        unloaded: names of parameters that have no trained values: no layer from the first of them on is shown.
        output: which of several tensors that the module returns is the logits, by its name or index; by default the
            one called `logits`, then `out`, `output` or `pred…`, or the one of shape (rows, classes) that no other is
            made from.  Where that is a guess, `notes` says so.
        probability: how logits become probabilities: "softmax", "sigmoid", "itself" (they are some), or "none"; by
            default by what the module ends in, and a softmax where it ends in neither and has several classes.

    Raises:
        InputError: the module has no values yet (it is lazy, or on the meta device), or is no module.
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
        output: str | int | None = None,
        probability: Probability | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"a network of type {type(module).__name__}: expected a torch.nn.Module")
        _check_values(module, name)
        self.module = _of_program(module, preprocessing) if isinstance(module, torch.jit.ScriptModule) else module
        self.preprocessing = preprocessing
        self.labels = labels if isinstance(labels, Labels | None) else Labels(labels)
        self.name = name or type(module).__name__
        self.source = source
        self.given_notes = dict(notes or {})
        self.unloaded = frozenset(unloaded)
        self.output, self.probability = output, probability
        self.native: Network | None = None  # the same at its own size, where this one was resized
        self._norms: tuple[Any, list[Norm]] | None = None  # and the state of the weights that they are of
        self._own_digest: str | None = None  # while the weights are others for a time

    def __repr__(self) -> str:
        height, width = self.preprocessing.size  # type: ignore[misc]
        return f"<Network {self.name}: {height}x{width}, {self.parameters:,} parameters, weights {self.digest}>"

    def replace(self, **changes: Any) -> Network:
        """The same network with other arguments of the constructor."""
        names = ("module", "preprocessing", "labels", "name", "source", "unloaded", "output", "probability")
        mine = {name: getattr(self, name) for name in names} | {"notes": self.given_notes}
        return Network(**mine | changes)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names and values of all weights that were loaded."""
        if self._own_digest is not None:
            return self._own_digest
        return identity.digest(self.module, self.unloaded)

    def with_input_size(self, size: tuple[int, int]) -> Network:
        """The same network fed with images of another height and width.

        Of images too small for the whole network the first layers can be shown, up to where they get too small.

        Raises:
            InputError: it takes its own size only.
        """
        if size == self.preprocessing.size:
            return self
        network = self.replace(preprocessing=self.preprocessing.resized(size))
        network.native = self.native or self
        if not network._traced.layers:
            raise InputError(f"size {_shown(size)}: {self.name} takes {_shown(self.preprocessing.size)} pixels only")
        return network

    @contextmanager
    def borrowed(self, device: torch.device | str = "cpu") -> Iterator[None]:
        """Eval mode, frozen parameters, on `device`; at the end everything is put back as it was."""
        with default_torch_state(), _without_inference_tensors(self.module):
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

    @property
    def norms(self) -> list[Norm]:
        """The batch normalizations that have running statistics, in the order of calls."""
        now = identity.state(self.module)
        if self._norms is None or self._norms[0] != now:
            self._norms = now, self._found_norms()
        return list(self._norms[1])

    def _found_norms(self) -> list[Norm]:
        found = []
        modules = dict(self.module.named_modules())
        for name in dict.fromkeys(self.call(layer.name)[0] for layer in self.layers):
            module = modules[name]
            mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, Tensor) and isinstance(variance, Tensor) and mean.ndim == 1:
                weight = getattr(module, "weight", None)
                sign = torch.ones_like(mean) if weight is None else weight.detach().sign()
                # Copies: of the same moment as the digest.
                found.append(Norm(name, mean.detach().clone(), variance.detach().clamp_min(1e-10).sqrt(), sign))
        return found

    def call(self, layer: str) -> tuple[str, int]:
        """The module whose output a layer is, by name, and which of its calls; the network itself is called ""."""
        modules = self._module_names
        if layer == OUTPUT and layer not in modules:
            return "", 1
        module, sharp, number = layer.rpartition("#")
        if layer not in modules and sharp and number.isdecimal() and module in modules:
            return module, int(number)
        return layer, 1

    @contextmanager
    def under_its_digest(self) -> Iterator[None]:
        """Whatever is done to the weights until the end of the block, the digest stays."""
        self._own_digest = self.digest
        try:
            yield
        finally:
            self._own_digest = None

    @cached_property
    def _module_names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.module.named_modules())

    def forward(
        self,
        pixels: Tensor,
        readers: dict[str, Reader] | None = None,
        inputs: dict[str, Reader] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Run the (borrowed) network on pixels, and have layers read on the way.

        Args:
            pixels: (rows, channels, height, width) in 0..255, RGB.
            readers: for a layer's name, a function that is given the layer's output as (rows, channels, *positions)
                at the moment when it is made: what an in-place activation makes of it later does not matter.
            inputs: for a module's name, a function that is given what goes into the module, at each of its calls.
            seeds: of each row, for a network that draws random numbers (see `random`); by default 0 for all.

        Returns:
            The logits (rows, classes), from before the softmax or sigmoid if the network ends in one.

        Raises:
            InputError: it returns no logits.
        """
        found: list[Tensor] = []

        def keep(result: Any) -> None:
            output = outputs.pick(result, self._traced_here.output or "")
            if output is None:
                raise InputError(f"{self.name} returns no logits")
            found.append(outputs.as_logits(output))

        self._run(pixels, readers or {}, inputs or {}, seeds, keep)
        return torch.cat(found)

    def read(
        self,
        pixels: Tensor,
        readers: dict[str, Reader],
        inputs: dict[str, Reader] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """As `forward`, but no further than to the last of `readers`: nothing behind it is run, nor its input read."""
        self._run(pixels, readers, inputs or {}, seeds, None)

    def _run(
        self,
        pixels: Tensor,
        readers: dict[str, Reader],
        inputs: dict[str, Reader],
        seeds: Sequence[int] | None,
        keep: Callable[[Any], None] | None,
    ) -> None:
        """Send images through: all at once, or one at a time where they must not meet.

        `keep` is given what the module returns; without it the pass ends with the last of the readers.
        """
        if not self.unbatchable_reason or (len(pixels) == 1 and not self.random):
            self._pass(pixels, readers, inputs, keep)
            return
        by_row: list[dict[tuple[bool, str], list[Tensor]]] = []
        for row, seed in zip(torch.split(pixels, 1), seeds or [0] * len(pixels), strict=True):
            kept: dict[tuple[bool, str], list[Tensor]] = {}
            by_row.append(kept)
            devices = [pixels.device] if pixels.device.type == "cuda" else []
            with torch.random.fork_rng(devices, enabled=self.random):
                if self.random:
                    torch.manual_seed(seed)
                self._pass(row, _capture_readers(kept, readers, False), _capture_readers(kept, inputs, True), keep)
        for of_inputs, named in ((False, readers), (True, inputs)):
            for name, reader in named.items():
                calls = [kept.get((of_inputs, name), []) for kept in by_row]
                if len({len(each) for each in calls}) > 1:
                    self._missed({name: reader})
                for each in zip(*calls, strict=True):
                    reader(torch.cat(each))

    def _pass(
        self,
        pixels: Tensor,
        readers: dict[str, Reader],
        inputs: dict[str, Reader],
        keep: Callable[[Any], None] | None,
    ) -> None:
        pending = len(readers)

        def count() -> None:
            nonlocal pending
            pending -= 1
            if keep is None and not pending:
                raise _StopForward

        with self._reading(readers, inputs, count, len(pixels)), suppress(_StopForward):
            result = self.module(self._fed(pixels))
            if keep is not None:
                keep(result)
                return
        if pending:
            self._missed(readers)

    def _missed(self, readers: dict[str, Reader]) -> NoReturn:
        raise InputError(
            f"{join_names([*readers])} of {self.name}: not called in this pass; it is called for some images only, "
            "and a unit of it cannot be shown"
        )

    @contextmanager
    def _reading(
        self, readers: dict[str, Reader], inputs: dict[str, Reader], after: Callable[[], None], rows: int
    ) -> Iterator[None]:
        modules = dict(self.module.named_modules())
        ending = self.ending  # found by a pass of its own, which no reader should see
        layers = {layer.name: layer for layer in self._calls}
        if self.output_layer is not None:
            layers.setdefault(OUTPUT, self.output_layer)
        wanted: dict[str, dict[int, Reader]] = {}
        for name, reader in readers.items():
            module_name, call = self.call(name)
            layer = layers.get(name)
            wanted.setdefault(module_name, {})[call] = (
                reader if layer is None else _rows_first_reader(reader, layer, rows, self.name)
            )
        with ExitStack() as stack:
            for module_name, by_call in wanted.items():
                taken = (
                    (lambda output: outputs.pick(output, self._traced_here.output or "")) if not module_name else None
                )
                hook = modules[module_name].register_forward_hook(_hook(by_call, after, taken or first_tensor))
                stack.callback(hook.remove)
            for module_name, reader in inputs.items():
                stack.callback(modules[module_name].register_forward_pre_hook(_input_hook(reader)).remove)
            if ending is not None:
                stack.enter_context(Bypass(ending))
            yield

    def _fed(self, pixels: Tensor) -> Tensor:
        inputs = self.preprocessing(pixels)
        tensors = (*self.module.parameters(), *self.module.buffers())
        weights = next((tensor for tensor in tensors if tensor.is_floating_point()), inputs)
        inputs = inputs.to(weights.dtype)
        # Channels last in memory is the faster order for convolutions, on CPUs and GPUs; the shape stays.
        return inputs if self.preprocessing.layout == "NHWC" else inputs.contiguous(memory_format=torch.channels_last)

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            InputError: there is none (with the nearest names), or it cannot be shown (with the reason).
        """
        found = self._by_name.get(name)
        if found is None and name == OUTPUT and not self.limit:
            found = self.output_layer
        if found is not None:
            return found
        calls = [layer.name for layer in self._calls if self.call(layer.name)[0] == name]
        if name in calls or (calls and calls[0] not in self._by_name):
            raise InputError(f"layer {name!r} of {self.name} cannot be shown: {self.limit}")
        if calls:
            raise InputError(f"layer {name!r} is called {len(calls)} times: expected {calls[0]} to {calls[-1]}")
        if why := self._traced_here.left_out.get(name):
            raise InputError(f"layer {name!r} of {self.name} cannot be shown: {why}")
        if not self._calls:
            kind = "a TorchScript program" if isinstance(self.module, _Program) else "one graph"
            raise InputError(
                f"{self.name} is {kind}, and none of its layers can be read: its classes can be shown; for layers "
                "expected the module that it was made from, or what torch.export.export returns"
            )
        if name and name in dict(self.module.named_modules()):
            raise InputError(
                f"layer {name!r} is not called, or returns no tensor, when an image goes through {self.name}"
            )
        near = did_you_mean(name, self._by_name)
        raise InputError(f"{self.name} has no layer {name!r}{near or '; see `phosphene layers`'}")

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def depth(self, name: str) -> int:
        """How many layers end before that one."""
        return self._depths.get(self.layer(name).name, len(self.layers))

    @cached_property
    def _depths(self) -> dict[str, int]:
        return {layer.name: index for index, layer in enumerate(self.layers)}

    @property
    def layers(self) -> list[Layer]:
        """The layers that can be shown: calls of a module that give a tensor, in the order in which they end."""
        return self._traced.layers[: self._reach[0]]

    @property
    def output_layer(self) -> Layer | None:
        """The network's output as a layer called "output", where it is no logits; None for a classifier."""
        return self._traced.output_layer

    @property
    def skipped_layers(self) -> dict[str, str]:
        """Why some modules' outputs are no layers, by module."""
        return dict(self._traced_here.left_out)

    @property
    def classes(self) -> int:
        """How many classes the logits have; 0 if it gives none, or none that can be shown (see `limit`)."""
        return 0 if self.limit else self._traced.classes

    @property
    def limit(self) -> str:
        """Why nothing beyond the last of `layers` can be shown; empty if all can."""
        return self._reach[1]

    @property
    def ending(self) -> Ending | None:
        """The softmax or sigmoid that the network ends in, and that is bypassed; None without one."""
        return self._traced_here.ending

    @property
    def softmax(self) -> int | None:
        """If the network ends in a softmax: how many softmaxes and sigmoids are called before it; otherwise None."""
        return self.ending.before if self.ending is not None and self.ending.kind == "softmax" else None

    @property
    def unbatchable_reason(self) -> str:
        """Why images go through the network one at a time; empty where they do not depend on each other."""
        return self._traced_here.unbatchable_reason

    @property
    def random(self) -> bool:
        """Whether its forward draws random numbers: each image then has its own, from its seed."""
        return self._traced_here.random

    @property
    def constant(self) -> list[str]:
        """The modules that are called, and give the same for every image: no layer is shown of them."""
        return [name for name, why in self._traced_here.left_out.items() if why == tracing.CONSTANT]

    @property
    def kind(self) -> Probability:
        """How its logits become probabilities."""
        trace = self._traced_here
        if self.probability is not None:
            return self.probability
        if trace.ending is not None:
            return trace.ending.kind
        return "itself" if trace.probable else "softmax" if trace.classes > 1 else "none"

    def probabilities(self, logits: Tensor) -> Tensor:
        """The network's own of each class, of logits (rows, classes); not a number for a regression."""
        return outputs.probabilities(logits, self.kind)

    @property
    def notes(self) -> dict[str, str]:
        """What a user should know, in sentences, by topic: as given, and what a pass through the network has shown."""
        trace = self._traced_here
        found = dict(self.given_notes)
        if trace.note:
            found["output"] = trace.note
        if trace.unbatchable_reason:
            end = ", each with its own from its seed" if trace.random else ""
            found["rows"] = f"{trace.unbatchable_reason}; images go through it one at a time{end}"
        if trace.probable and self.probability is None:
            found["probability"] = (
                "its outputs are probabilities, and no softmax or sigmoid was found that could be bypassed"
            )
        return found

    def no_classes(self, what: str) -> str:
        """Why there is no class to show, and what there is instead, in a sentence."""
        trace = self._traced_here
        if trace.dtype:
            return f"{self.name} returns {trace.dtype} and no logits, so it has no {what}: show its layers instead"
        shown = self.output_layer
        if shown is not None:
            shape = "x".join(map(str, shown.shape))
            return (
                f"{self.name} is no classifier, so it has no {what}: its output has {shown.channels} channels "
                f"({shape}), which are units such as {OUTPUT}:0"
            )
        return f"{self.name} returns no logits of shape (rows, classes), so it has no {what}: show its layers instead"

    @property
    def _calls(self) -> list[Layer]:
        """Every layer, whether or not it can be shown."""
        return self._traced_here.layers

    @property
    def _traced_here(self) -> Trace:
        """Of the network at its own size."""
        return (self.native or self)._traced

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
        called = [self.call(layer.name)[0] for layer in self._calls]
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
    def _traced(self) -> Trace:
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        last = self.preprocessing.layout == "NHWC" or getattr(self.module, "output_fmt", "") == "NHWC"
        with self.borrowed(device), torch.no_grad():
            try:
                found = tracing.trace(
                    self.module,
                    lambda pixels: self.module(self._fed(pixels)),
                    self._two_images().to(device),
                    layout_last=last,
                    requested=self.output,
                    name=self.name,
                    like=self.native._traced if self.native is not None else None,
                    classifies=not _gives_features(self.module),
                )
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"{self.name} does not take images of {self.preprocessing.channels} channels and "
                    f"{_shown(self.preprocessing.size)} pixels ({_first_line(error)}){_part_hint(self.module)}"
                ) from error
        return found

    def _two_images(self) -> Tensor:
        """Noise about the mean, and something quite different: coarser, and of more contrast."""
        generator = torch.Generator().manual_seed(0)
        height, width = self.preprocessing.size  # type: ignore[misc]
        mean = torch.tensor(self.preprocessing.mean_pixels).view(-1, 1, 1)
        noise = torch.randn((self.preprocessing.channels, height, width), generator=generator)
        coarse = torch.rand((1, self.preprocessing.channels, 4, 4), generator=generator)
        other = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] * 255
        return torch.stack([(mean + 30 * noise).clamp(0, 255), (other + 5 * noise).clamp(0, 255)])


@contextmanager
def _without_inference_tensors(module: nn.Module) -> Iterator[None]:
    """Copies stand for parameters and buffers that were made under `torch.inference_mode`, which autograd refuses."""
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    held: dict[str, Any]
    copies: dict[int, Tensor] = {}  # by identity: a tensor may be at several places
    for each in module.modules():
        for held in () if isinstance(each, torch.jit.ScriptModule) else (each._parameters, each._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    if id(tensor) not in copies:
                        copy = tensor.detach().clone()
                        copies[id(tensor)] = nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy
                    replaced.append((held, name, tensor))
    try:
        for held, name, tensor in replaced:
            held[name] = copies[id(tensor)]
        yield
    finally:
        for held, name, tensor in replaced:
            held[name] = tensor


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


class _StopForward(BaseException):
    """All that is read has been: the rest of the network need not run.  No module's `except Exception` stops it."""


def _rows_first_reader(reader: Reader, layer: Layer, rows: int, name: str) -> Reader:
    def read(output: Tensor) -> None:
        try:
            found = to_rows_first(output, rows, layer.rows, layer.channels_last)
        except ValueError as error:
            raise InputError(f"layer {layer.name} of {name}: {error}, so it cannot be shown") from None
        reader(found)

    return read


def _capture_readers(
    kept: dict[tuple[bool, str], list[Tensor]], readers: Mapping[str, Reader], of_inputs: bool
) -> dict[str, Reader]:
    """Readers that only keep what they are given, as it is at that moment."""

    def keep(name: str) -> Reader:
        return lambda tensor: kept.setdefault((of_inputs, name), []).append(tensor.clone())

    return {name: keep(name) for name in readers}


def _of_program(program: Any, preprocessing: Preprocessing) -> nn.Module:
    """A TorchScript program with its modules as layers, where its graph allows, or as one module."""
    height, width = preprocessing.size  # type: ignore[misc]
    pixels = torch.rand((1, preprocessing.channels, height, width), generator=torch.Generator().manual_seed(0)) * 255
    modes = [(module, module.training) for module in program.modules() if hasattr(module, "training")]
    try:
        for module, _ in modes:
            module.training = False
        with default_torch_state():
            return scripted.open_script(program, preprocessing(pixels)) or _Program(program)
    finally:
        for module, mode in modes:
            module.training = mode


class _Program(nn.Module):
    """A TorchScript program: its own modules cannot be listened to, but what it returns can."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


def _check_values(module: nn.Module, name: str) -> None:
    """Raise an `InputError` if there are no numbers to compute with."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    called = name or type(module).__name__
    for key, tensor in tensors:
        if nn.parameter.is_lazy(tensor):
            raise InputError(
                f"{called} is lazy, and its {key} has no shape yet: expected a module that has been called once"
            )
        if tensor.is_meta:
            raise InputError(
                f"{called} is on the meta device, and its {key} has no values: expected a module with weights "
                "(module.to_empty(device='cpu'), then load_state_dict)"
            )


def _hook(
    by_call: dict[int, Reader], after: Callable[[], None], taken: Callable[[Any], Tensor | None]
) -> Callable[[nn.Module, Any, Any], None]:
    count = 0

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        count += 1
        tensor = taken(output)
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


def _gives_features(module: nn.Module) -> bool:
    """Whether a network of timm's returns features and no logits: its `num_classes` are 0, or it is `features_only`."""
    return getattr(module, "num_classes", None if not hasattr(module, "feature_info") else 0) == 0


def _shown(size: tuple[int, int] | int) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _part_hint(module: nn.Module) -> str:
    """The part of a network of more than images that takes images, in words."""
    towers = ("vision_model", "vision_tower", "visual", "image_encoder")
    found = next((name for name in towers if isinstance(getattr(module, name, None), nn.Module)), "")
    return f"; expected its image encoder alone: module.{found}" if found else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
