"""The objective: from images to one number for each, and the gradient of that number."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from phosphene.ascent.scores import PassReaders, ScoreOptions, chain_readers, first_output, references, scores
from phosphene.ascent.sorted_activations import SortedPenalty
from phosphene.ascent.statistics import LayerMoments, RunningMoments, StatisticsPenalty
from phosphene.ascent.unit_statistics import WHOLE, Facet, UnitStatistics, prior_statistics
from phosphene.errors import InputError
from phosphene.hardware import to_device
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.norms import Norm
from phosphene.networks.speed.channel_slicing import producers
from phosphene.networks.speed.precision import cast
from phosphene.networks.waking import RedirectedActivations
from phosphene.pixels.resampling import resize
from phosphene.recipes.penalties import StatisticsSettings
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.transforms import apply_transforms
from phosphene.units.objects import Neuron, Part, Unit, is_one_channel


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


@dataclass(frozen=True, eq=False)
class RowSettings:
    """What each row of a batch brings beside its unit and its image.

    Attributes:
        recipes: all of the evaluator's batch key; by default the evaluator's own for all.
        scales: (rows,): what the priors' weights are multiplied by; 1 by default.
        groups: which group each row is made in.
        steps: how many steps each row has made: it tells whose turn it is of what is looked at in turn.
        running_moments: of each row, by network, what its priors remember of earlier steps; brought up to date.
        facets: of each row, which of how many images of its unit it is.
    """

    recipes: Sequence[Recipe] = ()
    scales: Tensor | None = None
    groups: Sequence[int] | None = None
    steps: Sequence[int] = ()
    running_moments: Sequence[dict[int, RunningMoments]] = ()
    facets: Sequence[Facet] = ()


class Evaluator:
    """The units' scores, averaged over random views and networks, less the priors.

    Args:
        networks: borrowed while it is used; several make an ensemble: the mean of their scores.
        recipe: whose views and priors; rows may have others of the same company.
        device: where the networks are.
        photograph: (channels, height, width) in 0..255, for units that are referenced to one.
        norms: for each network what goes into its batch normalizations, where they are folded.
        precisions: of each network's passes, "fp32", "bf16" or "fp64"; what comes out of them is brought to 32 bits.
        layers: that units are read from; of the last one that is run only the channels asked for are computed.
        weights: how much each network's scores count; by default their mean is taken.
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
        weights: Sequence[float] = (),
    ):
        self.networks, self.recipe, self.device = list(networks), recipe, device
        self.weights = tuple(weights)
        self.photograph = None if photograph is None else photograph.to(device)[None]
        self.casts = [cast(network, name) for network, name in zip(networks, precisions, strict=False)]
        self.producers = producers(networks[0], layers) if len(networks) == 1 else {}
        self.mean = torch.tensor(networks[0].preprocessing.mean_pixels, device=device).view(-1, 1, 1)
        self.statistics: list[StatisticsPenalty | SortedPenalty | None] = []
        self.unit_statistics: list[UnitStatistics | None] = []  # where the recipe pulls towards each unit's own
        origins = []
        settings = recipe.priors.statistics
        for network, norm in zip(networks, norms or [None] * len(networks), strict=True):
            natural, origin = prior_statistics(network, settings, norm) if settings else ([], "")
            self.statistics.append(_statistics_penalty(natural, settings, device) if settings and natural else None)
            own = settings and natural and settings.source == "unit"
            self.unit_statistics.append(UnitStatistics(network, settings, device) if settings and own else None)
            origins.append(origin)
        self.origins = tuple(origins)  # of each network's statistics of natural images
        self._sized: dict[tuple[int, tuple[int, int]], Network] = {}
        self._called: dict[frozenset[str], int] = {}  # how many activations until these layers are read
        self.diversity = recipe.priors.diversity.layer_of(networks[0]) if recipe.priors.diversity else ""

    def network_at(self, index: int, size: tuple[int, int], units: Sequence[Unit] = ()) -> Network:
        """A network as it is fed with images of that size; at its own where it shows the units at no other."""
        if (index, size) not in self._sized:
            network = self.networks[index]
            try:
                # Several networks are each fed at their own size, and so is one of patches, on which a growing image
                # would be few.
                own_only = len(self.networks) > 1 or network.is_resampled
                found = network if own_only else network.with_input_size(size)
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
        rows: RowSettings | None = None,
        *,
        padding: int = 0,
        redirected_layers: int = 0,
    ) -> Evaluation:
        """Evaluate images.

        Args:
            units: one for each image.
            images: (rows, channels, height, width) in 0..255.
            generators: one for each row, for its views.
            rows: what else each row brings.
            padding: fill the batch with copies up to this many rows.
            redirected_layers: through so many of the last activations gradients get where they are flat (see
                `networks.waking`).
        """
        rows = rows or RowSettings()
        rows = replace(
            rows,
            recipes=rows.recipes or [self.recipe] * len(units),
            steps=rows.steps or [0] * len(units),
            facets=rows.facets or [WHOLE] * len(units),
        )
        for own in filter(None, self.unit_statistics):
            own.of(list(zip(units, rows.facets, strict=True)))  # measured before the passes are made cheaper
        with ExitStack() as stack:
            for cast in self.casts:
                stack.enter_context(cast())
            if redirected_layers:
                stack.enter_context(RedirectedActivations(redirected_layers, self._activations(units, images)))
            return self._evaluate(units, images, generators, rows, padding, redirected_layers > 0)

    def _activations(self, units: Sequence[Unit], images: Tensor) -> int:
        """How many activations are called until the units are read."""
        layers = frozenset(part.layer for unit in units for _, part in unit.terms())
        if layers not in self._called:
            network = self.network_at(0, (images.shape[-2], images.shape[-1]), units)
            fed = resize(images[:1], network.preprocessing.size)  # type: ignore[arg-type]
            counting = RedirectedActivations(0, 0)
            with counting, torch.no_grad():
                scores(network, units[:1], fed)
            self._called[layers] = counting.calls
        return self._called[layers]

    def _evaluate(
        self,
        units: Sequence[Unit],
        images: Tensor,
        generators: Sequence[torch.Generator],
        rows: RowSettings,
        padding: int,
        redirected: bool,
    ) -> Evaluation:
        images = images.detach().requires_grad_()
        values: list[Tensor] = []
        probabilities: list[Tensor] = []
        costs: list[Tensor] = []
        for index in range(len(self.networks)):
            score, probability, cost = self._evaluate_network(
                index, units, images, generators, rows, padding, redirected
            )
            values.append(score)
            probabilities.append(probability)
            costs += cost
        value = weighted_mean(torch.stack(values), self.weights)
        cost = self._image_penalties(images, rows.recipes) + [term / len(self.networks) for term in costs]
        total = value
        if cost:
            weighed = torch.stack(cost).sum(dim=0)
            total = value - (weighed if rows.scales is None else rows.scales * weighed)
        if not total.requires_grad:  # the objective does not depend on the image at all
            gradient = torch.zeros_like(images)
        else:
            (gradient,) = torch.autograd.grad(total.sum(), images)
        return Evaluation(value.detach(), probabilities[0], gradient)

    def _evaluate_network(
        self,
        index: int,
        units: Sequence[Unit],
        images: Tensor,
        generators: Sequence[torch.Generator],
        rows: RowSettings,
        padding: int,
        redirected: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One network's scores and probabilities, (rows,), and the terms that its activations cost."""
        count, fed = self.recipe.views.count, max(len(images), padding)
        network = self.network_at(index, (images.shape[-2], images.shape[-1]), units)
        seen, shown = self._views(network, images, generators, rows)
        seen, shown = _pad_batch(seen, count, fed), None if shown is None else _pad_batch(shown, count, fed)
        statistics = self.statistics[index]
        places = [min(row, len(images) - 1) for row in range(fed)] * count
        of_seen = [units[place] for place in places]
        unit_statistics = self.unit_statistics[index]
        own = unit_statistics.of([(units[place], rows.facets[place]) for place in places]) if unit_statistics else []
        outputs, inputs = statistics.readers(rows.steps, own) if statistics else ({}, {})
        features: list[Tensor] = []
        until = [self.diversity] if self.diversity and index == 0 and rows.groups is not None else []
        if until:
            outputs[self.diversity] = chain_readers(
                outputs.get(self.diversity), lambda output: features.append(first_output(output))
            )
        score, probability = scores(
            network,
            of_seen,
            seen,
            PassReaders(outputs, inputs, until),
            ScoreOptions(
                references=references(network, units, shown),
                redirected_relu=self.recipe.redirect,
                producers=self.producers,
                max_activation=redirected,
                seeds=_seeds(generators, fed, count) if network.random else None,
            ),
        )
        score, probability = (each.view(count, fed).mean(dim=0)[: len(images)] for each in (score, probability))
        cost = []
        if statistics:
            depths = [depth(network, unit) for unit in of_seen[:fed]]
            cost.append(self._statistics_cost(statistics, index, rows, depths, len(images)))
        diversity = self.recipe.priors.diversity
        if features and diversity and rows.groups is not None:
            first = features[0][: len(images)]  # of the first views
            cost.append(self._weights(rows.recipes, "diversity") * diversity(first, list(rows.groups)))
        return score, probability, cost

    def _statistics_cost(
        self,
        statistics: StatisticsPenalty | SortedPenalty,
        index: int,
        rows: RowSettings,
        depths: Sequence[float],
        count: int,
    ) -> Tensor:
        """What the distance of a network's activations from natural ones costs the first `count` rows, (count,)."""
        fed, settings = len(depths), self.recipe.priors.statistics
        assert settings is not None
        alike = list(rows.groups) + [-1 - i for i in range(fed - count)] if rows.groups is not None else None
        pooled = alike if settings.pool == "group" else None
        steps = [rows.steps[min(row, count - 1)] for row in range(fed)]
        moments = [each.setdefault(index, {}) for each in rows.running_moments]
        remembered = [*moments, *(dict(moments[-1]) for _ in range(fed - count))] if moments else []
        weights = self._weights(rows.recipes, "statistics")
        return weights * statistics.penalties(fed, pooled, list(depths), steps, remembered)[:count]

    def _weights(self, recipes: Sequence[Recipe], prior: str) -> Tensor:
        """A prior's weight in each row, (rows,)."""
        return to_device(torch.tensor([float(getattr(each.priors, prior).weight) for each in recipes]), self.device)

    def _views(
        self,
        network: Network,
        images: Tensor,
        generators: Sequence[torch.Generator],
        rows: RowSettings,
    ) -> tuple[Tensor, Tensor | None]:
        """Views of the images as the network is fed them; and the same of the photograph, where there is one."""
        size: tuple[int, int] = network.preprocessing.size  # type: ignore[assignment]
        settings = [recipe.views for recipe in rows.recipes]
        progress = [step / recipe.steps for step, recipe in zip(rows.steps, rows.recipes, strict=True)]
        again = [] if self.photograph is None else [_copy_generator(generator) for generator in generators]
        seen = apply_transforms(images, settings, generators, size, progress)
        if self.photograph is None:
            return seen, None
        beside = resize(self.photograph, (images.shape[-2], images.shape[-1])).expand(len(images), -1, -1, -1)
        return seen, apply_transforms(beside, settings, again, size, progress)

    def _image_penalties(self, images: Tensor, recipes: Sequence[Recipe]) -> list[Tensor]:
        """The terms that the images themselves cost."""
        found = self.recipe.priors.of_images
        return [self._weights(recipes, name) * penalty(images, self.mean) for name, penalty in found]


def weighted_mean(values: Tensor, weights: Sequence[float]) -> Tensor:
    """The sum of networks' scores (networks, rows), each times its weight; their mean where there are no weights."""
    if not weights:
        return values.mean(dim=0)
    return (to_device(torch.tensor(weights), values.device)[:, None] * values).sum(dim=0)


def _statistics_penalty(
    layers: list[LayerMoments], settings: StatisticsSettings, device: torch.device
) -> StatisticsPenalty | SortedPenalty:
    if settings.compare == "sorted":
        return SortedPenalty(layers, device)
    return StatisticsPenalty(layers, settings, device)


def _copy_generator(generator: torch.Generator) -> torch.Generator:
    """Another that draws the same."""
    return torch.Generator().set_state(generator.get_state())


def _shows(network: Network, part: Part) -> bool:
    """Whether a network shows a part at another size than its own."""
    at_position = part.tokens is not None and part.tokens.is_position
    if isinstance(part, Neuron) or at_position:  # in the map of the network's own size
        return False
    return bool(network.classes) if part.layer == LOGITS else any(part.layer == entry.name for entry in network.layers)


def depth(network: Network, unit: Unit) -> float:
    """How many layers end before the last one that a unit is read from."""
    return max(math.inf if part.layer == LOGITS else network.depth(part.layer) for _, part in unit.terms())


def batch_key(unit: Unit) -> tuple[bool, list[str]]:
    """Units whose company is equal go through the network together.

    It tells the layers, and whether the last may be narrowed to the channels asked for: what comes out of a row should
    not depend on whether a batchmate needs more.
    """
    layers = sorted({part.layer for _, part in unit.terms()})
    return is_one_channel(unit) and layers != [LOGITS], layers


def _seeds(generators: Sequence[torch.Generator], fed: int, count: int) -> list[int]:
    """Of each view of each row, as `_filled` has them: for what a network draws in its forward."""
    first = [int(torch.randint(2**31, (), generator=generator)) for generator in generators] or [0]
    return [first[min(row, len(first) - 1)] + view for view in range(count) for row in range(fed)]


def _pad_batch(seen: Tensor, count: int, fed: int) -> Tensor:
    """Views (count * rows, …) filled up to so many rows with copies of the last row's."""
    if len(seen) == count * fed:
        return seen
    by_view = seen.view(count, -1, *seen.shape[1:])
    copies = by_view[:, -1:].expand(-1, fed - by_view.shape[1], *seen.shape[1:])
    return torch.cat([by_view, copies], dim=1).flatten(0, 1)
