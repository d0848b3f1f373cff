"""Which token is which: class tokens, registers, and patches on their grid.

Transformers of images put a class token, and sometimes registers (Darcet et al. 2024, "Vision Transformers Need
Registers"), before the patches, which follow row by row (Dosovitskiy et al. 2021, section 3.1).  How many there are is
read from what libraries call them; what nothing says is guessed from the number of tokens, and said.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from phosphene.errors import InputError, printable

_MOST_PREFIX = 64  # tokens before the patches, that are guessed; DINOv2 has 5
_MOST_GIVEN = 9999

_CLASS = {"cls_token", "class_token", "class_embedding", "cls_tokens"}
_DISTILLATION = {"dist_token", "distillation_token"}
_BEHIND = {"detection_tokens"}  # tokens that come behind the patches
_REGISTERS = {"reg_token", "reg_tokens", "register_token", "register_tokens", "registers", "storage_tokens"}


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a layer: first the class tokens, then the registers, then the patches row by row.

    Attributes:
        class_tokens: how many; a distillation token is one of them.
        registers: how many.
        grid: rows and columns of patches.
    """

    class_tokens: int
    registers: int
    grid: tuple[int, int]

    @property
    def prefix(self) -> int:
        """How many tokens stand before the patches."""
        return self.class_tokens + self.registers

    @property
    def count(self) -> int:
        """How many tokens there are."""
        return self.prefix + self.grid[0] * self.grid[1]

    def describe(self) -> str:
        """In words: "1 class token, 4 registers, 16 x 16 patches"."""
        words = [
            f"{number} {word}{'s' * (number > 1)}"
            for number, word in ((self.class_tokens, "class token"), (self.registers, "register"))
            if number
        ]
        return ", ".join([*words, f"{self.grid[0]} x {self.grid[1]} patches"])


@dataclass(frozen=True)
class TokenScheme:
    """What a network's tokens are at every size.

    Attributes:
        class_tokens, registers: how many.
        patch: height and width of a patch, in pixels.
        note: what was guessed, in a sentence; empty where the network says it.
    """

    class_tokens: int
    registers: int
    patch: tuple[int, int]
    note: str = ""

    def layout(self, size: tuple[int, int], tokens: int) -> TokenLayout | None:
        """The tokens of a layer that has so many, for images of a height and width; None where they are others.

        A layer of as many tokens as there are patches has the patches alone.
        """
        grid = size[0] // self.patch[0], size[1] // self.patch[1]
        patches = grid[0] * grid[1]
        if patches and tokens == patches:
            return TokenLayout(0, 0, grid)
        if patches and tokens == patches + self.class_tokens + self.registers:
            return TokenLayout(self.class_tokens, self.registers, grid)
        return None


def parse_tokens(text: str | int) -> tuple[int, int]:
    """Class tokens and registers, of what a user says: "1+4", "1" or "0".

    Raises:
        InputError: it is something else.
    """
    match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:\+\s*([0-9]{1,4})\s*)?", str(text))
    if isinstance(text, bool) or match is None:
        raise InputError(
            f"tokens {printable(repr(text), 40)}: expected how many class tokens and registers there are, such as 1, "
            "0 or 1+4"
        )
    return int(match[1]), int(match[2] or 0)


def find_tokens(
    module: nn.Module,
    size: tuple[int, int],
    lengths: Sequence[int],
    maps: Iterable[tuple[nn.Module, tuple[int, ...]]],
    given: tuple[int, int] | None,
) -> TokenScheme | None:
    """What the tokens of a network are; None where it has none, or none on a grid of patches.

    Args:
        module: the network.
        size: height and width of its images.
        lengths: of its layers of tokens, how many each has.
        maps: modules that return maps, and the (height, width) of these.
        given: class tokens and registers, where the user says it.

    Raises:
        InputError: no layer has as many tokens as the user says.
    """
    if not lengths:
        if given is not None:
            raise InputError(f"tokens {given[0]}+{given[1]}: no layer of the network has tokens")
        return None
    patches = list(dict.fromkeys([*_named_patches(module, size), *_convolved_patches(size, maps)]))
    if given is not None:
        return _as_given(given, size, lengths, patches)
    named = _named_prefix(module)
    for patch in patches:
        scheme = TokenScheme(*named, patch)
        if any(_length(scheme, size) == length for length in lengths):
            return scheme
    if any(name.rpartition(".")[2] in _BEHIND for name, _ in module.named_parameters()):
        return None
    for patch in patches:
        count = (size[0] // patch[0]) * (size[1] // patch[1])
        more = Counter(length - count for length in lengths if 0 <= length - count <= _MOST_PREFIX and count > 1)
        prefix, times = more.most_common(1)[0] if more else (0, 0)
        if 2 * times >= len(lengths):  # else most layers have other tokens, such as those that a mask leaves
            return TokenScheme(min(prefix, 1), max(0, prefix - 1), patch, _guess(prefix, size, patch))
    return None


def _guess(prefix: int, size: tuple[int, int], patch: tuple[int, int]) -> str:
    layout = TokenLayout(min(prefix, 1), max(0, prefix - 1), (size[0] // patch[0], size[1] // patch[1]))
    return (
        f"nothing says what its tokens are: {layout.describe()}, in this order, are guessed from their number; "
        "--tokens CLASS+REGISTERS (tokens=) says it"
    )


def _length(scheme: TokenScheme, size: tuple[int, int]) -> int:
    rows, columns = size[0] // scheme.patch[0], size[1] // scheme.patch[1]
    return rows * columns + scheme.class_tokens + scheme.registers if rows * columns > 1 else 0


def _as_given(
    given: tuple[int, int], size: tuple[int, int], lengths: Sequence[int], patches: Sequence[tuple[int, int]]
) -> TokenScheme:
    for patch in patches:
        scheme = TokenScheme(*given, patch)
        if _length(scheme, size) in lengths:
            return scheme
    for length in dict.fromkeys(lengths):
        count = length - sum(given)
        side = math.isqrt(size[0] * size[1] // count) if count > 0 else 0
        if side and size[0] % side == size[1] % side == 0 and (size[0] // side) * (size[1] // side) == count:
            return TokenScheme(*given, (side, side))
    most = Counter(lengths).most_common(1)[0][0]
    raise InputError(
        f"tokens {given[0]}+{given[1]}: no layer of the network has {sum(given)} tokens and a grid of patches besides; "
        f"most have {most} tokens, of images of {size[0]}x{size[1]} pixels"
    )


def _named_prefix(module: Any) -> tuple[int, int]:
    """Class tokens and registers, by the names of parameters, and by timm's number of both together."""
    found = dict.fromkeys(("class", "distillation", "registers"), 0)
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        for kind, names in zip(found, (_CLASS, _DISTILLATION, _REGISTERS), strict=True):
            if last in names and not found[kind] and 0 < parameter.ndim <= 3 and parameter.shape[-1]:
                found[kind] = parameter.numel() // parameter.shape[-1]
    prefix, registers = getattr(module, "num_prefix_tokens", None), found["registers"]
    if isinstance(prefix, int) and prefix >= registers:
        return prefix - registers, registers
    return found["class"] + found["distillation"], registers


def _named_patches(module: Any, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of patches that a network's modules or its configuration name, if these divide its images."""
    embedding, config = getattr(module, "patch_embed", None), getattr(module, "config", None)
    vision = getattr(config, "vision_config", None)
    named: list[Any] = [getattr(each, "patch_size", None) for each in (embedding, module, vision, config)]
    grid = _pair(getattr(embedding, "grid_size", None))
    if grid is not None:  # patches of the maps of another network
        named.append((size[0] // grid[0], size[1] // grid[1]))
    return [patch for patch in map(_pair, named) if patch is not None and patch[0] <= size[0] and patch[1] <= size[1]]


def _convolved_patches(
    size: tuple[int, int], maps: Iterable[tuple[nn.Module, tuple[int, ...]]]
) -> list[tuple[int, int]]:
    """The sizes of the patches that a convolution embeds one beside the other."""
    found = []
    for module, positions in maps:
        if not isinstance(module, nn.Conv2d) or module.kernel_size != module.stride or max(module.stride) < 2:
            continue
        patch = _pair(module.kernel_size)
        if patch is not None and positions == (size[0] // patch[0], size[1] // patch[1]):
            found.append(patch)
    return found


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = value, value
    if (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 for side in value)
    ):
        return value[0], value[1]
    return None
