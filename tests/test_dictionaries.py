"""Dictionaries are read from each format as its own library runs them, and nothing in a file is believed or run."""

import json
import os
import pickle
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.nn import functional

from phosphene import InputError
from phosphene.dictionaries.dictionary import Dictionary
from phosphene.dictionaries.reading import open_dictionary

WIDTH, LATENTS = 6, 10
_random = torch.Generator().manual_seed(0)
W_ENC = torch.randn(WIDTH, LATENTS, generator=_random)
W_DEC = torch.randn(LATENTS, WIDTH, generator=_random)
B_ENC = torch.randn(LATENTS, generator=_random) / 4
B_DEC = torch.randn(WIDTH, generator=_random) / 4
THRESHOLD = torch.rand(LATENTS, generator=_random)
STATE = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
INPUTS = torch.randn(30, WIDTH, generator=_random)


def pre_activations(inputs: torch.Tensor, *, subtracts: bool) -> torch.Tensor:
    return (inputs - B_DEC * subtracts) @ W_ENC + B_ENC


def highest(pre: torch.Tensor, k: int) -> torch.Tensor:
    best = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, best.indices, best.values)


def above(pre: torch.Tensor, threshold: torch.Tensor | float) -> torch.Tensor:
    return pre.relu() * (pre > threshold)


def layer_normed(inputs: torch.Tensor) -> torch.Tensor:
    centered = inputs - inputs.mean(-1, keepdim=True)
    return centered / (centered.std(-1, keepdim=True) + 1e-5)


def saev(path: Path, header: dict, extra: dict | None = None) -> Path:
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(STATE | (extra or {}), file)
    return path


def saev_activation(name: str, **parameters: object) -> dict:
    return {"schema": 5, "cfg": {"d_model": WIDTH, "activation": {"cls": name, "params": parameters}}, "lib": "0.1.0"}


def saelens(folder: Path, settings: dict, extra: dict | None = None) -> Path:
    folder.mkdir()
    safetensors.torch.save_file(STATE | (extra or {}), folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "d_sae": LATENTS, **settings}))
    return folder


@dataclass
class VisionModelSAERunnerConfig:  # of Prisma, by its name alone
    hook_point_layer: int = 9
    layer_subtype: str = "hook_resid_post"
    architecture: str = "standard"
    activation_fn_str: str = "topk"
    activation_fn_kwargs: dict = field(default_factory=lambda: {"k": 3})
    normalize_activations: str = "layer_norm"
    use_patches_only: bool = True
    cls_token_only: bool = False
    is_transcoder: bool = False
    _dtype: torch.dtype = torch.float32


@pytest.fixture
def prisma(monkeypatch):
    """What saves settings as an object of Prisma's own class."""
    module = types.ModuleType("vit_prisma.sae.config")
    module.VisionModelSAERunnerConfig = VisionModelSAERunnerConfig
    monkeypatch.setattr(VisionModelSAERunnerConfig, "__module__", module.__name__)
    for name in ("vit_prisma", "vit_prisma.sae"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def save(path: Path, **changes: object) -> Path:
        torch.save({"cfg": VisionModelSAERunnerConfig(**changes), "state_dict": STATE}, path)
        return path

    return save


def check(dictionary: Dictionary, latents: torch.Tensor) -> None:
    """The dictionary returns these latents, also one at a time and of maps, and after it was written and read."""
    torch.testing.assert_close(dictionary.encode(INPUTS), latents, atol=2e-5, rtol=1e-5)
    maps = INPUTS.view(2, 3, 5, WIDTH).movedim(-1, 1)
    for index in range(dictionary.latents):
        found = dictionary.latent(maps, index).reshape(-1)
        torch.testing.assert_close(found, latents[:, index], atol=2e-5, rtol=1e-5)
    one = dictionary.row(4).pre_activation(INPUTS)
    torch.testing.assert_close(one, dictionary.pre_activations(INPUTS)[:, 4], atol=2e-5, rtol=1e-5)


def test_saev_relu_topk_and_batchtopk(tmp_path):
    pre = pre_activations(INPUTS, subtracts=False)
    check(open_dictionary(saev(tmp_path / "relu.pt", saev_activation("Relu"))), pre.relu())
    check(open_dictionary(saev(tmp_path / "topk.pt", saev_activation("TopK", top_k=3))), highest(pre, 3))
    batch = saev(
        tmp_path / "batch.pt", saev_activation("BatchTopK", top_k=3), {"activation.threshold": torch.tensor(0.4)}
    )
    check(open_dictionary(batch), above(pre, 0.4))


def test_old_files_of_saev_subtract_the_decoders_bias_and_those_between_ask(tmp_path):
    old = open_dictionary(saev(tmp_path / "old.pt", {"d_vit": WIDTH, "exp_factor": 2}))
    check(old, pre_activations(INPUTS, subtracts=True).relu())
    between = saev(tmp_path / "between.pt", {"schema": 1, "cls": "TopK", "cfg": {"top_k": 2}})
    with pytest.raises(InputError, match=r"does not say whether b_dec is subtracted.*apply_b_dec_to_input"):
        open_dictionary(between)
    for told in (True, "false"):
        dictionary = open_dictionary(between, apply_b_dec_to_input=told)
        check(dictionary, highest(pre_activations(INPUTS, subtracts=told is True), 2))


def test_saelens_standard_topk_jumprelu_and_normalizations(tmp_path):
    hook = {"hook_name": "blocks.9.hook_mlp_out"}
    standard = open_dictionary(saelens(tmp_path / "a", {"architecture": "standard", "metadata": hook}))
    check(standard, pre_activations(INPUTS, subtracts=True).relu())
    assert standard.layer == "blocks.9.hook_mlp_out"
    plain = {"apply_b_dec_to_input": False, "normalize_activations": "none"}
    topk = saelens(tmp_path / "b", {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True, **plain})
    scaled = pre_activations(INPUTS, subtracts=False) * W_DEC.norm(dim=1)
    check(open_dictionary(topk), highest(scaled, 4).relu())
    jump = saelens(tmp_path / "c", {"architecture": "jumprelu", **plain}, {"threshold": THRESHOLD})
    check(open_dictionary(jump), above(pre_activations(INPUTS, subtracts=False), THRESHOLD))
    old = saelens(tmp_path / "d", {"activation_fn_str": "relu", "normalize_activations": "layer_norm", **hook})
    check(open_dictionary(old), pre_activations(layer_normed(INPUTS), subtracts=True).relu())
    constant = saelens(tmp_path / "e", {"normalize_activations": "constant_norm_rescale"})
    rescaled = INPUTS * WIDTH**0.5 / INPUTS.norm(dim=-1, keepdim=True)
    check(open_dictionary(constant), pre_activations(rescaled, subtracts=True).relu())


def test_prisma_and_patchsae(tmp_path, prisma):
    found = open_dictionary(prisma(tmp_path / "prisma.pt"))
    check(found, highest(pre_activations(layer_normed(INPUTS), subtracts=True), 3).relu())
    assert (found.layer, found.tokens, found.format) == ("blocks.9.hook_resid_post", "patches", "Prisma")
    torch.save({"cfg": {"block_layer": -2, "module_name": "resid"}, "state_dict": STATE}, tmp_path / "patchsae.pt")
    patchsae = open_dictionary(tmp_path / "patchsae.pt")
    check(patchsae, pre_activations(INPUTS, subtracts=True).relu())
    assert (patchsae.layer, patchsae.format) == ("blocks.-2.hook_resid_post", "PatchSAE")


def test_overcomplete_says_neither_k_nor_kind(tmp_path):
    norm = torch.nn.BatchNorm1d(LATENTS).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    encoder = torch.nn.Sequential(torch.nn.Linear(WIDTH, LATENTS), norm)
    state = {f"encoder.final_block.{name}": value for name, value in encoder.state_dict().items()}
    state |= {"dictionary._weights": W_DEC, "dictionary.multiplier": torch.tensor(0.0)}
    torch.save(state, tmp_path / "sae.pt")
    with pytest.raises(InputError, match=r"overcomplete.*does not say which latents are on"):
        open_dictionary(tmp_path / "sae.pt")
    with pytest.raises(InputError, match="how many latents are on at a time"):
        open_dictionary(tmp_path / "sae.pt", activation="topk")
    with torch.no_grad():
        pre = encoder(INPUTS)
    check(open_dictionary(tmp_path / "sae.pt", activation="topk", k="2"), highest(pre.relu(), 2))
    torch.save({"dictionary._weights": W_DEC, "thresholds": THRESHOLD.log()}, tmp_path / "tied.pt")
    check(open_dictionary(tmp_path / "tied.pt"), above(INPUTS @ W_DEC.T, THRESHOLD))


def test_plain_files_say_the_rest_in_their_metadata_and_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "plain.safetensors"
    told = {
        "activation": "topk", "k": "3", "apply_b_dec_to_input": "true", "normalize_activations": "none",
        "layer": "blocks.2", "tokens": "patches",
    }  # fmt: skip
    safetensors.torch.save_file(STATE, path, told)
    dictionary = open_dictionary(path)
    check(dictionary, highest(pre_activations(INPUTS, subtracts=True), 3).relu())
    torch.testing.assert_close(dictionary.decode(torch.eye(LATENTS)), W_DEC + B_DEC)
    again = open_dictionary(dictionary.save(tmp_path / "again.safetensors"))
    check(again, dictionary.encode(INPUTS))
    assert (again.digest, again.layer, again.tokens) == (dictionary.digest, "blocks.2", "patches")
    for missing in ("activation", "k", "apply_b_dec_to_input", "normalize_activations"):
        safetensors.torch.save_file(STATE, path, {name: value for name, value in told.items() if name != missing})
        with pytest.raises(InputError, match=f"does not say .*--set {missing}="):
            open_dictionary(path)
    safetensors.torch.save_file(STATE | {"b_dec": torch.zeros(WIDTH)}, path, told | {"apply_b_dec_to_input": ""})
    assert open_dictionary(path).latents == LATENTS  # of a bias of 0 nothing has to be known


@pytest.mark.parametrize(
    ("state", "settings", "sentence"),
    [
        ({"W_skip": torch.eye(WIDTH)}, {}, "is a transcoder"),
        ({"W_enc_0": W_ENC + 1}, {}, "is a cross-layer transcoder"),
        ({"W_enc": W_ENC[None] + 1}, {}, "is a cross-layer transcoder or a crosscoder"),
        ({"W_dec": torch.randn(LATENTS, 8)}, {}, "is a transcoder .from 6 channels to 8"),
        ({"r_mag": B_ENC + 1}, {}, "is gated"),
        ({"b_enc": torch.zeros(3)}, {}, r"b_enc of shape \(3,\): expected \(10,\)"),
        ({"W_enc": W_ENC * torch.inf}, {}, "W_enc has numbers that are not finite"),
        ({}, {"activation": "softmax"}, "activation = 'softmax': expected relu, jumprelu or topk"),
        ({}, {"k": "11"}, "k = 11 of 10 latents"),
        ({}, {"k": "1e9"}, "k = '1e9': expected how many"),
        ({}, {"normalize_activations": "batch"}, "expected none, layer_norm or constant_norm_rescale"),
    ],
)
def test_what_is_no_sparse_autoencoder_of_one_layer_is_refused_by_name(tmp_path, state, settings, sentence):
    told = {"activation": "topk", "k": "3", "apply_b_dec_to_input": "true", "normalize_activations": "none"}
    safetensors.torch.save_file(STATE | state, tmp_path / "a.safetensors", told | settings)
    with pytest.raises(InputError, match=sentence):
        open_dictionary(tmp_path / "a.safetensors")


def test_what_a_format_does_at_run_time_is_honored_or_refused_by_name(tmp_path, prisma):
    for name, settings, sentence in [
        ("a", {"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ("b", {"architecture": "gated"}, "'gated'"),
        ("c", {"architecture": "skip_transcoder"}, "a transcoder .architecture 'skip_transcoder'"),
        ("d", {"activation_fn": "tanh-relu"}, "'tanh-relu': expected relu or topk"),
        ("e", {"hook_head_index": 3}, "of head 3 alone"),
        ("f", {"normalize_activations": "whiten"}, "'whiten'"),
    ]:
        with pytest.raises(InputError, match=sentence):
            open_dictionary(saelens(tmp_path / name, settings))
    with pytest.raises(InputError, match="is a transcoder"):
        open_dictionary(prisma(tmp_path / "t.pt", is_transcoder=True))
    with pytest.raises(InputError, match="'gated': expected standard"):
        open_dictionary(prisma(tmp_path / "g.pt", architecture="gated"))


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("run-by-a-file",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"cfg": Malicious(), "state_dict": STATE}, "torch.pt")
    Path("plain.pkl").write_bytes(pickle.dumps({"cfg": Malicious(), "state_dict": {}}))
    with Path("saev.pt").open("wb") as file:
        file.write(b'{"schema": 5, "cfg": {}}\n' + pickle.dumps(Malicious()))
    for name in ("torch.pt", "plain.pkl", "saev.pt"):
        with pytest.raises(InputError):
            open_dictionary(name)
    assert not Path("run-by-a-file").exists()


def test_files_that_ask_for_more_than_they_hold_are_refused(tmp_path):
    endless = tmp_path / "endless.pt"
    endless.write_bytes(b'{"schema": 5, ' + b" " * (2 << 20))
    with pytest.raises(InputError, match="its first line has no end"):
        open_dictionary(endless)
    huge = tmp_path / "huge.safetensors"
    header = json.dumps({"W_enc": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}}).encode()
    huge.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="cannot be read"):
        open_dictionary(huge)
    (tmp_path / "deep.pt").write_bytes(b'{"a":' + b"[" * 4000 + b"\n")
    with pytest.raises(InputError, match="nested"):
        open_dictionary(tmp_path / "deep.pt")
    with pytest.raises(InputError, match="there is no such file"):
        open_dictionary(tmp_path / "none.pt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"has no sae_weights.safetensors and no cfg.json"):
        open_dictionary(tmp_path / "folder")
    with pytest.raises(InputError, match="has no field 'activations'; did you mean activation"):
        open_dictionary(endless, activations="relu")


def test_what_is_asked_for_again_is_kept_until_the_activations_change():
    dictionary = Dictionary(W_ENC.T.contiguous(), B_ENC, W_DEC, B_DEC, "topk", k=2)
    maps = functional.pad(INPUTS.view(5, 6, WIDTH), (0, 0)).movedim(-1, 1).clone()
    first = dictionary.latent(maps, 1)
    maps.mul_(-1)
    second = dictionary.latent(maps, 1)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, dictionary.encode(-INPUTS)[:, 1].view(5, 6), atol=2e-5, rtol=1e-5)


def test_the_nearest_classes_of_a_latent_are_those_of_the_head_that_reads_its_layer(lite0):
    from phosphene.atlas.dictionaries import nearest_classes

    weights = lite0.module.get_submodule("classifier").weight.detach()
    zeros = torch.zeros(2)
    dictionary = Dictionary(weights[:2], zeros, weights[[130, 7]], torch.zeros(1280), "relu", layer="bn2.act")
    found = [nearest_classes(lite0, "bn2.act", dictionary, index)[0] for index in (0, 1)]
    assert [(index, cosine) for index, _, cosine in found] == [(130, 1.0), (7, 1.0)]
    assert nearest_classes(lite0, "blocks.6.0.bn2.act", dictionary, 0) == []
