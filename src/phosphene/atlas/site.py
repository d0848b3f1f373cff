"""The atlas as a page: a static site that needs no server, and asks nobody for anything.

index.html in the atlas's root leads to the images where they are; a folder in site/ has the script, the style, the data
and sheets of small images, and the images of another atlas that is shown beside this one.  Each writing has a folder of
its own, so that the page before is whole until the new one is.  The whole directory can be put anywhere.
"""

from __future__ import annotations

import io
import json
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.atlas.plan import CLASSES, AtlasPlan, Group
from phosphene.atlas.rows import BUCKET, IndexRow, files_of
from phosphene.atlas.store import Store, map_threaded
from phosphene.draw.film import FILM_COLUMNS
from phosphene.errors import InputError, input_errors_for
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.labels import Label
from phosphene.networks.network import Network, Reader
from phosphene.networks.receptive import receptive_field
from phosphene.planes import to_pil
from phosphene.recipes.schema import Recipe
from phosphene.units.spelling import parse_unit

_PAGE = resources.files("phosphene") / "atlas" / "page"
THUMB = {"side": 96, "columns": 16, "rows": 16}
_SCORES = (
    "judged",
    "top1",
    "probability",
    "objective",
    "robustness",
    "retained",
    "rank",
    "of",
    "slope",
    "saturated",
    "curve",
)
COLUMNS = (
    "index",
    "label",
    "short",
    "unit",
    "files",
    "films",
    "seed",
    "steps",
    "stopped",
    *_SCORES,
    "near",
    "feeds",
    "photographs",
)
_PHOTOGRAPHS = 5  # that excite a unit most
_ALIKE = 6  # units that are named as most alike, and classes that a unit feeds

OnProgress = Callable[[int, int], None]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


def write_site(
    store: Store,
    *,
    network: Network | None = None,
    photographs: str | Path | None = None,
    compare_with: Store | None = None,
    compare_network: Network | None = None,
    device: Any = "cpu",
    on_progress: OnProgress | None = None,
) -> str:
    """Write the page of an atlas, of all units that are there by the plan's recipes; gives its address.

    Args:
        network: the plan's, to tell which units are alike and which classes they feed; None: that is left out.
        photographs: a folder; of each unit those are shown that excite it most, cut to what the most excited neuron
            sees.  Needs the network.
        beside: another atlas, to be browsed and compared on the same page; its images are copied.
        compare_network: that one's.
        device: where the networks run.
        on_progress: called with how many images are in the sheets, and of how many.

    Raises:
        InputError: there is no atlas, it has no image yet, or it cannot be written; or there are no photographs; or the
            other atlas is the same one, or has no image.
    """
    if compare_with is not None and (compare_with.root, compare_with.fs) == (store.root, store.fs):
        raise InputError(f"{store.place!r} beside itself: expected another atlas")
    folder = f"site/{uuid.uuid4().hex[:8]}"
    given = [(store, network, "")] + (
        [] if compare_with is None else [(compare_with, compare_network, f"{folder}/compare_with/")]
    )
    shown = [_SiteAtlas.of(*each) for each in given]
    gallery = None if photographs is None or all(each.network is None for each in shown) else PhotoSet.of(photographs)
    site = _Site(store, folder, sum(len(units) for each in shown for _, units in each.groups), on_progress)
    try:
        _write_page(site, shown, gallery, device)
    except BaseException:
        with suppress(Exception):  # where the disk is full, this makes room; what stays goes with the next page
            store.remove(folder)
        raise
    store.remove_others("site", folder)
    return store.path("index.html")


def _write_page(site: _Site, shown: Sequence[_SiteAtlas], gallery: PhotoSet | None, device: Any) -> None:
    groups = [
        group for number, each in enumerate(shown) for group in _write_groups(site, each, number, gallery, device)
    ]
    data = {
        "networks": [
            {
                "name": name,
                "weights": each.plan.weights,
                "images": sum(len(rows) for _, units in each.groups for rows in units),
                "layers": _layer_shapes(each),
            }
            for each, name in zip(shown, _names([each.store for each in shown], shown), strict=True)
        ],
        "groups": groups,
        "columns": COLUMNS,
        "thumb": THUMB,
        "film": FILM_COLUMNS,
        "pairs": _match_labels(*map(_labels, shown)) if len(shown) == 2 else [],
    }
    site.write("data.js", f"window.ATLAS = {_json(data)};".encode())
    for name in ("app.js", "style.css"):
        site.write(name, (_PAGE / name).read_bytes())
    index = (_PAGE / "index.html").read_text(encoding="utf-8").replace("SITE/", f"{site.folder}/")
    site.store.write("index.html", index.encode())  # last: a page that is there is whole


class _Site:
    """Writes the page's files, into a folder of their own."""

    def __init__(self, store: Store, folder: str, total: int, on_progress: OnProgress | None):
        self.store, self.folder, self.total, self.on_progress = store, folder, total, on_progress
        self.done = 0

    def write(self, name: str, data: bytes) -> str:
        """Gives the file's name from the atlas's root on."""
        place = f"{self.folder}/{name}"
        self.store.write(place, data)
        return place

    def tell(self, more: int) -> None:
        self.done += more
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)


@dataclass(frozen=True)
class _SiteAtlas:
    """An atlas as it is shown.

    Attributes:
        groups: those that have units, in the network's order; each unit as the rows of its facets.
        prefix: of its files, from the page on.
    """

    store: Store
    plan: AtlasPlan
    network: Network | None
    groups: list[tuple[Group, list[list[IndexRow]]]]
    prefix: str

    @classmethod
    def of(cls, store: Store, network: Network | None, prefix: str) -> _SiteAtlas:
        """Raises an `InputError` if the atlas has no image."""
        plan = store.plan()
        made: dict[tuple[str, str, str], dict[int, list[IndexRow]]] = {}
        for row in store.rows():  # in the order of their facets
            kind = made.setdefault((row["group"], row["recipe"], row["weights"]), {})
            kind.setdefault(row["index"], []).append(row)
        groups = []
        for group in sorted(plan.groups, key=lambda group: group.depth):
            units = made.get((group.name, group.digest, plan.weights), {})
            whole = [units[i] for i in sorted(group.indices) if i in units and units[i][0]["facet"] == 0]
            if whole:
                groups.append((group, whole))
        if not groups:
            raise InputError(f"{store.place!r} has no image yet: expected `phosphene atlas run` first")
        if network is not None:  # a plan may ask for what the network does not have
            for group in plan.groups:
                for index in group.indices:
                    parse_unit(group.unit(index), network)
        return cls(store, plan, network, groups, prefix)

    def neighbours(self, name: str) -> list[Group]:
        """The layers of the atlas before and after a layer; of the classes the last."""
        layers = [group for group, _ in self.groups if group.name != CLASSES]
        if name == CLASSES:
            return layers[-1:]
        place = [group.name for group in layers].index(name)
        return layers[max(0, place - 1) : place] + layers[place + 1 : place + 2]

    def key(self, name: str) -> str:
        """What a group is called in addresses; no layer's name begins so."""
        return f"~{name}" if self.prefix else name


def _names(stores: Sequence[Store], shown: Sequence[_SiteAtlas]) -> list[str]:
    names = [each.plan.network for each in shown]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({PurePosixPath(store.root).name})" for name, store in zip(names, stores, strict=True)]


def _layer_shapes(shown: _SiteAtlas) -> list[list[Any]]:
    """Of the layers that are usually shown, and those of the atlas: name, channels, height of the map."""
    if shown.network is None:
        return []
    there = {group.name for group, _ in shown.groups}
    return [
        [layer.name, layer.channels, layer.positions[0] if len(layer.positions) == 2 else 1]
        for layer in shown.network.layers
        if layer.worth_showing or layer.name in there
    ]


def _write_groups(
    site: _Site, shown: _SiteAtlas, number: int, gallery: PhotoSet | None, device: Any
) -> Iterator[dict[str, Any]]:
    """Write what belongs to an atlas's groups; gives what the page knows of each before it is opened."""
    network = shown.network
    excited = None
    if gallery is not None and network is not None:
        layers = [group.name for group, _ in shown.groups]
        excited = _TopPhotographs.of(network, layers, _photographs(network, gallery), device)
    for group, units in shown.groups:
        place = f"{number}-{[each.name for each, _ in shown.groups].index(group.name)}"
        images = map_threaded(lambda rows: _taken(site, shown, rows), units, lambda _: site.tell(1))
        indices = [rows[0]["index"] for rows in units]
        sheets = _sheets(site, place, images)
        near, feeds = _relations(network, group.name, shown.neighbours(group.name), indices, images, device)
        exciting = {}
        if excited is not None:
            for index, found in excited.most(group.name, indices):
                exciting[index] = site.write(_photographs_name(place, index), _jpeg(_beside(found)))
        table = [
            [
                _value(rows, column, shown, near.get(index, {}), feeds.get(index, []), exciting.get(index))
                for column in COLUMNS
            ]
            for index, rows in zip(indices, units, strict=True)
        ]
        text = f"(window.ATLAS.units ??= {{}})[{_json(place)}] = {_json(table)};"
        script = site.write(f"units-{place}.js", text.encode())
        recipe = Recipe.from_dict(group.recipe)
        yield {
            "place": place,
            "key": shown.key(group.name),
            "network": number,
            "name": group.name,
            "type": _type(network, group.name),
            "count": len(units),
            "recipe": recipe.name,
            "toml": recipe.to_toml(),
            "size": images[0].size,
            "script": script,
            "sheets": sheets,
        }


def _taken(site: _Site, shown: _SiteAtlas, rows: Sequence[IndexRow]) -> Image.Image:
    """A unit's first image; those of an atlas elsewhere are copied."""
    for name in (name for row in rows for name in files_of(row) if shown.prefix):
        with input_errors_for(f"{name} of {shown.store.place!r}", "a file; see `phosphene atlas verify`"):
            data = shown.store.read(name)
        site.store.write(shown.prefix + name, data)
    return shown.store.image(rows[0])


def _match_labels(ours: dict[int, Label], theirs: dict[int, Label]) -> list[list[int]]:
    """Classes that two networks have, as pairs of indices: by WordNet id, or by name where either has none."""
    left = dict(theirs)
    pairs = []
    for index, label in ours.items():
        found = next((other for other, candidate in left.items() if _is_same(label, candidate)), None)
        if found is not None:
            pairs.append([index, found])
            del left[found]  # classes of one name, as ImageNet's two cranes, go one by one
    return pairs


def _labels(shown: _SiteAtlas) -> dict[int, Label]:
    known = None if shown.network is None else shown.network.labels
    return {
        rows[0]["index"]: Label((rows[0]["label"],)) if known is None else known[rows[0]["index"]]
        for group, units in shown.groups
        if group.name == CLASSES
        for rows in units
    }


def _is_same(label: Label, other: Label) -> bool:
    if label.wordnet and other.wordnet:
        return label.wordnet == other.wordnet
    return not _normalize_label(label).isdisjoint(_normalize_label(other))


def _normalize_label(label: Label) -> set[str]:
    return {name.casefold().replace("_", " ") for name in label.names}


def _sheets(site: _Site, place: str, images: Sequence[Image.Image]) -> list[str]:
    """Small images side by side on as few sheets as hold them; gives their names."""
    side, columns, rows = THUMB["side"], THUMB["columns"], THUMB["rows"]
    names = []
    for first in range(0, len(images), columns * rows):
        part = images[first : first + columns * rows]
        sheet = Image.new("RGB", (columns * side, -(-len(part) // columns) * side))
        for i, image in enumerate(part):
            small = image.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (i % columns * side, i // columns * side))
        names.append(site.write(f"sheet-{place}-{first // (columns * rows)}.jpg", _jpeg(sheet)))
    return names


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _photographs_name(place: str, index: int) -> str:
    return f"photographs/{place}/{index // BUCKET:04d}/{index:05d}.jpg"


def _beside(exciting: Sequence[tuple[Image.Image, Box]]) -> Image.Image:
    """Photographs side by side, what is seen of each framed, and below what is seen where that is not all of it."""
    side = THUMB["side"]
    whole = all(box == (0, 0, *photograph.size) for photograph, box in exciting)
    paper = Image.new("RGB", (len(exciting) * (side + 2) - 2, side if whole else 2 * side + 2), "white")
    for i, (photograph, box) in enumerate(exciting):
        left = i * (side + 2)
        paper.paste(photograph.resize((side, side), Image.Resampling.LANCZOS), (left, 0))
        if not whole:
            paper.paste(photograph.crop(box).resize((side, side), Image.Resampling.LANCZOS), (left, side + 2))
            across, down = side / photograph.width, side / photograph.height
            frame = (left + box[0] * across, box[1] * down, left + box[2] * across - 1, box[3] * down - 1)
            ImageDraw.Draw(paper).rectangle(frame, outline=(255, 220, 0), width=2)
    return paper


def _photographs(network: Network, gallery: PhotoSet) -> Tensor:
    """As they are fed to a network, in 8 bits: (photographs, channels, height, width)."""
    return torch.cat([batch.clamp(0, 255).byte() for _, batch in gallery.batches(network.preprocessing)])


@dataclass(frozen=True)
class _TopPhotographs:
    """How active every channel of some layers is on photographs.

    Attributes:
        photographs: as `_photographs` gives them.
        values: by layer each channel's highest on each photograph, (photographs, channels).
        places: where in the map that is, counted row by row; of the same shape.
        maps: by layer the shape of its map.
    """

    network: Network
    photographs: Tensor
    values: dict[str, Tensor]
    places: dict[str, Tensor]
    maps: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, network: Network, layers: Sequence[str], photographs: Tensor, device: Any) -> _TopPhotographs:
        """All layers are read in one pass; among them may be the classes."""
        values: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        places: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        maps: dict[str, tuple[int, ...]] = {}

        def reader(layer: str) -> Reader:
            def read(activation: Tensor) -> None:
                maps[layer] = tuple(activation.shape[2:])
                best = activation.float().flatten(2).max(2) if maps[layer] else None
                values[layer].append((activation.float() if best is None else best.values).cpu())
                where = torch.zeros_like(values[layer][-1], dtype=torch.long)
                places[layer].append(where if best is None else best.indices.cpu())

            return read

        readers = {layer: reader(layer) for layer in layers if layer != CLASSES}
        with network.borrowed(device), torch.no_grad():
            for batch in torch.split(photographs, 32):
                if CLASSES in values:
                    reader(CLASSES)(network.forward(batch.to(device).float(), readers))
                else:
                    network.read(batch.to(device).float(), readers)
        joined = [{layer: torch.cat(parts) for layer, parts in each.items()} for each in (values, places)]
        return cls(network, photographs, joined[0], joined[1], maps)

    def most(self, layer: str, indices: Sequence[int]) -> Iterator[tuple[int, list[tuple[Image.Image, Box]]]]:
        """Of units of a layer the photographs that excite each most, and what the most excited neuron sees of each."""
        seen, where, shape = self.values[layer], self.places[layer], self.maps[layer]
        size = self.photographs.shape[-2], self.photographs.shape[-1]
        field = receptive_field(self.network, layer) if len(shape) == 2 else size
        best = seen.topk(min(_PHOTOGRAPHS, len(seen)), dim=0).indices  # (so many, units)
        for index in indices:
            yield (
                index,
                [
                    (_pil(self.photographs[photograph]), _box(size, int(where[photograph, index]), shape, field))
                    for photograph in best[:, index].tolist()
                ],
            )


def _pil(photograph: Tensor) -> Image.Image:
    return to_pil(photograph.movedim(0, -1).contiguous().numpy()).convert("RGB")


def _box(size: tuple[int, int], place: int, shape: tuple[int, ...], field: tuple[int, int]) -> Box:
    """What the neuron at a place of a map of that shape sees of a photograph of that height and width."""
    height, width = size
    if len(shape) != 2:
        return 0, 0, width, height
    down, across = divmod(place, shape[1])
    tall, wide = min(height, max(8, field[0])), min(width, max(8, field[1]))
    top = min(max(0, round((down + 0.5) * height / shape[0] - tall / 2)), height - tall)
    left = min(max(0, round((across + 0.5) * width / shape[1] - wide / 2)), width - wide)
    return left, top, left + wide, top + tall


def _value(
    rows: Sequence[IndexRow],
    column: str,
    shown: _SiteAtlas,
    near: dict[str, list[int]],
    feeds: list[list[Any]],
    photographs: str | None,
) -> Any:
    row = rows[0]
    special: dict[str, Any] = {
        "files": [shown.prefix + each["file"] for each in rows],
        "films": [
            None
            if each["film"] is None
            else [shown.prefix + each["film"], each["film_frames"], each["film_every"], each["steps"]]
            for each in rows
        ],
        "short": row["label"] if row["group"] == CLASSES else str(row["index"]),
        "label": row["label"] if row["group"] == CLASSES else f"{row['group']}, channel {row['index']}",
        "near": {shown.key(name): indices for name, indices in near.items()},
        "feeds": feeds,
        "photographs": photographs,
    }
    value = special[column] if column in special else row[column]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _type(network: Network | None, name: str) -> str:
    return "" if network is None or name == CLASSES else network.layer(name).type


@torch.no_grad()
def _relations(
    network: Network | None,
    name: str,
    neighbours: Sequence[Group],
    indices: Sequence[int],
    images: Sequence[Image.Image],
    device: Any,
) -> tuple[dict[int, dict[str, list[int]]], dict[int, list[list[Any]]]]:
    """Of each unit those of its own group, and of neighbouring layers, that are most active on its image.

    How active one is (the mean of its map, or its logit) counts in standard deviations over the images of the unit's
    own group, since channels differ in scale.

    Returns:
        For each index the indices in each group, by its name, the most active first; and for each channel the classes
        that its image makes likelier, as [index, name].
    """
    if network is None or len(indices) < 3:
        return {}, {}
    seen: dict[str, list[Tensor]] = {group.name: [] for group in neighbours}
    if name != CLASSES:
        seen[name] = []
    logits: list[Tensor] = []
    readers: dict[str, Reader] = {
        layer: lambda activation, kept=kept: kept.append(_means(activation))  # type: ignore[misc]
        for layer, kept in seen.items()
    }
    runs_whole = bool(network.classes) and not network.limit
    with network.borrowed(device):
        for first in range(0, len(images), 32):
            pixels = torch.stack([_preprocess(network, image) for image in images[first : first + 32]]).to(device)
            if runs_whole:
                logits.append(network.forward(pixels, readers).float().cpu())
            else:
                network.read(pixels, readers)
    if name == CLASSES:
        seen[name] = logits
    shown = {name: list(indices)} | {group.name: group.indices for group in neighbours}
    near: dict[int, dict[str, list[int]]] = {index: {} for index in indices}
    for group, candidates in shown.items():
        activity = _standard(torch.cat(seen[group])[:, candidates])
        for index, scores in zip(indices, activity, strict=True):
            if group == name:
                scores[candidates.index(index)] = -torch.inf
            most = min(_ALIKE, len(candidates) - (group == name))
            near[index][group] = [candidates[other] for other in scores.topk(most).indices.tolist()]
    feeds: dict[int, list[list[Any]]] = {}
    if name != CLASSES and logits:
        for index, scores in zip(indices, _standard(torch.cat(logits)), strict=True):
            top = scores.topk(min(_ALIKE, scores.numel())).indices.tolist()
            feeds[index] = [[i, network.labels[i].name if network.labels is not None else str(i)] for i in top]
    return near, feeds


def _means(activation: Tensor) -> Tensor:
    """Each channel's mean over its map: (rows, channels)."""
    values = activation.float()
    return (values.flatten(2).mean(2) if values.ndim > 2 else values).cpu()


def _standard(values: Tensor) -> Tensor:
    """Each column in standard deviations from its mean."""
    return (values - values.mean(0)) / values.std(0).clamp_min(1e-6)


def _preprocess(network: Network, image: Image.Image) -> Tensor:
    """A finished image as its network is fed it: not cut as photographs are."""
    height, width = network.preprocessing.size  # type: ignore[misc]
    pixels = image.resize((width, height), Image.Resampling.BILINEAR)
    grey = network.preprocessing.channels == 1
    array = torch.frombuffer(bytearray((pixels.convert("L") if grey else pixels).tobytes()), dtype=torch.uint8)
    return array.view(height, width, -1).movedim(-1, 0).float()


def _json(data: Any) -> str:
    """Data as JavaScript, in which nothing can end a script or begin an element, wherever it is put."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
