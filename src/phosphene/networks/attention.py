"""What a transformer's attention heads look at in a photograph, and the attention rollout.

Libraries compute attention in several ways: by a fused function that never has the weights, by a softmax, or by torch's
`MultiheadAttention`.  A pass is watched for all of them, and what is computed stays the library's own.

The rollout (Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", equation 1) follows attention through
the layers: the product over layers of 0.5 A + 0.5 I, each row divided by its sum, where A is the mean over a layer's
heads and I stands for the residual connection.
"""

from __future__ import annotations

import inspect
import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from phosphene.errors import InputError, did_you_mean, join_names
from phosphene.networks.activations import pixel_batches
from phosphene.networks.layers import hookable_modules
from phosphene.networks.network import Network
from phosphene.networks.tokens import TokenLayout

CLASS_TOKEN, POOLING, MEAN = "the class token", "the attention pooling", "a patch on average"


class AttentionLayer(NamedTuple):
    """One call of attention in a pass of one image.

    Attributes:
        name: of the module that computes it, with `#1`, `#2`, … behind it where it does so more than once.
        rows, heads, queries, keys: of its weights; more rows than one are windows.
    """

    name: str
    rows: int
    heads: int
    queries: int
    keys: int


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What the heads of an attention layer look at in a photograph.

    Attributes:
        layer: the attention layer.
        layers: all of them, in the order of calls.
        query: whose attention is shown: that of the class token, or where there is none, of the attention pooling or
            of a patch on average.
        photograph: as the network was shown it, (height, width, channels) in 8 bits.
        maps: of each head, how much it attends to each patch, (heads, rows, columns); with `prefix` each head's sum
            is 1.
        prefix: of each head, how much it attends to the class tokens and registers, (heads,).
        rollout: how much the query attends to each patch through all layers up to this one, (rows, columns); None
            where the layers before are of other tokens.
        weights: all of the layer's attention, (heads, queries, keys).
        tokens: which keys are class tokens, registers and patches.
    """

    layer: str
    layers: tuple[str, ...]
    query: str
    photograph: NDArray[np.uint8]
    maps: NDArray[np.float32]
    prefix: NDArray[np.float32]
    rollout: NDArray[np.float32] | None
    weights: NDArray[np.float32]
    tokens: TokenLayout


def attention(
    network: Network, photograph: Image.Image | str | os.PathLike[str] | Tensor, layer: str | None = None
) -> AttentionMaps:
    """The attention of a layer's heads to the patches of a photograph, and the rollout up to that layer.

    Args:
        network: its size is that of the photograph: `network.with_input_size((448, 448))` has finer maps, where it
            takes that.
        photograph: PIL's image, a file of one, or pixels (channels, height, width) in 0..255.
        layer: the attention layer, or one that has it in it ("blocks.6.attn", "encoder.layer.6"); by default the last.

    Raises:
        InputError: the network has no attention, or none in that layer, or its attention is not to patches on a grid.

    Example:
        >>> maps = phosphene.attention(phosphene.open("timm:vit_tiny_patch16_224"), "dog.jpg", "blocks.6.attn")
        >>> maps.maps.shape
        (3, 14, 14)
    """
    given = photograph[None] if isinstance(photograph, Tensor) else [photograph]
    (pixels,) = pixel_batches(given, network.preprocessing, 1)
    layers = attention_layers(network, pixels)
    index = _find_layer(network, layers, layer)
    layout = _layout(network, layers[index])
    recorder = _WeightsRecorder(index)
    _run(network, pixels, recorder)
    weights, prefix = recorder.weights, layout.prefix
    assert weights is not None
    query = MEAN if layout.class_tokens == 0 else CLASS_TOKEN
    if weights.shape[1] == 1 and layout.class_tokens == 0:
        query = POOLING
    rows = _query_rows(weights, layout)
    # The layers before a token that only now joins the patches are of other tokens.
    mixed = any((each.rows, each.queries, each.keys) != (1, layout.count, layout.count) for each in layers[:index])
    rolled = None if mixed else _query_rows(_roll(weights, recorder.rollout)[None], layout)[0, prefix:]
    return AttentionMaps(
        layer=layers[index].name,
        layers=tuple(each.name for each in layers),
        query=query,
        photograph=pixels[0].round().clamp(0, 255).to(torch.uint8).movedim(0, -1).contiguous().numpy(),
        maps=rows[:, prefix:].reshape(-1, *layout.grid).numpy(),
        prefix=rows[:, :prefix].sum(dim=1).numpy(),
        rollout=None if rolled is None else rolled.reshape(layout.grid).numpy(),
        weights=weights.numpy(),
        tokens=layout,
    )


def attention_layers(network: Network, pixels: Tensor | None = None) -> list[AttentionLayer]:
    """All calls of attention in a pass of one image, in their order.

    Args:
        pixels: the image, (1, channels, height, width) in 0..255; by default of noise.

    Raises:
        InputError: there is none.
    """
    recorder = _ShapeRecorder()
    _run(network, network.preprocessing.noise(1) if pixels is None else pixels, recorder)
    if not recorder.shapes:
        raise InputError(
            f"{network.name} has no attention: expected a transformer, such as timm:vit_small_patch16_224 or a folder "
            "of DINOv2"
        )
    times, seen = Counter(name for name, _ in recorder.shapes), Counter[str]()
    found = []
    for name, shape in recorder.shapes:
        seen[name] += 1
        found.append(AttentionLayer(f"{name}#{seen[name]}" if times[name] > 1 else name, *shape))
    return found


def _run(network: Network, pixels: Tensor, recorder: _Recorder) -> None:
    """Send one image through, as far as its layers can be shown."""
    last = network.layers[-1].name  # known from a pass that is not watched
    with network.borrowed(network.device), torch.no_grad(), recorder.watching(network.module):
        network.read(pixels.to(network.device), {last: lambda output: None})


def _find_layer(network: Network, layers: Sequence[AttentionLayer], name: str | None) -> int:
    """Where the layer stands that a user means."""
    if name is None:
        return len(layers) - 1
    names = [each.name for each in layers]
    if name in names:
        return names.index(name)
    inside = [each for each in names if each.startswith((f"{name}.", f"{name}#"))]
    if len(inside) == 1:
        return names.index(inside[0])
    if inside:
        raise InputError(f"layer {name!r} has several attention layers in it: expected {join_names(inside)}")
    near = did_you_mean(name, names) or f"; it has {join_names(names)}"
    raise InputError(f"{network.name} has no attention in a layer {name!r}{near}")


def _layout(network: Network, layer: AttentionLayer) -> TokenLayout:
    """What the keys of an attention layer are."""
    if layer.rows > 1:
        raise InputError(
            f"{layer.name} of {network.name} attends within {layer.rows} windows of {layer.keys} tokens: expected "
            "attention to all patches"
        )
    layouts = dict.fromkeys(each.tokens for each in network.layers if each.tokens is not None)
    fitting = [each for each in layouts if each.count == layer.keys]
    if not fitting:
        known = join_names([each.describe() for each in layouts]) or "none that are patches on a grid"
        raise InputError(
            f"{layer.name} of {network.name} attends to {layer.keys} tokens, and its layers' tokens are {known}: "
            "expected attention to patches; --tokens CLASS+REGISTERS (tokens=) says what they are"
        )
    return max(fitting, key=lambda each: each.prefix)


def _query_rows(weights: Tensor, layout: TokenLayout) -> Tensor:
    """The attention of the class token, the pooling, or a patch on average: (heads, queries, keys) to (heads, keys)."""
    return weights[:, 0] if layout.class_tokens and weights.shape[1] != 1 else weights.mean(dim=1)


def _roll(weights: Tensor, before: Tensor | None) -> Tensor:
    """A layer's attention (heads, queries, keys), followed through the layers before, (tokens, tokens)."""
    mean = weights.mean(dim=0)
    if len(mean) == mean.shape[1]:  # with the residual connection; a pooling has none
        mean = 0.5 * mean + 0.5 * torch.eye(len(mean))
        mean = mean / mean.sum(dim=1, keepdim=True)
    return mean if before is None or before.shape[0] != mean.shape[1] else mean @ before


# Watching a pass


class _Recorder(TorchFunctionMode, ABC):
    """Is told the weights of each attention of a pass, and in which module it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []

    @abstractmethod
    def add(self, name: str, weights: Callable[[], Tensor], shape: tuple[int, int, int, int]) -> None:
        """Take up an attention, of (rows, heads, queries, keys)."""

    def watching(self, module: nn.Module) -> ExitStack:
        """The context in which a module's passes are watched."""
        stack = ExitStack()
        for name, each in hookable_modules(module):
            if isinstance(each, nn.Softmax):  # what it is a part of computes the attention
                continue
            stack.callback(each.register_forward_pre_hook(self._enter(name)).remove)
            stack.callback(each.register_forward_hook(self._leave, always_call=True).remove)
        stack.enter_context(self)
        return stack

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self.running.append(name)

    def _leave(self, *_: Any) -> None:
        self.running.pop()

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if function is F.multi_head_attention_forward:
            return self._multi_head(args, kwargs)
        result = function(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            self._fused(*args, **kwargs)
        elif function in _SOFTMAXES and result.ndim in (3, 4) and _is_last(result, args, kwargs):
            self._take(lambda: result, tuple(result.shape))
        return result

    def _take(self, weights: Callable[[], Tensor], shape: tuple[int, ...]) -> None:
        """Weights of (rows, heads, queries, keys), or of (rows * heads, queries, keys) of one row."""
        whole = shape if len(shape) == 4 else (1, *shape)
        if self.running:
            self.add(self.running[-1], lambda: weights().detach().float().cpu().reshape(whole), whole)  # type: ignore[arg-type]

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> None:  # fmt: skip
        """What torch's fused function computes on the way (see its documentation)."""

        def weights() -> Tensor:
            keys = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3) if enable_gqa else key
            logits = query @ keys.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
            if is_causal:
                logits = logits.masked_fill(logits.new_ones(logits.shape[-2:]).tril().logical_not(), -math.inf)
            if attn_mask is not None:
                logits = (
                    logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
                )
            return logits.softmax(dim=-1)

        if query.ndim in (3, 4):
            self._take(weights, (*query.shape[:-1], key.shape[-2]))

    def _multi_head(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Torch's own attention, asked for its weights too."""
        bound = _MULTI_HEAD.bind(*args, **kwargs)
        bound.apply_defaults()
        wanted, average = bound.arguments["need_weights"], bound.arguments["average_attn_weights"]
        bound.arguments |= {"need_weights": True, "average_attn_weights": False}
        found: tuple[Tensor, Any] = F.multi_head_attention_forward(*bound.args, **bound.kwargs)
        output, weights = found
        self._take(lambda: weights, tuple(weights.shape))
        own = weights.mean(dim=-3) if average else weights
        return output, own if wanted else None


class _ShapeRecorder(_Recorder):
    """Keeps where attention is, and its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[str, tuple[int, int, int, int]]] = []

    def add(self, name: str, weights: Callable[[], Tensor], shape: tuple[int, int, int, int]) -> None:
        self.shapes.append((name, shape))


class _WeightsRecorder(_Recorder):
    """Keeps one attention, (heads, queries, keys), and the rollout of all before it, where these are of one size."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.count = index, 0
        self.weights: Tensor | None = None
        self.rollout: Tensor | None = None

    def add(self, name: str, weights: Callable[[], Tensor], shape: tuple[int, int, int, int]) -> None:
        if self.count == self.index:
            self.weights = weights()[0]
        elif self.count < self.index and shape[0] == 1 and shape[2] == shape[3]:
            self.rollout = _roll(weights()[0], self.rollout)
        self.count += 1


_SOFTMAXES = {torch.softmax, F.softmax, Tensor.softmax}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _is_last(result: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a softmax is over the last axis."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return axis in (-1, result.ndim - 1)
