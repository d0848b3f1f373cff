import filecmp
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from helpers import SHARED
from PIL import Image

from phosphene.cli.parser import parse
from phosphene.cli.program import main

QUICK = ["--steps", "3", "--size", "64"]


def run(capsys, *arguments):
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_classes_makes_files_and_says_what_it_does(capsys, tmp_path):
    status, out, err = run(capsys, "classes", "flamingo", "pool table", *QUICK, "-o", tmp_path)
    assert status == 0
    assert sorted(os.listdir(tmp_path)) == [
        "130_flamingo.png", "736_pool_table.png", "grid.png", "index.html", "objective.png", "run.json",
    ]  # fmt: skip
    for said in (
        "efficientnet_lite0, 64x64",
        "natural: ",
        "3 steps",
        "cpu",
        "130 flamingo",
        "736 pool table",
        "probability",
    ):
        assert said in out
    assert "own probability" in err


@pytest.mark.slow
def test_a_rate_is_said_to_be_found_only_where_it_is(capsys, tmp_path):
    arguments = ["classes", "teddy", "-r", "tence", *QUICK, "-o", tmp_path]
    assert "(found for efficientnet_lite0)" in run(capsys, *arguments)[1]
    assert "found for" not in run(capsys, *arguments, "--set", "optimizer.rate=500")[1]
    assert "(none was found for efficientnet_lite1)" in run(capsys, *arguments, "-n", "lite1")[1]


@pytest.mark.slow
def test_json_is_all_that_is_printed_when_asked_for(capsys, tmp_path):
    status, out, err = run(capsys, "classes", "850", *QUICK, "-o", tmp_path, "--json")
    assert status == 0
    assert json.loads(out)["pictures"][0]["label"] == "teddy"
    assert err == ""


@pytest.mark.slow
def test_quiet_prints_nothing(capsys, tmp_path):
    assert run(capsys, "classes", "850", *QUICK, "-o", tmp_path, "-q") == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_photographs_are_dreamt_inverted_and_caricatured(capsys, tmp_path):
    photograph = sorted((SHARED / "images").iterdir())[3]
    for verb, unit in (("dream", "{}"), ("invert", "match({})"), ("caricature", "caricature({})")):
        layer = "blocks.1.0.bn1.act"
        status, out, err = run(capsys, verb, photograph, layer, *QUICK, "-o", tmp_path / verb, "--json")
        assert status == 0, err
        assert [made["unit"] for made in json.loads(out)["pictures"]] == [unit.format(layer)]
    status, _, err = run(capsys, "again", tmp_path / "invert" / "match_blocks.1.0.bn1.act.png", "-o", tmp_path, "-q")
    assert (status, err) == (0, "")
    status, _, err = run(capsys, "invert", tmp_path / "none.jpg", *QUICK, "-o", tmp_path / "nothing")
    assert status == 2
    assert "there is no such file" in err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
def test_an_ensemble_facets_and_the_best_of_several(capsys, tmp_path):
    def made(*arguments):
        status, out, err = run(capsys, "classes", "teddy", *QUICK, "-o", tmp_path, "--json", *arguments)
        assert status == 0, err
        return json.loads(out)["pictures"]

    (ensemble,) = made("--with", "efficientnet_lite1")
    assert [each["name"] for each in ensemble["ensemble"]] == ["efficientnet_lite1"]
    assert [picture["facet"] for picture in made("--facets", "2")] == [[0, 2], [1, 2]]
    (best,) = made("--best-of", "2", "--choosers", "efficientnet_lite1")
    chosen = best["scores"]["chosen"]
    assert chosen["by"] == ["efficientnet_lite1"]
    assert best["seed"] == chosen["seeds"][chosen["probabilities"].index(max(chosen["probabilities"]))]
    status, _, err = run(capsys, "judge", tmp_path / "850_teddy.png", "--judges", "efficientnet_lite1")
    assert status == 2
    assert "efficientnet_lite1" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--best-of", "2"], "expected --selectors"),
        (["--selectors", "efficientnet_lite1"], "expected --best-of"),
        (["--best-of", "2", "--choosers", "efficientnet_lite0"], "efficientnet_lite0"),
        (["--with", "efficientnet_lite99"], "efficientnet_lite99"),
        (["--facets", "0"], "at least 1"),
    ],
)
def test_bad_ensembles_facets_and_choosers_are_refused(capsys, tmp_path, arguments, sentence):
    out = tmp_path / "out"
    status, _, err = run(capsys, "classes", "teddy", *QUICK, "-o", out, *arguments)
    assert status == 2
    assert sentence in err
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (["blocks.1.0.bn1.act:3-5"], ["0003", "0004", "0005"]),
        (["blocks.1.0.bn1.act:7,1"], ["0001", "0007"]),
        (["blocks.1.0.bn1.act", "--count", "3"], ["0000", "0032", "0064"]),
    ],
)
def test_filters_takes_channels(capsys, tmp_path, spec, names):
    status, _, err = run(capsys, "filters", *spec, *QUICK, "-o", tmp_path)
    assert status == 0, err
    made = sorted(name for name in os.listdir(tmp_path) if name.startswith("blocks"))
    assert made == [f"blocks.1.0.bn1.act_{name}.png" for name in names]


@pytest.mark.slow
def test_filters_takes_neurons_sums_and_whole_layers(capsys, tmp_path):
    layer = "blocks.1.0.bn1.act"
    for spec in ([f"{layer}:3@2,2"], [f"{layer}:3 - 2*{layer}:4"], [layer, "--whole"], [f"{layer}:3", "--average"]):
        status, out, err = run(capsys, "filters", *spec, *QUICK, "-o", tmp_path, "--json")
        assert status == 0, err
        assert len(json.loads(out)["pictures"]) == 1


def test_layers_networks_and_recipes_are_listed(capsys):
    status, out, _ = run(capsys, "layers", "blocks.3.0*")
    assert status == 0
    assert "* after the activation" in out
    assert "blocks.3.0.bn1.act" in out
    layers = json.loads(run(capsys, "layers", "--marked", "--json")[1])
    assert all(layer["worth_showing"] and layer["type"] == "ReLU6" for layer in layers)
    assert re.search(r"bundled +efficientnet_lite0 +yes", run(capsys, "networks")[1])
    assert "torchvision:alexnet\n" in run(capsys, "networks", "alex*")[1]
    assert "resnet18" in run(capsys, "networks", "resnet*")[1].split()
    assert "yosinski-d" in run(capsys, "recipes")[1]
    assert "size = 5" in run(capsys, "recipes", "tence")[1]
    assert ["median.size", "5", "3, 5 or 7", "side of the square in pixels"] in json.loads(
        run(capsys, "recipes", "--fields", "--json")[1]
    )


@pytest.mark.slow
def test_show_and_again(capsys, tmp_path):
    assert (
        run(
            capsys,
            "classes",
            "flamingo",
            "teddy",
            "-r",
            "tence",
            *QUICK,
            "-o",
            tmp_path,
            "-q",
            "--set",
            "median.size=3",
        )[0]
        == 0
    )
    image = tmp_path / "130_flamingo.png"
    status, out, _ = run(capsys, "show", image)
    assert status == 0
    for said in ("class:130  (flamingo)", "tence, seed 1337", "size = 3", "probability"):
        assert said in out
    status, out, err = run(capsys, "again", image, "-o", tmp_path / "again")
    assert (status, "the same, byte for byte" in out) == (0, True), err
    assert filecmp.cmp(image, tmp_path / "again" / "130_flamingo.png", shallow=False)


@pytest.mark.slow
def test_an_animation_of_the_first_steps(capsys, tmp_path):
    assert run(capsys, "classes", "flamingo", *QUICK, "--animate", 2, "-o", tmp_path, "-q")[0] == 0
    with Image.open(tmp_path / "130_flamingo.gif") as gif:
        assert gif.n_frames == 3


@pytest.mark.slow
def test_a_recipe_and_weights_of_ones_own(capsys, tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    (tmp_path / "mine.toml").write_text('name = "mine"\nsteps = 2\n[optimizer]\nrate = 3\ngradient = "rms"\n')
    status, out, err = run(
        capsys, "classes", "teddy", "-n", "test_resnet", "--weights", tmp_path / "weights.pth",
        "-r", tmp_path / "mine.toml", "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert status == 0, err
    (picture,) = json.loads(out)["pictures"]
    assert picture["network"]["name"] == "test_resnet"
    assert picture["steps"] == 2
    image = tmp_path / "out" / "850_teddy.png"
    again = ["again", image, "--weights", tmp_path / "weights.pth", "-o", tmp_path / "again"]
    assert run(capsys, *again)[0] == 0


BAD = [
    (["classes", "flamngo"], "no class is called 'flamngo'; did you mean flamingo"),
    (["classes", "crane"], "2 classes fit 'crane'"),
    (["filters", "blocks.3.0.bn2.atc:1"], "did you mean blocks.3.0.bn2.act"),
    (["filters", "blocks.3.0.bn2.act:999"], "it has 240 channels, 0 to 239"),
    (["filters", "blocks.3.0.bn2.act:7-3"], "expected a range that rises"),
    (["classes", "teddy", "-n", "resnet51"], "resnet50 or resnet18?"),
    (["classes", "teddy", "-n", "resnet18"], "the pretrained weights of resnet18 cannot be had"),
    (["classes", "teddy", "-r", "tense"], "did you mean tence"),
    (["classes", "teddy", "--set", "median.sise=3"], "did you mean median.size"),
    (["classes", "teddy", "--set", "median.size"], "expected FIELD=VALUE"),
    (["classes", "teddy", "--set", "decay.strength=7"], "decay.strength = 7: expected above 0 and at most 1"),
    (["classes", "teddy", "--start", __file__], "it is no image file"),
    (["classes", "teddy", "--start", "nowhere.jpg"], "there is no such file"),
    (["classes", "teddy", "--size", "8"], "too small for it: expected 16 or more, and 32 for the whole"),
    (["classes", "teddy", "--size", "tall"], "expected a number of pixels"),
    (["classes", "teddy", "--steps", "0"], "expected a whole number of at least 1"),
    (["classes", "teddy", "--seed", "-4"], "expected"),
    (["classes", "teddy", "--device", "gpu"], "device 'gpu' is not there"),
    (["classes", "teddy", "--weights", "nowhere.pth"], "comes with its own weights"),
    (["classes", "teddy", "-n", "test_resnet", "--weights", "nowhere.pth"], "there is no such file"),
    (["layers", "nothing*"], "has no layer that fits 'nothing*'"),
    (["networks", "nothing*"], "neither timm nor torchvision has a network that fits"),
    (["recipes", "tense"], "did you mean tence"),
    (["show", __file__], "it is no image file"),
    (["again", "nowhere.png"], "there is no such file"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(map(os.path.basename, case[0])) for case in BAD])
def test_bad_input_is_one_sentence_status_2_and_no_file(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    made = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert made == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_asked_for_where_there_is_none(capsys, tmp_path):
    status, _, err = run(capsys, "classes", "teddy", "--device", "cuda", "-o", tmp_path / "out")
    assert (status, err) == (2, "phosphene: device 'cuda' is not there: expected cpu\n")


def test_a_directory_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = run(capsys, "classes", "teddy", *QUICK, "-o", tmp_path / "file")
    assert status == 2
    assert "cannot be written" in err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_says_so(tmp_path):
    command = [sys.executable, "-m", "phosphene.cli", "classes", "1", "2", "3", "--size", "64", "--batch", "1"]
    process = subprocess.Popen(
        [*command, "--steps", "40", "-o", str(tmp_path)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "001_goldfish.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: 2 of 3 images kept" in err
    assert "1 were not begun" in err
    assert {"001_goldfish.png", "002_great_white_shark.png", "run.json"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["class", "tench"], "no verb is called 'class'; did you mean classes?"),
        (["help"], "no verb is called 'help'"),
        (["atlas"], "expected a verb: plan, run"),
        (["atlas", "plam", "x"], "no verb is called 'plam'; did you mean plan?"),
        (["dream"], "are required: PHOTOGRAPH"),
        (["filters", "--nonsense", "x"], "unrecognized arguments: --nonsense"),
        (["filters", "conv1", "--stpes", "3"], "did you mean --steps"),
        (["filters", "x", "--batch", "\u0663"], "expected a whole number of at least 1"),
        (["filters", "x", "--size", "9" * 5000], "expected a number of pixels"),
    ],
)
def test_words_that_are_no_command_get_a_usage_and_the_reason(arguments, sentence, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    usage, reason = err.splitlines()
    assert usage.startswith("usage: phosphene")
    assert reason.startswith("phosphene: ")
    assert sentence in reason


@pytest.mark.parametrize("spelled", [["-stages.1:2"], ["--", "-stages.1:2"], ["- stages.1:2"], ["-0.5*stages.1:2"]])
def test_a_unit_may_begin_with_a_minus(spelled):
    args = parse(["filters", "-q", "-nlite1:x", "-olayer:x", *spelled])
    assert (args.network, str(args.out), args.quiet) == ("lite1:x", "layer:x", True)
    assert [layer.replace(" ", "") for layer in args.layers] == [spelled[-1].replace(" ", "")]
