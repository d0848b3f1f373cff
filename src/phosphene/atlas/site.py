"""The atlas as a page: a static site that needs no server, and asks nobody for anything.

index.html in the atlas's root leads to the images and explanations where they are; a folder in site/ has the script,
the style, the data and sheets of small images, and the images of another atlas that is shown beside this one.  Each
writing has a folder of its own, so that the page before is whole until the new one is.  The whole directory can be put
anywhere.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image

from phosphene.atlas import map_files
from phosphene.atlas.dictionaries import find, nearest_classes
from phosphene.atlas.explanations import INDEX, write_list
from phosphene.atlas.game import pair_values, thumbnail
from phosphene.atlas.group_values import is_computed
from phosphene.atlas.map_site import map_values
from phosphene.atlas.plan import CLASSES, Group
from phosphene.atlas.relations import Alike, Feeds, find_relations
from phosphene.atlas.rows import BUCKET, IndexRow, digest, files_of
from phosphene.atlas.sheets import THUMB, frame_crops, jpeg, make_preview, make_sheets, preview_tile
from phosphene.atlas.site_data import (
    COLUMNS,
    SiteAtlas,
    UnitLinks,
    class_labels,
    is_dead,
    layer_shapes,
    matched_groups,
    network_names,
    public_name,
    to_script,
    unit_values,
)
from phosphene.atlas.storage import map_threaded
from phosphene.atlas.store import Store
from phosphene.atlas.top_photographs import TopPhotographs, decode
from phosphene.atlas.unit_map import read_unit_map
from phosphene.atlas.unit_scores import AtlasScores, UnitScorer, with_scores
from phosphene.comparison.match_file import MatchFile
from phosphene.default_progress import ProgressOption, Tally, counted
from phosphene.draw.film import FILM_COLUMNS
from phosphene.errors import InputError, input_errors_for, join_names
from phosphene.judges.explanation import MIN_PHOTOGRAPHS
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.labels import pair_classes
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe

_PAGE = resources.files("phosphene") / "atlas" / "page"

_PREVIEWED = 8  # images of each group, at most, that the page's preview may show

_NO_PHOTOGRAPHS = f"the page was written without photographs: --photographs, of at least {MIN_PHOTOGRAPHS}, brings it"


@dataclass(frozen=True)
class Beside:
    """Another atlas, that is shown beside one.

    Attributes:
        network: its plan's; None: that is left out.
        match: which units of the two networks belong together; by default those of one index.
    """

    store: Store
    network: Network | None = None
    match: MatchFile | None = None


@dataclass(frozen=True)
class Publication:
    """What a page says of itself where it is published.

    Attributes:
        title: of the atlas, for its reader and for who cites it; empty: the networks' names.
        url: the address where the page will be, without which previews of it have no picture in most programs.
    """

    title: str = ""
    url: str = ""


@dataclass(frozen=True)
class PageReport:
    """A page that was written.

    Attributes:
        address: of it.
        scored: how many images of hidden units have been scored, of the atlas itself.
        judges: who did; none where there is no explanation score.
        unscored: why there is none, where photographs were given.
        notes: why some explanations are not on it, in sentences.
    """

    address: str
    scored: int = 0
    judges: tuple[str, ...] = ()
    unscored: str = ""
    notes: tuple[str, ...] = ()


def write_site(
    store: Store,
    *,
    network: Network | None = None,
    photographs: str | Path | None = None,
    judges: Sequence[str] | None = None,
    beside: Beside | None = None,
    publication: Publication | None = None,
    device: Any = "cpu",
    on_progress: ProgressOption = None,
) -> PageReport:
    """Write the page of an atlas, of all units that are there by the plan's recipes.

    Args:
        network: the plan's, to tell which units are alike and which classes they make likelier; None: that is left out.
        photographs: a folder; of each unit those are shown that excite it most, cut to what the most excited neuron
            sees.  Needs the network.  By at least 100 images of hidden units are scored, in the index too.
        judges: of hidden units, as `perceptual_panel` takes them.
        beside: another atlas, to be browsed and compared on the same page; its images are copied.
        publication: its title, and where it will be.
        device: where the networks run.
        on_progress: called with how many images are judged and in the sheets, and of how many; by default a bar,
            with others of the photographs; False: nothing.

    Raises:
        InputError: there is no atlas, it has no image yet, or it cannot be written; or there are no photographs; or the
            other atlas is the same one, or has no image; or a judge is related to a network, or cannot judge; or a
            match is of other networks or layers.
    """
    if beside is not None and (beside.store.root, beside.store.fs) == (store.root, store.fs):
        raise InputError(f"{store.place!r} beside itself: expected another atlas")
    folder = f"site/{uuid.uuid4().hex[:8]}"
    atlases = [SiteAtlas.of(store, network, "")]
    if beside is not None:
        atlases.append(SiteAtlas.of(beside.store, beside.network, f"{folder}/beside/"))
    matches = [] if beside is None or beside.match is None else matched_groups(atlases, beside.match)
    known = network or (beside and beside.network)
    photo_set = None if photographs is None or not known else PhotoSet.of(photographs)
    try:
        with counted(
            "images", on_progress, _image_count(atlases, photo_set), doing="judged, and put in sheets"
        ) as tally:
            site = _Site(store, folder, tally, matches, publication or Publication())
            scores = [AtlasScores(gameless=_NO_PHOTOGRAPHS)] * len(atlases)
            if photo_set is not None:
                scorer = UnitScorer(photo_set, judges, torch.device(device), tally.add)
                scores = [scorer.score(each) if each.network else scores[0] for each in atlases]
            if scores[0].rows:
                store.update(scores[0].rows)  # what took so long is kept, whatever comes of the page
            notes = write_list(store, atlases[0].plan.weights)
            _write_page(site, list(map(with_scores, atlases, scores)), scores, photo_set, device)
    except BaseException:
        with suppress(Exception):  # where the disk is full, this makes room; what stays goes with the next page
            store.remove(folder)
        raise
    store.remove_others("site", folder)
    found = scores[0]
    scored = len(found.rows) if found.judges else 0
    return PageReport(store.path("index.html"), scored, found.judges, found.unscored, tuple(notes))


def _image_count(atlases: Sequence[SiteAtlas], photo_set: PhotoSet | None) -> int:
    """How many images are put into sheets, and how many are judged; one that is both counts twice."""
    sheets = sum(len(units) for each in atlases for _, units in each.groups)
    if photo_set is None or len(photo_set.paths) < MIN_PHOTOGRAPHS:
        return sheets
    hidden = [units for each in atlases if each.network for group, units in each.groups if group.name != CLASSES]
    return sheets + sum(len(rows) for units in hidden for rows in units)


class _Site:
    """Writes the page's files, into a folder of their own."""

    def __init__(
        self,
        store: Store,
        folder: str,
        tally: Tally,
        matches: list[list[Any]],
        publication: Publication,
    ):
        self.store, self.folder, self.tally = store, folder, tally
        self.matches, self.publication = matches, publication
        self.previews: list[list[Image.Image]] = []  # of each group some images

    def write(self, name: str, data: bytes) -> str:
        """Returns the file's name from the atlas's root on."""
        place = f"{self.folder}/{name}"
        self.store.write(place, data)
        return place


def _write_page(
    site: _Site,
    atlases: Sequence[SiteAtlas],
    scores: Sequence[AtlasScores],
    photo_set: PhotoSet | None,
    device: Any,
) -> None:
    groups: list[dict[str, Any]] = []
    games = []
    for number, (atlas, scored) in enumerate(zip(atlases, scores, strict=True)):
        top = None
        if photo_set is not None and atlas.network is not None:
            layers = [group.name for group, _ in atlas.groups if not is_computed(group)]
            latents = [group for group, _ in atlas.groups if is_computed(group)]
            top = TopPhotographs.of(atlas.network, layers, decode(atlas.network, photo_set), device, latents)
        games.append(_write_game(site, str(number), scored, top))
        for place, (group, units) in enumerate(atlas.groups):
            trials = _trials(units, scored, group)
            written = _write_group(site, atlas, f"{number}-{place}", (group, units), trials, top, device)
            groups.append(written | {"network": number})
    names = network_names(atlases)
    title = site.publication.title or f"{' and '.join(names)}: atlas"
    data = {
        "title": title,
        "named": bool(site.publication.title),
        "preview": site.write("preview.jpg", jpeg(make_preview(site.previews[::-1]))),
        "networks": [
            {
                "name": name,
                "weights": each.plan.weights,
                "public": public_name(each.plan),
                "images": each.count,
                "layers": layer_shapes(each),
                "game": game,
                "unscored": scored.unscored,
            }
            for each, name, game, scored in zip(atlases, names, games, scores, strict=True)
        ],
        "groups": groups,
        "columns": COLUMNS,
        "thumb": THUMB,
        "film": FILM_COLUMNS,
        "pairs": pair_classes(*map(class_labels, atlases)) if len(atlases) == 2 else [],
        "matches": site.matches,
    }
    if (likeness := _write_likeness(site)) is not None:
        data["likeness"] = likeness
    site.write("data.js", f"window.ATLAS = {to_script(data)};".encode())
    for name in ("app.js", "map.js", "style.css"):
        site.write(name, (_PAGE / name).read_bytes())
    text = _index(site, title, _description(atlases, names))
    site.store.write("index.html", text.encode())  # last: a page that is there is whole


def _index(site: _Site, title: str, description: str) -> str:
    template = jinja2.Template((_PAGE / "index.html").read_text(encoding="utf-8"), autoescape=True)
    url = site.publication.url
    base = url[: url.rindex("/") + 1] if url.count("/") > 2 else url and f"{url}/"
    told = {"title": title, "description": description, "url": url, "base": base}
    return str(template.render(site=site.folder, explanations=INDEX, **told))


def _description(atlases: Sequence[SiteAtlas], names: Sequence[str]) -> str:
    parts = []
    for atlas, name in zip(atlases, names, strict=True):
        count = sum(len(units) for _, units in atlas.groups)
        groups = join_names([group.name for group, _ in atlas.groups], 4)
        parts.append(f"{count} {'unit' if count == 1 else 'units'} of {name}: {groups}")
    return f"Images that excite units of an image network most. {'; '.join(parts)}."


def _write_likeness(site: _Site) -> dict[str, str] | None:
    """Write where the atlas's units are by likeness, if it was asked; returns the script that has it."""
    found = read_unit_map(site.store)
    if found is None:
        return None
    facts = [
        f"{len(found.units)} units by their responses to {found.probes}, in standard deviations",
        f"UMAP by cosine, seed {found.seed}; each unit then has the nearest place of a grid that is its own",
    ]
    told = to_script({"grid": found.grid, "groups": found.groups, "units": found.units, "facts": facts})
    script = site.write("map-units.js", f"(window.ATLAS.maps ??= {{}}).units = {told};".encode())
    return {"script": script, "place": "units"}


def _write_game(site: _Site, place: str, scores: AtlasScores, top: TopPhotographs | None) -> dict[str, Any]:
    """Write the photographs of an atlas's game; returns what the page knows of it."""
    files = []
    if top is not None:
        for number, index in enumerate(scores.photographs):
            files.append(site.write(f"game/{place}-{number:03d}.jpg", jpeg(thumbnail(top.image(index)))))
    return {"photographs": files, "judges": scores.judges, "missing": scores.gameless}


def _trials(units: list[list[IndexRow]], scores: AtlasScores, group: Group) -> dict[int, dict[str, Any]]:
    """The pairs of each unit that has any, by its index: see `UnitLinks.trials`."""
    places = {index: place for place, index in enumerate(scores.photographs)}
    found = {}
    for rows, pairs in zip(units, scores.pairs.get(group.name, []), strict=False):
        names = [[scores.names[pair.exciting], scores.names[pair.other]] for pair in pairs]
        name = digest(json.dumps([[row["sha256"] for row in rows], names]).encode())[:16]
        if pairs:
            found[rows[0]["index"]] = {"name": name, "pairs": [pair_values(pair, places) for pair in pairs]}
    return found


def _write_group(
    site: _Site,
    atlas: SiteAtlas,
    place: str,
    shown: tuple[Group, list[list[IndexRow]]],
    trials: Mapping[int, dict[str, Any]],
    top: TopPhotographs | None,
    device: Any,
) -> dict[str, Any]:
    """Write what belongs to a group; returns what the page knows of it before it is opened.

    Args:
        place: of the group, as its files' names have it.
        shown: the group, and the rows of each unit's facets.
        trials: of the units that have any, by index.
    """
    group, units = shown
    network, indices = atlas.network, [rows[0]["index"] for rows in units]
    found = map_threaded(lambda rows: _first_image(site, atlas, rows), units, lambda _: site.tally.add())
    images = [image for image, _ in found]
    site.previews.append(_spread([image for image, rows in zip(images, units, strict=True) if not is_dead(rows)]))
    sheets = [site.write(f"sheet-{place}-{number}.jpg", sheet) for number, sheet in enumerate(make_sheets(images))]
    alike: Alike = {}
    feeds: Feeds = {}
    if network is not None:
        alike, feeds = find_relations(network, group, indices, images, atlas.neighbors(group.name), device, atlas.dead)
    photographs = {}
    if top is not None:
        for index, names, crops in top.most(group.name, indices):
            name = f"photographs/{place}/{index // BUCKET:04d}/{index:05d}.jpg"
            photographs[index] = site.write(name, jpeg(frame_crops(crops))), names
    table = [
        unit_values(
            rows,
            atlas,
            UnitLinks(
                alike.get(index, {}),
                feeds.get(index, []),
                photographs.get(index),
                trials.get(index),
                None if top is None else top.frequency(group.name, index),
                _nearest(group, index, network),
                version,
            ),
        )
        for index, rows, (_, version) in zip(indices, units, found, strict=True)
    ]
    text = f"(window.ATLAS.units ??= {{}})[{to_script(place)}] = {to_script(table)};"
    recipe = Recipe.from_dict(group.recipe)
    return {
        "place": place,
        "key": atlas.key(group.name),
        "name": group.name,
        "type": "" if network is None or group.name == CLASSES else network.layer(group.read_from).type,
        "kind": "latent" if group.dictionary else "cell" if group.map else "channel",
        "map": _write_map(site, place, group, indices),
        "count": len(units),
        "recipe": recipe.name,
        "toml": recipe.to_toml(),
        "size": images[0].size,
        "words": any(rows[0]["word"] is not None for rows in units),
        "script": site.write(f"units-{place}.js", text.encode()),
        "sheets": sheets,
    }


def _write_map(site: _Site, place: str, group: Group, indices: Sequence[int]) -> str | None:
    """Write what the page knows of a map, of which these cells have a picture; returns the script that has it."""
    if not group.map:
        return None
    told = to_script(map_values(map_files.find(group.map), indices))
    return site.write(f"map-{place}.js", f"(window.ATLAS.maps ??= {{}})[{to_script(place)}] = {told};".encode())


def _nearest(group: Group, index: int, network: Network | None) -> list[list[Any]]:
    """Of a latent the classes whose weights are most like its decoder vector, where the head reads its layer."""
    if network is None or not group.dictionary:
        return []
    return nearest_classes(network, group.layer, find(group.dictionary), index)


def _spread(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Some of a group's images, for the page's preview."""
    count = min(_PREVIEWED, len(images))
    return [preview_tile(images[place * len(images) // count]) for place in range(count)]


def _first_image(site: _Site, atlas: SiteAtlas, rows: Sequence[IndexRow]) -> tuple[Image.Image, str]:
    """A unit's first image, and the version of phosphene that made it; the files of an atlas elsewhere are copied."""
    for name in (name for row in rows for name in files_of(row) if atlas.prefix):
        with input_errors_for(f"{name} of {atlas.store.place!r}", "a file; see `phosphene atlas verify`"):
            data = atlas.store.read(name)
        site.store.write(atlas.prefix + name, data)
    return atlas.store.image_and_version(rows[0])
