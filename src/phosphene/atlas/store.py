"""Where an atlas is kept: a directory, or a place in an object store (any URL that fsspec takes).

    atlas.json                          the plan
    images/GROUP/BUCKET/INDEX.png       a unit's image; INDEX_1.png, … its further facets; 500 units a bucket
    images/GROUP/BUCKET/INDEX.webp      its film, where the plan asks for frames; INDEX_1.webp, … of further facets
    dictionaries/DIGEST.safetensors     of groups of latents, their dictionary
    site.json                           the options of the last page
    explanations/NAME/                  explanations of photographs; see `explanations`
    maps/DIGEST.safetensors             of groups of cells, their activation map
    index/TIME-NAME.parquet             rows of images, one each; of several rows of an image the latest counts

A film and then its image are written beside their places and moved there, and then indexed, so that an image is there
wholly or not at all: without the film that it tells of it counts as missing.  It carries all that its row says, so the
index can be made again from the files alone.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from PIL import Image

from phosphene.atlas import dictionaries, map_files
from phosphene.atlas.plan import AtlasPlan
from phosphene.atlas.rows import (
    IndexRow,
    curve,
    digest,
    file_name,
    files_of,
    film_name,
    key,
    make_row,
    pack_rows,
    unpack_rows,
    validate_rows,
)
from phosphene.atlas.storage import Storage, map_threaded
from phosphene.dictionaries.dictionary import Dictionary
from phosphene.dictionaries.reading import read_dictionary
from phosphene.display import opaque, to_display
from phosphene.draw.film import Film
from phosphene.errors import InputError, input_errors_for
from phosphene.images import open_image
from phosphene.picture import Picture, png_info
from phosphene.png import KEY
from phosphene.provenance.records import parse_provenance

PLAN = "atlas.json"
PLACE = "phosphene-atlas"  # under which an image says where in an atlas it belongs
_VERSION = re.compile(r"phosphene ([\w.+-]{1,40})")  # as `picture.png_info` writes it
_MOMENT = "{:020d}"  # nanoseconds since 1970


@dataclass(frozen=True)
class Problem:
    """A file of an image, itself or its film, that is not as its row says."""

    row: IndexRow
    file: str
    what: str


@dataclass(frozen=True)
class RebuildReport:
    """What an index was made of again.

    Attributes:
        images: how many are in it.
        left_out: the files among the images that are none of this atlas, from its root on, and why not.
    """

    images: int
    left_out: dict[str, str]


class Store(Storage):
    """An atlas: its plan, its images and their index.

    Args:
        place: a directory, or a URL.

    Raises:
        InputError: there is no file system of that kind.
    """

    # The plan.

    def has_plan(self) -> bool:
        return bool(self.fs.exists(self.path(PLAN)))

    def plan(self) -> AtlasPlan:
        """Raises an `InputError` if there is none."""
        try:
            data = self.read(PLAN)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.place!r} is no atlas: expected one that `phosphene atlas plan` made") from None
        except OSError as error:
            raise InputError(f"the plan of {self.place!r} cannot be read: {error.strerror or error}") from error
        with input_errors_for(f"the plan of {self.place!r}", "text in UTF-8"):
            text = data.decode()
        plan = AtlasPlan.from_json(text, repr(self.place))
        for wanted in {group.dictionary for group in plan.groups if group.dictionary}:
            dictionaries.provide(wanted, partial(self._dictionary, wanted))
        for wanted in {group.map for group in plan.groups if group.map}:
            map_files.provide(wanted, partial(self._map, wanted))
        return plan

    def _map(self, wanted: str) -> bytes:
        name = map_files.file_name(wanted)
        with input_errors_for(f"{name} of {self.place!r}", "a map, as `phosphene atlas map` puts it there"):
            return self.read(name)

    def _dictionary(self, wanted: str) -> Dictionary:
        name = dictionaries.file_name(wanted)
        with input_errors_for(f"{name} of {self.place!r}", "a dictionary, as `phosphene atlas plan` puts it there"):
            data = self.read(name)
        return read_dictionary(data, f"{name} of {self.place!r}")

    def write_plan(self, plan: AtlasPlan) -> None:
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
        for wanted in {group.dictionary for group in plan.groups if group.dictionary}:
            if not self.fs.exists(self.path(dictionaries.file_name(wanted))):
                self.write(dictionaries.file_name(wanted), dictionaries.find(wanted).to_bytes())
        for wanted in {group.map for group in plan.groups if group.map}:
            if not self.fs.exists(self.path(map_files.file_name(wanted))):
                self.write(map_files.file_name(wanted), map_files.data_of(wanted))
        self.write(PLAN, plan.to_json().encode())

    # Images.

    def put(
        self, group: str, index: int, facet: int, recipe: str, picture: Picture, film: Film | None = None
    ) -> IndexRow:
        """Keep a picture, with its film if there is one; its row is yet to be indexed."""
        buffer = io.BytesIO()
        info = png_info(picture)
        place = {"group": group, "index": index, "facet": facet, "recipe": recipe}
        place |= {"seconds": picture.seconds, "written": time.time(), "curve": curve(picture.objectives)}
        if film is not None:  # before the image, which is there only with it
            data = _webp(film.image)
            self.write(film_name(group, index, facet), data)
            place["film"] = {"bytes": len(data), "sha256": digest(data), "frames": film.frames, "every": film.every}
        info.add_text(PLACE, json.dumps(place))
        picture.image().save(buffer, "PNG", pnginfo=info)
        data = buffer.getvalue()
        name = file_name(group, index, facet)
        self.write(name, data)
        return make_row(name, data, picture.provenance(), place)

    def find_row(self, group: str, index: int, facet: int) -> IndexRow | None:
        """The row of an image that is in its place with all of its files, whether it is indexed or not."""
        return self.row_of(file_name(group, index, facet))

    def image(self, row: IndexRow) -> Image.Image:
        """The image of a row, decoded.

        Raises:
            InputError: it is not there, or no image.
        """
        return self.image_and_version(row)[0]

    def image_and_version(self, row: IndexRow) -> tuple[Image.Image, str]:
        """The image of a row, decoded, and the version of phosphene that made it; empty where it does not say.

        Raises:
            InputError: it is not there, or no image.
        """
        with input_errors_for(
            f"{row['file']} of {self.place!r}", "an image; `phosphene atlas verify --repair` takes it out"
        ):
            data = self.read(row["file"])
            found = open_image(data, row["file"])
            said = _VERSION.fullmatch(str(found.text.get("Software", "")))
            return opaque(to_display(found.image, row["file"])), said[1] if said else ""

    # The index.

    def add(self, rows: Sequence[IndexRow]) -> None:
        """Index images that are in their places."""
        if rows:
            self.write(f"index/{_MOMENT.format(time.time_ns())}-{uuid.uuid4().hex[:8]}.parquet", pack_rows(rows))

    def rows(self) -> list[IndexRow]:
        """The latest row of every image, in the order of groups' names, indices and facets.

        Raises:
            InputError: a part of the index is damaged.
        """
        while True:
            with suppress(FileNotFoundError):  # another process has just put the parts together: they are listed anew
                return self.read_parts(self.parts())

    def read_parts(self, parts: Sequence[str]) -> list[IndexRow]:
        """The latest row of every image in some parts of the index."""
        latest = {key(row): row for rows in map_threaded(self._part, parts) for row in rows}
        return [latest[each] for each in sorted(latest)]

    def _part(self, path: str) -> list[IndexRow]:
        name = path.removeprefix(f"{self.root}/")
        try:
            data = self.read(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"index part {name!r} cannot be read: {error.strerror or error}") from error
        return unpack_rows(data, f"index part {name!r}")

    def parts(self) -> list[str]:
        return [self.path(f"index/{name}") for name in self.names("index") if name.endswith(".parquet")]

    def merge(self) -> None:
        """Put the parts of the index together; those that others write meanwhile stay as they are."""
        old = self.parts()
        if len(old) > 1:
            with suppress(FileNotFoundError):  # another process puts them together
                self._replace(old, self.read_parts(old))

    def drop(self, rows: Iterable[IndexRow]) -> None:
        """Take images away: their files, and then their rows; one that was made anew since stays."""
        now = {key(row): row["sha256"] for row in self.rows()}
        dropped = {key(row): row for row in rows if now.get(key(row)) == row["sha256"]}
        for name in chain.from_iterable(map(files_of, dropped.values())):
            with suppress(FileNotFoundError):
                self.remove_file(name)
        while True:
            with suppress(FileNotFoundError):  # another process has just put the parts together
                old = self.parts()
                rest = [row for row in self.read_parts(old) if dropped.get(key(row), {}).get("sha256") != row["sha256"]]
                return self._replace(old, rest)

    def update(self, rows: Iterable[IndexRow]) -> None:
        """Index rows that say more of images that are indexed; one that was made anew since keeps its own."""
        now = {key(row): row["sha256"] for row in self.rows()}
        self.add([row for row in rows if now.get(key(row)) == row["sha256"]])
        self.merge()

    def _replace(self, old: Sequence[str], rows: Sequence[IndexRow]) -> None:
        """Have one part of the index in place of old ones.

        It has the time of the latest of them, so that whatever was written after them counts.
        """
        if rows:
            moment = old[-1].rpartition("/")[2].partition("-")[0] if old else _MOMENT.format(0)
            self.write(f"index/{moment}-{uuid.uuid4().hex[:8]}.parquet", pack_rows(rows))
        for path in old:
            with suppress(FileNotFoundError):
                self.fs.rm_file(path)

    def rebuild(self, on_progress: Callable[[int, int], None] | None = None) -> RebuildReport:
        """Make the index again from the files alone.

        Files that are no images of an atlas, damaged, in the place of another image, or without their film, are left
        where they are and out of the index.
        """
        old = self.parts()
        files = sorted(self._image_files())
        names = [name for name, why in files if not why]
        results = map_threaded(self.examine, names, lambda done: on_progress and on_progress(done, len(names)))
        rows = [row for row in results if not isinstance(row, str)]
        left_out = {name: why for name, why in files if why}
        left_out |= {name: row for name, row in zip(names, results, strict=True) if isinstance(row, str)}
        self._replace(old, rows)
        return RebuildReport(len(rows), dict(sorted(left_out.items())))

    def _image_files(self) -> Iterator[tuple[str, str]]:
        """Every file among the images that is no film, with why it can be no image; links are not followed."""
        if not self.local:
            self.fs.invalidate_cache()
            paths = [path.removeprefix(f"{self.root}/") for path in self.fs.find(self.path("images"))]
            yield from ((path, _is_no_image(path)) for path in paths if not path.endswith(".webp"))
            return
        for folder, folders, files in os.walk(self.path("images")):
            place = Path(folder).relative_to(self.root).as_posix()
            for name in list(folders):
                why = "a symbolic link" if os.path.islink(os.path.join(folder, name)) else ""
                if place.count("/") >= 2:  # images/GROUP/BUCKET
                    why = why or "a folder where an atlas has none"
                if why:
                    folders.remove(name)
                    yield f"{place}/{name}", why
            for name in files:
                if not name.startswith(".") and not name.endswith(".webp"):
                    yield f"{place}/{name}", _is_no_image(f"{place}/{name}")

    def row_of(self, name: str) -> IndexRow | None:
        """The row of an image, from its file alone; None where it, or its film, is not there or not whole."""
        row = self.examine(name)
        return None if isinstance(row, str) else row

    def examine(self, name: str) -> IndexRow | str:
        """The row of an image, from its file alone; or why it has none."""
        try:
            with input_errors_for("it", "an image that `phosphene atlas run` made"):
                data = self.read(name)
                text = open_image(data, "it").text
                if KEY not in text or PLACE not in text:
                    return "it does not say where in an atlas it belongs"
                (row,) = validate_rows(
                    [make_row(name, data, parse_provenance(text[KEY]).to_dict(), json.loads(text[PLACE]))], "it"
                )
        except InputError as error:
            return str(error)
        try:
            whole = row["film"] is None or digest(self.read(row["film"])) == row["film_sha256"]
        except (OSError, InputError):
            return f"its film {row['film']} cannot be read"
        return row if whole else f"its film {row['film']} is not as it was written"

    def verify(
        self, rows: Iterable[IndexRow] | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Problem]:
        """The images that are missing or not as they were written, themselves or their films; each once."""
        known = list(self.rows() if rows is None else rows)
        problems = map_threaded(self._check, known, lambda done: on_progress and on_progress(done, len(known)))
        return [problem for problem in problems if problem is not None]

    def _check(self, row: IndexRow) -> Problem | None:
        files = [(row["file"], row["bytes"], row["sha256"])]
        if row["film"] is not None:
            files.append((row["film"], row["film_bytes"], row["film_sha256"]))
        problems = (Problem(row, file, what) for file, *wanted in files if (what := self._problem(file, *wanted)))
        return next(problems, None)

    def _problem(self, name: str, size: int, sha256: str) -> str:
        """What is wrong with a file; nothing if it is as it was written."""
        try:
            data = self.read(name)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"not to be read: {error.strerror or error}"
        except InputError as error:
            return f"not to be read: {error}"
        return "" if digest(data) == sha256 else f"not as it was written: {len(data)} bytes where {size} were"


def _is_no_image(name: str) -> str:
    """Why a file cannot be an image of an atlas, by its name."""
    return "" if name.endswith(".png") else "no name of an atlas's image: expected PNG"


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return buffer.getvalue()
