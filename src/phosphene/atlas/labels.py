"""Words that name an atlas's hidden units, in its index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from phosphene.atlas.plan import CLASSES
from phosphene.atlas.rows import IndexRow, word_columns
from phosphene.atlas.site_data import SiteAtlas
from phosphene.atlas.store import Store
from phosphene.atlas.unit_scores import respond_by_layers
from phosphene.default_progress import ProgressOption, counted
from phosphene.errors import InputError
from phosphene.judges.photo_set import PhotoSet
from phosphene.judges.word_names import WordName, open_namer
from phosphene.networks.network import Network
from phosphene.networks.text import TEMPLATES


@dataclass(frozen=True)
class LabelReport:
    """The words that name an atlas's hidden units.

    Attributes:
        names: by unit, as units are spelled.
        photographs: how many there were.
        top: how many of a unit count.
        null: what the best word's score stays below by chance.
        by: the network of images and texts.
    """

    names: dict[str, WordName]
    photographs: int
    top: int
    null: float
    by: str

    @property
    def named(self) -> int:
        """How many units a word names."""
        return sum(name.named for name in self.names.values())


def label_units(
    store: Store,
    network: Network,
    encoder: Network,
    words: Sequence[str],
    photographs: str | Path,
    *,
    templates: Sequence[str] = TEMPLATES,
    top: int | None = None,
    on_progress: ProgressOption = None,
) -> LabelReport:
    """Name the hidden units of an atlas by words, and keep the names in its index (see `judges.word_names`).

    The page has them when it is written the next time.

    Args:
        network: the plan's.
        encoder: a network of images and texts.
        photographs: a folder.
        top: how many photographs of a unit count.
        on_progress: called with how many words and photographs are encoded, and of how many; by default
            bars, also of what the network is shown; False: nothing.

    Raises:
        InputError: the atlas has no hidden unit, the encoder no text tower, or there are too few photographs.
    """
    atlas = SiteAtlas.of(store, network, "")
    if all(group.name == CLASSES for group, _ in atlas.groups):
        raise InputError(f"{store.place!r} has classes only, which have names: expected an atlas of hidden units")
    photo_set = PhotoSet.of(photographs)
    device = network.device
    total = len(words) + len(photo_set.paths)
    with counted("words and photographs", on_progress, total, doing=encoder.name) as tally:
        namer = open_namer(
            encoder, words, photo_set, templates=templates, top=top, device=encoder.device, on_progress=tally.add
        )
    with (
        counted("photographs", None if on_progress is None else False, doing=network.name) as tally,
        torch.no_grad(),
        torch.backends.cudnn.flags(benchmark=False, deterministic=True),
    ):
        layers = respond_by_layers(atlas, photo_set, device, tally)
    places = {name: place for place, name in enumerate(namer.photographs)}
    names: dict[str, WordName] = {}
    rows: list[IndexRow] = []
    for layer in layers:
        readable = [i for i, name in enumerate(layer.photographs.names) if name in places]
        order = torch.tensor([places[layer.photographs.names[i]] for i in readable])
        for unit, images in zip(layer.units, layer.rows, strict=True):
            values = torch.full((len(places),), -torch.inf)
            values[order] = layer.photographs.values(unit)[readable]
            found = names[images[0]["unit"]] = namer.name(values)
            rows += [row | word_columns(found, encoder.name) for row in images]
    store.update(rows)
    return LabelReport(names, len(places), namer.top, namer.null, encoder.name)
