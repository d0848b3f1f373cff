"""What is judged: an image, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from phosphene.networks.network import Network
from phosphene.units.objects import Unit


class SourceModel(NamedTuple):
    """A network that an image was made with; None where only its digest is known."""

    name: str
    digest: str
    network: Network | None


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """An image to judge.

    Attributes:
        name: for messages.
        image: as judges are shown it.
        pixels: as it is saved, 8 bits (height, width, channels).
        unit: what it shows, of `network`, or where that is None of the first judge.
        network: that it was made with, at its size.
        fed: what that network is shown, (channels, height, width) in 0..255.
        source_models: all networks that it was made with.
        photograph: that the unit refers to, like `fed`.
        selectors: names of the networks that chose it among several.
        tuned_on: names of the networks whose judgment a search maximized to find its recipe.
    """

    name: str
    image: Image.Image
    pixels: NDArray[np.uint8]
    unit: Unit
    network: Network | None
    fed: Tensor | None
    source_models: tuple[SourceModel, ...]
    photograph: Tensor | None = None
    selectors: tuple[str, ...] = ()
    tuned_on: tuple[str, ...] = ()

    @property
    def needs_reference(self) -> bool:
        return any(part.needs_reference for _, part in self.unit.terms())
