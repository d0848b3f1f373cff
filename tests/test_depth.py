"""How much of a network's output can be read along its depth."""

import json

import numpy as np
import pytest
import torch
from helpers import SHALLOW, Small, opened, seeded, written_network
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import Ridge as SklearnRidge
from tiny import vit
from torch import nn

import phosphene
from phosphene.cli.program import main
from phosphene.comparison.cka import cka_matrix
from phosphene.comparison.depth_cut import cut_logits
from phosphene.comparison.depth_labels import probed_classes, read_labels
from phosphene.comparison.depth_layers import MOST_LAYERS, depth_layers, parameters_so_far
from phosphene.comparison.depth_pass import directions_for, hashed, participation_ratio
from phosphene.comparison.depth_readout import PENALTIES, deal_folds, fit_ridge, read_held_out
from phosphene.comparison.depth_rows import DepthRow
from phosphene.comparison.depth_sentence import summarize

COUNT = 24


class Residual(nn.Module):
    """A convolution in a residual branch, times a gate: of 0 it is an identity."""

    def __init__(self, gate: float):
        super().__init__()
        self.first, self.second, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), gate

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.gate * self.second(torch.relu(self.first(maps)))


class Ladder(nn.Module):
    """Residual blocks, of which the last three are identities."""

    def __init__(self, gates: tuple[float, ...] = (3.0, 3.0, 0.0, 0.0, 0.0)):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.blocks = nn.Sequential(*[Residual(gate) for gate in gates])
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.act(self.stem(images))).mean((2, 3)))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two folders of small pictures that differ in their colors."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for index in range(COUNT):
        kind = "red" if index % 2 else "blue"
        pixels = random.integers(0, 120, (24, 24, 3)) * random.random() + random.random(3) * 60
        pixels[..., 0 if kind == "red" else 2] += 80
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / kind / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def report(photographs):
    return phosphene.depth(opened(seeded(Ladder)), photographs, labels="folders", cut="blocks.0")


# CKA


def hsic(first, second):
    """The unbiased estimator as Song et al. 2012 write it (eq. 5)."""
    count, one = len(first), torch.ones(len(first)).double()
    k, m = (each @ each.T - torch.diag((each @ each.T).diagonal()) for each in (first, second))
    total = (k @ m).trace() + (one @ k @ one) * (one @ m @ one) / ((count - 1) * (count - 2))
    return (total - 2 / (count - 2) * (one @ k @ m @ one)) / (count * (count - 3))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_cka_is_the_ratio_of_unbiased_estimates_also_of_many_photographs():
    first, second = noise(300, 6), noise(300, 9, seed=1)
    second[:, :6] += first
    found = cka_matrix([first, second])
    expected = hsic(first, second) / (hsic(first, first) * hsic(second, second)).sqrt()
    assert found[0, 1] == pytest.approx(float(expected), rel=1e-9)
    assert torch.allclose(found, found.T)
    assert found.diagonal().tolist() == pytest.approx([1, 1])


def test_cka_knows_no_rotation_scale_or_offset_and_is_about_0_by_chance():
    rows = noise(30, 50)
    turned = 1e4 * rows @ torch.linalg.qr(noise(50, 50, seed=1))[0] + 1e5
    assert float(cka_matrix([rows, turned])[0, 1]) == pytest.approx(1, abs=1e-5)
    chance = [float(cka_matrix([noise(30, 50, seed=2 * i), noise(30, 50, seed=2 * i + 1)])[0, 1]) for i in range(40)]
    assert abs(np.mean(chance)) < 3 * np.std(chance) / 40**0.5
    assert min(chance) < 0  # no bias keeps it above


def test_cka_of_what_never_changes_is_not_a_number():
    found = cka_matrix([noise(10, 3), torch.full((10, 4), 7.3), noise(10, 2, seed=1)])
    assert found[1].isnan().all()
    assert found[:, 1].isnan().all()
    assert found[0, 2].isfinite()


# Ridge


def scale(features):
    spread = features.std(0, correction=0)
    return ((features - features.mean(0)) / spread.clamp_min(spread.mean())).numpy()


@pytest.mark.parametrize("channels", [5, 60])
def test_the_ridge_is_that_of_scikit_learn_on_scaled_features(channels):
    x, y = 3 * noise(40, channels) + 2, noise(40, 3, seed=1)
    x[:, 0] = 4.0  # dead
    y += x[:, 1:3] @ noise(2, 3, seed=2)
    found = fit_ridge(x, y)
    scaled = scale(x)
    length = float((scaled**2).sum(1).mean())
    expected = SklearnRidge(alpha=found.penalty * length).fit(scaled, y.numpy()).predict(scaled)
    assert np.allclose(found(x), expected, atol=1e-6)
    assert not found.weight[0].any()


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.6, 20.0])
def test_the_penalty_is_the_one_that_predicts_best_what_is_left_out(strength):
    x = noise(25, 40)
    y = strength * x[:, :2] + noise(25, 2, seed=1)
    scaled = scale(x)
    length = float((scaled**2).sum(1).mean())
    errors = []
    for penalty in PENALTIES:
        ridge = SklearnRidge(alpha=penalty * length)
        left = [np.arange(25) != index for index in range(25)]
        predicted = [ridge.fit(scaled[kept], y[kept].numpy()).predict(scaled[~kept])[0] for kept in left]
        errors.append(((np.array(predicted) - y.numpy()) ** 2).sum())
    # Leaving out refits the mean of what is standardized too, so that neighbors of the best are as good.
    chosen = PENALTIES.index(fit_ridge(x, y).penalty)
    assert errors[chosen] <= 1.02 * min(errors)


def test_what_a_layer_has_is_read_and_noise_is_not():
    features = noise(60, 12)
    targets = features @ noise(12, 7, seed=1)
    folds = deal_folds(60)
    assert read_held_out(features, targets, folds).r2 > 0.99
    read = read_held_out(noise(60, 12, seed=2), targets, folds)
    assert read.r2 < 0.1
    assert abs(read.top1 - read.top1_by_chance) < 4 * read.top1_error


def test_a_channel_that_first_moves_when_it_is_held_out_is_not_everything():
    features, targets, folds = noise(60, 12), noise(60, 7, seed=1), deal_folds(60)
    targets += features[:, :7]
    before = read_held_out(features, targets, folds).r2
    features[:, 11] = 1e-6 * features[:, 11]
    features[30, 11] = 3
    assert read_held_out(features, targets, folds).r2 > before - 0.1


def test_no_photograph_is_predicted_by_a_ridge_that_has_seen_it():
    features, targets, folds = noise(20, 4), noise(20, 2, seed=1), deal_folds(20)
    before = read_held_out(features, targets, folds).predicted
    changed = targets.clone()
    changed[7] += 100
    after = read_held_out(features, changed, folds).predicted
    same = folds == folds[7]
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[~same], after[~same])


def test_folds_are_even_also_of_each_kind():
    kinds = [0] * 10 + [1] * 15 + [2] * 5
    folds = deal_folds(30, kinds)
    for kind in range(3):
        counts = torch.bincount(folds[torch.tensor(kinds) == kind], minlength=5)
        assert counts.max() - counts.min() <= 1


# Sizes


def test_sizes_of_known_spectra():
    even, single = torch.ones(8), torch.tensor([5.0, 0, 0])
    assert participation_ratio(even) == pytest.approx(8)
    assert participation_ratio(single) == 1
    assert (directions_for(even), directions_for(single), directions_for(torch.zeros(3))) == (8, 1, 0)
    assert directions_for(torch.tensor([98.0, 1.5, 0.5])) == 2


def test_wide_layers_are_hashed_and_dot_products_stay():
    rows = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    rows[3:] = rows[:3] + 0.1 * rows[3:]
    small = hashed(rows, 2048)
    assert small.shape == (6, 2048)
    assert torch.equal(small, hashed(rows, 2048))
    found, true = small @ small.T, rows @ rows.T
    assert ((found - true).abs() < 5 * 5000 / 2048**0.5).all()
    assert hashed(rows, 5000) is rows


# Layers


def test_the_layers_are_blocks_from_the_first_activation_on():
    names = [layer.name for layer in depth_layers(opened(seeded(Ladder)))]
    assert names == ["act", *(f"blocks.{index}" for index in range(5))]
    assert [layer.name for layer in depth_layers(vit())][-1] == "norm"
    assert [layer.name for layer in depth_layers(opened(seeded(Small)), ["conv2", "relu1"])] == ["relu1", "conv2"]


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(maps)))


class Mixing(nn.Module):
    """A block that has two parts of one kind, as an MLP-Mixer's has."""

    def __init__(self):
        super().__init__()
        self.tokens, self.channels = Part(), Part()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.channels(self.tokens(maps))


def test_a_block_of_two_like_parts_is_one_block_and_activations_of_vectors_end_the_depth():
    blocks = nn.Sequential(*[Mixing() for _ in range(3)])
    end = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6, 5)]
    layers = depth_layers(opened(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), blocks, *end), size=8))
    assert [layer.name for layer in layers] == ["1", "2.0", "2.1", "2.2", "5"]


def test_of_many_layers_some_are_taken_and_the_last_among_them():
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(60)], nn.Flatten())
    layers = depth_layers(opened(deep, size=4))
    assert len(layers) == MOST_LAYERS
    assert layers[-1].name == "59.1"


def test_parameters_so_far_are_those_of_what_has_been_called():
    module = seeded(Small)
    network = opened(module)
    counts = parameters_so_far(network, network.layers)
    first, second = (sum(p.numel() for p in each.parameters()) for each in (module.conv1, module.conv2))
    by_name = dict(zip([layer.name for layer in network.layers], counts, strict=True))
    assert by_name["relu1"] == by_name["pool"] == first
    assert by_name["relu2"] == first + second
    assert by_name["head"] == network.parameters
    assert counts == sorted(counts)


def test_a_transformer_needs_its_position_embeddings_from_the_start():
    network = vit()
    module = network.module
    (count,) = parameters_so_far(network, depth_layers(network, ["blocks.0", "norm"])[:1])
    whole = [module.patch_embed, module.norm_pre, module.blocks[0]]
    own = module.pos_embed.numel() + sum(getattr(module, name).numel() for name in ("cls_token", "reg_token")
                                         if getattr(module, name) is not None)  # fmt: skip
    assert count == own + sum(p.numel() for each in whole for p in each.parameters())


# The whole


def test_it_is_flat_where_late_blocks_are_identities(report):
    late = report.rows[2:]
    assert [row.layer for row in late] == ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]
    for name in ("cka_logits", "r2", "top1", "label_top1", "participation", "directions"):
        values = [getattr(row, name) for row in late]
        assert values == pytest.approx([values[0]] * 4), name
    assert [row.cka_before for row in late[1:]] == pytest.approx([1] * 3)
    assert late[0].cka_before < 0.999
    assert "blocks.4" not in report.summary.partition(";")[0].partition("(")[0]


def test_the_layer_that_the_head_reads_lets_the_logits_be_read(report):
    last = report.rows[-1]
    assert last.r2 > 0.95
    assert last.top1 > 0.9
    assert last.label_top1 > last.label_chance
    assert report.rows[0].r2 < last.r2


def test_shares_grow_and_the_matrix_is_of_all_layers_and_the_logits(report):
    for name in ("parameter_share", "time_share"):
        values = [getattr(row, name) for row in report.rows]
        assert values == sorted(values)
        assert 0 < values[-1] <= 1
    assert report.names == [*(row.layer for row in report.rows), "logits"]
    assert report.correlations.shape == (len(report.names),) * 2
    assert [row.cka_logits for row in report.rows] == report.correlations[:-1, -1].tolist()
    assert report.labeled == COUNT
    assert report.label_classes == 2


@pytest.mark.slow
def test_a_cut_says_what_is_lost_and_its_head_is_what_was_fitted(report, tmp_path, photographs):
    cut = report.cut
    assert cut.layer == "blocks.0"
    assert cut.last == "blocks.4"
    row = next(row for row in report.rows if row.layer == cut.layer)
    assert (cut.top1, cut.r2) == (row.top1, row.r2)
    assert cut.lost == pytest.approx(cut.last_top1 - cut.top1)
    assert cut.parameters < cut.whole_parameters
    report.save(tmp_path)
    head = load_file(tmp_path / "head.safetensors")
    network = opened(seeded(Ladder))
    pixels = torch.rand(3, 3, 24, 24) * 255
    pooled = network.activations(pixels, "blocks.0")["blocks.0"].mean((2, 3))
    with network.borrowed(), torch.no_grad():
        cut_off = cut_logits(network, network.layer("blocks.0"), cut.head, pixels)
    assert torch.allclose(pooled @ head["weight"].T + head["bias"], cut_off.float(), atol=1e-4)


def test_a_cut_is_compared_with_the_last_layer_whatever_layers_are_shown(photographs):
    report = phosphene.depth(opened(seeded(Ladder)), photographs, ["act", "blocks.0"], cut="blocks.1")
    assert [row.layer for row in report.rows] == ["act", "blocks.0", "blocks.1", "blocks.4"]
    assert report.cut.last == "blocks.4"


def test_a_layer_of_very_many_channels_is_hashed_and_said_to_be(photographs):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 24 * 24, 4))
    report = phosphene.depth(opened(module), photographs, ["1", "2"])
    assert report.rows[1].channels == 4608
    assert any(note.startswith("2: channels are added") for note in report.notes)
    assert report.rows[1].r2 is not None


@pytest.mark.slow
def test_what_is_saved_is_data_and_two_figures(report, tmp_path):
    files = report.save(tmp_path)
    assert [path.name for path in files] == ["depth.json", "depth.png", "depth-layers.png", "head.safetensors"]
    told = json.loads(files[0].read_text(encoding="utf-8"))
    assert told["rows"][0]["layer"] == "act"
    assert told["summary"] == report.summary
    assert len(told["correlations"]) == 7
    for path in files[1:3]:
        assert min(Image.open(path).size) > 300


def test_a_network_without_logits_has_rows_without_them(photographs):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU())
    report = phosphene.depth(opened(module, size=24), photographs, labels="folders")
    assert all(row.r2 is row.top1 is row.cka_logits is None for row in report.rows)
    assert all(row.label_top1 is not None for row in report.rows)
    assert "logits" not in report.names
    assert any("no classifier" in note for note in report.notes)
    assert "no logits to read" in report.summary
    with pytest.raises(phosphene.InputError, match="no logits that a head"):
        phosphene.depth(opened(module, size=24), photographs, cut="1")


def test_tokens_are_read_as_the_class_token_beside_the_patches(photographs):
    network = vit()
    report = phosphene.depth(network, photographs, ["blocks.0", "blocks.1"])
    assert [row.samples for row in report.rows] == [COUNT * 16] * 2
    assert all(row.r2 is not None for row in report.rows)


def test_a_dead_layer_says_nothing_and_stops_nothing(photographs):
    module = seeded(Small)
    nn.init.constant_(module.conv1.weight, 0)
    nn.init.constant_(module.conv1.bias, -1)
    report = phosphene.depth(opened(module), photographs, ["relu1", "conv2"])
    first = report.rows[0]
    assert (first.cka_logits, first.participation, first.directions) == (None, None, 0)
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_network_is_handed_back_and_the_numbers_are_the_same_again(photographs):
    module = seeded(Ladder).train()
    network = opened(module)
    first, second = (phosphene.depth(network, photographs, limit=20) for _ in range(2))
    assert module.training
    assert not module._forward_hooks
    assert first.photographs == 20
    for one, other in zip(first.rows, second.rows, strict=True):
        assert {**vars(one), "time_share": 0} == {**vars(other), "time_share": 0}


def test_what_is_wrong_is_said(photographs, tmp_path):
    network = opened(seeded(Ladder))
    files = sorted(photographs.rglob("*.png"))
    with pytest.raises(phosphene.InputError, match="19 photographs: expected 20 or more"):
        phosphene.depth(network, files[:19])
    with pytest.raises(phosphene.InputError, match=r"did you mean blocks\.1"):
        phosphene.depth(network, photographs, ["blocks.1x", "act"])
    with pytest.raises(phosphene.InputError, match="1 layer of small: expected 2"):
        phosphene.depth(network, photographs, ["act"])
    with pytest.raises(phosphene.InputError, match="it is the last of the layers"):
        phosphene.depth(network, photographs, cut="blocks.4")
    with pytest.raises(phosphene.InputError, match="no such file"):
        phosphene.depth(network, photographs, labels=tmp_path / "labels.csv")
    with pytest.raises(phosphene.InputError, match="0 of 24 classes have two photographs"):
        phosphene.depth(network, photographs, labels=[str(index) for index in range(COUNT)])


# Labels


def test_labels_are_read_from_folders_tables_and_json(tmp_path, photographs):
    paths = sorted(photographs.rglob("*.png"))
    names = [path.relative_to(photographs).as_posix() for path in paths]
    expected = [path.parent.name for path in paths]
    (tmp_path / "a.csv").write_text(
        "label,file\n" + "".join(f"{a},{b}\n" for a, b in zip(expected, names, strict=True))
    )
    (tmp_path / "b.csv").write_text("".join(f"{path.name},{a}\n" for a, path in zip(expected, paths, strict=True)))
    (tmp_path / "c.json").write_text(json.dumps(dict(zip(names, expected, strict=True))))
    sources = ["folders", *(tmp_path / name for name in ("a.csv", "b.csv", "c.json")), expected]
    for source in sources:
        assert read_labels(source, paths, names) == expected
    assert read_labels({names[3]: 7}, paths, names)[2:5] == [None, "7", None]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "[1, 2]", "expected a JSON object"),
        ("a.json", '{"a": {"b": 1}}', "expected a JSON object"),
        ("a.json", "{", "is no JSON"),
        ("a.csv", "file,label\nx.png,1\n", "no file of it, such as 'x.png', is among the photographs"),
        ("a.csv", "file,label\nx.png\n", "expected file,label and not 'x.png'"),
        ("a.csv", "", "no file of it"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(phosphene.InputError, match=says):
        read_labels(path, [tmp_path / "0.png"], ["0.png"])


def test_what_only_one_photograph_shows_is_not_probed():
    indices, classes = probed_classes(["a", "b", None, "a", "c", "b"])
    assert indices == [0, 1, 3, 5]
    assert classes == ["a", "b"]


# The sentence


def row(name, r2, top1=0.5, share=0.5, before=0.9):
    return DepthRow(name, "Block", 4, (2, 2), 0.5, r2, 0.01, top1, 0.01, 0.1, None, None, None, 2.0, 3, 0.7, 100,
                    before, 10, share, share)  # fmt: skip


def test_the_sentence_says_from_where_on_most_is_there():
    rows = [row("a", 0.2), row("b", 0.79, share=0.25), row("c", 0.77, top1=0.6), row("d", 0.8, top1=0.7, share=0.9)]
    text = summarize(rows, 200)
    assert text.startswith("From b on, 95% can be read of the most")
    assert "(R² 0.80, at d)" in text
    assert "behind it lie 75% of the parameters and 75% of the time" in text
    assert "from 50% to 70%" in text
    assert text.endswith("only a cut tells.")


def test_the_sentence_claims_nothing_where_little_is_read_or_the_end_is_worse():
    assert "too few to say" in summarize([row("a", -0.2), row("b", 0.05)], 20)
    assert summarize([row("a", 0.9), row("b", 0.5)], 20).startswith("No layer from which on 95%")
    assert summarize([row("a", 0.2), row("b", 0.5)], 20).startswith("Not before b, the last")
    assert summarize([row("a", 0.5), row("b", 0.5)], 20).startswith("Already at a, the first")
    assert "most changes at b (CKA 0.30" in summarize([row("a", None), row("b", None, before=0.3)], 20)


# The command


@pytest.mark.slow
def test_the_command_says_what_the_function_finds(photographs, tmp_path, capsys):
    name = written_network(tmp_path, "net", 0, SHALLOW)
    words = ["depth", "--photographs", str(photographs), "-n", name, "--layers", "0", "1", "2", "-o", str(tmp_path)]
    assert main([*words, "--cut", "1", "--labels-from", "folders"]) == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "depth.json").read_text(encoding="utf-8"))
    assert told["summary"] in out
    assert told["cut"]["summary"] in out
    assert [row["layer"] for row in told["rows"]] == ["0", "1", "2"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photographs"] == COUNT
    assert main([*words, "--labels-from", "nothing.csv"]) == 2
    assert "labels 'nothing.csv': there is no such file" in capsys.readouterr().err
