"""phosphene: what an image network has learnt, as images.

Open a network, point at units of it, ascend an image under a recipe, show what came out:

    import phosphene

    network = phosphene.open("efficientnet_lite0")
    result = phosphene.ascend(network, ["class:flamingo", "class:teddy"], "tence")
    result.save("phosphene-out")
"""

import sys


def _forget_the_current_folder() -> None:
    """Started as `python -m phosphene`, whose first folder for imports is the current one, find nothing there: a file
    of the user's, such as random.py, is not what a library imports.  `networks.own` looks there by itself.

    Where this package is itself in that folder, the folder is only looked at last.
    """
    asked = " ".join(sys.orig_argv[1:]).split("-m", 1)[-1].split()
    if sys.argv[:1] == ["-m"] and asked and asked[0] in ("phosphene", "phosphene.cli") and not sys.flags.safe_path:
        folder = sys.path.pop(0)
        if __file__.startswith(folder):
            sys.path.append(folder)


_forget_the_current_folder()

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from phosphene.ascent import ascend
    from phosphene.choosing import best_of
    from phosphene.errors import InputError
    from phosphene.judges import judge
    from phosphene.loop import Progress
    from phosphene.networks import Label, Labels, Layer, Network, Preprocessing
    from phosphene.networks import open_network as open
    from phosphene.picture import Picture, Result
    from phosphene.provenance import again
    from phosphene.provenance import read_provenance as show
    from phosphene.recipe import Recipe
    from phosphene.searching import search
    from phosphene.units import Channel, Class, Direction, Neuron, Sum, Unit, WholeLayer

    __version__: str

__all__ = [
    "Channel",
    "Class",
    "Direction",
    "InputError",
    "Label",
    "Labels",
    "Layer",
    "Network",
    "Neuron",
    "Picture",
    "Preprocessing",
    "Progress",
    "Recipe",
    "Result",
    "Sum",
    "Unit",
    "WholeLayer",
    "again",
    "ascend",
    "best_of",
    "judge",
    "open",
    "search",
    "show",
]

# Imported when they are first touched: torch takes seconds, in which `phosphene --version` has long answered, and
# the command line answers Ctrl-C meanwhile.
_PLACES = {
    "ascend": "ascent",
    "best_of": "choosing",
    "InputError": "errors",
    "judge": "judges",
    "Progress": "loop",
    **dict.fromkeys(("Label", "Labels", "Layer", "Network", "Preprocessing"), "networks"),
    "open": "networks:open_network",
    **dict.fromkeys(("Picture", "Result"), "picture"),
    "again": "provenance",
    "show": "provenance:read_provenance",
    "Recipe": "recipe",
    "search": "searching",
    **dict.fromkeys(("Channel", "Class", "Direction", "Neuron", "Sum", "Unit", "WholeLayer"), "units"),
}
_MODULES = (
    "ascent", "atlas", "canvas", "choosing", "devices", "doctor", "errors", "filters", "found", "judges", "loop",
    "networks", "objective", "picture", "priors", "provenance", "recipe", "render", "reproduce", "searching", "space",
    "statistics", "units", "views",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        value: Any = _version()
    elif name in _PLACES:
        module, _, spelled = _PLACES[name].partition(":")
        value = getattr(import_module(f"phosphene.{module}"), spelled or name)
    elif name in _MODULES:
        return import_module(f"phosphene.{name}")
    else:
        raise AttributeError(f"module 'phosphene' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("phosphene")
    except PackageNotFoundError:  # run from source, not installed
        return "0+source"
