"""Gradient ascent on images: what is asked, checked and made ready; the loop that climbs is `phosphene.loop`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from phosphene.canvas import as_pixels, check_start, remember_named
from phosphene.errors import InputError
from phosphene.hardware import find_device, keep_freed_memory
from phosphene.loop import ALL_STEPS, Job, Loop, OnStep, Progress, Row, Way, make_way, to_bytes
from phosphene.networks.folding import lightened
from phosphene.networks.gradients import cut
from phosphene.networks.named import remember
from phosphene.networks.network import LOGITS, Network, Norm, same_classes
from phosphene.networks.precision import choose as choose_precision
from phosphene.networks.precision import widest
from phosphene.objective import Objective, company, depth, layers_read, measure
from phosphene.picture import Picture, Result, picture_names
from phosphene.recipe import Recipe
from phosphene.torch_state import own_state
from phosphene.units import Class, Unit, parse_unit, shows_classes

LARGEST_BATCH = 32
DEFAULT_SEED = 1337


def ascend(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe] = "natural",
    *,
    seed: int | Sequence[int] = DEFAULT_SEED,
    start: Any = None,
    photograph: Any = None,
    facets: int = 1,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    batch: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    on_step: OnStep | None = None,
    precision: str | Sequence[str] = "auto",
    batches: Sequence[Sequence[int]] = (),
) -> Result:
    """Make the images that excite units most.

    Each image has its own unit, seed, optimiser and stop: what comes out does not depend on what else is made (up to
    floating point), and the same call gives the same bytes on the same machine.

    Args:
        network: as `phosphene.open` gives it.  It is handed back as it came.  Several make an ensemble, for classes:
            the mean of their logits is maximised; the first gives the size and the names.
        units: one or several, as objects or spelled ("class:flamingo", "features.29:12").
        recipe: the name of one that ships, the path of a TOML file, or a `Recipe`.  Fields found for this network
            (`recipe.networks`) are put in.  Or one for each unit; those that differ only in how large their numbers
            are go through the network in one batch.
        seed: for all units, or one for each.
        start: the image to start from where the recipe's `start.kind` is "image": a path, a PIL image or an array.
        photograph: what units such as "match(features.29)" refer to; given like `start`.
        facets: how many images of each unit, made together so that they differ (the recipe's `priors.diversity`);
            their seeds are the unit's and the next ones.
        device: "cpu", "cuda", …; by default a GPU where there is one.  Several share the units out (see
            `phosphene.devices.ascend_on`).
        batch: the most images at once; by default what fits into `memory`, and 32 at most on a CPU; on other devices
            more, where a short trial says that they are faster for it.
        memory: bytes to fill; by default 40 % of what is free on a CPU and 80 % on a GPU.
        precision: "fp32", "bf16", "fp64", or "auto": of the first two the one in which this machine runs the network
            faster, which is measured once and remembered.  It is of the network's passes; for several networks one,
            or one for each.
        on_progress, on_picture: called after every step, and with every finished picture as soon as it is.
        on_step: called with every image on its way, after each of its steps; gives the recipe by which it goes on, or
            None to end it with the next step.  What it changes is in the picture's `changes`.  On one device, and
            without facets.
        batches: [size, steps] pairs, to replay another run: each step's batch is filled up to that size with copies,
            since arithmetic depends on the size of the batch in its last bits, and the ascent ends with the last pair.

    Returns:
        A `Result` with a picture for each unit, in the order given.  After Ctrl-C it has what was made so far, the
        pictures in work as they stood, and `interrupted` is true.

    Raises:
        InputError: a unit, recipe, size, seed, start, device or precision that cannot be.

    Example:
        >>> result = ascend(phosphene.open(), ["class:flamingo", "class:teddy"], "tence", seed=7)
        >>> result.save("phosphene-out")
    """
    options: dict[str, Any] = {"seed": seed, "start": start, "photograph": photograph, "facets": facets}
    options |= {"batch": batch, "memory": memory, "precision": precision, "batches": batches}
    if device is not None and not isinstance(device, str | torch.device):
        if on_step is not None:
            raise InputError(f"on_step is called on one device, and {len(device)} are given: expected one")
        from phosphene.devices import ascend_on

        return ascend_on(device, network, units, recipe, on_progress=on_progress, on_picture=on_picture, **options)

    def made(_: int, picture: Picture) -> None:
        if on_picture is not None:
            on_picture(picture)

    options |= {"on_progress": on_progress, "on_step": on_step}
    return ascend_here(network, units, recipe, device=device, on_made=made, **options)


class Turns(Protocol):
    """Hands out the units' indices to several processes."""

    @property
    def workers(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def ascend_here(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe],
    *,
    seed: int | Sequence[int] = DEFAULT_SEED,
    start: Any = None,
    photograph: Any = None,
    facets: int = 1,
    device: str | torch.device | None = None,
    batch: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_made: Callable[[int, Picture], None],
    on_step: OnStep | None = None,
    precision: str | Sequence[str] = "auto",
    batches: Sequence[Sequence[int]] = (),
    turns: Turns | None = None,
) -> Result:
    """As `ascend`, on one device, in this process.

    Args:
        on_made: called with the place and the picture.
        turns: those of the units that are made here, as there is room; by default all.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}: expected at least 1")
    with own_state():
        asked = _checked(network, units, recipe, seed, start, photograph, facets, device, on_step)
    if asked.device.type == "cpu":
        keep_freed_memory()
    for each in asked.networks:
        remember(each)
    for own in distinct(asked.recipes):
        remember_named(own)
    total = len(asked.names)
    share = math.ceil(total / (1 if turns is None else turns.workers))
    most = min(share, max(1, _fitting(asked, memory)))
    pictures: dict[int, Picture] = {}
    with ExitStack() as stack:
        stack.enter_context(own_state())
        for each in asked.networks:
            stack.enter_context(each.borrowed(asked.device))
            stack.enter_context(each.under_its_digest())
        stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True))
        _check_gradients(asked)
        norms = _lightened(asked, stack)
        wanted = [precision] * len(asked.networks) if isinstance(precision, str) else precision
        pairs = zip(asked.networks, wanted, strict=True)
        precisions = [choose_precision(each, asked.device, name, _layers_shown(asked)) for each, name in pairs]
        rows = min(share, batch) if batch else widest(asked.network, asked.device, precisions[0], LARGEST_BATCH, most)
        ways = _ways(asked, norms, precisions)

        def group(unit: int) -> list[Job]:
            first = unit * facets
            return [
                Job(first + facet, asked.units[unit], asked.seeds[unit] + facet, unit, ways[unit])
                for facet in range(facets)
            ]

        def order(unit: int) -> Any:
            shown, own = asked.units[unit], asked.recipes[unit]
            return depth(asked.network, shown), company(shown), own.company(), ways.index(ways[unit])

        def finished(row: Row, pixels: Tensor, alpha: Tensor | None) -> None:
            pictures[row.index] = _picture(asked, row, pixels, alpha, precisions)
            on_made(row.index, pictures[row.index])

        in_order = sorted(range(len(asked.units)), key=order)
        mine = (in_order[turn] for turn in (range(len(asked.units)) if turns is None else turns))
        loop = Loop(asked.networks, asked.device, asked.size, rows, asked.start, batches, total, on_progress, on_step)
        loop.run((group(unit) for unit in mine), finished)
    unmade = [str(asked.units[place // facets]) for place in range(total) if place not in pictures]
    made = [pictures[place] for place in sorted(pictures)]
    return Result(made, asked.recipes[0], asked.network, loop.interrupted, unmade)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is to be made, checked.

    Attributes:
        networks: at the size at which they are fed; the first is the one shown.
        units, recipes, seeds: of the same number.
        facets: how many images of each unit.
        names: of all images.
        size: of the images, height and width.
        start, photograph: (channels, height, width) in 0..255.
    """

    networks: list[Network]
    units: list[Unit]
    recipes: list[Recipe]
    seeds: list[int]
    facets: int
    names: list[str]
    size: tuple[int, int]
    start: Tensor | None
    photograph: Tensor | None
    device: torch.device

    @property
    def network(self) -> Network:
        return self.networks[0]


def _checked(
    network: Network | Sequence[Network],
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe],
    seed: int | Sequence[int],
    start: Any,
    photograph: Any,
    facets: int,
    device: str | torch.device | None,
    on_step: OnStep | None,
) -> _Asked:
    """The arguments of `ascend_here`, opened and found to go together, or an `InputError`."""
    given = [units] if isinstance(units, str | Unit) else list(units)
    if not given:
        raise InputError("no units are given: expected at least one, such as 'class:flamingo'")
    networks = [network] if isinstance(network, Network) else list(network)
    if not networks:
        raise InputError("no network is given: expected at least one")
    recipes = recipes_for(recipe, networks[0], len(given))
    shown = networks[0] = sized(networks[0], *recipes)
    size = recipes[0].size or (shown.preprocessing.height, shown.preprocessing.width)
    parsed = [parse_unit(unit, shown) for unit in given]
    recipes = [own.for_unit(unit) for own, unit in zip(recipes, parsed, strict=True)]
    _check_ensemble(networks, parsed)
    seeds = [int(each) for each in _each(seed, len(parsed), "seeds")]
    if facets < 1:
        raise InputError(f"facets {facets}: expected at least 1")
    if facets > 1 and on_step is not None:
        raise InputError(f"on_step may end one image alone, and {facets} facets are made together: expected one")
    if not all(0 <= each < 2**63 - facets for each in seeds):
        raise InputError(f"seed {min(seeds)}: expected a whole number of 0 to 2^63 - 1")
    if any(own.start.kind == "numpy" and each + facets > 2**32 for own, each in zip(recipes, seeds, strict=True)):
        raise InputError(f"seed {max(seeds)}: NumPy's legacy generator (start.kind numpy) takes 0 to 2^32 - 1")
    if any(own.stop.confidence and not isinstance(unit, Class) for unit, own in zip(parsed, recipes, strict=True)):
        raise InputError("stop.confidence is the probability of a class: expected class units only, or 0")
    fed = shown.preprocessing.resized(size)
    started_from = None if start is None else as_pixels(start, fed)
    for own in recipes:
        check_start(own.start, started_from)
    referred = None if photograph is None else as_pixels(photograph, fed)
    _check_photograph(parsed, referred)
    every = [(unit, own + facet) for unit, own in zip(parsed, seeds, strict=True) for facet in range(facets)]
    names = picture_names([unit for unit, _ in every], [each for _, each in every], shown)
    where = find_device(device)
    return _Asked(networks, parsed, recipes, seeds, facets, names, size, started_from, referred, where)


def _check_gradients(asked: _Asked) -> None:
    """Raise an `InputError` for a unit whose gradient does not get to the image."""
    for network in asked.networks:
        lost = cut(network, sorted(_layers_shown(asked)), asked.device)
        for unit in asked.units if lost else ():
            layers = [part.layer for _, part in unit.terms()]
            if all(layer in lost for layer in layers):
                raise InputError(
                    f"{unit} of {network.name} has no gradient: {lost[layers[0]]}; a layer before that can be shown"
                )


def _layers_shown(asked: _Asked) -> set[str]:
    return {part.layer for unit in asked.units for _, part in unit.terms()}


def _lightened(asked: _Asked, stack: ExitStack) -> list[list[Norm]]:
    """Have the networks made cheaper until the stack ends; gives what goes into their batch normalisations now."""
    norms: dict[nn.Module, list[Norm]] = {}  # a module that is there at several sizes is folded once
    for index, each in enumerate(asked.networks):
        if each.module not in norms:
            read = (layers_read(each, own, first=index == 0) for own in distinct(asked.recipes))
            norms[each.module] = stack.enter_context(lightened(each, _layers_shown(asked).union(*read)))
    return [norms[each.module] for each in asked.networks]


def _ways(asked: _Asked, norms: Sequence[Sequence[Norm]], precisions: Sequence[str]) -> list[Way]:
    """Each unit's; those of one recipe share it, and those of one company their objective."""
    objectives: dict[str, Objective] = {}
    each_once = distinct(asked.recipes)
    ways = []
    for own in each_once:
        if own.company() not in objectives:
            layers = _layers_shown(asked) - {LOGITS}
            objectives[own.company()] = Objective(
                asked.networks, own, asked.device, asked.photograph, norms, precisions, layers
            )
        ways.append(make_way(objectives[own.company()], own, asked.size))
    return [ways[each_once.index(own)] for own in asked.recipes]


def _picture(asked: _Asked, row: Row, pixels: Tensor, alpha: Tensor | None, precisions: Sequence[str]) -> Picture:
    """What a finished row gives, with its scores."""
    fed = row.way.objective.sized(0, asked.size, [row.unit])
    referred = asked.photograph if _refers(row.unit) else None
    return Picture(
        name=asked.names[row.index],
        unit=row.unit,
        seed=row.seed,
        network=asked.network,
        recipe=asked.recipes[row.group],
        pixels=pixels.numpy(),
        objectives=row.objectives,
        probabilities=row.probabilities,
        frames=[frame.numpy() for frame in row.frames],
        steps=row.step,
        stopped=row.stopped or ALL_STEPS,
        seconds=row.seconds,
        device=asked.device.type,
        threads=torch.get_num_threads(),
        start=None if asked.start is None else to_bytes(asked.start).numpy(),
        batches=row.batches,
        scores=measure(fed, row.unit, pixels, asked.device, referred),
        photograph=None if referred is None else to_bytes(referred).numpy(),
        alpha=None if alpha is None else alpha.numpy(),
        ensemble=tuple(asked.networks[1:]),
        facet=(row.index % asked.facets, asked.facets),
        statistics=row.way.objective.origins,
        precision=tuple(precisions),
        changes=row.changes,
    )


def recipes_for(
    recipe: str | Path | Recipe | Sequence[str | Path | Recipe], network: Network, count: int
) -> list[Recipe]:
    """The recipe of each of so many units, as it is for a network.

    Raises:
        InputError: there is none of that name, or there are neither one nor as many as units.
    """
    if isinstance(recipe, str | Path | Recipe):
        return [Recipe.load(recipe).for_network(network.name)] * count
    return _each([Recipe.load(each).for_network(network.name) for each in recipe], count, "recipes")


def _each(value: Any, count: int, what: str) -> list[Any]:
    """What is given for all units, or for each."""
    if isinstance(value, int | np.integer):
        return [value] * count
    found = list(value)
    if len(found) != count:
        raise InputError(f"{len(found)} {what} for {count} units: expected one, or one for each")
    return found


def distinct(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Each recipe once."""
    found: list[Recipe] = []
    for recipe in recipes:
        if recipe not in found:
            found.append(recipe)
    return found


def sized(network: Network, *recipes: Recipe) -> Network:
    """The network fed with images of the recipes' size; at its own where it takes that only and views resample.

    Raises:
        InputError: they have several, or it takes another size only, and a recipe has no views that bring images to it.
    """
    sizes = list(dict.fromkeys(recipe.size for recipe in recipes))
    if len(sizes) > 1:
        raise InputError(f"recipes of sizes {' and '.join(map(str, sizes))}: expected one size for all")
    recipe = next((recipe for recipe in recipes if not recipe.views.affine), recipes[0])
    if recipe.size is None:
        return network
    try:
        found = network.resized(recipe.size)
    except InputError:
        if not recipe.views.affine:
            raise
        return network
    # Of its first layers it may take other sizes all the same.
    return network if network.preprocessing.fixed_size and recipe.views.affine else found


def _check_ensemble(networks: Sequence[Network], units: Sequence[Unit]) -> None:
    if len(networks) == 1:
        return
    for unit in units:
        if not shows_classes(unit):
            raise InputError(f"{unit} is of one network, and {len(networks)} are given: an ensemble shows classes only")
    for other in networks[1:]:
        if not same_classes(networks[0], other):
            raise InputError(
                f"{networks[0].name} and {other.name} do not tell the same classes: expected networks that do"
            )
        channels = [each.preprocessing.channels for each in (networks[0], other)]
        if channels[0] != channels[1]:
            raise InputError(
                f"{networks[0].name} takes images of {channels[0]} channels and {other.name} of {channels[1]}: "
                "expected networks that take the same"
            )


def _refers(unit: Unit) -> bool:
    """Whether a unit needs a photograph."""
    return any(part.referenced for _, part in unit.terms())


def _check_photograph(units: Sequence[Unit], photograph: Tensor | None) -> None:
    referenced = [unit for unit in units if _refers(unit)]
    if referenced and photograph is None:
        raise InputError(f"{referenced[0]} needs a photograph, and none is given")
    if photograph is not None and not referenced:
        raise InputError(
            f"a photograph is given, and {units[0]} does not refer to one: expected match(…) or caricature(…)"
        )


def _fitting(asked: _Asked, memory: int | None) -> int:
    """How many images fit: twice the outputs of all layers (forward and backward), 4 bytes each, of every view."""
    if memory is None:
        on_gpu = asked.device.type == "cuda"
        free = torch.cuda.mem_get_info(asked.device)[0] if on_gpu else psutil.virtual_memory().available
        memory = int(free * (0.8 if on_gpu else 0.4))
    values = sum(math.prod(layer.shape) for network in asked.networks for layer in network.layers)
    return memory // max(1, 8 * values * max(recipe.views.count for recipe in asked.recipes))
