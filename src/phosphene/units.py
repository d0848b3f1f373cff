"""Units: what is maximised.

A unit is read from one layer's output and gives one number per image.  Spelled:

    class:flamingo             the logit of a class: an index, a WordNet id or a name
    features.29:12             channel 12 of layer features.29, summed over its map
    mean(features.29:12)       the same, averaged over its map
    features.29:12@7,7         one neuron of the channel: row 7, column 7 of its map (one number for token layers)
    features.29                the whole layer: the mean of the squares (DeepDream)
    features.29:[0.5,0,-1]     a direction: one weight a channel, summed over the map; also in mean(…)
    match(features.29)         what a layer makes of a photograph, matched: feature inversion
    caricature(features.29)    the same, exaggerated
    class:130 - 0.5*class:134  sums, differences and multiples, with spaces around + and -
"""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from phosphene.errors import InputError, printable
from phosphene.networks.labels import Label
from phosphene.networks.network import LOGITS, OUTPUT, Network

Reduce = Literal["sum", "mean"]


class Unit(ABC):
    """A thing to maximise.  Units can be added, subtracted and scaled: `Class(130) - 0.5 * Class(134)`."""

    @abstractmethod
    def terms(self) -> tuple[tuple[float, Part], ...]:
        """The unit as a weighted sum of parts, each read from one layer."""

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
    """A unit that is read from one layer."""

    layer: str
    referenced: ClassVar[bool] = False  # whether it needs what the layer makes of a photograph

    def terms(self) -> tuple[tuple[float, Part], ...]:
        return ((1.0, self),)

    @abstractmethod
    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        """The number to maximise, from the layer's output for one image: (channels, *positions) to ().

        `reference` is the layer's output for a photograph, where the unit is `referenced`.
        """

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
        """The number to maximise, from the channel's map: (*positions) to ()."""

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
    """A channel of a layer, its map summed or averaged."""

    layer: str
    channel: int
    reduce: Reduce = "sum"

    @property
    def only(self) -> int:
        return self.channel

    def of_map(self, map_: Tensor) -> Tensor:
        return _reduced(map_, self.reduce)

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        _check_channel(self.layer, self.channel, channels)

    def __str__(self) -> str:
        return _spelled(f"{self.layer}:{self.channel}", self.reduce)


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
    """All of a layer: the mean of the squares of its output (DeepDream; Mordvintsev et al. 2015)."""

    layer: str

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        return activation.square().mean()

    def __str__(self) -> str:
        return self.layer


@dataclass(frozen=True)
class Direction(Part):
    """A direction in a layer: the channels, each times its weight, summed or averaged over the map."""

    layer: str
    weights: tuple[float, ...]
    reduce: Reduce = "sum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))
        for index, weight in enumerate(self.weights):
            if not abs(weight) <= _LARGEST:
                raise InputError(
                    f"a direction in {self.layer} whose weight {index} is {weight!r}: expected numbers that are "
                    f"{_FINITE}"
                )
        if self.weights and max(map(abs, self.weights)) < 1 / _LARGEST:
            raise InputError(f"a direction of zeros in {self.layer}: expected at least one weight other than 0")

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        weights = torch.tensor(self.weights, device=activation.device, dtype=activation.dtype)
        return _reduced(torch.tensordot(weights, activation, 1), self.reduce)

    def check(self, channels: int, positions: tuple[int, ...]) -> None:
        if len(self.weights) != channels:
            raise InputError(f"a direction of {len(self.weights)} weights: {self.layer} has {channels} channels")

    def __str__(self) -> str:
        return _spelled(f"{self.layer}:{json.dumps(self.weights, separators=(',', ':'))}", self.reduce)


@dataclass(frozen=True)
class Match(Part):
    """What a layer makes of a photograph: minus the squared distance, over the photograph's own square.

    Feature inversion (Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them", eq. 2).
    """

    layer: str
    referenced = True

    def score(self, activation: Tensor, reference: Tensor | None = None) -> Tensor:
        assert reference is not None
        return -(activation - reference).square().sum() / reference.square().sum().clamp_min(1e-12)

    def __str__(self) -> str:
        return f"match({self.layer})"


@dataclass(frozen=True)
class Caricature(Part):
    """What a layer makes of a photograph, exaggerated: at each position the dot product of the channels' vectors,
    times their cosine to a power so that the direction is kept; the mean over positions.

    Caricatures of the "Activation Atlas" and "Feature Visualization" authors' (Olah et al. 2018, Lucid).
    """

    layer: str
    power: ClassVar[float] = 1.0
    referenced = True

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
class Sum(Unit):
    """A weighted sum of units, also of different layers."""

    parts: tuple[tuple[float, Part], ...]

    def __post_init__(self) -> None:
        total: dict[Part, float] = {}
        for factor, part in self.parts:
            if not 1 / _LARGEST <= abs(factor) <= _LARGEST:
                raise InputError(f"{factor!r} times {part}: expected a factor other than 0, {_FINITE}")
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


_LARGEST = 1e30  # of factors and weights: what is beyond it, or below its inverse, is infinite or 0 in 32 bits
_FINITE = "finite, of at most 1e30"


def _reduced(map_: Tensor, reduce: Reduce) -> Tensor:
    return map_.sum() if reduce == "sum" else map_.mean()


def _spelled(text: str, reduce: Reduce) -> str:
    return text if reduce == "sum" else f"mean({text})"


def _check_channel(layer: str, channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise InputError(f"channel {channel} of {layer}: it has {channels} channels, 0 to {channels - 1}")


def parse_unit(text: str | Unit, network: Network) -> Unit:
    """A unit from its spelling (see the head of this module), checked against the network.

    Raises:
        InputError: the network has no such class, layer, channel or position, or the spelling is none.

    Example:
        >>> parse_unit("class:flamingo", phosphene.open())
        Class(index=130)
    """
    if isinstance(text, Unit):
        unit = text
    else:
        weighted = _split(text, _odd_names(network))
        if len(weighted) == 1 and weighted[0][0] == 1:
            unit = _parse_part(weighted[0][1], network)
        else:
            unit = Sum(tuple((weight, _parse_part(part, network)) for weight, part in weighted))
    for _, part in unit.terms():
        check_part(part, network)
    return unit


def check_part(part: Part, network: Network) -> None:
    """Raise an `InputError` if the network has no such unit."""
    if part.layer == LOGITS:
        if network.limit:
            raise InputError(f"{part} of {network.name} cannot be shown: {network.limit}")
        if not network.classes:
            raise InputError(network.no_classes(str(part)))
        part.check(network.classes, ())
    else:
        layer = network.layer(part.layer)
        part.check(layer.channels, layer.positions)


def _odd_names(network: Network) -> list[str]:
    """The layers whose names could be read as a sum, a difference or a multiple, the longest first."""
    names = {layer.name for layer in network.layers} | {name for name, _ in network.module.named_modules()}
    return sorted((name for name in names if re.search(r"^-|\s[+-]\s|\*", name)), key=len, reverse=True)


def _split(text: str, names: Sequence[str] = ()) -> list[tuple[float, str]]:
    """`a - 0.5*b` to [(1, "a"), (-0.5, "b")]; what stands in one of these layers' names belongs to the name."""
    if not text.strip():
        raise InputError("an empty unit names no layer: expected one, such as conv1:3")
    names = [] if "\0" in text else names
    for index, name in enumerate(names):
        if name in text:
            begin = r"(?:^|(?<=[(*])|(?<=\s[+-]\s))"
            whole = rf"{begin}(\s*){re.escape(name)}(?=\s*(?:[:)]|\s[+-]\s|$))"
            text = re.sub(whole, lambda match, index=index: f"{match[1]}\0{index}\0", text)  # type: ignore[misc]
    terms = _terms(text)
    if not names:
        return terms
    return [(weight, re.sub("\0([0-9]+)\0", lambda match: names[int(match[1])], part)) for weight, part in terms]


def _terms(text: str) -> list[tuple[float, str]]:
    """The terms of a sum, with their factors."""
    pieces = re.split(r"\s([+-])\s", f"{text.strip()} ")
    signs = ["+", *pieces[1::2]]
    terms = []
    for sign, piece in zip(signs, pieces[::2], strict=True):
        match = re.fullmatch(r"\s*(-?)\s*(?:([^\s*]*)\s*\*)?\s*(\S.*?)\s*", piece)
        if match is None and not piece.strip().strip("+-"):
            raise InputError(f"unit {text!r}: expected something on both sides of each + and -")
        if match is None:  # LAYER:*
            match = re.fullmatch(r"\s*(-?)\s*(\*)?(.+?)\s*", piece)
            assert match is not None
        weight = _factor(match[2], match[3], text) * (-1 if match[1] else 1) * (-1 if sign == "-" else 1)
        terms.append((weight, match[3]))
    return terms


def _factor(spelled: str | None, part: str, text: str) -> float:
    """The number before a `*`; 1 where there is none."""
    if spelled is None:
        return 1.0
    if re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", spelled):
        factor = float(spelled)
        if 1 / _LARGEST <= factor <= _LARGEST:
            return factor
    near = f"{part}*{spelled}" if re.fullmatch("[0-9.]+", part) else f"0.5*{part}"
    raise InputError(
        f"unit {text!r} has {spelled!r} before a *: expected a number other than 0, {_FINITE}, such as {near}"
    )


def _parse_part(text: str, network: Network) -> Part:
    if text.startswith("class:"):
        called = layer_and_rest(text, network)[0]
        if called == text or not called.startswith("class:") or not _has_layer(called, network):
            return _class(text.removeprefix("class:"), network)
    elif _has_layer(text, network):
        return WholeLayer(text)
    if match := re.fullmatch(r"(match|caricature)\((.+)\)", text):
        return (Match if match[1] == "match" else Caricature)(match[2])
    reduce: Reduce = "sum"
    inner = text
    if match := re.fullmatch(r"(sum|mean)\((.+)\)", text):
        reduce, inner = ("sum" if match[1] == "sum" else "mean"), match[2]
    layer, colon, rest = layer_and_rest(inner, network)
    if not colon:
        return WholeLayer(layer_called(inner, text, network))
    layer = layer_called(layer, text, network)
    if re.fullmatch("[0-9]+", rest):
        return Channel(layer, _index(rest, network.layer(layer).channels, f"channel {{}} of {layer}"), reduce)
    if match := re.fullmatch(r"([0-9]{1,18})@([0-9]{1,18}(?:\s*,\s*[0-9]{1,18})*)", rest):
        return Neuron(layer, int(match[1]), tuple(map(int, match[2].split(","))))
    if match := re.fullmatch(r"\[(.+)\]", rest):
        try:
            weights = tuple(map(float, match[1].split(",")))
        except ValueError:
            raise InputError(f"direction {text!r}: expected numbers between the brackets") from None
        return Direction(layer, weights, reduce)
    raise InputError(f"unit {text!r}: {_why_none(layer, rest, network.layer(layer).channels)}")


def layer_and_rest(text: str, network: Network) -> tuple[str, str, str]:
    """`LAYER:REST` at the first colon behind which no layer's name goes on."""
    if _has_layer(text, network):
        return text, "", ""
    for match in reversed(list(re.finditer(":", text))):
        if _same_layer(text[: match.start()], network):
            return text[: match.start()], ":", text[match.end() :]
    return text.partition(":") if text.startswith(":") else text.rpartition(":") if ":" in text else (text, "", "")


def _has_layer(name: str, network: Network) -> bool:
    """Whether the network has a layer of that name, whether or not it can be shown."""
    if any(layer.name == name for layer in network.layers):
        return True
    return bool(name) and name in dict(network.module.named_modules())


def _same_layer(name: str, network: Network) -> str:
    """The layer that is meant by `0/1`, `[0][1]`, `model.0.1` or `Net.0.1`; empty if none is."""
    plain = re.sub(r"[/\[\].'\"]+", ".", name.strip()).strip(".")
    shorter = plain.partition(".")[2]
    return next((each for each in (name, plain, shorter) if each and _has_layer(each, network)), "")


def layer_called(name: str, text: str, network: Network) -> str:
    """The name itself, if it can be a layer's.

    Raises:
        InputError: it is spelled otherwise than the layer that it means, or empty.
    """
    if _has_layer(name, network):
        return name
    if not name.strip():
        near = f", such as {network.layers[-1].name!r}" if network.layers else ""
        raise InputError(f"unit {text!r} names no layer: expected one{near}")
    if near := _same_layer(name, network):
        raise InputError(
            f"unit {text!r}: {network.name} calls this layer {near!r}: expected {text.replace(name, near, 1)}"
        )
    if (match := re.fullmatch(r"(.+?)\[\s*([0-9]+)\s*\]", name)) and (near := _same_layer(match[1], network)):
        raise InputError(f"unit {text!r}: a channel follows a colon: expected {near}:{match[2]}")
    network.layer(name)  # raises, with the nearest
    return name


def _why_none(layer: str, rest: str, channels: int) -> str:
    """Why what follows a layer's colon is none of its units, and what is most like it."""
    count = f"{layer} has {channels} channels, 0 to {channels - 1}"
    plain = rest.strip()
    if not plain:
        return f"expected a channel after the colon, such as {layer}:0, or {layer} for the whole layer"
    if plain in ("*", ":", "all", "-", "..."):
        return f"expected one channel, such as {layer}:0; `phosphene filters {layer}` shows all {channels}"
    if re.fullmatch(r"-\s*[0-9]+", plain):
        return f"channels count from 0, and the last is {channels - 1}: expected {layer}:{channels - 1}"
    if match := re.fullmatch(r"([0-9]{0,9}):([0-9]{0,9})(:.*)?", plain):
        first, last = int(match[1] or 0), int(match[2] or channels) - 1
        near = f"{layer}:{first}-{last}" if first < last < channels else f"{layer}:0-{channels - 1}"
        return f"a range is spelled with a minus, and its end is part of it: expected `phosphene filters {near}`"
    if re.fullmatch(r"[0-9]+([-,][0-9]+)+", plain):
        return f"expected one channel; `phosphene filters {layer}:{plain}` shows several, with --average their means"
    if re.fullmatch(r"[0-9,\s]+", plain) and (numbers := re.findall("[0-9]+", plain)):
        return f"expected {layer}:{','.join(numbers)}"
    if "@" in plain:
        return f"expected LAYER:CHANNEL@ROW,COLUMN, of whole numbers from 0, such as {layer}:0@0,0"
    if plain.isdigit():
        return f"expected the digits 0 to 9: {layer}:{''.join(str(unicodedata.digit(letter)) for letter in plain)}"
    if re.fullmatch(r"[-+]?([0-9.]+|nan|inf(inity)?)(e[-+]?[0-9]+)?", plain, re.IGNORECASE):
        return f"expected a channel that is a whole number: {count}"
    return (
        "expected class:NAME, LAYER:CHANNEL, LAYER:CHANNEL@ROW,COLUMN, LAYER:[WEIGHTS] or LAYER, "
        f"such as {layer}:0 ({count})"
    )


def _index(digits: str, count: int, what: str) -> int:
    """A whole number from its ASCII digits, below a count."""
    if len(digits.lstrip("0")) > 9 or int(digits) >= count:
        raise InputError(
            f"{what.format(printable(digits, 40))}: it has {count} channels, 0 to {count - 1}"
            if "channel" in what
            else f"{what.format(printable(digits, 40))}: expected 0 to {count - 1}"
        )
    return int(digits)


def listed(text: str, count: int, what: str) -> list[int] | None:
    """`0-3,7` as indices; None if the text is no such list, of ASCII digits.

    Args:
        count: how many there are to choose from; no range is built before it is known to end below that.
        what: they are, with {} for one: "channel {} of conv1".

    Raises:
        InputError: one of them is not below the count, or a range falls.
    """
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", text):
        return None
    found: list[int] = []
    for piece in text.split(","):
        ends = [_index(digits, count, what) for digits in piece.split("-")]
        if ends[0] > ends[-1]:
            name = what.format(piece)
            raise InputError(f"{name}: expected a range that rises, such as {ends[-1]}-{ends[0]}")
        found += range(ends[0], ends[-1] + 1)
    return found


def find_classes(text: str, network: Network) -> list[int]:
    """The classes that are meant by a range of indices, such as 0-9, or the one that `find_class` finds."""
    found = listed(text, network.classes, "class {}") if network.classes and "-" in text else None
    return [find_class(text, network)] if found is None else found


def _class(query: str, network: Network) -> Part:
    """A class's logit, or the channel that is the class's in a map of classes, as segmentation has it."""
    if not network.classes and not network.limit:
        shown = network.output_layer
        if shown is None or network.labels is None or len(network.labels) != shown.channels:
            raise InputError(network.no_classes(f"class:{query}"))
        return Channel(OUTPUT, network.labels.find(query))
    return Class(find_class(query, network))


def find_class(query: str | int, network: Network) -> int:
    """The index of a class by name, WordNet id or index; by index alone where the network has no labels."""
    if network.labels is not None:
        if network.classes and len(network.labels) != network.classes:
            raise InputError(f"{len(network.labels)} labels for the {network.classes} outputs of {network.name}")
        return network.labels.find(query)
    text = str(query).strip()
    if re.fullmatch("[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?\d+", text):
        last = f"an index of 0 to {network.classes - 1}" if network.classes else "an index"
        raise InputError(f"class {printable(text, 40)}: expected {last}, in the digits 0 to 9")
    raise InputError(f"class {text!r}: {network.name} has no labels, so classes are known by index only")


def shows_classes(unit: Unit) -> bool:
    """Whether a unit is a class, or made of classes alone, so that its images are scenes and not textures."""
    return all(isinstance(part, Class) for _, part in unit.terms())


def describe(unit: Unit, network: Network) -> str:
    """The unit in words that a person knows: classes by name."""
    if isinstance(unit, Class) and network.labels is not None and unit.index < len(network.labels):
        label: Label = network.labels[unit.index]
        return label.name
    return str(unit)
