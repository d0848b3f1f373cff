"""How an image was made, kept in the image's own file, and the image made again from it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from phosphene.ascent import Progress, ascend
from phosphene.errors import InputError
from phosphene.networks import Network, open_network
from phosphene.picture import Picture, decoded, to_pil
from phosphene.recipe import Recipe

KEY = "phosphene"


def png_info(picture: Picture) -> PngInfo:
    """The text that a picture's PNG carries."""
    info = PngInfo()
    provenance = picture.provenance()
    info.add_text("Title", f"{picture.label} ({picture.network.name}, {picture.recipe.name})")
    info.add_text("Software", f"phosphene {provenance['versions']['phosphene']}")
    # Not compressed: readers refuse a compressed text of over a mebibyte, as a large start image makes it.
    info.add_itxt(KEY, json.dumps(provenance, ensure_ascii=False))
    return info


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What a PNG made by phosphene says of itself.

    Returns:
        A dictionary with "unit", "label", "seed", "recipe", "network", "steps", "stopped", "batches", "scores",
        "device", "threads", "versions" and, where the ascent started from a given image, "start".

    Raises:
        InputError: there is no such file, it is no image, or it carries nothing of phosphene's.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Any], Image.Image]:
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(KEY)
    except FileNotFoundError:
        raise InputError(f"image {str(path)!r}: there is no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {str(path)!r} cannot be read: it is no image file, or a damaged one") from error
    if text is None:
        raise InputError(
            f"image {str(path)!r} does not say how it was made: expected a PNG that phosphene wrote, unchanged"
        )
    try:
        provenance = json.loads(text)
        needed = {
            "unit",
            "label",
            "seed",
            "recipe",
            "network",
            "steps",
            "stopped",
            "batches",
            "scores",
            "device",
            "threads",
        }
        if not isinstance(provenance, dict) or not needed <= provenance.keys():
            raise ValueError
    except ValueError:
        raise InputError(f"what image {str(path)!r} says of itself is damaged") from None
    return provenance, image


def _fed(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What decides how pixels are fed, but for the size, which the recipe may change; as JSON holds it."""
    names = ("mean", "std", "value_range", "channel_order", "channels", "layout")
    return {name: json.loads(json.dumps(preprocessing[name])) for name in names}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Again:
    """A picture made again, and whether it is the same to the last byte."""

    picture: Picture
    same: bool


def again(
    path: str | Path,
    network: Network | None = None,
    *,
    device: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Again:
    """Make an image again from its file alone.

    It is made with as many threads as at first, and by itself; only if that comes out otherwise in batches of the size
    it was first made in.  The last bits of the arithmetic may depend on both.

    Args:
        path: a PNG made by phosphene.
        network: the network it was made with, where that was one of your own; by default it is opened by name.
        device: by default the kind of device it was made on.
        on_progress: as for `ascend`.

    Raises:
        InputError: the file cannot be read, or the network is another one, or cannot be opened by name.
    """
    provenance, image = _read(Path(path))
    known = provenance["network"]
    if network is None:
        if known["source"] is None:
            raise InputError(
                f"image {str(path)!r} was made with a network of its maker's own ({known['name']}): open it and call "
                "phosphene.again(image, network)"
            )
        network = open_network(**known["source"])
    if network.digest != known["weights"]:
        raise InputError(
            f"image {str(path)!r} was made with {known['name']} of weights {known['weights']}, and these "
            f"({network.name}) are {network.digest}"
        )
    fed, feeds = _fed(known["input"]), _fed(asdict(network.preprocessing))
    if fed != feeds:
        name = next(key for key in feeds if fed.get(key) != feeds[key])
        raise InputError(
            f"image {str(path)!r} was made with a network fed otherwise: {name} {fed.get(name)}, and here {feeds[name]}"
        )
    wanted = np.asarray(image)
    batches = [[int(size), int(steps)] for size, steps in provenance["batches"]]
    attempts = [[[min(size, 2), steps] for size, steps in batches], batches]
    for attempt in attempts[: 1 if attempts[0] == attempts[1] else 2]:
        with _threads(int(provenance["threads"])):
            (picture,) = ascend(
                network,
                provenance["unit"],
                Recipe.from_dict(provenance["recipe"]),
                seed=provenance["seed"],
                start=decoded(provenance["start"]) if "start" in provenance else None,
                device=device or provenance["device"],
                on_progress=on_progress,
                batches=attempt,
            )
        same = np.array_equal(np.asarray(to_pil(picture.pixels)), wanted)
        if same:
            break
    return Again(replace(picture, name=Path(path).stem, batches=batches), same)
