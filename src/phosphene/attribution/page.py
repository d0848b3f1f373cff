"""All that is shown of where a unit is, as a page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from phosphene.attribution.carriers import Carrier, Carriers
from phosphene.attribution.figure import carrier_caption, title
from phosphene.attribution.from_atlas import relative_address
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.pictures import Illustrations
from phosphene.attribution.settings import METHODS
from phosphene.attribution.sheet import overlay, photograph_image

_SIDE = 96  # pixels of a node
_ACROSS, _DOWN, _TOP, _EDGE = 210, 130, 30, 4
_LEAST_EDGE = 0.03  # of the widest: what is narrower is not drawn
_WIDEST = 9.0  # pixels
_GAIN, _LOSS = "#ff6a00", "#005ce6"
_IMAGE = 320  # pixels, of images on the page


def render_page(maps: AttributionMaps, shown: Illustrations, folder: Path | None = None, atlas: str = "") -> str:
    """The page; all that comes from elsewhere is escaped, and no script is in it.

    Args:
        folder: where the page is going to be, from which addresses in an atlas are told.
        atlas: the address of the page of the atlas that this page is going to be in, as seen from there.
    """
    if atlas:
        links = {unit: f"{atlas}{found.place}" for unit, found in shown.in_atlas.items()}
    else:
        near = folder or Path()
        links = {unit: relative_address(found.link, near) for unit, found in shown.in_atlas.items() if found.link}
    columns, rows = filled_table(maps)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("phosphene.attribution", ""), autoescape=True)
    return environment.get_template("page.html").render(
        title=title(maps),
        atlas=atlas,
        maps=maps,
        notes=[*maps.notes, *shown.notes],
        map_images=_map_images(maps),
        beside=_beside(maps, shown, links),
        photographs=[
            {"source": data_url(each.marked()), "caption": f"{each.name}: {each.value:.4g}"}
            for each in shown.photographs
        ],
        graph=None if maps.carriers is None else _graph(maps, maps.carriers, shown, links),
        columns=columns,
        rows=rows,
        measured="the response (the photograph's is 1, nothing's is 0)"
        if maps.probability is None
        else "the probability",
    )


def data_url(image: Image.Image, most: int = _IMAGE) -> str:
    """An image as an address that holds it."""
    small = image.copy()
    small.thumbnail((most, most), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small.mode == "RGBA":
        small.save(buffer, "PNG")
    else:
        small.convert("RGB").save(buffer, "JPEG", quality=88)
    kind = "png" if small.mode == "RGBA" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _map_images(maps: AttributionMaps) -> list[dict[str, str]]:
    photograph = photograph_image(maps.photograph)
    images = [
        {"name": "photograph", "caption": "the photograph as the network sees it", "source": data_url(photograph)}
    ]
    for name, map_ in maps.maps.items():
        of_layer = f", of {maps.layer}" if name == "grad-cam" else ""
        source = data_url(overlay(photograph, map_, maps.settings.smoothing))
        images.append({"name": name, "caption": f"{METHODS[name]}{of_layer}", "source": source})
    return images


def _beside(maps: AttributionMaps, shown: Illustrations, links: dict[str, str]) -> list[dict[str, str]]:
    found = []
    if shown.unit is not None:
        found.append(
            {"caption": "what excites it most", "source": data_url(shown.unit), "link": links.get(maps.unit, "")}
        )
    if shown.accentuated is not None:
        value = (
            f", from {maps.value:.4g} to {shown.accentuated_value:.4g}" if shown.accentuated_value is not None else ""
        )
        whole = data_url(shown.accentuated.convert("RGB"))
        found.append({"caption": f"the photograph, changed a little towards it{value}", "source": whole})
        found.append({"caption": "only what changed", "source": data_url(shown.accentuated), "kind": "clear"})
    return found


# The table.

_COLUMNS = ("deletion", "insertion", "completeness gap", "rank correlation with shuffled weights")


def filled_table(maps: AttributionMaps) -> tuple[list[str], list[list[str]]]:
    """Columns that have numbers, and of each method, and of chance, its name and these numbers."""
    rows = _table_rows(maps)
    filled = [place for place in range(len(_COLUMNS)) if any(row[place + 1] for row in rows)]
    return [_COLUMNS[place] for place in filled], [[row[0], *(row[place + 1] for place in filled)] for row in rows]


def _table_rows(maps: AttributionMaps) -> list[list[str]]:
    rows = []
    for name in maps.maps:
        areas = [f"{each:.3f}" for each in maps.curves[name].areas] if name in maps.curves else ["", ""]
        gap = ""
        if name == "integrated-gradients" and maps.gap is not None:
            gap = f"{maps.gap:.3g}" + ("" if maps.relative_gap is None else f" ({maps.relative_gap:.1%})")
        random = maps.randomized.get(name)
        correlation = f"{random:.2f}" if random is not None else "none" if name in maps.randomized else ""
        rows.append([name, *areas, gap, correlation])
    rows += [[f"chance, {kind}", *(f"{each:.3f}" for each in areas), "", ""] for kind, areas in maps.chance.items()]
    return rows


# The graph.


def panel_ids(carriers: Carriers) -> dict[str, str]:
    """Where on the page each hidden unit that is shown is told of, by unit."""
    return {carrier.unit: f"unit-{number}" for number, carrier in enumerate(carriers.pictured)}


def _graph(maps: AttributionMaps, carriers: Carriers, shown: Illustrations, links: dict[str, str]) -> dict[str, Any]:
    """Nodes in columns, a layer each, with the unit itself behind the last."""
    photograph = photograph_image(maps.photograph)
    ids = panel_ids(carriers)
    nodes, places, panels = [], {}, []
    for column, layer in enumerate(carriers.layers):
        for line, carrier in enumerate(layer.carriers[: carriers.shown]):
            place = places[carrier.unit] = (_EDGE + column * _ACROSS, _TOP + line * _DOWN)
            picture = shown.carriers.get(carrier.unit)
            where = None if carrier.map is None else overlay(photograph, carrier.map, 0.0)
            nodes.append(_node(carrier, place, ids[carrier.unit], where if picture is None else picture))
            panels.append(
                _panel(carrier, ids, carriers, (photograph, picture), maps) | {"link": links.get(carrier.unit, "")}
            )
    most = max(1, *(min(carriers.shown, len(layer.carriers)) for layer in carriers.layers))
    last = (_EDGE + len(carriers.layers) * _ACROSS, _TOP + (most - 1) * _DOWN // 2)
    target = {"id": "carriers", "x": last[0], "y": last[1], "caption": maps.label, "title": maps.unit, "color": _GAIN}
    target["link"] = links.get(maps.unit, "")
    nodes.append(target | {"source": data_url(photograph if shown.unit is None else shown.unit, 2 * _SIDE)})
    flows = [(places[edge.source], places[edge.target], edge.contribution, f"{edge.source} to {edge.target}")
             for edge in carriers.edges]  # fmt: skip
    ends = [
        (places[each.unit], last, each.contribution, f"{each.unit} to {maps.unit}")
        for each in carriers.layers[-1].carriers[: carriers.shown]
    ]
    return {
        "side": _SIDE,
        "width": last[0] + max(_SIDE, 8 * len(maps.label)),
        "height": _TOP + most * _DOWN,
        "layers": [{"name": each.layer, "x": _EDGE + column * _ACROSS} for column, each in enumerate(carriers.layers)],
        "nodes": nodes,
        "panels": panels,
        "edges": [*_lines(flows), *_lines(ends)],
    }


def _node(carrier: Carrier, place: tuple[int, int], name: str, picture: Image.Image | None) -> dict[str, Any]:
    return {
        "id": name,
        "x": place[0],
        "y": place[1],
        "caption": carrier_caption(carrier),
        "title": f"{carrier.unit}: {carrier.contribution:.4g}",
        "color": _GAIN if carrier.contribution >= 0 else _LOSS,
        "source": "" if picture is None else data_url(picture, 2 * _SIDE),
    }


def _panel(
    carrier: Carrier, ids: dict[str, str], carriers: Carriers, images: tuple[Image.Image, Image.Image | None],
    maps: AttributionMaps,
) -> dict[str, Any]:  # fmt: skip
    """What a click on a node tells."""
    photograph, picture = images
    shown = [] if picture is None else [{"caption": "what excites it most", "source": data_url(picture)}]
    if carrier.map is not None:
        source = data_url(overlay(photograph, carrier.map, 0.0))
        shown.append({"caption": f"where it carried {maps.label}", "source": source})
    flows = sorted(
        (edge for edge in carriers.edges if edge.target == carrier.unit), key=lambda edge: -edge.contribution
    )
    return {
        "id": ids[carrier.unit],
        "unit": carrier.unit,
        "caption": f"contribution {carrier.contribution:.4g}, {carrier.share:.1%} of its layer",
        "images": shown,
        "flows": [
            {"id": ids[edge.source], "unit": edge.source, "contribution": f"{edge.contribution:.4g}"} for edge in flows
        ],
    }


def _lines(flows: Sequence[tuple[tuple[int, int], tuple[int, int], float, str]]) -> list[dict[str, Any]]:
    widest = max((abs(flow[2]) for flow in flows), default=0.0) or 1.0
    middle = _SIDE // 2
    return [
        {
            "x1": start[0] + _SIDE,
            "y1": start[1] + middle,
            "x2": end[0],
            "y2": end[1] + middle,
            "color": _GAIN if value > 0 else _LOSS,
            "width": f"{max(1.0, _WIDEST * abs(value) / widest):.1f}",
            "title": f"{name}: {value:.4g}",
        }
        for start, end, value, name in flows
        if abs(value) >= _LEAST_EDGE * widest
    ]
