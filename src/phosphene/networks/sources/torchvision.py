"""torchvision's classifiers, detectors and segmentation, preprocessed and labeled as their weights' metadata say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from phosphene.errors import InputError, did_you_mean, first_line
from phosphene.files import is_file
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.labels import Labels, assumed_labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.transforms import read_transforms
from phosphene.networks.weights import put_weights, read_weights


def torchvision_names() -> list[str]:
    """The networks of torchvision that take an image: those that classify, those that detect, those that segment."""
    return [name for part in (None, "detection", "segmentation") for name in _names_in(part)]


def _names_in(part: str | None = None) -> list[str]:
    """The networks of `torchvision.models`, or of a part of it."""
    from torchvision import models

    names: list[str] = models.list_models(module=models if part is None else getattr(models, part))
    return names


def is_torchvision(name: str) -> bool:
    """Whether torchvision has a network of that name, of whatever kind."""
    from torchvision import models

    return name in models.list_models()


def is_torchvision_module(module: nn.Module) -> bool:
    """Whether torchvision built a module."""
    return type(module).__module__.startswith("torchvision.models.")


def of_torchvision_module(module: nn.Module, name: str = "", weights: Any = None) -> Network:
    """A network that torchvision built.

    Args:
        weights: the member of an enum of weights that it was built with; without one what ImageNet's networks expect
            is assumed, and noted.
    """
    name = name or type(module).__name__
    if weights is not None:
        labels = _labels(weights.meta.get("categories"))
        return Network(module, _preprocessing(module, weights), labels, name)
    if _is_detector(module):
        return Network(module, _detector_preprocessing(module), name=name)
    size = getattr(module, "image_size", 299 if type(module).__name__ == "Inception3" else 224)
    usual = {"interpolation": "bilinear", "crop": 0.875, "fixed_size": _has_fixed_size(module)}
    preprocessing = Preprocessing.preset("torch", size=size, **usual)
    advice = "weights= (a member of torchvision's enum) or preprocessing= says it"
    what = f"{preprocessing.describe()}, {preprocessing.height}x{preprocessing.width}"
    notes = {"preprocessing": f"nothing says what {name} expects: {what}, as for ImageNet, is assumed; {advice}"}
    imagenet = assumed_labels(_outputs(module))
    if imagenet is not None:
        notes["labels"] = f"nothing says what the outputs of {name} mean: ImageNet's classes are assumed; {advice}"
    return Network(module, preprocessing, imagenet, name, notes)


def _outputs(module: nn.Module) -> int:
    """Of the last layer that has weights; the auxiliary ones of a network come first."""
    heads = [each for each in module.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    return 0 if not heads else int(getattr(heads[-1], "out_features", getattr(heads[-1], "out_channels", 0)))


def _has_fixed_size(module: nn.Module) -> bool:
    return type(module).__name__ == "MaxVit"


def open_torchvision(
    name: str, weights: str | Path | None = None, pretrained: bool = True, partial: bool = False
) -> Network:
    """A torchvision network with its default weights, with others of its own, or with those of a file.

    No weights of a backbone alone are ever downloaded.

    Args:
        name: as torchvision spells it.
        weights: the name of a member of the network's weights enum ("IMAGENET1K_V1"), or a state-dict file.  What a
            file's network expects is taken from the member of the same file name, or else from the oldest.
        pretrained: False leaves it untrained.
        partial: a file may have weights for some layers only.

    Raises:
        InputError: the name or the weights are unknown, cannot be had, or are of another network.
    """
    from torchvision import models

    others = {"video": "video", "optical flow": "optical_flow", "quantized": "quantization"}
    other = next((kind for kind, part in others.items() if name in _names_in(part)), None)
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
    module: nn.Module
    if not pretrained and file is None:
        module = models.get_model(name, weights=None, **model_options(name, {}))
    else:
        state = read_weights(file) if file is not None else _downloaded(name, chosen)
        module = models.get_model(name, weights=None, **model_options(name, state))
        unloaded = put_weights(module, state, name, str(file or chosen), partial)
        _as_frozen(module, state, chosen)
    labels = _labels(chosen.meta["categories"])
    return Network(module, _preprocessing(module, chosen), labels, name, unloaded=unloaded)


def model_options(name: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As torchvision itself builds a network whose weights are these; none for one that stays untrained."""
    if name in ("googlenet", "inception_v3") and state:  # whose trained weights come from TensorFlow
        heads = any(key.lower().startswith("aux") for key in state)
        return {"init_weights": False, "transform_input": True, "aux_logits": heads}
    if name in _names_in("detection"):
        return {"weights_backbone": None}
    if name in _names_in("segmentation"):
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
        with shown_downloads(weights.url.rpartition("/")[2]):
            return weights.get_state_dict(progress=True, check_hash=True)  # type: ignore[no-any-return]
    except Exception as error:
        reason = first_line(error).rstrip(".")
        raise InputError(
            f"the weights {weights.name} of torchvision's {name} cannot be had: {reason}; give them as a file "
            f"(--weights {weights.url.rpartition('/')[2]})"
        ) from error


def _is_detector(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torchvision.models.detection.")


def _detector_preprocessing(module: Any) -> Preprocessing:
    """A detector takes 0..1 RGB, subtracts the mean itself, and resizes what is not as large as it wants images."""
    side = module.transform.min_size[-1]
    return Preprocessing(module.transform.fixed_size or side, interpolation="bilinear", resize="squash")


def _preprocessing(module: nn.Module, weights: Any) -> Preprocessing:
    if _is_detector(module):
        return _detector_preprocessing(module)
    return read_transforms(weights.transforms(), fixed_size=_has_fixed_size(module))


def _labels(categories: list[str] | None) -> Labels:
    """timm's names where they are the same classes, since they have all synonyms and WordNet ids."""
    return Labels(categories) if categories and len(categories) != 1000 else imagenet_labels()
