"""What the code of others does in a command: prints, warnings, odd terminals."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import phosphene

LOUD = """
import ctypes, multiprocessing, os, subprocess, sys, warnings
from torch import nn
print("LOUD at import")
warnings.warn("LOUD warning")
def child():
    print("LOUD child")
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("LOUD in the constructor")
        sys.stdout.write("LOUD written\\n")
        sys.__stdout__.write("LOUD past sys.stdout\\n")
        sys.stdout.buffer.write(b"LOUD bytes\\n")
        os.write(1, b"LOUD by number\\n")
        ctypes.CDLL(None).puts(b"LOUD from C")
        subprocess.run([sys.executable, "-S", "-c", "print('LOUD other program')"])
        if hasattr(os, "fork"):
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join()
        self.c = nn.Conv2d(3, 8, 3, 2, 1)
        self.f = nn.Linear(8, 3)
    def forward(self, x):
        print("LOUD in forward", tuple(x.shape))
        warnings.simplefilter("always")
        warnings.warn("LOUD warning", DeprecationWarning)
        return self.f(self.c(x).relu().mean((2, 3)))
"""


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loud")
    (folder / "loud.py").write_text(LOUD)
    (folder / "loud.toml").write_text("size = 32\n")
    return folder


def command(folder, *arguments, module="phosphene", **changes):
    """A command of its own process: its status, and the bytes that it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment |= {"PYTHONPATH": str(Path(phosphene.__file__).parents[1]), "OMP_NUM_THREADS": "1", **changes}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=folder, env=environment, capture_output=True,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


NET = ("-n", "loud.py:Net")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("layers", *NET), ("doctor", *NET), ("classes", "1", *NET, "--steps", "1")],
    ids=["layers", "doctor", "classes"],
)
def test_what_a_network_prints_goes_to_standard_error(arguments, loud):
    status, out, err = command(loud, *arguments, "--json")
    assert status in (0, 1), err
    json.loads(out)
    for where in (
        "at import", "in the constructor", "written", "past sys.stdout", "bytes", "by number", "from C",
        "other program", "child", "in forward",
    ):  # fmt: skip
        assert f"LOUD {where}".encode() in err
    assert b"warning" not in err


@pytest.mark.slow
def test_a_quiet_command_prints_nothing_whatever_its_network_prints(loud):
    status, out, err = command(loud, "classes", "1", *NET, "--steps", "1", "-q")
    assert (status, out) == (0, b""), err


@pytest.mark.slow
def test_what_a_network_prints_is_kept_apart_where_standard_error_is_closed(loud):
    loud.joinpath("prints.py").write_text(
        "from torch import nn\nprint('LOUD')\nNet = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
    )
    line = f'exec "{sys.executable}" -m phosphene layers -n prints.py:Net --json 2>&-'
    environment = os.environ | {"PYTHONPATH": str(Path(phosphene.__file__).parents[1])}
    done = subprocess.run(["sh", "-c", line], cwd=loud, env=environment, stdout=subprocess.PIPE, timeout=120)
    json.loads(done.stdout)


def test_every_verb_prints_to_its_own_console():
    """`print` to sys.stdout is what networks do, and goes to standard error."""
    for path in Path(phosphene.__file__).parent.joinpath("cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert "file" in [word.arg for word in node.keywords], f"{path.name}:{node.lineno}"


@pytest.mark.slow
def test_warnings_are_shown_where_they_are_asked_for(loud):
    _, _, err = command(loud, "layers", *NET, "--json", PYTHONWARNINGS="always")
    assert b"LOUD warning" in err


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("ascii", ("classes", "--help")),
        ("ascii", ("recipes", "--fields")),
        pytest.param("ascii", ("classes", "1", *NET, "--steps", "1"), marks=pytest.mark.slow),
        pytest.param("cp1252", ("doctor", *NET), marks=pytest.mark.slow),
        pytest.param("cp1252", ("layers", "-n", "Größe … \u0663\U0001f600"), marks=pytest.mark.slow),
    ],
)
def test_letters_that_a_terminal_does_not_have_are_replaced(arguments, encoding, loud):
    status, out, err = command(loud, *arguments, PYTHONIOENCODING=encoding)
    assert status in (0, 1, 2)
    assert b"Traceback" not in err
    out.decode(encoding)
    err.decode(encoding)


def test_names_that_are_no_text_are_shown(loud):
    status, _, err = command(loud, "show", os.fsdecode(b"caf\xe9.png"))
    assert status == 2
    assert b"Traceback" not in err


TINY = "from torch import nn\ndef Net(): return nn.Sequential(nn.Conv2d(3, {}, 3), nn.ReLU())\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes files, and opens what is in them."""

    def opened(spelled, **texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return phosphene.open(spelled, phosphene.Preprocessing(size=16))

    monkeypatch.chdir(tmp_path)
    return opened


@pytest.mark.parametrize("name", ["random", "keras", "queue"])
def test_a_file_may_be_named_like_a_library(own, name):
    before = sys.modules.get(name)
    assert own(f"{name}.py:Net", **{name: TINY.format(5)}).layers[0].channels == 5
    assert sys.modules.get(name) is before


def test_two_files_of_one_name_are_two(own):
    assert own("a/model.py:Net", a__in__model=TINY.format(5)).layers[0].channels == 5
    assert own("b/model.py:Net", b__in__model=TINY.format(6)).layers[0].channels == 6
    assert own("a/model.py:Net", a__in__model=TINY.format(7)).layers[0].channels == 7


def test_a_file_of_a_package_is_opened_as_a_part_of_it(own):
    net = "from .width import W\n" + TINY.format("W")
    opened = own("pkg/net.py:Net", pkg__in____init__="", pkg__in__width="W = 5\n", pkg__in__net=net)
    assert opened.layers[0].channels == 5


def test_a_package_may_be_named_like_a_library(own):
    net = "from .width import W\n" + TINY.format("W")
    opened = own("timm/net.py:Net", timm__in____init__="", timm__in__width="W = 5\n", timm__in__net=net)
    assert opened.layers[0].channels == 5
    import timm

    assert timm.list_models


@pytest.mark.parametrize(
    ("spelled", "text", "sentence"),
    [
        ("net.py", TINY.format(5), "expected net.py:NAME, such as net.py:Net"),
        ("none.py", "", "there is no such file"),
        ("net.py:Net(10)", TINY.format(5), r"`def net\(\): return Net\(10\)` in net.py"),
        ("net.py:Net", "def Net(classes, width=3): pass\n", "it needs classes; .*Net.classes="),
        ("net.py:Net", "import sys\nsys.exit('no GPU')\n", r"ends the program \(no GPU\) where it is imported"),
        ("net.py:Net", "def Net(): raise SystemExit\n", "ends the program: expected a function"),
        ("net:Net", "raise SystemExit\n", "'net' ends the program"),
        ("net.py:Net", "from .width import W\n", "expected an __init__.py"),
        ("net.py:nn.Nothing", TINY.format(5), "net.py has no 'nn.Nothing'"),
    ],
)
def test_files_of_ones_own_are_refused_in_a_sentence(own, spelled, text, sentence):
    sys.modules.pop("net", None)
    with pytest.raises(phosphene.InputError, match=sentence):
        own(spelled, net=text)


def test_a_file_does_not_read_the_arguments_of_phosphene(own, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["phosphene", "layers", "--json"])
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr')\np.parse_args()\n"
    assert own("net.py:Net", net=text + TINY.format(5)).layers[0].channels == 5
    assert sys.argv == ["phosphene", "layers", "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["phosphene", "phosphene.cli"])
def test_a_file_named_like_a_library_is_not_imported_by_one(module, tmp_path):
    for name in ("random", "typing", "queue"):
        (tmp_path / f"{name}.py").write_text(TINY.format(5))
    status, out, err = command(tmp_path, "layers", "-n", "random.py:Net", "--json", module=module)
    assert status == 0, err
    assert json.loads(out)[0]["channels"] == 5


def test_the_versions_of_python_are_the_same_everywhere():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    listed = [line.rpartition(" :: ")[2] for line in project["project"]["classifiers"] if "Python :: 3." in line]
    assert listed == ["3.11", "3.12", "3.13", "3.14"]
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert "3.11\N{EN DASH}3.14" in (root / "README.md").read_text(encoding="utf-8")
    assert not [name for name in project["project"]["dependencies"] if "python_version" in name]
