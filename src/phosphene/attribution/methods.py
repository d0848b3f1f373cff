"""Maps of where in a photograph a unit is, each by Captum (Kokhlikyan et al. 2020) where it has the method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from phosphene.attribution.guided import GuidedPass
from phosphene.attribution.response import Response, Taps
from phosphene.attribution.settings import AttributionSettings
from phosphene.default_progress import Tally
from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.networks.layers import Layer
from phosphene.networks.network import Network
from phosphene.pixels.filters import gaussian_blur

_BLUR = 10 / 224  # of the blurred photograph, a standard deviation as a share of the shorter side
_CANDIDATES = 64  # layers among which Grad-CAM's is looked for, from the last on

FloatMap = NDArray[np.float32]


class NotApplicableError(InputError):
    """A network or unit to which a method does not apply."""


@dataclass
class Explained:
    """What is explained, and what is learned on the way.

    Attributes:
        pixels: the photograph, (1, channels, height, width) in 0..255.
        baseline: the image without anything in it, of the same shape.
        layer: Grad-CAM's, once it is known.
        no_gradient: why no gradient gets from the unit to the pixels; empty where one does.
        gap: of integrated gradients, by how much the sum of the map misses the difference that it should be.
        notes: what a user should know, in sentences.
        tally: of the maps and curves that are made.
    """

    response: Response
    settings: AttributionSettings
    pixels: Tensor
    baseline: Tensor
    no_gradient: str = ""
    layer: str = ""
    gap: float | None = None
    notes: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally("maps and curves"))

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[-2], self.pixels.shape[-1]


def make_baseline(network: Network, pixels: Tensor, kind: str) -> Tensor:
    """The image without anything in it, of the shape of the photograph (1, channels, height, width)."""
    if kind == "blur":
        return blurred(pixels)
    if kind == "mean":
        mean = torch.tensor(network.preprocessing.mean_pixels, device=pixels.device, dtype=pixels.dtype)
        return mean.clamp(0, 255).view(1, -1, 1, 1).expand_as(pixels).clone()
    return torch.full_like(pixels, {"black": 0.0, "gray": 127.5, "white": 255.0}[kind])


def blurred(pixels: Tensor) -> Tensor:
    """The photograph without its details."""
    return gaussian_blur(pixels, max(0.5, _BLUR * min(pixels.shape[-2:])))


def make_map(method: str, explained: Explained) -> FloatMap:
    """A map by one of `settings.METHODS`, (height, width), for a borrowed network.

    Of integrated gradients and occlusion the sign says whether the unit gains or loses by what is there; the others are
    0 or more.

    Raises:
        NotApplicableError: the method does not apply to the network or unit.
    """
    if method != "occlusion" and explained.no_gradient:
        raise NotApplicableError(f"{method} of {explained.response.unit}: {explained.no_gradient}")
    found = _MAKERS[method](explained)
    if not bool(found.isfinite().all()):
        raise NotApplicableError(f"{method} of {explained.response.unit}: gradients that are not finite")
    map_: FloatMap = found.detach().float().cpu().numpy()
    return map_


def _captum() -> Any:
    return require("captum.attr", "analysis", "explain")


def _integrated_gradients(explained: Explained) -> Tensor:
    """Sundararajan et al. 2017, section 3: summed over channels, so that the map's sum is the unit's gain."""
    settings = explained.settings
    found, gap = (
        _captum()
        .IntegratedGradients(explained.response)
        .attribute(
            explained.pixels, explained.baseline, n_steps=settings.steps, internal_batch_size=settings.batch,
            return_convergence_delta=True,
        )
    )  # fmt: skip
    explained.gap = float(gap.sum())
    return _summed(found)


def window_of(settings: AttributionSettings, size: tuple[int, int]) -> tuple[int, int]:
    """Side and stride of the window of occlusion, in pixels."""
    side = min(settings.window or max(1, round(min(size) / 7)), *size)
    return side, min(settings.stride or max(1, side // 2), side)


def _occlusion(explained: Explained) -> Tensor:
    """Zeiler & Fergus 2014, section 4.2: what the unit loses where a window covers the photograph."""
    side, stride = window_of(explained.settings, explained.size)
    channels = explained.pixels.shape[1]
    with torch.no_grad():
        found = (
            _captum()
            .Occlusion(explained.response)
            .attribute(
                explained.pixels, sliding_window_shapes=(channels, side, side), strides=(channels, stride, stride),
                baselines=explained.baseline, perturbations_per_eval=explained.settings.batch,
            )
        )  # fmt: skip
    return _summed(found) / channels  # each channel of a pixel has the same: the window covers all of them


def _saliency(explained: Explained) -> Tensor:
    """Simonyan et al. 2013, section 3.1: the largest |gradient| of a pixel's channels."""
    return _noisy(explained, absolute=True).abs().amax(1)[0]


def _guided_backpropagation(explained: Explained) -> Tensor:
    """Springenberg et al. 2015, section 3.4; the largest |value| of a pixel's channels, as of saliency."""
    network = explained.response.network
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.module.modules()):
        raise NotApplicableError(
            f"guided backpropagation changes rectifiers, and {network.name} is, in part, a TorchScript program, which "
            "hides its own: expected the module that it was made from"
        )
    guided = GuidedPass()
    with torch.no_grad(), guided:
        explained.response(explained.pixels)
    if not guided.rectifiers:
        raise NotApplicableError(
            f"guided backpropagation is of rectifiers, and {network.name} has none before {explained.response.unit}: "
            "expected a network of ReLUs"
        )
    if guided.others:
        explained.notes.append(
            f"guided backpropagation: {guided.rectifiers} of {guided.rectifiers + guided.others} activations are "
            "rectifiers, and the others are left as they are"
        )
    return _noisy(explained, absolute=False, context=GuidedPass).abs().amax(1)[0]


def _noisy(explained: Explained, absolute: bool, context: Callable[[], Any] = nullcontext) -> Tensor:
    """The gradient with respect to the pixels, or SmoothGrad's mean of it: of the photograph's shape."""
    captum, settings = _captum(), explained.settings

    def response(pixels: Tensor) -> Tensor:
        with context():
            return explained.response(pixels)

    method = captum.Saliency(response)
    pixels = explained.pixels.clone()
    if not settings.samples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = method.attribute(pixels, abs=absolute)
        return found
    devices = [pixels.device] if pixels.device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(settings.seed)
        smooth: Tensor = captum.NoiseTunnel(method).attribute(
            pixels, nt_type="smoothgrad", nt_samples=settings.samples, stdevs=settings.noise * 255,
            nt_samples_batch_size=min(settings.batch, settings.samples), abs=absolute,
        )  # fmt: skip
    return smooth


def _grad_cam(explained: Explained) -> Tensor:
    """Selvaraju et al. 2017, equations 1 and 2: a layer's channels, weighted by their mean gradients, and rectified.

    Captum's reads the output of a module; a layer here may be one of several calls of it, tokens, or changed in place
    by what comes next.
    """
    response = explained.response
    candidates = _cam_layers(response, explained.settings.layer)
    taps = Taps(response.network, candidates)
    with taps.watching():
        value = response(explained.pixels.clone().requires_grad_())[0]
        gradients = taps.gradients(value, [layer.name for layer in candidates])
    for layer in reversed(candidates):
        gradient = gradients.get(layer.name)
        if gradient is None or not _on_grid(gradient, layer).any():
            continue
        explained.layer = layer.name
        weights = _on_grid(gradient, layer).mean((1, 2), keepdim=True)
        cam = (weights * _on_grid(taps.activation(layer.name), layer)).sum(0).clamp_min(0)
        return F.interpolate(cam[None, None], size=explained.size, mode="bilinear", align_corners=False)[0, 0]
    if explained.settings.layer and not gradients:
        raise NotApplicableError(
            f"Grad-CAM of {response.unit}: no gradient gets from it to {explained.settings.layer} of "
            f"{response.network.name}; expected a layer before it"
        )
    explained.layer = candidates[-1].name
    explained.notes.append(f"grad-cam: {response.unit} has no gradient in {explained.layer} on this photograph")
    return explained.pixels.new_zeros(explained.size)


def _cam_layers(response: Response, named: str | None) -> list[Layer]:
    """The layers among which Grad-CAM's is the last one with a gradient."""
    network = response.network
    if named is not None:
        layer = network.layer(named)
        if not _has_grid(layer) or network.is_head(named):
            shape = "x".join(map(str, layer.shape))
            near = [each.name for each in network.layers if _has_grid(each)][-1:]
            hint = f", such as {near[0]}" if near else ""
            raise NotApplicableError(
                f"Grad-CAM needs a map, and {layer.name} of {network.name} has none ({shape}): expected a layer with "
                f"one{hint}"
            )
        return [layer]
    found = map_layers(response)
    if not found:
        raise NotApplicableError(
            f"Grad-CAM needs a map, and {network.name} has no layer with one before {response.unit}"
        )
    return found[-_CANDIDATES:]


def map_layers(response: Response) -> list[Layer]:
    """The layers before a unit that have a map of several positions, or patches, in the order of calls."""
    network = response.network
    inside = tuple(f"{name}." for name in network.attentions)  # queries and keys of attention are no features
    return [
        layer
        for layer in network.layers[: response.depth]
        if _has_grid(layer) and not (inside and layer.name.startswith(inside))
    ]


def _has_grid(layer: Layer) -> bool:
    """Whether it is a map of more than one position, or of patches."""
    if layer.tokens is not None:
        return True
    return len(layer.positions) == 2 and math.prod(layer.positions) > 1


def _on_grid(activation: Tensor, layer: Layer) -> Tensor:
    """Of (channels, *positions) the map (channels, rows, columns): of tokens that of the patches."""
    return on_grid(activation, layer)[0]


def on_grid(activation: Tensor, layer: Layer) -> tuple[Tensor, bool]:
    """Of (channels, *positions) a map (channels, rows, columns), and whether the layer has one: of tokens the patches'.

    What has no map is one position for all.
    """
    if layer.tokens is not None:
        return activation[:, layer.tokens.prefix :].reshape(len(activation), *layer.tokens.grid), True
    if len(layer.positions) == 2:
        return activation, math.prod(layer.positions) > 1
    return activation.reshape(len(activation), -1).sum(1)[:, None, None], False


def _summed(found: Tensor) -> Tensor:
    return found.sum(1)[0]


_MAKERS: Mapping[str, Callable[[Explained], Tensor]] = {
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
    "grad-cam": _grad_cam,
    "guided-backpropagation": _guided_backpropagation,
    "saliency": _saliency,
}
