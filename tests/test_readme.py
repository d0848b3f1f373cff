"""What the README shows, runs."""

import re
from pathlib import Path

import pytest

import phosphene
from phosphene.cli.parser import VERBS
from phosphene.recipes.files import recipe_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_examples_run(tmp_path, monkeypatch):
    """As written, but for the number of steps."""

    def ascend(network, units, recipe, **options):
        recipe = phosphene.Recipe.load(recipe) if isinstance(recipe, str) else recipe
        return real(network, units, recipe.override({"steps": 4}), **options)

    real = phosphene.ascend
    monkeypatch.setattr(phosphene, "ascend", ascend)
    monkeypatch.chdir(tmp_path)
    names = {}
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(block, names)
    assert {"130_flamingo.png", "grid.png", "objective.png", "run.json"} <= {path.name for path in tmp_path.rglob("*")}
    assert "efficientnet_lite1" in names["cards"][0]["judges"]


def test_the_command_that_ci_runs_is_the_readmes():
    command = 'python -m pip install -e ".[test]"'
    assert f"{command} && pytest -n 2\n" in README
    assert f"grep -m 1 -F '{command}' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        file = page.parent / place if place else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_picture_of_the_docs_is_shown_somewhere():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".jpg", ".png", ".gif", ".svg")]
    assert [path.name for path in pictures if path.name not in pages] == []


def test_every_command_is_told_of():
    told = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`phosphene {verb}" not in told and f"`{verb}" not in told] == []


def test_every_recipe_that_ships_is_told_of():
    told = (
        (ROOT / "docs" / "recipes.md")
        .read_text(encoding="utf-8")
        .replace("`yosinski-a` … `yosinski-d`", "`yosinski-a` `yosinski-b` `yosinski-c` `yosinski-d`")
    )
    assert all(f"`{name}`" in told for name in recipe_names())
