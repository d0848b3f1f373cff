"""Networks, judges and files that a file names: the text of an image, or the plan of an atlas.

A file is data.  Of what it names, only this is followed:

- a network that ships, or one of timm's or torchvision's whose weights are on this machine already: none of its code
  comes from the file, and nothing is downloaded;
- weights by their digest, a judge or a file that the user has opened before on this machine: they are opened as the
  user did, not as the file says, and Python code only while it is the same to the byte.

Everything else (Python code, a path, a name on a hub, weights to be downloaded) is refused with a sentence that says
what the file asks for, unless the user trusts the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phosphene import user_folders
from phosphene.errors import InputError, printable
from phosphene.networks.catalog import is_cached
from phosphene.networks.network import Network
from phosphene.networks.open import FILES, open_network
from phosphene.networks.preprocessing import PRESETS, Preprocessing
from phosphene.networks.sources import bundled, programs

_log = logging.getLogger(__name__)

_FETCHED = ("hf", "keras", "clip", "open_clip")  # the sources whose networks are fetched from elsewhere
_MOST = 2000  # entries that are remembered; the oldest go first
_LARGEST = 4 << 20  # bytes of the file of them

OpenArguments = Mapping[str, Any]
"""The arguments by which `open_network` opens a network."""


def open_referenced(
    origin: str,
    name: str,
    source: OpenArguments | None,
    weights: str,
    preprocessing: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
    instead: str = "give the network yourself (-n)",
) -> Network:
    """Open the network that a file names.

    Args:
        origin: the file, for messages: "image 'a.png'".
        name: what the file calls the network.
        source: by which arguments it was opened, as the file says; None for a module of its maker's own.
        weights: their digest, as the file says.
        preprocessing: the fields of the `Preprocessing`, as the file says; they take the place of a file that has them.
        trust: follow whatever the file says; what is opened is logged as a warning first.
        instead: what else the user can do, for messages.

    Raises:
        InputError: the file asks for more than data, or the weights there are have another digest.
    """
    asked = untrusted_request(source)
    if not asked:
        opened = open_network(**_data_of(source or {}, preprocessing))
    elif (own := _recall(f"weights {weights}")) is not None:
        opened = _with_preprocessing(open_network(**own), preprocessing)
    elif not trust and (changed := _changed_code(f"weights {weights}")):
        raise InputError(
            f"{printable(changed)} is not what it was when you opened it last, and {origin} is of weights "
            f"{printable(weights)}: {instead}, or allow it to run with --trust (trust=True)"
        )
    elif source is None:
        raise InputError(f"{origin} was made with a network of its maker's own ({printable(name)}): {instead}")
    elif trust:
        _log.warning("%s is trusted, and %s", origin, asked)
        opened = open_network(**source)
    else:
        raise InputError(
            f"{origin} {asked}; a file is not followed: {instead}, or allow what it asks for with --trust (trust=True)"
        )
    if opened.digest != weights:
        raise InputError(
            f"{opened.name} has weights {opened.digest} now, and {origin} is of {printable(weights)}: expected these, "
            f"or {instead}"
        )
    return opened


def untrusted_request(source: Any) -> str:
    """What opening a network as a file says would do beyond reading data; nothing if it does no more."""
    if not isinstance(source, Mapping) or not isinstance(source.get("network"), str):
        return "names no network"
    name = source["network"]
    shown = repr(printable(name))
    known = {"network", "preprocessing", "labels", "weights", "mean", "partial", "output", "probability", "tokens"}
    if set(source) - known:
        return "names a network with settings that are none"
    for key in ("weights", "labels", "mean"):
        if source.get(key):
            return f"asks for {shown} with {key} from {printable(source[key])!r}"
    if name in bundled.SIZES or f"efficientnet_{name}" in bundled.SIZES:
        return ""
    if does := beyond_a_name(name):
        return f"asks for {shown}, which {does}"
    return "" if is_cached(name) else f"asks for {shown}, whose weights are not on this machine and may be downloaded"


def beyond_a_name(network: str) -> str:
    """What opening a network does beyond looking its name up in a registry that is installed; nothing if no more."""
    registry, colon, rest = network.partition(":")
    if colon and registry in _FETCHED:
        return "downloads it"
    plain = rest if colon and registry in ("timm", "torchvision") else network
    if re.fullmatch(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?", plain) and not Path(network).exists():
        return "" if Path(plain).suffix not in (".py", *FILES) else "reads a file"
    return "runs Python code" if colon and registry != "caffe" else "reads a file"


def _data_of(source: OpenArguments, fed: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of `open_network` that are data."""
    arguments = {key: source[key] for key in ("network", "partial", "output", "probability", "tokens") if key in source}
    given = source.get("preprocessing")
    if given in PRESETS:
        return arguments | {"preprocessing": given}
    if given and fed is None:
        raise InputError(
            f"a file asks for the preprocessing {printable(given)!r}: expected one of {', '.join(PRESETS)}"
        )
    return arguments | ({"preprocessing": Preprocessing.from_dict(dict(fed or {}))} if given else {})


def _with_preprocessing(network: Network, fed: Mapping[str, Any] | None) -> Network:
    """The network fed as a file says, which may be otherwise than it was opened last."""
    if fed is None:
        return network
    known = network.preprocessing
    wanted = Preprocessing.from_dict({**fed, "size": known.size, "fixed_size": known.fixed_size})
    return network if wanted == known else network.replace(preprocessing=wanted)


def open_referenced_judge(text: str, source: OpenArguments, *, trust: bool = False) -> Network:
    """Open a judge that the plan of an atlas names.

    Args:
        text: as the plan spells it.
        source: the arguments that this stands for.

    Raises:
        InputError: it is more than data, and the user has not named it on this machine.
    """
    if (own := _recall(f"judge {text}")) is not None:
        return open_network(**own)
    if asked := untrusted_request(source):
        if not trust:
            raise InputError(f"the atlas's judge {asked}; a file is not followed: plan it with --judges, or --trust it")
        _log.warning("the atlas is trusted, and its judge %s", asked)
        remember_judge(text, source)  # for the processes that make it
    return open_network(**source)


def check_file(origin: str, path: str, trust: bool = False) -> None:
    """Raise an `InputError` unless a file that a file names is one that the user has used, or is trusted."""
    if not trust and f"file {Path(path).resolve()}" not in _read():
        raise InputError(
            f"{origin} asks for the file {printable(path)!r}; a file is not followed: use it once yourself, or "
            "allow it with --trust (trust=True)"
        )


def remember(network: Network) -> None:
    """Keep how the user opened a network, for files that name its weights."""
    if network.source is not None and untrusted_request(network.source):
        _note(f"weights {network.digest}", network.source)


def remember_judge(text: str, source: OpenArguments) -> None:
    """Keep what the user named as a judge."""
    if untrusted_request(source):
        _note(f"judge {text}", source)


def remember_file(path: str) -> None:
    """Keep that the user has used a file."""
    _write({f"file {Path(path).resolve()}": {}})


def remember_written(data: bytes) -> None:
    """Keep that the user has written a file of these bytes."""
    _write({f"written {hashlib.sha256(data).hexdigest()}": {}})


def has_written(data: bytes) -> bool:
    """Whether the user has written a file of these bytes, so that what it names is what they named."""
    return f"written {hashlib.sha256(data).hexdigest()}" in _read()


def _note(key: str, source: OpenArguments) -> None:
    resolved = {name: _absolute(name, value) for name, value in source.items()}
    code = _code_of(resolved["network"])
    if code is not None:
        _write({key: {"source": resolved, "code": code}})


def _recall(key: str) -> dict[str, Any] | None:
    """The arguments that the user opened something by; None if it is not known, or its code is another now."""
    entry = _read().get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("source"), dict):
        return None
    source = entry["source"]
    code = _code_of(source.get("network", ""))
    return dict(source) if code is not None and code == entry.get("code") else None


def _changed_code(key: str) -> str:
    """The network of Python code that the user opened something by, if it is other code now."""
    entry = _read().get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("source"), dict) or _recall(key) is not None:
        return ""
    return str(entry["source"].get("network", ""))


def _absolute(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if name == "network" and ".py:" in value:
        place, _, factory = value.rpartition(":")
        return f"{Path(place).resolve()}:{factory}"
    registry, colon, place = value.partition(":")
    if name == "network" and colon and registry in ("hf", "clip") and Path(place).exists():
        return f"{registry}:{Path(place).resolve()}"
    return str(Path(value).resolve()) if Path(value).exists() else value


def _code_of(network: str) -> str | None:
    """The SHA-256 of the Python file of a network; empty for one without, None for one that cannot be told."""
    if ".py:" in network:
        with suppress(OSError):
            return hashlib.sha256(Path(network.rpartition(":")[0]).read_bytes()).hexdigest()
        return None
    if Path(network).suffix in programs.SUFFIXES and Path(network).is_file():  # code, too
        with suppress(OSError):
            return hashlib.sha256(Path(network).read_bytes()).hexdigest()
        return None
    registry, colon, _ = network.partition(":")
    is_module = colon and registry not in ("timm", "torchvision", "caffe", *_FETCHED) and not Path(network).exists()
    return None if is_module else ""  # a module may be another file tomorrow


def memory_path() -> Path:
    """What is remembered: the file that PHOSPHENE_NETWORKS names, or else networks.json of the user's data."""
    return user_folders.data("networks.json", "PHOSPHENE_NETWORKS")


def _read() -> dict[str, Any]:
    path = memory_path()
    with suppress(OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= _LARGEST:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
    return {}


def _write(entries: dict[str, Any]) -> None:
    known = _read()
    if all(known.get(key) == entry for key, entry in entries.items()):
        return
    kept = {key: entry for key, entry in known.items() if key not in entries} | entries
    path = memory_path()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):  # then the user is asked for it
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(dict(list(kept.items())[-_MOST:]), indent=1), encoding="utf-8")
        aside.replace(path)
