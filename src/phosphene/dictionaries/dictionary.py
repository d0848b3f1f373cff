"""A dictionary: the encoder and decoder of a sparse autoencoder, whoever trained it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from phosphene.dictionaries.encoder import EncoderRow, normalize
from phosphene.files import atomic_write, plain_name

PLAIN = "dictionary"  # what the metadata of a file that `Dictionary.save` wrote says that it is
_NUMBERS_AT_ONCE = 1 << 24  # pre-activations in memory


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder of a layer's activations, one vector at a time: a position of a map, or a token.

    The pre-activations of a vector are `encoder @ normalize(vector) + bias`; what becomes of them depends on the kind:
    "relu" keeps what is positive, "jumprelu" what is above a latent's threshold, "topk" the k highest of all.

    Attributes:
        encoder: (latents, width).
        bias: (latents,); where the decoder's bias is subtracted from the input first, what that makes of it is in here.
        decoder: (latents, width): what each latent adds to the activations.
        decoder_bias: (width,).
        kind: "relu", "jumprelu" or "topk".
        threshold: (latents,), of a "jumprelu".
        k: of a "topk".
        rectified: of a "topk", whether those of the k that are negative are 0.
        normalization: what is done to a vector first; see `encoder.normalize`.
        layer: that it was trained on, as its file calls it; empty where the file does not tell.
        tokens: which: "cls", "patches", or "" for what the file does not tell.
        format: of the file.
        path: of the file, or folder; None for one that was made here.
        notes: what was assumed, in sentences.
        given: what a user said of it, where its file does not.
        title: what it is called, where it has no file.
    """

    encoder: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    decoder: Tensor = field(repr=False)
    decoder_bias: Tensor = field(repr=False)
    kind: str = "relu"
    threshold: Tensor | None = field(default=None, repr=False)
    k: int = 0
    rectified: bool = True
    normalization: str = "none"
    layer: str = ""
    tokens: str = ""
    format: str = ""
    path: Path | None = None
    notes: tuple[str, ...] = ()
    given: tuple[tuple[str, Any], ...] = ()
    title: str = ""

    @property
    def latents(self) -> int:
        """How many there are."""
        return self.encoder.shape[0]

    @property
    def width(self) -> int:
        """How many channels the layer has."""
        return self.encoder.shape[1]

    @property
    def name(self) -> str:
        """The file's or folder's."""
        return self.path.name if self.path is not None else self.title or "dictionary"

    @property
    def spelling(self) -> str:
        """The name and the digest, by which an image's file knows it."""
        return f"{plain_name(self.name)}={self.digest}"

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over its numbers, and how they are used."""
        used = [self.kind, self.k, self.rectified, self.normalization]
        found = hashlib.sha256(json.dumps(used).encode())
        for name, tensor in sorted(self._tensors().items()):
            found.update(f"{name} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.numpy().tobytes())
        return found.hexdigest()[:16]

    def pre_activations(self, inputs: Tensor) -> Tensor:
        """Of vectors (n, width): (n, latents)."""
        encoder, bias = self.encoder.to(inputs), self.bias.to(inputs)
        return torch.addmm(bias, normalize(inputs, self.normalization), encoder.T)

    def encode(self, inputs: Tensor) -> Tensor:
        """The latents of vectors (n, width): (n, latents)."""
        found = self.pre_activations(inputs)
        if self.kind == "topk":
            best = found.topk(self.k, dim=-1)
            values = best.values.clamp_min(0) if self.rectified else best.values
            return torch.zeros_like(found).scatter(-1, best.indices, values)
        threshold = torch.zeros(1) if self.threshold is None else self.threshold.clamp_min(0)
        return torch.where(found > threshold.to(found), found, 0.0)

    def decode(self, latents: Tensor) -> Tensor:
        """Activations, as the encoder is fed them, of latents (n, latents): (n, width)."""
        return latents @ self.decoder.to(latents) + self.decoder_bias.to(latents)

    def row(self, index: int) -> EncoderRow:
        """What one latent's pre-activation is computed from."""
        threshold = 0.0 if self.threshold is None else self.threshold[index].item()
        weights = tuple(self.encoder[index].tolist())
        return EncoderRow(weights, self.bias[index].item(), self.normalization, self.kind, threshold, self.k)

    def chunks(self, inputs: Tensor) -> Iterator[Tensor]:
        """The latents of vectors (n, width), some vectors at a time: (some, latents)."""
        for part in torch.split(inputs, max(1, _NUMBERS_AT_ONCE // self.latents)):
            yield self.encode(part)

    def latent(self, activations: Tensor, index: int) -> Tensor:
        """One latent at each position: (rows, channels, *positions) to (rows, positions).

        Where all latents decide which are on, those of the activations that were asked for last are kept, so that
        asking for one after another costs no more.
        """
        inputs = activations.flatten(2).movedim(1, -1) if activations.ndim > 2 else activations[:, None]
        rows, positions, _ = inputs.shape
        if self.kind != "topk":
            row = self.row(index)
            found = row.pre_activation(inputs.float())
            return torch.where(found > max(0.0, row.threshold), found, 0.0)
        values, indices = self._highest(activations, inputs.reshape(-1, inputs.shape[-1]).float())
        return torch.where(indices == index, values, 0.0).sum(-1).view(rows, positions)

    def _highest(self, activations: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of each vector the latents that are on, and which they are: twice (n, k)."""
        kept = self._last.get("last")
        if kept is not None and _same(kept[0], activations) and kept[1] == activations._version:
            found: tuple[Tensor, Tensor] = kept[2]
            return found
        parts = []
        for part in torch.split(inputs, max(1, _NUMBERS_AT_ONCE // self.latents)):
            parts.append(self.pre_activations(part).topk(self.k, dim=-1))
        values = torch.cat([part.values for part in parts])
        found = values.clamp_min(0) if self.rectified else values, torch.cat([part.indices for part in parts])
        self._last["last"] = activations, activations._version, found  # which is kept, so that its memory is its own
        return found

    @cached_property
    def _last(self) -> dict[str, Any]:
        return {}

    def save(self, path: str | Path) -> Path:
        """Write to a plain safetensors file, from which it is read as it is here.

        Raises:
            InputError: it cannot be written.
        """
        data = self.to_bytes()
        return atomic_write(Path(path), lambda aside: aside.write_bytes(data))

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        told = {
            "phosphene": PLAIN, "activation": self.kind, "k": str(self.k), "rectified": json.dumps(self.rectified),
            "normalize_activations": self.normalization, "apply_b_dec_to_input": "false", "layer": self.layer,
            "tokens": self.tokens, "title": self.name,
        }  # fmt: skip
        names = {"encoder": "W_enc", "bias": "b_enc", "decoder": "W_dec", "decoder_bias": "b_dec"}
        tensors = {names.get(name, name): tensor for name, tensor in self._tensors().items()}
        tensors["W_enc"] = tensors["W_enc"].T.contiguous()
        data: bytes = save(tensors, told)
        return data

    def _tensors(self) -> dict[str, Tensor]:
        names = ("encoder", "bias", "decoder", "decoder_bias", "threshold")
        found = {name: getattr(self, name) for name in names}
        return {name: tensor.float().contiguous() for name, tensor in found.items() if tensor is not None}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_last"}


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory."""
    return (first.data_ptr(), first.shape, first.stride(), first.dtype) == (
        second.data_ptr(), second.shape, second.stride(), second.dtype,
    )  # fmt: skip
