"""What is judged: images, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from phosphene import provenance
from phosphene.errors import InputError
from phosphene.images import as_shown, opaque
from phosphene.networks.named import open_named
from phosphene.networks.network import Network
from phosphene.networks.sources import bundled
from phosphene.picture import Picture
from phosphene.png import decoded, to_pil
from phosphene.provenance import NetworkRecord
from phosphene.units.objects import Class, Unit
from phosphene.units.spelling import parse_unit


class Maker(NamedTuple):
    """A network that an image was made with; None where only its digest is known."""

    name: str
    digest: str
    network: Network | None


@dataclass(frozen=True, eq=False)
class Subject:
    """An image to judge.

    Attributes:
        name: for messages.
        image: as judges are shown it.
        pixels: as it is saved, 8 bits (height, width, channels).
        unit: what it shows, of `network`, or where that is None of the first judge.
        network: that it was made with, at its size.
        fed: what that network is shown, (channels, height, width) in 0..255.
        makers: all networks that it was made with.
        photograph: that the unit refers to, like `fed`.
        choosers: names of the networks that chose it among several.
        tuners: names of the networks whose judgement a search maximised to find its recipe.
    """

    name: str
    image: Image.Image
    pixels: NDArray[np.uint8]
    unit: Unit
    network: Network | None
    fed: Tensor | None
    makers: tuple[Maker, ...]
    photograph: Tensor | None = None
    choosers: tuple[str, ...] = ()
    tuners: tuple[str, ...] = ()

    @property
    def referenced(self) -> bool:
        return any(part.referenced for _, part in self.unit.terms())


class Files:
    """Reads images; opens every network that they were made with once.

    Args:
        network: the one they were made with, where the caller has it.
        judges: None for the bundled ones, which are opened when they are needed.
        trust: follow whatever images say of their networks.
    """

    def __init__(self, network: Network | None, judges: list[Network] | None, trust: bool = False):
        self.network, self._judges, self.trust = network, judges, trust
        self.opened: dict[str, Network] = {}
        self.digests: dict[int, str] = {}

    @cached_property
    def judges(self) -> list[Network]:
        if self._judges is not None:
            return self._judges
        return [bundled.open_bundled(name) for name in bundled.SIZES if bundled.is_installed(name)]

    def subject(self, image: str | Path | Picture, unit: str | Unit | None) -> Subject:
        return self.picture(image, unit) if isinstance(image, Picture) else self.read(Path(image), unit)

    def picture(self, picture: Picture, unit: str | Unit | None) -> Subject:
        _same_unit(picture.name, unit, str(picture.unit), picture.network)
        makers = tuple(map(self.maker, (picture.network, *picture.ensemble)))
        tuners = picture.recipe.found.judges if picture.recipe.found else ()
        return _made(
            picture.name, picture.pixels, picture.unit, picture.network, makers, picture.photograph,
            picture.scores.get("chosen", {}).get("by", ()), tuners,
        )  # fmt: skip

    def read(self, path: Path, unit: str | Unit | None) -> Subject:
        image, known = provenance.load(path)
        if known is None:
            return self.other(path, image, unit)
        network = self.made_with(path, known.network, image)
        _same_unit(str(path), unit, known.unit, network)
        pixels = _planes(path, image, network.preprocessing.channels)
        makers = (self.maker(network), *(self.other_maker(path, entry) for entry in known.ensemble))
        photograph = None if known.photograph is None else decoded(known.photograph)
        unit = parse_unit(known.unit, network)
        found = known.settings(f"image {str(path)!r}", trust=True).found  # no file that it names is read
        tuners = found.judges if found else ()
        return _made(str(path), pixels, unit, network, makers, photograph, known.scores.chosen.by, tuners)

    def other(self, path: Path, image: Image.Image, unit: str | Unit | None) -> Subject:
        """An image that phosphene did not make."""
        if unit is None:
            raise InputError(f"image {str(path)!r} does not say what it shows: expected its unit, such as 'class:NAME'")
        asked = self.network or (self.judges[0] if self.judges else None)
        if asked is None:
            raise InputError(f"image {str(path)!r} does not say how it was made: expected its network, or a judge")
        parsed = parse_unit(unit, asked)
        if self.network is None and not isinstance(parsed, Class):
            raise InputError(
                f"image {str(path)!r} does not say how it was made, and {parsed} is no class: expected its network"
            )
        image = opaque(as_shown(image, str(path)))
        fed = None if self.network is None else self.network.preprocessing.photograph(image)
        makers = () if self.network is None else (self.maker(self.network),)
        return Subject(str(path), image, np.asarray(image), parsed, self.network, fed, makers)

    def made_with(self, path: Path, known: NetworkRecord, image: Image.Image) -> Network:
        key = known.model_dump_json()
        if key not in self.opened:
            call = "phosphene.judge(images, judges, network=network)"
            source = json.dumps([known.source, known.weights], sort_keys=True)
            given = self.network or self.opened.get(source)
            network = provenance.made_with(path, known, given, call, self.trust)
            provenance.check_size(path, known, network, image)
            self.opened[source] = network
            self.opened[key] = network.resized(tuple(known.input.size))  # type: ignore[arg-type]
        return self.opened[key]

    def other_maker(self, path: Path, known: NetworkRecord) -> Maker:
        """A further network of an ensemble that an image was made with."""
        key = json.dumps([known.source, known.weights], sort_keys=True)
        if known.source is not None and key not in self.opened:
            self.opened[key] = open_named(
                f"image {str(path)!r}", known.name, known.source, known.weights, known.fed, trust=self.trust
            )
        return Maker(known.name, known.weights, self.opened.get(key))

    def maker(self, network: Network) -> Maker:
        if id(network.module) not in self.digests:
            self.digests[id(network.module)] = network.digest
        return Maker(network.name, self.digests[id(network.module)], network)


def _made(
    name: str,
    pixels: NDArray[np.uint8],
    unit: Unit,
    network: Network,
    makers: tuple[Maker, ...],
    photograph: NDArray[np.uint8] | None,
    choosers: Sequence[str],
    tuners: Sequence[str],
) -> Subject:
    shown = None if photograph is None else _tensor(photograph)
    return Subject(
        name, to_pil(pixels), pixels, unit, network, _tensor(pixels), makers, shown, tuple(choosers), tuple(tuners)
    )


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(pixels).movedim(-1, 0).float()


def _planes(path: Path, image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """An image file of phosphene's as it was made, (height, width, channels), without any transparency."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and channels in (1, 3):
        pixels = pixels[..., :channels]
    elif pixels.ndim == 2 and pixels.shape[1] % channels == 0:  # grey planes side by side
        pixels = np.stack(np.split(pixels, channels, axis=1), axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != channels or pixels.dtype != np.uint8:
        raise InputError(f"image {str(path)!r} has no {channels} channels: expected the file as phosphene wrote it")
    return pixels


def _same_unit(name: str, unit: str | Unit | None, known: str, network: Network) -> None:
    if unit is not None and str(parse_unit(unit, network)) != known:
        raise InputError(f"image {name!r} was made for {known}, and {unit!s} is given: expected no unit for it")
