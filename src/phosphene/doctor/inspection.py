"""What a network alone shows: how it is fed, how it ends, and what of it cannot be shown."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from phosphene.doctor.diagnostics import Diagnostic
from phosphene.doctor.preprocessings import DECLARED, candidates, input_range
from phosphene.errors import InputError, join_names
from phosphene.networks.layers import is_activation
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing

SAMPLE = 32
"""How many images are made where none are given."""


def inspect(network: Network, images: Tensor | None = None, device: torch.device | str = "cpu") -> list[Diagnostic]:
    """What is right and wrong with a network, as far as a few images show it.

    Args:
        network: it is handed back as it came.
        images: photographs (rows, channels, height, width) in 0..255, RGB; without two of them images are made:
            `natural_noise` and `shapes`.
        device: where the network runs.

    Raises:
        InputError: the network does not take images of the size it is declared for.
    """
    findings = [_input(network), *_notes(network), *_outputs(network), *_modules(network), _sizes(network)]
    if not network.layers:
        return findings
    made = images is None or len(images) < 2
    noise = natural_noise(network.preprocessing, SAMPLE) if images is None or made else images
    various = shapes(network.preprocessing, SAMPLE) if images is None or made else images
    shown = f"{len(various)} " + ("images of shapes and noise" if made else "photographs")
    with network.borrowed(device):
        noise, various = noise.to(device), various.to(device)
        findings += _logits(network, various)
        findings += _first_norm(network, noise[:16])
        constant = _constant(network, various[:8])
        findings += _cut_off(network, various[:2], constant)
        findings += _dead(network, various, constant, shown, made)
    return findings


# Brightness, blue against yellow, red against green: the directions in which the colours of photographs vary.
_COLORS = ((0.92, 0.35, 0.15), (0.98, 0.0, -0.2), (0.91, -0.36, 0.2))
_MEAN_COLOR, _CONTRAST = (124.0, 117.0, 104.0), 70.0


def natural_noise(preprocessing: Preprocessing, count: int, seed: int = 0) -> Tensor:
    """Noise with the mean colour, the contrast, the correlations and the 1/f spectrum of photographs.

    A linear layer makes of it the mean and the variance that it makes of photographs.

    Returns:
        Pixels (count, channels, height, width) in 0..255, RGB.
    """
    return _of_channels(_natural_noise(preprocessing, count, seed), preprocessing.channels)


def _natural_noise(preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    height, width = preprocessing.height, preprocessing.width
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    white = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft2(white) / frequency.clamp_min(1 / max(height, width))
    noise = torch.fft.irfft2(spectrum, s=(height, width))
    noise = noise / noise.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    mean = torch.tensor(_MEAN_COLOR).view(1, 3, 1, 1)
    return (mean + _CONTRAST * torch.einsum("ck,nkhw->nchw", torch.tensor(_COLORS), noise)).clamp(0, 255)


def _of_channels(pixels: Tensor, channels: int) -> Tensor:
    return pixels if channels == 3 else pixels.mean(1, keepdim=True).repeat(1, channels, 1, 1)


def shapes(preprocessing: Preprocessing, count: int, seed: int = 0) -> Tensor:
    """Natural noise behind a hundred polygons and ellipses, plain and textured, one over the other.

    It has the edges that wake channels which no noise does: of EfficientNet-lite0's 19,200 channels behind an
    activation 132 are dead over 200 photographs, 780 over 32 of these images, 4000 over noise alone.

    Returns:
        Pixels (count, channels, height, width) in 0..255, RGB.
    """
    draw = random.Random(seed)
    height, width = preprocessing.height, preprocessing.width
    textures = [
        Image.frombytes("RGB", (width, height), pixels.permute(1, 2, 0).byte().contiguous().numpy().tobytes())
        for pixels in _natural_noise(preprocessing, count, seed)
    ]
    images = []
    for texture in textures:
        image = texture.copy()
        for _ in range(100):
            fill = Image.new("RGB", (width, height), tuple(draw.randrange(256) for _ in range(3)))
            if draw.random() < 0.6:
                fill = Image.blend(fill, draw.choice(textures), draw.random())
            image.paste(fill, mask=_polygon(draw, width, height))
        images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3))
    return _of_channels(torch.stack(images).permute(0, 3, 1, 2).float(), preprocessing.channels)


def _polygon(draw: random.Random, width: int, height: int) -> Image.Image:
    radius = max(width, height) * (0.02 + 0.5 * draw.random() ** 3)
    x, y, across, down = draw.uniform(0, width), draw.uniform(0, height), draw.uniform(0.3, 1.5), draw.uniform(0.3, 1.5)
    angles = sorted(draw.uniform(0, 2 * math.pi) for _ in range(draw.choice((3, 4, 5, 40))))
    mask = Image.new("L", (width, height))
    corners = [(x + radius * across * math.cos(angle), y + radius * down * math.sin(angle)) for angle in angles]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask


def _input(network: Network) -> Diagnostic:
    preprocessing = network.preprocessing
    low, high = input_range(preprocessing)
    text = f"{preprocessing.height}x{preprocessing.width} pixels, declared as {preprocessing.describe()}"
    if (min(low), max(high)) != preprocessing.value_range:
        text += f", so {min(low):.3g} to {max(high):.3g}"
    return Diagnostic("input", "ok", text)


def _notes(network: Network) -> Iterator[Diagnostic]:
    for topic, text in network.notes.items():
        yield Diagnostic(topic, "note", text)
    if network.limit:
        yield Diagnostic("weights", "warning", f"{len(network.layers)} layers can be shown: {network.limit}")
    broken = [name for name, tensor in network.module.named_parameters() if not bool(tensor.isfinite().all())]
    if broken:
        yield Diagnostic("weights", "warning", f"not all finite numbers: {join_names(broken)}")


def _outputs(network: Network) -> Iterator[Diagnostic]:
    if network.classes:
        kind = network.ending and network.ending.kind
        end = f"a {kind}, which is bypassed: the logits before it are read" if kind else "logits"
        yield Diagnostic("outputs", "ok", f"{network.classes} classes; it ends in {end}")
    elif not network.limit:
        yield Diagnostic("outputs", "note", "it gives no logits of shape (rows, classes): no class can be shown")
    if network.classes and network.labels is None:
        yield Diagnostic("labels", "note", "its classes have no names, and are known by index")
    elif network.classes and network.labels is not None and len(network.labels) != network.classes:
        text = f"{len(network.labels)} labels for {network.classes} outputs: no class can be found by name"
        yield Diagnostic("labels", "warning", text)


def _modules(network: Network) -> Iterator[Diagnostic]:
    modules = dict(network.module.named_modules())
    kinds = Counter(type(module).__name__ for module in modules.values() if module.training and _has_modes(module))
    if kinds:
        text = join_names([f"{count} {kind}" for kind, count in kinds.most_common()])
        yield Diagnostic("modes", "ok", f"handed over in training mode, and run in evaluation mode here: {text}")
    blind = [name for name, module in modules.items() if isinstance(module, _BatchNorm) and module.running_mean is None]
    if blind:
        text = (
            f"without running statistics, so that an image's activations depend on its batchmates: {join_names(blind)}"
        )
        yield Diagnostic("modes", "warning", text)
    norms = [module for module in modules.values() if isinstance(module, _BatchNorm)]
    if norms and not blind and not any(map(_has_learned_statistics, norms)):
        yield Diagnostic("weights", "warning", "its batch norms are as they were made: it is not trained")
    in_place = sum(bool(getattr(module, "inplace", False)) for module in modules.values())
    if in_place:
        text = f"{in_place} modules, which is harmless: a layer is read as soon as it is made"
        yield Diagnostic("in place", "ok", text)


def _has_modes(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or "drop" in type(module).__name__.lower()


def _sizes(network: Network) -> Diagnostic:
    preprocessing = network.preprocessing
    own = f"{preprocessing.height}x{preprocessing.width}"
    if preprocessing.fixed_size:
        return Diagnostic("size", "note", f"{own} pixels only, as declared")
    larger = (preprocessing.height * 3 // 2, preprocessing.width * 3 // 2)
    tried = f"{larger[0]}x{larger[1]}"
    try:
        limit, layers = network.with_input_size(larger).limit, network.with_input_size(larger).layers
    except InputError:
        return Diagnostic("size", "note", f"{own} pixels only: {tried} do not go through")
    if limit and limit != network.limit:
        return Diagnostic("size", "note", f"of sizes other than {own}, {len(layers)} layers can be shown: {limit}")
    return Diagnostic("size", "ok", f"{own} pixels, and others such as {tried}")


def _logits(network: Network, pixels: Tensor) -> Iterator[Diagnostic]:
    """Whether the logits are finite, the same each time, no probabilities, and carry a gradient."""
    if not network.classes:
        return
    with torch.no_grad():
        logits, again = network.forward(pixels[:2]), network.forward(pixels[:2])
    if not bool(logits.isfinite().all()):
        yield Diagnostic("outputs", "warning", "the logits are not all finite numbers")
        return
    # Of chance that torch's generators rule, each image has its own, the same each time.
    if network.random or not torch.allclose(logits, again, rtol=1e-3, atol=1e-4):
        yield Diagnostic("outputs", "warning", "other logits each time for the same image: something in it is random")
    if network.ending is None and bool(((logits >= 0) & (logits <= 1)).all()):
        if torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3):
            text = "they are probabilities, and no softmax was found that could be bypassed: gradients may vanish"
            yield Diagnostic("outputs", "warning", text)
        else:
            yield Diagnostic("outputs", "note", "they lie in 0..1, as behind a sigmoid: gradients may vanish")
    gradient = _gradient(network, pixels[:2])
    if gradient is None or not bool(gradient.any()):
        yield Diagnostic("gradient", "warning", "none gets from the logits to the image: no class can be shown")
    elif not bool(gradient.isfinite().all()):
        yield Diagnostic("gradient", "warning", "that of the logits is not all finite numbers")


def _gradient(network: Network, pixels: Tensor) -> Tensor | None:
    """Of the greatest logits, with respect to the pixels; None if nothing leads there."""
    with torch.enable_grad():
        pixels = pixels.clone().requires_grad_()
        logits = network.forward(pixels)
        if not logits.requires_grad:
            return None
        return torch.autograd.grad(logits.amax(1).sum(), pixels, allow_unused=True)[0]


# How far the statistics of the first batch norm may be from those in training, as a divergence in nats.  Those of
# EfficientNet-lite 0 to 2 are 0.02 to 0.05 when fed right, and 0.37 or more in another range.
_NORM_FITS, _NORM_FITS_NOT = 0.2, 0.3


def _first_norm(network: Network, pixels: Tensor) -> Iterator[Diagnostic]:
    """Whether the first batch norm sees the mean and variance that it saw in training, which tells the range.

    It does not tell the order of the channels: swapped, photographs have nearly the same statistics.
    """
    norms = [layer.name for layer in network.layers if isinstance(_module(network, layer.name), _BatchNorm)]
    if not norms or not _has_learned_statistics(_module(network, norms[0])):
        return
    order = network.preprocessing.channel_order
    tried = {name: fed for name, fed in candidates(network.preprocessing).items() if fed.channel_order == order}
    divergences = {
        name: _divergence(network.replace(preprocessing=fed), norms[0], pixels) for name, fed in tried.items()
    }
    best = min(divergences, key=lambda name: divergences[name])
    if divergences[DECLARED] <= _NORM_FITS_NOT:
        text = "the first batch norm sees what it saw in training: the range is right (the channels' order is not told)"
        yield Diagnostic("range", "ok", text)
    elif divergences[best] <= _NORM_FITS:
        text = (
            "the first batch norm sees other values than in training: the range is wrong, and that of "
            f"{tried[best].describe()} fits (the channels' order is not told: labelled photographs tell it)"
        )
        yield Diagnostic("range", "warning", text)
    else:
        text = "the first batch norm sees other values than in training, and would under every usual preprocessing"
        yield Diagnostic("range", "note", text)


def _has_learned_statistics(norm: Any) -> bool:
    if norm.running_mean is None:
        return False
    return bool(norm.running_mean.any()) or not bool((norm.running_var == 1).all())


def _divergence(network: Network, layer: str, pixels: Tensor) -> float:
    """Of what a batch norm is given from what training gave it, both taken for Gaussian: the channels' median."""
    norm: Any = _module(network, layer)
    given: list[Tensor] = []
    network.ending  # noqa: B018 - this sends an image through, once, and is not to be listened to
    hook = norm.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    try:
        with torch.no_grad():
            network.read(pixels, {layer: lambda output: None})
    finally:
        hook.remove()
    values = given[0].transpose(0, 1).flatten(1).double()  # (channels, rows * positions)
    mean, variance = values.mean(1), values.var(1).clamp_min(1e-12)
    trained_mean, trained_variance = norm.running_mean.double(), norm.running_var.double().clamp_min(1e-12)
    ratio = variance / trained_variance
    divergence = (ratio - 1 - ratio.log() + (mean - trained_mean) ** 2 / trained_variance) / 2
    lively = trained_variance > 1e-3 * trained_variance.median()
    return float(divergence[lively].median())


def _constant(network: Network, pixels: Tensor) -> set[str]:
    """The layers that are the same for every image."""
    constant = set()
    rows = len(pixels)

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            # Some layers have several rows an image (windows of it), and some one for all images.
            by_image = output.reshape(rows, -1) if len(output) % rows == 0 else output[:1]
            if float((by_image - by_image[0]).abs().amax()) <= 1e-6 * float(by_image.abs().amax()):
                constant.add(name)

        return read

    with torch.no_grad():
        network.read(pixels, {layer.name: reader(layer.name) for layer in network.layers})
    return constant


def _cut_off(network: Network, pixels: Tensor, constant: set[str]) -> Iterator[Diagnostic]:
    """Layers from which nothing leads back to the image: those that do not depend on it, and those detached."""
    linked = set()

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            if output.requires_grad:
                linked.add(name)

        return read

    with torch.enable_grad():
        network.read(pixels.clone().requires_grad_(), {layer.name: reader(layer.name) for layer in network.layers})
    names = [layer.name for layer in network.layers]
    same = [name for name in names if name in constant] + network.constant
    if same:
        text = join_names(same)
        yield Diagnostic(
            "constant layers", "note", f"the same for every image, so that nothing can be shown of them: {text}"
        )
    cut = [name for name in names if name not in linked and name not in constant]
    if cut:
        text = f"none gets from these layers to the image, so that nothing can be shown of them: {join_names(cut)}"
        yield Diagnostic("gradient", "warning", text)


def _dead(network: Network, pixels: Tensor, constant: set[str], shown: str, made: bool) -> Iterator[Diagnostic]:
    """Channels behind an activation that are the same everywhere in every image: for a ReLU, always 0."""
    layers = [layer.name for layer in network.layers if layer.name not in constant]
    # Where activations are functions and no modules, every layer is looked at.
    names = [name for name in layers if is_activation(_module(network, name))] or layers
    lowest, highest = _extremes(network, pixels, names)
    dead = {name: _flat(lowest[name], highest[name]) for name in names}
    share = {name: dead[name] / len(lowest[name]) for name in names if dead[name]}
    of_all = f"of {sum(map(len, lowest.values()))} in {len(names)} {'layers' if names == layers else 'activations'}"
    if not share:
        yield Diagnostic("dead channels", "ok", f"none {of_all}, over {shown}")
        return
    worst = sorted(share, key=lambda name: -share[name])
    where = join_names([f"{name} ({dead[name]} of {len(lowest[name])})" for name in worst], 3)
    text = f"{sum(dead.values())} {of_all} never change over {shown}: {where}"
    if made:
        text += "; some of them may wake for photographs"
    yield Diagnostic("dead channels", "warning" if share[worst[0]] > 0.5 and not made else "note", text)


def _flat(lowest: Tensor, highest: Tensor) -> int:
    return int((highest - lowest <= 1e-6 * (highest.max() - lowest.min())).sum())


def _extremes(network: Network, pixels: Tensor, names: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The least and the greatest value of each channel over all images and positions."""
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(output: Tensor) -> None:
            low, high = output.transpose(0, 1).flatten(1).aminmax(dim=1)
            lowest[name] = torch.minimum(lowest.get(name, low), low)
            highest[name] = torch.maximum(highest.get(name, high), high)

        return read

    readers = {name: reader(name) for name in names}
    with torch.no_grad():
        for start in range(0, len(pixels), 8):
            network.read(pixels[start : start + 8], readers)
    return lowest, highest


def _module(network: Network, layer: str) -> nn.Module:
    return network.module.get_submodule(network.call(layer)[0])
