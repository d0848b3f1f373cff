"""Scores of hidden units and of their pictures: what the numbers say where the right answer is known."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import SHALLOW, SHARED, opened, seeded, written_network
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.cli.program import main
from phosphene.judges import unit_scores
from phosphene.judges.explanation import (
    LAST_RANK,
    NINE,
    explanation_scores,
    less_common,
    make_trials,
    share_right,
)
from phosphene.judges.metrics import open_metric
from phosphene.judges.panel import open_judge
from phosphene.judges.path_similarity import centered_ranks, path_similarities
from phosphene.judges.perception import DEPTHS, judged_layers
from phosphene.provenance.reading import read
from phosphene.tuning.search import search
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.task import make_task

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
ALEXNET = SHARED / "weights/alexnet_features.safetensors"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Trials and their scores


def test_the_photographs_of_trials_are_of_the_ranks_that_are_said():
    values = drawn(200)
    trials = make_trials(values)
    order = values.argsort(descending=True)
    assert trials.nine.tolist() == order[:NINE].tolist()
    assert trials.exciting.tolist() == order[NINE:LAST_RANK].tolist()
    assert trials.other.tolist() == order[100:].tolist()
    (first, second), (third, fourth) = trials.folds
    assert not set(first.tolist()) & set(third.tolist())
    assert not set(second.tolist()) & set(fourth.tolist())
    assert sorted([*first.tolist(), *third.tolist()]) == sorted(trials.exciting.tolist())


def test_a_unit_that_is_silent_on_nearly_all_photographs_is_not_asked_about():
    values = torch.zeros(200)
    values[:12] = torch.arange(12) + 1.0
    assert make_trials(values) is None
    values[:14] = torch.arange(14) + 1.0
    assert len(make_trials(values).exciting) == 5  # the others are as silent as the lower half


def test_what_tells_always_never_and_by_chance():
    high, low = torch.arange(5.0) + 10, torch.arange(7.0)
    assert share_right(high, low).value == 1
    assert share_right(low, high).value == 0
    assert share_right(torch.ones(5), torch.ones(7)).value == 0.5
    assert share_right(high, low).error == 0


def test_the_standard_error_is_the_deviation_over_draws_of_photographs():
    scores = [share_right(drawn(21, seed=i) + 0.8, drawn(100, seed=1000 + i)) for i in range(400)]
    spread = np.std([score.value for score in scores])
    assert np.mean([score.error for score in scores]) == pytest.approx(spread, rel=0.1)


def test_an_explanation_that_is_the_activation_itself_is_always_right_and_noise_is_at_chance():
    values = drawn(6, 300)
    trials = [make_trials(row) for row in values]
    for score in explanation_scores([values], trials, ["only"]):
        assert score.value > 0.97  # less what the photographs are like other units
    (alone,) = explanation_scores([values[:1]], trials[:1], ["only"])
    assert alone.value == 1
    noise = [score.value for score in explanation_scores([drawn(6, 300, seed=1)], trials, ["only"])]
    assert abs(np.mean(noise) - 0.5) < 0.1


def test_what_all_pictures_have_in_common_explains_none_of_them():
    values = drawn(4, 300)
    trials = [make_trials(row) for row in values]
    common = 100 * drawn(1, 300, seed=5)
    assert torch.allclose(less_common(values + common), less_common(values), atol=1e-4)
    plain = explanation_scores([values], trials, ["only"])
    shifted = explanation_scores([values + common], trials, ["only"])
    assert [score.value for score in shifted] == pytest.approx([score.value for score in plain], abs=0.02)


def test_the_depth_is_chosen_on_other_photographs_than_are_scored():
    """At each of two depths the answer is right on one fold and wrong on the other: what was chosen is then wrong."""
    values = drawn(1, 300)
    (trials,) = [make_trials(row) for row in values]
    depths = []
    for right in (0, 1):
        likeness = values.clone()
        for photographs in trials.folds[1 - right]:
            likeness[0, photographs] *= -1
        depths.append(likeness)
    (score,) = explanation_scores(depths, [trials], ["a", "b"])
    assert score.value == 0
    assert score.depths == ("b", "a")


# Scores of units


def test_photographs_that_are_one_thing_are_clear_and_two_things_are_polysemantic():
    features = drawn(200, 32)
    values = torch.arange(200.0)
    one, two = features.clone(), features.clone()
    one[184:] = drawn(32, seed=1) + 0.1 * drawn(16, 32, seed=2)
    two[184::2] = drawn(32, seed=1) + 0.1 * drawn(8, 32, seed=2)
    two[185::2] = -drawn(32, seed=1) + 0.1 * drawn(8, 32, seed=3)
    assert unit_scores.clarity(one, values) > 0.9
    assert abs(unit_scores.clarity(features, values)) < 0.2
    assert unit_scores.clarity(two, values) < 0.3
    assert unit_scores.polysemanticity(one, values) < 0.1
    assert unit_scores.polysemanticity(two, values) > 1.8


def test_a_channel_that_there_is_twice_is_redundant():
    features, profiles = drawn(200, 16), drawn(200, 5, seed=1).abs()

    def redundancy(profiles):
        return unit_scores.redundancy(unit_scores.channel_means(features, profiles), profiles, 0)

    assert redundancy(profiles) < 0.7
    profiles[:, 3] = 2 * profiles[:, 0]
    assert redundancy(profiles) == pytest.approx(1)
    assert redundancy(profiles[:, :1]) is None


def test_monosemanticity_is_the_weighted_mean_over_pairs():
    features, values = drawn(12, 6).double(), drawn(12, seed=1)
    scaled = ((values - values.min()) / (values.max() - values.min())).double()
    cosines = nn.functional.normalize(features, dim=1)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    weights = [scaled[i] * scaled[j] for i, j in pairs]
    expected = sum(w * (cosines[i] @ cosines[j]) for w, (i, j) in zip(weights, pairs, strict=True)) / sum(weights)
    assert unit_scores.monosemanticity(features, values) == pytest.approx(float(expected))
    assert unit_scores.monosemanticity(features, torch.ones(12)) is None


def test_the_machine_interpretability_score_of_what_is_seen_and_of_noise():
    values = drawn(400)
    seen = -(values[:, None] - values[None]).abs()  # photographs are alike that excite the unit alike
    assert unit_scores.machine_interpretability(seen, values) == {"score": 1, "tasks": 20}
    noise = [
        unit_scores.machine_interpretability(drawn(400, 400, seed=i), drawn(400, seed=i + 50))["score"]
        for i in range(20)
    ]
    assert abs(np.mean(noise) - 0.5) < 0.1
    assert unit_scores.machine_interpretability(seen[:100, :100], values[:100])["tasks"] == 5
    assert unit_scores.machine_interpretability(seen[:99, :99], values[:99]) is None


# Path similarity


def test_ranks_give_spearmans_correlation_with_ties():
    stats = pytest.importorskip("scipy.stats")
    values = (3 * drawn(4, 30)).round()  # many ties
    ranks = centered_ranks(values)
    for i in range(4):
        for j in range(4):
            expected = stats.spearmanr(values[i], values[j]).statistic
            assert float(ranks[i] @ ranks[j]) == pytest.approx(expected)
    assert centered_ranks(torch.ones(1, 5)).abs().sum() == 0


def test_a_path_is_1_for_photographs_of_the_unit_and_0_for_others():
    kind = drawn(60)
    photographs = drawn(120, 60, seed=1)
    photographs[:9] += 2 * kind
    layers = {"a": photographs, "b": drawn(120, 60, seed=2), "few": photographs[:, :2]}
    exciting = torch.arange(9)
    like = path_similarities({name: rows[0] for name, rows in layers.items()}, layers, exciting)
    assert like.keys() == {"a"}  # at "b" photographs of the unit are not alike, and two channels have no ranks
    new = path_similarities({"a": drawn(60, seed=9) + 2 * kind}, {"a": photographs}, exciting)
    other = path_similarities({"a": photographs[50]}, {"a": photographs}, exciting)
    assert new["a"] == pytest.approx(1, abs=0.25)
    assert other["a"] == pytest.approx(0, abs=0.35)


# Judges


class Hues(nn.Module):
    """How much of six hues an image has, and five classes of them; another seed has weights of its own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        hues = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]
        self.eye = nn.Conv2d(3, 6, 1)
        self.eye.weight.data = torch.tensor(hues).float()[..., None, None] + 0.01 * drawn(6, 3, 1, 1, seed=seed)
        self.eye.bias.data.zero_()
        self.relu = nn.ReLU()
        self.mix = nn.Conv2d(6, 80, 1)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(80, 5)
        # Each class is one of the hues, so that photographs are of several.
        self.head.weight.data = torch.linalg.pinv(self.mix.weight.data[:, :, 0, 0])[:5] + 0.01 * drawn(5, 80, seed=seed)

    def forward(self, images):
        return self.head(self.relu2(self.mix(self.relu(self.eye(images)))).mean((2, 3)))


def hues(seed, name):
    return phosphene.open(seeded(Hues, seed), Preprocessing(16, mean=0.5, std=0.25), name=name)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for i in range(120):
        colour = draw.integers(0, 256, 3)
        pixels = np.clip(colour + draw.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def pictures(network, folder, units=("relu:0", "relu:1", "relu:2")):
    result = phosphene.ascend(network, list(units), phosphene.Recipe.load("naive").override({"steps": 20}))
    result.save(folder)
    return [folder / f"{picture.name}.png" for picture in result]


def test_pictures_that_show_their_unit_explain_it_and_those_of_another_do_not(tmp_path, photographs):
    network, judge = hues(1, "hues"), hues(2, "judge")
    files = pictures(network, tmp_path)
    cards = phosphene.judge(files, judge, network=network, photographs=photographs)
    for card in cards:
        found = card["explanation"]
        assert found["score"] > 0.9
        assert found["nine_photographs"]["score"] > 0.9
        assert 0 <= found["error"] < 0.1
        assert found["chance"] == 0.5
        assert (found["photographs"], found["other_units"]) == (120, 2)
        assert set(found["judges"]["judge"]["depths"]) <= set(judged_layers(judge))
        assert card["unit_scores"]["judge"] == "judge"
        assert card["unit_scores"]["clarity"] > 0.2
        assert card["unit_scores"]["mis"]["score"] > 0.8
        assert card["path_similarity"]["layers"]
    # The same pixels, said to be of the other units: what they show is not what those see.
    pixels = [np.asarray(Image.open(file)) for file in files]
    swapped = []
    for i, file in enumerate(files):
        path = tmp_path / "swapped" / file.name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[(i + 1) % 3]).save(path)
        swapped.append(path)
    wrong = phosphene.judge(
        swapped, judge, network=network, unit=["relu:0", "relu:1", "relu:2"], photographs=photographs
    )
    assert np.mean([card["explanation"]["score"] for card in wrong]) < 0.4


@pytest.mark.slow
def test_several_images_of_a_unit_are_judged_each_and_together(tmp_path, photographs):
    network, judge = hues(1, "hues"), hues(2, "judge")
    files = [*pictures(network, tmp_path / "a"), *pictures(network, tmp_path / "b")]
    cards = phosphene.judge(files, judge, network=network, photographs=photographs)
    assert all(card["explanation"]["together"]["images"] == 2 for card in cards)
    assert cards[0]["explanation"]["together"] == cards[3]["explanation"]["together"]


class Balance(nn.Module):
    """How red rather than green, and how blue rather than red, an image is: numbers below 0 too."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Conv2d(3, 2, 1, bias=False)
        self.eye.weight.data = torch.tensor([[1.0, -1, 0], [-1, 0, 1]])[..., None, None]
        self.head = nn.Linear(2, 3)

    def forward(self, images):
        return self.head(self.eye(images).mean((2, 3)))


def test_a_unit_and_its_negative_are_told_by_what_excites_them_and_better_by_both(tmp_path, photographs):
    network = phosphene.open(seeded(Balance), Preprocessing(16, mean=0.5, std=0.25), name="balance")
    units = ["eye:0", "-1*eye:0", "eye:1"]
    cards = phosphene.judge(
        pictures(network, tmp_path, units), hues(2, "judge"), network=network, photographs=photographs
    )
    most, least, alone = (card["explanation"] for card in cards)
    assert most["score"] > 0.8
    assert least["score"] > 0.8
    assert (most["other_units"], least["other_units"]) == (1, 0)  # its opposite is no other unit
    assert most["both_sides"]["score"] >= most["score"] - 0.02
    assert least["both_sides"]["score"] > 0.9
    assert "both_sides" not in alone


def test_too_few_photographs_and_photographs_of_one_kind_are_told_and_the_rest_is_measured(tmp_path, photographs):
    network, judge = hues(1, "hues"), hues(2, "judge")
    files = pictures(network, tmp_path)
    few = sorted(photographs.glob("*.png"))[:40]
    for card in phosphene.judge(files, judge, network=network, photographs=few):
        assert card["explanation"] == {
            "missing": "40 photographs: expected at least 100, of many kinds, for an explanation score"
        }
        assert "percentile" in card
    same = [few[0]] * 100
    (text,) = {
        card["explanation"]["missing"] for card in phosphene.judge(files, judge, network=network, photographs=same)
    }
    assert text.startswith("100% of the photographs are class ")
    assert text.endswith("expected photographs of many kinds")


def test_a_judge_that_is_the_network_itself_or_shares_weights_is_refused(tmp_path, photographs):
    network = hues(1, "hues")
    files = pictures(network, tmp_path)
    with pytest.raises(InputError, match="judge hues is hues"):
        phosphene.judge(files, network, network=network, photographs=photographs)
    relative = hues(2, "relative")
    relative.module.mix = network.module.mix
    with pytest.raises(InputError, match="judge relative shares weights"):
        phosphene.judge(files, relative, network=network, photographs=photographs)


def test_any_network_judges_hidden_units_and_only_classifiers_judge_classes(tmp_path, photographs):
    network = hues(1, "hues")
    backbone = opened(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 9, 3)), size=16)
    files = pictures(network, tmp_path)
    cards = phosphene.judge(files, backbone, network=network, photographs=photographs)
    assert all("score" in card["explanation"] for card in cards)
    (file,) = pictures(network, tmp_path, ["class:0"])
    with pytest.raises(InputError, match="expected a network that classifies"):
        phosphene.judge(file, backbone, network=network, photographs=photographs)


def test_the_command_prints_keeps_and_shows_the_scores(tmp_path, photographs, capsys):
    deep = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())"
    judge = written_network(tmp_path, "judges", 1, deep)
    own = written_network(tmp_path, "own", 2, SHALLOW)
    out = tmp_path / "images"
    assert main(["filters", "1:0,1,2", "-n", own, "-r", "naive", "--steps", "5", "-o", str(out), "-q"]) == 0
    capsys.readouterr()
    arguments = ["judge", str(out), "-n", own, "--judges", judge, "--photographs", str(photographs)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for column in ("explains", "best photograph", "nine", "path", "clarity", "redundancy", "MIS"):
        assert column in printed
    assert "chance 0.50, 120 photographs" in printed
    image = sorted(out.glob("1_*.png"))[0]
    kept = read(image).scores
    assert kept.explanation.score is not None
    assert kept.unit_scores.clarity is not None
    assert kept.path_similarity is not None
    assert main(["show", str(image)]) == 0
    assert "explains  0." in capsys.readouterr().out


def test_a_network_judges_at_four_depths_the_last_before_the_logits(lite0):
    layers = judged_layers(lite0)
    assert len(layers) == DEPTHS
    assert layers[-1] == "bn2.act"
    assert [lite0.depth(layer) for layer in layers] == sorted(lite0.depth(layer) for layer in layers)


# Metrics


@needs_shared
def test_lpips_is_the_librarys_own_distance():
    lpips = pytest.importorskip("lpips", reason="lpips is not installed")
    judge = open_metric(f"lpips={ALEXNET}")
    pixels = 255 * torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (ours,) = judge.embed(pixels)
        theirs = judge.network.module(pixels[:1] / 127.5 - 1, pixels[1:] / 127.5 - 1).flatten()
    assert isinstance(judge.network.module, lpips.LPIPS)
    assert (ours[:1] - ours[1:]).square().sum(1).numpy() == pytest.approx(theirs.numpy(), rel=1e-4)


@needs_shared
def test_lpips_refuses_weights_of_another_network():
    pytest.importorskip("lpips", reason="lpips is not installed")
    with pytest.raises(InputError, match="expected the convolutions of torchvision's AlexNet"):
        open_metric(f"lpips={SHARED / 'weights/vgg16_features.safetensors'}")


def test_a_metric_that_is_not_installed_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(InputError, match=r"phosphene\[judges\]"):
        open_metric("dreamsim")


class Embedding(nn.Module):
    """In DreamSim's place: it cannot be downloaded here."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Conv2d(3, 4, 8, stride=8)

    def embed(self, images):
        assert images.shape[1:] == (3, 224, 224)
        assert 0 <= images.min() <= images.max() <= 1
        return self.eye(images).mean((2, 3))


def test_dreamsim_is_asked_for_embeddings_and_measures_the_units(tmp_path, photographs, monkeypatch):
    stub = ModuleType("dreamsim")
    stub.dreamsim = lambda pretrained, device, cache_dir: (seeded(Embedding), None)
    monkeypatch.setitem(sys.modules, "dreamsim", stub)
    network = hues(1, "hues")
    cards = phosphene.judge(pictures(network, tmp_path), "dreamsim", network=network, photographs=photographs)
    assert cards[0]["explanation"]["judges"]["dreamsim"]["depths"] == ["embedding", "embedding"]
    assert cards[0]["unit_scores"]["judge"] == "dreamsim"


def test_no_judge_and_no_photographs_leave_the_card_without(tmp_path, photographs):
    network = hues(1, "hues")
    files = pictures(network, tmp_path)
    for card in phosphene.judge(files, [], network=network, photographs=photographs):
        assert "explanation" not in card
        assert "path_similarity" in card
    for card in phosphene.judge(files, hues(2, "judge"), network=network):
        assert "explanation" not in card
        assert "path_similarity" not in card


def test_a_class_has_a_path(tmp_path, photographs):
    network = hues(1, "hues")
    (file,) = pictures(network, tmp_path, ["class:1"])
    (card,) = phosphene.judge(file, hues(2, "judge"), network=network, photographs=photographs)
    assert "path_similarity" in card
    assert "explanation" not in card
    assert math.isfinite(card["path_similarity"]["mean"])


# A search for what explains


@pytest.mark.slow
def test_a_search_maximizes_what_pictures_explain_where_photographs_are_given(tmp_path, photographs):
    pytest.importorskip("optuna")
    network, judge = hues(1, "hues"), hues(2, "judge")
    settings = SearchSettings(
        judges=[judge], photographs=photographs, count=3, trials=2, steps=4, out=tmp_path, keep=False
    )
    found = search(network, "relu", settings)
    task = make_task(network, "relu", settings)
    made = phosphene.ascend(network, task.metric.units, task.space.base.override({"steps": 4}), seed=settings.seed)
    cards = phosphene.judge(list(made), judge, network=network, photographs=photographs)
    expected = np.mean([card["explanation"]["score"] for card in cards])
    assert found.base == pytest.approx(expected, abs=1e-6)
    assert all(0 <= trial.score <= 1 for trial in found.trials)


def test_a_search_by_photographs_says_what_it_cannot_do(photographs):
    pytest.importorskip("optuna")
    network = hues(1, "hues")
    few = SearchSettings(judges=[hues(2, "judge")], photographs=sorted(photographs.glob("*.png"))[:50])
    with pytest.raises(InputError, match="50 photographs: expected at least 100"):
        search(network, "relu", few)
    with pytest.raises(InputError, match="expected a layer"):
        search(network, None, SearchSettings(judges=[hues(2, "judge")], photographs=photographs))
    with pytest.raises(InputError, match="expected --photographs"):
        search(network, "relu", SearchSettings(judges=[hues(2, "judge")]))
    with pytest.raises(InputError, match="is hues, which is to be shown"):
        search(network, "relu", SearchSettings(judges=[network], photographs=photographs))


@needs_shared
def test_a_network_of_convolutions_alone_judges_by_its_weights_file():
    judge = open_judge(f"torchvision:alexnet={ALEXNET}")
    assert judged_layers(judge)[-1].startswith("features.")
    assert not judge.classes
