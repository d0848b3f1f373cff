"""Directions from files and tensors, cosines, and latents of dictionaries, as units."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import opened
from small_recipes import quick
from tiny import vit

import phosphene
from phosphene import Dictionary, Direction, InputError, Latent
from phosphene.cli.program import main
from phosphene.dictionaries.hooks import hook_layer
from phosphene.judges.photo_responses import respond
from phosphene.units.spelling import parse_unit

ROWS = np.random.default_rng(0).normal(size=(5, 12))
ACTIVATION = torch.randn(12, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", ROWS)
    np.save("vector.npy", ROWS[3].astype(np.float32))
    np.savez("rows.npz", probes=ROWS, one=ROWS[3])
    np.savez_compressed("small.npz", probes=ROWS)
    tensors = {"probes": torch.tensor(ROWS).bfloat16(), "one": torch.tensor(ROWS[3]).float()}
    safetensors.torch.save_file(tensors, "rows.safetensors")
    safetensors.torch.save_file({"w": torch.tensor(ROWS[3]).float()}, "one.safetensors", {"layer": "relu2"})


def dictionary(width=12, latents=20, kind="relu", seed=0, **fields):
    random = torch.Generator().manual_seed(seed)
    encoder, decoder = torch.randn(2, latents, width, generator=random)
    bias = torch.randn(latents, generator=random)
    return Dictionary(encoder, bias, decoder, torch.zeros(width), kind, **fields)


@pytest.mark.parametrize(
    "text",
    [
        "rows.npy#3", "vector.npy", "rows.npz#probes,3", "rows.npz#one", "small.npz#3", "rows.safetensors#probes,3",
        "rows.safetensors#one", "one.safetensors", "one.safetensors#w",
    ],
)  # fmt: skip
def test_a_row_of_a_file_is_a_direction_and_is_spelled_by_its_name(text, small):
    unit = parse_unit(f"relu2:[{text}]", small)
    atol = 0.05 if "safetensors#probes" in text else 1e-6  # it is kept in 16 bits
    np.testing.assert_allclose(unit.weights, ROWS[3], atol=atol)
    assert str(unit).startswith(f"relu2:[{text}=")
    assert len(str(unit)) < 60
    assert parse_unit(str(unit), small) == unit
    assert parse_unit(str(unit), small, recorded=True, held=unit.stored_vectors()) == unit


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rows.npy#5", "row 5 of 5 rows: expected 0 to 4"),
        ("rows.npy#-1", "expected a row, such as rows.npy#0"),
        ("rows.npy", "a matrix of 5 rows: expected one of them, such as #0"),
        ("none.npy#1", "there is no file 'none.npy'"),
        ("rows.npz#prob,3", "no array of that name, but probes, one; did you mean probes"),
        ("rows.npz#3", r"has 2 arrays \(probes, one\): expected one's name behind a #"),
        ("rows.safetensors#probes", "a matrix of 5 rows"),
        ("vector.npy#0", r"an array of shape \(12,\), of which row 0 is asked"),
        ("wide.npy", "a direction of 13 weights .wide.npy.: relu2 has 12 channels"),
        ("nan.npy", "has numbers that are not finite"),
        ("huge.npy", "has numbers that are not finite"),
        ("cube.npy", r"shape \(2, 2, 3\): expected a vector, or a row of a matrix"),
        ("words.npy", "expected one row of numbers"),
        ("objects.npy", "cannot be read"),
        ("broken.npz", "cannot be read"),
        ("rows.npy#3=0123456789abcdef", "has other numbers than when it was named"),
        ("1,x", "expected numbers between the brackets, or FILE.npy#ROW"),
    ],
)
def test_a_row_that_is_not_there_is_refused_in_a_sentence(text, sentence, small):
    np.save("wide.npy", np.ones(13))
    np.save("nan.npy", np.array([np.nan] * 12))
    np.save("huge.npy", np.array([1e300] * 12))
    np.save("cube.npy", np.ones((2, 2, 3)))
    np.save("words.npy", np.array(["a"] * 12))
    np.save("objects.npy", np.array([{}] * 12, object), allow_pickle=True)
    np.savez("objects.npz", np.array([{}] * 12, object))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n"
    )
    import zipfile

    with zipfile.ZipFile("broken.npz", "w") as archive:
        archive.writestr("a.npy", header)
    with pytest.raises(InputError, match=sentence):
        parse_unit(f"relu2:[{text}]", small)


def test_cosines_are_those_of_lucid():
    weights = torch.tensor(ROWS[3]).float()
    dot = torch.tensordot(weights, ACTIVATION, 1)
    cosine = torch.nn.functional.cosine_similarity(weights[:, None, None].expand(12, 6, 5), ACTIVATION, dim=0)
    plain = Direction("x", weights)
    torch.testing.assert_close(plain.score(ACTIVATION), dot.sum())
    torch.testing.assert_close(replace(plain, measure="cos").score(ACTIVATION), cosine.mean(), atol=1e-4, rtol=1e-3)
    powered = (dot * cosine.clamp_min(0.1) ** 4).mean()
    torch.testing.assert_close(replace(plain, power=4.0).score(ACTIVATION), powered, atol=1e-3, rtol=1e-3)
    silent = torch.zeros(12, 3, 3, requires_grad=True)
    replace(plain, measure="cos").score(silent).backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize(
    "text", ["cos(relu2:[rows.npy#3])", "cos^4*dot(relu2:[vector.npy])", "cos^2.5*dot(relu2:[vector.npy])"]
)
def test_cosines_are_spelled_and_read_back(text, small):
    unit = parse_unit(text, small)
    assert parse_unit(str(unit), small) == unit
    assert str(unit).partition(":")[0] == text.partition(":")[0]
    several = parse_unit(f"0.5*{text} - relu1:0", small)
    assert several.parts[0] == (0.5, unit)
    assert parse_unit(str(several), small) == several
    with pytest.raises(InputError, match="expected a direction, such as"):
        parse_unit("cos(relu2:3)", small)


def test_a_direction_of_a_file_that_names_its_layer(small):
    unit = parse_unit("direction:one.safetensors", small)
    assert unit == Direction("relu2", unit.weights)
    assert unit.name == "one.safetensors"
    safetensors.torch.save_file({"w": torch.ones(12)}, "other.safetensors", {"layer": "relu2", "weights": "0" * 16})
    with pytest.raises(InputError, match="weights 0000000000000000, and not of small"):
        parse_unit("direction:other.safetensors", small)
    with pytest.raises(InputError, match="names no layer: expected LAYER:"):
        parse_unit("direction:vector.npy", small)


def made_again(unit, network, tmp_path):
    (picture,) = phosphene.ascend(network, unit, quick(4))
    path = picture.save(tmp_path / "out")
    for file in tmp_path.glob("*.*"):
        if file.is_file():
            file.unlink()  # an image needs no file but its own
    return picture, path, phosphene.again(path, network)


@pytest.mark.parametrize("unit", ["relu2:[rows.npy#3]", "cos(relu2:[one.safetensors]) + relu1:2"])
def test_an_image_of_a_named_direction_is_made_again_from_its_own_file(unit, small, tmp_path):
    picture, path, again = made_again(unit, small, tmp_path)
    assert again.same
    assert str(again.picture.unit) == str(picture.unit)
    assert len(phosphene.show(path)["vectors"]) == 1


def test_an_image_whose_directions_were_changed_is_refused(small, tmp_path):
    (picture,) = phosphene.ascend(small, Direction("relu2", ROWS[2], name="smile"), quick(2))
    told = json.loads(json.dumps(picture.provenance()))
    (key,) = told["vectors"]
    assert key.startswith("smile=")
    told["vectors"][key]["values"] = told["vectors"][key]["values"][::-1]
    with pytest.raises(InputError, match=r"damaged|other numbers"):
        parse_unit(told["unit"], small, recorded=True, held=told["vectors"])
    with pytest.raises(InputError, match="not in the image's own file, and no other is opened"):
        parse_unit("relu2:[rows.npy#3]", small, recorded=True)
    with pytest.raises(InputError, match="not in the image's own file, and no other is opened"):
        parse_unit("relu2:sae:any.pt:3", small, recorded=True)


@pytest.mark.parametrize(
    ("kind", "fields"), [("relu", {}), ("jumprelu", {"threshold": torch.full((20,), 0.5)}), ("topk", {"k": 3})]
)
def test_a_latent_is_climbed_before_its_activation_and_told_after_it(kind, fields):
    known = dictionary(kind=kind, **fields)
    unit = Latent(known, 7, "x")
    vectors = ACTIVATION.flatten(1).T
    torch.testing.assert_close(unit.score(ACTIVATION), known.pre_activations(vectors)[:, 7].mean())
    torch.testing.assert_close(unit.responses(ACTIVATION[None])[0], known.encode(vectors)[:, 7].mean())
    assert unit.responses(ACTIVATION[None])[0] >= 0


def test_latents_are_spelled_at_their_files_layer_or_another(small, tmp_path):
    dictionary(kind="topk", k=2, layer="relu2").save("sae.safetensors")
    unit = parse_unit("sae:sae.safetensors:7", small)
    assert str(unit).startswith("relu2:sae:sae.safetensors=")
    assert str(unit).endswith(":7")
    assert parse_unit(str(unit), small) == unit == parse_unit("relu2:sae:sae.safetensors:7", small)
    both = parse_unit("sae:sae.safetensors:7 - 0.5*relu1:3", small)
    assert both.parts[0][1] == unit
    assert parse_unit(str(both), small) == both
    copied = pickle.loads(pickle.dumps(unit))
    assert copied == unit
    assert len(pickle.dumps(unit)) < 4000
    torch.testing.assert_close(copied.responses(ACTIVATION[None]), unit.responses(ACTIVATION[None]))
    for text, sentence in [
        ("sae:sae.safetensors:20", "latent 20 of sae.safetensors=.*: it has 20 latents, 0 to 19"),
        ("relu1:sae:sae.safetensors:1", "is of a layer of 12 channels, and relu1 has 8"),
        ("sae:none.pt:1", "there is no such file"),
        ("sae:sae.safetensors=0123456789abcdef:1", "another than when it was named"),
        ("sae:sae.safetensors:1@cls", "relu2 has maps"),
        ("relu9:sae:sae.safetensors:1", "is of 'relu9', which small has not: expected --layer"),
    ]:
        with pytest.raises(InputError, match=sentence):
            parse_unit(text, small)
    dictionary().save("nameless.safetensors")
    with pytest.raises(InputError, match="names no layer: expected --layer LAYER"):
        parse_unit("sae:nameless.safetensors:1", small)


@pytest.mark.parametrize("kind", ["relu", "topk"])
def test_an_image_of_a_latent_is_made_again_without_its_dictionary(kind, small, tmp_path):
    dictionary(kind=kind, k=2 * (kind == "topk"), layer="relu2").save("sae.safetensors")
    picture, _, again = made_again("sae:sae.safetensors:7", small, tmp_path)
    assert again.same
    assert str(again.picture.unit) == str(picture.unit)
    assert again.picture.scores["latent"] == picture.scores["latent"] >= 0


def test_a_latent_of_tokens_is_of_its_dictionarys_tokens_or_the_patches():
    network = vit()
    layer = next(layer.name for layer in network.layers if layer.tokens and layer.name.startswith("blocks.0"))
    width = network.layer(layer).channels
    for named, spelled in (("", "@patches"), ("cls", "@cls")):
        dictionary(width, layer="blocks.0.hook_resid_post", tokens=named).save(f"vit{named}.safetensors")
        unit = parse_unit(f"sae:vit{named}.safetensors:3", network)
        assert str(unit).endswith(spelled)
        assert unit.layer == "blocks.0"
    assert str(parse_unit("sae:vit.safetensors:3@1,2", network)).endswith("@1,2")


def test_the_command_line_shows_latents(small, tmp_path, capsys):
    dictionary(12, layer="conv2").save("sae.safetensors")
    from helpers import written_network

    body = "nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 196, 4))"
    words = ["-n", written_network(tmp_path, "net", 0, body), "--steps", "2", "-o", "out"]
    assert main(["filters", "sae:sae.safetensors:0-2", "--layer", "1", *words]) == 0
    assert "latent" in capsys.readouterr().out
    assert main(["filters", "1:sae:sae.safetensors", "--count", "2", *words]) == 0
    assert main(["filters", "sae:sae.safetensors:0-2", *words]) == 2
    assert "which net has not" in capsys.readouterr().err.replace("\n", " ")


def test_photographs_are_told_of_the_latent_and_not_of_what_is_climbed(small):
    known = dictionary(kind="topk", k=2, layer="relu2")
    units = [parse_unit(Latent(known, index), small) for index in (3, 7)]
    pixels = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    with small.borrowed("cpu"), torch.no_grad():
        found = respond(small, units, pixels).values
    maps = small.activations(pixels, "relu2")["relu2"]
    wanted = torch.stack([known.encode(image.flatten(1).T).mean(0) for image in maps])[:, [3, 7]]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_an_image_of_a_latent_is_judged_with_its_dictionary(small):
    dictionary(kind="topk", k=2, layer="relu2", seed=5).save("judged.safetensors")
    known = phosphene.open_dictionary("judged.safetensors")
    unit = parse_unit("sae:judged.safetensors:7", small)
    recorded = parse_unit(str(unit), small, recorded=True, held=unit.stored_vectors())
    torch.testing.assert_close(recorded.responses(ACTIVATION[None]), unit.responses(ACTIVATION[None]))
    other = "0" * 16
    unknown = parse_unit(
        str(unit).replace(known.digest, other), small, recorded=True,
        held={key.replace(known.digest, other): value for key, value in unit.stored_vectors().items()},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"the dictionary is needed: expected it .--dictionary FILE"):
        unknown.responses(ACTIVATION[None])


def test_what_others_spell_opens_no_file(small):
    for text in ("relu2:[rows.npy#3]", "direction:one.safetensors", "relu2:sae:rows.npy:1", "cos(relu2:[vector.npy])"):
        with pytest.raises(InputError, match="and no other is opened"):
            parse_unit(text, small, held={})


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.1.hook_resid_post", "blocks.1"), ("blocks.1.hook_resid_pre", "blocks.0"),
        ("blocks.-1.hook_mlp_out", ".mlp"), ("blocks.0.hook_attn_out", "blocks.0.attn"),
        ("blocks.1.mlp.hook_post", "blocks.1.mlp.act"),
        ("blocks.1.ln2.hook_normalized", "blocks.1.norm2"), ("blocks.0", "blocks.0"),
    ],
)  # fmt: skip
def test_a_hooks_name_is_a_layer(hook, layer):
    found = hook_layer(hook, vit(), "dictionary 'a'")
    assert found.endswith(layer)
    assert found in [each.name for each in vit().layers]


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("blocks.99.hook_resid_post", "and small has no such layer: expected --layer"),
        ("blocks.0.hook_resid_pre", "has no such layer"),
        ("blocks.1.attn.hook_z", "of which no layer is known"),
        ("blocks.", "has not: expected --layer LAYER.*did you mean"),
    ],
)
def test_a_hook_that_is_no_layer_is_asked_for(hook, sentence):
    with pytest.raises(InputError, match=sentence):
        hook_layer(hook, vit(), "dictionary 'a'")


def test_a_hook_that_may_be_of_two_towers_is_asked_for():
    towers = torch.nn.Sequential()
    for name in ("text", "vision"):
        tower = torch.nn.Module()
        tower.blocks = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1))
        tower.forward = tower.blocks.forward
        towers.add_module(name, tower)
    network = opened(towers)
    with pytest.raises(InputError, match=r"may be text.blocks.1 or vision.blocks.1: expected --layer"):
        hook_layer("blocks.1.hook_resid_post", network, "dictionary 'a'")
