"""What a file names is not followed: no code runs, nothing is read or downloaded, unless the user says so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import Small, opened, seeded
from PIL import Image, PngImagePlugin
from tiny import LABELS

import phosphene
from phosphene import InputError, Recipe, png
from phosphene.api import again as again_module
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import work as atlas_work
from phosphene.atlas.store import Store
from phosphene.cli.program import main
from phosphene.networks import named

RECIPE = Recipe.load("clip").override({"steps": 2, "optimizer.rate": 5.0, "optimizer.gradient": "rms"})
PLANTED = """
from pathlib import Path
Path(__file__).with_name("EXECUTED").write_text("x")
from torch import nn
def Net():
    return nn.Conv2d(3, 4, 3)
"""


@pytest.fixture
def honest(tmp_path, small):
    (picture,) = phosphene.ascend(small, "class:cat", RECIPE)
    return picture.save(tmp_path / "honest")


@pytest.fixture(autouse=True)
def planted(tmp_path, monkeypatch):
    """A folder with code in it that nothing may run, in which everything happens; and nothing is remembered."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHOSPHENE_NETWORKS", str(tmp_path / "data" / "networks.json"))
    yield
    assert not (tmp_path / "EXECUTED").exists()


def tampered(path, change):
    """The image with another text in it."""
    with Image.open(path) as image:
        known = json.loads(image.text[png.KEY])
        change(known)
        info = PngImagePlugin.PngInfo()
        info.add_itxt(png.KEY, json.dumps(known))
        file = path.with_name("tampered.png")
        image.save(file, pnginfo=info)
    return file


SOURCES = [
    {"network": "planted.py:Net"},
    {"network": "planted.pt2"},
    {"network": "planted.pt"},
    {"network": "planted:Net"},
    {"network": "os:abort"},
    {"network": "./planted.py"},
    {"network": "net.onnx"},
    {"network": "net.keras"},
    {"network": "/etc"},
    {"network": "hf:someone/something"},
    {"network": "keras:MobileNet"},
    {"network": "caffe:vgg16", "weights": "/dev/zero"},
    {"network": "efficientnet_lite0", "labels": "/etc/passwd"},
    {"network": "efficientnet_lite0", "weights": "/dev/zero"},
    {"network": "resnet50"},
    {"network": "torchvision:resnet18"},
    {"network": "timm:hf-hub:someone/something"},
    {"network": "local-dir:/etc"},
    {"network": "efficientnet_lite0", "pretrained": False},
    {"network": ["planted.py:Net"]},
    {"nothing": 1},
    {},
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.get("network", source))[:30])
def test_a_network_that_an_image_names_is_not_opened_if_that_is_more_than_data(honest, source, capsys):
    path = tampered(honest, lambda known: known["network"].update(source=source))
    for run in (lambda: again_module.again(path), lambda: phosphene.judge(path, [])):
        with pytest.raises(InputError, match=r"image .*tampered.png"):
            run()
    for verb in ("again", "judge", "show"):
        assert main([verb, str(path)]) == (0 if verb == "show" and isinstance(source.get("network"), str) else 2) or (
            verb == "show"
        )
        assert "Traceback" not in capsys.readouterr().err


def test_the_sentence_says_what_the_file_asks_for_and_how_to_allow_it(honest):
    path = tampered(honest, lambda known: known["network"].update(source={"network": "planted.py:Net"}))
    with pytest.raises(InputError, match=r"asks for 'planted.py:Net', which runs Python code; .*-n NETWORK.*--trust"):
        again_module.again(path)


def test_weights_given_for_an_image_do_not_make_its_code_run(honest, tmp_path, capsys):
    torch.save(torch.nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "weights.pth")
    path = tampered(honest, lambda known: known["network"].update(source={"network": "planted.py:Net"}))
    for verb in ("again", "judge"):
        assert main([verb, str(path), "--weights", "weights.pth"]) == 2
        assert "a file is not followed: name the network (-n)" in capsys.readouterr().err


def test_networks_of_an_ensemble_are_named_by_a_file_too(honest, small):
    entry = {"name": "other", "weights": "0" * 16, "source": {"network": "planted.py:Net"}}

    def change(known):
        known["ensemble"] = [known["network"] | entry]

    path = tampered(honest, change)
    for run in (lambda: again_module.again(path, small), lambda: phosphene.judge(path, [], network=small)):
        with pytest.raises(InputError, match=r"asks for 'planted.py:Net'"):
            run()


def test_a_file_of_colors_that_a_recipe_in_an_image_names_is_not_read(honest, small):
    canvas = {"kind": "fourier", "colours": "/dev/zero"}
    path = tampered(honest, lambda known: known["recipe"].update(canvas=canvas, clip=None))
    with pytest.raises(InputError, match=r"asks for the file '/dev/zero'; a file is not followed"):
        again_module.again(path, small)


TAMPERINGS = {
    "threads": lambda k: k.update(threads=10**9),
    "no threads": lambda k: k.update(threads=0),
    "facet": lambda k: k.update(facet=[0, 10**6]),
    "facet beyond": lambda k: k.update(facet=[3, 2]),
    "seed": lambda k: k.update(seed=None),
    "negative seed": lambda k: k.update(seed=-1),
    "batches": lambda k: k.update(batches=None),
    "long batches": lambda k: k.update(batches=[[2, 1_000_000]] * 2),
    "wide batches": lambda k: k.update(batches=[[10**9, 1]]),
    "steps": lambda k: k.update(steps=10**12),
    "unit": lambda k: k.update(unit=["class:1"]),
    "size": lambda k: k["recipe"].update(size=[16000, 16000]),
    "start": lambda k: k.update(start="A" * 10_000_000),
    "source": lambda k: k["network"].update(source=[1, 2]),
    "nested": lambda k: k["network"].update(source={"network": {"a": {"b": 1}}}),
    "input": lambda k: k["network"]["input"].update(size=[10**6, 10**6]),
    "scores": lambda k: k.update(scores={"judges": 3}),
    "precision": lambda k: k.update(precision=["fp13"]),
    "device": lambda k: k.update(device="cuda; rm"),
    "text": lambda k: k.clear(),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_field_out_of_its_bounds_is_one_sentence(honest, small, name):
    path = tampered(honest, TAMPERINGS[name])
    for run in (
        lambda: phosphene.show(path),
        lambda: again_module.again(path, small),
        lambda: phosphene.judge(path, [], network=small),
    ):
        with pytest.raises(InputError) as error:
            run()
        assert len(str(error.value)) < 600
        assert "tampered.png" in str(error.value)


def test_an_input_size_that_is_not_the_images_is_not_made(honest, small):
    path = tampered(honest, lambda known: known["network"]["input"].update(size=[9000, 9000]))
    with pytest.raises(InputError, match="tells of 9000x9000 pixels, and has other ones"):
        again_module.again(path, small)
    with pytest.raises(InputError, match="9000x9000"):
        phosphene.judge(path, [], network=small)


def test_text_of_a_file_reaches_a_terminal_escaped_and_short(honest, small, capsys):
    def change(known):
        known["label"] = "[/x][bold]\x1b]0;owned\x07" + "a" * 5000
        known["stopped"] = "\x1b[2J"
        known["versions"] = {"phosphene": "\u202e[red]"}

    path = tampered(honest, change)
    for arguments in (["show", str(path)], ["show", str(path), "--json"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[/x][bold]" in out
    assert len(out) < 4000


def own(folder, text=""):
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(
        f"import torch\n{text}\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),"
        " torch.nn.Flatten(), torch.nn.Linear(4, 5))\n"
    )
    (folder / "own.toml").write_text("size = 16\nmean = 0.5\nstd = 0.25\n")
    return f"{folder / 'own'}.py:make"


def test_what_the_user_opened_is_opened_again_as_the_user_did_while_its_code_is_the_same(tmp_path):
    path = phosphene.ascend(phosphene.open(own(tmp_path / "mine")), "class:1", RECIPE).save(tmp_path / "out")[0]
    assert again_module.again(path).same
    # Another file of that name is not followed, wherever the image says that it is.
    moved = tampered(path, lambda known: known["network"].update(source={"network": "planted.py:Net"}))
    assert again_module.again(moved).same
    own(tmp_path / "mine", "x = 1")
    with pytest.raises(InputError, match="is not what it was when you opened it last"):
        again_module.again(path)
    assert again_module.again(path, trust=True).same


def test_a_file_that_is_trusted_says_what_it_runs(tmp_path, caplog):
    network = phosphene.open(own(tmp_path / "mine"))
    path = phosphene.ascend(network, "class:1", RECIPE).save(tmp_path / "out")[0]
    named.memory_path().unlink()
    with pytest.raises(InputError, match="which runs Python code"):
        again_module.again(path)
    assert again_module.again(path, trust=True).same
    assert "is trusted, and asks for" in caplog.text
    assert "own.py:make" in caplog.text


def test_a_plan_from_elsewhere_is_not_followed(tmp_path, capsys):
    network = phosphene.open(own(tmp_path / "mine"))
    store = Store(tmp_path / "atlas")
    groups = atlas_plan.make_groups(network, layers=["0"], recipe=RECIPE)
    plan = atlas_plan.make_plan(network, groups, judges=[])
    store.write_plan(replace(plan, source={"network": "planted.py:Net"}, weights="f" * 16))
    for verb in ("run", "site"):
        assert main(["atlas", verb, str(tmp_path / "atlas")]) == 2
        assert "asks for 'planted.py:Net', which runs Python code" in capsys.readouterr().err
    assert main(["atlas", "site", str(tmp_path / "atlas"), "--plain"]) == 2  # there are no images
    other = Store(tmp_path / "other")
    other.write_plan(plan)
    assert atlas_work.run(other.place).image_count == 4
    assert main(["atlas", "site", str(tmp_path / "other"), "--beside", str(tmp_path / "atlas")]) == 2
    assert "planted.py:Net" in capsys.readouterr().err


def test_a_plan_of_ones_own_is_followed_and_a_judge_that_one_named(tmp_path):
    shown, judge = own(tmp_path / "shown"), own(tmp_path / "judge", "torch.nn.Linear = torch.nn.Linear")
    (tmp_path / "judge" / "own.py").write_text(
        (tmp_path / "judge" / "own.py").read_text().replace("seed(0)", "seed(1)")
    )
    network = phosphene.open(shown, labels=LABELS)
    groups = atlas_plan.make_groups(network, classes=[1], recipe=RECIPE)
    plan = atlas_plan.make_plan(network, groups, judges=[judge])
    assert [each.name for each in atlas_plan.panel(plan, plan.open())] == ["make"]
    foreign = replace(plan, judges=["planted.py:Net"])
    with pytest.raises(InputError, match=r"the atlas's judge asks for 'planted.py:Net'"):
        atlas_plan.panel(foreign, network)


def test_a_damaged_memory_of_networks_is_as_none(tmp_path):
    for text in ("{", "[]", '{"weights 1": 3}', "[" * 100_000):
        named.memory_path().parent.mkdir(exist_ok=True)
        named.memory_path().write_text(text)
        with pytest.raises(InputError, match="a network of its maker's own"):
            named.open_referenced("image 'a.png'", "mine", None, "1")
    phosphene.ascend(phosphene.open(own(tmp_path / "mine")), "class:1", RECIPE)
    assert "weights" in Path(named.memory_path()).read_text()


def test_a_module_of_the_users_own_is_not_remembered():
    phosphene.ascend(opened(seeded(Small)), "class:1", RECIPE)
    assert not named.memory_path().exists()
