"""What a network alone shows: its preprocessing, how it ends, and what of it cannot be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from phosphene.default_progress import Tally, counted
from phosphene.doctor.diagnostics import Diagnostic
from phosphene.doctor.first_norm import check_first_norm, has_learned_statistics
from phosphene.doctor.hidden_layers import check_dead_channels, check_gradients, constant_layers
from phosphene.doctor.preprocessings import input_range
from phosphene.doctor.samples import natural_noise, shapes
from phosphene.errors import InputError, join_names
from phosphene.networks.network import Network

SAMPLE = 32
"""How many images are made where none are given."""
_CHECKS = 5


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
    with counted("checks", total=_CHECKS, doing="weights and sizes") as tally:
        diagnostics = [_input(network), *_notes(network), *_outputs(network), *_modules(network), _sizes(network)]
        tally.add()
        return diagnostics + (_of_layers(network, images, device, tally) if network.layers else [])


def _of_layers(network: Network, images: Tensor | None, device: torch.device | str, tally: Tally) -> list[Diagnostic]:
    """What images show that go through it."""
    made = images is None or len(images) < 2
    noise = natural_noise(network.preprocessing, SAMPLE) if images is None or made else images
    various = shapes(network.preprocessing, SAMPLE) if images is None or made else images
    shown = f"{len(various)} " + ("images of shapes and noise" if made else "photographs")
    with network.borrowed(device):
        noise, various = noise.to(device), various.to(device)
        diagnostics = _checked(tally, "logits", lambda: _logits(network, various))
        diagnostics += _checked(tally, "first normalization", lambda: check_first_norm(network, noise[:16]))
        constant = constant_layers(network, various[:8])
        diagnostics += _checked(tally, "gradients", lambda: check_gradients(network, various[:2], constant))
        diagnostics += _checked(
            tally, "dead channels", lambda: check_dead_channels(network, various, constant, shown, made)
        )
    return diagnostics


def _checked(tally: Tally, doing: str, check: Callable[[], Iterable[Diagnostic]]) -> list[Diagnostic]:
    tally.say(doing)
    found = list(check())
    tally.add()
    return found


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
        yield Diagnostic("outputs", "note", "it returns no logits of shape (rows, classes): no class can be shown")
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
    if norms and not blind and not any(map(has_learned_statistics, norms)):
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
    larger = network.whole_patches((preprocessing.height * 3 // 2, preprocessing.width * 3 // 2))
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
