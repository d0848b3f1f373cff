"""Every command of docs/depth.md and docs/compare-pictures.md runs, as written, in its order, and their Python too."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phosphene
from phosphene.cli.program import main

FOLDER = Path(__file__).resolve().parents[1] / "docs"
SHORT = {"classes": ["--steps", "1"], "compare": ["--steps", "1"]}


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (FOLDER / page).read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run_python(page: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (FOLDER / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    return names


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Photographs in two folders with a table of labels, birds, others, and a flamingo."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)

    def write(path: Path, low: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(low, low + 130, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(path)

    lines = ["file,label"]
    for index in range(20):
        name = f"{'ab'[index % 2]}/{index}.png"
        write(Path("photographs") / name, 120 * (index % 2))
        lines.append(f"{name},{'ab'[index % 2]}")
    Path("labels.csv").write_text("\n".join(lines))
    for index in range(6):
        write(Path(f"birds/{index}.png"), 0)
        write(Path(f"others/{index}.png"), 120)
    write(Path("flamingo.jpg"), 60)
    return tmp_path


@pytest.fixture
def _one_network(monkeypatch, lite0):
    from phosphene.networks import open as opening

    real = opening.open_network

    def open_once(*given, **options):
        bundled = given[:1] == ("efficientnet_lite0",) and not any((*given[1:], *options.values()))
        return lite0 if bundled else real(*given, **options)

    monkeypatch.setattr(opening, "open_network", open_once)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_network")
def test_the_commands_and_the_python_of_the_page_on_depth(files):
    found = commands("depth.md")
    assert len(found) > 3
    for command in found:
        assert main([*shlex.split(command)[1:], "-q"]) == 0, command
    assert (files / "phosphene-out" / "latest" / "head.safetensors").is_file()
    names = run_python("depth.md")
    assert names["report"].cut.layer == "blocks.5"
    assert (files / "out" / "depth.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("_one_network")
def test_the_commands_and_the_python_of_the_page_on_pictures(files, monkeypatch):
    for command in commands("compare-pictures.md"):
        words = shlex.split(command)[1:]
        assert main([*words, *SHORT[words[0]], "-q"]) == 0, command
    assert len(list((files / "phosphene-out").glob("0*/channels/*.png"))) == 8
    from phosphene.recipes.recipe import Recipe

    real = phosphene.MatchSettings
    quick = Recipe.load("invert").override({"steps": 1})
    monkeypatch.setattr(phosphene, "MatchSettings", lambda *given, **named: real(*given, **named, recipe=quick))
    names = run_python("compare-pictures.md")
    assert names["found"].match is not None
    assert (files / "out" / "compare.json").is_file()
