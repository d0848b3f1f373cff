"""What is made ready before the first step: gradients, folding, batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import psutil
import torch
from torch import Tensor, nn

from phosphene.ascent.evaluator import Evaluator
from phosphene.ascent.image_state import CompiledRecipe, compile_recipe
from phosphene.ascent.request import Request, distinct, unit_layers
from phosphene.ascent.scores import penalty_layers
from phosphene.errors import InputError
from phosphene.networks.gradients import layers_without_gradient
from phosphene.networks.layers import LOGITS
from phosphene.networks.norms import Norm
from phosphene.networks.speed.folding import optimized
from phosphene.recipes.recipe import Recipe

LARGEST_BATCH = 32


def check_gradients(request: Request) -> None:
    """Raise an `InputError` for a unit whose gradient does not get to the image."""
    for network in request.networks:
        lost = layers_without_gradient(network, sorted(unit_layers(request)), request.device)
        for unit in request.units if lost else ():
            layers = [part.layer for _, part in unit.terms()]
            if all(layer in lost for layer in layers):
                raise InputError(
                    f"{unit} of {network.name} has no gradient: {lost[layers[0]]}; a layer before that can be shown"
                )


def optimize_networks(request: Request, stack: ExitStack) -> list[list[Norm]]:
    """Have the networks made cheaper until the stack ends; gives what goes into their batch normalizations now."""
    norms: dict[nn.Module, list[Norm]] = {}  # a module that is there at several sizes is folded once
    for index, each in enumerate(request.networks):
        if each.module not in norms:
            read = (penalty_layers(each, own, first=index == 0) for own in distinct(request.recipes))
            norms[each.module] = stack.enter_context(optimized(each, unit_layers(request).union(*read)))
    return [norms[each.module] for each in request.networks]


def compile_recipes(
    request: Request, norms: Sequence[Sequence[Norm]], precisions: Sequence[str]
) -> list[CompiledRecipe]:
    """Each unit's.  Units of one recipe and photograph share it; those of one batch key share their evaluator."""
    evaluators: dict[tuple[str, int], Evaluator] = {}
    compiled: list[tuple[Recipe, Tensor | None, CompiledRecipe]] = []
    found = []
    layers = unit_layers(request) - {LOGITS}
    for recipe, photograph in zip(request.recipes, request.photographs, strict=True):
        known = next((one for own, shown, one in compiled if own == recipe and shown is photograph), None)
        if known is None:
            key = recipe.batch_key(), id(photograph)
            if key not in evaluators:
                evaluators[key] = Evaluator(
                    request.networks,
                    recipe,
                    request.device,
                    photograph,
                    norms,
                    precisions,
                    layers,
                    request.weights,
                )
            known = compile_recipe(evaluators[key], recipe, request.size)
            compiled.append((recipe, photograph, known))
        found.append(known)
    return found


def batch_in_memory(request: Request, memory: int | None) -> int:
    """How many images fit: twice the outputs of all layers (forward and backward), 4 bytes each, of every view."""
    if memory is None:
        on_gpu = request.device.type == "cuda"
        free = torch.cuda.mem_get_info(request.device)[0] if on_gpu else psutil.virtual_memory().available
        memory = int(free * (0.8 if on_gpu else 0.4))
    values = sum(math.prod(layer.shape) for network in request.networks for layer in network.layers)
    return memory // max(1, 8 * values * max(recipe.views.count for recipe in request.recipes))
