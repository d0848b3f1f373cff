"""The settings of the post, for any network."""

from __future__ import annotations

from typing import Any

from phosphene.errors import InputError
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.recipes.schema import Recipe
from phosphene.reproduce.figures import Figure

RATES = ("fit", "post")


def as_the_script(recipe: Recipe) -> Recipe:
    """A recipe with what the post's script does otherwise than recipes do by default.

    The start is drawn by NumPy's legacy generator; filters act after steps 1, 1 + every, …, since the script counts
    steps from 0 and filters where the count divides by `every`; the image is kept in 64 bits, and cut to 8 at the end;
    and a unit without gradient goes on, since a filter may wake it.
    """
    phases = {f"{name}.phase": 1 for name, _ in recipe.regularizers}
    script = {
        "start.kind": "numpy",
        "canvas.dtype": "float64",
        "keep.rounding": "down",
        "stop.still": recipe.steps,
    }
    return recipe.override(script | phases)


def adapt_recipe(figure: Figure, row: dict[str, Any], network: Network, rates: str = "fit") -> tuple[Recipe, str]:
    """The recipe of a figure's row for a network, and in words where its settings come from."""
    recipe, said = _adapted(figure, row, network, rates)
    return as_the_script(recipe), said


def _adapted(figure: Figure, row: dict[str, Any], network: Network, rates: str) -> tuple[Recipe, str]:
    """As `adapted`, but for what is the script's.

    - Rates "post": the post's settings as they stand.
    - A network of the post's layers that eats 0..255 less the mean: the post's settings as they stand.
    - Hidden units of the post's layers in a network that eats other numbers: the rate times the ratio of the two
      scales.  ReLU networks are homogeneous: fed with numbers k times smaller, weights of the same size make
      activations, and derivatives by a pixel, k times smaller.  But all of them classify, so logits are of one size
      in every network, and towards the end less and less of k remains: the row's `share`.
    - Classes of another network: what was found for it, or for any other, stands in the recipe's `networks`; the
      post's rates are multiplied by what the recipe's own rate was.
    - Hidden units of another network: the normalised, falling steps of the recipe `filters`, with the row's medians.
    """
    fields = {key: value for key, value in row.items() if key not in ("layer", "share")}
    base = Recipe.load(figure.recipe)
    if not figure.classes:
        base = base.override({"steps": 200})
    posts = base.model_copy(update={"networks": {}}).override(fields)
    if figure.animate:
        posts = posts.override({"keep.every": 1})
    scale = _scale(network)
    if rates == "post":
        return posts, f"the post's own, for {figure.network}, as they stand, in 0..255 pixel values (--rates post)"
    if _has_layers_of(figure, network) and (scale == 1 or not figure.classes):
        if scale == 1:
            return posts, f"the post's own, for {figure.network} fed with 0..255 less the mean"
        rate = float(f"{posts.optimizer.rate * scale * row.get('share', 1.0):.4g}")
        return posts.override({"optimizer.rate": rate}), (
            f"the post's, with rates up to {scale:.1f} times as high, since {network.name} eats numbers that much "
            "smaller; in later layers less, as found on torchvision's weights (docs/reproduction.md); --rates post "
            "takes the post's as they stand"
        )
    if not figure.classes:
        medians = {key: value for key, value in fields.items() if key.startswith("median.")}
        return Recipe.load("filters").override({"median": "off"}).override(medians), (
            f"not the post's: {network.name} has other layers, which get the normalised, falling steps of the recipe "
            "`filters`, with the post's median filters by depth; --rates post takes the post's rates as they stand"
        )
    section = base.section_of(network.name)
    there = base.networks[section]
    ratio = there["optimizer.rate"] / (figure.reference or base.optimizer.rate)
    changes = there | {"optimizer.rate": posts.optimizer.rate * ratio}
    if "steps" in row:
        changes["steps"] = row["steps"]
    if section == "other":
        return posts.override(changes), (
            f"not the post's: none were found for {network.name}, so the gradient is normalised (docs/recipes.md); "
            "--rates post takes the post's as they stand"
        )
    return posts.override(changes), (
        f"those found for {network.name} (docs/recipes.md): rates {ratio:g} times the post's, "
        f"{changes['steps']} steps; --rates post takes the post's as they stand"
    )


def for_one_neuron(recipe: Recipe, network: Network, layer: Layer) -> Recipe:
    """The recipe of a whole map for one neuron of it: as many neurons as see a pixel pull at it no more.

    They lie `field / stride` along a side.  Their derivatives are of both signs at first, so that the sum of all of
    them is the square root of their number, which is this, times that of one.
    """
    if recipe.optimizer.gradient != "raw":
        return recipe
    stride = network.preprocessing.height / layer.positions[0]
    times = receptive_field(network, layer.name)[0] / stride
    return recipe.override({"optimizer.rate": float(f"{recipe.optimizer.rate * times:.4g}")})


def _scale(network: Network) -> float:
    """How many pixel values (0..255) make one unit of the network's input."""
    eats = network.preprocessing
    low, high = eats.value_range
    mean = sum(eats.std) / len(eats.std)  # type: ignore[arg-type]
    return 255 * mean / (high - low)


# Channels of the convolutions, by the post's network; AlexNet is CaffeNet in one tower.
_CONVOLUTIONS: dict[str, list[tuple[int, ...]]] = {
    "vgg16": [(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)],
    "caffenet": [(96, 256, 384, 384, 256), (64, 192, 384, 256, 256)],
}


def _activations(network: Network) -> list[Layer]:
    return [layer for layer in network.layers if layer.worth_showing and len(layer.positions) == 2]


def _has_layers_of(figure: Figure, network: Network) -> bool:
    return tuple(layer.channels for layer in _activations(network)) in _CONVOLUTIONS[figure.network]


def layers_of(figure: Figure, network: Network) -> list[Layer]:
    """The layers of a figure of hidden units: by name, by their order, or of another network, evenly spread."""
    activations = _activations(network)
    named = {layer.name: layer for layer in network.layers}
    wanted = [row["layer"] for row in figure.rows]
    if all(name in named for name in wanted):
        return [named[name] for name in wanted]
    if len(activations) < len(wanted):
        raise InputError(
            f"{figure.name} shows {len(wanted)} layers: {network.name} has {len(activations)} activations on maps"
        )
    return [activations[index * len(activations) // len(wanted)] for index in range(len(wanted))]
