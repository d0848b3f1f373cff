"""Units' scores, read from one pass of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from phosphene.ascent.unit_statistics import prior_statistics
from phosphene.errors import InputError, join_names
from phosphene.hardware import to_device
from phosphene.networks.forward import Reader
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.speed.channel_slicing import pick_channels, sliced_channels
from phosphene.networks.tokens import TokenLayout
from phosphene.pixels.resampling import resize
from phosphene.recipes.recipe import Recipe
from phosphene.units.latents import Latent
from phosphene.units.objects import (
    Channel,
    Class,
    Direction,
    Neuron,
    Objective,
    OneChannel,
    Part,
    Unit,
    is_one_channel,
)


def penalty_layers(network: Network, recipe: Recipe, *, first: bool = True) -> list[str]:
    """The layers whose outputs a recipe's priors read, beside the units' own; of an ensemble's first, or another."""
    settings = recipe.priors
    found = [settings.diversity.layer_of(network)] if settings.diversity and first else []
    if settings.statistics:
        natural, _ = prior_statistics(network, settings.statistics)
        found += [entry.layer for entry in natural if not entry.inputs]
    return found


def references(network: Network, units: Sequence[Unit], photographs: Tensor | None) -> dict[str, Tensor]:
    """What the layers of referenced units make of a photograph, or of its views: each (views, channels, *positions)."""
    layers = {part.layer for unit in units for _, part in unit.terms() if part.needs_reference}
    if not layers or photographs is None:
        return {}
    found: dict[str, Tensor] = {}

    def reader(layer: str) -> Reader:
        return lambda output: found.update({layer: first_output(output)})

    with torch.no_grad():
        network.read(photographs, {layer: reader(layer) for layer in layers})
    return found


@dataclass(frozen=True, eq=False)
class PassReaders:
    """What else is read in a pass.

    Attributes:
        outputs, inputs: readers of layers, as `Network.forward` takes them; those of layers behind the last unit's,
            and behind `until`, are not called.
        until: layers that the pass goes to at least.
    """

    outputs: Mapping[str, Reader] = field(default_factory=dict)
    inputs: Mapping[str, Reader] = field(default_factory=dict)
    until: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class ScoreOptions:
    """How scores are read.

    Attributes:
        references: by layer, what it makes of a photograph for each image, for units that need a reference.
        redirected_relu: whether a unit of an activation that is 0 counts as what goes into the activation.
        producers: by layer the module that makes its channels, where it may be narrowed (see
            `networks.speed.channel_slicing`).
        max_activation: whether a channel counts as its most active neuron.  Where all of them are 0 for want of
            something, the sum of what goes into them may fall with whatever would wake some.
        seeds: of each image, for a network that draws random numbers.
    """

    references: Mapping[str, Tensor] = field(default_factory=dict)
    redirected_relu: bool = False
    producers: Mapping[str, str] = field(default_factory=dict)
    max_activation: bool = False
    seeds: Sequence[int] | None = None


def scores(
    network: Network,
    units: Sequence[Unit],
    images: Tensor,
    readers: PassReaders | None = None,
    options: ScoreOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """The units' scores and, of classes, the network's probabilities, one for each image: twice (rows,).

    Args:
        network: borrowed.
        units: one for each image.
        images: (rows, channels, height, width) in 0..255.
    """
    readers, options = readers or PassReaders(), options or ScoreOptions()
    by_layer: dict[str, list[_Entry]] = {}
    for row, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((row, weight, part))
    whole = bool(readers.outputs or readers.inputs or readers.until) or not all(map(is_one_channel, units))
    narrow, places = _channel_slice(network, by_layer, {} if whole else options.producers)
    layouts = {layer: network.layer(layer).tokens for layer in by_layer if layer != LOGITS}
    found = _PartScores(by_layer, options, places, layouts, len(units))
    outputs, inputs = dict(readers.outputs), dict(readers.inputs)
    for layer in by_layer:
        if layer != LOGITS:
            outputs[layer] = chain_readers(outputs.get(layer), partial(found.read, layer))
    if options.redirected_relu:
        for layer in by_layer:
            if layer != LOGITS and _is_plain_activation(network, layer):
                inputs[layer] = chain_readers(inputs.get(layer), partial(found.read_input, layer))
    logits = None
    if LOGITS in by_layer:
        logits = network.forward(images, outputs, inputs, options.seeds).float()
        found.read(LOGITS, logits)
    else:
        last = max(network.depth(layer) for layer in [*by_layer, *readers.until])
        within = {layer: read for layer, read in outputs.items() if network.depth(layer) <= last}
        with narrow:
            network.read(images, within, inputs, options.seeds)
    values = torch.stack([_total(network, unit, terms) for unit, terms in zip(units, found.by_row, strict=True)])
    return values.float(), _probabilities(network, units, logits, images.device)


def _total(network: Network, unit: Unit, terms: Sequence[tuple[Part, Tensor]]) -> Tensor:
    """A unit's score, of what its parts say."""
    if len(terms) != len(unit.terms()):
        missed = join_names(sorted({part.layer for _, part in unit.terms() if part.layer != LOGITS}))
        raise InputError(f"{unit} of {network.name}: {missed} is not called for every image, so it cannot be shown")
    if isinstance(unit, Objective):
        return unit.value({part.layer: activation for part, activation in terms})
    return terms[0][1] if len(terms) == 1 else torch.stack([term for _, term in terms]).sum()


def _probabilities(network: Network, units: Sequence[Unit], logits: Tensor | None, device: torch.device) -> Tensor:
    """The network's probability of each class that is shown, (rows,); not a number for other units."""
    probabilities = torch.full((len(units),), math.nan, device=device)
    classes = [(row, unit.index) for row, unit in enumerate(units) if isinstance(unit, Class)]
    if classes and logits is not None:
        rows, indices = to_device(torch.tensor(classes).T, device)
        probabilities[rows] = network.probabilities(logits.detach())[rows, indices]
    return probabilities


class _PartScores:
    """The scores of the units' parts, by row, as the layers are read."""

    def __init__(
        self,
        by_layer: Mapping[str, list[_Entry]],
        options: ScoreOptions,
        places: Mapping[int, int],
        layouts: Mapping[str, TokenLayout | None],
        rows: int,
    ):
        self.by_layer, self.options, self.places, self.layouts = by_layer, options, places, layouts
        self.by_row: list[list[tuple[Part, Tensor]]] = [[] for _ in range(rows)]
        self.before: dict[tuple[int, Part], Tensor] = {}  # what goes into an activation, by row and part

    def read(self, layer: str, activation: Tensor) -> None:
        entries, reference = self.by_layer[layer], self.options.references.get(layer)
        found = self._scores(layer, activation, entries, reference)
        for (row, weight, part), score in zip(entries, found, strict=True):
            if (row, part) in self.before:
                score = torch.where(score == 0, self.before[row, part], score)
            self.by_row[row].append((part, score if weight == 1 else weight * score))

    def read_input(self, layer: str, entering: Tensor) -> None:
        entries = [entry for entry in self.by_layer[layer] if isinstance(entry[-1], _REDIRECTABLE)]
        found = self._scores(layer, entering, entries, None)
        for (row, _, part), score in zip(entries, found, strict=True):
            self.before[row, part] = score

    def _scores(
        self, layer: str, activation: Tensor, entries: Sequence[_Entry], reference: Tensor | None
    ) -> list[Tensor]:
        layout, highest = self.layouts.get(layer), self.options.max_activation
        return _part_scores(activation, entries, reference, self.places, layout, highest)


_Entry = tuple[int, float, Part]  # a row, the weight of a part of its unit, and the part


def _channel_slice(
    network: Network, by_layer: Mapping[str, Sequence[_Entry]], producers: Mapping[str, str]
) -> tuple[AbstractContextManager[None], dict[int, int]]:
    """A context in which the one layer that is read has only the channels asked for, and where each of them is."""
    (layer, entries), *others = by_layer.items()
    if others or layer not in producers:
        return nullcontext(), {}
    parts = [part for _, _, part in entries if isinstance(part, OneChannel)]
    module = network.module.get_submodule(producers[layer])
    channels = pick_channels(module, {part.only for part in parts}, len(entries))
    if channels is None:
        return nullcontext(), {}
    return sliced_channels(module, channels), {channel: place for place, channel in enumerate(channels)}


def _part_scores(
    activation: Tensor,
    entries: Sequence[_Entry],
    reference: Tensor | None,
    places: Mapping[int, int],
    layout: TokenLayout | None,
    highest: bool = False,
) -> list[Tensor]:
    """The parts' scores in a layer's output (rows, channels, *positions); `places` of channels where it is narrowed."""
    channels = [places.get(part.only, part.only) for _, _, part in entries if isinstance(part, OneChannel)]
    if entries and len(channels) == len(entries):  # no more than these is copied, and nought all the rest's gradient
        rows, of_rows = to_device(torch.tensor([[row for row, _, _ in entries], channels]), activation.device)
        maps = first_output(activation[rows, of_rows]).unbind()
        seen = [(part, part.select(map_, layout)) for (_, _, part), map_ in zip(entries, maps, strict=True)]
        return [
            _highest(map_) if highest and isinstance(part, Channel) else part.of_map(map_)  # type: ignore[attr-defined]
            for part, map_ in seen
        ]
    images = first_output(activation).unbind()
    return [
        part.score(
            part.select(images[row], layout),
            reference[row % len(reference)] if part.needs_reference and reference is not None else None,
        )
        for row, _, part in entries
    ]


def _highest(map_: Tensor) -> Tensor:
    """A map's largest number; of several that are equal the one nearest to the middle."""
    places = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in map_.shape), indexing="ij")
    off = sum((place.square() for place in places), torch.zeros(map_.shape)).to(map_.device)
    values = map_.detach()
    best = torch.where(values == values.max(), off, torch.inf).flatten().argmin() if map_.ndim else 0
    return map_.flatten()[best]


_REDIRECTABLE = (Channel, Neuron, Direction)


def _is_plain_activation(network: Network, layer: str) -> bool:
    """Whether a layer is an activation, and no more than that, which is called once."""
    known = network.layer(layer)
    module, _ = network.call(layer)
    if not known.worth_showing or module != layer or not known.plain:
        return False
    # Keras's convolutions may have an activation in them.
    return all(parameter.ndim <= 1 for parameter in network.module.get_submodule(layer).parameters())


def first_output(activation: Tensor) -> Tensor:
    """A copy in 32 bits: what comes after may work in place."""
    return activation.to(torch.float32, copy=True)


def chain_readers(first: Reader | None, second: Callable[[Tensor], object]) -> Reader:
    def read(activation: Tensor) -> None:
        if first is not None:
            first(activation)
        second(activation)

    return read


def _latent_reader(network: Network, unit: Unit, found: list[float]) -> PassReaders | None:
    """Reads how active the latent that a unit is is itself: what is climbed is what goes into its activation."""
    if not isinstance(unit, Latent) or not unit.is_known:
        return None
    layout = network.layer(unit.layer).tokens

    def read(activation: Tensor) -> None:
        found.append(unit.responses(unit.select(first_output(activation), layout))[0].item())

    return PassReaders({unit.layer: read})


def measure(
    network: Network, unit: Unit, pixels: Tensor, device: torch.device, photograph: Tensor | None = None
) -> dict[str, float]:
    """The objective of a finished image as it is saved, of a class its probability, and of a latent what it is there.

    The image goes through the (borrowed) network alone, so that the numbers do not depend on its batch.

    Args:
        pixels: (height, width, channels) in 8 bits.
        photograph: (channels, height, width) in 0..255, for a unit that refers to one.
    """
    size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
    with torch.no_grad():
        image = resize(pixels.to(device).float().movedim(-1, 0)[None], size)
        shown = None if photograph is None else resize(photograph.to(device)[None], size)
        options = ScoreOptions(references=references(network, [unit], shown))
        latents: list[float] = []
        value, probability = scores(network, [unit], image, _latent_reader(network, unit, latents), options)
    found = {"objective": value.item(), "probability": probability.item()}
    if latents:
        found["latent"] = latents[0]
    return {name: score for name, score in found.items() if not (name == "probability" and math.isnan(score))}
