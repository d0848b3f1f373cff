"""What the code of others does in a command: prints, warnings, odd terminals."""

import ast
import json
import os
import subprocess
import sys
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


def test_a_quiet_command_prints_nothing_whatever_its_network_prints(loud):
    status, out, err = command(loud, "classes", "1", *NET, "--steps", "1", "-q")
    assert (status, out) == (0, b""), err


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
    for path in Path(phosphene.__file__).parent.joinpath("cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert "file" in [word.arg for word in node.keywords], f"{path.name}:{node.lineno}"


def test_warnings_are_shown_where_they_are_asked_for(loud):
    _, _, err = command(loud, "layers", *NET, "--json", PYTHONWARNINGS="always")
    assert b"LOUD warning" in err


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("ascii", ("classes", "--help")),
        ("ascii", ("recipes", "--fields")),
        ("ascii", ("classes", "1", *NET, "--steps", "1")),
        ("cp1252", ("doctor", *NET)),
        ("cp1252", ("layers", "-n", "Größe … \u0663\U0001f600")),
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
