"""The photographs that excite any unit most, and what of them its most excited neuron sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.atlas.sheets import Box
from phosphene.atlas.top_photographs import crop_box
from phosphene.attribution.response import Response
from phosphene.attribution.sheet import plain_image
from phosphene.default_progress import counted
from phosphene.hardware import find_device
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.units.objects import Direction, Neuron, OneChannel, Part, Unit

COUNT = 5
_FRAME = (255, 220, 0)


@dataclass(frozen=True, eq=False)
class MarkedPhotograph:
    """A photograph, how active the unit is on it, and what of it the most excited neuron sees.

    Attributes:
        name: of its file, from the folder on.
        box: left, top, right and bottom, in pixels; all of it where a neuron sees all.
    """

    name: str
    image: Image.Image
    value: float
    box: Box

    def marked(self) -> Image.Image:
        """The photograph with a frame about the box, and what is outside faint."""
        if self.box == (0, 0, *self.image.size):
            return self.image
        faint = Image.blend(self.image, Image.new("RGB", self.image.size, "white"), 0.5)
        left, top, right, bottom = self.box
        faint.paste(self.image.crop(self.box), (left, top))
        width = max(1, round(min(self.image.size) / 112))
        ImageDraw.Draw(faint).rectangle((left, top, right - 1, bottom - 1), outline=_FRAME, width=width)
        return faint


def top_photographs(
    network: Network, unit: Unit, folder: Path, device: str | None = None, count: int = COUNT
) -> list[MarkedPhotograph]:
    """The photographs of a folder that excite a unit most, the most exciting first.

    They are read in batches, and no more of them are kept than are shown.

    Raises:
        InputError: there is no such folder, or no image in it that can be read.
    """
    response = Response(network, unit)
    where = network.device if device is None else find_device(device)
    best: list[tuple[float, str, Tensor]] = []
    photo_set = PhotoSet.of(folder)
    with (
        counted("photographs", total=len(photo_set.paths), doing=f"which excite {unit} most") as tally,
        network.borrowed(where),
        torch.no_grad(),
    ):
        for names, pixels in photo_set.counted_on(tally).batches(network.preprocessing):
            values = response(pixels.to(where)).tolist()
            kept = [
                (value, name, image) for value, name, image in zip(values, names, pixels, strict=True) if value == value
            ]
            best = sorted([*best, *kept], key=lambda each: (-each[0], each[1]))[:count]
        boxes = [_box(network, unit, image.to(where)) for _, _, image in best]
    return [
        MarkedPhotograph(name, _image(image), value, box) for (value, name, image), box in zip(best, boxes, strict=True)
    ]


def _image(pixels: Tensor) -> Image.Image:
    array = pixels.clamp(0, 255).byte().movedim(0, -1).contiguous().numpy()
    return plain_image(array)


def _box(network: Network, unit: Unit, pixels: Tensor) -> Box:
    """What the most excited neuron of a unit sees, where it has one."""
    size = pixels.shape[-2], pixels.shape[-1]
    terms = unit.terms()
    part = terms[0][1]
    if len(terms) > 1 or part.layer == LOGITS or len(network.layer(part.layer).positions) != 2:
        return 0, 0, size[1], size[0]
    map_ = _map_of(part, network.activations(pixels[None], part.layer)[part.layer][0])
    if map_ is None:
        return 0, 0, size[1], size[0]
    shape = tuple(map_.shape)
    place = int(np.ravel_multi_index(part.position, shape)) if isinstance(part, Neuron) else int(map_.argmax())
    return crop_box(size, place, shape, receptive_field(network, part.layer))


def _map_of(part: Part, activation: Tensor) -> Tensor | None:
    """Where a part of one layer is active, (rows, columns); None of those that are nowhere."""
    if isinstance(part, OneChannel):
        return activation[part.only]
    if isinstance(part, Direction):
        weights = torch.tensor(part.weights, device=activation.device, dtype=activation.dtype)
        along: Tensor = torch.tensordot(weights, activation, 1)
        return along
    return None
