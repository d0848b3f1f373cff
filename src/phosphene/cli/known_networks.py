"""The names of the layers and classes of networks, for who types them: no network is opened to know them.

Those of the bundled networks come along.  Those of any other are remembered when a command has opened it, in
completion.json of the user's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import user_folders
from phosphene.errors import InputError
from phosphene.files import atomic_write, parse_json, read_text
from phosphene.networks.labels import imagenet_labels
from phosphene.networks.sources.bundled import SIZES

if TYPE_CHECKING:
    from phosphene.networks.network import Network

MAX_NETWORKS = 40
"""How many networks are remembered; the one that was opened longest ago is forgotten first."""
MAX_NAMES, MAX_LETTERS = 5000, 200
"""Layers of a network, or classes, whose names are remembered, and letters of each."""

_IMAGENET = "imagenet"  # in place of its thousand names


@dataclass(frozen=True)
class KnownNetwork:
    """What of a network can be named.

    Attributes:
        layers: the names of all layers, in the order of calls.
        shown: of those that are usually worth showing.
        classes: the names of its classes.
    """

    layers: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def known_network(name: str) -> KnownNetwork:
    """What is known of a network, by the name that is typed for it; nothing of one that was never opened."""
    bundled = f"efficientnet_{name.removeprefix('efficientnet_')}"
    if bundled in SIZES:
        text = (resources.files("phosphene") / "cli" / "bundled_layers.json").read_text(encoding="utf-8")
        return _parse({**json.loads(text)[bundled], "classes": _IMAGENET})
    return _parse(_read().get(_key(name)))


def remembered_names() -> list[str]:
    """The networks that were opened before, the last one first."""
    return [name for name in reversed(_read()) if is_plain(name)]


def remember(name: str, network: Network) -> None:
    """Remember the names of a network's layers and classes, where its layers are known.

    What cannot be written is not remembered: nothing but what Tab offers depends on it.
    """
    if f"efficientnet_{name.removeprefix('efficientnet_')}" in SIZES or not network.is_traced:
        return
    layers = network.layers
    labels = network.labels
    classes: Any = [] if labels is None else [label.name for label in labels[:MAX_NAMES]]
    if classes == [label.name for label in imagenet_labels()]:
        classes = _IMAGENET
    entry = {
        "layers": _plain(layer.name for layer in layers),
        "shown": _plain(layer.name for layer in layers if layer.worth_showing),
        "classes": classes if classes == _IMAGENET else _plain(classes),
    }
    known = _read()
    if known.get(_key(name)) == entry:
        return
    known.pop(_key(name), None)
    known[_key(name)] = entry
    kept = dict(list(known.items())[-MAX_NETWORKS:])
    path = memory_path()
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda aside: aside.write_text(json.dumps(kept), encoding="utf-8"))


def memory_path() -> Path:
    """Where it is remembered: completion.json of the user's cache, or what PHOSPHENE_COMPLETION names."""
    return user_folders.cache("completion.json", "PHOSPHENE_COMPLETION")


def is_plain(name: object) -> bool:
    """Whether a name, which may come from a stranger's file, may stand on a command line: a terminal obeys others."""
    return isinstance(name, str) and 0 < len(name) <= MAX_LETTERS and name.isprintable()


def _plain(names: Iterable[Any]) -> list[str]:
    return [name for name in names if is_plain(name)][:MAX_NAMES]


def _key(name: str) -> str:
    """What tells a network: a file's whole path, since other folders may have one of its name; else its name."""
    first, _, last = name.partition(":")
    is_file = any(os.path.exists(part) for part in (name, name.rpartition(":")[0], last) if part)
    return os.path.abspath(name) if is_file and not os.path.isabs(first) else name


def _parse(entry: Any) -> KnownNetwork:
    if not isinstance(entry, dict):
        return KnownNetwork()
    lists = {field: entry[field] for field in ("layers", "shown", "classes") if isinstance(entry.get(field), list)}
    if entry.get("classes") == _IMAGENET:
        lists["classes"] = [name for label in imagenet_labels() for name in label.names]
    return KnownNetwork(**{field: tuple(_plain(names)) for field, names in lists.items()})


def _read() -> dict[str, Any]:
    try:
        found = parse_json(read_text(memory_path(), "what was opened"), "what was opened")
    except InputError:  # nothing yet, or a damaged file
        return {}
    return found if isinstance(found, dict) else {}
