"""What a network's own module says of a saved image, run by hand: no code of phosphene's but the preprocessing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import phosphene
from phosphene import Network, Preprocessing, Recipe, Result

SIZE = 32


def made(factory: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """A module of the same random weights in every test, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory(*args).eval()


def opened(module: Any, size: int = SIZE, **options: Any) -> Network:
    return phosphene.open(module, Preprocessing(size=size, mean=0.4, std=0.3), **options)


def recipe(steps: int = 3, name: str = "naive", **changes: Any) -> Recipe:
    return Recipe.load(name).override({"steps": steps, **changes})


def ascended(network: Network, *units: str, steps: int = 3, seed: int = 5, **options: Any) -> Result:
    return phosphene.ascend(
        network, list(units), recipe(steps), options=phosphene.RunOptions(device="cpu"), seed=seed, **options
    )


def summed(network: Network, layer: str, channel: int) -> str:
    """A channel, spelled so that it is the sum over all of its positions, tokens that are no patches among them."""
    return str(phosphene.parse_unit(f"{layer}:{channel}", network, recorded=True))


def inputs(network: Network, image: np.ndarray) -> Tensor:
    """A saved image (height, width, channels) as the module is fed it, alone."""
    return network.preprocessing(torch.from_numpy(image).float().permute(2, 0, 1)[None])


def own(module: nn.Module, images: Tensor, layer: str = "") -> Any:
    """What the untouched module, or one of its modules, returns."""
    got: list[Any] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda module, args, output: got.append(output))
    try:
        with torch.no_grad():
            module(images)
    finally:
        hook.remove()
    return got[-1]


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-3, abs=1e-6)


def check_scores(
    network: Network, module: nn.Module, layer: str, of: Callable[[Any], Tensor], *units: str, **options: Any
) -> Result:
    """Each unit alone and all of them together: the score is what `of` takes from the module's own output."""
    results = [ascended(network, *units, **options), *(ascended(network, unit, **options) for unit in units)]
    for result in results:
        for picture, image in zip(result, result.pixels, strict=True):
            value = of(own(module, inputs(network, image), layer), picture.unit)
            assert picture.scores["objective"] == close(float(value)), picture.unit
    return results[0]
