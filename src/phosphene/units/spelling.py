"""How units are spelled, and which a spelling means."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phosphene.errors import InputError, printable
from phosphene.networks.layers import LOGITS, OUTPUT
from phosphene.networks.network import Network
from phosphene.units.latents import Latent, parse_latent
from phosphene.units.objects import (
    FINITE_FACTOR,
    LARGEST_FACTOR,
    Caricature,
    Channel,
    Class,
    Direction,
    Match,
    Neuron,
    Part,
    Reduce,
    Sum,
    Text,
    Unit,
    WholeLayer,
    encode_texts,
)
from phosphene.units.tokens import TokenSelection
from phosphene.units.vectors import NOT_HELD, decode_vector, names_vector_file, read_vector, vector_digest

Held = Mapping[str, Mapping[str, Any]]


def parse_unit(text: str | Unit, network: Network, *, recorded: bool = False, held: Held | None = None) -> Unit:
    """A unit from its spelling (see the head of `units.objects`), checked against the network.

    Args:
        recorded: whether a file says it.  Files name the tokens that a unit is read from; before version 0.2, which did
            not know tokens apart, they name none, and all tokens are meant: their sum, or the mean with mean(…).
        held: by their names, the numbers of directions and latents that the file holds beside the spelling.  Of what a
            file says, no other file is opened.

    Texts are encoded by the network's text tower.

    Raises:
        InputError: the network has no such class, layer, channel or position, or no text tower, or the spelling is
            none.

    Example:
        >>> parse_unit("class:flamingo", phosphene.open())
        Class(index=130)
    """
    if isinstance(text, Unit):
        unit = _with_layers(text, network)
    else:
        stored = {} if recorded and held is None else held
        weighted = _split(_COSINE.sub("cos^\\1\N{MIDDLE DOT}dot(", text), _odd_names(network))
        if len(weighted) == 1 and weighted[0][0] == 1:
            unit = _parse_part(weighted[0][1], network, stored)
        else:
            unit = Sum(tuple((weight, _parse_part(part, network, stored)) for weight, part in weighted))
    unit = _on_tokens(encode_texts(unit, network), network, recorded)
    for _, part in unit.terms():
        check_part(part, network)
    return unit


_COSINE = re.compile(r"cos\^([0-9.]{1,20})\s*\*\s*dot\(")  # whose star is no factor's


def _with_layers(unit: Unit, network: Network) -> Unit:
    """The unit, its latents of the layers that their dictionaries name."""
    if isinstance(unit, Latent):
        return unit.in_network(network)
    if isinstance(unit, Sum) and any(isinstance(part, Latent) for _, part in unit.parts):
        return Sum(tuple((weight, part.in_network(network) if isinstance(part, Latent) else part)
                         for weight, part in unit.parts))  # fmt: skip
    return unit


def _on_tokens(unit: Unit, network: Network, recorded: bool) -> Unit:
    """The unit, with the tokens that its parts are read from, of layers whose tokens are known."""

    def settled(part: Part) -> Part:
        known = part.layer != LOGITS and network.layer(part.layer).tokens is not None
        return part.on_tokens(recorded) if known else part

    if isinstance(unit, Sum):
        parts = tuple((weight, settled(part)) for weight, part in unit.parts)
        return unit if all(new is old for (_, new), (_, old) in zip(parts, unit.parts, strict=True)) else Sum(parts)
    return settled(unit) if isinstance(unit, Part) else unit


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
        if part.tokens is not None:
            if not isinstance(part.tokens, TokenSelection):
                raise InputError(
                    f"tokens {printable(repr(part.tokens), 40)} of {part.layer}: expected a phosphene.TokenSelection, "
                    "such as TokenSelection('cls')"
                )
            if len(layer.positions) != 1:
                kind = "maps, whose neurons are LAYER:CHANNEL@ROW,COLUMN" if layer.positions else "no positions"
                raise InputError(f"{part}: {part.layer} has {kind}, and no tokens")
            part.tokens.check(layer.positions[0], layer.tokens, str(part))


def _odd_names(network: Network) -> list[str]:
    """The layers whose names could be read as a sum, a difference or a multiple, the longest first."""
    names = {layer.name for layer in network.layers} | {name for name, _ in network.module.named_modules()}
    return sorted((name for name in names if re.search(r"^-|\s[+-]\s|\*", name)), key=len, reverse=True)


def _split(text: str, names: Sequence[str] = ()) -> list[tuple[float, str]]:
    """`a - 0.5*b` to [(1, "a"), (-0.5, "b")]; what stands in one of these layers' names belongs to the name."""
    if not text.strip():
        raise InputError("an empty unit names no layer: expected one, such as conv1:3")
    names = [] if "\0" in text else names
    kept: list[str] = []  # what stands for itself, by the numbers that stand for it

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    if "\0" not in text:
        text = _QUOTED_TEXT.sub(keep, text)  # nothing in quotes is a sign or a factor
    for name in names:
        if name in text:
            begin = r"(?:^|(?<=[(*])|(?<=\s[+-]\s))"
            whole = rf"{begin}(\s*){re.escape(name)}(?=\s*(?:[:)]|\s[+-]\s|$))"
            mark = f"\0{len(kept)}\0"
            kept.append(name)
            text = re.sub(whole, lambda match, mark=mark: f"{match[1]}{mark}", text)  # type: ignore[misc]
    terms = _terms(text)
    if not kept:
        return terms
    return [(weight, re.sub("\0([0-9]+)\0", lambda match: kept[int(match[1])], part)) for weight, part in terms]


_STRING = r'"(?:[^"\\]|\\.)*"'
_QUOTED_TEXT = re.compile(rf"text:({_STRING})(?:@(\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*\]))?")


def _text(spelled: str) -> Text:
    """A text, as `text:` spells it: in quotes or without."""
    plain = spelled.removeprefix("text:").strip()
    if not plain.startswith('"'):
        return Text(plain)
    match = _QUOTED_TEXT.fullmatch(spelled.strip())
    try:
        values = [] if match is None else [json.loads(each) for each in match.groups() if each]
    except ValueError:
        values = []
    if not values:
        raise InputError(
            f"unit {spelled!r}: expected the text in quotes as JSON has them, and behind an @ its templates, such as "
            'text:"a fox"@["a drawing of {}"]'
        )
    return Text(*values)


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
        if 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
            return factor
    near = f"{part}*{spelled}" if re.fullmatch("[0-9.]+", part) else f"0.5*{part}"
    raise InputError(
        f"unit {text!r} has {spelled!r} before a *: expected a number other than 0, {FINITE_FACTOR}, such as {near}"
    )


def _parse_part(text: str, network: Network, held: Held | None) -> Part:
    if text.startswith("class:"):
        called = layer_and_rest(text, network)[0]
        if called == text or not called.startswith("class:") or not _has_layer(called, network):
            return _class(text.removeprefix("class:"), network)
    elif _has_layer(text, network):
        return WholeLayer(text)
    elif text.startswith("text:") and not _has_layer("text", network):
        return _text(text)
    if match := re.fullmatch(r"(match|caricature)\((.+)\)", text):
        return (Match if match[1] == "match" else Caricature)(match[2])
    if (latent := parse_latent(text, network, held)) is not None:
        return latent
    if match := re.fullmatch(r"cos(?:\^([0-9.]+)\N{MIDDLE DOT}dot)?\((.+)\)", text):
        return _cosine(match[1], match[2], network, held)
    if text.startswith("direction:") and not _has_layer(layer_and_rest(text, network)[0], network):
        return _file_direction(text.removeprefix("direction:"), network, held)
    reduce: Reduce | None = None
    inner = text
    if match := re.fullmatch(r"(sum|mean)\((.+)\)", text):
        reduce, inner = ("sum" if match[1] == "sum" else "mean"), match[2]
    inner, at, chosen = split_tokens(inner, network)
    layer, colon, rest = layer_and_rest(inner, network)
    if not colon:
        layer = find_layer(inner, text, network)
        return WholeLayer(layer, _tokens(chosen, text, layer, network) if at else None)
    layer = find_layer(layer, text, network)
    if re.fullmatch("[0-9]+", rest):
        channel = _index(rest, network.layer(layer).channels, f"channel {{}} of {layer}")
        if not at:
            return Channel(layer, channel, reduce)
        positions = _positions(chosen)
        if positions is not None and not (len(positions) == 2 and len(network.layer(layer).positions) == 1):
            return Neuron(layer, channel, positions)
        return Channel(layer, channel, reduce, _tokens(chosen, text, layer, network))
    if match := re.fullmatch(r"\[(.+)\]", rest):
        weights, name = _weights(match[1], text, held)
        return Direction(layer, weights, reduce, _tokens(chosen, text, layer, network) if at else None, name=name)
    raise InputError(f"unit {text!r}: {_why_none(layer, f'{rest}{at}{chosen}', network.layer(layer).channels)}")


def _weights(spelled: str, text: str, held: Held | None) -> tuple[tuple[float, ...], str]:
    """The numbers between brackets, and by which name a file, or the image's own, has them; empty without one."""
    if held is not None and spelled in held:
        values = decode_vector(held[spelled]["values"], f"direction {printable(spelled)!r}")
        name, _, digest = spelled.rpartition("=")
        if vector_digest(values) != digest:
            raise InputError(f"direction {printable(spelled)!r} has other numbers than its digest tells: it is damaged")
        return tuple(values.tolist()), name
    if names_vector_file(spelled):
        if held is not None:
            raise InputError(f"direction {printable(spelled)!r} {NOT_HELD}")
        found = read_vector(spelled)
        return tuple(found.values.tolist()), found.name
    try:
        return tuple(map(float, spelled.split(","))), ""
    except ValueError:
        raise InputError(
            f"direction {printable(text)!r}: expected numbers between the brackets, or FILE.npy#ROW"
        ) from None


def _cosine(power: str | None, inner: str, network: Network, held: Held | None) -> Part:
    """`cos(DIRECTION)` and `cos^POWER·dot(DIRECTION)`."""
    part = _parse_part(inner, network, held)
    if not isinstance(part, Direction) or part.measure != "dot" or part.power:
        raise InputError(f"the cosine with {part}: expected a direction, such as cos(LAYER:[FILE.npy#0])")
    if power is None:
        return replace(part, measure="cos")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,15})?", power):
        raise InputError(f"cos^{power}: expected a power of 0 to 100, such as cos^2*dot(LAYER:[FILE.npy#0])")
    return replace(part, power=float(power))


def _file_direction(spelled: str, network: Network, held: Held | None) -> Part:
    """`direction:FILE[@TOKENS]`: of the layer that the file names."""
    path, at, chosen = spelled, "", ""
    if re.search(r"@[a-z0-9,]+$", spelled):
        path, at, chosen = spelled.rpartition("@")
    if held is not None:
        raise InputError(f"direction {printable(spelled)!r} {NOT_HELD}")
    found = read_vector(path)
    layer, weights = found.metadata.get("layer", ""), found.metadata.get("weights", "")
    if not layer:
        raise InputError(f"direction {printable(path)!r} names no layer: expected LAYER:[{printable(path)}]")
    if weights and weights != network.digest:
        raise InputError(
            f"direction {printable(path)!r} is of {printable(found.metadata.get('network', 'a network'), 80)}, weights "
            f"{printable(weights, 20)}, and not of {network.name}, weights {network.digest}: expected that network, or "
            f"{printable(layer, 80)}:[{printable(path)}] all the same"
        )
    told = chosen or found.metadata.get("tokens", "")
    tokens = TokenSelection.parse(told) if told and (at or network.layer(layer).tokens is not None) else None
    return Direction(layer, tuple(found.values.tolist()), None, tokens, name=found.name)


def split_tokens(text: str, network: Network) -> tuple[str, str, str]:
    """`UNIT@TOKENS` at the last @ that is not of a layer's name."""
    if text.rstrip().endswith("]"):  # a file's name may have an @
        return text, "", ""
    layer, colon, rest = layer_and_rest(text, network)
    if "@" not in (rest if colon and _has_layer(layer, network) else text) or _has_layer(text, network):
        return text, "", ""
    return text.rpartition("@")


def _positions(text: str) -> tuple[int, ...] | None:
    """Of a place, spelled with numbers between commas."""
    plain = re.fullmatch(r"[0-9]{1,18}(?:\s*,\s*[0-9]{1,18})*", text)
    return tuple(map(int, text.split(","))) if plain else None


def _tokens(spelled: str, text: str, layer: str, network: Network) -> TokenSelection:
    """The tokens that follow an `@`."""
    if len(network.layer(layer).positions) != 1 and _positions(spelled) is None:
        raise InputError(f"unit {text!r}: {_why_none(layer, f'0@{spelled}', network.layer(layer).channels)}")
    try:
        return TokenSelection.parse(spelled)
    except InputError as error:
        raise InputError(f"unit {text!r}: {error}") from None


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
    return bool(name) and (name in dict(network.module.named_modules()) or network.is_head(name))


def _same_layer(name: str, network: Network) -> str:
    """The layer that is meant by `0/1`, `[0][1]`, `model.0.1` or `Net.0.1`; empty if none is."""
    plain = re.sub(r"[/\[\].'\"]+", ".", name.strip()).strip(".")
    shorter = plain.partition(".")[2]
    return next((each for each in (name, plain, shorter) if each and _has_layer(each, network)), "")


def find_layer(name: str, text: str, network: Network) -> str:
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


def parse_indices(text: str, count: int, what: str) -> list[int] | None:
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
    """The classes that are meant by a range of indices, such as 0-9, or the one that `find_class` finds.

    What units are spelled with, "class:", may stand before it.
    """
    text = text.removeprefix("class:")
    found = parse_indices(text, network.classes, "class {}") if network.classes and "-" in text else None
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
