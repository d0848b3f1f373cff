"""Tiny networks of images and texts with random weights, as transformers saves them, with a tokenizer of words."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["a", "photo", "of", "picture", "close", "view", "sharp", "drawing", "red", "blue", "fox", "dog", "cat", "the"]
LENGTH = 12  # tokens of the text towers
SIZE = 32  # pixels


def save_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def save_clip(folder: Path, kind: str = "clip", words: list[str] = WORDS, layers: int = 2) -> torch.nn.Module:
    """A CLIP or SigLIP, whole, in a folder."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    vision = {"image_size": SIZE, "patch_size": 8, **small}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {"vocab_size": 4 + len(words), "max_position_embeddings": LENGTH, **ids, **small}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        build = transformers.CLIPModel
        square = {"height": SIZE, "width": SIZE}
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        build = transformers.SiglipModel
        processor = transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tokenizer(folder, words)
    return model
