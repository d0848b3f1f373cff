"""Pictures of units that an atlas has already."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from PIL import Image

from phosphene.atlas.plan import CLASSES, AtlasPlan, Group
from phosphene.atlas.rows import IndexRow
from phosphene.atlas.store import Store
from phosphene.errors import InputError
from phosphene.networks.network import Network
from phosphene.units.latents import Latent
from phosphene.units.objects import Channel, Class, Unit
from phosphene.units.tokens import ALL_TOKENS

_PAGE = "index.html"
_PLAIN = "!~*'()"  # what the page's own encodeURIComponent leaves


@dataclass(frozen=True, eq=False)
class AtlasPicture:
    """A unit's first image in an atlas.

    Attributes:
        link: the address of its page; empty where the atlas has none, or is nowhere that a page can link to.
        place: of the unit within the atlas's page: "#/GROUP/INDEX".
        unit: as the atlas spells it.
    """

    image: Image.Image
    link: str
    place: str
    unit: str


@dataclass(frozen=True, eq=False)
class AtlasPictures:
    """An atlas of a network, by unit.

    Attributes:
        address: of its page; empty without one.
        rows: of the first facets, by group and index.
    """

    store: Store
    plan: AtlasPlan
    address: str
    rows: dict[tuple[str, int], IndexRow] = field(repr=False)

    @classmethod
    def of(cls, place: str | Path, network: Network) -> AtlasPictures:
        """Raises an `InputError` if there is none, it is damaged, or it is of other weights than the network's."""
        store = Store(place)
        plan = store.plan()
        if plan.weights != network.digest:
            raise InputError(
                f"the atlas {store.place!r} is of {plan.network} with weights {plan.weights}, and not of "
                f"{network.name} with {network.digest}: expected an atlas of the same network"
            )
        digests = {group.name: group.digest for group in plan.groups}
        rows = {
            (row["group"], row["index"]): row
            for row in store.rows()
            if row["facet"] == 0 and row["weights"] == plan.weights and row["recipe"] == digests.get(row["group"])
        }
        return cls(store, plan, _page_address(store), rows)

    def find(self, unit: Unit) -> AtlasPicture | None:
        """What the atlas has of a unit; None where it has none, or none that can be read."""
        for group in self.plan.groups:
            index = _index_in(group, unit)
            row = None if index is None else self.rows.get((group.name, index))
            if row is None:
                continue
            try:
                image = self.store.image(row)
            except (InputError, OSError):
                return None
            place = f"#/{quote(group.name, safe=_PLAIN)}/{index}"
            return AtlasPicture(image, f"{self.address}{place}" if self.address else "", place, row["unit"])
        return None


def _index_in(group: Group, unit: Unit) -> int | None:
    """A unit's index in a group; None where it is none of it."""
    if isinstance(unit, Class):
        return unit.index if group.name == CLASSES else None
    if isinstance(unit, Latent):
        of_it = group.dictionary == unit.name.rpartition("=")[2] and group.layer == unit.layer
        return unit.index if group.dictionary and of_it else None
    if isinstance(unit, Channel) and group.name == unit.layer and not group.dictionary:
        tokens = "" if unit.tokens in (None, ALL_TOKENS) else str(unit.tokens)
        return unit.channel if group.tokens == tokens else None
    return None


def _page_address(store: Store) -> str:
    """Of the atlas's page; empty where there is none, or none that a page can link to."""
    if store.local:
        page = Path(store.root) / _PAGE
        return page.resolve().as_uri() if page.is_file() else ""
    url = store.place.startswith(("http://", "https://"))
    return f"{store.place.rstrip('/')}/{_PAGE}" if url and store.fs.exists(store.path(_PAGE)) else ""


def relative_address(address: str, folder: Path) -> str:
    """The address of a file of this machine as seen from a page in a folder; of anything else as it is."""
    page, sharp, rest = address.partition("#")
    if not page.startswith("file://"):
        return address
    path = url2pathname(urlsplit(page).path)
    try:
        near = os.path.relpath(path, folder.resolve())
    except ValueError:  # another drive
        return address
    return quote(Path(near).as_posix()) + sharp + rest
