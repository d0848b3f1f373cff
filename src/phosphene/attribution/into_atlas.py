"""An explanation that is put into an atlas, whose page then leads to it, and it leads back."""

from __future__ import annotations

import hashlib
import io
import math
import re

from phosphene.atlas.explanations import (
    FOLDER,
    INDEX,
    MOST_CARRIERS,
    PAGE,
    SMALL,
    ListedCarrier,
    ListedExplanation,
    add_explanation,
)
from phosphene.atlas.store import Store
from phosphene.attribution.maps import AttributionMaps
from phosphene.attribution.page import panel_ids, render_page
from phosphene.attribution.pictures import Illustrations
from phosphene.attribution.sheet import overlay, photograph_image
from phosphene.errors import InputError, printable

_ATLAS_PAGE = "index.html"
_BACK = f"../../{_ATLAS_PAGE}"  # from an explanation's folder
_SMALL = 256  # pixels, of the image that the atlas's page shows of it
_TEXT = 900  # characters
_COARSE = ("grad-cam", "occlusion")


def check_writable(place: str) -> None:
    """Raise an `InputError` if an atlas there can only be read."""
    if place.startswith(("http://", "https://")):
        raise InputError(f"the atlas {place!r} can only be read: expected a folder, or a store that can be written")


def put_into_atlas(maps: AttributionMaps, shown: Illustrations, photograph: str, place: str) -> tuple[str, list[str]]:
    """Put the page of an explanation into the atlas that its pictures are from, and list it there.

    One of the same photograph and unit takes the place of the one before.

    Args:
        photograph: the name of its file.
        place: of the atlas.

    Returns:
        Where the page is, and what a user should know, in sentences.

    Raises:
        InputError: there is no atlas, it is of other weights, or it cannot be written.
    """
    check_writable(place)
    store = Store(place)
    weights = store.plan().weights
    if weights != maps.weights:
        raise InputError(f"the atlas {place!r} is of weights {weights}, and the explanation of {maps.weights}")
    page = render_page(maps, shown, atlas=_BACK)
    told = hashlib.sha256(maps.photograph.tobytes() + maps.unit.encode()).hexdigest()[:8]
    name = f"{_plain(photograph.rpartition('.')[0] or photograph)}-{_plain(maps.label)}-{told}"
    files = {PAGE: page.encode(), SMALL: _small(maps)}
    notes = add_explanation(store, name, _listed(maps, shown, photograph), files)
    if not _leads_here(store):
        notes.append(
            f"the atlas's page does not list explanations yet: `phosphene atlas site {place}` writes one that does"
        )
    return store.path(f"{FOLDER}/{name}/{PAGE}"), notes


def _plain(text: str) -> str:
    """Text as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:40].strip("._") or "x"


def _listed(maps: AttributionMaps, shown: Illustrations, photograph: str) -> ListedExplanation:
    def spelled(unit: str) -> str:
        return shown.in_atlas[unit].unit if unit in shown.in_atlas else printable(unit, _TEXT)

    ids = {} if maps.carriers is None else panel_ids(maps.carriers)
    carriers = [] if maps.carriers is None else maps.carriers.pictured
    return ListedExplanation(
        weights=maps.weights,
        photograph=_line(photograph),
        unit=spelled(maps.unit),
        label=_line(maps.label),
        value=_finite(maps.value),
        probability=_finite(maps.probability),
        carriers=[ListedCarrier(spelled(each.unit), ids[each.unit], each.share) for each in carriers[:MOST_CARRIERS]],
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _line(text: str) -> str:
    return printable(" ".join(text.split()), _TEXT)


def _small(maps: AttributionMaps) -> bytes:
    """The coarsest map, over the photograph."""
    image = photograph_image(maps.photograph)
    there = [name for name in (*_COARSE, *maps.maps) if name in maps.maps]
    for name in there[:1]:
        image = overlay(image, maps.maps[name], maps.settings.smoothing)
    image.thumbnail((_SMALL, _SMALL))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _leads_here(store: Store) -> bool:
    """Whether the atlas has a page that reads the list."""
    try:
        return INDEX.encode() in store.read(_ATLAS_PAGE)
    except (InputError, OSError):
        return False
