"""Images to judge, read from pictures and files; the networks that they were made with are opened once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from phosphene.display import opaque, to_display
from phosphene.errors import InputError
from phosphene.judges.judged_image import JudgedImage, SourceModel
from phosphene.networks.named import open_referenced
from phosphene.networks.network import Network
from phosphene.networks.sources import bundled
from phosphene.picture import Picture
from phosphene.planes import from_pil, to_pil
from phosphene.provenance.networks import check_size, difference, open_recorded_network
from phosphene.provenance.pixels import decode_pixels
from phosphene.provenance.reading import load
from phosphene.provenance.records import NetworkRecord
from phosphene.units.objects import Class, Unit
from phosphene.units.spelling import parse_unit


class ImageReader:
    """Reads images; opens every network that they were made with once.

    Args:
        network: the one that they were made with, or several that each was made with one or some of, where the caller
            has them; of an image that does not say how it was made, it is the first.
        judges: None for the bundled ones, which are opened when they are needed.
        trust: follow whatever images say of their networks.
    """

    def __init__(self, network: Network | Sequence[Network] | None, judges: list[Network] | None, trust: bool = False):
        self.networks = [network] if isinstance(network, Network) else list(network or ())
        self.network = self.networks[0] if self.networks else None
        self._judges, self.trust = judges, trust
        self.opened: dict[str, Network] = {}
        self.digests: dict[int, str] = {}

    @cached_property
    def judges(self) -> list[Network]:
        if self._judges is not None:
            return self._judges
        return [bundled.open_bundled(name) for name in bundled.SIZES if bundled.is_installed(name)]

    def read_any(self, image: str | Path | Picture, unit: str | Unit | None) -> JudgedImage:
        return self.picture(image, unit) if isinstance(image, Picture) else self.read(Path(image), unit)

    def picture(self, picture: Picture, unit: str | Unit | None) -> JudgedImage:
        network = self.open_source_model(picture.name, picture.network, None)
        _same_unit(picture.name, unit, str(picture.unit), network)
        members = (self.ensemble_member(picture.name, entry) for entry in picture.ensemble)
        models = (self.source_model(network), *members)
        tuned_on = picture.recipe.found.judges if picture.recipe.found else ()
        return _judged_image(
            picture.name, picture.pixels, picture.unit, network, models, picture.photograph,
            picture.scores.get("chosen", {}).get("by", ()), tuned_on,
        )  # fmt: skip

    def read(self, path: Path, unit: str | Unit | None) -> JudgedImage:
        image, known = load(path)
        if known is None:
            return self.read_foreign(path, image, unit)
        network = self.open_source_model(str(path), known.network, image)
        _same_unit(str(path), unit, known.unit, network)
        channels = network.preprocessing.channels
        pixels = from_pil(image, channels)
        if pixels is None:
            raise InputError(f"image {str(path)!r} has no {channels} channels: expected the file as phosphene wrote it")
        models = (self.source_model(network), *(self.ensemble_member(str(path), entry) for entry in known.ensemble))
        photograph = None if known.photograph is None else decode_pixels(known.photograph)
        unit = parse_unit(known.unit, network, recorded=True)
        # No file that it names is read.
        found = known.settings(f"image {str(path)!r}", trust=True, functions=False).found
        tuned_on = found.judges if found else ()
        return _judged_image(str(path), pixels, unit, network, models, photograph, known.scores.chosen.by, tuned_on)

    def read_foreign(self, path: Path, image: Image.Image, unit: str | Unit | None) -> JudgedImage:
        """An image that phosphene did not make."""
        if unit is None:
            raise InputError(f"image {str(path)!r} does not say what it shows: expected its unit, such as 'class:NAME'")
        network = self.network or (self.judges[0] if self.judges else None)
        if network is None:
            raise InputError(f"image {str(path)!r} does not say how it was made: expected its network, or a judge")
        parsed = parse_unit(unit, network)
        if self.network is None and not isinstance(parsed, Class):
            raise InputError(
                f"image {str(path)!r} does not say how it was made, and {parsed} is no class: expected its network"
            )
        image = opaque(to_display(image, str(path)))
        fed = None if self.network is None else self.network.preprocessing.photograph(image)
        models = () if self.network is None else (self.source_model(self.network),)
        return JudgedImage(str(path), image, np.asarray(image), parsed, self.network, fed, models)

    def open_source_model(self, name: str, known: NetworkRecord, image: Image.Image | None) -> Network:
        """The network that an image was made with, at its size.

        Args:
            name: of the image, for messages.
            known: what it says of the network.
            image: the file's; None of a picture.
        """
        key = json.dumps(known.to_dict(), sort_keys=True)
        if key not in self.opened:
            call = f"phosphene.judge({'pictures' if image is None else 'images'}, judges, network=network)"
            source = json.dumps([known.source, known.weights], sort_keys=True)
            given = self.given_network(known) or self.network or self.opened.get(source)
            network = open_recorded_network(name, known, given, call, trust=self.trust, from_file=image is not None)
            if image is not None:
                check_size(name, known, network, image)
            self.opened[source] = network
            self.opened[key] = network.with_input_size(tuple(known.input.size))  # type: ignore[arg-type]
        return self.opened[key]

    def given_network(self, known: NetworkRecord) -> Network | None:
        """The one of the caller's networks that an image was made with; None where it is none of them."""
        alike = [network for network in self.networks if self.digest(network) == known.weights]
        same = (network for network in alike if not difference(known, network))
        return next(same, alike[0] if alike else None)

    def ensemble_member(self, name: str, known: NetworkRecord) -> SourceModel:
        """A further network of an ensemble that an image was made with."""
        key = json.dumps([known.source, known.weights], sort_keys=True)
        if key not in self.opened and (given := self.given_network(known)) is not None:
            self.opened[key] = given
        elif key not in self.opened and known.source is not None:
            self.opened[key] = open_referenced(
                f"image {name!r}",
                known.name,
                known.source,
                known.weights,
                known.preprocessing_fields,
                trust=self.trust,
            )
        return SourceModel(known.name, known.weights, self.opened.get(key))

    def source_model(self, network: Network) -> SourceModel:
        return SourceModel(network.name, self.digest(network), network)

    def digest(self, network: Network) -> str:
        """Of its weights, looked at once."""
        if id(network.module) not in self.digests:
            self.digests[id(network.module)] = network.digest
        return self.digests[id(network.module)]


def networks_at_hand(images: Any, network: Network | Sequence[Network] | None) -> Network | Sequence[Network] | None:
    """The networks that the caller has given, or those that images bring with them, as a `Result` does."""
    return getattr(images, "networks", None) if network is None else network


def _judged_image(
    name: str,
    pixels: NDArray[np.uint8],
    unit: Unit,
    network: Network,
    source_models: tuple[SourceModel, ...],
    photograph: NDArray[np.uint8] | None,
    selectors: Sequence[str],
    tuned_on: Sequence[str],
) -> JudgedImage:
    reference = None if photograph is None else _tensor(photograph)
    return JudgedImage(
        name,
        to_pil(pixels),
        pixels,
        unit,
        network,
        _tensor(pixels),
        source_models,
        reference,
        tuple(selectors),
        tuple(tuned_on),
    )


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(pixels).movedim(-1, 0).float()


def _same_unit(name: str, unit: str | Unit | None, known: str, network: Network) -> None:
    if unit is not None and str(parse_unit(unit, network)) != str(parse_unit(known, network, recorded=True)):
        raise InputError(f"image {name!r} was made for {known}, and {unit!s} is given: expected no unit for it")
