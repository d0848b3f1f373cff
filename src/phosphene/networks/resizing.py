"""Networks that take other sizes than their own once their position embeddings are resampled, as libraries do it.

The caller's module stays as it is: what the library's own resizing changes is put in place for the time of a pass, and
taken out again.  timm resizes by `set_input_size`, transformers by `interpolate_pos_encoding=True`; torchvision and
open_clip resample only weights that are loaded (`interpolate_embeddings`: bicubic, corners aligned; `resize_pos_embed`:
bicubic, antialiased), and the same is done here.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from phosphene.errors import InputError, first_line

Fit = Callable[[], AbstractContextManager[None]]
"""Makes a context in which a module takes images of another size than its own; it may be entered again."""

_INTERPOLATE = "interpolate_pos_encoding"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def can_resize(module: nn.Module) -> bool:
    """Whether a module takes one size only as it is, and others once its position embeddings are resampled."""
    return _is_timm(_trunk(module)) or _is_torchvision(module) or _is_open_clip(module) or bool(_interpolating(module))


def _is_timm(module: Any) -> bool:
    config = getattr(module, "pretrained_cfg", None)
    fixed = (
        isinstance(config, dict) and config.get("fixed_input_size") and not getattr(module, "dynamic_img_size", False)
    )
    return bool(fixed) and callable(getattr(module, "set_input_size", None))


def fit_to(module: nn.Module, size: tuple[int, int], name: str) -> Fit | None:
    """What makes a module take images of a height and width; None where nothing of it needs to be resampled.

    Raises:
        InputError: the library cannot resize it so.
    """
    try:
        if _is_timm(_trunk(module)):
            return _Swaps(_trunk(module), _timm_swaps(_trunk(module), size)).entered
        if _is_torchvision(module):
            return _Swaps(module, _torchvision_swaps(module, size)).entered
        if _is_open_clip(module):
            return _Swaps(module, _open_clip_swaps(module, size)).entered
    except Exception as error:  # of whatever is in the network
        text = "x".join(map(str, size))
        raise InputError(f"size {text}: {name} cannot be resized to it ({first_line(error)})") from error
    interpolating = _interpolating(module)
    return (lambda: _interpolated(interpolating)) if interpolating else None


def misfit(size: tuple[int, int], patch: tuple[int, int]) -> str:
    """Why images of a size are none of whole patches, and the nearest that are; empty if they are."""
    if all(side % length == 0 for side, length in zip(size, patch, strict=True)):
        return ""
    near = [
        sorted({max(1, side // length) * length, -(-side // length) * length})
        for side, length in zip(size, patch, strict=True)
    ]
    sizes = dict.fromkeys((near[0][each], near[1][each]) for each in (0, -1))
    text = "x".join(map(str, size))
    nearest = " or ".join(f"{height}x{width}" for height, width in sizes)
    return (
        f"size {text}: patches of {patch[0]}x{patch[1]} pixels do not divide it: expected {nearest}, which are nearest"
    )


class _Swap(NamedTuple):
    """A value that stands in a module for the time of a pass: a parameter, a buffer, or an attribute."""

    module: str
    kind: str  # "_parameters", "_buffers", or "" for an attribute
    name: str
    value: Any


class _Swaps:
    """Values that stand in the place of a module's own."""

    def __init__(self, module: nn.Module, swaps: list[_Swap]):
        self.module, self.swaps = module, swaps
        self.converted: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        undo: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for index, swap in enumerate(self.swaps):
                owner = self.module.get_submodule(swap.module)
                held = getattr(owner, swap.kind) if swap.kind else owner.__dict__
                own = held.get(swap.name, _ABSENT)
                undo.append((held, swap.name, own))
                held[swap.name] = self._as(index, swap.value, own)
            yield
        finally:
            for held, name, own in reversed(undo):
                if own is _ABSENT:
                    held.pop(name, None)
                else:
                    held[name] = own

    def _as(self, index: int, value: Any, own: Any) -> Any:
        """A tensor where, and of the type that, the module's own is at the time."""
        if not isinstance(value, Tensor) or not isinstance(own, Tensor):
            return value
        dtype = own.dtype if value.is_floating_point() else value.dtype
        key = index, own.device, dtype
        if key not in self.converted:
            found = value.detach().to(own.device, dtype)
            self.converted[key] = nn.Parameter(found, requires_grad=False) if isinstance(own, nn.Parameter) else found
        return self.converted[key]


_ABSENT = object()


def _timm_swaps(module: nn.Module, size: tuple[int, int]) -> list[_Swap]:
    """What `set_input_size` changes, tried on a copy that shares the weights."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for each in module.modules():  # hooks are the caller's, and may be anything
        memo |= {id(each.__dict__[name]): OrderedDict() for name in _HOOKS if name in each.__dict__}
    resized = copy.deepcopy(module, memo)
    with torch.no_grad():
        resized.set_input_size(img_size=size)  # type: ignore[operator]
    before, after = dict(module.named_modules()), dict(resized.named_modules())
    if before.keys() != after.keys():
        raise ValueError("its modules would be others")
    found = []
    for name, own in before.items():
        new = after[name]
        for kind in ("_parameters", "_buffers"):
            held = getattr(own, kind)
            found += [_Swap(name, kind, key, value) for key, value in getattr(new, kind).items()
                      if value is not held.get(key)]  # fmt: skip
        plain = {key: value for key, value in new.__dict__.items() if isinstance(value, _PLAIN) or value is None}
        found += [_Swap(name, "", key, value) for key, value in plain.items()
                  if key not in own.__dict__ or own.__dict__[key] != value]  # fmt: skip
    return found


_PLAIN = (bool, int, float, str, tuple, list)


def _is_torchvision(module: nn.Module) -> bool:
    return type(module).__module__ == "torchvision.models.vision_transformer"


def _torchvision_swaps(module: Any, size: tuple[int, int]) -> list[_Swap]:
    own = module.encoder.pos_embedding.detach()  # (1, 1 + patches, channels)
    side, grid = module.image_size // module.patch_size, (size[0] // module.patch_size, size[1] // module.patch_size)
    embedding = torch.cat([own[:, :1], _resampled(own[:, 1:], (side, side), grid, align_corners=True)], dim=1)

    def as_tokens(images: Tensor) -> Tensor:  # in place of what refuses all sizes but one
        return module.conv_proj(images).flatten(2).permute(0, 2, 1)  # type: ignore[no-any-return]

    return [_Swap("encoder", "_parameters", "pos_embedding", embedding), _Swap("", "", "_process_input", as_tokens)]


def _trunk(module: Any) -> Any:
    """The network of timm's that a tower of open_clip's is made of, or else the module."""
    is_tower = type(module).__module__ == "open_clip.timm_model"
    return module.trunk if is_tower and isinstance(getattr(module, "trunk", None), nn.Module) else module


def _is_open_clip(module: Any) -> bool:
    is_of_library = type(module).__module__ == "open_clip.transformer"
    return is_of_library and isinstance(getattr(module, "positional_embedding", None), nn.Parameter)


def _open_clip_swaps(module: Any, size: tuple[int, int]) -> list[_Swap]:
    own = module.positional_embedding.detach()[None]  # (1, 1 + patches, channels)
    grid = size[0] // module.patch_size[0], size[1] // module.patch_size[1]
    resampled = _resampled(own[:, 1:], module.grid_size, grid, antialias=True)
    return [
        _Swap("", "_parameters", "positional_embedding", torch.cat([own[:, :1], resampled], dim=1)[0]),
        _Swap("", "", "grid_size", grid),
        _Swap("", "", "image_size", size),
    ]


def _resampled(patches: Tensor, before: tuple[int, int], after: tuple[int, int], **how: bool) -> Tensor:
    """The embeddings of patches row by row, (1, patches, channels), on a grid of other rows and columns."""
    found = patches.permute(0, 2, 1).reshape(1, -1, *before).float()
    found = torch.nn.functional.interpolate(found, size=after, mode="bicubic", **how)
    return found.flatten(2).permute(0, 2, 1).to(patches.dtype)


def _interpolating(module: nn.Module) -> list[nn.Module]:
    """The modules that resample position embeddings where they are told to, if there are such embeddings."""
    if getattr(getattr(module, "config", None), "use_absolute_embeddings", True) is False:  # Swin's biases are relative
        return []
    return [each for each in module.modules() if _INTERPOLATE in _parameters(each)]


def _parameters(module: nn.Module) -> list[str]:
    forward = getattr(module, "forward", None)  # a list of modules in a program has none
    try:
        return list(inspect.signature(forward).parameters) if forward else []
    except (TypeError, ValueError):
        return []


@contextmanager
def _interpolated(modules: list[nn.Module]) -> Iterator[None]:
    def tell(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        place = _parameters(module).index(_INTERPOLATE)
        if place < len(inputs):
            return (*inputs[:place], True, *inputs[place + 1 :]), options
        return inputs, options | {_INTERPOLATE: True}

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(tell, with_kwargs=True).remove)
        yield
