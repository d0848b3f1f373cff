"""phosphene: what an image network has learned, as images.

Open a network, point at units of it, ascend an image under a recipe, show what came out:

    import phosphene

    network = phosphene.open("efficientnet_lite0")
    result = phosphene.ascend(network, ["class:flamingo", "class:teddy"], "tence")
    result.save("phosphene-out")
"""

import sys


def _forget_the_current_folder() -> None:
    """Started as `python -m phosphene`, whose first folder for imports is the current one, find nothing there: a file
    of the user's, such as random.py, is not what a library imports.  `networks.sources.python` looks there by itself.

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
    from phosphene.api.again import again
    from phosphene.api.ascend import ascend
    from phosphene.api.best_of import best_of
    from phosphene.ascent.canvas import Canvas
    from phosphene.ascent.progress import Progress, Step
    from phosphene.ascent.run_options import RunOptions
    from phosphene.atlas.activation_map import ActivationMap, MapSettings, activation_map
    from phosphene.attribution.explain import explain
    from phosphene.attribution.maps import AttributionMaps
    from phosphene.attribution.settings import AttributionSettings
    from phosphene.comparison.depth import depth
    from phosphene.comparison.depth_report import DepthReport
    from phosphene.comparison.difference import DifferenceOptions, NetworkDifference, difference
    from phosphene.comparison.networks import ComparisonSettings, compare
    from phosphene.comparison.pictures import compare_images
    from phosphene.comparison.pictures_match import MatchSettings
    from phosphene.comparison.pictures_report import ImageComparison
    from phosphene.comparison.result import NetworkComparison
    from phosphene.default_progress import without_progress
    from phosphene.devices.callbacks import Callbacks
    from phosphene.dictionaries.dictionary import Dictionary
    from phosphene.dictionaries.reading import open_dictionary
    from phosphene.errors import InputError
    from phosphene.judges.judge import judge
    from phosphene.networks.attention import AttentionMaps, attention
    from phosphene.networks.ensemble import Ensemble
    from phosphene.networks.labels import Label, Labels
    from phosphene.networks.layers import Layer
    from phosphene.networks.network import Network
    from phosphene.networks.open import open_network
    from phosphene.networks.preprocessing import Preprocessing
    from phosphene.photographs.directions import difference_of_means, whiten_direction
    from phosphene.photographs.unfinished import resumable
    from phosphene.picture import Picture
    from phosphene.provenance.reading import read_provenance
    from phosphene.recipes.optimizer import Optimizer
    from phosphene.recipes.penalties import (
        DiversityPenalty,
        NormPenalty,
        Penalties,
        StatisticsSettings,
        TotalVariationPenalty,
    )
    from phosphene.recipes.recipe import Recipe
    from phosphene.recipes.regularizers import Blur, Clip, Decay, Median, SmallContribution, SmallNorm, TotalVariation
    from phosphene.recipes.settings import CanvasSettings, Growth, OutputSettings, Schedule, Start, StoppingSettings
    from phosphene.recipes.transforms import Transforms
    from phosphene.result import Result
    from phosphene.tuning.search import search
    from phosphene.tuning.settings import SearchSettings
    from phosphene.units.latents import Latent
    from phosphene.units.objects import (
        Caricature,
        Channel,
        Class,
        Direction,
        Match,
        Neuron,
        Objective,
        Sum,
        Text,
        Unit,
        WholeLayer,
    )
    from phosphene.units.spelling import parse_unit
    from phosphene.units.tokens import TokenSelection

    __version__: str
    open = open_network
    show = read_provenance

__all__ = [
    "ActivationMap",
    "AttentionMaps",
    "AttributionMaps",
    "AttributionSettings",
    "Blur",
    "Callbacks",
    "Canvas",
    "CanvasSettings",
    "Caricature",
    "Channel",
    "Class",
    "Clip",
    "ComparisonSettings",
    "Decay",
    "DepthReport",
    "Dictionary",
    "DifferenceOptions",
    "Direction",
    "DiversityPenalty",
    "Ensemble",
    "Growth",
    "ImageComparison",
    "InputError",
    "Label",
    "Labels",
    "Latent",
    "Layer",
    "MapSettings",
    "Match",
    "MatchSettings",
    "Median",
    "Network",
    "NetworkComparison",
    "NetworkDifference",
    "Neuron",
    "NormPenalty",
    "Objective",
    "Optimizer",
    "OutputSettings",
    "Penalties",
    "Picture",
    "Preprocessing",
    "Progress",
    "Recipe",
    "Result",
    "RunOptions",
    "Schedule",
    "SearchSettings",
    "SmallContribution",
    "SmallNorm",
    "Start",
    "StatisticsSettings",
    "Step",
    "StoppingSettings",
    "Sum",
    "Text",
    "TokenSelection",
    "TotalVariation",
    "TotalVariationPenalty",
    "Transforms",
    "Unit",
    "WholeLayer",
    "activation_map",
    "again",
    "ascend",
    "attention",
    "best_of",
    "compare",
    "compare_images",
    "depth",
    "difference",
    "difference_of_means",
    "explain",
    "judge",
    "open_dictionary",
    "parse_unit",
    "resumable",
    "search",
    "whiten_direction",
    "without_progress",
]
"""What `from phosphene import *` brings; not `phosphene.open`, which would hide Python's own, nor `phosphene.show`."""

# Imported when they are first touched: torch takes seconds, in which `phosphene --version` has long answered, and
# the command line answers Ctrl-C meanwhile.
_PLACES = {
    "again": "api.again",
    "ascend": "api.ascend",
    "attention": "networks.attention",
    "AttentionMaps": "networks.attention",
    "AttributionMaps": "attribution.maps",
    "AttributionSettings": "attribution.settings",
    "best_of": "api.best_of",
    **dict.fromkeys(("Progress", "Step"), "ascent.progress"),
    "Canvas": "ascent.canvas",
    "RunOptions": "ascent.run_options",
    **dict.fromkeys(("DifferenceOptions", "NetworkDifference", "difference"), "comparison.difference"),
    **dict.fromkeys(("ComparisonSettings", "compare"), "comparison.networks"),
    "NetworkComparison": "comparison.result",
    "compare_images": "comparison.pictures",
    "ImageComparison": "comparison.pictures_report",
    "MatchSettings": "comparison.pictures_match",
    "depth": "comparison.depth",
    "DepthReport": "comparison.depth_report",
    **dict.fromkeys(("ActivationMap", "MapSettings", "activation_map"), "atlas.activation_map"),
    "Callbacks": "devices.callbacks",
    "Dictionary": "dictionaries.dictionary",
    "open_dictionary": "dictionaries.reading",
    "explain": "attribution.explain",
    "InputError": "errors",
    "judge": "judges.judge",
    "Ensemble": "networks.ensemble",
    **dict.fromkeys(("Label", "Labels"), "networks.labels"),
    "Layer": "networks.layers",
    "Network": "networks.network",
    "open": "networks.open:open_network",
    "Preprocessing": "networks.preprocessing",
    **dict.fromkeys(("difference_of_means", "whiten_direction"), "photographs.directions"),
    "resumable": "photographs.unfinished",
    "Picture": "picture",
    "show": "provenance.reading:read_provenance",
    "Optimizer": "recipes.optimizer",
    **dict.fromkeys(
        ("DiversityPenalty", "NormPenalty", "Penalties", "StatisticsSettings", "TotalVariationPenalty"),
        "recipes.penalties",
    ),
    "Recipe": "recipes.recipe",
    **dict.fromkeys(
        ("Blur", "Clip", "Decay", "Median", "SmallContribution", "SmallNorm", "TotalVariation"), "recipes.regularizers"
    ),
    **dict.fromkeys(
        ("CanvasSettings", "Growth", "OutputSettings", "Schedule", "Start", "StoppingSettings"), "recipes.settings"
    ),
    "Transforms": "recipes.transforms",
    "Result": "result",
    "search": "tuning.search",
    "SearchSettings": "tuning.settings",
    "parse_unit": "units.spelling",
    "Latent": "units.latents",
    "TokenSelection": "units.tokens",
    "without_progress": "default_progress",
    **dict.fromkeys(("Caricature", "Channel", "Class", "Direction", "Match", "Neuron", "Objective"), "units.objects"),
    **dict.fromkeys(("Sum", "Text", "Unit", "WholeLayer"), "units.objects"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from phosphene.versions import package_version

        value: Any = package_version()
    elif name in _PLACES:
        module, _, spelled = _PLACES[name].partition(":")
        value = getattr(import_module(f"phosphene.{module}"), spelled or name)
    else:
        raise AttributeError(f"module 'phosphene' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, "__version__"})
