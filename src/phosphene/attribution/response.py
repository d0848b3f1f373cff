"""A unit as a function of pixels, and the layers on the way to it with their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import InputError
from phosphene.networks import outputs
from phosphene.networks.forward import Reader
from phosphene.networks.layers import LOGITS, Layer
from phosphene.networks.network import Network
from phosphene.networks.rows import to_rows_first
from phosphene.units.objects import Class, Objective, Part, Unit


@dataclass(frozen=True)
class Response:
    """How active a unit is, as a function of pixels.

    Of a class that is its logit; of a latent the latent itself, which is 0 where it is off, and not what is climbed.

    Attributes:
        network: at the size of the pixels, borrowed while this is called.
        unit: of it.
    """

    network: Network
    unit: Unit

    def __post_init__(self) -> None:
        if any(part.needs_reference for _, part in self.unit.terms()):
            raise InputError(
                f"{self.unit} is measured against a photograph, and is nowhere in one: expected a class, channel, "
                "neuron, direction, text or latent"
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (rows, channels, height, width) in 0..255 to (rows,), differentiable."""
        return self.with_logits(pixels)[0]

    def with_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the logits (rows, classes) where the unit is read from these."""
        by_layer: dict[str, list[tuple[int, Part]]] = {}
        terms = self.unit.terms()
        for place, (_, part) in enumerate(terms):
            by_layer.setdefault(part.layer, []).append((place, part))
        found: dict[int, Tensor] = {}
        logits: list[Tensor] = []

        def reader(layer: str) -> Reader:
            layout = None if layer == LOGITS else self.network.layer(layer).tokens

            def read(activation: Tensor) -> None:
                if layer == LOGITS:
                    logits.append(activation)
                for place, part in by_layer[layer]:
                    seen = part.select(activation, layout)
                    found[place] = seen.clone() if isinstance(self.unit, Objective) else part.responses(seen)

            return read

        self.network.read(pixels, {layer: reader(layer) for layer in by_layer})
        return self._total(found, len(pixels)), logits[0] if logits else None

    def _total(self, found: Mapping[int, Tensor], rows: int) -> Tensor:
        terms = self.unit.terms()
        if len(found) != len(terms):
            raise InputError(f"{self.unit} of {self.network.name}: not called for every image, so it cannot be shown")
        if isinstance(self.unit, Objective):
            return torch.stack(
                [
                    self.unit.value({part.layer: found[place][row] for place, (_, part) in enumerate(terms)})
                    for row in range(rows)
                ]
            )
        total = sum(weight * found[place].float() for place, (weight, _) in enumerate(terms))
        assert isinstance(total, Tensor)
        return total

    def probability(self, pixels: Tensor) -> Tensor | None:
        """The network's own of a class, (rows,); None of other units, and where logits are no classes'."""
        if not isinstance(self.unit, Class):
            return None
        _, logits = self.with_logits(pixels)
        assert logits is not None
        found = self.network.probabilities(logits)[:, self.unit.index]
        return found if bool(found.isfinite().all()) else None

    @property
    def depth(self) -> int:
        """How many layers end before the first that the unit is read from."""
        depths = [
            len(self.network.layers) if part.layer == LOGITS else self.network.depth(part.layer)
            for _, part in self.unit.terms()
        ]
        return min(depths)


@dataclass
class Taps:
    """Layers that are kept in a pass of one image, so that gradients can be taken of them.

    What a layer returns is kept as it is at that moment: what comes after, such as an activation that works in place,
    is given a copy.

    Attributes:
        layers: which.
        raw: what each module itself returned.
    """

    network: Network
    layers: Sequence[Layer]
    raw: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The context in which a pass is watched; the network is borrowed."""
        modules = dict(self.network.module.named_modules())
        by_module: dict[str, dict[int, str]] = {}
        for layer in self.layers:
            module, call = self.network.call(layer.name)
            by_module.setdefault(module, {})[call] = layer.name
        with ExitStack() as stack:
            for module, names in by_module.items():
                stack.callback(modules[module].register_forward_hook(self._hook(names)).remove)
            yield

    def _hook(self, names: Mapping[int, str]) -> Callable[[nn.Module, Any, Any], Any]:
        count = 0

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal count
            count += 1
            tensor = outputs.first_tensor(output)
            if count not in names or tensor is None or not tensor.requires_grad:
                return None
            self.raw[names[count]] = tensor
            return tensor.clone() if tensor is output else None

        return hook

    def activation(self, name: str) -> Tensor:
        """What a layer returned: (channels, *positions), without its gradient."""
        return self.live(name).detach().float()

    def live(self, name: str) -> Tensor:
        """The same as a part of the pass, of which gradients can be taken."""
        return self._arranged(name, self.raw[name])

    def gradients(self, of: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The gradient of a number with respect to layers, each (channels, *positions); of those that lead to it."""
        kept = [name for name in names if name in self.raw]
        if not kept or not of.requires_grad:
            return {}
        found = torch.autograd.grad(of, [self.raw[name] for name in kept], retain_graph=True, allow_unused=True)
        return {
            name: self._arranged(name, gradient).float()
            for name, gradient in zip(kept, found, strict=True)
            if gradient is not None
        }

    def _arranged(self, name: str, tensor: Tensor) -> Tensor:
        layer = self.network.layer(name)
        return to_rows_first(tensor, 1, layer.rows, layer.channels_last)[0]
