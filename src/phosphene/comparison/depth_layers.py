"""The layers along a network's depth: which are looked at, and what of the network is behind each."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from torch import nn

from phosphene.errors import InputError
from phosphene.networks.layers import Layer, is_activation
from phosphene.networks.network import Network
from phosphene.photographs.activation_statistics import statistics_layers
from phosphene.photographs.listing import evenly_spread

MOST_LAYERS = 40
_LEAST_BLOCKS = 3
_PLAIN_CONTAINERS = {"Sequential", "ModuleList", "ModuleDict"}
# What joins branches, in networks whose blocks are no modules: Caffe's, ONNX's and Keras's.
_JOINTS = re.compile(r"(concat(enate)?|add|eltwise|sum|merge)$", re.IGNORECASE)


def depth_layers(network: Network, names: Sequence[str] | None = None, least: int = 2) -> list[Layer]:
    """The layers along a network's depth, in the order of calls.

    By default these are its blocks (or what joins the branches of one, where blocks are no modules), the first
    activation before them, and the activations and normalizations behind them; of a network without blocks its
    activations, or else its convolutions.  Of more than `MOST_LAYERS`, so many are evenly spread, the last among them.

    Args:
        names: or patterns, such as blocks.*.0.
        least: so many are needed.

    Raises:
        InputError: there is no such layer, or fewer than are needed.
    """
    if names is not None:
        named = dict.fromkeys(each for name in names for each in _fitting(network, name))
        chosen = sorted(map(network.layer, named), key=lambda layer: network.depth(layer.name))
    else:
        found = _default_layers(network)
        chosen = evenly_spread(found[::-1], MOST_LAYERS)[::-1]
    if len(chosen) < least:
        raise InputError(f"{len(chosen)} layer of {network.name}: expected {least} or more along its depth")
    return chosen


def _fitting(network: Network, name: str) -> list[str]:
    """The names of layers that fit a pattern; a name by itself where there is none."""
    found = [layer.name for layer in network.layers if fnmatch.fnmatchcase(layer.name, name)]
    return found or [name]


def _default_layers(network: Network) -> list[Layer]:
    layers = network.layers
    shown = _activations(network)
    for blocks in (_blocks(network), [layer for layer in layers if _JOINTS.match(layer.type)]):
        if len(blocks) >= _LEAST_BLOCKS:
            first, last = (network.depth(blocks[end].name) for end in (0, -1))
            before = [layer for layer in shown if network.depth(layer.name) < first and not _within(layer, blocks)][:1]
            behind = [layer for layer in layers[last + 1 :] if layer in shown or _is_norm_of_tokens(layer)]
            return [*before, *blocks, *behind]
    if len(shown) >= _LEAST_BLOCKS:
        return shown
    try:
        convolutions = statistics_layers(network)
    except InputError:
        convolutions = []
    if len(convolutions) > 1:
        return convolutions
    before = [layer for layer in layers if layer.channels != network.classes or math.prod(layer.positions) > 1]
    return before if len(before) > 1 else layers  # without the logits themselves, and what they become


def _activations(network: Network) -> list[Layer]:
    """Those worth showing, and those of vectors at the end, which as maps of one position are not."""
    modules = dict(network.module.named_modules())
    maps = [index for index, layer in enumerate(network.layers) if math.prod(layer.positions) > 1]
    end = maps[-1] if maps else len(network.layers)
    return [
        layer
        for index, layer in enumerate(network.layers)
        if layer.worth_showing or (index > end and is_activation(modules[network.call(layer.name)[0]]))
    ]


def _blocks(network: Network) -> list[Layer]:
    """The modules of a kind that there are several of, each with two or more layers of weights in it; not the stages
    that are made of them, and not what they are made of."""
    modules = dict(network.module.named_modules())
    candidates = {
        name: module
        for name, module in modules.items()
        if name and type(module).__name__ not in _PLAIN_CONTAINERS and _weighted(module) >= 2
    }
    kinds = {name: type(module).__name__ for name, module in candidates.items()}
    numbered = [name for name in kinds if name[-1].isdecimal()]  # as those of a stage are, and a block's parts are not
    inner = {name: Counter(kinds[other] for other in numbered if other.startswith(f"{name}.")) for name in kinds}
    whole = [name for name in kinds if max(inner[name].values(), default=0) < 2]
    outermost = [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]
    calls = [(layer, network.call(layer.name)[0]) for layer in network.layers]
    return [layer for layer, module in calls if module in set(outermost)]


def _weighted(module: nn.Module) -> int:
    """How many modules in it have a matrix of weights."""
    return sum(
        any(parameter.ndim > 1 for parameter in each.parameters(recurse=False))
        for each in module.modules()
        if each is not module
    )


def _within(layer: Layer, blocks: Sequence[Layer]) -> bool:
    return any(layer.name.startswith(f"{block.name}.") for block in blocks)


def _is_norm_of_tokens(layer: Layer) -> bool:
    return layer.tokens is not None and any(kind in layer.type for kind in ("LayerNorm", "RMSNorm"))


def parameters_so_far(network: Network, layers: Sequence[Layer]) -> list[int]:
    """For each layer, the parameters of what has been called when it ends: what a network that ends there needs.

    A container's own parameters, such as position embeddings, count as soon as anything in it has been called.
    """
    modules = dict(network.module.named_modules())
    order = [network.call(layer.name)[0] for layer in network.layers]
    counts = []
    for layer in layers:
        ended = set(order[: network.depth(layer.name) + 1])
        counts.append(_parameters_of(modules, ended))
    return counts


def _parameters_of(modules: Mapping[str, nn.Module], ended: Collection[str]) -> int:
    begun = {name for each in ended for name in _and_its_containers(each)}
    whole = tuple(f"{name}." for name in ended if name)  # what is in a module that has ended has been called, or is not
    used = [module for name, module in modules.items() if name in begun or name.startswith(whole)]
    parameters = {id(each): each.numel() for module in used for each in module.parameters(recurse=False)}
    return sum(parameters.values())


def _and_its_containers(name: str) -> list[str]:
    parts = name.split(".")
    return ["", *(".".join(parts[:length]) for length in range(1, len(parts) + 1))]
