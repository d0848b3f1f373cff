"""phosphene: what an image network has learnt, as images.

Open a network, point at units of it, ascend an image under a recipe, show what came out:

    import phosphene

    network = phosphene.open("efficientnet_lite0")
    result = phosphene.ascend(network, ["class:flamingo", "class:teddy"], "tence")
    result.save("phosphene-out")
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("phosphene")
except PackageNotFoundError:  # run from source, not installed
    __version__ = "0+source"

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
