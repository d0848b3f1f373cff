"""Networks of images and texts of transformers (CLIP, SigLIP): the image tower, and its text tower beside it.

Both towers make embeddings in one space.  The image tower is the network that is shown, and its output the embedding;
the text tower is loaded when the first text is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from phosphene.errors import InputError, first_line
from phosphene.extras import require
from phosphene.files import read_text
from phosphene.networks.network import Network
from phosphene.networks.sources.transformers.architectures import Architecture
from phosphene.networks.sources.transformers.files import CONFIG, find_folder
from phosphene.networks.sources.transformers.model import quiet, read_config, trained, weight_source
from phosphene.networks.sources.transformers.processor import processor_values, read_preprocessing
from phosphene.networks.text import TextEncoder, TextTower

TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model", "tokenizer.model"),
)
_SETTINGS = "tokenizer_config.json"
_LARGEST_TOKENIZER = 2**27  # bytes of one of these files


class _Family(NamedTuple):
    """A kind of networks of images and texts: the classes of its towers, and what their outputs call the embedding."""

    image: str
    image_output: str
    text: str
    text_output: str


_FAMILIES = {
    "clip": _Family("CLIPVisionModelWithProjection", "image_embeds", "CLIPTextModelWithProjection", "text_embeds"),
    "siglip": _Family("SiglipVisionModel", "pooler_output", "SiglipTextModel", "pooler_output"),
    "siglip2": _Family("Siglip2VisionModel", "pooler_output", "Siglip2TextModel", "pooler_output"),
}


def open_image_text(name: str | Path, weights: str | Path | None = None) -> Network:
    """The image tower of a network of images and texts, whose output is the embedding, with its text tower.

    Args:
        name: a folder that transformers saved the whole network into, with its tokenizer, or a name on the hub
            ("openai/clip-vit-base-patch32", "google/siglip-base-patch16-224").
        weights: a file of them, of both towers.

    Raises:
        InputError: it cannot be had, is of another kind, has no embeddings, needs code of its own, or is damaged.
    """
    transformers = require("transformers", extra="transformers", what=str(name))
    folder, title = find_folder(name, weights is None, TOKENIZERS)
    source = weight_source(folder, title, weights, True)
    with quiet(transformers):
        config = read_config(transformers, folder, title)
        family = _family_of(config, title)
        way, plan, module = trained([_tower(transformers, config, family.image, "vision")], source)
        values = processor_values(transformers, folder, title)
    preprocessing, notes = read_preprocessing(values, way.config, plan, title)
    kind = str(config.model_type)
    notes["part"] = f"of {title} ({kind}) the image tower is shown; its output is the embedding that texts share"
    network = Network(embedding_of(module.float(), family.image_output), preprocessing, None, title, notes=notes)
    network.texts = TextEncoder(title, partial(_load_text_tower, folder, title, weights))
    return network


def embedding_of(module: nn.Module, output: str) -> nn.Module:
    """A module of transformers' whose output is one tensor of what it returned, which are no logits."""
    module.register_forward_hook(partial(_pick, output))
    module.num_classes = 0  # type: ignore[assignment]
    return module


def _pick(output: str, module: nn.Module, inputs: Any, result: Any) -> Tensor:
    tensor: Tensor = getattr(result, output)
    return tensor


def _family_of(config: Any, title: str) -> _Family:
    kind = str(getattr(config, "model_type", ""))
    if kind not in _FAMILIES:
        part = next((name for name in _FAMILIES if kind.startswith(f"{name}_")), "")
        why = f"a part of one ({kind})" if part else f"of type {kind}"
        raise InputError(
            f"{title} is {why}: expected a whole network of images and texts, {', '.join(_FAMILIES)}; as an image "
            f"network it opens as hf:{title}"
        )
    return _FAMILIES[kind]


def _tower(transformers: Any, config: Any, kind: str, part: str) -> Architecture:
    own = getattr(config, f"{part}_config")
    if hasattr(config, "projection_dim"):  # which a tower's configuration may say otherwise
        own.projection_dim = config.projection_dim
    attention = getattr(config, "_attn_implementation", None)
    if attention in ("eager", "sdpa"):
        own._attn_implementation = attention
    return Architecture(getattr(transformers, kind), own, False, "a tower")


# Texts


def _load_text_tower(folder: Path, title: str, weights: str | Path | None) -> TextTower:
    """The text tower of a network, and its tokenizer.

    Raises:
        InputError: there is no tokenizer, it is not read, or the tower's weights are missing.
    """
    transformers = require("transformers", extra="transformers", what=title)
    source = weight_source(folder, title, weights, True)
    with quiet(transformers):
        config = read_config(transformers, folder, title)
        family = _family_of(config, title)
        tokenizer = _tokenizer(transformers, folder, title)
        _, _, module = trained([_tower(transformers, config, family.text, "text")], source)
    limit = int(config.text_config.max_position_embeddings)
    module = module.float()

    def count(prompt: str) -> int:
        return len(tokenizer(prompt)["input_ids"])

    def embed(prompts: Sequence[str]) -> Tensor:
        # All of one length, so that no prompt's embedding depends on another's; SigLIP was trained so.
        tokens = tokenizer(list(prompts), padding="max_length", max_length=limit, return_tensors="pt")
        device = next(module.parameters()).device
        given = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask") if key in tokens}
        found: Tensor = getattr(module(**given), family.text_output)
        return found

    return TextTower(module, count, limit, embed)


def _tokenizer(transformers: Any, folder: Path, title: str) -> Any:
    """The tokenizer beside a network, one of transformers' own: no code of the folder's runs."""
    files = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    if not files:
        raise InputError(f"{title} has no tokenizer: expected a {TOKENIZERS[0]} beside its {CONFIG}")
    for file in files:
        if file.stat().st_size > _LARGEST_TOKENIZER:
            raise InputError(f"{file.name} of {title} has {file.stat().st_size:,} bytes: expected fewer")
    if (folder / _SETTINGS).is_file() and '"auto_map"' in read_text(folder / _SETTINGS, f"{_SETTINGS} of {title}"):
        raise InputError(f"{_SETTINGS} of {title} asks for code of its own: expected a tokenizer of transformers'")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer("a", padding="max_length", max_length=8)
    except Exception as error:  # of a damaged file's many
        raise InputError(f"the tokenizer of {title} is not read: {first_line(error)}") from error
    return tokenizer
