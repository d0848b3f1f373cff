"""What the Tab key offers: for each argument of a verb, by what stands for it in the help, the words that fit.

Nothing slow is asked, and no network or file is opened: what `known_networks` has no names of is not offered.  The
shell calls the program as argcomplete arranges it, with _ARGCOMPLETE and the line so far in its environment.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from phosphene import defaults
from phosphene.cli.known_networks import KnownNetwork, is_plain, known_network, remembered_names
from phosphene.cli.options import PRESETS
from phosphene.cli.parser import make_parser

Completer = Callable[[str, KnownNetwork], Iterable[str]]
"""Gives the words that may stand for a beginning, given what is known of the line's network."""

_MAX_FILES = 5000  # of a folder


def complete() -> None:
    """Print what fits the line that the shell passes in the environment, and end the process."""
    import argcomplete
    from argcomplete.lexers import split_line

    line = os.environ.get("COMP_LINE", "")
    _, _, _, before, _ = split_line(line, int(os.environ.get("COMP_POINT", len(line))))
    _, prefix, suffix, words, _ = split_line(line)
    parser = make_parser([word for word in before[1:] if not word.startswith("-")])
    network = network_of([*words, prefix + suffix])
    last = _attach(parser, network)
    argcomplete.autocomplete(
        parser,
        # Where there is something else to type, options are offered after a minus only.
        always_complete_options=False if any(not action.option_strings for action in last._actions) else "long",
        default_completer=argcomplete.completers.SuppressCompleter(),
    )


def network_of(words: Sequence[str]) -> str:
    """The network that a line names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-n", "--network"):
            return following
        if word.startswith("--network="):
            return word.partition("=")[2]
        if word.startswith("-n") and not word.startswith("--"):
            return word[2:]
    return defaults.NETWORK


def completer(verb: str, action: argparse.Action) -> Completer | None:
    """What completes an argument of a verb; None where only who types it can know.

    Raises:
        KeyError: it is not said here what completes it.
    """
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    for key in (f"{verb} {action.dest}", action.dest):
        if key in _BY_DESTINATION:
            return _BY_DESTINATION[key]
    return None if name in _FREE else _BY_METAVAR[name]


def _attach(parser: argparse.ArgumentParser, network: str) -> argparse.ArgumentParser:
    """Have argcomplete know what completes the arguments; returns the parser of the verb that the line has."""
    last = parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                if len(inner._actions) > 1:  # more than --help: the verb is on the line
                    last = _attach(inner, network)
        elif action.nargs != 0 and action.choices is None:
            found = completer(parser.prog.removeprefix("phosphene").strip(), action)
            if found is not None:
                action.completer = _offering(found, network)  # type: ignore[attr-defined]
    return last


def _offering(found: Completer, network: str) -> Callable[..., list[str]]:
    def offer(prefix: str, **_: Any) -> list[str]:
        return [word for word in found(prefix, known_network(network)) if word.startswith(prefix) and is_plain(word)]

    return offer


# What can be typed.


def _layers(prefix: str, network: KnownNetwork) -> Iterable[str]:
    """With nothing typed those that are usually shown, of which there are fewer."""
    return network.layers if prefix else network.shown or network.layers


def _classes(prefix: str, network: KnownNetwork) -> Iterable[str]:
    """In the case that is typed, since a class is found in any."""
    length = len(prefix)
    fitting = (name for name in network.classes if name[:length].casefold() == prefix.casefold())
    return [prefix + name[length:] for name in fitting]


def _units(prefix: str, network: KnownNetwork) -> Iterable[str]:
    kind, colon, rest = prefix.partition(":")
    if colon and kind == "class":
        return [f"class:{name}" for name in _classes(rest, network)]
    return [*_layers(prefix, network), "class:"]


def _networks(prefix: str, _: KnownNetwork) -> Iterable[str]:
    from phosphene.networks.sources.bundled import SIZES

    named = [*SIZES, "caffe:caffenet", "caffe:googlenet", "caffe:vgg16", *_PREFIXES, *remembered_names()]
    return [*named, *_files(prefix, (".py", ".onnx", ".keras", ".h5", ".prototxt", ".pt2", ".pt"))]


_PREFIXES = ("timm:", "torchvision:", "keras:", "hf:", "clip:", "open_clip:")


def _recipes(prefix: str, _: KnownNetwork) -> Iterable[str]:
    from phosphene.recipes.files import recipe_names

    return [*recipe_names(), *_files(prefix, (".toml",))]


def _fields(_: str, __: KnownNetwork) -> Iterable[str]:
    from phosphene.recipes.recipe import Recipe
    from phosphene.recipes.section import fields

    return [f"{name}=" for name, *_ in fields(Recipe)]


def _spaces(prefix: str, _: KnownNetwork) -> Iterable[str]:
    from phosphene.tuning.space import space_names

    return [*space_names(), *_files(prefix, (".toml",))]


def _methods(_: str, __: KnownNetwork) -> Iterable[str]:
    from phosphene.attribution.settings import METHODS

    return [*METHODS, "all"]


def _baselines(_: str, __: KnownNetwork) -> Iterable[str]:
    from phosphene.attribution.settings import BASELINES

    return BASELINES


def _figures(_: str, __: KnownNetwork) -> Iterable[str]:
    from phosphene.reproduce.figures import figures

    return figures()


def _devices(_: str, __: KnownNetwork) -> Iterable[str]:
    return ("cpu", "cuda")


def _files(prefix: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Folders, and the files of a folder that end so; hidden ones where a dot is typed."""
    folder, name = os.path.split(prefix)
    found: list[str] = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for _, entry in zip(range(_MAX_FILES), entries, strict=False):
                if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
                    continue
                if entry.is_dir():
                    found.append(os.path.join(folder, entry.name, ""))
                elif not suffixes or Path(entry.name).suffix.lower() in suffixes:
                    found.append(os.path.join(folder, entry.name))
    except OSError:
        return []
    return found


def _any_file(prefix: str, _: KnownNetwork) -> Iterable[str]:
    return _files(prefix)


def _images(prefix: str, _: KnownNetwork) -> Iterable[str]:
    return _files(prefix, (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))


def _own_images(prefix: str, _: KnownNetwork) -> Iterable[str]:
    return _files(prefix, (".png",))


def _listed(found: Completer) -> Completer:
    """Several of them with commas between."""

    def complete_last(prefix: str, network: KnownNetwork) -> Iterable[str]:
        head, comma, last = prefix.rpartition(",")
        return [f"{head}{comma}{word}" for word in found(last, network) if word not in head.split(",")]

    return complete_last


def _or(found: Completer, *words: str) -> Completer:
    return lambda prefix, network: [*found(prefix, network), *words]


_BY_DESTINATION: dict[str, Completer | None] = {
    "device": _listed(_devices),
    "judges": _listed(_networks),
    "selectors": _listed(_networks),
    "ray": lambda *_: ("auto", "local"),
    "layers pattern": _layers,
    "networks pattern": None,
    "dictionary set": None,
    "atlas plan layers": _or(_layers, "all"),
    "atlas plan classes": _or(_classes, "all"),
}
_BY_METAVAR: dict[str, Completer] = {
    "CLASS": _classes,
    "LAYER": _layers,
    "LAYER[:CHANNELS]": _units,
    "UNIT": _units,
    "NETWORK": _networks,
    "A": _networks,
    "B": _networks,
    "A B | PICTURE PHOTOGRAPH": _networks,
    "RECIPE": _recipes,
    "FIELD=VALUE": _fields,
    "NAME|FILE": _spaces,
    "A,B|all": _listed(_methods),
    "KIND": _baselines,
    "FIGURE": _figures,
    "MODE|FILE": lambda prefix, _: [*PRESETS, *_files(prefix, (".toml",))],
    "folders|FILE": _or(_any_file, "folders"),
    "IMAGE": _images,
    "PHOTOGRAPH": _images,
    "IMAGE.png": _own_images,
    **dict.fromkeys(("FILE", "DIR", "DIR|URL", "FILE|URL", "B,G,R|FILE", "A/ B/ | FILE#ROW"), _any_file),
}
# What only who types it can know.
_FREE = frozenset(
    {
        "N",
        "K",
        "M",
        "E",
        "W",
        "0-5",
        "N|HxW",
        "WORDS",
        "PROMPT",
        "NAME",
        "CLASS+REGISTERS",
        "MINUTES",
        "SECONDS",
        "SHARE",
    }
    | {"TEXT", "URL"}
)
