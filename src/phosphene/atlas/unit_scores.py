"""What photographs and judges say of an atlas's hidden units: all units of a layer are judged together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.ascent.request import with_recipe_size
from phosphene.atlas.game import Pair, choose_photographs, make_pairs
from phosphene.atlas.plan import CLASSES, Group
from phosphene.atlas.rows import IndexRow, explanation_columns, key
from phosphene.atlas.site_data import SiteAtlas
from phosphene.atlas.storage import map_threaded
from phosphene.atlas.store import Store
from phosphene.default_progress import Tally, counted
from phosphene.errors import InputError
from phosphene.judges.hidden_units import LayerGroup, LayerScores, of_one_kind, score_layer, why_not_scored
from phosphene.judges.perception import FeatureSpace, PerceptualJudge
from phosphene.judges.perceptual_panel import perceptual_panel
from phosphene.judges.photo_responses import PhotoResponses, respond, respond_to_photographs
from phosphene.judges.photo_set import BATCH, PhotoSet
from phosphene.judges.self_metrics import path_card
from phosphene.networks.network import Network
from phosphene.pixels.resampling import resize
from phosphene.planes import from_pil, to_pil
from phosphene.recipes.recipe import Recipe
from phosphene.units.objects import Unit

OnImages = Callable[[int], None]
"""Is told how many more images are judged."""


@dataclass(frozen=True, eq=False)
class AtlasScores:
    """What is known of an atlas's hidden units from photographs.

    Attributes:
        rows: of their images, with the scores.
        pairs: by group, for each unit in its order, the pairs of the game.
        photographs: the indices of those in the pairs.
        names: of all photographs.
        judges: their names.
        unscored: why there are no explanation scores; empty if there are.
        gameless: why there is no game; empty if there is.
    """

    rows: list[IndexRow] = field(default_factory=list)
    pairs: dict[str, list[list[Pair]]] = field(default_factory=dict)
    photographs: list[int] = field(default_factory=list)
    names: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    unscored: str = ""
    gameless: str = ""


@dataclass(frozen=True, eq=False)
class AtlasLayer:
    """A layer of an atlas, its network at the size of its images, and what that says of the photographs."""

    group: Group
    units: list[Unit]
    rows: list[list[IndexRow]]
    network: Network
    photographs: PhotoResponses


@dataclass(frozen=True, eq=False)
class UnitScorer:
    """Scores the hidden units of atlases.

    Attributes:
        judges: as `perceptual_panel` takes them; an empty list asks none.
        spaces: by judge, what it makes of the photographs, as far as it was asked already.
    """

    photo_set: PhotoSet
    judges: Sequence[str] | None
    device: torch.device
    on_images: OnImages
    spaces: dict[str, FeatureSpace] = field(default_factory=dict)

    def score(self, atlas: SiteAtlas) -> AtlasScores:
        """Scores of all images of hidden units of an atlas with its network.

        The photographs go once through each judge, and once through the network.

        Raises:
            InputError: a judge that is named is related to the network, or cannot judge.
        """
        if all(group.name == CLASSES for group, _ in atlas.groups):
            return AtlasScores()
        if missing := why_not_scored(len(self.photo_set.paths)):
            return AtlasScores(unscored=missing, gameless=missing)
        panel, unscored = _open_panel(atlas, self.judges)
        with torch.no_grad(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
            with counted("photographs shown", doing=f"to {atlas.plan.network} and the judges") as tally:
                layers = respond_by_layers(atlas, self.photo_set, self.device, tally)
                if missing := why_not_scored(len(layers[0].photographs.names)):
                    return AtlasScores(unscored=missing, gameless=missing)
                spaces = [self.space(judge, tally) for judge in panel]
            if missing := next(filter(None, map(of_one_kind, spaces)), ""):
                spaces, unscored = [], missing
            scored = [_score(layer, spaces, atlas.store, self.device, self.on_images) for layer in layers]
        return _collect(layers, scored, tuple(space.judge.name for space in spaces), unscored)

    def space(self, judge: PerceptualJudge, tally: Tally) -> FeatureSpace:
        if judge.name not in self.spaces:
            tally.expect(len(self.photo_set.paths))
            self.spaces[judge.name] = FeatureSpace.of(judge, self.photo_set.counted_on(tally), self.device)
        return self.spaces[judge.name]


def _collect(
    layers: Sequence[AtlasLayer],
    scored: Sequence[tuple[LayerGroup, LayerScores, list[IndexRow]]],
    judges: tuple[str, ...],
    unscored: str,
) -> AtlasScores:
    names = layers[0].photographs.names
    kept = choose_photographs([each for group, _, _ in scored for each in group.trials], len(names))
    pairs = {
        layer.group.name: _pairs(layer, group, scores, set(kept))
        for layer, (group, scores, _) in zip(layers, scored, strict=True)
    }
    return AtlasScores([row for _, _, rows in scored for row in rows], pairs, kept, names, judges, unscored)


def _open_panel(atlas: SiteAtlas, judges: Sequence[str] | None) -> tuple[list[PerceptualJudge], str]:
    """The judges, and why there are none."""
    assert atlas.network is not None
    if judges is not None:
        return perceptual_panel(atlas.network, judges), "" if judges else "no judge was asked"
    found = [Recipe.from_dict(group.recipe).found for group, _ in atlas.groups if group.name != CLASSES]
    tuned_on = {name for each in found if each is not None for name in each.judges}
    try:
        return perceptual_panel(atlas.network, None, tuned_on), ""
    except InputError as error:  # none is installed, or all are related
        return [], str(error)


def respond_by_layers(
    atlas: SiteAtlas, photo_set: PhotoSet, device: torch.device, tally: Tally | None = None
) -> list[AtlasLayer]:
    """What the network says of the photographs at the size of the images: one pass, unless they are of several.

    Args:
        tally: that photographs count on.
    """
    assert atlas.network is not None
    hidden = [(group, rows) for group, rows in atlas.groups if group.name != CLASSES]
    networks = [with_recipe_size(atlas.network, Recipe.from_dict(group.recipe)) for group, _ in hidden]
    units = [[group.unit(each[0]["index"], atlas.network) for each in rows] for group, rows in hidden]
    by_size: dict[Any, PhotoResponses] = {}
    if tally is not None:
        tally.expect(len({network.preprocessing.size for network in networks}) * len(photo_set.paths))
        photo_set = photo_set.counted_on(tally)
    for network in networks:
        size = network.preprocessing.size
        if size not in by_size:
            of_size = [
                unit
                for other, many in zip(networks, units, strict=True)
                if other.preprocessing.size == size
                for unit in many
            ]
            with network.borrowed(device):
                by_size[size] = respond_to_photographs(network, of_size, photo_set, device)
    return [
        AtlasLayer(group, many, rows, network, by_size[network.preprocessing.size])
        for (group, rows), many, network in zip(hidden, units, networks, strict=True)
    ]


def _score(
    layer: AtlasLayer, spaces: Sequence[FeatureSpace], store: Store, device: torch.device, on_images: OnImages
) -> tuple[LayerGroup, LayerScores, list[IndexRow]]:
    """The scores of a layer's images, and their rows with these."""
    rows = [row for each in layer.rows for row in each]
    placed, paths = _read(rows, layer, spaces, store, device, on_images)
    places = iter(range(len(rows)))
    members = [[next(places) for _ in each] for each in layer.rows]
    group = LayerGroup(layer.units, members, layer.photographs, placed)
    scores = score_layer(group, spaces) if spaces else LayerScores({}, {})
    found = []
    for unit, images in zip(layer.units, members, strict=True):
        values = layer.photographs.values(unit)
        for i in images:
            path = path_card({name: each[i] for name, each in paths.items()}, layer.photographs, values)
            columns = explanation_columns({**scores.cards.get(i, {}), **path})
            # Where no judge is asked, what others have said before stays.
            found.append(rows[i] | (columns if spaces else {"path_similarity": columns["path_similarity"]}))
    return group, scores, found


def _read(
    rows: Sequence[IndexRow],
    layer: AtlasLayer,
    spaces: Sequence[FeatureSpace],
    store: Store,
    device: torch.device,
    on_images: OnImages,
) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Where judges place images, and how these go through their own network; each is read once, some at a time.

    Returns:
        By judge, for each depth (images, features); and by layer (images, channels).
    """
    placed: list[list[list[Tensor]]] = []
    paths: list[dict[str, Tensor]] = []
    network, path = layer.network, list(layer.photographs.responses.paths)
    with ExitStack() as stack:
        for each in (network, *(space.judge.network for space in spaces)):
            stack.enter_context(each.borrowed(device))
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            images, fed = _decode(part, network, store)
            placed.append([space.place(images, device) for space in spaces])
            pixels = resize(fed.to(device), network.preprocessing.size)  # type: ignore[arg-type]
            paths.append(respond(network, [], pixels, path).paths)
            on_images(len(part))
    by_judge = {
        space.judge.name: [torch.cat(depth) for depth in zip(*(batch[i] for batch in placed), strict=True)]
        for i, space in enumerate(spaces)
    }
    return by_judge, {name: torch.cat([batch[name] for batch in paths]) for name in path}


def _decode(rows: Sequence[IndexRow], network: Network, store: Store) -> tuple[list[Image.Image], Tensor]:
    """Images as judges are shown them, and as their network is: (images, channels, height, width)."""
    channels = network.preprocessing.channels
    pixels = []
    for row, image in zip(rows, map_threaded(store.image, rows), strict=True):
        found = from_pil(image, channels)
        if found is None:
            raise InputError(f"{row['file']} of {store.place!r} has no {channels} channels: expected it as it was made")
        pixels.append(found)
    fed = torch.stack([torch.tensor(each).movedim(-1, 0).float() for each in pixels])
    return list(map(to_pil, pixels)), fed


def _pairs(layer: AtlasLayer, group: LayerGroup, scores: LayerScores, kept: set[int]) -> list[list[Pair]]:
    pairs = []
    for place, unit in enumerate(layer.units):
        evidence = {name: (first[place], second[place]) for name, (first, second) in scores.evidence.items()}
        values = layer.photographs.values(unit)
        pairs.append(make_pairs(group.trials[place], kept, values, evidence, str(unit)))
    return pairs


def with_scores(atlas: SiteAtlas, scores: AtlasScores) -> SiteAtlas:
    """The atlas with the rows that have scores in place of those that have not."""
    scored = {key(row): row for row in scores.rows}
    groups = [(group, [[scored.get(key(row), row) for row in rows] for rows in units]) for group, units in atlas.groups]
    return replace(atlas, groups=groups)
