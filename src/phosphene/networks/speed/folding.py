"""The same function at about half the cost: batch normalization folded into the convolution before it, TensorFlow's
padding taken over by the convolution, and activations that need no copy of their input."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.forward import Reader
from phosphene.networks.layers import LOGITS, is_activation
from phosphene.networks.network import Network
from phosphene.networks.norms import Norm
from phosphene.networks.outputs import first_tensor

# How far what is read may be off, over its largest number; beyond, a network is left as it is.
_TOLERANCE = 1e-4
# Activations whose derivative can be told from what comes out.
_BY_OUTPUT = (nn.ReLU, nn.LeakyReLU, nn.ELU)
# A channel's deviation is at least this share of its layer's largest: constant ones have none.
_LEAST = 1e-3


@contextmanager
def optimized(network: Network, keep: Collection[str] = ()) -> Iterator[list[Norm]]:
    """A borrowed network made cheaper in all these ways; at the end all is as it was.

    Args, yields: as `fused_batch_norms`.
    """
    before = _probe(network, keep)
    with ExitStack() as stack:
        with ExitStack() as tried:
            for saving in (_without_inplace, _symmetric_padding):
                tried.enter_context(saving(network))
            norms = tried.enter_context(_fuse_batch_norms(network, keep))
            if _same(before, _probe(network, keep)):
                stack.push(tried.pop_all())
                yield norms
                return
        # One of them makes another function of it: each by itself then.
        for saving in (_without_inplace, _symmetric_padding):
            with ExitStack() as tried:
                tried.enter_context(saving(network))
                if _same(before, _probe(network, keep)):
                    stack.push(tried.pop_all())
        yield stack.enter_context(fused_batch_norms(network, keep))


@contextmanager
def _without_inplace(network: Network) -> Iterator[None]:
    """Activations whose derivative needs what went in copy it when they work in place: so they should not."""
    modules = [
        module
        for module in network.module.modules()
        if getattr(module, "inplace", None) is True and is_activation(module) and not isinstance(module, _BY_OUTPUT)
    ]
    try:
        for module in modules:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in modules:
            module.inplace = True  # type: ignore[assignment]


@contextmanager
def _symmetric_padding(network: Network) -> Iterator[None]:
    """Convolutions with TensorFlow's padding, which may be one more at the end than at the beginning.

    That is even padding for a kernel with a row (or a column) of noughts before it, and no padded copy of the image is
    needed.
    """
    convs: list[Any] = [
        module
        for module in network.module.modules()
        if _is_same_padded(module) and "forward" not in vars(module) and module.dilation == (1, 1)
    ]
    try:
        for conv in convs:
            conv.forward = partial(_same_padded, conv)
        yield
    finally:
        for conv in convs:
            conv.__dict__.pop("forward", None)


def _is_same_padded(module: Any) -> bool:
    """Whether it is timm's `Conv2dSame` itself, told by its name: timm is not imported for a network without it."""
    return type(module).__name__ == "Conv2dSame" and type(module).__module__.startswith("timm.")


def _same_padded(conv: Any, images: Tensor) -> Tensor:
    sides = zip(images.shape[-2:], conv.kernel_size, conv.stride, strict=True)
    pads = [max((math.ceil(side / step) - 1) * step + kernel - side, 0) for side, kernel, step in sides]
    down, across = (pad % 2 for pad in pads)
    weight = F.pad(conv.weight, (across, 0, down, 0)) if down or across else conv.weight
    padding = ((pads[0] + 1) // 2, (pads[1] + 1) // 2)
    return F.conv2d(images, weight, conv.bias, conv.stride, padding, 1, conv.groups)


@contextmanager
def fused_batch_norms(network: Network, keep: Collection[str] = ()) -> Iterator[list[Norm]]:
    """Fold what can be folded of a borrowed network; at the end all is as it was.

    In eval mode a batch normalization is one more factor and summand for each channel, which the convolution before
    it can take over.  The module itself then hands its input on, through its activation where it has one inside.

    Args:
        network: borrowed, on its device.
        keep: layers that are read, by name: a convolution whose output is one of theirs stays as it is.

    Yields:
        For every batch normalization what `Network.norms` says, of what goes into the module now.
    """
    before = _probe(network, keep)
    with ExitStack() as stack:
        norms = stack.enter_context(_fuse_batch_norms(network, keep))
        if not _same(before, _probe(network, keep)):
            stack.close()  # not the same function: all as it was
            norms = network.norms
        yield norms


@contextmanager
def _fuse_batch_norms(network: Network, keep: Collection[str]) -> Iterator[list[Norm]]:
    """As `fused_batch_norms`, without looking whether it is the same function."""
    norms = {norm.module: norm for norm in network.norms}
    pairs = _conv_norm_pairs(network, list(norms), {network.call(name)[0] for name in keep})
    with ExitStack() as stack:
        stack.enter_context(network.under_its_digest())
        for conv_name, norm_name in pairs:
            conv, norm = network.module.get_submodule(conv_name), network.module.get_submodule(norm_name)
            stack.enter_context(_fuse_pair(conv, norm))
        for _, norm_name in pairs:
            norms[norm_name] = _fused_norm(norm_name, network.module.get_submodule(norm_name))
        yield list(norms.values())


def _fused_norm(name: str, module: Any) -> Norm:
    std = module.weight.detach().abs()
    return Norm(name, module.bias.detach().clone(), std.clamp_min(_LEAST * std.max()), torch.ones_like(std))


def _conv_norm_pairs(network: Network, norms: list[str], kept: set[str]) -> list[tuple[str, str]]:
    """Convolutions and the batch normalizations that directly follow, each called once in a pass, and neither kept."""
    modules = dict(network.module.named_modules())
    convs = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    norms = [name for name in norms if name not in kept and _is_fusable(modules[name])]
    if not norms:
        return []
    made: dict[int, tuple[str, Tensor]] = {}  # by identity, and held, so that no other gets it
    calls: dict[str, int] = {}
    read: set[str] = set()
    found: list[tuple[str, str]] = []

    def note_conv(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            made[id(output)] = name, output

        return hook

    def note_kept(module: nn.Module, inputs: Any, output: Any) -> None:
        """What hands a convolution's output on, such as a block that ends in one, is read as that."""
        tensor = first_tensor(output)
        if id(tensor) in made:
            read.add(made[id(tensor)][0])

    def note_norm(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if inputs and id(inputs[0]) in made:
                found.append((made[id(inputs[0])][0], name))

        return hook

    with ExitStack() as stack:
        for name in convs:
            stack.callback(modules[name].register_forward_hook(note_conv(name)).remove)
        for name in kept & modules.keys():  # after those of the convolutions, so called after them
            stack.callback(modules[name].register_forward_hook(note_kept).remove)
        for name in norms:
            stack.callback(modules[name].register_forward_pre_hook(note_norm(name)).remove)
        _probe(network, ())
    return [(conv, norm) for conv, norm in found if calls[conv] == calls[norm] == 1 and conv not in read]


def _is_fusable(module: nn.Module) -> bool:
    """Whether the module is a batch normalization and at most an activation (timm's `BatchNormAct2d`)."""
    known = isinstance(module, nn.BatchNorm2d) and (
        type(module) is nn.BatchNorm2d or (hasattr(module, "act") and hasattr(module, "drop"))
    )
    own = "forward" in vars(module)  # the caller's, which is not ours to replace
    return known and not own and isinstance(module.weight, Tensor) and isinstance(module.bias, Tensor)


@contextmanager
def _fuse_pair(conv: Any, norm: Any) -> Iterator[None]:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight, bias, offset = conv.weight.data, conv.bias, 0.0 if conv.bias is None else conv.bias.data
    try:
        conv.weight.data = weight * factor.view(-1, 1, 1, 1)
        conv.bias = nn.Parameter((offset - norm.running_mean) * factor + norm.bias, requires_grad=False)
        # In the instance, before the class's: what is called is this, hooks and all.
        norm.forward = (lambda x: norm.act(norm.drop(x))) if hasattr(norm, "act") else (lambda x: x)
        yield
    finally:
        conv.weight.data, conv.bias = weight, bias
        norm.__dict__.pop("forward", None)


def _probe(network: Network, keep: Collection[str]) -> list[Tensor]:
    """All that is read of a network for two images of noise: its logits, if it has any, and layers; without what it
    does not reach, as with images too small for the whole of it."""
    found: dict[str, Tensor] = {}

    def reader(name: str) -> Reader:
        return lambda output: found.update({name: output.clone()})

    layers = [layer.name for layer in network.layers]
    names = {*keep} & {*layers} | {LOGITS if network.classes else layers[-1]}
    with torch.no_grad(), suppress(Exception):
        network.read(network.preprocessing.noise(2).to(network.device), {name: reader(name) for name in sorted(names)})
    return [found[name] for name in sorted(found)]


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return bool(first) and len(first) == len(second) and all(map(_close, first, second))


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= _TOLERANCE * first.abs().max().clamp_min(1e-6))
