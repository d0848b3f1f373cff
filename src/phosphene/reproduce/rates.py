"""The settings of the post, adapted to any network.

`figures.toml` holds the post's.  They fit the networks that the post used, which expect 0..255 less the mean.  On
others the rates are changed as `adapt_recipe` says, unless the post's own are asked for, and every figure tells which
it used.  All else is as in the post's script, whatever the network: see `as_the_script`.
"""

from __future__ import annotations

from typing import Any

from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.networks.receptive import receptive_field
from phosphene.recipes.recipe import Recipe
from phosphene.reproduce.figures import Figure
from phosphene.reproduce.layers import has_posts_layers

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
    """The recipe of a figure's row for a network, and in words where its settings come from.

    - Rates "post": the post's settings as they stand.
    - A network of the post's layers that expects 0..255 less the mean: the post's settings as they stand.
    - Hidden units of the post's layers in a network that expects other numbers: the rate times the ratio of the two
      scales.  ReLU networks are homogeneous: with input k times smaller, weights of the same size make
      activations, and derivatives by a pixel, k times smaller.  But all of them classify, so logits are of one size
      in every network, and towards the end less and less of k remains: the row's `share`.
    - Classes of another network: what was found for it, or for any other, stands in the recipe's `networks`; the
      post's rates are multiplied by what the recipe's own rate was.
    - Hidden units of another network: the normalized, falling steps of the recipe `filters`, with the row's medians.
    """
    scale = _scale(network)
    if rates == "post":
        recipe = _posts_recipe(figure, row)
        source = f"the post's own, for {figure.network}, as they stand, in 0..255 pixel values (--rates post)"
    elif has_posts_layers(figure, network) and scale == 1:
        recipe = _posts_recipe(figure, row)
        source = f"the post's own, for {figure.network}, which expects 0..255 less the mean"
    elif figure.classes:
        recipe, source = _classes_recipe(figure, row, network)
    elif has_posts_layers(figure, network):
        recipe = _posts_recipe(figure, row)
        rate = float(f"{recipe.optimizer.rate * scale * row.get('share', 1.0):.4g}")
        recipe = recipe.override({"optimizer.rate": rate})
        source = (
            f"the post's, with rates up to {scale:.1f} times as high, since {network.name} expects numbers that much "
            "smaller; in later layers less, as found on torchvision's weights (docs/reproduction.md); --rates post "
            "takes the post's as they stand"
        )
    else:
        medians = {key: value for key, value in row.items() if key.startswith("median.")}
        recipe = Recipe.load("filters").override({"median": "off"}).override(medians)
        source = (
            f"not the post's: {network.name} has other layers, which get the normalized, falling steps of the recipe "
            "`filters`, with the post's median filters by depth; --rates post takes the post's rates as they stand"
        )
    return as_the_script(recipe), source


def _posts_recipe(figure: Figure, row: dict[str, Any]) -> Recipe:
    recipe = Recipe.load(figure.recipe)
    if not figure.classes:
        recipe = recipe.override({"steps": 200})
    fields = {key: value for key, value in row.items() if key not in ("layer", "share")}
    recipe = recipe.model_copy(update={"networks": {}}).override(fields)
    return recipe.override({"keep.every": 1}) if figure.animate else recipe


def _classes_recipe(figure: Figure, row: dict[str, Any], network: Network) -> tuple[Recipe, str]:
    """For classes of another network than the post's."""
    base, posts = Recipe.load(figure.recipe), _posts_recipe(figure, row)
    section = base.section_of(network)
    there = base.networks[section]
    ratio = there["optimizer.rate"] / (figure.reference or base.optimizer.rate)
    changes = there | {"optimizer.rate": posts.optimizer.rate * ratio}
    if "steps" in row:
        changes["steps"] = row["steps"]
    if section == "other":
        return posts.override(changes), (
            f"not the post's: none were found for {network.name}, so the gradient is normalized (docs/recipes.md); "
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
    preprocessing = network.preprocessing
    low, high = preprocessing.value_range
    mean = sum(preprocessing.std) / len(preprocessing.std)  # type: ignore[arg-type]
    return 255 * mean / (high - low)
