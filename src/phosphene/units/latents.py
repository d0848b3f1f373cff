"""Latents of dictionaries as units: the pre-activation is climbed, and the latent is what is told of photographs.

A latent that is off has no gradient, so what is maximized is the number that its activation (ReLU, JumpReLU, TopK) is
applied to, averaged over the positions that it is read from.  What an image is reported to excite is the latent itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene.dictionaries.dictionary import Dictionary
from phosphene.dictionaries.encoder import EncoderRow
from phosphene.dictionaries.hooks import hook_layer
from phosphene.dictionaries.reading import open_dictionary, opened_dictionary
from phosphene.errors import InputError, printable
from phosphene.networks.network import Network
from phosphene.units.objects import Part
from phosphene.units.tokens import PATCHES, TokenSelection
from phosphene.units.vectors import NOT_HELD, decode_vector, encode_vector

_SPELLED = re.compile(
    r"(?:(?P<layer>.+):)?sae:(?P<file>.+?)(?:=(?P<digest>[0-9a-f]{16}))?:(?P<index>[0-9]{1,9})(?:@(?P<tokens>.+))?"
)


@dataclass(frozen=True, eq=False)
class StoredLatent:
    """One latent of a dictionary that is not at hand, such as an image's file holds it.

    Attributes:
        spelling: the dictionary's name and digest.
        stored: its encoder's row.
        source: the dictionary's file and what was said of it, where another process may open it.
    """

    spelling: str
    stored: EncoderRow
    source: tuple[Path, tuple[tuple[str, Any], ...]] | None = None
    layer: str = ""
    tokens: str = ""

    def row(self, index: int) -> EncoderRow:
        return self.stored

    def latent(self, activations: Tensor, index: int) -> Tensor:
        """As `Dictionary.latent`; of a "topk", which all latents decide, by the dictionary, opened again.

        Raises:
            InputError: it is not there.
        """
        if self.stored.kind == "topk":
            return self._opened().latent(activations, index)
        inputs = activations.flatten(2).movedim(1, -1) if activations.ndim > 2 else activations[:, None]
        found = self.stored.pre_activation(inputs.float())
        return torch.where(found > max(0.0, self.stored.threshold), found, 0.0)

    def _opened(self) -> Dictionary:
        digest = self.spelling.rpartition("=")[2]
        if (found := opened_dictionary(digest)) is not None:
            return found
        if self.source is not None:
            found = open_dictionary(self.source[0], **dict(self.source[1]))
            if found.digest == digest:
                return found
        raise InputError(
            f"latents of {self.spelling} are on if they are among the {self.stored.k} highest, for which the "
            "dictionary is needed: expected it (--dictionary FILE, or phosphene.open_dictionary before)"
        )


@dataclass(frozen=True)
class Latent(Part):
    """A latent of a dictionary, averaged over the positions of its layer.

    Attributes:
        dictionary: an opened one (`phosphene.open_dictionary`).
        index: of the latent.
        layer: of the network; by default the one that the dictionary names.
        tokens: of a layer of tokens, those that it is read from, as a `TokenSelection` or its spelling; by default
            those that the dictionary names, or else the patches.
        name: the dictionary's name and digest.
        row: its encoder's row.
    """

    dictionary: Dictionary | StoredLatent = field(compare=False, repr=False)
    index: int
    layer: str = ""
    tokens: TokenSelection | None = None
    name: str = field(init=False)
    row: EncoderRow = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = getattr(self.dictionary, "latents", None)
        if count is not None and not 0 <= self.index < count:
            raise InputError(
                f"latent {self.index} of {self.dictionary.spelling}: it has {count} latents, 0 to {count - 1}"
            )
        given: object = self.tokens
        if isinstance(given, str):
            object.__setattr__(self, "tokens", TokenSelection.parse(given))
        object.__setattr__(self, "name", self.dictionary.spelling)
        object.__setattr__(self, "row", self.dictionary.row(self.index))

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        inputs = activation.flatten(1).T if activation.ndim > 1 else activation[None]
        return self.row.pre_activation(inputs).mean()

    def responses(self, activations: Tensor) -> Tensor:
        return self.dictionary.latent(activations, self.index).mean(1)

    def stored_vectors(self) -> dict[str, dict[str, Any]]:
        return {f"sae:{self.name}:{self.index}": {"values": encode_vector(self.row.weights), **self.row.plain()}}

    @property
    def is_known(self) -> bool:
        """Whether `responses` can tell how active it is: of a "topk", all latents decide."""
        known = self.dictionary
        if self.row.kind != "topk" or isinstance(known, Dictionary) or known.source is not None:
            return True
        return opened_dictionary(self.name.rpartition("=")[2]) is not None

    def on_tokens(self, recorded: bool) -> Part:
        if self.tokens is not None:
            return self
        named = self.dictionary.tokens
        return replace(self, tokens=TokenSelection.parse(named) if named else PATCHES)

    def in_network(self, network: Network) -> Latent:
        """The same, of a layer of a network, by what its dictionary calls it.

        Raises:
            InputError: the dictionary names none, or one that the network has not.
        """
        called = self.layer or self.dictionary.layer
        if not called:
            raise InputError(
                f"dictionary {self.name} names no layer: expected --layer LAYER, or LAYER:sae:FILE:{self.index}"
            )
        layer = hook_layer(called, network, f"dictionary {self.name}")
        return self if layer == self.layer else replace(self, layer=layer)

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        if len(self.row.weights) != channels:
            raise InputError(
                f"dictionary {self.name} is of a layer of {len(self.row.weights)} channels, and {self.layer} has "
                f"{channels}: expected the layer that it was trained on"
            )

    def __getstate__(self) -> dict[str, Any]:
        """As another process gets it: without the dictionary, which it opens again where it needs it."""
        known = self.dictionary
        if isinstance(known, Dictionary):
            source = None if known.path is None else (known.path, known.given)
            known = StoredLatent(known.spelling, self.row, source, known.layer, known.tokens)
        return {**self.__dict__, "dictionary": known}

    def __str__(self) -> str:
        return f"{self.layer}{':' * bool(self.layer)}sae:{self.name}:{self.index}{self.tokens or ''}"


def parse_latent(text: str, network: Network, held: Mapping[str, Mapping[str, Any]] | None) -> Latent | None:
    """`[LAYER:]sae:FILE:INDEX[@TOKENS]`; None for what is spelled otherwise.

    Args:
        held: by name, what an image's file holds of latents, of which no other file is opened then; None: files are.

    Raises:
        InputError: there is no such dictionary or latent, or no layer is known of it.
    """
    match = _SPELLED.fullmatch(text)
    if match is None:
        return None
    index, digest = int(match["index"]), match["digest"]
    tokens = None if match["tokens"] is None else TokenSelection.parse(match["tokens"])
    dictionary: Dictionary | StoredLatent
    if held is not None:
        dictionary = _held_latent(match["file"], digest, index, held)
    else:
        dictionary = open_dictionary(match["file"])
        if digest and dictionary.digest != digest:
            raise InputError(
                f"dictionary {printable(match['file'])!r} is another than when it was named (digest "
                f"{dictionary.digest}, and not {digest}): expected the same file, or the name without ={digest}"
            )
    return Latent(dictionary, index, match["layer"] or "", tokens).in_network(network)


def _held_latent(file: str, digest: str | None, index: int, held: Mapping[str, Mapping[str, Any]]) -> StoredLatent:
    """A latent as an image's file holds it."""
    name = f"{file}={digest}" if digest else file
    key = f"sae:{name}:{index}"
    if key not in held:
        raise InputError(f"the latent {printable(key)!r} {NOT_HELD}")
    told = dict(held[key])
    origin = f"the latent {printable(key)!r}"
    return StoredLatent(name, EncoderRow.of(decode_vector(told.pop("values"), origin), told, origin))
