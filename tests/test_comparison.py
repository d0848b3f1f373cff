"""What networks share: CKA against other formulas, and units that are known to belong together."""

import math

import numpy as np
import pytest
import torch
from helpers import Small, opened, seeded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import vit
from torch import nn

import phosphene
from phosphene import InputError, Network
from phosphene.comparison.features import to_grid
from phosphene.comparison.matching import assign, mutual_best
from phosphene.comparison.moments import CrossMoments
from phosphene.comparison.networks import ComparisonSettings, compare_all
from phosphene.comparison.similarity import WIDTH, SimilaritySums, linear_cka

LAYERS = ["relu1", "relu2"]
QUICK = ComparisonSettings(grid=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty-eight pictures of smooth noise, in which there are things at places."""
    place = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for index in range(48):
        small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize((40, 40), Image.Resampling.BICUBIC).save(place / f"{index:02d}.png")
    return place


def features(seed, rows=24, columns=10):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


# CKA.


def song(first, second):
    """Equation 5 of Song et al. 2012, as it is printed."""
    n = len(first)
    left, right = (each @ each.T for each in (first.double().numpy(), second.double().numpy()))
    np.fill_diagonal(left, 0)
    np.fill_diagonal(right, 0)
    ones = np.ones(n)
    traced = np.trace(left @ right)
    sums = (ones @ left @ ones) * (ones @ right @ ones) / ((n - 1) * (n - 2))
    return (traced + sums - 2 / (n - 2) * (ones @ left @ right @ ones)) / (n * (n - 3))


@given(st.integers(4, 30), st.integers(1, 40), st.integers(0, 99))
def test_debiased_cka_is_that_of_the_paper(rows, columns, seed):
    first, second = features(seed, rows, columns), features(seed + 1000, rows, 7)
    second = second + first[:, :1]
    norms = song(first, first) * song(second, second)
    if norms > 1e-6:
        assert linear_cka(first, second) == pytest.approx(song(first, second) / math.sqrt(norms), abs=1e-9)


@pytest.mark.slow  # rsatoolbox takes seconds to import
def test_cka_is_whitened_cosine_of_squared_distances_as_rsatoolbox_has_it():
    """The whitened cosine of squared Euclidean distances is the usual linear CKA (Diedrichsen et al. 2021)."""
    rsatoolbox = pytest.importorskip("rsatoolbox")
    first, second = features(0, 40, 6), features(1, 40, 6) + features(0, 40, 6)
    distances = [
        rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(each.double().numpy()), method="euclidean")
        for each in (first, second)
    ]
    theirs = float(rsatoolbox.rdm.compare(*distances, method="cosine_cov")[0, 0])
    many = [torch.cat([each] * 60) for each in (first, second)]  # what is debiased vanishes with many photographs
    assert linear_cka(*many) == pytest.approx(theirs, abs=0.02)


def test_cka_knows_rotation_and_scale_and_nothing_else():
    first = features(0, 60)
    rotation = torch.linalg.qr(features(3, 10)).Q
    assert linear_cka(first, 3 * first @ rotation + 5) == pytest.approx(1, abs=1e-6)
    assert abs(np.mean([linear_cka(features(i), features(i + 500, columns=200)) for i in range(60)])) < 0.02
    assert math.isnan(linear_cka(first, torch.ones(60, 3)))


def test_blocks_of_photographs_are_right_on_average():
    first, second = features(0, 480, 5), features(1, 480, 8)
    second[:, :5] += 2 * first
    sums = SimilaritySums([(0, 1), (0, 0)], 32, 0)
    for rows in torch.split(torch.arange(480), 8):
        sums.add([{"x": first[rows, :, None]}, {"y": second[rows, :, None]}])
    between, itself = sums.finish()
    assert between.cka[0, 0] == pytest.approx(linear_cka(first, second), abs=0.03)
    assert itself.cka[0, 0] == 1
    assert between.halves.mean() == pytest.approx(between.cka[0, 0], abs=0.03)
    assert abs(between.chance[0, 0]) < 0.02
    assert sums.count == 480


def test_a_projection_changes_little_and_is_the_same_again():
    wide = features(0, 64, 2 * WIDTH) + 3 * features(1, 64, 1)
    results = []
    for _ in range(2):
        sums = SimilaritySums([(0, 1)], 64, 7)
        sums.add([{"x": wide[..., None]}, {"y": wide[:, : WIDTH // 2, None]}])
        results.append(sums.finish()[0].cka[0, 0])
        assert sums.sketched == [(0, "x")]
    assert results[0] == results[1]
    assert results[0] == pytest.approx(linear_cka(wide, wide[:, : WIDTH // 2]), abs=0.02)


# Units.


@given(st.integers(1, 6), st.integers(0, 99))
def test_moments_of_parts_are_those_of_all(parts, seed):
    x, y = 1000 + features(seed, 30, 4), features(seed + 1, 30, 3)
    sums = [CrossMoments(x[0], y[0]) for _ in range(parts)]
    for part, rows in enumerate(torch.arange(30).tensor_split(parts)):
        sums[part].add(x[rows], y[rows])
    whole = sums[0]
    for each in sums[1:]:
        whole = whole + each
    expected = np.corrcoef(x.double().T.numpy(), y.double().T.numpy())[:4, 4:]
    np.testing.assert_allclose(whole.correlation().numpy(), expected, atol=1e-4)


def test_assignment_and_best_friends_are_what_they_say():
    values = np.array([[0.9, 0.8, 0.1], [0.85, 0.1, 0.0]])
    pairs, found = assign(values)
    assert pairs.tolist() == [[1, 0], [0, 1]]  # 0.85 + 0.8 is more than 0.9 + 0.1
    assert found.tolist() == [0.85, 0.8]
    assert mutual_best(values).tolist() == [[0, 0]]


def permuted(network: Network) -> tuple[Network, torch.Tensor]:
    """A copy whose second convolution has its channels in another order, and the order."""
    module = seeded(Small)
    module.load_state_dict(network.module.state_dict())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    module.conv2.weight.data = module.conv2.weight.data[order]
    module.conv2.bias.data = module.conv2.bias.data[order]
    module.head.weight.data = module.head.weight.data[:, order]
    return opened(module), order


def test_a_network_against_itself_is_the_identity(small, folder):
    found = phosphene.compare(small, small, folder, LAYERS, settings=QUICK)
    np.testing.assert_allclose(np.diag(found.similarity.cka), 1, atol=1e-6)
    assert [(a, b) for a, b, _ in found.best_layers()] == [(name, name) for name in LAYERS]
    for match in found.matches:
        assert match.b == match.a
        assert (match.units.pairs[:, 0] == match.units.pairs[:, 1]).all()
        np.testing.assert_allclose(match.units.correlations, 1, atol=1e-4)
        assert match.units.friends_share == 1
        assert match.units.held_out == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(match.units.few.by_few, 1, atol=1e-3)


def test_a_permutation_of_channels_is_recovered_whole(small, folder):
    other, order = permuted(small)
    for a, b in ((small, other), (other, small)):
        match = phosphene.compare(a, b, folder, ["relu2"], settings=QUICK).match("relu2")
        pairs = match.units.pairs if a is small else match.units.pairs[:, ::-1]
        assert len(pairs) + len(match.units.dead[0]) == 12
        assert all(order[there] == here for here, there in pairs.tolist())
        assert sorted(map(tuple, match.units.friends.tolist())) == sorted(map(tuple, match.units.pairs.tolist()))


def test_dead_units_are_left_out_and_counted(small, folder):
    other = opened(seeded(Small))
    with torch.no_grad():
        other.module.conv2.bias[[2, 7]] = -1e6
    match = phosphene.compare(small, other, folder, ["relu2=relu2"], settings=QUICK).matches[0]
    already = set(match.units.dead[0].tolist())
    assert set(match.units.dead[1].tolist()) == already | {2, 7}
    assert not {2, 7} & set(match.units.pairs[:, 1].tolist())
    assert match.summary()["dead"] == [len(already), len(already | {2, 7})]
    assert len(match.units.pairs) == match.units.alive[1]


def test_shuffled_photographs_are_near_chance(small, folder):
    found = phosphene.compare(small, small, folder, LAYERS, settings=QUICK)
    assert np.abs(found.similarity.chance).max() < 0.1
    for match in found.matches:
        assert match.units.chance.mean() < 0.4
        assert match.units.held_out > 2 * match.units.chance.mean()
        assert match.units.mutual[1] < match.units.mutual[0]


class Summed(nn.Module):
    """The channels of `Small`'s first layer, and sums of three of them."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.conv1, self.relu1 = module.conv1, nn.ReLU()
        self.mix = nn.Conv2d(8, 4, 1, bias=False)
        nn.init.zeros_(self.mix.weight)
        for row in range(4):
            self.mix.weight.data[row, [row, row + 1, row + 4], 0, 0] = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.mix(self.relu1(self.conv1(images))).mean((2, 3))


def test_a_sum_of_units_is_told_by_a_few_and_not_by_one(folder):
    module = seeded(Small)
    found = phosphene.compare(opened(Summed(module)), opened(module), folder, ["mix=relu1"], settings=QUICK)
    few = found.matches[0].units.few
    alive = few.by_one != 0
    assert alive.sum() >= 2
    assert few.by_few[alive].min() > 0.95
    assert few.by_one[alive].max() < few.by_few[alive].min()


def test_few_to_one_is_least_squares_on_photographs_held_out(small, folder):
    """The R² of second moments is that of the activations themselves."""
    found = phosphene.compare(small, small, folder, ["relu2=relu1"], settings=ComparisonSettings(grid=4, few=1))
    few = found.matches[0].units.few
    seen = small.activations(list(found.photographs), LAYERS)
    a, b = (to_grid(seen[name], 4).flatten(2).movedim(1, 2).double() for name in ("relu2", "relu1"))
    for place, unit in enumerate(few.units.tolist()):
        scores = []
        for known in (0, 1):
            x, y = b[known::2].flatten(0, 1), a[known::2][..., unit].flatten()
            told = np.nan_to_num(np.corrcoef(x.T.numpy(), y.numpy())[-1, :-1])
            source = int(np.abs(told).argmax())
            weight, offset = np.polyfit(x[:, source].numpy(), y.numpy(), 1)
            x, y = b[1 - known :: 2][..., source].flatten(), a[1 - known :: 2][..., unit].flatten()
            scores.append(max(-1.0, float(1 - (y - weight * x - offset).square().mean() / y.var(correction=0))))
        assert few.by_few[place] == pytest.approx(np.mean(scores), abs=1e-3)
        np.testing.assert_allclose(few.by_one, few.by_few)


def test_networks_of_other_sizes_and_kinds_go_together(small, folder):
    found = phosphene.compare(small, vit(), folder, settings=ComparisonSettings(count=3, grid=4))
    assert found.similarity.cka.shape == (len(found.a.layers), len(found.b.layers)) == (2, 3)
    assert [found.a.layers, found.b.layers[0][:7]] == [("relu1", "relu2"), "blocks."]
    assert any("has its own preprocessing" in note for note in found.notes)
    assert all(np.isfinite(match.units.correlations).all() for match in found.matches)


def test_vectors_are_matched_by_means_over_positions(small, folder):
    found = phosphene.compare(small, small, folder, ["head=relu2"], settings=QUICK)
    assert found.matches[0].units.channels == (5, 12)
    assert any("head by the mean over positions" in note for note in found.notes)


def test_pairs_of_several_networks_are_as_each_alone(small, folder):
    other = opened(Summed(seeded(Small)))
    together = compare_all([small, other, small], folder, settings=QUICK)
    alone = phosphene.compare(small, other, folder, settings=QUICK)
    assert list(together) == [(0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(together[0, 1].similarity.cka, alone.similarity.cka, atol=1e-9)
    assert [each.summary() for each in together[0, 1].matches] == [each.summary() for each in alone.matches]


def test_networks_are_handed_back_and_photographs_in_any_order_of_networks(small, folder):
    small.module.train()
    before = {name: value.clone() for name, value in small.module.state_dict().items()}
    phosphene.compare(small, small, folder, ["relu1=relu2"], settings=QUICK)
    assert small.module.training
    assert all(torch.equal(value, before[name]) for name, value in small.module.state_dict().items())


def test_the_most_exciting_photographs_are_those_of_the_activations(small, folder):
    match = phosphene.compare(small, small, folder, ["relu2=relu2"], settings=QUICK).matches[0]
    found = phosphene.compare(small, small, folder, ["relu2=relu2"], settings=QUICK)
    seen = small.activations(list(found.photographs), "relu2")["relu2"].flatten(2).max(2)
    best = seen.values.topk(4, dim=0)
    torch.testing.assert_close(match.peaks[0].values, best.values.T, atol=1e-5, rtol=1e-4)
    alive = match.units.pairs[0, 0]
    assert match.peaks[0].photographs[alive].tolist() == best.indices[:, alive].tolist()
    assert match.peaks[0].places[alive, 0] == seen.indices[best.indices[0, alive], alive]


def test_layers_may_be_named_in_any_order(small, folder):
    """Modules are called in an order of their own, in which layers come out."""
    named, turned = (
        phosphene.compare(small, small, folder, layers, settings=QUICK)
        for layers in (["relu1=relu1", "relu2=relu1"], ["relu2=relu1", "relu1=relu1"])
    )
    assert [(match.a, match.cka) for match in turned.matches] == [(each.a, each.cka) for each in named.matches[::-1]]
    assert turned.match("relu1").cka == pytest.approx(1)
    assert turned.match("relu2").cka < 0.99


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["relu3"], "no layer 'relu3'; did you mean relu2"),
        (["relu1=relu5"], "no layer 'relu5'"),
        (["relu1="], "expected LAYER of A, or LAYER=LAYER of B"),
        ([], "no layers: expected at least one"),
    ],
)
def test_layers_that_are_none_are_refused(layers, sentence, small, folder):
    with pytest.raises(InputError, match=sentence):
        phosphene.compare(small, small, folder, layers)


def test_photographs_that_are_too_few_are_refused(small, folder, tmp_path):
    with pytest.raises(InputError, match="5 photographs: expected at least 16"):
        phosphene.compare(small, small, sorted(folder.iterdir())[:5])
    with pytest.raises(InputError, match="there is no such folder"):
        phosphene.compare(small, small, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no image file"):
        phosphene.compare(small, small, tmp_path)
    for index in range(20):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of 20 photographs"):
        phosphene.compare(small, small, tmp_path)
    Image.new("RGB", (30, 30)).save(tmp_path / "real.png")
    with pytest.raises(InputError, match="1 photographs that can be read: expected at least 16"):
        phosphene.compare(small, small, tmp_path)
    with pytest.raises(InputError, match="grid 0: expected a whole number of 1 to 64"):
        ComparisonSettings(grid=0)


def test_numbers_that_are_not_finite_are_refused(small, folder):
    broken = opened(seeded(Small))
    with torch.no_grad():
        broken.module.conv2.bias[3] = math.nan
    with pytest.raises(InputError, match=r"layer .conv2. of small gives numbers .* not finite"):
        phosphene.compare(small, broken, folder, ["relu1=conv2"])
