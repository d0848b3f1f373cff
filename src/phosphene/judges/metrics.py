"""LPIPS and DreamSim as judges, where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phosphene import user_folders
from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.judges.perception import PerceptualJudge
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import read_weights

LPIPS, DREAMSIM = "lpips", "dreamsim"
METRICS = (LPIPS, DREAMSIM)
LPIPS_SIZE = 128
"""Height and width, in pixels, at which LPIPS compares; it compares place by place, so its embeddings are large."""


def is_metric(text: str) -> bool:
    """Whether a judge's name is that of a metric: "lpips", "lpips=FILE" or "dreamsim"."""
    return text.partition("=")[0] in METRICS


def open_metric(text: str) -> PerceptualJudge:
    """A metric by its name; `lpips=FILE` with AlexNet's weights from a file.

    Raises:
        InputError: it is not installed, its weights cannot be had, or the file has others.
    """
    name, _, weights = text.partition("=")
    if name == DREAMSIM:
        if weights:
            raise InputError(f"judge {text!r}: dreamsim has its own weights, so expected 'dreamsim'")
        return _dreamsim()
    return _lpips(weights)


def _lpips(weights: str) -> PerceptualJudge:
    """LPIPS of version 0.1 on AlexNet (Zhang et al. 2018).

    Its distance is a squared distance: the sum over layers, averaged over places, of weighted squared differences of
    unit-length activations.  So an image is one point, and all pairs are compared without running it for each.
    """
    lpips = require("lpips", "judges", "judge lpips")
    try:  # its own weights are read here, as data; with weights given, those of torchvision are not looked for
        with shown_downloads("AlexNet's weights"):
            module = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=bool(weights), verbose=False)
    except OSError as error:
        raise InputError(
            f"judge lpips needs AlexNet's weights, which cannot be downloaded ({error}): expected lpips=FILE"
        ) from error
    _load(module, read_weights(Path(str(lpips.__file__)).parent / "weights" / "v0.1" / "alex.pth"), "LPIPS's weights")
    if weights:
        _load(module, _as_trunk(module, read_weights(weights)), f"weights file {weights!r}")
    preprocessing = Preprocessing(LPIPS_SIZE, mean=0.0, std=1.0, value_range=(-1.0, 1.0), crop=0.875)
    network = Network(module, preprocessing, name=LPIPS)

    def embed(pixels: Tensor) -> list[Tensor]:
        layers = module.net(module.scaling_layer(pixels / 127.5 - 1))
        parts = []
        for activation, weighing in zip(layers, module.lins, strict=True):
            unit = activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)
            weight = weighing.model[-1].weight.clamp_min(0).sqrt()  # (1, channels, 1, 1)
            parts.append((unit * weight / activation[0, 0].numel() ** 0.5).flatten(1))
        return [torch.cat(parts, 1)]

    return PerceptualJudge(LPIPS, network, preprocessing, ("all layers",), embed, "distance")


def _as_trunk(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """AlexNet's tensors under LPIPS's names: `features.3.weight` is `net.slice2.3.weight` there."""
    ours = {key.split(".", 2)[2]: key for key in module.state_dict() if key.startswith("net.slice")}
    return {
        ours[key.removeprefix("features.")]: tensor
        for key, tensor in weights.items()
        if key.removeprefix("features.") in ours
    }


def _load(module: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    wanted = module.state_dict()
    wrong = [key for key, tensor in weights.items() if key not in wanted or wanted[key].shape != tensor.shape]
    if wrong or not weights:
        first = f", and {wrong[0]} is another" if wrong else ""
        raise InputError(f"{origin}: expected the convolutions of torchvision's AlexNet{first}")
    module.load_state_dict(weights, strict=False)


def _dreamsim() -> PerceptualJudge:
    """DreamSim, an ensemble (Fu et al. 2023): the cosine of its embeddings.  Its weights are downloaded once."""
    dreamsim = require("dreamsim", "judges", "judge dreamsim")
    try:
        with shown_downloads("DreamSim's weights"):
            made: Any = dreamsim.dreamsim(pretrained=True, device="cpu", cache_dir=str(user_folders.cache("dreamsim")))
    except OSError as error:
        raise InputError(f"judge dreamsim cannot download its weights: {error}") from error
    module = made[0]
    preprocessing = Preprocessing(224, resize="squash")
    network = Network(module, preprocessing, name=DREAMSIM)

    def embed(pixels: Tensor) -> list[Tensor]:
        return [module.embed(pixels / 255).reshape(len(pixels), -1)]

    return PerceptualJudge(DREAMSIM, network, preprocessing, ("embedding",), embed, "cosine")
