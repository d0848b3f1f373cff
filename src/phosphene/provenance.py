"""How an image was made, kept in the image's own file, and the image made again from it alone."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from phosphene.ascent import ascend
from phosphene.errors import InputError
from phosphene.interruption import whole
from phosphene.loop import OnStep, Progress
from phosphene.networks import Network, open_network
from phosphene.picture import Picture, decoded
from phosphene.priors import natural_statistics
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
        "device", "threads", "precision", "versions" and, where the ascent started from a given image, "start", and
        where its recipe was changed on the way, "changes".

    Raises:
        InputError: there is no such file, it is no image, or it carries nothing of phosphene's.
    """
    return _read(Path(path))[0]


def with_provenance(png: bytes, provenance: dict[str, Any]) -> bytes:
    """A PNG's bytes with another provenance in it, and all else as it is."""
    # An iTXt chunk: keyword, not compressed, neither language nor translated keyword.
    text = KEY.encode() + b"\0" * 5 + json.dumps(provenance, ensure_ascii=False).encode()
    pieces, at, written = [png[:8]], 8, False
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, end = png[at + 4 : at + 8], at + 12 + length
        if kind in (b"tEXt", b"zTXt", b"iTXt") and png[at + 8 :].startswith(KEY.encode() + b"\0"):
            if not written:
                body = b"iTXt" + text
                pieces.append(struct.pack(">I", len(text)) + body + struct.pack(">I", zlib.crc32(body)))
            written = True
        else:
            pieces.append(png[at:end])
        at = end
        if kind == b"IEND":
            break
    return b"".join([*pieces, png[at:]])


def load(path: str | Path) -> tuple[Image.Image, dict[str, Any] | None]:
    """An image file, and its provenance, or None where it carries nothing of phosphene's.

    Raises:
        InputError: there is no such file, it is no image, or its provenance is damaged.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(KEY)
    except FileNotFoundError:
        raise InputError(f"image {str(path)!r}: there is no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {str(path)!r} cannot be read: it is no image file, or a damaged one") from error
    if text is None:
        return image, None
    try:
        return image, parsed(text)
    except ValueError:
        raise InputError(f"what image {str(path)!r} says of itself is damaged") from None


_NEEDED = {
    "unit", "label", "seed", "recipe", "network", "steps", "stopped", "batches", "scores", "device", "threads",
}  # fmt: skip


def parsed(text: str) -> dict[str, Any]:
    """A provenance from the text that a PNG carries under `KEY`; raises a `ValueError` where it is none."""
    provenance = json.loads(text)
    if not isinstance(provenance, dict) or not provenance.keys() >= _NEEDED:
        raise ValueError("it lacks what every provenance has")
    if not all(isinstance(provenance[name], dict) for name in ("recipe", "network", "scores")):
        raise ValueError("its recipe, network or scores are no tables")
    return provenance


def _read(path: Path) -> tuple[dict[str, Any], Image.Image]:
    image, provenance = load(path)
    if provenance is None:
        raise InputError(
            f"image {str(path)!r} does not say how it was made: expected a PNG that phosphene wrote, unchanged"
        )
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


def made_with(path: str | Path, known: dict[str, Any], network: Network | None, call: str) -> Network:
    """A network that an image was made with: the one given, or the one that the image names.

    Args:
        path: of the image.
        known: what its provenance says of the network.
        network: the caller's, or None.
        call: what to call with a network of one's own, for the message.

    Raises:
        InputError: it is another network, is fed otherwise, or cannot be opened by name.
    """
    if network is None:
        return _opened(path, known, call)
    _check_same(path, known, network)
    return network


def _opened(path: str | Path, known: dict[str, Any], call: str = "phosphene.again(image, network)") -> Network:
    """A network that an image names, opened by its source."""
    if known["source"] is None:
        raise InputError(
            f"image {str(path)!r} was made with a network of its maker's own ({known['name']}): open it and call {call}"
        )
    network = open_network(**known["source"])
    _check_same(path, known, network)
    return network


def _check_same(path: str | Path, known: dict[str, Any], network: Network) -> None:
    """Raise an `InputError` unless the network is the one that the image names."""
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


def _check_statistics(path: str | Path, known: list[str], networks: list[Network], recipe: Recipe) -> None:
    """Raise an `InputError` unless the statistics that the image was pulled towards are the ones there are here."""
    settings = recipe.priors.statistics
    for network, wanted in zip(networks, known, strict=False):
        found = natural_statistics(network, settings.source)[1] if settings else ""
        if found != wanted:
            raise InputError(
                f"image {str(path)!r} was made with the statistics {wanted or 'of none'} of {network.name}, and here "
                f"are {found or 'none'}: see `phosphene statistics`"
            )


def _replayed(changes: list[list[Any]]) -> OnStep | None:
    """Makes the changes that were made on the way: [step, field, value]."""
    if not changes:
        return None
    return lambda step: step.recipe.changed({field: value for at, field, value in changes if at == step.step})


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
        KeyboardInterrupt: on Ctrl-C or SIGTERM; half an image is none made again.
    """
    provenance, image = _read(Path(path))
    known = provenance["network"]
    if network is None:
        network = _opened(path, known)
    _check_same(path, known, network)
    others = [_opened(path, entry) for entry in provenance.get("ensemble", [])]
    facet, facets = provenance.get("facet", (0, 1))
    recipe = Recipe.from_dict(provenance["recipe"])
    _check_statistics(path, provenance.get("statistics", []), [network, *others], recipe)
    wanted = np.asarray(image)
    batches = [[int(size), int(steps)] for size, steps in provenance["batches"]]
    attempts = [[[min(size, max(2, facets)), steps] for size, steps in batches], batches]
    for attempt in attempts[: 1 if attempts[0] == attempts[1] else 2]:
        with _threads(int(provenance["threads"])):
            result = ascend(
                [network, *others],
                provenance["unit"],
                recipe,
                seed=provenance["seed"] - facet,
                start=decoded(provenance["start"]) if "start" in provenance else None,
                photograph=decoded(provenance["photograph"]) if "photograph" in provenance else None,
                facets=facets,
                device=device or provenance["device"],
                on_progress=on_progress,
                on_step=_replayed(provenance.get("changes", [])),
                precision=provenance.get("precision", "fp32"),
                batches=attempt,
            )
            picture = whole(result)[facet]
        same = np.array_equal(np.asarray(picture.image()), wanted)
        if same:
            break
    # What judges said of the image holds for the same image, and for no other.
    scores = {**provenance["scores"], **picture.scores} if same else picture.scores
    return Again(replace(picture, name=Path(path).stem, batches=batches, scores=scores), same)
