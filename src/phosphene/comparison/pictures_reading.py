"""What images do to a network, layer by layer: how active each channel is, how much all of it is, and what is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from phosphene.comparison.depth_layers import depth_layers
from phosphene.images import read_image
from phosphene.networks.layers import LOGITS
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.listing import evenly_spread

MOST_LAYERS = 16


@dataclass(frozen=True, eq=False)
class LayerResponse:
    """What a layer returns for images.

    Attributes:
        means: of each channel over its positions, (images, channels).
        rms: the root of the mean square of all its activations, (images,).
        off: the share of its activations that are 0 or less, (images,).
    """

    means: Tensor
    rms: Tensor
    off: Tensor

    @classmethod
    def of(cls, activation: Tensor) -> LayerResponse:
        """Of (images, channels, *positions)."""
        maps = activation.detach().float().flatten(1)
        means = activation.detach().float().reshape(*activation.shape[:2], -1).mean(2)
        off = (maps <= 0).float().mean(1)
        return cls(means.cpu(), maps.double().square().mean(1).sqrt().cpu(), off.cpu())

    @classmethod
    def join(cls, parts: Sequence[LayerResponse]) -> LayerResponse:
        """Of all images."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("means", "rms", "off")))


def compared_layers(network: Network, names: Sequence[str] | None) -> list[str]:
    """The layers at which images are compared, in the order of calls, and at last the logits, where there are any.

    By default some of its blocks or activations (see `depth_layers`), evenly spread, the last among them.

    Raises:
        InputError: there is no such layer.
    """
    layers = [layer.name for layer in depth_layers(network, names, least=1)]
    if names is None:
        layers = evenly_spread(layers[::-1], MOST_LAYERS)[::-1]
    return [*layers, *([LOGITS] if network.classes else [])]


def respond_to_images(network: Network, layers: Sequence[str], batches: Iterable[Tensor]) -> dict[str, LayerResponse]:
    """What layers of a (borrowed) network return for images.

    Args:
        batches: pixels, each (rows, channels, height, width) in 0..255.
    """
    parts: dict[str, list[LayerResponse]] = {name: [] for name in layers}

    def reader(name: str) -> Callable[[Tensor], None]:
        return lambda activation: parts[name].append(LayerResponse.of(activation))

    readers = {name: reader(name) for name in layers}
    for pixels in batches:
        network.read(pixels.to(network.device), readers)
    return {name: LayerResponse.join(each) for name, each in parts.items()}


def picture_pixels(source: str | Path, preprocessing: Preprocessing) -> Tensor:
    """A picture as the network is shown it, (channels, height, width) in 0..255.

    One of the network's own size, as phosphene makes them, is shown whole; any other as photographs are.
    """
    image = read_image(source)
    if image.size == (preprocessing.width, preprocessing.height):
        preprocessing = replace(preprocessing, crop=1.0)
    return preprocessing.photograph(image)


def shuffled_pixels(pixels: Tensor) -> Tensor:
    """The same pixels at other places, the same ones for all images: what is left is their colors.

    (rows, channels, height, width) to the same shape.
    """
    order = torch.randperm(pixels.shape[2] * pixels.shape[3], generator=torch.Generator().manual_seed(0))
    return pixels.flatten(2)[:, :, order].reshape(pixels.shape)
