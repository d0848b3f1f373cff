"""What is made ready before the first step: gradients, folding, batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import psutil
import torch
from torch import nn

from phosphene.ascent.loop import Way, make_way
from phosphene.ascent.objective import Objective
from phosphene.ascent.request import Request, distinct, layers_shown
from phosphene.ascent.scores import layers_read
from phosphene.errors import InputError
from phosphene.networks.gradients import cut
from phosphene.networks.network import LOGITS, Norm
from phosphene.networks.speed.folding import lightened

LARGEST_BATCH = 32


def check_gradients(asked: Request) -> None:
    """Raise an `InputError` for a unit whose gradient does not get to the image."""
    for network in asked.networks:
        lost = cut(network, sorted(layers_shown(asked)), asked.device)
        for unit in asked.units if lost else ():
            layers = [part.layer for _, part in unit.terms()]
            if all(layer in lost for layer in layers):
                raise InputError(
                    f"{unit} of {network.name} has no gradient: {lost[layers[0]]}; a layer before that can be shown"
                )


def optimize_networks(asked: Request, stack: ExitStack) -> list[list[Norm]]:
    """Have the networks made cheaper until the stack ends; gives what goes into their batch normalisations now."""
    norms: dict[nn.Module, list[Norm]] = {}  # a module that is there at several sizes is folded once
    for index, each in enumerate(asked.networks):
        if each.module not in norms:
            read = (layers_read(each, own, first=index == 0) for own in distinct(asked.recipes))
            norms[each.module] = stack.enter_context(lightened(each, layers_shown(asked).union(*read)))
    return [norms[each.module] for each in asked.networks]


def compile_recipes(asked: Request, norms: Sequence[Sequence[Norm]], precisions: Sequence[str]) -> list[Way]:
    """Each unit's; those of one recipe share it, and those of one company their objective."""
    objectives: dict[str, Objective] = {}
    each_once = distinct(asked.recipes)
    ways = []
    for own in each_once:
        if own.company() not in objectives:
            layers = layers_shown(asked) - {LOGITS}
            objectives[own.company()] = Objective(
                asked.networks, own, asked.device, asked.photograph, norms, precisions, layers
            )
        ways.append(make_way(objectives[own.company()], own, asked.size))
    return [ways[each_once.index(own)] for own in asked.recipes]


def batch_in_memory(asked: Request, memory: int | None) -> int:
    """How many images fit: twice the outputs of all layers (forward and backward), 4 bytes each, of every view."""
    if memory is None:
        on_gpu = asked.device.type == "cuda"
        free = torch.cuda.mem_get_info(asked.device)[0] if on_gpu else psutil.virtual_memory().available
        memory = int(free * (0.8 if on_gpu else 0.4))
    values = sum(math.prod(layer.shape) for network in asked.networks for layer in network.layers)
    return memory // max(1, 8 * values * max(recipe.views.count for recipe in asked.recipes))
