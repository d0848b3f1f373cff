"""Where an atlas is kept: a directory, or a place in an object store (any URL that fsspec takes).

    atlas.json                          the plan
    images/GROUP/BUCKET/INDEX.png       a unit's image; INDEX_1.png, … its further facets; 500 units a bucket
    images/GROUP/BUCKET/INDEX.webp      its film, where the plan asks for frames; INDEX_1.webp, … of further facets
    index/TIME-NAME.parquet             rows of images, one each; of several rows of an image the latest counts

A film and then its image are written beside their places and moved there, and then indexed, so that an image is there
wholly or not at all: without the film that it tells of it counts as missing.  It carries all that its row says, so the
index can be made again from the files alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from PIL import Image

from phosphene.atlas.plan import CLASSES, Plan
from phosphene.errors import InputError
from phosphene.images import open_image
from phosphene.networks.extras import require
from phosphene.picture import Picture
from phosphene.provenance import KEY, parsed, png_info
from phosphene.render import Film

PLAN = "atlas.json"
PLACE = "phosphene-atlas"  # under which an image says where in an atlas it belongs
BUCKET = 500
_MOMENT = "{:020d}"  # nanoseconds since 1970
AT_ONCE = 32  # requests to an object store

# The columns of the index, and their types as Arrow names them.
COLUMNS: dict[str, str] = {
    "group": "string",  # "classes", or the layer
    "index": "int64",  # of the class or channel
    "facet": "int64",
    "unit": "string",
    "label": "string",
    "seed": "int64",
    "recipe": "string",  # its digest
    "weights": "string",
    "file": "string",  # from the atlas's root on
    "bytes": "int64",
    "sha256": "string",
    "steps": "int64",
    "stopped": "string",
    "seconds": "double",
    "written": "double",  # seconds since 1970
    "objective": "double",
    "probability": "double",
    "judged": "double",  # the judges' mean probability of the class
    "top1": "double",  # the share of the judges whose first guess it is
    "robustness": "double",
    "retained": "double",
    "rank": "int64",  # among the layer's channels, on its own image
    "of": "int64",
    "slope": "double",
    "saturated": "double",
    "curve": "list<double>",  # the objective at some of the steps, evenly spread
    "film": "string",  # from the atlas's root on; null: none
    "film_bytes": "int64",
    "film_sha256": "string",
    "film_frames": "int64",
    "film_every": "int64",  # steps between two frames
}

_T = TypeVar("_T")
_U = TypeVar("_U")

Row = dict[str, Any]
Key = tuple[str, int, int]
"""An image's group, index and facet."""


def key(row: Row) -> Key:
    return row["group"], row["index"], row["facet"]


@dataclass(frozen=True)
class Problem:
    """A file of an image, itself or its film, that is not as its row says."""

    row: Row
    file: str
    what: str


class Store:
    """An atlas on disk.

    Args:
        place: a directory, or a URL.

    Raises:
        InputError: there is no file system of that kind.
    """

    def __init__(self, place: str | Path):
        self.place = str(place)
        try:
            self.fs, root = fsspec.core.url_to_fs(self.place)
        except (ValueError, ImportError) as error:
            raise InputError(f"atlas {self.place!r} cannot be reached: {error}") from error
        self.root = root.rstrip("/")
        self.local = "file" in self.fs.protocol if isinstance(self.fs.protocol, tuple) else self.fs.protocol == "file"

    # The plan.

    def has_plan(self) -> bool:
        return bool(self.fs.exists(self.path(PLAN)))

    def plan(self) -> Plan:
        """Raises an `InputError` if there is none."""
        try:
            text = self.fs.cat_file(self.path(PLAN)).decode()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.place!r} is no atlas: expected one that `phosphene atlas plan` made") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the plan of {self.place!r} cannot be read: {error}") from error
        return Plan.from_json(text, repr(self.place))

    def write_plan(self, plan: Plan) -> None:
        """Raises an `InputError` if the place holds something else, or cannot be written."""
        if not self.has_plan():
            try:
                other = [name for name in self.fs.ls(self.root, detail=False) if not Path(name).name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                other = []
            if other or (self.fs.exists(self.root) and not self.fs.isdir(self.root)):
                raise InputError(
                    f"{self.place!r} holds something else than an atlas: expected a new or empty directory"
                )
        self.write(PLAN, plan.to_json().encode())

    # Images.

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is there wholly or not at all.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path(name)
        aside = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"
        try:
            if not self.local:  # object stores put whole objects
                self.fs.pipe_file(path, data)
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError as error:
            raise InputError(
                f"{self.place!r} cannot be written: {error.strerror or error}; what was made is kept, and the same "
                "command goes on"
            ) from error
        finally:
            if self.local and os.path.lexists(aside):
                os.unlink(aside)

    def put(self, group: str, index: int, facet: int, recipe: str, picture: Picture, film: Film | None = None) -> Row:
        """Keep a picture, with its film if there is one; its row is yet to be indexed."""
        buffer = io.BytesIO()
        info = png_info(picture)
        place = {"group": group, "index": index, "facet": facet, "recipe": recipe}
        place |= {"seconds": picture.seconds, "written": time.time(), "curve": _curve(picture.objectives)}
        if film is not None:  # before the image, which is there only with it
            shown = _webp(film.image)
            self.write(film_name(group, index, facet), shown)
            place["film"] = {
                "bytes": len(shown),
                "sha256": _digest(shown),
                "frames": film.frames,
                "every": film.every,
            }
        info.add_text(PLACE, json.dumps(place))
        picture.image().save(buffer, "PNG", pnginfo=info)
        data = buffer.getvalue()
        name = file_name(group, index, facet)
        self.write(name, data)
        return _row(name, data, picture.provenance(), place)

    def made(self, group: str, index: int, facet: int) -> Row | None:
        """The row of an image that is in its place with all of its files, whether it is indexed or not."""
        return self.row_of(file_name(group, index, facet))

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self.path(name)))

    def remove(self, folder: str) -> None:
        """Take away a folder with all that is in it."""
        self.fs.invalidate_cache()
        self.fs.rm(self.path(folder), recursive=True)

    def remove_others(self, folder: str, keep: str) -> None:
        """Take away all that is in a folder but one name, given as `folder` from the atlas's root on."""
        self.fs.invalidate_cache()
        for path in self.fs.ls(self.path(folder), detail=False):
            if not path.rstrip("/").endswith(f"/{keep}"):
                self.fs.rm(path, recursive=True)

    # The index.

    def add(self, rows: Sequence[Row]) -> None:
        """Index images that are in their places."""
        if rows:
            self.write(f"index/{_MOMENT.format(time.time_ns())}-{uuid.uuid4().hex[:8]}.parquet", _packed(rows))

    def rows(self) -> list[Row]:
        """The latest row of every image, in the order of groups' names, indices and facets.

        Raises:
            InputError: a part of the index is damaged.
        """
        while True:
            with suppress(FileNotFoundError):  # another process has just put the parts together: they are listed anew
                return self._rows(self.parts())

    def _rows(self, parts: Sequence[str]) -> list[Row]:
        # An older part may lack a column.
        found = {key(row): dict.fromkeys(COLUMNS) | row for rows in at_once(self._part, parts) for row in rows}
        return [found[each] for each in sorted(found)]

    def _part(self, path: str) -> list[Row]:
        pq = require("pyarrow.parquet", "atlas", "an atlas")
        try:
            return list(pq.read_table(io.BytesIO(self.fs.cat_file(path))).to_pylist())
        except FileNotFoundError:
            raise
        except Exception as error:  # of whatever kind Arrow's is
            raise InputError(
                f"index part {path!r} is damaged: expected `phosphene atlas index` to make the index again from "
                "the images"
            ) from error

    def parts(self) -> list[str]:
        self.fs.invalidate_cache()
        try:
            names = self.fs.ls(self.path("index"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.endswith(".parquet"))

    def merge(self) -> None:
        """Put the parts of the index together; those that others write meanwhile stay as they are."""
        old = self.parts()
        if len(old) > 1:
            with suppress(FileNotFoundError):  # another process puts them together
                self._replace(old, self._rows(old))

    def drop(self, rows: Iterable[Row]) -> None:
        """Take images away: their files, and then their rows; one that was made anew since stays."""
        now = {key(row): row["sha256"] for row in self.rows()}
        given = {key(row): row for row in rows if now.get(key(row)) == row["sha256"]}
        for name in chain.from_iterable(map(files_of, given.values())):
            with suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))
        while True:
            with suppress(FileNotFoundError):  # another process has just put the parts together
                old = self.parts()
                kept = [row for row in self._rows(old) if given.get(key(row), {}).get("sha256") != row["sha256"]]
                return self._replace(old, kept)

    def _replace(self, old: Sequence[str], rows: Sequence[Row]) -> None:
        """Have one part of the index in place of old ones.

        It has the time of the latest of them, so that whatever was written after them counts.
        """
        if rows:
            moment = old[-1].rpartition("/")[2].partition("-")[0] if old else _MOMENT.format(0)
            self.write(f"index/{moment}-{uuid.uuid4().hex[:8]}.parquet", _packed(rows))
        for path in old:
            with suppress(FileNotFoundError):
                self.fs.rm_file(path)

    def rebuild(self, on_progress: Callable[[int, int], None] | None = None) -> int:
        """Make the index again from the files alone; gives how many images there are.

        Files that are no images of an atlas, damaged, or without their film, are left where they are and out of the
        index.
        """
        old = self.parts()
        files = sorted(self.fs.glob(self.path("images/**/*.png")))
        names = [path.removeprefix(f"{self.root}/") for path in files]
        found = at_once(self.row_of, names, lambda done: on_progress and on_progress(done, len(files)))
        rows = [row for row in found if row is not None]
        self._replace(old, rows)
        return len(rows)

    def row_of(self, name: str) -> Row | None:
        """The row of an image, from its file alone; None where it, or its film, is not there or not whole."""
        try:
            data = self.read(name)
            text = open_image(data, name).text
            row = _row(name, data, parsed(text[KEY]).to_dict(), json.loads(text[PLACE]))
            film_is_whole = row["film"] is None or _digest(self.read(row["film"])) == row["film_sha256"]
            return row if film_is_whole else None
        except (OSError, KeyError, ValueError, TypeError, SyntaxError, AttributeError):
            return None

    def verify(
        self, rows: Iterable[Row] | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Problem]:
        """The images that are missing or not as they were written, themselves or their films; each once."""
        known = list(self.rows() if rows is None else rows)
        found = at_once(self._checked, known, lambda done: on_progress and on_progress(done, len(known)))
        return [problem for problem in found if problem is not None]

    def _checked(self, row: Row) -> Problem | None:
        files = [(row["file"], row["bytes"], row["sha256"])]
        if row["film"] is not None:
            files.append((row["film"], row["film_bytes"], row["film_sha256"]))
        problems = (Problem(row, file, what) for file, *wanted in files if (what := self._problem(file, *wanted)))
        return next(problems, None)

    def _problem(self, name: str, size: int, digest: str) -> str:
        """What is wrong with a file; nothing if it is as it was written."""
        try:
            data = self.read(name)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"not to be read: {error.strerror or error}"
        return "" if _digest(data) == digest else f"not as it was written: {len(data)} bytes where {size} were"


def at_once(
    run: Callable[[_T], _U], given: Iterable[_T], on_each: Callable[[int], object] = lambda done: None
) -> list[_U]:
    """What comes of each, in their order; many wait at once for an object store, which takes its time for each.

    Args:
        on_each: called with how many are done.
    """
    made = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for each in threads.map(run, given):
            made.append(each)
            on_each(len(made))
    return made


def file_name(group: str, index: int, facet: int) -> str:
    """Where an image is, from the atlas's root on."""
    folder = CLASSES if group == CLASSES else "layer-" + re.sub(r"[^\w.#+-]", "_", group)
    return f"images/{folder}/{index // BUCKET:04d}/{index:05d}{f'_{facet}' if facet else ''}.png"


def film_name(group: str, index: int, facet: int) -> str:
    """Where the film of an image is."""
    return file_name(group, index, facet).removesuffix("png") + "webp"


def files_of(row: Row) -> list[str]:
    """An image's own file, and its film's if it has one."""
    return [row["file"]] if row["film"] is None else [row["file"], row["film"]]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return buffer.getvalue()


def _row(name: str, data: bytes, known: dict[str, Any], place: dict[str, Any]) -> Row:
    scores = known["scores"]
    film = place.get("film", {})
    judged, selectivity = scores.get("judged", {}), scores.get("selectivity", {})
    return {
        "group": place["group"],
        "index": place["index"],
        "facet": place["facet"],
        "unit": known["unit"],
        "label": known["label"],
        "seed": known["seed"],
        "recipe": place["recipe"],
        "weights": known["network"]["weights"],
        "file": name,
        "bytes": len(data),
        "sha256": _digest(data),
        "steps": known["steps"],
        "stopped": known["stopped"],
        "seconds": place["seconds"],
        "written": place["written"],
        "objective": scores.get("objective"),
        "probability": scores.get("probability"),
        "judged": judged.get("probability"),
        "top1": judged.get("top1"),
        "robustness": scores.get("robustness"),
        "retained": scores.get("retained"),
        "rank": selectivity.get("rank"),
        "of": selectivity.get("of"),
        "slope": scores.get("slope"),
        "saturated": scores.get("saturated"),
        "curve": place.get("curve", []),
        "film": film_name(place["group"], place["index"], place["facet"]) if film else None,
        "film_bytes": film.get("bytes"),
        "film_sha256": film.get("sha256"),
        "film_frames": film.get("frames"),
        "film_every": film.get("every"),
    }


def _curve(objectives: Sequence[float], points: int = 40) -> list[float]:
    if len(objectives) > points:
        objectives = [objectives[round(i * (len(objectives) - 1) / (points - 1))] for i in range(points)]
    return [float(f"{value:.5g}") for value in objectives if math.isfinite(value)]


def _packed(rows: Sequence[Row]) -> bytes:
    pa = require("pyarrow", "atlas", "an atlas")
    pq = require("pyarrow.parquet", "atlas", "an atlas")
    types = {"double": pa.float64(), "int64": pa.int64(), "string": pa.string(), "list<double>": pa.list_(pa.float64())}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()
