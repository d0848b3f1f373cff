"""What the outputs of a classifier mean, and how a person may name them."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, did_you_mean, printable
from phosphene.files import parse_json, read_text

MAX_CLASSES = 1 << 17
"""How many classes have names; all of ImageNet's are 21,841."""


@dataclass(frozen=True)
class Label:
    """One class: its names, the first one the usual one, and its WordNet id where it has one."""

    names: tuple[str, ...]
    wordnet: str = ""

    @property
    def name(self) -> str:
        return self.names[0]


class Labels(Sequence[Label]):
    """The classes of a network, by output index.

    Args:
        labels: a name for each output, or a `Label`.  A name with commas is a list of names ("teddy, teddy bear").
    """

    def __init__(self, labels: Iterable[str | Label]):
        self._labels = [
            label if isinstance(label, Label) else Label(tuple(filter(None, map(str.strip, str(label).split(",")))))
            for label in labels
        ]
        if len(self._labels) > MAX_CLASSES:
            raise InputError(f"{len(self._labels):,} labels: expected {MAX_CLASSES:,} at most, one for each output")
        for index, label in enumerate(self._labels):
            if not label.names:
                raise InputError(f"label {index} is empty: expected a name for each output")

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._labels[index]

    def __len__(self) -> int:
        return len(self._labels)

    def find(self, query: str | int) -> int:
        """The index of a class, from an index, a WordNet id, or words in any case.

        A class's whole name goes before a name that has the words among others ("teddy" finds the teddy bear, which
        is called that, "pool" the only name that has this word).

        Raises:
            InputError: no class is called so (with the nearest), or several are (with all of them).
        """
        text = str(query).strip()
        words = _words(text)
        if not words:
            raise InputError("a class name is empty: expected an index, a WordNet id or a name")
        for found in (self._by_words.get(tuple(words)), self._by_wordnet.get(text.lower())):
            if found:
                return self._only(text, found)
        if re.fullmatch(r"-?\d+", text):
            if re.fullmatch("[0-9]{1,9}", text) and int(text) < len(self):
                return int(text)
            raise InputError(f"class {printable(text)}: expected an index of 0 to {len(self) - 1}")
        found = sorted({i for name, indices in self._by_words.items() if _has(name, words) for i in indices})
        if found:
            return self._only(text, found)
        near = did_you_mean(text, [name for label in self for name in label.names])
        raise InputError(f"no class is called {printable(text)!r}{near or f' ({len(self)} classes are known)'}")

    @cached_property
    def _by_words(self) -> dict[tuple[str, ...], list[int]]:
        """The classes that have a name, by its words."""
        found: dict[tuple[str, ...], dict[int, None]] = {}
        for index, label in enumerate(self):
            for name in label.names:
                found.setdefault(tuple(_words(name)), {})[index] = None
        return {words: list(indices) for words, indices in found.items()}

    @cached_property
    def _by_wordnet(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, label in enumerate(self):
            found.setdefault(label.wordnet, []).append(index)
        return found

    def _only(self, text: str, found: list[int]) -> int:
        if len(found) == 1:
            return found[0]
        shown = ", ".join(f"{i} ({', '.join(self[i].names[:2])})" for i in found[:12])
        more = f" and {len(found) - 12} more" if len(found) > 12 else ""
        raise InputError(f"{len(found)} classes fit {printable(text)!r}: {shown}{more}; give the index of one")


def is_same_class(first: Label, second: Label) -> bool:
    """Whether two labels are of one class: by WordNet id where both have one, or else by a name, whatever its case."""
    if first.wordnet and second.wordnet:
        return first.wordnet == second.wordnet  # "crane" is a bird and a machine
    return not _plain_names(first).isdisjoint(_plain_names(second))


def pair_classes(first: Mapping[int, Label], second: Mapping[int, Label]) -> list[list[int]]:
    """The classes that two networks have, as pairs of indices; classes of one name go one by one."""
    left = dict(second)
    pairs = []
    for index, label in first.items():
        match = next((other for other, candidate in left.items() if is_same_class(label, candidate)), None)
        if match is not None:
            pairs.append([index, match])
            del left[match]
    return pairs


def _plain_names(label: Label) -> set[str]:
    return {name.casefold().replace("_", " ") for name in label.names}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold().replace("_", " "))


def _has(name: tuple[str, ...], words: list[str]) -> bool:
    return any(name[i : i + len(words)] == tuple(words) for i in range(len(name) - len(words) + 1))


@lru_cache
def imagenet_labels(subset: str = "imagenet-1k") -> Labels:
    """The classes of ImageNet (or of another set that timm has tables of), in the order of a network's outputs."""
    name = subset.replace("imagenet-", "imagenet").replace("-", "_").replace("imagenet1k", "imagenet")
    descriptions = dict(csv.reader(_timm_table("imagenet_synset_to_lemma.txt"), delimiter="\t"))
    return Labels(
        Label(names=tuple(map(str.strip, descriptions[wordnet].split(","))), wordnet=wordnet)
        for wordnet in _timm_table(f"{name}_synsets.txt")
    )


def _timm_table(name: str) -> list[str]:
    """The lines of one of timm's tables, which is read without timm: importing that takes seconds."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "data" / "_info" / name).read_text(encoding="utf-8").splitlines()


def assumed_labels(outputs: int) -> Labels | None:
    """ImageNet's classes for a network of 1000 outputs whose file does not name them; otherwise None."""
    return imagenet_labels() if outputs == 1000 else None


_WORDNET = re.compile(r"(n\d{8})[\s,:]+(\S.*)")


def read_labels(path: str | Path) -> Labels:
    """Labels from a file: a name a line, Caffe's `synset_words.txt` (a WordNet id before each), or JSON.

    JSON is a list of names, or an object from index to a name or to [WordNet id, name], as Keras keeps them.

    Raises:
        InputError: the file cannot be read, or is none of these.
    """
    path = Path(path)
    text = read_text(path, f"labels file {str(path)!r}")
    entries = _from_json(path, text) if path.suffix == ".json" else text.splitlines()
    while entries and not str(entries[-1]).strip():
        entries.pop()
    if not entries:
        raise InputError(f"labels file {str(path)!r} is empty: expected a name for each output, one a line")
    try:
        return Labels(_label(entry) for entry in entries)
    except InputError as error:
        raise InputError(f"labels file {str(path)!r}: {error}") from None


def _label(entry: Any) -> str | Label:
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return Label((str(entry[1]).replace("_", " "),), str(entry[0]))
    match = _WORDNET.fullmatch(str(entry).strip())
    return Label(tuple(filter(None, map(str.strip, match[2].split(",")))), match[1]) if match else str(entry)


def _from_json(path: Path, text: str) -> list[Any]:
    expected = f"labels file {str(path)!r}: expected a list of names, or an object from index (0, 1, …) to name"
    data = parse_json(text, f"labels file {str(path)!r}")
    if isinstance(data, dict):
        if sorted(data) != sorted(map(str, range(len(data)))):
            raise InputError(expected)
        data = [data[str(index)] for index in range(len(data))]
    if not isinstance(data, list) or not all(isinstance(entry, str | int | list) for entry in data):
        raise InputError(expected)
    return data
