"""A network: a torch module, what it expects, what its outputs mean, and how to read its layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, did_you_mean, first_line
from phosphene.networks import identity, outputs, scripted
from phosphene.networks.activations import Images, pixel_batches, read_batch
from phosphene.networks.borrowing import borrowed
from phosphene.networks.forward import Forward, Reader
from phosphene.networks.heads import Attention, find_attentions, head_layer, split_head
from phosphene.networks.labels import Labels
from phosphene.networks.layers import LOGITS, OUTPUT, Layer, Layers, module_call
from phosphene.networks.limits import Limit, size_limits, size_text, untrained_limit
from phosphene.networks.norms import Norm, find_norms
from phosphene.networks.outputs import Ending, Probability
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.resizing import Fit, can_resize, fit_to, misfit
from phosphene.networks.rows import CONSTANT
from phosphene.networks.text import TextEncoder
from phosphene.networks.tokens import parse_tokens
from phosphene.networks.tracing import Trace, laid_out, probe_images, trace, trace_resized, with_tokens


class Network:
    """A torch module, with what it expects and what its outputs mean.

    The module stays the caller's: whatever is done with it is done between `with network.borrowed(device):` and the
    end of that block, after which its modes, gradient flags, devices and hooks are as they were.

    Args:
        module: any module that takes a batch of images.  A classifier returns logits: a tensor of shape (rows,
            classes), or tuples, dictionaries and objects with one in them.
        preprocessing: what the module expects.
        labels: a name for each output, or a `Labels`; without them classes are known by index.
        name: what to call it.
        notes: what a user should know, in sentences, by topic ("preprocessing", "labels": these were assumed).
        unloaded: names of parameters that have no trained values: no layer from the first of them on is shown.
        output: which of several tensors that the module returns is the logits, by its name or index; by default the
            one called `logits`, then `out`, `output` or `pred…`, or the one of shape (rows, classes) that no other is
            made from.  Where that is a guess, `notes` says so.
        probability: how logits become probabilities: "softmax", "sigmoid", "itself" (they are some), or "none"; by
            default by what the module ends in, and a softmax where it ends in neither and has several classes.

    Attributes:
        source: the arguments by which `phosphene.open` opens it again; None where it cannot.
        native: the same network at its own size, where this one was resized; otherwise None.
        texts: what encodes texts, where its output is an embedding that texts share (CLIP, SigLIP); otherwise None.
        tokens: how many class tokens and registers it has, "1+4", where the user says it; None: as found.

    Raises:
        InputError: the module has no values yet (it is lazy, or on the meta device), or is no module.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Preprocessing,
        labels: Labels | Sequence[str] | None = None,
        name: str = "",
        notes: Mapping[str, str] | None = None,
        unloaded: Collection[str] = (),
        output: str | int | None = None,
        probability: Probability | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"a network of type {type(module).__name__}: expected a torch.nn.Module")
        _check_values(module, name)
        script = isinstance(module, torch.jit.ScriptModule)
        self.module = scripted.open_script(module, preprocessing) if script else module
        self.preprocessing = preprocessing
        self.labels = labels if isinstance(labels, Labels | None) else Labels(labels)
        self.name = name or type(module).__name__
        self.given_notes = dict(notes or {})
        self.unloaded = frozenset(unloaded)
        self.output, self.probability = output, probability
        self.source: Mapping[str, Any] | None = None
        self.native: Network | None = None
        self.texts: TextEncoder | None = None
        self.tokens: str | None = None
        self._norms: tuple[Any, list[Norm]] | None = None  # and the state of the weights that they are of
        self._heads: dict[str, Layer] = {}
        self._own_digest: str | None = None  # while the weights are others for a time

    def __repr__(self) -> str:
        size = size_text(self.preprocessing.size)
        return f"<Network {self.name}: {size}, {self.parameters:,} parameters, weights {self.digest}>"

    def replace(self, **changes: Any) -> Network:
        """The same network with other arguments of the constructor, or another `source`, `texts` or `tokens`."""
        names = ("module", "preprocessing", "labels", "name", "unloaded", "output", "probability")
        mine = {name: getattr(self, name) for name in names} | {"notes": self.given_notes}
        beside = {name: changes.pop(name, getattr(self, name)) for name in ("source", "texts", "tokens")}
        network = Network(**mine | changes)
        network.source, network.texts, network.tokens = beside["source"], beside["texts"], beside["tokens"]
        return network

    # What it is

    @property
    def parameters(self) -> int:
        """How many numbers it has learned."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the names and values of all weights that were loaded."""
        if self._own_digest is not None:
            return self._own_digest
        return identity.digest(self.module, self.unloaded)

    @contextmanager
    def under_its_digest(self) -> Iterator[None]:
        """Whatever is done to the weights until the end of the block, the digest stays."""
        self._own_digest = self.digest
        try:
            yield
        finally:
            self._own_digest = None

    @property
    def norms(self) -> list[Norm]:
        """The batch normalizations that have running statistics, in the order of calls."""
        now = identity.state(self.module)
        if self._norms is None or self._norms[0] != now:
            called = dict.fromkeys(self.call(layer.name)[0] for layer in self.layers)
            self._norms = now, find_norms(dict(self.module.named_modules()), called)
        return list(self._norms[1])

    def with_input_size(self, size: tuple[int, int]) -> Network:
        """The same network for images of another height and width.

        Of images too small for the whole network the first layers can be shown, up to where they get too small.
        Position embeddings are resampled, as the network's own library does it.

        Raises:
            InputError: it takes its own size only, or its position embeddings are resampled and its patches do not
                divide the size.
        """
        if size == self.preprocessing.size:
            return self
        if self.is_resampled and (why := self.misfit(size)):
            raise InputError(why)
        network = self.replace(preprocessing=self.preprocessing.resized(size))
        network.native = self.native or self
        if not network._trace.layers:
            own = size_text(self.preprocessing.size)
            raise InputError(f"size {size_text(size)}: {self.name} takes {own} pixels only")
        return network

    @cached_property
    def is_resampled(self) -> bool:
        """Whether its position embeddings are resampled at other sizes than its own."""
        return not self.preprocessing.fixed_size and can_resize(self.module)

    def misfit(self, size: tuple[int, int]) -> str:
        """Why its patches do not divide a size, with the nearest sizes; empty if they do, or it has none."""
        return misfit(size, self._patch)

    def whole_patches(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size nearest to one that its patches divide; the same for a network without patches."""
        height, width = (max(1, round(side / length)) * length for side, length in zip(size, self._patch, strict=True))
        return height, width

    @property
    def _patch(self) -> tuple[int, int]:
        """The size of its patches, where they divide its own size; a pixel where it has none."""
        scheme = self._native_trace.tokens
        own: tuple[int, int] = (self.native or self).preprocessing.size  # type: ignore[assignment]
        return (1, 1) if scheme is None or misfit(own, scheme.patch) else scheme.patch

    # Running it

    def borrowed(self, device: torch.device | str = "cpu") -> AbstractContextManager[None]:
        """Eval mode, frozen parameters, on `device`; at the end of the block everything is put back as it was."""
        return borrowed(self.module, device)

    def activations(
        self, images: Images, layers: Sequence[str] | str, *, batch: int = 32, gradient: bool = False
    ) -> dict[str, Tensor]:
        """What layers return for images, in eval mode and on the device of the weights.

        The module is left as it was.  It may be borrowed already: `with network.borrowed("cuda"):` around it says
        where to run.

        Args:
            images: pixels (n, channels, height, width) in 0..255, RGB, or photographs: PIL's images, or files of them,
                which are resized and cropped as the network was shown them.
            layers: names of layers; "logits" is (n, classes), from before a softmax or sigmoid at the end, and
                "output" what a network that is no classifier returns.
            batch: so many images go through at once.
            gradient: whether to keep the graph, so that what is computed from the activations has a gradient with
                respect to the pixels.

        Returns:
            By layer (n, channels, *positions): positions are (height, width) of maps, (tokens,), or none.

        Raises:
            InputError: there is no such layer (with the nearest), there are no logits, or an image cannot be read.

        Example:
            >>> import phosphene, torch
            >>> network = phosphene.open("efficientnet_lite0")
            >>> found = network.activations(torch.rand(2, 3, 224, 224) * 255, ["blocks.1", "logits"])
            >>> {name: tuple(activation.shape) for name, activation in found.items()}
            {'blocks.1': (2, 24, 56, 56), 'logits': (2, 1000)}
        """
        names = {name: _reading_name(self, name) for name in ([layers] if isinstance(layers, str) else layers)}
        with self.borrowed(self.device), torch.set_grad_enabled(gradient):
            parts = [
                read_batch(self._forward, pixels.to(self.device), names.values())
                for pixels in pixel_batches(images, self.preprocessing, batch)
            ]
            if not parts:
                raise InputError("no images: expected one or more")
            kept = {name: [part[read] for part in parts] for name, read in names.items()}
            return {name: torch.cat(each) if len(each) > 1 else each[0] for name, each in kept.items()}

    def forward(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader] | None = None,
        inputs: Mapping[str, Reader] | None = None,
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
        return self._forward.logits(pixels, readers or {}, inputs or {}, seeds)

    def read(
        self,
        pixels: Tensor,
        readers: Mapping[str, Reader],
        inputs: Mapping[str, Reader] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """As `forward`, but no further than to the last of `readers`: nothing behind it is run, nor its input read.

        The logits are one more layer, `LOGITS`.
        """
        self._forward.read(pixels, readers, inputs or {}, seeds)

    # Layers

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            InputError: there is none (with the nearest names), or it cannot be shown (with the reason).
        """
        found = self._by_name.get(name)
        if found is None and name == OUTPUT and not self.limit:
            found = self.output_layer
        if found is None and self.is_head(name):
            if name not in self._heads:
                self._heads[name] = head_layer(name, self.attentions, self._by_name, self.name)
            found = self._heads[name]
        return found or _no_such_layer(self, name)

    def is_head(self, name: str) -> bool:
        """Whether a layer of that name would be an attention head's, such as "blocks.6.attn:head3"."""
        split = split_head(name)
        return split is not None and name not in self._by_name and split[0] in self._module_names

    @cached_property
    def attentions(self) -> dict[str, Attention]:
        """The modules whose attention heads are layers, such as "blocks.6.attn:head3", by name."""
        return find_attentions(self.module)

    def call(self, layer: str) -> tuple[str, int]:
        """The module whose output a layer is, by name, and which of its calls; the network itself is called "".

        Of an attention head the module at whose call it is read.
        """
        if self.is_head(layer) and (attention := self.attentions.get(layer.rpartition(":")[0])):
            return attention.source, 1
        return module_call(layer, self._module_names)

    def depth(self, name: str) -> int:
        """How many layers end before that one."""
        found = self.layer(name)
        ends = found.name if found.name in self._depths or not self.is_head(name) else self.call(name)[0]
        return self._depths.get(ends, len(self.layers))

    @property
    def layers(self) -> Layers:
        """The layers that can be shown: calls of a module that return a tensor, in the order in which they end."""
        return Layers(self._trace.layers[: self._limit[0]])

    @property
    def is_traced(self) -> bool:
        """Whether its layers are known already; else the first look at them sends images through it."""
        return {"_trace", "_limit"} <= vars(self).keys()

    @property
    def output_layer(self) -> Layer | None:
        """The network's output as a layer called "output", where it is no logits; None for a classifier."""
        return self._trace.output_layer

    @property
    def has_tokens(self) -> bool:
        """Whether any of its layers has tokens whose layout is known, as transformers have."""
        return any(layer.tokens is not None for layer in self.layers)

    @property
    def limit(self) -> str:
        """Why nothing beyond the last of `layers` can be shown; empty if all can."""
        return self._limit[1]

    @property
    def constant(self) -> list[str]:
        """The modules that are called, and return the same for every image: no layer is shown of them."""
        return [name for name, why in self._native_trace.left_out.items() if why == CONSTANT]

    # The output, and what it is made of

    @property
    def classes(self) -> int:
        """How many classes the logits have; 0 if it returns none, or none that can be shown (see `limit`)."""
        return 0 if self.limit else self._trace.classes

    @property
    def ending(self) -> Ending | None:
        """The softmax or sigmoid that the network ends in, and that is bypassed; None without one."""
        return self._native_trace.ending

    @property
    def unbatchable_reason(self) -> str:
        """Why images go through the network one at a time; empty where they do not depend on each other."""
        return self._native_trace.unbatchable_reason

    @property
    def random(self) -> bool:
        """Whether its forward draws random numbers: each image then has its own, from its seed."""
        return self._native_trace.random

    @property
    def kind(self) -> Probability:
        """How its logits become probabilities."""
        return self.probability or self._native_trace.probability

    def probabilities(self, logits: Tensor) -> Tensor:
        """The network's own of each class, of logits (rows, classes); not a number for a regression."""
        return outputs.probabilities(logits, self.kind)

    @property
    def notes(self) -> dict[str, str]:
        """What a user should know, in sentences, by topic: as given, and what a pass through the network has shown."""
        seen = self._native_trace.notes
        if self.probability is not None:
            seen.pop("probability", None)
        return self.given_notes | seen

    def no_classes(self, what: str) -> str:
        """Why there is no class to show, and what there is instead, in a sentence."""
        return _no_classes(self, what)

    # A pass shows all that is known of it: once, when it is first asked for.

    @cached_property
    def _trace(self) -> Trace:
        return _send_through(self)

    @property
    def _native_trace(self) -> Trace:
        """Of the network at its own size."""
        return (self.native or self)._trace

    @cached_property
    def _limit(self) -> Limit:
        return _find_limit(self)

    @property
    def _forward(self) -> Forward:
        return Forward(
            self.module, self.name, self._feed, self._native_trace, self._module_names, lambda: self.attentions,
            self._fit,
        )  # fmt: skip

    @cached_property
    def _fit(self) -> Fit:
        """Makes contexts in which the module takes images of this size."""
        if self.native is None or not self.is_resampled:
            return nullcontext
        return fit_to(self.module, self.preprocessing.size, self.name) or nullcontext  # type: ignore[arg-type]

    def _feed(self, pixels: Tensor) -> Tensor:
        inputs = self.preprocessing(pixels)
        tensors = (*self.module.parameters(), *self.module.buffers())
        weights = next((tensor for tensor in tensors if tensor.is_floating_point()), inputs)
        inputs = inputs.to(weights.dtype)
        # Channels last in memory is the faster order for convolutions, on CPUs and GPUs; the shape stays.
        return inputs if self.preprocessing.layout == "NHWC" else inputs.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _module_names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.module.named_modules())

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def _depths(self) -> dict[str, int]:
        return {layer.name: index for index, layer in enumerate(self.layers)}


def same_classes(first: Network, second: Network) -> bool:
    """Whether two networks tell the same classes by the same numbers, as far as their labels say."""
    if not first.classes or first.classes != second.classes:
        return False
    if first.labels is None or second.labels is None:
        return True
    pairs = list(zip(first.labels, second.labels, strict=False))
    return all(a.wordnet == b.wordnet if a.wordnet and b.wordnet else a.name == b.name for a, b in pairs)


def _send_through(network: Network) -> Trace:
    """What a pass through a network shows of it.

    Raises:
        InputError: it does not take images as its preprocessing makes them.
    """
    module, preprocessing, native = network.module, network.preprocessing, network.native
    last = preprocessing.layout == "NHWC" or getattr(module, "output_fmt", "") == "NHWC"

    def run(pixels: Tensor) -> Any:
        with network._fit():
            return module(network._feed(pixels))

    with network.borrowed(network.device), torch.no_grad():
        pixels = probe_images(preprocessing).to(network.device)
        try:
            size: tuple[int, int] = preprocessing.size  # type: ignore[assignment]
            if native is not None:
                return laid_out(trace_resized(module, run, pixels, last, native._trace), size)
            found = trace(
                module,
                run,
                pixels,
                layout_last=last,
                requested=network.output,
                name=network.name,
                classifies=not _returns_features(module),
            )
            return with_tokens(found, module, size, None if network.tokens is None else parse_tokens(network.tokens))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{network.name} does not take images of {preprocessing.channels} channels and "
                f"{size_text(preprocessing.size)} pixels ({first_line(error)}){_part_hint(module)}"
            ) from error


def _find_limit(network: Network) -> Limit:
    """How many of its layers can be shown, and why no more."""
    layers, native = network._native_trace.layers, network.native
    limits = [(len(layers), "")]
    if network.unloaded:
        limits.append(untrained_limit(layers, network.unloaded, network._module_names))
    if native is not None:
        limits += size_limits(network.preprocessing, network._trace, native.preprocessing, native._trace)
    return min(limits)


def _returns_features(module: nn.Module) -> bool:
    """Whether a network of timm's returns features and no logits: its `num_classes` are 0, or it is `features_only`."""
    return getattr(module, "num_classes", None if not hasattr(module, "feature_info") else 0) == 0


def _part_hint(module: nn.Module) -> str:
    """The part of a network of more than images that takes images, in words."""
    towers = ("vision_model", "vision_tower", "visual", "image_encoder")
    found = next((name for name in towers if isinstance(getattr(module, name, None), nn.Module)), "")
    return f"; expected its image encoder alone: module.{found}" if found else ""


def _reading_name(network: Network, layer: str) -> str:
    """The name by which what `activations` calls so is read."""
    if layer != LOGITS and (layer != "logits" or layer in network._by_name):
        return network.layer(layer).name
    if not network.classes:
        raise InputError(network.limit or network.no_classes("logits"))
    return LOGITS


def _no_such_layer(network: Network, name: str) -> NoReturn:
    """Say why there is no layer of that name, or why it cannot be shown."""
    traced = network._native_trace.layers
    calls = [layer.name for layer in traced if network.call(layer.name)[0] == name]
    if name in calls or (calls and calls[0] not in network._by_name):
        raise InputError(f"layer {name!r} of {network.name} cannot be shown: {network.limit}")
    if calls:
        raise InputError(f"layer {name!r} is called {len(calls)} times: expected {calls[0]} to {calls[-1]}")
    if why := network._native_trace.left_out.get(name):
        raise InputError(f"layer {name!r} of {network.name} cannot be shown: {why}")
    if not traced:
        kind = "a TorchScript program" if isinstance(network.module, scripted.Program) else "one graph"
        raise InputError(
            f"{network.name} is {kind}, and none of its layers can be read: its classes can be shown; for layers "
            "expected the module that it was made from, or what torch.export.export returns"
        )
    if name and name in network._module_names:
        raise InputError(
            f"layer {name!r} is not called, or returns no tensor, when an image goes through {network.name}"
        )
    near = did_you_mean(name, network._by_name)
    raise InputError(
        f"{network.name} has no layer {name!r}{_class_of(network, name) or near or '; see `phosphene layers`'}"
    )


def _class_of(network: Network, name: str) -> str:
    """That a name is a class's, where it is, and how that is spelled."""
    if network.labels is None:
        return ""
    called = next((label.name for label in network.labels if label.name.casefold() == name.casefold()), None)
    return "" if called is None else f"; it is a class: class:{called}"


def _no_classes(network: Network, what: str) -> str:
    dtype, output = network._native_trace.dtype, network.output_layer
    if dtype:
        return f"{network.name} returns {dtype} and no logits, so it has no {what}: show its layers instead"
    if output is None:
        return (
            f"{network.name} returns no logits of shape (rows, classes), so it has no {what}: show its layers instead"
        )
    shape = "x".join(map(str, output.shape))
    return (
        f"{network.name} is no classifier, so it has no {what}: its output has {output.channels} channels ({shape}), "
        f"which are units such as {OUTPUT}:0"
    )


def _check_values(module: nn.Module, name: str) -> None:
    """Raise an `InputError` if there are no numbers to compute with."""
    called = name or type(module).__name__
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise InputError(
                f"{called} is lazy, and its {key} has no shape yet: expected a module that has been called once"
            )
        if tensor.is_meta:
            raise InputError(
                f"{called} is on the meta device, and its {key} has no values: expected a module with weights "
                "(module.to_empty(device='cpu'), then load_state_dict)"
            )
