"""A folder for each run, and its page."""

import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import SHALLOW, opened, written_network
from torch import nn

import phosphene
from phosphene.cli.program import main
from phosphene.run_folders import run_folder
from phosphene.run_page import write_page


def test_runs_are_numbered_and_latest_leads_to_the_last(tmp_path):
    root = tmp_path / "out"
    folders = [run_folder(None, verb, root) for verb in ("classes", "filters", "classes")]
    assert [folder.name for folder in folders] == ["001-classes", "002-filters", "003-classes"]
    assert (root / "latest").resolve() == folders[-1].resolve()


def test_many_at_once_never_share_a_folder(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(run_folder(None, "classes", tmp_path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16


def test_a_folder_that_holds_another_run_stays_as_it_is(tmp_path):
    given = tmp_path / "mine"
    assert run_folder(given, "classes") == given
    assert run_folder(given, "classes") == given, "nothing was recorded there yet"
    for expected in ("mine-2", "mine-3"):
        run_folder(given, "classes").joinpath("run.json").write_text("{}")
        assert run_folder(given, "classes").name == expected


def test_a_latest_of_the_users_own_stays(tmp_path):
    (tmp_path / "latest").mkdir()
    run_folder(None, "classes", tmp_path)
    assert not (tmp_path / "latest").is_symlink()


def test_two_commands_keep_both_their_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-n", written_network(tmp_path, "net", 0, SHALLOW), "-r", "naive", "--steps", "1"]
    for index in ("1", "2"):
        assert main(["classes", index, *words]) == 0
    first, second = (json.loads(path.read_text()) for path in sorted(Path("phosphene-out").glob("0*/run.json")))
    assert [run["pictures"][0]["unit"] for run in (first, second)] == ["class:1", "class:2"]
    assert main(["classes", "3", *words, "-o", "phosphene-out/001-classes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]).rpartition("}")[0] + "}")
    assert told["folder"] == str(Path("phosphene-out/001-classes-2"))
    assert json.loads(Path("phosphene-out/001-classes/run.json").read_text()) == first


@pytest.fixture(scope="module")
def network():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return opened(body, labels=["a <b>bold</b> class", "two", "three"])


def test_the_page_has_all_in_it_and_nothing_is_taken_for_markup(tmp_path, network):
    start = np.full((24, 24, 3), 90, dtype=np.uint8)
    recipe = phosphene.Recipe.load("naive").override({"steps": 2, "start.kind": "image"})
    result = phosphene.ascend(network, ["class:0", "class:1"], recipe, start=start)
    result.save(tmp_path)
    page = write_page(result, tmp_path, ["classes", "0", "it's", "-o", "<out>"]).read_text()
    assert "<b>bold" not in page
    assert "a &lt;b&gt;bold&lt;/b&gt; class" in page
    assert page.count('src="data:image/png;base64,') == 2 * 2 + 1, "each with its original, and the plot"
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "phosphene classes 0" in page
    assert "&lt;out&gt;" in page
    assert recipe.description.partition(":")[0] in page
    for picture in result:
        assert f"{picture.scores['probability']:.1%}" in page


def test_open_shows_the_page(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    words = ["-n", written_network(tmp_path, "net", 0, SHALLOW), "-r", "naive", "--steps", "1"]
    assert main(["classes", "1", *words, "-o", str(tmp_path / "out"), "--open"]) == 0
    assert shown == [(tmp_path / "out" / "index.html").resolve().as_uri()]


def test_judge_leaves_the_sheets_of_a_run_out(tmp_path, capsys):
    words = ["-n", written_network(tmp_path, "net", 0, SHALLOW), "-r", "naive", "--steps", "1"]
    assert main(["classes", "1", "2", *words, "-o", str(tmp_path / "out")]) == 0
    files = sorted(map(str, (tmp_path / "out").glob("*.png")))
    assert len(files) == 4
    assert main(["judge", *files, "--judges", "none", "--trust"]) == 0
    told = capsys.readouterr().out
    assert "2 of the files are sheets" in told
    assert "the cards are in 2 images" in told
