"""Of a layer of tokens, those that a unit is read from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from phosphene.errors import InputError, did_you_mean, printable
from phosphene.networks.tokens import TokenLayout

Group = Literal["cls", "registers", "patches", "tokens"]
_GROUPS = ("cls", "registers", "patches", "tokens")
SPELLINGS = "@cls, @registers, @patches, @tokens, @ROW,COLUMN of a patch, or @NUMBER of a token"


@dataclass(frozen=True)
class TokenSelection:
    """Tokens of a layer, of whatever size the image is.

    It is spelled `@cls` (the class tokens), `@registers`, `@patches`, `@tokens` (all of them), `@7,7` (one patch by
    row and column) or `@12` (one token by its place).

    Attributes:
        which: the group, or (row, column) of a patch, or (place,) of a token; counted from 0.
    """

    which: Group | tuple[int, ...]

    def __post_init__(self) -> None:
        if isinstance(self.which, str) and self.which not in _GROUPS:
            raise InputError(f"tokens @{printable(self.which, 40)}: expected {SPELLINGS}{_near(self.which)}")
        if not isinstance(self.which, str) and len(self.which) not in (1, 2):
            raise InputError(f"tokens {self}: expected {SPELLINGS}")

    @classmethod
    def parse(cls, text: str) -> TokenSelection:
        """From its spelling, with or without the `@`.

        Raises:
            InputError: it is none (with the nearest).
        """
        plain = text.strip().removeprefix("@").strip()
        if re.fullmatch(r"[0-9]{1,18}(\s*,\s*[0-9]{1,18})*", plain):
            return cls(tuple(int(each) for each in plain.split(",")))
        return cls(plain)  # type: ignore[arg-type]

    @property
    def is_position(self) -> bool:
        """Whether it is one token by its place, which is of one size of images."""
        return not isinstance(self.which, str)

    def check(self, tokens: int, layout: TokenLayout | None, what: str) -> None:
        """Raise an `InputError` if a layer of so many tokens, laid out so, has none of these.

        Args:
            what: the unit, for messages.
        """
        if self.which == "tokens":
            return
        if isinstance(self.which, tuple) and len(self.which) == 1:
            if not 0 <= self.which[0] < tokens:
                raise InputError(f"{what}: there are {tokens} tokens, 0 to {tokens - 1}")
            return
        if layout is None:
            raise InputError(
                f"{what}: nothing says which of its {tokens} tokens are patches: expected @NUMBER of a token or "
                "@tokens, or --tokens CLASS+REGISTERS (tokens=)"
            )
        if isinstance(self.which, tuple):
            rows, columns = layout.grid
            if not (0 <= self.which[0] < rows and 0 <= self.which[1] < columns):
                near = min(self.which[0], rows - 1), min(self.which[1], columns - 1)
                raise InputError(
                    f"{what}: the grid has {rows} x {columns} patches, rows and columns from 0: the nearest is "
                    f"@{near[0]},{near[1]}"
                )
        elif not self._range(layout):
            raise InputError(f"{what}: there are none among its tokens ({layout.describe()})")

    def of(self, activation: Tensor, layout: TokenLayout | None) -> Tensor:
        """Those tokens of a layer's output: (channels, tokens) to (channels, selected tokens).

        Axes before the last are kept as they are, so that a map of one channel, (tokens,), does as well.

        Raises:
            InputError: there are none such.
        """
        if self.which == "tokens":
            return activation
        count = activation.shape[-1]
        self.check(count, layout, str(self))
        chosen = self._range(layout)
        return activation[..., chosen.start : chosen.stop]

    def _range(self, layout: TokenLayout | None) -> range:
        """The places of the tokens, one behind the other."""
        if isinstance(self.which, tuple) and len(self.which) == 1:
            return range(self.which[0], self.which[0] + 1)
        assert layout is not None
        if isinstance(self.which, tuple):
            place = layout.prefix + self.which[0] * layout.grid[1] + self.which[1]
            return range(place, place + 1)
        if self.which == "cls":
            return range(layout.class_tokens)
        return (
            range(layout.class_tokens, layout.prefix)
            if self.which == "registers"
            else range(layout.prefix, layout.count)
        )

    def __str__(self) -> str:
        return f"@{self.which if isinstance(self.which, str) else ','.join(map(str, self.which))}"


def _near(text: str) -> str:
    return did_you_mean(text, _GROUPS)


PATCHES = TokenSelection("patches")
ALL_TOKENS = TokenSelection("tokens")
