"""Among words, which come nearest to a finished image of a text, and how near its own text comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.judges.image_reader import ImageReader, networks_at_hand
from phosphene.judges.judged_image import JudgedImage
from phosphene.networks.layers import OUTPUT
from phosphene.networks.network import Network
from phosphene.picture import Picture
from phosphene.pixels.resampling import resize
from phosphene.units.objects import Text

_NEAREST = 5


def rank_words(
    images: str | Path | Picture | Sequence[str | Path | Picture],
    words: Sequence[str],
    *,
    network: Network | Sequence[Network] | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
) -> list[dict[str, Any]]:
    """The selectivity of images of texts: the rank of each one's own text among words, by the cosine with the image.

    Words are put into the templates of the image's text.  The network is the one that the image was made with: a rank
    of 1 says that it does not take the image for any of these words instead, and not that a person sees the text.

    Args:
        images: pictures, or PNGs that phosphene saved.
        words: to compare with; the image's own text counts besides.
        network: as for `judge`.
        trust: as for `judge`.
        device: by default a GPU where there is one.

    Returns:
        For each image, what a score card has: {"selectivity": {"rank", "of"}, "nearest_words": [[word, cosine], …]};
        {} of an image of no text.

    Raises:
        InputError: an image or its network cannot be had, or a word is too long for the text tower.
    """
    where = find_device(device)
    sources = [images] if isinstance(images, str | Path | Picture) else list(images)
    reader = ImageReader(networks_at_hand(images, network), [], trust)
    return [_ranked(reader.read_any(source, None), words, where) for source in sources]


def _ranked(image: JudgedImage, words: Sequence[str], device: torch.device) -> dict[str, Any]:
    unit, network = image.unit, image.network
    if not isinstance(unit, Text) or network is None:
        return {}
    if network.texts is None:
        raise InputError(f"{image.name} shows {unit}, and {network.name} has no text tower: expected clip:MODEL")
    assert image.fed is not None
    others = [word for word in dict.fromkeys(words) if word != unit.text]
    vectors = network.texts.vectors([unit.text, *others], unit.templates, device)
    with network.borrowed(device), torch.no_grad():
        fed = resize(image.fed.to(device)[None], network.preprocessing.size)  # type: ignore[arg-type]
        embedded = network.activations(fed, OUTPUT)[OUTPUT][0].float().cpu()
    cosines = vectors @ torch.nn.functional.normalize(embedded, dim=0)
    rank = 1 + int((cosines[1:] > cosines[0]).sum())
    best = cosines.topk(min(_NEAREST, len(cosines)))
    named = [unit.text, *others]
    nearest = [[named[index], value] for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    return {"selectivity": {"rank": rank, "of": len(cosines)}, "nearest_words": nearest}
