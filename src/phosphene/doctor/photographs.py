"""Labeled photographs: which class each shows, by its name or by a table, and its pixels."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from phosphene.default_progress import counted
from phosphene.errors import InputError, input_errors_for, printable
from phosphene.files import is_file, read_text
from phosphene.networks.labels import Labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.decoding import decode
from phosphene.photographs.listing import evenly_spread, list_photographs

# Of a table; that of ImageNet's photographs for validation has 50,000 lines, of 2 MB.
MAX_TABLE, MAX_ROWS, MAX_COLUMNS = 64 << 20, 500_000, 64


@dataclass(frozen=True)
class LabeledPhotographs:
    """Photographs, and for each the index of the class that it shows.

    Attributes:
        paths, labels: of the same length.
        unlabeled: image files whose class was not found.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    unlabeled: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def at_most(self, limit: int) -> LabeledPhotographs:
        """So many of them, evenly spread."""
        return self.only(evenly_spread(range(len(self)), limit))

    def only(self, indices: Sequence[int]) -> LabeledPhotographs:
        paths, labels = tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices)
        return replace(self, paths=paths, labels=labels)


def label_by_name(directory: str | Path, network: Network) -> LabeledPhotographs:
    """The photographs of a folder and those in it, their classes from the names of folders and files.

    A name tells a class by, in this order, a WordNet id (`n02007558`), words that name one class and no other
    (`my_flamingo_2`), or a number that it begins with (`130_x`).  Each is looked for in the folder's name
    (`flamingo/0001.jpg`), then in the file's.

    Raises:
        InputError: there is no such folder, no image in it, or none whose class is found; or the network
            has no classes.
    """
    check_classes(network)
    directory, paths = Path(directory), list_photographs(directory)
    names = _ClassNames(network.labels, network.classes)
    found = {path: names.find([*reversed(path.relative_to(directory).parts[:-1]), path.stem]) for path in paths}
    known = {path: index for path, index in found.items() if index is not None}
    if not known:
        expected = "a WordNet id, a class's name or its index" if network.labels else "a class's index in front"
        raise InputError(
            f"photographs {str(directory)!r}: no name of these {len(paths)}, such as {paths[0].name!r}, tells a class; "
            f"expected {expected}, in the file's name or the folder's, or a table of file,label (--csv)"
        )
    return LabeledPhotographs(tuple(known), tuple(known.values()), tuple(path for path in paths if path not in known))


class _ClassNames:
    """Finds the one class that the name of a folder or a file tells."""

    def __init__(self, labels: Labels | None, classes: int):
        self.classes = classes
        self.by_wordnet = {label.wordnet: index for index, label in enumerate(labels or ()) if label.wordnet}
        self.whole: dict[tuple[str, ...], set[int]] = {}  # by all words of a name
        self.part: dict[tuple[str, ...], set[int]] = {}  # by some of them, in a row
        for index, label in enumerate(labels or ()):
            for words in map(_words, label.names):
                self.whole.setdefault(words, set()).add(index)
                for piece in _pieces(words):
                    self.part.setdefault(piece, set()).add(index)

    def find(self, texts: Sequence[str]) -> int | None:
        for told_by in (self._wordnet, self._named, self._leading):
            for text in texts:
                index = told_by(text)
                if index is not None:
                    return index
        return None

    def _wordnet(self, text: str) -> int | None:
        match = re.search(r"(?<![a-z0-9])n\d{8}(?!\d)", text.lower())
        return self.by_wordnet.get(match[0]) if match else None

    def _named(self, text: str) -> int | None:
        """By the longest whole name in the text, or by words of a name that are all that the text says."""
        words = _words(text)
        names = [piece for piece in _pieces(words) if piece in self.whole]
        if names:
            longest = max(map(len, names))
            found = set().union(*(self.whole[name] for name in names if len(name) == longest))
        else:
            found = self.part.get(tuple(word for word in words if not re.fullmatch(r"n?\d+", word)), set())
        return next(iter(found)) if len(found) == 1 else None

    def _leading(self, text: str) -> int | None:
        match = re.match(r"\d{1,9}(?![a-z0-9])", text.lower())
        return int(match[0]) if match and int(match[0]) < self.classes else None


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _pieces(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    words = words[:32]  # a longer name names no class
    return [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]


def label_by_table(table: str | Path, network: Network, directory: str | Path | None = None) -> LabeledPhotographs:
    """The photographs that a CSV file lists in its columns `file` and `label` (its first two where it has no header).

    Files are looked for in `directory`, or beside the table; a label is an index, a WordNet id or a class's name.

    Raises:
        InputError: the table cannot be read, a file is not there, or a label is of no class (with the line); or the
            network has no classes.
    """
    check_classes(network)
    table = Path(table)
    folder = table.parent if directory is None else Path(directory)
    lines = io.StringIO(read_text(table, f"table {str(table)!r}", MAX_TABLE), newline="")
    rows = []
    with input_errors_for(f"table {str(table)!r}", "a CSV file in UTF-8"):
        for number, row in enumerate(csv.reader(lines), 1):
            if any(map(str.strip, row)):
                rows.append((number, row[:MAX_COLUMNS]))
            if len(rows) > MAX_ROWS:
                raise InputError(f"table {str(table)!r} has over {MAX_ROWS:,} lines: expected no more")
    columns = (0, 1)
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if {"file", "label"} <= set(header):
        columns = (header.index("file"), header.index("label"))
        rows = rows[1:]
    if not rows:
        raise InputError(f"table {str(table)!r} lists no photograph: expected lines of file,label")
    listed: dict[tuple[Path, int], None] = {}  # a photograph that is listed twice is one
    indices: dict[str, int] = {}
    there: set[str] = set()
    for number, row in rows:
        where = f"table {str(table)!r}, line {number}"
        if len(row) <= max(columns):
            raise InputError(f"{where}: expected file,label and not {printable(','.join(row))!r}")
        file, label = (row[column].strip() for column in columns)
        if file not in there and not is_file(folder / file):
            raise InputError(f"{where}: there is no file {printable(file)!r} in {str(folder)!r}")
        there.add(file)
        if label not in indices:
            indices[label] = _index(label, network, where)
        listed[folder / file, indices[label]] = None
    return LabeledPhotographs(tuple(path for path, _ in listed), tuple(index for _, index in listed))


def _index(label: str, network: Network, where: str) -> int:
    if network.labels is not None:
        try:
            return network.labels.find(label)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not re.fullmatch(r"[0-9]{1,9}", label) or int(label) >= network.classes:
        last = network.classes - 1
        raise InputError(
            f"{where}: label {printable(label)!r}: expected an index of 0 to {last}, since classes have no names"
        )
    return int(label)


def check_classes(network: Network) -> None:
    """Raise an `InputError` if the network is no classifier, or its last layers are not trained."""
    if not network.classes:
        why = network.limit or "it returns no logits of shape (rows, classes)"
        raise InputError(f"{network.name} cannot name photographs: {why}")


def read_photographs(
    photographs: LabeledPhotographs, preprocessings: Iterable[Preprocessing]
) -> tuple[list[Tensor], LabeledPhotographs]:
    """The pixels, under each preprocessing's way of resizing; every file is decoded once.

    Returns:
        For each preprocessing, bytes (rows, channels, height, width), RGB; and the photographs that could be read.

    Raises:
        InputError: none could, or images cannot have the network's number of channels.
    """
    unique = list(dict.fromkeys(photographs.paths))  # a table may list one under several labels
    decoded = {}
    with counted("photographs", total=len(unique), doing="reading") as tally:
        for path, pixels in zip(unique, decode(unique, *preprocessings), strict=True):
            if pixels is not None:
                decoded[path] = [tensor.byte() for tensor in pixels]
            tally.add()
    read = [index for index, path in enumerate(photographs.paths) if path in decoded]
    rows = [decoded[photographs.paths[index]] for index in read]
    return [torch.stack(column) for column in zip(*rows, strict=True)], photographs.only(read)
