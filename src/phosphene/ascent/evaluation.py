"""One evaluation of rows that go through the networks together, as far as memory goes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from phosphene.ascent.evaluator import Evaluation, RowSettings
from phosphene.ascent.image_state import ImageState, canvas_images
from phosphene.ascent.stopping import penalty_scale
from phosphene.errors import InputError
from phosphene.hardware import to_device
from phosphene.networks.network import Network
from phosphene.networks.waking import REDIRECT_DEPTHS

# So many steps are watched for a gradient of nought where watching waits for the device.
_REDIRECT_STEPS = 64


def network_of(row: ImageState) -> Network:
    """The first network, as it is fed with a row's image."""
    return row.compiled.evaluator.network_at(0, row.canvas.size, [row.unit])


def try_evaluate(
    rows: list[ImageState], parameters: Tensor, padding: int, reads_each_step: bool
) -> tuple[Tensor, Evaluation, Tensor] | None:
    """The rows' images, what the objective says of them, and the gradient at the parameters.

    None where memory does not suffice.

    Args:
        padding: what size the batch is filled up to.
        reads_each_step: whether looking at numbers costs nothing; else it waits for the device.
    """
    before = [
        (row.generator.get_state(), {index: {**each} for index, each in row.running_moments.items()}) for row in rows
    ]
    try:
        images, evaluation, gradient = _evaluate(rows, parameters, padding, reads_each_step)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        height, width = rows[0].canvas.size
        if len(rows) == 1 and padding == 1:
            raise InputError(f"out of memory with one image of {height}x{width} pixels: expected less") from error
        if len(rows) > 1 and len({row.group for row in rows}) == 1:
            raise InputError(
                f"out of memory with {len(rows)} facets of {height}x{width} pixels: expected fewer"
            ) from error
    else:
        return images, evaluation, gradient
    for row, (views, memory) in zip(rows, before, strict=True):
        row.generator.set_state(views)
        row.running_moments = memory
    if parameters.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _evaluate(
    rows: list[ImageState], parameters: Tensor, padding: int, reads_each_step: bool
) -> tuple[Tensor, Evaluation, Tensor]:
    identity = rows[0].canvas.is_pixels  # as all the others'
    with torch.set_grad_enabled(not identity):
        leaves = parameters.detach().requires_grad_(not identity)
        images = canvas_images(rows, leaves)
    evaluation = _evaluate_objective(rows, images.detach(), padding, reads_each_step)
    if identity:
        return parameters, evaluation, evaluation.gradient
    (gradient,) = torch.autograd.grad(images, leaves, evaluation.gradient)
    return images.detach(), evaluation, gradient


def _evaluate_objective(rows: list[ImageState], images: Tensor, padding: int, reads_each_step: bool) -> Evaluation:
    """What the objective says; rows without any gradient get one through activations that are flat."""
    before = [
        (row.generator.get_state(), {index: {**each} for index, each in row.running_moments.items()}) for row in rows
    ]

    def evaluate(waking: int) -> Evaluation:
        for row, (views, memory) in zip(rows, before, strict=True):  # the same views each time
            row.generator.set_state(views)
            row.running_moments = {index: {**each} for index, each in memory.items()}
        return rows[0].compiled.evaluator(
            [row.unit for row in rows],
            images,
            [row.generator for row in rows],
            RowSettings(
                recipes=[row.recipe for row in rows],
                scales=to_device(torch.tensor([penalty_scale(row) for row in rows]), images.device),
                groups=[row.group for row in rows],
                steps=[row.step for row in rows],
                running_moments=[row.running_moments for row in rows],
                facets=[row.facet for row in rows],
            ),
            padding=padding,
            redirected_layers=waking,
        )

    found = evaluate(0)
    # Elsewhere than on a CPU looking waits for the device: so only in the first steps.
    asked = [row.recipe.redirect and (reads_each_step or row.step < _REDIRECT_STEPS) for row in rows]
    if not any(asked):
        return found
    may = to_device(torch.tensor(asked), images.device)
    first = still = (found.gradient == 0).flatten(1).all(dim=1) & may
    for last in REDIRECT_DEPTHS:
        if not bool(still.any()):
            break
        woken = evaluate(last).gradient
        found = replace(found, gradient=torch.where(still.view(-1, 1, 1, 1), woken, found.gradient))
        still = (found.gradient == 0).flatten(1).all(dim=1) & may
    if bool(first.any()):
        for row, needed in zip(rows, first.tolist(), strict=True):
            row.redirected_steps += needed
    return found


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )
