import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SHARED, Small, opened, seeded
from PIL import Image
from torch import nn

import phosphene
from phosphene import InputError, Preprocessing
from phosphene.cli.program import main
from phosphene.doctor import diagnostics, inspection, preprocessings
from phosphene.doctor import fitting as doctor_fitting
from phosphene.doctor import photographs as doctor_photographs
from phosphene.doctor.first_norm import check_first_norm
from phosphene.doctor.outputs import fair_coin, sign_flips
from phosphene.doctor.samples import natural_noise, shapes
from phosphene.doctor.trials import FitTrial, confirmed_diagnostic

IMAGES = SHARED / "images"
SQUEEZENET = SHARED / "weights" / "squeezenet_v1.1"
needs_shared = pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared")

COLORS = {
    "red": (230, 40, 30),
    "orange": (240, 130, 20),
    "olive": (120, 120, 10),
    "green": (30, 180, 60),
    "sky": (90, 170, 240),
    "navy": (20, 30, 130),
    "plum": (140, 40, 120),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "black": (15, 15, 15),
}


class Nearest(nn.Module):
    """Names the color that is nearest to the image's mean, or to that of its left edge, as it is fed in training."""

    def __init__(self, trained_on: Preprocessing, edge: bool = False):
        super().__init__()
        pixels = torch.tensor(list(COLORS.values())).float().view(-1, 3, 1, 1)
        self.colors = nn.Parameter(trained_on(pixels).flatten(1))
        self.edge = edge

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = images[..., :1] if self.edge else images
        away = (seen.mean((2, 3))[:, None] - self.colors).square().sum(2)
        return -10 * away / self.colors.var(0).sum()


def nearest(trained_on: Preprocessing, declared: Preprocessing, edge: bool = False) -> phosphene.Network:
    return phosphene.open(Nearest(trained_on, edge), declared, list(COLORS), name="nearest")


@pytest.fixture
def photographs(tmp_path):
    """Four of each color, in a folder a color."""
    draw = np.random.default_rng(0)
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        for number in range(4):
            noise = np.clip(np.array(color) + draw.normal(0, 6, (16, 16, 3)), 0, 255)
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / name / f"{number:04d}.png")
    return tmp_path


def levels(reported: list[diagnostics.Diagnostic], topic: str) -> set[str]:
    return {finding.level for finding in reported if finding.topic == topic}


def text(reported: list[diagnostics.Diagnostic], topic: str) -> str:
    return " ".join(finding.text for finding in reported if finding.topic == topic)


# --- which preprocessing fits ---------------------------------------------------------------------------------------

USUAL = preprocessings.candidates(Preprocessing(size=16, mean=0.1, std=7))


def test_the_candidates_are_the_declared_one_and_five_presets_in_two_orders():
    assert len(USUAL) == 12
    assert next(iter(USUAL)) == "declared"
    assert USUAL["declared BGR"] == replace(USUAL["declared"], channel_order="BGR")
    assert USUAL["caffe RGB"].mean == USUAL["caffe BGR"].mean[::-1]
    assert len(preprocessings.candidates(Preprocessing(size=8, channels=1))) == 5


def test_what_feeds_nearly_as_the_declared_one_is_no_candidate():
    lite0 = preprocessings.candidates(Preprocessing(mean=127 / 255, std=128 / 255))
    assert "tf RGB" not in lite0
    assert "tf BGR" in lite0
    caffe = Preprocessing(mean=(104, 117, 123), value_range=(0, 255), channel_order="BGR")
    assert "caffe BGR" not in preprocessings.candidates(caffe)


@pytest.mark.parametrize("name", [name for name in USUAL if "declared" not in name])
def test_the_one_that_fits_is_found(photographs, name):
    declared = Preprocessing.preset("tf" if name == "unit RGB" else "unit", size=16)
    network = nearest(trained_on=USUAL[name], declared=declared)
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(photographs, network))
    assert found.best.name == name
    assert found.best.accuracy == 1
    assert found.diagnostics[0].level == "warning"
    assert ("the channels are swapped" in found.diagnostics[0].text) == name.endswith("BGR")
    assert ("the range is wrong" in found.diagnostics[0].text) == (name != "unit BGR")


def test_swapped_channels_of_an_unusual_range_are_found(photographs):
    fed = Preprocessing(size=16, mean=(0.2, 0.7, 0.1), std=(0.1, 0.5, 0.9))
    swapped = replace(fed, channel_order="BGR", mean=fed.mean[::-1], std=fed.std[::-1])
    network = nearest(fed, swapped)
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(photographs, network))
    assert found.best.preprocessing == fed
    assert found.diagnostics[0].text.startswith("the channels are swapped: BGR is declared, RGB fits: 100.0%")


def test_the_declared_one_is_confirmed(photographs):
    fed = Preprocessing.preset("caffe", size=16)
    network = nearest(fed, fed)
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(photographs, network))
    assert found.best.preprocessing == fed
    assert found.suggestion == ""
    assert levels(list(found.diagnostics), "preprocessing") == {"ok"}


def test_the_remedy_opens_the_network_as_it_is_fed(tmp_path):
    declared = Preprocessing(size=30, interpolation="bilinear")
    for fitting in (*preprocessings.candidates(declared).values(), replace(declared, resize="squash", crop=0.875)):
        said = preprocessings.suggestion(declared, fitting)
        if said.startswith("--preprocessing "):
            given = said.split()[1]
        else:
            given = tmp_path / "fed.toml"
            given.write_text(said)
        (tmp_path / "own.py").write_text(
            "import phosphene\nfrom torch import nn\n"
            "fed = phosphene.Preprocessing(size=30, interpolation='bilinear')\n"
            "def make():\n    return phosphene.open(nn.Conv2d(3, 5, 30), fed)\n"
        )
        network = phosphene.open(f"{tmp_path / 'own.py'}:make", preprocessing=given if said else None)
        assert network.preprocessing == fitting


def test_a_resize_rule_is_told_from_the_range(tmp_path):
    """Half of these wide photographs show their class at the left edge only, which squashing keeps."""
    draw = np.random.default_rng(0)
    names = list(COLORS)
    for number in range(40):
        wide = np.empty((16, 80, 3), np.uint8)
        wide[:] = COLORS[names[number % 10] if number < 20 else names[draw.integers(10)]]
        wide[:, :8] = COLORS[names[number % 10]]
        Image.fromarray(wide).save(tmp_path / f"{names[number % 10]}_{number}.png")
    fed = Preprocessing.preset("torch", size=16)
    network = nearest(fed, fed, edge=True)
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(tmp_path, network))
    assert found.best.preprocessing == replace(fed, resize="squash")
    assert found.diagnostics[0].level == "note"
    assert "no image that is made depends on this" in found.diagnostics[0].text
    assert found.suggestion == 'resize = "squash"\ncrop = 1.0'
    squashed = nearest(fed, replace(fed, resize="squash"), edge=True)
    assert doctor_fitting.fit(squashed, doctor_photographs.label_by_name(tmp_path, squashed)).suggestion == ""


def test_few_photographs_decide_nothing(photographs):
    fed = Preprocessing.preset("unit", size=16)
    network = nearest(fed, fed)
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(photographs, network).at_most(10))
    assert found.suggestion == ""
    assert "10 photographs are too few to tell declared from" in text(list(found.diagnostics), "preprocessing")


def test_a_better_one_that_may_be_so_by_chance_is_said():
    unit = Preprocessing()
    declared = FitTrial("declared", "shorter side", unit, 20, 0.6, 0.5, same=True)
    better = FitTrial("tf RGB", "shorter side", unit, 20, 0.75, 0.5, same=True)
    worse = FitTrial("byte RGB", "shorter side", unit, 20, 0.5, 0.5, same=True)
    said = confirmed_diagnostic(declared, [better, declared])
    assert said.level == "note"
    assert "tf RGB 75.0%, which may be chance" in said.text
    assert confirmed_diagnostic(declared, [declared, worse]).level == "ok"
    assert confirmed_diagnostic(declared, [replace(better, same=False), declared]).level == "ok"


def test_labels_off_by_one_and_untrained_weights_are_told(photographs):
    fed = Preprocessing.preset("unit", size=16)
    shifted = phosphene.open(Nearest(fed), fed, [*list(COLORS)[1:], "red"], name="shifted")
    found = doctor_fitting.fit(shifted, doctor_photographs.label_by_name(photographs, shifted))
    assert found.best is None
    assert "off by one" in text(list(found.diagnostics), "labels")
    untrained = opened(seeded(Small), size=16, labels=list(COLORS)[:5])
    found = doctor_fitting.fit(untrained, doctor_photographs.label_by_name(photographs, untrained))
    assert found.best is None
    assert "none fits" in text(list(found.diagnostics), "preprocessing")


def test_the_same_every_time_and_the_network_as_it_came(photographs):
    fed = Preprocessing.preset("unit", size=16)
    module = Nearest(fed).train()
    network = phosphene.open(module, replace(fed, channel_order="BGR"), list(COLORS))
    labeled = doctor_photographs.label_by_name(photographs, network)
    assert doctor_fitting.fit(network, labeled) == doctor_fitting.fit(network, labeled)
    assert inspection.inspect(network) == inspection.inspect(network)
    assert module.training
    assert module.colors.requires_grad
    assert not module._forward_hooks


def test_how_often_chance_does_as_much():
    assert fair_coin(5, 5) == 1
    assert fair_coin(0, 6) == fair_coin(6, 0) == 2 / 64
    assert fair_coin(0, 0) == 1
    assert sign_flips(torch.zeros(30)) == 1
    assert sign_flips(torch.ones(30)) < 0.001
    assert sign_flips(torch.ones(3)) == pytest.approx(2 / 8, abs=0.03)
    assert sign_flips(torch.tensor([1.0, -1.0] * 15)) == 1


# --- labels ----------------------------------------------------------------------------------------------------------


def saved(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (200, 90, 60)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("x_n02007558_1.jpg", 130),
        ("n02007558/ILSVRC2012_0001.png", 130),
        ("n02007558_tench.jpg", 130),
        ("my flamingo 2.jpeg", 130),
        ("flamingo/0001.jpg", 130),
        ("tabby_cat_07.jpg", 281),
        ("photos/great_white_shark.jpg", 2),
        ("teddy.JPG", 850),
        ("130.png", 130),
        ("130-b.png", 130),
        ("7/0130.png", 7),
        ("0_tench_or_so.png", 0),
        ("crane.jpg", None),
        ("cat.jpg", None),
        ("DSC_0130.jpg", None),
        ("1000.jpg", None),
        ("n99999999.jpg", None),
        ("12ab.jpg", None),
    ],
)
def test_a_class_is_told_by_a_name(tmp_path, lite0, name, index):
    path = saved(tmp_path / name)
    saved(tmp_path / "n01440764.png")
    found = doctor_photographs.label_by_name(tmp_path, lite0)
    if index is None:
        assert found.unlabeled == (path,)
    else:
        assert dict(zip(found.paths, found.labels, strict=True))[path] == index


def test_without_labels_a_class_is_told_by_its_index_alone(tmp_path):
    network = opened(seeded(Small))
    saved(tmp_path / "3_x.png")
    saved(tmp_path / "5_x.png")
    found = doctor_photographs.label_by_name(tmp_path, network)
    assert found.labels == (3,)
    assert len(found.unlabeled) == 1


def test_as_many_as_asked_for_evenly_spread():
    labeled = doctor_photographs.LabeledPhotographs(tuple("abcdefgh"), tuple(range(8)))
    assert labeled.at_most(4).labels == (0, 2, 4, 6)
    assert labeled.at_most(100) == labeled


def test_a_table_of_labels(tmp_path, lite0):
    for name in ("a.png", "b.png", "c.png"):
        saved(tmp_path / "photos" / name)
    lines = ["id,label,file", "1,flamingo,a.png", "", "2,n01440764,b.png", '3,"great white shark",c.png']
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = doctor_photographs.label_by_table(tmp_path / "labels.csv", lite0, tmp_path / "photos")
    assert found.labels == (130, 0, 2)
    (tmp_path / "photos" / "plain.csv").write_text("a.png,850\n")
    assert doctor_photographs.label_by_table(tmp_path / "photos" / "plain.csv", lite0).labels == (850,)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"a.png,flamngo\n", "line 1: no class is called 'flamngo'; did you mean flamingo"),
        (b"file,label\na.png,7\nb.png,8\n", "line 3: there is no file 'b.png'"),
        (b"file,label\na.png\n", "line 2: expected file,label and not 'a.png'"),
        (b"file,label\n", "lists no photograph"),
        (b"", "lists no photograph"),
        (b"a.png,1000\n", "line 1: class 1000: expected an index of 0 to 999"),
        (b"a.png,\xff\n", "expected a text in UTF-8"),
    ],
)
def test_a_wrong_table_is_answered_with_a_sentence(tmp_path, lite0, table, said):
    saved(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes(table)
    with pytest.raises(InputError, match=said) as caught:
        doctor_photographs.label_by_table(tmp_path / "labels.csv", lite0)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_answered_with_a_sentence(tmp_path, lite0):
    with pytest.raises(InputError, match="there is no such folder"):
        doctor_photographs.label_by_name(tmp_path / "nowhere", lite0)
    with pytest.raises(InputError, match="no image file"):
        doctor_photographs.label_by_name(tmp_path, lite0)
    saved(tmp_path / "DSC_0130.jpg")
    with pytest.raises(InputError, match="expected a WordNet id, a class's name or its index, in the file's name"):
        doctor_photographs.label_by_name(tmp_path, lite0)
    with pytest.raises(InputError, match=r"labels\.csv': there is no such file"):
        doctor_photographs.label_by_table(tmp_path / "labels.csv", lite0)
    unclassified = phosphene.open(nn.Conv2d(3, 4, 3), Preprocessing(size=9), name="conv")
    with pytest.raises(InputError, match="conv cannot name photographs"):
        doctor_photographs.label_by_name(tmp_path, unclassified)


def test_unreadable_photographs_are_counted(photographs):
    fed = Preprocessing.preset("unit", size=16)
    network = nearest(fed, fed)
    (photographs / "red" / "torn.png").write_bytes((photographs / "red" / "0000.png").read_bytes()[:200])
    (photographs / "red" / "text.jpg").write_text("no image")
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(photographs, network))
    assert found.unreadable == 2
    assert found.best.photographs == 40
    labeled = doctor_photographs.label_by_name(photographs, network)
    torn = labeled.only([index for index, path in enumerate(labeled.paths) if path.name == "text.jpg"])
    with pytest.raises(InputError, match=r"none of 1 photographs, such as .*text\.jpg', can be read"):
        doctor_fitting.fit(network, torn)


# --- a network alone -------------------------------------------------------------------------------------------------


class Odd(Small):
    """With something odd in it."""

    def __init__(self, kind: str):
        super().__init__(inplace=kind == "in place")
        self.kind = kind
        self.embedding = nn.Embedding(4, 6)
        self.side = nn.Linear(12, 5)
        self.norm = nn.BatchNorm2d(8, track_running_stats=kind != "blind")
        if kind not in ("blind", "untrained"):
            self.norm.running_mean += 0.01
        self.dropout = nn.Dropout()
        if kind == "dead":
            with torch.no_grad():
                self.conv2.bias[:7] = -1000
        if kind == "broken":
            with torch.no_grad():
                self.head.weight[0, 0] = torch.nan

    def forward(self, images):
        maps = self.relu1(self.norm(self.conv1(images)))
        if self.kind == "constant":
            maps = maps + self.embedding(torch.arange(2)).sum()
        maps = self.relu2(self.conv2(self.pool(maps)))
        features = maps.mean((2, 3))
        if self.kind == "detached":
            features = features + self.side(features.detach()).sum(1, keepdim=True)
        logits = self.head(self.dropout(features))
        if self.kind == "no gradient":
            return logits.detach()
        if self.kind == "softmax":
            return logits.softmax(1)
        if self.kind == "probabilities":
            return logits.exp() / logits.exp().sum(1, keepdim=True)
        if self.kind == "sigmoid":
            return logits.sigmoid()
        if self.kind == "sigmoid by hand":
            return 1 / (1 + torch.exp(-logits))
        return logits + torch.rand(1) if self.kind == "random" else logits


def odd(kind: str) -> list[diagnostics.Diagnostic]:
    return inspection.inspect(opened(seeded(Odd, kind)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "topic", "level", "said"),
    [
        ("softmax", "outputs", "ok", "ends in a softmax, which is bypassed"),
        ("probabilities", "outputs", "warning", "they are probabilities"),
        ("sigmoid", "outputs", "ok", "ends in a sigmoid, which is bypassed"),
        ("random", "rows", "note", "its forward draws random numbers"),
        ("sigmoid by hand", "outputs", "note", "as behind a sigmoid"),
        ("random", "outputs", "warning", "other logits each time"),
        ("in place", "in place", "ok", "2 modules, which is harmless"),
        ("dead", "dead channels", "note", "relu2 (7 of 12)"),
        ("constant", "constant layers", "note", "nothing can be shown of them: embedding"),
        ("detached", "gradient", "warning", "nothing can be shown of them: side"),
        ("no gradient", "gradient", "warning", "no class can be shown"),
        ("blind", "modes", "warning", "without running statistics"),
        ("broken", "weights", "warning", "not all finite numbers: head.weight"),
        ("untrained", "weights", "warning", "it is not trained"),
        ("plain", "modes", "ok", "1 BatchNorm2d, 1 Dropout"),
    ],
)
def test_what_is_odd_is_said(kind, topic, level, said):
    reported = odd(kind)
    assert said in text([finding for finding in reported if finding.level == level], topic)
    if kind != "plain":
        assert said not in text(odd("plain"), topic)


def test_nothing_is_wrong_with_a_plain_network():
    assert all(finding.level != "warning" for finding in odd("plain"))


def test_dead_channels_over_photographs_are_a_warning():
    network = opened(seeded(Odd, "dead"))
    reported = inspection.inspect(network, 255 * torch.rand(4, 3, 24, 24))
    assert levels(reported, "dead channels") == {"warning"}
    assert "4 photographs" in text(reported, "dead channels")


@pytest.mark.slow
def test_labels_notes_and_sizes(small):
    assert "takes" not in text(inspection.inspect(small), "labels")
    few = small.replace(labels=["cat", "dog"], notes={"preprocessing": "it is a guess"})
    reported = inspection.inspect(few)
    assert "2 labels for 5 outputs" in text(reported, "labels")
    assert "it is a guess" in text(reported, "preprocessing")
    assert "and others such as 36x36" in text(reported, "size")
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5))
    assert "of sizes other than 24x24, 3 layers can be shown" in text(inspection.inspect(opened(flat)), "size")
    fixed = small.replace(preprocessing=replace(small.preprocessing, fixed_size=True))
    assert "24x24 pixels only, as declared" in text(inspection.inspect(fixed), "size")


def test_a_layer_network_and_one_channel_are_inspected():
    network = opened(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), channels=1)
    assert "no class can be shown" in text(inspection.inspect(network), "outputs")
    assert preprocessings.candidates(network.preprocessing).keys() == {
        "declared",
        "torch",
        "tf",
        "caffe",
        "unit",
        "byte",
    }


def test_partial_weights_are_said(small):
    partial = phosphene.Network(small.module, small.preprocessing, unloaded=["head.weight"], name="partial")
    assert "5 layers can be shown" in text(inspection.inspect(partial), "weights")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("make", [natural_noise, shapes])
def test_made_images_are_like_photographs(make, channels):
    images = make(Preprocessing(size=(40, 56), channels=channels), 8)
    assert images.shape == (8, channels, 40, 56)
    assert 0 <= images.min() < 20
    assert 235 < images.max() <= 255
    assert 40 < images.std() < 90
    neighbours = (images[..., 1:] - images[..., :-1]).square().mean()
    assert neighbours < images.var()  # of white noise: twice that
    assert torch.equal(images, make(Preprocessing(size=(40, 56), channels=channels), 8))


@pytest.mark.slow
def test_the_first_batch_norm_tells_the_range(lite0):
    def told(**changes):
        changed = replace(lite0.preprocessing, **changes)
        with lite0.borrowed():
            return list(check_first_norm(lite0.replace(preprocessing=changed), natural_noise(changed, 8)))

    (right,) = told()
    assert right.level == "ok"
    (wrong,) = told(mean=0.0, std=1.0)
    assert wrong.level == "warning"
    assert "that of RGB -1..1 fits" in wrong.text


# --- trained networks ------------------------------------------------------------------------------------------------


def squeezenet(**given) -> phosphene.Network:
    return phosphene.open(f"{SQUEEZENET}.prototxt", weights=f"{SQUEEZENET}.caffemodel", **given)


@pytest.mark.slow
@needs_shared
def test_squeezenet_told_nothing():
    network = squeezenet(preprocessing="unit")
    found = doctor_fitting.fit(network, doctor_photographs.label_by_name(IMAGES, network).at_most(16))
    assert found.best.name == "caffe BGR"
    assert found.suggestion == "--preprocessing caffe"
    declared = squeezenet()
    found = doctor_fitting.fit(declared, doctor_photographs.label_by_name(IMAGES, declared).at_most(16))
    assert found.best.preprocessing == declared.preprocessing


@pytest.mark.slow
@needs_shared
def test_swapped_channels_of_squeezenet_are_flagged():
    network = squeezenet()
    swapped = network.replace(preprocessing=replace(network.preprocessing, channel_order="RGB"))
    found = doctor_fitting.fit(swapped, doctor_photographs.label_by_name(IMAGES, swapped).at_most(24))
    assert found.diagnostics[0].level == "warning"
    assert found.diagnostics[0].text.startswith("the channels are swapped: RGB is declared, BGR fits")


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    status = main(["doctor", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A network of one's own, in a file, whose channels are swapped."""
    (tmp_path / "own.py").write_text(
        "import phosphene\nfrom dataclasses import replace\nfrom test_doctor import COLORS, Nearest\n"
        "fed = phosphene.Preprocessing.preset('torch', size=16)\n"
        "swapped = replace(fed, channel_order='BGR', mean=fed.mean[::-1], std=fed.std[::-1])\n"
        "def swap():\n    return phosphene.open(Nearest(fed), swapped, list(COLORS))\n"
        "def good():\n    return phosphene.open(Nearest(fed), fed, list(COLORS))\n"
    )
    return tmp_path / "own.py"


def test_the_command_says_what_fits(capsys, photographs, own):
    status, out, err = run(capsys, "-n", f"{own}:swap", "--images", photographs)
    assert (status, err) == (1, "")
    assert "the channels are swapped: BGR is declared, RGB fits" in " ".join(out.split())
    assert "--preprocessing torch" in out
    status, out, _ = run(capsys, "-n", f"{own}:good", "--images", photographs, "--limit", 20)
    assert status == 0
    assert "* " in out
    assert " 20 " in out


def test_the_command_prints_json_or_nothing(capsys, photographs, own):
    status, out, err = run(capsys, "-n", f"{own}:swap", "--images", photographs, "--json")
    assert (status, err) == (1, "")
    said = json.loads(out)
    assert said["fit"]["fits"]["name"] == "torch RGB"
    assert {finding["topic"] for finding in said["findings"]} >= {"input", "outputs", "preprocessing"}
    assert run(capsys, "-n", f"{own}:good", "-q") == (0, "", "")


def test_the_command_takes_a_table(capsys, tmp_path, photographs, own):
    lines = [f"{path.relative_to(photographs)},{path.parent.name}" for path in photographs.rglob("*.png")]
    (photographs / "labels.csv").write_text("\n".join(["file,label", *lines]))
    status, out, _ = run(capsys, "-n", f"{own}:good", "--csv", photographs / "labels.csv", "--json")
    assert status == 0
    assert json.loads(out)["fit"]["fits"]["photographs"] == 40
    status, _, err = run(capsys, "-n", f"{own}:good", "--images", tmp_path / "none")
    assert status == 2
    assert "there is no such folder" in err
