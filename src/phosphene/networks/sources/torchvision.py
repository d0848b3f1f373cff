"""torchvision's classifiers, detectors and segmentation, fed and labelled as their weights' metadata say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torchvision.models as models
from torch import nn
from torchvision.transforms import InterpolationMode

from phosphene.errors import InputError, did_you_mean
from phosphene.files import is_file
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import put_weights, read_weights

_OTHERS = {"video": models.video, "optical flow": models.optical_flow, "quantized": models.quantization}


def torchvision_names() -> list[str]:
    """The networks of torchvision that take an image: those that classify, those that detect, those that segment."""
    parts = (models, models.detection, models.segmentation)
    return [name for part in parts for name in models.list_models(module=part)]


def is_torchvision(name: str) -> bool:
    """Whether torchvision has a network of that name, of whatever kind."""
    return name in models.list_models()


def open_torchvision(
    name: str, weights: str | Path | None = None, pretrained: bool = True, partial: bool = False
) -> Network:
    """A torchvision network with its default weights, with others of its own, or with those of a file.

    No weights of a backbone alone are ever downloaded.

    Args:
        name: as torchvision spells it.
        weights: the name of a member of the network's weights enum ("IMAGENET1K_V1"), or a state-dict file.  What a
            file's network eats is taken from the member of the same file name, or else from the oldest.
        pretrained: False leaves it untrained.
        partial: a file may have weights for some layers only.

    Raises:
        InputError: the name or the weights are unknown, cannot be had, or are of another network.
    """
    other = next((kind for kind, part in _OTHERS.items() if name in models.list_models(module=part)), None)
    if other is not None:
        raise InputError(
            f"{name} is one of torchvision's {other} networks: expected one that takes an image in floating-point "
            "numbers, to classify, detect or segment what is in it; see `phosphene networks '*'`"
        )
    if name not in torchvision_names():
        raise InputError(f"torchvision has no network {name!r}{did_you_mean(name, torchvision_names())}")
    known: Any = models.get_model_weights(name)
    if isinstance(weights, str) and weights in known.__members__:
        chosen, file = known[weights], None
    elif weights is None:
        chosen, file = known.DEFAULT, None
    else:
        file = Path(weights)
        if not is_file(file) and not file.suffix:
            members = list(known.__members__)
            raise InputError(
                f"torchvision has no weights {str(weights)!r} of {name}{did_you_mean(str(weights), members)}; "
                f"expected a file, or {' or '.join(members)}"
            )
        chosen = next((member for member in known if member.url.endswith(f"/{file.name}")), next(iter(known)))
    unloaded: frozenset[str] = frozenset()
    if not pretrained and file is None:
        module = models.get_model(name, weights=None, **_options(name, {}))
    else:
        state = read_weights(file) if file is not None else _downloaded(name, chosen)
        module = models.get_model(name, weights=None, **_options(name, state))
        unloaded = put_weights(module, state, name, str(file or chosen), partial)
        _as_frozen(module, state, chosen)
    eats = _detectors_preprocessing(module) if _detects(name) else _preprocessing(name, chosen)
    return Network(module, eats, _labels(chosen.meta["categories"]), name, unloaded=unloaded)


def _detects(name: str) -> bool:
    return name in models.list_models(module=models.detection)


def _options(name: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As torchvision itself builds a network whose weights are these; none for one that stays untrained."""
    if name in ("googlenet", "inception_v3") and state:  # whose trained weights come from TensorFlow
        heads = any(key.lower().startswith("aux") for key in state)
        return {"init_weights": False, "transform_input": True, "aux_logits": heads}
    if _detects(name):
        return {"weights_backbone": None}
    if name in models.list_models(module=models.segmentation):
        heads = any(key.startswith("aux_classifier.") for key in state)
        return {"weights_backbone": None} | ({"aux_loss": True} if heads else {})
    return {}


def _as_frozen(module: nn.Module, state: dict[str, torch.Tensor], weights: Any) -> None:
    """Give a detector's backbone the epsilon with which it was trained.

    It was trained with frozen batch norms, which count no batches, and whose epsilon is not that of the untrained
    network's; torchvision sets it to zero for its oldest weights.
    """
    body = getattr(getattr(module, "backbone", None), "body", None)
    if body is None or any(key.startswith("backbone.body.") and key.endswith("num_batches_tracked") for key in state):
        return
    oldest = ("FasterRCNN_ResNet50_FPN", "MaskRCNN_ResNet50_FPN", "KeypointRCNN_ResNet50_FPN", "RetinaNet_ResNet50_FPN")
    kind = type(weights).__name__.removesuffix("_Weights")
    for norm in body.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 0.0 if kind in oldest and weights.name == "COCO_V1" else 1e-5


def _downloaded(name: str, weights: Any) -> dict[str, torch.Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)  # type: ignore[no-any-return]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"the weights {weights.name} of torchvision's {name} cannot be had: {reason}; give them as a file "
            f"(--weights {weights.url.rpartition('/')[2]})"
        ) from error


def _detectors_preprocessing(module: Any) -> Preprocessing:
    """A detector takes 0..1 RGB, subtracts the mean itself, and resizes what is not as large as it wants images."""
    side = module.transform.min_size[-1]
    return Preprocessing(module.transform.fixed_size or side, interpolation="bilinear", resize="squash")


def _preprocessing(name: str, weights: Any) -> Preprocessing:
    transforms = weights.transforms()
    size = getattr(transforms, "crop_size", transforms.resize_size)[0]  # images to be segmented are not cropped
    interpolation = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.NEAREST: "nearest"}
    return Preprocessing(
        size,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=interpolation.get(transforms.interpolation, "bicubic"),
        crop=min(1.0, size / transforms.resize_size[0]),
        fixed_size=re.match(r"vit_|maxvit", name) is not None,
    )


def _labels(categories: list[str] | None) -> Labels:
    """timm's names where they are the same classes, since they have all synonyms and WordNet ids."""
    return Labels(categories) if categories and len(categories) != 1000 else imagenet_labels()
