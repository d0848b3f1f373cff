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

import errno
import hashlib
import io
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from PIL import Image

from phosphene.atlas.plan import AtlasPlan
from phosphene.atlas.rows import (
    IndexRow,
    curve,
    file_name,
    files_of,
    film_name,
    key,
    pack_rows,
    unpack_rows,
    validate_rows,
)
from phosphene.display import opaque
from phosphene.draw.film import Film
from phosphene.errors import InputError, input_errors_for
from phosphene.images import open_image, read_image
from phosphene.picture import Picture, png_info
from phosphene.png import KEY
from phosphene.provenance.records import parse_provenance

PLAN = "atlas.json"
PLACE = "phosphene-atlas"  # under which an image says where in an atlas it belongs
_MOMENT = "{:020d}"  # nanoseconds since 1970
IO_THREADS = 32  # requests to an object store

# An atlas may come from anyone: what is larger than any file of one is not read.
_MOST_BYTES = 2**28

_T = TypeVar("_T")
_U = TypeVar("_U")


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
        return AtlasPlan.from_json(text, repr(self.place))

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
        self.write(PLAN, plan.to_json().encode())

    # Images.

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes, *, lasting: bool = True) -> None:
        """Write a file so that it is there wholly or not at all.

        Args:
            lasting: also after the machine fails.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path(name)
        aside = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"
        try:
            if not self.local:  # object stores put whole objects
                self.fs.pipe_file(path, data)
                return
            self.check_inside(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            if self.local and os.path.lexists(aside):
                os.unlink(aside)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file where there is none; whether there was none.

        Where a store cannot tell (see fsspec's `pipe_file`), two that come at once may both be told so.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path(name)
        try:
            if not self.local:
                return self._put_new(path, data)
            self.check_inside(name)
            try:
                descriptor = _creation_time(path)
            except FileNotFoundError:  # the folder is made with its first file, and goes with its last
                os.makedirs(os.path.dirname(path), exist_ok=True)
                descriptor = _creation_time(path)
            with open(descriptor, "wb") as file:
                file.write(data)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise self._unwritable(error) from error

    def _put_new(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(path, data, mode="create")
        except (TypeError, NotImplementedError):  # of before fsspec had it
            if self.fs.exists(path):
                return False
            self.fs.pipe_file(path, data)
        except OSError:
            if not self.fs.exists(path):
                raise
            return False
        return True

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.place!r} cannot be written: {error.strerror or error}; what was made is kept, and the same command "
            "goes on"
        )

    def modified(self, name: str) -> float | None:
        """When a file was written, by the store's own clock; None where it does not tell, or there is none."""
        try:
            self.fs.invalidate_cache()
            return float(self.fs.modified(self.path(name)).timestamp())
        except (OSError, NotImplementedError, AttributeError, KeyError, ValueError):
            return None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, in order; nothing where there is none."""
        self.fs.invalidate_cache()
        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.path(folder), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_file(self, name: str) -> None:
        """Raises an `OSError` where it is not there or may not be taken away."""
        if self.local:
            self.check_inside(name)
        self.fs.rm_file(self.path(name))

    def check_inside(self, name: str) -> None:
        """Raise an `OSError` if a symbolic link leads from the way to a file to somewhere else."""
        root, folder = os.path.realpath(self.root), os.path.dirname(name)
        if folder and os.path.realpath(os.path.join(root, folder)) != os.path.join(root, *folder.split("/")):
            raise OSError(errno.ELOOP, f"{folder!r} is a symbolic link, and an atlas has none")

    def put(
        self, group: str, index: int, facet: int, recipe: str, picture: Picture, film: Film | None = None
    ) -> IndexRow:
        """Keep a picture, with its film if there is one; its row is yet to be indexed."""
        buffer = io.BytesIO()
        info = png_info(picture)
        place = {"group": group, "index": index, "facet": facet, "recipe": recipe}
        place |= {"seconds": picture.seconds, "written": time.time(), "curve": curve(picture.objectives)}
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

    def find_row(self, group: str, index: int, facet: int) -> IndexRow | None:
        """The row of an image that is in its place with all of its files, whether it is indexed or not."""
        return self.row_of(file_name(group, index, facet))

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            InputError: it is too large for an atlas's, or no file but a link, a pipe or a device.
            OSError: it is not there, or cannot be read.
        """
        if self.local:
            self.check_inside(name)
            return _read_file(self.path(name), name)
        data = bytes(self.fs.cat_file(self.path(name), start=0, end=_MOST_BYTES + 1))
        if len(data) > _MOST_BYTES:
            raise InputError(f"{name} has over {_MOST_BYTES} bytes: expected a file of an atlas")
        return data

    def image(self, row: IndexRow) -> Image.Image:
        """The image of a row, decoded.

        Raises:
            InputError: it is not there, or no image.
        """
        with input_errors_for(
            f"{row['file']} of {self.place!r}", "an image; `phosphene atlas verify --repair` takes it out"
        ):
            return opaque(read_image(self.read(row["file"]), row["file"]))

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
                return self._rows(self.parts())

    def _rows(self, parts: Sequence[str]) -> list[IndexRow]:
        found = {key(row): row for rows in map_threaded(self._part, parts) for row in rows}
        return [found[each] for each in sorted(found)]

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
                self._replace(old, self._rows(old))

    def drop(self, rows: Iterable[IndexRow]) -> None:
        """Take images away: their files, and then their rows; one that was made anew since stays."""
        now = {key(row): row["sha256"] for row in self.rows()}
        given = {key(row): row for row in rows if now.get(key(row)) == row["sha256"]}
        for name in chain.from_iterable(map(files_of, given.values())):
            with suppress(FileNotFoundError):
                self.remove_file(name)
        while True:
            with suppress(FileNotFoundError):  # another process has just put the parts together
                old = self.parts()
                kept = [row for row in self._rows(old) if given.get(key(row), {}).get("sha256") != row["sha256"]]
                return self._replace(old, kept)

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
        found = map_threaded(self.examine, names, lambda done: on_progress and on_progress(done, len(names)))
        rows = [row for row in found if not isinstance(row, str)]
        left_out = {name: why for name, why in files if why}
        left_out |= {name: row for name, row in zip(names, found, strict=True) if isinstance(row, str)}
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
                    [_row(name, data, parse_provenance(text[KEY]).to_dict(), json.loads(text[PLACE]))], "it"
                )
        except InputError as error:
            return str(error)
        try:
            whole = row["film"] is None or _digest(self.read(row["film"])) == row["film_sha256"]
        except (OSError, InputError):
            return f"its film {row['film']} cannot be read"
        return row if whole else f"its film {row['film']} is not as it was written"

    def verify(
        self, rows: Iterable[IndexRow] | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Problem]:
        """The images that are missing or not as they were written, themselves or their films; each once."""
        known = list(self.rows() if rows is None else rows)
        found = map_threaded(self._checked, known, lambda done: on_progress and on_progress(done, len(known)))
        return [problem for problem in found if problem is not None]

    def _checked(self, row: IndexRow) -> Problem | None:
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
        except InputError as error:
            return f"not to be read: {error}"
        return "" if _digest(data) == digest else f"not as it was written: {len(data)} bytes where {size} were"


def map_threaded(
    run: Callable[[_T], _U], given: Iterable[_T], on_each: Callable[[int], object] = lambda done: None
) -> list[_U]:
    """What comes of each, in their order; many wait at once for an object store, which takes its time for each.

    Args:
        on_each: called with how many are done.
    """
    made = []
    with ThreadPoolExecutor(IO_THREADS) as threads:
        for each in threads.map(run, given):
            made.append(each)
            on_each(len(made))
    return made


def _read_file(path: str, name: str) -> bytes:
    """The bytes of a file itself: a pipe would be waited for, and a link may lead anywhere."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{name} is no file: expected one, and no folder, pipe or device")
        if found.st_size > _MOST_BYTES:
            raise InputError(f"{name} has {found.st_size} bytes: expected {_MOST_BYTES} at most")
        return file.read()


_BINARY = getattr(os, "O_BINARY", 0)


def _creation_time(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)


def _is_no_image(name: str) -> str:
    """Why a file cannot be an image of an atlas, by its name."""
    return "" if name.endswith(".png") else "no name of an atlas's image: expected PNG"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return buffer.getvalue()


def _row(name: str, data: bytes, known: dict[str, Any], place: dict[str, Any]) -> IndexRow:
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
