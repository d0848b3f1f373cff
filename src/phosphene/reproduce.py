"""The figures of Fabien Tencé's post (2016), each from one call, on the post's networks or on any other.

`figures.toml` holds the post's settings.  They fit the networks that the post used, fed as they were: 0..255 less the
mean.  On others the rates are changed as `adapted` says, unless the post's own are asked for, and every figure tells
which it used.  All else is as in the post's script, whatever the network: see `as_the_script`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

import torch

from phosphene.ascent import DEFAULT_SEED, ascend
from phosphene.canvas import start_image
from phosphene.errors import InputError, did_you_mean
from phosphene.hardware import find_device
from phosphene.loop import Progress
from phosphene.networks.network import Layer, Network
from phosphene.networks.receptive import receptive_field
from phosphene.objective import Objective
from phosphene.picture import Picture, Result
from phosphene.recipe import Recipe
from phosphene.units import Channel, Class, Neuron, Unit, find_class


@dataclass(frozen=True)
class Figure:
    """A figure of the post.

    Attributes:
        name, title: what it is called, and what it shows.
        network: the post's: "vgg16" or "caffenet".
        recipe: the name of the recipe that the rows change.
        classes: indices of ImageNet's classes; none for a figure of hidden units.
        rows: for each row the fields of the recipe it changes, and for hidden units the `layer`, as Caffe names it.
        animate: whether the steps are kept as an animation.
        reference: the post's rate that the rates of a recipe for other networks take the place of; by default the
            recipe's own.
    """

    name: str
    title: str
    network: str
    recipe: str
    rows: tuple[dict[str, Any], ...]
    classes: tuple[int, ...] = ()
    animate: bool = False
    reference: float | None = None


RATES = ("fit", "post")


@lru_cache
def figures() -> dict[str, Figure]:
    """All figures by name."""
    data = tomllib.loads((resources.files("phosphene") / "figures.toml").read_text(encoding="utf-8"))
    found = {}
    for name, fields in data.items():
        frozen: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        found[name] = Figure(name, **frozen)
    return found


def find_figure(name: str) -> Figure:
    """The figure of that name.

    Raises:
        InputError: there is none (with the nearest names).
    """
    if name not in figures():
        near = did_you_mean(name, figures())
        raise InputError(f"no figure is called {name!r}{near or '; see `phosphene reproduce --list`'}")
    return figures()[name]


@dataclass(frozen=True)
class Row:
    """One row of a figure, ready to be made: what tells it from the others, and what to ascend."""

    label: str
    network: Network
    units: tuple[Unit, ...]
    recipe: Recipe

    @property
    def slug(self) -> str:
        """The label as a part of a file's name."""
        return re.sub(r"[^\w.-]+", "", self.label.replace(", ", "_").replace(" ", "-"))


@dataclass(frozen=True)
class Plan:
    """A figure on a network: its rows, and where their settings come from."""

    figure: Figure
    rows: tuple[Row, ...]
    settings: str


def plan(
    figure: Figure,
    network: Network,
    *,
    classes: Sequence[str] = (),
    channels: int = 2,
    size: tuple[int, int] | None = None,
    at_receptive_field: bool = False,
    rates: str = "fit",
    steps: int | None = None,
    seed: int = DEFAULT_SEED,
    device: str | torch.device | None = None,
) -> Plan:
    """What a figure takes on a network.

    Args:
        classes: others than the post's.
        channels: of hidden units: how many of each layer, evenly spread over those that are alive at the start.
        size: of the images; by default the network's.
        at_receptive_field: of hidden units: each as large as what its middle neuron sees, for that neuron alone.
        rates: "fit", those that fit the network (see `adapted`), or "post", the post's as they stand.
        steps: other than the figure's.

    Raises:
        InputError: the network has no such classes or layers, or cannot show them at that size.
    """
    if rates not in RATES:
        raise InputError(f"rates {rates!r}: expected {' or '.join(RATES)}{did_you_mean(rates, RATES)}")
    if figure.classes:
        if at_receptive_field:
            raise InputError(f"{figure.name} shows classes, which see the whole image: expected a figure of filters")
        indices = [find_class(name, network) for name in classes] or list(figure.classes)
        chosen: list[tuple[Network, tuple[Unit, ...]]] = [(network, tuple(map(Class, indices)))] * len(figure.rows)
    elif classes:
        raise InputError(f"{figure.name} shows hidden units: expected no classes")
    else:
        chosen = []
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    if size is not None:
        changes["size"] = size
    recipes, settings = zip(*(adapted(figure, row, network, rates) for row in figure.rows), strict=True)
    recipes = tuple(recipe.changed(changes) for recipe in recipes)
    if not figure.classes:
        layers = _layers(figure, network)
        if at_receptive_field and rates == "fit":
            recipes = tuple(_of_one_neuron(r, network, layer) for r, layer in zip(recipes, layers, strict=True))
        for layer, recipe in zip(layers, recipes, strict=True):
            where, position = network, None
            if at_receptive_field:
                where = network.resized(receptive_field(network, layer.name))
                position = tuple(length // 2 for length in where.layer(layer.name).positions)
            chosen.append((where, living_units(where, layer.name, position, recipe, channels, seed, device)))
    rates_differ = len({row.get("optimizer.rate") for row in figure.rows}) > 1
    rows = [
        Row(_label(row, recipe, units, where if at_receptive_field else None, rates_differ), where, units, recipe)
        for row, recipe, (where, units) in zip(figure.rows, recipes, chosen, strict=True)
    ]
    said = settings[0]
    if at_receptive_field and rates == "fit" and recipes[0].optimizer.gradient == "raw":
        said += "; times how many neurons along a side see one pixel, since only one of them pulls at it"
    return Plan(figure, tuple(rows), said)


def make(
    planned: Plan,
    *,
    seed: int = DEFAULT_SEED,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    batch: int | None = None,
    precision: str = "fp32",
    on_progress: Callable[[Row, Progress], None] | None = None,
    on_picture: Callable[[Row, Picture], None] | None = None,
) -> Iterator[tuple[Row, Result]]:
    """Make a figure row by row, as `ascend` makes images; ends after a row that was interrupted.

    The network's passes are in 32 bits by default, as the post's.
    """
    several = len(planned.rows) > 1 and bool(planned.figure.classes)
    for row in planned.rows:

        def named(picture: Picture, row: Row = row) -> Picture:
            return replace(picture, name=f"{picture.name}_{row.slug}") if several else picture

        def report(progress: Progress, row: Row = row) -> None:
            if on_progress is not None:
                on_progress(row, progress)

        def keep(picture: Picture, row: Row = row) -> None:
            if on_picture is not None:
                on_picture(row, named(picture))

        result = ascend(
            row.network, row.units, row.recipe, seed=seed, device=device, batch=batch, precision=precision,
            on_progress=report, on_picture=keep,
        )  # fmt: skip
        result.pictures = [named(picture) for picture in result]
        yield row, result
        if result.interrupted:
            return


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
    return recipe.changed(script | phases)


def adapted(figure: Figure, row: dict[str, Any], network: Network, rates: str = "fit") -> tuple[Recipe, str]:
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
        base = base.changed({"steps": 200})
    posts = base.model_copy(update={"networks": {}}).changed(fields)
    if figure.animate:
        posts = posts.changed({"keep.every": 1})
    scale = _scale(network)
    if rates == "post":
        return posts, f"the post's own, for {figure.network}, as they stand, in 0..255 pixel values (--rates post)"
    if _has_layers_of(figure, network) and (scale == 1 or not figure.classes):
        if scale == 1:
            return posts, f"the post's own, for {figure.network} fed with 0..255 less the mean"
        rate = float(f"{posts.optimizer.rate * scale * row.get('share', 1.0):.4g}")
        return posts.changed({"optimizer.rate": rate}), (
            f"the post's, with rates up to {scale:.1f} times as high, since {network.name} eats numbers that much "
            "smaller; in later layers less, as found on torchvision's weights (docs/reproduction.md); --rates post "
            "takes the post's as they stand"
        )
    if not figure.classes:
        medians = {key: value for key, value in fields.items() if key.startswith("median.")}
        return Recipe.load("filters").changed({"median": "off"}).changed(medians), (
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
        return posts.changed(changes), (
            f"not the post's: none were found for {network.name}, so the gradient is normalised (docs/recipes.md); "
            "--rates post takes the post's as they stand"
        )
    return posts.changed(changes), (
        f"those found for {network.name} (docs/recipes.md): rates {ratio:g} times the post's, "
        f"{changes['steps']} steps; --rates post takes the post's as they stand"
    )


def _of_one_neuron(recipe: Recipe, network: Network, layer: Layer) -> Recipe:
    """The recipe of a whole map for one neuron of it: as many neurons as see a pixel pull at it no more.

    They lie `field / stride` along a side.  Their derivatives are of both signs at first, so that the sum of all of
    them is the square root of their number, which is this, times that of one.
    """
    if recipe.optimizer.gradient != "raw":
        return recipe
    stride = network.preprocessing.height / layer.positions[0]
    times = receptive_field(network, layer.name)[0] / stride
    return recipe.changed({"optimizer.rate": float(f"{recipe.optimizer.rate * times:.4g}")})


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


def _layers(figure: Figure, network: Network) -> list[Layer]:
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


def living_units(
    network: Network,
    layer: str,
    position: tuple[int, ...] | None,
    recipe: Recipe,
    count: int,
    seed: int,
    device: str | torch.device | None = None,
) -> tuple[Unit, ...]:
    """So many channels of a layer, evenly spread over those whose gradient at the first image is not zero everywhere.

    With a position, the channels' neurons there.  Without enough of them the dead fill up: their pictures say so.
    """
    if recipe.size is not None:
        network = network.resized(recipe.size)
    channels = network.layer(layer).channels
    where = find_device(device)
    image = start_image(recipe.start, network.preprocessing, seed, None).to(where)
    order = sorted(range(channels), key=lambda channel: _spread(channel, channels))
    living: list[Channel | Neuron] = []
    dead: list[Channel | Neuron] = []
    with network.borrowed(where):
        objective = Objective([network], recipe, where)
        for begin in range(0, channels, 2 * count):
            units = [
                Channel(layer, channel) if position is None else Neuron(layer, channel, position)
                for channel in order[begin : begin + 2 * count]
            ]
            gradient = objective(units, image.expand(len(units), -1, -1, -1)).gradient
            for unit, slope in zip(units, gradient.abs().amax(dim=(1, 2, 3)).tolist(), strict=True):
                (living if slope > 0 else dead).append(unit)
            if len(living) >= count:
                break
    return tuple(sorted((living + dead)[:count], key=lambda unit: unit.channel))


def _spread(index: int, length: int) -> float:
    """A place in an order in which any first few are spread evenly: the bits of the index, reversed."""
    bits = max(1, (length - 1).bit_length())
    return int(f"{index:0{bits}b}"[::-1], 2)


_WORDS = {
    "optimizer.rate": "rate {}",
    "decay.strength": "decay {}",
    "blur.sigma": "blur {}",
    "blur.every": "every {}",
    "median.size": "median {}",
    "median.every": "every {}",
    "steps": "{} steps",
}


def _label(
    row: dict[str, Any], recipe: Recipe, units: Sequence[Unit], sized: Network | None, rates_differ: bool
) -> str:
    words = [
        _WORDS[key].format(f"{value:g}") for key, value in row.items() if key in _WORDS and key != "optimizer.rate"
    ]
    if "optimizer.rate" in row and (rates_differ or not words):
        words.insert(0, f"rate {recipe.optimizer.rate:g}")
    if sized is not None:
        height, width = sized.preprocessing.size  # type: ignore[misc]
        words.insert(0, f"{height}x{width} px")
    first = units[0]
    if isinstance(first, Channel | Neuron):
        words.insert(0, row["layer"] if row["layer"] == first.layer else f"{row['layer']} ({first.layer})")
    return ", ".join(words)
