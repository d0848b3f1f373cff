"""The objective: from images to one number for each, and the gradient of that number."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene import priors
from phosphene.errors import InputError, listed
from phosphene.hardware import sent
from phosphene.networks.narrowing import chosen, makers, narrowed
from phosphene.networks.network import LOGITS, Network, Norm, Reader
from phosphene.networks.precision import cast
from phosphene.networks.waking import Waking
from phosphene.priors import Memory
from phosphene.recipe import Recipe, Views
from phosphene.units import Channel, Class, Direction, Neuron, OneChannel, Part, Unit
from phosphene.views import resized, view


@dataclass(frozen=True)
class Evaluation:
    """What an objective says of images.

    Attributes:
        values: the units' scores, (rows,).
        probabilities: the (first) network's own of each row's class, (rows,); not a number where it shows none.
        gradient: of the scores less the priors, at each row's own image; of the images' shape.
    """

    values: Tensor
    probabilities: Tensor
    gradient: Tensor


class Objective:
    """The units' scores, averaged over random views and networks, less the priors.

    Args:
        networks: borrowed while it is used; several make an ensemble: the mean of their scores.
        recipe: whose views and priors; rows may have others of the same company.
        device: where the networks are.
        photograph: (channels, height, width) in 0..255, for units that are referenced to one.
        norms: for each network what goes into its batch normalisations, where they are folded.
        precisions: of each network's passes, "fp32", "bf16" or "fp64"; what comes out of them is brought to 32 bits.
        layers: that units are read from; of the last one that is run only the channels asked for are computed.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        recipe: Recipe,
        device: torch.device,
        photograph: Tensor | None = None,
        norms: Sequence[Sequence[Norm] | None] | None = None,
        precisions: Sequence[str] = (),
        layers: Collection[str] = (),
    ):
        self.networks, self.recipe, self.device = list(networks), recipe, device
        self.photograph = None if photograph is None else photograph.to(device)[None]
        self.casts = [cast(network, name) for network, name in zip(networks, precisions, strict=False)]
        self.makers = makers(networks[0], layers) if len(networks) == 1 else {}
        self.mean = torch.tensor(networks[0].preprocessing.mean_pixels, device=device).view(-1, 1, 1)
        self.statistics: list[priors.Statistics | None] = []
        origins = []
        settings = recipe.priors.statistics
        for network, norm in zip(networks, norms or [None] * len(networks), strict=True):
            natural, origin = priors.natural_statistics(network, settings.source, norm) if settings else ([], "")
            self.statistics.append(priors.Statistics(natural, settings, device) if settings and natural else None)
            origins.append(origin)
        self.origins = tuple(origins)  # of each network's statistics of natural images
        self._sized: dict[tuple[int, tuple[int, int]], Network] = {}
        self._called: dict[frozenset[str], int] = {}  # how many activations until these layers are read
        self.diversity = (
            priors.diversity_layer(networks[0], recipe.priors.diversity.layer) if recipe.priors.diversity else ""
        )

    def sized(self, index: int, size: tuple[int, int], units: Sequence[Unit] = ()) -> Network:
        """A network as it is fed with images of that size; at its own where it shows the units at no other."""
        if (index, size) not in self._sized:
            network = self.networks[index]
            try:
                # Several networks are each fed at their own size.
                found = network if len(self.networks) > 1 else network.resized(size)
            except InputError:
                found = network
            self._sized[index, size] = found
        found = self._sized[index, size]
        parts = [part for unit in units for _, part in unit.terms()]
        own = self.networks[index]
        return found if found is own or all(_shows(found, part) for part in parts) else own

    def __call__(
        self,
        units: Sequence[Unit],
        images: Tensor,
        generators: Sequence[torch.Generator] = (),
        *,
        recipes: Sequence[Recipe] = (),
        scales: Tensor | None = None,
        groups: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        memories: Sequence[dict[int, Memory]] = (),
        padding: int = 0,
        waking: int = 0,
    ) -> Evaluation:
        """Evaluate images.

        Args:
            units: one for each image.
            images: (rows, channels, height, width) in 0..255.
            generators: one for each row, for its views.
            recipes: of each row, all of this objective's company; by default its own for all.
            scales: (rows,): what the priors' weights are multiplied by; 1 by default.
            groups: for each row, which group it is made in.
            steps: how many steps each row has made: it tells whose turn it is of what is looked at in turn.
            memories: of each row, by network, what its priors remember of earlier steps; brought up to date.
            padding: fill the batch with copies up to this many rows.
            waking: through so many of the last activations gradients get where they are flat (see `networks.waking`).
        """
        with ExitStack() as stack:
            made = steps or [0] * len(units)
            for cast in self.casts:
                stack.enter_context(cast())
            own = recipes or [self.recipe] * len(units)
            if waking:
                stack.enter_context(Waking(waking, self._activations(units, images)))
            return self._evaluated(units, images, generators, own, scales, groups, made, memories, padding, waking > 0)

    def _activations(self, units: Sequence[Unit], images: Tensor) -> int:
        """How many activations are called until the units are read."""
        layers = frozenset(part.layer for unit in units for _, part in unit.terms())
        if layers not in self._called:
            network = self.sized(0, (images.shape[-2], images.shape[-1]), units)
            fed = resized(images[:1], network.preprocessing.size)  # type: ignore[arg-type]
            counting = Waking(0, 0)
            with counting, torch.no_grad():
                scores(network, units[:1], fed)
            self._called[layers] = counting.calls
        return self._called[layers]

    def _evaluated(
        self,
        units: Sequence[Unit],
        images: Tensor,
        generators: Sequence[torch.Generator],
        recipes: Sequence[Recipe],
        scales: Tensor | None,
        groups: Sequence[int] | None,
        steps: Sequence[int],
        memories: Sequence[dict[int, Memory]],
        padding: int,
        waking: bool,
    ) -> Evaluation:
        images = images.detach().requires_grad_()
        values: list[Tensor] = []
        probabilities: list[Tensor] = []
        costs: list[Tensor] = []
        for index in range(len(self.networks)):
            own = [memory.setdefault(index, {}) for memory in memories]
            score, probability, cost = self._of(
                index, units, images, generators, recipes, groups, steps, own, padding, waking
            )
            values.append(score)
            probabilities.append(probability)
            costs += cost
        value = torch.stack(values).mean(dim=0)
        cost = self._of_images(images, recipes) + [term / len(self.networks) for term in costs]
        total = value
        if cost:
            weighed = torch.stack(cost).sum(dim=0)
            total = value - (weighed if scales is None else scales * weighed)
        if not total.requires_grad:  # the objective does not depend on the image at all
            gradient = torch.zeros_like(images)
        else:
            (gradient,) = torch.autograd.grad(total.sum(), images)
        return Evaluation(value.detach(), probabilities[0], gradient)

    def _of(
        self,
        index: int,
        units: Sequence[Unit],
        images: Tensor,
        generators: Sequence[torch.Generator],
        recipes: Sequence[Recipe],
        groups: Sequence[int] | None,
        steps: Sequence[int],
        memories: Sequence[Memory],
        padding: int,
        waking: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One network's scores and probabilities, (rows,), and the terms that its activations cost."""
        rows, count = len(images), self.recipe.views.count
        network = self.sized(index, (images.shape[-2], images.shape[-1]), units)
        fed = max(rows, padding)
        seen, shown = self._seen(network, images, generators, [recipe.views for recipe in recipes])
        seen, shown = _filled(seen, count, fed), None if shown is None else _filled(shown, count, fed)
        statistics = self.statistics[index]
        outputs, inputs = statistics.readers(steps) if statistics else ({}, {})
        features: list[Tensor] = []
        until = [self.diversity] if self.diversity and index == 0 and groups is not None else []
        if until:
            outputs[self.diversity] = _together(
                outputs.get(self.diversity), lambda output: features.append(_own(output))
            )
        of_seen = [units[min(row, rows - 1)] for row in range(fed)] * count
        score, probability = scores(
            network,
            of_seen,
            seen,
            outputs=outputs,
            inputs=inputs,
            references=references(network, units, shown),
            until=until,
            redirect=self.recipe.redirect,
            makers=self.makers,
            top=waking,
            seeds=_seeds(generators, fed, count) if network.random else None,
        )
        score, probability = (each.view(count, fed).mean(dim=0)[:rows] for each in (score, probability))
        cost = []
        settings = self.recipe.priors
        if statistics and settings.statistics:
            alike = list(groups) + [-1 - i for i in range(fed - rows)] if groups is not None else None
            pooled = alike if settings.statistics.pool == "group" else None
            depths = [depth(network, unit) for unit in of_seen[:fed]]
            made = [steps[min(row, rows - 1)] for row in range(fed)]
            remembered = [*memories, *(dict(memories[-1]) for _ in range(fed - rows))] if memories else []
            weights = self._weights(recipes, "statistics")
            cost.append(weights * statistics.penalties(fed, pooled, depths, made, remembered)[:rows])
        if features and settings.diversity and groups is not None:
            first = features[0][:rows]  # of the first views
            cost.append(self._weights(recipes, "diversity") * priors.similarity(first, list(groups)))
        return score, probability, cost

    def _weights(self, recipes: Sequence[Recipe], prior: str) -> Tensor:
        """A prior's weight in each row, (rows,)."""
        return sent(torch.tensor([float(getattr(each.priors, prior).weight) for each in recipes]), self.device)

    def _seen(
        self,
        network: Network,
        images: Tensor,
        generators: Sequence[torch.Generator],
        settings: Sequence[Views],
    ) -> tuple[Tensor, Tensor | None]:
        """Views of the images as the network is fed them; and the same of the photograph, where there is one."""
        size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
        again = [] if self.photograph is None else [_copied(generator) for generator in generators]
        seen = view(images, settings, generators, size)
        if self.photograph is None:
            return seen, None
        beside = resized(self.photograph, (images.shape[-2], images.shape[-1])).expand(len(images), -1, -1, -1)
        return seen, view(beside, settings, again, size)

    def _of_images(self, images: Tensor, recipes: Sequence[Recipe]) -> list[Tensor]:
        """The terms that the images themselves cost."""
        cost = []
        if self.recipe.priors.total_variation:
            cost.append(self._weights(recipes, "total_variation") * priors.total_variation(images))
        if norm := self.recipe.priors.norm:
            cost.append(self._weights(recipes, "norm") * priors.norm(images, self.mean, norm.power))
        return cost


def _copied(generator: torch.Generator) -> torch.Generator:
    """Another that draws the same."""
    return torch.Generator().set_state(generator.get_state())


def _shows(network: Network, part: Part) -> bool:
    """Whether a network shows a part at another size than its own."""
    if isinstance(part, Neuron):  # whose position is in the map of the network's own size
        return False
    return bool(network.classes) if part.layer == LOGITS else any(part.layer == entry.name for entry in network.layers)


def depth(network: Network, unit: Unit) -> float:
    """How many layers end before the last one that a unit is read from."""
    return max(math.inf if part.layer == LOGITS else network.depth(part.layer) for _, part in unit.terms())


def company(unit: Unit) -> tuple[bool, list[str]]:
    """Units whose company is equal go through the network together.

    It tells the layers, and whether the last may be narrowed to the channels asked for: what comes out of a row should
    not depend on whether a batchmate needs more.
    """
    layers = sorted({part.layer for _, part in unit.terms()})
    return _is_one_channel(unit) and layers != [LOGITS], layers


def _is_one_channel(unit: Unit) -> bool:
    terms = unit.terms()
    return len(terms) == 1 and isinstance(terms[0][1], OneChannel)


def _seeds(generators: Sequence[torch.Generator], fed: int, count: int) -> list[int]:
    """Of each view of each row, as `_filled` has them: for what a network draws in its forward."""
    first = [int(torch.randint(2**31, (), generator=generator)) for generator in generators] or [0]
    return [first[min(row, len(first) - 1)] + view for view in range(count) for row in range(fed)]


def _filled(seen: Tensor, count: int, fed: int) -> Tensor:
    """Views (count * rows, …) filled up to so many rows with copies of the last row's."""
    if len(seen) == count * fed:
        return seen
    by_view = seen.view(count, -1, *seen.shape[1:])
    copies = by_view[:, -1:].expand(-1, fed - by_view.shape[1], *seen.shape[1:])
    return torch.cat([by_view, copies], dim=1).flatten(0, 1)


def layers_read(network: Network, recipe: Recipe, *, first: bool = True) -> list[str]:
    """The layers whose outputs a recipe's priors read, beside the units' own; of an ensemble's first, or another."""
    settings = recipe.priors
    found = [priors.diversity_layer(network, settings.diversity.layer)] if settings.diversity and first else []
    if settings.statistics:
        natural, _ = priors.natural_statistics(network, settings.statistics.source)
        found += [entry.layer for entry in natural if not entry.inputs]
    return found


def references(network: Network, units: Sequence[Unit], shown: Tensor | None) -> dict[str, Tensor]:
    """What the layers of referenced units make of a photograph, or of its views: each (views, channels, *positions)."""
    layers = {part.layer for unit in units for _, part in unit.terms() if part.referenced}
    if not layers or shown is None:
        return {}
    found: dict[str, Tensor] = {}

    def reader(layer: str) -> Reader:
        return lambda output: found.update({layer: _own(output)})

    readers = {layer: reader(layer) for layer in layers if layer != LOGITS}
    with torch.no_grad():
        if LOGITS in layers:
            found[LOGITS] = network.forward(shown, readers).float()
        else:
            network.read(shown, readers)
    return found


def scores(
    network: Network,
    units: Sequence[Unit],
    images: Tensor,
    *,
    outputs: dict[str, Reader] | None = None,
    inputs: dict[str, Reader] | None = None,
    references: dict[str, Tensor] | None = None,
    until: Sequence[str] = (),
    redirect: bool = False,
    makers: Mapping[str, str] | None = None,
    top: bool = False,
    seeds: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The units' scores and, of classes, the network's probabilities, one for each image: twice (rows,).

    Args:
        network: borrowed.
        units: one for each image.
        images: (rows, channels, height, width) in 0..255.
        outputs, inputs: further readers of the pass, as `Network.forward` takes them; those of layers behind the last
            unit's, and behind `until`, are not called.
        references: by layer, what it makes of a photograph for each image, for units that are referenced.
        redirect: whether a unit of an activation that is 0 counts as what goes into the activation.
        makers: by layer the module that makes its channels, where it may be narrowed (see `networks.narrowing`).
        top: whether a channel counts as its most active neuron.  Where all of them are 0 for want of something, the sum
            of what goes into them may fall with whatever would wake some.
        seeds: of each image, for a network that draws random numbers.
    """
    by_layer: dict[str, list[_Entry]] = {}
    for row, unit in enumerate(units):
        for weight, part in unit.terms():
            by_layer.setdefault(part.layer, []).append((row, weight, part))
    found: list[list[Tensor]] = [[] for _ in units]
    whole = bool(outputs or inputs or until) or not all(map(_is_one_channel, units))
    narrow, places = _narrowing(network, by_layer, {} if whole else makers or {})

    def reader(layer: str) -> Reader:
        reference = (references or {}).get(layer)

        def read(activation: Tensor) -> None:
            entries = by_layer[layer]
            for (row, weight, part), score in zip(
                entries, _scored(activation, entries, reference, places, top), strict=True
            ):
                if (row, part) in before:
                    score = torch.where(score == 0, before[row, part], score)
                found[row].append(score if weight == 1 else weight * score)

        return read

    before: dict[tuple[int, Part], Tensor] = {}

    def input_reader(layer: str) -> Reader:
        def read(entering: Tensor) -> None:
            entries = [entry for entry in by_layer[layer] if isinstance(entry[-1], _REDIRECTED)]
            for (row, _, part), score in zip(entries, _scored(entering, entries, None, places, top), strict=True):
                before[row, part] = score

        return read

    readers = {layer: reader(layer) for layer in by_layer if layer != LOGITS}
    together = dict(outputs or {})
    for layer, own in readers.items():
        together[layer] = _together(together.get(layer), own)
    if redirect:
        inputs = dict(inputs or {})
        for layer in filter(lambda layer: _redirects(network, layer), readers):
            inputs[layer] = _together(inputs.get(layer), input_reader(layer))
    if LOGITS in by_layer:
        logits = network.forward(images, together, inputs, seeds).float()
        reader(LOGITS)(logits)
    else:
        last = max(network.depth(layer) for layer in [*readers, *until])
        within = {layer: read for layer, read in together.items() if network.depth(layer) <= last}
        with narrow:
            network.read(images, within, inputs, seeds)
    for unit, terms in zip(units, found, strict=True):
        if len(terms) != len(unit.terms()):
            missed = listed(sorted({part.layer for _, part in unit.terms() if part.layer != LOGITS}))
            raise InputError(f"{unit} of {network.name}: {missed} is not called for every image, so it cannot be shown")
    values = torch.stack([terms[0] if len(terms) == 1 else torch.stack(terms).sum() for terms in found])
    probabilities = torch.full((len(units),), math.nan, device=images.device)
    classes = [(row, unit.index) for row, unit in enumerate(units) if isinstance(unit, Class)]
    if classes:
        rows, indices = sent(torch.tensor(classes).T, images.device)
        probabilities[rows] = network.probabilities(logits.detach())[rows, indices]
    return values.float(), probabilities


_Entry = tuple[int, float, Part]  # a row, the weight of a part of its unit, and the part


def _narrowing(
    network: Network, by_layer: Mapping[str, Sequence[_Entry]], makers: Mapping[str, str]
) -> tuple[AbstractContextManager[None], dict[int, int]]:
    """A context in which the one layer that is read has only the channels asked for, and where each of them is."""
    (layer, entries), *others = by_layer.items()
    if others or layer not in makers:
        return nullcontext(), {}
    parts = [part for _, _, part in entries if isinstance(part, OneChannel)]
    module = network.module.get_submodule(makers[layer])
    channels = chosen(module, {part.only for part in parts}, len(entries))
    if channels is None:
        return nullcontext(), {}
    return narrowed(module, channels), {channel: place for place, channel in enumerate(channels)}


def _scored(
    activation: Tensor,
    entries: Sequence[_Entry],
    reference: Tensor | None,
    places: Mapping[int, int],
    top: bool = False,
) -> list[Tensor]:
    """The parts' scores in a layer's output (rows, channels, *positions); `places` of channels where it is narrowed."""
    channels = [places.get(part.only, part.only) for _, _, part in entries if isinstance(part, OneChannel)]
    if entries and len(channels) == len(entries):  # no more than these is copied, and nought all the rest's gradient
        rows, of_rows = sent(torch.tensor([[row for row, _, _ in entries], channels]), activation.device)
        maps = _own(activation[rows, of_rows]).unbind()
        if top:
            return [_highest(map_) if isinstance(part, Channel) else part.of_map(map_)  # type: ignore[attr-defined]
                    for (_, _, part), map_ in zip(entries, maps, strict=True)]  # fmt: skip
        return [part.of_map(map_) for (_, _, part), map_ in zip(entries, maps, strict=True)]  # type: ignore[attr-defined]
    images = _own(activation).unbind()
    return [
        part.score(images[row], reference[row % len(reference)] if part.referenced and reference is not None else None)
        for row, _, part in entries
    ]


def _highest(map_: Tensor) -> Tensor:
    """A map's largest number; of several that are equal the one nearest to the middle."""
    places = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in map_.shape), indexing="ij")
    off = sum((place.square() for place in places), torch.zeros(map_.shape)).to(map_.device)
    values = map_.detach()
    best = torch.where(values == values.max(), off, torch.inf).flatten().argmin() if map_.ndim else 0
    return map_.flatten()[best]


_REDIRECTED = (Channel, Neuron, Direction)


def _redirects(network: Network, layer: str) -> bool:
    """Whether a layer is an activation, and no more than that, which is called once."""
    known = network.layer(layer)
    module, _ = network.call(layer)
    if not known.worth_showing or module != layer or not known.plain:
        return False
    # Keras's convolutions may have an activation in them.
    return all(parameter.ndim <= 1 for parameter in network.module.get_submodule(layer).parameters())


def _own(activation: Tensor) -> Tensor:
    """A copy in 32 bits: what comes after may work in place."""
    return activation.to(torch.float32, copy=True)


def _together(first: Reader | None, second: Callable[[Tensor], object]) -> Reader:
    def read(activation: Tensor) -> None:
        if first is not None:
            first(activation)
        second(activation)

    return read


def measure(
    network: Network, unit: Unit, pixels: Tensor, device: torch.device, photograph: Tensor | None = None
) -> dict[str, float]:
    """The objective and, of a class, the network's own probability, of a finished image as it is saved.

    The image goes through the (borrowed) network alone, so that the numbers do not depend on its batch.

    Args:
        pixels: (height, width, channels) in 8 bits.
        photograph: (channels, height, width) in 0..255, for a unit that refers to one.
    """
    size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
    with torch.no_grad():
        image = resized(pixels.to(device).float().movedim(-1, 0)[None], size)
        shown = None if photograph is None else resized(photograph.to(device)[None], size)
        value, probability = scores(network, [unit], image, references=references(network, [unit], shown))
    found = {"objective": value.item(), "probability": probability.item()}
    return {name: score for name, score in found.items() if not (name == "probability" and math.isnan(score))}
