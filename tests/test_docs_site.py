"""The site of docs/: Sphinx builds it without a warning, and every public name and every command is in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import phosphene
from phosphene.cli.parser import ATLAS_VERBS, VERBS, verb_parser

ROOT = Path(__file__).resolve().parents[1]
NAMES = [*phosphene.__all__, "open", "show"]


def test_every_public_name_has_its_place_in_the_reference():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    placed = re.findall(r"^\.\. auto(?:function|class):: phosphene\.(\w+)$", pages, re.MULTILINE)
    assert sorted(placed) == sorted(NAMES)


@pytest.mark.parametrize("verb", [*sorted(VERBS.keys() - {"atlas"}), *(f"atlas {verb}" for verb in ATLAS_VERBS)])
def test_the_parser_of_a_verb_has_its_arguments(verb):
    parser = verb_parser(verb)
    assert parser.prog == f"phosphene {verb}"
    assert len(parser._actions) > 1  # more than --help


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_is_whole(tmp_path):
    pytest.importorskip("myst_nb", reason='needs pip install "phosphene[docs]"')
    pytest.importorskip("pydata_sphinx_theme", reason='needs pip install "phosphene[docs]"')
    site = tmp_path / "site"
    words = ["-W", "-q", "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(site)]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_names(site)
    check_commands(site)
    check_links(site)


def check_names(site):
    """Every public name is on a page of the reference."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    assert [name for name in NAMES if f'id="phosphene.{name}"' not in pages] == []


def check_commands(site):
    """Every command has a page with its options."""
    for verb in [*(set(VERBS) - {"atlas"}), *(f"atlas {verb}" for verb in ATLAS_VERBS)]:
        page = (site / "reference" / "commands" / f"{verb.replace(' ', '-')}.html").read_text(encoding="utf-8")
        options = {option for action in verb_parser(verb)._actions for option in action.option_strings}
        assert [option for option in options - {"-h", "--help"} if f">{option}<" not in page] == [], verb


def check_links(site):
    """Every page can be reached from the first, and none asks for anything elsewhere."""
    pages = {path for path in site.rglob("*.html") if "_static" not in path.parts}
    seen, todo = set(), [site / "index.html"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="https?:[^"]*"', text) == [], page
        links = re.findall(r'<a [^>]*href="([^"#:]+\.html)', text)
        targets = [(page.parent / link).resolve() for link in links]
        assert [link for link, target in zip(links, targets, strict=True) if not target.is_file()] == [], page
        todo += targets
    generated = {site / f"{name}.html" for name in ("genindex", "search", "py-modindex")}
    assert pages - generated <= seen
