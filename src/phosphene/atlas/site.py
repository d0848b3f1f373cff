"""The atlas as a page: a static site that needs no server, and asks nobody for anything.

index.html in the atlas's root leads to the images where they are; site/ has the script, the style, the data and sheets
of small images.  The whole directory can be put anywhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.atlas.plan import CLASSES
from phosphene.atlas.store import BUCKET, Row, Store
from phosphene.errors import InputError
from phosphene.judges import Gallery
from phosphene.networks import Network
from phosphene.networks.receptive import receptive_field
from phosphene.picture import to_pil
from phosphene.recipe import Recipe

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


def write_site(
    store: Store,
    *,
    network: Network | None = None,
    photographs: str | Path | None = None,
    device: Any = "cpu",
    on_progress: OnProgress | None = None,
) -> str:
    """Write the page of an atlas, of all units that are there by the plan's recipes; gives its address.

    Args:
        network: the plan's, to tell which units are alike and which classes they feed; None: that is left out.
        photographs: a folder; of each unit those are shown that excite it most, cut to what the most excited neuron
            sees.  Needs the network.
        device: where it runs.
        on_progress: called with how many images are in the sheets, and of how many.

    Raises:
        InputError: there is no atlas, it has no image yet, or it cannot be written; or there are no photographs.
    """
    plan = store.plan()
    rows = store.rows()
    groups: list[dict[str, Any]] = []
    gallery = None if photographs is None or network is None else Gallery.of(photographs)
    total = sum(len(group.indices) for group in plan.groups)
    done = 0
    for group in plan.groups:
        mine = [
            row
            for row in rows
            if (row["group"], row["recipe"], row["weights"]) == (group.name, group.digest, plan.weights)
        ]
        units = [row for row in mine if row["facet"] == 0 and row["index"] in set(group.indices)]
        if not units:
            continue
        place = len(groups)
        images = []
        for row in units:
            with Image.open(io.BytesIO(store.read(row["file"]))) as image:
                images.append(_flat(image))
            done += 1
            if on_progress is not None:
                on_progress(done, total)
        sheets = _sheets(store, place, images)
        near, feeds = _relations(network, group.name, units, images, device)
        shown = {} if gallery is None or network is None else _exciting(network, group.name, gallery, device)
        for index, crops in shown.items():
            if index in group.indices:
                store.write(_photographs_name(place, index), _jpeg(_beside(crops)))
        found = {index: _photographs_name(place, index) for index in shown}
        facets: dict[int, list[str]] = {}
        for row in mine:
            facets.setdefault(row["index"], []).append(row["file"])
        table = [
            [
                _value(row, column, facets, near.get(row["index"], []), feeds.get(row["index"], []), found)
                for column in COLUMNS
            ]
            for row in units
        ]
        script = f"site/units-{place}.js"
        _write_script(store, script, f"(window.ATLAS.units ??= {{}})[{place}] = {_json(table)};")
        recipe = Recipe.from_dict(group.recipe)
        groups.append(
            {
                "place": place,
                "name": group.name,
                "type": _type(network, group.name),
                "count": len(units),
                "recipe": recipe.name,
                "script": script,
                "sheets": sheets,
            }
        )
    if not groups:
        raise InputError(f"{store.place!r} has no image yet: expected `phosphene atlas run` first")
    head = {"name": plan.network, "weights": plan.weights, "images": len(rows)}
    data = {"network": head, "groups": groups, "columns": COLUMNS, "thumb": THUMB}
    _write_script(store, "site/data.js", f"window.ATLAS = {_json(data)};")
    for name in ("app.js", "style.css"):
        store.write(f"site/{name}", (_PAGE / name).read_bytes())
    store.write("index.html", (_PAGE / "index.html").read_bytes())  # last: a page that is there is whole
    return store.path("index.html")


def _flat(image: Image.Image) -> Image.Image:
    """Three channels; what is transparent as on paper."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _sheets(store: Store, place: int, images: Sequence[Image.Image]) -> list[str]:
    """Small images side by side on as few sheets as hold them; gives their names."""
    side, columns, rows = THUMB["side"], THUMB["columns"], THUMB["rows"]
    names = []
    for first in range(0, len(images), columns * rows):
        part = images[first : first + columns * rows]
        sheet = Image.new("RGB", (columns * side, -(-len(part) // columns) * side))
        for i, image in enumerate(part):
            small = image.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (i % columns * side, i // columns * side))
        names.append(f"site/sheet-{place}-{first // (columns * rows)}.jpg")
        store.write(names[-1], _jpeg(sheet))
    return names


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _photographs_name(place: int, index: int) -> str:
    return f"site/photographs/{place}/{index // BUCKET:04d}/{index:05d}.jpg"


def _beside(crops: Sequence[Image.Image]) -> Image.Image:
    side = THUMB["side"]
    paper = Image.new("RGB", (len(crops) * (side + 2) - 2, side), "white")
    for i, crop in enumerate(crops):
        paper.paste(crop.resize((side, side), Image.Resampling.LANCZOS), (i * (side + 2), 0))
    return paper


def _exciting(network: Network, group: str, gallery: Gallery, device: Any) -> dict[int, list[Image.Image]]:
    """Of each unit of a group the photographs that excite it most, cut to what the most excited neuron sees."""
    values: list[Tensor] = []  # (photographs, units)
    places: list[Tensor] = []  # where in the map
    pixels: list[Tensor] = []
    shape: tuple[int, ...] = ()

    def read(activation: Tensor) -> None:
        nonlocal shape
        shape = tuple(activation.shape[2:])
        best = activation.float().flatten(2).max(2) if shape else None
        values.append((activation.float() if best is None else best.values).cpu())
        places.append(torch.zeros_like(values[-1], dtype=torch.long) if best is None else best.indices.cpu())

    with network.borrowed(device), torch.no_grad():
        for _, batch in gallery.batches(network.preprocessing):
            pixels.append(batch.clamp(0, 255).byte())
            if group == CLASSES:
                read(network.forward(batch.to(device)))
            else:
                network.read(batch.to(device), {group: read})
    photographs, seen = torch.cat(pixels), torch.cat(values)
    where = torch.cat(places)
    field = receptive_field(network, group) if len(shape) == 2 else (photographs.shape[-2], photographs.shape[-1])
    best = seen.topk(min(_PHOTOGRAPHS, len(seen)), dim=0).indices  # (so many, units)
    return {
        unit: [
            _crop(photographs[photograph], int(where[photograph, unit]), shape, field)
            for photograph in best[:, unit].tolist()
        ]
        for unit in range(seen.shape[1])
    }


def _crop(photograph: Tensor, place: int, shape: tuple[int, ...], field: tuple[int, int]) -> Image.Image:
    """What the neuron at a place of a map of that shape sees, all of it within the photograph."""
    height, width = photograph.shape[-2:]
    top = left = 0
    if len(shape) == 2:
        down, across = divmod(place, shape[1])
        tall, wide = max(8, field[0]), max(8, field[1])
        top = min(max(0, round((down + 0.5) * height / shape[0] - tall / 2)), max(0, height - tall))
        left = min(max(0, round((across + 0.5) * width / shape[1] - wide / 2)), max(0, width - wide))
        photograph = photograph[:, top : top + tall, left : left + wide]
    return to_pil(photograph.movedim(0, -1).contiguous().numpy()).convert("RGB")


def _value(
    row: Row, column: str, facets: dict[int, list[str]], near: list[int], feeds: list[str], photographs: dict[int, str]
) -> Any:
    if column == "files":
        return facets[row["index"]]
    if column == "short":
        return row["label"] if row["group"] == CLASSES else str(row["index"])
    if column == "label":
        return row["label"] if row["group"] == CLASSES else f"{row['group']}, channel {row['index']}"
    if column == "near":
        return near
    if column == "feeds":
        return feeds
    if column == "photographs":
        return photographs.get(row["index"])
    value = row[column]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _type(network: Network | None, name: str) -> str:
    return "" if network is None or name == CLASSES else network.layer(name).type


@torch.no_grad()
def _relations(
    network: Network | None, group: str, rows: Sequence[Row], images: Sequence[Image.Image], device: Any
) -> tuple[dict[int, list[int]], dict[int, list[str]]]:
    """Of each unit the others of its group that are most active on its image, and the classes that it makes likelier.

    How active one is (the mean of its map, or its logit) counts in standard deviations over the group's images, since
    channels differ in scale.
    """
    if network is None or len(rows) < 3:
        return {}, {}
    profiles: list[Tensor] = []
    logits: list[Tensor] = []

    def read(activation: Tensor) -> None:
        profiles.append(
            activation.float().flatten(2).mean(2).cpu() if activation.ndim > 2 else activation.float().cpu()
        )

    runs_whole = bool(network.classes) and not network.limit
    with network.borrowed(device):
        for first in range(0, len(images), 32):
            pixels = torch.stack([_fed(network, image) for image in images[first : first + 32]]).to(device)
            if group == CLASSES:
                logits.append(network.forward(pixels).float().cpu())
            elif runs_whole:
                logits.append(network.forward(pixels, {group: read}).float().cpu())
            else:
                network.read(pixels, {group: read})
    indices = [row["index"] for row in rows]
    seen = torch.cat(logits if group == CLASSES else profiles)[:, indices]
    near = {}
    for place, scores in enumerate(_standard(seen)):
        scores[place] = -torch.inf
        near[indices[place]] = [indices[other] for other in scores.topk(min(_ALIKE, len(indices) - 1)).indices.tolist()]
    feeds: dict[int, list[str]] = {}
    if group != CLASSES and logits:
        for index, scores in zip(indices, _standard(torch.cat(logits)), strict=True):
            top = scores.topk(min(_ALIKE, scores.numel())).indices.tolist()
            feeds[index] = [network.labels[i].name if network.labels is not None else str(i) for i in top]
    return near, feeds


def _standard(values: Tensor) -> Tensor:
    """Each column in standard deviations from its mean."""
    return (values - values.mean(0)) / values.std(0).clamp_min(1e-6)


def _fed(network: Network, image: Image.Image) -> Tensor:
    """A finished image as its network is fed it: not cut as photographs are."""
    height, width = network.preprocessing.size  # type: ignore[misc]
    pixels = image.resize((width, height), Image.Resampling.BILINEAR)
    grey = network.preprocessing.channels == 1
    array = torch.frombuffer(bytearray((pixels.convert("L") if grey else pixels).tobytes()), dtype=torch.uint8)
    return array.view(height, width, -1).movedim(-1, 0).float()


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _write_script(store: Store, name: str, text: str) -> None:
    store.write(name, text.encode())
