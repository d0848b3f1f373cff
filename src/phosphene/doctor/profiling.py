"""Where the time of a step goes, and how far the network's pass is from what the machine can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from phosphene import interruption
from phosphene.api.ascend import ascend
from phosphene.ascent.canvas import make_canvas
from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.loop import SMALLEST_BATCH
from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.scores import penalty_layers
from phosphene.default_progress import counted
from phosphene.devices.callbacks import Callbacks
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.networks.network import Network
from phosphene.networks.outputs import logits
from phosphene.networks.speed.folding import optimized
from phosphene.networks.speed.precision import PRECISIONS, choose, machine
from phosphene.recipes.penalties import Penalties
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.regularizers import Regularizer
from phosphene.recipes.transforms import Transforms
from phosphene.units.objects import Unit
from phosphene.units.spelling import parse_unit

# The side of the square matrices whose product tells the machine's peak.
PEAK_SIDE = 2048
_STEPS = 8  # of a run whose steps are timed


@dataclass(frozen=True)
class Profile:
    """What a step of a batch takes, in seconds, each the median of several rounds.

    Attributes:
        parts: by what it is for; together they are the step.
        step: the whole, bookkeeping included.
        plain: one forward and backward pass of the network as it is, in 32 bits and PyTorch's own memory order.
        operations: floating-point operations of the network's part in a step.
        peak: operations a second of a product of two large matrices in the same precision.
        batch, precision, machine: with how many images, in which precision, on what.
    """

    parts: dict[str, float]
    step: float
    plain: float
    operations: float
    peak: float
    batch: int
    precision: str
    machine: str

    @property
    def share_of_peak(self) -> float:
        """What part of the peak the network's pass reaches."""
        return self.operations / self.parts["network"] / self.peak


def profile(
    network: Network,
    units: str | Unit | Sequence[str | Unit],
    recipe: str | Path | Recipe = "natural",
    *,
    batch: int = 8,
    device: str | torch.device | None = None,
    precision: str = "auto",
    rounds: int = 5,
) -> Profile:
    """Measure what the steps of an ascent take, part by part.

    A part is what a step takes longer with it than without: the network's pass alone, then views, priors, canvas and
    regularizers; what is left of the whole are the optimizers and the bookkeeping.

    Args:
        network, units, recipe, device, precision: as for `ascend`.
        batch: images at once; the units are repeated as often as it takes.
        rounds: how often each is measured, in turns.

    Raises:
        InputError: as `ascend` does.
    """
    parsed = [parse_unit(unit, network) for unit in ([units] if isinstance(units, str | Unit) else units)]
    rows = [parsed[i % len(parsed)] for i in range(max(batch, SMALLEST_BATCH))]
    recipe = Recipe.load(recipe).for_network(network).for_unit(rows[0]).override({"steps": _STEPS + 2})
    where = find_device(device)
    times: dict[str, list[float]] = {}
    operations, chosen = 0.0, "fp32"
    with counted("rounds", total=rounds, doing="timing steps") as tally:
        for _ in range(rounds):
            with network.borrowed(where):
                times.setdefault("plain", []).append(_timed(plain_pass(network, len(rows), where), where))
            with ExitStack() as stack:
                stack.enter_context(network.borrowed(where))
                stack.enter_context(network.under_its_digest())
                read = {part.layer for unit in rows for _, part in unit.terms()} | set(penalty_layers(network, recipe))
                norms = stack.enter_context(optimized(network, read))
                chosen = choose(network, where, precision)
                evaluator = partial(Evaluator, [network], device=where, norms=[norms], precisions=[chosen])
                runs = _runs(evaluator, rows, recipe)
                for name, run in runs.items():
                    times.setdefault(name, []).append(_timed(run, where))
                if not operations:
                    with FlopCounterMode(display=False) as counter:
                        runs["network"]()
                    operations = float(counter.get_total_flops())
            times.setdefault("step", []).append(_step(network, rows, recipe, where, chosen))
            tally.add()
    medians = {name: statistics.median(values) for name, values in times.items()}
    parts = {
        "network": medians["network"],
        "views": medians["viewed"] - medians["network"],
        "priors": medians["whole"] - medians["viewed"],
        "canvas": medians["canvas"],
        "regularizers": sum(medians[name] / regularizer.every for name, regularizer in recipe.regularizers),
    }
    parts["optimizer and bookkeeping"] = medians["step"] - sum(parts.values())
    return Profile(
        parts, medians["step"], medians["plain"], operations, peak(where, chosen), len(rows), chosen, machine(where)
    )


def peak(device: torch.device, precision: str) -> float:
    """Operations a second of a product of two square matrices of side `PEAK_SIDE`, the best of several."""
    left, right = (torch.rand(PEAK_SIDE, PEAK_SIDE, device=device).to(PRECISIONS[precision]) for _ in range(2))
    best = min(_timed(lambda: left @ right, device) for _ in range(5))
    return 2 * PEAK_SIDE**3 / best


def plain_pass(network: Network, rows: int, device: torch.device) -> Callable[[], object]:
    """A forward and a backward pass of so many images through a network as it is."""
    images = torch.rand((rows, network.preprocessing.channels, *network.preprocessing.size), device=device)  # type: ignore[misc]
    pixels = 255 * images

    def run() -> Tensor:
        fed = network.preprocessing(pixels).detach().requires_grad_()
        found: list[Tensor] = []
        if network.classes:
            found.append(logits(network.module(fed)))
        else:
            network.read(pixels.requires_grad_(), {network.layers[-1].name: lambda output: found.append(output + 0)})
            fed = pixels
        (gradient,) = torch.autograd.grad(found[0].sum(), fed)
        return gradient

    return run


def _runs(evaluator: Callable[..., Evaluator], rows: list[Unit], recipe: Recipe) -> dict[str, Callable[[], object]]:
    """What is timed inside a step, by name; `evaluator` makes that of a recipe."""
    whole = evaluator(recipe=recipe)
    network, device = whole.networks[0], whole.device
    size = recipe.size or (network.preprocessing.height, network.preprocessing.width)
    canvas = make_canvas(recipe, network.preprocessing, size, device)
    generators = [torch.Generator().manual_seed(index) for index in range(len(rows))]
    parameters = torch.stack([canvas.initial_parameters(generator, None) for generator in generators]).to(device)
    images = canvas.to_images(parameters).detach()

    without_priors = recipe.model_copy(update={"priors": Penalties()})
    viewed = evaluator(recipe=without_priors)
    alone = evaluator(recipe=without_priors.model_copy(update={"views": Transforms()}))

    def drawn() -> Tensor:
        if canvas.is_pixels:
            return images
        leaves = parameters.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(canvas.to_images(leaves), leaves, images)
        return gradient

    def regularized(regularize: Regularizer) -> Callable[[], object]:
        return lambda: regularize(images, whole.mean, images)

    return {
        "network": lambda: alone(rows, images, generators),
        "viewed": lambda: viewed(rows, images, generators),
        "whole": lambda: whole(rows, images, generators),
        "canvas": drawn,
        **{name: regularized(regularizer) for name, regularizer in recipe.regularizers},
    }


def _step(network: Network, rows: list[Unit], recipe: Recipe, device: torch.device, precision: str) -> float:
    """The mean time of the steps after the first, which come with progress reports."""
    clocks: list[float] = []

    def note(_: Progress) -> None:
        clocks.append(time.perf_counter())

    result = ascend(
        network,
        rows,
        recipe,
        seed=list(range(len(rows))),
        options=RunOptions(device=device, batch=len(rows), precision=precision),
        callbacks=Callbacks(progress=note),
    )
    interruption.require_complete(result)
    if len(clocks) < 3:
        raise InputError(f"{rows[0]} cannot be timed: {result[0].stopped} after {_times(result[0].steps)}")
    return (clocks[-2] - clocks[0]) / (len(clocks) - 2)  # with the last step come the finished images' own numbers


def _times(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def _timed(run: Callable[[], object], device: torch.device) -> float:
    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    synchronize()
    clock = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - clock
