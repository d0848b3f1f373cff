"""What a picture does to a network beside what photographs do to it, layer by layer.

A picture that excites a unit may do so by a way through the network that no photograph takes (Geirhos et al. 2023,
"Don't trust your eyes: on the (un)reliability of feature visualizations").  Where their ways part is seen in which
channels are active, in how active all of them are, and in how many are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from phosphene import defaults
from phosphene.api.ascend import ascend
from phosphene.comparison.pictures_figure import MOST_SHOWN
from phosphene.comparison.pictures_match import MatchSettings, match_photograph
from phosphene.comparison.pictures_reading import (
    LayerResponse,
    compared_layers,
    picture_pixels,
    respond_to_images,
    shuffled_pixels,
)
from phosphene.comparison.pictures_report import ImageComparison, ShownChannel
from phosphene.comparison.pictures_rows import (
    LEAST_FOR_SPREAD,
    LEAST_TO_NORMALIZE,
    PictureRow,
    compare_layer,
    departure,
    summarize_paths,
)
from phosphene.default_progress import Tally, counted
from phosphene.errors import InputError
from phosphene.judges.card_files import images_in
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.photographs.decoding import decode_batches
from phosphene.planes import to_pil
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Channel

Images = str | Path | Sequence[str | Path]
"""A file, a folder, or several files."""

MOST_PICTURES = 256
_BATCH = 16
_SHUFFLED, _OTHERS = "photographs with their pixels shuffled", "photographs of other things"
_A_LAYER = 2  # channels of a layer that are pictured


def compare_images(
    pictures: Images,
    photographs: Images,
    network: Network | str = defaults.NETWORK,
    *,
    layers: Sequence[str] | None = None,
    others: Images | None = None,
    channels: int = 0,
    recipe: str | Recipe = "draft",
    match: MatchSettings | None = None,
) -> ImageComparison:
    """Compare what pictures and photographs do to a network.

    Args:
        pictures: a file, a folder, or files.  One of the network's own size is shown whole; others as photographs are.
        photographs: of what the pictures are to show.
        network: whatever `phosphene.open` takes; it is handed back as it came.
        layers: names or patterns; by default some blocks or activations (see `depth_layers`).  The logits are the last.
        others: photographs of other things: with them the path similarity is that of Geirhos et al. 2023, whose 0 is
            what photographs of other classes are like; without, 0 is what the photographs are like with their pixels
            shuffled.
        channels: so many of the channels that differ most get their own pictures.
        recipe: of these pictures.
        match: climb a picture that matches the first photograph at some layers, too.

    Raises:
        InputError: there is no such file, folder or layer, an image cannot be read, or a match cannot be climbed.
    """
    opened = network if isinstance(network, Network) else open_network(network)
    names = compared_layers(opened, layers)
    made, real = _files(pictures, made=True), _files(photographs)
    if len(made) > MOST_PICTURES:
        raise InputError(f"{len(made)} pictures: expected {MOST_PICTURES} at most")
    pixels = torch.stack([picture_pixels(path, opened.preprocessing) for path in made])
    first = next(decode_batches(list(real), opened.preprocessing, MOST_SHOWN)).pixels
    zero = _SHUFFLED if others is None else _OTHERS
    read: list[Path] = []
    beside = None if others is None else list(_files(others))
    count = len(made) + len(real) + len(beside or ())
    with counted("pictures and photographs", total=count, doing=f"{len(names)} layers of {opened.name}") as tally:
        responses = _respond(opened, names, pixels, _photographs(list(real), opened, read, tally), beside, tally)
    rows = [compare_layer("logits" if name == LOGITS else name, *(each[name] for each in responses)) for name in names]
    climbed = None
    if match is not None:
        climbed = match_photograph(opened, first[0], names, shuffled_pixels(first[:1])[0], match)
    return ImageComparison(
        network=opened.name,
        weights=opened.digest,
        pictures=list(made.values()),
        photographs=[real[path] for path in read],
        zero=zero,
        rows=rows,
        departure=departure(rows),
        summary=summarize_paths(rows, zero),
        notes=_notes(len(read), zero, [name for path, name in real.items() if path not in read]),
        thumbnails=(_images(pixels[:MOST_SHOWN]), _images(first)),
        channels=_picture_channels(opened, rows, channels, recipe),
        match=climbed,
    )


def _files(images: Images, made: bool = False) -> dict[Path, str]:
    """Files and those of folders, and what to call each; one that is given twice is one.

    Args:
        made: of a folder in which some images are phosphene's, these alone are taken: a grid of them is none.
    """
    found: dict[Path, str] = {}
    for each in [images] if isinstance(images, str | Path) else images:
        photo_set = PhotoSet.of(each if Path(each).is_dir() else [each])
        ours = _made_in(Path(each)) if made and Path(each).is_dir() else []
        for path, name in zip(photo_set.paths, photo_set.names, strict=True):
            if not ours or path in ours:
                found.setdefault(path.resolve(), name)
    if not found:
        raise InputError("no image is given: expected a file or a folder")
    return found


def _made_in(folder: Path) -> list[Path]:
    try:
        return images_in(folder)
    except InputError:  # none
        return []


def _photographs(paths: Sequence[Path], network: Network, read: list[Path], tally: Tally) -> Iterator[Tensor]:
    """Those that can be read, as the network is shown them: (rows, channels, height, width) in 0..255, some at a time.

    Args:
        read: which these are is added to it.
    """
    done = 0
    for batch in decode_batches(paths, network.preprocessing, _BATCH):
        read += [paths[index] for index in batch.indices]
        yield batch.pixels
        tally.add(batch.done - done)
        done = batch.done


def _respond(
    network: Network, layers: Sequence[str], pixels: Tensor, photographs: Iterator[Tensor], others: list[Path] | None,
    tally: Tally,
) -> tuple[Mapping[str, LayerResponse], ...]:  # fmt: skip
    """What the pictures, the photographs and the zero set do."""
    with network.borrowed(network.device), torch.no_grad():
        made = respond_to_images(network, layers, torch.split(pixels, _BATCH))
        tally.add(len(pixels))
        if others is not None:
            both = (photographs, _photographs(others, network, [], tally))
            real, zero = (respond_to_images(network, layers, batches) for batches in both)
            return made, real, zero
        parts = [
            [respond_to_images(network, layers, [images]) for images in (batch, shuffled_pixels(batch))]
            for batch in photographs
        ]
    real, zero = (
        {name: LayerResponse.join([part[which][name] for part in parts]) for name in layers} for which in (0, 1)
    )
    return made, real, zero


def _images(pixels: Tensor) -> list[Image.Image]:
    return [to_pil(row.round().clamp(0, 255).byte().movedim(0, -1).numpy()) for row in pixels]


def _picture_channels(
    network: Network, rows: Sequence[PictureRow], count: int, recipe: str | Recipe
) -> list[ShownChannel]:
    """The channels that differ most, two of a layer at most, with their own pictures; not the logits."""
    found = sorted(
        ((row.layer, each) for row in rows if row.layer != "logits" for each in row.differences[:_A_LAYER]),
        key=lambda pair: -abs(pair[1].difference),
    )[:count]
    if not found:
        return []
    units = [Channel(layer, each.channel) for layer, each in found]
    result = ascend(network, units, recipe)
    if result.interrupted:
        raise KeyboardInterrupt
    shown = zip(found, result.pictures, strict=True)
    return [ShownChannel(layer, each.channel, each.difference, picture) for (layer, each), picture in shown]


def _notes(count: int, zero: str, unreadable: Sequence[str]) -> list[str]:
    notes = [f"path similarity: 1 as photographs are among themselves, 0 as {zero}; where that cannot be told, nothing"]
    if count < LEAST_TO_NORMALIZE:
        notes = [
            f"{count} photograph{'s' * (count > 1)}: too few to say what photographs are like among themselves "
            f"(expected {LEAST_TO_NORMALIZE} or more), so correlations are plain"
        ]
    if count < LEAST_FOR_SPREAD:
        notes.append(
            f"fewer than {LEAST_FOR_SPREAD} photographs have no spread: differences of channels are over the root mean "
            "square of their layer"
        )
    if unreadable:
        notes.append(f"left out, since they cannot be read: {len(unreadable)}, such as {unreadable[0]}")
    return notes
