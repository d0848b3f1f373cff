"""Attention heads as layers: what each gives before the projection that mixes them.

The heads' outputs lie beside each other in what goes into the projection (Vaswani et al. 2017, "Attention Is All You
Need", section 3.2.2: the concatenation that W^O multiplies).  A head's own output is its share of these channels; the
layer is called `blocks.6.attn:head3`, after the module of the attention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import InputError, did_you_mean
from phosphene.networks.layers import Layer

_HEAD = re.compile(r"(.+):head([0-9]{1,9})")
_PROJECTIONS = ("proj", "out_proj", "o_proj", "output.dense", "to_out.0")  # as libraries call them, in an attention
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")


@dataclass(frozen=True)
class Attention:
    """A module of attention whose heads can be read.

    Attributes:
        source: the module at whose call the heads are read: the projection, by what goes into it, or torch's own
            `MultiheadAttention`, by what goes into that.
        count: of heads.
        width: channels of each.
    """

    source: str
    count: int
    width: int


def split_head(name: str) -> tuple[str, int] | None:
    """The module and the index of a head's layer; None for any other name."""
    match = _HEAD.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def find_attentions(module: nn.Module) -> dict[str, Attention]:
    """The modules of attention whose heads can be read, by name."""
    found = {}
    for name, each in module.named_modules():
        if isinstance(each, nn.MultiheadAttention):
            if _is_plain(each):
                found[name] = Attention(name, each.num_heads, each.head_dim)
        elif name and (projection := _projection(each)):
            path, linear = projection
            if (count := _count(each)) > 1 and linear.in_features % count == 0:
                found[name] = Attention(f"{name}.{path}", count, linear.in_features // count)
    return found


def _projection(module: nn.Module) -> tuple[str, nn.Linear] | None:
    modules = dict(module.named_modules())
    return next(((path, each) for path in _PROJECTIONS if isinstance(each := modules.get(path), nn.Linear)), None)


def _count(module: Any) -> int:
    """How many heads it has; 0 where it is no attention."""
    owners = [module]
    if "attention" in type(module).__name__.lower():  # a block has an attention too, and a projection of its own
        owners += [getattr(module, name, None) for name in ("attention", "self")]
    named = [getattr(owner, name, None) for owner in owners if owner is not None for name in _COUNTS]
    return next((each for each in named if isinstance(each, int) and not isinstance(each, bool)), 0)


def _is_plain(module: nn.MultiheadAttention) -> bool:
    return module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn


def head_layer(name: str, attentions: Mapping[str, Attention], layers: Mapping[str, Layer], network: str) -> Layer:
    """The layer of a head.

    Args:
        name: of the layer, such as "blocks.6.attn:head3".
        attentions: see `find_attentions`.
        layers: of the network, by name.
        network: its name, for messages.

    Raises:
        InputError: there is no such head, or it cannot be read.
    """
    split = split_head(name)
    assert split is not None
    owner, index = split
    attention = attentions.get(owner)
    if attention is None:
        near = did_you_mean(owner, attentions) or ("" if attentions else "; none of its modules has")
        raise InputError(f"{name}: {owner} of {network} has no attention heads that can be read{near}")
    if index >= attention.count:
        raise InputError(f"head {index} of {owner}: it has {attention.count} heads, 0 to {attention.count - 1}")
    source = layers.get(attention.source)
    if source is None:
        raise InputError(f"{name} of {network} cannot be shown: {attention.source} is no layer that is called once")
    shape = (attention.width, *source.positions)
    raw = (*source.raw_shape[:-1], attention.width)
    return replace(
        source, name=name, type="AttentionHead", shape=shape, channels=attention.width, parameters=0,
        worth_showing=False, raw_shape=raw,
    )  # fmt: skip


def register_head_readers(
    module: nn.Module, readers: Mapping[int, Callable[[Tensor], None]], attention: Attention
) -> Callable[[], None]:
    """Have heads read at every call of an attention.

    Args:
        module: the network.
        readers: of each head by index, given its output as the module itself has it: the channels last.

    Returns:
        What removes the hook.
    """
    source = module.get_submodule(attention.source)

    def hook(called: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if isinstance(called, nn.MultiheadAttention):
            together = _multihead(called, inputs, options)
        else:
            together = inputs[0] if inputs else options["input"]
        for index, read in readers.items():
            read(together[..., index * attention.width : (index + 1) * attention.width])

    return source.register_forward_pre_hook(hook, with_kwargs=True).remove


_GIVEN = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")


def _multihead(module: nn.MultiheadAttention, inputs: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """The heads' outputs beside each other, as torch's module computes them within one function.

    Batch, tokens and channels are in the module's own order.

    Args:
        inputs, options: what the module is called with.
    """
    given = dict(zip(_GIVEN, inputs, strict=False)) | options
    query, key, value, attn_mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    if given.get("key_padding_mask") is not None or given.get("is_causal"):
        raise InputError("the heads of an attention with padding or causal masks cannot be read")
    if attn_mask is not None and not attn_mask.is_floating_point():
        attn_mask = ~attn_mask.bool()  # torch's module leaves out what is true, its function keeps that
    if attn_mask is not None and attn_mask.ndim == 3:
        attn_mask = attn_mask.unflatten(0, (-1, module.num_heads))
    weights = module.in_proj_weight.chunk(3)
    biases = module.in_proj_bias.chunk(3) if module.in_proj_bias is not None else (None, None, None)
    queries, keys, values = (
        F.linear(each if module.batch_first else each.transpose(0, 1), weight, bias)
        .view(-1, each.shape[1 if module.batch_first else 0], module.num_heads, module.head_dim)
        .transpose(1, 2)
        for each, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )  # (rows, heads, tokens, channels)
    together = F.scaled_dot_product_attention(queries, keys, values, attn_mask).transpose(1, 2).flatten(2)
    return together if module.batch_first else together.transpose(0, 1)
