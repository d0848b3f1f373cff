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


@pytest.mark.parametrize("verb", [*(set(VERBS) - {"atlas"}), *(f"atlas {verb}" for verb in ATLAS_VERBS)])
def test_the_parser_of_a_verb_has_its_arguments(verb):
    parser = verb_parser(verb)
    assert parser.prog == f"phosphene {verb}"
    assert len(parser._actions) > 1  # more than --help


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("myst_nb", reason='needs pip install "phosphene[docs]"')
    pytest.importorskip("pydata_sphinx_theme", reason='needs pip install "phosphene[docs]"')
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "-q", "-d", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_has_every_public_name(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    assert [name for name in NAMES if f'id="phosphene.{name}"' not in pages] == []


@pytest.mark.slow
def test_the_site_has_a_page_for_every_command(site):
    for verb in [*(set(VERBS) - {"atlas"}), *(f"atlas {verb}" for verb in ATLAS_VERBS)]:
        page = (site / "reference" / "commands" / f"{verb.replace(' ', '-')}.html").read_text(encoding="utf-8")
        options = {option for action in verb_parser(verb)._actions for option in action.option_strings}
        assert [option for option in options - {"-h", "--help"} if f">{option}<" not in page] == [], verb


@pytest.mark.slow
def test_every_page_can_be_reached_and_asks_for_nothing_elsewhere(site):
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
