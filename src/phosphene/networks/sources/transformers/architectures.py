"""Which of transformers' classes a folder's network is opened as, and what it says in other words than logits.

A network of images and texts gives its image encoder, one that learns by masking its encoder; a network of videos,
sounds or texts is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from phosphene.errors import InputError

_PIXELS = "pixel_values"
_VIDEO = "Timesformer"  # which says that it takes images, and takes videos

# Tasks whose outputs are named by `id2label`.
_LABELED = ("IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "INSTANCE_SEGMENTATION",
            "IMAGE_SEGMENTATION", "OBJECT_DETECTION")  # fmt: skip
# Tasks that need only what is in front of the head: they restore pixels that were masked.
_OF_ENCODERS = ("ForPreTraining", "ForMaskedImageModeling")


class Architecture(NamedTuple):
    """One way to build a network.

    Attributes:
        kind: the class of transformers.
        config: what it is built from: a part of the folder's, where a part of the network is taken.
        labeled: whether the configuration names its outputs.
        note: what was taken, where that is a part; empty for the whole.
    """

    kind: Any
    config: Any
    labeled: bool
    note: str = ""

    def make(self, **options: Any) -> nn.Module:
        """The network, untrained, and ready for a batch of images."""
        module: nn.Module = self.kind(self.config, **options)
        return fed_by_images(module.eval())

    def without_pooler(self) -> dict[str, bool]:
        """The option that builds the network without its pooler, which many were published without."""
        known = "add_pooling_layer" in inspect.signature(self.kind.__init__).parameters
        return {"add_pooling_layer": False} if known else {}


def architectures(transformers: Any, config: Any, title: str) -> list[Architecture]:
    """How to build what a configuration describes, the best way first; others are for weights that have no head.

    Raises:
        InputError: it takes something else than images, or transformers cannot build it.
    """
    kind, model_type = _named(transformers, config), str(getattr(config, "model_type", ""))
    if kind is not None and _takes_images_only(kind):
        encoder = _mapped(transformers, "MODEL_MAPPING", config) if kind.__name__.endswith(_OF_ENCODERS) else None
        if encoder is None:
            return [Architecture(kind, config, _is_labeled(transformers, kind))]
        note = f"of {title} ({kind.__name__}) the encoder is opened ({encoder.__name__})"
        return [Architecture(encoder, config, False, note)]
    classifier = _mapped(transformers, "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", config)
    tower = _tower(transformers, config) if kind is not None or classifier is None else None
    if tower is not None:
        note = f"of {title} ({model_type}) the image encoder is opened ({tower.__name__}), which takes images alone"
        return [Architecture(tower, _as_whole(config), False, note)]
    if kind is not None:
        raise InputError(_refusal(title, model_type, kind))
    found = [
        Architecture(known, config, labeled)
        for mapping, labeled in (("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", True), ("MODEL_MAPPING", False))
        if (known := _mapped(transformers, mapping, config)) is not None and _takes_images_only(known)
    ]
    if not found:
        raise InputError(_refusal(title, model_type, _mapped(transformers, "MODEL_MAPPING", config)))
    return found


def fed_by_images(module: nn.Module) -> nn.Module:
    """Have a network that takes more than images given the rest: its patches in order, and none of them masked."""
    config: Any = getattr(module, "config", None)
    kind = getattr(config, "model_type", "")
    if kind == "vit_mae":
        config.mask_ratio = 0.0
        module.register_forward_pre_hook(_in_order, with_kwargs=True)
    elif kind == "siglip2_vision_model":
        module.register_forward_pre_hook(_as_patches, with_kwargs=True)
    return module


def own_size(config: Any) -> Any:
    """The size of images that a configuration names, in one of transformers' ways to write it; None if it does not."""
    size = getattr(config, "image_size", None)
    if size is None and isinstance(getattr(config, "num_patches", None), int):
        return round(config.num_patches**0.5) * int(config.patch_size)
    return size


def assumed_preset(config: Any) -> tuple[str, dict[str, Any]]:
    """The preset, and what differs from it, by which networks of this type usually preprocess."""
    kind = str(getattr(config, "model_type", ""))
    if any(word in kind for word in ("clip", "llava", "blip", "owl")) and "siglip" not in kind:
        return "unit", {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
    if kind in ("vit", "beit", "data2vec-vision", "dpt", "donut-swin", "glpn") or "siglip" in kind:
        return ("unit" if kind == "glpn" else "tf"), {}
    return "torch", {}


def _named(transformers: Any, config: Any) -> Any | None:
    """The class that the configuration names, if transformers has it, and has it for such configurations."""
    names = getattr(config, "architectures", None) or []
    for name in names if isinstance(names, list) else []:
        kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
        known = inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel)
        # A class may be written for a part of what the folder describes: its image encoder's, mostly.
        if known and getattr(kind, "config_class", None) is type(config):
            return kind
    return None


def _mapped(transformers: Any, mapping: str, config: Any) -> Any | None:
    known: Mapping[Any, Any] | None = getattr(transformers, mapping, None)
    kind = known[type(config)] if known is not None and type(config) in known else None
    return kind[0] if isinstance(kind, tuple) else kind


def _tower(transformers: Any, config: Any) -> Any | None:
    """The class of the image encoder of a network that takes more than images."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return None
    named = getattr(transformers, type(vision).__name__.replace("Config", "Model"), None)
    tower = _mapped(transformers, "MODEL_MAPPING", vision) or named
    return tower if inspect.isclass(tower) and _takes_images_only(tower) else None


def _takes_images_only(kind: Any) -> bool:
    if getattr(kind, "main_input_name", None) != _PIXELS:
        return False
    modalities = getattr(kind, "input_modalities", ("image",))
    given = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    return given == ("image",) and not kind.__name__.startswith(_VIDEO)


def _is_labeled(transformers: Any, kind: Any) -> bool:
    for task in _LABELED:
        known = getattr(transformers, f"MODEL_FOR_{task}_MAPPING", None)
        kinds = [] if known is None else list(getattr(known, "_model_mapping", {}).values())
        names = {name for entry in kinds for name in (entry if isinstance(entry, tuple | list) else (entry,))}
        if kind.__name__ in names:
            return True
    return False


def _as_whole(config: Any) -> Any:
    """The tower's configuration; it computes attention as the whole does."""
    attention = getattr(config, "_attn_implementation", None)
    if attention in ("eager", "sdpa"):
        config.vision_config._attn_implementation = attention
    return config.vision_config


def _refusal(title: str, model_type: str, kind: Any | None) -> str:
    modalities = getattr(kind, "input_modalities", None)
    given = (modalities,) if isinstance(modalities, str) else tuple(modalities or ())
    if kind is not None and kind.__name__.startswith(_VIDEO):
        given = ("video",)
    words = " and ".join({"video": "videos", "audio": "sounds", "text": "texts"}.get(m, f"{m}s") for m in given)
    if words and given != ("image",):
        reason = f"is a network of {words}"
    else:
        reason = "is no image classifier and no image encoder that transformers can build"
    return (
        f"{title} ({model_type}) {reason}: expected a network that takes one image at a time, for example a folder "
        "of ViT, DINOv2, CLIP, Swin, ConvNeXt or ResNet"
    )


# What a network takes besides an image


def _in_order(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A masked autoencoder sorts its patches by random numbers; rising ones leave them in their places."""
    pixels: Tensor = inputs[0] if inputs else options[_PIXELS]
    side = int(module.config.patch_size)  # type: ignore[union-attr, arg-type]
    patches = (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
    noise = torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
    return inputs, {"noise": noise, **options}


def _as_patches(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Images as SigLIP 2 takes them: rows of patches, all of them valid, and how many there are down and across."""
    pixels: Tensor = inputs[0] if inputs else options[_PIXELS]
    if pixels.ndim != 4:
        return inputs, options
    side = int(module.config.patch_size)  # type: ignore[union-attr, arg-type]
    rows, channels, down, across = len(pixels), pixels.shape[1], pixels.shape[2] // side, pixels.shape[3] // side
    cut = pixels[:, :, : down * side, : across * side].reshape(rows, channels, down, side, across, side)
    patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(rows, down * across, side * side * channels)
    given = {
        "pixel_attention_mask": torch.ones(rows, down * across, dtype=torch.int64, device=pixels.device),
        "spatial_shapes": torch.tensor([[down, across]] * rows, device=pixels.device),
    }
    return (patches, *inputs[1:]), given | options
