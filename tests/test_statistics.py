import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from corruption import check_corrupted
from helpers import SHARED, Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.cli.program import main
from phosphene.photographs import image_statistics
from phosphene.photographs.activation_files import (
    cache_path,
    find_activation_statistics,
    load_activation_statistics,
)
from phosphene.photographs.activation_statistics import collect, statistics_layers
from phosphene.photographs.image_statistics import (
    bundled_image_statistics,
    load_image_statistics,
    measure_image_statistics,
)
from phosphene.photographs.listing import list_photographs
from phosphene.photographs.spectra import periodic_spectrum

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def power_noise(seed, height, width, slope=1.0):
    """Planes (3, height, width) with the spectrum 1/f^slope and unit variance, periodic."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None] * width)
    spectrum = torch.fft.rfft2(torch.randn(3, height, width, generator=generator)) * frequency.clamp_min(1) ** -slope
    spectrum[:, 0, 0] = 0
    planes = torch.fft.irfft2(spectrum, s=(height, width))
    return planes / planes.std(dim=(1, 2), keepdim=True)


MIX = torch.tensor([[0.10, 0.03, 0.01], [0.11, 0.0, -0.02], [0.10, -0.03, 0.01]])


def save_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of coloured noise in folders, a damaged one, and a file that is none."""
    directory = tmp_path_factory.mktemp("photographs")
    for index in range(12):
        image = 0.45 + torch.tensordot(MIX, power_noise(index, 72, 96), 1)
        save_image(directory / f"sub{index % 3}" / f"{index}.png", image)
    whole = (directory / "sub0" / "0.png").read_bytes()
    (directory / "damaged.png").write_bytes(whole[: len(whole) // 2])
    (directory / "notes.txt").write_text("no image")
    return directory


@pytest.fixture(scope="module")
def paths(folder):
    return list_photographs(folder)


def pixels_of(paths, preprocessing):
    rows = []
    for path in paths:
        if "damaged" not in path.name:
            with Image.open(path) as image:
                rows.append(preprocessing.photograph(image))
    return torch.stack(rows)


# Photographs


def test_planes_of_photographs_are_uncorrelated_and_of_unit_variance(paths):
    found = measure_image_statistics(paths, size=64)
    pixels = pixels_of(paths, Preprocessing(64)) / 255
    covariance = torch.cov(pixels.transpose(0, 1).flatten(1), correction=0)
    assert found.count == 12
    assert found.unreadable == 1
    torch.testing.assert_close(found.mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(found.colors @ found.colors.T, covariance)
    deviations = found.colors.norm(dim=0)
    assert list(deviations) == sorted(deviations, reverse=True)
    assert (found.colors[:, 0] > 0).all()  # light against dark
    planes = torch.einsum("kc,nchw->nkhw", found.colors.inverse(), pixels - found.mean.view(3, 1, 1))
    planes = torch.cov(planes.transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(planes, torch.eye(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (48, 80), (81, 50), (51, 38), (7, 200), (2, 3)])
def test_planes_of_the_magnitude_have_unit_variance_at_every_size(size):
    magnitude = bundled_image_statistics().magnitude_for(*size)
    assert magnitude.shape == (3, size[0], size[1] // 2 + 1)
    noise = torch.fft.rfft2(torch.randn(3, *size, generator=torch.Generator().manual_seed(0)))
    planes = torch.fft.irfft2(torch.polar(magnitude, noise.angle()), s=size, norm="ortho")
    torch.testing.assert_close(planes.var((1, 2), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(planes.mean((1, 2)), torch.zeros(3), atol=1e-5, rtol=0)


def test_the_magnitude_is_alike_in_all_quadrants_and_falls_with_frequency():
    magnitude = bundled_image_statistics().magnitude_for(128, 128)
    torch.testing.assert_close(magnitude[:, 1:64, 0], magnitude[:, 65:, 0].flip(1))  # real planes are so
    across, down = magnitude[0, 0, 1:], magnitude[0, 1:64, 0]
    for falling in (across, down, magnitude[0].diagonal()[1:64]):
        assert (falling[4:] < falling[:-4]).all()


def test_the_magnitude_is_in_cycles_an_image():
    """An image twice as large has the same spectrum at its lowest frequencies, but for the scale."""
    found = bundled_image_statistics()
    small, large = found.magnitude_for(96, 96)[:, :20, 1:20], found.magnitude_for(192, 192)[:, :20, 1:20]
    ratio = large / small
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    wide = found.magnitude_for(96, 192)[:, :20, 2:40:2]  # the shorter side counts
    ratio = wide / small
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))


def test_beyond_the_measured_frequencies_it_is_a_power_law():
    found = bundled_image_statistics()
    magnitude = found.magnitude_for(1024, 1024)[0, 0]
    octave = magnitude[400] / magnitude[200]
    assert float(octave) == pytest.approx(2**-found.slope, rel=1e-4)


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("periodic", [True, False])
def test_the_slope_of_noise_is_found(tmp_path, slope, periodic):
    for index in range(12):
        noise = (
            power_noise(index, 96, 96, slope) if periodic else power_noise(index, 192, 192, slope)[:, 40:136, 40:136]
        )
        save_image(tmp_path / f"{index}.png", 0.5 + torch.tensordot(MIX, noise, 1))
    found = measure_image_statistics(list_photographs(tmp_path), size=96)
    assert found.slope == pytest.approx(slope, abs=0.12)
    # Noise is alike in all directions.  At the lowest frequencies there is too little of it to tell.
    upper = found.magnitude[0, len(found.frequencies) // 2 :]
    assert float((upper / upper.mean(1, keepdim=True)).log().abs().max()) < 0.25


def test_the_table_is_close_to_the_spectrum_that_was_measured(paths):
    size = 64
    found = measure_image_statistics(paths, size)
    pixels = pixels_of(paths, Preprocessing(size)).double() / 255
    planes = torch.einsum("kc,nchw->nkhw", found.colors.double().inverse(), pixels - found.mean.view(3, 1, 1))
    measured = torch.fft.rfft2(planes, norm="ortho").abs().mean(0)[:, 1:16, 1:16]
    given = found.magnitude_for(size, size)[:, 1:16, 1:16]
    ratio = (measured / given).log()
    ratio = ratio - ratio.mean((1, 2), keepdim=True)
    assert float(ratio.std()) < 0.25  # twelve magnitudes of noise have this much by chance


def test_what_has_no_detail_leaves_no_cross():
    """A ramp jumps from edge to opposite edge: its own spectrum has a cross, its periodic part's next to nothing."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None].expand(64, 48) + torch.linspace(0, 2, 48)[None]
    before, after = torch.fft.rfft2(ramp, norm="ortho").abs(), periodic_spectrum(ramp).abs()
    assert float(after[0, 0]) == pytest.approx(float(before[0, 0]))
    before[0, 0] = after[0, 0] = 0
    assert float(after.square().sum()) < 0.1 * float(before.square().sum())
    tile = power_noise(0, 48, 64)[0].double()
    change = periodic_spectrum(tile) - torch.fft.rfft2(tile, norm="ortho")
    assert float(change.abs().square().sum()) < 0.05 * tile.numel()  # what is periodic stays


def test_grey_photographs_are_measured(tmp_path):
    for index in range(4):
        save_image(tmp_path / f"{index}.png", 0.5 + 0.1 * power_noise(index, 48, 48)[:1].expand(3, -1, -1))
    found = measure_image_statistics(list_photographs(tmp_path), size=48)
    assert float(found.colors[:, 0].norm() / found.colors[:, 1].norm()) > 100
    assert found.magnitude_for(30, 30).isfinite().all()


def test_photographs_are_kept_and_read_again(paths, tmp_path):
    found = measure_image_statistics(paths, size=32)
    again = load_image_statistics(found.save(tmp_path / "new" / "own.safetensors"))
    assert os.listdir(tmp_path / "new") == ["own.safetensors"]
    assert (again.slope, again.count, again.unreadable) == (found.slope, found.count, found.unreadable)
    assert again.digest() == found.digest() != bundled_image_statistics().digest()
    torch.testing.assert_close(again.magnitude_for(20, 30), found.magnitude_for(20, 30), atol=0, rtol=0)


def test_progress_goes_through_all_files_twice(paths):
    told = []
    measure_image_statistics(paths, size=32, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 26) for done in range(1, 27)]


def test_what_cannot_be_measured_is_said(folder, tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        list_photographs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no image file in this folder"):
        list_photographs(tmp_path)
    with pytest.raises(InputError, match=r"none of 1 photographs, such as .*damaged\.png"):
        measure_image_statistics([folder / "damaged.png"])
    with pytest.raises(InputError, match="no photographs"):
        measure_image_statistics([])
    with pytest.raises(InputError, match="size 8: expected at least 16"):
        measure_image_statistics([folder / "damaged.png"], size=8)
    Image.new("RGB", (40, 40), (10, 200, 30)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="of one color"):
        measure_image_statistics([tmp_path / "plain.png"], size=16)
    with pytest.raises(InputError, match=r"own\.safetensors.*there is no such file.*phosphene statistics DIR"):
        load_image_statistics(tmp_path / "own.safetensors")


def test_the_bundled_averages_are_those_of_photographs():
    found = bundled_image_statistics()
    assert found.count == 200
    assert 0.9 < found.slope < 1.5  # Field 1987: near 1; of small JPEG files more
    assert found.mean[0] > found.mean[1] > found.mean[2]
    assert found.colors.norm(dim=0)[0] > 3 * found.colors.norm(dim=0)[1]
    magnitude = found.magnitude_for(256, 256)[0]
    assert magnitude[0, 20] > 1.1 * magnitude[14, 14]  # upright edges and level ones are the most
    data = os.path.join(os.path.dirname(image_statistics.__file__), "photographs.safetensors")
    assert os.path.getsize(data) < 100_000


@needs_shared
def test_the_bundled_averages_agree_with_photographs_measured_now():
    found, bundled = (
        measure_image_statistics(list_photographs(SHARED / "images", 40), size=128),
        bundled_image_statistics(),
    )
    assert found.slope == pytest.approx(bundled.slope, abs=0.1)
    torch.testing.assert_close(found.mean, bundled.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(found.colors[:, 0], bundled.colors[:, 0], atol=0.04, rtol=0)


# Activations


def test_what_is_gathered_is_what_all_photographs_at_once_give(small, paths):
    found = collect(small, paths, batch=5)
    assert (found.network, found.weights, found.count, found.unreadable) == ("small", small.digest, 12, 1)
    assert list(found.layers) == ["conv1", "conv2"]
    outputs = {}
    with small.borrowed(), torch.no_grad():
        pixels = pixels_of(paths, small.preprocessing)
        small.read(pixels, {name: lambda output, name=name: outputs.update({name: output}) for name in found.layers})
    for name, layer in found.layers.items():
        maps = outputs[name].double().flatten(2)
        for value, expected in (
            (layer.mean, maps.mean((0, 2))),
            (layer.std, maps.std((0, 2), correction=0)),
            (layer.mean_spread, maps.mean(2).std(0, correction=0)),
            (layer.std_spread, maps.std(2, correction=0).std(0, correction=0)),
        ):
            torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=1e-6)


def test_the_network_is_handed_back_as_it_came(small, paths):
    small.module.train()
    before = small.digest
    collect(small, paths[:2])
    assert small.module.training
    assert all(parameter.requires_grad for parameter in small.module.parameters())
    assert not any(module._forward_hooks for module in small.module.modules())
    assert small.digest == before


def test_of_many_photographs_so_many_are_used_evenly_spread(small, paths):
    told = []
    found = collect(small, paths, limit=4, batch=3, on_progress=lambda done, total: told.append((done, total)))
    assert found.count + found.unreadable == 4
    assert told[-1] == (4, 4)
    assert found.digest() == collect(small, [paths[index * 13 // 4] for index in range(4)]).digest()
    assert found.digest() != collect(small, paths[:4]).digest()


def test_layers_can_be_named(small, paths):
    found = collect(small, paths, layers=["head", "relu1"])
    assert list(found.layers) == ["head", "relu1"]
    assert len(found.layers["head"].mean) == 5
    assert float(found.layers["head"].std_spread.abs().max()) == 0  # one position has no deviation
    assert float(found.layers["relu1"].mean.min()) >= 0
    with pytest.raises(InputError, match="did you mean conv1"):
        collect(small, paths, layers=["conv11"])


def test_networks_of_one_channel_are_fed_grey(paths):
    network = opened(seeded(Small, 1), channels=1)
    assert collect(network, paths[:3]).count >= 2


class Blocks(nn.Module):
    """A block whose name is a convolution's, a convolution of one position, and tokens."""

    class ConvBlock(nn.Sequential):
        pass

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, tokens):
            return tokens + self.norm(tokens)

    def __init__(self):
        super().__init__()
        self.stem = self.ConvBlock(nn.Conv2d(3, 4, 8, 8), nn.ReLU())
        self.blocks = nn.Sequential(self.Block(), self.Block())
        self.squeeze = nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(2, 5)

    def forward(self, images):
        tokens = self.blocks(self.stem(images).flatten(2).transpose(1, 2))
        return self.head(self.squeeze(tokens.mean(1)[:, :, None, None]).flatten(1))


def test_the_default_layers_are_convolutions_and_where_these_are_few_tokens(small):
    assert [layer.name for layer in statistics_layers(small)] == ["conv1", "conv2"]
    names = [layer.name for layer in statistics_layers(opened(seeded(Blocks)))]
    assert names == ["stem.0", "blocks.0.norm", "blocks.0", "blocks.1.norm", "blocks.1"]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    with pytest.raises(InputError, match="small has no layer to gather statistics of"):
        statistics_layers(opened(plain))


def test_the_tokens_of_a_transformer_are_read_as_channels(paths):
    network = opened(seeded(Blocks))
    found = collect(network, paths[:4])
    assert len(found.layers["blocks.0.norm"].mean) == 4
    weights = network.module.blocks[0].norm
    assert float((weights.weight - 1).detach().abs().max()) == 0
    assert float(found.layers["blocks.0.norm"].mean.sum().abs()) < 1e-5  # a token's channels sum to 0


def test_numbers_that_are_not_finite_are_refused(paths):
    module = seeded(Small)
    network = opened(module)
    assert network.layers
    with torch.no_grad():
        module.conv2.weight[0] = math.inf
    with pytest.raises(InputError, match="'conv2' of small gives numbers on these photographs that are not finite"):
        collect(network, paths[:3])


def test_what_cannot_be_gathered_is_said(small, folder):
    with pytest.raises(InputError, match="none of 1 photographs"):
        collect(small, [folder / "damaged.png"])
    with pytest.raises(InputError, match="no photographs"):
        collect(small, [])
    with pytest.raises(InputError, match="no layers"):
        collect(small, [folder / "damaged.png"], layers=[])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_activations_are_kept_and_found_again(small, paths, cache):
    assert find_activation_statistics(small) is None
    found = collect(small, paths)
    assert found.save(cache_path(small)) == cache / f"{small.digest}.safetensors" == cache_path(found.weights)
    assert len(os.listdir(cache)) == 1
    again = find_activation_statistics(small)
    assert again is not None
    assert list(again.layers) == list(found.layers)
    assert replace(again, layers={}).__dict__ == replace(found, layers={}).__dict__
    assert again.digest() == found.digest()
    assert find_activation_statistics(small.with_input_size((32, 32))) is not None  # the size does not matter


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("PHOSPHENE_STATISTICS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path("abc") == tmp_path / "phosphene" / "statistics" / "abc.safetensors"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path("abc") == tmp_path / ".cache" / "phosphene" / "statistics" / "abc.safetensors"


def test_statistics_of_another_network_are_refused(small, paths, tmp_path):
    file = collect(small, paths[:3]).save(tmp_path / "own.safetensors")
    module = seeded(Small)
    with torch.no_grad():
        module.conv1.bias += 1
    other = opened(module)
    with pytest.raises(InputError, match=f"are of small, weights {small.digest}, and not of small, weights"):
        load_activation_statistics(file, other)
    fed_otherwise = small.replace(preprocessing=replace(small.preprocessing, mean=0.0))
    with pytest.raises(InputError, match="with other preprocessing"):
        load_activation_statistics(file, fed_otherwise)
    with pytest.raises(InputError, match="are not of photographs"):
        load_image_statistics(file)
    own = bundled_image_statistics().save(tmp_path / "photographs.safetensors")
    with pytest.raises(InputError, match="are not of activations"):
        load_activation_statistics(own, small)


def test_damaged_files_are_refused_or_read(small, paths, tmp_path):
    file = collect(small, paths[:3]).save(tmp_path / "own.safetensors")
    own = bundled_image_statistics().save(tmp_path / "photographs.safetensors")
    assert check_corrupted(file, lambda path: load_activation_statistics(path, small)) > 100
    assert check_corrupted(own, load_image_statistics) > 100


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(
    ("name", "options", "layers", "channels"),
    [
        (
            "torchvision:vgg16",
            {"weights": SHARED / "weights" / "vgg16_features.safetensors", "partial": True},
            13,
            4224,
        ),
        (
            SHARED / "weights" / "squeezenet_v1.1.prototxt",
            {"weights": SHARED / "weights" / "squeezenet_v1.1.caffemodel"},
            26,
            3944,
        ),
    ],
)
def test_trained_networks(name, options, layers, channels):
    network = phosphene.open(str(name), **options)
    found = collect(network, list_photographs(SHARED / "images", 2), batch=2)
    assert len(found.layers) == layers
    assert sum(len(layer.mean) for layer in found.layers.values()) == channels
    assert all(float(layer.std.median()) > 0 for layer in found.layers.values())
    first = next(iter(found.layers.values()))
    assert float(first.mean.min()) < 0  # from before the activation


# The command line


def test_photographs_on_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["statistics", str(folder), "--limit", "5"]) == 0
    out = capsys.readouterr().out
    assert "--set canvas.colours=statistics.safetensors" in out
    assert load_image_statistics("statistics.safetensors").count in (4, 5)
    assert main(["statistics", str(folder), "-o", "a/own.safetensors", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    own = load_image_statistics("a/own.safetensors")
    assert (said["count"], said["unreadable"], said["digest"]) == (12, 1, own.digest())
    assert np.allclose(said["colours"], own.colors)


def test_activations_on_the_command_line(folder, tmp_path, cache, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head)\n"
    )
    (tmp_path / "net.toml").write_text("size = 24\n")
    torch.save(phosphene.open("net.py:net").module.state_dict(), "weights.pth")
    opening = ["-n", "net.py:net", "--weights", "weights.pth"]
    assert main(["statistics", str(folder), *opening]) == 0
    out = capsys.readouterr().out
    assert "12; 1 more cannot be read" in out
    assert "4 channels of 1 layers, 0 to 0" in out
    network = phosphene.open("net.py:net", weights="weights.pth")
    assert str(cache_path(network)) in out
    found = find_activation_statistics(network)
    assert found is not None
    assert main(["statistics", str(folder), *opening, "-o", "own.safetensors", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["layers"] == {"0": 4}
    assert said["digest"] == found.digest() == load_activation_statistics("own.safetensors", network).digest()


def test_bad_input_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["statistics", str(tmp_path)]) == 2
    assert "no image file" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
