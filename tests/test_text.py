"""Texts as units: the cosine with a text tower's embedding, of CLIP and SigLIP, and of open_clip's networks."""

import json
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
import torch

import phosphene
from phosphene import InputError, Recipe, Text, parse_unit
from phosphene.cli.program import main
from phosphene.networks.text import TEMPLATES

transformers = pytest.importorskip("transformers")

from tiny_clip import LENGTH, SIZE, WORDS, save_clip, save_tokenizer  # noqa: E402

ODD = ("fox - dog", "a + b", 'say "hi"', "x  y", "été", "\u202eabc\nd", "5*3", "a-b c", "it's. so!", "-x", "a\\", "\0",
       "😀", "text:a", '@["{}"]', "(a)", "{}")  # fmt: skip


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return {kind: (folder / kind, save_clip(folder / kind, kind)) for kind in ("clip", "siglip")}


@pytest.fixture(scope="session", params=["clip", "siglip"])
def pair(saved, request):
    """A network, and transformers' own model."""
    folder, model = saved[request.param]
    return phosphene.open(f"clip:{folder}"), model


@pytest.fixture(scope="session")
def clip(saved):
    return phosphene.open(f"clip:{saved['clip'][0]}")


def features(model, prompts):
    """What transformers makes of prompts, each of length 1."""
    folder = model.name_or_path
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        prompts, padding="max_length", max_length=LENGTH, return_tensors="pt", return_token_type_ids=False
    )
    with torch.no_grad():
        return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)


# Embeddings


def test_a_texts_vector_is_the_mean_of_what_transformers_makes_of_its_prompts(saved, pair):
    network, model = pair
    model.name_or_path = saved[model.config.model_type][0]
    prompts = [template.replace("{}", "a red fox") for template in TEMPLATES]
    expected = torch.nn.functional.normalize(features(model, prompts).mean(0), dim=0)
    torch.testing.assert_close(torch.tensor(network.texts.vector("a red fox")), expected)
    single = parse_unit('text:"a red fox"@["{}"]', network)
    torch.testing.assert_close(torch.tensor(single.vector), features(model, ["a red fox"])[0])


def test_the_output_is_the_embedding_that_transformers_makes_of_an_image(pair):
    network, model = pair
    pixels = 255 * torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = network.activations(pixels, "output")["output"]
    with torch.no_grad():
        expected = model.get_image_features(network.preprocessing(pixels)).pooler_output
    torch.testing.assert_close(found, expected)
    assert network.classes == 0


def test_a_text_has_the_same_numbers_whatever_else_is_encoded_and_by_however_many_threads(clip):
    before = torch.get_num_threads()
    alone = clip.texts.vector("a blue dog")
    assert torch.get_num_threads() == before
    fresh = pickle.loads(pickle.dumps(clip))
    torch.set_num_threads(2)
    try:
        fresh.texts.vector("the cat")
        assert fresh.texts.vector("a blue dog") == alone
    finally:
        torch.set_num_threads(before)


def test_a_text_tower_is_loaded_when_the_first_text_is_encoded(saved, monkeypatch):
    from phosphene.networks.sources.transformers import image_text

    network = phosphene.open(f"clip:{saved['clip'][0]}")
    loaded = []
    trained = image_text.trained
    monkeypatch.setattr(image_text, "trained", lambda *rest: loaded.append(1) or trained(*rest))
    parse_unit("vision_model.encoder.layers.0:3", network)
    assert not loaded
    for _ in range(2):
        parse_unit("text:fox", network)
        parse_unit("text:dog", network)
    assert len(loaded) == 1


def test_a_projection_that_only_the_whole_names_is_the_towers(saved, tmp_path):
    shutil.copytree(saved["clip"][0], tmp_path / "clip")
    path = tmp_path / "clip" / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"].pop("projection_dim", None)
    config["text_config"].pop("projection_dim", None)
    path.write_text(json.dumps(config))
    network = phosphene.open(f"clip:{tmp_path / 'clip'}")
    assert len(parse_unit("text:fox", network).vector) == network.output_layer.channels == 8


def test_clips_own_tokenizer_is_read_from_its_vocabulary_and_merges(saved, tmp_path):
    shutil.copytree(saved["clip"][0], tmp_path / "clip")
    folder = tmp_path / "clip"
    (folder / "tokenizer.json").unlink()
    letters = list("abcdefghijklmnopqrstuvwxyz")
    vocabulary = ["<|startoftext|>", "<|endoftext|>", "f", "o", "x</w>", "fo", "fox</w>", *letters]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(dict.fromkeys(vocabulary))}))
    (folder / "merges.txt").write_text("#version: 0.2\nf o\nfo x</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    network = phosphene.open(f"clip:{folder}")
    assert network.texts.tower.count("fox") == 3
    assert parse_unit('text:"fox"@["{}"]', network).vector


# Units


@pytest.mark.slow
def test_a_picture_comes_nearer_to_its_text_and_is_made_again_from_its_file(saved, clip, tmp_path):
    recipe = Recipe.load("text").override({"steps": 12, "views.count": 2})
    result = phosphene.ascend(clip, ["text:a red fox", Text('dog + "cat"')], recipe)
    for picture in result:
        assert picture.objectives[-1] > picture.objectives[0] + 0.05
        assert -1 <= picture.scores["objective"] <= 1
    image = torch.from_numpy(result[1].pixels.copy()).permute(2, 0, 1)[None].float()
    embedding = clip.activations(image, "output")["output"][0]
    cosine = torch.nn.functional.cosine_similarity(embedding, torch.tensor(result[1].unit.vector), dim=0)
    assert result[1].scores["objective"] == pytest.approx(cosine.item(), abs=1e-6)
    result.save(tmp_path)
    assert result[0].name == "text_a_red_fox"
    assert phosphene.show(tmp_path / f"{result[1].name}.png")["unit"] == 'text:"dog + \\"cat\\""'
    assert phosphene.again(tmp_path / f"{result[1].name}.png", clip).same


def test_what_comes_out_of_a_text_does_not_depend_on_what_is_made_beside_it(clip):
    recipe = Recipe.load("text").override({"steps": 3, "views.count": 2})
    texts = ["text:a red fox", "text:a dog", "output:3"]
    together = phosphene.ascend(clip, texts[::-1], recipe, options=phosphene.RunOptions(batch=3))
    alone = phosphene.ascend(clip, texts[0], recipe, options=phosphene.RunOptions(batch=1))
    assert np.array_equal(together[2].pixels, alone[0].pixels)


@pytest.mark.parametrize("text", ODD)
def test_every_text_is_spelled_so_that_it_is_read_as_itself(clip, text):
    other = ("{}", 'a "{}" - of')
    for unit in (Text(text), Text(text, other)):
        assert parse_unit(str(unit), clip) == unit
        assert str(unit).isprintable()
        total = parse_unit(f"0.5*{unit} - {Text('dog - cat', other)} + visual_projection:3", clip)
        assert [factor for factor, _ in total.parts] == [0.5, -1, 1]
        assert total.parts[0][1] == unit
        assert all(part.vector for _, part in total.parts[:2])


def test_texts_are_scenes_and_no_patterns(clip):
    recipe = Recipe.load("natural")
    assert (
        recipe.for_unit(Text("fox"))
        == recipe.for_unit(phosphene.Class(0))
        != recipe.for_unit(phosphene.Channel("output", 0))
    )


def test_a_network_whose_layer_is_called_text_keeps_its_units():
    module = torch.nn.Sequential()
    module.add_module("text", torch.nn.Conv2d(3, 4, 3))
    network = phosphene.open(module, phosphene.Preprocessing(size=16))
    assert parse_unit("text:3", network) == phosphene.Channel("text", 3)


def test_layers_whose_names_have_signs_in_them_stand_beside_texts_that_have(clip):
    class Signs(torch.nn.Module):
        num_classes = 0

        def __init__(self):
            super().__init__()
            self.add_module("a - b", torch.nn.Conv2d(3, 4, 3))

        def forward(self, images):
            return getattr(self, "a - b")(images).mean((2, 3))

    network = phosphene.open(Signs(), phosphene.Preprocessing(size=16))
    network.texts = phosphene.networks.text.TextEncoder("signs", lambda: clip.texts.tower)
    network.texts.vector = lambda *rest: (0.5, 0.5, 0.5, 0.5)
    unit = parse_unit('0.5*a - b:3 - 2*text:"a - b:3" + text:"c*d"', network)
    assert [factor for factor, _ in unit.parts] == [0.5, -2, 1]
    assert [part for _, part in unit.parts] == [phosphene.Channel("a - b", 3), Text("a - b:3"), Text("c*d")]


# Bad input


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        ("text:", "expected words"),
        ('text:"a', "in quotes as JSON has them"),
        ('text:"a"@[]', "in quotes as JSON has them"),
        ('text:"a"@["b"]', "expected words with one {}"),
        ('text:"\\ud800"', "half a letter"),
        ("text:" + "fox " * LENGTH, f"takes {LENGTH}: expected a shorter one"),
        ("text:" + "a" * 1001, "at most 1000"),
        (" + ".join(f'text:"a {i}"' for i in range(65)), "a unit of 65 texts: expected at most 64"),
    ],
)
def test_a_text_that_cannot_be_is_refused_in_a_sentence(clip, unit, says):
    with pytest.raises(InputError, match=re.escape(says)):
        parse_unit(unit, clip)


def test_the_sentence_on_a_long_text_has_both_counts(clip):
    with pytest.raises(InputError, match="has 17 tokens with its template, and the text tower of clip takes 12"):
        parse_unit('text:"' + " ".join(["fox"] * 15) + '"@["{}"]', clip)


def test_a_network_without_a_text_tower_says_so(small, saved):
    for network in (small, phosphene.open(f"hf:{saved['clip'][0]}")):
        with pytest.raises(InputError, match="has no text tower: expected a network of images and texts"):
            parse_unit("text:fox", network)


def test_a_folder_that_is_no_network_of_images_and_texts_is_refused(tmp_path, saved):
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").write_bytes((saved["clip"][0] / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="of type vit: expected a whole network of images and texts"):
        phosphene.open(f"clip:{tmp_path / 'vit'}")
    with pytest.raises(InputError, match="cannot be had from Hugging Face's hub"):
        phosphene.open("clip:nobody/no-such-network")


def test_a_tokenizer_that_is_missing_damaged_or_code_is_refused_when_a_text_is_encoded(saved, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(saved["clip"][0], folder)
    network = phosphene.open(f"clip:{folder}")  # which needs none
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="the tokenizer of clip is not read"):
        network.texts.vector("fox")
    (folder / "tokenizer.json").write_text(whole)
    (folder / "hello.py").write_text("raise SystemExit('executed')")
    settings = {"tokenizer_class": "Hello", "auto_map": {"AutoTokenizer": ["hello.Hello", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="asks for code of its own"):
        network.texts.vector("fox")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match="has no tokenizer: expected a tokenizer"):
        phosphene.open(f"clip:{folder}").texts.vector("fox")


# The command


@pytest.mark.slow
def test_the_command_shows_texts_by_the_recipe_for_them(saved, tmp_path, capsys):
    network = f"clip:{saved['clip'][0]}"
    words = ["classes", "--text", "a red fox", "--text", "a dog", "--template", "a drawing of {}", "-n", network]
    assert main([*words, "--steps", "1", "-o", str(tmp_path)]) == 0
    known = phosphene.show(tmp_path / "text_a_red_fox.png")
    assert known["unit"] == 'text:"a red fox"@["a drawing of {}"]'
    assert (known["label"], known["recipe"]["name"]) == ("a red fox", "text")
    assert "recipe   text:" in capsys.readouterr().out
    for wrong, says in [
        ([], "nothing to show is named"),
        (["3", "--template", "a {}"], "--template is for a text"),
        (["--text", "fox", "--template", "a"], "expected words with one {}"),
        (["--text", "fox"], "efficientnet_lite0 has no text tower"),
    ]:
        assert main(["classes", *wrong]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_text_is_ranked_among_words_on_its_own_image(saved, tmp_path, capsys):
    from phosphene.judges.word_ranks import rank_words

    network = phosphene.open(f"clip:{saved['clip'][0]}")
    recipe = Recipe.load("text").override({"steps": 24, "views.count": 2})
    picture = phosphene.ascend(network, Text("a red fox", ("{}",)), recipe)[0]
    words = ["dog", "the cat", "blue", "a red fox", "drawing"]
    (found,) = rank_words([picture], words, network=network)
    image = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float()
    embedding = network.activations(image, "output")["output"]
    cosines = torch.nn.functional.cosine_similarity(network.texts.vectors(words, ["{}"]), embedding)
    order = [words[i] for i in cosines.argsort(descending=True)]
    assert [word for word, _ in found["nearest_words"]] == order
    assert found["selectivity"] == {"rank": 1 + order.index("a red fox"), "of": 5}
    path = picture.save(tmp_path)
    (tmp_path / "words.txt").write_text("\n".join(words))
    options = ["-n", f"clip:{saved['clip'][0]}", "--judges", "none"]
    assert main(["judge", str(path), "--words", str(tmp_path / "words.txt"), *options]) == 0
    assert "nearest words to a red fox:" in capsys.readouterr().out
    assert phosphene.show(path)["scores"]["selectivity"] == found["selectivity"]
    other = phosphene.ascend(network, "output:3", Recipe.load("naive").override({"steps": 1}))
    assert rank_words(list(other), words, network=network) == [{}]


# open_clip


@pytest.fixture(scope="session")
def tiny_open_clip(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": SIZE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    timm = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear"}
    for name, tower in (("tiny-clip", vision), ("tiny-timm", timm)):
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": tower, "text_cfg": text}))
    open_clip.add_model_config(folder)
    return open_clip, *_of_open_clip(open_clip, "tiny-clip", folder)


def _of_open_clip(open_clip, name, folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return model, folder / f"{name}.pt"


@pytest.mark.slow
def test_a_network_of_open_clips_has_its_embeddings_and_its_texts(tiny_open_clip):
    open_clip, model, weights = tiny_open_clip
    network = phosphene.open("open_clip:tiny-clip", weights=weights)
    pixels = 255 * torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.get_tokenizer("tiny-clip")(["a red fox"])
    with torch.no_grad():
        image, text = model.encode_image(network.preprocessing(pixels)), model.encode_text(tokens, normalize=True)[0]
    torch.testing.assert_close(network.activations(pixels, "output")["output"], image)
    unit = parse_unit('text:"a red fox"@["{}"]', network)
    torch.testing.assert_close(torch.tensor(unit.vector), text)
    result = phosphene.ascend(network, unit, Recipe.load("text").override({"steps": 8, "views.count": 2}))
    assert result[0].objectives[-1] > result[0].objectives[0]
    with pytest.raises(InputError, match="has 32 tokens with its template, and the text tower of tiny-clip takes 16"):
        parse_unit('text:"' + " ".join(["fox"] * 30) + '"@["{}"]', network)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [("tiny-clip", (SIZE + 16, SIZE + 16), 8), ("tiny-clip", (SIZE + 8, 2 * SIZE), 8), ("tiny-timm", (96, 128), 16)],
)
def test_a_network_of_open_clips_takes_other_sizes_as_open_clip_loads_it_for_them(
    tiny_open_clip, tmp_path, name, size, patch
):
    open_clip, _, weights = tiny_open_clip
    if name != "tiny-clip":
        _, weights = _of_open_clip(open_clip, name, tmp_path)
    network = phosphene.open(f"open_clip:{name}", weights=weights)
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    resized = network.with_input_size(size)
    pixels = 255 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    other = open_clip.create_model(name, pretrained=str(weights), force_image_size=size).eval()
    with torch.no_grad():
        expected = other.encode_image(network.preprocessing(pixels))
    torch.testing.assert_close(resized.activations(pixels, "output")["output"], expected, rtol=0, atol=0)
    layer = next(layer for layer in resized.layers if layer.tokens is not None)
    assert layer.tokens.grid == (size[0] // patch, size[1] // patch)
    assert all(value.equal(before[key]) for key, value in network.module.state_dict().items())
    with pytest.raises(InputError, match=f"patches of {patch}x{patch} pixels do not divide it"):
        network.with_input_size((size[0] + 1, size[1]))


def test_a_network_or_tag_that_open_clip_has_not_is_refused_with_the_nearest(tiny_open_clip):
    with pytest.raises(InputError, match="no network 'ViT-B-33'; did you mean ViT-B-32"):
        phosphene.open("open_clip:ViT-B-33/openai")
    with pytest.raises(InputError, match="names no weights: expected their tag"):
        phosphene.open("open_clip:ViT-B-32")
    with pytest.raises(InputError, match="no weights 'laion2b'; did you mean"):
        phosphene.open("open_clip:ViT-B-32/laion2b")


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_weights_of_open_clip_that_are_code_are_refused(tiny_open_clip, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"weight": Hostile()}, tmp_path / "hostile.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    for name in ("hostile.pt", "program.pt", "none.safetensors"):
        with pytest.raises(InputError, match=name):
            phosphene.open("open_clip:tiny-clip", weights=tmp_path / name)


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r'pip install "phosphene\[open-clip\]"'):
        phosphene.open("open_clip:ViT-B-32/openai")


def test_the_tokenizer_of_words_knows_its_words(tmp_path):
    save_tokenizer(tmp_path)
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path)(" ".join(WORDS))["input_ids"]) == len(WORDS) + 2
