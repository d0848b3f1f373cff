"""Units: what is maximized.

A unit is read from one layer's output and gives one number per image.  Spelled:

    class:flamingo             the logit of a class: an index, a WordNet id or a name
    features.29:12             channel 12 of layer features.29, summed over its map
    mean(features.29:12)       the same, averaged over its map
    features.29:12@7,7         one neuron of the channel: row 7, column 7 of its map (one number for token layers)
    features.29                the whole layer: the mean of the squares (DeepDream)
    features.29:[0.5,0,-1]     a direction: one weight a channel, summed over the map; also in mean(…)
    features.29:[FILE.npy#12]  a direction from a file: row 12 of its matrix (see `units.vectors`)
    cos(features.29:[…])       the cosine with a direction, averaged over the map
    cos^2*dot(features.29:[…]) the dot product times the cosine to a power, averaged over the map
    direction:FILE             a direction of a file that names its layer, as `phosphene direction` writes it
    features.29:sae:FILE:123   latent 123 of a dictionary (see `dictionaries`), averaged over the map; sae:FILE:123 at
                               the layer that the file names

Of a layer of tokens, whose layout is known (see `networks.tokens`), they are the mean over the patches, as Ghiasi et
al. 2022 show units ("What do Vision Transformers Learn?", section 3), or are read from other tokens:

    blocks.6.mlp.act:20        channel 20, averaged over the patches; the same as blocks.6.mlp.act:20@patches
    blocks.6.mlp.act:20@cls    of the class token; @registers, @tokens (all of them) and @12 (one by its place) likewise
    blocks.6.mlp.act:20@7,7    of one patch: row 7, column 7 of the grid
    sum(blocks.6:20@patches)   summed instead of averaged
    blocks.6.attn:head3        an attention head's own output, before the projection that mixes the heads: a layer whose
                               channels are the head's, shown as a whole (mean of squares over the patches)
    blocks.6.attn:head3:12     channel 12 of the head
    blocks.6@cls               a whole layer, or a direction (blocks.6:[0.5,0,-1]@cls), at some of its tokens

And of every network:

    match(features.29)         what a layer makes of a photograph, matched: feature inversion
    caricature(features.29)    the same, exaggerated
    text:a red fox             how near the image's embedding is to a text's, in a network of images and texts; in
                               quotes, as JSON has them, where it has more than words, and with its templates behind
                               an @, where they are others: text:"a fox + a dog"@["a drawing of {}"]
    class:130 - 0.5*class:134  sums, differences and multiples, with spaces around + and -
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.files import plain_name
from phosphene.networks.labels import Label
from phosphene.networks.layers import LOGITS, OUTPUT
from phosphene.networks.network import Network
from phosphene.networks.text import TEMPLATES, check_text
from phosphene.networks.tokens import TokenLayout
from phosphene.units.tokens import ALL_TOKENS, PATCHES, TokenSelection
from phosphene.units.vectors import encode_vector, vector_digest


def is_one_channel(unit: Unit) -> bool:
    terms = unit.terms()
    return len(terms) == 1 and isinstance(terms[0][1], OneChannel)


Reduce = Literal["sum", "mean"]


class Unit(ABC):
    """A thing to maximize.  Units can be added, subtracted and scaled: `Class(130) - 0.5 * Class(134)`."""

    @abstractmethod
    def terms(self) -> tuple[tuple[float, Part], ...]:
        """The unit as a weighted sum of parts, each read from one layer."""

    def with_photograph(self, photograph: Any) -> Unit:
        """The unit, referring to a photograph: a path, a PIL image or an array.

        Raises:
            InputError: it refers to none.
        """
        parts = tuple(
            (weight, replace(part, photograph=photograph) if isinstance(part, PhotographPart) else part)
            for weight, part in self.terms()
        )
        if not any(isinstance(part, PhotographPart) for _, part in parts):
            raise InputError(
                f"a photograph is given, and {self} does not refer to one: expected match(…) or caricature(…)"
            )
        return Sum(parts) if isinstance(self, Sum) else parts[0][1]

    def __add__(self, other: Unit) -> Sum:
        return Sum(self.terms() + other.terms())

    def __sub__(self, other: Unit) -> Sum:
        return self + (-other)

    def __mul__(self, factor: float) -> Sum:
        return Sum(tuple((float(factor) * weight, part) for weight, part in self.terms()))

    __rmul__ = __mul__

    def __neg__(self) -> Sum:
        return self * -1.0


class Part(Unit):
    """A unit that is read from one layer.

    Attributes:
        layer: its name.
        tokens: those that it is read from, of a layer of tokens; None: whatever positions there are.
    """

    layer: str
    tokens: TokenSelection | None = None
    needs_reference: ClassVar[bool] = False  # whether it needs what the layer makes of a photograph

    def terms(self) -> tuple[tuple[float, Part], ...]:
        return ((1.0, self),)

    @abstractmethod
    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        """The number to maximize, from the layer's output for one image: (channels, *positions) to ().

        Of a unit of some `tokens` it is given these alone: what `select` returns.  `reference` is the layer's output
        for a photograph, where the unit is `needs_reference`.
        """

    def responses(self, activations: Tensor) -> Tensor:
        """How active the unit is on images: (rows, channels, *positions) to (rows,); its score, unless it says more."""
        return torch.stack([self.score(activation) for activation in activations])

    def stored_vectors(self) -> dict[str, dict[str, Any]]:
        """The numbers that the unit's spelling only names, by that name, as plain data for an image's own file."""
        return {}

    def select(self, activation: Tensor, layout: TokenLayout | None) -> Tensor:
        """Of a layer's output (…, *positions) the positions that the unit is read from: its `tokens`, or all.

        Args:
            layout: of the layer's tokens, at the size of the image (`Network.layer(name).tokens`).
        """
        return activation if self.tokens is None else self.tokens.of(activation, layout)

    def on_tokens(self, recorded: bool) -> Part:
        """The same on a layer whose tokens are known: of the patches, where it does not say of which.

        Args:
            recorded: whether it was spelled into a file without tokens, as versions before 0.2 do, which read all.
        """
        return self

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        """Raise an `InputError` if a layer with so many channels, and maps of that shape, has no such unit."""


class OneChannel(Part):
    """A part that is read from one channel of its layer."""

    @property
    @abstractmethod
    def only(self) -> int:
        """The channel."""

    @abstractmethod
    def of_map(self, map_: Tensor) -> Tensor:
        """The number to maximize, from the channel's map: (*positions) to ()."""

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        return self.of_map(activation[self.only])


@dataclass(frozen=True)
class Class(OneChannel):
    """The logit of a class."""

    index: int
    layer = LOGITS

    @property
    def only(self) -> int:
        return self.index

    def of_map(self, map_: Tensor) -> Tensor:
        return map_

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        if not 0 <= self.index < channels:
            raise InputError(f"class {self.index}: the network has {channels} classes, 0 to {channels - 1}")

    def __str__(self) -> str:
        return f"class:{self.index}"


@dataclass(frozen=True)
class Channel(OneChannel):
    """A channel of a layer, its map summed or averaged.

    Attributes:
        reduce: "sum" or "mean"; by default the sum over a map, and the mean over `tokens`.
        tokens: of a layer of tokens, those that it is read from; by default the patches, where these are known.
        reduction: which of both it is; units that give the same number are equal.
    """

    layer: str
    channel: int
    reduce: Reduce | None = field(default=None, compare=False)
    tokens: TokenSelection | None = None
    reduction: Reduce = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reduction", _reduction(self.reduce, self.tokens))

    @property
    def only(self) -> int:
        return self.channel

    def of_map(self, map_: Tensor) -> Tensor:
        return _reduce(map_, self.reduction)

    def on_tokens(self, recorded: bool) -> Part:
        return _on_tokens(self, recorded)

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        _check_channel(self.layer, self.channel, channels)

    def __str__(self) -> str:
        return _spell(f"{self.layer}:{self.channel}", self.reduction, self.tokens)


@dataclass(frozen=True)
class Neuron(OneChannel):
    """One neuron of a channel, at a position of its map: (row, column), or (token,)."""

    layer: str
    channel: int
    position: tuple[int, ...]

    @property
    def only(self) -> int:
        return self.channel

    def of_map(self, map_: Tensor) -> Tensor:
        return map_[self.position]

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        _check_channel(self.layer, self.channel, channels)
        shape = "x".join(map(str, positions)) or "no positions"
        if len(self.position) != len(positions):
            raise InputError(f"{self}: the maps of {self.layer} have {len(positions)} axes ({shape})")
        if not all(0 <= at < length for at, length in zip(self.position, positions, strict=True)):
            raise InputError(f"{self}: outside of the map of {self.layer}, which is {shape} (rows and columns from 0)")

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}@{','.join(map(str, self.position))}"


@dataclass(frozen=True)
class WholeLayer(Part):
    """All of a layer: the mean of the squares of its output (DeepDream; Mordvintsev et al. 2015).

    Attributes:
        tokens: of a layer of tokens, those that it is read from; by default the patches, where these are known.
    """

    layer: str
    tokens: TokenSelection | None = None

    def on_tokens(self, recorded: bool) -> Part:
        return self if self.tokens is not None else replace(self, tokens=ALL_TOKENS if recorded else PATCHES)

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        return activation.square().mean()

    def __str__(self) -> str:
        return f"{self.layer}{self.tokens or ''}"


Measure = Literal["dot", "cos"]


@dataclass(frozen=True)
class Direction(Part):
    """A direction in a layer: the channels, each times its weight, summed or averaged over the map.

    Attributes:
        weights: one for each channel: a tensor, an array or a sequence of numbers.
        reduce, tokens, reduction: as of a `Channel`; where a cosine is part of it, it is always the mean.
        measure: "dot" for the dot product at each position, "cos" for the cosine.
        power: of the cosine that a dot product is multiplied by, which keeps the direction where a long activation
            would do: dot * max(0.1, cos)^power, averaged over positions (Lucid; Carter et al. 2019).
        name: by which it is spelled; without one, by its numbers.  An image's file then holds the numbers beside it.

    Raises:
        InputError: a weight is not finite, all are 0, or the measure cannot be.
    """

    layer: str
    weights: tuple[float, ...]
    reduce: Reduce | None = field(default=None, compare=False)
    tokens: TokenSelection | None = None
    measure: Measure = "dot"
    power: float = 0.0
    name: str = field(default="", compare=False)
    reduction: Reduce = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))
        self._check_weights()
        if self.measure not in ("dot", "cos") or not 0 <= self.power <= 100 or (self.measure == "cos" and self.power):
            raise InputError(
                f"a direction in {self.layer} by {self.measure!r} with a power of {self.power!r}: expected dot, with a "
                "power of 0 to 100, or cos, without"
            )
        if self.measure == "cos" or self.power:
            object.__setattr__(self, "reduce", "mean")
        object.__setattr__(self, "reduction", _reduction(self.reduce, self.tokens))
        if self.name:
            object.__setattr__(self, "name", plain_name(self.name))
            as_stored = np.asarray(self.weights, np.float32)
            object.__setattr__(self, "weights", tuple(as_stored.tolist()))

    def _check_weights(self) -> None:
        for index, weight in enumerate(self.weights):
            if not abs(weight) <= LARGEST_FACTOR:
                raise InputError(
                    f"a direction in {self.layer} whose weight {index} is {weight!r}: expected numbers that are "
                    f"{FINITE_FACTOR}"
                )
        if self.weights and max(map(abs, self.weights)) < 1 / LARGEST_FACTOR:
            raise InputError(f"a direction of zeros in {self.layer}: expected at least one weight other than 0")

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        weights = torch.tensor(self.weights, device=activation.device, dtype=activation.dtype)
        dot = torch.tensordot(weights, activation, 1)
        if self.measure == "dot" and not self.power:
            return _reduce(dot, self.reduction)
        cosine: Tensor = dot / (weights.norm() * (activation.norm(dim=0) + _SHORTEST))
        if self.measure == "dot":
            cosine = dot * cosine.clamp_min(0.1) ** self.power
        return cosine.mean()

    def stored_vectors(self) -> dict[str, dict[str, Any]]:
        return {self.key: {"values": encode_vector(self.weights)}} if self.name else {}

    @property
    def key(self) -> str:
        """The name and a digest of the numbers."""
        return f"{self.name}={vector_digest(np.asarray(self.weights, np.float32))}"

    def on_tokens(self, recorded: bool) -> Part:
        return _on_tokens(self, recorded)

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        if len(self.weights) != channels:
            of = f" ({self.name})" if self.name else ""
            raise InputError(f"a direction of {len(self.weights)} weights{of}: {self.layer} has {channels} channels")

    def __str__(self) -> str:
        weights = f"[{self.key}]" if self.name else json.dumps(self.weights, separators=(",", ":"))
        if self.measure == "cos":
            return f"cos({self.layer}:{weights}{self.tokens or ''})"
        if self.power:
            return f"cos^{self.power:.15g}*dot({self.layer}:{weights}{self.tokens or ''})"
        return _spell(f"{self.layer}:{weights}", self.reduction, self.tokens)


_SHORTEST = 1e-4  # is added to an activation's length, as in Lucid, so that a silent position has no direction


@dataclass(frozen=True)
class PhotographPart(Part):
    """A unit that refers to a photograph.

    Attributes:
        photograph: a path, a PIL image or an array, as `ascend` takes a start image.
    """

    layer: str
    photograph: Any = field(default=None, compare=False, repr=False)
    needs_reference = True


@dataclass(frozen=True)
class Match(PhotographPart):
    """What a layer makes of a photograph: minus the squared distance, over the photograph's own square.

    Feature inversion (Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them", eq. 2).
    """

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        assert reference is not None
        return -(activation - reference).square().sum() / reference.square().sum().clamp_min(1e-12)

    def __str__(self) -> str:
        return f"match({self.layer})"


@dataclass(frozen=True)
class Caricature(PhotographPart):
    """What a layer makes of a photograph, exaggerated: at each position the dot product of the channels' vectors,
    times their cosine to a power so that the direction is kept; the mean over positions.

    Caricatures of the "Activation Atlas" and "Feature Visualization" authors' (Olah et al. 2018, Lucid).
    """

    power: ClassVar[float] = 1.0

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        assert reference is not None
        dot = (activation * reference).sum(dim=0)
        lengths = activation.norm(dim=0) * reference.norm(dim=0)
        cosine = (dot / lengths.clamp_min(1e-12)).clamp_min(0.1)  # so that what is opposite is still drawn along
        scale = reference.square().sum(dim=0).mean().clamp_min(1e-12)
        exaggerated: Tensor = (dot * cosine**self.power).mean() / scale
        return exaggerated

    def __str__(self) -> str:
        return f"caricature({self.layer})"


@dataclass(frozen=True)
class Text(Part):
    """A text: the cosine between a network's embedding of the image and its text tower's of the text.

    The network is one of images and texts (CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023).  What scales the
    cosine in training, and what is added, does not change which image is the best, and is left out.

    Attributes:
        text: the words; those of a file are data like any others.
        templates: prompts with a `{}` for the text, over whose embeddings the mean is taken (see `networks.text`).
        vector: the text's, of length 1, once it is encoded for a network.

    Raises:
        InputError: the text is empty or too long, or a template has no place for it.

    Example:
        >>> str(Text("a red fox"))
        'text:a red fox'
    """

    text: str
    templates: tuple[str, ...] = TEMPLATES
    vector: tuple[float, ...] = field(default=(), compare=False, repr=False)
    layer = OUTPUT

    def __post_init__(self) -> None:
        text, templates = check_text(self.text, self.templates)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "templates", templates)

    def encoded(self, network: Network) -> Text:
        """The same text with its vector in that network.

        Raises:
            InputError: the network has no text tower, or one that the text is too long for.
        """
        if network.texts is None:
            raise InputError(
                f"{self}: {network.name} has no text tower: expected a network of images and texts, such as "
                "clip:openai/clip-vit-base-patch32"
            )
        return replace(self, vector=network.texts.vector(self.text, self.templates))

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        vector = torch.tensor(self.vector, device=activation.device, dtype=activation.dtype)
        cosine: Tensor = torch.dot(activation, vector) / activation.norm().clamp_min(1e-12)
        return cosine

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        if positions or len(self.vector) != channels:
            raise InputError(f"{self}: the text tower gives {len(self.vector)} numbers, and the image tower {channels}")

    def __str__(self) -> str:
        plain = _PLAIN_TEXT.fullmatch(self.text) and self.templates == TEMPLATES and " - " not in self.text
        if plain:
            return f"text:{self.text}"
        templates = "" if self.templates == TEMPLATES else f"@{json.dumps(self.templates)}"
        return f"text:{json.dumps(self.text)}{templates}"


_MOST_TEXTS = 64  # in one unit, which may be a file's
# What is spelled without quotes: words of letters and digits, with a space between them, and some marks within.
_PLAIN_TEXT = re.compile(r"[^\W_](?:[\w,.'!?-]| (?! ))*(?<! )")


@dataclass(frozen=True)
class Activation(Part):
    """All of a layer's output, for an `Objective`."""

    layer: str

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        return activation

    def __str__(self) -> str:
        return self.layer


@dataclass(frozen=True)
class Objective(Unit):
    """Any function of activations, maximized like a unit.  No file can hold it, so `again` cannot repeat its images.

    Attributes:
        function: is given the layers' outputs for one image, by name, each (1, channels, *positions) in 32 bits, and
            returns one number, of shape () or (1,).  "logits" and "output" are layers too.
        layers: those that it reads.
        name: what it is called in file names and messages.

    Example:
        >>> Objective(lambda a: a["layer4"][:, 3].mean((1, 2)), layers=["layer4"], name="mine")
    """

    function: Callable[[dict[str, Tensor]], Tensor]
    layers: Sequence[str]
    name: str = "function"

    def __post_init__(self) -> None:
        layers = (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)
        object.__setattr__(self, "layers", tuple(dict.fromkeys(layers)))
        if not self.layers:
            raise InputError(
                f"objective {self.name!r} reads no layer: expected at least one, such as layers=['logits']"
            )
        if not re.fullmatch(r"[\w.+-]{1,100}", self.name):
            raise InputError(f"objective {self.name!r}: expected a name of letters, digits and . _ + -")

    def terms(self) -> tuple[tuple[float, Part], ...]:
        return tuple((1.0, Activation(layer)) for layer in self.layers)

    def value(self, activations: Mapping[str, Tensor]) -> Tensor:
        """The number to maximize, (), of one image's activations, each (channels, *positions)."""
        value = self.function({layer: activation[None] for layer, activation in activations.items()})
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"objective {self.name!r} returns {given}: expected a tensor of one number")
        return value.float().reshape(())

    def __str__(self) -> str:
        return f"objective({self.name})"


@dataclass(frozen=True)
class Sum(Unit):
    """A weighted sum of units, also of different layers."""

    parts: tuple[tuple[float, Part], ...]

    def __post_init__(self) -> None:
        total: dict[Part, float] = {}
        for factor, part in self.parts:
            if isinstance(part, Activation):
                raise InputError("a sum with an objective of one's own: expected the sum within its function")
            if not 1 / LARGEST_FACTOR <= abs(factor) <= LARGEST_FACTOR:
                raise InputError(f"{factor!r} times {part}: expected a factor other than 0, {FINITE_FACTOR}")
            total[part] = total.get(part, 0.0) + factor
        if not any(total.values()):
            raise InputError("a sum of which nothing is left: expected at least one unit that stays")

    def terms(self) -> tuple[tuple[float, Part], ...]:
        return self.parts

    def __str__(self) -> str:
        text = ""
        for weight, part in self.parts:
            sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
            factor = "" if abs(weight) == 1 else f"{abs(weight)!r}*"
            text += f"{sign}{factor}{part}"
        return text


LARGEST_FACTOR = 1e30  # of factors and weights: what is beyond it, or below its inverse, is infinite or 0 in 32 bits
FINITE_FACTOR = "finite, of at most 1e30"


def _reduce(map_: Tensor, reduce: Reduce) -> Tensor:
    return map_.sum() if reduce == "sum" else map_.mean()


def _reduction(reduce: Reduce | None, tokens: TokenSelection | None) -> Reduce:
    if reduce is not None and reduce not in get_args(Reduce):
        raise InputError(f"reduce {reduce!r}: expected sum or mean")
    return reduce or ("sum" if tokens is None else "mean")


def _on_tokens(part: Channel | Direction, recorded: bool) -> Channel | Direction:
    """A part with a `reduce` and `tokens` of its own, where it says neither."""
    if part.tokens is not None:
        return part
    return replace(part, tokens=ALL_TOKENS if recorded else PATCHES, reduce=part.reduction if recorded else part.reduce)


def _spell(text: str, reduction: Reduce, tokens: TokenSelection | None) -> str:
    """With the reduction where it is not the usual one."""
    return f"{text}{tokens or ''}" if reduction == _reduction(None, tokens) else f"{reduction}({text}{tokens or ''})"


def _check_channel(layer: str, channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise InputError(f"channel {channel} of {layer}: it has {channels} channels, 0 to {channels - 1}")


def stored_vectors(unit: Unit) -> dict[str, dict[str, Any]]:
    """The numbers that a unit's spelling only names, by that name; see `Part.stored_vectors`."""
    return {key: vector for _, part in unit.terms() for key, vector in part.stored_vectors().items()}


def drawn_by(unit: Unit) -> str:
    """What an image's random numbers are drawn by, beside its seed: the spelling of its unit.

    Of a unit that is read from all tokens it is that of before tokens were told apart, so that images of then are made
    again as they were.
    """

    def plain(part: Part) -> Part:
        if part.tokens != ALL_TOKENS:
            return part
        reduction = {"reduce": part.reduction} if isinstance(part, Channel | Direction) else {}
        return replace(part, tokens=None, **reduction)  # type: ignore[type-var]

    if isinstance(unit, Sum):
        return str(Sum(tuple((weight, plain(part)) for weight, part in unit.parts)))
    return str(plain(unit) if isinstance(unit, Part) else unit)


def shows_classes(unit: Unit) -> bool:
    """Whether a unit is a class, or made of classes alone, so that its images are scenes and not textures."""
    return all(isinstance(part, Class) for _, part in unit.terms())


def shows_scenes(unit: Unit) -> bool:
    """Whether a unit is made of classes and texts alone: what excites it most are whole scenes, as recipes have them
    for classes, and no patterns."""
    return all(isinstance(part, Class | Text) for _, part in unit.terms())


def encode_texts(unit: Unit, network: Network) -> Unit:
    """The unit with the vectors of its texts in that network.

    Raises:
        InputError: it has no text tower, or one that a text is too long for, or there are too many texts.
    """
    texts = sum(isinstance(part, Text) for _, part in unit.terms())
    if texts > _MOST_TEXTS:
        raise InputError(f"a unit of {texts} texts: expected at most {_MOST_TEXTS}")
    parts = tuple((factor, part.encoded(network) if isinstance(part, Text) else part) for factor, part in unit.terms())
    if not texts:
        return unit
    return Sum(parts) if isinstance(unit, Sum) else parts[0][1]


def describe(unit: Unit, network: Network) -> str:
    """The unit in words that a person knows: classes by name, and texts as they are."""
    if isinstance(unit, Class) and network.labels is not None and unit.index < len(network.labels):
        label: Label = network.labels[unit.index]
        return label.name
    if isinstance(unit, Text):
        return unit.text
    return str(unit)
