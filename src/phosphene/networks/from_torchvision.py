"""Any classifier of torchvision, fed and labelled as its weights' metadata say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torchvision.models as models
from torchvision.transforms import InterpolationMode

from phosphene.errors import InputError, did_you_mean
from phosphene.files import is_file
from phosphene.networks.labels import Labels, imagenet_labels
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import put_weights, read_weights


def torchvision_names() -> list[str]:
    """The classifiers of images that torchvision has."""
    return list(models.list_models(module=models))


def open_torchvision(
    name: str, weights: str | Path | None = None, pretrained: bool = True, partial: bool = False
) -> Network:
    """A torchvision network with its default weights, with others of its own, or with those of a file.

    Args:
        name: as torchvision spells it.
        weights: the name of a member of the network's weights enum ("IMAGENET1K_V1"), or a state-dict file.  What a
            file's network eats is taken from the member of the same file name, or else from the oldest.
        pretrained: False leaves it untrained.
        partial: a file may have weights for some layers only.

    Raises:
        InputError: the name or the weights are unknown, cannot be had, or are of another network.
    """
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
        module = models.get_model(name, weights=None)
    else:
        state = read_weights(file) if file is not None else _downloaded(name, chosen)
        module = models.get_model(name, weights=None, **_options(name, state))
        unloaded = put_weights(module, state, name, str(file or chosen), partial)
    return Network(module, _preprocessing(name, chosen), _labels(chosen.meta["categories"]), name, unloaded=unloaded)


def _options(name: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As torchvision itself builds the two networks whose trained weights come from TensorFlow."""
    if name not in ("googlenet", "inception_v3"):
        return {}
    heads = any(key.lower().startswith("aux") for key in state)
    return {"init_weights": False, "transform_input": True, "aux_logits": heads}


def _downloaded(name: str, weights: Any) -> dict[str, torch.Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)  # type: ignore[no-any-return]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"the weights {weights.name} of torchvision's {name} cannot be had: {reason}; give them as a file "
            f"(--weights {weights.url.rpartition('/')[2]})"
        ) from error


def _preprocessing(name: str, weights: Any) -> Preprocessing:
    transforms = weights.transforms()
    size = transforms.crop_size[0]
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
