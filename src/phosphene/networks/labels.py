"""What the outputs of a classifier mean, and how a person may name them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from timm.data.imagenet_info import ImageNetInfo

from phosphene.errors import InputError, did_you_mean


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
        for fits in (
            lambda label: any(_words(name) == words for name in label.names),
            lambda label: label.wordnet == text.lower(),
        ):
            found = [index for index, label in enumerate(self) if fits(label)]
            if found:
                return self._only(text, found)
        if re.fullmatch(r"-?\d+", text):
            if 0 <= int(text) < len(self):
                return int(text)
            raise InputError(f"class {text}: expected an index of 0 to {len(self) - 1}")
        found = [i for i, label in enumerate(self) if any(_has(_words(name), words) for name in label.names)]
        if found:
            return self._only(text, found)
        near = did_you_mean(text, [name for label in self for name in label.names])
        raise InputError(f"no class is called {text!r}{near or f' ({len(self)} classes are known)'}")

    def _only(self, text: str, found: list[int]) -> int:
        if len(found) == 1:
            return found[0]
        shown = ", ".join(f"{i} ({', '.join(self[i].names[:2])})" for i in found[:12])
        more = f" and {len(found) - 12} more" if len(found) > 12 else ""
        raise InputError(f"{len(found)} classes fit {text!r}: {shown}{more}; give the index of one")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold().replace("_", " "))


def _has(name: list[str], words: list[str]) -> bool:
    return any(name[i : i + len(words)] == words for i in range(len(name) - len(words) + 1))


@lru_cache
def imagenet_labels(subset: str = "imagenet-1k") -> Labels:
    """The classes of ImageNet (or of another set that timm has tables of), in the order of a network's outputs."""
    info: Any = ImageNetInfo(subset)
    return Labels(
        Label(
            names=tuple(map(str.strip, info.index_to_description(index).split(","))),
            wordnet=info.index_to_label_name(index),
        )
        for index in range(len(info.label_names()))
    )
